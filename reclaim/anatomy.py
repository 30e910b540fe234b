"""One flush taken apart: which CPUs, when each was called, interrupted and done, and who waited.

All from the log of a simulation's steps (`Simulation.log`); times are simulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reclaim import names
from reclaim.errors import ResultError
from reclaim.result import html_table

if TYPE_CHECKING:
    from reclaim.scenario import Scenario
    from reclaim.simulation import Simulation
    from reclaim.tables import Table

ACTIONS = 1 << 15      # of the log in which a flush is looked for
LONGEST, SHORTEST = 8 * 10**9, 10**7    # stretches in which it is sought [ps]
PS_PER_S = 10**12
_REMOTE = names.COUNTERS.index("nr_tlb_remote_flush")
_ST = {name: i for i, name in enumerate(names.STEPS)}
_IRQ = {i for name, i in _ST.items() if name[:2] in ("Q_", "T_", "IO", "H_")}


@dataclass
class Target:
    """A CPU that the flush was sent to; all times in ps since the start, -1 before they are known.

    queued : when the request was put into its call queue.
    entered : when the interrupt that served it began.
    began, ended : its flush function.
    left : when that interrupt ended.
    place : of the request among those that the interrupt served, from 0: the first one brought it.
    """

    cpu: int
    queued: int
    entered: int = -1
    began: int = -1
    ended: int = -1
    left: int = -1
    place: int = -1


@dataclass
class Flush:
    """One flush; all times in ps since the start, -1 if there was none.

    cpu : who asked for it, the initiator.
    cause : of `names.CAUSES`.
    began, ended : from its first step to its last.
    sent_from, sent_to : the sending of IPIs.
    own_from, own_to : the flush of the initiator's own TLB.
    waits_from : when it began to wait for answers.
    interrupts : (from, to) of what interrupted the initiator meanwhile.
    spinners : (CPU, from, to) of those that spun, as the flush ended, for a lock that the initiator
        held; of `anatomy` only, since the log does not say who holds a lock.
    row : of the log, its last one.
    waiting : CPUs that spun for any lock then, and since when.
    """

    cpu: int
    cause: str
    began: int
    ended: int = -1
    sent_from: int = -1
    sent_to: int = -1
    own_from: int = -1
    own_to: int = -1
    waits_from: int = -1
    targets: list[Target] = field(default_factory=list)
    interrupts: list[tuple[int, int]] = field(default_factory=list)
    spinners: list[tuple[int, int, int]] = field(default_factory=list)
    row: int = -1
    waiting: dict[int, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """All of it is in the log, to the end of the last target's interrupt."""
        return self.ended >= 0 and all(target.left >= 0 for target in self.targets)

    def table(self) -> Table:
        """A row for each CPU, times in ns since the flush began."""
        from reclaim.tables import _table

        def since(at: int) -> float | None:
            return None if at < 0 else (at - self.began) / 1000
        rows: list[dict[str, Any]] = [{
            "cpu": self.cpu, "role": "initiator", "queued": None, "entered": None,
            "began": since(self.own_from), "ended": since(self.own_to), "left": since(self.ended),
            "place": None}]
        rows += [{"cpu": t.cpu, "role": "target" if t.place == 0 else "target, came along",
                  "queued": since(t.queued), "entered": since(t.entered), "began": since(t.began),
                  "ended": since(t.ended), "left": since(t.left), "place": t.place} for t in self.targets]
        rows += [{"cpu": cpu, "role": "bystander", "queued": None, "entered": since(start), "began": None,
                  "ended": None, "left": since(end), "place": None} for cpu, start, end in self.spinners]
        return _table("flush", rows, dict.fromkeys(("queued", "entered", "began", "ended", "left"), "ns"))

    def title(self) -> str:
        """Cause, initiator, length."""
        return (f"flush, cause {self.cause}, by CPU {self.cpu} at {self.began / 1e12:.9f} s, of "
                f"{len(self.targets)} other CPU{'s' * (len(self.targets) != 1)}: "
                f"{(self.ended - self.began) / 1000:,.0f} ns")

    def __repr__(self) -> str:
        return self.title() + "\n" + repr(self.table()).split("\n", 1)[1]

    def _repr_html_(self) -> str:
        return html_table(self.title(), *self.table()._cells())


def flushes(log: NDArray[Any]) -> list[Flush]:
    """Every flush that began in the log, in order of their beginnings; see `Flush.whole`."""
    return _Reader().read(log)


class _Reader:
    """What is going on at each CPU, as the log goes by."""

    def __init__(self) -> None:
        self.found: list[Flush] = []
        self.open: dict[int, Flush] = {}                    # by initiator
        self.entered: dict[int, int] = {}                   # by CPU: the interrupt it is in
        self.served: dict[int, list[Target]] = {}           # by CPU: whose requests that served
        self.spins: dict[int, int] = {}                     # by CPU: since when
        self.row = 0
        self.before: dict[int, int] = {}                    # by CPU: irq_cost

    def read(self, log: NDArray[Any]) -> list[Flush]:
        columns = [log[name].tolist() for name in ("now", "cpu", "step", "other", "cost", "irq_cost")]
        for now, cpu, step, other, cost, irq_cost in zip(*columns, strict=True):
            name = names.STEPS[step]
            if step not in _IRQ:
                self._spinning(cpu, now, other, name)
            if name[:3] == "FL_":
                self._initiator(name, now, cpu, other, cost)
            elif step in _IRQ:
                self._interrupt(name, now, cpu, other, cost, irq_cost)
            self.before[cpu] = irq_cost
            self.row += 1
        return self.found

    def _spinning(self, cpu: int, now: int, other: int, name: str) -> None:
        self.spins.pop(cpu, None)
        if other >= 0 and name not in ("FL_QUEUE", "FL_START"):
            self.spins[cpu] = now

    def _initiator(self, name: str, now: int, cpu: int, other: int, cost: int) -> None:
        if name == "FL_START":
            self.open[cpu] = Flush(cpu, names.CAUSES[other][0], now)
            self.found.append(self.open[cpu])
        flush = self.open.get(cpu)
        if flush is None:
            return
        if name == "FL_QUEUE" and other >= 0:
            flush.targets.append(Target(other, now))
        elif name == "FL_SEND":
            flush.sent_from, flush.sent_to = now, now + cost
        elif name == "FL_LOCAL":
            flush.own_from, flush.own_to = now, now + cost
        elif name == "FL_WAIT":
            flush.waits_from = now
        elif name == "FL_DONE":
            flush.ended, flush.row, flush.waiting = now, self.row, dict(self.spins)
            del self.open[cpu]

    def _interrupt(self, name: str, now: int, cpu: int, other: int, cost: int, irq_cost: int) -> None:
        if name in ("Q_ENTRY", "T_TICK", "T_TIMER", "IO_ENTRY"):
            self.entered[cpu], self.served[cpu] = now, []
        elif name == "Q_FUNC":
            self._served(now, cpu, other, irq_cost)
        elif name == "Q_EXIT":
            for target in self.served.pop(cpu, []):
                target.left = now + cost
            if cpu in self.open and cpu in self.entered:
                self.open[cpu].interrupts.append((self.entered[cpu], now + cost))

    def _served(self, now: int, cpu: int, sender: int, irq_cost: int) -> None:
        flush = self.open.get(sender)
        served = self.served.setdefault(cpu, [])
        for target in flush.targets if flush is not None else ():
            if target.cpu == cpu and target.began < 0:
                target.entered, target.place = self.entered.get(cpu, now), len(served)
                target.began, target.ended = now + self.before.get(cpu, 0), now + irq_cost
                served.append(target)
                return
        served.append(Target(cpu, -1))          # of a flush that began before the log


def pick(found: list[Flush], number: int | None = None) -> Flush:
    """The flush of that number among those sent to others and whole, from 1; or the one with most targets.

    Raises
    ------
    ResultError : there is none.
    """
    whole = [flush for flush in found if flush.whole and flush.targets]
    if not whole:
        raise ResultError("no flush was sent to another CPU in that time: look later, or longer")
    if number is None:
        return max(whole, key=lambda flush: (len(flush.targets), -flush.began))
    if not 1 <= number <= len(whole):
        raise ResultError(f"flush {number}: there are {len(whole)} in that time, from 1")
    return whole[number - 1]


def anatomy(scenario: Scenario | str, policy: Any = "stage0", *, start: float = 0.0,
            number: int | None = None, seed: int | None = None, actions: int = ACTIONS) -> Flush:
    """A flush of a run of `policy` over `scenario`: the one with most targets, or the one of that `number`.

    Parameters
    ----------
    start : where to begin to look for the first flush that is sent to another CPU [s].
    actions : how many steps of the simulation to look at from shortly before that one on.

    Raises
    ------
    ReclaimError : bad input, or no flush is there.
    """
    from reclaim.comparison import _scenario
    from reclaim.simulation import Simulation
    chosen = _scenario(scenario, None)
    if not 0 <= start <= chosen.seconds:
        raise ResultError(f"start = {start}: must be 0 to the scenario's {chosen.seconds:g} s")
    if not 1 <= actions <= 1 << 24:
        raise ResultError(f"actions = {actions}: must be 1 to {1 << 24:,}")
    simulation = Simulation(chosen, policy, seed=seed)
    if start:
        simulation._core.run(round(start * PS_PER_S), actions=1 << 62)
    _to_the_next(simulation, round(chosen.seconds * PS_PER_S))
    before = simulation.snapshot()
    flush = pick(flushes(np.asarray(simulation.log(chosen.seconds, actions=actions))), number)
    simulation.restore(before)
    simulation.log(chosen.seconds, actions=flush.row)       # to just before its last step
    flush.spinners = list(_bystanders(simulation, flush))
    return flush


def _bystanders(simulation: Simulation, flush: Flush) -> Iterator[tuple[int, int, int]]:
    cpus, regions = simulation.view("cpu"), simulation.view("region")
    for cpu, since in sorted(flush.waiting.items()):
        at = int(cpus["lock_at"][cpu])
        lock = simulation.view("memcg")["lru_lock"][0] if at == 0 else regions["ptl"][at - 1]
        if names.CPU_MODES[cpus["mode"][cpu]] == "SPIN_LOCK" and lock["holder"] == flush.cpu:
            yield cpu, max(since, flush.began), flush.ended


def _to_the_next(simulation: Simulation, end: int) -> None:
    """Run until shortly before a flush is sent to another CPU; to the end if none is."""
    at, piece = simulation.now_ps, LONGEST
    while piece >= SHORTEST:
        before = simulation.snapshot()
        sent = int(simulation.view("counter")[_REMOTE])
        at = min(at + piece, end)
        simulation._core.run(at, actions=1 << 62)
        if int(simulation.view("counter")[_REMOTE]) > sent:
            simulation.restore(before)
            at, piece = simulation.now_ps, piece // 8
        elif at >= end:
            return
