"""How fast the core is; a fast wrong answer fails.

`python -m pytest bench` measures, with `--benchmark-disable` it only checks the counts.
"""

from __future__ import annotations

import pytest

from reclaim.policies.flush import BatchFlush, PyFlushPolicy
from reclaim.scenario import Scenario
from reclaim.simulation import Simulation

SECONDS = 0.1
SMALL = Scenario.load("small")


class EveryN(PyFlushPolicy):
    """BatchFlush(31) in Python."""

    name = "bench-every-31"

    def plan_list(self, pfns, flags, flush_after):
        flush_after[30::31] = True


def measure(benchmark, policy, rounds=5):
    """Run `small` from its start; its counters.  Building it is not measured."""
    result = benchmark.pedantic(lambda sim: sim.run(SECONDS), rounds=rounds,
                                setup=lambda: ((Simulation(SMALL, policy),), {}))
    if benchmark.stats is not None:
        best = benchmark.stats.stats.min
        benchmark.extra_info["folios"] = result.counters["pgsteal_anon"]
        benchmark.extra_info["ns_per_folio"] = best * 1e9 / result.counters["pgsteal_anon"]
        benchmark.extra_info["ns_per_touch"] = best * 1e9 / result.counters["page_touches"]
    return result


@pytest.mark.parametrize("policy", ["stage0", "stage5"])
@pytest.mark.benchmark(group="small", disable_gc=True, warmup=False)
def test_stage(benchmark, policy):
    got = measure(benchmark, policy).counters
    assert got["pgsteal_anon"] > 10_000
    assert got["pgscan_anon"] >= got["pgsteal_anon"]
    batches = got["flush_batches"]
    assert batches == 0 if policy == "stage0" else 0 < batches <= got["folios_batched"]


@pytest.mark.parametrize("policy", [BatchFlush(31), EveryN()], ids=["compiled", "python"])
@pytest.mark.benchmark(group="flush-policy", disable_gc=True, warmup=False)
def test_flush_policy(benchmark, policy):
    got = measure(benchmark, policy)
    assert got.counters["shrink_folio_list_calls"] > 300
    assert got.digest == Simulation(SMALL, "stage5").run(SECONDS).digest


@pytest.mark.benchmark(group="snapshot", disable_gc=True, warmup=False)
def test_snapshot_and_restore(benchmark):
    sim = Simulation(SMALL, "stage5")
    sim.run(SECONDS)
    digest = sim.digest()
    snapshot = sim.snapshot()
    benchmark(lambda: sim.restore(sim.snapshot()))
    benchmark.extra_info["bytes"] = len(snapshot._data)
    assert sim.digest() == digest
    sim.run(2 * SECONDS)
    sim.restore(snapshot)
    assert sim.digest() == digest
