"""Touches: those that hit the TLB, and those that miss it but find their page present."""

import dataclasses

import pytest
import worlds


@pytest.mark.parametrize("cpus", [1, 16])
@pytest.mark.parametrize("write", [0, 1], ids=["read", "write"])
@pytest.mark.benchmark(group="touch: TLB hit", disable_gc=True)
def test_hit(path, cpus, write):
    p = dataclasses.replace(worlds.PATHS["tlb_hit"], world=lambda: worlds.hits(cpus=cpus, write=write))
    made = path(p)
    got = made.counted
    assert got["pgfault"] == 0
    assert got["page_touches"] >= 0.99 * made.actions        # the rest: ticks


@pytest.mark.parametrize("order", ["tlb_miss", "tlb_miss_random"])
@pytest.mark.benchmark(group="touch: TLB miss, page present, 2 GiB", disable_gc=True)
def test_miss(path, order):
    made = path(worlds.PATHS[order])
    got = made.counted
    assert got["pgfault"] == got["pgscan_anon"] == 0
    assert got["page_touches"] >= 0.99 * made.actions
    walks = int(made.sim.view("time").reshape(16, -1)[:, worlds.names.TIMES.index("walk")].sum())
    assert walks > 0
