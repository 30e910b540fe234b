"""Made-up work: the kind ``writer``, and programs that Python users build themselves."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from reclaim.errors import ReclaimError, ScenarioError, did_you_mean
from reclaim.names import PASS_KINDS
from reclaim.units import PAGE_SIZE
from reclaim.workloads import AccessProgram
from reclaim.world import PASS_DTYPE

MAX_PAGES = 2**31 - 1            # of one mm: a trace entry is page << 1 | write in 32 bits
MAX_THINK_NS = 1e9
MAX_WORKERS = 4096
UNITS_PER_OP = 4096              # bogo units of one bogo op
WRITER_THINK_NS = 20.0           # assumed: storing 64 bytes of a page and stepping to the next
CALLS = ("DONTNEED", "MUNMAP", "MPROTECT", "MREMAP")     # kinds of which each count is one call
PATTERNS = ("seq", "rand", "mix")


def _integer(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an int of [low, high], or a ReclaimError that names it."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise ReclaimError(f"{name} must be an integer, {low} to {high}, got {value!r}")
    return number


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One pass of touches over pages [first, first + nr) of a worker's mm.

    A touch is one dense visit to a page, however many of its bytes are read or written.

    Attributes
    ----------
    nr : pages in the range, >= 1.
    kind : ``SEQ`` page by page, ``RAND`` at random, ``FWDREV`` from both ends in turn (two
        touches a page), ``POPULATE`` read faults by the kernel, as MADV_POPULATE_READ does,
        ``DONTNEED`` calls of madvise(MADV_DONTNEED) over the whole range; ``MUNMAP`` unmaps and
        maps it again; ``MPROTECT`` makes it read-only, or writable; ``MREMAP`` moves it to
        first + stride, whose pages are unmapped before, and maps the range itself again.
    write : 0 reads, 1 writes, 2 each touch draws one of the two. ``MPROTECT``: 0 read-only, 1 writable.
    zero : a written page holds only zeros afterwards.
    first : first page of the range, within the mm [pages].
    stride : ``SEQ``: distance of two touches, modulo nr [pages]; negative descends from
        the end; not 0. ``MREMAP``: how far the range moves, up or down, at least nr [pages].
    count : touches; None: once per page (``FWDREV``: twice; system calls: one call).
    think_ns : user time of one touch [ns], 0 to 1e9.
    units : bogo units that one touch adds; 4096 are one bogo op.

    Raises
    ------
    ReclaimError : a value out of range, named.
    """

    nr: int
    kind: str = "SEQ"
    write: int = 0
    zero: bool = False
    first: int = 0
    stride: int = 1
    count: int | None = None
    think_ns: float = 0.0
    units: int = 0

    def __post_init__(self) -> None:
        kinds = tuple(k for k in PASS_KINDS if k != "TRACE")
        if self.kind not in kinds:
            raise ReclaimError(f"Pass: kind must be one of {', '.join(kinds)}, got {self.kind!r}"
                               f"{did_you_mean(str(self.kind), kinds)}")
        for name, low, high in (("nr", 1, MAX_PAGES), ("first", 0, MAX_PAGES - 1), ("write", 0, 2),
                                ("stride", -2**31, 2**31 - 1), ("units", 0, 2**32 - 1)):
            _integer(f"Pass: {name}", getattr(self, name), low, high)
        if self.stride == 0:
            raise ReclaimError("Pass: stride must not be 0: it would touch one page only; "
                               "for that use nr=1")
        if self.kind == "MREMAP" and (abs(self.stride) < self.nr or self.first + self.stride < 0):
            raise ReclaimError(f"Pass: stride of an MREMAP must be nr = {self.nr} at least, up or down, to "
                               f"pages from 0 on, got {self.stride}")
        if self.kind == "MPROTECT" and self.write == 2:
            raise ReclaimError("Pass: write of an MPROTECT must be 0 (read-only) or 1 (writable), got 2")
        if self.count is not None:
            _integer("Pass: count", self.count, 1, 2**63 - 1)
        if isinstance(self.think_ns, bool) or not isinstance(self.think_ns, (int, float, np.number)) \
                or not (math.isfinite(self.think_ns) and 0 <= self.think_ns <= MAX_THINK_NS):
            raise ReclaimError(f"Pass: think_ns must be 0 to {MAX_THINK_NS:g} ns, "
                               f"got {self.think_ns!r}")
        if self.first + self.nr > MAX_PAGES:
            raise ReclaimError(f"Pass: first + nr must be at most {MAX_PAGES}, "
                               f"got {self.first} + {self.nr}")

    @property
    def touches(self) -> int:
        """Touches of the pass."""
        return self.count or (1 if self.kind in CALLS else self.nr * (1 + (self.kind == "FWDREV")))

    @property
    def end(self) -> int:
        """The page after the last one that the pass reaches."""
        return self.first + self.nr + (max(self.stride, 0) if self.kind == "MREMAP" else 0)

    def row(self) -> tuple[int, ...]:
        """The pass as a tuple of `reclaim.world.PASS_DTYPE`."""
        return (PASS_KINDS.index(self.kind), self.write, int(self.zero), 0, self.first, self.nr,
                self.stride, self.touches, round(self.think_ns * 1000), self.units, 0)


def pack(passes: Iterable[Pass]) -> np.ndarray:
    """The passes as an array of `reclaim.world.PASS_DTYPE`."""
    return np.array([p.row() for p in passes], dtype=PASS_DTYPE)


def program(passes: Sequence[Pass], *, workers: int = 1, pages: int | None = None,
            loop_to: int = 0, restart: bool = True, recency: bool = True,
            nr_processes: int | None = None, threads: bool = False) -> AccessProgram:
    """An access program in which each worker runs `passes` in an mm of its own.

    Parameters
    ----------
    passes : at least one `Pass`.
    workers : processes, 1 to 4096.
    pages : pages of each mm; None: as many as the passes reach.
    loop_to : the pass after the last one; -1: the worker ends.
    restart : a worker killed by the OOM killer starts anew.
    recency : False as after MADV_RANDOM or MADV_SEQUENTIAL: young bits do not protect.
    nr_processes : processes whose kernel memory is charged; None: `workers`, or 1 with `threads`.
    threads : the workers are threads of one process and share its mm.

    Raises
    ------
    ReclaimError : a value out of range, or a pass beyond the mm.
    """
    passes = list(passes)
    workers = _integer("workers", workers, 1, MAX_WORKERS)
    if not passes:
        raise ReclaimError("passes must hold at least one Pass, got none")
    for i, p in enumerate(passes):
        if not isinstance(p, Pass):
            raise ReclaimError(f"passes[{i}] must be a Pass, got {type(p).__name__}; "
                               "arrays of pages go to replay()")
    reach = max(p.end for p in passes)
    pages = reach if pages is None else _integer("pages", pages, 1, MAX_PAGES)
    for i, p in enumerate(passes):
        if p.end > pages:
            raise ReclaimError(f"passes[{i}] touches pages [{p.first}, {p.end}), beyond "
                               f"the {pages} pages of the mm; raise pages to {reach}")
    loop_to = _integer("loop_to", loop_to, -1, len(passes) - 1)
    mms = 1 if threads else workers
    charged = _integer("nr_processes", mms if nr_processes is None else nr_processes,
                       1, 2 * MAX_WORKERS)
    return AccessProgram(
        passes=pack(passes), task_mm=tuple(w % mms for w in range(workers)),
        task_first_pass=(0,) * workers, task_nr_passes=(len(passes),) * workers,
        task_loop_to=(loop_to,) * workers, task_restart=(bool(restart),) * workers,
        mm_pages=(pages,) * mms, mm_recency=(bool(recency),) * mms, nr_processes=charged)


def replay(page: ArrayLike, write: ArrayLike = False, *, think_ns: float = 0.0, units: int = 0,
           loop: bool = False) -> AccessProgram:
    """An access program of one task that touches ``page[i]``, writing where ``write[i]``.

    Parameters
    ----------
    page : integers, shape (n,), n >= 1: virtual page numbers from 0; the mm ends at the largest.
    write : booleans (or 0 and 1), shape (n,) or one for all.
    think_ns, units : user time [ns] and bogo units of one touch.
    loop : start again after the last touch.

    Raises
    ------
    ReclaimError : wrong shape or type, or a page out of range.
    """
    pages, writes = np.asarray(page), np.asarray(write)
    if pages.ndim != 1 or not pages.size or pages.dtype.kind not in "iu":
        raise ReclaimError("page must be a non-empty 1-d array of integers, got "
                           f"dtype {pages.dtype}, shape {pages.shape}")
    if pages.min() < 0 or pages.max() >= MAX_PAGES:
        raise ReclaimError(f"page must be 0 to {MAX_PAGES - 1}, got {pages.min()} to {pages.max()}")
    if writes.dtype.kind not in "biu" or writes.shape not in ((), pages.shape) \
            or writes.min() < 0 or writes.max() > 1:
        raise ReclaimError(f"write must be True or False, one or as many as pages ({pages.size}), "
                           f"got dtype {writes.dtype}, shape {writes.shape}")
    trace = pages.astype("<u4") << np.uint32(1) | writes.astype("<u4")
    base = program([Pass(nr=int(pages.max()) + 1, count=pages.size, think_ns=think_ns,
                         units=units)], loop_to=0 if loop else -1, restart=False)
    passes = base.passes.copy()
    passes["kind"], passes["first"], passes["nr"] = PASS_KINDS.index("TRACE"), 0, 1
    return AccessProgram(**{**base.__dict__, "passes": passes, "trace": trace.astype("<u4")})


def compile(workload: Any, *, seed: int) -> AccessProgram:
    """The kind ``writer``: each worker touches as many pages as its mapping has, over and over.

    With ``mode = "thread"`` the workers are threads of one process, and the one mapping of ``bytes``
    is that of all: in order, worker w of W starts at w/W of it and goes on from its end to its start.

    A touch stores the first 64 bytes of a page.  ``seq`` writes every page in order; ``rand``
    writes pages drawn uniformly; ``mix`` goes in order too, but half of the touches, at random,
    only read.  One touch is one bogo op.  Assumed: the 20 ns of a touch.  `seed` is not used: the
    draws are the tasks'.
    """
    del seed
    if workload.pattern not in PATTERNS:
        raise ScenarioError(f"workload.pattern = {workload.pattern!r}: choose from "
                            f"{', '.join(PATTERNS)}{did_you_mean(workload.pattern, PATTERNS)}")
    threads = workload.mode == "thread"
    nr = max(1, workload.bytes // (1 if threads else workload.workers) // PAGE_SIZE)
    one = Pass(nr=nr, kind="RAND" if workload.pattern == "rand" else "SEQ",
               write=2 if workload.pattern == "mix" else 1,
               think_ns=WRITER_THINK_NS, units=UNITS_PER_OP)
    whole = program([one], workers=workload.workers, threads=threads)
    return _staggered(one, whole) if threads and one.kind == "SEQ" else whole


def _staggered(one: Pass, whole: AccessProgram) -> AccessProgram:
    """Worker w first goes from w/W of the range to its end, then as before."""
    workers = len(whole.task_mm)
    starts = [one.nr * w // workers for w in range(workers)]
    passes = [p for s in starts for p in (replace(one, first=s, nr=one.nr - s), one)]
    return replace(whole, passes=pack(passes), task_first_pass=tuple(range(0, 2 * workers, 2)),
                   task_nr_passes=(2,) * workers, task_loop_to=(1,) * workers)
