"""What `reclaim.explore` found: tables that a person can read, files that `replay` runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reclaim import __version__
from reclaim._explore import MOVES
from reclaim.errors import ReclaimError
from reclaim.files import read_bounded, replacing
from reclaim.tinyworld import TinyWorld

MAX_FILE = 16 << 20      # bytes that a saved counterexample may have

# What a violation is called; the numbers of _mm/ghost.pxd.
INVARIANTS = (
    "nothing", "lost write", "stale access", "access to a freed frame", "write-out of a mapped folio",
    "write-out of a pinned folio", "I/O started unlocked", "I/O to a slot that the folio does not own",
    "double write-out", "isolated is not freed plus returned", "rejected folio not back on the LRU",
    "reclaimed count", "pending flush dropped", "folio on two lists or on none", "refcount", "mapcount",
    "lock leaked", "deadlock", "no progress", "the model cannot go on", "access after revoke",
    "fork isolation",
)

SYSTEM_CALLS = {"zap": "madvise(MADV_DONTNEED)", "protect": "mprotect(PROT_READ)", "munmap": "munmap",
                "mremap": "mremap"}

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
        reclaim.errors.ReclaimError : the policy has no name to write, or the file cannot be written.
        """
        text = _to_json(self.to_dict())
        with replacing(str(path)) as file:
            file.write(text.encode() + b"\n")

    def __str__(self) -> str:
        head = [f"{self.invariant}" + (f": folio {self.folio}" if self.folio >= 0 else "")
                + f", {self.nr_steps} steps, CPUs {', '.join(map(str, self.cpus))}"]
        columns = ["step", *[f"CPU {c}" for c in range(self.world.cpus)], "environment", "state"]
        return "\n".join(head + table(columns, self._lines()))

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


def table(columns: list[str], lines: list[list[str]]) -> list[str]:
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
    reclaim.errors.ReclaimError : not such a file, or what it holds does not happen; names the file.
    """
    raw = read_bounded(str(path), MAX_FILE, ReclaimError, "a counterexample saved by reclaim explore")
    try:
        data = json.loads(raw)
        fields = dict(data["world"])
        fields["without"], fields["defects"] = tuple(fields["without"]), tuple(fields["defects"])
        world = TinyWorld(**fields)
        moves, reduce = data["moves"], bool(data["reduce"])
        if not isinstance(moves, list) or not all(type(move) is int for move in moves):
            raise TypeError("moves must be a list of integers")
        return Counterexample.run(world, moves, reduce=reduce)
    except ReclaimError as err:
        raise ReclaimError(f"{path}: {err}") from None
    except (KeyError, TypeError, ValueError, RecursionError) as err:
        why = f"no {err} in it" if isinstance(err, KeyError) else f"{err}"
        raise ReclaimError(f"{path}: not a counterexample of reclaim explore: {why}") from None
