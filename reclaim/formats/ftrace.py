"""Page faults in the text of ftrace, ``trace-cmd report`` or ``perf script``.

A reference is an event ``page_fault_user: address=0x... ip=0x... error_code=0x...`` on a line of
``COMM-TID [CPU] FLAGS TIME: EVENT`` (ftrace, trace-cmd) or ``COMM TID [CPU] TIME: exceptions:EVENT``
(perf).  Bit 1 of error_code is a write (arch/x86/include/asm/trap_pf.h).  The task is TID; what
precedes ``/`` in perf's ``PID/TID``.  Other lines and events are skipped, as are faults on
addresses outside user space.

A fault trace holds the touches that faulted only: those that hit a mapped page are missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from reclaim.formats import Block, Options
from reclaim.formats._text import Lines, TextFormat
from reclaim.formats.lackey import MAX_ADDRESS

_EVENT = b"page_fault_user:"
# The flags never begin with a digit, and may be missing; perf may print the period before the event.
_TASK = (rb"[-\s](\d{1,10})(?:/\d+)?\s+(?:\(\s*[-\d]+\)\s+)?(?:\[\d+\]\s+)?(?:[.a-zA-Z]\S*\s+)?"
         rb"\d+(?:\.\d+)?:\s")
_LINE = re.compile(_TASK + rb"\s*(?:\d+\s+)?(?:exceptions:)?page_fault_user:\s+"
                   rb"address=(?:0x)?([0-9a-f]{1,16})\s+ip=\S+\s+"
                   rb"error_code=(?:0x)?([0-9a-f]{1,16})\s*$")
_BEGIN = re.compile(rb"^(?:cpus=\d|version ?= ?\d|CPU ?:?\d+ )|" + _TASK)


class FtraceFormat(TextFormat):
    """``ftrace``: parses line by line, but only those of page faults."""

    name = "ftrace"
    looks = "'COMM-TID [CPU] FLAGS TIME: EVENT' or perf script's 'COMM TID [CPU] TIME: EVENT'"
    make = ("perf record -e exceptions:page_fault_user PROGRAM; perf script > FILE, or with "
            "trace-cmd record -e page_fault_user PROGRAM; trace-cmd report > FILE")

    def claims(self, head: bytes, line: bytes) -> bool:
        return _BEGIN.search(line) is not None

    def parser(self, options: Options) -> Callable[[Lines], Block]:
        shift = options.page_size.bit_length() - 1

        def parse(lines: Lines) -> Block:
            text = lines.data.tobytes()
            found: list[tuple[int, bool, int]] = []
            at = text.find(_EVENT)
            while at >= 0:
                start, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at)
                match = _LINE.search(text, start, end)
                task = int(match[1]) if match else 0
                if match is None or task >= 1 << 32:
                    raise lines.fault(
                        int(np.searchsorted(lines.end, at)),
                        "'COMM-TID [CPU] FLAGS TIME: page_fault_user: address=0x... ip=0x... "
                        "error_code=0x...'", "correct or drop the line")
                address = int(match[2], 16)
                if address < MAX_ADDRESS:
                    found.append((address >> shift, bool(int(match[3], 16) & 2), task))
                at = text.find(_EVENT, end)
            page, write, task_ids = zip(*found, strict=True) if found else ((), (), ())
            return Block(page=np.array(page, np.uint64), write=np.array(write, bool),
                         task=np.array(task_ids, np.int64))
        return parse


FORMATS = (FtraceFormat(),)
