"""Many simulations at once, in threads: the core releases the GIL while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from reclaim.errors import ReclaimError

T = TypeVar("T")
MAX_JOBS = 512


class Stop:
    """Tells the simulations of `run_jobs` that nobody waits for them any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Stop: from now on true."""
        self._event.set()

    def watch(self, simulation: Any) -> Callable[[float, float], None]:
        """A `progress` for `simulation`'s run that ends it soon after `set`."""
        def look(share: float, simulated_s: float) -> None:
            if self:
                simulation.stop()
        return look


def check_jobs(jobs: int | None) -> int:
    """`jobs`, or as many as there are CPUs for this process if it is None.

    Raises
    ------
    ReclaimError : not 1 to `MAX_JOBS`.
    """
    from reclaim.comparison import default_threads
    if jobs is None:
        return default_threads()
    if not 1 <= jobs <= MAX_JOBS:
        raise ReclaimError(f"jobs = {jobs}: must be 1 to {MAX_JOBS}")
    return jobs


def run_jobs(work: Sequence[Callable[[Stop], T]], jobs: int) -> Iterator[tuple[int, T]]:
    """The index and the result of each of `work` as they are done, `jobs` at a time.

    What has not begun when the caller leaves, by an exception or by a break, is never begun;
    what runs is told to stop.
    """
    stop = Stop()
    pool = ThreadPoolExecutor(jobs)
    try:
        pending = {pool.submit(one, stop): index for index, one in enumerate(work)}
        while pending:
            # With a timeout, or Ctrl-C would wait for the next result.
            done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=pending.__getitem__):
                yield pending.pop(future), future.result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
