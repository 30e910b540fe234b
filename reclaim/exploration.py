"""Search the interleavings of a tiny world for lost writes and stale accesses (docs/safety.md).

`explore` builds the world, lets `_explore.Explorer` search it, and gives an `Exploration`, whose
violations are `Counterexample` objects.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from reclaim import policies
from reclaim._explore import Explorer
from reclaim.counterexample import Counterexample, table
from reclaim.errors import PolicyError, ReclaimError
from reclaim.policies.flush import RECHECKS
from reclaim.tinyworld import SWITCHES, TinyWorld, known_name


@dataclass
class Exploration:
    """What a search found, and how far it went."""

    world: TinyWorld
    states: int
    transitions: int
    seconds: float
    exhausted: bool
    depth: int
    violations: list[Counterexample]
    schedules: int = 0                # of a random search
    refused: int = 0                  # transitions in which pageout()'s refcount test refused a folio
    interrupted: bool = False

    @property
    def states_per_second(self) -> float:
        return self.states / self.seconds if self.seconds > 0 else 0.0

    @property
    def collision_odds(self) -> float:
        """The chance that two different states had one fingerprint, so that one was not looked at."""
        return self.states * (self.states - 1) / 2 / 2.0**128

    @property
    def clean(self) -> bool:
        return not self.violations

    def to_dict(self) -> dict[str, Any]:
        w = self.world
        return {"policy": _policy_name(w.policy), "cpus": w.cpus, "folios": w.folios, "batch": w.batch,
                "environment": w.environment, "states": self.states,
                "states_per_second": round(self.states_per_second), "exhausted": self.exhausted,
                "transitions": self.transitions, "depth": self.depth, "seconds": round(self.seconds, 3),
                "schedules": self.schedules, "collision_odds": self.collision_odds, "world": w.to_dict() | {
                    "policy": _policy_name(w.policy)},
                "violations": [{"invariant": v.invariant, "folio": v.folio, "cpus": v.cpus, "moves": v.moves,
                                "steps": v.steps()} for v in self.violations]}

    def __str__(self) -> str:
        w = self.world
        what = (f"{_policy_name(w.policy)}: {w.cpus} CPUs, {w.folios} folios, batch {w.batch}, environment "
                f"{w.environment}, at most {w.writes} writes and {w.reads} reads a page"
                + (f", {w.actions} actions" if w.environment != "none" else ""))
        extra = [f"layout {w.layout}" if w.layout != "own" else "",
                 f"device {w.device}" if w.device != "sync" else "",
                 f"mm_cpumask {w.mask}", "without " + ", ".join(w.without) if w.without else "",
                 "planted: " + ", ".join(w.defects) if w.defects else ""]
        what += ", " + ", ".join(e for e in extra if e)
        if self.schedules:
            done = f"{self.schedules:,} random schedules, {self.transitions:,} steps"
        else:
            done = (f"{self.states:,} distinct states, {self.transitions:,} transitions, depth {self.depth}, "
                    f"{self.states_per_second:,.0f} states/s; "
                    + ("exhausted" if self.exhausted else "not exhausted")
                    + f"; odds of a fingerprint collision {self.collision_odds:.0e}")
        if self.clean:
            verdict = "no violation" + (
                "" if self.exhausted else ": that proves nothing beyond what was visited")
        else:
            verdict = str(self.violations[0])
        return f"{what}\n{done}\n{verdict}"

    __repr__ = __str__


def _policy_name(policy: Any) -> str:
    return policy if isinstance(policy, str) else policies.get(policy).name


def explore(policy: Any = "stage5", *, depth: int | None = None, seconds: float | None = None,
            states: int | None = None, schedules: int = 0, seed: int = 0, reduce: bool = True,
            symmetry: bool = True, progress: Callable[[int, float], None] | None = None,
            **world: Any) -> Exploration:
    """Search the interleavings of a tiny world under a policy.

    Parameters
    ----------
    policy : as `reclaim.policies.get` takes it.
    depth, seconds, states : stop there; not exhausted then.
    schedules : int
        Run that many random priority schedules instead of a search.
    reduce : bool
        Make steps that nobody else can notice at once.
    symmetry : bool
        Merge states that differ in the names of frames and slots only.
    progress : callable, optional
        Called now and then with (states or schedules, seconds).
    **world : the fields of `TinyWorld`.

    Returns
    -------
    Exploration

    Raises
    ------
    reclaim.errors.ReclaimError : a bound out of its range, an unknown name.
    """
    tiny = world.pop("tiny", None) or TinyWorld(policy=policy, **world)
    for name, value in (("depth", depth), ("states", states), ("schedules", schedules)):
        if value is not None and value < 0:
            raise ReclaimError(f"{name} must not be negative, got {value}")
    if seconds is not None and not seconds >= 0:
        raise ReclaimError(f"seconds must not be negative, got {seconds}")
    engine = tiny.explorer(reduce=reduce, symmetry=symmetry)
    before = [dict(vars(s)) if hasattr(s, "__dict__") else {} for s in engine.strategies]
    if schedules:
        found = _random(tiny, engine, schedules, seed, seconds, reduce, progress)
    else:
        found = _search(tiny, engine, depth, seconds, states, reduce, progress)
    for strategy, was in zip(engine.strategies, before, strict=True):
        now = {k: v for k, v in getattr(strategy, "__dict__", {}).items() if k != "state"}
        if now != {k: v for k, v in was.items() if k != "state"}:
            raise PolicyError(f"{strategy!r} keeps state in attributes: the explorer goes back and forth "
                              "between states, so declare it with state_dtype (docs/policies.md)")
    return found


def _search(tiny: TinyWorld, engine: Explorer, depth: int | None, seconds: float | None, states: int | None,
            reduce: bool, progress: Callable[[int, float], None] | None) -> Exploration:
    started, used = time.perf_counter(), time.process_time()
    engine.start()
    done = interrupted = False
    limit = depth if depth is not None else 1 << 40
    try:
        while not done:
            done = engine.expand(4096 if states is None else max(1, min(4096, states - engine.states)), limit)
            wall = time.perf_counter() - started
            if progress is not None:
                progress(engine.states, wall)
            if (seconds is not None and wall >= seconds) or (states is not None and engine.states >= states):
                break
    except KeyboardInterrupt:
        interrupted = True
    spent = time.process_time() - used
    violations = []
    if engine.violation is not None:      # again, keeping the way to every state
        paths = tiny.explorer(reduce=reduce)
        paths.start(paths=True)
        while not paths.expand(1 << 16, 1 << 40):
            pass
        violations.append(Counterexample.run(tiny, paths.path() or [], reduce=reduce))
    exhausted = done and not violations and engine.waiting == 0 and not interrupted
    return Exploration(tiny, engine.states, engine.transitions, spent, exhausted, engine.depth, violations,
                       refused=engine.refused, interrupted=interrupted)


def _random(tiny: TinyWorld, engine: Explorer, schedules: int, seed: int, seconds: float | None, reduce: bool,
            progress: Callable[[int, float], None] | None) -> Exploration:
    started, used = time.perf_counter(), time.process_time()
    made, violations, interrupted = 0, [], False
    try:
        while made < schedules and engine.violation is None:
            # three changes of priority in a hundred steps or so
            made += engine.random(min(1 << 12, schedules - made), (seed << 40) + made, 3, 120)
            wall = time.perf_counter() - started
            if progress is not None:
                progress(made, wall)
            if seconds is not None and wall >= seconds:
                break
    except KeyboardInterrupt:
        interrupted = True
    if engine.violation is not None:
        violations.append(Counterexample.run(tiny, engine.taken(), reduce=reduce))
    return Exploration(tiny, 0, engine.transitions, time.process_time() - used, False, 0, violations,
                       schedules=made, interrupted=interrupted)


# --- ablation

@dataclass
class Ablation:
    """What each re-check of a version is good for, within the bound."""

    version: str
    rows: list[tuple[tuple[str, ...], Exploration]]     # the switches that are off

    @property
    def partial(self) -> bool:
        return any(found.interrupted for _, found in self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {"version": self.version,
                "rows": [{"off": list(off),
                          "violation": found.violations[0].invariant if found.violations else None,
                          "steps": found.violations[0].nr_steps if found.violations else None,
                          "states": found.states, "exhausted": found.exhausted, "refused": found.refused,
                          "environment": found.world.environment} for off, found in self.rows]}

    def __str__(self) -> str:
        lines = []
        base: dict[str, int] = {}
        for off, found in self.rows:
            if not off:
                base[found.world.environment] = found.refused
            verdict = "clean"
            if found.violations:
                verdict = f"{found.violations[0].invariant}, {found.violations[0].nr_steps} steps"
            elif not found.exhausted:
                verdict = "clean as far as visited"
            more = found.refused - base.get(found.world.environment, 0)
            saves = f"{more:+,} refusals by pageout()" if off and not found.violations and more else ""
            lines.append(["+".join(off) or "none", found.world.environment, verdict,
                          f"{found.states:,}", saves])
        return "\n".join([f"{self.version}, switches off in turn and in pairs",
                          *table(["off", "environment", "verdict", "states", "work"], lines)])

    __repr__ = __str__


def ablate(version: str = "v4", *, environments: Iterable[str] = ("none",), pairs: bool = True,
           seconds: float | None = None, progress: Callable[[int, float], None] | None = None,
           **world: Any) -> Ablation:
    """Turn each re-check of a version's last patch off, alone and in pairs, and explore."""
    known = {"v1": "v1:2", "v2": "v2:5", "v3": "v3:5", "v4": "v4:5"}
    known_name("version", version, known)
    policy = known[version]
    traits = policies.get(policy).strategies["flush"]._traits()
    switches = [name for name in SWITCHES if name not in RECHECKS or name in traits["rechecks"]]
    offs: list[tuple[str, ...]] = [(), *((s,) for s in switches)]
    if pairs:
        offs += list(itertools.combinations(switches, 2))
    rows = []
    for environment in environments:
        for off in offs:
            found = explore(policy, environment=environment, without=off, seconds=seconds,
                            progress=progress, **world)
            rows.append((off, found))
            if found.interrupted:
                return Ablation(version, rows)
    return Ablation(version, rows)
