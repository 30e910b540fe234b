"""Measured runs of real kernels, simulated to the work that they did, and set side by side.

Nothing is fitted here: a case brings its scenario, `METRICS` says what is compared and how near
it must be, and what misses is told with the rest.
"""

from __future__ import annotations

import fnmatch
import functools
import itertools
import statistics
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from reclaim import measured
from reclaim.errors import ReclaimError, ScenarioError, did_you_mean
from reclaim.jobs import Stop, check_jobs, run_jobs
from reclaim.measured import Case
from reclaim.result import show_number
from reclaim.scenario import Scenario
from reclaim.units import PAGE_SIZE

SEEDS = 5
MAX_SECONDS = 600.0      # simulated; a case that has not done its work by then is not reproduced
FEW = 1000               # a ratio of measured counts below this says nothing
CHOSEN = "mix"           # the pattern whose order was chosen by what its runs counted: no prediction
TOLD = ("MISS", "meets", "near", "out of range", "few")      # verdicts that a note may explain
Counters = Mapping[str, float]


@dataclass(frozen=True)
class Metric:
    """One ratio of counters, and how near it must be.

    over, under : the counters above and below the line.
    typical : bar of the median absolute relative error over the cases; None: each case has `worst`.
    worst : bar of every case.
    sides : whether runs before the series (``b``) and after it (``a``) are scored; others are shown.
    sweep : scans may differ by one walk over the list.
    """

    name: str
    over: str
    under: str
    worst: float
    typical: float | None = None
    sides: str = "ba"
    sweep: bool = False


METRICS = (
    Metric("folios_per_batch", "folios_batched", "flush_batches", 0.08, sides="a"),
    Metric("targets_per_flush", "arch_tlbbatch_flush_targets", "arch_tlbbatch_flush_remote", 0.35, 0.12),
    Metric("shootdowns_per_page", "tlb_shootdowns", "pgsteal_anon", 0.35, 0.12, sides="a"),
    Metric("steal_per_scan", "pgsteal_anon", "pgscan_anon", 0.35, 0.12, sweep=True),
    Metric("ipis_per_shootdown", "function_call_ipis", "tlb_shootdowns", 0.30),
)
PAIR = Metric("shootdowns after/before", "", "", 0.25)
# At equal touches of a sequential pattern these are arithmetic: shown, but no test of anything.
FIXED = ("pgsteal_anon", "pswpin")


@dataclass(frozen=True)
class Spread:
    """The median of several runs, and the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value at least."""
        return cls(statistics.median(values), min(values), max(values))

    def meets(self, other: Spread) -> bool:
        """Whether the two ranges have a value in common."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        if self.low == self.high:
            return show_number(self.median)
        return f"{show_number(self.median)} ({show_number(self.low)}..{show_number(self.high)})"


@dataclass(frozen=True)
class Row:
    """One metric of one case.

    ratio : simulated / measured, of the medians.
    error : its distance from 1, less what a sweep may explain; None where it is not scored.
    verdict : ``ok``; ``near``: above the bar of the median, below that of each case; ``MISS``;
        ``meets``: beyond the bar, but of a run with lazy masks before the series, which remember
        each chance move of a worker, and the ranges meet; ``fixed``, ``few`` (counts), ``in range``,
        ``out of range``: shown only.
    swept : the verdict is better than that of `ratio`, since a sweep more or less is allowed.
    """

    case: str
    policy: str
    metric: str
    measured: Spread
    simulated: Spread
    ratio: float
    error: float | None
    verdict: str
    swept: bool = False

    @property
    def told(self) -> str:
        """The verdict, and what it rests on."""
        return self.verdict + " (sweep)" * self.swept

    def to_dict(self) -> dict[str, Any]:
        """As ``validate --json`` holds it."""
        def spread(s: Spread) -> dict[str, float]:
            return {"median": s.median, "min": s.low, "max": s.high}
        return {"case": self.case, "policy": self.policy, "metric": self.metric,
                "measured": spread(self.measured), "simulated": spread(self.simulated),
                "ratio": self.ratio, "error": self.error, "verdict": self.verdict, "swept": self.swept}


@dataclass(frozen=True)
class Score:
    """How near one metric is over all cases of a group.

    median, worst : of the absolute relative errors of medians.
    missed : the cases beyond their bar; not those of lazy masks whose ranges meet, see `Row`.
    met, swept : of those that are not missed, how many only because ranges meet, and how many have
        a better verdict because a sweep is allowed.
    plain : the median error without that allowance.
    """

    group: str
    metric: str
    nr: int
    median: float
    worst: float
    missed: tuple[str, ...]
    typical_bar: float | None
    worst_bar: float
    met: int = 0
    swept: int = 0
    plain: float = 0.0

    @classmethod
    def of(cls, group: str, metric: Metric, scored: Sequence[Row]) -> Score | None:
        """Of those of `scored` that have an error; None if there are none."""
        scored = [row for row in scored if row.error is not None]
        errors = [row.error for row in scored if row.error is not None]
        if not errors:
            return None
        missed = tuple(f"{row.case} {row.policy}" for row in scored if row.verdict == "MISS")
        return cls(group, metric.name, len(errors), statistics.median(errors), max(errors), missed,
                   metric.typical, metric.worst, sum(row.verdict == "meets" for row in scored),
                   sum(row.swept for row in scored),
                   statistics.median(abs(row.ratio - 1) for row in scored))

    @property
    def passed(self) -> bool:
        """Whether both bars are kept."""
        return not self.missed and (self.typical_bar is None or self.median <= self.typical_bar)

    def bars(self) -> str:
        """The bars, of the median first."""
        return "/".join(f"{bar:.0%}" for bar in (self.typical_bar, self.worst_bar) if bar is not None)

    def told(self) -> str:
        """``ok``, or what misses."""
        by = [f"{nr} by {what}" for nr, what in (
            (self.met, "ranges that meet"),
            (self.swept, f"a sweep (median without it {self.plain:.1%})")) if nr]
        verdict = "ok" if self.passed else "MISSED: " + (", ".join(self.missed) or "the median")
        return verdict + (", of which " + " and ".join(by) if self.passed and by else
                          "; of the others " + " and ".join(by) if by else "")

    def to_dict(self) -> dict[str, Any]:
        """As ``validate --json`` holds it."""
        return {"group": self.group, "metric": self.metric, "cases": self.nr, "median_error": self.median,
                "worst_error": self.worst, "missed": list(self.missed),
                "median_bar": self.typical_bar, "worst_bar": self.worst_bar, "passed": self.passed,
                "by_range": self.met, "by_sweep": self.swept, "plain_median_error": self.plain}


@dataclass(frozen=True)
class Note:
    """Why something misses, with its evidence: `data/validation_notes.toml`.

    cases, policies, metrics : patterns as of a shell; a row that matches each has the note.
    """

    cases: tuple[str, ...]
    policies: tuple[str, ...]
    metrics: tuple[str, ...]
    text: str

    def about(self, row: Row) -> bool:
        """Whether it explains `row`."""
        return all(any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns) for value, patterns in (
            (row.case, self.cases), (row.policy, self.policies), (row.metric, self.metrics)))


@functools.cache
def notes() -> tuple[Note, ...]:
    """The notes that the package brings."""
    text = resources.files("reclaim").joinpath("data", "validation_notes.toml").read_text("utf-8")
    return tuple(Note(tuple(note["cases"]), tuple(note.get("policies", ["*"])),
                      tuple(note.get("metrics", ["*"])), note["text"].strip())
                 for note in tomllib.loads(text)["note"])


# --- one case

@dataclass(frozen=True)
class Prediction:
    """What the simulator counts for a case: by seed, then by repeat, at the work of that repeat."""

    case: Case
    scenario: Scenario
    runs: tuple[tuple[Counters, ...], ...]

    def values(self, over: str, under: str) -> list[float]:
        """The ratio of two counters in every run of every seed."""
        return [r for run in self.runs for c in run if (r := _ratio(c, over, under)) is not None]


def work(case: Case, scenario: Scenario) -> str:
    """The counter that says how much a run of `case` did.

    A sequential writer does the same at the same touches.  Touches at random depend on who has
    its pages (a worker with all of them makes thousands while others fault once), and stress-ng's
    were not counted: those run to the pages that were reclaimed.
    """
    seq = scenario.workload.kind == "writer" and scenario.workload.pattern == "seq"
    counted = all(run.get("page_touches") for run in case.repeats)
    return "page_touches" if seq and counted else "pgsteal_anon"


def predict(case: Case, seed: int, *, profile: str | None = None,
            stop: Stop | None = None) -> tuple[Counters, ...]:
    """The counters at the work of each repeat of `case`, from one run.

    Raises
    ------
    ScenarioError : nothing was reclaimed, the model does not take the scenario, or the work is not
        done in `MAX_SECONDS`.
    """
    from reclaim.simulation import Simulation
    stop = stop or Stop()
    scenario = _scenario(case, profile)
    endless = scenario.replace(seconds=MAX_SECONDS, warmup=0.0, touches=0)
    simulation = Simulation(endless, case.policy, seed=seed)
    what = work(case, scenario)
    found: dict[float, Counters] = {}
    for amount in sorted({run[what] for run in case.repeats}):
        if what == "page_touches":
            found[amount] = simulation.run(touches=int(amount), progress=stop.watch(simulation)).counters
        else:
            found[amount] = _run_to_steals(simulation, amount, min(case.seconds) / 16, stop)
        done = found[amount][what]
        if not stop and done < 0.99 * amount:
            raise ScenarioError(f"{case.where}: {done:,.0f} of {amount:,.0f} {what} after "
                                f"{simulation.now_ps / 1e12:.0f} simulated seconds")
    return tuple(found[run[what]] for run in case.repeats)


def _run_to_steals(simulation: Any, amount: float, leg: float, stop: Stop) -> Counters:
    """In legs that at most double the time, so that the last ends close to `amount`."""
    seconds = max(simulation.now_ps / 1e12, 1e-3)
    leg = leg or 0.1
    while True:
        seconds = min(seconds + leg, MAX_SECONDS)
        counters: Counters = simulation.run(seconds=seconds, progress=stop.watch(simulation)).counters
        steals = counters["pgsteal_anon"]
        if stop or steals >= 0.995 * amount or seconds >= MAX_SECONDS:
            return counters
        rate = steals / seconds
        leg = min((amount - steals) / rate, seconds) if rate else seconds


def per_page(counters: Counters) -> dict[str, float]:
    """Counts for each folio that was reclaimed."""
    return {"shootdowns": _per(counters, "tlb_shootdowns"), "ipis": _per(counters, "function_call_ipis"),
            "scans": _per(counters, "pgscan_anon"), "flushes": _per(counters, "arch_tlbbatch_flush_remote")}


def _per(counters: Counters, over: str) -> float:
    return counters[over] / counters["pgsteal_anon"]


def _ratio(counters: Counters, over: str, under: str) -> float | None:
    if over not in counters or not counters.get(under):
        return None
    return counters[over] / counters[under]


# --- rows of a case

def rows(prediction: Prediction) -> list[Row]:
    """What was measured and what was simulated, metric by metric."""
    made = [row for metric in METRICS if (row := _row(prediction, metric)) is not None]
    if work(prediction.case, prediction.scenario) == "page_touches":
        made += [row for name in FIXED if (row := _fixed(prediction, name)) is not None]
    return made


def _row(prediction: Prediction, metric: Metric) -> Row | None:
    case = prediction.case
    if case.before and "b" not in metric.sides and metric.under == "flush_batches":
        return None
    ratios = [_ratio(run, metric.over, metric.under) for run in case.repeats]
    theirs, ours = [r for r in ratios if r is not None], prediction.values(metric.over, metric.under)
    if len(theirs) < len(ratios) or not ours:
        return None
    got, want = Spread.of(ours), Spread.of(theirs)
    ratio = _over(got.median, want.median)

    def row(error: float | None, verdict: str, swept: bool = False) -> Row:
        return Row(case.case, case.policy, metric.name, want, got, ratio, error, verdict, swept)
    if min(min(run[metric.over], run[metric.under]) for run in case.repeats) < FEW or not want.median:
        return row(None, "few")
    if case.before and "b" not in metric.sides:
        return row(None, "in range" if got.meets(want) else "out of range")
    error = abs(_without_a_sweep(prediction) / want.median - 1) if metric.sweep else abs(ratio - 1)
    verdict = _verdict(error, metric)
    swept = verdict != _verdict(abs(ratio - 1), metric)
    if case.before:
        verdict = _lenient(verdict, got, want, prediction)
    return row(error, verdict, swept)


def _lenient(verdict: str, got: Spread, want: Spread, before: Prediction) -> str:
    return "meets" if verdict == "MISS" and before.scenario.kernel.mask_lazy and got.meets(want) else verdict


def _over(over: float, under: float) -> float:
    return over / under if under else float(over == under)


def _verdict(error: float, metric: Metric) -> str:
    if error > metric.worst:
        return "MISS"
    return "near" if metric.typical is not None and error > metric.typical else "ok"


def _without_a_sweep(prediction: Prediction) -> float:
    """The simulated steals per scan, its scans moved towards the measured ones by a sweep at most.

    Between sweeps of the classic list a reclaim walks some tens of folios; when all of them are
    young it walks the list.  One more or less moves a short run by a third.
    """
    classic = prediction.scenario.kernel.lru == "classic"
    sweep = prediction.scenario.memcg.limit // PAGE_SIZE if classic else 0
    values = []
    for repeat, want in enumerate(prediction.case.repeats):
        for run in prediction.runs:
            got = run[repeat]
            # At the measured work: steals differ a little where runs are not cut at equal touches.
            scans = got["pgscan_anon"] * want["pgsteal_anon"] / got["pgsteal_anon"]
            off = want["pgscan_anon"] - scans
            values.append(want["pgsteal_anon"] / (scans + max(-sweep, min(sweep, off))))
    return statistics.median(values)


def _fixed(prediction: Prediction, name: str) -> Row | None:
    case = prediction.case
    if any(name not in run for run in case.repeats):
        return None
    want = Spread.of([run[name] for run in case.repeats])
    got = Spread.of([c[name] for run in prediction.runs for c in run])
    return Row(case.case, case.policy, name, want, got, _over(got.median, want.median), None, "fixed")


def _pairs(predictions: Sequence[Prediction]) -> list[Row]:
    """After / before of the shootdowns per page, of each case measured both ways."""
    befores = {p.case.case: p for p in predictions if p.case.before}
    made = []
    for after in predictions:
        before = befores.get(after.case.case)
        if after.case.before or before is None:
            continue
        sides = [([_ratio(run, "tlb_shootdowns", "pgsteal_anon") or 0.0 for run in p.case.repeats],
                  p.values("tlb_shootdowns", "pgsteal_anon")) for p in (before, after)]
        if not (sides[1][1] and sides[0][1] and all([*sides[0][0], *sides[0][1], *sides[1][0]])):
            continue                # none, or not counted
        want, got = (_quotients(sides[1][i], sides[0][i]) for i in (0, 1))
        ratio = got.median / want.median
        verdict = _lenient(_verdict(abs(ratio - 1), PAIR), got, want, before)
        made.append(Row(*after.case.key, PAIR.name, want, got, ratio, abs(ratio - 1), verdict))
    return made


def _quotients(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Of the medians; the range is of every value with every other."""
    every = [a / b for a in over for b in under]
    return Spread(statistics.median(over) / statistics.median(under), min(every), max(every))


# --- all cases

@dataclass(frozen=True, eq=False)
class Validation:
    """Measured and simulated, side by side.

    name : of the file.
    rows : of every case that was reproduced.
    scores : of every metric and group: guests whose CPUs share host CPUs, and other machines.
    refused : case, policy and the reason for each that was not reproduced.
    sources : (case, policy) to what it was measured on.
    partial : interrupted.
    """

    name: str
    seeds: int
    rows: tuple[Row, ...]
    scores: tuple[Score, ...]
    refused: tuple[tuple[str, str, str], ...]
    sources: Mapping[tuple[str, str], str] = field(default_factory=dict)
    partial: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As ``validate --json`` prints it."""
        data = {"file": self.name, "seeds": self.seeds, "rows": [row.to_dict() for row in self.rows],
                "scores": [score.to_dict() for score in self.scores],
                "not_reproduced": [{"case": c, "policy": p, "reason": r} for c, p, r in self.refused],
                "notes": [{"rows": [[row.case, row.policy, row.metric] for row in about], "text": note.text}
                          for note, about in self.explained()]}
        return data | {"partial": True} if self.partial else data

    def explained(self) -> list[tuple[Note, list[Row]]]:
        """Each note that is about a row that misses, with those rows."""
        misses = [row for row in self.rows if row.verdict in TOLD]
        found = [(note, [row for row in misses if note.about(row)]) for note in notes()]
        return [(note, about) for note, about in found if about]

    def unexplained(self) -> list[Row]:
        """The rows beyond a bar that no note is about."""
        return [row for row in self.rows if row.verdict in ("MISS", "meets", "near")
                and not any(note.about(row) for note in notes())]

    def __repr__(self) -> str:
        lines = [self.title(), ""]
        for (case, policy), made in itertools.groupby(self.rows, lambda row: (row.case, row.policy)):
            lines += [f"{case} {policy}"]
            lines += [f"  {row.metric:<24}{row.measured!s:<36}{row.simulated!s:<36}"
                      f"{row.ratio:7.3f}  {row.told}" for row in made]
        lines += [f"{case} {policy}: not reproduced: {reason}" for case, policy, reason in self.refused]
        lines += ["", "score                             cases   median    worst      bars"]
        lines += [f"{s.group + ': ' + s.metric:<34}{s.nr:5}{s.median:9.1%}{s.worst:9.1%}"
                  f"{s.bars():>11} {s.told()}" for s in self.scores]
        return "\n".join(lines)

    def title(self) -> str:
        """One line: what was run."""
        return (f"{self.name}: measured (median, least..greatest repeat), simulated (medians of {self.seeds} "
                f"seeds), ratio" + (", PARTIAL: interrupted" if self.partial else ""))


def validate(path: str | None = None, *, cases: Iterable[str] = (), seeds: int = SEEDS,
             profile: str | None = None, jobs: int | None = None,
             progress: Callable[[float, str], None] | None = None) -> Validation:
    """Simulate the measured runs of the file at `path`, or those that the package brings.

    Parameters
    ----------
    cases : names, or patterns as of a shell, of the cases to run; none: all.
    seeds : runs of each case, with seeds 1 to `seeds`.
    profile : of cases that name none and whose CPUs are real ones.
    jobs : simulations at once; None: one for each of two CPUs.
    progress : called with the share done and what was done last.

    Returns
    -------
    Validation : partial, with the cases that were run, after a KeyboardInterrupt.

    Raises
    ------
    ReclaimError : bad input.
    """
    if not 1 <= seeds <= 1000:
        raise ReclaimError(f"seeds = {seeds}: must be 1 to 1000")
    if profile is not None:
        from reclaim.machine import Profile
        Profile.load(profile)
    chosen, refused = _choose(measured.load(path), list(cases), profile)
    runs: dict[tuple[str, str], dict[int, tuple[Counters, ...]]] = {}
    work_list = [(case, seed) for case, _ in chosen for seed in range(1, seeds + 1)]
    partial = False
    try:
        todo = [functools.partial(_try, case, seed, profile) for case, seed in work_list]
        for done, (index, result) in enumerate(run_jobs(todo, check_jobs(jobs)), 1):
            case, seed = work_list[index]
            if isinstance(result, str):
                refused.setdefault(case.key, result)
            else:
                runs.setdefault(case.key, {})[seed] = result
            if progress is not None:
                progress(done / len(todo), f"{case.case} {case.policy}")
    except KeyboardInterrupt:
        if not runs:
            raise
        partial = True
    predictions = [Prediction(case, scenario, tuple(runs[case.key][seed] for seed in sorted(runs[case.key])))
                   for case, scenario in chosen if case.key in runs and case.key not in refused]
    return _validation(measured.PACKAGED if path is None else path, seeds, predictions, refused, partial)


def _choose(cases: list[Case], patterns: list[str], profile: str | None,
            ) -> tuple[list[tuple[Case, Scenario]], dict[tuple[str, str], str]]:
    """The cases that match, and the reason for each that the model does not take."""
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(case.case, pattern) for case in cases):
            raise ReclaimError(f"no case matches {pattern!r}"
                               + did_you_mean(pattern, (case.case for case in cases)))
    chosen: list[tuple[Case, Scenario]] = []
    refused: dict[tuple[str, str], str] = {}
    for case in cases:
        if patterns and not any(fnmatch.fnmatchcase(case.case, pattern) for pattern in patterns):
            continue
        try:
            chosen.append((case, _scenario(case, profile)))
        except ScenarioError as err:
            refused[case.key] = str(err)
    return chosen, refused


def _scenario(case: Case, profile: str | None) -> Scenario:
    """The scenario of a case that can be simulated to what it did."""
    idle = sum(not run.get("pgsteal_anon") for run in case.repeats)
    if idle:
        raise ScenarioError(f"{case.where}: no anonymous page was reclaimed in {idle} of {len(case.repeats)} "
                            "runs (pgsteal_anon is 0, or was not counted): there is nothing to compare")
    return case.load_scenario(profile)


def _try(case: Case, seed: int, profile: str | None, stop: Stop) -> tuple[Counters, ...] | str:
    try:
        return predict(case, seed, profile=profile, stop=stop)
    except ScenarioError as err:
        return str(err)


def _validation(name: str, seeds: int, predictions: Sequence[Prediction],
                refused: Mapping[tuple[str, str], str], partial: bool) -> Validation:
    made = [row for prediction in predictions for row in rows(prediction)] + _pairs(predictions)
    groups = {p.case.key: "guests" if p.scenario.machine.host_cpus else "machines" for p in predictions}
    chosen = {p.case.key for p in predictions if p.scenario.workload.pattern == CHOSEN}
    scores = []
    for group in dict.fromkeys(groups.values()):
        members = {key for key, its in groups.items() if its == group}
        sets = {group: members, f"{group} but {CHOSEN}": members - chosen if members & chosen else set()}
        for name, keys in sets.items():
            scores += [score for metric in (*METRICS, PAIR) if (score := Score.of(
                name, metric, [row for row in made if row.metric == metric.name
                               and (row.case, row.policy) in keys])) is not None]
    order = {key: i for i, key in enumerate(groups)}
    made.sort(key=lambda row: order[row.case, row.policy])
    return Validation(name, seeds, tuple(made), tuple(scores),
                      tuple((*key, reason) for key, reason in refused.items()),
                      {p.case.key: p.case.source for p in predictions}, partial)
