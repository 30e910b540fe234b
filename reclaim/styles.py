"""The styles in which a comparison is printed: ``reclaim compare --style NAME``.

A style is one function of a `Comparison`, registered by `_style`; nothing else knows its name.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

from reclaim.errors import ReclaimError, did_you_mean

if TYPE_CHECKING:
    from reclaim.comparison import Comparison, Row

_Style = Callable[["Comparison"], str]
_STYLES: dict[str, _Style] = {}


def _style(name: str) -> Callable[[_Style], _Style]:
    def register(function: _Style) -> _Style:
        _STYLES[name] = function
        return function
    return register


def styles() -> dict[str, str]:
    """Each style's name, with a sentence about it."""
    return {name: (function.__doc__ or "").strip().split("\n")[0] for name, function in _STYLES.items()}


def check_style(name: str) -> str:
    """`name`, if there is such a style.

    Raises
    ------
    ReclaimError : there is none.
    """
    if name not in _STYLES:
        raise ReclaimError(f"unknown style {name!r}: choose from {', '.join(_STYLES)}"
                           f"{did_you_mean(name, _STYLES)}")
    return name


def render(comparison: Comparison, style: str) -> str:
    """`comparison` in a style, without a newline at its end.

    Raises
    ------
    ReclaimError : no style of that name.
    """
    return _STYLES[check_style(style)](comparison)


@_style("table")
def _table(c: Comparison) -> str:
    """All columns, beside what was published (the default)."""
    return repr(c)


# The names that the series gives its rows.
_SERIES = {"bogo_ops_per_s": "bogo ops/s", "tlb_shootdowns": "TLB shootdowns",
           "function_call_ipis": "Function call IPIs"}


@_style("lkml")
def _lkml(c: Comparison) -> str:
    """The series' own layout, to be pasted into a mail: 72 columns at most."""
    tested = any(row.p is not None for row in c.rows)
    lines = [_setup(c), "", _lkml_line("(simulated)", "before", "after", "change", "p" * tested)]
    for row in _simulated(c):
        lines.append(_lkml_line(_SERIES.get(row.metric, row.metric), _plain(row, row.before),
                                _plain(row, row.after), _percent(row.delta_pct), _mark(row)))
    lines += ["", f"before: {c.before.policy}; after: {c.after.policy}"]
    if tested:
        nr = min(len(c.before.runs), len(c.after.runs))
        lines.append(f"Medians of {nr} seeds; p of an exact U-test, ~ is not significant.")
    return "\n".join(lines)


def _lkml_line(name: str, before: str, after: str, change: str, mark: str) -> str:
    return f"{name:<28}{before:>13}{after:>13}{change:>9}{mark:>9}".rstrip()


def _setup(c: Comparison) -> str:
    s = c.scenario
    memcg = s.memcg.to_dict()["limit"]
    return (f"{s.name}: {s.machine.cpus} CPUs, memcg {memcg}, {s.swap.kind} swap,\n"
            f"{s.workload.workers} workers of {s.workload.kind}, {s.seconds:g} s" + (", PARTIAL" if c.partial else ""))


def _mark(row: Row) -> str:
    if row.p is None:
        return ""
    return "~" if row.verdict == "~" else f"{row.p:.3f}" if row.p >= 0.001 else "<0.001"


def _simulated(c: Comparison) -> list[Row]:
    """The rows but the speed of the simulator, which means nothing to others."""
    from reclaim.comparison import SPEED
    return [row for row in c.rows if row.metric != SPEED]


def _plain(row: Row, value: float | None) -> str:
    from reclaim.comparison import RATIOS
    if value is None:
        return "-"
    return f"{value:.3f}" if row.metric in RATIOS else f"{value:.{2 * row.metric.endswith('_per_s')}f}"


def _percent(delta: float | None) -> str:
    return "-" if delta is None else f"{delta:+.1f}%"


def _means(row: Row) -> list[tuple[float | None, float]]:
    """Mean and standard deviation [% of it] of both sides; without runs the value itself."""
    pairs: list[tuple[float | None, float]] = []
    for value, runs in ((row.before, row.before_runs), (row.after, row.after_runs)):
        mean = statistics.fmean(runs) if runs else value
        spread = statistics.stdev(runs) / mean * 100 if len(runs) > 1 and mean else 0.0
        pairs.append((mean, spread))
    return pairs


@_style("mmtests")
def _mmtests(c: Comparison) -> str:
    """As mmtests' compare-mmtests.pl prints: means, a positive change is the better one."""
    width = max(len(row.metric) for row in c.rows) + 2
    column = max(24, len(c.before.policy) + 2, len(c.after.policy) + 2)
    lines = [" " * (10 + width) + f"{c.before.policy:>{column}}{c.after.policy:>{column}}"]
    for row in _simulated(c):
        (before, spread), (after, spread_after) = _means(row)
        change = None if after is None or not before else (after / before - 1) * 100 * (row.direction or 1)
        sure = row.verdict not in ("", "~")
        lines.append(f"{'Amean':<10}{row.metric:<{width}}{_mm_cell(before, 0.0, False):>{column}}"
                     f"{_mm_cell(after, change, sure):>{column}}")
        if row.p is not None:
            wider = None if not spread else (1 - spread_after / spread) * 100
            lines.append(f"{'CoeffVar':<10}{row.metric:<{width}}{_mm_cell(spread, 0.0, False):>{column}}"
                         f"{_mm_cell(spread_after, wider, False):>{column}}")
    lines += ["", f"Simulated: {c.scenario.name}, {c.scenario.seconds:g} s, {len(c.before.runs)} run(s)"
              + (", PARTIAL" if c.partial else "") + ". Positive is better; rows without a better way",
              "(pgscan, pgsteal, ipis_per_shootdown): positive is more. *..*: p < 0.05 (exact U-test)."]
    return "\n".join(line.rstrip() for line in lines)


def _mm_cell(value: float | None, change: float | None, sure: bool) -> str:
    if value is None:
        return "-" + " " * 11
    text = f"{value:.2f}" if value >= 10 else f"{value:.3f}"
    if change is None:
        return text + " " * 11
    return f"{text} *{change:7.2f}%*" if sure else f"{text} ({change:7.2f}%)"


# The names that LKP's parsers give the same counts.
_LKP = {"bogo_ops_per_s": "stress-ng.vm.ops_per_sec", "tlb_shootdowns": "interrupts.TLB:TLB_shootdowns",
        "function_call_ipis": "interrupts.CAL:Function_call_interrupts",
        "pgscan_anon": "proc-vmstat.pgscan_anon", "pgsteal_anon": "proc-vmstat.pgsteal_anon"}


@_style("lkp")
def _lkp(c: Comparison) -> str:
    """As the kernel test robot compares: %stddev %change %stddev, of means."""
    lines = [f"{c.before.policy:>16} {c.after.policy:>27}", "-" * 16 + " " + "-" * 27,
             "         %stddev     %change         %stddev", "             \\          |                \\"]
    for row in _simulated(c):
        (before, spread), (after, spread_after) = _means(row)
        change = "-" if after is None or not before else f"{(after / before - 1) * 100:+.1f}%"
        lines.append(_lkp_number(before) + _lkp_spread(spread) + f" {change:>11} " + _lkp_number(after)
                     + _lkp_spread(spread_after) + "  " + _LKP.get(row.metric, f"reclaim.{row.metric}"))
    lines += ["", f"Simulated: {c.scenario.name}, {c.scenario.seconds:g} s, {len(c.before.runs)} run(s)"
              + (", PARTIAL" if c.partial else "") + "."]
    return "\n".join(lines)


def _lkp_number(value: float | None) -> str:
    if value is None:
        return f"{'-':>10}"
    return f"{value:10.4g}" if value >= 1e8 else f"{value:10.2f}" if value < 1000 else f"{value:10.0f}"


def _lkp_spread(percent: float) -> str:
    return f" ±{percent:3.0f}%" if percent > 2 else " " * 6


@_style("markdown")
def _markdown(c: Comparison) -> str:
    """A table for a code host or a wiki."""
    head, table = c.cells()

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
                                 for cell in cells) + " |"
    align = "|" + "|".join([":---", *["---:"] * (len(head) - 1)]) + "|"
    return "\n".join([c.title().replace("<", "&lt;"), "", line(head), align, *map(line, table), "",
                      *(f"- {note}".replace("<", "&lt;") for note in c.notes())])


@_style("csv")
def _csv(c: Comparison) -> str:
    """Numbers in full, for a spreadsheet: one row a metric, changes in percent."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["metric", "before", "after", "delta_pct", "low_pct", "high_pct", "p", "verdict",
                     "published_before", "published_after", "scenario", "seconds", "before_policy",
                     "after_policy", "seeds", "partial"])
    for row in c.rows:
        low, high = row.interval_pct or (None, None)
        writer.writerow([row.metric, row.before, row.after, row.delta_pct, low, high, row.p, row.verdict,
                         row.published_before, row.published_after, c.scenario.name, c.scenario.seconds,
                         c.before.policy, c.after.policy, len(c.before.runs), int(c.partial)])
    return out.getvalue().rstrip("\n")


@_style("json")
def _json(c: Comparison) -> str:
    """All there is: the runs' counters and the rows."""
    return json.dumps(c.to_dict(), indent=1, allow_nan=False)

