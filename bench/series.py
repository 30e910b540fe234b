"""Every combination of what the series' cover letter leaves open, beside its table.

    python bench/series.py > docs/series.md        # about ten minutes on two cores

The combinations are fixed here, before anything is run, and all are printed.
"""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import reclaim
from reclaim.comparison import default_threads
from reclaim.keys import toml_value
from reclaim.scenario import Scenario
from reclaim.sensitivity import DEVICES

SECONDS = 10.0
OPEN = {
    "swap": tuple(DEVICES),
    "kernel.lru": ("classic", "mglru"),
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
{seconds:g} simulated seconds, seed 1, one run each; stage0 (before) and stage5 (after). Nothing was fitted, and no
combination was left out. Per page is per reclaimed page; changes of totals are after / before - 1. {devices}

Published: {published}.

| swap | lru | mm_cpumask | cgroup | madvise | {per_page} | {rows} |
|---|---|---|---|---|{lines}
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
    device, *others = chosen
    keys = DEVICES[device] | dict(zip(list(OPEN)[1:], others, strict=True))
    scenario = Scenario.load("batch-tlb-flush").replace(keys, seconds=SECONDS)
    sides = [reclaim.simulate(scenario, stage).counters for stage in ("stage0", "stage5")]
    print(*chosen, file=sys.stderr)
    return "| " + " | ".join([*chosen, *columns(*sides)]) + " |"


def told_devices() -> str:
    said = {name: ", ".join(f"`{key} = {toml_value(value)}`" for key, value in keys.items())
            for name, keys in DEVICES.items()}
    return "Devices: " + "; ".join(f"{name}: {text}" for name, text in said.items()) + "."


def main() -> None:
    published = Scenario.load("batch-tlb-flush").published
    told = ", ".join(f"{name} {text}" for name, text in zip(
        [*PER_PAGE, *ROWS], columns(published["before"], published["after"]), strict=True))
    print(HEAD.format(keys=", ".join(f"`{key}`" for key in OPEN), seconds=SECONDS, published=told,
                      devices=told_devices(),
                      per_page=" | ".join(PER_PAGE), rows=" | ".join(ROWS),
                      lines="---|" * (len(PER_PAGE) + len(ROWS))), end="")
    with ThreadPoolExecutor(max_workers=default_threads()) as pool:
        for line in pool.map(run, itertools.product(*OPEN.values())):
            print(line)


if __name__ == "__main__":
    main()
