"""Search the interleavings of a tiny world for lost writes and stale accesses (docs/safety.md).

`explore` builds the world, lets `_explore.Explorer` search it, and gives an `Exploration`, whose
violations are `Counterexample` objects.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from reclaim import names, policies
from reclaim._explore import ENVIRONMENTS, Explorer
from reclaim.counterexample import INVARIANTS, Counterexample, table
from reclaim.errors import PolicyError, ReclaimError
from reclaim.policies.flush import RECHECKS
from reclaim.tinyworld import NOT_MODELLED, SWITCHES, TinyWorld, known_name


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
    interrupted: bool = False
    broken: tuple[str, ...] = ()      # every invariant that was found broken

    @property
    def states_per_second(self) -> float:
        return self.states / self.seconds if self.seconds > 0 else 0.0

    @property
    def collision_odds(self) -> float:
        """The chance that two different states had one fingerprint, so that one was not looked at."""
        return self.states * (self.states - 1) / 2 / 2.0**128

    @property
    def clean(self) -> bool:
        return not self.broken

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
            verdict = str(self.violations[0]) if self.violations else "broken: " + ", ".join(self.broken)
        return f"{what}\n{done}\n{verdict}"

    __repr__ = __str__


def _policy_name(policy: Any) -> str:
    return policy if isinstance(policy, str) else policies.get(policy).name


def explore(policy: Any = "stage5", *, depth: int | None = None, seconds: float | None = None,
            states: int | None = None, schedules: int = 0, seed: int = 0, reduce: bool = True,
            symmetry: bool = True, whole: bool = False,
            progress: Callable[[int, float], None] | None = None, stop: Any = False,
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
    whole : bool
        Go on where an invariant is broken, in all other ways: `Exploration.broken` names every one that
        can be, without a counterexample.
    progress : callable, optional
        Called now and then with (states or schedules, seconds).
    stop : anything
        A search or random schedules end soon after it is true.
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
    engine = tiny.explorer(reduce=reduce, symmetry=symmetry, whole=whole)
    before = [dict(vars(s)) if hasattr(s, "__dict__") else {} for s in engine.strategies]
    if schedules:
        found = _random(tiny, engine, schedules, seed, seconds, reduce, progress, stop)
    else:
        found = _search(tiny, engine, depth, seconds, states, reduce, progress, stop)
    for strategy, was in zip(engine.strategies, before, strict=True):
        now = {k: v for k, v in getattr(strategy, "__dict__", {}).items() if k != "state"}
        if now != {k: v for k, v in was.items() if k != "state"}:
            raise PolicyError(f"{strategy!r} keeps state in attributes: the explorer goes back and forth "
                              "between states, so declare it with state_dtype (docs/policies.md)")
    return found


def _search(tiny: TinyWorld, engine: Explorer, depth: int | None, seconds: float | None, states: int | None,
            reduce: bool, progress: Callable[[int, float], None] | None, stop: Any) -> Exploration:
    started, used = time.perf_counter(), time.thread_time()
    engine.start()
    done = interrupted = False
    limit = depth if depth is not None else 1 << 40
    try:
        while not done:
            done = engine.expand(4096 if states is None else max(1, min(4096, states - engine.states)), limit)
            wall = time.perf_counter() - started
            if progress is not None:
                progress(engine.states, wall)
            if stop or (seconds is not None and wall >= seconds):
                break
            if states is not None and engine.states >= states:
                break
    except KeyboardInterrupt:
        interrupted = True
    spent = time.thread_time() - used
    violations = []
    if engine.violation is not None:      # again, keeping the way to every state
        paths = tiny.explorer(reduce=reduce)
        paths.start(paths=True)
        while not paths.expand(1 << 16, 1 << 40):
            pass
        violations.append(Counterexample.run(tiny, paths.path() or [], reduce=reduce))
    exhausted = done and engine.violation is None and engine.waiting == 0 and not interrupted
    return Exploration(tiny, engine.states, engine.transitions, spent, exhausted, engine.depth, violations,
                       interrupted=interrupted, broken=_names(engine))


def _names(engine: Explorer) -> tuple[str, ...]:
    return tuple(INVARIANTS[i] for i in engine.broken)


def _random(tiny: TinyWorld, engine: Explorer, schedules: int, seed: int, seconds: float | None, reduce: bool,
            progress: Callable[[int, float], None] | None, stop: Any) -> Exploration:
    started, used = time.perf_counter(), time.thread_time()
    made, violations, interrupted = 0, [], False
    try:
        while made < schedules and engine.violation is None:
            # three changes of priority in a hundred steps or so
            made += engine.random(min(1 << 12, schedules - made), (seed << 40) + made, 3, 120)
            wall = time.perf_counter() - started
            if progress is not None:
                progress(made, wall)
            if stop or (seconds is not None and wall >= seconds):
                break
    except KeyboardInterrupt:
        interrupted = True
    if engine.violation is not None:
        violations.append(Counterexample.run(tiny, engine.taken(), reduce=reduce))
    return Exploration(tiny, 0, engine.transitions, time.thread_time() - used, False, 0, violations,
                       schedules=made, interrupted=interrupted, broken=_names(engine))


# --- pairs of classes

@dataclass
class Pairs:
    """Random schedules of every pair of environment classes."""

    policy: str
    found: list[Exploration]

    @property
    def clean(self) -> bool:
        return all(one.clean for one in self.found)

    @property
    def schedules(self) -> int:
        return sum(one.schedules for one in self.found)

    def to_dict(self) -> dict[str, Any]:
        return {"policy": self.policy, "schedules": self.schedules, "clean": self.clean,
                "pairs": [one.to_dict() for one in self.found]}

    def __str__(self) -> str:
        lines = [[one.world.environment, f"{one.schedules:,}", f"{one.transitions:,}", f"{one.seconds:.0f}",
                  "clean" if one.clean else ", ".join(one.broken)] for one in self.found]
        steps, spent = sum(one.transitions for one in self.found), sum(one.seconds for one in self.found)
        lines.append(["all", f"{self.schedules:,}", f"{steps:,}", f"{spent:.0f}",
                      "clean" if self.clean else "broken"])
        head = (f"{self.policy}: random priority schedules of every pair of environment classes, "
                f"{self.found[0].world.cpus} CPUs, {self.found[0].world.folios} folios")
        first = [str(v) for one in self.found for v in one.violations[:1]][:1]
        return "\n".join([head, *table(["environment", "schedules", "steps", "CPU s", "verdict"], lines),
                          *first])

    __repr__ = __str__


def explore_pairs(policy: Any = "stage5", *, schedules: int = 10_000_000, seed: int = 0, jobs: int | None = 1,
                  seconds: float | None = None, **world: Any) -> Pairs:
    """Run random schedules of every pair of environment classes that is modelled, so many in all (at least).

    Parameters
    ----------
    jobs : int, optional
        Pairs at once; None: as many as there are CPUs.
    seconds : float, optional
        Stop each pair then.
    **world : the fields of `TinyWorld`; 2 actions unless said.
    """
    from reclaim.jobs import Stop, check_jobs, run_jobs
    pairs = ["+".join(pair) for pair in itertools.combinations(ENVIRONMENTS, 2)
             if "fork" not in pair or not {*pair} & {*NOT_MODELLED}]
    each = -(-schedules // len(pairs))

    def one(name: str) -> Callable[[Stop], Exploration]:
        return lambda stop: explore(policy, environment=name, schedules=each, seed=seed, seconds=seconds,
                                    stop=stop, **{"actions": 2, **world})

    done = dict(run_jobs([one(name) for name in pairs], check_jobs(jobs)))
    return Pairs(_policy_name(policy), [done[i] for i in range(len(pairs))])


# --- ablation

# What a timed run counts of a batch: its folios, those that the re-check sends back, those that pageout()
# refuses then, and those that it writes.
WORK = {"batched": ("folios_batched",),
        "sent back": ("putback_locked", "putback_writeback", "putback_lru", "putback_mapped",
                      "putback_pinned"),
        "refused": ("putback_refcount",), "written": ("nr_vmscan_write",), "scanned": ("pgscan_anon",)}
# Where folios are faulted in while they wait in a batch: 8 threads that write pages drawn of all of 12M.
CONTENDED = {"machine.cpus": 8, "workload.workers": 8, "workload.mode": "thread", "workload.pattern": "rand",
             "workload.bytes": 12 << 20}


def _work(policy: str, off: tuple[str, ...]) -> dict[str, int] | None:
    """What a run of `small`, CONTENDED, counts with these re-checks off; None if they cannot be there."""
    from reclaim.scenario import Scenario
    from reclaim.simulation import Simulation
    if not {*off} <= {*RECHECKS}:
        return None
    made = Simulation(Scenario.load("small").replace(CONTENDED),
                      TinyWorld(policy=policy, batch=31, without=off).strategies())
    made.run()
    counts = dict(zip(names.COUNTERS, made.view("counter").tolist(), strict=True))
    return {what: sum(counts[name] for name in some) for what, some in WORK.items()}


@dataclass
class Ablation:
    """What each re-check of a version is good for, within the bound."""

    version: str
    rows: list[tuple[tuple[str, ...], Exploration]]     # the switches that are off
    work: dict[tuple[str, ...], dict[str, int]] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        return any(found.interrupted for _, found in self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {"version": self.version,
                "rows": [{"off": list(off),
                          "violation": found.violations[0].invariant if found.violations else None,
                          "steps": found.violations[0].nr_steps if found.violations else None,
                          "states": found.states, "exhausted": found.exhausted,
                          "environment": found.world.environment, "work": self.work.get(off)}
                         for off, found in self.rows]}

    def _saved(self, off: tuple[str, ...]) -> str:
        """What the run of WORK counts more, or less, without these."""
        here = self.work.get(off)
        if here is None or not off:
            return ""
        return ", ".join(f"{what} {n - self.work[()][what]:+,}" for what, n in here.items()
                         if n != self.work[()][what]) or "the same"

    def __str__(self) -> str:
        lines = []
        for off, found in self.rows:
            verdict = "clean"
            if found.violations:
                verdict = f"{found.violations[0].invariant}, {found.violations[0].nr_steps} steps"
            elif not found.exhausted:
                verdict = "clean as far as visited"
            lines.append(["+".join(off) or "none", found.world.environment, verdict,
                          f"{found.states:,}", self._saved(off)])
        base = ", ".join(f"{n:,} {what}" for what, n in self.work.get((), {}).items())
        return "\n".join([f"{self.version}, switches off in turn and in pairs",
                          f"work: more or less of what a timed run whose folios return counts: {base}",
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
    rows: list[tuple[tuple[str, ...], Exploration]] = []
    work = {off: counts for off in offs if (counts := _work(policy, off)) is not None}
    for environment in environments:
        for off in offs:
            found = explore(policy, environment=environment, without=off, seconds=seconds,
                            progress=progress, **world)
            rows.append((off, found))
            if found.interrupted:
                return Ablation(version, rows, work)
    return Ablation(version, rows, work)
