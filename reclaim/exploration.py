"""Search the interleavings of a tiny world for lost writes and stale accesses (docs/safety.md).

`explore` builds the world, lets `_explore.Explorer` search it, and gives an `Exploration`, whose
violations are `Counterexample` objects: tables that a person can read and files that `replay` runs.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reclaim import __version__, names, policies
from reclaim._core import Core
from reclaim._explore import DEFECTS, ENVIRONMENTS, MOVES, Explorer
from reclaim.errors import NotModelledError, PolicyError, ReclaimError, did_you_mean
from reclaim.policies.flush import RECHECKS, BatchFlush
from reclaim.world import PASS_DTYPE, World

# What a violation is called; the numbers of _mm/ghost.pxd.
INVARIANTS = (
    "nothing", "lost write", "stale access", "access to a freed frame", "write-out of a mapped folio",
    "write-out of a pinned folio", "I/O started unlocked", "I/O to a slot that the folio does not own",
    "double write-out", "isolated is not freed plus returned", "rejected folio not back on the LRU",
    "reclaimed count", "pending flush dropped", "folio on two lists or on none", "refcount", "mapcount",
    "lock leaked", "deadlock", "no progress", "the model cannot go on", "access after revoke",
    "fork isolation",
)

LAYOUTS = ("own", "threads", "self")
# Pairs of classes that the model's fork refuses, and why.
NOT_MODELLED = {"pin": "a fork copies pinned pages at once", "mremap": "parent and child would differ in where "
                "their pages lie"}

# The system calls that each class makes: passes of the programs, one of each kind for every page.
CALLS = {"zap": ("zap",), "write-protect": ("protect", "unprotect"), "munmap": ("munmap",),
         "mremap": ("mremap",)}

SYSTEM_CALLS = {"zap": "madvise(MADV_DONTNEED)", "protect": "mprotect(PROT_READ)", "munmap": "munmap",
                "mremap": "mremap"}

# Switches of the series that `without` and `ablate` turn off -> the defect, or the re-check.
SWITCHES = {
    "trylock": "no-trylock", "writeback": "writeback", "lru": "lru", "mapped": "mapped", "pinned": "pinned",
    "refcount": "no-refcount-test", "swapcount": "no-swapcount-test", "locks": "unlock-before-writeout",
    "flush": "no-flush-before-writeout", "remainder": "remainder",
}

# The kernel's function of every step that a tiny world meets, as docs/model.md has them.
KERNEL = {
    "TOUCH": "user access", "DONTNEED": "madvise(MADV_DONTNEED)",
    "F_READ": "handle_pte_fault", "F_ZERO": "do_anonymous_page", "F_ALLOC": "vma_alloc_folio",
    "F_CHARGED": "mem_cgroup_charge", "F_FILL": "clear_page/copy_user_page",
    "F_MAP": "do_anonymous_page: map",
    "F_WP": "do_wp_page", "F_WP_REUSE": "wp_can_reuse_anon_folio", "F_WP_CLEAR": "ptep_clear_flush",
    "F_WP_SET": "wp_page_copy", "F_CACHE": "swap_cache_get_folio", "F_RA_WIN": "swap_vma_ra_win",
    "F_PREPARE": "swapcache_prepare", "F_BACKOFF": "do_swap_page: out_page", "F_SWAP_READ": "swap_read_folio",
    "F_SUBMIT": "submit_bio", "F_LOCK": "folio_lock_or_retry", "F_RETRY": "VM_FAULT_RETRY",
    "F_RECHECK": "do_swap_page: re-check", "F_SWAP_MAP": "do_swap_page: map",
    "F_DONE": "handle_mm_fault: done",
    "F_TARGET": "__read_swap_cache_async", "C_TRY": "try_charge_memcg",
    "R_AGE": "blk_finish_plug", "I_START": "shrink_inactive_list", "I_LOCK": "isolate_lru_folios",
    "I_UNLOCK": "isolate_lru_folios: unlock", "I_PUT": "move_folios_to_lru",
    "I_PUT_UNLOCK": "move_folios_to_lru: unlock", "S_PLAN": "shrink_folio_list", "S_NEXT": "cond_resched",
    "S_LOCK": "folio_trylock", "S_WB": "folio_test_writeback", "S_REF": "folio_check_references",
    "S_SLOT": "folio_alloc_swap", "S_ADD": "add_to_swap", "S_UNMAP": "try_to_unmap",
    "U_DEFER": "should_defer_flush", "U_CLEAR": "ptep_get_and_clear", "U_GEN": "inc_mm_tlb_gen",
    "U_MASK": "set_tlb_ubc_flush_pending", "U_FLUSH": "ptep_clear_flush",
    "U_SET": "try_to_unmap_one: swap PTE",
    "S_PIN": "folio_maybe_dma_pinned", "S_DIRTY": "folio_test_dirty", "S_FREE": "__remove_mapping",
    "S_FREE_FLUSHED": "free_unref_folios", "S_TAIL": "end of the list", "S_END": "try_to_unmap_flush",
    "S_END_FLUSHED": "free_unref_folios", "P_OUT": "pageout", "P_WRITE": "swap_writepage",
    "P_SUBMIT": "submit_bio", "P_END": "folio_end_writeback", "P_DISPATCH": "pageout: PAGE_SUCCESS",
    "B_START": "pageout_batch", "B_LOCK": "pageout_batch: trylock, re-check", "B_OUT": "pageout_one",
    "D_LOCK": "lru_add_drain", "D_UNLOCK": "lru_add_drain: unlock",
    "FL_START": "flush: mask read", "FL_QUEUE": "smp_call_function_many_cond", "FL_SEND": "send IPIs",
    "FL_LOCAL": "flush_tlb_func, local", "FL_WAIT": "csd_lock_wait", "FL_DONE": "flush done",
    "M_BATCHED": "flush_tlb_batched_pending", "Q_ENTRY": "call-function interrupt", "Q_TAKE": "llist_del_all",
    "Q_FUNC": "flush_tlb_func", "Q_ACK": "csd_unlock", "Q_EXIT": "irq exit", "T_TIMER": "schedule_timeout",
    "IO_ENTRY": "interrupt of the device", "IO_END": "end_swap_bio", "SW_PICK": "__schedule",
    "SW_CLEAR": "switch_mm: mask bit cleared", "SW_SET": "switch_mm: mask bit set",
    "SW_GEN": "choose_new_asid", "SW_CR3": "load_new_mm_cr3", "E_ZAP": "zap_pte_range",
    "E_PTES": "zap_pte_range",
    "E_FREE": "tlb_finish_mmu", "E_UNLOCK": "zap_pte_range: unlock", "E_DONE": "madvise returns",
    "F_PT": "__pte_alloc", "F_PT_SET": "pmd_install",
    "V_CALL": "munmap, mprotect, mremap, fork", "V_LOCK": "mmap_write_lock", "V_UNMAP": "vms_clear_ptes",
    "V_MORE": "cond_resched", "V_TABLES": "free_pgtables, tlb_finish_mmu", "V_FREE": "tlb_batch_pages_flush",
    "V_FREED": "tlb_batch_pages_flush: unlock", "V_UNMAPPED": "remove_vma", "V_PROT": "change_pte_range",
    "V_PTES": "change_pte_range", "V_MOVE": "move_page_tables", "V_PT": "__pte_alloc",
    "V_MOVE_NEW": "move_ptes", "V_MOVE_PTES": "move_ptes", "V_MOVED": "move_ptes: unlock",
    "V_END": "mmap_write_unlock", "V_FORK": "copy_page_range", "V_FORK_PT": "__pte_alloc",
    "V_FORK_PTES": "copy_pte_range", "V_FORKED": "wake_up_new_task",
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
        if self.reclaimers > self.cpus:
            raise ReclaimError(f"reclaimers must be at most {self.cpus}, the number of CPUs, "
                               f"got {self.reclaimers}")
        for name, known in (("layout", LAYOUTS), ("device", ("sync", "async")), ("mask", ("eager", "lazy"))):
            _known(name, getattr(self, name), known)
        if self.slots is not None and not 0 <= self.slots <= 12:
            raise ReclaimError(f"slots must be from 0 to 12, got {self.slots!r}")
        if self.swapin_cached and self.device != "sync":
            raise ReclaimError("swapin_cached needs a synchronous device")
        for name in self.classes:
            if name in NOT_MODELLED and "fork" in self.classes:
                raise NotModelledError(f"environment {name!r} with 'fork' is not modelled: {NOT_MODELLED[name]}")
            _known("environment", name, ("none", *ENVIRONMENTS))
        for name in self.without:
            _known("switch", name, SWITCHES)
        for name in self.defects:
            _known("defect", name, DEFECTS)

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

    def explorer(self, *, reduce: bool = True, symmetry: bool = True) -> Explorer:
        """The engine, at the root."""
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
            "tasks": [(min(t, self.cpus - 1), t < self.reclaimers, lists[t] if t < self.reclaimers else [])
                      for t in range(tasks)],
            "starts": self.any_start, "strict": self.strict, "reduce": reduce, "symmetry": symmetry,
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


def _known(what: str, name: str, known: Iterable[str]) -> None:
    known = list(known)
    if name not in known:
        raise ReclaimError(f"unknown {what} {name!r}: choose from {', '.join(known)}"
                           f"{did_you_mean(name, known)}")


# --- counterexamples

@dataclass
class Counterexample:
    """The moves that lead to a violation, and what they are."""

    world: TinyWorld
    invariant: str
    folio: int
    moves: list[int]
    reduce: bool = True
    rows: list[dict[str, Any]] = field(default_factory=list)   # start, then one per move

    @classmethod
    def run(cls, world: TinyWorld, moves: list[int], *, reduce: bool = True) -> Counterexample:
        """Make the moves; what they violate.

        Raises
        ------
        reclaim.errors.ReclaimError : a move that cannot be made, or nothing is violated.
        """
        engine = world.explorer(reduce=reduce)
        rows: list[dict[str, Any]] = [{"does": "start", "cpu": None, "steps": [], "after": engine.look()}]
        bad, folio = 0, -1
        for i, move in enumerate(moves):
            if bad or move not in engine.enabled():
                raise ReclaimError(f"step {i + 1} of {len(moves)} cannot be made: the file is of another "
                                   "version of the model, or was edited")
            bad, folio, steps = engine.do_traced(move)
            rows.append({**_describe(move), "steps": steps, "after": engine.look()})
        if not bad and not engine.enabled():
            bad, folio = engine.at_end()
        if not bad and engine.loops_alone():
            bad = INVARIANTS.index("no progress")
        if not bad:
            raise ReclaimError("nothing is violated: the file is of another version of the model")
        return cls(world, INVARIANTS[bad], folio, list(moves), reduce, rows)

    @property
    def cpus(self) -> list[int]:
        """The CPUs that act in it."""
        return sorted({row["cpu"] for row in self.rows if row["cpu"] is not None})

    @property
    def nr_steps(self) -> int:
        return sum(row["does"] != "start" for row in self.rows)

    def steps(self) -> list[dict[str, Any]]:
        """One entry per step: who, which rows, which kernel functions, and the pages after it."""
        return [{"cpu": row["cpu"], "does": row["does"],
                 "rows": [name for _, name, _ in row["steps"]],
                 "kernel": [_kernel(name) for _, name, _ in row["steps"]],
                 "pages": [_page(page) for page in row["after"] if _shown(page)]} for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        return {"reclaim": __version__, "invariant": self.invariant, "folio": self.folio, "cpus": self.cpus,
                "world": self.world.to_dict(), "reduce": self.reduce, "moves": self.moves,
                "steps": self.steps()}

    def save(self, path: str | Path) -> None:
        """Write what `replay` reads.

        Raises
        ------
        reclaim.errors.ReclaimError : the policy has no name to write.
        """
        text = _to_json(self.to_dict())
        Path(path).write_text(text + "\n")

    def __str__(self) -> str:
        head = [f"{self.invariant}" + (f": folio {self.folio}" if self.folio >= 0 else "")
                + f", {self.nr_steps} steps, CPUs {', '.join(map(str, self.cpus))}"]
        columns = ["step", *[f"CPU {c}" for c in range(self.world.cpus)], "environment", "state"]
        return "\n".join(head + _table(columns, self._lines()))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape
        columns = ["step", *[f"CPU {c}" for c in range(self.world.cpus)], "environment", "state"]
        cells = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in line) + "</tr>"
                        for line in self._lines())
        heads = "".join(f"<th>{escape(c)}</th>" for c in columns)
        return f"<p>{escape(self.invariant)}</p><table><tr>{heads}</tr>{cells}</table>"

    def _lines(self) -> list[list[str]]:
        lines = []
        nr = 0
        before: list[str] = []
        for row in self.rows:
            nr += row["does"] != "start"
            pages = [_page(page) for page in row["after"] if _shown(page)]
            changed = [p for i, p in enumerate(pages) if i >= len(before) or before[i] != p]
            before = pages
            by_cpu: dict[int, list[str]] = {}
            for cpu, name, folio in row["steps"]:
                by_cpu.setdefault(cpu, []).append(_kernel(name) + (f" [{folio}]" if folio >= 0 else ""))
            texts = by_cpu.copy()
            does = row["does"]
            if row["cpu"] is not None and does and does != "start":
                texts[row["cpu"]] = [does, *[t for t in by_cpu.get(row["cpu"], []) if t != "user access"]]
            lines.append([str(nr) if does != "start" else "", *[", ".join(texts.get(c, [])) for c in
                                                                 range(self.world.cpus)],
                          does if row["cpu"] is None and does != "start" else "", "; ".join(changed)])
        return lines


def _kernel(name: str) -> str:
    """What the kernel calls a step; what a planted defect leaves out is in parentheses."""
    return f"({_kernel(name[1:])} left out)" if name.startswith("-") else KERNEL.get(name, name)


def _describe(move: int) -> dict[str, Any]:
    kind, a, b = MOVES[move >> 8], move >> 4 & 15, move & 15
    if kind in ("step", "ipi", "io", "timer"):
        return {"cpu": a, "does": ""}
    if kind in ("read", "write"):
        return {"cpu": a, "does": f"{kind}s page {b}"}
    if kind in SYSTEM_CALLS:
        return {"cpu": a, "does": f"{SYSTEM_CALLS[kind]} page {b}"}
    if kind == "fork":
        return {"cpu": a, "does": "fork"}
    if kind == "tick":
        return {"cpu": a, "does": "time slice over"}
    if kind == "start":
        return {"cpu": None, "does": "start"}
    texts = {"pin": f"{'get' if a else 'pin'}_user_pages page {b}",
             "dma": "device writes into the pinned page",
             "unpin": "unpin, set dirty", "migrate": f"task of CPU {a} is to move to CPU {b}",
             "sleep": f"task of CPU {a} sleeps", "wake": f"task {a} is woken",
             "speculate": f"CPU {a} fills its TLB for page {b}", "slot_take": "another cgroup takes a slot",
             "slot_give": "it frees the slot", "frame_take": "another mm takes a free frame",
             "frame_give": "it frees the frame"}
    return {"cpu": None, "does": texts[kind]}


def _shown(page: Mapping[str, Any]) -> bool:
    return page["frame"] >= 0 or page["slot"] >= 0 or bool(page["latest"])


def _page(page: Mapping[str, Any]) -> str:
    """One page in a few words: PTE, TLB entries, the folio and its content, the slot's."""
    latest = page["latest"]
    parts = [f"page {page['vp']}: {page['pte'].lower()}{' dirty' if page['pte_dirty'] else ''}"]
    if page["tlb"]:
        parts.append("TLB " + " ".join(f"{c}{'d' if dirty else ''}" for c, (dirty, _) in page["tlb"].items()))
    if page["frame"] >= 0:
        flags = [f.lower() for f in page["flags"]
                 if f in ("LOCKED", "DIRTY", "WRITEBACK", "SWAPCACHE", "LRU")]
        what = "freed" if page["free"] else f"ref {page['refcount']}" + "".join(f" {f}" for f in flags)
        parts.append(f"folio {page['frame']} {what}, {_version(page['content'], latest)}")
    if page.get("stored") is not None:
        parts.append(f"slot {page['slot']} {_version(page['stored'], latest)}")
    return " | ".join(parts)


def _version(version: int, latest: int) -> str:
    return "latest" if version == latest else "garbage" if version == 2**32 - 1 else "old"


def _table(columns: list[str], lines: list[list[str]]) -> list[str]:
    used = [i for i, name in enumerate(columns) if i == 0 or any(line[i] for line in lines)]
    widths = {i: max(len(columns[i]), *(len(line[i]) for line in lines)) for i in used}
    return ["  ".join(line[i].ljust(widths[i]) for i in used).rstrip() for line in [columns, *lines]]


def _to_json(value: dict[str, Any]) -> str:
    try:
        return json.dumps(value, indent=1, allow_nan=False)
    except TypeError:
        raise ReclaimError("the policy has no name that a file could hold: explore it by name to save "
                           "it") from None


def replay(path: str | Path) -> Counterexample:
    """Run a saved counterexample step by step.

    Raises
    ------
    reclaim.errors.ReclaimError : not such a file, or what it holds does not happen.
    """
    try:
        data = json.loads(Path(path).read_text())
        fields = dict(data["world"])
        fields["without"], fields["defects"] = tuple(fields["without"]), tuple(fields["defects"])
        world = TinyWorld(**fields)
        moves, reduce = [int(m) for m in data["moves"]], bool(data["reduce"])
    except (KeyError, TypeError, ValueError) as err:
        raise ReclaimError(f"{path}: not a counterexample of reclaim explore: {err}") from None
    return Counterexample.run(world, moves, reduce=reduce)


# --- exploring

@dataclass
class Exploration:
    """What a search found, and how far it went."""

    world: TinyWorld
    states: int
    transitions: int
    seconds: float
    exhausted: bool
    depth: int
    violations: list[Counterexample]
    schedules: int = 0                # of a random search
    refused: int = 0                  # transitions in which pageout()'s refcount test refused a folio
    interrupted: bool = False

    @property
    def states_per_second(self) -> float:
        return self.states / self.seconds if self.seconds > 0 else 0.0

    @property
    def collision_odds(self) -> float:
        """The chance that two different states had one fingerprint, so that one was not looked at."""
        return self.states * (self.states - 1) / 2 / 2.0**128

    @property
    def clean(self) -> bool:
        return not self.violations

    def to_dict(self) -> dict[str, Any]:
        w = self.world
        return {"policy": _policy_name(w.policy), "cpus": w.cpus, "folios": w.folios, "batch": w.batch,
                "environment": w.environment, "states": self.states,
                "states_per_second": round(self.states_per_second), "exhausted": self.exhausted,
                "transitions": self.transitions, "depth": self.depth, "seconds": round(self.seconds, 3),
                "schedules": self.schedules, "collision_odds": self.collision_odds, "world": w.to_dict() | {
                    "policy": _policy_name(w.policy)},
                "violations": [{"invariant": v.invariant, "folio": v.folio, "cpus": v.cpus, "moves": v.moves,
                                "steps": v.steps()} for v in self.violations]}

    def __str__(self) -> str:
        w = self.world
        what = (f"{_policy_name(w.policy)}: {w.cpus} CPUs, {w.folios} folios, batch {w.batch}, environment "
                f"{w.environment}, at most {w.writes} writes and {w.reads} reads a page"
                + (f", {w.actions} actions" if w.environment != "none" else ""))
        extra = [f"layout {w.layout}" if w.layout != "own" else "",
                 f"device {w.device}" if w.device != "sync" else "",
                 f"mm_cpumask {w.mask}", "without " + ", ".join(w.without) if w.without else "",
                 "planted: " + ", ".join(w.defects) if w.defects else ""]
        what += ", " + ", ".join(e for e in extra if e)
        if self.schedules:
            done = f"{self.schedules:,} random schedules, {self.transitions:,} steps"
        else:
            done = (f"{self.states:,} distinct states, {self.transitions:,} transitions, depth {self.depth}, "
                    f"{self.states_per_second:,.0f} states/s; "
                    + ("exhausted" if self.exhausted else "not exhausted")
                    + f"; odds of a fingerprint collision {self.collision_odds:.0e}")
        if self.clean:
            verdict = "no violation" + (
                "" if self.exhausted else ": that proves nothing beyond what was visited")
        else:
            verdict = str(self.violations[0])
        return f"{what}\n{done}\n{verdict}"

    __repr__ = __str__


def _policy_name(policy: Any) -> str:
    return policy if isinstance(policy, str) else policies.get(policy).name


def explore(policy: Any = "stage5", *, depth: int | None = None, seconds: float | None = None,
            states: int | None = None, schedules: int = 0, seed: int = 0, reduce: bool = True,
            symmetry: bool = True, progress: Callable[[int, float], None] | None = None,
            **world: Any) -> Exploration:
    """Search the interleavings of a tiny world under a policy.

    Parameters
    ----------
    policy : as `reclaim.policies.get` takes it.
    depth, seconds, states : stop there; not exhausted then.
    schedules : int
        Run that many random priority schedules instead of a search.
    reduce : bool
        Make steps that nobody else can notice at once.
    symmetry : bool
        Merge states that differ in the names of frames and slots only.
    progress : callable, optional
        Called now and then with (states or schedules, seconds).
    **world : the fields of `TinyWorld`.

    Returns
    -------
    Exploration

    Raises
    ------
    reclaim.errors.ReclaimError : a bound out of its range, an unknown name.
    """
    tiny = world.pop("tiny", None) or TinyWorld(policy=policy, **world)
    for name, value in (("depth", depth), ("states", states), ("schedules", schedules)):
        if value is not None and value < 0:
            raise ReclaimError(f"{name} must not be negative, got {value}")
    if seconds is not None and not seconds >= 0:
        raise ReclaimError(f"seconds must not be negative, got {seconds}")
    engine = tiny.explorer(reduce=reduce, symmetry=symmetry)
    before = [dict(vars(s)) if hasattr(s, "__dict__") else {} for s in engine.strategies]
    if schedules:
        found = _random(tiny, engine, schedules, seed, seconds, reduce, progress)
    else:
        found = _search(tiny, engine, depth, seconds, states, reduce, progress)
    for strategy, was in zip(engine.strategies, before, strict=True):
        now = {k: v for k, v in getattr(strategy, "__dict__", {}).items() if k != "state"}
        if now != {k: v for k, v in was.items() if k != "state"}:
            raise PolicyError(f"{strategy!r} keeps state in attributes: the explorer goes back and forth "
                              "between states, so declare it with state_dtype (docs/policies.md)")
    return found


def _search(tiny: TinyWorld, engine: Explorer, depth: int | None, seconds: float | None, states: int | None,
            reduce: bool, progress: Callable[[int, float], None] | None) -> Exploration:
    started, used = time.perf_counter(), time.process_time()
    engine.start()
    done = interrupted = False
    limit = depth if depth is not None else 1 << 40
    try:
        while not done:
            done = engine.expand(4096 if states is None else max(1, min(4096, states - engine.states)), limit)
            wall = time.perf_counter() - started
            if progress is not None:
                progress(engine.states, wall)
            if (seconds is not None and wall >= seconds) or (states is not None and engine.states >= states):
                break
    except KeyboardInterrupt:
        interrupted = True
    spent = time.process_time() - used
    violations = []
    if engine.violation is not None:      # again, keeping the way to every state
        paths = tiny.explorer(reduce=reduce)
        paths.start(paths=True)
        while not paths.expand(1 << 16, 1 << 40):
            pass
        violations.append(Counterexample.run(tiny, paths.path() or [], reduce=reduce))
    exhausted = done and not violations and engine.waiting == 0 and not interrupted
    return Exploration(tiny, engine.states, engine.transitions, spent, exhausted, engine.depth, violations,
                       refused=engine.refused, interrupted=interrupted)


def _random(tiny: TinyWorld, engine: Explorer, schedules: int, seed: int, seconds: float | None, reduce: bool,
            progress: Callable[[int, float], None] | None) -> Exploration:
    started, used = time.perf_counter(), time.process_time()
    made, violations, interrupted = 0, [], False
    try:
        while made < schedules and engine.violation is None:
            # three changes of priority in a hundred steps or so
            made += engine.random(min(1 << 12, schedules - made), (seed << 40) + made, 3, 120)
            wall = time.perf_counter() - started
            if progress is not None:
                progress(made, wall)
            if seconds is not None and wall >= seconds:
                break
    except KeyboardInterrupt:
        interrupted = True
    if engine.violation is not None:
        violations.append(Counterexample.run(tiny, engine.taken(), reduce=reduce))
    return Exploration(tiny, 0, engine.transitions, time.process_time() - used, False, 0, violations,
                       schedules=made, interrupted=interrupted)


# --- ablation

@dataclass
class Ablation:
    """What each re-check of a version is good for, within the bound."""

    version: str
    rows: list[tuple[tuple[str, ...], Exploration]]     # the switches that are off

    @property
    def partial(self) -> bool:
        return any(found.interrupted for _, found in self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {"version": self.version,
                "rows": [{"off": list(off), 
                          "violation": found.violations[0].invariant if found.violations else None,
                          "steps": found.violations[0].nr_steps if found.violations else None,
                          "states": found.states, "exhausted": found.exhausted, "refused": found.refused,
                          "environment": found.world.environment} for off, found in self.rows]}

    def __str__(self) -> str:
        lines = []
        base: dict[str, int] = {}
        for off, found in self.rows:
            if not off:
                base[found.world.environment] = found.refused
            verdict = "clean"
            if found.violations:
                verdict = f"{found.violations[0].invariant}, {found.violations[0].nr_steps} steps"
            elif not found.exhausted:
                verdict = "clean as far as visited"
            more = found.refused - base.get(found.world.environment, 0)
            saves = f"{more:+,} refusals by pageout()" if off and not found.violations and more else ""
            lines.append(["+".join(off) or "none", found.world.environment, verdict,
                          f"{found.states:,}", saves])
        return "\n".join([f"{self.version}, switches off in turn and in pairs",
                          *_table(["off", "environment", "verdict", "states", "work"], lines)])

    __repr__ = __str__


def ablate(version: str = "v4", *, environments: Iterable[str] = ("none",), pairs: bool = True,
           seconds: float | None = None, progress: Callable[[int, float], None] | None = None,
           **world: Any) -> Ablation:
    """Turn each re-check of a version's last patch off, alone and in pairs, and explore."""
    known = {"v1": "v1:2", "v2": "v2:5", "v3": "v3:5", "v4": "v4:5"}
    _known("version", version, known)
    policy = known[version]
    traits = policies.get(policy).strategies["flush"]._traits()
    switches = [name for name in SWITCHES if name not in RECHECKS or name in traits["rechecks"]]
    offs: list[tuple[str, ...]] = [(), *((s,) for s in switches)]
    if pairs:
        offs += list(itertools.combinations(switches, 2))
    rows = []
    for environment in environments:
        for off in offs:
            found = explore(policy, environment=environment, without=off, seconds=seconds,
                            progress=progress, **world)
            rows.append((off, found))
            if found.interrupted:
                return Ablation(version, rows)
    return Ablation(version, rows)
