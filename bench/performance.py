"""Measure everything and write it to docs/performance.md.

    pip install -e ".[bench,peers,plot]" && python bench/performance.py [--quick] [PART ...]

Parts: goals (with peers and floor, which it needs), scaling, instructions, steps; all if none is named.
Each replaces its own section of the file, between `<!-- begin PART -->` and `<!-- end PART -->`; the rest
is written by hand.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import floor
import goals
import instructions
import peers
import scaling
import worlds
from reclaim import names

DOCS = Path(__file__).parent.parent / "docs"
PAGE, SVG = DOCS / "performance.md", DOCS / "performance-scaling.svg"

# Steps (docs/model.md 5) by the first letters of their names; the first that fits.
KINDS = {
    "touches": ("TOUCH", "POPULATE", "DONTNEED"), "faults and charges": ("F_", "C_"), "unmap": ("U_",),
    "flushes, sender": ("FL_", "M_"), "flushes, target": ("Q_",), "pageout": ("P_", "B_"),
    "ticks, scheduling": ("T_", "SW_", "W_", "H_"), "swap device": ("IO_",), "exit": ("E_",),
    "shrink_folio_list": ("S_",), "LRU lists": ("R_", "I_", "K_", "G_", "D_"),
}


def replace(text: str, part: str, body: str) -> str:
    """`text` with the section `part` replaced."""
    begin, end = f"<!-- begin {part} -->", f"<!-- end {part} -->"
    section = f"{begin}\n{body.strip()}\n{end}"
    new, many = re.subn(f"(?s){re.escape(begin)}.*?{re.escape(end)}", lambda _: section, text)
    if many != 1:
        raise SystemExit(f"performance.py: {PAGE} has {many} sections {begin}")
    return new


def machine() -> str:
    """On what, when, and how busy it was."""
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return (f"Measured on {time.strftime('%Y-%m-%d')}: {model[1] if model else platform.machine()}, "
            f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}, core by "
            f"{instructions.compiler()}; load {os.getloadavg()[0]:.1f} at the end.")


def write_goals(quick: bool) -> dict[str, str]:
    peers_found, floor_found = peers.measure(quick), floor.measure(quick)
    return {"goals": f"{goals.table(goals.measure(quick, peers_found, floor_found))}\n{machine()}",
            "peers": peers.table(peers_found), "floor": floor.table(floor_found)}


def write_scaling(quick: bool) -> dict[str, str]:
    found = scaling.measure(quick)
    shown = scaling.plot(found, SVG)
    picture = f"![ns per unit along each axis]({SVG.name})" if shown else "(No plot: no matplotlib.)"
    return {"scaling": f"{scaling.table(found)}\n{picture}\n\n{machine()}"}


def write_instructions(quick: bool) -> dict[str, str]:
    del quick
    if (why := instructions.unavailable()) is not None:
        return {"instructions": f"Not counted: {why}."}
    found = instructions.count()
    stored = instructions.load().get(instructions.compiler(), {})
    tables = [instructions.table(instructions.totals(found), stored)]
    for path in ("fault_reclaim", "tlb_miss"):
        tables += [f"\n`{path}`, by function (what is inlined counts for where it is):\n\n",
                   instructions.functions(found[path], 10)]
    return {"instructions": "".join(tables)}


def steps(stage: str, actions: int) -> tuple[Counter[str], int]:
    """Steps of batch-tlb-flush by kind, and the folios reclaimed in them."""
    made = worlds.Round(worlds.Path(worlds.series, "pgsteal_anon", 2_500_000, policy=stage))
    rows, _ = made.sim._core.run_log(worlds.END, actions=actions)
    counted: Counter[str] = Counter()
    for step, n in Counter(rows["step"].tolist()).items():
        name = names.STEPS[step]
        counted[next(kind for kind, starts in KINDS.items() if name.startswith(starts))] += n
    return counted, made.units


def write_steps(quick: bool) -> dict[str, str]:
    actions = 100_000 if quick else 1_000_000
    both = {stage: steps(stage, actions) for stage in ("stage0", "stage5")}
    lines = ["| steps per folio reclaimed, `batch-tlb-flush` | stage0 | stage5 |", "|---|---|---|"]
    for kind in [*KINDS, "all"]:
        per = [f"{(counted.total() if kind == 'all' else counted[kind]) / units:.2f}"
               for counted, units in both.values()]
        lines.append(f"| {kind} | {' | '.join(per)} |")
    return {"steps": "\n".join(lines)}


PARTS: dict[str, Callable[[bool], dict[str, str]]] = {
    "steps": write_steps, "instructions": write_instructions, "scaling": write_scaling, "goals": write_goals}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: not worth publishing")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none is named")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    for part in args.parts or PARTS:
        print(f"--- {part}", file=sys.stderr)
        for name, body in PARTS[part](args.quick).items():
            PAGE.write_text(replace(PAGE.read_text(), name, body))


if __name__ == "__main__":
    main()
