"""Readers of memory-reference traces: lackey and csv, plain or gzip, streamed.

`read` yields `Block`s of some hundred thousand references; memory does not grow with the file.
A malformed file is a `reclaim.errors.TraceError` that names file, line, what was found and what
was expected, whatever bytes it holds.
"""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

import numpy as np

from reclaim.errors import TraceError

BLOCK = 1 << 20        # bytes of text parsed at a time
MAX_LINE = 4096        # bytes of a line

_LUT = np.full(256, 255, dtype=np.uint8)   # digit values; 255: not a digit
for _i, _c in enumerate("0123456789abcdef"):
    _LUT[ord(_c)] = _LUT[ord(_c.upper())] = _i


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Consecutive references; arrays of one length.

    page : uint64, address divided by the page size.
    write : bool.
    task : int64, or None where the format knows one task only.
    """

    page: np.ndarray
    write: np.ndarray
    task: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines of text: line i is ``data[start[i]:end[i]]``, number ``number + i`` of the file."""

    path: str
    data: np.ndarray       # uint8
    start: np.ndarray      # int64
    end: np.ndarray        # int64, before the line end
    number: int            # of the first line, from 1

    def fault(self, i: int, expected: str, fix: str) -> TraceError:
        """The error for line `i`."""
        text = bytes(self.data[self.start[i]:self.end[i]])
        shown = repr(text[:60])[1:] + ("..." if len(text) > 60 else "")
        return TraceError(f"{self.path}, line {self.number + int(i)}: found {shown}, expected "
                          f"{expected}; {fix}")

    def check(self, good: np.ndarray, rows: np.ndarray, expected: str, fix: str) -> None:
        """Raise for the first of the lines `rows` that is not `good`."""
        if not good.all():
            raise self.fault(rows[int(np.argmin(good))], expected, fix)


def parse_digits(data: np.ndarray, start: np.ndarray, end: np.ndarray,
                 base: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The unsigned numbers ``data[start:end]``, and which are 1 to `most` digits of `base`.

    most : at most 16 digits of base 16, or 19 of base 10, so that none overflows.
    """
    length = end - start
    good = (length >= 1) & (length <= most)
    value = np.zeros(len(start), dtype=np.uint64)
    if not len(start):
        return value, good
    for k in range(int(min(most, max(1, length.max())))):      # from the first digit on
        inside = k < length
        digit = _LUT[data[np.where(inside, start + k, 0)]]
        good &= ~inside | (digit < base)
        value = np.where(inside, value * np.uint64(base) + digit, value)
    return value, good


@contextmanager
def open_trace(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The bytes of the trace `path`, decompressed if they are gzip's.

    Raises
    ------
    TraceError : it cannot be opened, is no regular file, or reading it failed.
    """
    name = os.fspath(path)
    if not name or "\0" in name:
        raise TraceError("the trace's file name is empty or holds a NUL; name a lackey or csv file "
                         "(workload.file, or --trace FILE)")
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise TraceError(f"{name}: found a directory or a device, expected a regular file; "
                             "name the trace file itself")
        with open(name, "rb") as file:
            magic = file.read(2)
            file.seek(0)
            if magic == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file) as unzipped:
                    yield cast(IO[bytes], unzipped)
            else:
                yield file
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise TraceError(f"{name}: found damaged gzip data ({error}), expected a whole gzip "
                             "file; make it again") from error
        raise TraceError(f"{name}: cannot be read: {error.strerror or error}; check its name and "
                         "permissions") from error
    except (EOFError, zlib.error) as error:
        raise TraceError(f"{name}: found damaged or truncated gzip data ({error}), expected a whole "
                         "gzip file; make it again") from error


def read_lines(file: IO[bytes], path: str) -> Iterator[Lines]:
    """The lines of `file` in blocks; a last line without a line end counts.

    Raises
    ------
    TraceError : a line of more than 4096 bytes.
    """
    number, rest = 1, b""
    while True:
        chunk = file.read(BLOCK)
        text = rest + chunk
        cut = text.rfind(b"\n") + 1
        if not chunk:
            text, cut = (text + b"\n", len(text) + 1) if text else (text, 0)
        if cut:
            data = np.frombuffer(text, dtype=np.uint8, count=cut)
            end = np.flatnonzero(data == 10)
            start = np.concatenate(([0], end[:-1] + 1))
            cr = (end > start) & (data[end - 1] == 13)
            lines = Lines(path, data, start, end - cr, number)
            too_long = end - start > MAX_LINE
            if too_long.any():
                raise lines.fault(int(np.argmax(too_long)), f"lines of at most {MAX_LINE} bytes",
                                  "is this a text file?")
            yield lines
            number += len(end)
        rest = text[cut:]
        if len(rest) > MAX_LINE:
            raise TraceError(f"{path}, line {number}: found {rest[:60]!r}... without a line end, "
                             f"expected lines of at most {MAX_LINE} bytes; is this a text file?")
        if not chunk:
            return


def read(path: str | os.PathLike[str], *, page_size: int = 4096,
         instructions: bool = True) -> Iterator[Block]:
    """The references of the trace `path`, in order.

    The first line that is neither empty nor a banner decides the format: a csv header
    (`reclaim.formats.csvtrace`) begins with a letter other than ``I``, anything else is lackey's
    (`reclaim.formats.lackey`).

    Parameters
    ----------
    page_size : bytes of a page, a power of two.
    instructions : lackey: instruction fetches count as reads.

    Raises
    ------
    TraceError : the file cannot be read, is malformed, or holds no reference.
    """
    from reclaim.formats import csvtrace, lackey

    if page_size < 1 or page_size & (page_size - 1):
        raise TraceError(f"page_size must be a power of two, got {page_size}")
    name, found = os.fspath(path), False
    with open_trace(name) as file:
        parser: csvtrace.Parser | lackey.Parser | None = None
        for lines in read_lines(file, name):
            if parser is None:
                is_csv = csvtrace.begins(lines)
                if is_csv is None:
                    continue      # banner only
                parser = csvtrace.Parser(page_size) if is_csv else \
                    lackey.Parser(page_size, instructions)
            block = parser.parse(lines)
            if len(block.page):
                found = True
                yield block
    if not found:
        raise TraceError(f"{name}: found no memory reference, expected a lackey or csv trace; make "
                         f"one with {lackey.COMMAND}")
