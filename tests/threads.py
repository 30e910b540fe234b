"""Worlds whose tasks share mms, and what may be in a TLB."""

from __future__ import annotations

import dataclasses
import random

import numpy as np

from reference.worlds import make_pass, make_passes, random_world, small_world
from reclaim import names
from reclaim.simulation import Simulation
from reclaim.world import World

DONTNEED, RAND = names.PASS_KINDS.index("DONTNEED"), names.PASS_KINDS.index("RAND")
STEP = {name: i for i, name in enumerate(names.STEPS)}


def thread_world(seed: int) -> World:
    """`random_world(seed)` with its tasks in fewer mms, and some calls of madvise."""
    rng, world = random.Random(seed), random_world(seed)
    tasks, pages = len(world.task_mm), max(world.mm_pages)
    mms = rng.randint(1, max(1, tasks - 1))
    task_mm = [*range(mms), *(rng.randrange(mms) for _ in range(tasks - mms))]
    rng.shuffle(task_mm)
    passes = world.passes.copy()
    for row in passes:
        if row["kind"] == RAND and rng.random() < 0.3:
            row["kind"], row["count"] = DONTNEED, rng.choice([1, 1, 3])
    limit = world.limit
    if mms * pages < limit:
        limit = max(60 * world.nr_cpus + 40, mms * pages // 2)
    return dataclasses.replace(
        world, mm_pages=(pages,) * mms, mm_recency=(True,) * mms, task_mm=tuple(task_mm),
        passes=passes, limit=limit, kernel_pages=min(world.kernel_pages, limit // 4),
        nr_folios=limit + 64 * tasks + 256,
        nr_slots=rng.choice([512, 2000, 100]) if world.nr_slots else 0)


def one_mm(*rows, threads: int = 2, pages: int = 200, loop: bool = True, **overrides) -> World:
    """`threads` tasks on as many CPUs that run the same passes in one mm."""
    fields = dict(
        nr_cpus=threads, limit=max(70 * threads, pages // 2), nr_slots=4 * pages,
        passes=make_passes(rows or [make_pass("SEQ", write=1, nr=pages, think=200_003)]),
        mm_pages=(pages,), mm_recency=(True,), task_mm=(0,) * threads, task_cpu=tuple(range(threads)),
        task_pinned=(False,) * threads, task_first_pass=(0,) * threads,
        task_nr_passes=(len(rows) or 1,) * threads, task_loop_to=(0 if loop else -1,) * threads,
        task_restart=(True,) * threads) | overrides
    fields.setdefault("nr_folios", fields["limit"] + 64 * threads + 256)
    return small_world(**fields)


def in_tlbs(sim: Simulation, mm: int) -> list[tuple[int, int]]:
    """(CPU, page) of the entries that a CPU which runs in the mm could use."""
    found = []
    for c, p in enumerate(sim.view("cpu")):
        if p["loaded_mm"] != mm or p["is_lazy"]:
            continue
        for level in ("tlb_l1", "tlb_l2"):
            entries = sim.view(level).reshape(len(sim.view("cpu")), -1)[c]
            live = entries >> np.uint64(32) == p["asid_stamp"][p["loaded_asid"]]
            found += [(c, int(e) >> 1 & 0x7fffffff) for e in entries[live].tolist()]
    return found
