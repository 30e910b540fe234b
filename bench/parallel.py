"""Two runs at once, as threads and as processes, against one: how much of the second core they get.

    python bench/parallel.py

Each run makes the same round of `batch-tlb-flush`, in calls of a million actions as `Simulation.run` does.
Two numbers each, the least of the rounds: wall time, which is only worth something where two cores are
idle, and a run's own CPU time, which shows what the two take from each other's caches and memory, but not
waiting for the GIL.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import worlds

CHUNK = 1 << 20
ACTIONS = 24 * CHUNK


class Span(NamedTuple):
    """A round: when it began and ended (CLOCK_MONOTONIC, the same for all processes), and its CPU time."""

    start: float
    end: float
    cpu: float


def _rounds(wait: Callable[[], Any], rounds: int) -> list[Span]:
    made = worlds.Round(worlds.Path(worlds.mixed, "pgsteal_anon", 130_000, ACTIONS))
    spans = []
    for _ in range(rounds):
        made.back()
        wait()
        started, used = time.perf_counter(), time.thread_time()
        for _ in range(ACTIONS // CHUNK):
            made.sim._core.run(worlds.END, actions=CHUNK)
        spans.append(Span(started, time.perf_counter(), time.thread_time() - used))
    return spans


def _least(runs: list[list[Span]]) -> tuple[float, float]:
    """The shortest round, from the first start to the last end, and the least CPU time of a run."""
    walls = [max(s.end for s in spans) - min(s.start for s in spans) for spans in zip(*runs, strict=True)]
    return min(walls), min(span.cpu for spans in runs for span in spans)


def _process(barrier: Any, rounds: int, queue: Any) -> None:
    queue.put(_rounds(barrier.wait, rounds))


def threads(rounds: int) -> tuple[float, float]:
    barrier, runs = threading.Barrier(2), []
    workers = [threading.Thread(target=lambda: runs.append(_rounds(barrier.wait, rounds))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return _least(runs)


def processes(rounds: int) -> tuple[float, float]:
    spawn = multiprocessing.get_context("spawn")
    barrier, queue = spawn.Barrier(2), spawn.Queue()
    workers = [spawn.Process(target=_process, args=(barrier, rounds, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    runs = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    return _least(runs)


def measure(rounds: int = 7) -> dict[str, tuple[float, float]]:
    """Speed of each of two at once as a share of that of another way: by wall time, by CPU time."""
    one = _least([_rounds(lambda: None, rounds)])
    two_threads, two_processes = threads(rounds), processes(rounds)

    def share(slow: tuple[float, float], fast: tuple[float, float]) -> tuple[float, float]:
        return slow[0] / fast[0], slow[1] / fast[1]
    return {"threads against processes": share(two_processes, two_threads),
            "threads against one": share(one, two_threads),
            "processes against one": share(one, two_processes)}


def main() -> None:
    for name, (wall, cpu) in measure().items():
        sys.stdout.write(f"{name}: {100 * wall:.0f}% by wall time, {100 * cpu:.0f}% by CPU time\n")


if __name__ == "__main__":
    main()
