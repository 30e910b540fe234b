"""Snapshots, pickles, pieces, ends of a run, views, and hand-made state."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import reclaim
from reclaim.errors import SnapshotError, WorldError
from reclaim.scenario import Scenario
from reclaim.simulation import PS_PER_S, Simulation, Snapshot
from reclaim.world import check
from reference.worlds import random_world, small_world
from threads import shared_writes, thread_world

WORLD = small_world(mm_pages=(96, 130, 110), nr_cpus=3, limit=230, nr_slots=320)
SECONDS = 0.02
SMALL = Scenario.load("small")


def script(code, *args, **options):
    """Run `code` in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(reclaim.__file__).parent.parent)])
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONPATH": path}, **options)


def whole(world=WORLD, policy="stage5", seconds=SECONDS):
    sim = Simulation(world, policy)
    sim.run(seconds)
    return sim.digest()


# --- pieces

@pytest.mark.parametrize("seed", range(8))
def test_random_pieces_give_the_digest_of_one_run(seed):
    world = WORLD if seed < 3 else random_world(seed)
    policy = f"stage{5 * (seed % 2)}"
    rng = random.Random(seed)
    sim, end = Simulation(world, policy), 30_000
    while end > 0:
        n = min(end, rng.choice([1, 2, 7, 100, 3000]))
        sim._core.run(1 << 52, actions=n, fuse=rng.random() < 0.7)
        end -= n
        what = rng.randrange(4)
        if what == 0:
            sim = pickle.loads(pickle.dumps(sim))
        elif what == 1:
            kept = sim.snapshot()
            sim._core.run(1 << 52, actions=rng.randrange(2000))
            sim.restore(kept)
        elif what == 2:
            other = Simulation(world, policy)
            other.restore(pickle.loads(pickle.dumps(sim.snapshot())))
            sim = other
    sim.verify()
    at_once = Simulation(world, policy)
    at_once._core.run(1 << 52, actions=30_000, fuse=False)
    assert sim.digest() == at_once.digest()
    assert sim.now_ps == at_once.now_ps


@pytest.mark.parametrize("stage", ["stage0", "stage5"])
def test_fusing_steps_changes_nothing(stage):
    a, b = Simulation(SMALL, stage), Simulation(SMALL, stage)
    assert a.run(0.01).digest == b.run(0.01, fuse=False).digest


def hot(seed, world):
    """That world, most of its touches hit: long passes over few pages, a large L1 TLB."""
    rng = random.Random(seed)
    passes = world.passes.copy()
    for row in passes:
        if row["kind"] < 3 and rng.random() < 0.7:
            row["nr"] = min(int(row["nr"]), rng.randint(1, 5))
            row["count"] = rng.randint(50, 2000)
            row["think"] = rng.choice([0, 1, 10**4, 10**5, 10**7])
    return dataclasses.replace(world, passes=passes, l1_sets=16, l1_ways=4)


def test_touches_made_ahead_change_nothing():
    """Runs of touches that hit, of any length, and one by one: every byte is the same."""
    ahead = back = 0
    for seed in range(90):
        world = hot(seed, random_world(seed) if seed < 60 else thread_world(seed))
        rng = random.Random(seed)
        policy = f"stage{5 * (seed % 2)}"
        a, b = Simulation(world, policy), Simulation(world, policy)
        for _ in range(6):
            n = rng.choice([3, 50, 700, 10_000])
            a._core.run(1 << 52, actions=n)
            b._core.run(1 << 52, actions=n, fuse=False)
            assert a.snapshot()._data == b.snapshot()._data, seed
        end = (a.now_ps or 0) + 5 * 10**8
        a._core.run(end)
        b._core.run(end, fuse=False)
        assert a.snapshot()._data == b.snapshot()._data, seed
        a.verify()
        ahead += a._core.touches_ahead[0]
        back += a._core.touches_ahead[1]
        assert b._core.touches_ahead == (0, 0)
    assert ahead > 100_000 and back > 1000


def walking(seed, world):
    """That world, few of its touches hit: one entry in the L1 TLB, few in L2; memory for nearly all pages."""
    rng = random.Random(seed)
    passes = world.passes.copy()
    for row in passes:
        if row["kind"] < 3:
            row["count"] = rng.randint(50, 2000)
            row["think"] = rng.choice([0, 1, 10**4, 10**5])
    limit = world.limit + rng.choice([0, sum(world.mm_pages) // 2, sum(world.mm_pages)])
    return dataclasses.replace(world, passes=passes, limit=limit, nr_folios=world.nr_folios + limit, l1_sets=1,
                               l1_ways=1, l2_sets=rng.choice([1, 2, 4]), l2_ways=rng.randint(1, 9))


def test_touches_that_walk_made_ahead_change_nothing():
    """The same where touches leave traces, until one that reclaims looks at them."""
    ahead = back = 0
    for seed in range(90):
        world = walking(seed, random_world(seed))
        rng = random.Random(seed)
        policy = f"stage{5 * (seed % 2)}"
        a, b = Simulation(world, policy), Simulation(world, policy)
        for _ in range(8):
            n = rng.choice([3, 50, 700, 10_000])
            a._core.run(1 << 52, actions=n)
            b._core.run(1 << 52, actions=n, fuse=False)
            assert a.snapshot()._data == b.snapshot()._data, seed
        a.verify()
        ahead += a._core.touches_ahead[0]
        back += a._core.touches_ahead[1]
    assert ahead > 100_000 and back > 1000


def test_threads_write_what_others_read():
    """Two threads write the same pages, one zeros: touches made ahead would miss each other."""
    world = shared_writes()
    a, b, rng = Simulation(world, "stage0"), Simulation(world, "stage0"), random.Random(1)
    for _ in range(200):
        n = rng.randrange(1, 150)
        a._core.run(1 << 52, actions=n)
        b._core.run(1 << 52, actions=n, fuse=False)
        assert a.snapshot()._data == b.snapshot()._data
    assert a._core.touches_ahead == (0, 0)


def test_two_processes_agree():
    code = """
        from test_snapshots import SMALL, Simulation, whole
        print(whole(), Simulation(SMALL, "stage5").run(0.01).digest)
        """
    found = [script(code).communicate(timeout=60)[0].split() for _ in range(2)]
    assert found[0] == found[1] == [whole(), Simulation(SMALL, "stage5").run(0.01).digest]


def test_a_run_in_pieces_of_time():
    sim = Simulation(WORLD, "stage5")
    for k in range(1, 21):
        sim.run(SECONDS * k / 20)
    sim.run(SECONDS / 2)                     # already behind it: nothing happens
    assert sim.digest() == whole()


def test_steps_are_the_log_one_by_one():
    a, b = Simulation(WORLD, "stage5"), Simulation(WORLD, "stage5")
    rows = a.log(SECONDS, actions=3000)
    assert len(rows) == 3000
    for row in rows:
        now, cpu, step, folio, cost = b.step()
        assert (now, cpu, folio, cost) == tuple(int(row[k]) for k in ("now", "cpu", "folio", "cost"))
        assert step == reclaim.names.STEPS[row["step"]]
    assert a.digest() == b.digest()


def test_copies_are_apart():
    sim = Simulation(WORLD, "stage5")
    sim.run(SECONDS / 2)
    other = copy.deepcopy(sim)
    sim.run(SECONDS)
    assert other.now_ps < sim.now_ps
    other.run(SECONDS)
    assert other.digest() == sim.digest() == whole()


# --- ends

def test_seconds_end_a_run():
    sim = Simulation(SMALL, "stage5")
    result = sim.run(0.01)
    assert result.seconds == 0.01
    assert not result.partial
    assert sim.now_ps >= 0.01 * PS_PER_S
    for values in zip(*result.times.values(), strict=True):
        assert sum(values) == pytest.approx(1e7, rel=0.01)
    assert sim.run(0.0).counters["page_touches"] == result.counters["page_touches"]


@pytest.mark.parametrize("seconds", [-1, 9001, float("nan"), float("inf"), "1", 1j])
def test_seconds_out_of_range(seconds):
    with pytest.raises((ValueError, TypeError)):
        Simulation(WORLD).run(seconds)


def test_a_world_needs_seconds():
    with pytest.raises(ValueError, match="seconds must be given"):
        Simulation(WORLD).run()


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("touches", [1, 100, 2777])
def test_touches_end_a_run_exactly(touches, fuse):
    sim = Simulation(WORLD, "stage5")
    result = sim.run(1.0, touches=touches, fuse=fuse)
    assert result.counters["page_touches"] == touches
    again = Simulation(WORLD, "stage5")
    while again.view("counter")[reclaim.names.COUNTERS.index("page_touches")] < touches:
        again.step()
    assert sim.digest() == again.digest()
    assert sim.run(1.0, touches=touches).counters["page_touches"] == touches
    with pytest.raises(ValueError, match="touches must be >= 0"):
        sim.run(1.0, touches=-1)


def test_a_run_ends_when_every_task_is_dead():
    world = dataclasses.replace(WORLD, task_loop_to=(-1,) * 3)
    sim = Simulation(world)
    sim.run(9000)
    assert sim._stopped == "finished"
    assert sim.step() is None
    assert sim.log(9000).size == 0
    sim.verify()


def test_warmup_is_not_counted():
    scenario = SMALL.replace(warmup=0.01)
    sim = Simulation(scenario, "stage5")
    result = sim.run(0.02)
    cold = Simulation(SMALL, "stage5")
    first, both = cold.run(0.01), cold.run(0.02)
    assert result.seconds == pytest.approx(0.01)
    assert result.digest == both.digest
    for name in ("page_touches", "pgfault", "pgsteal_anon"):
        assert result.counters[name] == both.counters[name] - first.counters[name]


def test_warmup_in_pieces():
    scenario = SMALL.replace(warmup=0.01)
    want = Simulation(scenario, "stage5").run(0.02)
    sim = Simulation(scenario, "stage5")
    start = sim.snapshot()
    for seconds in (0.004, 0.012, 0.015):
        sim.run(seconds)
        sim = pickle.loads(pickle.dumps(sim))
    late = sim.snapshot()
    assert sim.run(0.02).counters["page_touches"] == want.counters["page_touches"]
    other = Simulation(scenario, "stage5")
    other.restore(pickle.loads(pickle.dumps(late)))
    assert other.run(0.02).counters["page_touches"] == want.counters["page_touches"]
    sim.restore(start)                       # and back before the warm-up
    early = sim.run(0.004)
    assert early.counters["page_touches"] > 0
    assert early.seconds == 0.004
    assert sim.run(0.02).counters["page_touches"] == want.counters["page_touches"]


def test_touches_may_end_a_run_within_its_warmup():
    result = Simulation(SMALL.replace(warmup=0.1)).run(0.2, touches=100)
    assert result.counters["page_touches"] == 100
    assert 0 < result.seconds < 0.1


def test_stop_ends_a_run_with_what_it_has():
    seen = []

    def progress(done, now):
        seen.append((done, now))
        sim.stop()

    sim = Simulation(SMALL.replace(seconds=100.0), "stage5")
    result = sim.run(progress=progress)
    assert len(seen) == 1
    assert 0 < seen[0][0] < 1
    assert result.partial
    assert 0 < result.seconds < 100
    sim.verify()
    assert not sim.run(result.seconds + 0.01).partial


def test_an_error_in_progress_comes_out():
    sim = Simulation(SMALL, "stage5")
    with pytest.raises(ZeroDivisionError):
        sim.run(progress=lambda done, now: 1 / 0)
    sim.verify()
    assert sim.run(0.05).seconds == 0.05


def test_ctrl_c_ends_a_run_with_what_it_has():
    process = script("""
        from test_snapshots import SMALL, Simulation
        print("ready", flush=True)
        sim = Simulation(SMALL.replace(seconds=9000.0), "stage5")
        result = sim.run()
        sim.verify()
        print(result.partial, result.counters["page_touches"] > 0, 0 < result.seconds < 9000)
        """)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "True True True\n"), err


# --- views

def test_views_are_read_only():
    sim = Simulation(WORLD)
    for name in sim.tables:
        view = sim.view(name)
        assert not view.flags.writeable
        assert not view.flags.owndata
        with pytest.raises(ValueError):
            view.flags.writeable = True
        with pytest.raises(ValueError):
            view.view(np.uint8).flags.writeable = True
        with pytest.raises(ValueError):
            view.resize(10 * len(view) + 1)
        if len(view):
            with pytest.raises(ValueError):
                view[0] = view[0]
    arena = sim._core.arena
    assert memoryview(arena).readonly
    with pytest.raises(TypeError, match="not writable"):
        (ctypes.c_char * len(arena)).from_buffer(arena)
    with pytest.raises(KeyError):
        sim.view("nothing")


def test_views_are_live_and_keep_the_memory():
    sim = Simulation(WORLD, "stage5")
    views = {name: sim.view(name) for name in sim.tables}
    before = {name: view.copy() for name, view in views.items()}
    sim.run(SECONDS)
    assert (views["pte"] != before["pte"]).any()
    assert views["counter"].sum() > 0
    after = {name: view.copy() for name, view in views.items()}
    at = views["pte"].__array_interface__["data"][0]
    assert sim.view("pte").__array_interface__["data"][0] == at       # no copies
    del sim
    gc.collect()
    others = [Simulation(WORLD, "stage5") for _ in range(5)]
    others[0].run(SECONDS)
    for name, view in views.items():
        assert (view == after[name]).all()


def test_snapshots_do_not_follow_the_simulation():
    sim = Simulation(WORLD, "stage5")
    kept = sim.snapshot()
    first = sim.digest()
    sim.run(SECONDS)
    sim.restore(kept)
    assert sim.digest() == first


# --- hand-made state

def test_snapshots_of_others_are_refused():
    sim = Simulation(WORLD, "stage5")
    sim.run(SECONDS)
    before = sim.digest()
    good = sim.snapshot()
    other = Simulation(small_world(), "stage5").snapshot()
    data = good._data
    wrong = [other, pickle.loads(pickle.dumps(other)), data, None, "snapshot",
             Snapshot(data[:-1], good._layout, True), Snapshot(data + b"\0", good._layout, True),
             Snapshot(data[:-64], good._layout, False), Snapshot(data * 2, good._layout, False),
             Snapshot(b"", good._layout, False), Snapshot(bytes(len(data)), good._layout, False),
             Snapshot(b"\xff" * len(data), good._layout, False), Snapshot(data, "0" * 32, True),
             Snapshot(None, good._layout, False), Snapshot(data, None, False),
             Snapshot(other._data, good._layout, False),
             Snapshot(data, good._layout, False, "base"),
             Snapshot(data, good._layout, False, (np.zeros(1), np.zeros(1)))]
    for snapshot in wrong:
        with pytest.raises(SnapshotError):
            sim.restore(snapshot)
        assert sim.digest() == before
    same_shape = Simulation(dataclasses.replace(WORLD, task_pinned=(True,) * 3), "stage5")
    with pytest.raises(SnapshotError, match="differs from the world's"):
        same_shape.restore(pickle.loads(pickle.dumps(good)))
    sim.restore(pickle.loads(pickle.dumps(good)))


@pytest.mark.parametrize("state", [None, {}, 3, [], {"scenario": WORLD}, {
    "scenario": WORLD, "policy": "stage5", "seed": 1, "snapshot": b"", "wall": 0, "stopped": ""}])
def test_pickles_of_others_are_refused(state):
    sim = Simulation.__new__(Simulation)
    with pytest.raises(SnapshotError):
        sim.__setstate__(state)


# Change snapshots, restore them through the untrusted path, run what was accepted.
FUZZ = """
    import faulthandler, random, sys
    from reclaim.errors import SimulationError, SnapshotError
    from reclaim.simulation import Simulation, Snapshot
    from reference.worlds import random_world, small_world
    from threads import calls_world, thread_world

    faulthandler.enable()
    INDEXED = ["cpu", "task", "folio", "memcg", "region", "mm", "pte", "slot_entry", "slot_count",
               "csd_next", "fl_mask", "ubc_mask", "io", "swapdev", "slot_cache"]

    def field_of(tables, data):
        "A random field of a random row: its name, where it is, its size."
        table = rng.choice(INDEXED + ["anywhere"])
        if table == "anywhere":
            return table, rng.randrange(len(data)), 1, 1
        offset, dtype, count = tables[table]
        if not count:
            return field_of(tables, data)
        name, (sub, inside), *_ = "", (dtype, 0)
        if dtype.names:
            name = rng.choice(dtype.names)
            sub, inside = dtype.fields[name][:2]
        size = 4 if sub.base.names else sub.base.itemsize
        inside += rng.randrange(sub.itemsize // size) * size
        return (f"{table}.{name}", offset + rng.randrange(count) * dtype.itemsize + inside, size,
                (offset, dtype.itemsize, count, inside))

    def change(tables, good):
        data = bytearray(good)
        what, at, size, table = field_of(tables, data)
        how = rng.randrange(4)
        if how == 0 or what == "anywhere":
            data[at + rng.randrange(size)] ^= 1 << rng.randrange(8)
        elif how == 1:
            value = rng.choice([0, 1, 2, 3, 5, 8, 31, 32, -1, -2, 2**(8 * size - 1) - 1])
            data[at:at + size] = (value % 2**(8 * size)).to_bytes(size, "little")
        elif how == 2:
            value = int.from_bytes(data[at:at + size], "little") + rng.choice([-1, 1, 2])
            data[at:at + size] = (value % 2**(8 * size)).to_bytes(size, "little")
        else:                                     # another row's
            offset, row, count, inside = table
            other = offset + rng.randrange(count) * row + inside
            data[at:at + size] = good[other:other + size]
        return what, bytes(data)

    rng = random.Random(int(sys.argv[1]))
    accepted = refused = 0
    for seed in range(int(sys.argv[1]), int(sys.argv[1]) + 10):
        world = random_world(seed) if seed % 3 == 0 else thread_world(seed) if seed % 5 < 2 \
            else calls_world(seed) if seed % 10 == 4 else small_world(
            seed=seed, mm_pages=(48, 40, 64), limit=90, nr_cpus=2 + seed % 2,
            swap_sync=seed % 4 == 1, io_depth=3, cgroup=1 + seed % 2, lru=seed % 5 % 2,
            rotational=seed % 4 in (2, 3), slot_cache=seed % 4 in (1, 3),
            nr_slots=150 if seed % 4 == 2 else 1100)
        sim = Simulation(world, f"stage{5 * (seed % 2)}")
        for _ in range(12):
            sim._core.run(1 << 50, actions=rng.randrange(50, 3000))
            good = sim.snapshot()
            for _ in range(int(sys.argv[2])):
                what, data = change(sim._core.tables, good._data)
                try:
                    sim.restore(Snapshot(data, good._layout, False))
                except SnapshotError:
                    refused += 1
                    continue
                accepted += 1
                print(what, file=sys.stderr, flush=True)     # the last one before a crash
                try:
                    sim._core.run(1 << 52, actions=2000)
                    sim.digest()
                except SimulationError:
                    pass
            sim.restore(good)
    print(accepted, refused)
    """


@pytest.mark.slow
def test_changed_snapshots_are_refused_or_run(seed=1, each=25):
    process = script(FUZZ, seed, each)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err[-3000:]
    accepted, refused = map(int, out.split())
    assert accepted + refused == 10 * 12 * each
    assert refused > accepted / 2


# --- worlds

@pytest.mark.parametrize("changes", [
    {"nr_cpus": 0}, {"nr_cpus": 513}, {"nr_cpus": True}, {"nr_cpus": 2.0}, {"nr_cpus": None},
    {"cpus_per_socket": 0}, {"l1_sets": 3}, {"l2_ways": 0}, {"l2_sets": 1 << 20},
    {"limit": 0}, {"kernel_pages": -1}, {"kernel_pages": 10**6}, {"nr_folios": 10}, {"nr_slots": -1},
    {"nr_slots": 2**31}, {"swappiness": 201}, {"cgroup": 3}, {"tick": 0}, {"slice_ticks": 0},
    {"migrate_threshold": 2**64}, {"seed": -1}, {"seed": 2**64}, {"costs": ()},
    {"costs": (-1,) * len(WORLD.costs)}, {"costs": (10**16,) * len(WORLD.costs)},
    {"mm_pages": (96, 130)}, {"mm_pages": (96, 130, 0)}, {"mm_pages": (2**30,) * 3},
    {"mm_pages": (50, 50, 50)}, {"task_mm": (0, 1, 1)}, {"task_mm": ()}, {"task_mm": (0, 1, 3)},
    {"task_cpu": (0, 1, 3)}, {"task_cpu": (0, 1)}, {"task_pinned": (2, 0, 0)},
    {"task_first_pass": (0, 0, 999)}, {"task_first_pass": (-1, 0, 0)}, {"task_nr_passes": (0, 1, 1)},
    {"task_nr_passes": (99, 1, 1)}, {"task_loop_to": (9, 0, 0)}, {"task_loop_to": (-2, 0, 0)},
    {"task_restart": (False,)}, {"mm_recency": (5, 5, 5)}, {"passes": np.zeros(3)},
    {"passes": WORLD.passes[:0]}, {"trace": np.zeros(3)}, {"trace": np.zeros((2, 2), "<u4")}])
def test_worlds_out_of_range_are_refused(changes):
    world = dataclasses.replace(WORLD, **changes)
    with pytest.raises(WorldError, match="World"):
        Simulation(world)


@pytest.mark.parametrize("field, value", [
    ("kind", 10), ("kind", 255), ("write", 3), ("zero", 2), ("nr", 0), ("nr", 2**31), ("stride", 0),
    ("count", 0), ("count", 2**63), ("think", -1), ("think", 2**62), ("first", 10**6)])
def test_passes_out_of_range_are_refused(field, value):
    passes = WORLD.passes.copy()
    passes[field][1] = value
    with pytest.raises(WorldError, match="passes"):
        Simulation(dataclasses.replace(WORLD, passes=passes))


def test_traces_out_of_range_are_refused():
    passes = WORLD.passes.copy()
    passes["kind"][0], passes["first"][0], passes["count"][0] = 4, 2, 3
    good = dataclasses.replace(WORLD, passes=passes, trace=np.array([0, 2, 4, 6, 191], "<u4"))
    check(good)
    Simulation(good).run(0.001)
    for trace in ([0, 2, 4, 6], [0, 2, 4, 6, 192], [0, 2, 4, 6, 2**32 - 1]):
        with pytest.raises(WorldError, match="trace"):
            Simulation(dataclasses.replace(good, trace=np.array(trace, "<u4")))


def test_a_worlds_arrays_are_copied():
    passes = WORLD.passes.copy()
    sim = Simulation(dataclasses.replace(WORLD, passes=passes), "stage5")
    passes["nr"], passes["first"], passes["kind"] = 2**31, 2**31, 99
    sim.run(SECONDS)
    assert sim.digest() == whole()
