"""What must be, what is aimed at and what was measured.

    python bench/goals.py [--quick]

CPU time of one core, medians; what is compared runs in turn in one process.  `performance.py` writes the
table to docs/performance.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from dataclasses import dataclass
from typing import Any

import bench_policies
import bench_state
import floor
import parallel
import peers
import worlds
from reclaim.policies.flush import BatchFlush

COMPARED = "libcachesim LRU"


@dataclass(frozen=True)
class Goal:
    """A row: a number, what it must be and what is aimed at.  `most`: at most that, not at least."""

    what: str
    must: float
    aim: float
    unit: str
    measured: float | None
    command: str = "python bench/goals.py"
    most: bool = False

    @property
    def reached(self) -> str:
        if self.measured is None:
            return "not measured"
        sign = -1 if self.most else 1
        met = [sign * self.measured >= sign * bound for bound in (self.must, self.aim)]
        return "aim" if met[1] else "must" if met[0] else "**no**"

    def __post_init__(self) -> None:
        print(f"{self.what}: {self.measured}", file=sys.stderr)

    def row(self) -> str:
        def shown(value: float | None) -> str:
            if value is None:
                return "-"
            return f"{100 * value:.0f}%" if self.unit == "%" else f"{value:.3g}{self.unit}"
        sign = "at most " if self.most else ""
        return (f"| {self.what} | {sign}{shown(self.must)} | {sign}{shown(self.aim)} "
                f"| **{shown(self.measured)}** | {self.reached} | `{self.command}` |")


def millions(path: worlds.Path, rounds: int) -> float:
    """Millions of units a second of CPU time."""
    return 1e3 / statistics.median(row[0] for row in worlds.in_turn(rounds, path))


def ratio(rounds: int, over: worlds.Path, under: worlds.Path) -> float:
    """How many times as long a unit of `over` takes as one of `under`."""
    return statistics.median(a / b for a, b in worlds.in_turn(rounds, over, under))


def touches(rounds: int) -> list[Goal]:
    found = [("touches that hit the TLB, 16 CPUs", "tlb_hit", 60, 120),
             ("touches that miss the TLB, page present, 2 GiB, in order", "tlb_miss", 30, 60),
             ("the same at random", "tlb_miss_random", 30, 60)]
    return [Goal(what, must, aim, " M/s", millions(worlds.PATHS[name], rounds))
            for what, name, must, aim in found]


def series(rounds: int, quick: bool) -> list[Goal]:
    """Folios reclaimed a second of CPU time, the whole machine of batch-tlb-flush."""
    goals = []
    for device, stage, must, aim in (("zram", "stage0", 1.5, 3), ("zram", "stage5", 2.5, 5),
                                     ("nvme", "stage0", 0.8, 1.6), ("nvme", "stage5", 1.2, 2.5)):
        path = worlds.Path(lambda: worlds.series(device), "pgsteal_anon", 2_500_000,
                           4_000_000 if quick else 20_000_000, stage)
        goals.append(Goal(f"folios reclaimed, `batch-tlb-flush`, {device}, {stage}", must, aim, " M/s",
                          millions(path, rounds)))
    return goals


def against_peers(found: dict[str, Any]) -> list[Goal]:
    command, goals = "python bench/peers.py", []
    for name, rows in found["traces"].items():
        by_tool = {row.tool: row.ns for row in rows}
        faster = by_tool[COMPARED] / by_tool["reclaim, replay"] if COMPARED in by_tool else None
        goals.append(Goal(f"trace mode against {COMPARED}, {name}", 8, 15, "x", faster, command))
    steps, events = found["events"]
    faster = events and events / steps
    return [*goals, Goal("steps a second against SimPy's events", 10, 20, "x", faster, command)]


def against_floor(found: list[dict[str, Any]]) -> list[Goal]:
    return [Goal(f"time per page reclaimed against floor.c, {r['stage']}", 2.5, 1.5, "x", r["ratio"],
                 "python bench/floor.py", most=True) for r in found]


def policy(rounds: int) -> list[Goal]:
    compiled, python = (worlds.Path(worlds.series, "pgsteal_anon", 2_500_000, 4_000_000,
                                    {"base": "stage5", "flush": strategy})
                        for strategy in (BatchFlush(31), bench_policies.Every31()))
    return [Goal("a flush policy in Python against the same compiled, whole run", 1.5, 1.15, "x",
                 ratio(rounds, python, compiled), most=True)]


def sizes(rounds: int, quick: bool) -> list[Goal]:
    """The two ends of scaling.py's axes, in turn."""
    most = 4 if quick else 64
    per_step = [dataclasses.replace(worlds.steady(cpus), unit="actions") for cpus in (512, 16)]
    goals = [Goal("512 CPUs against 16, time per step", 2, 1.6, "x", ratio(rounds, *per_step), most=True)]
    for order, kind in (("in order", "SEQ"), ("at random", "RAND")):
        large, small = (worlds.writing(gib * worlds.GIB, kind, cpus=4) for gib in (most, 2))
        goals.append(Goal(f"{most} GiB against 2 GiB, time per fault, written {order}", 2.5, 1.8, "x",
                          ratio(rounds, large, small), most=True))
    return goals


def two_at_once(rounds: int) -> list[Goal]:
    return [Goal(f"two runs at once: {name}, {kind}", 0.9, 0.95, "%", share, "python bench/parallel.py")
            for name, both in parallel.measure(rounds).items()
            for kind, share in zip(("wall time", "CPU time"), both, strict=True)]


def starts(rounds: int) -> list[Goal]:
    bounds = {"import reclaim": (0.3, 0.15), "import reclaim.Simulation": (0.3, 0.15),
              "reclaim --help": (0.15, 0.1)}
    return [Goal(f"`{what}`, CPU time of the process", must, aim, " s",
                 statistics.median(bench_state.start(what) for _ in range(rounds)), most=True)
            for what, (must, aim) in bounds.items()]


def measure(quick: bool, peers_found: dict[str, Any], floor_found: list[dict[str, Any]]) -> list[Goal]:
    rounds = 1 if quick else 7
    goals = [*touches(rounds), *series(rounds, quick), *policy(rounds), *sizes(rounds, quick),
             *two_at_once(rounds), *starts(rounds)]
    return [*goals, *against_floor(floor_found), *against_peers(peers_found)]


def table(goals: list[Goal]) -> str:
    return "\n".join(["| | must | aim | measured | reached | command |", "|---|---|---|---|---|---|",
                      *(goal.row() for goal in goals)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one shorter round")
    quick = parser.parse_args().quick
    sys.stdout.write(table(measure(quick, peers.measure(quick), floor.measure(quick))))


if __name__ == "__main__":
    main()
