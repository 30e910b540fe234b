"""Whole scenarios: `batch-tlb-flush` on more and fewer CPUs, in memory of one size."""

import pytest
import worlds

@pytest.mark.parametrize("policy", ["stage0", "stage5"])
@pytest.mark.parametrize("cpus", [2, 16, 64, 256, 512])
@pytest.mark.benchmark(group="batch-tlb-flush: per folio reclaimed", disable_gc=True)
def test_scenario(path, cpus, policy):
    made = path(worlds.steady(cpus, policy=policy))
    got = made.counted
    assert got["pgscan_anon"] >= got["pgsteal_anon"] > 0
    assert got["memcg_oom_kill"] == 0
    assert (got["flush_batches"] > 0) == (policy == "stage5")
    used = int(made.sim.view("memcg")["usage"][0])
    assert used <= made.sim.world.limit
