"""``reclaim report``: one page that holds a comparison, its pictures, assumptions and provenance.

The page has no script, no font and no link to anything outside: it can be mailed, and read years on.
"""

from __future__ import annotations

import html
import io
import itertools
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from reclaim import plots
from reclaim.anatomy import anatomy
from reclaim.comparison import RATIOS, Comparison, Row, show_interval, show_p
from reclaim.errors import ReclaimError, ResultError
from reclaim.files import check_directory, replacing
from reclaim.histograms import METRICS
from reclaim.result import Result, show_number
from reclaim.saved import slots
from reclaim.scenario import Scenario, Workload

MAX_COMMANDS = 20     # runs of a side whose command is printed
_KINDS = ("per-page", "time", "causes", "targets", "batches", "latency", "payers", "unmapped", "timeline")

# A picture is described in words too, for whoever does not see it.
_SAYS = {"per-page": "Bars of TLB shootdowns, function-call IPIs and scanned pages for each reclaimed page.",
         "time": "Stacked bars of where the CPUs' time went under each policy.",
         "targets": "A histogram of the number of CPUs that a flush was sent to.",
         "batches": "A histogram of the number of dirty folios that one batch flush covered.",
         "causes": "Bars of flushes, requests to other CPUs and IPIs a second, by what the flush was for.",
         "latency": "Curves: the share of direct reclaims, and of recorded flushes and faults, that took at "
                    "most so long.",
         "payers": "Bars of the time that flushes cost who asks for them, their targets and bystanders.",
         "unmapped": "Curves: the share of folios that waited unmapped at most so long.",
         "timeline": "Lines of shootdowns, reclaimed pages and time spent on flushes along the run.",
         "anatomy": "One flush: a row for each CPU, what it does while time goes from left to right."}

_ROWS = {"bogo_ops_per_s": ("Bogo operations per second", "1/s"),
         "tlb_shootdowns": ("TLB shootdowns received", "count"),
         "function_call_ipis": ("Function-call IPIs", "count"), "pgscan_anon": ("Pages scanned", "count"),
         "pgsteal_anon": ("Pages reclaimed", "count"),
         "tlb_shootdowns_per_page": ("TLB shootdowns per reclaimed page", "1/page"),
         "function_call_ipis_per_page": ("Function-call IPIs per reclaimed page", "1/page"),
         "steal_per_scan": ("Pages reclaimed per page scanned", "ratio"),
         "ipis_per_shootdown": ("IPIs per shootdown", "ratio"),
         "simulated_s_per_wall_s": ("Speed of the simulation", "simulated s / s"),
         **{metric: (f"{name.replace('_', ' ').capitalize()}, {q:g}th percentile", "ns")
            for metric, (name, q) in METRICS.items()}}

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, "DejaVu Sans", Arial, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ccc; }
p, ul { margin: .5rem 0; max-width: 46rem; }
ul { padding-left: 1.2rem; }
.simulated { background: #fff6d6; border-left: 4px solid #b58900; padding: .5rem .75rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .25rem 0; color: #444; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top;
  overflow-wrap: normal; }
th:first-child, td:first-child { text-align: left; }
tbody th { font-weight: 500; }
.unit { color: #555; font-size: .8rem; display: block; }
.keys td, .keys th { text-align: left; overflow-wrap: anywhere; }
.keys thead th { overflow-wrap: normal; }
.keys code { font-size: .8rem; }
.keys th:first-child { width: 45%; }
figure { margin: 1rem 0; max-width: 38rem; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { color: #444; font-size: .9rem; }
pre { background: #f4f4f4; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .85rem; }
footer { margin-top: 2rem; color: #555; font-size: .85rem; }
@media (max-width: 40rem) {
  body { padding: .75rem; }
  .stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .stack tr { display: block; border-bottom: 2px solid #bbb; padding: .4rem 0; }
  .stack th, .stack td { display: flex; justify-content: space-between; gap: 1rem; text-align: right;
    border: 0; padding: .1rem 0; width: 100%; }
  .stack tbody th { display: block; text-align: left; font-weight: 600; }
  .stack td[data-label]::before { content: attr(data-label); color: #444; text-align: left; flex: none;
    overflow-wrap: normal; }
  .unit { display: inline; }
}
@media print { body { max-width: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def write(comparison: Comparison, path: str | os.PathLike[str], *, command: Sequence[str] = (),
          stated: Mapping[str, Any] | None = None) -> list[str]:
    """Write the page to `path`, whole or not at all; the sentences about what it lacks.

    Parameters
    ----------
    command : the command line that repeats it; by default the runs' own.
    stated : the keys that the scenario's file gives, nested as in TOML; by default those of the
        packaged scenario of that name.

    Raises
    ------
    ResultError : `path` is no name for a page.
    OSError : it cannot be written.
    """
    name = check_name(os.fspath(path))
    text, lacks = page(comparison, command=command, stated=stated)
    with replacing(name, ResultError) as file:
        file.write(text.encode("utf-8"))
    return lacks


def check_name(name: str) -> str:
    """`name`, if it is one for a page in a directory that is there.

    Raises
    ------
    ResultError : it is not.
    """
    if not name.endswith((".html", ".htm")):
        raise ResultError(f"{name}: a report is a page: give it a name that ends in .html")
    return check_directory(name, ResultError)


def page(comparison: Comparison, *, command: Sequence[str] = (),
         stated: Mapping[str, Any] | None = None) -> tuple[str, list[str]]:
    """The page, and the sentences about what it lacks."""
    figures, lacks = _figures(comparison)
    title = f"{comparison.scenario.name}: {comparison.before.policy} and {comparison.after.policy}"
    parts = [
        f"<h1>{_e(title)}</h1>",
        f'<p class="simulated"><strong>Simulated.</strong> {_e(comparison.title())}. Every number here '
        "but those marked published comes from the simulator <em>reclaim</em>, none from a kernel.</p>",
        _summary(comparison), "<h2>The table</h2>", _table(comparison), _list(comparison.notes()),
        "<h2>Pictures</h2>", *figures, *(f"<p>{_e(sentence)}</p>" for sentence in lacks),
        "<h2>Assumptions</h2>", _assumptions(comparison, stated),
        "<h2>Provenance</h2>", _provenance(comparison),
        "<h2>To repeat it</h2>", _command(comparison, command),
    ]
    body = "\n".join(parts)
    return ("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "style-src 'unsafe-inline'; img-src data:\">\n"
            f"<title>{_e(title)}, simulated</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n{body}\n"
            "</main>\n</body>\n</html>\n"), lacks


def _e(text: object) -> str:
    return html.escape(str(text))


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{_e(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _summary(c: Comparison) -> str:
    """What changed, in a sentence for each of the counts that do not depend on throughput."""
    sentences = []
    few = min(len(c.before.runs), len(c.after.runs)) < 4
    unsure = " (too few seeds for a test)" if few else " (not significant)"
    for row in c.rows:
        if row.metric not in RATIOS or row.before is None or row.after is None or row.delta_pct is None:
            continue
        name = _ROWS[row.metric][0]
        verdict = {"": "", "~": unsure}.get(row.verdict, f" ({row.verdict}, p = {show_p(row.p)})")
        published = "" if row.published_delta_pct is None else f"; published {row.published_delta_pct:+.1f}%"
        sentences.append(f"{name}: {show_number(row.before)} before, {show_number(row.after)} after, "
                         f"{row.delta_pct:+.1f}%{verdict}{published}.")
    return _list(sentences)


def _table(c: Comparison) -> str:
    published = any(row.published_before is not None or row.published_after is not None for row in c.rows)
    tested = any(row.p is not None for row in c.rows)
    head = [f"{c.before.policy} (before)", f"{c.after.policy} (after)", "change"]
    head += ["95% interval", "p", "verdict"] * tested
    head += ["published before", "published after", "published change"] * published
    rows = "".join(_row(row, head, tested, published) for row in c.rows)
    return (f'<div class="wide"><table class="stack"><caption>{_e(c.title())}</caption><thead><tr>'
            '<th scope="col">metric</th>' + "".join(f'<th scope="col">{_e(cell)}</th>' for cell in head)
            + f"</tr></thead><tbody>{rows}</tbody></table></div>")


def _row(row: Row, head: list[str], tested: bool, published: bool) -> str:
    name, unit = _ROWS.get(row.metric, (row.metric, ""))
    cells = [show_number(row.before), show_number(row.after), _percent(row.delta_pct)]
    if tested:
        cells += [show_interval(row.interval_pct), show_p(row.p), row.verdict or "-"]
    if published:
        cells += [show_number(row.published_before), show_number(row.published_after),
                  _percent(row.published_delta_pct)]
    return (f'<tr><th scope="row">{_e(name)} <span class="unit">{_e(unit)}; {_e(row.metric)}</span></th>'
            + "".join(f'<td data-label="{_e(label)}">{_e(cell)}</td>'
                      for label, cell in zip(head, cells, strict=True)) + "</tr>")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}%"


def _figures(c: Comparison) -> tuple[list[str], list[str]]:
    """The pictures as inline svg, and why one is not there."""
    runs = [*c.before.runs, *c.after.runs]
    figures, lacks = [], []
    try:
        plots.matplotlib()
    except ResultError as err:
        return [], [f"There is no picture on this page: {err}"]
    for kind in _KINDS:
        if not _has(kind, runs):
            continue
        try:
            svg = _svg(plots.plot(runs, kind), kind)
        except ResultError as err:
            lacks.append(f"No picture {kind!r}: {err}")
            continue
        figures.append(f'<figure>{svg}<figcaption>{_e(_SAYS[kind])} Simulated'
                       + ", beside the published values" * (kind == "per-page" and bool(c.scenario.published))
                       + ".</figcaption></figure>")
    return figures + _anatomies(c), lacks


def _has(kind: str, runs: Sequence[Result]) -> bool:
    """Do the runs hold what was not asked of every run?"""
    return (any(run.series for run in runs) if kind == "timeline"
            else any("elapsed" in run.flushes for run in runs) if kind in ("payers", "unmapped") else True)


def _anatomies(c: Comparison) -> list[str]:
    """A flush of each side, of a run made anew; none where the policy is not known by name here."""
    figures = []
    for side, of in (("before", c.before), ("after", c.after)):
        run = of.runs[0] if of.runs else None
        if run is None or not isinstance(run.scenario, Scenario):
            continue
        try:
            flush = anatomy(run.scenario, run.policy, seed=run.seed)
            figure = plots.plot_anatomy(flush, f"{of.policy}, seed {run.seed}")
            svg = _svg(figure, "anatomy", f"anatomy-{side}")
        except ReclaimError:
            continue
        figures.append(f'<figure>{svg}<figcaption>{_e(_SAYS["anatomy"])} {_e(of.policy)}, seed {run.seed}, '
                       "the one with most targets among the first. Simulated.</figcaption></figure>")
    return figures


def _svg(figure: Any, kind: str, prefix: str = "") -> str:
    """The element of a figure, with ids of its own and a name."""
    prefix = prefix or kind
    out = io.BytesIO()
    with plots.context():
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Type", "Format")))
    text = out.getvalue().decode()
    head, _, body = text[text.index("<svg"):].partition(">")
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)       # the page says how wide it is
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)           # the pictures share one page
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", body)
    return f'{head} role="img" aria-label="{_e(_SAYS[kind])}">{body}'


def _assumptions(c: Comparison, stated: Mapping[str, Any] | None) -> str:
    notes = ""
    if stated is None:
        stated, notes = _packaged(c.scenario.name)
    given = "" if stated is not None else "<em>Given</em>: it differs from reclaim's default. "
    parts = ["<p>Every key of the scenario. <em>File</em>: the scenario's file gives the value. "
             "<em>Changed</em>: a command or program gave it, and the file another one. <em>Default</em>: "
             f"nobody gave it, so reclaim chose. {given}What no scenario says, such as what each operation costs in "
             f"nanoseconds, comes from the machine profile <code>{_e(c.scenario.machine.profile)}</code>; "
             "many of these values are assumed.</p>"]
    if notes:
        parts.append(f"<p>What the scenario's file says of itself:</p><pre>{_e(notes)}</pre>")
    differing = _differing(c)
    if differing:
        parts.append('<p class="simulated">The two sides ran different scenarios: '
                     f'{_e("; ".join(differing))}. The table below is the first side\'s.</p>')
    source = c.scenario.published.get("source")
    if source:
        parts.append(f"<p>The published values are from: {_e(source)}.</p>")
    body = "".join(f'<tr><th scope="row"><code>{_e(key)}</code></th><td data-label="value">{_e(value)}</td>'
                   f'<td data-label="from">{_e(origin)}</td></tr>'
                   for key, value, origin in _keys(c.scenario, stated))
    return "".join(parts) + ('<div class="wide"><table class="keys"><thead><tr><th scope="col">key</th>'
                             '<th scope="col">value</th><th scope="col">from</th></tr></thead>'
                             f"<tbody>{body}</tbody></table></div>")


def _packaged(name: str) -> tuple[dict[str, Any] | None, str]:
    """The keys that the packaged scenario's file gives, and its comment; nothing of another's."""
    if name not in Scenario.names():
        return None, ""
    text = resources.files("reclaim").joinpath("scenarios", f"{name}.toml").read_text("utf-8")
    comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return tomllib.loads(text), "\n".join(line.removeprefix("#").strip() for line in comment)


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat


def _keys(scenario: Scenario, stated: Mapping[str, Any] | None) -> Iterator[tuple[str, str, str]]:
    """(key, value, where it is from) of every key."""
    values = _flat({name: value for name, value in scenario.to_dict().items() if name != "published"})
    if stated is None:     # no file to ask: what differs from the defaults was said by someone
        default = _flat(Scenario(name=scenario.name, workload=Workload(**_like(scenario))).to_dict())
        for key, value in values.items():
            yield key, _text(value), "default" if key in default and default[key] == value else "given"
        return
    said = _flat(stated)
    canonical = _flat(Scenario.from_dict(stated).to_dict())
    for key, value in values.items():
        if canonical.get(key) != value:
            other = "file" if key in said else "default"
            yield key, _text(value), f"changed; {other}: {_text(canonical.get(key))}"
        else:
            yield key, _text(value), "file" if key in said else "default"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else '""' if value == "" else str(value)


def _like(scenario: Scenario) -> dict[str, Any]:
    """The least workload of the same kind, for its defaults."""
    workload = scenario.workload
    return {"kind": workload.kind} | ({"file": workload.file} if workload.file else {})


def _differing(c: Comparison) -> list[str]:
    sides = [_flat(run.scenario.to_dict()) for run in (*c.before.runs[:1], *c.after.runs[:1])
             if isinstance(run.scenario, Scenario)]
    if len(sides) < 2:
        return []
    one, other = sides
    return [f"{key}: {one.get(key)} before, {other.get(key)} after" for key in one | other
            if one.get(key) != other.get(key) and not key.startswith(("published", "seed"))]


def _provenance(c: Comparison) -> str:
    runs = [("before", run) for run in c.before.runs] + [("after", run) for run in c.after.runs]
    rows = "".join(_run_row(side, run) for side, run in runs)
    strategies = []
    for side, of in (("before", c.before), ("after", c.after)):
        named = slots(of.runs[0]) if of.runs else {}
        if named:
            strategies.append(f"{of.policy} ({side}): " + ", ".join(
                f"{slot} {strategy.get('name') if isinstance(strategy, Mapping) else strategy}"
                for slot, strategy in named.items()))
    return (_list(strategies) + '<div class="wide"><table class="keys stack"><thead><tr>'
            '<th scope="col">run</th>'
            '<th scope="col">seed</th><th scope="col">versions</th><th scope="col">digest</th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div>")


def _run_row(side: str, run: Result) -> str:
    p = run.provenance
    versions = ", ".join(f"{what} {p[key]}" for key, what in (("reclaim", "reclaim"), ("model", "model"),
                                                              ("python", "Python"), ("numpy", "NumPy"),
                                                              ("platform", "on")) if key in p)
    return (f'<tr><th scope="row">{_e(side)}: {_e(run.policy)}</th><td data-label="seed">{_e(run.seed)}</td>'
            f'<td data-label="versions">{_e(versions)}</td>'
            f'<td data-label="digest"><code>{_e(run.digest)}</code></td></tr>')


def _command(c: Comparison, command: Sequence[str]) -> str:
    """The command lines that make the page again, as HTML."""
    if command:
        return f"<pre>{_e(shlex.join(command))}</pre>"
    name, seconds = c.scenario.name, f"{c.scenario.seconds:g}"
    parts = []
    where = [name, "--seconds", seconds]
    if name not in Scenario.names() or c.scenario != Scenario.load(name).replace(
            seconds=c.scenario.seconds, seed=c.scenario.seed):
        where = ["scenario.toml"]
        parts.append("<p>With this scenario, as <code>scenario.toml</code>:</p>"
                     f"<pre>{_e(c.scenario.to_toml())}</pre>")
    lines, files = [], []
    for side, label in ((c.before, "before"), (c.after, "after")):
        for run in side.runs[:MAX_COMMANDS]:
            files.append(f"{label}-{run.seed}.json")
            lines.append(shlex.join(["reclaim", "run", *where, "--policy", run.policy,
                                     "--seed", str(run.seed), "-o", files[-1]]))
    lines.append(shlex.join(["reclaim", "report", *files, "-o", "report.html"]))
    return "".join([*parts, f"<pre>{_e(chr(10).join(lines))}</pre>"])
