"""`World`: a scenario lowered to integers and arrays, the only input of the core and the twin.

Nothing here knows a file format, a workload's name or a policy: see ``scenario.py``,
``workloads/`` and ``policies/``.  ``docs/model.md`` ("World") is the specification.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reclaim.errors import WorldError
from reclaim.names import COSTS, PASS_KINDS

PASS_DTYPE = np.dtype([
    ("kind", "u1"),      # index into names.PASS_KINDS
    ("write", "u1"),     # 0 reads, 1 writes, 2 each touch draws one of the two; MPROTECT: 0 takes
                         # the right to write, 1 gives it back
    ("zero", "u1"),      # 1: what a write leaves is a page of zeros
    ("pad", "u1"),
    ("first", "u4"),     # first page of the range, within the mm [pages]
    ("nr", "u4"),        # pages in the range, >= 1
    ("stride", "i4"),    # SEQ: distance of two touches, MREMAP: of the range's new place [pages]; not 0
    ("count", "u8"),     # touches in the pass, or calls, >= 1
    ("think", "i8"),     # user time of one touch [ps], >= 0
    ("units", "u4"),     # bogo units (of 1/4096 bogo op) that one touch adds
    ("pad2", "u4"),
])


@dataclass(frozen=True, kw_only=True)
class World:
    """One simulated machine with its work, in integers.

    Sizes are 4 KiB pages, times are picoseconds.
    """

    nr_cpus: int                       # 1 to 512
    cpus_per_socket: int               # CPU c is on socket c // cpus_per_socket
    pcid: bool
    l1_sets: int                       # a power of two, as l2_sets
    l1_ways: int
    l2_sets: int
    l2_ways: int
    limit: int                         # memory.max [pages]
    kernel_pages: int                  # charged before the start [pages]
    nr_folios: int                     # page frames
    nr_slots: int                      # swap slots; 0: no swap
    swappiness: int                    # 0 to 200
    cgroup: int                        # 1 or 2
    mask_lazy: bool                    # mm_cpumask rule
    trim: bool                         # flush_tlb_mm_range trims once a second (7.0)
    swap_sync: bool                    # SWP_SYNCHRONOUS_IO: zram
    io_depth: int                      # requests in flight, 1 to 65536 (unused if swap_sync)
    io_latency: int                    # of one request [ps]
    io_page: int                       # least time between the ends of two requests [ps]
    rotational: bool = False           # slots by scanning, clusters read ahead (not if swap_sync)
    slot_cache: bool = False           # caches of 64 slots per CPU (6.12)
    swapin_cached: bool                # synchronous swap-in goes through the swap cache (7.0)
    pgrefill_global: bool              # cgroup reclaim counts pgrefill in vmstat (7.0)
    host_cpus: int                     # CPU c runs on host CPU c % host_cpus; 0: each has its own
    pv_flush: bool                     # the host flushes for CPUs that it does not run
    busy_threshold: int = 0            # a wake-up finds a kernel thread on its CPU if a draw is below
    kworkers: bool = False             # bound kernel threads: vmstat, memory.events, vmpressure
    lru: int = 0                       # 0: active and inactive list; 1: generations (MGLRU)
    mglru_batch: bool = False          # isolation also stops after nr_to_scan folios (7.0)
    mglru_stop: bool = False           # a memcg's reclaim stops at nr_to_reclaim (7.0)
    mglru_rework: bool = False         # references, tiers and aging as reworked later (7.0)
    tick: int                          # [ps]
    balance: int = 0                   # a busy CPU balances after this for each CPU [ps]; 0: never
    tick_skew: int                     # CPU c's ticks come c * tick_skew later [ps], 0 to tick
    slice_ticks: int                   # ticks in a time slice
    migrate_threshold: int             # a tick migrates if a 64-bit draw is below it
    seed: int                          # 0 to 2**64 - 1
    costs: tuple[int, ...]             # one per names.COSTS [ps]
    passes: np.ndarray                 # PASS_DTYPE, shape (n,)
    task_mm: tuple[int, ...]           # the mm of each task; several tasks of one are threads
    task_cpu: tuple[int, ...]          # where it starts
    task_pinned: tuple[bool, ...]
    task_first_pass: tuple[int, ...]   # its program is passes[first : first + nr]
    task_nr_passes: tuple[int, ...]
    task_loop_to: tuple[int, ...]      # pass (within the program) after the last; -1: it ends
    task_restart: tuple[bool, ...]     # an OOM victim starts anew
    mm_pages: tuple[int, ...]          # virtual pages of each mm, >= 1
    mm_recency: tuple[bool, ...]       # False after MADV_RANDOM or MADV_SEQUENTIAL
    mm_child: tuple[int, ...] = ()     # the mm that each one's FORK makes, or -1; (): no mm forks
    trace: np.ndarray = field(default_factory=lambda: np.zeros(0, "<u4"))
    # trace: page << 1 | write, read by TRACE passes: touch i of the pass is trace[first + i]


def _fault(name: str, value: object, allowed: str) -> WorldError:
    return WorldError(f"World.{name} is {value!r}; it must be {allowed}")


def _int(world: World, name: str, low: int, high: int) -> int:
    value = getattr(world, name)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise _fault(name, value, f"an integer from {low} to {high}")
    return int(value)


def _each(world: World, name: str, length: int, low: int, high: int) -> None:
    values = getattr(world, name)
    if not isinstance(values, (tuple, list, np.ndarray)):
        raise _fault(name, values, f"a tuple of length {length}")
    if len(values) != length:
        raise _fault(name, f"of length {len(values)}", f"of length {length}")
    for i, value in enumerate(values):
        if not isinstance(value, (int, np.integer, np.bool_)) or not low <= value <= high:
            raise _fault(f"{name}[{i}]", value, f"an integer from {low} to {high}")


def check(world: World) -> None:
    """Refuse a world that the core could not run safely.

    Raises
    ------
    reclaim.errors.WorldError : naming the field, its value and the allowed range.
    """
    cpus = _int(world, "nr_cpus", 1, 512)
    for name in ("task_mm", "mm_pages"):
        if not isinstance(getattr(world, name), (tuple, list, np.ndarray)):
            raise _fault(name, getattr(world, name), "a tuple")
    tasks, mms = len(world.task_mm), len(world.mm_pages)
    if not 1 <= tasks <= 65535:
        raise _fault("task_mm", f"of length {tasks}", "of length 1 to 65535")
    if not 1 <= mms <= tasks:
        raise _fault("mm_pages", f"of length {mms}", f"of length 1 to {tasks}, the number of tasks")
    _each(world, "task_mm", tasks, 0, mms - 1)
    if len(set(world.task_mm)) != mms:
        raise _fault("task_mm", world.task_mm, f"each mm from 0 to {mms - 1} at least once")
    _int(world, "cpus_per_socket", 1, 512)
    for level in ("l1", "l2"):
        sets = _int(world, f"{level}_sets", 1, 65536)
        if sets & (sets - 1):
            raise _fault(f"{level}_sets", sets, "a power of two")
        _int(world, f"{level}_ways", 1, 64)
    _int(world, "limit", 1, 2**30)
    _int(world, "kernel_pages", 0, world.limit)
    need = world.limit + 64 * tasks + 64
    _int(world, "nr_folios", need, 2**30)
    _int(world, "nr_slots", 0, 2**30)
    if not isinstance(world.swap_sync, (bool, np.bool_)):
        raise _fault("swap_sync", world.swap_sync, "a bool")
    if world.swapin_cached and not world.swap_sync:
        raise _fault("swapin_cached", world.swapin_cached, "false where swap_sync is false")
    for name in ("rotational", "slot_cache", "kworkers"):
        if not isinstance(getattr(world, name), (bool, np.bool_)):
            raise _fault(name, getattr(world, name), "a bool")
    if world.rotational and world.swap_sync:
        raise _fault("rotational", True, "false where swap_sync is true")
    _int(world, "io_depth", 1, 65536)
    _int(world, "io_latency", 0, 10**13)
    _int(world, "io_page", 0, 10**13)
    _int(world, "swappiness", 0, 200)
    _int(world, "lru", 0, 1)
    _int(world, "cgroup", 1, 2)
    _int(world, "tick", 1, 10**12)
    _int(world, "balance", 0, 10**12)
    _int(world, "tick_skew", 0, world.tick)
    _int(world, "host_cpus", 0, cpus)
    if world.pv_flush and not world.host_cpus:
        raise _fault("pv_flush", world.pv_flush, "false where host_cpus is 0")
    _int(world, "slice_ticks", 1, 10**6)
    _int(world, "migrate_threshold", 0, 2**64 - 1)
    _int(world, "busy_threshold", 0, 2**64 - 1)
    _int(world, "seed", 0, 2**64 - 1)
    _each(world, "costs", len(COSTS), 0, 10**15)
    _each(world, "mm_pages", mms, 1, 2**30)
    if sum(world.mm_pages) >= 2**31 - 512:
        raise _fault("mm_pages", f"{sum(world.mm_pages)} pages in all", "below 2**31 - 512 in all")
    _each(world, "mm_recency", mms, 0, 1)
    _each(world, "task_cpu", tasks, 0, cpus - 1)
    _each(world, "task_pinned", tasks, 0, 1)
    _each(world, "task_restart", tasks, 0, 1)
    _check_forks(world, mms)
    _check_programs(world, tasks)


def _check_forks(world: World, mms: int) -> None:
    """A child is of one parent, has one task and as many pages; nothing else changes where pages lie."""
    if not isinstance(world.mm_child, (tuple, list, np.ndarray)):
        raise _fault("mm_child", world.mm_child, f"a tuple of length 0 or {mms}")
    if len(world.mm_child) == 0:
        return
    _each(world, "mm_child", mms, -1, mms - 1)
    children = [int(c) for c in world.mm_child if c >= 0]
    for i, child in enumerate(world.mm_child):
        tasks = [t for t, mm in enumerate(world.task_mm) if mm == child]
        if child >= 0 and (children.count(child) > 1 or child == i or world.mm_child[child] >= 0
                           or len(tasks) != 1 or world.task_restart[tasks[0]]
                           or world.mm_pages[child] != world.mm_pages[i]):
            raise _fault(f"mm_child[{i}]", child, "a mm with as many pages, of one task that does not start "
                         "anew, which is nobody else's child and has none")
    if children and world.lru:
        raise _fault("mm_child", world.mm_child, "without children where lru is 1")


def _check_programs(world: World, tasks: int) -> None:
    passes = np.asarray(world.passes)
    if passes.dtype != PASS_DTYPE or passes.ndim != 1 or not 1 <= len(passes) < 2**31:
        raise _fault("passes", f"{passes.dtype}, shape {passes.shape}", "PASS_DTYPE, shape (n,), n >= 1")
    trace = np.asarray(world.trace)
    if trace.ndim != 1 or trace.dtype != np.dtype("<u4"):
        raise _fault("trace", f"{trace.dtype}, shape {trace.shape}", "<u4, shape (n,)")
    _each(world, "task_first_pass", tasks, 0, len(passes) - 1)
    _each(world, "task_nr_passes", tasks, 1, len(passes))
    _each(world, "task_loop_to", tasks, -1, len(passes))
    for name, low, high in (("kind", 0, len(PASS_KINDS) - 1), ("write", 0, 2), ("zero", 0, 1),
                            ("nr", 1, 2**30), ("count", 1, 2**62), ("think", 0, 10**15),
                            ("units", 0, 2**31)):
        bad = (passes[name] < low) | (passes[name] > high)
        if bad.any():
            i = int(bad.argmax())
            raise _fault(f"passes[{i}][{name!r}]", passes[name][i], f"from {low} to {high}")
    if (passes["stride"] == 0).any():
        i = int((passes["stride"] == 0).argmax())
        raise _fault(f"passes[{i}]['stride']", 0, "not 0")
    ends = passes["first"].astype(np.int64) + passes["nr"].astype(np.int64)
    is_trace = passes["kind"] == PASS_KINDS.index("TRACE")
    for t in range(tasks):
        first, nr = int(world.task_first_pass[t]), int(world.task_nr_passes[t])
        if first + nr > len(passes):
            raise _fault(f"task_nr_passes[{t}]", nr, f"at most {len(passes) - first}")
        if not -1 <= world.task_loop_to[t] < nr:
            raise _fault(f"task_loop_to[{t}]", world.task_loop_to[t], f"from -1 to {nr - 1}")
        pages = int(world.mm_pages[world.task_mm[t]])
        own = slice(first, first + nr)
        for i in (np.flatnonzero(is_trace[own]) + first).tolist():
            start, count = int(passes["first"][i]), int(passes["count"][i])
            if start + count > len(trace):
                raise _fault(f"passes[{i}]", f"a trace up to entry {start + count}",
                             f"within the trace of {len(trace)} entries")
            top = int((trace[start:start + count] >> 1).max())
            if top >= pages:
                raise _fault(f"passes[{i}]", f"a trace that touches page {top}",
                             f"within the mm's {pages} pages")
        _check_moves(passes, first, nr, pages)
        kinds = passes["kind"][own]
        if (kinds == PASS_KINDS.index("FORK")).any() and not (
                len(world.mm_child) and world.mm_child[world.task_mm[t]] >= 0):
            raise _fault(f"mm_child[{world.task_mm[t]}]", -1, "a mm, as a program of it forks")
        if (kinds == PASS_KINDS.index("MREMAP")).any() and any(c >= 0 for c in world.mm_child):
            raise _fault("mm_child", world.mm_child, "without children where a program moves mappings")
        wrong = ~is_trace[own] & (ends[own] > pages)
        if wrong.any():
            i = int(wrong.argmax()) + first
            raise _fault(f"passes[{i}]", f"a range up to page {int(ends[i])}",
                         f"within the mm's {pages} pages")
    programs = zip(world.task_first_pass, world.task_nr_passes, world.task_mm, strict=True)
    for first, nr, pages in sorted({(f, n, world.mm_pages[mm]) for f, n, mm in programs}):
        _check_protection(passes[first:first + nr], first, pages, trace)


def _check_moves(passes: np.ndarray, first: int, nr: int, pages: int) -> None:
    """The destination of an MREMAP is another range of the mm, disjoint from the first."""
    moves = np.flatnonzero(passes["kind"][first:first + nr] == PASS_KINDS.index("MREMAP")) + first
    for i in moves.tolist():
        start, length, by = int(passes["first"][i]), int(passes["nr"][i]), int(passes["stride"][i])
        if abs(by) < length:
            raise _fault(f"passes[{i}]['stride']", by,
                         f"at least the {length} pages that are moved, up or down")
        if not 0 <= start + by <= pages - length:
            raise _fault(f"passes[{i}]", f"a move to pages {start + by} to {start + by + length - 1}",
                         f"within the mm's {pages} pages")


def _check_protection(passes: np.ndarray, start: int, pages: int, trace: np.ndarray) -> None:
    """No write to pages that the program itself protects; at its end it protects none."""
    if not (passes["kind"] == PASS_KINDS.index("MPROTECT")).any():
        return
    protected = np.zeros(pages, dtype=bool)
    for i, row in enumerate(passes):
        kind, first, nr = PASS_KINDS[row["kind"]], int(row["first"]), int(row["nr"])
        if kind == "MPROTECT":
            if row["write"] > 1:
                raise _fault(f"passes[{start + i}]['write']", int(row["write"]), "0 or 1 for MPROTECT")
            protected[first:first + nr] = not row["write"]
        elif kind == "MUNMAP":
            protected[first:first + nr] = False
        elif kind == "MREMAP":
            to = first + int(row["stride"])
            for _ in range(min(2, int(row["count"]))):           # a second call moves what is new
                protected[to:to + nr] = protected[first:first + nr]
                protected[first:first + nr] = False
        elif protected.any() and kind not in ("DONTNEED", "POPULATE"):
            hit = protected & _written(kind, row, pages, trace)
            if hit.any():
                raise _fault(f"passes[{start + i}]",
                             f"a write to page {int(hit.argmax())}, which the program made read-only",
                             "after an MPROTECT with write = 1")
    if protected.any():
        page = int(protected.argmax())
        raise _fault("passes", f"a program from pass {start} on that leaves page {page} read-only",
                     "one that gives the right to write back before its end")


def _written(kind: str, row: np.void, pages: int, trace: np.ndarray) -> np.ndarray:
    """The pages that a pass of touches may write, as a mask."""
    first, nr, count = int(row["first"]), int(row["nr"]), int(row["count"])
    written = np.zeros(pages, dtype=bool)
    if kind == "TRACE":
        entries = trace[first:first + count]
        written[entries[entries & 1 == 1] >> 1] = True
    elif row["write"]:
        written[first:first + nr] = True
    return written
