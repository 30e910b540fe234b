"""Worlds in which one hot path does nearly all the work, and how such a path is run and timed.

Shared by the benchmarks (`bench_*.py`), `goals.py`, `scaling.py` and `instructions.py`: a path's name means
the same world in all of them.  The length of a round is in actions of the core (docs/model.md 2), each a
step or a touch that hit: every round makes the same ones, from the same snapshot.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reclaim import names
from reclaim.scenario import Scenario
from reclaim.simulation import Simulation
from reclaim.workloads import AccessProgram
from reclaim.workloads.synthetic import WRITER_THINK_NS, Pass, program
from reclaim.world import World

END = (1 << 53) - 1          # ps: the core's last moment, so that only the number of actions ends a run
FOREVER = 1 << 40            # touches
S = 10**12                   # ps
GIB = 1 << 18                # pages


@dataclass(frozen=True)
class Path:
    """One hot path.

    world : builds it.
    unit : the counter (or a sum of counters, "a+b") whose growth is the number of units, or "actions".
    warm : touches made before anything is timed.
    actions : of one round.
    policy : as `Simulation` takes it.
    """

    world: Callable[[], World]
    unit: str
    warm: int
    actions: int = 400_000
    policy: Any = "stage0"


class Round:
    """A path that was warmed up; `run` makes the same round again and again."""

    def __init__(self, path: Path, *, actions: int = 0) -> None:
        self.path = path
        self.actions = actions or path.actions
        self.sim = Simulation(path.world(), path.policy)
        self.sim._core.run(END, actions=1 << 60, touches=path.warm)
        self.stay()

    def stay(self) -> None:
        """Begin the round where the simulation stands."""
        self._before = self._counters()
        self._snapshot = self.sim.snapshot()

    def _counters(self) -> dict[str, int]:
        return dict(zip(names.COUNTERS, self.sim.view("counter").tolist(), strict=True))

    def back(self) -> None:
        """To the start of the round; not part of what is timed."""
        self.sim.restore(self._snapshot)

    def run(self) -> None:
        why = self.sim._core.run(END, actions=self.actions)
        assert why == "budget", f"the world stopped: {why}"

    @property
    def counted(self) -> dict[str, int]:
        """What the last round added to each counter."""
        return {name: n - self._before[name] for name, n in self._counters().items()}

    @property
    def units(self) -> int:
        if self.path.unit == "actions":
            return self.actions
        counted = self.counted
        return sum(counted[name] for name in self.path.unit.split("+"))

    def seconds(self) -> float:
        """CPU time of one round."""
        self.back()
        started = time.process_time()
        self.run()
        return time.process_time() - started

    def ns(self) -> float:
        """CPU time of a unit, in one round [ns]."""
        return 1e9 * self.seconds() / self.units


# --- worlds

def world(work: AccessProgram, *, cpus: int, limit: int, swap: Mapping[str, Any] | None = None,
          **fields: Any) -> World:
    """`work` on vm16's CPUs with `limit` pages and no kernel memory; `fields` of World on top.

    Task i starts on CPU i mod `cpus` and stays there.
    """
    base = Scenario.load("batch-tlb-flush").replace({
        "machine.cpus": cpus, "workload.workers": 1, "memcg.kernel": 0,
        **{f"swap.{key}": value for key, value in (swap or {}).items()}}).lower()
    tasks = len(work.task_mm)
    given = {name: value for name, value in work.__dict__.items() if name != "nr_processes"}
    return dataclasses.replace(base, **{
        **given, "limit": limit, "nr_folios": limit + 64 * tasks + 256,
        "nr_slots": 2 * sum(work.mm_pages), "task_cpu": tuple(i % cpus for i in range(tasks)),
        "task_pinned": (True,) * tasks, **fields})


def hits(*, cpus: int = 16, write: int = 1) -> World:
    """Each CPU's task touches 32 pages, which its first-level TLB holds."""
    one = Pass(nr=32, write=write, count=FOREVER, think_ns=WRITER_THINK_NS)
    first = Pass(nr=32, write=1)
    return world(program([first, one], workers=cpus, loop_to=1), cpus=cpus, limit=200 * cpus)


def misses(kind: str, *, cpus: int = 16, pages: int = 2 * GIB) -> World:
    """Memory for all pages; every touch misses the TLB (`RAND`: 95 in 100) and finds its PTE present."""
    each = pages // cpus
    first = Pass(nr=each, write=1)
    then = Pass(nr=each, kind=kind, write=1, count=FOREVER, think_ns=WRITER_THINK_NS)
    return world(program([first, then], workers=cpus, loop_to=1), cpus=cpus, limit=pages + 200 * cpus)


DEVICES: dict[str, dict[str, Any]] = {
    "zram": {"kind": "zram"},
    "nvme": {"kind": "nvme", "depth": 1023, "bandwidth": "5G"},
    "depth8": {"kind": "nvme", "depth": 8, "bandwidth": "5G"},
}


def writers(device: str = "zram", *, cpus: int = 16, each: int = 4096, kind: str = "SEQ") -> World:
    """Each CPU's task writes its pages over and over, in half the memory they need.

    In order every touch faults, at random about half of them do.
    """
    first = Pass(nr=each, write=1, think_ns=WRITER_THINK_NS)
    then = Pass(nr=each, kind=kind, write=1, count=FOREVER, think_ns=WRITER_THINK_NS)
    return world(program([first, then], workers=cpus, loop_to=1), cpus=cpus, limit=cpus * each // 2,
                 swap=DEVICES[device])


def first_touches(limit: int, *, cpus: int = 16, each: int = 32768) -> World:
    """Each page is written once: nothing is read back, so reclaim is all that `limit` adds."""
    one = Pass(nr=each, write=1, think_ns=WRITER_THINK_NS)
    return world(program([one], workers=cpus), cpus=cpus, limit=limit)


def _threads(rows: list[list[Pass]], pages: int) -> AccessProgram:
    """Threads of one mm; thread i repeats rows[i]."""
    first = [sum(map(len, rows[:i])) for i in range(len(rows))]
    whole = program([p for row in rows for p in row], workers=len(rows), pages=pages, threads=True)
    return dataclasses.replace(whole, task_first_pass=tuple(first), task_nr_passes=tuple(map(len, rows)),
                               task_loop_to=(0,) * len(rows))


def _zapper(first: int) -> list[Pass]:
    """Write a page and give it up: one flush of the whole mm each time."""
    return [Pass(nr=1, first=first, write=1), Pass(nr=1, first=first, kind="DONTNEED")]


def flushes(targets: int) -> World:
    """One thread zaps; `targets` others, each on its CPU, take the interrupts and do nothing else."""
    idle = Pass(nr=1, count=FOREVER, think_ns=1e9)
    rows = [_zapper(512), *([idle] for _ in range(targets))]
    cpus = targets + 1
    return world(_threads(rows, 1024), cpus=cpus, limit=200 * cpus, tick=S, cpus_per_socket=512)


def storms(cpus: int = 16) -> World:
    """Every CPU zaps a page of its own in one mm: flushes meet in the call queues."""
    rows = [_zapper(512 * i) for i in range(cpus)]
    return world(_threads(rows, 512 * cpus), cpus=cpus, limit=200 * cpus, tick=S)


def stuck() -> World:
    """All memory is under write-back that does not end: reclaim isolates folios and puts them back.

    The device takes 10 s for a request, cgroup v2 does not wait for it.
    """
    one = Pass(nr=16384, write=1, count=FOREVER, think_ns=WRITER_THINK_NS)
    return world(program([one]), cpus=1, limit=8192, swap={"kind": "nvme", "depth": 65536},
                 io_latency=10 * S, cgroup=2)


_SCAN = ("reclaim_prio", "lru_lock", "lru_isolate", "lru_putback", "lru_add", "scan", "rmap", "relock",
         "free")
_WALKED = 20                 # bits


def walks(pages: int = 1 << 16) -> World:
    """MGLRU on one CPU: a hot range that memory holds, between passes over a cold one that it does not.

    Two tasks, for an mm is only walked again after it was switched to.
    A PTE that is looked at costs 1 ps, all else that reclaim does a multiple of 2**20 ps: see `walked`.
    """
    hot = Pass(nr=pages // 2, write=1, think_ns=WRITER_THINK_NS)
    cold = Pass(nr=pages // 2, first=pages // 2, write=1, think_ns=WRITER_THINK_NS)
    made = world(program([hot, cold], workers=2), cpus=1, limit=pages * 3 // 2, lru=1)
    costs = dict(zip(names.COSTS, made.costs, strict=True))
    costs |= {name: -(-costs[name] >> _WALKED) << _WALKED for name in _SCAN} | {"walk_pte": 1, "walk_young": 0}
    return dataclasses.replace(made, costs=tuple(costs.values()))


def walked(sim: Simulation) -> int:
    """PTEs that reclaim has looked at in `walks`, as the CPU's time tells (modulo 2**20)."""
    return int(sim.view("time")[names.TIMES.index("scan")]) & ((1 << _WALKED) - 1)


def scaled(cpus: int = 16, *, mapped: str = "2G", limit: str = "512M", device: str = "zram",
           **keys: Any) -> World:
    """`batch-tlb-flush` with other sizes, a worker a CPU."""
    return Scenario.load("batch-tlb-flush").replace({
        "machine.cpus": cpus, "workload.workers": cpus, "workload.bytes": mapped, "memcg.limit": limit,
        "memory.total": "1T", **{f"swap.{k}": v for k, v in DEVICES[device].items()}, **keys}).lower()


def mixed() -> World:
    """A small `batch-tlb-flush`."""
    return scaled(16, mapped="512M", limit="128M")


def series(device: str = "zram") -> World:
    """`batch-tlb-flush` itself, on that device."""
    return scaled(device=device, **{"memory.total": "31834M", "swap.size": "8191M"})


def steady(cpus: int, *, policy: Any = "stage0", actions: int = 4_000_000, **keys: Any) -> Path:
    """`batch-tlb-flush` in 1 GiB over 256 MiB on so many CPUs, when it reads from swap."""
    return Path(lambda: scaled(cpus, mapped="1G", limit="256M", **keys), "pgsteal_anon", GIB * 5 // 4,
                actions, policy)


def writing(pages: int, kind: str, *, cpus: int) -> Path:
    """Writers of `pages` in all, when they read from swap."""
    return Path(lambda: writers(cpus=cpus, each=pages // cpus, kind=kind), "pgmajfault", pages * 5 // 4,
                4_000_000)


# --- paths, of which several tools measure the same

PATHS: dict[str, Path] = {
    "tlb_hit": Path(hits, "page_touches", 16 * 4096, 4_000_000),
    "tlb_miss": Path(lambda: misses("SEQ"), "page_touches", 3 * GIB, 2_000_000),
    "tlb_miss_random": Path(lambda: misses("RAND"), "page_touches", 3 * GIB, 2_000_000),
    "fault_reclaim": Path(writers, "pgmajfault", 130_000, 4_000_000),
    "fault_reclaim_stage5": Path(writers, "pgmajfault", 130_000, 4_000_000, "stage5"),
    "swap_queue": Path(lambda: writers("nvme"), "pswpin+pswpout", 130_000, 4_000_000),
    "swap_queue_full": Path(lambda: writers("depth8"), "pswpin+pswpout", 130_000, 4_000_000),
    "flush": Path(lambda: flushes(15), "flush_mm_remote", 16),
    "coalescing": Path(storms, "nr_tlb_remote_flush_received", 200, 1_000_000),
    "isolate": Path(stuck, "pgscan_anon", 8191, 1_000_000, {"activation": "never"}),
    "aging": Path(stuck, "pgdeactivate", 8191, 1_000_000),
    "generations": Path(lambda: dataclasses.replace(writers(), lru=1), "pgmajfault", 130_000, 4_000_000),
}


def in_turn(rounds: int, *paths: Path) -> list[tuple[float, ...]]:
    """ns per unit of each path, a row a round: they run in turn, so that a busy machine disturbs all."""
    made = [Round(path) for path in paths]
    return [tuple(one.ns() for one in made) for _ in range(rounds)]
