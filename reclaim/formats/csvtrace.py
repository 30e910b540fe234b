"""Traces as csv: a header, then one reference a line.

The header names the columns, in any order: ``page`` (a page number) or ``addr`` or ``address`` (of a
byte), ``write`` (0, 1, r or w) and, if there is more than one task, ``task`` (a number).  Numbers are
decimal, addresses also hexadecimal after ``0x``.  No spaces, no quotes; empty lines are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import IO

import numpy as np

from reclaim.formats import Block, Options
from reclaim.formats._text import Lines, TextFormat, parse_digits

HEADER = b"task,page,write\n"      # of what is written
_COLUMNS = ({"page", "write"}, {"addr", "write"}, {"task", "page", "write"},
            {"task", "addr", "write"})
MAX_PAGE = 1 << 64
MAX_TASK = 1 << 32


class CsvFormat(TextFormat):
    """``csv``."""

    name = "csv"
    looks = "the header 'task,page,write', 'page,write' or 'addr,write'"
    make = "reclaim convert TRACE FILE --to csv"
    writable = True

    def claims(self, head: bytes, line: bytes) -> bool:
        return re.match(rb"(?i)(page|addr|address|write|task)\s*(,|$)", line) is not None

    def parser(self, options: Options) -> Callable[[Lines], Block]:
        return _Parser(options).parse

    def write(self, file: IO[bytes], blocks: Iterable[Block]) -> None:
        file.write(HEADER)
        for block in blocks:
            rows = np.empty((len(block.page), 3), np.uint64)
            rows[:, 0] = 0 if block.task is None else block.task
            rows[:, 1], rows[:, 2] = block.page, block.write
            file.write(b"%d,%d,%d\n" * len(rows) % tuple(rows.ravel().tolist()))


class _Parser:
    """Parses blocks of lines; the first line of all is the header."""

    def __init__(self, options: Options) -> None:
        self.shift = np.uint64(options.page_size.bit_length() - 1)
        self.columns: list[str] = []

    def parse(self, lines: Lines) -> Block:
        """The references of `lines`.

        Raises
        ------
        TraceError : a wrong header, a line with other columns, or a value out of range.
        """
        rows = np.flatnonzero(lines.end > lines.start)
        if not self.columns and len(rows):
            self._header(lines, int(rows[0]))
            rows = rows[1:]
        if not len(rows):
            return Block(page=np.zeros(0, np.uint64), write=np.zeros(0, bool))
        start, end = lines.start[rows], lines.end[rows]
        form = f"the columns {','.join(self.columns)}"
        commas = np.flatnonzero(lines.data == ord(","))
        first = np.searchsorted(commas, start)
        many = len(self.columns) - 1
        lines.check(np.searchsorted(commas, end) - first == many, rows, form,
                    "correct or drop the line")
        edges = [start - 1, *(commas[first + k] for k in range(many)), end]
        fields = {name: (edges[k] + 1, edges[k + 1]) for k, name in enumerate(self.columns)}
        write = self._write(lines, rows, *fields["write"])
        if "page" in fields:
            page = self._number(lines, rows, "page", *fields["page"], MAX_PAGE)
        else:
            page = self._number(lines, rows, "addr", *fields["addr"], MAX_PAGE) >> self.shift
        task = None
        if "task" in fields:
            task = self._number(lines, rows, "task", *fields["task"], MAX_TASK).astype(np.int64)
        return Block(page=page, write=write, task=task)

    def _header(self, lines: Lines, row: int) -> None:
        text = bytes(lines.data[lines.start[row]:lines.end[row]]).decode("ascii", "replace")
        names = text.strip().lower().split(",")
        self.columns = ["addr" if name == "address" else name for name in names]
        if len(set(self.columns)) != len(self.columns) or set(self.columns) not in _COLUMNS:
            raise lines.fault(row, CsvFormat.looks,
                              "write that header as the first line")

    @staticmethod
    def _write(lines: Lines, rows: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        char = lines.data[start]
        is_write = np.isin(char, tuple(b"1wW"))
        lines.check((end - start == 1) & (is_write | np.isin(char, tuple(b"0rR"))), rows,
                    "write to be 0, 1, r or w", "correct the line")
        return is_write

    @staticmethod
    def _number(lines: Lines, rows: np.ndarray, name: str, start: np.ndarray, end: np.ndarray,
                limit: int) -> np.ndarray:
        data = lines.data
        value, good = parse_digits(data, start, end, 10, 20)
        if name == "addr":
            last = len(data) - 1
            prefixed = (end - start > 2) & (data[start] == ord("0")) \
                & (data[np.minimum(start + 1, last)] == ord("x"))
            if prefixed.any():
                hexed, good_hex = parse_digits(data, start + 2, end, 16, 16)
                value, good = np.where(prefixed, hexed, value), np.where(prefixed, good_hex, good)
        lines.check(good & (value <= limit - 1), rows, f"{name} to be a number below {limit}",
                    "correct the line")
        return value


FORMATS = (CsvFormat(),)
