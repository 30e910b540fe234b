"""The kind ``trace``: replays the memory references of a real program, at page granularity."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reclaim import formats
from reclaim.errors import TraceError
from reclaim.formats._numbering import Numbering
from reclaim.names import PASS_KINDS
from reclaim.workloads import AccessProgram
from reclaim.workloads.synthetic import MAX_PAGES, MAX_WORKERS
from reclaim.world import PASS_DTYPE

REFERENCE_PS = 1000          # assumed: user time of one reference of the file [ps]
MAX_TOUCHES = 2**32 - 1      # an index of the trace is 32 bits


@dataclass
class _Task:
    """What is kept of one task: its touches, and its pages' numbers."""

    numbers: Numbering = field(default_factory=Numbering)
    parts: list[np.ndarray] = field(default_factory=list)
    references: int = 0
    last: int = -1               # last entry of the trace

    def add(self, page: np.ndarray, write: np.ndarray, merge: bool) -> int:
        """Append references; the number of touches that were added."""
        self.references += len(page)
        entry = self.numbers(page) << np.uint32(1) | write.astype(np.uint32)
        if merge:
            new = np.empty(len(entry), dtype=bool)
            new[0] = int(entry[0]) != self.last
            np.not_equal(entry[1:], entry[:-1], out=new[1:])
            self.last = int(entry[-1])
            entry = entry[new]
        self.parts.append(entry.astype("<u4"))
        return len(entry)


def read(file: str | os.PathLike[str], *, format: str | None = None, instructions: bool = True,
         writes: str = "first", merge: bool = True, page_size: int = 4096) -> AccessProgram:
    """The access program that replays the trace `file` once.

    One task and one mm for each task of the file, in order of appearance; their order relative to
    each other is not kept.  Pages are numbered from 0 as they first appear in their mm, so
    ``mm_pages`` is the number of distinct pages.

    Parameters
    ----------
    format : one of `reclaim.formats.names`; None: told by the file's first line or bytes.
    instructions, writes, page_size : as in `reclaim.formats.Options`.
    merge : consecutive references of a task to one page with the same direction become one
        touch; False keeps each.

    Raises
    ------
    TraceError : the file cannot be read, is malformed or too large.
    """
    name = os.fspath(file)
    tasks: dict[int, _Task] = {}
    total = 0
    for block in formats.read(name, format=format, page_size=page_size, instructions=instructions,
                              writes=writes):
        for task, rows in block.tasks():
            entry = tasks.setdefault(task, _Task())
            if len(tasks) > MAX_WORKERS:
                raise TraceError(f"{name}: found more than {MAX_WORKERS} tasks, expected at most "
                                 "those; merge or drop some")
            total += entry.add(block.page[rows], block.write[rows], merge)
            if len(entry.numbers) > MAX_PAGES or total > MAX_TOUCHES:
                raise TraceError(f"{name}: found more than {MAX_TOUCHES} touches or {MAX_PAGES} "
                                 "pages, expected at most those; cut the trace")
    passes = np.zeros(len(tasks), dtype=PASS_DTYPE)
    first = 0
    for row, entry in zip(passes, tasks.values(), strict=True):
        count = sum(map(len, entry.parts))
        row["kind"], row["first"], row["count"] = PASS_KINDS.index("TRACE"), first, count
        row["nr"] = row["stride"] = 1
        row["think"] = REFERENCE_PS * entry.references // count
        first += count
    nr = len(tasks)
    return AccessProgram(
        passes=passes, task_mm=tuple(range(nr)), task_first_pass=tuple(range(nr)),
        task_nr_passes=(1,) * nr, task_loop_to=(-1,) * nr, task_restart=(False,) * nr,
        mm_pages=tuple(len(t.numbers) for t in tasks.values()), mm_recency=(True,) * nr,
        nr_processes=nr, trace=np.concatenate([p for t in tasks.values() for p in t.parts]))


def compile(workload: Any, *, seed: int) -> AccessProgram:
    """The kind ``trace``: `read` of ``workload.file``, of ``workload.format``.

    `seed` is not used.

    Raises
    ------
    TraceError : as for `read`.
    """
    del seed
    return read(workload.file, format=None if workload.format == "auto" else workload.format)
