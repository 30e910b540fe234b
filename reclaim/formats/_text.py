"""What the text formats share: blocks of lines, and numbers in them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from reclaim.errors import TraceError
from reclaim.formats import Block, Format, Options, show

BLOCK = 1 << 20        # bytes of text parsed at a time
MAX_LINE = 4096        # bytes of a line
_TENTH, _LAST = divmod(2**64 - 1, 10)

_LUT = np.full(256, 255, dtype=np.uint8)   # digit values; 255: not a digit
for _i, _c in enumerate("0123456789abcdef"):
    _LUT[ord(_c)] = _LUT[ord(_c.upper())] = _i


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
        return TraceError(f"{self.path}, line {self.number + int(i)}: found {show(text)}, expected "
                          f"{expected}; {fix}")

    def check(self, good: np.ndarray, rows: np.ndarray, expected: str, fix: str) -> None:
        """Raise for the first of the lines `rows` that is not `good`."""
        if not good.all():
            raise self.fault(rows[int(np.argmin(good))], expected, fix)


class TextFormat(Format):
    """A format of one reference or none a line."""

    @abstractmethod
    def parser(self, options: Options) -> Callable[[Lines], Block]:
        """What turns the file's blocks of lines, in order, into references."""

    def read(self, file: IO[bytes], path: str, options: Options) -> Iterator[Block]:
        return map(self.parser(options), read_lines(file, path))


def parse_digits(data: np.ndarray, start: np.ndarray, end: np.ndarray,
                 base: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The unsigned numbers ``data[start:end]``, and which are 1 to `most` digits of `base`.

    Numbers of 2**64 and more are not good.

    base, most : at most 16 digits of base 16, or 20 of base 10.
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
        if k == 19:
            good &= ~inside | (value < _TENTH) | (value == _TENTH) & (digit <= _LAST)
        value = np.where(inside, value * np.uint64(base) + digit, value)
    return value, good


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
            raise TraceError(f"{path}, line {number}: found {show(rest)} without a line end, "
                             f"expected lines of at most {MAX_LINE} bytes; is this a text file?")
        if not chunk:
            return
