"""The twin by itself: its invariants, and that cutting a run into pieces changes nothing."""

import pytest

import threads

from . import BATCH31, STAGE0, Checked, Reference, names
from .generation_worlds import GENERATIONS, random_generations, reuse_generations
from .worlds import (policies, random_forks, random_policy, random_slots, random_ties, random_world, small_world,
                     worlds)

hypothesis = pytest.importorskip("hypothesis")
_SETTINGS = hypothesis.settings(max_examples=15, deadline=None,
                                suppress_health_check=list(hypothesis.HealthCheck))


def _run_checked(machine, actions, skip=0):
    last = 0
    for i in range(skip + actions):
        if not machine.alive:
            return
        row = machine.act()
        if row is None:                             # only the planted defect may end like this
            assert machine.lost and machine.policy["keeps_locks"]
            return
        assert row[0] >= last, "time runs backwards"
        last = row[0]
        if i >= skip:
            machine.check()


@pytest.mark.parametrize("seed", range(12))
def test_invariants_hold_after_every_action(seed):
    _run_checked(Checked(random_world(seed), random_policy(seed)), 800, skip=(0, 3000, 30000)[seed % 3])


@pytest.mark.parametrize("seed", range(8))
def test_invariants_hold_with_host_cpus(seed):
    _run_checked(Checked(random_ties(seed), random_policy(seed)), 600, skip=(0, 5000)[seed % 2])


@pytest.mark.parametrize("seed", range(16))
def test_invariants_hold_with_slots_in_caches(seed):
    machine = Checked(random_slots(seed), random_policy(seed))
    _run_checked(machine, 300, skip=(3000, 10000, 20000, 30000)[seed % 4])


@pytest.mark.parametrize("pv_flush", [False, True])
@pytest.mark.parametrize("host_cpus", [1, 2])
def test_host_cpus_run_their_cpus_in_turn(host_cpus, pv_flush):
    machine = Checked(small_world(nr_cpus=4, mm_pages=(160,) * 4, limit=320, host_cpus=host_cpus,
                                  pv_flush=pv_flush, tick_skew=10**8, migrate_threshold=2**62), BATCH31)
    _run_checked(machine, 60, skip=30000)
    counters = machine.counters()
    assert counters["vcpu_switches"] > 0 and sum(machine.times()["steal"]) > 0
    assert (counters["pv_flushes"] > 0) == pv_flush
    assert counters["pgsteal_anon"] > 0


@pytest.mark.parametrize("seed", range(16))
def test_invariants_hold_with_threads(seed):
    draw = threads.thread_world if seed % 4 == 3 else threads.busy_threads
    _run_checked(Checked(draw(seed), random_policy(seed)), 500, skip=(0, 4000, 9000)[seed % 3])


@pytest.mark.parametrize("make, args, stage, counter", [
    (threads.pending_zaps, (), BATCH31, "flush_tlb_batched_pending"),
    (threads.zapped_while_used, (), BATCH31, "flush_tlb_batched_pending"),
    (threads.page_tables_race, (), STAGE0, "direct_reclaims"),
    (threads.zapped_swap_ins, (), STAGE0, "swapcache_waits"),
    (threads.killed_threads, (True,), BATCH31, "restarts"),
    (threads.killed_threads, (False,), BATCH31, "memcg_oom_kill")])
def test_invariants_hold_in_races_of_threads(make, args, stage, counter):
    """Checked after the rows of threads only, so that the runs can be long."""
    machine, rows = Checked(make(*args), stage), 0
    for i in range(50_000):
        if not machine.alive or machine.act() is None:
            break
        own = machine.row in ("F_PT_SET", "F_BACKOFF", "M_BATCHED") or machine.row.startswith("E_")
        if own and rows < 400 or i % 500 == 0:
            machine.check()
        rows += own
    assert machine.counters()[counter] > 0 and rows > 2


def _run_calls(machine, actions, checks=150):
    """Contents are looked at all the time; the rest after `checks` rows of calls, and now and then."""
    rows = 0
    for i in range(actions):
        if not machine.alive or machine.act() is None:
            break
        own = machine.row[:2] in ("V_", "E_")
        if own and rows < checks or i % 500 == 0:
            machine.check()
        rows += own
    return rows


@pytest.mark.parametrize("draw, seed", [(threads.calls_world, s) for s in range(6)]
                         + [(threads.busy_calls, s) for s in (*range(9), 70)])
def test_invariants_hold_with_calls(draw, seed):
    _run_calls(Checked(draw(seed), random_policy(seed)), 8000)


@pytest.mark.parametrize("make, args, actions", [
    (threads.followed_moves, (), 80_000), (threads.moved_tables, (), 25_000),
    *((threads.pending_calls, (kind,), 25_000) for kind in ("MUNMAP", "MPROTECT", "MREMAP"))])
def test_invariants_hold_in_races_of_calls(make, args, actions):
    assert _run_calls(Checked(make(*args), BATCH31), actions) > 20


def test_a_page_table_that_moves_is_flushed_before_its_pages_go():
    """Pages unmapped one by one, at their new place, by who does not wait for the flush of the old one."""
    _run_calls(Checked(threads.moved_tables(), dict(STAGE0, unmap="immediate")), 25_000, checks=0)


@pytest.mark.parametrize("draw, seed", [(random_forks, s) for s in range(6)]
                         + [(threads.busy_forks, s) for s in (2, 5, 10, 52, *threads.RARE_FORKS)])
def test_invariants_hold_with_forks(draw, seed):
    """Contents all the time: nobody sees what the other wrote.  The rest after rows of forks, and now and then."""
    machine, rows = Checked(draw(seed), random_policy(seed)), 0
    for i in range(16_000):
        if not machine.alive or machine.act() is None:
            break
        own = machine.row.startswith("V_FORK") or any(t.rmap for t in machine.tasks)
        if own and rows < 100 or i % 500 == 0:
            machine.check()
        rows += own


@pytest.mark.parametrize("args", threads.ZAPPED_SHARES)
def test_invariants_hold_where_shares_are_zapped(args):
    machine = Checked(threads.zapped_shares(*args), BATCH31)
    for i in range(40_000):
        dropped = machine.c.granted if i else None
        machine.act()
        if i % 500 == 0 or dropped:
            machine.check()


@pytest.mark.parametrize("seed", range(20))
def test_contents_survive_threads(seed):
    machine = Checked(threads.busy_threads(seed), random_policy(seed))
    for _ in range(15000):
        if not machine.alive or machine.act() is None:
            break


@_SETTINGS
@hypothesis.given(worlds(), policies())
def test_invariants_hold_in_drawn_worlds(world, policy):
    _run_checked(Checked(world, policy), 500)


@pytest.mark.parametrize("draw, seed", [(random_world, s) for s in range(30)]
                         + [(random_generations, s) for s in range(10)])
def test_contents_survive(draw, seed):
    machine = Checked(draw(seed), random_policy(seed))
    for _ in range(30000):
        if not machine.alive or machine.act() is None:
            break


@pytest.mark.parametrize("cgroup", [1, 2])
@pytest.mark.parametrize("policy", [STAGE0, BATCH31])
def test_a_slow_device_is_waited_for(policy, cgroup):
    machine = Checked(small_world(swap_sync=False, io_latency=3 * 10**9, swappiness=200,
                                  cgroup=cgroup), policy)
    _run_checked(machine, 60, skip=60000)
    counters = machine.counters()
    for name in ("pswpout", "pswpin", "pgrotated", "io_waits"):
        assert counters[name] > 0, name
    assert (counters["writeback_waits"] > 0) == (cgroup == 1)


@pytest.mark.parametrize("policy", [STAGE0, BATCH31])
@pytest.mark.parametrize("host_cpus", [0, 1])
def test_a_run_may_be_cut_anywhere(policy, host_cpus):
    world = small_world(host_cpus=host_cpus, pv_flush=host_cpus > 0)
    whole = Reference(world, policy)
    rows = whole.run(8 * 10**9)
    cut, pieces = Reference(world, policy), []
    for end in range(0, 8 * 10**9 + 1, 77_777_777):
        pieces += cut.run(end)
    pieces += cut.run(8 * 10**9)
    assert pieces == rows and len(rows) > 1000
    assert cut.digest() == whole.digest() and cut.columns() == whole.columns()
    assert cut.counters() == whole.counters() and cut.times() == whole.times()


def test_max_touches_counts_from_the_start():
    machine = Reference(small_world(), STAGE0)
    machine.run(10**15, max_touches=100)
    machine.run(10**15, max_touches=150)
    assert machine.counters()["page_touches"] == 150


def test_the_shape_of_the_results():
    machine = Reference(small_world(), BATCH31)
    machine.run(10**10, log=False)
    assert tuple(machine.counters()) == names.COUNTERS
    assert tuple(machine.times()) == names.TIMES
    assert len(machine.digest()) == 64
    assert sum(n * k for n, k in machine.histogram["flush_batch_size"].items()) == machine.counters()["folios_batched"]
    assert machine.counters()["pgsteal_anon"] > 0


@pytest.mark.parametrize("seed", range(6))
def test_invariants_hold_with_generations(seed):
    draw = random_generations if seed % 2 else reuse_generations
    _run_checked(Checked(draw(seed), random_policy(seed)), 400, skip=(15000, 0, 30000)[seed % 3])


@pytest.mark.parametrize("name", GENERATIONS)
def test_invariants_hold_where_generations_are_seldom(name):
    """Now and then, so that most of the run is seen; contents are looked at all the time."""
    machine = Checked(GENERATIONS[name](), dict(STAGE0, unmap="immediate"))
    for _ in range(30):
        _run_checked(machine, 4, skip=997)
