"""Measured cases of this machine beside two simulations: a packaged profile, and one that was calibrated here.

    reclaim calibrate -o here.toml
    python bench/calibrated.py RUNS.jsonl here.toml [--match host-] [--seconds 8] [--seeds 3] [--packaged vm16]

RUNS is a file of measured runs (docs/measured.md); each case whose name holds what `--match` says runs with its own
scenario: its counts to the work that was measured (stress-ng's methods differ, and with dearer costs a run of equal
time gets less far in them), its speed for `--seconds`.  Prints a table in Markdown: for each reclaimed page, and
reclaimed pages a second; medians over repeats and seeds.
"""

from __future__ import annotations

import argparse
import statistics

from reclaim.comparison import simulate
from reclaim.measured import Case, Observation, load
from reclaim.result import ratio
from reclaim.validation import predict

COLUMNS = {"shootdowns": "tlb_shootdowns", "scans": "pgscan_anon", "major faults": "pgmajfault"}


def measured(case: Case) -> list[float | None]:
    rates = [run["pgsteal_anon"] / seconds for run, seconds in zip(case.repeats, case.seconds, strict=True)]
    of = Observation((case,))
    return [*(of.ratio(case.policy, name, "pgsteal_anon") for name in COLUMNS.values()), statistics.median(rates)]


def simulated(case: Case, args: argparse.Namespace, profile: str) -> list[float | None]:
    seeds = range(1, args.seeds + 1)
    runs = [run for seed in seeds for run in predict(case, seed, profile=profile)]
    found = [[ratio(run[name], run["pgsteal_anon"]) for name in COLUMNS.values()] for run in runs]
    scenario = case.load_scenario(profile).replace(seconds=args.seconds)
    rates = [simulate(scenario, case.policy, seed=seed).counters["pgsteal_anon"] / args.seconds for seed in seeds]
    return [*(statistics.median(values) for values in zip(*found, strict=True)), statistics.median(rates)]


def show(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs")
    parser.add_argument("profile")
    parser.add_argument("--match", default="host-")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--packaged", default="vm16")
    args = parser.parse_args()
    heads = [*COLUMNS, "pages/s"]
    print("| case | policy | " + " | ".join(f"{head}: measured | {args.packaged} | here" for head in heads) + " |")
    print("|---" * (2 + 3 * len(heads)) + "|")
    errors: dict[str, list[list[float]]] = {head: [[], []] for head in heads}
    for case in (case for case in load(args.runs) if args.match in case.case):
        rows = [measured(case)] + [simulated(case, args, profile) for profile in (args.packaged, args.profile)]
        cells = [show(row[i]) for i in range(len(heads)) for row in rows]
        print(f"| {case.case} | {case.policy} | " + " | ".join(cells) + " |", flush=True)
        for i, head in enumerate(heads):
            for side in (0, 1):
                error = ratio(rows[1 + side][i], rows[0][i])
                if error is not None:
                    errors[head][side].append(abs(error - 1))
    print("\nmedian absolute relative error, " + args.packaged + " and here: " + "; ".join(
        f"{head} {statistics.median(sides[0]):.0%}, {statistics.median(sides[1]):.0%}"
        for head, sides in errors.items() if all(sides)))


if __name__ == "__main__":
    main()
