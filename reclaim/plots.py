"""Pictures of results, with matplotlib (``pip install "reclaim-sim[plot]"``).

Every kind is one function, registered by `_kind`.  Series differ in lightness, hatch and label and
not in hue alone, so that the pictures survive colour blindness and a greyscale print.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reclaim import names
from reclaim.errors import ResultError, did_you_mean
from reclaim.files import check_directory, replacing
from reclaim.histograms import edges, percentile, show_ns
from reclaim.result import Result, show_number

if TYPE_CHECKING:
    from reclaim.anatomy import Flush
    from reclaim.grid import Grid

SUFFIXES = ("svg", "png", "pdf")
WIDTH = 5.4         # of a picture [inches]: its text can be read on a phone
MAX_RESULTS = 64
MAX_GROUPS = 6      # that one picture can show apart
MAX_LABELLED = 3    # of which each can have its numbers beside it
RARE = 0.001        # values of a histogram below this share do not widen it
MAX_BARS = 64       # values of a histogram; with more it is a line

_Plot = Callable[[Sequence[Result]], Any]
_KINDS: dict[str, _Plot] = {}

# Before and after first: dark and light, then others; from Okabe and Ito's palette.
_SERIES = (("#0072B2", ""), ("#E69F00", "////"), ("#009E73", "...."), ("#CC79A7", "xxxx"),
           ("#56B4E9", "\\\\\\\\"), ("#D55E00", "++++"))
_LINES = ("-", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
_PUBLISHED = "#222222"
# Each category of time: what is shown of it, colour, hatch.  Neighbours differ in lightness.
_TIME = {
    "user": ("user code", "#009E73", ""), "walk": ("page walks", "#BFE8DA", "...."),
    "fault": ("faults", "#56B4E9", ""), "swap": ("swap in and out", "#F0E442", ""),
    "scan": ("LRU scans", "#0072B2", ""), "unmap": ("unmapping", "#9CCBE8", "\\\\\\\\"),
    "flush": ("flushes: sending", "#D55E00", ""), "flush_wait": ("flushes: waiting", "#FFD1A3", "////"),
    "interrupt": ("interrupts", "#7A3B00", ""), "lock_wait": ("waiting for locks", "#E6B8D2", "xxxx"),
    "sched": ("scheduling", "#555555", ""), "idle": ("idle", "#EEEEEE", ""),
    "steal": ("host runs another", "#CCCCCC", "----"),
}
_SMALL = 0.01       # a category below this share in every bar is summed with the others
_STYLE = {"font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 11, "axes.spines.top": False,
          "axes.spines.right": False, "hatch.linewidth": 0.6, "svg.fonttype": "path",
          "svg.hashsalt": "reclaim", "figure.dpi": 100, "axes.axisbelow": True}


def _kind(name: str) -> Callable[[_Plot], _Plot]:
    def register(function: _Plot) -> _Plot:
        _KINDS[name] = function
        return function
    return register


def kinds() -> dict[str, str]:
    """Each kind of picture of results, with a sentence about it."""
    return {name: (function.__doc__ or "").strip().split("\n")[0] for name, function in _KINDS.items()}


def check_kind(name: str, others: Sequence[str] = ()) -> str:
    """`name`, if there is such a kind, or it is one of `others`.

    Raises
    ------
    ResultError : there is none.
    """
    known = [*_KINDS, *others]
    if name not in known:
        raise ResultError(f"unknown kind of plot {name!r}: choose from {', '.join(known)}"
                          f"{did_you_mean(name, known)}")
    return name


def plot(results: Result | Sequence[Result], kind: str = "time") -> Any:
    """A matplotlib ``Figure`` of results, `kind` one of `kinds`.

    Results of one scenario and policy are taken together: means of shares, medians of counts.

    Raises
    ------
    ResultError : no such kind, nothing to show in these results, or matplotlib is not installed.
    """
    runs = [results] if isinstance(results, Result) else list(results)
    if not 1 <= len(runs) <= MAX_RESULTS:
        raise ResultError(f"{len(runs)} results: a plot shows 1 to {MAX_RESULTS}")
    draw = _KINDS[check_kind(kind)]
    with context():
        figure: Any = draw(runs)
    return figure


def check_name(path: str) -> str:
    """The kind of file that the name `path` tells: svg, png or pdf.

    Raises
    ------
    ResultError : it tells none of them, or its directory is not there.
    """
    suffix = os.path.splitext(path)[1].lower().removeprefix(".")
    if suffix not in SUFFIXES:
        raise ResultError(f"{path}: the name does not tell the kind of picture: end it in "
                          f"{', '.join('.' + s for s in SUFFIXES)}{did_you_mean(suffix, SUFFIXES)}")
    check_directory(path, ResultError)
    return suffix


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure to `path`, whole or not at all; the same figure gives the same bytes.

    Raises
    ------
    ResultError : the name tells no kind of picture.
    OSError : the file cannot be written.
    """
    name = os.fspath(path)
    suffix = check_name(name)
    with context(), replacing(name, ResultError) as file:
        figure.savefig(file, format=suffix, dpi=160, metadata=_METADATA[suffix])


_METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {},
                                        "pdf": {"CreationDate": None, "ModDate": None}}


def matplotlib() -> Any:
    """The matplotlib package.

    Raises
    ------
    ResultError : it is not installed.
    """
    try:
        import matplotlib as package
        import matplotlib.figure
    except ImportError as err:
        raise ResultError(f'plots need matplotlib ({err}): pip install "reclaim-sim[plot]"') from None
    return package


def context() -> Any:
    """Matplotlib's settings for these pictures, while it is entered."""
    return matplotlib().rc_context(_STYLE)


def _figure(width: float, height: float) -> Any:
    """An empty figure that no window, back end or global state knows."""
    matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    figure = _picture_class()(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@functools.cache
def _picture_class() -> Any:
    """A Figure that a notebook shows by itself, with no %matplotlib before it."""
    from matplotlib.figure import Figure

    class Picture(Figure):      # type: ignore[misc,unused-ignore]
        def _repr_svg_(self) -> str:
            file = io.StringIO()
            with context():
                self.savefig(file, format="svg", metadata=_METADATA["svg"])
            return file.getvalue()

        def __repr__(self) -> str:
            titles = [axes.get_title(loc="left").split("\n")[0] for axes in self.axes]
            return f"<picture: {', '.join(title for title in titles if title) or 'untitled'}>"
    return Picture


@dataclass(frozen=True)
class _Group:
    """The runs of one scenario and policy."""

    label: str
    runs: tuple[Result, ...]
    colour: str
    hatch: str

    def median(self, counter: str) -> float:
        return float(np.median([run.counters.get(counter, 0) for run in self.runs]))

    def histogram(self, name: str) -> NDArray[np.float64]:
        """The sum over the runs."""
        parts = [np.asarray(run.histograms.get(name, ()), dtype=np.float64) for run in self.runs]
        total = np.zeros(max((len(part) for part in parts), default=0))
        for part in parts:
            total[:len(part)] += part
        return total


def _groups(runs: Sequence[Result]) -> list[_Group]:
    found: dict[tuple[str, str], list[Result]] = {}
    for run in runs:
        found.setdefault((run.name, run.policy), []).append(run)
    if len(found) > MAX_GROUPS:
        raise ResultError(f"results of {len(found)} scenarios and policies: a plot shows {MAX_GROUPS} apart; "
                          "give fewer")
    one = len({name for name, _ in found}) == 1
    return [_Group(policy if one else f"{name}\n{policy}", tuple(of), *_SERIES[i])
            for i, ((name, policy), of) in enumerate(found.items())]


def _what(runs: Sequence[Result]) -> str:
    """What ran, for a title."""
    scenarios = list(dict.fromkeys(run.name for run in runs))
    seconds = sorted({run.seconds for run in runs})
    length = f"{seconds[0]:g} s" if len(seconds) == 1 else f"{seconds[0]:g} to {seconds[-1]:g} s"
    partial = ", PARTIAL" if any(run.partial for run in runs) else ""
    name = _cut(scenarios[0], 40) if len(scenarios) == 1 else f"{len(scenarios)} scenarios"
    return f"{name}: {length} simulated{partial}"


def _cut(text: str, length: int) -> str:
    text = text.replace("$", r"\$")      # no mathematics
    return text if len(text) <= length else text[:length - 3] + "..."


def _bar_style(group: _Group) -> dict[str, Any]:
    return {"color": group.colour, "hatch": group.hatch, "edgecolor": "white", "linewidth": 0.8}


def _title(axes: Any, what: str, runs: Sequence[Result], panel: str = "") -> None:
    """Of the picture, and of its first panel."""
    axes.set_title(f"{what}\n{_what(runs)}" + (f"\n{panel}" if panel else ""), loc="left")


@_kind("time")
def _time(runs: Sequence[Result]) -> Any:
    """Where the CPUs' time went, a bar for each policy."""
    groups = _groups(runs)
    shares = [{name: float(np.mean([run.shares().get(name, 0.0) for run in group.runs]))
               for name in names.TIMES} for group in groups]
    if not any(sum(of.values()) for of in shares):
        raise ResultError(f"{_what(runs)}: no time was spent, so there is nothing to show")
    shown = [name for name in _TIME if max(of.get(name, 0.0) for of in shares) >= _SMALL]
    rest = [name for name in _TIME if name not in shown and max(of.get(name, 0.0) for of in shares) > 0]
    rows = -(-(len(shown) + bool(rest)) // 2)
    figure = _figure(WIDTH, 1.5 + 0.62 * len(groups) + 0.24 * rows)
    axes = figure.add_subplot()
    handles = []
    for name in [*shown, *(["other"] if rest else [])]:
        text, colour, hatch = _TIME.get(name, ("other, each below 1%", "#FFFFFF", ""))
        handles.append(_segments(axes, shares, name, shown, rest, text, colour, hatch))
    axes.set_yticks(range(len(groups)), [_cut_lines(group.label) for group in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of all CPUs' time [%]")
    _title(axes, "Where the CPUs' time went", runs)
    figure.legend(handles, [h.get_label() for h in handles], loc="outside lower left", ncols=2,
                  frameon=False, fontsize=9, handlelength=1.6)
    return figure


def _segments(axes: Any, shares: list[dict[str, float]], name: str, shown: list[str], rest: list[str],
              text: str, colour: str, hatch: str) -> Any:
    """The segment `name` in each bar, labelled where there is room."""
    widths = [100 * (sum(of.get(n, 0.0) for n in rest) if name == "other" else of[name]) for of in shares]
    before = shown[:shown.index(name)] if name in shown else shown
    lefts = [100 * sum(of[n] for n in before) for of in shares]
    if len(shares) <= MAX_LABELLED:
        text = f"{_cut(text, 36)} ({', '.join(_percent(width) for width in widths)}%)"
    bars = axes.barh(range(len(shares)), widths, left=lefts, height=0.66, color=colour, hatch=hatch,
                     edgecolor="#333333", linewidth=0.6, label=text)
    for y, (left, width) in enumerate(zip(lefts, widths, strict=True)):
        if width >= 6.5:
            axes.text(left + width / 2, y, f"{width:.0f}%", ha="center", va="center", fontsize=9,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.9})
    return bars


def _percent(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 or value == 0 else f"{value:.1f}"


def _cut_lines(label: str) -> str:
    return "\n".join(_cut(line, 22) for line in label.split("\n"))


@_kind("batches")
def _batches(runs: Sequence[Result]) -> Any:
    """How many dirty folios one flush of a batch covered."""
    return _histogram(runs, "flush_batch_size", "Dirty folios per batch flush", "folios in the batch",
                      "share of batch flushes [%]", "no batches: each dirty folio has a flush of its own")


@_kind("targets")
def _targets(runs: Sequence[Result]) -> Any:
    """How many other CPUs a flush was sent to."""
    return _histogram(runs, "targets_per_flush", "CPUs that a flush was sent to", "target CPUs of the flush",
                      "share of flushes [%]", "no flush was sent to another CPU")


def _histogram(runs: Sequence[Result], name: str, what: str, x: str, y: str, none: str) -> Any:
    groups = _groups(runs)
    counts = [group.histogram(name) for group in groups]
    figure = _figure(WIDTH, 3.6)
    axes = figure.add_subplot()
    present = [(group, of) for group, of in zip(groups, counts, strict=True) if of.sum()]
    used = [np.nonzero(of >= RARE * of.sum())[0] for _, of in present]
    low = min((int(of[0]) for of in used), default=0)
    high = max((int(of[-1]) for of in used), default=1)
    for i, (group, of) in enumerate(present):
        values = np.arange(low, high + 1)
        share = np.zeros(len(values))
        part = of[low:high + 1]
        share[:len(part)] = 100 * part / of.sum()
        mean = float((np.arange(len(of)) * of).sum() / of.sum())
        label = f"{_one_line(group)}: mean {mean:.3g}, {show_number(int(of.sum()))} flushes"
        if len(values) > MAX_BARS:
            axes.stairs(share, np.arange(low, high + 2) - 0.5, color=group.colour, linewidth=1.4,
                        linestyle=_LINES[i % len(_LINES)], label=label)
            continue
        width = 0.84 / len(present)
        axes.bar(values + (i - (len(present) - 1) / 2) * width, share, width, label=label,
                 **_bar_style(group))
    for group, of in zip(groups, counts, strict=True):
        if not of.sum():
            axes.bar([low], [0], color="none", label=f"{_one_line(group)}: {none}")
    margin = 0.7 + 0.02 * (high - low)      # half of a number beside the first bar
    axes.set_xlim(low - margin, high + margin)
    axes.xaxis.set_major_locator(_integers())
    last = max((int(np.nonzero(of)[0][-1]) for _, of in present), default=high)
    axes.set_xlabel(f"{x} [number]" + f"; up to {last}, each below {RARE:.1%}" * (last > high))
    axes.set_ylabel(y)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    _title(axes, what, runs)
    if present:
        _label_peaks(axes, len(present))
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing to show:\n" + none.replace(": ", ":\n"), ha="center", va="center",
                  transform=axes.transAxes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=1, frameon=False,
                  fontsize=9, handlelength=1.6)
    return figure


def _integers() -> Any:
    from matplotlib.ticker import MaxNLocator
    return MaxNLocator(nbins=12, integer=True)


def _one_line(group: _Group) -> str:
    return ", ".join(_cut(line, 40 // (1 + group.label.count("\n"))) for line in group.label.split("\n"))


def _label_peaks(axes: Any, series: int) -> None:
    """The share beside the highest bars, which stand alone enough for it."""
    from matplotlib.patches import Rectangle
    bars = [bar for bar in axes.patches if isinstance(bar, Rectangle) and bar.get_height() > 0]
    if not bars or series > MAX_LABELLED:
        axes.set_ylim(0, None)
        return
    top = max(bar.get_height() for bar in bars)
    axes.set_ylim(0, top * 1.14)
    taken: list[tuple[float, float]] = []
    span = axes.get_xlim()[1] - axes.get_xlim()[0]
    for bar in sorted(bars, key=lambda bar: -bar.get_height())[:5 * max(1, series)]:
        x, y = bar.get_x() + bar.get_width() / 2, bar.get_height()
        crowded = any(abs(x - other) < span / 11 and abs(y - at) < top / 9 for other, at in taken)
        if y >= 0.02 * top and not crowded:
            axes.annotate(f"{y:.0f}%" if series > 1 else f"{_percent(y)}%", (x, y), (0, 2), ha="center",
                          va="bottom", textcoords="offset points", fontsize=7.5 if series > 1 else 8.5)
            taken.append((x, y))


# --- times: how often at most so long

@_kind("latency")
def _latency(runs: Sequence[Result]) -> Any:
    """Latency of direct reclaim, of recorded flushes and faults: the share that took at most so long."""
    return _ecdfs(runs, ("direct_reclaim_latency", "flush_latency", "fault_latency"), "Latencies",
                  "no direct reclaim ended")


@_kind("unmapped")
def _unmapped(runs: Sequence[Result]) -> Any:
    """How long folios wait unmapped: until written, freed, put back or mapped again; of recorded runs."""
    return _ecdfs(runs, ("unmapped_written", "unmapped_freed", "unmapped_put_back", "unmapped_mapped"),
                  "Time that folios wait unmapped", "not recorded: run it with --record")


# Histogram of times -> the panel's heading.
_PANELS = {"direct_reclaim_latency": "direct reclaim", "flush_latency": "flush that is sent to others",
           "fault_latency": "page fault", "unmapped_written": "until written",
           "unmapped_freed": "until freed, clean", "unmapped_put_back": "until put back on the LRU", "unmapped_mapped": "until a fault maps it again"}


def _ecdfs(runs: Sequence[Result], wanted: Sequence[str], what: str, none: str) -> Any:
    """A panel for each of the histograms that holds anything."""
    groups = _groups(runs)
    panels = [name for name in wanted if any(group.histogram(name).sum() for group in groups)]
    if not panels:
        return _nothing(runs, what, none)
    lines = sum(1 + len(groups) for _ in panels)
    figure = _figure(WIDTH, 0.8 + 1.75 * len(panels) + 0.19 * lines)
    grid = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    handles = []
    for axes, name in zip(grid, panels, strict=True):
        axes.set_title(_PANELS[name], loc="left", fontsize=10)
        handles += _ecdf(axes, groups, name)
    _title(grid[0], what, runs, _PANELS[panels[0]])
    grid[-1].set_xlabel("time, logarithmic [s]")
    figure.legend(handles, [h.get_label() for h in handles], loc="outside lower left", ncols=1, frameon=False,
                  fontsize=8.5, handlelength=2.4)
    return figure


def _ecdf(axes: Any, groups: Sequence[_Group], name: str) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
    handles = [Line2D([], [], color="none", label=_PANELS[name] + ":")]
    for i, group in enumerate(groups):
        counts = group.histogram(name)
        if not counts.sum():
            continue
        end = np.maximum(edges(name, len(counts))[1:], 1) / 1e9
        share = 100 * np.cumsum(counts) / counts.sum()
        used = slice(max(0, int(np.nonzero(counts)[0][0]) - 1), int(np.nonzero(counts)[0][-1]) + 1)
        p50, p99 = (_micro(percentile(name, counts, q) or 0) for q in (50, 99))
        handles += axes.step(end[used], share[used], where="post", color=group.colour, linewidth=1.7,
                             linestyle=_LINES[i % len(_LINES)],
                             label=f"  {_one_line(group)}: p50 {p50}, p99 {p99}, "
                                   f"of {show_number(int(counts.sum()))}")
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high < low * 100:                  # not less than two decades, so that there are numbers to read
        middle = (low * high) ** 0.5
        axes.set_xlim(middle / 10, middle * 10)
    axes.xaxis.set_major_locator(LogLocator(numticks=7))
    axes.xaxis.set_major_formatter(EngFormatter(unit="s", sep=" "))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-3, 103)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_ylabel("at most so long [%]", fontsize=9)
    return handles


def _micro(ns: float) -> str:
    return show_ns(ns).replace("us", "\N{MICRO SIGN}s")


def _nothing(runs: Sequence[Result], what: str, none: str) -> Any:
    """A picture that says why there is none."""
    figure = _figure(WIDTH, 2.0)
    axes = figure.add_subplot()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, f"nothing to show:\n{none}", ha="center", va="center", transform=axes.transAxes)
    _title(axes, what, runs)
    return figure


# --- flushes by cause, and who pays

@_kind("causes")
def _causes(runs: Sequence[Result]) -> Any:
    """Flushes sent to other CPUs, requests and IPIs, by what they were for."""
    groups = _groups(runs)
    rates = [{name: _per_second(group, name) for name in ("remote", "targets", "ipis")} for group in groups]
    rows = [i for i in range(len(names.CAUSES)) if any(of["remote"][i] for of in rates)]
    what = "Flushes by cause, sent to other CPUs"
    if not rows:
        return _nothing(runs, what, "no flush was sent to another CPU")
    panel = 0.55 + (0.12 + 0.18 * len(groups)) * len(rows)
    figure = _figure(WIDTH, 0.9 + 3 * panel + 0.2 * len(groups))
    grid = figure.subplots(3, 1)
    for axes, name in zip(grid, ("remote", "targets", "ipis"), strict=True):
        _bars(axes, groups, [[of[name][i] for i in rows] for of in rates])
        axes.set_title({"targets": "requests to CPUs", "ipis": "IPIs"}.get(name, ""), loc="left")
        axes.set_yticks(range(len(rows)), [names.CAUSES[i][0].replace("_", " ") for i in rows])
    grid[-1].set_xlabel("in a simulated second [1/s]")
    _title(grid[0], what, runs, "flushes")
    _legend(figure, grid[0])
    return figure


# Meter -> who pays, and for what.
_PAYERS = {"send": "initiator: sends", "own": "initiator: its own TLB", "wait": "initiator: waits",
           "interrupt": "targets: interrupts", "spin": "bystanders: spin", "sleep": "bystanders: asleep"}


@_kind("payers")
def _payers(runs: Sequence[Result]) -> Any:
    """Who pays for flushes: initiator, targets, and those who wait for a lock meanwhile; of recorded runs."""
    groups = _groups(runs)
    rates = [[float(_per_second(group, name).sum()) / 1e6 for name in _PAYERS] for group in groups]
    what = "Who pays for flushes"
    if not any(map(any, rates)):
        return _nothing(runs, what, "not recorded: run it with --record")
    figure = _figure(WIDTH, 1.3 + (0.22 + 0.2 * len(groups)) * len(_PAYERS) + 0.2 * len(groups))
    axes = figure.add_subplot()
    _bars(axes, groups, rates)
    axes.set_yticks(range(len(_PAYERS)), list(_PAYERS.values()))
    axes.set_xlabel("time of all CPUs or tasks, in a simulated second [ms/s]")
    _title(axes, what, runs)
    _legend(figure, axes)
    return figure


def _per_second(group: _Group, meter: str) -> NDArray[np.float64]:
    """By cause, over the group's runs."""
    total = np.zeros(len(names.CAUSES))
    for run in group.runs:
        values = np.asarray(run.flushes.get(meter, ()), dtype=np.float64)[:len(total)]
        total[:len(values)] += values
    return total / (sum(run.seconds for run in group.runs) or 1)


def _bars(axes: Any, groups: Sequence[_Group], values: Sequence[Sequence[float]]) -> None:
    """Lying bars, a row for each of the values, in it a bar for each group, with its number."""
    width = 0.84 / len(groups)
    top = max(map(max, values)) or 1
    for i, (group, of) in enumerate(zip(groups, values, strict=True)):
        at = np.arange(len(of)) + (i - (len(groups) - 1) / 2) * width
        axes.barh(at, of, width, label=_one_line(group), **_bar_style(group))
        for y, value in zip(at, of, strict=True):
            axes.annotate(_short(value), (value, y), (3, 0), textcoords="offset points", ha="left",
                          va="center", fontsize=min(8.5, 60 * width / len(groups) ** 0.5))
    axes.set_xlim(0, top * 1.45)
    axes.set_ylim(len(values[0]) - 0.4, -0.6)
    from matplotlib.ticker import FuncFormatter, MaxNLocator
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _legend(figure: Any, axes: Any) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=1, frameon=False,
                  fontsize=9, handlelength=1.6)


# --- along the run

@_kind("timeline")
def _timeline(runs: Sequence[Result]) -> Any:
    """Shootdowns, reclaimed pages and time lost to flushes along the run; of runs with an interval."""
    groups = _groups(runs)
    what = "Along the run"
    sampled = [(i, group) for i, group in enumerate(groups) if any(len(run.series.get("to_s", ()))
                                                                    for run in group.runs)]
    if not sampled:
        return _nothing(runs, what, "no samples: run it with --interval")
    figure = _figure(WIDTH, 5.4 + 0.2 * len(groups))
    grid = figure.subplots(3, 1, sharex=True)
    for axes, (y, sums, scale) in zip(grid, _LINES_OF, strict=True):
        for i, group in sampled:
            run = next(run for run in group.runs if len(run.series.get("to_s", ())))
            of = run.series
            length = np.asarray(of["to_s"]) - np.asarray(of["from_s"])
            total = sum((np.asarray(of[name], dtype=np.float64) for name in sums), np.zeros(len(length)))
            cpus = max((len(values) for values in run.times.values()), default=1) if scale else 1
            axes.stairs(total / length * (scale / cpus if scale else 1),
                        [of["from_s"][0], *of["to_s"]], color=group.colour, linewidth=1.5, baseline=None,
                        linestyle=_LINES[i % len(_LINES)],
                        label=_one_line(group) + (f" (seed {run.seed})" if len(group.runs) > 1 else ""))
        axes.set_ylabel(y)
        axes.set_ylim(0, None)
        axes.yaxis.set_major_formatter(lambda value, _: _short(value))
        axes.grid(color="#DDDDDD", linewidth=0.6)
    grid[-1].set_xlabel("simulated time [s]")
    _title(grid[0], what, runs)
    _legend(figure, grid[0])
    return figure


# Axis, what is summed up, and for times what makes them a share of all CPUs [%]: ns a second.
_LINES_OF = (("TLB shootdowns\n[1/s]", ("nr_tlb_remote_flush_received",), 0.0),
             ("pages reclaimed\n[1/s]", ("pgsteal_anon",), 0.0),
             ("sends, waits,\ninterrupts [%]", ("flush", "flush_wait", "interrupt"), 1e-7))


# --- one flush

MAX_ROWS = 34       # CPUs in the picture of a flush


def plot_anatomy(flush: Flush, title: str = "") -> Any:
    """A matplotlib ``Figure`` of a `reclaim.anatomy.Flush`: a row for each CPU, time from left to right."""
    with context():
        return _draw_anatomy(flush, title)


# What a CPU does: colour, hatch.
_DOING = {"sends IPIs": ("#D55E00", ""), "flushes its own TLB": ("#F0E442", ""),
          "waits for answers": ("#FFD1A3", "////"), "called, not yet interrupted": ("#DDDDDD", ""),
          "interrupt": ("#56B4E9", ""), "flush function": ("#0072B2", ""),
          "spins for a lock that the initiator holds": ("#E6B8D2", "xxxx")}


def _draw_anatomy(flush: Flush, title: str) -> Any:
    order = sorted(flush.targets, key=lambda target: (target.entered, target.cpu))
    bystanders = sorted({cpu for cpu, _, _ in flush.spinners})
    rows = [("initiator", flush.cpu), *(("target", target.cpu) for target in order),
            *(("bystander", cpu) for cpu in bystanders)]
    left_out = max(0, len(rows) - MAX_ROWS)
    rows = rows[:MAX_ROWS]
    place = {row: i for i, row in enumerate(rows)}
    bars: list[tuple[str, int, int, int, float]] = []      # what, row, from, to, height

    def bar(what: str, row: tuple[str, int], start: int, end: int, height: float = 0.62) -> None:
        if row in place and end > start >= 0:
            bars.append((what, place[row], start, end, height))
    initiator = ("initiator", flush.cpu)
    if flush.waits_from >= 0:
        bar("waits for answers", initiator, flush.waits_from, flush.ended)
    bar("sends IPIs", initiator, flush.sent_from, flush.sent_to)
    bar("flushes its own TLB", initiator, flush.own_from, flush.own_to)
    for start, end in flush.interrupts:
        bar("interrupt", initiator, start, end, 0.4)
    for target in order:
        row = ("target", target.cpu)
        bar("called, not yet interrupted", row, target.queued, target.entered, 0.2)
        bar("interrupt", row, target.entered, target.left)
        # of a request that came along the function ran as part of what the interrupt's exit spends
        bar("flush function", row, target.began, target.ended, 0.4)
    for cpu, start, end in flush.spinners:
        bar("spins for a lock that the initiator holds", ("bystander", cpu), start, end)
    used = [what for what in _DOING if any(of[0] == what for of in bars)]
    figure = _figure(WIDTH + 0.6, 1.5 + 0.27 * len(rows) + 0.21 * -(-len(used) // 2))
    axes = figure.add_subplot()
    scale, unit = (1e6, "\N{MICRO SIGN}s") if flush.ended - flush.began < 10**9 else (1e9, "ms")
    seen: dict[str, Any] = {}
    for what, y, start, end, height in bars:
        colour, hatch = _DOING[what]
        drawn = axes.barh([y], [(end - start) / scale], left=[(start - flush.began) / scale], height=height,
                          color=colour, hatch=hatch, edgecolor="#333333", linewidth=0.5)
        seen.setdefault(what, drawn)
    axes.axvline((flush.ended - flush.began) / scale, color="#222222", linewidth=1, linestyle=(0, (4, 2)))
    along = {target.cpu for target in order if target.place > 0}
    roles = ["came along" if role == "target" and cpu in along else role for role, cpu in rows]
    axes.set_yticks(range(len(rows)), [f"CPU {cpu}, {role}" for (_, cpu), role in zip(rows, roles, strict=True)])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, None)
    axes.set_xlabel(f"time since the flush began, dashed: its end [{unit}]")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    more = [f"{left_out} more CPUs are not shown"] if left_out else []
    axes.set_title(f"One flush, simulated: {flush.cause.replace('_', ' ')}, "
                   f"{len(flush.targets)} target{'s' * (len(flush.targets) != 1)}, "
                   f"{_micro((flush.ended - flush.began) / 1000)}"
                   + "".join(f"\n{line}" for line in [*([_cut(title, 44)] if title else []), *more]), loc="left")
    figure.legend([seen[what] for what in used], used, loc="outside lower left", ncols=2, frameon=False,
                  fontsize=9, handlelength=1.6)
    return figure


# Count -> what it is called on the axis; all per reclaimed page.
_PER_PAGE = {"tlb_shootdowns": "TLB shootdowns", "function_call_ipis": "function-call\nIPIs",
             "pgscan_anon": "pages scanned"}


@_kind("per-page")
def _per_page(runs: Sequence[Result]) -> Any:
    """Counts for each reclaimed page, beside what was published."""
    groups = _groups(runs)
    published = _published(runs)
    nr = len(groups) + len(published)
    figure = _figure(max(WIDTH, 0.9 + 1.05 * (nr + 1)), 4.0)
    axes = figure.add_subplot()
    width = 0.86 / nr
    top = 0.0
    for i, group in enumerate(groups):
        for at, counter in enumerate(_PER_PAGE):
            values = [run.counters.get(counter, 0) / run.counters["pgsteal_anon"] for run in group.runs
                      if run.counters.get("pgsteal_anon")]
            if not values:
                raise ResultError(f"{_one_line(group)}: nothing was reclaimed, so nothing is per reclaimed "
                                  "page; run it longer")
            middle = float(np.median(values))
            x = at + (i - (nr - 1) / 2) * width
            axes.bar([x], [middle], width, **_bar_style(group), label=_one_line(group) + ", simulated"
                     if at == 0 else None)
            if len(values) > 1:
                axes.errorbar([x], [middle], [[middle - min(values)], [max(values) - middle]], fmt="none",
                              ecolor="#222222", capsize=2, linewidth=1)
            top = max(top, max(values))
            _value(axes, x, max(values), middle)
    for i, (label, of, fill) in enumerate(published):
        for at, counter in enumerate(_PER_PAGE):
            if counter not in of or not of.get("pgsteal_anon"):
                continue
            value = of[counter] / of["pgsteal_anon"]
            x = at + (len(groups) + i - (nr - 1) / 2) * width
            axes.bar([x], [value], width, facecolor=fill, edgecolor=_PUBLISHED, linewidth=1.1,
                     linestyle=(0, (3, 1.5)), label=label if at == 0 else None)
            top = max(top, value)
            _value(axes, x, value, value)
    axes.set_xticks(range(len(_PER_PAGE)), list(_PER_PAGE.values()))
    axes.set_xlim(-0.55, len(_PER_PAGE) - 0.45)
    axes.set_ylim(0, top * 1.12 or 1)
    axes.set_ylabel("count per reclaimed page [1/page]")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    _title(axes, "Counts per reclaimed page", runs)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False,
                  fontsize=9, handlelength=1.6)
    return figure


def _value(axes: Any, x: float, y: float, value: float) -> None:
    axes.annotate(f"{value:.2f}" if value < 10 else f"{value:.1f}", (x, y), (0, 2.5), ha="center",
                  va="bottom", textcoords="offset points", fontsize=8.5)


def _published(runs: Sequence[Result]) -> list[tuple[str, dict[str, Any], str]]:
    """(label, table, fill) of the published sides, if all runs have the same."""
    tables = [getattr(run.scenario, "published", {}) for run in runs]
    if any(table != tables[0] for table in tables) or not tables[0]:
        return []
    return [(f"published, {side}", tables[0][side], fill)
            for side, fill in (("before", "#BBBBBB"), ("after", "#FFFFFF")) if tables[0].get(side)]


def plot_grid(grid: Grid) -> Any:
    """A matplotlib ``Figure`` of a `reclaim.grid.Grid`: a cell for each pair of values."""
    with context():
        return _draw_grid(grid)


def _draw_grid(grid: Grid) -> Any:
    (x_name, xs), (y_name, ys) = grid.axes
    figure = _figure(max(5.2, min(16.0, 2.6 + 0.72 * len(xs))), max(3.0, min(16.0, 1.9 + 0.46 * len(ys))))
    axes = figure.add_subplot()
    values = np.ma.masked_invalid(grid.values)
    axes.set_facecolor("#FFFFFF")
    mesh = axes.pcolormesh(values, cmap="cividis", edgecolors="white", linewidth=1)
    low, high = mesh.get_clim() if values.count() else (0.0, 1.0)
    for i in range(len(ys)):
        for j in range(len(xs)):
            value = grid.values[i, j]
            known = bool(np.isfinite(value))
            light = not known or (value - low) / ((high - low) or 1) > 0.55
            axes.text(j + 0.5, i + 0.5, _grid_number(float(value)) if known else "-", ha="center",
                      va="center", color="black" if light else "white", fontsize=9 if len(xs) <= 16 else 6)
    axes.set_xticks(np.arange(len(xs)) + 0.5, [_cut(str(x), 18) for x in xs],
                    rotation=0 if max(len(str(x)) for x in xs) * len(xs) <= 60 else 40,
                    ha="center" if max(len(str(x)) for x in xs) * len(xs) <= 60 else "right")
    axes.set_yticks(np.arange(len(ys)) + 0.5, [_cut(str(y), 18) for y in ys])
    axes.set_xlabel(_cut(grid.label(x_name), 60))
    axes.set_ylabel(_cut(grid.label(y_name), 60))
    axes.tick_params(length=0)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.9)
    bar.set_label(grid.metric_label, fontsize=9)
    bar.ax.yaxis.set_major_formatter(lambda value, _: _grid_number(value))
    bar.outline.set_visible(False)
    missing = "" if np.isfinite(grid.values).all() else " (-: none)"
    axes.set_title(f"{grid.metric}{missing}\n{_cut(grid.title, 56)}", loc="left")
    return figure


def _grid_number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 10_000 else f"{value / 1000:,.0f}k" if abs(value) < 1e6 \
        else f"{value / 1e6:,.3g}M"
