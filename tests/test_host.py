"""Host CPUs that run the simulated CPUs in turn (docs/model.md 5.11)."""

from __future__ import annotations

import numpy as np
import pytest

from reclaim import Scenario, names
from reclaim.errors import ScenarioError
from reclaim.simulation import Simulation

MS = 10**9
BASE = {"machine": {"cpus": 4, "pcid": False}, "kernel": {"version": "6.12", "mm_cpumask": "eager"},
        "memcg": {"limit": "8M", "kernel": 0},
        "workload": {"kind": "writer", "workers": 4, "bytes": "32M"}}


def simulate(*, ms: int = 100, policy: str = "stage0", **machine) -> Simulation:
    scenario = Scenario.from_dict(BASE | {"machine": BASE["machine"] | machine})
    sim = Simulation(scenario.lower(), policy)
    sim._core.run(ms * MS, actions=1 << 40)
    sim.verify()
    return sim


def counters(sim: Simulation) -> dict[str, int]:
    return dict(zip(names.COUNTERS, sim.view("counter").tolist(), strict=True))


def times(sim: Simulation) -> np.ndarray:
    return sim.view("time").reshape(-1, len(names.TIMES)).sum(axis=0)


def test_one_host_cpu_runs_one_cpu_at_a_time():
    sim = simulate(host_cpus=1)
    spent = dict(zip(names.TIMES, times(sim).tolist(), strict=True))
    waiting = sum(spent[name] for name in ("flush_wait", "lock_wait", "idle", "steal"))
    worked = sum(spent.values()) - waiting
    assert 0.8 * 100 * MS < worked <= 101 * MS           # of one CPU's time, not of four
    assert spent["steal"] > 2 * 100 * MS
    assert counters(sim)["vcpu_switches"] > 100


def test_as_many_host_cpus_as_cpus():
    """Each CPU alone on its host CPU loses no time; only a spinning one yields, to nobody."""
    own, alone = simulate(), simulate(host_cpus=4)
    assert counters(alone)["vcpu_switches"] == 0
    assert dict(zip(names.TIMES, times(alone).tolist(), strict=True))["steal"] == 0
    assert counters(own) == counters(alone)


def test_call_queues_coalesce_more_behind_one_host_cpu():
    def ipis(sim: Simulation) -> float:
        found = counters(sim)
        return found["function_call_ipis"] / found["nr_tlb_remote_flush_received"]

    assert ipis(simulate(host_cpus=1)) < ipis(simulate())


def test_a_flush_is_left_to_the_host():
    sent, left = simulate(host_cpus=1), simulate(host_cpus=1, pv_flush=True)
    assert counters(sent)["pv_flushes"] == 0 < counters(left)["pv_flushes"]
    # the sender runs, so on one host CPU no target does
    assert counters(left)["function_call_ipis"] == 0 < counters(sent)["function_call_ipis"]


@pytest.mark.parametrize("policy", [f"stage{i}" for i in range(1, 5)])
def test_stages_before_the_last_are_one(policy):
    assert simulate(host_cpus=2, policy=policy).digest() == simulate(host_cpus=2).digest()


def test_cut_into_pieces():
    whole = simulate(host_cpus=1)
    scenario = Scenario.from_dict(BASE | {"machine": BASE["machine"] | {"host_cpus": 1}})
    world = scenario.lower()
    sim = Simulation(world, "stage0")
    for ms in range(7, 101, 7):
        sim._core.run(ms * MS, actions=1 << 40)
        sim, data = Simulation(world, "stage0"), sim.snapshot()
        sim.restore(data)
    sim._core.run(100 * MS, actions=1 << 40)
    assert sim.digest() == whole.digest()


def test_refused():
    with pytest.raises(ScenarioError, match="machine.host_cpus = 5.*at most machine.cpus, 4"):
        Scenario.from_dict({"machine": {"cpus": 4, "host_cpus": 5}})
    with pytest.raises(ScenarioError, match="machine.pv_flush = true: read only when"):
        Scenario.from_dict({"machine": {"pv_flush": True}})


def test_the_profile_of_such_a_guest():
    """tcg-rr on one host CPU: a CPU is stopped by ticks and by flushes, and one works at a time."""
    ms, per_page = 2000, []
    for stage in "stage0", "stage5":
        sim = simulate(ms=ms, policy=stage, host_cpus=1, profile="tcg-rr")
        found, spent = counters(sim), dict(zip(names.TIMES, times(sim).tolist(), strict=True))
        worked = sum(spent.values()) - sum(spent[x] for x in ("flush_wait", "lock_wait", "idle", "steal"))
        assert worked <= (ms + 1) * MS
        assert found["pgsteal_anon"] > 10_000 and found["ticks"] >= ms and found["function_call_ipis"] > 0
        assert found["vcpu_switches"] >= ms
        per_page.append(found["nr_tlb_remote_flush_received"] / found["pgsteal_anon"])
    assert per_page[1] < per_page[0]
