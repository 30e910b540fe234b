"""Runs of real kernels: a line of JSON each, with the scenario in the keys of `reclaim.scenario`.

    {"case": ..., "policy": ..., "source": ..., "scenario": {...},
     "repeats": [{"whole": {"seconds": ..., "counters": {...}}}, ...]}

A counter is a number, or a list of one per CPU.  What else a line holds is not read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from reclaim.errors import MeasuredError, PolicyError, ScenarioError
from reclaim.scenario import Scenario

PACKAGED = "kernel_runs.jsonl"
MAX_FILE = 1 << 28
BASELINE = "stage0"        # the kernel before the series


@dataclass(frozen=True)
class Case:
    """One configuration, measured once or more.

    case : its name; with `policy` unique in a file.
    policy : ``stage0`` for an unpatched kernel.
    source : what it was measured on.
    scenario : as written.
    repeats : the counters of each run, a list of one per CPU added up.
    seconds : the length of each run.
    where : file and line.
    """

    case: str
    policy: str
    source: str
    scenario: Mapping[str, Any] | None
    repeats: tuple[Mapping[str, float], ...]
    seconds: tuple[float, ...]
    where: str

    @property
    def key(self) -> tuple[str, str]:
        """Case and policy."""
        return self.case, self.policy

    @property
    def before(self) -> bool:
        """Whether the kernel was an unpatched one."""
        return self.policy == BASELINE

    def load_scenario(self, profile: str | None = None) -> Scenario:
        """The scenario.  Its machine profile, if it names none: `tcg-rr` when the CPUs shared
        host CPUs, else `profile`, else the default.

        Raises
        ------
        ScenarioError : it has none, or the model does not take it.
        """
        if self.scenario is None:
            raise ScenarioError(f"{self.where}: scenario: missing")
        data = {"name": self.case, **self.scenario}
        machine = data.get("machine", {})
        if isinstance(machine, Mapping) and "profile" not in machine:
            chosen = "tcg-rr" if machine.get("host_cpus") else profile
            data["machine"] = {**machine, **({"profile": chosen} if chosen else {})}
        return Scenario.from_dict(data, where=self.where)


def packaged() -> str:
    """The text of the runs that the package brings."""
    return resources.files("reclaim").joinpath("data", PACKAGED).read_text("utf-8")


def load(path: str | None = None) -> list[Case]:
    """The cases of the file at `path`; None: those that the package brings.

    Raises
    ------
    MeasuredError : with file, line and key of what is wrong.
    """
    name = PACKAGED if path is None else path
    lines = (packaged() if path is None else read(path)).splitlines()
    cases: list[Case] = []
    seen: dict[tuple[str, str], str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        case = _case(line, f"{name}:{number}")
        if case.key in seen:
            raise MeasuredError(f"{case.where}: case and policy are those of {seen[case.key]}; "
                                "put all runs of a configuration into the repeats of one line")
        seen[case.key] = case.where
        cases.append(case)
    if not cases:
        raise MeasuredError(f"{name}: no case in it")
    return cases


def read(path: str) -> str:
    """The text of the file at `path`; every way in which that can fail is a MeasuredError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_FILE + 1)
        if len(raw) > MAX_FILE:
            raise MeasuredError(f"{path}: longer than {MAX_FILE} bytes")
        return raw.decode("utf-8")
    except OSError as err:
        raise MeasuredError(f"{path}: {err.strerror or err}") from None
    except UnicodeDecodeError as err:
        raise MeasuredError(f"{path}: not UTF-8 at byte {err.start}") from None
    except MeasuredError:
        raise
    except ValueError as err:       # a NUL in the path
        raise MeasuredError(f"{path!r}: {err}") from None


def _case(line: str, where: str) -> Case:
    try:
        data = json.loads(line)
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
    scenario = data.get("scenario")
    if scenario is not None and not isinstance(scenario, dict):
        raise MeasuredError(f"{where}: scenario: must be an object")
    return Case(case=name, policy=policy, source=str(data.get("source", "")), scenario=scenario,
                repeats=tuple(counters for _, counters in windows),
                seconds=tuple(seconds for seconds, _ in windows), where=where)


def _text(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= 200:
        raise MeasuredError(f"{where}: {key}: must be a string of 1 to 200 printable characters")
    return value


def _check_policy(policy: str, where: str) -> None:
    from reclaim.policies import stages
    try:
        stages.describe(policy)
    except PolicyError as err:
        raise MeasuredError(f"{where}: policy: {err}") from None


def _window(run: Any, where: str) -> tuple[float, dict[str, float]]:
    if not isinstance(run, dict) or not isinstance(run.get("whole"), dict):
        raise MeasuredError(f"{where}.whole: missing")
    whole = run["whole"]
    if not isinstance(whole.get("counters"), dict):
        raise MeasuredError(f"{where}.whole.counters: must be an object of counter = number")
    counters = {name: _count(value, f"{where}.whole.counters.{name}")
                for name, value in whole["counters"].items()}
    if not counters.get("pgsteal_anon"):
        raise MeasuredError(f"{where}.whole.counters.pgsteal_anon: must be above 0: nothing was "
                            "reclaimed, or not counted")
    return _count(whole.get("seconds", 0), f"{where}.whole.seconds"), counters


def _count(value: Any, where: str) -> float:
    """A number, or the sum of a list of one per CPU."""
    numbers = value if isinstance(value, list) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)) \
                or not math.isfinite(number) or number < 0:
            raise MeasuredError(f"{where}: must be a number of 0 or more, or a list of such, "
                                f"got {json.dumps(value)[:60]}")
    return sum(numbers)
