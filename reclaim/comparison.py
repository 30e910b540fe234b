"""Before and after: two policies over the same scenario and seeds, beside what was published or measured."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reclaim.errors import ResultError, ScenarioError
from reclaim.histograms import METRICS, percentile
from reclaim.result import Result, html_table, ratio, show_number
from reclaim.scenario import Scenario

if TYPE_CHECKING:
    from reclaim.exports import Exports
    from reclaim.measured import Observation
    from reclaim.tables import Table

Progress = Callable[[float, float], None]   # (share done, 0 to 1; simulated seconds)

# The rows of the series' own table.
COUNTS = ("bogo_ops_per_s", "tlb_shootdowns", "function_call_ipis", "pgscan_anon", "pgsteal_anon")

# Counts per reclaimed page and other ratios, which do not depend on throughput:
# row -> (counter above the line, counter below it).
RATIOS = {
    "tlb_shootdowns_per_page": ("tlb_shootdowns", "pgsteal_anon"),
    "function_call_ipis_per_page": ("function_call_ipis", "pgsteal_anon"),
    "steal_per_scan": ("pgsteal_anon", "pgscan_anon"),
    "ipis_per_shootdown": ("function_call_ipis", "tlb_shootdowns"),
}
# Beside an observation: these, for each reclaimed page, so far as they were read.
PER_PAGE = (
    "tlb_shootdowns", "function_call_ipis", "nr_tlb_remote_flush", "nr_tlb_local_flush_all",
    "nr_tlb_local_flush_one", "pgscan_anon", "pswpin", "pswpout", "swpin_zero", "swpout_zero", "pgfault",
    "pgmajfault", "pgactivate", "pgdeactivate", "pgrefill", "pgrotated", "pgreuse", "workingset_refault_anon",
    "workingset_activate_anon", "workingset_restore_anon", "swap_ra", "swap_ra_hit", "shrink_folio_list_calls", "flush_batches",
    "folios_batched", "memcg_max")
_OF = RATIOS | {f"{name}_per_page": (name, "pgsteal_anon") for name in PER_PAGE}
SPEED = "simulated_s_per_wall_s"

# Which way is better: 1 more, -1 less.  Totals of scans and steals follow the throughput, and fewer
# IPIs for a shootdown may come from more shootdowns: these have no better way.
DIRECTION = {"bogo_ops_per_s": 1, "tlb_shootdowns": -1, "function_call_ipis": -1,
             "tlb_shootdowns_per_page": -1, "function_call_ipis_per_page": -1, "steal_per_scan": 1,
             **dict.fromkeys(METRICS, -1)}
TOLERANCE = 0.25     # a ratio further than this from the published one is named a miss
POINTS = 10          # and so is a change of a total [percentage points]
MAX_SEEDS = 10_000
SIGNIFICANT = 0.05   # a p below this counts as a difference
MIN_SEEDS = 6        # fewer than this are warned of


def simulate(scenario: Scenario | str, policy: Any = "stage0", *, seed: int | None = None,
             seconds: float | None = None, progress: Progress | None = None,
             exports: Exports | None = None, record: bool = False, interval: float | None = None) -> Result:
    """Run `policy` over `scenario` to its end.

    Parameters
    ----------
    scenario : a `Scenario`, a packaged name or the path of a TOML file.
    policy : name or instance.
    seed : instead of the scenario's.
    seconds : instead of the scenario's [s].
    progress : called with the share done and the simulated seconds.
    exports : what is to be written meanwhile (docs/timeline.md).
    record : record what costs something for each page or target of a flush, too.
    interval : simulated time between two samples of the result's `series` [s].

    Raises
    ------
    ReclaimError : bad input.
    """
    from reclaim.simulation import Simulation
    scenario = _scenario(scenario, seconds)
    if seed is not None:
        seed = scenario.replace(seed=seed, where="seed").seed   # refuses a bad one
    simulation = Simulation(scenario, policy, seed=seed, record=record)
    result: Result = simulation.run(progress=progress, exports=exports, interval=interval)
    return result


@dataclass(frozen=True)
class Side:
    """One policy's runs.

    policy : its name.
    counters : the median of each counter over the runs; the digest of several runs is the
        BLAKE2b of theirs.
    runs : one per seed.
    """

    policy: str
    counters: dict[str, Any]
    runs: tuple[Result, ...]

    def to_dict(self) -> dict[str, Any]:
        """As ``compare --json`` holds it."""
        return {"policy": self.policy, "counters": self.counters,
                "runs": [run.to_dict() for run in self.runs]}


@dataclass(frozen=True)
class Row:
    """One metric; None where it has no value.

    before_runs, after_runs : its value in each run, where all have one.
    interval_pct : 95% bootstrap interval of the change [%]; with several runs.
    p : of the exact U-test; with several runs.
    """

    metric: str
    before: float | None
    after: float | None
    published_before: float | None = None
    published_after: float | None = None
    before_runs: tuple[float, ...] = ()
    after_runs: tuple[float, ...] = ()
    interval_pct: tuple[float, float] | None = None
    p: float | None = None
    measured: Mapping[str, float] | None = None     # policy of the real kernel -> value

    @property
    def delta_pct(self) -> float | None:
        """The change from before to after [%]."""
        return _delta(self.before, self.after)

    @property
    def published_delta_pct(self) -> float | None:
        """The published change [%]."""
        return _delta(self.published_before, self.published_after)

    @property
    def direction(self) -> int:
        """1: more is better, -1: less is, 0: neither by itself."""
        return DIRECTION.get(self.metric, 0)

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``differs`` (no better way), ``~`` (not significant), or "" with one run."""
        if self.p is None:
            return ""
        if self.p >= SIGNIFICANT or self.before is None or self.after is None:
            return "~"
        better = (self.after - self.before) * self.direction
        return "better" if better > 0 else "worse" if better < 0 else "differs"

    def to_dict(self) -> dict[str, Any]:
        """As ``compare --json`` holds it."""
        data: dict[str, Any] = {"metric": self.metric, "before": self.before, "after": self.after,
                "delta_pct": self.delta_pct, "published_before": self.published_before,
                "published_after": self.published_after}
        if self.measured is not None:
            data["measured"] = dict(self.measured)
        if self.p is None:
            return data
        return data | {"interval_pct": self.interval_pct and list(self.interval_pct), "p": self.p,
                       "verdict": self.verdict}


@dataclass(frozen=True, eq=False)
class Comparison:
    """The table of two policies.  All numbers but the published and the measured ones are simulated.

    scenario : what ran.
    before, after : the two sides.
    rows : the table.
    partial : interrupted; the sides hold the runs that were made.
    observation : the runs of a real machine beside them.
    """

    scenario: Scenario
    before: Side
    after: Side
    rows: tuple[Row, ...]
    partial: bool = False
    observation: Observation | None = None

    def to_dict(self) -> dict[str, Any]:
        """As ``compare --json`` prints it."""
        data = {"scenario": self.scenario.name, "seconds": self.scenario.seconds,
                "before": self.before.to_dict(), "after": self.after.to_dict(),
                "rows": [row.to_dict() for row in self.rows]}
        if self.observation is not None:
            data["observed"] = {"case": self.observation.case, "source": self.observation.source}
        return data | {"partial": True} if self.partial else data

    def notes(self) -> list[str]:
        """Sentences below the table: what does not match what was published, and the speed."""
        notes = [miss for row in self.rows if row.metric in RATIOS for miss in _miss(row)]
        notes += _missed_changes([row for row in self.rows if row.metric not in RATIOS])
        published_s = self.scenario.published.get("seconds")
        if published_s and published_s != self.scenario.seconds:
            notes.append(f"The published counts are of {published_s:g} s, these of "
                         f"{self.scenario.seconds:g} s: compare the rates and ratios only.")
        if self.observation is not None:
            notes += _observed(self.observation, self.scenario)
        lengths = {run.seconds for side in (self.before, self.after) for run in side.runs}
        if len(lengths) > 1:
            notes.append(f"The runs are of {min(lengths):g} to {max(lengths):g} s: compare the rates and ratios "
                         "only.")
        notes += self._statistics()
        runs = self.before.runs + self.after.runs
        simulated, wall = sum(run.seconds for run in runs), sum(run.wall_s for run in runs)
        touches = sum(run.counters.get("page_touches", 0) for run in runs)
        if wall:
            notes.append(f"Simulated {simulated:.4g} s of {self.scenario.machine.cpus} CPUs and "
                         f"{touches:,} page touches in {wall:.3g} s of one core.")
        return notes

    def _statistics(self) -> list[str]:
        """How the intervals and p were made, and whether there are runs enough for them."""
        nr = min(len(self.before.runs), len(self.after.runs))
        if nr < 2:
            return []
        if any(run.partial for side in (self.before, self.after) for run in side.runs):
            return ["Interrupted within a run: nothing is tested over the seeds."]
        if all(row.p is None for row in self.rows):
            return [f"All {nr} seeds gave the same numbers: nothing here was drawn at random, so there is "
                    "nothing to test, and one seed says as much."]
        how = ("pairs of runs with the same seed" if _paired(self.before, self.after)
               else "each side's runs by itself, since their seeds are not the same")
        notes = [f"95% interval: bootstrap of the change of medians over {how}. p: exact two-sided "
                 f"U-test, which pairs nothing; ~ is p >= {SIGNIFICANT:g}."]
        if nr < MIN_SEEDS:
            notes.append(f"Warning: {nr} seeds are too few to rely on: their intervals are too narrow"
                         + (", and no p can be below 0.05" if nr < 4 else "")
                         + f"; take {MIN_SEEDS} or more.")
        return notes

    def to_text(self, style: str = "table") -> str:
        """The table in a style of `reclaim.styles`: ``lkml``, ``mmtests``, ``lkp``, ``markdown``, ...

        Raises
        ------
        ReclaimError : no style of that name.
        """
        from reclaim.styles import render
        return render(self, style)

    def tables(self) -> dict[str, Table]:
        """The rows, and the counters of every run, as `reclaim.tables.Table`."""
        from reclaim.tables import comparison_tables
        return comparison_tables(self)

    @classmethod
    def of(cls, before: Result | Iterable[Result], after: Result | Iterable[Result]) -> Comparison:
        """The comparison of runs that were made before, as of saved results.

        Raises
        ------
        ResultError : a side is empty, or was not made from a `Scenario`.
        """
        sides = [_made_before(side) for side in (before, after)]
        scenario = sides[0].runs[0].scenario
        assert isinstance(scenario, Scenario)
        return cls(scenario, sides[0], sides[1], _rows(scenario, *sides),
                   any(run.partial for side in sides for run in side.runs))

    def title(self) -> str:
        """What ran, how long and how often."""
        nr = max(len(self.before.runs), len(self.after.runs))
        return (f"{self.scenario.name}: {self.scenario.seconds:g} s, simulated, "
                + (f"medians of {nr} seeds" if nr > 1 else "one run each")
                + (", PARTIAL: interrupted" if self.partial else ""))

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The heading and the lines, as text: what was simulated, then what was published or measured."""
        columns: list[tuple[str, Callable[[Row], str]]] = [
            ("simulated", lambda row: row.metric),
            (self.before.policy, lambda row: show_number(row.before)),
            (self.after.policy, lambda row: show_number(row.after)),
            ("change", lambda row: _percent(row.delta_pct))]
        if any(row.p is not None for row in self.rows):
            columns += [("95% interval", lambda row: show_interval(row.interval_pct)),
                        ("p", lambda row: show_p(row.p)), ("", lambda row: row.verdict)]
        if any(row.published_before is not None or row.published_after is not None for row in self.rows):
            columns += [("published before", lambda row: show_number(row.published_before)),
                        ("after", lambda row: show_number(row.published_after)),
                        ("change", lambda row: _percent(row.published_delta_pct))]
        for policy in self.observation.repeats if self.observation is not None else ():
            columns.append((f"measured {policy}", _measured_cell(policy)))
        return [head for head, _ in columns], [[cell(row) for _, cell in columns] for row in self.rows]

    def __repr__(self) -> str:
        head, table = self.cells()
        widths = [max(len(line[i]) for line in [head, *table]) for i in range(len(head))]
        lines = [self.title(), ""]
        for line in [head, *table]:
            first, *rest = (cell.ljust(width) if i == 0 else cell.rjust(width)
                            for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
            lines.append("  ".join([first, *rest]).rstrip())
        return "\n".join([*lines, "", *self.notes()])

    def _repr_html_(self) -> str:
        head, table = self.cells()
        return html_table(" ".join([self.title() + ".", *self.notes()]), head, table)


def compare(scenario: Scenario | str, before: Any = "stage0", after: Any = "stage5", *,
            seeds: int | Iterable[int] = 1, seconds: float | None = None,
            progress: Progress | None = None, threads: int | None = None,
            observation: Observation | None = None,
            exports: tuple[Exports, Exports] | None = None, record: bool = False,
            interval: float | None = None) -> Comparison:
    """Run two policies over `scenario` with the same seeds, and set them side by side.

    Parameters
    ----------
    scenario : a `Scenario`, a packaged name or the path of a TOML file.
    before, after : policies, by name or instance.
    seeds : how many, counted up from the scenario's, or the seeds themselves.
    seconds : instead of the scenario's [s].
    progress : called with the share of all runs done and the simulated seconds of this one.
    threads : 2 runs both sides of a seed at once (the core releases the GIL; the results are the
        same), 1 one after the other; None: 2 where there are two CPUs.
    observation : runs of a real machine: counts per reclaimed page stand beside theirs.
    exports : what is to be written of the first seed's runs, before and after (docs/timeline.md).
    record, interval : as `simulate` takes them; with `record` the table has latencies of faults and of
        flushes, too.

    Returns
    -------
    Comparison : partial, with the runs made so far, after a KeyboardInterrupt.

    Raises
    ------
    ReclaimError : bad input.
    """
    scenario = _scenario(scenario, seconds)
    chosen = _seeds(scenario, seeds)
    if threads is None:
        threads = default_threads()
    if threads not in (1, 2):
        raise ValueError(f"threads must be 1 or 2, got {threads}")
    run_pair = _both_at_once if threads == 2 else _one_by_one
    policies, partial = (before, after), False
    runs: tuple[list[Result], list[Result]] = ([], [])
    try:
        for done, seed in enumerate(chosen):
            report = None if progress is None else _part(progress, done, len(chosen))
            files = exports if exports is not None and done == 0 else (None, None)
            for side, result in run_pair(scenario, policies, seed, report, files, record, interval):
                runs[side].append(result)
                partial = partial or result.partial
            if partial:
                break
    except KeyboardInterrupt:   # between two runs: Simulation.run catches its own
        if not any(runs):
            raise
        partial = True
    sides = [_side(policy, tuple(results)) for policy, results in zip(policies, runs, strict=True)]
    rows = _rows(scenario, *sides) if observation is None else _measured_rows(observation, *sides)
    return Comparison(scenario, sides[0], sides[1], rows, partial, observation)


def default_threads() -> int:
    """2 where this process may use two CPUs, else 1."""
    return min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


def _one_by_one(scenario: Scenario, policies: tuple[Any, Any], seed: int, progress: Progress | None,
                exports: tuple[Exports | None, Exports | None], record: bool,
                interval: float | None) -> Iterator[tuple[int, Result]]:
    """Each side's result as it is made; nothing after a partial one."""
    from reclaim.simulation import Simulation
    for side in (0, 1):
        report = None if progress is None else _part(progress, side, 2)
        result = Simulation(scenario, policies[side], seed=seed, record=record).run(
            progress=report, exports=exports[side], interval=interval)
        yield side, result
        if result.partial:
            return


def _both_at_once(scenario: Scenario, policies: tuple[Any, Any], seed: int, progress: Progress | None,
                  exports: tuple[Exports | None, Exports | None], record: bool,
                  interval: float | None) -> Iterator[tuple[int, Result]]:
    """The first side in a thread, the second here, where Ctrl-C arrives and stops both."""
    from reclaim.simulation import Simulation
    first, second = (Simulation(scenario, policy, seed=seed, record=record) for policy in policies)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(first.run, exports=exports[0], interval=interval)
        stop = True
        try:
            result = second.run(progress=progress, exports=exports[1], interval=interval)
            stop = result.partial
        finally:
            while not other.done():
                try:
                    if stop:
                        first.stop()    # again and again: it may not have begun yet
                    wait([other], timeout=0.1)
                except KeyboardInterrupt:
                    stop = True
    yield 0, other.result()
    yield 1, result


def _scenario(scenario: Scenario | str, seconds: float | None) -> Scenario:
    if not isinstance(scenario, Scenario):
        scenario = Scenario.load(scenario)
    return scenario if seconds is None else scenario.replace(seconds=seconds, where="seconds")


def _seeds(scenario: Scenario, seeds: int | Iterable[int]) -> list[int]:
    if not isinstance(seeds, Iterable):
        if not 1 <= seeds <= MAX_SEEDS or seeds != int(seeds):
            raise ScenarioError(f"seeds = {seeds}: must be 1 to {MAX_SEEDS}, or a list of seeds")
        return [(scenario.seed + i) % 2**64 for i in range(int(seeds))]
    chosen = [scenario.replace(seed=seed, where="seeds").seed for seed in seeds]
    if not chosen:
        raise ScenarioError("seeds is empty: give one at least")
    return chosen


def _part(progress: Progress, done: int, total: int) -> Progress:
    return lambda share, simulated_s: progress((done + share) / total, simulated_s)


def _side(policy: Any, runs: tuple[Result, ...]) -> Side:
    name = runs[0].policy if runs else str(getattr(policy, "name", policy))
    counters: dict[str, Any] = {}
    for metric in runs[0].counters if runs else ():
        values = [run.counters[metric] for run in runs]
        counters[metric] = (_digest(values) if metric == "digest" else statistics.median(values))
    return Side(name, counters, runs)


def _digest(digests: list[str]) -> str:
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b("\n".join(digests).encode(), digest_size=32).hexdigest()


def _made_before(runs: Result | Iterable[Result]) -> Side:
    made = (runs,) if isinstance(runs, Result) else tuple(runs)
    if not made:
        raise ResultError("a side of the comparison has no run: give one at least")
    for run in made:
        if not isinstance(run.scenario, Scenario):
            raise ResultError(f"{run.name}, {run.policy}: the run of a World has no scenario to compare; "
                              "run a Scenario")
        if run.policy != made[0].policy:
            raise ResultError(f"one side has runs of {made[0].policy!r} and of {run.policy!r}: give the "
                              "runs of one policy")
    return _side(made[0].policy, made)


def _rows(scenario: Scenario, before: Side, after: Side) -> tuple[Row, ...]:
    published = [scenario.published.get(side, {}) for side in ("before", "after")]
    rows = [Row(metric, before.counters.get(metric), after.counters.get(metric),
                published[0].get(metric), published[1].get(metric)) for metric in COUNTS]
    rows += [_ratio_row(metric, (before.counters, after.counters), published) for metric in RATIOS]
    rows += [row for row in (Row(metric, _median(metric, before), _median(metric, after)) for metric in METRICS)
             if row.before is not None and row.after is not None]
    first, last = (ratio(side.counters.get("simulated_s"), side.counters.get("wall_s"))
                   for side in (before, after))
    return _with_tests([*rows, Row(SPEED, first, last)], before, after)


def _median(metric: str, side: Side) -> float | None:
    """Of a percentile over the runs that have it."""
    values = [value for run in side.runs if (value := _latency(metric, run)) is not None]
    return statistics.median(values) if values else None


def _latency(metric: str, run: Result) -> float | None:
    """A percentile of `METRICS` in one run."""
    name, q = METRICS[metric]
    return percentile(name, run.histograms[name], q) if name in run.histograms else None


def _ratio_row(metric: str, simulated: Sequence[Mapping[str, Any]],
               published: Sequence[Mapping[str, Any]] = ({}, {}),
               measured: Mapping[str, float] | None = None) -> Row:
    """The row of a ratio from the counters of both sides, and of both sides as published."""
    over, under = _OF[metric]
    before, after, then_before, then_after = (
        ratio(counters.get(over), counters.get(under)) for counters in (*simulated, *published))
    return Row(metric, before, after, then_before, then_after, measured=measured)


def _measured_rows(observation: Observation, before: Side, after: Side) -> tuple[Row, ...]:
    """A row for each ratio that was measured."""
    rows = []
    for metric, counters in _OF.items():
        found = {policy: observation.ratio(policy, *counters) for policy in observation.repeats}
        measured = {policy: value for policy, value in found.items() if value is not None}
        if measured:
            rows.append(_ratio_row(metric, (before.counters, after.counters), measured=measured))
    return _with_tests(rows, before, after)


def _with_tests(rows: Sequence[Row], before: Side, after: Side) -> tuple[Row, ...]:
    """The rows with their values in each run, and what those say of the change."""
    rows = [replace(row, before_runs=_values(row.metric, before), after_runs=_values(row.metric, after))
            for row in rows]
    # Runs that nothing random made differ are one run: there is nothing to test.
    drawn = any(len({*values}) > 1 for row in rows for values in (row.before_runs, row.after_runs))
    whole = not any(run.partial for side in (before, after) for run in side.runs)
    return tuple(_tested(row, before, after) if drawn and whole else row for row in rows)


def _tested(row: Row, before: Side, after: Side) -> Row:
    """`row` with its interval and p, if there are several runs."""
    if min(len(row.before_runs), len(row.after_runs)) < 2:
        return row
    import numpy as np

    from reclaim.statistics import Runs, change_interval, mann_whitney

    def runs(side: Side) -> Runs:
        if row.metric in METRICS:
            return np.array(row.before_runs if side is before else row.after_runs)
        over, under = (np.array([run.counters[name] for run in side.runs], dtype=np.float64)
                       for name in _OF.get(row.metric, (row.metric, row.metric)))
        return (over, under) if row.metric in _OF else over
    return replace(row, p=mann_whitney(row.before_runs, row.after_runs), interval_pct=change_interval(
        runs(before), runs(after), paired=_paired(before, after)))


def _values(metric: str, side: Side) -> tuple[float, ...]:
    """The metric in each run; nothing if one has none, or for the speed, which is no simulated number."""
    if metric == SPEED:
        return ()
    if metric in METRICS:
        latencies = [_latency(metric, run) for run in side.runs]
        return () if None in latencies else tuple(value for value in latencies if value is not None)
    over, under = _OF.get(metric, (metric, None))
    values = [run.counters.get(over) if under is None
              else ratio(run.counters.get(over), run.counters.get(under)) for run in side.runs]
    return () if None in values else tuple(float(value) for value in values if value is not None)


def _paired(before: Side, after: Side) -> bool:
    return [run.seed for run in before.runs] == [run.seed for run in after.runs]


def _measured_cell(policy: str) -> Callable[[Row], str]:
    return lambda row: show_number((row.measured or {}).get(policy))


def _observed(observation: Observation, scenario: Scenario) -> Iterator[str]:
    """What to know of the measured columns."""
    nr = ", ".join(f"{len(runs)} of {policy}" for policy, runs in observation.repeats.items())
    yield (f"Measured: {observation.case}, {observation.source}; medians of runs ({nr}), the whole machine's "
           "counts" + ("; PARTIAL: a run was ended early." if observation.partial else "."))
    if not any(run.get("pgsteal_anon") for runs in observation.repeats.values() for run in runs):
        yield "No anonymous page was reclaimed there, so there is no count per reclaimed page."
    for difference in observation.differences(scenario.to_dict()):
        yield f"The machine's {difference}."
    if observation.unknown:
        yield "Not known of the machine: " + ", ".join(observation.unknown) + "."


def _delta(before: float | None, after: float | None) -> float | None:
    change = ratio(after, before)
    return None if change is None else (change - 1) * 100


def show_interval(interval: tuple[float, float] | None) -> str:
    """An interval of changes [%] for a table."""
    return "-" if interval is None else f"{interval[0]:+.1f} {interval[1]:+.1f}%"


def show_p(p: float | None) -> str:
    """A p for a table."""
    return "-" if p is None else f"{p:.3f}" if p >= 0.001 else "<0.001"


def _percent(delta: float | None) -> str:
    return "-" if delta is None else f"{delta:+.1f}%"


def _miss(row: Row) -> list[str]:
    """The sentence that names `row` a miss, if either side is one."""
    pairs: Mapping[str, tuple[float | None, float | None]] = {
        "before": (row.before, row.published_before), "after": (row.after, row.published_after)}
    off = []
    for side, (got, published) in pairs.items():
        change = _delta(published, got)
        if change is not None and abs(change) > TOLERANCE * 100:
            off.append(f"{side} {show_number(got)} for {show_number(published)} ({change:+.0f}%)")
    return [f"{row.metric} does not match the published value: {', '.join(off)}."] if off else []


def _missed_changes(rows: list[Row]) -> list[str]:
    """The sentence that names the changes of totals that are misses, if there are any."""
    off = [f"{row.metric} {_percent(row.delta_pct)} for {_percent(row.published_delta_pct)}" for row in rows
           if row.delta_pct is not None and row.published_delta_pct is not None
           and abs(row.delta_pct - row.published_delta_pct) > POINTS]
    return [f"Changes that are over {POINTS} points from the published ones: {', '.join(off)}."] if off else []
