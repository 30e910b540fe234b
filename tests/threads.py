"""Worlds whose tasks share mms, what may be in a TLB, and what holds of the runs of any world."""

from __future__ import annotations

import dataclasses
import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from reference.worlds import COSTS, make_pass, make_passes, random_world, small_world, with_forks
from reclaim import names
from reclaim.simulation import Simulation, Snapshot
from reclaim.world import World

DONTNEED, RAND = names.PASS_KINDS.index("DONTNEED"), names.PASS_KINDS.index("RAND")
MS = 10**9
STEP = {name: i for i, name in enumerate(names.STEPS)}


# --- runs

def counters(sim: Simulation) -> dict[str, int]:
    return dict(zip(names.COUNTERS, sim.view("counter").tolist(), strict=True))


def steps(sim: Simulation, actions: int, *, end: int = 1 << 50) -> Iterator[tuple]:
    """The names of the steps of the next actions, and their rows, one by one, each after it was made."""
    for _ in range(actions):
        rows, why = sim._core.run_log(end, actions=1)
        if not len(rows):
            assert why != "budget"
            return
        yield names.STEPS[rows["step"][0]], rows[0]


def sound(draw: Callable[[int], World], seeds: Iterable[int], *, pieces: int) -> Counter:
    """Run the world of each seed one by one and fused, with a look at both after every 3000 actions.

    Returns
    -------
    Counter : the steps that were made, by their number.
    """
    seen = Counter()
    for seed in seeds:
        world, stage = draw(seed), f"stage{(0, 4, 5)[seed % 3]}"
        single, fused = Simulation(world, stage), Simulation(world, stage)
        for _ in range(pieces):
            rows, why = single._core.run_log(1 << 50, actions=3000)
            fused._core.run(1 << 50, actions=len(rows))
            seen.update(rows["step"].tolist())
            single.verify()
            assert single.snapshot()._data == fused.snapshot()._data, seed
            if why != "budget":
                break
    return seen


def pickled(snapshot: Snapshot) -> Snapshot:
    return pickle.loads(pickle.dumps(snapshot))


def same_in_pieces(world: World, stage: str, copy: Callable[[Snapshot], Snapshot] = lambda it: it) -> None:
    """12,000 actions at once, or in pieces that each go on in another simulation, from a copy of the snapshot."""
    whole, sim = Simulation(world, stage), Simulation(world, stage)
    whole._core.run(1 << 50, actions=12_000)
    for n in (1, 700, 2500, 4000, 4799):
        sim._core.run(1 << 50, actions=n)
        other = Simulation(world, stage)
        other.restore(copy(sim.snapshot()))
        sim = other
    assert sim.digest() == whole.digest()


def stages_0_to_4_are_one(world: World) -> None:
    digests = set()
    for stage in range(5):
        sim = Simulation(world, f"stage{stage}")
        sim.run(0.01)
        digests.add(sim.digest())
    assert len(digests) == 1


# --- worlds

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


def slow(**costs: int) -> tuple[int, ...]:
    """COSTS but for these [ps]."""
    return tuple(costs.get(name, cost) for name, cost in zip(names.COSTS, COSTS, strict=True))


def page_tables_race() -> World:
    """Two threads charge the same page-table page, which takes a reclaim."""
    return small_world(
        nr_cpus=3, mm_pages=(600, 500), mm_recency=(True, True), task_mm=(0, 0, 1), task_cpu=(0, 1, 2),
        limit=300, kernel_pages=240, nr_slots=2000, nr_folios=800, costs=slow(reclaim_prio=MS),
        passes=make_passes([make_pass("SEQ", write=1, nr=1, think=50 * MS),
                            make_pass("SEQ", write=1, first=512, nr=1, count=1000, think=1000),
                            make_pass("SEQ", write=1, nr=500, think=1000)]),
        task_pinned=(True,) * 3, task_restart=(True,) * 3,
        task_first_pass=(0, 0, 2), task_nr_passes=(2, 2, 1), task_loop_to=(1, 1, 0))


def pending_zaps() -> World:
    """One thread zaps, two reclaim in batches: what they unmap during its flush stays pending."""
    return one_mm(make_pass("SEQ", write=1, nr=100, think=1000), make_pass("DONTNEED", nr=100, count=1),
                  make_pass("SEQ", write=1, first=512, nr=600, think=1000), threads=3, pages=1200,
                  limit=400, task_first_pass=(0, 2, 2), task_nr_passes=(2, 1, 1),
                  costs=slow(flush_fixed=300_000_001))


def zapped_while_used() -> World:
    """One thread zaps single pages of what two others use all the time, with a TLB that forgets nothing.

    Only there does it matter that a zap of nothing but swap entries flushes what reclaim left pending.
    """
    zaps = [row for first in range(0, 280, 7)
            for row in (make_pass("DONTNEED", first=first, nr=1, count=1),
                        make_pass("SEQ", first=first, nr=1, count=1, think=100 * MS // 1000))]
    return one_mm(*zaps, make_pass("RAND", write=2, nr=280, count=1000, think=1000), threads=3, pages=280,
                  limit=230, swappiness=200, l2_sets=512, task_first_pass=(0, len(zaps), len(zaps)),
                  task_nr_passes=(len(zaps), 1, 1), costs=slow(unmap=30_000_001, flush_fixed=50_000_001))


def zapped_swap_ins() -> World:
    """One thread zaps what two others read from swap, slowly."""
    return one_mm(make_pass("SEQ", nr=1, count=1, think=30 * MS), make_pass("DONTNEED", nr=150, count=1),
                  make_pass("SEQ", write=1, nr=300, think=1000), threads=3, pages=300, limit=230,
                  task_first_pass=(0, 2, 2), task_nr_passes=(2, 1, 1), costs=slow(zram_read=3 * MS))


def killed_threads(restart: bool) -> World:
    """Three threads, no swap, not enough memory."""
    return one_mm(threads=3, pages=700, limit=300, nr_slots=0, task_restart=(restart,) * 3)


def shared_writes() -> World:
    """Two threads write the same pages, one zeros: touches made ahead would miss each other."""
    rows = [make_pass("SEQ", write=1, zero=zero, nr=2, count=5000, think=1000 + 300 * zero) for zero in (0, 1)]
    return one_mm(*rows, pages=2, limit=200, task_first_pass=(0, 1), task_nr_passes=(1, 1))


def busy_threads(seed: int) -> World:
    """Threads that do little but meet in faults, zaps and reclaim; most in one mm, all in two.

    Long costs keep the windows of the races open, which `random_world` seldom has.
    """
    rng = random.Random(f"threads {seed}")
    pick, threads = rng.choice, rng.randint(2, 5)
    nr_cpus, tick = pick([2, 2, min(3, threads), threads]), pick([10**9, 10**9, 10**8])
    limit = 60 * nr_cpus + pick([40, 40, 90])
    pages = limit + pick([9, 40, limit // 4, limit // 2, 600])
    fill = make_pass("SEQ", write=pick([1] * 7 + [0]), nr=pages, think=pick([0, 1000, 200_003]))
    same = [fill, *(_thread_pass(pick, pages) for _ in range(2))] if pick([True, False]) else []
    rows, number = [], []
    for _ in range(threads):
        own = same or [fill, *(_thread_pass(pick, pages) for _ in range(pick([1, 2, 3])))]
        rows += own
        number.append(len(own))
    task_mm = [0, *(pick([0, 0, 0, 1]) for _ in range(threads - 1))]
    mms = 1 + max(task_mm)
    long = dict(pick([(), (("zram_read", 5), ("fault_swap", 3)), (("zram_read", 2000),), (("flush_fixed", 300),), (("fault_zero", 9),),
                      (("ipi_delivery", 200), ("irq_entry", 1)), (("fault_anon", 40), ("page_copy", 40)),
                      (("reclaim_prio", 200),), (("zram_write", 50), ("pageout", 9)), (("zap_pte", 7),)]))
    swap_sync, host_cpus = pick([True, True, False]), pick([0, 0, 0, 1, nr_cpus])
    return one_mm(
        *rows, threads=threads, pages=pages, limit=limit, nr_cpus=nr_cpus, mm_pages=(pages,) * mms,
        mm_recency=(pick([True, True, False]),) * mms, task_mm=tuple(task_mm),
        task_cpu=tuple(t % nr_cpus for t in range(threads)), nr_slots=pick([4 * pages] * 7 + [pages, pages // 4, 0]),
        task_pinned=tuple(pick([False, True]) for _ in range(threads)),
        task_first_pass=tuple(sum(number[:t]) for t in range(threads)), task_nr_passes=tuple(number),
        task_loop_to=tuple(pick([0, 0, 0, 1, -1]) for _ in range(threads)),
        task_restart=tuple(pick([True, True, False]) for _ in range(threads)),
        costs=slow(**{name: factor * 1_000_003 for name, factor in long.items()}), tick=tick, slice_ticks=pick([1, 3]), swappiness=pick([60, 200, 200]),
        cgroup=pick([1, 2]), mask_lazy=pick([True, False]), trim=pick([False, True]), pcid=pick([True, False]),
        l2_sets=pick([8, 64]), swap_sync=swap_sync, swapin_cached=swap_sync and pick([False, False, True]),
        io_depth=pick([1, 8]), io_latency=pick([80_000_000, 10**9]), host_cpus=host_cpus,
        pv_flush=host_cpus > 0 and pick([False, True]), tick_skew=pick([0, tick // 3]), balance=tick * (limit % 3),
        migrate_threshold=pick([0, 2**62]), seed=seed)


def _thread_pass(pick, pages: int) -> tuple:
    first = pick([0, 0, pages // 3, pages // 2])
    nr = pick([1, (pages - first + 1) // 2, pages - first, pages - first])
    kind = pick(["RAND", "RAND", "SEQ", "SEQ", "DONTNEED", "DONTNEED", "POPULATE", "FWDREV"])
    count = pick([1, 1, 3]) if kind == "DONTNEED" else min(200, pick([nr, 2 * nr, 1 + nr // 3]))
    return make_pass(kind, write=pick([2, 1, 0]), zero=pick([0, 0, 1]), first=first, nr=nr,
                     stride=pick([1, -1, 7]), count=count, think=pick([0, 1, 50_021]))


def thread_forks(seed: int) -> World:
    """`thread_world(seed)` with children."""
    return with_forks(thread_world(seed), random.Random(f"thread forks {seed}").choice)


def busy_forks(seed: int) -> World:
    """Parents with threads and their children, all short of memory, perhaps beside others who reclaim their pages.

    Long costs keep locks held and flushes under way, few TLB entries are lost, and most of a program changes
    what is shared: in `random_forks` a page is soon copied, and reclaim seldom waits for one of two locks.
    """
    rng = random.Random(f"busy forks {seed}")
    pick = rng.choice
    threads, others, first_child = pick([1, 1, 2, 3]), pick([0, 1, 1, 2]), pick([False, True])
    nr_cpus = rng.randint(2 - (others == 0), threads + others + 1)
    pages = pick([100, 200, 300, 400, 600, 1100])
    parent, child = (1, 0) if first_child else (0, 1)
    shared = pick([pages, pages, pages // 2])
    first, taken = pick([0, pages - shared]), pick([False, False, False, True])
    fill = make_pass("SEQ", write=1, zero=pick([0, 0, 1]), nr=pages, think=pick([0, 50_003]))
    programs = [[fill, *(make_pass("MPROTECT", first=first, nr=shared // 2, count=1),) * taken,
                 make_pass("FORK", first=first, nr=shared, count=1),
                 *(make_pass("MPROTECT", write=1, nr=pages, count=1),) * taken,
                 *_forked(pick, pages), *(make_pass("FORK", nr=pages, count=1),) * pick([0, 0, 1])]]
    programs += [[make_pass(pick(["RAND", "SEQ"]), write=0 if taken else pick([0, 0, 2]), zero=pick([0, 1]), nr=pages,
                            count=10**6, think=pick([0, 50_021, 1_000_003]))] for _ in range(threads - 1)]
    programs.append([*(make_pass("MPROTECT", write=1, nr=pages, count=1),) * taken, *_forked(pick, pages)])
    size = 65 * nr_cpus
    programs += [[make_pass("SEQ", write=1, nr=size, count=10**6, think=pick([1000, 200_003]))] for _ in range(others)]
    number = [len(rows) for rows in programs]
    last = (2,) * others
    task_mm, tasks = ((parent,) * threads + (child,) + last), threads + 1 + others
    long = dict(pick([
        (), (("walk_pte", 20),), (("flush_fixed", 500),), (("unmap", 40), ("rmap", 20)), (("rmap", 50),),
        (("zram_read", 50),), (("zram_write", 300), ("pageout", 9)), (("fault_anon", 40), ("page_copy", 40)),
        (("fault_swap", 40),), (("lru_lock", 300), ("lru_add", 9)), (("reclaim_prio", 200),),
        (("ipi_delivery", 200),), (("zap_pte", 20),), *((("invlpg", 100), ("tlb_flush_full", 100)),) * 6]))
    limit = 65 * nr_cpus + pick([pages // 4, pages // 2, pages * 3 // 4, pages])
    swap_sync, host_cpus = pick([True, True, False]), pick([0, 0, 0, 1, nr_cpus])
    tick = 10**10 if "invlpg" in long else pick([10**9, 10**8])
    return one_mm(
        *(row for rows in programs for row in rows), threads=tasks, nr_cpus=nr_cpus, limit=limit,
        mm_pages=(pages, pages, size)[:2 + (others > 0)],
        mm_recency=tuple(pick([True, True, False]) for _ in range(2 + (others > 0))),
        mm_child=tuple(child if mm == parent else -1 for mm in range(2 + (others > 0))), task_mm=task_mm,
        task_cpu=tuple(t % nr_cpus for t in range(tasks)), task_pinned=tuple(pick([False, True]) for _ in range(tasks)),
        task_first_pass=tuple(sum(number[:t]) for t in range(tasks)), task_nr_passes=tuple(number),
        task_loop_to=tuple(-1 if t == threads or t == 0 and taken else pick([0, 0, -1]) for t in range(tasks)),
        task_restart=tuple(t != threads and pick([True, True, False]) for t in range(tasks)),
        nr_slots=pick([4 * pages + size] * 6 + [pages, pages // 4, 0]), swappiness=pick([60, 200, 200]),
        costs=slow(**{name: factor * 1_000_003 for name, factor in long.items()}), tick=tick,
        slice_ticks=pick([1, 3]), cgroup=pick([1, 2]), mask_lazy=pick([True, False]), trim=pick([False, True]),
        pcid=pick([True, False]), l2_sets=pick([8, 256]), swap_sync=swap_sync,
        swapin_cached=swap_sync and pick([False, False, True]), rotational=not swap_sync and pick([False, True]),
        slot_cache=pick([False, True]), io_depth=pick([1, 8]), io_latency=pick([1_000_003, 80_000_000, 10**9]),
        host_cpus=host_cpus, pv_flush=host_cpus > 0 and pick([False, True]), balance=tick * (seed % 3),
        migrate_threshold=pick([0, 2**62]), seed=seed)


def _forked(pick, pages: int) -> list[tuple]:
    """What a parent or a child does with what both have."""
    rows = []
    for _ in range(pick([2, 3, 5])):
        few, zap = pick([1, 5, 20]), pick(["DONTNEED", "DONTNEED", "MUNMAP", "", ""])
        if zap:             # a few at a time, with others' reclaim meanwhile
            rows += [row for first in range(0, pages - few, pick([1, 3]) * max(few, pages // 30))
                     for row in (make_pass(zap, first=first, nr=few, count=1),
                                 make_pass("SEQ", write=pick([0, 1]), first=first + few, count=1, think=MS // 5))]
            continue
        first = pick([0, 0, pages // 3])
        nr = pick([pages - first, pages - first, 20, 1])
        kind = pick(["RAND", "RAND", "RAND", "SEQ", "FWDREV", "POPULATE", "DONTNEED", "MUNMAP"])
        few = kind in ("POPULATE", "DONTNEED", "MUNMAP")
        write, zero = (0, 0) if few else (pick([0, 0, 0, 1, 2]), pick([0, 0, 1]))
        count = nr if kind == "POPULATE" else pick([1, 2]) if few else 2 * nr
        rows.append(make_pass(kind, write=write, zero=zero, first=first, nr=nr, count=count,
                              think=pick([0, 1, 50_021])))
    return rows


def zapped_shares(unmap: int = 0, lru_lock: int = 0, chunk: int = 100, active: bool = False, parent: bool = False,
                  others: int = 1) -> World:
    """A child, or the parent, gives up what they share, a chunk at a time, while tasks of another mm reclaim it on one
    CPU: who waits for that page-table lock finds the page gone."""
    pages, start = 500, make_pass("SEQ", nr=1, count=60, think=MS)
    zaps = [row for first in range(0, pages, chunk)
            for row in (make_pass("SEQ", nr=1, count=20, think=MS),
                        make_pass("DONTNEED", first=first, nr=chunk, count=1))]
    reads = make_pass("SEQ", nr=pages, count=10**6, think=MS // 20)
    forks = [make_pass("SEQ", write=1, nr=pages), *(make_pass("POPULATE" if active else "SEQ", nr=pages),) * 2,
             make_pass("FORK", nr=pages)]
    programs = [[*forks, start, *zaps, reads] if parent else [*forks, reads], [reads] if parent else [start, *zaps],
                *[[start, make_pass("SEQ", write=1, nr=900, count=10**6, think=1000)]] * others]
    number = [len(rows) for rows in programs]
    long = {name: cost for name, cost in (("unmap", unmap), ("lru_lock", lru_lock)) if cost}
    return one_mm(*(row for rows in programs for row in rows), threads=2 + others, nr_cpus=3, pages=pages, limit=650,
                  nr_slots=4000, l2_sets=256, swappiness=200, mm_pages=(pages, pages, 900), mm_recency=(True,) * 3,
                  mm_child=(1, -1, -1), task_mm=(0, 1, *(2,) * others), task_cpu=(0, 1, *(2,) * others),
                  task_pinned=(True,) * (2 + others), task_nr_passes=tuple(number),
                  task_first_pass=tuple(sum(number[:t]) for t in range(2 + others)),
                  task_loop_to=(number[0] - 1, -1, *(1,) * others), task_restart=(True, False, *(True,) * others),
                  tick=10**10 if others == 1 else 10**9, slice_ticks=1, costs=slow(tlb_flush_full=3 * MS, **long))


def in_tlbs(sim: Simulation, mm: int) -> list[tuple[int, int]]:
    """(CPU, page) of the entries that a CPU which runs in the mm could use."""
    found = []
    for c, p in enumerate(sim.view("cpu")):
        if p["loaded_mm"] != mm or p["is_lazy"] or p["pv_flush"]:     # flushed before it runs again
            continue
        for level in ("tlb_l1", "tlb_l2"):
            entries = sim.view(level).reshape(len(sim.view("cpu")), -1)[c]
            live = entries >> np.uint64(32) == p["asid_stamp"][p["loaded_asid"]]
            found += [(c, int(e) >> 1 & 0x7fffffff) for e in entries[live].tolist()]
    return found


def calls_world(seed: int) -> World:
    """`race_world`, or one of processes, with calls that change mappings among the passes."""
    rng = random.Random(f"calls {seed}")
    pick, threads = rng.choice, rng.randint(1, 4)
    nr_cpus = rng.randint(1, 1 + threads)
    pages = pick([40, 200, 520, 700, 1300, 1600])
    limit = 60 * nr_cpus + pick([pages // 4, pages // 2, pages])
    rows, number = [], []
    for _ in range(threads):
        own = [make_pass("SEQ", write=pick([1, 1, 1, 0]), nr=pages, think=pick([0, 1000, 50_003]))]
        while len(own) < rng.randint(3, 8):
            own += _calls(pick, rng.randint, pages)
        rows += own
        number.append(len(own))
    lru, swap_sync, host_cpus = pick([0, 0, 1]), pick([True, True, False]), pick([0, 0, 0, 1, nr_cpus])
    task_mm = [0, *(pick([0, 0, 0, 1]) for _ in range(threads - 1))]
    mms, tick = 1 + max(task_mm), pick([10**9, 10**8])
    long = dict(pick([(), (), (("zap_pte", 3),), (("walk_pte", 2),), (("flush_fixed", 300),), (("fault_anon", 40),),
                      (("ipi_delivery", 200),), (("unmap", 40), ("rmap", 9)), (("zram_read", 50),)]))
    return one_mm(
        *rows, threads=threads, pages=pages, limit=limit, nr_cpus=nr_cpus, mm_pages=(pages,) * mms,
        mm_recency=(pick([True, True, False]),) * mms, task_mm=tuple(task_mm),
        task_cpu=tuple(t % nr_cpus for t in range(threads)), nr_slots=pick([4 * pages] * 5 + [pages // 2, 0]),
        task_pinned=tuple(pick([False, True]) for _ in range(threads)),
        task_first_pass=tuple(sum(number[:t]) for t in range(threads)), task_nr_passes=tuple(number),
        task_loop_to=tuple(pick([0, 0, 1, -1]) for _ in range(threads)),
        task_restart=tuple(pick([True, True, False]) for _ in range(threads)),
        costs=slow(**{name: factor * 1_000_003 for name, factor in long.items()}), tick=tick,
        slice_ticks=pick([1, 3]), swappiness=pick([60, 200]), cgroup=pick([1, 2]), lru=lru,
        mask_lazy=pick([True, False]), trim=pick([False, True]), pcid=pick([True, False]), l2_sets=pick([8, 64]),
        swap_sync=swap_sync, swapin_cached=swap_sync and pick([False, True]),
        rotational=not swap_sync and pick([False, True]), io_depth=pick([1, 8]),
        io_latency=pick([80_000_000, 10**9]), host_cpus=host_cpus, pv_flush=host_cpus > 0 and pick([False, True]),
        migrate_threshold=pick([0, 2**62]), seed=seed)


def _calls(pick, randint, pages: int) -> list[tuple]:
    """One call or a few that belong together, with touches between them."""
    nr = pick([1, 20, 33, 34, pages // 2, pages // 3])
    first = pick([0, 0, 512, 7, pages - nr])
    first = min(first, pages - nr)
    kind = pick(["MUNMAP", "MPROTECT", "MREMAP", "MREMAP", "touch", "DONTNEED", "POPULATE"])
    think = pick([0, 1, 50_021])
    if kind == "MPROTECT":
        between = [make_pass("RAND", first=first, nr=nr, count=pick([1, nr, 40]), think=think),
                   make_pass("SEQ", first=first, nr=nr, think=think), make_pass("POPULATE", first=first, nr=nr)]
        return [make_pass("MPROTECT", first=first, nr=nr, count=1), *between[:randint(0, 3)],
                make_pass("MPROTECT", write=1, first=pick([0, first]), nr=nr + (0 if first else 0), count=1),
                make_pass("MPROTECT", write=1, nr=pages, count=pick([1, 2]))]
    if kind == "MREMAP":
        nr = min(pick([nr, 512, 513]), pages // 2)
        first = min(first, pages - nr)
        by = pick([b for b in (nr, -nr, 512, -512, pages - nr - first, -first)
                   if abs(b) >= nr and 0 <= first + b <= pages - nr] or [0])
        return [make_pass("MREMAP", first=first, nr=nr, stride=by, count=pick([1, 2]))] if by else []
    if kind == "touch":
        return [make_pass(pick(["SEQ", "RAND", "FWDREV"]), write=pick([0, 1, 2]), zero=pick([0, 1]), first=first,
                          nr=nr, count=min(300, 2 * nr), think=think)]
    return [make_pass(kind, first=first, nr=nr, count=nr if kind == "POPULATE" else pick([1, 2]))]


def full_gather(first: int = 0, pages: int = 10_000) -> World:
    """9678 folios fill an mmu_gather: the rest of the range has a flush of its own.

    With first = 50 it is full where a page table ends; of 19,400 pages it is full twice.
    """
    return one_mm(make_pass("SEQ", write=1, nr=pages), make_pass("MUNMAP", first=first, nr=pages - first, count=1),
                  threads=1, nr_cpus=2, pages=pages, limit=pages + 1000, loop=False)


def many_tables(tables: int = 600) -> World:
    """A page in each of so many page tables: 509 of them fill a batch of page tables."""
    pages = tables * 512
    return one_mm(make_pass("SEQ", write=1, nr=pages, stride=512, count=tables), make_pass("MUNMAP", nr=pages, count=1),
                  threads=1, nr_cpus=2, pages=pages, limit=1700, loop=False)


def followed_moves(lru: int = 0) -> World:
    """One moves pages, slowly, that two of another mm reclaim."""
    rows = [make_pass("SEQ", write=1, nr=500, think=1000), make_pass("MREMAP", nr=500, stride=520, count=1),
            make_pass("MREMAP", first=520, nr=500, stride=-520, count=1)]
    return one_mm(*rows, make_pass("SEQ", write=1, nr=400, count=10**6, think=1000), threads=3, pages=1024, limit=500,
                  mm_pages=(1024, 1024), mm_recency=(True, True), task_mm=(0, 1, 1), task_first_pass=(0, 3, 3),
                  task_nr_passes=(3, 1, 1), costs=slow(walk_pte=MS // 50), task_loop_to=(1, 0, 0), lru=lru)


def pending_calls(kind: str) -> World:
    """A call on pages that a thread of the mm uses, while tasks of another mm unmap them in batches."""
    first, stride = (70, 600) if kind == "MREMAP" else (0, 1)
    caller = [make_pass("SEQ", write=1, nr=100), make_pass("SEQ", write=1, first=98, nr=2, count=4, think=MS // 100),
              make_pass(kind, first=first, nr=20, stride=stride, count=1)]
    if kind == "MPROTECT":
        caller.append(make_pass("MPROTECT", write=1, nr=20, count=1))
    user = make_pass("SEQ", write=0 if kind == "MPROTECT" else 2, nr=60, count=10**6, think=MS // 100)
    other = make_pass("SEQ", write=1, nr=800, count=10**6, think=1000)
    if kind == "MREMAP":              # to where there is no page table: nothing to zap there, where it would be flushed
        caller[2:2] = [make_pass("MUNMAP", first=512, nr=688, count=1)]
    n = len(caller)
    return one_mm(*caller, user, other, threads=4, pages=1200, limit=300, nr_slots=4000, l2_sets=64,
                  mm_pages=(1200, 1200), mm_recency=(False, True), task_mm=(0, 0, 1, 1),
                  task_first_pass=(0, n, n + 1, n + 1), task_nr_passes=(n, 1, 1, 1), task_loop_to=(1, 0, 0, 0),
                  costs=slow(unmap=MS // 50))


def unmapped_rights() -> World:
    """Pages that nobody may write are unmapped, moved, and moved onto; then all are written."""
    rows = [make_pass("SEQ", write=1, nr=200), make_pass("MPROTECT", nr=90, count=1), make_pass("SEQ", nr=90),
            make_pass("MUNMAP", nr=30, count=1), make_pass("SEQ", write=1, nr=30),
            make_pass("MREMAP", first=100, nr=30, stride=-70, count=1),
            make_pass("SEQ", write=2, first=30, nr=30), make_pass("MREMAP", first=60, nr=30, stride=50, count=1),
            make_pass("SEQ", write=1, nr=90), make_pass("MPROTECT", write=1, nr=200, count=1)]
    return one_mm(*rows, threads=1, nr_cpus=2, pages=200, limit=190, l2_sets=64)


def writer_without_right() -> World:
    """A thread writes pages all the time, of which another takes the right to and gives it back."""
    rows = [make_pass("SEQ", write=1, nr=8), make_pass("MPROTECT", nr=8, count=1),
            make_pass("SEQ", first=8, nr=1, count=20, think=MS // 50), make_pass("MPROTECT", write=1, nr=8, count=1),
            make_pass("SEQ", write=1, nr=8, count=100_000, think=MS // 100)]
    return one_mm(*rows, threads=2, pages=9, limit=200, task_first_pass=(0, 4), task_nr_passes=(4, 1))


def shared_rights() -> World:
    """A thread takes the right to write a few pages and gives it back, then writes them; another reads them
    while they are written to swap: from there they come without the right, and not exclusive."""
    rows = [make_pass("SEQ", write=1, nr=100)]
    for first in range(0, 100, 4):
        rows += [make_pass("MPROTECT", first=first, nr=4, count=1),
                 make_pass("MPROTECT", write=1, first=first, nr=4, count=1),
                 make_pass("SEQ", write=1, first=first, nr=4)]
    n = len(rows)
    return one_mm(*rows, make_pass("RAND", nr=100, count=1000, think=MS // 100),
                  make_pass("SEQ", write=1, nr=300, count=10**6, think=1000), threads=4, pages=300, limit=300,
                  nr_slots=4000, mm_pages=(300, 300), mm_recency=(False, True), task_mm=(0, 0, 1, 1),
                  task_first_pass=(0, n, n + 1, n + 1), task_nr_passes=(n, 1, 1, 1), task_loop_to=(1, 0, 0, 0),
                  costs=slow(zram_write=MS // 2))


def written_moves() -> World:
    """A thread fills pages with zeros and with something else in turn, also while a move of them is flushed."""
    rows = [make_pass("SEQ", first=200, nr=1, count=20, think=MS // 10), make_pass("MREMAP", nr=40, stride=60, count=1),
            make_pass("MREMAP", first=60, nr=40, stride=-60, count=1),
            *(make_pass("SEQ", write=1, zero=zero, nr=40, think=MS // 100) for zero in (1, 0)),
            make_pass("SEQ", write=1, nr=250, count=10**6, think=MS // 5)]
    return one_mm(*rows, threads=3, pages=250, limit=250, nr_slots=4000, l2_sets=64, mm_pages=(250, 250),
                  mm_recency=(False, True), task_mm=(0, 0, 1), task_first_pass=(0, 3, 5), task_nr_passes=(3, 2, 1),
                  costs=slow(flush_fixed=MS))


def killed_rights() -> World:
    """An OOM victim that has taken the right to write starts anew."""
    rows = [make_pass("SEQ", write=1, nr=50), make_pass("MPROTECT", nr=50, count=1),
            make_pass("SEQ", write=1, first=50, nr=650), make_pass("MPROTECT", write=1, nr=50, count=1)]
    return one_mm(*rows, threads=2, pages=700, limit=300, nr_slots=0, task_first_pass=(0, 2), task_nr_passes=(4, 1))


def moved_tables() -> World:
    """One moves a page table there and back, slowly, a thread reads its pages, and another mm reclaims them."""
    rows = [make_pass("SEQ", write=1, nr=512, think=1000),
            make_pass("SEQ", write=1, first=1600, nr=1, count=3, think=MS // 10),
            make_pass("MREMAP", nr=512, stride=1024, count=1),
            make_pass("MREMAP", first=1024, nr=512, stride=-1024, count=1),
            make_pass("RAND", nr=40, count=10**6, think=MS // 200),
            make_pass("SEQ", write=1, nr=600, count=10**6, think=MS // 200)]
    return one_mm(*rows, threads=3, pages=1700, limit=850, nr_slots=4000, l2_sets=512, mm_pages=(1700, 1700),
                  mm_recency=(False, True), task_mm=(0, 0, 1), task_first_pass=(0, 4, 5), task_nr_passes=(4, 1, 1),
                  task_loop_to=(1, 0, 0), costs=slow(walk_pte=5 * MS))


def moved_young_table() -> World:
    """A page table that a walk of MGLRU found to be young moves, and that is the end."""
    return one_mm(make_pass("SEQ", write=1, nr=512, think=1000),
                  make_pass("SEQ", write=1, first=2048, nr=600, think=1000), make_pass("SEQ", nr=512, think=1000),
                  make_pass("MREMAP", nr=512, stride=1024, count=1), threads=1, nr_cpus=2, pages=2648, limit=900,
                  nr_slots=4000, l2_sets=64, lru=1, mglru_rework=True, loop=False)


def busy_calls(seed: int) -> World:
    """Callers in one mm, whose other threads use what they move and unmap, and reclaim in another mm.

    Calls are most of what the callers do, and long costs keep their locks held and their flushes under way: in
    `calls_world` reclaim seldom comes upon one.
    """
    rng = random.Random(f"busy calls {seed}")
    pick = rng.choice
    callers, users, others = pick([1, 1, 2]), pick([0, 1, 2]), pick([1, 1, 2])
    threads = callers + users + others
    nr_cpus, first, nr, by, pages = pick([2, 3, threads]), *pick([
        (400, 100, 112, 700), (412, 100, 100, 612), (0, 512, 512, 1100), (0, 512, 1024, 1600), (3, 60, 90, 200),
        (600, 100, -600, 700), (600, 600, -600, 1200), (20, 33, 512, 600), (0, 80, 700, 790), (512, 512, -512, 1024)])
    filled = dict(first=first, nr=min(nr, pick([30, 100])))
    fill = make_pass("SEQ", write=1, zero=pick([0, 1]), **filled)
    back = make_pass("MREMAP", first=first + by, nr=nr, stride=-by, count=1)
    programs = []
    for _ in range(callers):
        own = [fill]
        while len(own) < 6:
            own += _busy_call(pick, first, nr, by, back)
        programs.append(own)
    few = filled["nr"]
    programs += [[make_pass("RAND", write=pick([0, 0, 2]), zero=pick([0, 1]), first=first + pick([0, 0, by]),
                            nr=few, count=10**6, think=pick([1_000_003, 5_000_003]))] for _ in range(users)]
    limit = size = 65 * nr_cpus + pick([30, 60, 120])
    programs += [[make_pass("SEQ", write=1, nr=size, count=10**6,
                            think=pick([1000, 200_003]))] for _ in range(others)]
    number = [len(own) for own in programs]
    long = dict(pick([(), (("walk_pte", 20),), (("walk_pte", 50), ("unmap", 20)), (("flush_fixed", 500),),
                      (("ipi_delivery", 500), ("zap_pte", 3)), (("unmap", 40), ("rmap", 20)), (("rmap", 50),),
                      (("lru_lock", 300), ("lru_add", 9)), (("zap_pte", 20),), (("pageout", 50), ("free", 20)),
                      (("walk_pte", 20), ("flush_fixed", 500))]))
    swap_sync, host_cpus = pick([True, True, False]), pick([0, 0, 0, 1, nr_cpus])
    return one_mm(
        *(row for own in programs for row in own), threads=threads, nr_cpus=nr_cpus, limit=limit,
        mm_pages=(pages, size), mm_recency=(pick([False, False, True]), pick([True, False])),
        task_mm=(0,) * (callers + users) + (1,) * others, task_cpu=tuple(t % nr_cpus for t in range(threads)),
        task_pinned=tuple(pick([False, True]) for _ in range(threads)),
        task_first_pass=tuple(sum(number[:t]) for t in range(threads)), task_nr_passes=tuple(number),
        task_loop_to=tuple(pick([0, 0, 1]) if t < callers else 0 for t in range(threads)),
        task_restart=tuple(pick([True, True, False]) for _ in range(threads)),
        nr_slots=pick([8 * pages] * 6 + [pages // 4, 0]), lru=pick([0, 0, 1]), swappiness=pick([60, 200, 200]),
        costs=slow(**{name: factor * 1_000_003 for name, factor in long.items()}), tick=pick([10**9, 10**8]),
        slice_ticks=pick([1, 3]), cgroup=pick([1, 2]), mask_lazy=pick([True, False]), trim=pick([False, True]),
        pcid=pick([True, False]), l2_sets=pick([8, 512]), swap_sync=swap_sync,
        swapin_cached=swap_sync and pick([False, True]), rotational=not swap_sync and pick([False, True]),
        io_depth=pick([1, 8]), io_latency=pick([1_000_003, 10**9]), host_cpus=host_cpus,
        pv_flush=host_cpus > 0 and pick([False, True]), migrate_threshold=pick([0, 2**62]), seed=seed)


def _busy_call(pick, first: int, nr: int, by: int, back: tuple) -> list[tuple]:
    """A move there and back, or another call, perhaps with touches."""
    think = pick([0, 1000, 50_021])
    there, some = dict(first=first + by, nr=nr), pick([nr, 1, 20, nr // 3])
    few = min(some, 60)
    kind = pick(["MREMAP", "MREMAP", "MREMAP", "MUNMAP", "MPROTECT", "DONTNEED", "touch"])
    if kind == "MREMAP":
        touch = make_pass(pick(["SEQ", "RAND"]), write=pick([0, 1, 2]), count=few, think=think, **there)
        return [make_pass("MREMAP", first=first, nr=nr, stride=by, count=1), *[touch] * pick([0, 1]), back]
    if kind == "MPROTECT":
        read = make_pass(pick(["SEQ", "RAND"]), first=first, nr=nr, count=few, think=think)
        # Taken there, moved, given back here: R goes with its pages.
        moved = [make_pass("MREMAP", first=first, nr=nr, stride=by, count=1), back] * pick([0, 1])
        return [make_pass("MPROTECT", first=first, nr=some, count=1), *moved, read,
                make_pass("MPROTECT", write=1, first=first, nr=nr, count=1)]
    if kind == "touch":
        return [make_pass("SEQ", write=1, zero=pick([0, 1]), first=first, nr=nr, count=few, think=think)]
    return [make_pass(kind, first=first, nr=some, count=pick([1, 2]))]


def flushed_ranges() -> World:
    """One thread changes 33 pages, then 34, and gives up one page, then two, some of which it may not write;
    the other has them all in its TLB."""
    rows = [make_pass("SEQ", write=1, nr=140)]
    for nr in (33, 34):
        rows += [make_pass("MUNMAP", nr=nr, count=1), make_pass("SEQ", write=1, nr=nr),
                 make_pass("MPROTECT", nr=nr, count=1), make_pass("SEQ", nr=nr),
                 make_pass("DONTNEED", first=3, nr=3, count=1), make_pass("SEQ", first=4, nr=1),
                 make_pass("MPROTECT", write=1, nr=nr, count=1),
                 make_pass("MREMAP", nr=nr, stride=200, count=1),
                 make_pass("MREMAP", first=200, nr=nr, stride=-200, count=1), make_pass("SEQ", write=1, nr=nr),
                 make_pass("DONTNEED", first=7, nr=nr - 32, count=1), make_pass("SEQ", write=1, first=7, nr=nr - 32)]
    return one_mm(*rows, make_pass("SEQ", nr=40, count=10**6, think=MS // 200), threads=2, pages=240, limit=200,
                  l2_sets=512, task_first_pass=(0, len(rows)), task_nr_passes=(len(rows), 1), task_loop_to=(1, 0))


# Those of busy_calls that reach what is rare.
RARE_CALLS = {
    70: "S_REF waits for a folio that moves away; V_MOVE_NEW and K_NEXT wait",
    93: "S_REF keeps a young folio that moved away",
    275: "S_GEN waits for a folio that moves away",
    296: "killed while it charges a page table for a move",
}

# Those of busy_forks that reach what is rare.
RARE_FORKS = {
    96: "S_REF waits for a page that is gone, and finds that the folio is not mapped at all",
    101: "S_REF waits for the child's page, which is gone",
    151: "a slot that both map is read by the other first: F_PREPARE goes back to F_TARGET",
    153: "a mapping goes after a second one was unmapped: S_PIN finds the folio mapped",
    207: "S_REF waits, and no page is left; zeros in one of the two only",
    307: "F_PREPARE finds the PTE changed",
    537: "S_UNMAP waits while another unmaps",
    646: "S_REF waits for the parent's page, which is gone",
    843: "V_FORK_PTES waits for the parent's page table",
    929: "killed while it charges a page table of the child's",
}

# Arguments of zapped_shares that make a row wait for a page that is gone.
ZAPPED_SHARES = {
    (MS // 4, MS // 2, 500, True): "K_NEXT",
    (MS, 0, 50, True): "S_UNMAP and S_REF",
    (0, 2 * MS, 100, False): "S_REF, with a young page before it and without",
    (MS // 2, 2 * MS, 500, True, True, 2): "K_NEXT, which does not give way then",
}

# Calls on an mm that random worlds seldom make: name, world, actions.
CALLS = {
    "ranges about the ceiling": (flushed_ranges, (), 12_000),
    "a batch of page tables that is full": (many_tables, (), 15_000),
    "one that is just full": (many_tables, (509,), 15_000),
    "what nobody may write is unmapped": (unmapped_rights, (), 15_000),
    "who writes lacks the right": (writer_without_right, (), 4000),
    "rights of pages that are not exclusive": (shared_rights, (), 20_000),
    "moves of what is written meanwhile": (written_moves, (), 20_000),
    "who took the right to write is killed": (killed_rights, (), 40_000),
    "reclaim follows a folio that moved": (followed_moves, (), 80_000),
    "reclaim follows a folio with generations": (followed_moves, (1,), 40_000),
    "a page table that moves": (moved_tables, (), 30_000),
    "one that moves and was young": (moved_young_table, (), 36_000),
    "munmap of what is pending": (pending_calls, ("MUNMAP",), 30_000),
    "mprotect of what is pending": (pending_calls, ("MPROTECT",), 30_000),
    "mremap of what is pending": (pending_calls, ("MREMAP",), 30_000),
    "a gather that is full at a page table's end": (full_gather, (50,), 95_000),
    "one that is full twice": (full_gather, (0, 19_400), 180_000),
}
