"""Tiny worlds, and hypothesis strategies that draw random ones."""

import numpy as np

from ._load import names, world as _world

World, PASS_DTYPE, check = _world.World, _world.PASS_DTYPE, _world.check

KIND = {name: i for i, name in enumerate(names.PASS_KINDS)}

# Distinct odd integers from 11 to about 2000 ns, in ps.
COSTS = tuple((11 + (i * 977) % 1990) * 1000 + 2 * i + 1 for i in range(len(names.COSTS)))


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
        swappiness=60, cgroup=1, mask_lazy=True, trim=False, swapin_cached=False,
        pgrefill_global=False, tick=tick, slice_ticks=3, jiffy=tick, migrate_threshold=0, seed=1,
        costs=COSTS, passes=make_passes(rows), task_mm=tuple(range(tasks)),
        task_cpu=tuple(t % nr_cpus for t in range(tasks)), task_pinned=(False,) * tasks,
        task_first_pass=tuple(first), task_nr_passes=tuple(number), task_loop_to=(0,) * tasks,
        task_restart=(True,) * tasks, mm_pages=mm_pages, mm_recency=(True,) * tasks,
    )
    fields.update(overrides)
    built = World(**fields)
    check(built)
    return built


# -- strategies ---------------------------------------------------------------------------------

try:
    from hypothesis import strategies as st
except ImportError:                 # the twin itself does not need it
    st = None


if st is not None:

    def _weighted(**choices):
        """sampled_from, each value as often as its weight: _weighted(a=(value, weight), ...)."""
        return st.sampled_from([value for value, weight in choices.values() for _ in range(weight)])

    @st.composite
    def _passes(draw, pages, trace):
        """One pass over an mm of `pages` pages; a TRACE pass appends to `trace`."""
        kind = draw(st.sampled_from(
            ["RAND", "RAND", "SEQ", "SEQ", "SEQ", "FWDREV", "POPULATE", "TRACE"]))
        think = draw(st.sampled_from([0, 0, 1, 99_991, 3_000_017]))
        units = draw(st.sampled_from([0, 1, 64]))
        write = draw(st.sampled_from([2, 1, 0]))
        zero = draw(st.sampled_from([0, 0, 1]))
        if kind == "TRACE":
            entries = draw(st.lists(st.integers(0, 2 * pages - 1), min_size=1, max_size=40))
            first = len(trace)
            trace.extend(entries)
            return make_pass("TRACE", write=write, zero=zero, first=first, nr=1,
                             count=len(entries), think=think, units=units)
        first = draw(st.sampled_from([0, 0, 0, pages // 3, pages - 1]))
        nr = draw(st.sampled_from([pages - first, pages - first, 1 + (pages - first) // 2]))
        stride = draw(st.sampled_from([1, 1, -1, 3, -5, 64, -7]))
        count = draw(st.sampled_from([2 * nr, nr, nr, 3 * nr + 1, 1 + nr // 3]))
        return make_pass(kind, write=write, zero=zero, first=first, nr=nr, stride=stride,
                         count=count, think=think, units=units)

    @st.composite
    def _costs(draw, tick):
        """Usually COSTS; some entries 0, or long so that other CPUs meet the state meanwhile."""
        costs = list(COSTS)
        how = draw(st.sampled_from(["plain", "long", "long", "zero", "all zero"]))
        entries = st.sets(st.integers(0, len(costs) - 1), max_size=12)
        if how == "all zero":
            return (0,) * len(costs)
        for i in draw(entries) if how == "zero" else ():
            costs[i] = 0
        interrupt = {names.COSTS.index(x) for x in ("irq_entry", "irq_exit", "tick", "wakeup",
                                                    "tlb_check", "tlb_flush_full", "invlpg")}
        for i in draw(entries) if how == "long" else ():
            costs[i] *= 1 if i in interrupt else 40
        return tuple(x // 7 for x in costs) if tick == 10**7 else tuple(costs)

    @st.composite
    def worlds(draw):
        """Any small world; most reclaim much of the time, some run out of slots, some of memory."""
        nr_cpus = draw(st.sampled_from([4, 2, 3, 4, 2, 1]))
        tasks = draw(st.sampled_from([4, 2, 6, 3, 5, 2, 1]))
        booleans = st.booleans()
        sizes = draw(st.sampled_from([(96,), (96, 130), (16, 48, 200), (600, 48), (520,)]))
        mm_pages = tuple(draw(st.sampled_from(sizes)) for _ in range(tasks))
        rows, trace, first, number, loop_to = [], [], [], [], []
        for pages in mm_pages:
            first.append(len(rows))
            if draw(st.integers(0, 4)):             # most start by filling their memory
                rows.append(make_pass("SEQ", write=1, nr=pages, zero=draw(st.integers(0, 1)),
                                      think=draw(st.sampled_from([0, 200_003]))))
            for _ in range(draw(st.integers(1, 4))):
                rows.append(draw(_passes(pages, trace)))
            number.append(len(rows) - first[-1])
            loop_to.append(draw(st.sampled_from([0, 0, 0, 0, 0, -1, number[-1] - 1])))
        total = sum(mm_pages)
        limit = max(8, draw(st.sampled_from([
            total // 2, total // 2, total * 3 // 4, total * 4 // 5, total // 3, total // 5,
            min(total, 120), total + 100, 20])))
        kernel_pages = draw(st.sampled_from([0, 0, 4, limit // 2]))
        nr_slots = draw(_weighted(
            plenty=(max(512, 2 * total), 6), enough=(total, 3), full=(total * 2 // 3, 3),
            few=(total // 4, 2), twenty=(20, 1), one=(1, 1), none=(0, 1)))
        tick = draw(st.sampled_from([10**9, 10**9, 10**8, 10**7]))
        one_cpu = draw(st.sampled_from([False, False, True]))
        same_pages = len(set(mm_pages)) == 1
        return small_world(
            nr_cpus=nr_cpus, cpus_per_socket=draw(st.sampled_from([1, nr_cpus])),
            pcid=draw(booleans),
            l1_sets=draw(st.sampled_from([4, 1])), l1_ways=draw(st.sampled_from([2, 1])),
            l2_sets=draw(st.sampled_from([8, 1, 64])), l2_ways=draw(st.sampled_from([4, 1])),
            limit=limit, kernel_pages=kernel_pages,
            nr_folios=limit + 64 * tasks + draw(st.sampled_from([256, 64])), nr_slots=nr_slots,
            swappiness=draw(st.sampled_from([60, 60, 60, 60, 100, 100, 200, 200, 200, 1, 0])),
            cgroup=draw(st.sampled_from([1, 1, 2])), mask_lazy=draw(booleans), trim=draw(booleans),
            swapin_cached=draw(booleans), pgrefill_global=draw(booleans),
            tick=tick, jiffy=tick, slice_ticks=draw(st.sampled_from([1, 3, 10])),
            migrate_threshold=draw(st.sampled_from([0, 2**62, 2**62, 2**64 - 1])),
            seed=draw(st.integers(0, 2**64 - 1)), costs=draw(_costs(tick)),
            passes=make_passes(rows), trace=np.array(trace, dtype="<u4"), mm_pages=mm_pages,
            task_mm=tuple(draw(st.permutations(range(tasks)))) if same_pages
            else tuple(range(tasks)),
            task_cpu=tuple(0 if one_cpu else draw(st.integers(0, nr_cpus - 1))
                           for _ in range(tasks)),
            task_pinned=tuple(draw(st.sampled_from([False, False, True])) for _ in range(tasks)),
            task_first_pass=tuple(first), task_nr_passes=tuple(number),
            task_loop_to=tuple(loop_to),
            task_restart=tuple(draw(st.sampled_from([True, True, False])) for _ in range(tasks)),
            mm_recency=tuple(draw(st.sampled_from([True, True, False])) for _ in range(tasks)),
        )

    @st.composite
    def policies(draw):
        every = ("writeback", "lru", "mapped", "pinned")
        return {
            "activation": draw(st.sampled_from(["kernel", "kernel", "never"])),
            "unmap": draw(st.sampled_from(["kernel", "kernel", "immediate"])),
            "flush_every": draw(st.sampled_from([1, 31, 31, 2, 5, 16, 40])),
            "keeps_locks": draw(st.booleans()),
            "rechecks": frozenset(draw(st.sampled_from(
                [every, every, (), every[:1], every[1:], every[2:3]]))),
            "remainder": draw(st.sampled_from([True] * 7 + [False])),
        }
