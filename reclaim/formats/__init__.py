"""Formats of memory-reference traces, plain, gzip or xz, streamed.

`read` yields `Block`s of some ten thousand references; memory does not grow with the file.
A malformed file is a `reclaim.errors.TraceError` that names file, line or byte, what was found and
what was expected, whatever bytes it holds.

Each module here whose name does not begin with ``_`` lists its formats in ``FORMATS``; a new format
is one new module.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import IO, ClassVar

import numpy as np

from reclaim.errors import TraceError, did_you_mean
from reclaim.formats._files import open_trace

HEAD = 1 << 20                        # bytes of a file in which its format must show
WRITES = ("first", "all", "none")     # which references write where a format does not tell
_BANNERS = (b"==", b"--", b"**")      # valgrind's own lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Consecutive references; arrays of one length.

    page : uint64, address divided by the page size, or an object's id.
    write : bool.
    task : int64, or None where the format knows one task only.
    """

    page: np.ndarray
    write: np.ndarray
    task: np.ndarray | None = None

    def tasks(self) -> Iterator[tuple[int, slice | np.ndarray]]:
        """Each task, in order of appearance, and its rows; task 0 where there is one only."""
        if self.task is None:
            yield 0, slice(None)
            return
        for task in self.task[np.sort(np.unique(self.task, return_index=True)[1])].tolist():
            yield task, self.task == task


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to read.

    page_size : bytes of a page, a power of two.
    instructions : lackey: instruction fetches count as reads.
    writes : one of `WRITES`, for formats that do not tell reads from writes.
    """

    page_size: int = 4096
    instructions: bool = True
    writes: str = "first"


class Format(ABC):
    """A file format of traces.

    name : for ``--format``.
    looks : what begins such a file, for messages.
    make : how to make one, for messages.
    writable : `write` is there.
    """

    name: ClassVar[str]
    looks: ClassVar[str]
    make: ClassVar[str]
    writable: ClassVar[bool] = False

    @abstractmethod
    def claims(self, head: bytes, line: bytes) -> bool:
        """Whether a file is of this format; no two formats claim one.

        head : its first bytes.
        line : its first line that is not empty, a comment (``#``) or a banner of valgrind's.
        """

    @abstractmethod
    def read(self, file: IO[bytes], path: str, options: Options) -> Iterator[Block]:
        """The references in order; blocks may be empty.

        Raises
        ------
        TraceError : malformed; `path` is named.
        """

    def write(self, file: IO[bytes], blocks: Iterable[Block]) -> None:
        """Write `blocks` to `file`, which is empty and open for reading and writing."""
        raise NotImplementedError


@cache
def _formats() -> dict[str, Format]:
    modules = [import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__)
               if not info.name.startswith("_")]
    return {format.name: format for module in modules for format in module.FORMATS}


def names(*, writable: bool = False) -> list[str]:
    """The formats' names; `writable`: only of those that can be written."""
    return [name for name, format in _formats().items() if format.writable or not writable]


def by_name(name: str) -> Format:
    """The format `name`; TraceError if there is none."""
    if name not in _formats():
        raise TraceError(f"unknown trace format {name!r}: must be one of {', '.join(names())}"
                         + did_you_mean(name, names()))
    return _formats()[name]


def show(text: bytes) -> str:
    """The begin of `text`, quoted."""
    return repr(text[:60])[1:] + ("..." if len(text) > 60 else "")


def _detect(head: bytes, path: str) -> Format:
    number, line = 0, b""
    for i, text in enumerate(head.split(b"\n"), 1):
        text = text.rstrip(b"\r")
        if text and text[:1] != b"#" and text[:2] not in _BANNERS:
            number, line = i, text[:4096]
            break
    for format in _formats().values():
        if format.claims(head, line):
            return format
    if not number:
        raise TraceError(f"{path}: found no memory reference in its first {len(head)} bytes, expected "
                         f"one at least; make a trace with {by_name('lackey').make}, or name the format "
                         f"(--format {'|'.join(names())})")
    looks = ", ".join(f"{f.name} ({f.looks})" for f in _formats().values())
    raise TraceError(f"{path}, line {number}: found {show(line)}, expected the begin of a trace: "
                     f"{looks}; name the format if it is one of these (--format NAME)")


def read(path: str | os.PathLike[str], *, format: str | None = None, page_size: int = 4096,
         instructions: bool = True, writes: str = "first",
         progress: Callable[[float], None] | None = None) -> Iterator[Block]:
    """The references of the trace `path`, in order.

    Parameters
    ----------
    format : one of `names`; None: told by the file's first line or bytes.
    page_size, instructions, writes : as in `Options`.
    progress : called now and then with the share of the file that has been read.

    Raises
    ------
    TraceError : the file cannot be read, is malformed, or holds no reference.
    """
    if page_size < 1 or page_size & (page_size - 1):
        raise TraceError(f"page_size must be a power of two, got {page_size}")
    if writes not in WRITES:
        raise TraceError(f"writes must be one of {', '.join(WRITES)}, got {writes!r}")
    chosen = None if format is None else by_name(format)
    name, found = os.fspath(path), False
    with open_trace(name) as source:
        if chosen is None:
            chosen = _detect(source.file.read(HEAD), name)
            source.file.seek(0)
        options = Options(page_size=page_size, instructions=instructions, writes=writes)
        for block in chosen.read(source.file, name, options):
            if progress is not None:
                progress(source.share())
            if len(block.page):
                found = True
                yield block
    if not found:
        raise TraceError(f"{name}: found no memory reference ({chosen.name}), expected one at "
                         f"least; make a trace with {chosen.make}")
