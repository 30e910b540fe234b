"""Traces of libCacheSim: ``oracleGeneral`` and ``txt``; an object is a page.

``oracleGeneral`` is records of 24 bytes, little endian: uint32 time [s], uint64 obj_id, uint32
size [bytes], int64 next_access_vtime.  A reference's vtime is its number from 1; -1 or 2**63 - 1 is
never (libCacheSim 0.3.5: ``traceReader/customizedReader/oracle/oracleGeneralBin.h`` and
``bin/traceUtils/traceConvOracleGeneral.cpp``, which writes -1).  ``txt`` is one obj_id a line,
decimal here.  Only obj_id is used.

These are traces of a cache and do not tell reads from writes.  Which references write is
`reclaim.formats.Options.writes`: ``first``, each object's first (it fills the page; a page that is
only ever read stays the zero page and is never reclaimed), ``all``, or ``none``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO

import numpy as np

from reclaim.errors import TraceError
from reclaim.formats import Block, Format, Options
from reclaim.formats._numbering import Numbering
from reclaim.formats._text import Lines, TextFormat, parse_digits

RECORD = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
CHUNK = 1 << 15               # records at a time
SIZE = 4096                   # bytes of an object that is written: a page; libCacheSim skips 0
NEVER, NEVER_TOO = -1, 2**63 - 1
MAX_VTIME = 1 << 48           # assumed: no trace is longer, and eight bytes of text are more


class _Blocks:
    """Makes blocks of ids, with the writes that `Options.writes` asks for."""

    def __init__(self, options: Options) -> None:
        self.writes, self.numbers = options.writes, Numbering()

    def __call__(self, ids: np.ndarray) -> Block:
        if self.writes != "first":
            return Block(page=ids, write=np.full(len(ids), self.writes == "all"))
        known = len(self.numbers)
        number = self.numbers(ids).astype(np.int64)
        before = np.maximum.accumulate(np.concatenate(([known - 1], number)))[:-1]
        return Block(page=ids, write=number > before)    # a number above all before it is new


class _Ids:
    """Object ids of references: the page; with tasks, task (in order of appearance) << 32 | page.

    The pages of a task are then numbered as they first appear, as each has its own.
    """

    def __init__(self) -> None:
        self.tasks: dict[int, tuple[int, Numbering]] = {}

    def __call__(self, block: Block) -> np.ndarray:
        if block.task is None:
            return block.page
        ids = np.empty(len(block.page), np.uint64)
        for task, rows in block.tasks():
            index, numbers = self.tasks.setdefault(task, (len(self.tasks), Numbering()))
            ids[rows] = numbers(block.page[rows]).astype(np.uint64) | np.uint64(index << 32)
        return ids


class TxtFormat(TextFormat):
    """``txt``: a decimal object id below 2**64 a line; empty lines and ``#`` lines are skipped."""

    name = "txt"
    looks = "one decimal object id a line"
    make = "reclaim convert TRACE FILE --to txt"
    writable = True

    def claims(self, head: bytes, line: bytes) -> bool:
        return re.fullmatch(rb"[0-9]+", line) is not None

    def parser(self, options: Options) -> Callable[[Lines], Block]:
        blocks = _Blocks(options)

        def parse(lines: Lines) -> Block:
            first = lines.data[np.minimum(lines.start, len(lines.data) - 1)]
            rows = np.flatnonzero((lines.end > lines.start) & (first != ord("#")))
            ids, good = parse_digits(lines.data, lines.start[rows], lines.end[rows], 10, 20)
            lines.check(good, rows, "an object id, a decimal number below 2**64",
                        "correct or drop the line")
            return blocks(ids)
        return parse

    def write(self, file: IO[bytes], blocks: Iterable[Block]) -> None:
        ids = _Ids()
        for block in blocks:
            file.write(b"%d\n" * len(block.page) % tuple(ids(block).tolist()))


class OracleGeneralFormat(Format):
    """``oracleGeneral``: read in chunks, not mapped, so that a file cut meanwhile is an error only."""

    name = "oracleGeneral"
    looks = "binary records of 24 bytes"
    make = "reclaim convert TRACE FILE --to oracleGeneral"
    writable = True

    def claims(self, head: bytes, line: bytes) -> bool:
        first = np.frombuffer(head, RECORD, min(1, len(head) // RECORD.itemsize))
        return bool(_good(first, 0).any())

    def read(self, file: IO[bytes], path: str, options: Options) -> Iterator[Block]:
        blocks, done = _Blocks(options), 0
        while data := file.read(CHUNK * RECORD.itemsize):
            records = np.frombuffer(data, RECORD, len(data) // RECORD.itemsize)
            good = _good(records, done)
            if not good.all():
                i = int(np.argmin(good))
                raise TraceError(
                    f"{path}, byte {(done + i) * RECORD.itemsize + 16}: found {records['next'][i]}, "
                    f"expected next_access_vtime of reference {done + i + 1}: a later one's number, "
                    "or -1; is this an oracleGeneral file?")
            done += len(records)
            if len(data) % RECORD.itemsize:
                raise TraceError(f"{path}, byte {done * RECORD.itemsize}: found the last "
                                 f"{len(data) % RECORD.itemsize} bytes, expected whole records of "
                                 f"{RECORD.itemsize} bytes; is the file truncated?")
            yield blocks(records["id"].astype(np.uint64))

    def write(self, file: IO[bytes], blocks: Iterable[Block]) -> None:
        """Forwards with each object's number as `next`, then backwards with its next reference."""
        ids, numbers, total = _Ids(), Numbering(), 0
        for block in blocks:
            records = np.zeros(len(block.page), RECORD)
            records["id"] = ids(block)
            records["next"] = numbers(records["id"].astype(np.uint64))
            records["size"] = SIZE
            # The number of the reference stands for the time, which is not known.
            records["time"] = np.minimum(np.arange(total, total + len(records)), 2**32 - 1)
            file.write(records.tobytes())
            total += len(records)
        upcoming = np.full(len(numbers), NEVER, np.int64)     # vtime of each object's next reference
        for start in reversed(range(0, total, CHUNK)):
            file.seek(start * RECORD.itemsize)
            data = file.read(min(CHUNK, total - start) * RECORD.itemsize)
            records = np.frombuffer(data, RECORD).copy()
            number = records["next"].copy()
            order = np.argsort(number, kind="stable")
            ranked = number[order]
            last = np.append(ranked[1:] != ranked[:-1], True)        # of its object in the chunk
            follows = np.append(order[1:] + start + 1, 0)
            records["next"][order] = np.where(last, upcoming[ranked], follows)
            first = np.insert(last[:-1], 0, True)
            upcoming[ranked[first]] = order[first] + start + 1
            file.seek(start * RECORD.itemsize)
            file.write(records.tobytes())


def _good(records: np.ndarray, done: int) -> np.ndarray:
    """Which `records` name no reference before themselves as the next; `done` precede them."""
    following = records["next"]
    vtime = np.arange(done + 1, done + 1 + len(records))
    # Not "> vtime": some tools number from 0.
    good: np.ndarray = (following == NEVER) | (following == NEVER_TOO) \
        | (following >= vtime) & (following < MAX_VTIME)
    return good


FORMATS = (TxtFormat(), OracleGeneralFormat())
