"""What a run leaves in files besides its table: ``-o KIND:FILE``.

Each module here whose name does not begin with ``_`` lists its kinds in ``KINDS``; a new kind is one
new module.  docs/timeline.md says what each of them holds.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import IO, TYPE_CHECKING, Any, ClassVar, NamedTuple

from reclaim.errors import ResultError, did_you_mean
from reclaim.files import check_directory, replacing

if TYPE_CHECKING:
    from reclaim.exports._session import Exports as Exports
    from reclaim.result import Result

FIRST_PID = 1000          # of task 0; the others count up


class Event(NamedTuple):
    """One event of a trace.

    at : simulated time [ps].
    name : one of `reclaim.names.EVENTS`.
    cpu : where.
    task : who ran there, or -1.
    flags : as the core told them (`reclaim._trace.NEED_RESCHED`, `HARDIRQ`).
    v : what it says; of ipi_send_cpumask the targets.
    """

    at: int
    name: str
    cpu: int
    task: int
    flags: int
    v: Sequence[int]


class Sample(NamedTuple):
    """The counters at one moment.

    at : simulated time [ps].
    counters : the core's, by name.
    amounts : pages now, with the names of /proc/vmstat.
    interrupts : row of /proc/interrupts -> a count for each CPU.
    """

    at: int
    counters: Mapping[str, int]
    amounts: Mapping[str, int]
    interrupts: Mapping[str, Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class About:
    """What is the same for all of a run.

    comm : name of the tasks.
    kernel : version whose formats are written.
    start, stop : the trace's window [ps].
    every : between two samples [ps], or 0 if it was left open.
    end : of the run [ps].
    """

    title: str
    comm: str
    kernel: str
    nr_cpus: int
    task_mm: Sequence[int]
    start: int
    stop: int
    every: int
    end: int

    def pid(self, task: int) -> int:
        """Of a task; 0 of an idle CPU."""
        return FIRST_PID + task if task >= 0 else 0

    def tgid(self, task: int) -> int:
        """The pid of the first task of its mm."""
        return self.pid(self.task_mm.index(self.task_mm[task]))


class Sink(ABC):
    """What is being written for one ``-o``."""

    wants_events: ClassVar[bool] = False

    def __init__(self, about: About) -> None:
        self.about = about

    def sampling(self) -> tuple[int, int] | None:
        """From when on, and how often, `sample` is to be called [ps]; None: not at all."""
        return None

    def begin(self, running: Sequence[int]) -> None:
        """The trace begins; `running` holds each CPU's task or -1."""

    def events(self, events: Sequence[Event]) -> None:
        """Events in order of time, none before those of earlier calls."""

    def sample(self, sample: Sample) -> None:
        """The counters; called at the end of the run too, if there is `sampling`."""

    @abstractmethod
    def finish(self, result: Result, at: int) -> None:
        """The run ended, or was interrupted, at `at` [ps]: write what is left."""


class Kind(ABC):
    """A kind of file.

    name : before the colon of ``-o``.
    what : in a few words, for help.
    """

    name: ClassVar[str]
    what: ClassVar[str]

    def check(self, path: str) -> None:
        """Refuse a path that could not be written, before the work.

        Raises
        ------
        ResultError : what is wrong with it.
        """
        check_directory(path, ResultError)
        if os.path.isdir(path):
            raise ResultError(f"{path}: a directory; give the name of a file")

    @abstractmethod
    def open(self, path: str, about: About) -> AbstractContextManager[Sink]:
        """What becomes `path` when its context is left without an error."""


class FileKind(Kind):
    """One file that is written as the run goes, and replaces `path` once it is whole."""

    sink: ClassVar[type[FileSink]]

    def open(self, path: str, about: About) -> AbstractContextManager[Sink]:
        return _Replacing(path, lambda file: self.sink(about, file))


class FileSink(Sink):
    """Writes to `file`, which is empty and can be sought."""

    def __init__(self, about: About, file: IO[bytes]) -> None:
        super().__init__(about)
        self.file = file

    def write(self, text: str) -> None:
        """Append `text`."""
        self.file.write(text.encode())


class _Replacing(AbstractContextManager[Sink]):
    def __init__(self, path: str, make: Any) -> None:
        self._file, self._make = replacing(path, ResultError), make

    def __enter__(self) -> Sink:
        sink: Sink = self._make(self._file.__enter__())
        return sink

    def __exit__(self, *exc: Any) -> None:
        self._file.__exit__(*exc)


@cache
def kinds() -> dict[str, Kind]:
    """All kinds by name."""
    modules = [import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__)
               if not info.name.startswith("_")]
    return {kind.name: kind for module in modules for kind in module.KINDS}


def parse(text: str) -> tuple[Kind, str]:
    """The kind and the path of ``KIND:FILE``; FILE alone is a result.

    Raises
    ------
    ResultError : there is no such kind, or the file could not be written.
    """
    head, colon, path = text.partition(":")
    if not colon or "/" in head:
        head, path = "json", text
    kind = kinds().get(head)
    if kind is None:
        raise ResultError(f"-o {text}: there is no kind {head!r}: choose from {', '.join(kinds())}"
                          f"{did_you_mean(head, kinds())}; a file of that name is -o ./{text}")
    if not path:
        raise ResultError(f"-o {text}: a file's name must follow the colon, as in -o {head}:FILE")
    kind.check(path)
    return kind, path


def parse_sides(text: str) -> list[tuple[Kind, str]]:
    """As `parse`, of two runs that are compared: before and after in the names of their files.

    Raises
    ------
    ResultError : as `parse`.
    """
    kind, path = parse(text)
    stem, suffix = os.path.splitext(path)
    sides = [f"{stem}-{side}{suffix}" for side in ("before", "after")]
    for side in sides:
        kind.check(side)
    return [(kind, side) for side in sides]


def __getattr__(name: str) -> Any:
    if name == "Exports":           # needs NumPy and the core, which kinds and help do not
        from reclaim.exports._session import Exports
        return Exports
    raise AttributeError(name)
