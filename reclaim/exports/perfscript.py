"""``perf-script``: what `perf script` prints of a recording of tracepoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from reclaim.exports import About, Event, FileKind, FileSink
from reclaim.exports._kernel import CALLER, FIRST_FRAME, HANDLER, SYSTEMS, Text, profile_of
from reclaim.exports.ftrace import US

if TYPE_CHECKING:
    from reclaim.result import Result

WIDTH = len("vmscan:mm_vmscan_memcg_softlimit_reclaim_begin:")     # perf aligns to the longest of vmscan:*
_CSDS = 0xFFFF888620000000        # where requests are


class _PerfText(Text):
    """Pointers and symbols as perf prints them: not hashed, without sizes."""

    def caller(self) -> str:
        return f"{CALLER}+{self.profile.caller[0]}"

    def handler(self) -> str:
        return f"{HANDLER}+0x0"

    def csd(self, sender: int, target: int) -> str:
        return f"{_CSDS + (sender * self.about.nr_cpus + target) * 32:#x}" if sender >= 0 else "(nil)"

    def page(self, frame: int) -> str:
        return f"{FIRST_FRAME + frame:#x}"        # perf takes the field for what it holds: the pfn


class PerfScriptSink(FileSink):
    """A line an event."""

    wants_events = True

    def __init__(self, about: About, file: IO[bytes]) -> None:
        super().__init__(about, file)
        self._text = _PerfText(about, profile_of(about.kernel))

    def events(self, events: Sequence[Event]) -> None:
        self.write("".join(self._line(event) for event in events if event.name in SYSTEMS))

    def _line(self, event: Event) -> str:
        comm = self.about.comm if event.task >= 0 else "swapper"
        us = event.at // US
        name = f"{SYSTEMS[event.name][0]}:{event.name}:"
        return (f"{comm:>16} {self.about.pid(event.task):5d} [{event.cpu:03d}] {us // US:5d}.{us % US:06d}: "
                f"{name:>{WIDTH}} {self._text(event)}\n")

    def finish(self, result: Result, at: int) -> None:
        pass


class PerfScriptKind(FileKind):
    """The trace of the window."""

    name, sink = "perf-script", PerfScriptSink
    what = "the trace, as perf script prints it"


KINDS = (PerfScriptKind(),)
