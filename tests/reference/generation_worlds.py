"""Worlds with MGLRU: random ones, and what those seldom meet."""

import dataclasses
import random

from ._load import names
from .worlds import (COSTS, build_world, drawn_by_hypothesis, make_pass, make_passes, random_ties,
                     random_world, small_world)


def _mglru(pick):
    return dict(lru=1, mglru_batch=pick([False, True]), mglru_stop=pick([False, True]),
                mglru_rework=pick([False, False, True]))


def random_generations(seed):
    """random_world(seed) with MGLRU; its switches vary."""
    return dataclasses.replace(random_world(seed), **_mglru(random.Random(f"generations {seed}").choice))


def ties_generations(seed):
    """The same of random_ties(seed)."""
    return dataclasses.replace(random_ties(seed), **_mglru(random.Random(f"generations {seed}").choice))


def reuse_generations(seed):
    """MGLRU, and mms that fill memory and use much of it again: generations grow old and are walked,
    pages are populated several times (tiers), evicted and brought back (refaults)."""
    pick = random.Random(f"reuse {seed}").choice
    nr_cpus, tasks = pick([2, 3, 4]), pick([2, 3, 4, 6])
    mm_pages = tuple(pick([160, 300, 513, 700, 1100]) for _ in range(tasks))
    rows, first, number = [], [], []
    for pages in mm_pages:
        first.append(len(rows))
        rows.append(make_pass("SEQ", write=1, nr=pages, think=pick([0, 20_003])))
        for _ in range(pick([2, 3, 4])):
            at = pick([0, 0, pages // 3, pages // 2])
            nr = pick([pages - at, (pages - at) // 2, (pages - at) // 4])
            again = pick([1, 2, 3])
            kind = pick(["RAND", "RAND", "SEQ", "POPULATE", "POPULATE"])
            rows += [make_pass(kind, first=at, nr=nr, count=nr * (again if kind == "RAND" else 1),
                               write=pick([0, 0, 2]), think=pick([0, 50_021, 2_000_003]),
                               stride=pick([1, 1, -1, 7]))] * (1 if kind == "RAND" else again)
        number.append(len(rows) - first[-1])
    total = sum(mm_pages)
    limit = max(pick([total * 2 // 3, total * 4 // 5, total // 2]), 60 * nr_cpus + 100)
    swap_sync, tick = pick([True, False]), pick([10**9, 10**8, 10**7])
    costs = dict(zip(names.COSTS, COSTS)) | pick([
        {}, {}, dict(flush_fixed=20_000_001, walk_cold=9), dict(walk_pte=300_007, lru_lock=5_000_003),
        dict.fromkeys(names.COSTS, 0)])
    return small_world(
        nr_cpus=nr_cpus, mm_pages=mm_pages, limit=limit, nr_slots=pick([2 * total] * 4 + [total // 2]),
        swappiness=pick([60, 100, 200]), cgroup=pick([1, 2]), trim=pick([False, True]),
        swap_sync=swap_sync, swapin_cached=swap_sync and pick([False, True]), io_depth=pick([8, 64, 64]),
        io_latency=pick([80_000_000, 1_000_003, 3_000_000_000]), io_page=pick([2_000_000, 1]),
        pgrefill_global=pick([False, True]), tick=tick, slice_ticks=pick([1, 3]),
        migrate_threshold=pick([0, 2**62]), seed=pick(range(2**32)), passes=make_passes(rows),
        costs=tuple(costs.values()), task_first_pass=tuple(first), task_nr_passes=tuple(number),
        task_loop_to=tuple(pick([0, 1]) for _ in range(tasks)),
        mm_recency=tuple(pick([True] * 4 + [False]) for _ in range(tasks)), **_mglru(pick))


def _alike(rows, tasks, **fields):
    """A world whose tasks all run these passes, over and over."""
    return small_world(lru=1, passes=make_passes(rows), task_first_pass=(0,) * tasks,
                       task_nr_passes=(len(rows),) * tasks, **fields)


def tiered(times, hot=200, warm=600, cold=250, tasks=1, **fields):
    """Advice against recency; pages populated `times` times are evicted and at once brought back."""
    again = [make_pass("POPULATE", nr=hot)] * times
    rows = [make_pass("SEQ", write=1, nr=hot + warm, think=1000), *again,
            make_pass("SEQ", write=1, first=hot + warm, nr=cold), *again,
            make_pass("SEQ", write=1, first=hot + warm + cold, nr=cold)]
    pages = hot + warm + 2 * cold
    return _alike(rows, tasks, **dict(
        nr_cpus=tasks, mm_pages=(pages,) * tasks, mm_recency=(False,) * tasks, swappiness=100,
        limit=(hot + warm + 20) * tasks, nr_slots=2 * pages * tasks) | fields)


def aged_under_writeback(**fields):
    """Write-out takes so long that folios grow old meanwhile."""
    rows = [make_pass("SEQ", write=1, nr=240, think=1000),
            make_pass("RAND", nr=240, count=300, write=2, think=1000)]
    return _alike(rows, 3, **dict(
        mm_pages=(240,) * 3, limit=480, nr_slots=4096, swap_sync=False, io_depth=4096, swappiness=200,
        io_latency=20 * 10**9, io_page=1, mglru_rework=True) | fields)


def crowded(pages, limit, think, **fields):
    """More tasks than CPUs, all in need of memory, and most of it in one page-table page: its lock is
    held for long (a flush for each unmapped page, a slow look around) while others want it."""
    rows, first, tasks = [], [], len(pages)
    for n in pages:
        first.append(len(rows))
        rows += [make_pass("SEQ", write=1, nr=n, think=1000),
                 make_pass("RAND", nr=n, count=2 * n, write=2, think=think)]
    costs = dict(zip(names.COSTS, COSTS)) | fields.pop("costs")
    return small_world(lru=1, **dict(
        nr_cpus=4, mm_pages=pages, limit=limit, nr_slots=4096, swappiness=200, passes=make_passes(rows),
        task_first_pass=tuple(first), task_nr_passes=(2,) * tasks, task_loop_to=(1,) * tasks,
        costs=tuple(costs.values())) | fields)


# What random worlds seldom meet, by name.
GENERATIONS = {
    "tiers": lambda: tiered(3),
    "tiers, reworked": lambda: tiered(3, mglru_rework=True, pgrefill_global=True),
    "young tiers, reworked": lambda: tiered(2, 300, 200, 200, mglru_rework=True, mm_recency=(True,)),
    "tiers of two": lambda: tiered(4, 100, 300, 150, 2, mglru_batch=True, mglru_stop=True),
    "tiers near their margin": lambda: tiered(3, 350, 250, 450),
    "tiers on a device": lambda: tiered(3, swap_sync=False),
    "aged under write-back": aged_under_writeback,
    "a walk finds a lock held": lambda: crowded(
        (500, *(60,) * 7), 420, 0, costs=dict(walk_pte=200_003), tick=10**7, slice_ticks=1),
    "no look around a contended lock": lambda: crowded(
        (500, 150, 150, 150), 500, 1000, costs=dict(flush_fixed=20_000_001), mglru_rework=True),
}

generations = drawn_by_hypothesis(lambda pick: dataclasses.replace(build_world(pick), **_mglru(pick)))
