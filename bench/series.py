"""Every combination of what the series' cover letter leaves open, beside its table.

    python bench/series.py > docs/series.md        # about six minutes on two cores

The combinations are fixed here, before anything is run, and all are printed.
"""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import reclaim
from reclaim.comparison import default_threads
from reclaim.scenario import Scenario

SECONDS = 20.0
OPEN = {
    "swap.kind": ("zram", "nvme"),
    "kernel.mm_cpumask": ("eager", "lazy"),
    "kernel.cgroup": ("v1", "v2"),
    "workload.madvise": ("default", "normal", "random"),
}
ROWS = ("bogo_ops_per_s", "tlb_shootdowns", "function_call_ipis", "pgscan_anon", "pgsteal_anon")
PER_PAGE = {
    "shootdowns/page": ("tlb_shootdowns", "pgsteal_anon"),
    "IPIs/page": ("function_call_ipis", "pgsteal_anon"),
    "IPIs/shootdown": ("function_call_ipis", "tlb_shootdowns"),
    "steal/scan": ("pgsteal_anon", "pgscan_anon"),
}

HEAD = """# The series' table under every reading of its cover letter

Written by `python bench/series.py`: `batch-tlb-flush` with each combination of what the letter does not say and
this version models ({keys}),
{seconds:g} simulated seconds, seed 1, one run each; stage0 (before) and stage5 (after). Not among them: MGLRU, and
rotational devices, which are not modelled yet. Nothing was fitted, and no combination was left out. Per page
is per reclaimed page; changes of totals are after / before - 1.

Published: {published}.

| swap | mm_cpumask | cgroup | madvise | {per_page} | {rows} |
|---|---|---|---|{lines}
"""


def cell(before: float, after: float) -> str:
    return f"{before:.3f} -> {after:.3f}"


def change(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f}%" if before else "-"


def columns(before: dict[str, float], after: dict[str, float]) -> list[str]:
    def ratio(side: dict[str, float], over: str, under: str) -> float:
        return side[over] / side[under] if side[under] else float("nan")
    return ([cell(ratio(before, *r), ratio(after, *r)) for r in PER_PAGE.values()]
            + [change(before[r], after[r]) for r in ROWS])


def run(chosen: tuple[str, ...]) -> str:
    scenario = Scenario.load("batch-tlb-flush").replace(dict(zip(OPEN, chosen, strict=True)),
                                                        seconds=SECONDS)
    sides = [reclaim.simulate(scenario, stage).counters for stage in ("stage0", "stage5")]
    print(*chosen, file=sys.stderr)
    return "| " + " | ".join([*chosen, *columns(*sides)]) + " |"


def main() -> None:
    published = Scenario.load("batch-tlb-flush").published
    told = ", ".join(f"{name} {text}" for name, text in zip(
        [*PER_PAGE, *ROWS], columns(published["before"], published["after"]), strict=True))
    print(HEAD.format(keys=", ".join(f"`{key}`" for key in OPEN), seconds=SECONDS, published=told,
                      per_page=" | ".join(PER_PAGE), rows=" | ".join(ROWS),
                      lines="---|" * (len(PER_PAGE) + len(ROWS))), end="")
    with ThreadPoolExecutor(max_workers=default_threads()) as pool:
        for line in pool.map(run, itertools.product(*OPEN.values())):
            print(line)


if __name__ == "__main__":
    main()
