"""What ``valgrind --tool=lackey --trace-mem=yes`` writes.

A line is ``I  addr,size`` (instruction fetch), `` L addr,size`` (load), `` S addr,size`` (store)
or `` M addr,size`` (load and store of one place: one write); addr is hexadecimal, size decimal
bytes.  Lines that begin with ``==``, ``--`` or ``**`` are valgrind's own and are skipped, as are
empty ones.  A reference that reaches over a page's end counts once in each page it touches.
Lackey does not tell threads or forked processes apart: write one log file each (``%p``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reclaim.formats import Block, Options
from reclaim.formats._text import Lines, TextFormat, parse_digits

COMMAND = "valgrind --tool=lackey --trace-mem=yes --log-file=FILE PROGRAM"
MAX_ADDRESS = 1 << 57       # user space ends at 2**56 at most (x86-64, five levels)
MAX_BYTES = 1 << 16         # of one reference; the largest, xsave, is a few thousand

_EXPECTED = "'I  addr,size', ' L addr,size', ' S addr,size' or ' M addr,size'"
_FIX = f"make the trace with {COMMAND}"


class LackeyFormat(TextFormat):
    """``lackey``."""

    name = "lackey"
    looks = _EXPECTED
    make = COMMAND

    def claims(self, head: bytes, line: bytes) -> bool:
        return line[:3] in (b"I  ", b" L ", b" S ", b" M ")

    def parser(self, options: Options) -> Callable[[Lines], Block]:
        return _Parser(options).parse


class _Parser:
    """Parses blocks of lines; keeps no state between them."""

    def __init__(self, options: Options) -> None:
        self.shift = options.page_size.bit_length() - 1
        self.instructions = options.instructions

    def parse(self, lines: Lines) -> Block:
        """The references of `lines`.

        Raises
        ------
        TraceError : a line of another form, or an address or size out of range.
        """
        data, n = lines.data, len(lines.start)
        length = lines.end - lines.start
        c0 = data[lines.start]
        second = data[np.minimum(lines.start + 1, len(data) - 1)]
        skip = (length == 0) | (np.isin(c0, tuple(b"=-*")) & (c0 == second))
        rows = np.arange(n)[~skip]
        start, end, c0 = lines.start[~skip], lines.end[~skip], c0[~skip]
        lines.check(end - start >= 6, rows, _EXPECTED, _FIX)
        c1, c2 = data[start + 1], data[start + 2]
        fetch = c0 == ord("I")
        store = (c1 == ord("S")) | (c1 == ord("M"))
        lines.check((fetch & (c1 == 32) | (c0 == 32) & (store | (c1 == ord("L")))) & (c2 == 32),
                    rows, _EXPECTED, _FIX)
        commas = np.append(np.flatnonzero(data == ord(",")), len(data))
        comma = commas[np.searchsorted(commas, start)]
        address, good = parse_digits(data, start + 3, comma, 16, 16)
        size, good_size = parse_digits(data, comma + 1, end, 10, 9)
        lines.check(good & good_size, rows, _EXPECTED, _FIX)
        lines.check(address < MAX_ADDRESS, rows, f"an address below {MAX_ADDRESS:#x}", _FIX)
        lines.check((size >= 1) & (size <= MAX_BYTES), rows, f"a size of 1 to {MAX_BYTES} bytes",
                    _FIX)
        if not self.instructions:
            address, size, store = address[~fetch], size[~fetch], store[~fetch]
        shift = np.uint64(self.shift)
        page = address >> shift
        more = ((address + size - np.uint64(1)) >> shift) - page
        if more.any():
            copies = more.astype(np.int64) + 1
            offset = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)
            page = np.repeat(page, copies) + offset.astype(np.uint64)
            store = np.repeat(store, copies)
        return Block(page=page, write=store)


FORMATS = (LackeyFormat(),)
