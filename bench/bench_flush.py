"""Shootdowns: a flush with so many targets, and flushes that meet in the call queues."""

import dataclasses

import pytest
import worlds


@pytest.mark.parametrize("targets", [1, 4, 15, 63, 255])
@pytest.mark.benchmark(group="flush: per flush of N targets, a fault included", disable_gc=True)
def test_flush(path, benchmark, targets):
    p = dataclasses.replace(worlds.PATHS["flush"], world=lambda: worlds.flushes(targets), warm=targets + 2)
    made = path(p, targets=targets)
    got = made.counted
    received = got["nr_tlb_remote_flush_received"]
    # a round may begin or end within a flush, and begins while the last targets start
    assert abs(got["flush_mm_targets"] - targets * got["flush_mm_remote"]) <= targets
    assert abs(received - got["flush_mm_targets"]) <= targets
    assert got["function_call_ipis"] == pytest.approx(received, abs=targets)    # nobody else sends
    if "median_ns_per_unit" in benchmark.extra_info:
        info = benchmark.extra_info
        info["median_ns_per_target"] = round(info["median_ns_per_unit"] / targets, 2)


@pytest.mark.parametrize("cpus", [4, 16, 64])
@pytest.mark.benchmark(group="call queues: per flush received, all CPUs sending", disable_gc=True)
def test_coalescing(path, cpus):
    p = worlds.PATHS["coalescing"]
    got = path(dataclasses.replace(p, world=lambda: worlds.storms(cpus), warm=20 * cpus)).counted
    assert got["function_call_ipis"] < 0.9 * got["nr_tlb_remote_flush_received"]
    assert got["flush_mm_targets"] == pytest.approx(got["nr_tlb_remote_flush_received"], abs=cpus * cpus)
