"""How much each assumption of a scenario moves its table: one at a time, with the same seeds.

A *choice* is one factor set to another value: a cost halved or doubled, a rule of the kernel that
the scenario leaves to its version, another swap device.  Both policies run with it, with the seeds
of the base, so that what differs is the choice and what chance makes of it.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import hashlib
import math
import pickle
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reclaim.comparison import COUNTS, RATIOS
from reclaim.errors import ReclaimError, ScenarioError, did_you_mean
from reclaim.jobs import Stop, check_jobs, run_jobs
from reclaim.keys import show_value
from reclaim.machine import COST_KEYS, profile_names
from reclaim.memory import SWITCHES, VERSIONS
from reclaim.result import ratio, show_number
from reclaim.scenario import Scenario

FACTORS = (0.5, 2.0)      # what is a number is halved and doubled
JITTER = 1e-3             # of every cost, in all runs but those of the first seed
BASE = -1                 # the index of the scenario as it is

# Devices by the numbers of their data sheets: an NVMe drive on PCIe 4.0 (its driver's queue has
# 1023 tags), a virtio disk, which says that it rotates.
DEVICES: dict[str, dict[str, Any]] = {
    "zram": {"swap.kind": "zram"},
    "nvme": {"swap.kind": "nvme", "swap.depth": 1023, "swap.bandwidth": "5G"},
    "disk": {"swap.kind": "ssd", "swap.rotational": True, "swap.depth": 256},
}
# Keys whose every value is tried.
OPEN: dict[str, tuple[Any, ...]] = {
    "kernel.version": tuple(VERSIONS), "kernel.lru": ("classic", "mglru"),
    "kernel.mm_cpumask": ("eager", "lazy"), "kernel.cgroup": ("v1", "v2"),
    **{f"kernel.{name}": ("yes", "no") for name in SWITCHES},
    "machine.pcid": (True, False), "memcg.swappiness": (30, 100, 200), "workload.pin": (True, False),
}
# Numbers that no key of a scenario sets, or that one leaves to "auto": the field of `World`.
IN_WORLD = {"tlb.l1_entries": "l1_sets", "tlb.l2_entries": "l2_sets", "memcg.kernel": "kernel_pages"}
SCHEDULER: dict[str, tuple[Any, ...]] = {
    "hz": (100, 250, 1000), "migrations_per_s": (0.0, 0.1, 1.0, 10.0), "kworkers": (True, False),
    "skew_tick": (True, False)}


@dataclass(frozen=True, eq=False)
class Choice:
    """One factor set to one value.

    group : ``costs``, ``kernel``, ``swap``, ``workload`` and so on.
    changes : keys of the scenario.
    scheduler, world : fields of the profile's scheduler, and factors of fields of the `World`,
        which no key of a scenario sets.
    """

    factor: str
    value: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    world: Mapping[str, float] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The part of the scenario that the factor belongs to."""
        return self.factor.partition(".")[0]

    def to_dict(self) -> dict[str, str]:
        """As ``sensitivity --json`` holds it."""
        return {"factor": self.factor, "value": self.value}

    def lower(self, scenario: Scenario, seed: int) -> Any:
        """The world of `scenario` with this choice."""
        world = scenario.replace(self.changes, where=self.factor).lower(seed=seed)
        fields: dict[str, Any] = {name: max(1, round(getattr(world, name) * by))
                                  for name, by in self.world.items()}
        if self.scheduler:
            scheduler = dataclasses.replace(scenario.machine.load_profile().scheduler, **self.scheduler)
            fields |= scheduler.world_fields(scenario.machine.cpus)
        return dataclasses.replace(world, **fields)


def choices(scenario: Scenario) -> Iterator[Choice]:
    """Everything that may be varied; some may leave the world as it is."""
    profile = scenario.machine.load_profile()
    costs = profile.costs.replace(scenario.costs)
    for name, ns in zip(COST_KEYS, costs.ns, strict=True):
        if ns:
            yield from (Choice(f"costs.{name}", f"x{by:g}", {f"costs.{name}": ns * by}) for by in FACTORS)
    for name, values in OPEN.items():
        yield from (Choice(name, show_value(value), {name: value}) for value in values)
    yield from (Choice("swap", name, keys) for name, keys in DEVICES.items())
    for name, values in SCHEDULER.items():
        yield from (Choice(f"scheduler.{name}", show_value(value), scheduler={name: value})
                    for value in values)
    for name in ("slice_ms", "kthread_share"):
        was = getattr(profile.scheduler, name)
        most = 1.0 if name == "kthread_share" else math.inf
        yield from (Choice(f"scheduler.{name}", f"x{by:g}", scheduler={name: min(was * by, most)})
                    for by in FACTORS)
    for name, what in IN_WORLD.items():
        yield from (Choice(name, f"x{by:g}", world={what: by}) for by in FACTORS)
    if scenario.machine.host_cpus == 0:
        yield from (Choice("machine.profile", name, {"machine.profile": name})
                    for name in profile_names() if name != "tcg-rr")
    yield from _workload(scenario)


def _workload(scenario: Scenario) -> Iterator[Choice]:
    if scenario.workload.kind == "stress_ng.vm":
        from reclaim.workloads.stress_ng import ADVICE, METHODS
        for name, values in (("madvise", ("default", *ADVICE)), ("method", ("all", *METHODS))):
            yield from (Choice(f"workload.{name}", value, {f"workload.{name}": value}) for value in values)
    elif scenario.workload.kind == "writer":
        yield from (Choice("workload.pattern", value, {"workload.pattern": value})
                    for value in ("seq", "rand", "mix"))


def _key(world: Any) -> bytes:
    """Equal for equal worlds."""
    return hashlib.blake2b(pickle.dumps(world), digest_size=16).digest()


# --- running

Counters = Mapping[str, Any]
Pairs = dict[int, tuple[Counters, Counters]]      # by seed: before and after


@dataclass(frozen=True)
class Plan:
    """What is to be run: choices that each make another world than the base and than one another.

    choice_seeds : how many of the seeds the choices are run with.
    """

    scenario: Scenario
    policies: tuple[str, str]
    seeds: tuple[int, ...]
    choices: tuple[Choice, ...]
    choice_seeds: int

    @classmethod
    def of(cls, scenario: Scenario, before: str = "stage0", after: str = "stage5", *, seeds: int = 3,
           choice_seeds: int | None = None, only: Iterable[str] = ()) -> Plan:
        """All choices of `scenario`, or those whose factor matches a pattern of `only`.

        seeds : of the base; its range over them is the noise.
        choice_seeds : of each choice, from the first on; None: all.

        Raises
        ------
        ReclaimError : bad input.
        """
        from reclaim import policies
        for policy in (before, after):
            policies.get(policy)
        if not 1 <= seeds <= 1000:
            raise ReclaimError(f"seeds = {seeds}: must be 1 to 1000")
        choice_seeds = seeds if choice_seeds is None else choice_seeds
        if not 1 <= choice_seeds <= seeds:
            raise ReclaimError(f"choice_seeds = {choice_seeds}: must be 1 to seeds, {seeds}")
        chosen = list(choices(scenario))
        for pattern in (only := list(only)):
            if not any(fnmatch.fnmatchcase(choice.factor, pattern) for choice in chosen):
                raise ReclaimError(f"nothing to vary matches {pattern!r}"
                                   + did_you_mean(pattern, {choice.factor for choice in chosen}))
        seen = {_key(scenario.lower())}
        kept = []
        for choice in chosen:
            if only and not any(fnmatch.fnmatchcase(choice.factor, pattern) for pattern in only):
                continue
            try:
                key = _key(choice.lower(scenario, scenario.seed))
            except ScenarioError:
                continue        # this scenario cannot have it
            if key not in seen:
                seen.add(key)
                kept.append(choice)
        numbers = tuple((scenario.seed + i) % 2**64 for i in range(seeds))
        return cls(scenario, (before, after), numbers, tuple(kept), choice_seeds)

    def run(self, *, jobs: int | None = None, whole: bool = False,
            progress: Callable[[float, str], None] | None = None,
            say: Callable[[str], None] | None = None) -> Sensitivity:
        """Run all of it; partial, with what was run, after a KeyboardInterrupt.

        whole : also run the scenario as it is for the published time, with `choice_seeds` seeds.
        progress : called with the share done and what was done last.
        say : called once with the time that it will take.
        """
        jobs = check_jobs(jobs)
        found: dict[int, Pairs] = {}
        longer: dict[int, Pairs] = {}
        seconds = float(self.scenario.published.get("seconds", 0)) if whole else 0.0
        first, rest = self.seeds[0], self.seeds[1:]
        everyone = range(len(self.choices))
        partial = False
        try:
            started = time.perf_counter()
            self._run([(BASE, first)], found, jobs, None)
            took = time.perf_counter() - started
            if say is not None:
                each = len(self.choices) + seconds / self.scenario.seconds
                say(self._told(took * (len(self.seeds) + each * self.choice_seeds) * min(2, jobs) / jobs))
            self._run([*((BASE, seed) for seed in rest), *((i, first) for i in everyone)], found, jobs,
                      _part(progress, 0.0, 1 / self.choice_seeds))
            moved = [i for i in everyone if not _same(found[i][first], found[BASE][first])]
            self._run([(i, seed) for seed in rest[:self.choice_seeds - 1] for i in moved], found, jobs,
                      _part(progress, 1 / self.choice_seeds, 1.0))
            if seconds:
                scenario = self.scenario.replace(seconds=seconds, where="published")
                plan = dataclasses.replace(self, scenario=scenario)
                plan._run([(BASE, seed) for seed in self.seeds[:self.choice_seeds]], longer, jobs, None)
        except KeyboardInterrupt:
            if first not in found.get(BASE, {}):
                raise
            partial = True
        base = found.pop(BASE)
        return Sensitivity(self, base, {self.choices[i]: pairs for i, pairs in sorted(found.items())},
                           longer.get(BASE, {}), partial)

    def _told(self, seconds: float) -> str:
        return (f"{len(self.choices)} choices with {self.choice_seeds} of {len(self.seeds)} seeds, both "
                f"policies, {self.scenario.seconds:g} simulated seconds each: about {_duration(seconds)}, or "
                "less: what has no effect with the first seed is not run with the others")

    def _run(self, work: Sequence[tuple[int, int]], found: dict[int, Pairs], jobs: int,
             progress: Callable[[float, str], None] | None) -> None:
        sides = [(index, seed, side) for index, seed in work for side in (0, 1)]
        halves: dict[tuple[int, int], dict[int, Counters]] = {}
        todo = [functools.partial(self._one, *each) for each in sides]
        for done, (at, counters) in enumerate(run_jobs(todo, jobs), 1):
            index, seed, side = sides[at]
            both = halves.setdefault((index, seed), {})
            both[side] = counters
            if len(both) == 2:
                found.setdefault(index, {})[seed] = (both[0], both[1])
            if progress is not None:
                choice = self.choices[index] if index != BASE else None
                progress(done / len(sides), f"{choice.factor} = {choice.value}" if choice else "base")

    def _one(self, index: int, seed: int, side: int, stop: Stop) -> Counters:
        from reclaim.simulation import Simulation
        choice = Choice("", "") if index == BASE else self.choices[index]
        world = choice.lower(self.scenario, seed)
        if seed != self.seeds[0]:
            world = _jittered(world, seed)
        simulation = Simulation(world, self.policies[side])
        result = simulation.run(seconds=self.scenario.seconds, progress=stop.watch(simulation))
        counters: Counters = result.counters
        return counters


def _jittered(world: Any, seed: int) -> Any:
    """Each cost off by up to `JITTER`: where seeds decide little, phases do, and any change moves those."""
    draw = random.Random(seed)
    return dataclasses.replace(world, costs=tuple(
        round(ps * (1 + draw.uniform(-JITTER, JITTER))) for ps in world.costs))


def _part(progress: Callable[[float, str], None] | None, low: float, high: float,
          ) -> Callable[[float, str], None] | None:
    return None if progress is None else lambda share, done: progress(low + (high - low) * share, done)


def _same(pair: tuple[Counters, Counters], base: tuple[Counters, Counters]) -> bool:
    return [c["digest"] for c in pair] == [c["digest"] for c in base]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


# --- what came out

@dataclass(frozen=True)
class Cell:
    """One number of the table under one choice.

    row : metric; what : ``before``, ``after``, ``change`` (after / before - 1, in percent).
    base, value : medians over the seeds.
    noise : the range of the base over its seeds.
    """

    row: str
    what: str
    base: float
    value: float
    noise: float

    @property
    def effect(self) -> float:
        """Of a count or ratio: the log of value / base; of a change: what it does to after / before."""
        if self.what == "change":
            value, base = 100 + self.value, 100 + self.base
        else:
            value, base = self.value, self.base
        return math.log(value / base) if min(value, base) > 0 else math.inf

    @property
    def in_noise(self) -> bool:
        """Whether seeds alone move the base as far."""
        return abs(self.value - self.base) <= self.noise

    def __str__(self) -> str:
        tilde = "~" if self.in_noise else ""
        if self.what == "change":
            return f"{tilde}{self.value:+.1f}%"
        return f"{tilde}{show_number(self.value)}"

    def to_dict(self) -> dict[str, Any]:
        """As ``sensitivity --json`` holds it."""
        return {"row": self.row, "what": self.what, "base": self.base, "value": self.value,
                "noise": self.noise, "in_noise": self.in_noise}


# The numbers of the table that are followed: those of `compare`, but no totals of one side.
WHAT = tuple([(row, "change") for row in COUNTS]
             + [(row, side) for row in RATIOS for side in ("before", "after")])


def values_of(pairs: Iterable[tuple[Counters, Counters]], row: str, what: str) -> list[float]:
    """One number of the table, of each pair that has it."""
    found = []
    for pair in pairs:
        sides = [ratio(c[RATIOS[row][0]], c[RATIOS[row][1]]) if row in RATIOS else c[row] for c in pair]
        value = None if None in sides else {"before": sides[0], "after": sides[1]}.get(what)
        if what == "change":
            quotient = ratio(sides[1], sides[0])
            value = None if quotient is None else (quotient - 1) * 100
        if value is not None:
            found.append(float(value))
    return found


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """The table of the base, and of each choice.  All numbers are simulated.

    whole : the base for the published time, if that was run.
    """

    plan: Plan
    base: Pairs
    found: Mapping[Choice, Pairs]
    whole: Pairs = field(default_factory=dict)
    partial: bool = False

    def cells(self, choice: Choice) -> list[Cell]:
        """Every number of `WHAT` under `choice` that has a value."""
        made = []
        for row, what in WHAT:
            pairs = self.found[choice]
            base = values_of((self.base[seed] for seed in pairs), row, what)
            values, every = values_of(pairs.values(), row, what), values_of(self.base.values(), row, what)
            if base and values:
                made.append(Cell(row, what, statistics.median(base), statistics.median(values),
                                 noise=max(every) - min(every)))
        return made

    def ranked(self) -> list[tuple[Choice, float, list[Cell]]]:
        """Choices by the greatest effect on any number, those beyond the noise of seeds first."""
        rated = []
        for choice in self.found.keys() - set(self.without_effect()):
            cells = self.cells(choice)
            real = [abs(cell.effect) for cell in cells if not cell.in_noise]
            rated.append((choice, max(real, default=0.0), cells))
        return sorted(rated, key=lambda one: (-one[1], one[0].factor, one[0].value))

    def without_effect(self) -> list[Choice]:
        """The choices with which every run of a seed ends in the state of the base."""
        first = self.plan.seeds[0]
        return [choice for choice, pairs in self.found.items()
                if first in pairs and _same(pairs[first], self.base[first])]

    def range_of(self, row: str, what: str, group: str) -> list[tuple[float, Choice]]:
        """The number under each choice of `group`, ascending."""
        found = []
        for choice, pairs in self.found.items():
            values = values_of(pairs.values(), row, what)
            if choice.group == group and values:
                found.append((statistics.median(values), choice))
        return sorted(found, key=lambda one: one[0])

    def groups(self) -> list[str]:
        """The groups of the choices that were run."""
        return list(dict.fromkeys(choice.group for choice in self.found))

    def published(self, row: str, what: str) -> float | None:
        """The published number, if the scenario has it."""
        sides = tuple(self.plan.scenario.published.get(side, {}) for side in ("before", "after"))
        needed = RATIOS.get(row, (row,))
        if not all(name in side for side in sides for name in needed):
            return None
        values = values_of([(sides[0], sides[1])], row, what)
        return values[0] if values else None

    def to_dict(self) -> dict[str, Any]:
        """As ``sensitivity --json`` prints it."""
        data = {"scenario": self.plan.scenario.name, "seconds": self.plan.scenario.seconds,
                "policies": list(self.plan.policies), "seeds": list(self.plan.seeds),
                "base": [{"row": row, "what": what, "values": values_of(self.base.values(), row, what),
                          "published": self.published(row, what)} for row, what in WHAT],
                "choices": [choice.to_dict() | {"effect": effect if math.isfinite(effect) else None,
                                                "cells": [cell.to_dict() for cell in cells]}
                            for choice, effect, cells in self.ranked()],
                "without_effect": [choice.to_dict() for choice in self.without_effect()]}
        return data | {"partial": True} if self.partial else data

    def title(self) -> str:
        """One line: what was run."""
        plan = self.plan
        return (f"{plan.scenario.name}: {plan.scenario.seconds:g} s, {' and '.join(plan.policies)}, "
                f"{len(plan.seeds)} seeds, {len(self.found)} choices one at a time, simulated"
                + (", PARTIAL: interrupted" if self.partial else ""))

    def __repr__(self) -> str:
        lines = [self.title(), "", "base, and its range over seeds:"]
        for row, what in WHAT:
            values = values_of(self.base.values(), row, what)
            if values:
                lines.append(f"  {row + ' ' + what:<36}{show(what, statistics.median(values)):>12}   "
                             f"{show(what, min(values))} .. {show(what, max(values))}")
        lines += ["", "choices by effect (what each moves most; ~: seeds alone move it as far):"]
        for choice, effect, cells in self.ranked():
            most = sorted(cells, key=lambda cell: (cell.in_noise, -abs(cell.effect)))[:3]
            lines.append(f"  {choice.factor + ' = ' + choice.value:<36}{factor(effect):>8}  " + "; ".join(
                f"{cell.row} {cell.what} {cell} for {show(cell.what, cell.base)}" for cell in most))
        return "\n".join([*lines, "", "without any effect: " + told(self.without_effect())])

    def markdown(self, command: str) -> str:
        """The page of docs."""
        from reclaim.sensitivity_page import page
        return page(self, command)


def told(chosen: Iterable[Choice]) -> str:
    """Choices in a sentence."""
    return ", ".join(f"{choice.factor} = {choice.value}" for choice in chosen) or "none"


def show(what: str, value: float) -> str:
    """A number of the table."""
    return f"{value:+.1f}%" if what == "change" else show_number(value)


def factor(effect: float) -> str:
    """An effect as a factor."""
    if effect == 0:
        return "~"
    return f"x{math.exp(effect):.2f}" if math.isfinite(effect) else "to 0"
