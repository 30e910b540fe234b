"""How far the simulation is from the least work that gives the same counts: `floor.c`.

    python bench/floor.py [--quick]

Builds floor.c with the system's compiler (CC, cc, gcc; -O3 as the core) and runs the same access programs
of `batch-tlb-flush` through both, for the same number of touches after the same number of touches.  What
floor.c leaves out is written there.  CPU time, rounds in turn, medians; the ratio is per reclaimed page.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import worlds
from reclaim import names
from reclaim.scenario import Scenario
from reclaim.world import World

HERE = Path(__file__).parent
COUNTS = ("touches", "faults", "majfaults", "scanned", "stolen", "received", "ipis", "activated", "turns")
SAME = {"stolen": "pgsteal_anon", "scanned": "pgscan_anon", "majfaults": "pgmajfault",
        "received": "nr_tlb_remote_flush_received", "ipis": "function_call_ipis"}
BATCH = {"stage0": 0, "stage5": 31}
MAX_CPUS = 64            # of floor.c
CLOSE = 0.1              # pages reclaimed, floor and simulation, may differ by so much


class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in COUNTS]


def compiler() -> str | None:
    return next((cc for cc in (os.environ.get("CC"), "cc", "gcc") if cc and shutil.which(cc)), None)


def build(directory: str) -> ctypes.CDLL:
    cc = compiler()
    if cc is None:
        raise SystemExit("floor.py: no C compiler; set CC")
    library = Path(directory) / "floor.so"
    costs = [f"-DCO_{name}={i}" for i, name in enumerate(names.COSTS)]
    flags = ["-O3", "-std=gnu11", "-Wall", "-Wextra", "-shared", "-fPIC", *costs]
    subprocess.run([cc, *flags, "-o", library, HERE / "floor.c"], check=True)
    made = ctypes.CDLL(str(library))
    made.floor_new.restype = ctypes.c_void_p
    return made


class Floor:
    """floor.c over the access programs of `world`: one worker a CPU; its page tables are there at once."""

    def __init__(self, library: ctypes.CDLL, world: World, stage: str) -> None:
        assert len(world.task_mm) == world.nr_cpus == len(world.mm_pages) <= MAX_CPUS
        self._library = library
        arrays = {
            "cost": np.array(world.costs, np.int64), "passes": np.ascontiguousarray(world.passes),
            **{name: np.array(getattr(world, name), np.int32) for name in
               ("task_first_pass", "task_nr_passes", "task_loop_to", "mm_recency", "mm_pages")}}
        self._keep = arrays
        tables = sum(-(-pages // 512) for pages in world.mm_pages)
        frames = world.limit - world.kernel_pages - tables
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays.values()]
        self._machine = ctypes.c_void_p(library.floor_new(world.nr_cpus, BATCH[stage], frames, *pointers))

    def run(self, touches: int) -> dict[str, int]:
        out = Counts()
        self._library.floor_run(self._machine, ctypes.c_int64(touches), ctypes.byref(out))
        return {name: getattr(out, name) for name in COUNTS}

    def __del__(self) -> None:
        self._library.floor_free(self._machine)


def compare(stage: str, *, rounds: int, actions: int, warm: int = 2_500_000) -> dict[str, Any]:
    """ns per reclaimed page and counts of both."""
    world = Scenario.load("batch-tlb-flush").lower()
    path = worlds.Path(lambda: world, "pgsteal_anon", warm, actions, stage)
    simulated, mine, theirs = worlds.Round(path), [], []
    with tempfile.TemporaryDirectory() as directory:
        library = build(directory)
        for _ in range(rounds):
            mine.append(simulated.seconds() / simulated.units)
            touches = simulated.counted["page_touches"]
            floor = Floor(library, world, stage)
            floor.run(warm)
            started = time.process_time()
            counts = floor.run(touches)
            theirs.append((time.process_time() - started) / counts["stolen"])
    counted = {ours: simulated.counted[name] for ours, name in SAME.items()}
    off = counts["stolen"] / counted["stolen"] - 1
    assert abs(off) <= CLOSE, f"{stage}: {counted['stolen']} pages reclaimed, by floor.c {counts['stolen']}"
    return {"stage": stage, "simulated": 1e9 * statistics.median(mine),
            "floor": 1e9 * statistics.median(theirs),
            "ratio": statistics.median(a / b for a, b in zip(mine, theirs, strict=True)),
            "touches": touches, "turns": counts["turns"], "steps": actions,
            "counts": {name: (counted[name], counts[name]) for name in SAME}}


def table(found: list[dict[str, Any]]) -> str:
    lines = ["| | simulation | floor.c | ratio |", "|---|---|---|---|"]
    for r in found:
        lines.append(f"| **{r['stage']}: ns per page reclaimed** | **{r['simulated']:.0f}** "
                     f"| **{r['floor']:.0f}** | **{r['ratio']:.2f}** |")
        for name, (ours, floors) in r["counts"].items():
            lines.append(f"| {SAME[name]} | {ours:,} | {floors:,} | {ours / max(1, floors):.2f} |")
        lines.append(f"| actions; turns of its loop | {r['steps']:,} | {r['turns']:,} "
                     f"| {r['steps'] / r['turns']:.2f} |")
    return "\n".join(lines) + "\n"


def measure(quick: bool = False) -> list[dict[str, Any]]:
    rounds, actions = (1, 5_000_000) if quick else (7, 20_000_000)
    return [compare(stage, rounds=rounds, actions=actions) for stage in BATCH]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one shorter round")
    sys.stdout.write(table(measure(parser.parse_args().quick)))


if __name__ == "__main__":
    main()
