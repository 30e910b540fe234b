"""``ftrace``: the text of /sys/kernel/tracing/trace (kernel/trace/trace.c, trace_output.c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from reclaim._trace import HARDIRQ, NEED_RESCHED
from reclaim.exports import About, Event, FileKind, FileSink
from reclaim.exports._kernel import SYSTEMS, Text, irqs_off, profile_of

if TYPE_CHECKING:
    from reclaim.result import Result

US = 10**6                # ps
COUNT = 20                # digits of a count in the heading

_HEAD = """\
#
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""


class FtraceSink(FileSink):
    """A line an event; the number of lines stands in the heading, and is put there at the end."""

    wants_events = True

    def __init__(self, about: About, file: IO[bytes]) -> None:
        super().__init__(about, file)
        self._profile = profile_of(about.kernel)
        self._text = Text(about, self._profile)
        self._written = 0
        self._heading()

    def _heading(self) -> None:
        counts = f"{self._written}/{self._written}   #P:{self.about.nr_cpus}"
        self.write(f"# tracer: nop\n#\n# entries-in-buffer/entries-written: {counts:<{2 * COUNT}}\n{_HEAD}")

    def events(self, events: Sequence[Event]) -> None:
        lines = [self._line(event) for event in events if event.name in SYSTEMS]
        self._written += len(lines)
        self.write("".join(lines))

    def _line(self, event: Event) -> str:
        comm = self.about.comm if event.task >= 0 else "<idle>"
        us = event.at // US
        return (f"{comm:>16}-{self.about.pid(event.task):<7d} [{event.cpu:03d}] {self._flags(event)} "
                f"{us // US:5d}.{us % US:06d}: {event.name}: {self._text(event)}\n")

    def _flags(self, event: Event) -> str:
        depth = SYSTEMS[event.name][2] if self._profile.preempt_count and not event.flags & HARDIRQ else 0
        return ("d" if event.flags & HARDIRQ or irqs_off(event) else ".") \
            + ("N" if event.flags & NEED_RESCHED else ".") + ("h" if event.flags & HARDIRQ else ".") \
            + (str(depth) if depth else ".") + "."

    def finish(self, result: Result, at: int) -> None:
        self.file.seek(0)
        self._heading()


class FtraceKind(FileKind):
    """The trace of the window."""

    name, sink = "ftrace", FtraceSink
    what = "the trace, as ftrace prints it"


KINDS = (FtraceKind(),)
