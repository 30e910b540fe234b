"""Tiny worlds, and hypothesis strategies that draw random ones."""

import dataclasses
import random

import numpy as np

from ._load import names, world as _world

World, PASS_DTYPE, check = _world.World, _world.PASS_DTYPE, _world.check

KIND = {name: i for i, name in enumerate(names.PASS_KINDS)}

# Distinct odd integers from 11 to about 2000 ns, in ps; the rest in the order of names.COSTS.
_IO_COSTS = {"io_submit": 1_500_007, "io_complete": 800_011, "walk_pte": 7_013, "walk_young": 3_001}
_COSTS = {name: (11 + (i * 977) % 1990) * 1000 + 2 * i + 1
          for i, name in enumerate(name for name in names.COSTS if name not in _IO_COSTS)}
# Older worlds stay as they were: no new cost is drawn.
_DRAWN_COSTS = tuple(name for name in names.COSTS if name not in ("vcpu_switch", "walk_pte", "walk_young"))
COSTS = tuple((_COSTS | _IO_COSTS)[name] for name in names.COSTS)


def make_pass(kind="SEQ", *, write=0, zero=0, first=0, nr=1, stride=1, count=None, think=0, units=1):
    return (KIND[kind], write, zero, 0, first, nr, stride, nr if count is None else count, think,
            units, 0)


def make_passes(rows):
    return np.array([tuple(row) for row in rows], dtype=PASS_DTYPE)


def small_world(**overrides):
    """Two CPUs, two tasks of 96 pages each, a limit of 120 pages: reclaim runs all the time.

    Lengths follow `mm_pages`; everything can be overridden.
    """
    mm_pages = tuple(overrides.get("mm_pages", (96, 96)))
    tasks = len(mm_pages)
    nr_cpus = overrides.get("nr_cpus", 2)
    limit = overrides.get("limit", 120)
    rows, first, number = [], [], []
    for pages in mm_pages:
        first.append(len(rows))
        rows += [
            make_pass("SEQ", write=1, nr=pages, think=300_001),
            make_pass("SEQ", write=0, nr=pages, stride=-1, think=100_003),
            make_pass("RAND", write=2, nr=pages, count=200, think=50_021, units=3),
            make_pass("POPULATE", nr=pages),
            make_pass("SEQ", write=1, zero=1, nr=pages, stride=7, think=1),
            make_pass("FWDREV", write=2, nr=pages, count=2 * pages),
        ]
        number.append(len(rows) - first[-1])
    tick = overrides.get("tick", 10**9)
    fields = dict(
        nr_cpus=nr_cpus, cpus_per_socket=nr_cpus, pcid=True,
        l1_sets=4, l1_ways=2, l2_sets=8, l2_ways=4,
        limit=limit, kernel_pages=4, nr_folios=limit + 64 * tasks + 256, nr_slots=512,
        swappiness=60, cgroup=1, mask_lazy=True, trim=False,
        swap_sync=True, io_depth=8, io_latency=80_000_000, io_page=2_000_000,
        swapin_cached=False, pgrefill_global=False, tick=tick, tick_skew=0, slice_ticks=3,
        host_cpus=0, pv_flush=False,
        migrate_threshold=0, seed=1,
        costs=COSTS, passes=make_passes(rows), task_mm=tuple(range(tasks)),
        task_cpu=tuple(t % nr_cpus for t in range(tasks)), task_pinned=(False,) * tasks,
        task_first_pass=tuple(first), task_nr_passes=tuple(number), task_loop_to=(0,) * tasks,
        task_restart=(True,) * tasks, mm_pages=mm_pages, mm_recency=(True,) * tasks,
    )
    fields.update(overrides)
    built = World(**fields)
    check(built)
    return built


# -- random worlds ------------------------------------------------------------------------------
#
# `pick` chooses one of a sequence (one value several times: more often).  `random_world(seed)` lets
# random.Random choose: even, for loops over many seeds.  The hypothesis strategies let hypothesis
# choose: it leans to the first of each sequence, and can shrink.


def _pass(pick, pages, trace):
    """One pass over an mm of `pages` pages; a TRACE pass appends to `trace`."""
    kind = pick(["RAND", "RAND", "SEQ", "SEQ", "SEQ", "FWDREV", "POPULATE", "TRACE"])
    common = dict(write=pick([2, 1, 0]), zero=pick([0, 0, 1]), units=pick([0, 1, 64]),
                  think=pick([0, 0, 1, 99_991, 3_000_017]))
    if kind == "TRACE":
        first, count = len(trace), pick([1, 20, 40])
        trace.extend(pick(range(2 * pages)) for _ in range(count))
        return make_pass("TRACE", first=first, nr=1, count=count, **common)
    first = pick([0, 0, 0, pages // 3, pages - 1])
    nr = pick([pages - first, pages - first, 1 + (pages - first) // 2])
    return make_pass(kind, first=first, nr=nr, stride=pick([1, 1, -1, 3, -5, 64, -7]),
                     count=pick([2 * nr, nr, nr, 3 * nr + 1, 1 + nr // 3]), **common)


def _costs(pick, tick):
    """Often COSTS; or some entries 0, or some long so that other CPUs meet the state meanwhile."""
    how = pick(["plain"] * 3 + ["long"] * 4 + ["swap"] * 3 + ["zero"] * 2 + ["all zero"])
    if how == "all zero":
        return (0,) * len(COSTS)
    costs = dict(zip(names.COSTS, COSTS))
    some = [pick(_DRAWN_COSTS) for _ in range(12)]
    if how == "zero":
        costs.update(dict.fromkeys([*some, "vcpu_switch"], 0))
    elif how == "long":             # but interrupts stay shorter than a tick
        interrupt = ("irq_entry", "irq_exit", "tick", "wakeup", "tlb_check", "tlb_flush_full",
                     "invlpg", "io_complete")
        costs.update({name: 40 * costs[name] for name in some if name not in interrupt})
        costs["vcpu_switch"] *= 5
    elif how == "swap":
        costs.update(zram_write=50_000_003, flush_fixed=20_000_001, fault_entry=7, walk_cold=9)
    return tuple(x // 7 if tick == 10**7 else x for x in costs.values())


def _hosts(pick, nr_cpus, tick, some=(0, 0, 1)):
    """Drawn after everything else: a seed's world stays what it was, but for these."""
    host_cpus = pick(some) and pick([*range(1, nr_cpus)] * 2 + [nr_cpus])
    return dict(host_cpus=host_cpus, pv_flush=host_cpus > 0 and pick([False, True]),
                tick_skew=pick([0, tick // 2 // nr_cpus, tick // 3, tick // 2]))


def _slots(pick, world):
    """Drawn last, too: devices that rotate, slot caches, and tables of a few slots to many clusters."""
    total = sum(world.mm_pages)
    rotational = not world.swap_sync and pick([True, True, False])
    slot_cache = pick([True, False]) if rotational else True
    per_cpu = [330 * world.nr_cpus, 400 * world.nr_cpus, total // 2 + 330 * world.nr_cpus]
    some = [total, total * 2 // 3, total // 2, total // 4, total + 300, 2 * total, 300, 20, 1]
    return dict(rotational=rotational, slot_cache=slot_cache,
                nr_slots=pick(some + 3 * per_cpu if slot_cache else some))


def build_world(pick):
    """Any small world; most reclaim much of the time, some run out of slots, some of memory."""
    nr_cpus = pick([4, 2, 3, 4, 2, 1])
    tasks = pick([4, 2, 6, 3, 5, 2, 1])
    sizes = pick([(96,), (160,), (96, 130), (48, 300), (600, 48, 200), (520,)])
    mm_pages = tuple(pick(sizes) for _ in range(tasks))
    rows, trace, first, number, loop_to = [], [], [], [], []
    for pages in mm_pages:
        first.append(len(rows))
        if pick([1] * 7 + [0]):   # most start by filling their memory
            rows.append(make_pass("SEQ", write=1, nr=pages, zero=pick([0, 0, 1]),
                                  think=pick([0, 200_003])))
        for _ in range(pick([1, 2, 3, 4])):
            rows.append(_pass(pick, pages, trace))
        number.append(len(rows) - first[-1])
        loop_to.append(pick([0] * 12 + [-1, number[-1] - 1]))
    total = sum(mm_pages)
    # Stocks hold 63 pages and batches 31 folios per CPU: below that, nothing can be reclaimed.
    limit = max(pick([total // 2, total // 2, total * 3 // 4, total * 4 // 5, total // 3]),
                min(60 * nr_cpus + 40, total - 15))
    limit = max(8, pick([limit] * 12 + [total // 5, min(total, 120), total + 100, 20]))
    nr_slots = pick([max(512, 2 * total)] * 9 + [total] * 4 + [total * 2 // 3] * 4
                    + [total // 4, 20, 1, 0])
    tick = pick([10**9, 10**9, 10**8, 10**7])
    one_cpu = pick([False, False, True])
    task_mm = list(range(tasks))
    if len(set(mm_pages)) == 1 and pick([False, True]):
        task_mm.reverse()
    swap_sync = pick([True, True, False])
    built = small_world(
        nr_cpus=nr_cpus, cpus_per_socket=pick([1, nr_cpus]), pcid=pick([True, False]),
        l1_sets=pick([4, 1]), l1_ways=pick([2, 1]), l2_sets=pick([8, 1, 64]), l2_ways=pick([4, 1]),
        limit=limit, kernel_pages=pick([0] * 6 + [4] * 5 + [limit // 2]),
        nr_folios=limit + 64 * tasks + pick([256, 64]), nr_slots=nr_slots,
        swappiness=pick([60] * 8 + [100] * 5 + [200] * 7 + [1, 0]),
        cgroup=pick([1, 1, 2]), mask_lazy=pick([True, False]), trim=pick([False, True]),
        swap_sync=swap_sync, io_depth=pick([8, 1, 2, 64]),
        io_latency=pick([80_000_000, 1, 1_000_003, 3_000_000_000]),
        io_page=pick([2_000_000, 1, 50_000_000]),
        swapin_cached=pick([False, True]) and swap_sync, pgrefill_global=pick([False, True]),
        tick=tick, slice_ticks=pick([1, 3, 10]),
        migrate_threshold=pick([0, 2**62, 2**62, 2**64 - 1]), seed=pick(range(2**32)) << 20,
        busy_threshold=2**62 if limit % 2 else 0,         # not drawn: the others stay as they were
        balance=tick * (limit % 3),
        costs=_costs(pick, tick), passes=make_passes(rows), trace=np.array(trace, dtype="<u4"),
        mm_pages=mm_pages, task_mm=tuple(task_mm),
        task_cpu=tuple(0 if one_cpu else pick(range(nr_cpus)) for _ in range(tasks)),
        task_pinned=tuple(pick([False, False, True]) for _ in range(tasks)),
        task_first_pass=tuple(first), task_nr_passes=tuple(number), task_loop_to=tuple(loop_to),
        task_restart=tuple(pick([True, True, False]) for _ in range(tasks)),
        mm_recency=tuple(pick([True, True, False]) for _ in range(tasks)),
        **_hosts(pick, nr_cpus, tick),
    )
    # One of eight, chosen where the worlds that tests know by their seeds stay what they were.
    return dataclasses.replace(built, **_slots(pick, built)) if pick([0] * 3 + [1] + [0] * 4) else built


def build_policy(pick):
    every = ("writeback", "lru", "mapped", "pinned")
    return {
        "activation": pick(["kernel", "kernel", "never"]),
        "unmap": pick(["kernel", "kernel", "immediate"]),
        "flush_every": pick([1, 31, 31, 2, 5, 16, 40]),
        "keeps_locks": pick([True, False]),
        "rechecks": frozenset(pick([every, every, (), every[:1], every[1:], every[2:3]])),
        "remainder": pick([True] * 7 + [False]),
    }


def random_world(seed):
    return build_world(random.Random(f"world {seed}").choice)


def random_ties(seed):
    """random_world(seed) with host CPUs, where little but touches takes time: equal times everywhere."""
    world, pick = random_world(seed), random.Random(f"ties {seed}").choice
    tick, passes = pick([3, 20, 200]), world.passes.copy()
    passes["think"] = np.minimum(passes["think"], 2)
    long = dict(zram_write=pick([0, 5]), pageout=pick([0, 1]), vcpu_switch=pick([0, 0, 1]),
                ipi_delivery=pick([0, 0, 1]), lru_lock=pick([0, 0, 1]))
    return dataclasses.replace(world, costs=tuple(long.get(name, 0) for name in names.COSTS), tick=tick,
                               passes=passes, io_latency=pick([0, 1, 7]), io_page=pick([0, 1]),
                               **_hosts(pick, world.nr_cpus, tick, (1,)))


def random_slots(seed):
    """Few CPUs, and pages in no order that go to swap all the time: what a scan and a slot cache meet.

    Caches hold slots while more than 128 to 320 per CPU are free, the scan looks for runs of 256, and
    takes slots from folios while less than half are free.
    """
    pick = random.Random(f"slots {seed}").choice
    nr_cpus, rotational = pick([1, 1, 1, 2, 2, 3]), pick([True] * 4 + [False])
    mm_pages = pick([(300,), (300,), (96, 200), (40, 300), (130, 90, 90), (400,), (300, 300), (600,)])
    total = sum(mm_pages)
    limit = max(total // pick([2, 3, 4]), 60 * nr_cpus + 40)
    out, rows, first, number = max(total - limit, 8), [], [], []
    for pages in mm_pages:
        first.append(len(rows))
        rows.append(make_pass("SEQ", write=1, nr=pages, zero=pick([0, 0, 0, 1])))
        rows += [make_pass(pick(["RAND", "RAND", "SEQ", "FWDREV"]), write=pick([2, 1, 0, 0]), nr=pages,
                           stride=pick([1, 7, -5, 64]), count=pages * pick([1, 2, 4]))
                 for _ in range(pick([1, 2]))]
        number.append(len(rows) - first[-1])
    slot_cache = pick([True, False]) or not rotational
    tables = [out + 5, out + 40, total - 10, total + 20, 2 * out, 2 * out + 40, 2 * out + 80, total + 280]
    if slot_cache:
        tables += [out + more * nr_cpus for more in (140, 200, 330, 400)] * 2
    swap_sync = not rotational and pick([False, True])
    return small_world(
        nr_cpus=nr_cpus, mm_pages=mm_pages, limit=limit, nr_slots=pick(tables), swappiness=200,
        swap_sync=swap_sync, rotational=rotational, slot_cache=slot_cache, cgroup=pick([1, 2]),
        io_latency=pick([1_000_003, 80_000_000, 1]), io_page=pick([1, 2_000_000]), io_depth=pick([64, 8, 1]),
        swapin_cached=swap_sync and pick([False, True]), passes=make_passes(rows), seed=seed,
        task_first_pass=tuple(first), task_nr_passes=tuple(number),
        task_loop_to=tuple(pick([0, 1, 1]) for _ in mm_pages), tick=pick([10**8, 10**9]))


def with_forks(world, pick):
    """The world, some of whose mms have a child; a program of each such mm forks.

    Drawn after the world, which thus stays what it was but for this.
    """
    sizes, tasks = list(world.mm_pages), len(world.task_mm)
    programs = [[tuple(row) for row in world.passes[first:first + nr]]
                for first, nr in zip(world.task_first_pass, world.task_nr_passes)]
    loops = list(world.task_loop_to)
    parents = sorted({pick(range(len(sizes))) for _ in range(pick([1, 1, 2, 3]))})
    for parent in parents:
        pages, forks = sizes[parent], pick([t for t, mm in enumerate(world.task_mm) if mm == parent])
        for _ in range(pick([1, 1, 2])):
            first = pick([0, 0, 0, pages // 3, pages - 1])
            nr = pick([pages - first, pages - first, 1 + (pages - first) // 2])
            at = pick([1, 1, len(programs[forks]), 0])
            programs[forks].insert(at, make_pass("FORK", first=first, nr=nr, count=pick([1, 1, 2])))
            loops[forks] += loops[forks] >= at
        own = [_pass(pick, pages, []) for _ in range(pick([1, 2, 3]))]
        programs.append([row for row in own if row[0] != KIND["TRACE"]]
                        or [make_pass("RAND", write=2, nr=pages, count=2 * pages)])
        loops.append(pick([-1, -1, 0]))
    n, mms = len(parents), len(sizes)
    number = [len(rows) for rows in programs]
    return dataclasses.replace(
        world, passes=make_passes([row for rows in programs for row in rows]),
        mm_pages=(*sizes, *(sizes[m] for m in parents)), nr_folios=world.nr_folios + 64 * n,
        mm_recency=(*world.mm_recency, *(pick([True, False]) for _ in parents)),
        mm_child=(*(mms + parents.index(m) if m in parents else -1 for m in range(mms)), *(-1,) * n),
        task_mm=(*world.task_mm, *range(mms, mms + n)),
        task_cpu=(*world.task_cpu, *(pick(range(world.nr_cpus)) for _ in parents)),
        task_pinned=(*world.task_pinned, *(pick([False, False, True]) for _ in parents)),
        task_restart=(*world.task_restart, *(False,) * n),
        task_loop_to=tuple(loops), task_nr_passes=tuple(number),
        task_first_pass=tuple(sum(number[:t]) for t in range(tasks + n)))


def random_forks(seed):
    """random_world(seed) with children."""
    return with_forks(random_world(seed), random.Random(f"forks {seed}").choice)


def random_kworkers(seed):
    """random_world(seed) with bound kernel threads, in half of the worlds for seconds."""
    world, pick = random_world(seed), random.Random(f"kworkers {seed}").choice
    passes, tick = world.passes.copy(), pick([world.tick, 10**9, 10**10, 3 * 10**10])
    passes["think"] += pick([0, 0, 10**9, 3 * 10**10])
    return dataclasses.replace(world, kworkers=True, cgroup=pick([2, 2, 2, 1]), tick=tick, passes=passes,
                               balance=pick([0, tick, 3 * tick]), busy_threshold=pick([0, 2**62]),
                               **_hosts(pick, world.nr_cpus, tick, (0, 1)))


def busy_kworkers(seed):
    """Two tasks a CPU, or one more, that reclaim all the time, while kernel threads wait and CPUs balance."""
    pick = random.Random(f"busy kworkers {seed}").choice
    nr_cpus, tick, swap_sync = pick([2, 3, 4]), pick([10**8, 10**9]), pick([True, False])
    tasks, pages = 2 * nr_cpus + pick([0, 1]), pick([96, 200])
    rows = make_passes([make_pass(pick(["SEQ", "RAND"]), write=pick([1, 2]), nr=pages, count=pages, think=pick([0, 10**6]))])
    return small_world(
        nr_cpus=nr_cpus, mm_pages=(pages,) * tasks, limit=max(pages * tasks * 2 // 3, 60 * nr_cpus + 40), nr_slots=4 * pages * tasks,
        tick=tick, balance=pick([tick, 2 * tick]), slice_ticks=pick([1, 3, 10]), host_cpus=pick([0, 1, 1]), cgroup=2,
        swap_sync=swap_sync, io_latency=pick([10**7, 10**8]), swappiness=200, kworkers=True, passes=rows, seed=seed,
        lru=pick([0, 0, 1]), task_first_pass=(0,) * tasks, task_nr_passes=(1,) * tasks)


def random_policy(seed):
    return build_policy(random.Random(f"policy {seed}").choice)


try:
    from hypothesis import strategies as st
except ImportError:                 # only these two need it
    st = None


def drawn_by_hypothesis(build):
    """A strategy of what build(pick) makes; None without hypothesis."""
    if st is None:
        return None

    @st.composite
    def strategy(draw):
        return build(lambda choices: draw(st.sampled_from(choices)))
    return strategy


def _any_world(pick):
    world = build_world(pick)
    return with_forks(world, pick) if pick([False, False, True]) else world


worlds = drawn_by_hypothesis(_any_world)
policies = drawn_by_hypothesis(build_policy)
