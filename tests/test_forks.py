"""fork as a pass of a program: folios that two mms map, and what reclaim does with them."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from reclaim import names
from reclaim.errors import SnapshotError, WorldError
from reclaim.simulation import Simulation
from reclaim.world import check
from reference.worlds import make_pass, make_passes, small_world
from test_threads import counters

KIND = {name: i for i, name in enumerate(names.PTE_KINDS)}
MS = 10**9


def fork_world(*, pages=600, limit=900, threads=1, loop=0, sync=True, seed=0, before=None, **fields):
    """A process that writes its pages, forks, and goes on beside its child."""
    parent = [make_pass("SEQ", write=1, nr=pages, count=pages), *(before or ()), make_pass("FORK", nr=pages),
              make_pass("RAND", write=2, nr=pages, count=3 * pages)]
    child = [make_pass("RAND", write=2, nr=pages, count=2 * pages)]
    helper = [make_pass("RAND", write=2, nr=pages, count=2 * pages)]
    cpus = threads + 1
    return small_world(**{
        "nr_cpus": cpus, "limit": limit, "nr_folios": limit + 64 * cpus + 256, "nr_slots": 4 * pages,
        "passes": make_passes([*parent, *child, *helper]), "mm_pages": (pages, pages),
        "mm_recency": (True, True),
        "mm_child": (1, -1), "task_mm": (0,) * threads + (1,), "task_cpu": (*range(threads), 0),
        "task_pinned": (False,) * cpus,
        "task_first_pass": (0, *(len(parent) + 1,) * (threads - 1), len(parent)),
        "task_nr_passes": (len(parent), *(1,) * (threads - 1), 1), "task_loop_to": (-1,) * cpus,
        "task_restart": (False,) * cpus, "swap_sync": sync, "seed": seed} | fields)


def run(world, policy="stage5", *, every=500, end=10**13, **options):
    """To its end, looked at now and then."""
    sim = Simulation(world, policy, **options)
    why = "budget"
    while why == "budget":
        why = sim._core.run(end, actions=every)
        sim.verify()
    return sim, why


def shared(sim):
    pte = sim.view("pte")
    kind, index = pte & np.uint64(7), (pte >> np.uint64(8)).astype(np.int64)
    half = len(pte) // 2
    same = (kind[:half] == kind[half:]) & (index[:half] == index[half:])
    return {name: int((same & (kind[:half] == KIND[name])).sum()) for name in ("PRESENT", "SWAP")}


def until_forked(world, policy="stage5"):
    """The state at which the fork has returned."""
    sim = Simulation(world, policy)
    while names.STEPS[sim.view("task")["step"][-1]] == "V_CHILD":
        assert sim._core.run(10**13, actions=1) == "budget"
    return sim


def test_parent_and_child_share_what_was_mapped():
    sim = until_forked(fork_world(pages=600, limit=4000))
    assert shared(sim) == {"PRESENT": 600, "SWAP": 0}
    folios = sim.view("folio")
    assert (folios["mapcount"] == 2).sum() == 600
    pte = sim.view("pte")
    assert not (pte & np.uint64(1 << 5 | 1 << 6)).any()          # neither writes, neither is exclusive
    assert (sim.view("mm")["rss"] == 600).all()
    sim.verify()


def test_swap_entries_are_shared():
    sim = until_forked(fork_world(pages=600, limit=500))
    both = shared(sim)
    assert both["SWAP"] > 100
    counts = sim.view("slot_count") & 0x3f
    assert (counts == 2).sum() == both["SWAP"]
    sim.verify()


def test_who_writes_first_copies_and_the_other_keeps_the_page():
    sim, why = run(fork_world(pages=100, limit=4000))
    assert why == "finished"
    assert counters(sim)["pgreuse"] > 0
    assert counters(sim)["pgfault"] > 100 + 100


@pytest.mark.parametrize("policy", ["stage0", "stage5"])
@pytest.mark.parametrize("world", [
    {}, {"threads": 2}, {"sync": False}, {"threads": 2, "sync": False}, {"threads": 3, "limit": 700},
    {"swapin_cached": True}, {"cgroup": 1, "sync": False}, {"nr_slots": 500, "pages": 300, "limit": 420},
    {"sync": False, "rotational": True}], ids=str)
def test_reclaim_of_shared_folios_is_sound(world, policy):
    """Every reference and mapping is accounted for, all along; nothing is left at the end."""
    sim, why = run(fork_world(**world), policy, every=997)
    assert why == "finished"
    assert counters(sim)["pswpout"] > 100
    assert counters(sim)["memcg_oom_kill"] == 0 or "nr_slots" in world


@pytest.mark.parametrize("world", [{}, {"threads": 2}, {"sync": False}], ids=str)
def test_checked_runs_are_clean(world):
    """No store of one is seen by the other, none is lost."""
    checked, why = run(fork_world(**world), every=10**6, check=True)
    assert why == "finished"
    assert run(fork_world(**world), every=10**6)[0].digest() == checked.digest()


def test_snapshots_go_on_alike():
    world = fork_world(threads=2)
    whole = run(world, every=10**6)[0].digest()
    sim = Simulation(world, "stage5")
    for _ in range(40):
        why = sim._core.run(10**13, actions=701)
        other = Simulation(world, "stage5")
        other.restore(pickle.loads(pickle.dumps(sim.snapshot())))
        sim = other
        if why != "budget":
            break
    while sim._core.run(10**13, actions=10**6) == "budget":
        pass
    assert sim.digest() == whole


def test_a_child_is_forked_once():
    world = fork_world(before=[make_pass("FORK", nr=600)])
    sim, why = run(world, every=10**6)
    assert why == "finished"


def test_a_range_that_is_not_the_whole():
    sim = until_forked(fork_world(pages=600, limit=4000, passes=make_passes([
        make_pass("SEQ", write=1, nr=600, count=600), make_pass("FORK", first=100, nr=450),
        make_pass("RAND", nr=600, count=9), make_pass("RAND", nr=600, count=9), make_pass("RAND", nr=600)])))
    assert shared(sim) == {"PRESENT": 450, "SWAP": 0}
    sim.verify()


@pytest.mark.parametrize("wrong", [
    {"mm_child": (1,)}, {"mm_child": (0, -1)}, {"mm_child": (1, 0)}, {"mm_child": (-1, -1)},
    {"mm_child": (2, -1)}, {"mm_child": 3}, {"mm_pages": (600, 500)}, {"task_restart": (False, True)}, {"lru": 1}], ids=str)
def test_worlds_that_cannot_fork(wrong):
    with pytest.raises(WorldError):
        check(dataclasses.replace(fork_world(), **wrong))


def test_moves_and_forks_exclude_each_other():
    with pytest.raises(WorldError, match="mm_child"):
        check(fork_world(before=[make_pass("MREMAP", nr=10, stride=10)]))


@pytest.mark.parametrize("table, field, row, value", [
    ("mm", "peer", 0, -1), ("mm", "is_child", 0, 1), ("task", "rmap", 0, 9), ("folio", "mapcount", 0, 2),
    ("task", "state", 1, 0), ("task", "dying", 1, 1)])
def test_foreign_snapshots_are_refused(table, field, row, value):
    sim = Simulation(fork_world(), "stage5")
    sim._core.run(10**13, actions=300)
    assert names.STEPS[sim.view("task")["step"][1]] == "V_CHILD"
    data = bytearray(sim._core.snapshot())
    offset, dtype, count = sim._core.tables[table]
    rows = np.frombuffer(data, dtype=dtype, count=count, offset=offset)
    rows[field][row] = value
    from reclaim.audit import audit
    with pytest.raises(SnapshotError):
        audit(sim, bytes(data))
