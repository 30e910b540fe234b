"""The explorer and the twin agree: every step sequence of the smallest worlds gives the same states."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from reference import Reference
from reference.rows import IRQ_ON, NUMBER
from reference.state import INF, NONE, RUN, RUNNING

from reclaim import names
from reclaim._explore import MOVES
from reclaim.tinyworld import TinyWorld
from twin import twin_policy

PRESENT, SWAPCACHE = 1, 1 << names.FOLIO_FLAGS.index("SWAPCACHE")
DIRTY, WRITE, EXCL = 1 << 4, 1 << 5, 1 << 6


def twin_of(tiny: TinyWorld, stage: int, cached: int, cold: int) -> Reference:
    """The twin at the root: the writer's page mapped, the reclaimer about to plan its list."""
    world = tiny._world(tiny.task_mms, tiny.mm_pages)
    twin = Reference(dataclasses.replace(world, limit=2**30, nr_folios=8), twin_policy(stage))
    for t, nr in zip(twin.tasks, tiny.task_cpus, strict=True):
        t.cpu = nr
        if t.step == "V_CHILD":
            continue
        c = twin.cpus[nr]
        t.state = RUNNING
        c.current, c.mode, c.sstep = t, RUN, None
        c.loaded_mm = c.asid_mm[0] = t.mm.nr
        c.asid_gen[0] = c.asid_stamp[0] = c.tlb_stamp = c.next_asid = 1
        t.mm.cpumask |= c.bit
    for c in twin.cpus:
        c.runqueue.clear()
    twin.cpus[0].runqueue.clear()
    twin.pt_present = [1] * len(twin.pt_present)
    vp = twin.tasks[1].mm.base
    f = twin.free_frames.pop()
    f.vp, f.mapcount, f.refcount = vp, 1, 2
    twin.pte[vp] = PRESENT | WRITE | EXCL | (0 if cached else DIRTY) | f.nr << 8
    if cached:
        f.slot = twin.free_slots.pop()
        twin.slots_free -= 1
        twin.slot_count[f.slot], twin.slot_entry[f.slot] = 0x40, f.nr * 4 + 2
        f.flags |= SWAPCACHE
        f.refcount += 1
    if not cold:
        twin.tlb_fill_both(twin.cpus[1], vp, int(not cached))
    t = twin.tasks[0]
    t.step, t.taken, t.scanned = "S_PLAN", 1, 1
    t.list.append(f)
    twin.memcg.nr_isolated = 1
    settle(twin)
    return twin


def settle(twin: Reference) -> None:
    """Clocks stand still, and the reclaimer's call ends where the explorer ends it."""
    for c in twin.cpus:
        c.clock = c.left = c.irq_cost = 0
        c.tick_at, c.stock = INF, 1
    for t in twin.tasks:
        if t.step == "R_LIST":
            t.step = "TOUCH"
        if t.step == "TOUCH":
            t.pass_ = t.pos = 0


def call(t, name: str, calls: list[str], vp: int) -> None:
    """The task makes a system call on the page: a pass of its program."""
    t.pass_, t.pos = 1 + (vp - t.mm.base) * len(calls) + calls.index(name), 0
    t.step = "DONTNEED" if name == "zap" else "V_CALL"


def make(twin: Reference, move: int, calls: list[str]) -> None:
    """`Machine._act`, but the move says who acts."""
    kind, c = MOVES[move >> 8], twin.cpus[move >> 4 & 15]
    if kind in calls:
        call(c.current, kind, calls, move & 15)
        return
    if kind == "fork":                              # the last pass of its program
        c.current.pass_, c.current.pos, c.current.step = len(c.current.passes) - 1, 0, "V_CALL"
        return
    if kind == "tick":
        c.need_resched = 1
        return
    twin.now, twin.spent, twin.last_on = 0, 0, None
    if kind in ("read", "write"):
        t = c.current
        t.have, t.vp, t.write, t.zero = 1, move & 15, int(kind == "write"), 0
    if kind == "ipi":
        row = twin.interrupt_entry(c)
    else:
        row = c.istep if c.in_irq else c.sstep or c.current.step
    twin.row, twin.c = row, c
    granted = c.granted if not c.in_irq else None
    getattr(twin, f"step_{row}")(c, c.current)
    if granted is not None and c.granted is granted:
        c.granted = None
        twin.unlock(granted)
    c.clock += twin.spent
    c.last_on = IRQ_ON[row] if twin.last_on is None else twin.last_on
    if row == "Q_EXIT":
        twin.interrupt_exit(c)
    if row == "F_READ" and calls and c.current.step == "TOUCH":      # SIGSEGV: the program's handler
        call(c.current, "unprotect", calls, c.current.vp)
    settle(twin)


def columns(twin: Reference, frames: int) -> dict:
    def tlb(c, vp):
        mm = twin.mm_of[vp].nr
        if mm not in c.asid_mm:
            return False
        stamp = c.asid_stamp[c.asid_mm.index(mm)]
        found = [e for ways in c.l2 for e in ways if e is not None and e[0] == vp and e[1] == stamp]
        return 1 + found[0][2] if found else False

    def number(step):
        return -1 if step is None else NUMBER[step]

    return {
        "pte": [pte | ro << 63 for pte, ro in zip(twin.pte, twin.read_only, strict=True)],
        "folio": [(f.flags, f.refcount, f.mapcount, f.vp, f.slot) for f in twin.folios[:frames]],
        "slot_count": list(twin.slot_count),
        "cpumask": [m.cpumask for m in twin.mms],
        "tlb_gen": [m.tlb_gen for m in twin.mms],
        "task": [(names.TASK_STATES[t.state], t.step, t.cpu) for t in twin.tasks],
        "cpu": [(names.CPU_MODES[c.mode], c.in_irq, number(c.istep), number(c.sstep), c.loaded_mm,
                 c.is_lazy, c.acks, c.irq_at < INF) for c in twin.cpus],
        "tlb": [[tlb(c, vp) for vp in range(len(twin.pte))] for c in twin.cpus],
    }


# What no row reads: a copy of the twin shares it.
_SHARED = ("world", "passes", "trace", "cost", "policy", "steps", "counter", "time", "histogram", "flushed", "unmapped")


def saved(twin: Reference) -> bytes:
    return pickle.dumps({name: value for name, value in vars(twin).items() if name not in _SHARED}, protocol=5)


def loaded(data: bytes, like: Reference) -> Reference:
    twin = Reference.__new__(Reference)
    vars(twin).update(pickle.loads(data), **{name: getattr(like, name) for name in _SHARED})
    return twin


@pytest.mark.parametrize("stage, environment, world", [
    (0, "none", {}), (5, "none", {}), (5, "write-protect", {}), (5, "munmap", {}),
    *(pytest.param(stage, "fork", {"any_start": False}, marks=pytest.mark.slow) for stage in (0, 5))], ids=str)
def test_every_sequence_gives_the_twins_state(stage, environment, world):
    tiny = TinyWorld(policy=f"stage{stage}", folios=1, writes=1, batch=31, environment=environment, **world)
    assert NONE == -1
    engine = tiny.explorer(reduce=False)
    engine.reset()
    frames, states = len(engine.columns()["folio"]), 0
    seen, level = set(), []
    root = engine.snapshot()
    for start in engine.enabled():
        engine.restore(root)
        if MOVES[start >> 8] == "start":
            engine.do(start)
        level.append((engine.snapshot(), saved(twin_of(tiny, stage, start >> 4 & 15, start & 15))))
        if MOVES[start >> 8] != "start":                # there is one beginning
            break
    like = twin_of(tiny, stage, 0, 0)
    while level:
        following = []
        for snapshot, twin in level:
            engine.restore(snapshot)
            for move in engine.enabled():
                engine.restore(snapshot)
                assert engine.do(move)[0] == 0
                other = loaded(twin, like)
                make(other, move, tiny.calls)
                got, want = engine.columns(), columns(other, frames)
                assert got == want, (MOVES[move >> 8], move >> 4 & 15, {k: (got[k], want[k]) for k in got
                                                                      if got[k] != want[k]})
                code = engine.code_of()
                if code not in seen:
                    seen.add(code)
                    following.append((engine.snapshot(), saved(other)))
                    states += 1
        level = following
    assert states > 500
