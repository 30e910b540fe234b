"""One metric over two parameters: a small sweep, for a picture or a table."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reclaim.comparison import RATIOS, simulate
from reclaim.errors import ResultError, did_you_mean
from reclaim.result import html_table, ratio, show_number
from reclaim.scenario import Scenario

MAX_RUNS = 400
POLICY = "policy"     # the axis of policies; "policy.flush" of one slot's strategies

_Axis = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class Grid:
    """A metric for each pair of values of two parameters.  All numbers are simulated.

    scenario : what ran, but for the parameters.
    policy : under which, but for the parameters.
    metric : a counter or a ratio of `reclaim.comparison.RATIOS`.
    axes : (parameter, its values) of the columns and of the rows.
    values : shape (rows, columns); NaN where nothing ran or the metric has no value.
    partial : interrupted.
    """

    scenario: Scenario
    policy: str
    metric: str
    axes: tuple[_Axis, _Axis]
    values: NDArray[np.float64]
    partial: bool = False

    @property
    def title(self) -> str:
        """What ran."""
        policies = any(name == POLICY for name, _ in self.axes)
        return (f"{self.scenario.name}: {self.scenario.seconds:g} s simulated"
                + f", {self.policy}" * (not policies)
                + (", PARTIAL" if self.partial else ""))

    @property
    def metric_label(self) -> str:
        """The metric with its unit, for an axis."""
        return f"{self.metric} [{_unit(self.metric)}]"

    def label(self, name: str) -> str:
        """A parameter with its unit, for an axis."""
        unit = _UNITS.get(name.rsplit(".", 1)[-1], "")
        return f"{name} [{unit}]" if unit else name

    def to_dict(self) -> dict[str, Any]:
        """As ``plot --kind grid --json`` prints it; None where a metric has no value."""
        return {"scenario": self.scenario.name, "seconds": self.scenario.seconds, "policy": self.policy,
                "metric": self.metric, "columns": {self.axes[0][0]: list(self.axes[0][1])},
                "rows": {self.axes[1][0]: list(self.axes[1][1])},
                "values": [[float(v) if np.isfinite(v) else None for v in row] for row in self.values],
                **({"partial": True} if self.partial else {})}

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        (x_name, xs), (y_name, ys) = self.axes
        rows = [[str(y), *(show_number(float(v)) if np.isfinite(v) else "-" for v in row)]
                for y, row in zip(ys, self.values, strict=True)]
        return [f"{y_name} \\ {x_name}", *map(str, xs)], rows

    def __repr__(self) -> str:
        head, rows = self._cells()
        widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
        return "\n".join([f"{self.metric_label}; {self.title}", "", *(
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in [head, *rows])])

    def _repr_html_(self) -> str:
        return html_table(f"{self.metric_label}; {self.title}", *self._cells())


_UNITS = {"cpus": "CPUs", "host_cpus": "CPUs", "limit": "bytes", "total": "bytes", "bytes": "bytes",
          "size": "bytes", "workers": "tasks", "seconds": "s", "warmup": "s", "latency": "s",
          "depth": "requests", "bandwidth": "bytes/s", "swappiness": "0 to 200", "flush": "strategy",
          "policy": "name", "seed": "number"}


def _unit(metric: str) -> str:
    if metric in RATIOS:
        return "1/page" if metric.endswith("_per_page") else "ratio"
    return {"bogo_ops_per_s": "1/s"}.get(metric, "count")


def run_grid(scenario: Scenario | str, over: Mapping[str, Sequence[Any]], *, policy: str = "stage5",
             metric: str = "tlb_shootdowns_per_page", seconds: float | None = None,
             progress: Callable[[float, float], None] | None = None) -> Grid:
    """Run every pair of values of two parameters, and keep one metric of each.

    Parameters
    ----------
    scenario : a `Scenario`, a packaged name or the path of a TOML file.
    over : two parameters, the columns' and the rows', each with its values: keys of the scenario
        (``"memcg.limit"``), ``"policy"``, or a slot of the policy (``"policy.flush"``).
    policy : what the policy is, but for the parameters.
    metric : a counter, or a ratio of `reclaim.comparison.RATIOS`.
    progress : called with the share of all runs done and the simulated seconds of this one.

    Returns
    -------
    Grid : partial, with the runs made so far, after a KeyboardInterrupt.

    Raises
    ------
    ReclaimError : bad input, all of which is checked before the first run.
    """
    if not isinstance(scenario, Scenario):
        scenario = Scenario.load(scenario)
    if seconds is not None:
        scenario = scenario.replace(seconds=seconds, where="seconds")
    axes = _axes(over)
    if axes[0][0] == axes[1][0]:
        raise ResultError(f"both parameters are {axes[0][0]!r}: a grid needs two")
    check_metric(metric)
    (x_name, xs), (y_name, ys) = axes
    cells = [(i, j, _cell(scenario, policy, {x_name: x, y_name: y}))
             for i, y in enumerate(ys) for j, x in enumerate(xs)]
    values = np.full((len(ys), len(xs)), np.nan)
    partial = False
    try:
        for done, (i, j, (changed, chosen)) in enumerate(cells):
            result = simulate(changed, chosen, progress=_part(progress, done, len(cells)))
            if result.partial:
                partial = True
                break
            values[i, j] = _measure(metric, result.counters)
    except KeyboardInterrupt:
        partial = True
    return Grid(scenario, policy, metric, axes, values, partial)


def _axes(over: Mapping[str, Sequence[Any]]) -> tuple[_Axis, _Axis]:
    axes = [(name, tuple(values)) for name, values in over.items()]
    if len(axes) != 2:
        raise ResultError(f"{len(axes)} parameters: a grid is over two, as "
                          "machine.cpus=2,4,8 and memcg.limit=4M,8M")
    for name, values in axes:
        if not values:
            raise ResultError(f"{name}: no values; give some, as {name}=A,B,C")
    runs = len(axes[0][1]) * len(axes[1][1])
    if runs > MAX_RUNS:
        raise ResultError(f"{len(axes[0][1])} by {len(axes[1][1])} values are {runs} runs: at most "
                          f"{MAX_RUNS}; give fewer values")
    return axes[0], axes[1]


def check_metric(metric: str) -> str:
    """`metric`, if a result has it.

    Raises
    ------
    ResultError : none has.
    """
    from reclaim.names import COUNTERS
    known = [*RATIOS, *COUNTERS, "tlb_shootdowns", "tlb_flushes", "bogo_ops_per_s"]
    if metric not in known:
        raise ResultError(f"unknown metric {metric!r}: it is a counter of `reclaim run --json` or one of "
                          f"{', '.join(RATIOS)}{did_you_mean(metric, known)}")
    return metric


def _cell(scenario: Scenario, policy: str, chosen: Mapping[str, Any]) -> tuple[Scenario, Any]:
    """The scenario and policy of one cell, checked."""
    from reclaim import policies
    keys = {name: value for name, value in chosen.items() if name.split(".")[0] != POLICY}
    base = str(chosen.get(POLICY, policy))
    slots = {name.partition(".")[2]: str(value) for name, value in chosen.items()
             if name.startswith(POLICY + ".")}
    changed = scenario.replace(keys, where="grid") if keys else scenario
    return changed, policies.get({"base": base, **slots} if slots else base)


def _measure(metric: str, counters: Mapping[str, Any]) -> float:
    if metric in RATIOS:
        over, under = RATIOS[metric]
        value = ratio(counters.get(over), counters.get(under))
        return float("nan") if value is None else value
    return float(counters[metric])


def _part(progress: Callable[[float, float], None] | None, done: int, total: int) -> Any:
    if progress is None:
        return None
    return lambda share, simulated_s: progress((done + share) / total, simulated_s)


def parse_axis(text: str) -> tuple[str, list[Any]]:
    """A parameter and its values from ``KEY=VALUE,VALUE,...``; a value is as in TOML, quotes left out.

    Raises
    ------
    ResultError : it is not of that form.
    """
    name, equals, rest = text.partition("=")
    values = [value.strip() for value in rest.split(",")]
    if not equals or not name.strip() or not all(values):
        raise ResultError(f"{text!r}: expected KEY=VALUE,VALUE,..., as memcg.limit=4M,8M")
    return name.strip(), [_value(value) for value in values]


def _value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, ValueError, RecursionError):
        return text
    return value if isinstance(value, (int, float, str)) else text
