"""Kernel threads bound to a CPU (docs/model.md 3, "Bound kernel threads")."""

import dataclasses

import numpy as np
import pytest

from reclaim import world as worlds
from reclaim.errors import SnapshotError, WorldError
from reclaim.simulation import Simulation
from reference.worlds import make_pass, make_passes, small_world

TICK = 10**9


def run(seconds, policy="stage5", **fields):
    """The counters of a small world with kworkers, and the simulation."""
    simulation = Simulation(small_world(**{"kworkers": True} | fields), policy)
    counters = simulation.run(seconds).counters
    simulation.verify()
    return counters, simulation


def without_reclaim(cpus=4, tasks=4, **fields):
    """Tasks that touch a page in 20 us, below their limit."""
    rows = make_passes([make_pass("SEQ", nr=16, count=1000, think=2 * 10**7)])
    return dict(nr_cpus=cpus, mm_pages=(16,) * tasks, limit=4000, nr_folios=8000, tick=TICK, passes=rows,
                task_first_pass=(0,) * tasks, task_nr_passes=(1,) * tasks,
                task_cpu=tuple(t % cpus for t in range(tasks)), **fields)


def test_vmstat_updates_come_once_a_second_on_every_busy_cpu():
    counters, simulation = run(3.0005, **without_reclaim(cpus=5))
    assert counters["vmstat_updates"] == 4 * 3                     # the fifth is idle
    assert simulation.view("cpu")["vmstat_at"].tolist()[:4] == [4 * 10**12 - 3 * c * TICK for c in range(4)]
    assert counters["memcg_notifies"] == counters["vmpressures"] == 0


def test_memory_events_are_notified_after_eleven_ticks():
    counters, _ = run(0.3)
    assert counters["memcg_max"] > 5 * counters["memcg_notifies"]
    assert run(0.3, cgroup=1)[0]["memcg_notifies"] == 0
    counters, _ = run(0.3, cgroup=2)
    assert 0.3 / 0.013 < counters["memcg_notifies"] <= 0.3 / 0.011 + 1
    assert counters["memcg_max"] > 2 * counters["memcg_notifies"]


@pytest.mark.parametrize("cgroup", [1, 2])
def test_vmpressure_works_each_512_scanned(cgroup):
    """A window goes on until its work has run; both versions of cgroups have it."""
    big = dict(mm_pages=(4000, 4000), limit=5200, nr_folios=8000, nr_slots=16384)      # priorities 4 to 12 do
    counters, _ = run(2.0, cgroup=cgroup, slice_ticks=1, swappiness=200, **big)
    assert counters["pgscan_anon"] > 20 * 512
    assert 0.5 < counters["vmpressures"] * 512 / counters["pgscan_anon"] < 1.001


def test_deep_priorities_are_pressure_of_their_own():
    counters, _ = run(0.1)
    assert counters["vmpressures"] > 5 * counters["pgscan_anon"] / 512


def test_without_kworkers_only_stocks_are_drained():
    counters, simulation = run(0.3, cgroup=2, kworkers=False)
    assert counters["vmstat_updates"] == counters["memcg_notifies"] == counters["vmpressures"] == 0
    assert not simulation.view("cpu")["vmstat_at"].any() and simulation.view("memcg")["tree_scanned"][0] == 0
    assert set(simulation.view("cpu")["works"].tolist()) <= {0, 1}


def test_an_even_machine_is_disturbed():
    """Two tasks a CPU, the CPUs in turn on one: who waits for the ring is one more to the balancer."""
    rows = make_passes([make_pass("SEQ", write=1, nr=600, think=10**6)])
    fields = dict(nr_cpus=4, mm_pages=(600,) * 8, limit=2400, nr_folios=4800, nr_slots=9600, tick=TICK, host_cpus=1,
                  cgroup=2, balance=4 * TICK, swappiness=200, passes=rows, task_first_pass=(0,) * 8,
                  task_nr_passes=(1,) * 8, task_cpu=tuple(t % 4 for t in range(8)))
    assert run(2.0, kworkers=False, **fields)[0]["migrations"] == 0
    assert run(2.0, **fields)[0]["migrations"] > 2


@pytest.mark.parametrize("table, field, row, value, why", [
    ("cpu", "works", 0, 4, "NOTIFY"), ("cpu", "works", 1, 8, "VMPRESSURE"), ("memcg", "works", 0, 4, "NOTIFY"),
    ("memcg", "works", 0, 1, "for itself"), ("cpu", "works", 0, 16, "cpu.works"),
    ("memcg", "notify_cpu", 0, 2, "notify_cpu")])
def test_snapshots_with_works_that_nobody_queued(table, field, row, value, why):
    _, simulation = run(0.01)
    arena = bytearray(simulation._core.snapshot())
    offset, dtype, count = simulation._core.tables[table]
    rows = np.frombuffer(arena, dtype=dtype, count=count, offset=offset)
    assert not simulation.view("cpu")["works"].any(), "a moment without works is what the values are for"
    rows[field][row] = value
    from reclaim.audit import audit
    with pytest.raises(SnapshotError, match=why):
        audit(simulation, bytes(arena))


def test_the_switch_is_a_bool():
    with pytest.raises(WorldError, match="World.kworkers"):
        worlds.check(dataclasses.replace(small_world(), kworkers=2))
