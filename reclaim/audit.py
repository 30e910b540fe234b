"""Audits of a state: what the core relies on (`audit`) and what the model promises (`verify`).

`audit` is driven by tables: every index in its range, every list whole, every frame in one
place with the references that are accounted for, every step with what it reads at hand.  A
state that passes cannot make the core read outside its tables.  `verify` adds conservation:
charges, isolated folios and clocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from reclaim import names
from reclaim._core import constants
from reclaim.errors import SnapshotError

if TYPE_CHECKING:
    from reclaim.simulation import Simulation
    from reclaim.world import World

_C = constants()
_ST = {name: i for i, name in enumerate(names.STEPS)}
_FL = {name: 1 << i for i, name in enumerate(names.FOLIO_FLAGS)}
_PTE_Z = 1 << 7
_PTE_RO = 1 << 63
_PTE_PAGE = _PTE_RO | _PTE_Z
_PTE = {name: i for i, name in enumerate(names.PTE_KINDS)}
_MODE = {name: i for i, name in enumerate(names.CPU_MODES)}
_STATE = {name: i for i, name in enumerate(names.TASK_STATES)}
_IRQ = tuple(i for n, i in _ST.items() if n[:2] in ("Q_", "T_", "IO"))
_SCHED = tuple(i for n, i in _ST.items() if n[:2] in ("SW", "W_"))
_PICKING = (_ST["SW_PICK"], _ST["W_WORK"])       # a CPU with no task is about to have one, or to idle
_INF = _C["INF"]
_T_MAX = 1 << 53
_MMAP_READ, _MMAP_WRITE, _MMAP_WAIT = (_C[f"MMAP_{name}"] for name in ("READ", "WRITE", "WAIT"))
_IO_MAX = 1 << 60        # a full queue of a slow device may end after the end of time
_SMALL = 1 << 28

# table -> field -> (least, what the values are below of); numbers stand for themselves.
_RANGES: dict[str, dict[str, tuple[int, int | str]]] = {
    "cpu": {
        "clock": (0, _T_MAX), "left": (0, _T_MAX), "irq_cost": (0, _T_MAX), "rq_nr": (0, "task+1"),
        "irq_at": (0, _INF + 1),
        "tick_at": (0, _INF + 1), "timer_at": (0, _INF + 1), "io_at": (0, _INF + 1),
        "io_head": (-1, "io"), "io_tail": (-1, "io"), "nr_lru_move_tail": (0, 31),
        "asid_mm": (-1, "mm"), "current": (-1, "task"), "loaded_mm": (-2, "mm"),
        "istep": (-1, len(_ST)), "sstep": (-1, len(_ST)), "rq_head": (-1, "task"),
        "rq_tail": (-1, "task"), "push": (-1, "cpu"),
        "fl_mm": (-1, "mm"), "fl_vp": (-1, "pte"), "fl_scan": (0, "cpu+1"), "fl_n": (0, "cpu"),
        "fl_ret": (-1, len(_ST)), "acks": (0, "cpu"), "q_head": (-1, "cpu"), "q_tail": (-1, "cpu"),
        "hand": (-1, "cpu"), "lock_next": (-1, "cpu"), "stock": (0, 65),
        "nr_lru_add": (0, 32), "nr_lru_activate": (0, 32),
        "mode": (0, 4), "in_irq": (0, 2), "last_on": (0, 2), "is_lazy": (0, 2),
        "need_resched": (0, 2), "works": (0, 1 << len(names.WORKS)), "loaded_asid": (0, 6), "next_asid": (0, 7),
        "sw_asid": (0, 6), "sw_flush": (0, 2), "fl_trim": (0, 2), "fl_nr": (0, _C["FLUSH_CEILING"] + 1),
        "fl_tables": (0, 2), "hosted": (0, 2), "ask": (0, 2),
        "pv_flush": (0, 2), "kicked_at": (-1, _T_MAX), "on_at": (0, _T_MAX), "host_left": (0, _T_MAX),
        "slice_ticks": (0, 1 << 30), "balance_at": (0, _T_MAX), "balance_long": (0, 2),
        "balance_failed": (0, 11), "vmstat_at": (0, _T_MAX + 10**12), "lock_since": (0, _T_MAX), "fl_ipis": (0, "cpu"),
    },
    "task": {
        "wake_at": (0, _INF), "cpu": (0, "cpu"), "step": (-1, len(_ST)), "rq_next": (-1, "task"),
        "plug_nr": (0, 33), "wait_next": (-1, "task"), "sleep_next": (-1, "task"), "vp": (-1, "pte"),
        "f_pfn": (-1, "folio"), "f_old": (-1, "folio"), "folio": (-1, "folio"),
        "c_nr": (0, 2), "c_batch": (0, 65), "c_retries": (0, 17), "c_ret": (-1, len(_ST)),
        "k_ret": (-1, len(_ST)), "b_ret": (-1, len(_ST)), "freed_ret": (-1, len(_ST)),
        "d_ret": (-1, len(_ST)), "prio": (0, 13), "r_nr": (0, "folio+1"), "nr_to_scan": (0, 33),
        "g_delta": (0, 4098), "g_scanned": (0, 1 << 50), "g_nr": (0, "folio+1"), "g_mm": (-1, "mm"),
        "g_region": (0, "region+1"), "g_batched": (0, 1 << 30), "g_moved": (-(1 << 30), 1 << 30),
        "g_seq": (0, 1 << 40), "look_seq": (0, 1 << 40), "look_at": (0, "pte+1"), "look_end": (0, "pte+1"),
        "look_nr": (0, 65), "look_young": (0, 66), "g_retry": (0, 2), "g_can_swap": (0, 2), "g_force": (0, 2),
        "sc_reclaimed": (-_SMALL, _SMALL), "r_loop": (-_SMALL, _SMALL),
        "reclaimed_local": (-_SMALL, _SMALL), "reclaimed_stat": (-_SMALL, _SMALL),
        "owed": (0, _T_MAX), "nr_scanned": (-_SMALL, _SMALL), "nr_pageout": (0, 65), "nr_activate": (0, 65), "taken": (0, 65),
        "scanned": (0, 65), "index": (0, 65), "ordinal": (0, 65),
        "nr_free": (0, 32), "nr_flush": (0, 32), "b_i": (0, 32), "b_w": (0, 32),
        "state": (0, 4), "dying": (0, 2), "have": (0, 2), "write": (0, 2), "zero": (0, 2),
        "f_kind": (0, 4), "rmap": (0, 8), "f_cached": (0, 2), "r_visit": (0, 3), "stalled": (0, 2),
        "batched_ret": (-1, len(_ST)), "sleep_on": (0, 2), "call": (0, len(names.PASS_KINDS)),
        "phase": (0, 3), "mmap": (0, 5), "v_last": (0, 2), "v_at": (0, 1 << 30), "v_lo": (0, "pte+1"),
        "v_hi": (0, "pte+1"), "v_nr": (0, _C["GATHER_PAGES"] + 1), "v_next": (-1, len(_ST)),
        "v_tables": (0, _C["TABLE_BATCH"] + 1),
        "fl_cause": (0, len(names.CAUSES)), "fl_began": (0, _T_MAX), "fl_waited": (0, _T_MAX),
        "fl_spent": (0, _T_MAX), "fl_own": (0, _T_MAX),
        "f_began": (0, _T_MAX), "r_began": (0, _T_MAX), "wait_since": (0, _T_MAX),
        "in_batch": (0, 2), "d_which": (0, 8), "wait_bit": (0, 2), "ubc_required": (0, 2), "ubc_writable": (0, 2),
    },
    "folio": {
        "flags": (0, 1 << len(_FL)), "refcount": (0, 1 << 30), "mapcount": (0, 3),
        "vp": (-1, "pte"), "mm": (-1, "mm"), "slot": (-1, "slot_entry"), "prev": (-1, "folio"),
        "next": (-1, "folio"), "wait_head": (-1, "task"), "gen": (0, 128),
    },
    "mm": {
        "ra_page": (-2, "pte"), "ra_win": (0, 9), "ra_hits": (0, 64), "tlb_gen": (0, 1 << 62),
        "rss": (0, "pte+1"), "swapents": (0, "pte+1"), "lru_gen": (0, 8), "readers": (0, "task+1"),
        "writer": (-1, "task"), "wait_head": (-1, "task"), "wait_tail": (-1, "task")},
    "region": {"present": (0, 2), "young": (0, 2), "filter": (0, 4)},
    "host": {"running": (-1, "cpu"), "turned_at": (-1, _T_MAX)},
    "swapdev": {"last": (0, _IO_MAX), "in_flight": (0, "io+1"), "free_row": (-1, "io"),
                "wait_head": (-1, "task"), "wait_tail": (-1, "task"),
                "cluster_next": (0, "slot_entry+2"), "cluster_nr": (0, 256), "lowest": (0, "slot_entry+1"),
                "highest": (-1, "slot_entry"), "ra_hits": (0, 1 << 30), "ra_prev": (-1, "slot_entry"),
                "ra_win": (0, 9), "cache_active": (0, 2)},
    "slot_cache": {"cur": (0, 65), "nr": (0, 65), "n_ret": (0, 65)},
    "io": {"done": (0, _IO_MAX), "slot": (-1, "slot_entry"), "next": (-1, "io")},
    "memcg": {
        "usage": (0, 1 << 40), "kernel": (0, 1 << 40), "nr_isolated": (0, "folio+1"),
        "anon_cost": (0, 1 << 50), "nonresident_age": (0, 1 << 60),
        "lru_head": (-1, "folio"), "lru_tail": (-1, "folio"), "lru_nr": (0, "folio+1"),
        "slots_free": (0, "slot_entry+1"), "slot_top": (-1, "slot_entry"),
        "slot_fresh": (0, "slot_entry+1"), "frames_free": (0, "folio+1"),
        "frame_top": (-1, "folio"), "frame_fresh": (0, "folio+1"),
        "sleep_head": (-1, "task"), "sleep_tail": (-1, "task"),
        "max_seq": (0, 1 << 40), "min_seq": (0, 1 << 40), "mm_seq": (0, 1 << 40), "mm_head": (-1, "mm"),
        "gen_nr": (-(1 << 30), 1 << 30), "filters": (0, 4),
        "nr_idle": (0, "cpu+1"), "nr_alive": (0, "task+1"), "nr_dying": (0, "task+1"),
        "works": (0, 1 << len(names.WORKS)), "notify_from": (0, _INF), "notify_cpu": (-1, "cpu"), "tree_scanned": (0, 1 << 50),
    },
}

# Where a step that waits for something else may go on, by the field that says so.
_RETURNS = {
    "c_ret": {"F_PT_SET", "F_CHARGED", "F_RA_CHARGED", "F_CL_CHARGED", "V_PT", "V_FORK_PT"},
    "k_ret": {"R_LIST", "R_END"},
    "b_ret": {"S_NEXT", "S_END"}, "freed_ret": {"S_NEXT", "B_OUT"},
    "d_ret": {"TOUCH", "F_DONE", "F_WP_REUSE", "F_SWAP_READ", "F_SWAP_MAP", "F_RA_READ", "F_TARGET",
              "I_LOCK", "K_LOCK", "G_NEXT", "S_LOOK", "E_ZAP"},
    "fl_ret": {"F_WP_SET", "U_SET", "P_OUT", "B_OUT", "S_FREE_FLUSHED", "S_END_FLUSHED",
               "M_BATCHED", "E_FREE", "V_FULL", "V_TABLES", "V_FREE", "V_MOVED", "V_FORKED", "V_END"},
    "batched_ret": {"E_PTES", "V_PTES", "V_MOVE_PTES"}, "v_next": {"E_ZAP", "V_FREE", "V_PROT", "V_MOVE",
                                                                            "V_FORK"},
}
_UNMAPPING = {"U_DEFER", "U_CLEAR", "U_GEN", "U_MASK", "U_FLUSH", "U_SET"}
# A folio is in hand, on no list; it is locked but before the first and after the write.
_HAND = {"S_LOCK", "S_WB", "S_WB_WAIT", "S_REF", "S_GEN", "S_LOOK", "S_YOUNG", "S_SLOT", "S_ADD",
         "S_UNMAP", "S_PIN", "S_DIRTY", "S_FREE",
         "P_OUT", "P_WRITE", "P_SUBMIT", "P_END", "P_DISPATCH"} | _UNMAPPING
_UNLOCKED = {"S_LOCK", "S_WB_WAIT", "P_SUBMIT", "P_END", "P_DISPATCH"}
# A fault has a frame that nobody else knows; one of the swap cache or on its way from swap.
_FRESH = {"F_CHARGED", "F_RA_CHARGED", "F_CL_CHARGED", "F_FILL", "F_MAP", "F_WP_CLEAR", "F_WP_SET", "F_PREPARE",
          "F_BACKOFF"}
_RA_READING = {"F_RA_READ", "F_RA_SUBMIT"}
_SHARED = _RA_READING | {"F_LOCK", "F_RETRY", "F_RECHECK", "F_SWAP_READ", "F_SUBMIT", "F_SWAP_MAP"}
_FAULT_LOCKED = _RA_READING | {"F_RECHECK", "F_SWAP_READ", "F_SUBMIT", "F_SWAP_MAP"}
_COPYING = {"F_ALLOC", "F_CHARGED", "F_FILL", "F_WP_CLEAR", "F_WP_SET"}     # with f_old, if any
_BY_PAGE = {"F_RA_WIN", "F_RA_NEXT", "F_RA_CHARGED"}
_BY_SLOT = {"F_CL_WIN", "F_CL_NEXT", "F_CL_CHARGED"}
_READAHEAD = _BY_PAGE | _BY_SLOT | _RA_READING
_SWAPPED = {"F_CACHE", "F_PREPARE", "F_TARGET"} | _READAHEAD | _SHARED
_CLEARED = {"U_GEN", "U_MASK", "U_FLUSH", "U_SET"}         # the PTE of the folio in hand is
_PTL_OF_VP = {"F_WP_REUSE", "F_WP_SET"}
_LRU_LOCKED = {"I_UNLOCK", "I_PUT_UNLOCK", "K_UNLOCK", "K_PUT_UNLOCK", "D_UNLOCK", "E_UNLOCK",
               "G_UNLOCK", "G_PUT_UNLOCK", "G_BATCH_UNLOCK", "G_MAX_UNLOCK", "V_FREED"}
_FAULTS = ({_PTE["NONE"]}, {_PTE["PRESENT"], _PTE["ZERO"]}, {_PTE["SWAP"]}, {_PTE["SWAP"]})    # of f_kind
_ZAPPING = {"E_PTES", "E_FREE", "E_UNLOCK"}       # with the page-table lock of region `zap`
_ZAPS = _ZAPPING | {"E_ZAP", "E_DONE"}
_CALL = {kind: i for i, kind in enumerate(names.PASS_KINDS)}
_UNMAPS = {"V_UNMAP", "V_FULL", "V_TABLES", "V_FREE", "V_FREED", "V_UNMAPPED", "E_ZAP", "E_PTES"}
_IN_CALL = {                                      # the rows of a system call on the own mm, but V_MORE
    0: _ZAPS, _CALL["DONTNEED"]: _ZAPS,
    _CALL["MUNMAP"]: {"V_LOCK", *_UNMAPS, "V_END"},
    _CALL["MPROTECT"]: {"V_LOCK", "V_PROT", "V_PTES", "V_END"},
    _CALL["MREMAP"]: {"V_LOCK", *_UNMAPS, "V_MOVE", "V_PT", "V_MOVE_NEW", "V_MOVE_PTES", "V_MOVED", "V_END"},
    _CALL["FORK"]: {"V_LOCK", "V_FORK", "V_FORK_PT", "V_FORK_PTES", "V_FORKED", "V_END"}}
_FORKING = _IN_CALL[_CALL["FORK"]] - {"V_LOCK", "V_END"}
_PTL_OF_ZAP = _ZAPPING | {"V_PTES", "V_FULL"}
_MOVING = {"V_MOVE_NEW", "V_MOVE_PTES", "V_MOVED"}        # with the lock of the old page-table page
_GUARDED = {"TOUCH", "POPULATE", "DONTNEED", "V_CALL", "V_MORE", "K_NEXT", "S_NEXT", "R_LIST",
            "G_MORE", "G_AGAIN"}                  # preempted there ...
_READ_CHARGED = {"F_RA_CHARGED", "F_CL_CHARGED"}
_CHARGING = {"F_CHARGED"} | _READ_CHARGED        # a frame, by c_ret
_SUBMITTING = {"F_SUBMIT", "F_RA_SUBMIT", "P_SUBMIT"}
_SLEEPING = ("I_START", "F_BACKOFF")              # by task.sleep_on
_WAITS_FOR_MM = {"F_READ", "E_ZAP", "V_LOCK"}     # for the mmap_lock, and goes on there
_BLOCKING = {"F_RETRY", "S_WB_WAIT", *_SLEEPING} | _SUBMITTING | _WAITS_FOR_MM      # ... or asleep
_LIST_DONE = {"S_TAIL", "S_END", "S_END_FLUSHED", "I_PUT", "K_PUT", "G_KEEP", "G_PUT"}
_LISTS_FULL = {"I_UNLOCK", "I_PUT", "K_UNLOCK", "K_NEXT", "K_PUT", "G_UNLOCK", "G_KEEP", "G_PUT"}
_LISTS_NEW = {"I_UNLOCK", "K_UNLOCK", "G_UNLOCK", "S_PLAN"}
_PUTTING = {"I_PUT", "G_KEEP", "G_PUT"}
_CLEAN_HELD = {"G_PUT", "G_PUT_UNLOCK"}          # folios that evict_folios tries once more
_WALKING = {"G_WALK", "G_BATCH", "G_BATCH_UNLOCK", "G_AGAIN"}     # with a mm in hand
_SHRINKING = ("S_", "U_", "P_", "B_")            # prefixes of the steps of shrink_folio_list ...
_RECLAIMING = ("R_", "I_", "K_", "G_", *_SHRINKING)     # ... and of all of direct reclaim
_GEN_STEPS = {"S_GEN", "S_LOOK", "S_YOUNG"}


def _fail(what: str) -> NoReturn:
    raise SnapshotError(f"the state is not sound: {what}")


class _State:
    """The tables of one state: live ones, or those of a snapshot's bytes."""

    def __init__(self, sim: Simulation, data: bytes | None) -> None:
        self.world, self.core = sim.world, sim._core
        if data is None:
            self.table = {name: sim.view(name) for name in self.core.tables}
        else:
            need = sum(-(-d.itemsize * n // 64) * 64 for _, d, n in self.core.tables.values())
            if len(data) != need:
                _fail(f"{len(data)} bytes where {need} are expected")
            self.table = {name: np.frombuffer(data, dtype=d, count=n, offset=offset)
                          for name, (offset, d, n) in self.core.tables.items()}
        self.memcg = self.table["memcg"][0]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.table[name]

    def bound(self, limit: int | str) -> int:
        if isinstance(limit, int):
            return limit
        name, plus, extra = limit.partition("+")
        return len(self.table[name]) + (int(extra) if plus else 0)


def audit(sim: Simulation, data: bytes | None = None) -> None:
    """Refuse a state that the core could not run safely.

    Parameters
    ----------
    sim : Simulation
    data : bytes, optional
        A snapshot's; the live state if not given.

    Raises
    ------
    reclaim.errors.SnapshotError : naming the table, field, row and value.
    """
    s = _State(sim, data)
    for table, fields in _RANGES.items():
        for field, (least, limit) in fields.items():
            _range(s, table, field, least, s.bound(limit))
    _constants(s)
    held = _cached_slots(s)
    _page_tables(s)
    _lists(s)
    _contexts(s)
    _hosts(s)
    _frames(s)
    if len(s["slot_count"]):
        _slots(s, held)


def _range(s: _State, table: str, field: str, least: int, limit: int) -> None:
    values = s[table][field]
    with np.errstate(all="ignore"):
        bad = (values < least) | (values >= limit)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        _fail(f"{table}.{field}[{row}] is {values[row]}, allowed are {least} to {limit - 1}")


def _locks(s: _State) -> Iterator[tuple[int, Any]]:
    """Those that are held or waited for, by `lock_at`."""
    ptl = s["region"]["ptl"]
    yield 0, s["memcg"]["lru_lock"][0]
    for i in np.flatnonzero((ptl["holder"] != -1) | (ptl["head"] != -1)).tolist():
        yield 1 + i, ptl[i]


def _locking(w: Any) -> NDArray[np.bool_]:
    """The mms that threads share, one of which changes their mappings."""
    found = np.bincount(w.task_mm, minlength=len(w.mm_pages)) > 1
    calls = np.concatenate([[0], np.cumsum(w.passes["kind"] > _CALL["DONTNEED"])])
    first = np.array(w.task_first_pass)
    changes = calls[first + np.array(w.task_nr_passes)] > calls[first]
    return found & (np.bincount(w.task_mm, weights=changes, minlength=len(w.mm_pages)) > 0)


def _peers(w: World) -> NDArray[np.int64]:
    """The mm that each one shares folios with: its child, or its parent; -1: none."""
    peers = np.full(len(w.mm_pages), -1)
    for i, child in enumerate(w.mm_child):
        if child >= 0:
            peers[i], peers[child] = child, i
    return peers


def _peer_pages(s: _State) -> NDArray[np.int64]:
    """The same page of the peer, for every page; -1: none."""
    mms = s["mm"]
    owner = np.repeat(np.arange(len(mms)), mms["nr_pages"])
    peer = mms["peer"][owner]
    there = np.arange(len(owner)) - mms["base"][owner] + mms["base"][np.maximum(peer, 0)]
    found: NDArray[np.int64] = np.where(peer >= 0, there, -1)
    return found


def _unmap_page(s: _State, u: Any, where: str) -> int:
    """The page whose PTE a task unmaps: the folio's, or that of a mm that shares it."""
    f = s["folio"][u["folio"]]
    mm, i = s["mm"][f["mm"]], int(u["rmap"]) & 3
    if i > (mm["peer"] >= 0):
        _fail(f"{where}: a folio has no such mapping")
    if mm["peer"] < 0 or mm["is_child"] == i:
        return int(f["vp"])
    return int(f["vp"] - mm["base"] + s["mm"]["base"][mm["peer"]])


def _constants(s: _State) -> None:
    """What a run never changes is as the world says."""
    w, task, mm = s.world, s["task"], s["mm"]
    pages = np.array(w.mm_pages)
    regions = -(-pages // _C["PTRS_PER_PTE"])
    want = {
        ("mm", "base"): np.cumsum(pages) - pages, ("mm", "nr_pages"): pages,
        ("mm", "nr_regions"): regions, ("mm", "first_region"): np.cumsum(regions) - regions,
        ("task", "mm"): w.task_mm, ("task", "first_pass"): w.task_first_pass,
        ("task", "nr_passes"): w.task_nr_passes, ("task", "loop_to"): w.task_loop_to,
        ("mm", "shared"): np.bincount(w.task_mm, minlength=len(pages)) > 1,
        ("mm", "peer"): _peers(w), ("mm", "is_child"): [i in w.mm_child for i in range(len(pages))],
        ("mm", "locks"): _locking(w), ("task", "pinned"): w.task_pinned, ("task", "restart"): w.task_restart,
    }
    for (table, field), values in want.items():
        if not np.array_equal(s[table][field], np.array(values)):
            _fail(f"{table}.{field} differs from the world's")
    if ((task["pass_no"] < -1) | (task["pass_no"] >= task["nr_passes"])).any():
        _fail("a task is in a pass that its program does not have")
    live = task["pass_no"] >= 0
    counts = w.passes["count"][task["first_pass"] + np.maximum(task["pass_no"], 0)]
    if (live & (task["pos"] >= counts)).any():
        _fail("a task is beyond the end of its pass")
    for name in ("mm_cpumask", "ubc_mask", "fl_mask", "fl_ipi"):
        words = s[name].reshape(-1, (w.nr_cpus + 63) // 64)
        tail = w.nr_cpus % 64
        if tail and (words[:, -1] >> np.uint64(tail)).any():
            _fail(f"{name} names a CPU that does not exist")
    following = s["csd_next"]
    if ((following < -1) | (following >= w.nr_cpus)).any():
        _fail("csd_next names a CPU that does not exist")
    for name in ("holder", "head", "tail"):
        ptl = s["region"]["ptl"][name]
        lru = s["memcg"]["lru_lock"][0][name]
        if ((ptl < -1) | (ptl >= w.nr_cpus)).any() or not -1 <= lru < w.nr_cpus:
            _fail(f"a lock's {name} is a CPU that does not exist")


def _index(pte: NDArray[Any]) -> NDArray[Any]:
    """The frame or slot of PTEs, past the bit of their VMAs."""
    return (pte & np.uint64(_PTE_RO - 1)) >> np.uint64(8)


def _page_tables(s: _State) -> None:
    pte, w = s["pte"], s.world
    kind, index = pte & np.uint64(7), _index(pte)
    if (kind >= len(_PTE)).any():
        _fail(f"pte[{int((kind >= len(_PTE)).argmax())}] is of an unknown kind")
    frame = (kind == _PTE["PRESENT"]) | (kind == _PTE["ZAPPED"])
    swap = kind == _PTE["SWAP"]
    if (frame & (index >= w.nr_folios)).any() or (swap & (index >= w.nr_slots)).any():
        _fail("a PTE names a frame or slot that does not exist")
    used = s["slot_count"] != 0
    entry = s["slot_entry"]
    folio = used & ((entry & np.uint64(3)) == 2)
    if (folio & ((entry >> np.uint64(2)) >= w.nr_folios)).any():
        _fail("a swap slot names a frame that does not exist")
    f = s["folio"]
    placed = f["vp"] >= 0
    if (placed != (f["mm"] >= 0)).any():
        _fail("a folio has a page but no mm, or the reverse")
    mm = s["mm"][np.maximum(f["mm"], 0)]
    inside = (f["vp"] >= mm["base"]) & (f["vp"] < mm["base"] + mm["nr_pages"])
    if (placed & ~inside).any():
        _fail("a folio's page is not of its mm")
    if ((f["mapcount"] > 0) & ~placed).any():
        _fail("a mapped folio has no page")
    cached = (f["flags"] & _FL["SWAPCACHE"]) != 0
    if (cached & (f["slot"] < 0)).any():
        _fail("a folio in the swap cache has no slot")


def _walk(after: NDArray[Any], head: int, limit: int, what: str, tail: int | None = None,
          length: int | None = None) -> list[int]:
    """Follow a list; refuse cycles, wrong tails and wrong lengths."""
    found = []
    while head >= 0:
        found.append(int(head))
        if len(found) > limit:
            _fail(f"{what} is a cycle")
        head = after[head]
    if tail is not None and (found[-1] if found else -1) != tail:
        _fail(f"{what} ends at {found[-1] if found else -1}, its tail says {tail}")
    if length is not None and len(found) != length:
        _fail(f"{what} holds {len(found)}, its length says {length}")
    return found


def _lists(s: _State) -> None:
    cpu, task, folio, g, w = s["cpu"], s["task"], s["folio"], s.memcg, s.world
    nr = len(cpu)
    queued: list[int] = []
    called, furthest = np.zeros(nr, dtype=np.int64), np.full(nr, -1)
    for c in range(nr):
        own = _walk(task["rq_next"], cpu["rq_head"][c], len(task), f"run queue {c}",
                    cpu["rq_tail"][c], cpu["rq_nr"][c])
        if (task["cpu"][own] != c).any():
            _fail(f"run queue {c} holds a task of another CPU")
        queued += own
        calls = s["csd_next"][c * nr:(c + 1) * nr]
        senders = _walk(calls, cpu["q_head"][c], nr, f"call queue {c}", cpu["q_tail"][c])
        senders += _walk(calls, cpu["hand"][c], nr, f"calls in hand of CPU {c}")
        if len(senders) != len(set(senders)) or c in senders:
            _fail(f"CPU {c} is called by itself, or twice by another")
        called[senders] += 1
        furthest[senders] = c
        for batch in ("lru_add", "lru_move_tail", "lru_activate"):
            held = cpu[batch][c][:cpu[f"nr_{batch}"][c]]
            if ((held < 0) | (held >= len(folio))).any():
                _fail(f"{batch} of CPU {c} holds a frame that does not exist")
    if len(queued) != len(set(queued)):
        _fail("a task is on two run queues")
    if (task["state"][queued] != _STATE["QUEUED"]).any():
        _fail("a task on a run queue is not queued")
    _calls(s, called, furthest)
    sleeping = _walk(task["sleep_next"], g["sleep_head"], len(task), "the sleeping tasks",
                     g["sleep_tail"])
    waiting = []
    for f in np.flatnonzero(folio["flags"] & _FL["WAITERS"]):
        waiting += _walk(task["wait_next"], folio["wait_head"][f], len(task),
                         f"waiters of frame {f}")
        if folio["wait_head"][f] < 0:
            _fail(f"frame {f} has WAITERS and no waiter")
    tags = _walk(task["wait_next"], s["swapdev"]["wait_head"][0], len(task), "the tasks that wait "
                 "for a tag", s["swapdev"]["wait_tail"][0])
    blocked = [*sleeping, *waiting, *tags, *_mmap_locks(s)]
    if len(set(blocked)) != len(blocked) or (task["state"][blocked] != _STATE["BLOCKED"]).any():
        _fail("a task waits in two places")
    asleep = np.where(task["wait_bit"][waiting] == 0, _ST["F_RETRY"], _ST["S_WB_WAIT"])
    cause = np.array([_ST[name] for name in _SLEEPING])[task["sleep_on"][sleeping]]
    if (task["step"][sleeping] != cause).any() or \
            (task["step"][waiting] != asleep).any() or \
            not np.isin(task["step"][tags], [_ST[name] for name in _SUBMITTING]).all():
        _fail("a task waits for what its step does not")
    for which, name in enumerate(names.LISTS):
        _lru(folio, g, which, name)
    _generations(s)
    _walk(folio["next"], g["frame_top"], len(folio), "the stack of free frames",
          length=g["frames_free"] - (len(folio) - g["frame_fresh"]))
    for t in range(len(task)):
        for name in ("list", "ret", "clean"):
            l = task[name][t]
            if l["nr"] == 0:
                continue
            if not (0 <= l["head"] < len(folio) and 0 <= l["tail"] < len(folio)):
                _fail(f"{name} of task {t} has no valid ends")
            _walk(folio["next"], l["head"], len(folio), f"{name} of task {t}", l["tail"], l["nr"])
    flat: list[int] = []
    for at, l in _locks(s):
        line = _walk(cpu["lock_next"], l["head"], nr, f"lock {at}", l["tail"])
        flat += line
        if (cpu["lock_at"][line] != at).any():
            _fail(f"a CPU that waits for lock {at} says that it spins for another")
        if l["holder"] < 0 and line and (not w.host_cpus or cpu["hosted"][line].any()):
            _fail(f"a CPU waits for lock {at}, which nobody holds")
    if len(flat) != len(set(flat)) or set(flat) != set(
            np.flatnonzero(cpu["mode"] == _MODE["SPIN_LOCK"]).tolist()):
        _fail("the CPUs that spin are not those that wait in line for a lock")


def _requests(s: _State) -> NDArray[np.int64]:
    """The folios of the requests in flight: each row in one queue, in order of their ends."""
    cpu, io, dev, folio = s["cpu"], s["io"], s["swapdev"][0], s["folio"]
    rows: list[int] = []
    for c in range(len(cpu)):
        own = _walk(io["next"], cpu["io_head"][c], len(io), f"requests of CPU {c}",
                    cpu["io_tail"][c])
        if (np.diff(io["done"][own]) < 0).any() or \
                cpu["io_at"][c] != (io["done"][own[0]] if own else _INF):
            _fail(f"the requests of CPU {c} are not in order, or io_at is not the first one's")
        rows += own
    issued = len(rows)
    for t, u in enumerate(s["task"]):
        own = _walk(io["next"], u["plug_head"], len(io), f"the plug of task {t}", u["plug_tail"], u["plug_nr"])
        if own and not _plugged(s, t):
            _fail(f"task {t} holds requests back at a step that does not")
        rows += own
    free = _walk(io["next"], dev["free_row"], len(io), "the free rows of the swap device")
    if sorted(rows + free) != list(range(len(io))) or len(rows) != dev["in_flight"]:
        _fail("a request is in no queue or in two, or in_flight is wrong")
    first, nr = io["slot"][rows].astype(np.int64), io["nr"][rows].astype(np.int64)
    longest = _C["BLK_MAX_SEGMENTS"] if s.world.rotational else 1
    if ((first < 0) | (nr < 1) | (nr > longest) | (first + nr > len(s["slot_entry"]))).any():
        _fail("a request is for slots that do not exist, or for too many")
    slots = [slot for a, n in zip(first.tolist(), nr.tolist(), strict=True) for slot in range(a, a + n)]
    if len(set(slots)) != len(slots) or issued and int(io["done"][rows[:issued]].max()) > dev["last"]:
        _fail("two requests are for the same slot, or one ends after the last one")
    entry = s["slot_entry"][slots]
    held = (entry >> np.uint64(2)).astype(np.int64)
    if (entry & np.uint64(3) != 2).any() or (held >= len(folio)).any():
        _fail("a request is for a slot without a folio")
    busy = folio["flags"][held] & (_FL["WRITEBACK"] | _FL["LOCKED"])
    if (busy == 0).any() or (folio["refcount"][held] == 0).any():
        _fail("the folio of a request is neither under write-back nor locked")
    return held


def _calls(s: _State, called: NDArray[np.int64], furthest: NDArray[np.int64]) -> None:
    """Every sender waits for as many answers as other CPUs hold calls of it."""
    cpu = s["cpu"]
    if (cpu["acks"] != called).any():
        _fail(f"CPU {int((cpu['acks'] != called).argmax())} waits for answers to other calls than "
              "it made")
    for c, p in enumerate(cpu):
        step = names.STEPS[s["task"]["step"][p["current"]]] if p["current"] >= 0 else ""
        spins = p["mode"] == _MODE["SPIN_ACK"]
        if spins != (p["acks"] > 0 and step == "FL_DONE") or p["acks"] > 0 and (
                p["sstep"] >= 0 or step not in ("FL_QUEUE", "FL_SEND", "FL_LOCAL", "FL_WAIT", "FL_DONE")):
            _fail(f"CPU {c} does not wait for the answers to its calls")
        if p["acks"] and step == "FL_QUEUE" and furthest[c] >= p["fl_scan"]:
            _fail(f"CPU {c} would call another twice")
        if step == "FL_QUEUE" and p["fl_n"] > p["fl_scan"] - (c < p["fl_scan"]):
            _fail(f"CPU {c} called more than there are")
        if p["acks"] > p["fl_n"]:
            _fail(f"CPU {c} waits for more answers than it made calls")


def _lru(folio: NDArray[Any], g: Any, which: int, name: str) -> None:
    order = _walk(folio["next"], g["lru_head"][which], len(folio), f"{name} list",
                  g["lru_tail"][which], g["lru_nr"][which])
    if not order:
        return
    rows = folio[np.array(order)]
    if not np.array_equal(rows["prev"], np.array([-1, *order[:-1]])):
        _fail(f"the {name} list's prev links do not mirror its next links")
    active = (rows["flags"] & _FL["ACTIVE"]) != 0
    if (active != (which == 1)).any() or not (rows["flags"] & _FL["LRU"]).all():
        _fail(f"a folio on the {name} list has the wrong flags")
    if (rows["gen"] >> _C["GEN_ON_SHIFT"] != max(which - _C["GEN_LIST"], 0)).any():
        _fail(f"a folio on the {name} list believes to be on another")


def _generations(s: _State) -> None:
    """Every folio of the LRU is on one list; generations are on the lists of their LRU only."""
    folio, g = s["folio"], s.memcg
    on = g["lru_nr"]
    classic, gens = on[:_C["GEN_LIST"]].sum(), on[_C["GEN_LIST"]:].sum()
    if (classic if s.world.lru else gens) or \
            classic + gens != ((folio["flags"] & _FL["LRU"]) != 0).sum():
        _fail("a folio of the LRU is on no list, or on one of the other LRU")
    gen = (folio["gen"] & _C["GEN_MASK"]).astype(np.int64)
    listed = (folio["flags"] & _FL["LRU"]) != 0 if s.world.lru else np.zeros(len(folio), dtype=bool)
    if ((gen > 0) != listed).any() or (gen > 4).any():
        _fail("a folio has a generation and is on no list, or the reverse")
    if not s.world.lru:
        return
    anon, file = g["max_seq"] - g["min_seq"]
    if not 1 <= file <= anon <= 3 or not g["max_seq"] - 1 <= g["mm_seq"] <= g["max_seq"]:
        _fail(f"generations {g['min_seq']} to {g['max_seq']}, walked to {g['mm_seq']}")
    if ((s["task"]["g_seq"] > g["max_seq"]) | (s["task"]["look_seq"] > g["max_seq"])).any():
        _fail("a task walks for a generation that is not there yet")


def _contexts(s: _State) -> None:
    """Every CPU and task has at hand what its next step reads."""
    cpu, task, folio = s["cpu"], s["task"], s["folio"]
    for c, p in enumerate(cpu):
        where = f"CPU {c}"
        if p["in_irq"] and p["istep"] not in _IRQ:
            _fail(f"{where} is in an interrupt at step {p['istep']}")
        if p["in_irq"] and p["istep"] in (_ST["Q_FUNC"], _ST["Q_ACK"]) and p["hand"] < 0:
            _fail(f"{where} serves a call that it does not have")
        if p["in_irq"] and p["istep"] in (_ST["IO_ENTRY"], _ST["IO_END"]) and p["io_head"] < 0:
            _fail(f"{where} completes a request that it does not have")
        if p["sstep"] >= 0 and p["sstep"] not in _SCHED:
            _fail(f"{where} has step {p['sstep']} as scheduling")
        idle = p["mode"] == _MODE["IDLE"]
        if idle and (p["current"] >= 0 or p["sstep"] >= 0):
            _fail(f"{where} is idle with a task")
        if not idle and p["current"] < 0 and p["sstep"] not in _PICKING:
            _fail(f"{where} runs no task")
        if not idle and p["sstep"] < 0 and task["state"][p["current"]] != _STATE["RUNNING"]:
            _fail(f"{where} runs a task that is not running")
        if p["is_lazy"] and p["loaded_mm"] < 0:
            _fail(f"{where} is lazy with no mm loaded")
    _works(s)
    if int((cpu["mode"] == _MODE["IDLE"]).sum()) != s.memcg["nr_idle"]:
        _fail("the number of idle CPUs is wrong")
    if int((task["state"] != _STATE["DEAD"]).sum()) != s.memcg["nr_alive"]:
        _fail("the number of living tasks is wrong")
    if int(((task["dying"] == 1) & (task["state"] != _STATE["DEAD"])).sum()) != s.memcg["nr_dying"]:
        _fail("the number of dying tasks is wrong")
    here = (task["state"] != _STATE["DEAD"]) & (task["step"] != _ST["E_LEFT"])
    going = np.isin([_ST.get(_at(s, t), -1) if here[t] else -1 for t in range(len(task))],
                    [_ST[name] for name in _ZAPS])
    users = np.bincount(task["mm"][here], minlength=len(s["mm"]))
    last = np.bincount(task["mm"][here & going & (task["call"] == 0)], minlength=len(s["mm"]))
    if (last > 1).any() or (s["mm"]["users"] != users - last).any():
        _fail("the number of users of an mm is wrong")
    left = task["mm"][(task["state"] != _STATE["DEAD"]) & (task["step"] == _ST["E_LEFT"])]
    if (users[left] == 0).any():
        _fail("a killed task waits for an mm that nobody takes down")
    killed = np.bincount(task["mm"][here], weights=task["dying"][here] == 1, minlength=len(s["mm"]))
    if ((killed != 0) & (killed != users)).any():
        _fail("a task is dying and another one of its mm is not")
    running = np.full(len(task), -1)
    for c, p in enumerate(cpu):
        if p["current"] >= 0 and p["sstep"] != _ST["SW_PICK"]:
            if running[p["current"]] >= 0:
                _fail(f"task {p['current']} runs on two CPUs")
            running[p["current"]] = c
        for which, batch in enumerate(("lru_add", "lru_activate")):
            at = task[p["current"]]
            if p[f"nr_{batch}"] == _C["BATCH"] and (
                    p["current"] < 0 or running[p["current"]] != c or at["step"] != _ST["D_LOCK"]
                    or not at["d_which"] >> which & 1):
                _fail(f"{batch} of CPU {c} is full and nobody drains it")
    if ((running >= 0) != (task["state"] == _STATE["RUNNING"])).any() or \
            ((running >= 0) & (running != task["cpu"])).any():
        _fail("a task runs nowhere, or elsewhere")
    for name in ("irq_at", "tick_at", "timer_at"):
        if ((cpu[name] >= _T_MAX) & (cpu[name] != _INF)).any():
            _fail(f"{name} is beyond the end of time")
    for t, u in enumerate(task):
        if u["state"] != _STATE["DEAD"]:
            _task(s, t, u)
        elif u["step"] != -1:
            _fail(f"task {t} is dead and has a step")


def _works(s: _State) -> None:
    """The works of all CPUs' kernel threads wait on one CPU; without kworkers there are only drains."""
    works, shared = s["cpu"]["works"], s.memcg["works"]
    for i, name in enumerate(names.WORKS):
        waits = int((works >> i & 1).sum())
        if name in ("NOTIFY", "VMPRESSURE") and waits != shared >> i & 1:
            _fail(f"{waits} CPUs have the work {name}, or the cgroup says otherwise")
        if name != "DRAIN" and waits and not s.world.kworkers:
            _fail(f"a CPU has the work {name} in a world without such works")
    if shared >> len(names.WORKS) or shared & 3:
        _fail("the cgroup has a work that each CPU has for itself")


def _task(s: _State, t: int, u: Any) -> None:
    step = names.STEPS[u["step"]] if u["step"] >= 0 else ""
    where = f"task {t} at {step or u['step']}"
    if not step or _ST[step] in _IRQ or _ST[step] in _SCHED:
        _fail(f"{where}: not a step of a task")
    if step == "V_CHILD":
        _child(s, u, where)
        return
    if step == "E_LEFT":
        if u["state"] != _STATE["BLOCKED"] or not u["dying"]:
            _fail(f"{where}: it is neither gone nor killed")
        return
    if u["state"] == _STATE["QUEUED"] and step not in _GUARDED | _BLOCKING or \
            u["state"] == _STATE["BLOCKED"] and step not in _BLOCKING:
        _fail(f"{where}: it cannot be {names.TASK_STATES[u['state']]} there")
    at = step
    if step[:3] == "FL_":
        at = _returns(s["cpu"]["fl_ret"][u["cpu"]], "fl_ret", where)
    elif step[:2] == "D_":
        at = _returns(u["d_ret"], "d_ret", where)
    if at == "M_BATCHED":
        at = _returns(u["batched_ret"], "batched_ret", where)
    shrinking = at[:2] in _SHRINKING
    if at[:2] in ("C_", *_RECLAIMING):
        cause = _returns(u["c_ret"], "c_ret", where)
        if u["vp"] < 0 and cause != "V_PT":
            _fail(f"{where}: no page")
        if cause == "F_CHARGED":
            _kind(s, u, where)
        if cause in _CHARGING and u["f_pfn"] < 0:
            _fail(f"{where}: no frame in hand")
        if cause in _READ_CHARGED:
            _readahead(s, u, cause, where)
    if at[:2] == "K_":
        _returns(u["k_ret"], "k_ret", where)
    if at[:2] == "B_" or u["in_batch"] and shrinking:
        if _returns(u["b_ret"], "b_ret", where) == "S_END" and u["list"]["nr"]:
            _fail(f"{where}: folios are left on its list")
    if at == "S_FREE_FLUSHED":
        _returns(u["freed_ret"], "freed_ret", where)
    if shrinking and at != "S_PLAN":
        _plans(u, at, where)
        for name, length in (("free_folios", u["nr_free"]), ("flush_folios", u["nr_flush"])):
            held = u[name][:length]
            if ((held < 0) | (held >= len(s["folio"]))).any():
                _fail(f"{where}: {name} holds a frame that does not exist")
    elif shrinking and not 1 <= u["list"]["nr"] <= _C["MAX_LIST"]:
        _fail(f"{where}: {u['list']['nr']} folios to plan for")
    elif not shrinking and u["nr_free"]:
        _fail(f"{where}: folios to free")
    if not shrinking and at not in _LISTS_FULL and (u["list"]["nr"] or u["ret"]["nr"]):
        _fail(f"{where}: folios isolated")
    if at in _LISTS_FULL | {"S_PLAN"}:
        here = u["list"]["nr"] + (u["ret"]["nr"] if at[:2] == "K_" else 0)
        if at not in _PUTTING and here != u["taken"] or at[2:] == "PUT" and u["list"]["nr"]:
            _fail(f"{where}: {here} folios isolated, {u['taken']} were taken")
    given_back = u["ret"]["nr"] + u["clean"]["nr"]
    if u["ret"]["nr"] and at in _LISTS_NEW or given_back > u["taken"] and at in _PUTTING | _CLEAN_HELD:
        _fail(f"{where}: more folios to put back than were taken")
    if at in _LIST_DONE and u["list"]["nr"]:
        _fail(f"{where}: folios are left on its list")
    if u["clean"]["nr"] and at not in _CLEAN_HELD:
        _fail(f"{where}: folios to be tried once more")
    if (at[:2] == "G_" or at in _GEN_STEPS) != bool(s.world.lru) and (
            at[:2] in ("I_", "K_", "G_") or at in _GEN_STEPS or at in ("R_PRIO", "R_LIST", "R_AGE", "S_REF")):
        _fail(f"{where}: a step of the other LRU")
    _generation_walk(s, u, at, where)
    _program(s, u, at, where)
    _needs(s, u, at, where)
    _holds(s, u, step, at, where)


def _generation_walk(s: _State, u: Any, at: str, where: str) -> None:
    """Aging has a mm in hand; looking around stays within the page-table page of the folio."""
    if at in _WALKING and (u["g_mm"] < 0 or u["g_region"] > s["mm"]["nr_regions"][u["g_mm"]] or
                           at == "G_WALK" and u["g_region"] == s["mm"]["nr_regions"][u["g_mm"]]):
        _fail(f"{where}: no page table to walk")
    if (u["g_batched"] or u["g_moved"].any()) and at not in _WALKING:
        _fail(f"{where}: a walk was not reported")
    if at == "S_LOOK":
        vp = s["folio"]["vp"][u["folio"]]
        mm = s["mm"][s["folio"]["mm"][u["folio"]]]
        first = vp - (vp - mm["base"]) % _C["PTRS_PER_PTE"]
        end = min(first + _C["PTRS_PER_PTE"], mm["base"] + mm["nr_pages"])
        if not first <= u["look_at"] <= u["look_end"] <= end or not s["folio"]["mapcount"][u["folio"]]:
            _fail(f"{where}: it looks around elsewhere")


def _returns(step: int, field: str, where: str) -> str:
    name = names.STEPS[step] if 0 <= step < len(names.STEPS) else ""
    if name not in _RETURNS[field]:
        _fail(f"{where}: {field} is {name or step}, allowed are {', '.join(sorted(_RETURNS[field]))}")
    return name


def _plans(u: Any, at: str, where: str) -> None:
    """The indices of shrink_folio_list."""
    if u["list"]["nr"] + u["index"] != u["taken"]:
        _fail(f"{where}: more or less folios than were planned for")
    if u["ret"]["nr"] + len(_batch(u, at)) + (at in _HAND) > u["index"]:
        _fail(f"{where}: more folios than it took from its list")
    if at in _HAND and not u["in_batch"] and at[:2] != "P_" and at != "S_FREE" and \
            not u["ordinal"] < u["index"] or u["ordinal"] > u["index"]:
        _fail(f"{where}: ordinal {u['ordinal']} of {u['index']} folios")
    if u["nr_free"] == _C["BATCH"] and at != "S_FREE_FLUSHED":
        _fail(f"{where}: free_folios is full")
    if u["nr_flush"] == _C["BATCH"] and not u["in_batch"] and at != "B_START":
        _fail(f"{where}: the batch is full")
    if at == "B_START" and not u["nr_flush"] or at in ("B_LOCK", "B_OUT") and not u["in_batch"]:
        _fail(f"{where}: there is no batch")
    if u["in_batch"] and not (u["b_w"] <= u["b_i"] <= u["nr_flush"] if at == "B_LOCK"
                              else u["b_i"] <= u["b_w"] <= u["nr_flush"]):
        _fail(f"{where}: the batch's indices are beyond it")


def _child(s: _State, u: Any, where: str) -> None:
    """A task that was not forked yet has not run; its mm holds what a fork has copied so far."""
    own = s["mm"][u["mm"]]
    if u["state"] != _STATE["BLOCKED"] or not own["is_child"] or u["dying"] or u["pass_no"] or u["call"] \
            or u["mmap"] or u["have"]:
        _fail(f"{where}: it is no child that was not forked yet")
    page = own["base"]
    for p in s["task"]:
        if p["mm"] == own["peer"] and p["call"] == _CALL["FORK"]:
            page += min(int(p["zap"]) * _C["PTRS_PER_PTE"], int(own["nr_pages"]))
    kinds = s["pte"][page:own["base"] + own["nr_pages"]] & np.uint64(7)
    if np.isin(kinds, [_PTE["PRESENT"], _PTE["SWAP"], _PTE["ZAPPED"]]).any():
        _fail(f"{where}: it has pages that nobody copied")


def _program(s: _State, u: Any, at: str, where: str) -> None:
    own = s["mm"][u["mm"]]
    if u["vp"] >= 0 and not own["base"] <= u["vp"] < own["base"] + own["nr_pages"]:
        _fail(f"{where}: its page is not of its mm")
    if u["vp"] < 0 and (u["have"] or at[:2] == "F_"):
        _fail(f"{where}: no page")
    if at == "POPULATE" and (u["pass_no"] < 0 or s.world.passes["kind"][
            u["first_pass"] + u["pass_no"]] != names.PASS_KINDS.index("POPULATE")):
        _fail(f"{where}: not in such a pass")
    kind = s.world.passes["kind"][u["first_pass"] + u["pass_no"]] if u["pass_no"] >= 0 else -1
    if at == "DONTNEED" and kind != _CALL["DONTNEED"] or at == "V_CALL" and not kind > _CALL["DONTNEED"]:
        _fail(f"{where}: not in such a pass")
    _call(s, u, at, int(kind), where)
    if not 0 <= u["zap"] <= own["nr_regions"] or at in _PTL_OF_ZAP and u["zap"] == own["nr_regions"]:
        _fail(f"{where}: zap is out of range")
    if at in _ZAPS and not u["call"] and own["users"]:
        _fail(f"{where}: it takes down an mm in use")
    kind, index = int(u["f_orig"]) & 7, int(u["f_orig"]) >> 8
    if at in _SWAPPED and (kind != _PTE["SWAP"] or index >= s.world.nr_slots):
        _fail(f"{where}: f_orig is not a swap entry")
    if at == "F_CHARGED":
        _kind(s, u, where)
    if at in _READAHEAD:
        _readahead(s, u, at, where)


def _call(s: _State, u: Any, at: str, kind: int, where: str) -> None:
    """A system call on the own mm: of its pass, at one of its rows, within its range."""
    call = int(u["call"])
    step = at
    if at == "V_MORE":
        step = _returns(u["v_next"], "v_next", where)
    elif at[:2] in ("C_", *_RECLAIMING):
        cause = _returns(u["c_ret"], "c_ret", where)
        step = cause if call or cause in ("V_PT", "V_FORK_PT") else at
    if call and (call != kind or call not in _IN_CALL) or call and step not in _IN_CALL[call] or \
            not call and (step[:2] == "V_" and step != "V_CALL" or at == "V_MORE"):
        _fail(f"{where}: not in such a call")
    if u["mmap"] > _MMAP_WRITE and (u["state"] != _STATE["BLOCKED"] or at not in _WAITS_FOR_MM):
        _fail(f"{where}: it does not wait for its mm")
    if s["mm"]["locks"][u["mm"]] and _locked(u, at) != u["mmap"]:
        _fail(f"{where}: mmap is {u['mmap']}")
    if not call:
        return
    first, nr, by = _pass_range(s, u)
    end = first + nr
    if call == _CALL["MREMAP"] and u["phase"] == 0:
        first, end = first + by, end + by
    low, high = first // _C["PTRS_PER_PTE"], -(-end // _C["PTRS_PER_PTE"])
    at_zap = step in _UNMAPS and step != "V_UNMAP"         # which sets it first of all
    if step in _PTL_OF_ZAP and not low <= u["zap"] < high or at_zap and not low <= u["zap"] <= high:
        _fail(f"{where}: zap is out of its range")
    if step in _FORKING:
        _forking(s, u, step, low, high, where)
    if step in ("V_FREE", "V_FREED") and not low <= u["v_at"] <= high - (step == "V_FREED"):
        _fail(f"{where}: it frees what is out of its range")
    moves = step in ("V_MOVE", "V_PT") or step in _MOVING
    if moves and (u["phase"] != 1 or u["v_at"] > nr - (step != "V_MOVE")):
        _fail(f"{where}: it moves what is out of its range")
    spread = step in _UNMAPS | {"V_PROT", "V_PTES"} and u["v_hi"]
    if spread and not low * _C["PTRS_PER_PTE"] <= u["v_lo"] < u["v_hi"] <= end:
        _fail(f"{where}: it flushes what is out of its range")


def _forking(s: _State, u: Any, step: str, low: int, high: int, where: str) -> None:
    """A fork has a child to make, and copies page-table pages of its range."""
    waiting = (s["task"]["mm"] == s["mm"]["peer"][u["mm"]]) & (s["task"]["step"] == _ST["V_CHILD"])
    if s["mm"]["is_child"][u["mm"]] or not waiting.any():
        _fail(f"{where}: it forks nobody")
    if not low <= u["zap"] <= high - (step in ("V_FORK_PT", "V_FORK_PTES")):
        _fail(f"{where}: it copies what is out of its range")


def _locked(u: Any, at: str) -> int:
    """What a task holds of the lock of an mm whose mappings change, or waits for."""
    mmap = int(u["mmap"])
    if at == "F_READ":
        return mmap if mmap in (0, _MMAP_READ, _MMAP_READ + _MMAP_WAIT) else -1
    if at == "E_ZAP" and u["call"] == _CALL["DONTNEED"]:
        return mmap if mmap in (0, _MMAP_READ, _MMAP_READ + _MMAP_WAIT) else -1
    if at == "V_LOCK":
        return mmap if mmap in (0, _MMAP_WRITE, _MMAP_WRITE + _MMAP_WAIT) else -1
    if u["call"]:
        return _MMAP_READ if u["call"] == _CALL["DONTNEED"] else _MMAP_WRITE
    faulting = at[:2] == "F_" and at != "F_RETRY" or at[:2] in ("C_", *_RECLAIMING)
    return _MMAP_READ if faulting else 0


def _pass_range(s: _State, u: Any) -> tuple[int, int, int]:
    row = s.world.passes[u["first_pass"] + u["pass_no"]]
    return int(row["first"]), int(row["nr"]), int(row["stride"])


def _mmap_locks(s: _State) -> list[int]:
    """The tasks that wait for the lock of their mm; its holders are those that say so."""
    task, mms, waiting = s["task"], s["mm"], []
    free = mms["locks"] == 0
    if (free & ((mms["readers"] != 0) | (mms["writer"] >= 0) | (mms["wait_head"] >= 0))).any() or \
            (free[task["mm"]] & (task["mmap"] != 0)).any():
        _fail("the lock of an mm is held that nobody takes")
    for i in np.flatnonzero(~free).tolist():
        mm, here = mms[i], task["mm"] == i
        own = _walk(task["wait_next"], mm["wait_head"], len(task), f"waiters of mm {i}", mm["wait_tail"])
        readers = int((here & (task["mmap"] == _MMAP_READ)).sum())
        writers = np.flatnonzero(here & (task["mmap"] == _MMAP_WRITE)).tolist()
        writer = [int(mm["writer"])] if mm["writer"] >= 0 else []
        if readers != mm["readers"] or writers != writer or writers and readers:
            _fail(f"the lock of mm {i} is not held by those who say so")
        if sorted(own) != np.flatnonzero(here & (task["mmap"] > _MMAP_WRITE)).tolist() or \
                own and not readers and not writers:
            _fail(f"the tasks that wait for mm {i} are not those who say so")
        waiting += own
    return waiting


def _readahead(s: _State, u: Any, at: str, where: str) -> None:
    """What is read ahead are pages of the mm, or slots of a device that rotates."""
    own = s["mm"][u["mm"]]
    first, end = own["base"], own["base"] + own["nr_pages"]
    if s.world.rotational:
        first, end = 0, s.world.nr_slots
    if at in (_BY_PAGE if s.world.rotational else _BY_SLOT):
        _fail(f"{where}: the device is not read so")
    if at[-4:] != "_WIN" and not (first <= u["ra_at"] <= end and u["ra_end"] <= end):
        _fail(f"{where}: reads ahead beyond its mm or the device")
    if at in _READ_CHARGED and not first <= u["ra_vp"] < end:
        _fail(f"{where}: the page to read is not of its mm or the device")
    kind, index = int(u["f_orig"]) & 7, int(u["f_orig"]) >> 8
    if kind != _PTE["SWAP"] or index >= s.world.nr_slots:
        _fail(f"{where}: f_orig is not a swap entry")


def _kind(s: _State, u: Any, where: str) -> None:
    """A fault that charges a frame knows what for."""
    kind, index = int(u["f_orig"]) & 7, int(u["f_orig"]) >> 8
    if kind not in _FAULTS[u["f_kind"]] or kind == _PTE["SWAP"] and index >= s.world.nr_slots:
        _fail(f"{where}: f_kind and f_orig disagree")


def _needs(s: _State, u: Any, at: str, where: str) -> None:
    """The folios that a step works on, and what it takes for granted about them."""
    folio, pte = s["folio"], s["pte"]
    if at in _HAND:
        f = folio[u["folio"]]
        if u["folio"] < 0 or f["vp"] < 0 and not s.world.rotational:
            _fail(f"{where}: no folio in hand")
        if at not in _UNLOCKED and not f["flags"] & _FL["LOCKED"]:
            _fail(f"{where}: the folio in hand is not locked")
        if at == "S_ADD" and (f["slot"] < 0 or f["flags"] & _FL["SWAPCACHE"]):
            _fail(f"{where}: the folio has no slot")
        if at in _UNMAPPING:
            if u["index"] < 1 or f["slot"] < 0 or not f["flags"] & _FL["SWAPCACHE"]:
                _fail(f"{where}: nothing to unmap")
            cleared = int(pte[_unmap_page(s, u, where)]) & 7 == _PTE["NONE"]
            if cleared != (at in _CLEARED) or not f["mapcount"]:
                _fail(f"{where}: the PTE is not as the step expects")
    if at in _FRESH | _SHARED and u["f_pfn"] < 0:
        _fail(f"{where}: no frame in hand")
    if at in _FAULT_LOCKED and not folio["flags"][u["f_pfn"]] & _FL["LOCKED"]:
        _fail(f"{where}: the frame in hand is not locked")
    if at in ("F_SWAP_READ", "F_SUBMIT", "F_SWAP_MAP"):
        f = folio[u["f_pfn"]]
        vp = u["vp"] if f["vp"] < 0 and s.world.rotational else f["vp"]     # NONE until it is mapped
        if f["slot"] != int(u["f_orig"]) >> 8:
            _fail(f"{where}: the frame in hand is of another slot")
        same = (int(pte[u["vp"]]) ^ int(u["f_orig"])) & ~_PTE_PAGE == 0
        shared = s["mm"]["peer"][u["mm"]] >= 0 and vp in (u["vp"], _peer_pages(s)[u["vp"]])
        if same and not shared and (vp != u["vp"] or f["mapcount"]):       # else the fault gives up
            _fail(f"{where}: the frame in hand is of another page")
        if not s.world.swapin_cached and bool(f["flags"] & _FL["SWAPCACHE"]) != u["f_cached"]:
            _fail(f"{where}: f_cached is wrong")
    if at in _RA_READING and not folio["flags"][u["f_pfn"]] & _FL["SWAPCACHE"]:
        _fail(f"{where}: the frame in hand is not in the swap cache")
    if at == "F_WP_REUSE" and (int(pte[u["vp"]]) & 7 != _PTE["PRESENT"]
                               or int(_index(pte[u["vp"]])) != u["f_old"]):
        _fail(f"{where}: the page is not mapped to the old frame")
    if at == "F_WP_SET" and int(pte[u["vp"]]) & 7 != _PTE["NONE"]:
        _fail(f"{where}: the PTE was not cleared")


def _holds(s: _State, u: Any, step: str, at: str, where: str) -> None:
    """The CPU holds the locks that the step took before."""
    own, region = s["mm"][u["mm"]], s["region"]["ptl"]["holder"]
    wanted = []
    if at in _PTL_OF_VP:
        wanted.append(region[own["first_region"] + (u["vp"] - own["base"]) // _C["PTRS_PER_PTE"]])
    if at in _UNMAPPING or at == "S_LOOK":
        page = _unmap_page(s, u, where)
        mm = s["mm"][np.searchsorted(s["mm"]["base"], page, side="right") - 1]
        wanted.append(region[mm["first_region"] + (page - mm["base"]) // _C["PTRS_PER_PTE"]])
    if at == "V_FORK_PTES":
        wanted.append(region[s["mm"]["first_region"][own["peer"]] + u["zap"]])
    if at in _PTL_OF_ZAP and not (at in ("E_FREE", "E_UNLOCK") and u["call"] > _CALL["DONTNEED"]):
        wanted.append(region[own["first_region"] + u["zap"]])
    if at in _MOVING:
        first, _, by = _pass_range(s, u)
        old = (first + int(u["v_at"])) // _C["PTRS_PER_PTE"]
        wanted.append(region[own["first_region"] + old])
        if at != "V_MOVE_NEW":
            wanted.append(region[own["first_region"] + (first + by + int(u["v_at"])) // _C["PTRS_PER_PTE"]])
    if step in _LRU_LOCKED:
        wanted.append(s["memcg"]["lru_lock"][0]["holder"])
    if any(holder != u["cpu"] for holder in wanted):
        _fail(f"{where}: it does not hold its lock")


# --- frames and slots: one place each, every reference accounted for

def _at(s: _State, t: int) -> str:
    """The step that a task is at, or that its flush or drain returns to."""
    u = s["task"][t]
    step = names.STEPS[u["step"]] if u["step"] >= 0 else ""
    if step[:3] == "FL_":
        step = names.STEPS[s["cpu"]["fl_ret"][u["cpu"]]]
    if step == "M_BATCHED":
        return names.STEPS[u["batched_ret"]]
    return names.STEPS[u["d_ret"]] if step[:2] == "D_" else step


def _plugged(s: _State, t: int) -> bool:
    """May the task hold requests back: in a reclaim of the lists or a readahead, and awake?"""
    u, at = s["task"][t], _at(s, t)
    if u["state"] not in (_STATE["RUNNING"], _STATE["QUEUED"]):
        return False
    reading = at[:2] == "C_" and names.STEPS[u["c_ret"]] in _READ_CHARGED
    return reading or at[:2] in _RECLAIMING or at[:5] in ("F_RA_", "F_CL_") and at[-4:] != "_WIN"


def _batch(u: Any, at: str) -> list[int]:
    """The folios that wait in the task's flush_folios."""
    held: list[int] = u["flush_folios"][:u["nr_flush"]].tolist()
    if not u["in_batch"]:
        return held
    if at == "B_LOCK":
        return held[:u["b_w"]] + held[u["b_i"]:]
    return held[u["b_i"]:u["b_w"]]


def _frames(s: _State) -> None:
    folio, pte, g = s["folio"], s["pte"], s.memcg
    nr = len(folio)
    kind, index = pte & np.uint64(7), _index(pte).astype(np.int64)
    present = kind == _PTE["PRESENT"]
    maps = np.bincount(index[present], minlength=nr)
    zapped = np.bincount(index[kind == _PTE["ZAPPED"]], minlength=nr)
    owner = np.repeat(np.arange(len(s["mm"])), s["mm"]["nr_pages"])
    home, pages = folio["vp"][index[present]], np.flatnonzero(present)
    if ((home != pages) & ((home < 0) | (home != _peer_pages(s)[pages]))).any():
        _fail("a PTE maps a folio of another page")
    cleared, refs, place = np.zeros((3, nr), dtype=np.int64)
    half_mapped: list[int] = []             # mms: a page's PTE is cleared, the folio's mapcount not yet
    locked: list[int] = []
    zapping = np.zeros(len(pte), dtype=bool)
    for t, u in enumerate(s["task"]):
        at = _at(s, t)
        for name in ("list", "ret", "clean"):
            if u[name]["nr"]:
                refs[_walk(folio["next"], u[name]["head"], nr, f"{name} of task {t}",
                           u[name]["tail"], u[name]["nr"])] += 1
        if at[:2] in _SHRINKING and at != "S_PLAN":
            np.add.at(refs, _batch(u, at), 1)
            np.add.at(place, u["free_folios"][:u["nr_free"]], 1)
        if at in _HAND:
            refs[u["folio"]] += 1
            if at not in _UNLOCKED:
                locked.append(int(u["folio"]))
    place += refs
    for t, u in enumerate(s["task"]):
        at = _at(s, t)
        charging = at[:2] in ("C_", *_RECLAIMING) and \
            names.STEPS[u["c_ret"]] in _CHARGING
        if charging or at in _FRESH:
            place[u["f_pfn"]] += 1
            refs[u["f_pfn"]] += 1
        if at in _SHARED:
            refs[u["f_pfn"]] += 1
            if at in _FAULT_LOCKED:
                locked.append(int(u["f_pfn"]))
        if (charging or at in _COPYING) and u["f_old"] >= 0:
            refs[u["f_old"]] += 1
        if at == "F_WP_SET" and u["f_old"] >= 0:
            cleared[u["f_old"]] += 1
            half_mapped.append(int(u["mm"]))
        if at in _CLEARED:
            cleared[u["folio"]] += 1
            half_mapped.append(int(owner[_unmap_page(s, u, f"task {t} at {at}")]))
        mm = s["mm"][u["mm"]]
        if at == "E_FREE":
            first = mm["base"] + u["zap"] * _C["PTRS_PER_PTE"]
            zapping[first:min(first + _C["PTRS_PER_PTE"], mm["base"] + mm["nr_pages"])] = True
        elif u["call"] in (_CALL["MUNMAP"], _CALL["MREMAP"]):
            page, length, by = _pass_range(s, u)
            if u["call"] == _CALL["MREMAP"] and u["phase"] == 0:
                page += by
            zapping[mm["base"] + page:mm["base"] + page + length] = True
    if ((kind == _PTE["ZAPPED"]) & ~zapping).any():
        _fail("a PTE is zapped and nobody frees its folio")
    requests = _requests(s)
    reads = requests[(folio["flags"][requests] & _FL["WRITEBACK"]) == 0]
    if len(locked) + len(reads) != len({*locked, *reads.tolist()}):
        _fail("a folio is locked twice")
    for p in s["cpu"]:
        np.add.at(refs, p["lru_activate"][:p["nr_lru_activate"]], 1)
        np.add.at(refs, p["lru_move_tail"][:p["nr_lru_move_tail"]], 1)
        np.add.at(refs, p["lru_add"][:p["nr_lru_add"]], 1)
        np.add.at(place, p["lru_add"][:p["nr_lru_add"]], 1)
    maps += cleared
    rss = np.bincount(owner[present], minlength=len(s["mm"]))
    np.add.at(rss, half_mapped, 1)
    swapents = np.bincount(owner[kind == _PTE["SWAP"]], minlength=len(s["mm"]))
    if (rss != s["mm"]["rss"]).any() or (swapents != s["mm"]["swapents"]).any():
        _fail("rss or swapents of an mm is wrong")
    refs += maps + zapped + ((folio["flags"] & _FL["SWAPCACHE"]) != 0)
    free = np.zeros(nr, dtype=bool)
    free[g["frame_fresh"]:] = True
    top = _walk(folio["next"], g["frame_top"], nr, "the stack of free frames")
    free[top] = True
    place[g["frame_fresh"]:] += 1
    place[top] += 1
    place += (folio["flags"] & _FL["LRU"]) != 0
    bare = (folio["vp"] < 0) & ~free & (maps + ((folio["flags"] & _FL["LRU"]) != 0) > 0)
    if s.world.rotational:                   # whose page a cluster brought in is not known at first
        bare &= maps > 0
    for name, bad in (("a frame is in no place or in two", place != 1),
                      ("a folio's mapcount is wrong", folio["mapcount"] != maps),
                      ("a frame's references are wrong", folio["refcount"] != refs),
                      ("a folio in use has no page", bare)):
        if bad.any():
            f = int(bad.argmax())
            _fail(f"{name}: frame {f} has refcount {folio['refcount'][f]}, mapcount "
                  f"{folio['mapcount'][f]}, flags {folio['flags'][f]:#x}, {place[f]} places; "
                  f"expected {refs[f]} references, {maps[f]} mappings")


def _cached_slots(s: _State) -> NDArray[np.int64]:
    """The slots in the CPUs' slot caches."""
    found: list[int] = []
    for c, row in enumerate(s["slot_cache"]):
        if row["cur"] + row["nr"] > len(row["slots"]):
            _fail(f"the slot cache of CPU {c} ends beyond its end")
        found += row["slots"][row["cur"]:row["cur"] + row["nr"]].tolist()
        found += row["slots_ret"][:row["n_ret"]].tolist()
    active = s["swapdev"]["cache_active"][0]
    if found and not active or active and not s.world.slot_cache:
        _fail("slot caches are in use that should not be")
    held = np.array(found, dtype=np.int64)
    if ((held < 0) | (held >= s.world.nr_slots)).any():
        _fail("a slot cache holds a slot that does not exist")
    return held


def _scanned(s: _State) -> NDArray[np.bool_]:
    """The unused slots of a device that rotates, which `lowest` and `highest` bound."""
    dev, nr = s["swapdev"][0], len(s["slot_count"])
    free: NDArray[np.bool_] = s["slot_count"] == 0
    found = np.flatnonzero(free)
    if len(found) != s.memcg["slots_free"]:
        _fail("the number of free slots is wrong")
    if (s["slot_entry"][free] != 0).any():
        _fail("a free slot has an entry")
    if len(found) and not dev["lowest"] <= found[0] <= found[-1] <= dev["highest"] or \
            not len(found) and (dev["lowest"], dev["highest"]) != (nr, -1):
        _fail("a free slot is not between the lowest and the highest")
    return free


def _stacked(s: _State) -> NDArray[np.bool_]:
    """The free slots of any other device: on the stack, or never used."""
    count, entry, g = s["slot_count"], s["slot_entry"], s.memcg
    nr = len(count)
    free = np.zeros(nr, dtype=bool)
    at, links = int(g["slot_top"]), 0
    while at >= 0:
        if at >= g["slot_fresh"] or free[at] or count[at] or int(entry[at]) > nr:
            _fail(f"the stack of free slots is broken at slot {at}")
        free[at] = True
        links += 1
        at = int(entry[at]) - 1
    if links != g["slots_free"] - (nr - g["slot_fresh"]):
        _fail("the number of free slots is wrong")
    free[g["slot_fresh"]:] = True
    return free


def _slots(s: _State, in_caches: NDArray[np.int64]) -> None:
    """Every slot is free, in use, in a slot cache or in the hand of one task that adds it."""
    count, entry, folio = s["slot_count"], s["slot_entry"], s["folio"]
    nr = len(count)
    pte = s["pte"]
    swapped = _index(pte[(pte & np.uint64(7)) == _PTE["SWAP"]]).astype(np.int64)
    maps = np.bincount(swapped, minlength=nr)
    if ((count & 0x3f) != maps).any():
        slot = int(((count & 0x3f) != maps).argmax())
        _fail(f"slot {slot} has map count {count[slot] & 0x3f}, {maps[slot]} PTEs hold it")
    free = _scanned(s) if s.world.rotational else _stacked(s)
    marked = s.world.rotational or s.world.slot_cache        # slots taken have HAS_CACHE at once
    used = count != 0
    held = np.zeros(nr, dtype=np.int64)
    np.add.at(held, in_caches, 1)
    cached = (folio["flags"] & _FL["SWAPCACHE"]) != 0
    filling = np.zeros(nr, dtype=bool)
    for t, u in enumerate(s["task"]):
        step = _at(s, t)
        if step == "S_ADD":
            slot = folio["slot"][u["folio"]]
            if used[slot] != marked or free[slot]:
                _fail(f"task {t} adds a folio to a slot in use")
            used[slot] = True
            held[slot] += marked
        if step in ("F_SWAP_READ", "F_SWAP_MAP") and not cached[u["f_pfn"]]:
            filling[int(u["f_orig"]) >> 8] = True
    if (held > 1).any() or ((count != 0x40) | (entry != 0))[held > 0].any():
        _fail("a slot in a slot cache, or in hand, is held twice or in use")
    if (used == free).any():
        _fail(f"slot {int((used == free).argmax())} is free and in use, or neither")
    of_folio = ~free & ((entry & np.uint64(3)) == 2) & (count != 0)
    owners = np.full(nr, -1)
    owners[of_folio] = (entry[of_folio] >> np.uint64(2)).astype(np.int64)
    mine = np.full(nr, -1)
    mine[folio["slot"][cached]] = np.flatnonzero(cached)
    if (owners != mine).any() or int(cached.sum()) != int(of_folio.sum()):
        _fail(f"slot {int((owners != mine).argmax())} and a folio of the swap cache disagree")
    if (((count & 0x40) != 0) != (of_folio | filling | (held > 0))).any():
        _fail("a slot has HAS_CACHE and no folio, or the reverse")


# --- what the model promises

def _hosts(s: _State) -> None:
    """Each host CPU runs one of its CPUs or none, and those know."""
    nr, hosted = len(s["host"]), np.zeros(len(s["cpu"]), dtype=bool)
    for h, c in enumerate(s["host"]["running"].tolist()):
        if c >= 0 and c % nr != h:
            _fail(f"host CPU {h} runs CPU {c}, which is not its own")
        hosted[c] |= c >= 0
    if (hosted != (s["cpu"]["hosted"] == 1)).any():
        _fail("a CPU has a host CPU that does not run it, or the reverse")


def verify(sim: Simulation) -> None:
    """`audit` of the live state, and conservation.

    Raises
    ------
    reclaim.errors.SnapshotError : what does not hold.
    """
    audit(sim)
    s = _State(sim, None)
    _clocks(s)
    _charges(s)
    _isolated(s)
    _generation_sizes(s)


def _clocks(s: _State) -> None:
    sums = s["time"].reshape(len(s["cpu"]), -1).sum(axis=1)
    want = s["cpu"]["clock"] + np.where(s["cpu"]["in_irq"] == 1, s["cpu"]["left"], 0)
    want = want + s["cpu"]["host_left"]
    if (sums != want).any():
        c = int((sums != want).argmax())
        _fail(f"the times of CPU {c} sum to {sums[c]}, its clock says {want[c]}")


def _charges(s: _State) -> None:
    task, g = s["task"], s.memcg
    used = len(s["folio"]) - int(g["frames_free"])
    kernel = int(g["kernel"])
    for t, u in enumerate(task):
        step = _at(s, t)
        charging = step[:2] in ("C_", *_RECLAIMING)
        if charging and names.STEPS[u["c_ret"]] in _CHARGING:
            used -= 1                                    # allocated, not charged yet
        if step in _CHARGING and u["c_failed"]:
            used -= 1
        if step in ("F_PT_SET", "V_PT") and not u["c_failed"]:
            kernel += 1                                  # charged, not installed yet
        if step in ("S_END_FLUSHED", "S_FREE_FLUSHED"):
            used -= int(u["nr_free"])                    # uncharged, not freed yet
    want = kernel + int(s["cpu"]["stock"].sum()) + used
    if want != g["usage"]:
        _fail(f"memcg usage is {g['usage']}, kernel + stocks + charged folios are {want}")


def _generation_sizes(s: _State) -> None:
    """What the memcg counts of each generation, with what walks have not reported yet."""
    gen = s["folio"]["gen"] & _C["GEN_MASK"]
    want = np.bincount(gen, minlength=5)[1:5]
    got = s.memcg["gen_nr"] + s["task"]["g_moved"].sum(axis=0)
    if (got != want).any():
        _fail(f"generations are of {want} folios, counted are {got}")


def _isolated(s: _State) -> None:
    isolated = 0
    for t, u in enumerate(s["task"]):
        at = _at(s, t)
        if not s.world.lru and (at[:2] in _SHRINKING or at in _LISTS_FULL):
            isolated += int(u["taken"])
    if isolated != s.memcg["nr_isolated"]:
        _fail(f"nr_isolated is {s.memcg['nr_isolated']}, reclaimers hold {isolated}")
    held = np.zeros(len(s["folio"]), dtype=bool)
    held[_requests(s)] = True
    for u in s["task"]:
        held[[f for f in (u["f_pfn"], u["f_old"], u["folio"]) if f >= 0]] = True
        held[u["flush_folios"][:u["nr_flush"]]] = True
    idle = ~held & ((s["folio"]["flags"] & _FL["LOCKED"]) != 0)
    if idle.any():
        _fail(f"frame {int(idle.argmax())} is locked and nobody works on it")
