"""Audits of a state: what the core relies on (`audit`) and what the model promises (`verify`).

`audit` is driven by tables: every index in its range, every list whole, every step with what
it reads at hand.  A state that passes cannot make the core read outside its tables.  `verify`
adds conservation: references, charges, isolated folios, slots, locks and clocks.
"""

from __future__ import annotations

import numpy as np

from reclaim import names
from reclaim._core import constants
from reclaim.errors import SnapshotError

_C = constants()
_ST = {name: i for i, name in enumerate(names.STEPS)}
_FL = {name: 1 << i for i, name in enumerate(names.FOLIO_FLAGS)}
_PTE = {name: i for i, name in enumerate(names.PTE_KINDS)}
_MODE = {name: i for i, name in enumerate(names.CPU_MODES)}
_STATE = {name: i for i, name in enumerate(names.TASK_STATES)}
_IRQ = tuple(i for n, i in _ST.items() if n[:2] in ("Q_", "T_"))
_SCHED = tuple(i for n, i in _ST.items() if n[:2] in ("SW", "W_"))
_INF = _C["INF"]
_T_MAX = 1 << 54

# table -> field -> (least, what the values are below of); numbers stand for themselves.
_RANGES: dict[str, dict[str, tuple[int, object]]] = {
    "cpu": {
        "clock": (0, _T_MAX), "left": (0, _T_MAX), "irq_at": (0, _INF + 1),
        "tick_at": (0, _INF + 1), "timer_at": (0, _INF + 1),
        "asid_mm": (-1, "mm"), "current": (-1, "task"), "loaded_mm": (-2, "mm"),
        "istep": (-1, len(_ST)), "sstep": (-1, len(_ST)), "rq_head": (-1, "task"),
        "rq_tail": (-1, "task"), "rq_nr": (0, "task+1"), "push": (-1, "cpu"),
        "fl_mm": (-1, "mm"), "fl_vp": (-1, "pte"), "fl_scan": (0, "cpu+1"), "fl_n": (0, "cpu"),
        "fl_ret": (-1, len(_ST)), "acks": (0, "cpu"), "q_head": (-1, "cpu"), "q_tail": (-1, "cpu"),
        "hand": (-1, "cpu"), "lock_next": (-1, "cpu"), "stock": (0, 65),
        "nr_lru_add": (0, 32), "nr_lru_activate": (0, 32),
        "mode": (0, 4), "in_irq": (0, 2), "last_on": (0, 2), "is_lazy": (0, 2),
        "need_resched": (0, 2), "drain_req": (0, 2), "loaded_asid": (0, 6), "next_asid": (0, 7),
        "sw_asid": (0, 6), "sw_flush": (0, 2), "fl_trim": (0, 2), "slice_ticks": (0, 1 << 30),
    },
    "task": {
        "wake_at": (0, _INF), "cpu": (0, "cpu"), "step": (-1, len(_ST)), "rq_next": (-1, "task"),
        "wait_next": (-1, "task"), "throttle_next": (-1, "task"), "vp": (-1, "pte"),
        "f_pfn": (-1, "folio"), "f_old": (-1, "folio"), "folio": (-1, "folio"),
        "c_nr": (0, 65), "c_batch": (0, 65), "c_retries": (0, 17), "c_ret": (-1, len(_ST)),
        "k_ret": (-1, len(_ST)), "b_ret": (-1, len(_ST)), "freed_ret": (-1, len(_ST)),
        "d_ret": (-1, len(_ST)), "prio": (0, 13), "r_nr": (0, "folio+1"), "nr_to_scan": (0, 33),
        "taken": (0, 33), "scanned": (0, 33), "index": (0, 33), "ordinal": (0, 33),
        "nr_free": (0, 32), "nr_flush": (0, 32), "b_i": (0, 32), "b_w": (0, 32),
        "state": (0, 4), "dying": (0, 2), "have": (0, 2), "write": (0, 2), "zero": (0, 2),
        "f_kind": (0, 3), "f_cached": (0, 2), "r_visit": (0, 3), "stalled": (0, 2),
        "in_batch": (0, 2), "d_which": (0, 4), "ubc_required": (0, 2), "ubc_writable": (0, 2),
    },
    "folio": {
        "flags": (0, 1 << len(_FL)), "refcount": (0, 1 << 30), "mapcount": (0, 2),
        "vp": (-1, "pte"), "mm": (-1, "mm"), "slot": (-1, "slot_entry"), "prev": (-1, "folio"),
        "next": (-1, "folio"), "wait_head": (-1, "task"), "wait_tail": (-1, "task"),
    },
    "mm": {"tlb_gen": (0, 1 << 62), "rss": (0, "pte+1"), "swapents": (0, "pte+1")},
    "region": {"present": (0, 2)},
    "memcg": {
        "usage": (0, 1 << 40), "kernel": (0, 1 << 40), "nr_isolated": (0, "folio+1"),
        "anon_cost": (0, 1 << 50), "nonresident_age": (0, 1 << 60),
        "lru_head": (-1, "folio"), "lru_tail": (-1, "folio"), "lru_nr": (0, "folio+1"),
        "slots_free": (0, "slot_entry+1"), "slot_top": (-1, "slot_entry"),
        "slot_fresh": (0, "slot_entry+1"), "frames_free": (0, "folio+1"),
        "frame_top": (-1, "folio"), "frame_fresh": (0, "folio+1"),
        "throttle_head": (-1, "task"), "throttle_tail": (-1, "task"),
        "nr_idle": (0, "cpu+1"), "nr_alive": (0, "task+1"), "nr_dying": (0, "task+1"),
    },
}

# Steps at which a task needs a folio in hand, a frame of its fault, a slot on that folio.
_HAND = {"S_LOCK", "S_WB", "S_REF", "S_SLOT", "S_ADD", "S_UNMAP", "S_PIN", "S_DIRTY", "S_FREE",
         "P_OUT", "P_WRITE", "P_END", "P_DISPATCH",
         "U_DEFER", "U_CLEAR", "U_GEN", "U_MASK", "U_FLUSH", "U_SET"}
_FRAME = {"F_CHARGED", "F_FILL", "F_MAP", "F_WP_CLEAR", "F_WP_SET", "F_PREPARE", "F_SWAP_READ",
          "F_LOCK", "F_RECHECK", "F_SWAP_MAP"}
_SWAPPED = {"F_CACHE", "F_PREPARE", "F_SWAP_READ", "F_RECHECK", "F_SWAP_MAP"}
_SLOT = {"S_ADD"}
_UNMAPPING = {"U_DEFER", "U_CLEAR", "U_GEN", "U_MASK", "U_FLUSH", "U_SET"}


def _fail(what: str) -> None:
    raise SnapshotError(f"the state is not sound: {what}")


class _State:
    """The tables of one state: live ones, or those of a snapshot's bytes."""

    def __init__(self, sim, data: bytes | None) -> None:
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

    def __getitem__(self, name):
        return self.table[name]

    def bound(self, limit) -> int:
        if isinstance(limit, int):
            return limit
        name, plus, extra = limit.partition("+")
        return len(self.table[name]) + (int(extra) if plus else 0)


def audit(sim, data: bytes | None = None) -> None:
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
    _page_tables(s)
    _lists(s)
    _contexts(s)


def _range(s, table, field, least, limit) -> None:
    values = s[table][field]
    with np.errstate(all="ignore"):
        bad = (values < least) | (values >= limit)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        _fail(f"{table}.{field}[{row}] is {values[row]}, allowed are {least} to {limit - 1}")


def _locks(s):
    yield "lru_lock", s["memcg"]["lru_lock"][0]
    for i in np.flatnonzero(s["region"]["ptl"]["holder"] != -1):
        yield f"ptl[{i}]", s["region"]["ptl"][i]


def _constants(s) -> None:
    """What a run never changes is as the world says."""
    w, task, mm = s.world, s["task"], s["mm"]
    pages = np.array(w.mm_pages)
    regions = -(-pages // _C["PTRS_PER_PTE"])
    want = {
        ("mm", "base"): np.cumsum(pages) - pages, ("mm", "nr_pages"): pages,
        ("mm", "nr_regions"): regions, ("mm", "first_region"): np.cumsum(regions) - regions,
        ("task", "mm"): w.task_mm, ("task", "first_pass"): w.task_first_pass,
        ("task", "nr_passes"): w.task_nr_passes, ("task", "loop_to"): w.task_loop_to,
        ("task", "pinned"): w.task_pinned, ("task", "restart"): w.task_restart,
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


def _page_tables(s) -> None:
    pte, w = s["pte"], s.world
    kind, index = pte & np.uint64(7), pte >> np.uint64(8)
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


def _walk(after, head, limit, what, tail=None, length=None) -> list[int]:
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


def _lists(s) -> None:
    cpu, task, folio, g = s["cpu"], s["task"], s["folio"], s.memcg
    nr = len(cpu)
    queued: list[int] = []
    for c in range(nr):
        queued += _walk(task["rq_next"], cpu["rq_head"][c], len(task), f"run queue {c}",
                        cpu["rq_tail"][c], cpu["rq_nr"][c])
        calls = s["csd_next"][c * nr:(c + 1) * nr]
        _walk(calls, cpu["q_head"][c], nr, f"call queue {c}", cpu["q_tail"][c])
        _walk(calls, cpu["hand"][c], nr, f"calls in hand of CPU {c}")
        for batch in ("lru_add", "lru_activate"):
            held = cpu[batch][c][:cpu[f"nr_{batch}"][c]]
            if ((held < 0) | (held >= len(folio))).any():
                _fail(f"{batch} of CPU {c} holds a frame that does not exist")
    if len(queued) != len(set(queued)):
        _fail("a task is on two run queues")
    throttled = _walk(task["throttle_next"], g["throttle_head"], len(task), "the throttled tasks",
                      g["throttle_tail"])
    waiting = []
    for f in np.flatnonzero(folio["flags"] & _FL["WAITERS"]):
        waiting += _walk(task["wait_next"], folio["wait_head"][f], len(task),
                         f"waiters of frame {f}", folio["wait_tail"][f])
        if folio["wait_head"][f] < 0:
            _fail(f"frame {f} has WAITERS and no waiter")
    blocked = [*throttled, *waiting]
    if len(set(blocked)) != len(blocked) or set(blocked) & set(queued):
        _fail("a task waits in two places")
    for which, name in enumerate(names.LISTS):
        _lru(folio, g, which, name)
    _walk(folio["next"], g["frame_top"], len(folio), "the stack of free frames",
          length=g["frames_free"] - (len(folio) - g["frame_fresh"]))
    after = s["slot_entry"].astype(np.int64) - 1
    bad = s["slot_count"] == 0
    bad[g["slot_fresh"]:] = False
    free = _walk_slots(after, g["slot_top"], len(after))
    if len(free) != g["slots_free"] - (len(after) - g["slot_fresh"]):
        _fail("the number of free slots is wrong")
    for t in range(len(task)):
        for name in ("list", "ret"):
            l = task[name][t]
            if l["nr"] == 0:
                continue
            if not (0 <= l["head"] < len(folio) and 0 <= l["tail"] < len(folio)):
                _fail(f"{name} of task {t} has no valid ends")
            _walk(folio["next"], l["head"], len(folio), f"{name} of task {t}", l["tail"], l["nr"])
    spinning = [_walk(cpu["lock_next"], l["head"], nr, what, l["tail"]) for what, l in _locks(s)]
    flat = [c for line in spinning for c in line]
    if len(flat) != len(set(flat)) or set(flat) != set(
            np.flatnonzero(cpu["mode"] == _MODE["SPIN_LOCK"]).tolist()):
        _fail("the CPUs that spin are not those that wait in line for a lock")


def _walk_slots(after, head, limit) -> list[int]:
    found = []
    while head >= 0:
        if head >= len(after):
            _fail("the stack of free slots leaves the table")
        found.append(int(head))
        if len(found) > limit:
            _fail("the stack of free slots is a cycle")
        head = after[head]
    return found


def _lru(folio, g, which, name) -> None:
    order = _walk(folio["next"], g["lru_head"][which], len(folio), f"{name} list",
                  g["lru_tail"][which], g["lru_nr"][which])
    if not order:
        return
    rows = folio[np.array(order)]
    if not np.array_equal(rows["prev"], np.array([-1, *order[:-1]])):
        _fail(f"the {name} list's prev links do not mirror its next links")
    active = (rows["flags"] & _FL["ACTIVE"]) != 0
    if (active != bool(which)).any() or not (rows["flags"] & _FL["LRU"]).all():
        _fail(f"a folio on the {name} list has the wrong flags")


def _contexts(s) -> None:
    """Every CPU and task has at hand what its next step reads."""
    cpu, task, folio = s["cpu"], s["task"], s["folio"]
    for c, p in enumerate(cpu):
        where = f"CPU {c}"
        if p["in_irq"] and p["istep"] not in _IRQ:
            _fail(f"{where} is in an interrupt at step {p['istep']}")
        if p["in_irq"] and p["istep"] in (_ST["Q_FUNC"], _ST["Q_ACK"]) and p["hand"] < 0:
            _fail(f"{where} serves a call that it does not have")
        if p["sstep"] >= 0 and p["sstep"] not in _SCHED:
            _fail(f"{where} has step {p['sstep']} as scheduling")
        idle = p["mode"] == _MODE["IDLE"]
        if idle and (p["current"] >= 0 or p["sstep"] >= 0):
            _fail(f"{where} is idle with a task")
        if not idle and p["current"] < 0 and p["sstep"] != _ST["SW_PICK"]:
            _fail(f"{where} runs no task")
        if not idle and p["sstep"] < 0 and task["state"][p["current"]] != _STATE["RUNNING"]:
            _fail(f"{where} runs a task that is not running")
        if p["is_lazy"] and p["loaded_mm"] < 0:
            _fail(f"{where} is lazy with no mm loaded")
    if int((cpu["mode"] == _MODE["IDLE"]).sum()) != s.memcg["nr_idle"]:
        _fail("the number of idle CPUs is wrong")
    if int((task["state"] != _STATE["DEAD"]).sum()) != s.memcg["nr_alive"]:
        _fail("the number of living tasks is wrong")
    running = cpu["current"][(cpu["current"] >= 0) & (cpu["sstep"] != _ST["SW_PICK"])]
    if len(running) != len(set(running.tolist())):
        _fail("a task runs on two CPUs")
    for t, u in enumerate(task):
        if u["state"] == _STATE["DEAD"]:
            continue
        step = names.STEPS[u["step"]] if 0 <= u["step"] < len(names.STEPS) else ""
        _task(t, u, step, folio, s)


def _task(t, u, step, folio, s) -> None:
    where = f"task {t} at {step or u['step']}"
    if not step or _ST[step] in _IRQ or _ST[step] in _SCHED:
        _fail(f"{where}: not a step of a task")
    returns = {"C_": "c_ret", "R_": "c_ret", "I_": "c_ret", "D_": "d_ret"}
    for prefix, field in returns.items():
        if step.startswith(prefix):
            _is_task_step(u[field], where)
    if step[:2] in ("S_", "U_", "P_", "B_", "K_"):
        _is_task_step(u["c_ret"], where)
        if step[:2] == "K_":
            _is_task_step(u["k_ret"], where)
        if u["in_batch"] or step[:2] == "B_":
            _is_task_step(u["b_ret"], where)
        if step == "S_FREE_FLUSHED":
            _is_task_step(u["freed_ret"], where)
    if step[:3] == "FL_":
        ret = int(s["cpu"]["fl_ret"][u["cpu"]])
        _is_task_step(ret, where)
        _needs(t, u, names.STEPS[ret], folio, where)
    if step[:2] == "D_":
        _needs(t, u, names.STEPS[u["d_ret"]], folio, where)
    if step == "S_FREE_FLUSHED":
        _needs(t, u, names.STEPS[u["freed_ret"]], folio, where)
    _needs(t, u, step, folio, where)
    if step not in ("S_PLAN",) and u["list"]["nr"] > 32:
        _fail(f"{where}: more than 32 folios isolated")
    if step == "S_PLAN" and not 1 <= u["list"]["nr"] <= 32:
        _fail(f"{where}: {u['list']['nr']} folios to plan for")
    if step[:2] in ("E_",) and not 0 <= u["zap"] <= s["mm"]["nr_regions"][u["mm"]]:
        _fail(f"{where}: zap is out of range")
    if step in ("E_FREE", "E_UNLOCK") and u["zap"] >= s["mm"]["nr_regions"][u["mm"]]:
        _fail(f"{where}: zap is out of range")
    for name, length in (("free_folios", u["nr_free"]), ("flush_folios", u["nr_flush"])):
        held = u[name][:length]
        if ((held < 0) | (held >= len(folio))).any():
            _fail(f"{where}: {name} holds a frame that does not exist")
    if u["b_w"] > u["nr_flush"] or u["b_i"] > max(u["nr_flush"], u["b_w"]):
        _fail(f"{where}: the batch's indices are beyond it")
    own = s["mm"][u["mm"]]
    if u["vp"] >= 0 and not own["base"] <= u["vp"] < own["base"] + own["nr_pages"]:
        _fail(f"{where}: its page is not of its mm")
    kind, index = int(u["f_orig"]) & 7, int(u["f_orig"]) >> 8
    if kind == _PTE["SWAP"] and index >= s.world.nr_slots or kind == _PTE["PRESENT"] and index >= len(folio):
        _fail(f"{where}: f_orig names what does not exist")
    if (u["list"]["nr"] + u["index"] > 32 and step[:2] in ("S_", "U_", "P_", "B_")
            and step != "S_PLAN"):
        _fail(f"{where}: more folios than were planned for")


def _is_task_step(step, where) -> None:
    if not 0 <= step < len(names.STEPS) or step in _IRQ or step in _SCHED:
        _fail(f"{where}: returns to {step}, not a step of a task")


def _needs(t, u, step, folio, where) -> None:
    if step in _HAND and u["folio"] < 0:
        _fail(f"{where}: no folio in hand")
    if step in _FRAME and u["f_pfn"] < 0:
        _fail(f"{where}: no frame in hand")
    if step == "F_WP_REUSE" and u["f_old"] < 0:
        _fail(f"{where}: no old frame")
    if step in _SWAPPED and int(u["f_orig"]) & 7 != _PTE["SWAP"]:
        _fail(f"{where}: f_orig is not a swap entry")
    if step[:2] == "F_" and u["vp"] < 0:
        _fail(f"{where}: no page")
    if step in _SLOT and folio["slot"][u["folio"]] < 0:
        _fail(f"{where}: the folio has no slot")
    if step in _UNMAPPING and (u["index"] < 1 or folio["vp"][u["folio"]] < 0):
        _fail(f"{where}: nothing to unmap")
    if step == "S_DIRTY" and (u["nr_flush"] > 30 or u["ordinal"] > 31):
        _fail(f"{where}: the batch is full")
    if step in ("S_FREE", "P_DISPATCH") and u["nr_free"] > 30:
        _fail(f"{where}: free_folios is full")


# --- what the model promises

def verify(sim) -> None:
    """`audit` of the live state, and conservation.

    Raises
    ------
    reclaim.errors.SnapshotError : what does not hold.
    """
    audit(sim)
    s = _State(sim, None)
    _clocks(s)
    _charges(s)
    _references(s)
    _slots(s)


def _clocks(s) -> None:
    sums = s["time"].reshape(len(s["cpu"]), -1).sum(axis=1)
    want = s["cpu"]["clock"] + np.where(s["cpu"]["in_irq"] == 1, s["cpu"]["left"], 0)
    if (sums != want).any():
        c = int((sums != want).argmax())
        _fail(f"the times of CPU {c} sum to {sums[c]}, its clock says {want[c]}")


def _step_of(s, t) -> str:
    """The step that a task is at, or that its flush or drain returns to."""
    u = s["task"][t]
    step = names.STEPS[u["step"]] if u["step"] >= 0 else ""
    if step[:3] == "FL_":
        return names.STEPS[s["cpu"]["fl_ret"][u["cpu"]]]
    if step[:2] == "D_":
        return names.STEPS[u["d_ret"]]
    return step


def _charges(s) -> None:
    task, g = s["task"], s.memcg
    used = len(s["folio"]) - int(g["frames_free"])
    kernel = int(g["kernel"])
    for t, u in enumerate(task):
        step = _step_of(s, t)
        charging = step[:2] in ("C_", "R_", "I_", "K_", "S_", "U_", "P_", "B_")
        if charging and u["c_ret"] == _ST["F_CHARGED"]:
            used -= 1                                    # allocated, not charged yet
        if step == "F_CHARGED" and u["c_failed"]:
            used -= 1
        if step == "F_PT_SET" and not u["c_failed"]:
            kernel += 1                                  # charged, not installed yet
        if step in ("S_END_FLUSHED", "S_FREE_FLUSHED"):
            used -= int(u["nr_free"])                    # uncharged, not freed yet
    want = kernel + int(s["cpu"]["stock"].sum()) + used
    if want != g["usage"]:
        _fail(f"memcg usage is {g['usage']}, kernel + stocks + charged folios are {want}")


def _in_hand(s) -> set[int]:
    task, folio = s["task"], s["folio"]
    held: set[int] = set()
    for u in task:
        held.update(int(f) for f in (u["f_pfn"], u["f_old"], u["folio"]) if f >= 0)
        held.update(u["free_folios"][:u["nr_free"]].tolist())
        held.update(u["flush_folios"][:u["nr_flush"]].tolist())
        for name in ("list", "ret"):
            if u[name]["nr"]:
                held.update(_walk(folio["next"], u[name]["head"], len(folio), name))
    return held


def _references(s) -> None:
    folio, pte = s["folio"], s["pte"]
    nr = len(folio)
    kind, index = pte & np.uint64(7), (pte >> np.uint64(8)).astype(np.int64)
    mapped = np.bincount(index[kind == _PTE["PRESENT"]], minlength=nr)
    zapped = np.bincount(index[kind == _PTE["ZAPPED"]], minlength=nr)
    want = mapped + zapped + ((folio["flags"] & _FL["SWAPCACHE"]) != 0)
    for p in s["cpu"]:
        for batch in ("lru_add", "lru_activate"):
            want += np.bincount(p[batch][:p[f"nr_{batch}"]], minlength=nr)
    free = np.ones(nr, dtype=bool)
    free[:s.memcg["frame_fresh"]] = False
    free[_walk(folio["next"], s.memcg["frame_top"], nr, "the stack of free frames")] = True
    held = np.zeros(nr, dtype=bool)
    held[list(_in_hand(s))] = True
    for name, bad in (("a free frame is in use", free & (want != 0)),
                      ("a frame's references are wrong", ~held & (folio["refcount"] != want)),
                      ("a frame has too few references",
                       held & ~free & (folio["refcount"] < want) & (folio["refcount"] != 0)),
                      ("a folio's mapcount is wrong", ~held & (folio["mapcount"] != mapped)),
                      ("a folio nobody works on is locked",
                       ~held & ((folio["flags"] & _FL["LOCKED"]) != 0)),
                      ("a folio is in use and on no list", ~held & ~free
                       & ((folio["flags"] & _FL["LRU"]) == 0) & ~_batched(s))):
        if bad.any():
            f = int(bad.argmax())
            _fail(f"{name}: frame {f} has refcount {folio['refcount'][f]}, mapcount "
                  f"{folio['mapcount'][f]}, flags {folio['flags'][f]:#x}; expected {want[f]} references")
    isolated = sum(int(u["taken"]) for t, u in enumerate(s["task"])
                   if _step_of(s, t)[:2] in ("S_", "U_", "P_", "B_")
                   or _step_of(s, t) in ("I_UNLOCK", "I_PUT", "K_UNLOCK", "K_NEXT", "K_PUT"))
    if isolated != s.memcg["nr_isolated"]:
        _fail(f"nr_isolated is {s.memcg['nr_isolated']}, reclaimers hold {isolated}")


def _batched(s):
    found = np.zeros(len(s["folio"]), dtype=bool)
    for p in s["cpu"]:
        found[p["lru_add"][:p["nr_lru_add"]]] = True
    return found


def _slots(s) -> None:
    if not len(s["slot_count"]):
        return
    pte = s["pte"]
    swapped = (pte[(pte & np.uint64(7)) == _PTE["SWAP"]] >> np.uint64(8)).astype(np.int64)
    maps = np.bincount(swapped, minlength=len(s["slot_count"]))
    if ((s["slot_count"] & 0x3f) != maps).any():
        slot = int(((s["slot_count"] & 0x3f) != maps).argmax())
        _fail(f"slot {slot} has map count {s['slot_count'][slot] & 0x3f}, {maps[slot]} PTEs hold it")
