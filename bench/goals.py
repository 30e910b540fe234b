"""What must be, what is aimed at and what was measured.

    python bench/goals.py [--quick]

CPU time of one core, medians; what is compared runs in turn in one process.  `performance.py` writes the table to
docs/performance.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Callable
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
    """A row: a number with its bounds.  `most`: it must be at most that, not at least."""

    what: str
    must: float
    aim: float
    unit: str
    measured: float | None
    command: str
    most: bool = False

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        reached = [self.measured <= bound if self.most else self.measured >= bound for bound in (self.must, self.aim)]
        return "aim" if reached[1] else "must" if reached[0] else "**no**"

    def row(self) -> str:
        def shown(value: float | None) -> str:
            if value is None:
                return "-"
            return f"{100 * value:.0f}%" if self.unit == "%" else f"{value:.3g}{self.unit}"
        sign = "at most " if self.most else ""
        return (f"| {self.what} | {sign}{shown(self.must)} | {sign}{shown(self.aim)} | **{shown(self.measured)}** | "
                f"{self.verdict} | `{self.command}` |")


def millions(path: worlds.Path, rounds: int) -> float:
    """Units a microsecond of CPU time: millions a second."""
    return 1e3 / statistics.median(row[0] for row in worlds.in_turn(rounds, path))


def ratio(rounds: int, over: worlds.Path, under: worlds.Path, per_step: bool = False) -> float:
    """How many times as long a unit of `over` takes as one of `under`."""
    if not per_step:
        return statistics.median(a / b for a, b in worlds.in_turn(rounds, over, under))
    made = [worlds.Round(path) for path in (over, under)]
    return statistics.median(a / b for a, b in (tuple(m.seconds() / m.actions for m in made) for _ in range(rounds)))


def touches(rounds: int) -> list[Goal]:
    found = [("touches that hit the TLB, 16 CPUs", "tlb_hit", 60, 120),
             ("touches that miss the TLB, page present, 2 GiB, in order", "tlb_miss", 30, 60),
             ("the same at random", "tlb_miss_random", 30, 60)]
    return [Goal(what, must, aim, " M/s", millions(worlds.PATHS[name], rounds), "pytest bench/bench_touches.py")
            for what, name, must, aim in found]


def series(rounds: int, quick: bool) -> list[Goal]:
    """Folios reclaimed a second of CPU time, the whole machine of batch-tlb-flush."""
    path = worlds.Path(worlds.series, "pgsteal_anon", 2_500_000, 4_000_000 if quick else 20_000_000)
    bounds = {("zram", "stage0"): (1.5, 3), ("zram", "stage5"): (2.5, 5), ("nvme", "stage0"): (0.8, 1.6),
              ("nvme", "stage5"): (1.2, 2.5)}
    return [Goal(f"folios reclaimed, `batch-tlb-flush`, {device}, {stage}", must, aim, " M/s",
                 millions(dataclasses.replace(path, world=lambda d=device: worlds.series(d), policy=stage), rounds),
                 "python bench/goals.py") for (device, stage), (must, aim) in bounds.items()]


def against_peers(found: dict[str, Any]) -> list[Goal]:
    goals = []
    for name, rows in found["traces"].items():
        by_tool = {row.tool: row.ns for row in rows}
        faster = by_tool[COMPARED] / by_tool["reclaim, replay"] if COMPARED in by_tool else None
        goals.append(Goal(f"trace mode against {COMPARED}, {name}", 8, 15, "x", faster, "python bench/peers.py"))
    steps, events = found["events"]
    goals.append(Goal("steps a second against SimPy's events", 10, 20, "x", events and events / steps,
                      "python bench/peers.py"))
    return goals


def against_floor(found: list[dict[str, Any]]) -> list[Goal]:
    return [Goal(f"time per page reclaimed against floor.c, {r['stage']}", 2.5, 1.5, "x", r["ratio"],
                 "python bench/floor.py", most=True) for r in found]


def policy(rounds: int) -> Goal:
    path = worlds.Path(worlds.series, "pgsteal_anon", 2_500_000, 4_000_000)
    compiled, python = (dataclasses.replace(path, policy={"base": "stage5", "flush": one})
                        for one in (BatchFlush(31), bench_policies.Every31()))
    return Goal("a flush policy in Python against the same compiled, whole run", 1.5, 1.15, "x", ratio(rounds, python, compiled),
                "python bench/goals.py", most=True)


def sizes(rounds: int, quick: bool) -> list[Goal]:
    """The two ends of scaling.py's axes, in turn."""
    big, small = (worlds.Path(lambda n=n: worlds.scaled(n, mapped="1G", limit="256M"), "pgsteal_anon", worlds.SETTLED,
                              4_000_000) for n in (512, 16))
    goals = [Goal("512 CPUs against 16, time per step", 2, 1.6, "x", ratio(rounds, big, small, per_step=True), "python bench/goals.py",
                  most=True)]
    for order, kind in (("in order", "SEQ"), ("at random", "RAND")):
        large, little = (worlds.Path(lambda p=pages, k=kind: worlds.writers(each=p // 16, kind=k), "pgmajfault", pages * 5 // 4,
                                     4_000_000) for pages in ((4 if quick else 64) * worlds.GIB, 2 * worlds.GIB))
        goals.append(Goal(f"{4 if quick else 64} GiB against 2 GiB, time per fault, written {order}", 2.5, 1.8, "x",
                          ratio(rounds, large, little), "python bench/goals.py", most=True))
    return goals


def two_at_once(rounds: int) -> list[Goal]:
    goals = []
    for name, (wall, cpu) in parallel.measure(rounds).items():
        goals += [Goal(f"two runs at once: {name}, {kind}", 0.9, 0.95, "%", share, "python bench/parallel.py")
                  for kind, share in (("wall time", wall), ("CPU time", cpu))]
    return goals


def starts(rounds: int) -> list[Goal]:
    def least(what: str) -> float:
        return statistics.median(bench_state.start(what) for _ in range(rounds))
    return [Goal(f"`{what}`, CPU time of the process", must, aim, " s", least(what), "pytest bench/bench_state.py", most=True)
            for what, must, aim in (("import reclaim", 0.3, 0.15), ("import reclaim.Simulation", 0.3, 0.15),
                                    ("reclaim --help", 0.15, 0.1))]


def measure(quick: bool, peers_found: dict[str, Any], floor_found: list[dict[str, Any]]) -> list[Goal]:
    rounds = 1 if quick else 7
    parts: list[Callable[[], list[Goal]]] = [
        lambda: touches(rounds), lambda: series(rounds, quick), lambda: against_peers(peers_found),
        lambda: against_floor(floor_found), lambda: [policy(rounds)], lambda: sizes(rounds, quick),
        lambda: two_at_once(rounds), lambda: starts(rounds)]
    goals = []
    for part in parts:
        goals += part()
        print(*(f"{g.what}: {g.measured}" for g in goals[-1:]), file=sys.stderr)
    return goals


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
