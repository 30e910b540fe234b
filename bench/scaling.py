"""Cost per unit against CPUs, memory, length of the run, workers and batch size.

    python bench/scaling.py [--quick] [--svg FILE]

CPU time, the median of five rounds, those of all sizes in turn where they fit into memory together.  What
bounds a line is said in it: a world that would take over 8 GiB or half of the free memory is left out, and
the longest ones have fewer rounds.  The plot needs matplotlib (the `plot` extra).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import worlds
from reclaim import units
from reclaim.policies.flush import BatchFlush
from reclaim.workloads.synthetic import replay

MIB = 256                    # pages
MOST = 8 << 30               # bytes of one world, its snapshot included
PER_PAGE = 45                # bytes of the arena for a page: PTE, half a folio, two slots, and some


@dataclass(frozen=True)
class Point:
    """One line: `x` on the axis, what it is called, and the path to time."""

    x: float
    label: str
    path: worlds.Path
    bytes: int = 0           # of the world, about
    rounds: int = 5


@dataclass
class Line:
    label: str
    x: float
    ns: float | None         # None: left out
    ns_per_step: float = 0.0
    note: str = ""


def cpus(quick: bool) -> Iterator[Point]:
    for n in (1, 16, 128) if quick else (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        yield Point(n, f"{n}", worlds.steady(n))


def memory(kind: str) -> Callable[[bool], Iterator[Point]]:
    def points(quick: bool) -> Iterator[Point]:
        for mib in (16, 256) if quick else (16, 64, 256, 1024, 2048, 4096, 16384, 65536):
            pages = mib * MIB
            yield Point(mib << 20, units.format_size(mib << 20), worlds.writing(pages, kind, cpus=4),
                        bytes=2 * PER_PAGE * pages, rounds=5 if mib < 16384 else 3)
    return points


def length(quick: bool) -> Iterator[Point]:
    """Uniform references to 2 GiB over 512 MiB, from an empty memory."""
    for million in (1,) if quick else (1, 3, 10, 30, 100):
        def build(n: int = million * 1_000_000) -> worlds.World:
            pages = np.random.default_rng(1).integers(0, 2 * worlds.GIB, n, dtype=np.uint32)
            return worlds.world(replay(pages, True, think_ns=1.0), cpus=1, limit=worlds.GIB // 2)
        yield Point(million, f"{million} M", worlds.Path(build, "page_touches", 1, 0),
                    rounds=5 if million < 30 else 1)


def workers(quick: bool) -> Iterator[Point]:
    for n in (16, 256) if quick else (1, 4, 16, 64, 256, 1024, 4096):
        path = worlds.steady(16, **{"workload.workers": n, "memcg.kernel": 0})
        yield Point(n, f"{n}", replace(path, unit="actions"))     # many small workers hardly reclaim


def batch(quick: bool) -> Iterator[Point]:
    for n in (1, 31) if quick else (1, 2, 4, 8, 16, 31):
        yield Point(n, f"{n}", worlds.steady(16, policy=BatchFlush(n)))


@dataclass(frozen=True)
class Axis:
    title: str
    unit: str
    points: Callable[[bool], Iterator[Point]]


AXES = {
    "CPUs": Axis("CPUs (1 GiB mapped, limit 256 MiB, a worker a CPU)", "page reclaimed", cpus),
    "memory, in order": Axis("memory written in order (limit: half of it; 4 CPUs)", "major fault",
                             memory("SEQ")),
    "memory, at random": Axis("memory written at random (limit: half of it; 4 CPUs)", "major fault",
                              memory("RAND")),
    "length": Axis("references (uniform over 2 GiB, limit 512 MiB, one CPU, from the start)", "reference",
                   length),
    "workers": Axis("workers (16 CPUs, 1 GiB mapped, limit 256 MiB)", "step", workers),
    "batch": Axis("dirty folios of a flush (16 CPUs, 1 GiB mapped, limit 256 MiB)", "page reclaimed", batch),
}


def free_memory() -> int:
    text = Path("/proc/meminfo").read_text()
    return int(text.split("MemAvailable:")[1].split()[0]) << 10


class Whole(worlds.Round):
    """A run to its end, its length the world's."""

    def __init__(self, path: worlds.Path) -> None:
        super().__init__(path)
        self.actions = 1

    def run(self) -> None:
        assert self.sim._core.run(worlds.END, actions=1 << 60) == "finished"


def groups(points: Iterator[Point]) -> Iterator[list[Point]]:
    """Neighbours with as many rounds, as many as fit into memory together."""
    together: list[Point] = []
    for point in points:
        if together and (point.rounds != together[0].rounds
                         or sum(p.bytes for p in together) + point.bytes > free_memory() // 4):
            yield together
            together = []
        together.append(point)
    yield together


def along(axis: Axis, quick: bool) -> list[Line]:
    """The lines of one axis."""
    found = []
    for together in groups(axis.points(quick)):
        if together[0].bytes > min(MOST, free_memory() // 2):
            found += [Line(p.label, p.x, None, note="left out: not enough memory") for p in together]
            continue
        made = [(Whole if not p.path.actions else worlds.Round)(p.path) for p in together]
        rounds = 1 if quick else together[0].rounds
        times = [[one.ns() for one in made] for _ in range(rounds)]
        for point, one, column in zip(together, made, zip(*times, strict=True), strict=True):
            ns = statistics.median(column)
            per_step = ns * one.units / one.actions if point.path.actions else 0.0
            found.append(Line(point.label, point.x, ns, per_step, "" if rounds == 5 else f"rounds: {rounds}"))
            print(axis.title, point.label, f"{ns:.1f} ns", file=sys.stderr)
    return found


def measure(quick: bool = False) -> dict[str, list[Line]]:
    return {name: along(axis, quick) for name, axis in AXES.items()}


def table(found: dict[str, list[Line]]) -> str:
    lines = []
    for name, axis in AXES.items():
        lines += [f"| {axis.title} | ns per {axis.unit} | ns per step | |", "|---|---|---|---|"]
        for line in found[name]:
            ns = "-" if line.ns is None else f"{line.ns:.0f}"
            ns = ns if line.ns is None or line.ns >= 100 else f"{line.ns:.1f}"
            per_step = f"{line.ns_per_step:.1f}" if line.ns_per_step and axis.unit != "step" else "-"
            lines.append(f"| {line.label} | {ns} | {per_step} | {line.note} |")
        lines.append("")
    return "\n".join(lines)


def plot(found: dict[str, list[Line]], file: Path) -> bool:
    """Small multiples, one per axis; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.hashsalt": "reclaim", "svg.fonttype": "none", "font.size": 8})
    figure, panels = plt.subplots(2, 3, figsize=(9, 5), constrained_layout=True)
    for (name, axis), panel in zip(AXES.items(), panels.flat, strict=True):
        done = [line for line in found[name] if line.ns is not None]
        panel.plot([line.x for line in done], [line.ns for line in done], "o-", color="#335577")
        panel.set_xscale("log", base=2 if name != "length" else 10)
        panel.set_xticks([line.x for line in done], [line.label for line in done], rotation=45)
        panel.minorticks_off()
        panel.set_ylim(0, 1.1 * max(line.ns for line in done if line.ns))
        panel.set_title(name, fontsize=9)
        panel.set_ylabel(f"ns per {axis.unit}")
    figure.savefig(file, metadata={"Date": None})
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few small sizes, one round")
    parser.add_argument("--svg", type=Path, help="where to plot")
    args = parser.parse_args()
    found: dict[str, Any] = measure(args.quick)
    sys.stdout.write(table(found))
    if args.svg and not plot(found, args.svg):
        print("no plot: matplotlib is not installed", file=sys.stderr)


if __name__ == "__main__":
    main()
