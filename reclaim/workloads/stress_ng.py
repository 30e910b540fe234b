"""The kind ``stress_ng.vm``: what the workers of ``stress-ng --vm N --vm-bytes B [--vm-keep]`` touch.

`METHODS` is the data of this module: what one call of each method does, observed on stress-ng
0.15.06 (Debian 12) from outside.  How each column was obtained, and what is assumed, is in
``docs/workloads.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reclaim.errors import ScenarioError, did_you_mean
from reclaim.units import PAGE_SIZE
from reclaim.workloads import AccessProgram
from reclaim.workloads.synthetic import Pass, pack

PassMaker = Callable[[int], Pass]   # pages of the buffer -> one pass


def _populate(nr: int) -> Pass:
    """MADV_POPULATE_READ over the whole buffer."""
    return Pass(nr=nr, kind="POPULATE")


P: PassMaker = _populate


def _seq(write: int, ns: float, units: int = 0, *, zero: bool = False, down: bool = False,
         sweeps: int = 1) -> PassMaker:
    """`sweeps` times over the buffer; `ns` and `units` are those of one touch."""
    return lambda nr: Pass(nr=nr, write=write, zero=zero, stride=-1 if down else 1,
                           count=sweeps * nr, think_ns=ns, units=units)


def _r(ns: float, units: int = 0, *, down: bool = False) -> PassMaker:
    return _seq(0, ns, units, down=down)


def _w(ns: float, units: int = 0, *, zero: bool = False, down: bool = False,
       sweeps: int = 1) -> PassMaker:
    return _seq(1, ns, units, zero=zero, down=down, sweeps=sweeps)


def _fwdrev(write: int, ns: float, units: int = 0) -> PassMaker:
    return lambda nr: Pass(nr=nr, kind="FWDREV", write=write, think_ns=ns, units=units)


def _rand(ns: float, units: int = 0, *, per_page: int = 1, log2: bool = False) -> PassMaker:
    """`per_page` random writes for each page, times floor(log2(pages)) with `log2`."""
    def make(nr: int) -> Pass:
        times = per_page * ((nr.bit_length() - 1) if log2 else 1)
        return Pass(nr=nr, kind="RAND", write=1, count=max(1, times * nr), think_ns=ns, units=units)
    return make


def _hammer(ns: float, units: int, count: int) -> PassMaker:
    """`count` reads of the first two pages in turn, whatever the size of the buffer."""
    return lambda nr: Pass(nr=min(2, nr), count=count, think_ns=ns, units=units)


_FILL = 180.0   # [ns] memset of a page: write64's figure

# One call of each method, in the order in which "all" runs them.  P: populate; _w: a pass that
# writes (reading before makes no difference), _r: a pass that reads, both upwards; arguments:
# user time of one touch [ns], bogo units of one touch.
METHODS: dict[str, tuple[PassMaker, ...]] = {
    "cache-lines": (P, _w(144), _r(216), P),                      # it counts no bogo ops
    "cache-stripe": (P, _w(414, 64), _r(2122), P),
    "checkerboard": (P, _w(125, 32), _w(125, 32), P, _r(308)),
    "flip": (P, _w(1224, 512), P, *(_w(1063, 512), P) * 8, _r(2481)),
    "fwdrev": (P, _fwdrev(1, 291, 256), _fwdrev(0, 1008)),
    "galpat-0": (P, _w(_FILL, 64, zero=True), _rand(30), P, _r(126)),
    "galpat-1": (P, _w(_FILL, 64), _rand(30), P, _r(219)),
    "gray": (P, _w(2477, 4096), P, _r(4053)),
    "grayflip": (P, _w(1351, 4096), P, _r(2413)),
    "rowhammer": (P, P, _w(940), _hammer(18500, 1000, 1000)),
    "incdec": (P, _w(_FILL, zero=True), _w(1551, 4096), P, _w(1551, zero=True), _r(1550)),
    "inc-nybble": (P, _w(_FILL, zero=True), _w(2121, 512), _w(2121, 512), P, _r(1502)),
    "lfsr32": (P, _w(176, 32), P, _r(759)),
    "rand-set": (P, _w(949, 512), P, _r(1868)),
    "rand-sum": (P, _w(199, 8), P, _r(215)),
    "read64": (P, _r(72, 16)),
    "ror": (P, _w(1055, 512), P, _w(1157, 512), P, _r(2109)),
    "swap": (P, _w(301), *(_w(5611), _rand(88, 1, per_page=64)) * 2, P, _r(7313)),
    "move-inv": (P, _w(1557, 512), _w(1808, 512), P, _r(1767), _w(1514, 512, down=True), P,
                 _w(1767, 512, down=True), _r(1724, down=True)),
    "modulo-x": (P, *(_w(39), _w(980, 1959), _r(89)) * 22, _w(39), _w(980, 1958), _r(89)),
    "mscan": (P, _w(13228, 4096), _r(3207), _w(13228, 4096, zero=True), _r(2405)),
    "wrrd128nt": (P, _w(1448, 64), _r(1321)),
    "prime-0": (P, _w(_FILL, zero=True), _w(10.5, 1, sweeps=8 * 4096), P, _r(10870)),
    "prime-1": (P, _w(_FILL), _w(10.1, 1, sweeps=8 * 4096), P, _r(19140)),
    "prime-gray-0": (P, _w(_FILL, zero=True), _w(11.6, 1, sweeps=2 * 4096), P, _r(14870)),
    "prime-gray-1": (P, _w(_FILL), _w(10.0, 1, sweeps=4096), P, _w(10.7, 1, sweeps=4096), P,
                     _r(16210)),
    "prime-incdec": (P, _w(_FILL, zero=True), _w(11066, 4096, zero=True), P,
                     _w(8.3, 1, zero=True, sweeps=4096)),
    "walk-0d": (P, _w(16888, 4096)),
    "walk-1d": (P, _w(16904, 4096)),
    "walk-0a": (P, _w(_FILL, zero=True), _w(973, 16)),
    "walk-1a": (P, _w(_FILL, zero=True), _w(219, 16), _rand(11, per_page=16, log2=True)),
    "write64": (P, _w(181, 16)),
    "write64nt": (P, _w(178, 16)),
    "write1024v": (P, _w(186, 32)),
    "zero-one": (P, _w(_FILL, zero=True), P, _r(122, 512), _w(_FILL), P, _r(154, 512)),
}

# What a worker draws its advice from, once, when none is given.  0.15.06 drew each of these in
# 150 starts, about equally often.
DRAWN_ADVICE = (
    "normal", "random", "sequential", "willneed", "dontfork", "dofork", "mergeable", "unmergeable",
    "hugepage", "nohugepage", "dontdump", "dodump", "cold", "pageout", "populate-read",
    "populate-write",
)
ADVICE = (*DRAWN_ADVICE, "dontneed")        # all that can be given by name
NO_RECENCY = ("random", "sequential")       # young bits do not protect (vma_has_recency)


@dataclass
class SplitMix64:
    """Steele, Lea and Flood's generator, so that draws do not change with NumPy.

    state : 64 bits; `docs/model.md`, "Random draws".
    """

    state: int

    def next(self) -> int:
        """64 random bits."""
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31


_STREAM = 3      # 1 and 2 are the streams of tasks and CPUs (docs/model.md)
_ROUNDS = 16     # mappings with one method that have advice of their own, without keep, before it repeats


def _stream(seed: int, worker: int) -> SplitMix64:
    """One worker's stream of draws."""
    stream = SplitMix64(seed % 2**64)
    stream.next()
    stream.state ^= (_STREAM << 32) + worker
    return stream


def _draw(stream: SplitMix64) -> str:
    return DRAWN_ADVICE[stream.next() * len(DRAWN_ADVICE) >> 64]


def draw_advice(seed: int, worker: int) -> str:
    """The advice of one worker, from a stream of its own."""
    return _draw(_stream(seed, worker))


def _populated(advice: str, nr: int, *, zero: bool) -> list[Pass]:
    """What an advice does to the pages at once; `zero`: of a range that nothing has touched yet."""
    if advice == "populate-read":
        return [_populate(nr)]
    return [Pass(nr=nr, write=1, zero=zero)] if advice == "populate-write" else []


def _mapped_anew(workload: Any, seed: int, nr: int, methods: Sequence[str]) -> AccessProgram:
    """Without ``--vm-keep``: each method call has a mapping, with advice at its start and its end."""
    workers = workload.workers
    rounds = list(methods) * (_ROUNDS if len(methods) == 1 else 1)
    parts: list[list[Pass]] = []
    for worker in range(workers):
        stream, own = _stream(seed, worker), []
        for name in rounds:
            advice = _draw(stream) if workload.madvise == "default" else workload.madvise
            own += [*_populated(advice, nr, zero=True), *(make(nr) for make in METHODS[name]),
                    *_populated(_draw(stream), nr, zero=False), Pass(nr=nr, kind="MUNMAP")]
        parts.append(own)
    lengths = [len(own) for own in parts]
    return AccessProgram(
        passes=np.concatenate([pack(own) for own in parts]), task_mm=tuple(range(workers)),
        task_first_pass=tuple(sum(lengths[:i]) for i in range(workers)), task_nr_passes=tuple(lengths),
        task_loop_to=(0,) * workers, task_restart=(True,) * workers, mm_pages=(nr,) * workers,
        mm_recency=(workload.madvise not in NO_RECENCY,) * workers, nr_processes=2 * workers)


def compile(workload: Any, *, seed: int) -> AccessProgram:
    """The kind ``stress_ng.vm``; reads workers, bytes, keep, method, madvise.

    Each worker is a parent, asleep, and a child with its own buffer of ``bytes / workers``,
    rounded down to pages, at least one (stress-ng refuses ``--vm-bytes`` below 4K).

    Raises
    ------
    ScenarioError : unknown method or advice.
    """
    methods, advices = ("all", *METHODS), ("default", *ADVICE)
    for key, value, allowed in (("method", workload.method, methods),
                                ("madvise", workload.madvise, advices)):
        if value not in allowed:
            raise ScenarioError(f"workload.{key} = {value!r}: unknown; choose from "
                                f"{', '.join(allowed)}{did_you_mean(value, allowed)}")
    workers = workload.workers
    nr = max(1, workload.bytes // workers // PAGE_SIZE)
    chosen = tuple(METHODS) if workload.method == "all" else (workload.method,)
    if not workload.keep:
        return _mapped_anew(workload, seed, nr, chosen)
    advice = [draw_advice(seed, i) if workload.madvise == "default" else workload.madvise
              for i in range(workers)]
    body = [make(nr) for name in chosen for make in METHODS[name]]

    # Workers with the same first pass share one program.
    lead = {a: _populated(a, nr, zero=True) for a in ("", "populate-read", "populate-write")}
    variant = [a if a in lead else "" for a in advice]
    first: dict[str, int] = {}
    parts: list[np.ndarray] = []
    for name in sorted(set(variant)):
        first[name] = sum(len(p) for p in parts)
        parts.append(pack(lead[name] + body))
    return AccessProgram(
        passes=np.concatenate(parts), task_mm=tuple(range(workers)),
        task_first_pass=tuple(first[v] for v in variant),
        task_nr_passes=tuple(len(lead[v]) + len(body) for v in variant),
        task_loop_to=tuple(len(lead[v]) for v in variant), task_restart=(True,) * workers,
        mm_pages=(nr,) * workers, mm_recency=tuple(a not in NO_RECENCY for a in advice),
        nr_processes=2 * workers)
