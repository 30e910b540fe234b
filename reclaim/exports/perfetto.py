"""``perfetto``: TrackEvents (perfetto.dev/docs/reference/trace-packet-proto).

Tracks: each CPU, with the task that runs there, its interrupts and the functions called in them; each
task, with its faults, reclaims, lists, flushes and waits; counters.  A flow leads from csd_queue_cpu to the
function that the target runs.  Slices of a track nest: what is open at the end is closed there, and ends of
what began before the trace are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, NamedTuple

from reclaim.exports import About, Event, FileKind, FileSink, Sample
from reclaim.exports._kernel import FIRST_FRAME
from reclaim.exports._protobuf import fixed64, message, number, text
from reclaim.names import STEPS

if TYPE_CHECKING:
    from reclaim.result import Result

NS = 1000                 # ps
PARTS = 200               # samples of a trace

# Fields of the messages.
_PACKET = 1               # of Trace
_TIMESTAMP, _SEQUENCE, _EVENT, _FLAGS, _DESCRIPTOR = 8, 10, 11, 13, 60      # of TracePacket
_TYPE, _TRACK, _CATEGORY, _NAME, _VALUE, _ANNOTATION, _FLOW, _END_OF_FLOW = 9, 11, 22, 23, 30, 4, 47, 48
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4                                # TrackEvent.Type
_STATE_CLEARED = 1        # SEQ_INCREMENTAL_STATE_CLEARED

# Tracks' numbers: a group's and what of it.
_CPUS, _PROCESS, _THREAD, _COUNTERS = (i << 32 for i in range(1, 5))

COUNTERS = {"pgscan_anon": "pages", "pgsteal_anon": "pages", "pswpin": "pages", "pswpout": "pages",
            "nr_tlb_remote_flush_received": "shootdowns", "function_call_ipis": "IPIs",
            "nr_inactive_anon": "pages", "nr_active_anon": "pages"}
_IRQS = {"call_function_single": "call function interrupt", "call_function": "call function interrupt",
         "local_timer": "local timer interrupt", "irq_handler": "swap device interrupt"}


class Slice(NamedTuple):
    """A slice's name and what its beginning says, by name."""

    name: str
    says: Mapping[str, int | str] = {}


def _begin(event: Event) -> Slice | None:
    """The slice of a task that `event` begins."""
    v = event.v
    match event.name:
        case "fault_begin":
            return Slice("handle_mm_fault", {"page": v[0], "write": v[1], "mm": v[2],
                                             "for": "user" if v[3] else "madvise"})
        case "mm_vmscan_memcg_reclaim_begin":
            return Slice("try_to_free_mem_cgroup_pages")
        case "shrink_folio_list_begin":
            return Slice("shrink_folio_list", {"nr_taken": v[0], "priority": v[1]})
        case "flush_begin":
            what = {"then": STEPS[v[3]]}
            if v[0] < 0:
                return Slice("arch_tlbbatch_flush", what)
            pages = {"page": v[1], "pages": v[2]} if v[1] >= 0 else {"pages": -1}
            return Slice("flush_tlb_mm_range", {"mm": v[0], **pages, **what})
        case "flush_wait_begin":
            return Slice("smp_call_function_many_cond: wait", {"acks": v[0]})
        case "lock_wait_begin":
            return Slice("queued_spin_lock_slowpath",
                         {"lock": f"page table {v[0] - 1}" if v[0] else "lru_lock"})
    return None


# The end of a task's slice: which it is, and what its value is called.
_ENDS = {"fault_end": ("handle_mm_fault", ""),
         "mm_vmscan_memcg_reclaim_end": ("try_to_free_mem_cgroup_pages", "nr_reclaimed"),
         "shrink_folio_list_end": ("shrink_folio_list", "nr_reclaimed"), "flush_end": ("", "targets"),
         "flush_wait_end": ("smp_call_function_many_cond: wait", ""),
         "lock_wait_end": ("queued_spin_lock_slowpath", "")}
_FLUSHES = ("arch_tlbbatch_flush", "flush_tlb_mm_range")


class PerfettoSink(FileSink):
    """Packets in order of time."""

    wants_events = True

    def __init__(self, about: About, file: IO[bytes]) -> None:
        super().__init__(about, file)
        self._open: dict[int, list[str]] = {}           # track -> names of its open slices
        self._flows: dict[tuple[int, int], int] = {}    # sender, target -> the flow on its way
        self._flow = 0
        self._pages: dict[int, int] = {}                # CPU -> of its last tlb_flush
        self._at = 0
        self._tracks()

    def sampling(self) -> tuple[int, int]:
        return self.about.start, max(1, (self.about.stop - self.about.start) // PARTS)

    # --- packets

    def _packet(self, body: bytes) -> None:
        self.file.write(message(_PACKET, body + number(_SEQUENCE, 1)))

    def _track(self, uuid: int, name: str, parent: int, more: bytes = b"") -> None:
        body = number(1, uuid) + text(2, name) + (number(5, parent) if parent else b"") + more
        self._packet(message(_DESCRIPTOR, body))

    def _tracks(self) -> None:
        about = self.about
        self._packet(number(_FLAGS, _STATE_CLEARED)
                     + message(_DESCRIPTOR, number(1, _CPUS) + text(2, f"CPUs: {about.title}")))
        for c in range(about.nr_cpus):
            self._track(_CPUS + 1 + c, f"CPU {c}", _CPUS)
        for task in range(len(about.task_mm)):
            mm, pid = about.task_mm[task], about.tgid(task)
            if pid == about.pid(task):
                self._packet(message(_DESCRIPTOR, number(1, _PROCESS + mm)
                                     + message(3, number(1, pid) + text(6, about.comm))))
            thread = number(1, pid) + number(2, about.pid(task)) + text(5, about.comm)
            self._packet(message(_DESCRIPTOR, number(1, _THREAD + task) + number(5, _PROCESS + mm)
                                 + message(4, thread)))
        for i, (name, unit) in enumerate(COUNTERS.items()):
            self._track(_COUNTERS + i, name, 0, message(8, text(6, unit)))

    def _event(self, kind: int, track: int, name: str = "", says: Mapping[str, int | str] | None = None,
               more: bytes = b"") -> None:
        body = number(_TYPE, kind) + number(_TRACK, track) + more
        if name:
            body += text(_CATEGORY, "mm") + text(_NAME, name)
        for key, value in (says or {}).items():
            told = text(6, value) if isinstance(value, str) else number(4, value)
            body += message(_ANNOTATION, text(10, key) + told)
        self._packet(number(_TIMESTAMP, self._at // NS) + message(_EVENT, body))

    def _push(self, track: int, slice: Slice, more: bytes = b"") -> None:
        self._open.setdefault(track, []).append(slice.name)
        self._event(_BEGIN, track, slice.name, slice.says, more)

    def _pop(self, track: int, names: Sequence[str], says: Mapping[str, int | str] | None = None) -> None:
        """End the track's innermost slice, if it is one of these."""
        stack = self._open.get(track)
        if stack and stack[-1] in names:
            stack.pop()
            self._event(_END, track, says=says)

    # --- what a run tells

    def begin(self, running: Sequence[int]) -> None:
        self._at = self.about.start
        for c, task in enumerate(running):
            self._runs(c, task)

    def _runs(self, cpu: int, task: int) -> None:
        if task >= 0:
            self._push(_CPUS + 1 + cpu, Slice(f"{self.about.comm} {self.about.pid(task)}"))

    def events(self, events: Sequence[Event]) -> None:
        for event in events:
            self._at = max(self._at, event.at)
            if event.name in ("sched_switch", "csd_queue_cpu", "tlb_flush") or "csd_function" in event.name:
                self._on_cpu(event)
            elif (irq := event.name.removesuffix("_entry").removesuffix("_exit")) in _IRQS:
                self._interrupt(event, _IRQS[irq])
            elif event.task >= 0:
                self._of_task(event, _THREAD + event.task)

    def _on_cpu(self, event: Event) -> None:
        track, v = _CPUS + 1 + event.cpu, event.v
        match event.name:
            case "sched_switch":
                if stack := self._open.get(track):
                    self._pop(track, stack[-1:])
                self._runs(event.cpu, v[1])
            case "csd_queue_cpu":
                self._flow += 1
                self._flows[event.cpu, v[0]] = self._flow
                self._event(_INSTANT, _THREAD + event.task, "csd_queue_cpu", {"cpu": v[0]},
                            fixed64(_FLOW, self._flow))
            case "csd_function_entry":
                self._pages.pop(event.cpu, None)
                flow = self._flows.pop((v[0], event.cpu), 0)
                self._push(track, Slice("flush_tlb_func", {"from": v[0]} if v[0] >= 0 else {}),
                           fixed64(_END_OF_FLOW, flow) if flow else b"")
            case "csd_function_exit":
                self._pop(track, ["flush_tlb_func"],
                          {"pages": self._pages[event.cpu]} if event.cpu in self._pages else None)
            case "tlb_flush":
                self._pages[event.cpu] = v[0]

    def _interrupt(self, event: Event, name: str) -> None:
        track = _CPUS + 1 + event.cpu
        if event.name.endswith("_entry"):
            self._push(track, Slice(name))
        else:
            self._pop(track, [name])

    def _of_task(self, event: Event, track: int) -> None:
        slice = _begin(event)
        if slice is not None:
            self._push(track, slice)
        elif event.name in _ENDS:
            name, value = _ENDS[event.name]
            self._pop(track, [name] if name else _FLUSHES, {value: event.v[0]} if value else None)
        elif event.name == "mm_vmscan_write_folio":
            self._event(_INSTANT, track, event.name, {"pfn": FIRST_FRAME + event.v[0]})
        elif event.name == "mm_vmscan_lru_isolate":
            self._event(_INSTANT, track, event.name, {"nr_scanned": event.v[1], "nr_taken": event.v[2]})

    def sample(self, sample: Sample) -> None:
        if not self.about.start <= sample.at <= self.about.stop:
            return
        self._at = max(self._at, sample.at)
        for i, name in enumerate(COUNTERS):
            value = sample.counters[name] if name in sample.counters else sample.amounts[name]
            self._event(_COUNTER, _COUNTERS + i, more=number(_VALUE, value))

    def finish(self, result: Result, at: int) -> None:
        self._at = max(self._at, min(at, self.about.stop))
        for (_, target), flow in self._flows.items():
            self._event(_INSTANT, _CPUS + 1 + target, "not yet served", more=fixed64(_END_OF_FLOW, flow))
        for track, stack in self._open.items():
            while stack:
                self._pop(track, stack[-1:])


class PerfettoKind(FileKind):
    """The trace of the window."""

    name, sink = "perfetto", PerfettoSink
    what = "the trace as a timeline for ui.perfetto.dev"


KINDS = (PerfettoKind(),)
