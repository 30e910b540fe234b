"""What writes while a simulation runs: it takes the place of the core's `run`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reclaim._trace import EVENT_DTYPE, Tracer
from reclaim.errors import ResultError
from reclaim.exports import About, Event, Kind, Sample, Sink
from reclaim.exports._kernel import comm_of
from reclaim.names import COUNTERS, EVENTS, FOLIO_FLAGS
from reclaim.scenario import Scenario

if TYPE_CHECKING:
    from reclaim.result import Result
    from reclaim.simulation import Simulation

PS_PER_S = 10**12
WINDOW = 0.02             # of a trace that is not told how long [s]
BATCH = 1 << 14           # events in memory at a time
_NEVER = 1 << 62
_IPI_MASK = EVENTS.index("ipi_send_cpumask")
_FLAG = {name: 1 << i for i, name in enumerate(FOLIO_FLAGS)}


class Exports:
    """The files of one run; a context, at whose end they are there, or, after an error, as they were.

    Parameters
    ----------
    wanted : kinds and paths, as `reclaim.exports.parse` gives them.
    trace_from : when traces begin [s]; None: so that they end with the run.
    trace_for : how long they are [s].
    every : between two snapshots [s]; None: as the kind says.
    """

    def __init__(self, wanted: Sequence[tuple[Kind, str]], *, trace_from: float | None = None,
                 trace_for: float | None = None, every: float | None = None) -> None:
        paths = [path for _, path in wanted]
        for path in paths:
            if paths.count(path) > 1:
                raise ResultError(f"-o: {path} is given twice; give each kind a file of its own")
        for name, value, least in (("--trace-from", trace_from, 0.0), ("--trace-for", trace_for, 1e-9),
                                   ("--every", every, 1e-9)):
            if value is not None and not value >= least:
                raise ResultError(f"{name} must be {least:g} s or more, got {value:g}")
        self.wanted = list(wanted)
        self._from, self._for, self._every = trace_from, trace_for, every
        self._stack = ExitStack()
        self._sinks: list[Sink] = []
        self._plan: list[list[int]] = []       # [when next, how often] of each sink; never: none
        self.nr_events = 0

    def __bool__(self) -> bool:
        return bool(self.wanted)

    def __enter__(self) -> Exports:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with _uninterrupted():
            self._stack.__exit__(kind, error, trace)

    # --- while it runs

    def attach(self, simulation: Simulation, end: int) -> None:
        """Write what `simulation`, which is to run until `end` [ps], does from now on."""
        if self._sinks:
            raise ResultError("the files of one run cannot hold another's: make new Exports")
        self.simulation = simulation
        scenario, world = simulation.scenario, simulation.world
        length = round((WINDOW if self._for is None else self._for) * PS_PER_S)
        start = max(0, end - length) if self._from is None else round(self._from * PS_PER_S)
        if self._from is not None and start >= end:
            raise ResultError(f"--trace-from {start / PS_PER_S:g}: the run ends at {end / PS_PER_S:g} s")
        comm, kernel = "task", "6.12"           # of a World, which says neither
        if isinstance(scenario, Scenario):
            comm, kernel = comm_of(scenario.workload.kind), scenario.kernel.version
        self.about = About(
            title=f"{getattr(scenario, 'name', 'a world')}, {simulation.policy.name}, "
                  f"seed {simulation.seed}, simulated by reclaim",
            comm=comm, kernel=kernel, nr_cpus=world.nr_cpus,
            task_mm=tuple(int(mm) for mm in world.task_mm), start=start, stop=min(start + length, end),
            every=0 if self._every is None else max(1, round(self._every * PS_PER_S)), end=end)
        self._sinks = [self._stack.enter_context(kind.open(path, self.about)) for kind, path in self.wanted]
        self._plan = [list(sink.sampling() or (_NEVER, 1)) for sink in self._sinks]
        self._traced = any(sink.wants_events for sink in self._sinks)
        self._tracer: Tracer | None = None
        self._held: NDArray[Any] = np.zeros(0, dtype=EVENT_DTYPE)
        self._ended = False

    def run(self, end: int, *, actions: int, touches: int, fuse: bool) -> str:
        """As `Core.run`, in pieces: to the next sample, or to an end of the trace's window."""
        core, now = self.simulation._core, self._now()
        self._sample(now)
        stop = min(end, *(when for when, _ in self._plan))
        if self._traced and not self._ended:
            if now < self.about.start:
                stop = min(stop, self.about.start)
            elif now < self.about.stop:
                return self._trace(min(stop, self.about.stop), end, actions, touches)
            else:
                self._end_trace()
        why: str = core.run(stop, actions=actions, touches=touches, fuse=fuse)
        return "budget" if why == "end" and stop < end else why

    def _now(self) -> int:
        now = self.simulation._core.now
        return self.about.end if now is None else min(now, self.about.end)

    def _trace(self, stop: int, end: int, actions: int, touches: int) -> str:
        core = self.simulation._core
        if self._tracer is None:
            self._tracer = Tracer(core)
            with _uninterrupted():
                for sink in self._sinks:
                    if sink.wants_events:
                        sink.begin(self.simulation.view("cpu")["current"].tolist())
        with _uninterrupted():          # what was made is written
            rows, why = self._tracer.run(stop, actions=min(actions, 1 << 18), touches=touches, events=BATCH)
            now = core.now
            self._tell(rows, stop if why == "end" or now is None else min(now, stop))
        return "budget" if why == "end" and stop < end else why

    def _tell(self, rows: NDArray[Any], until: int | None) -> None:
        """Hand out the events up to `until`, after which no other can come before them; None: all."""
        rows = np.concatenate([self._held, rows])
        rows = rows[np.argsort(rows["at"], kind="stable")]
        n = len(rows) if until is None else int(np.searchsorted(rows["at"], until, side="right"))
        self._held = rows[n:]
        events = list(_decode(rows[:n]))
        self.nr_events += len(events)
        for sink in self._sinks:
            if sink.wants_events and events:
                sink.events(events)

    def _end_trace(self) -> None:
        with _uninterrupted():
            if self._tracer is not None and not self._ended:
                self._tell(np.zeros(0, dtype=EVENT_DTYPE), None)
            self._ended = True

    def _sample(self, now: int) -> None:
        """Every sample that is due: time has come to it, and no action of its time was made."""
        due = [i for i, (when, _) in enumerate(self._plan) if when <= now]
        if not due:
            return
        with _uninterrupted():
            for i in due:
                self._sinks[i].sample(sample_of(self.simulation, self._plan[i][0]))
                self._plan[i][0] += self._plan[i][1]

    # --- afterwards

    def finish(self, result: Result) -> None:
        """The run is over: its last samples, and what else the files lack."""
        with _uninterrupted():
            at = min(self.simulation.now_ps, self.about.end)
            if self.simulation._stopped == "end":
                at = self.about.end
            self._end_trace()
            for sink in self._sinks:
                if sink.sampling() is not None:
                    sink.sample(sample_of(self.simulation, at))
                sink.finish(result, at)

    def notes(self) -> list[str]:
        """What a user should know of the files."""
        if self._sinks and self._traced and not self.nr_events:
            return [f"the trace is empty: nothing happened from {self.about.start / PS_PER_S:g} s to "
                    f"{self.about.stop / PS_PER_S:g} s; choose its window with --trace-from and --trace-for"]
        return []


def _decode(rows: NDArray[Any]) -> Iterator[Event]:
    columns = (rows[name].tolist() for name in ("at", "event", "cpu", "task", "flags", "v"))
    targets: list[int] = []
    for at, event, cpu, task, flags, v in zip(*columns, strict=True):
        if event == _IPI_MASK:          # one row a target
            targets.append(v[0])
            if v[1] < v[2] - 1:
                continue
            v, targets = targets, []
        yield Event(at, EVENTS[event], cpu, task, flags, v)


def sample_of(simulation: Simulation, at: int) -> Sample:
    """What a simulation counted so far."""
    cpu, cg, folio = (simulation.view(name) for name in ("cpu", "memcg", "folio"))
    if simulation.world.lru:            # lru_gen_is_active: the two youngest generations
        gens, young = np.maximum(cg["gen_nr"][0], 0), int(cg["max_seq"][0])
        active = int(gens[young % 4] + gens[(young - 1) % 4])
        lru = [int(gens.sum()) - active, active]
    else:
        lru = [int(n) for n in cg["lru_nr"][0][:2]]
    flags = folio["flags"]
    amounts = {"nr_zone_inactive_anon": lru[0], "nr_zone_active_anon": lru[1], "nr_inactive_anon": lru[0],
               "nr_active_anon": lru[1], "nr_isolated_anon": int(cg["nr_isolated"][0]),
               "nr_anon_pages": int(simulation.view("mm")["rss"].sum()),
               "nr_writeback": int(np.count_nonzero(flags & _FLAG["WRITEBACK"])),
               "nr_swapcached": int(np.count_nonzero(flags & _FLAG["SWAPCACHE"]))}
    return Sample(at, dict(zip(COUNTERS, simulation.view("counter").tolist(), strict=True)), amounts,
                  {"LOC": cpu["apic_timer_irqs"].tolist(), "CAL": cpu["irq_call_count"].tolist(),
                   "TLB": cpu["irq_tlb_count"].tolist()})


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until what is begun is written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[Any] = []
    before = signal.getsignal(signal.SIGINT)
    if before is None or before in (signal.SIG_IGN, signal.SIG_DFL):
        yield
        return
    signal.signal(signal.SIGINT, lambda *args: came.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(*came[0])
