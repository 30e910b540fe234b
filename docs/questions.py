"""Answer the questions of docs/questions.md: run, draw, and write the page.

    python docs/questions.py             # all: the page and its pictures, about two minutes (extra `plot`)
    python docs/questions.py batch       # one: print its answer, draw its picture
    python docs/questions.py --quick -o DIR     # shorter runs, into DIR: what the tests do

A sentence that states which of two numbers is larger is checked before it is written: `claim`.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import reclaim
from reclaim import plots
from reclaim.names import STEPS

HERE = Path(__file__).parent
WRITERS = HERE / "questions" / "writers.toml"
NVME = {"swap.kind": "nvme", "swap.depth": 1023, "swap.bandwidth": "5G"}
DISK = {"swap.kind": "ssd", "swap.rotational": True, "swap.depth": 256}
LINES = (("stage0", "#0072B2", "o", "-"), ("stage5", "#E69F00", "s", "--"))
NOT_YET = "**Not yet within the model.**"


@dataclass(frozen=True)
class Question:
    """One of the page: its text, what is run, and the function that answers."""

    name: str
    title: str
    text: str
    command: str
    answer: Callable[[Runs], tuple[str, Any]] | None = None
    no: str = ""        # why it cannot be answered


class Runs:
    """Simulations of `questions/writers.toml` with other values; quick ones are short."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.scenario = reclaim.Scenario.load(str(WRITERS))
        if quick:
            self.scenario = self.scenario.replace(seconds=0.02, warmup=0.01)

    def few(self, values: Sequence[Any]) -> list[Any]:
        """The values of an axis; of a quick run the first and the last."""
        return [values[0], values[-1]] if self.quick else list(values)

    def run(self, changes: Mapping[str, Any] | None = None, policy: Any = "stage5", **replaced: Any) -> Run:
        """One simulation."""
        scenario = self.scenario.replace(dict(changes)) if changes else self.scenario
        if replaced:
            scenario = scenario.replace(**replaced)
        return Run(reclaim.simulate(scenario, policy))

    def claim(self, true: bool, sentence: str) -> None:
        """Refuse to write what the numbers do not say; short runs say nothing."""
        if not true and not self.quick:
            raise SystemExit(f"questions.py: no longer true, write the answer anew: {sentence}")


class Run:
    """One result, for each reclaimed page."""

    def __init__(self, result: reclaim.Result) -> None:
        self.result = result
        self.pages = max(1, result.counters["pgsteal_anon"])

    def __getitem__(self, counter: str) -> float:
        return float(self.result.counters[counter])

    def per_page(self, counter: str) -> float:
        """A counter for each reclaimed page."""
        return self[counter] / self.pages

    def ns(self, *categories: str) -> float:
        """Time in these categories, all CPUs, for each reclaimed page [ns]."""
        return float(sum(self.result.times[name].sum() for name in categories)) / self.pages

    def share(self, category: str) -> float:
        """Of all CPUs' time."""
        return float(self.result.shares()[category])


FLUSHES = ("flush", "flush_wait", "interrupt")


def change(before: float, after: float) -> str:
    """The change in per cent."""
    return f"{after / before - 1:+.0%}".replace("-0%", "+0%") if before else "none"


# --- pictures

def figure(panels: int, title: str, height: float = 3.1) -> tuple[Any, list[Any]]:
    """A figure with panels side by side."""
    drawn = plots._figure(5.4 if panels == 1 else 7.6, height)
    drawn.get_layout_engine().set(wspace=0.06)
    axes = [drawn.add_subplot(1, panels, i + 1) for i in range(panels)]
    drawn.suptitle(f"{title} (simulated)", x=0.01, ha="left", fontsize=11)
    return drawn, axes


def lines(axes: Any, x: Sequence[Any], series: Mapping[str, Sequence[float]], xlabel: str, ylabel: str) -> None:
    """Lines over the places of x, which are labelled with its values."""
    for (name, values), (_, colour, marker, dash) in zip(series.items(), LINES, strict=False):
        axes.plot(range(len(x)), values, dash, color=colour, marker=marker, label=name)
    axes.set_xticks(range(len(x)), [str(value) for value in x])
    finish(axes, xlabel, ylabel)


def bars(axes: Any, x: Sequence[str], series: Mapping[str, Sequence[float]], ylabel: str,
         form: str = "{:.2f}") -> None:
    """Groups of bars, with their numbers."""
    hatches = ("", "////", "....", "xxxx")
    colours = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        at = [j + (i - (len(series) - 1) / 2) * width for j in range(len(x))]
        axes.bar(at, values, width, color=colours[i], hatch=hatches[i], edgecolor="white", label=name)
        for where, value in zip(at, values, strict=True):
            axes.annotate(form.format(value), (where, value), (0, 2), textcoords="offset points",
                          ha="center", fontsize=8)
    axes.set_xticks(range(len(x)), x)
    finish(axes, "", ylabel)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.08)


def finish(axes: Any, xlabel: str, ylabel: str) -> None:
    """Labels, a grid, a legend, zero at the bottom."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_ylim(0, None)
    axes.legend(frameon=False, fontsize=9)


# --- answers

def batch(runs: Runs) -> tuple[str, Any]:
    sizes = runs.few((1, 2, 4, 8, 16, 31))
    found = [runs.run(policy={"base": "stage5", "flush": f"batch({n})"}) for n in sizes]
    drawn, (left, right) = figure(2, "Batch size")
    lines(left, sizes, {"shootdowns": [r.per_page("tlb_shootdowns") for r in found],
                        "IPIs": [r.per_page("function_call_ipis") for r in found]},
          "folios a batch [number]", "count per reclaimed page [1/page]")
    lines(right, sizes, {"flush, wait, interrupt": [r.ns(*FLUSHES) / 1000 for r in found]},
          "folios a batch [number]", "CPU time per reclaimed page [us]")
    one, eight, last = found[0], found[len(found) // 2], found[-1]
    gain = [r.ns(*FLUSHES) for r in (one, eight, last)]
    share = (gain[0] - gain[1]) / (gain[0] - gain[2])
    runs.claim(share > 0.5, "batches of 8 bring most of the gain")
    text = (f"From batches of 1 to batches of 31, shootdowns a reclaimed page fall from "
            f"{one.per_page('tlb_shootdowns'):.2f} to {last.per_page('tlb_shootdowns'):.2f}, IPIs from "
            f"{one.per_page('function_call_ipis'):.2f} to {last.per_page('function_call_ipis'):.2f}, and the "
            "time that all "
            f"CPUs spend on flushes from {gain[0] / 1000:.2f} to {gain[2] / 1000:.2f} us; batches of "
            f"{sizes[len(found) // 2]} bring {share:.0%} of what batches of 31 bring. More than 31 are not "
            "within the "
            "model, since a `folio_batch` holds 31.")
    return text, drawn


def cpus(runs: Runs) -> tuple[str, Any]:
    counts = runs.few((1, 2, 4, 8, 16, 32, 64, 128))
    found = [[runs.run({"machine.cpus": n, "workload.workers": n, "workload.bytes": n * (8 << 20),
                        "memcg.limit": max(n * (4 << 20), 8 << 20) if n > 1 else 4 << 20, "swap.size": "2G"}, policy)
              for policy, *_ in LINES] for n in counts]
    drawn, (left, right) = figure(2, "CPUs, one writer each")
    for axes, value, label in (
            (left, lambda r: r.per_page("tlb_shootdowns"), "shootdowns per page [1/page]"),
            (right, lambda r: r.ns(*FLUSHES) / 1000, "CPU time on flushes per page [us]")):
        lines(axes, counts, {name: [value(pair[i]) for pair in found] for i, (name, *_) in enumerate(LINES)},
              "CPUs [number]", label)
    gain = [change(a["bogo_ops_per_s"], b["bogo_ops_per_s"]) for a, b in found]
    first = next((n for n, (a, b) in zip(counts, found, strict=True)
                  if b["bogo_ops_per_s"] > 1.01 * a["bogo_ops_per_s"]), None)
    saved = [a.ns(*FLUSHES) > b.ns(*FLUSHES) for a, b in found[1:]]
    runs.claim(all(saved), "from 2 CPUs on flushes cost less after the series")
    text = ("With two CPUs or more, a page's flushes always cost less after the series; throughput gains 1% "
            "or more "
            f"from {first} CPUs on ({', '.join(f'{n}: {g}' for n, g in zip(counts, gain, strict=True))}). At "
            "128 CPUs "
            f"waiting for the LRU lock takes {found[-1][1].share('lock_wait'):.0%} of all CPUs' time after "
            "the series "
            f"({found[-1][0].share('lock_wait'):.0%} before), so what the flushes spare is spent there.")
    runs.claim(found[-1][1].share("lock_wait") > 0.4, "at 128 CPUs the LRU lock takes what the flushes spare")
    return text, drawn


def threads(runs: Runs) -> tuple[str, Any]:
    modes = {"16 processes": {}, "16 threads of one": {"workload.mode": "thread"}}
    found = {name: [runs.run(changes, policy) for policy, *_ in LINES] for name, changes in modes.items()}
    drawn, (left, right) = figure(2, "Many mms, or one")
    for axes, counter, label in ((left, "tlb_shootdowns", "shootdowns per page [1/page]"),
                                 (right, "function_call_ipis", "IPIs per page [1/page]")):
        bars(axes, list(modes), {policy: [found[m][i].per_page(counter) for m in modes]
                                 for i, (policy, *_) in enumerate(LINES)}, label)
    (p0, p5), (t0, t5) = found.values()
    runs.claim(t0.per_page("tlb_shootdowns") > 5 * p0.per_page("tlb_shootdowns"), "threads: far more shootdowns")
    text = (f"Pages of one process with 16 threads need {t0.per_page('tlb_shootdowns'):.1f} shootdowns each "
            "before and "
            f"{t5.per_page('tlb_shootdowns'):.2f} after, those of 16 processes "
            f"{p0.per_page('tlb_shootdowns'):.2f} and "
            f"{p5.per_page('tlb_shootdowns'):.2f}. A batch over many mms asks all CPUs that any of them ran "
            "on, so "
            f"its saving is smaller ({change(p0.per_page('tlb_shootdowns'), p5.per_page('tlb_shootdowns'))}) "
            "than with one "
            f"mask for all ({change(t0.per_page('tlb_shootdowns'), t5.per_page('tlb_shootdowns'))}).")
    return text, drawn


def footprint(runs: Runs) -> tuple[str, Any]:
    found = [runs.run({"workload.pattern": "rand"}, policy) for policy, *_ in LINES]
    walk = [r.ns("walk") * r.pages / max(1.0, r["page_touches"]) for r in found]
    text = (f"In part: with touches at random a touch pays {walk[0]:.1f} ns of page walks before and "
            f"{walk[1]:.1f} ns "
            "after, so the refills that rarer full flushes spare are at most the difference. A flush "
            "of a batch by INVLPG instead of a full one is not within the model, nor is a task that shares "
            "nothing with "
            "reclaim but its CPU's TLB; `docs/calibration.md` measures what a refill costs on your machine.")
    return text, None


def dirty(runs: Runs) -> tuple[str, Any]:
    shares = runs.few((0.0, 0.25, 0.5, 0.75, 1.0))
    found = []
    with tempfile.TemporaryDirectory() as directory:
        for share in shares:
            path = Path(directory) / f"dirty-{share}.csv"
            _trace(path, share, pages=256 if runs.quick else 2048)
            scenario = reclaim.Scenario.for_trace(str(path)).replace(
                {"machine.cpus": 8, "swap.kind": "nvme"})
            found.append([Run(reclaim.simulate(scenario, policy)) for policy, *_ in LINES])
    drawn, (left, right) = figure(2, "Pages that are written again")
    labels = [f"{share:.0%}" for share in shares]
    for axes, value, label in (
            (left, lambda r: r.per_page("tlb_shootdowns"), "shootdowns per page [1/page]"),
            (right, lambda r: r.ns(*FLUSHES) / 1000, "CPU time on flushes per page [us]")):
        lines(axes, labels, {name: [value(pair[i]) for pair in found] for i, (name, *_) in enumerate(LINES)},
              "pages written in every pass [%]", label)
    saved = [a.per_page("tlb_shootdowns") - b.per_page("tlb_shootdowns") for a, b in found]
    runs.claim(saved[0] < 0.7 * saved[-1], "fewer written pages, less gain")
    text = (f"Only dirty folios wait in batches, so the series saves {saved[-1]:.2f} shootdowns a page if "
            "every page is "
            f"written in every pass, {saved[len(saved) // 2]:.2f} if half of them are, and {saved[0]:.2f} if "
            "all are only read "
            "after the first pass. Clean folios were flushed together at the end of their list before the "
            "series, too.")
    return text, drawn


def _trace(path: Path, share: float, pages: int, tasks: int = 8, passes: int = 5) -> None:
    """References: all pages are written once, then in each pass only the first `share` of each hundred."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["task", "page", "write"])
        for task in range(tasks):
            for sweep in range(passes):
                out.writerows((task, page, int(sweep == 0 or page % 100 < 100 * share)) for page in range(pages))


def waiting(runs: Runs) -> tuple[str, Any]:
    waits = {policy: _unmapped(runs, policy) for policy, *_ in LINES}
    drawn, (axes,) = figure(1, "From unmapped to written out")
    for policy, colour, _, dash in LINES:
        values = np.sort(waits[policy]) / 1000
        axes.plot(values, 100 * np.arange(1, len(values) + 1) / len(values), dash, color=colour, label=policy)
    axes.set_xscale("log")
    finish(axes, "time between unmap and write-out [us]", "folios [%]")
    rand = runs.run({"workload.pattern": "rand"})
    dropped = rand["putback_mapped"] / max(1.0, rand["folios_batched"])
    of = {policy: [float(np.percentile(w, q)) / 1000 for q in (50, 99)] for policy, w in waits.items()}
    runs.claim(of["stage5"][0] > 5 * of["stage0"][0], "a folio waits longer in a batch")
    text = (f"A folio is unmapped for {of['stage0'][0]:.1f} us (median; 99th percentile "
            f"{of['stage0'][1]:.0f} us) before its "
            f"write-out without the series, and for {of['stage5'][0]:.0f} us ({of['stage5'][1]:.0f} us) "
            "while a batch of 31 fills. "
            f"A fault on it in between finds it in the swap cache, maps it again, and the batch drops it: "
            f"{dropped:.3%} of the folios of batches with touches at random.")
    return text, drawn


def _unmapped(runs: Runs, policy: str) -> np.ndarray:
    """Time from clearing a folio's PTE to handing it to the device [ns], of a stretch of the run."""
    simulation = reclaim.Simulation(runs.scenario, policy)
    simulation.run(0.01 if runs.quick else 0.1)
    cleared, out = STEPS.index("U_CLEAR"), STEPS.index("P_WRITE")
    since: dict[int, int] = {}
    found: list[float] = []
    for row in simulation.log(actions=100_000 if runs.quick else 2_000_000):
        if row["step"] == cleared:
            since[int(row["folio"])] = int(row["now"])
        elif row["step"] == out and int(row["folio"]) in since:
            found.append((int(row["now"]) - since.pop(int(row["folio"]))) / 1000)
    return np.array(found or [np.nan])


def device(runs: Runs) -> tuple[str, Any]:
    kinds = {"zram": {}, "NVMe": NVME, "disk": DISK}
    found = {name: [runs.run(changes, policy) for policy, *_ in LINES] for name, changes in kinds.items()}
    drawn, (left, right) = figure(2, "Swap device, lazy masks")
    bars(left, list(kinds), {policy: [found[k][i].per_page("tlb_shootdowns") for k in kinds]
                             for i, (policy, *_) in enumerate(LINES)}, "shootdowns per page [1/page]", "{:.1f}")
    bars(right, list(kinds), {policy: [found[k][i]["bogo_ops_per_s"] / 1e6 for k in kinds]
                              for i, (policy, *_) in enumerate(LINES)}, "bogo ops [million/s]")
    parts = [f"{name} {a.per_page('tlb_shootdowns'):.2f} to {b.per_page('tlb_shootdowns'):.2f} shootdowns a page and "
             f"{change(a['bogo_ops_per_s'], b['bogo_ops_per_s'])} bogo ops" for name, (a, b) in found.items()]
    runs.claim(found["NVMe"][0].per_page("tlb_shootdowns") > 5 * found["zram"][0].per_page("tlb_shootdowns"),
               "asynchronous devices have more to save")
    text = (f"The series takes {', '.join(parts)}. Workers that wait for a device are woken on other CPUs, "
            "which lazy masks "
            "remember, so an asynchronous device has far more shootdowns to save; what that brings depends "
            "on whether "
            "the processors or the device are the bottleneck.")
    return text, drawn


def mask(runs: Runs) -> tuple[str, Any]:
    cases = {"zram\neager": {"kernel.mm_cpumask": "eager"}, "zram\nlazy": {},
             "NVMe\neager": NVME | {"kernel.mm_cpumask": "eager"}, "NVMe\nlazy": NVME}
    found = {name: [runs.run(changes, policy) for policy, *_ in LINES] for name, changes in cases.items()}
    drawn, (axes,) = figure(1, "What mm_cpumask remembers")
    bars(axes, list(cases), {policy: [found[c][i].per_page("tlb_shootdowns") for c in cases]
                             for i, (policy, *_) in enumerate(LINES)}, "shootdowns per page [1/page]")
    eager, lazy = found["NVMe\neager"], found["NVMe\nlazy"]
    runs.claim(lazy[0].per_page("tlb_shootdowns") > 5 * eager[0].per_page("tlb_shootdowns"), "stale bits cost")
    text = ("With an NVMe device, masks that keep the bit of a CPU until a flush names the mm (6.18, 7.0) "
            "make "
            f"{lazy[0].per_page('tlb_shootdowns'):.1f} shootdowns a page of "
            f"{eager[0].per_page('tlb_shootdowns'):.2f} with masks that "
            f"drop it at switch-out (6.12); after the series {lazy[1].per_page('tlb_shootdowns'):.2f} of "
            f"{eager[1].per_page('tlb_shootdowns'):.2f}. Where workers do not sleep and do not move, as here "
            "on zram, the two rules "
            "are the same.")
    return text, drawn


def guests(runs: Runs) -> tuple[str, Any]:
    cases = {"own CPUs": {}, "4 host CPUs": {"machine.host_cpus": 4},
             "4, pv flush": {"machine.host_cpus": 4, "machine.pv_flush": True}}
    found = {name: [runs.run(changes, policy) for policy, *_ in LINES] for name, changes in cases.items()}
    drawn, (axes,) = figure(1, "Waiting for acknowledgements")
    bars(axes, list(cases), {policy: [found[c][i].ns("flush_wait") / 1000 for c in cases]
                             for i, (policy, *_) in enumerate(LINES)}, "flush wait per page [us]", "{:.1f}")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(0, 4 * axes.get_ylim()[1])
    wait = {name: [r.ns("flush_wait") / 1000 for r in pair] for name, pair in found.items()}
    runs.claim(wait["4 host CPUs"][0] > 20 * wait["own CPUs"][0], "preempted targets make senders wait")
    text = (f"When 16 virtual CPUs share 4 host CPUs in turn, a sender waits {wait['4 host CPUs'][0]:.0f} us "
            "a reclaimed page for "
            f"targets that are not running ({wait['own CPUs'][0]:.1f} us on CPUs of their own); the series "
            "makes that "
            f"{wait['4 host CPUs'][1]:.0f} us, a paravirtual flush {wait['4, pv flush'][0]:.1f} us without "
            "it. In part only: host CPUs "
            "take turns as in QEMU's round robin, and what an IPI's exit to the host costs is the cost "
            "`ipi_send_ns`.")
    return text, drawn


def pays(runs: Runs) -> tuple[str, Any]:
    found = [runs.run(None, policy) for policy, *_ in LINES]
    who = {"initiator: sends": ("flush",), "initiator: waits": ("flush_wait",), "target: interrupts": ("interrupt",),
           "bystander: LRU lock": ("lock_wait",)}
    drawn, (axes,) = figure(1, "Who pays")
    bars(axes, [name.replace(": ", ":\n") for name in who],
         {policy: [found[i].ns(*of) / 1000 for of in who.values()] for i, (policy, *_) in enumerate(LINES)},
         "CPU time per reclaimed page [us]")
    first, last = ([r.ns(*of) / 1000 for of in who.values()] for r in found)
    runs.claim(sum(first[:3]) > 3 * sum(last[:3]), "initiators and targets save")
    text = (f"Before the series the initiator pays {first[0] + first[1]:.2f} us a page (half of it waiting) "
            "and its targets "
            f"{first[2]:.2f} us; after it {last[0] + last[1]:.2f} and {last[2]:.2f} us. Bystanders pay while "
            "they wait for the LRU "
            f"lock, {first[3]:.2f} and {last[3]:.2f} us; the page walks that flushes cause on targets are in "
            "their user time.")
    return text, drawn


def patches(runs: Runs) -> tuple[str, Any]:
    found = [runs.run(None, f"stage{k}").result.digest for k in range(6)]
    if len(set(found[:5])) != 1 or found[5] == found[0]:
        raise SystemExit("questions.py: stages 0 to 4 are not alike, or stage 5 is")
    return ("The last one alone: stages 0 to 4 only move code and end in the same digest, bit for bit; stage "
            "5 differs. "
            "`reclaim compare` of two neighbouring stages shows it for any scenario.", None)


def noise(runs: Runs) -> tuple[str, Any]:
    table = reclaim.compare(runs.scenario.replace({"workload.pattern": "rand"}), seeds=2 if runs.quick else 6)
    rows = {row.metric: row for row in table.rows}
    row, scan = rows["tlb_shootdowns_per_page"], rows["steal_per_scan"]
    low, high = row.interval_pct or (0.0, 0.0)
    return ("`--seeds 6` runs each side with six seeds and adds 95% intervals and an exact U-test: here "
            "shootdowns a page "
            f"change by {row.delta_pct:.1f}% ({low:.1f}% to {high:.1f}%, p {row.p or 0:.3f}), reclaimed "
            "pages per scan by "
            f"{scan.delta_pct:+.1f}%, verdict `{scan.verdict or '-'}`. Seeds vary what reclaim draws at "
            "random, not what two real "
            "machines differ in: `docs/results.md` says what that means.", None)


def pinned(runs: Runs) -> tuple[str, Any]:
    found = [runs.run(NVME | {"workload.pin": True}, policy) for policy, *_ in LINES]
    free = [runs.run(NVME, policy) for policy, *_ in LINES]
    runs.claim(found[0].per_page("tlb_shootdowns") < 0.5 * free[0].per_page("tlb_shootdowns"), "affinity matters")
    return ("Yes where workers sleep: on an NVMe device pinned workers need "
            f"{found[0].per_page('tlb_shootdowns'):.2f} shootdowns "
            f"a page before and {found[1].per_page('tlb_shootdowns'):.2f} after, free ones "
            f"{free[0].per_page('tlb_shootdowns'):.1f} and "
            f"{free[1].per_page('tlb_shootdowns'):.2f}. Pinned workers leave one bit each in the masks, so "
            "say which of the two "
            "was measured.", None)


def loses(runs: Runs) -> tuple[str, Any]:
    one = {"machine.cpus": 1, "workload.workers": 1, "workload.bytes": "8M", "memcg.limit": "4M"}
    found = [runs.run(one, policy) for policy, *_ in LINES]
    disk = [runs.run(DISK | {"kernel.mm_cpumask": "eager"}, policy) for policy, *_ in LINES]
    return (f"One CPU has no shootdowns to save: {found[0].per_page('tlb_shootdowns'):.2f} a page before and "
            "after, and "
            f"{change(found[0]['bogo_ops_per_s'], found[1]['bogo_ops_per_s'])} bogo ops from local flushes "
            "alone. Where the device "
            f"is the bottleneck throughput hardly moves: on a disk with eager masks "
            f"{change(disk[0]['bogo_ops_per_s'], disk[1]['bogo_ops_per_s'])} bogo ops.", None)


def safe(runs: Runs) -> tuple[str, Any]:
    found = reclaim.explore("v4:5", folios=1)
    broken = reclaim.explore("v4:5", folios=1, defects=("no-flush-before-writeout",))
    if found.violations or not broken.violations:
        raise SystemExit("questions.py: the explorer's verdicts are not those of the page")
    return (f"Of one folio on two CPUs all {found.states:,} states were reached and none loses a write or "
            "lets a CPU reach a "
            "freed page; with the flush before write-out left out the explorer finds a "
            f"{broken.violations[0].invariant}. It "
            "proves nothing beyond such bounds: `docs/series-safety.md` has what was searched for each "
            "version.", None)


W = "docs/questions/writers.toml"
SHORT = "     # tests: python docs/questions.py {} --quick -o ."      # docs/developing.md
QUESTIONS = (
    Question("batch", "Batch size",
             "What do shootdowns, IPIs and CPU time for each reclaimed page do as the batch grows, and where "
             "do the "
             "returns diminish?",
             f"reclaim plot {W} --kind grid --over 'policy.flush=batch(1),batch(2),batch(8),batch(31)' \\\n"
             "    --over machine.cpus=4,16 -o batch.svg", batch),
    Question("cpus", "Machine size", "From how many CPUs on does it pay: 4, 8, 16, 128?",
             f"reclaim plot {W} --kind grid --over machine.cpus=2,4,8,16 --over policy=stage0,stage5 \\\n"
             "    --metric bogo_ops_per_s -o cpus.svg", cpus),
    Question("threads", "One process or many",
             "What if the pages belong to one process with many threads, rather than to many processes: how "
             "large is the "
             "union of the masks?",
             f"reclaim plot {W} --kind grid --over workload.mode=proc,thread --over policy=stage0,stage5 -o "
             "threads.svg",
             threads),
    Question("footprint", "Full flush or single pages",
             "Would flushing page by page be better for a task whose working set nearly fills the TLB?",
             f"python docs/questions.py footprint{SHORT.format('footprint')}", footprint),
    Question("dirty", "Dirty pages", "How much of the gain remains if only a part of the pages is dirty?",
             f"python docs/questions.py dirty{SHORT.format('dirty')}", dirty),
    Question("waiting", "Latency of waiting folios",
             "How long is a page unmapped while its batch fills, and how often is it touched meanwhile, so "
             "that it drops "
             "out of the batch?",
             f"python docs/questions.py waiting{SHORT.format('waiting')}", waiting),
    Question("device", "Swap device", "Does it matter whether swap is synchronous (zram) or a device with a queue?",
             f"reclaim plot {W} --kind grid --over swap.kind=zram,nvme --over policy=stage0,stage5 -o "
             "device.svg", device),
    Question("kswapd", "kswapd and nested limits",
             "Is it the same in kswapd as in direct reclaim, and when a cgroup's limit and the machine's "
             "memory run out "
             "together?", "",
             no="There is one cgroup, one node and no kswapd: the limit must fit into memory "
                "(`docs/model.md`, section 8)."),
    Question("mask", "Stale mm_cpumask", "What do bits of CPUs that an mm left long ago cost?",
             f"reclaim plot {W} --kind grid --over kernel.mm_cpumask=eager,lazy --over swap.kind=zram,nvme "
             "\\\n"
             "    --policy stage0 -o mask.svg", mask),
    Question("guests", "Virtual machines", "What if a target's virtual CPU is not running when the IPI comes?",
             f"reclaim plot {W} --kind grid --over machine.host_cpus=0,4 --over policy=stage0,stage5 -o "
             "guests.svg",
             guests),
    Question("thp", "Huge pages", "And with transparent huge pages or larger folios?", "",
             no="Folios are of order 0; `kernel.thp = true` is refused with a sentence."),
    Question("pays", "Who pays", "Who pays for a flush: who starts it, who is interrupted, who happens to be there?",
             f"reclaim run {W} --policy stage0 -o before.json && reclaim run {W} --policy stage5 -o "
             "after.json && \\\n"
             "    reclaim plot before.json after.json --kind time -o pays.svg", pays),
    Question("patches", "Which patch", "What if a patch is left out: which of them brings the gain?",
             f"reclaim compare {W} --before stage0 --after stage4", patches),
    Question("noise", "Noise", "Is that more than noise?", f"reclaim compare {W} --seeds 6", noise),
    Question("pinned", "Affinity", "Were the workers pinned, and does that matter?", f"python docs/questions.py pinned{SHORT.format('pinned')}",
             pinned),
    Question("loses", "Nothing to gain", "Where does it bring nothing, and where could it lose?",
             f"python docs/questions.py loses{SHORT.format('loses')}", loses),
    Question("safe", "Safety", "Does some interleaving lose a write?", "reclaim explore v4:5 --folios 1", safe),
    Question("workload", "Real programs", "What does it bring to a real program?",
             "",
             no="Only what a trace or the synthetic workloads say: `reclaim run --trace FILE` replays the "
                "references of a "
                "program (`docs/workloads.md`), `reclaim observe` counts what the kernel does for it "
                "(`docs/observe.md`)."),
)


def page(answers: Mapping[str, tuple[str, bool]]) -> str:
    """The Markdown page."""
    text = ["# The questions that such a series is asked", "",
            "Maintainers ask much the same of every series that touches reclaim or TLB flushes. Each "
            "question here has the "
            "command that answers it, and an answer from simulated runs; what the model cannot say is marked.", "",
            "Written by `python docs/questions.py` (extra `plot`); do not edit. Unless said otherwise 16 "
            "processes on 16 CPUs "
            "write twice the memory that they are allowed, zram, lazy masks: `docs/questions/writers.toml`, "
            "the costs those of "
            "the profile `vm16`, many of them assumed. Counts for each reclaimed page bear more than times do.", ""]
    for question in QUESTIONS:
        text += [f"## {question.title}", "", f"*{question.text}*", ""]
        if question.answer is None:
            text += [NOT_YET + " " + question.no, ""]
            continue
        answer, drawn = answers[question.name]
        text += ["```sh", question.command, "```", ""]
        if drawn:
            text += [f"![{question.title}](questions/{question.name}.svg)", ""]
        text += [answer, ""]
    text = [line if line.startswith(("```", "reclaim ", "python ", "![")) else
            textwrap.fill(line, 118, break_long_words=False, break_on_hyphens=False) for line in text]
    return "\n".join(text).rstrip() + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write the page, or answer some questions."""
    names = [q.name for q in QUESTIONS if q.answer]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="QUESTION", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="short runs: their numbers say nothing")
    parser.add_argument("-o", "--output", type=Path, default=HERE, metavar="DIR", help="default: docs")
    args = parser.parse_args(argv)
    for name in args.names:
        if name not in names:
            parser.error(f"no question {name!r}: choose from {', '.join(names)}")
    runs, answers = Runs(args.quick), {}
    (args.output / "questions").mkdir(parents=True, exist_ok=True)
    for question in QUESTIONS:
        if question.answer is None or args.names and question.name not in args.names:
            continue
        with plots.context():
            text, drawn = question.answer(runs)
            if drawn is not None:
                plots.save(drawn, args.output / "questions" / f"{question.name}.svg")
        answers[question.name] = (text, drawn is not None)
        print(f"{question.name}: {text}", file=sys.stdout if args.names else sys.stderr, flush=True)
    if not args.names:
        (args.output / "questions.md").write_text(page(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
