"""`Simulation`: a scenario, a policy and a seed, running in the core."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reclaim import __version__, _core, names, policies
from reclaim._policy import Strategy
from reclaim.audit import audit, verify
from reclaim.digest import columns, digest_of
from reclaim.errors import SafetyError, ScenarioError, SnapshotError, UnknownNameError, did_you_mean
from reclaim.machine import is_path
from reclaim.result import Result
from reclaim.scenario import Scenario
from reclaim.world import World

if TYPE_CHECKING:
    from reclaim.exports import Exports

PS_PER_S = 10**12
_Policy = str | policies.Policy | Mapping[str, Any] | Strategy | type[Strategy]
_HISTOGRAMS = tuple(f"hist_{row[0]}" for row in names.HISTOGRAMS)
_METERS = ("counter", "time", "flushes", *_HISTOGRAMS)
MAX_INTERVALS = 100_000
_Base = tuple[NDArray[np.int64], ...]       # of each of them
_CHUNK = 1 << 20          # actions between two looks at signals and progress: about 30 ms


class Snapshot:
    """The state of a simulation at one moment; give it to `Simulation.restore`.

    Made in this process it is trusted; pickled and read back it is audited before use.
    """

    def __init__(self, data: bytes, layout: str, trusted: bool, base: _Base | None = None,
                 measured_from: int = 0, ghosts: tuple[bytes, ...] | None = None) -> None:
        self._data, self._layout, self._trusted = data, layout, trusted
        self._base, self._measured_from = base, measured_from
        self._ghosts = ghosts           # of a checked run; not pickled: nothing audits them

    def __reduce__(self) -> tuple[Any, ...]:
        return (Snapshot, (self._data, self._layout, False, self._base, self._measured_from))

    def __repr__(self) -> str:
        return f"<Snapshot of {len(self._data)} bytes, layout {self._layout[:8]}>"


class Simulation:
    """One simulated machine running one workload under one policy.

    Parameters
    ----------
    scenario : Scenario or World
        What to simulate.  A `World` is the low-level input that scenarios are lowered to.
    policy : str, Policy, strategy or mapping
        As `reclaim.policies.get` takes it.
    seed : int, optional
        0 to 2**64 - 1; the scenario's if not given.
    check : bool
        Watch every step for lost writes, stale accesses and folios that are lost; `run` raises
        `SafetyError` at the first (docs/safety.md).  The digest is the same.
    record : bool
        Record what costs something for each page or target of a flush, too (docs/results.md).  The digest
        is the same.

    Notes
    -----
    Not to be shared between threads; one object per thread runs in parallel (the GIL is
    released).  Same scenario, policy and seed: same digest, on every machine.
    """

    def __init__(self, scenario: Scenario | World, policy: _Policy = "stage0", *,
                 seed: int | None = None, check: bool = False, record: bool = False) -> None:
        self.scenario = scenario
        self.policy = policies.get(policy)
        if isinstance(scenario, World):
            self.world = scenario
            self.seed = scenario.seed
        else:
            self.seed = scenario.seed if seed is None else seed
            self.world = scenario.lower(seed=self.seed)
        self._core = _core.Core(self.world, self.policy.bind(), record=bool(record))
        self.record = bool(record)
        self._samples: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]] = []
        if check and record:
            raise ValueError("check and record: a simulation does one of them; run it twice, to the same digest")
        if check:
            self._core.watch()
        self._wall = 0.0
        self._runner: Callable[..., str] = self._core.run
        self._stop = False
        self._stopped = ""
        self._base: _Base | None = None     # the meters at the end of the warm-up
        self._measured_from = 0     # its time [ps]
        self._ran: dict[str, Any] = {}      # where the last `run` was to end

    # --- running

    def run(self, seconds: float | None = None, *, touches: int | None = None,
            progress: Callable[[float, float], None] | None = None, fuse: bool = True,
            exports: Exports | None = None, interval: float | None = None) -> Result:
        """Run until simulated time `seconds`, counted from the start, and give the result.

        Parameters
        ----------
        seconds : float, optional
            The scenario's if not given.  [s]
        touches : int, optional
            Stop after that many page touches in all; the scenario's if not given, 0 for none.
        progress : callable, optional
            Called now and then with (fraction done, simulated seconds).
        fuse : bool
            False makes one action at a time; the digest is the same.
        exports : reclaim.exports.Exports, optional
            What is to be written meanwhile (docs/timeline.md); the digest is the same.
        interval : float, optional
            Simulated time between two samples of the result's `series`.  [s]

        Returns
        -------
        reclaim.result.Result : marked partial after Ctrl-C or `stop`.
        """
        end = self._end(seconds)
        limit = self._scenario_value("touches", 0) if touches is None else touches
        warmup = round(self._scenario_value("warmup", 0.0) * PS_PER_S)
        self._stop = False
        self._ran = {"seconds": end / PS_PER_S, "touches": limit}
        self._samples = []
        every = _interval(interval, end)
        partial = False
        self._runner = self._core.run
        if exports:
            exports.attach(self, end)
            self._runner = exports.run
        started = time.perf_counter()
        try:
            if 0 < warmup < end and self._base is None:
                self._advance(warmup, limit, progress, end, fuse)
                if self._stopped == "end":      # else nothing is left to measure
                    self._base = self._meters()
                    self._measured_from = warmup
            for at in self._sampling(every, end):
                self._advance(at, limit, progress, end, fuse)
                if self._stopped != "end":
                    break
        except KeyboardInterrupt:
            partial = True
        finally:
            self._wall += time.perf_counter() - started
        result = self.result(end=end, partial=partial or self._stop)
        if exports:
            exports.finish(result)
        return result

    def _sampling(self, every: int, end: int) -> Iterator[int]:
        """Where to stop on the way to `end`; what was counted up to there is kept."""
        at = max(self.now_ps, self._measured_from)
        while every and at < end:
            self._sample(at)
            at = min(at // every * every + every, end)
            if at < end:
                yield at
        yield end

    def _sample(self, at: int) -> None:
        counters, times = self.view("counter").copy(), self._waited(self.view("time"), at)
        self._samples.append((at, counters, times.sum(axis=0)))

    def _advance(self, end: int, limit: int, progress: Callable[[float, float], None] | None,
                 whole: int, fuse: bool) -> None:
        while not self._stop:
            self._stopped = self._runner(end, actions=1 if _core.DEBUG else _CHUNK,
                                         touches=limit, fuse=fuse)
            if self._stopped == "violation":
                raise self._violation()
            if _core.DEBUG:
                self.verify()
            if progress is not None:
                now = min(self.now_ps, whole)
                done = now / whole if whole else 1.0
                if limit:
                    done = max(done, int(self.view("counter")[_TOUCHES]) / limit)
                progress(min(done, 1.0), now / PS_PER_S)
            if self._stopped != "budget":
                return

    def _violation(self) -> SafetyError:
        """What a checked run stopped at."""
        from reclaim.counterexample import INVARIANTS
        assert self._core.violation is not None
        which, folio, cpu = self._core.violation
        rows = self._core.tracked_steps()
        steps = [(int(r["now"]), int(r["cpu"]), names.STEPS[r["step"]], int(r["folio"])) for r in rows]
        about = [s for s in steps if folio >= 0 and s[3] == folio] or steps
        cpus = sorted({s[1] for s in about} | {cpu})
        last = ", ".join(f"CPU {c} {name}" for _, c, name, _ in [*about[-6:], steps[-1]])
        return SafetyError(
            f"{INVARIANTS[which]}" + (f": folio {folio}" if folio >= 0 else "")
            + f", CPUs {', '.join(map(str, cpus))}, at {steps[-1][0]} ps; led there: {last}",
            INVARIANTS[which], folio, cpus, steps)

    def step(self) -> tuple[int, int, str, int, int] | None:
        """Make one action; a row (now [ps], cpu, step name, folio, cost [ps]), or None at the end."""
        rows, _ = self._core.run_log((1 << 53) - 1, actions=1)
        if not len(rows):
            return None
        row = rows[0]
        return (int(row["now"]), int(row["cpu"]), names.STEPS[row["step"]], int(row["folio"]),
                int(row["cost"]))

    def log(self, seconds: float | None = None, *, actions: int = 1 << 16) -> NDArray[Any]:
        """Run as `run`, but return the actions made, a structured array (`_core.LOG_DTYPE`)."""
        rows, self._stopped = self._core.run_log(
            self._end(seconds), actions=actions, touches=self._scenario_value("touches", 0))
        return rows

    def stop(self) -> None:
        """Make `run` return soon, with what it has; from `progress` or another thread."""
        self._stop = True

    def _scenario_value(self, key: str, default: Any) -> Any:
        return getattr(self.scenario, key, default)

    def _end(self, seconds: float | None) -> int:
        if seconds is None:
            seconds = self._scenario_value("seconds", None)
            if seconds is None:
                raise ValueError("seconds must be given for a World")
        if not 0 <= seconds <= 9000:
            raise ValueError(f"seconds must be 0 to 9000, got {seconds}")
        return round(seconds * PS_PER_S)

    # --- looking

    @property
    def now_ps(self) -> int:
        """Simulated time of the next action [ps]; the latest clock when nothing is left to do."""
        now = self._core.now
        return int(self.view("cpu")["clock"].max()) if now is None else now

    @property
    def tables(self) -> list[str]:
        """Names for `view`."""
        return list(self._core.tables)

    def view(self, table: str) -> NDArray[Any]:
        """A table of the arena as a live, read-only, zero-copy array."""
        if table not in self._core.tables:
            raise UnknownNameError(f"no table {table!r}{did_you_mean(table, self._core.tables)}")
        return self._core.view(table)

    def verify(self) -> None:
        """Audit every index, list, lock and count.

        Raises
        ------
        reclaim.errors.SnapshotError : what is wrong and where.
        """
        verify(self)

    def columns(self) -> list[tuple[str, NDArray[np.int64]]]:
        """What the digest is made of, in its order (docs/model.md 7)."""
        return columns(self)

    def digest(self) -> str:
        """BLAKE2b over `columns`, 64 hexadecimal digits."""
        return digest_of(self.columns())

    def _meters(self) -> _Base:
        return tuple(self.view(name).copy() for name in _METERS)

    def result(self, *, end: int | None = None, partial: bool = False) -> Result:
        """What was counted since the end of the warm-up, up to now.

        A CPU that waits when the run ends has waited until then: its `times` say so.
        """
        end = self.now_ps if end is None else end
        stopped_at = end if self._stopped == "end" and not partial else min(self.now_ps, end)
        series = self._series(stopped_at)
        meters = self._meters()
        if self._base is not None:
            meters = tuple(now - then for now, then in zip(meters, self._base, strict=True))
        counters, times, flushes, *histograms = meters
        times = self._waited(times, stopped_at)
        return Result(
            scenario=self.scenario, policy=self.policy.name, seed=self.seed,
            counters=dict(zip(names.COUNTERS, counters.tolist(), strict=True)),
            times={name: times[:, i] / 1000 for i, name in enumerate(names.TIMES)},
            histograms={row[0]: counts for row, counts in zip(names.HISTOGRAMS, histograms, strict=True)
                        if self.record or row[4] != "detail"},
            flushes=_by_meter(flushes, self.record), series=series,
            seconds=(stopped_at - self._measured_from) / PS_PER_S, partial=partial,
            provenance=self.provenance(), digest=self.digest(), wall_s=self._wall)

    def _waited(self, times: NDArray[np.int64], at: int) -> NDArray[np.int64]:
        """Rows of times, a CPU each, and what CPUs that wait have waited since, up to `at`."""
        times = times.reshape(-1, len(names.TIMES)).copy()
        for c, cpu in enumerate(self.view("cpu")):
            wait = _WAITS.get(names.CPU_MODES[cpu["mode"]])
            if wait is not None and not cpu["in_irq"] and cpu["clock"] < at:
                times[c, wait] += at - int(cpu["clock"])
        return times

    def _series(self, stopped_at: int) -> dict[str, NDArray[Any]]:
        """What each interval added, the last one up to `stopped_at`."""
        if not self._samples:
            return {}
        if self._samples[-1][0] < stopped_at:
            self._sample(stopped_at)
        at = np.array([sample[0] for sample in self._samples], dtype=np.int64)
        counters = np.diff([sample[1] for sample in self._samples], axis=0).reshape(-1, len(names.COUNTERS))
        times = np.diff([sample[2] for sample in self._samples], axis=0).reshape(-1, len(names.TIMES))
        return ({"from_s": at[:-1] / PS_PER_S, "to_s": at[1:] / PS_PER_S}
                | {name: counters[:, i].copy() for i, name in enumerate(names.COUNTERS)}
                | {name: times[:, i] / 1000 for i, name in enumerate(names.TIMES)})

    def provenance(self) -> dict[str, Any]:
        """What is needed to make this result again, and where it was made."""
        scenario = self.scenario.to_dict() if isinstance(self.scenario, Scenario) else "World"
        made = {"reclaim": __version__, "model": _core.MODEL_VERSION, "scenario": scenario,
                "policy": {"name": self.policy.name, "slots": self.policy.describe()},
                "seed": self.seed, "run": self._ran, "record": self.record,
                "python": platform.python_version(),
                "numpy": np.__version__, "platform": platform.platform()}
        if isinstance(self.scenario, Scenario) and is_path(self.scenario.machine.profile):
            made["costs_ps"] = list(self.world.costs)       # the file may change
        return made

    # --- snapshots

    def snapshot(self) -> Snapshot:
        """A copy of the whole state."""
        return Snapshot(self._core.snapshot(), self._core.layout, True, self._base,
                        self._measured_from, self._core.ghost_rows())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this or an equal simulation.

        Raises
        ------
        reclaim.errors.SnapshotError : of another world, layout or version, or it does not pass
            the audit; the simulation is then as before.
        """
        if not isinstance(snapshot, Snapshot):
            raise SnapshotError(f"expected a Snapshot, got {type(snapshot).__name__}")
        if self._core.checked and snapshot._ghosts is None:
            raise SnapshotError("a checked simulation goes back only to a snapshot of a checked one, made in this "
                                "process: others do not hold what is checked; restore into one without check=True")
        if snapshot._layout != self._core.layout:
            raise SnapshotError("the snapshot is of another world, policy layout or version of "
                                "reclaim; make it again with this one")
        if not isinstance(snapshot._data, bytes):
            raise SnapshotError("the snapshot does not hold bytes")
        if not snapshot._trusted:
            audit(self, snapshot._data)
        base = _checked_base(snapshot._base, self._meters())
        self._core.restore(snapshot._data)
        if self._core.checked:
            self._core.haunt(snapshot._ghosts)
        self._base, self._measured_from = base, int(snapshot._measured_from)
        self._stopped = ""

    def __getstate__(self) -> dict[str, Any]:
        return {"scenario": self.scenario, "policy": self.policy, "seed": self.seed, "record": self.record,
                "snapshot": self.snapshot(), "wall": self._wall, "stopped": self._stopped}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        try:
            scenario, policy, seed = state["scenario"], state["policy"], state["seed"]
            snapshot, wall, stopped = state["snapshot"], float(state["wall"]), str(state["stopped"])
        except (TypeError, KeyError, ValueError) as err:
            raise SnapshotError(f"not a pickled Simulation: {err}") from None
        Simulation.__init__(self, scenario, policy, seed=seed, record=bool(state.get("record", False)))
        self.restore(snapshot)
        self._wall, self._stopped = wall, stopped

    def __repr__(self) -> str:
        name = getattr(self.scenario, "name", "a world")
        return (f"<Simulation of {name!r} under {self.policy.name!r}, seed {self.seed}, "
                f"at {self.now_ps / PS_PER_S:.6f} s>")


def _checked_base(base: Any, like: _Base) -> _Base | None:
    """The meters that a snapshot brings from the end of its warm-up, if they can be that."""
    if base is None:
        return None
    if not (isinstance(base, tuple) and len(base) == len(like) and all(
            isinstance(x, np.ndarray) and x.dtype == y.dtype and x.shape == y.shape
            for x, y in zip(base, like, strict=True))):
        raise SnapshotError("the snapshot's meters of the warm-up are not those of this world")
    return base


def _by_meter(flushes: NDArray[np.int64], record: bool) -> dict[str, NDArray[Any]]:
    """Meter -> one number a cause."""
    rows = flushes.reshape(len(names.CAUSES), len(names.FLUSH_METERS))
    return {name: rows[:, i] / 1000 if unit == "ns" else rows[:, i].copy()
            for i, (name, unit, when) in enumerate(names.FLUSH_METERS) if record or when != "detail"}


def _interval(seconds: float | None, end: int) -> int:
    """The interval of a series [ps]; 0: none."""
    if seconds is None:
        return 0
    every = round(seconds * PS_PER_S) if 0 < seconds <= 9000 else 0
    if every < 1000:
        raise ScenarioError(f"interval = {seconds}: must be 1e-9 to 9000 s of simulated time")
    if end // every > MAX_INTERVALS:
        raise ScenarioError(f"interval = {seconds:g}: {end // every:,} intervals to the end, at most "
                            f"{MAX_INTERVALS:,} are kept; take a longer one")
    return every


_WAITS = {"SPIN_ACK": names.TIMES.index("flush_wait"),
          "SPIN_LOCK": names.TIMES.index("lock_wait"), "IDLE": names.TIMES.index("idle")}
_TOUCHES = names.COUNTERS.index("page_touches")
