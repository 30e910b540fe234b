"""The tiny worlds whose interleavings `reclaim.explore` makes (docs/safety.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reclaim import names, policies
from reclaim._core import Core
from reclaim._explore import DEFECTS, ENVIRONMENTS, Explorer
from reclaim.errors import NotModelledError, PolicyError, ReclaimError, did_you_mean
from reclaim.policies.flush import RECHECKS, BatchFlush
from reclaim.world import PASS_DTYPE, World

LAYOUTS = ("own", "threads", "self")
# Pairs of classes that the model's fork refuses, and why.
NOT_MODELLED = {"pin": "a fork copies pinned pages at once",
                "mremap": "parent and child would differ in where their pages lie"}

# The system calls that each class makes: passes of the programs, one of each kind for every page.
CALLS = {"zap": ("zap",), "write-protect": ("protect", "unprotect"), "munmap": ("munmap",),
         "mremap": ("mremap",)}

# Switches of the series that `without` and `ablate` turn off -> the defect, or the re-check.
SWITCHES = {
    "trylock": "no-trylock", "writeback": "writeback", "lru": "lru", "mapped": "mapped", "pinned": "pinned",
    "refcount": "no-refcount-test", "swapcount": "no-swapcount-test", "locks": "unlock-before-writeout",
    "flush": "no-flush-before-writeout", "remainder": "remainder",
}


@dataclass(frozen=True, kw_only=True)
class TinyWorld:
    """What is explored: all of it is in a counterexample's file."""

    policy: Any = "stage5"            # as policies.get takes it; names can be saved
    cpus: int = 2                     # the first `reclaimers` reclaim, the others write
    folios: int = 2
    batch: int = 2                    # dirty folios of one flush, where the policy batches
    environment: str = "none"         # one class, or several joined by +
    layout: str = "own"               # writers have own mms, are threads of one, or of the reclaimer's
    device: str = "sync"              # sync: zram; async: a disk
    mask: str = "eager"               # mm_cpumask rule: eager (6.12) or lazy
    pcid: bool = True
    swapin_cached: bool = False       # 7.0
    reclaimers: int = 1
    writes: int = 2                   # at most, to each page
    reads: int = 0
    actions: int = 1                  # of the environment
    rounds: int = 1                   # shrink_folio_list calls of a reclaimer
    slots: int | None = None          # of the swap device; None: twice the folios, and one
    without: tuple[str, ...] = ()     # switches turned off
    defects: tuple[str, ...] = ()     # planted defects
    strict: bool = False              # loads in the kernel's own window are judged, too (docs/safety.md)
    any_start: bool = True            # pages dirty or clean and cached, in the TLBs or not; else dirty, in

    def __post_init__(self) -> None:
        for name, low, high in (("cpus", 1, 4), ("folios", 1, 4), ("batch", 1, 31), ("writes", 0, 7),
                                ("reads", 0, 7), ("actions", 0, 7), ("rounds", 1, 7), ("reclaimers", 1, 4)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ReclaimError(f"{name} must be an integer from {low} to {high}, got {value!r}")
        for name in ("pcid", "swapin_cached", "strict", "any_start"):
            if not isinstance(getattr(self, name), bool):
                raise ReclaimError(f"{name} must be True or False, got {getattr(self, name)!r}")
        for name, value in (("environment", self.environment), ("layout", self.layout),
                            ("device", self.device), ("mask", self.mask),
                            *(("switch", name) for name in self.without),
                            *(("defect", name) for name in self.defects)):
            if not isinstance(value, str):
                raise ReclaimError(f"{name} must be a name, got {value!r}")
        if self.reclaimers > self.cpus:
            raise ReclaimError(f"reclaimers must be at most {self.cpus}, the number of CPUs, "
                               f"got {self.reclaimers}")
        for name, known in (("layout", LAYOUTS), ("device", ("sync", "async")), ("mask", ("eager", "lazy"))):
            known_name(name, getattr(self, name), known)
        if self.slots is not None and (type(self.slots) is not int or not 0 <= self.slots <= 12):
            raise ReclaimError(f"slots must be from 0 to 12, got {self.slots!r}")
        if self.swapin_cached and self.device != "sync":
            raise ReclaimError("swapin_cached needs a synchronous device")
        for name in self.classes:
            if name in NOT_MODELLED and "fork" in self.classes:
                raise NotModelledError(f"environment {name!r} with 'fork' is not modelled: "
                                       f"{NOT_MODELLED[name]}")
            known_name("environment", name, ("none", *ENVIRONMENTS))
        for name in self.without:
            known_name("switch", name, SWITCHES)
        for name in self.defects:
            known_name("defect", name, DEFECTS)

    @property
    def classes(self) -> list[str]:
        return self.environment.split("+")

    @property
    def calls(self) -> list[str]:
        """The system calls that tasks may make."""
        return [call for name in self.classes for call in CALLS.get(name, ())]

    @property
    def spread(self) -> int:
        """How far apart the pages lie: where they move, each has a free one behind it."""
        return 2 if "mremap" in self.classes else 1

    @property
    def mm_pages(self) -> tuple[int, ...]:
        pages = tuple(max(1, len(own)) * self.spread for own in self._owners)
        return (*pages, pages[self.parent]) if self.forks else pages

    def to_dict(self) -> dict[str, Any]:
        fields = asdict(self)
        fields["without"], fields["defects"] = list(self.without), list(self.defects)
        return fields

    @property
    def owners(self) -> list[list[int]]:
        """For every mm the folios that it maps."""
        return self._owners + [[]] * self.forks

    @property
    def _owners(self) -> list[list[int]]:
        writers = self.cpus - self.reclaimers
        if self.layout == "self":
            return [list(range(self.folios))]
        if self.layout == "threads" or writers == 0:
            return [[] for _ in range(self.reclaimers)] + [list(range(self.folios))]
        own: list[list[int]] = [[] for _ in range(self.cpus)]
        for k in range(self.folios):
            own[self.reclaimers + k % writers].append(k)
        return own

    @property
    def task_mms(self) -> list[int]:
        """The mm of every task; task t starts on CPU t, but that of a world without writers."""
        own = self._task_mms
        return own + [len(self._owners)] * self.forks

    @property
    def task_cpus(self) -> list[int]:
        """Where each starts; a child that was not forked yet has a CPU, too."""
        return [min(t, self.cpus - 1) for t in range(len(self.task_mms))]

    @property
    def forks(self) -> bool:
        return "fork" in self.classes

    @property
    def parent(self) -> int:
        """The mm that forks: that of the first folio."""
        return next(i for i, own in enumerate(self._owners) if 0 in own)

    @property
    def _task_mms(self) -> list[int]:
        if self.layout == "self":
            return [0] * self.cpus
        if self.layout == "threads" or self.cpus == self.reclaimers:
            return [*range(self.reclaimers), *[self.reclaimers] * max(1, self.cpus - self.reclaimers)]
        return list(range(self.cpus))

    def strategies(self) -> policies.Policy:
        """The policy with its batch size and its switches."""
        policy = policies.get(self.policy)
        flush = policy.strategies["flush"]
        off = {SWITCHES[name] for name in self.without}
        traits = flush._traits()
        if type(flush) is BatchFlush:
            flush = BatchFlush(min(self.batch, traits["n"]), keeps_locks=traits["keeps_locks"],
                               remainder=traits["remainder"] and "remainder" not in off,
                               rechecks=[r for r in traits["rechecks"] if r not in off])
        elif off & {*RECHECKS, "remainder"}:
            none = " or ".join(sorted(off & {*RECHECKS, "remainder"}))
            raise PolicyError(f"{policy.name} has no {none} to turn off: it does not batch")
        return policies.Policy(policy.name, **{**policy.strategies, "flush": flush})

    def explorer(self, *, reduce: bool = True, symmetry: bool = True, whole: bool = False) -> Explorer:
        """The engine, at the root; `whole`: it does not stop at a violation."""
        owners, task_mms, mm_pages = self.owners, self.task_mms, self.mm_pages
        base = np.cumsum([0, *mm_pages]).tolist()
        vp_of = {k: base[i] + j * self.spread for i, own in enumerate(owners) for j, k in enumerate(own)}
        frame_of = {vp: i for i, vp in enumerate(sorted(vp_of.values()))}
        pages = [vp in frame_of for vp in range(sum(mm_pages))]
        tasks = len(task_mms)
        lists = [[frame_of[vp_of[k]] for k in range(self.folios) if k % self.reclaimers == r]
                 for r in range(self.reclaimers)]
        defects = {*self.defects, *(SWITCHES[name] for name in self.without if SWITCHES[name] in DEFECTS)}
        setup = {
            "environment": sum(1 << ENVIRONMENTS.index(e) for e in set(self.classes) - {"none"}),
            "defects": sum(1 << DEFECTS.index(d) for d in defects),
            "frames": (2 + self.forks) * self.folios + tasks + 1, "calls": self.calls,
            "fork_row": 1 + max(mm_pages) * len(self.calls), "rounds": self.rounds, "reads": self.reads,
            "writes": self.writes, "actions": self.actions, "nr_to_scan": self.folios, "pages": pages,
            "tasks": [(cpu, t < self.reclaimers, lists[t] if t < self.reclaimers else [])
                      for t, cpu in enumerate(self.task_cpus)],
            "starts": self.any_start, "strict": self.strict, "reduce": reduce, "symmetry": symmetry,
            "whole": whole,
        }
        return Explorer(Core(self._world(task_mms, mm_pages), self.strategies().bind()), setup)

    def _world(self, task_mms: list[int], mm_pages: tuple[int, ...]) -> World:
        costs = [0] * len(names.COSTS)
        for name in ("ipi_delivery", "ipi_delivery_cross"):     # what is sent comes later, whenever that is
            costs[names.COSTS.index(name)] = 1
        kind = names.PASS_KINDS.index
        rows = [(kind("SEQ"), 1, 0, 0, 0, 1, 1, 2**62, 0, 0, 0)]
        rows += [(kind(name), write, 0, 0, j, 1, stride, 1, 0, 0, 0) for j in range(max(mm_pages))
                 for name, write, stride in (_call_pass(call, j) for call in self.calls)]
        if self.forks:
            rows.append((kind("FORK"), 0, 0, 0, 0, max(mm_pages), 1, 1, 0, 0, 0))
        tasks = len(task_mms)
        return World(
            nr_cpus=self.cpus, cpus_per_socket=self.cpus, pcid=self.pcid, l1_sets=1, l1_ways=8, l2_sets=1,
            l2_ways=8, limit=1, kernel_pages=0, nr_folios=65 + 64 * tasks,
            nr_slots=2 * self.folios + 1 if self.slots is None else self.slots, swappiness=60, cgroup=1,
            mask_lazy=self.mask == "lazy", trim=False, swap_sync=self.device == "sync", io_depth=4,
            io_latency=2, io_page=0, swapin_cached=self.swapin_cached, pgrefill_global=False, host_cpus=0,
            pv_flush=False, tick=10**12, tick_skew=0, slice_ticks=10**6, migrate_threshold=0, seed=0,
            costs=tuple(costs), passes=np.array(rows, dtype=PASS_DTYPE), task_mm=tuple(task_mms),
            task_cpu=(0,) * tasks, task_pinned=(False,) * tasks, task_first_pass=(0,) * tasks,
            mm_child=tuple(len(mm_pages) - 1 if i == self.parent else -1 for i in range(len(mm_pages)))
            if self.forks else (),
            task_nr_passes=tuple(1 + mm_pages[i] * len(self.calls) + (self.forks and i == self.parent)
                                 for i in task_mms), task_loop_to=(0,) * tasks,
            task_restart=(False,) * tasks, mm_pages=mm_pages, mm_recency=(True,) * len(mm_pages))


def _call_pass(call: str, page: int) -> tuple[str, int, int]:
    """Kind, write and stride of the pass: a page moves to the free one behind it, or back."""
    return {"zap": ("DONTNEED", 0, 1), "protect": ("MPROTECT", 0, 1), "unprotect": ("MPROTECT", 1, 1),
            "munmap": ("MUNMAP", 0, 1), "mremap": ("MREMAP", 0, -1 if page % 2 else 1)}[call]


def known_name(what: str, name: str, known: Iterable[str]) -> None:
    known = list(known)
    if name not in known:
        raise ReclaimError(f"unknown {what} {name!r}: choose from {', '.join(known)}"
                           f"{did_you_mean(name, known)}")
