"""`reclaim` beside what pip installs: the same page references through each, in the same run.

    pip install -e ".[peers]" && python bench/peers.py [--quick]

20 million references to 524288 pages over 131072 frames: uniform, zipf 1.0, and a loop over all pages.
Each trace is written once as libCacheSim's oracleGeneral.  What is timed, in CPU time, rounds in turn, the
median of them:

* reclaim, trace mode: the whole simulation of one vm16 CPU whose memcg holds 131072 pages: TLB, page
  faults, the two LRU lists, swap-out and swap-in through zram.  `read` turns the file into the program,
  `replay` runs it from an empty memory to the last reference (no warm-up is left out, as for the others);
  the first reference of a page writes it.
* libcachesim: `process_trace` of its C library over the mapped file, from an empty cache of 131072 objects
  of size 1, whose hash table has 2**20 buckets (faster here than with its default, 2**24).
* the others, in Python or called from it, on the first million references.

What they do is not the same: a cache counts misses of one exact policy, the simulation says what each miss
costs the machine.  LRU misses are asserted equal where a tool has exact LRU; the kernel's two lists only
approximate it.  SimPy has no memory: its events, of 16 processes that only wait, are set beside the core's
steps on 16 CPUs.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import worlds
from reclaim.formats.libcachesim import RECORD
from reclaim.workloads import trace

PAGES, FRAMES = 524288, 131072
LENGTH, PREFIX = 20_000_000, 1_000_000
PEERS = ("libcachesim", "pycachesim", "cachetools", "simpy")
Timed = tuple[float, int]           # CPU seconds, misses


@dataclasses.dataclass
class Row:
    tool: str
    references: int
    ns: float
    misses: int | None = None
    exact: bool = False


def traces(length: int) -> Iterator[tuple[str, np.ndarray]]:
    """The three traces: page numbers, uint64."""
    rng = np.random.default_rng(1)
    yield "uniform", rng.integers(0, PAGES, length, dtype=np.uint64)
    weight = np.cumsum(1 / np.arange(1, PAGES + 1))
    rank = np.searchsorted(weight / weight[-1], rng.random(length))
    yield "zipf 1.0", rng.permutation(PAGES).astype(np.uint64)[rank]
    yield "loop", np.arange(length, dtype=np.uint64) % PAGES


def write(pages: np.ndarray, path: Path) -> None:
    records = np.zeros(len(pages), RECORD)
    records["id"], records["size"], records["next"] = pages + 1, 1, -1
    records.tofile(path)


def timed(work: Callable[[], int]) -> Timed:
    started = time.process_time()
    misses = work()
    return time.process_time() - started, misses


class Reclaim:
    """Trace mode: the program of the file, then its replay from the start."""

    def __init__(self, path: Path) -> None:
        started = time.process_time()
        program = trace.read(path, format="oracleGeneral", merge=False)
        self.read_s = time.process_time() - started
        self._sim = worlds.Simulation(worlds.world(program, cpus=1, limit=FRAMES))
        self._start = self._sim.snapshot()
        self._first = len(np.unique(program.trace >> 1))

    def __call__(self) -> int:
        why = self._sim._core.run(worlds.END, actions=1 << 60)
        counted = dict(zip(worlds.names.COUNTERS, self._sim.view("counter").tolist(), strict=True))
        assert why == "finished"
        return self._first + counted["pgmajfault"]

    def back(self) -> None:
        self._sim.restore(self._start)


def libcachesim(kind: str, path: Path, length: int, only: int = -1) -> Timed:
    import libcachesim as lcs
    reader = lcs.TraceReader(str(path), lcs.TraceType.ORACLE_GENERAL_TRACE)
    cache = getattr(lcs, kind)(FRAMES, hashpower=20)
    many = only if only > 0 else length
    return timed(lambda: round(cache.process_trace(reader, max_req=only)[0] * many))


def ordered_dict(pages: list[int]) -> int:
    """Exact LRU, ours."""
    held: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for page in pages:
        if page in held:
            held.move_to_end(page)
            continue
        misses += 1
        if len(held) == FRAMES:
            held.popitem(last=False)
        held[page] = None
    return misses


def cachetools(pages: list[int]) -> int:
    from cachetools import LRUCache
    held: LRUCache[int, bool] = LRUCache(FRAMES)
    misses = 0
    for page in pages:
        if held.get(page) is None:
            misses += 1
            held[page] = True
    return misses


def pycachesim(pages: list[int]) -> int:
    """8192 sets of 16 ways: fully associative it would search 131072 ways."""
    import cachesim
    memory = cachesim.MainMemory()
    level = cachesim.Cache("L1", FRAMES // 16, 16, 64, "LRU")
    memory.load_to(level)
    memory.store_from(level)
    cachesim.CacheSimulator(level, memory).load((page * 64 for page in pages), length=1)
    return int(level.stats()["MISS_count"])


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def one_trace(pages: np.ndarray, path: Path, rounds: int, prefix: int) -> list[Row]:
    """Every tool over one trace; reclaim's replay first."""
    write(pages, path)
    mine, length = Reclaim(path), len(pages)
    runs: dict[str, list[Timed]] = {"reclaim, replay": []}
    for _ in range(rounds):
        mine.back()
        runs["reclaim, replay"].append(timed(mine))
        for kind in ("LRU", "Clock") if installed("libcachesim") else ():
            runs.setdefault(f"libcachesim {kind}", []).append(libcachesim(kind, path, length))
    rows = [Row(tool, length, 1e9 * statistics.median(s for s, _ in found) / length, found[0][1],
                tool == "libcachesim LRU") for tool, found in runs.items()]
    both = rows[0].ns + 1e9 * mine.read_s / length
    rows.insert(1, Row("reclaim, read and replay", length, both, rows[0].misses))
    head = pages[:prefix].tolist()
    exact = ordered_dict(head)
    if installed("libcachesim"):
        assert libcachesim("LRU", path, length, len(head))[1] == exact, "libcachesim's LRU is not exact"
    for tool, work in (("OrderedDict", ordered_dict), ("cachetools", cachetools), ("pycachesim", pycachesim)):
        if tool == "OrderedDict" or installed(tool):
            found = [timed(lambda work=work: work(head)) for _ in range(min(rounds, 3))]
            ns = 1e9 * statistics.median(s for s, _ in found) / len(head)
            rows.append(Row(f"{tool}, first {len(head):,}", len(head), ns, found[0][1], tool != "pycachesim"))
            assert tool == "pycachesim" or found[0][1] == exact, f"{tool} is not an exact LRU"
    return rows


def check(name: str, rows: list[Row]) -> None:
    """Misses of the kernel's lists are near those of LRU."""
    by_tool = {row.tool: row.misses for row in rows}
    lru, mine = by_tool.get("libcachesim LRU"), by_tool["reclaim, replay"]
    assert mine is not None
    if name == "loop":
        assert mine == rows[0].references, "a loop over more than memory misses every time"
    if lru is not None:
        assert abs(mine / lru - 1) < 0.15, f"{name}: {mine} misses, LRU {lru}"


def simpy_events(events: int) -> float:
    """CPU time of one event."""
    import simpy
    environment = simpy.Environment()

    def process(every: int) -> Iterator[Any]:
        while True:
            yield environment.timeout(every)

    for i in range(16):
        environment.process(process(16 + i))
    started = time.process_time()
    for _ in range(events):
        environment.step()
    return (time.process_time() - started) / events


def events_and_steps(rounds: int) -> tuple[float, float | None]:
    """CPU time of a step of batch-tlb-flush [s], and of an event of SimPy."""
    made = worlds.Round(worlds.Path(worlds.mixed, "pgsteal_anon", 130_000, 4_000_000))
    steps = statistics.median(made.seconds() for _ in range(rounds)) / made.actions
    if not installed("simpy"):
        return steps, None
    return steps, statistics.median(simpy_events(300_000) for _ in range(rounds))


def measure(quick: bool = False) -> dict[str, Any]:
    length, prefix, rounds = (2_000_000, 200_000, 1) if quick else (LENGTH, PREFIX, 5)
    found: dict[str, Any] = {"traces": {}, "events": events_and_steps(rounds)}
    with tempfile.TemporaryDirectory() as directory:
        for name, pages in traces(length):
            rows = one_trace(pages, Path(directory) / "t.oracleGeneral", rounds, prefix)
            check(name, rows)
            found["traces"][name] = rows
            print(f"peers: {name}", file=sys.stderr)
    return found


def table(found: dict[str, Any]) -> str:
    lines = ["| trace | tool | references | ns per reference | times as long as reclaim's replay | misses |",
             "|---|---|---|---|---|---|"]
    for name, rows in found["traces"].items():
        for row in rows:
            misses = f"{row.misses:,}{' (exact LRU)' if row.exact else ''}"
            lines.append(f"| {name} | {row.tool} | {row.references:,} | {row.ns:.0f} "
                         f"| {row.ns / rows[0].ns:.2f} | {misses} |")
    steps, events = found["events"]
    lines += ["", f"Steps of the core, batch-tlb-flush on 16 CPUs: {1e-6 / steps:.1f} M/s."]
    if events is not None:
        lines[-1] += f" Events of SimPy: {1e-6 / events:.2f} M/s. Ratio **{events / steps:.0f}**."
    versions = ", ".join(f"{name} {installed(name) or 'is not installed'}" for name in PEERS)
    return "\n".join([*lines, "", f"Python {sys.version.split()[0]}, {versions}."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2 million references, one round")
    sys.stdout.write(table(measure(parser.parse_args().quick)))


if __name__ == "__main__":
    main()
