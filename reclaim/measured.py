"""The one reader of measured runs of real kernels, whoever wrote them: docs/measured.md is the format.

A line of JSON is one run or more of a `Case`; lines of one case and policy are joined.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from reclaim.errors import MeasuredError, PolicyError, ScenarioError, did_you_mean
from reclaim.files import regular
from reclaim.scenario import Scenario
from reclaim.units import parse_size

PACKAGED = "kernel_runs.jsonl"
MAX_LINE = 1 << 26         # bytes
MAX_SECONDS = 1e9
BASELINE = "stage0"        # the kernel before the series

# Keys without which a line is no scenario of its own.
NEEDED = ("workload", "memcg.limit", "swap.kind", "kernel.version", "kernel.lru", "machine.cpus")


@dataclass(frozen=True)
class Case:
    """One configuration, measured once or more.

    case : its name; with `policy` unique.
    policy : ``stage0`` for an unpatched kernel.
    source : what it was measured on.
    scenario : as written.
    repeats : the counters of each run, a list of one per CPU added up.
    seconds : the length of each run.
    where : file and line; the last of several.
    unknown : keys of the scenario that are not known, and why.
    partial : a run was ended early.
    """

    case: str
    policy: str
    source: str
    scenario: Mapping[str, Any] | None
    repeats: tuple[Mapping[str, int], ...]
    seconds: tuple[float, ...]
    where: str
    unknown: Mapping[str, str] = field(default_factory=dict)
    partial: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Case and policy."""
        return self.case, self.policy

    @property
    def before(self) -> bool:
        """Whether the kernel was an unpatched one."""
        return self.policy == BASELINE

    def lacks(self) -> str:
        """What a simulation needs and the line does not hold, and why; empty if it holds it all."""
        if self.scenario is None:
            return "scenario: missing"
        found = [f"{key} is not known ({self.unknown[key]})" for key in NEEDED if key in self.unknown]
        return "; ".join(found) if found or "workload" in self.scenario else "it names no workload"

    def load_scenario(self, profile: str | None = None) -> Scenario:
        """The scenario.  Its machine profile, if it names none: `tcg-rr` when the CPUs shared
        host CPUs, else `profile`, else the default.

        Raises
        ------
        ScenarioError : the line does not hold it all, or the model does not take it.
        """
        if lacks := self.lacks():
            raise ScenarioError(f"{self.where}: {lacks}")
        data = {"name": self.case, **(self.scenario or {})}
        machine = data.get("machine", {})
        if isinstance(machine, Mapping) and "profile" not in machine:
            chosen = "tcg-rr" if machine.get("host_cpus") else profile
            data["machine"] = {**machine, **({"profile": chosen} if chosen else {})}
        return Scenario.from_dict(data, where=self.where)

    def joined(self, more: Case) -> Case:
        """This case with the runs of a later line of it.

        Raises
        ------
        MeasuredError : the scenarios are not the same.
        """
        # How long it ran is a run's, not the configuration's: `reclaim observe` measures it.
        mine, its = (case.scenario and {**case.scenario, "seconds": None} for case in (self, more))
        if mine != its:
            raise MeasuredError(f"{more.where}: scenario{_difference(mine, its)}: not as in {self.where}, "
                                "which has the same case and policy: give one of them another case")
        return dataclasses.replace(more, repeats=self.repeats + more.repeats,
                                   seconds=self.seconds + more.seconds, partial=self.partial or more.partial)


@dataclass(frozen=True)
class Observation:
    """What was measured of one case, to be put beside a simulation.

    cases : one for each policy.
    """

    cases: tuple[Case, ...]

    @classmethod
    def load(cls, file: str, case: str | None = None) -> Observation:
        """The runs of `case` in `file`; it may be left out if there is one only.

        Raises
        ------
        MeasuredError : with the file, and the line if it is one's fault.
        """
        cases = load(file)
        known = list(dict.fromkeys(each.case for each in cases))
        if case is None and len(known) > 1:
            raise MeasuredError(f"{file}: holds {len(known)} cases: choose one with --case: "
                                + ", ".join(known[:4]) + (", ..." if len(known) > 4 else ""))
        if case is not None and case not in known:
            raise MeasuredError(f"{file}: has no case {case!r}{did_you_mean(case, known)}")
        return cls(tuple(each for each in cases if case in (None, each.case)))

    @property
    def case(self) -> str:
        """The name."""
        return self.cases[-1].case

    @property
    def source(self) -> str:
        """What it was measured on."""
        return self.cases[-1].source

    @property
    def unknown(self) -> Mapping[str, str]:
        """Keys of the scenario that are not known, and why."""
        return self.cases[-1].unknown

    @property
    def partial(self) -> bool:
        """Whether a run was ended early."""
        return any(case.partial for case in self.cases)

    @property
    def repeats(self) -> dict[str, tuple[Mapping[str, int], ...]]:
        """Policy -> the counters of each run."""
        return {case.policy: case.repeats for case in self.cases}

    def as_scenario(self) -> Scenario:
        """The scenario that ran.

        Raises
        ------
        ScenarioError : the line does not hold it all, or it is not modelled.
        """
        last = self.cases[-1]
        if lacks := last.lacks():
            raise ScenarioError(f"{last.where}: {last.case}: give a SCENARIO too: {lacks}")
        return last.load_scenario()

    def ratio(self, policy: str, over: str, under: str) -> float | None:
        """The median over the runs of one counter for each of another; None if not both were read."""
        found = [r[over] / r[under] for r in self.repeats[policy] if over in r and r.get(under)]
        return statistics.median(found) if found else None

    def differences(self, scenario: Mapping[str, Any]) -> Iterator[str]:
        """Where a scenario's dict says otherwise than this machine."""
        for section, keys in (self.cases[-1].scenario or {}).items():
            others = scenario.get(section)
            if not isinstance(keys, Mapping) or not isinstance(others, Mapping):
                continue
            for name, value in keys.items():
                other = others.get(name)
                if other not in (None, "auto") and not _same(other, value):
                    yield f"{section}.{name} = {json.dumps(value)}, here {json.dumps(other)}"


def load(path: str | None = None) -> list[Case]:
    """The cases of the file at `path`; None: those that the package brings.

    Raises
    ------
    MeasuredError : with file, line and key of what is wrong.
    """
    name = PACKAGED if path is None else path
    cases: dict[tuple[str, str], Case] = {}
    for number, line in enumerate(lines(path), 1):
        if line.strip():
            case = _case(line, f"{name}:{number}")
            cases[case.key] = cases[case.key].joined(case) if case.key in cases else case
    if not cases:
        raise MeasuredError(f"{name}: no case in it")
    return list(cases.values())


def lines(path: str | None = None) -> Iterator[bytes]:
    """The lines of the file at `path`; None: of that which the package brings.

    Raises
    ------
    MeasuredError : every way in which that can fail.
    """
    if path is None:
        with resources.files("reclaim").joinpath("data", PACKAGED).open("rb") as file:
            yield from file
        return
    with regular(path, MeasuredError) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
            if len(line) > MAX_LINE:
                raise MeasuredError(f"{path}:{number}: longer than {MAX_LINE} bytes")
            yield line


# --- one line

def _case(line: bytes, where: str) -> Case:
    try:
        data = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as err:
        raise MeasuredError(f"{where}: not JSON: {err}") from None
    if not isinstance(data, dict):
        raise MeasuredError(f"{where}: must be an object with case, policy, scenario and repeats")
    name, policy = (_text(data, key, where) for key in ("case", "policy"))
    _check_policy(policy, where)
    repeats = data.get("repeats")
    if not isinstance(repeats, list) or not repeats:
        raise MeasuredError(f"{where}: repeats: must be a list of one run or more")
    windows = [_window(run, f"{where}: repeats[{i}]") for i, run in enumerate(repeats)]
    scenario, source, partial = data.get("scenario"), data.get("source", ""), data.get("partial", False)
    if scenario is not None and not isinstance(scenario, dict):
        raise MeasuredError(f"{where}: scenario: must be an object")
    if not isinstance(source, str):
        raise MeasuredError(f"{where}: source: must be a string")
    if not isinstance(partial, bool):
        raise MeasuredError(f"{where}: partial: must be true or false")
    return Case(case=name, policy=policy, source=_plain(source), scenario=scenario,
                repeats=tuple(counters for _, counters in windows),
                seconds=tuple(seconds for seconds, _ in windows), where=where,
                unknown=_unknown(data.get("observed", {}), where), partial=partial)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a count")


def _text(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= 200:
        raise MeasuredError(f"{where}: {key}: must be a string of 1 to 200 printable characters")
    return value


def _plain(text: str) -> str:
    """`text` with ? for what a terminal might obey: files of /proc are quoted in it."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _check_policy(policy: str, where: str) -> None:
    from reclaim.policies import stages
    try:
        stages.describe(policy)
    except PolicyError as err:
        raise MeasuredError(f"{where}: policy: {err}") from None


def _unknown(observed: Any, where: str) -> dict[str, str]:
    if not isinstance(observed, dict):
        raise MeasuredError(f"{where}: observed: must be an object")
    unknown = observed.get("unknown", {})
    if not isinstance(unknown, dict) or not all(isinstance(why, str) for why in unknown.values()):
        raise MeasuredError(f"{where}: observed.unknown: must be an object of key = reason")
    return {_plain(key): _plain(why) for key, why in unknown.items()}


def _window(run: Any, where: str) -> tuple[float, dict[str, int]]:
    if not isinstance(run, dict) or not isinstance(run.get("whole"), dict):
        raise MeasuredError(f"{where}.whole: missing")
    seconds, counters = run["whole"].get("seconds", 0), run["whole"].get("counters")
    if not isinstance(counters, dict):
        raise MeasuredError(f"{where}.whole.counters: must be an object of counter = number")
    if type(seconds) not in (int, float) or not 0 <= seconds <= MAX_SECONDS:
        raise MeasuredError(f"{where}.whole.seconds = {json.dumps(seconds)[:60]}: must be a number of "
                            f"0 to {MAX_SECONDS:g}")
    return float(seconds), {name: _count(value, f"{where}.whole.counters.{name}")
                            for name, value in counters.items()}


def _count(value: Any, where: str) -> int:
    """A count, or the sum of a list of one per CPU."""
    counts = value if isinstance(value, list) else [value]
    if not counts or not all(type(n) is int and 0 <= n < 2**64 for n in counts):
        raise MeasuredError(f"{where} = {json.dumps(value)[:60]}: must be a count, or a list of one for "
                            "each CPU")
    return sum(counts)


def _difference(a: Any, b: Any) -> str:
    """Where two values first differ, as ``.memcg.limit``."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(a.keys() | b.keys()):
            if key not in a or key not in b or a[key] != b[key]:
                return f".{_plain(key)}" + _difference(a.get(key), b.get(key))
    return ""


def _same(a: Any, b: Any) -> bool:
    try:
        return parse_size(a) == parse_size(b)
    except ValueError:
        return bool(a == b)
