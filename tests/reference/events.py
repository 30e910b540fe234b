"""What a traced run tells (docs/timeline.md), from the twin.

Here each event is told where the kernel's tracepoint stands: in the function that has it.  (The core works it
out of the state before and after an action.)  An event is (at, CPU, name, task, values), in no order.
"""

from . import Reference
from ._load import names
from .state import K_PRESENT, K_ZERO, KIND, NONE, QUEUED, SPIN_ACK, SPIN_LOCK

_IRQS = ("Q_", "T_", "IO_", "H_")


class Traced(Reference):
    """A twin that tells; `told` grows."""

    def __init__(self, world, policy):
        super().__init__(world, policy)
        self.told, self.who = [], None
        # of a task: its list's counts, its fault, folios moved; of a CPU: the IPI on its way, ...
        self.lists, self.faulting, self.moved, self.ipis, self.irq, self.prev = {}, {}, {}, {}, {}, {}
        self.spinning, self.flushing, self.waiting, self.many = set(), set(), set(), set()
        self.activating = False

    def tell(self, name, *v, after=0, who=0):
        task = self.who if who == 0 else who
        self.told.append((self.now + after, self.c.nr, name, -1 if task is None else task.nr, v))

    def _act(self, c, key):
        self.who, spun = c.current, c.nr in self.spinning
        row = super()._act(c, key)
        if spun and not names.STEPS[row[2]].startswith(_IRQS):
            self.spinning.discard(c.nr)
            self.tell("lock_wait_end")
            if c.mode == SPIN_LOCK:
                self.spinning.add(c.nr)
        return row

    def lock(self, l):
        mine = super().lock(l)
        if not mine:
            self.spinning.add(self.c.nr)
            self.tell("lock_wait_begin", self.lock_number(l))
        return mine

    def lock_number(self, l):
        return 0 if l is self.lru_lock else 1 + self.ptl.index(l)

    # -- faults

    def step_TOUCH(self, c, t):
        super().step_TOUCH(c, t)
        if t.step == "F_READ":
            self.faulting[t.nr] = "user"

    def step_POPULATE(self, c, t):
        super().step_POPULATE(c, t)
        if t.step == "F_READ":
            self.faulting[t.nr] = "madvise"

    def step_F_READ(self, c, t):
        if self.faulting.get(t.nr) in ("user", "madvise"):
            mapped = self.pte[t.vp] & KIND in (K_PRESENT, K_ZERO)
            page, mm = t.vp - t.mm.base, t.mm.nr
            if self.faulting[t.nr] == "user":
                self.tell("page_fault_user", page, 4 + 2 * t.write + mapped, mm)
            self.tell("fault_begin", page, t.write, mm, int(self.faulting[t.nr] == "user"))
            self.faulting[t.nr] = "told"
        super().step_F_READ(c, t)

    def step_F_DONE(self, c, t):
        if self.faulting.pop(t.nr, None) == "told":
            self.tell("fault_end")
        super().step_F_DONE(c, t)

    # -- reclaim

    def step_R_START(self, c, t):
        self.tell("mm_vmscan_memcg_reclaim_begin")
        super().step_R_START(c, t)

    def step_R_END(self, c, t):
        super().step_R_END(c, t)
        if t.step == "C_AFTER":
            self.tell("mm_vmscan_memcg_reclaim_end", t.c_reclaimed)

    def isolated(self, t, requested, scanned, active):
        self.tell("mm_vmscan_lru_isolate", requested, scanned, t.taken, active, after=self.spent)

    def step_I_LOCK(self, c, t):
        super().step_I_LOCK(c, t)
        if t.step == "I_UNLOCK":
            self.isolated(t, t.nr_to_scan, t.scanned, 0)

    def step_K_LOCK(self, c, t):
        super().step_K_LOCK(c, t)
        if t.step == "K_UNLOCK":
            self.isolated(t, t.nr_to_scan, t.taken, 1)

    def step_G_ISOLATE(self, c, t):
        self.looked = None
        super().step_G_ISOLATE(c, t)
        if self.looked is not None:
            most = min(4096, t.g_nr) if self.world.mglru_batch else 4096
            self.isolated(t, most, self.looked, 0)

    def scan_folios(self, t):
        self.looked = super().scan_folios(t)
        return self.looked

    def step_S_PLAN(self, c, t):
        super().step_S_PLAN(c, t)
        self.lists[t.nr] = {"writeback": 0, "ref_keep": 0, "open": True}
        self.tell("shrink_folio_list_begin", t.taken, t.prio)

    def activate_locked(self, t):
        if self.row == "S_WB":
            self.lists[t.nr]["writeback"] += 1
        self.activating = True
        super().activate_locked(t)
        self.activating = False

    def keep_locked(self, t):
        if self.row in ("S_REF", "S_YOUNG") and not self.activating:
            self.lists[t.nr]["ref_keep"] += 1
        super().keep_locked(t)

    def list_end(self, t):
        if self.lists[t.nr]["open"]:
            self.lists[t.nr]["open"] = False
            self.tell("shrink_folio_list_end", t.nr_reclaimed)

    def shrunk(self, t, scanned):
        a = self.lists[t.nr]
        self.tell("mm_vmscan_lru_shrink_inactive", scanned, t.nr_reclaimed, a["writeback"], t.nr_activate,
                  a["ref_keep"], t.prio)

    def step_I_PUT(self, c, t):
        self.list_end(t)
        super().step_I_PUT(c, t)

    def step_I_PUT_UNLOCK(self, c, t):
        self.shrunk(t, t.scanned)
        super().step_I_PUT_UNLOCK(c, t)

    def step_G_KEEP(self, c, t):
        self.list_end(t)
        self.shrunk(t, t.g_delta)
        super().step_G_KEEP(c, t)

    def step_K_PUT(self, c, t):
        before = self.counter["pgdeactivate"]
        super().step_K_PUT(c, t)
        self.moved[t.nr] = self.counter["pgdeactivate"] - before

    def step_K_PUT_UNLOCK(self, c, t):
        super().step_K_PUT_UNLOCK(c, t)
        self.tell("mm_vmscan_lru_shrink_active", t.taken, self.moved[t.nr], t.prio)

    def step_P_DISPATCH(self, c, t):
        self.tell("mm_vmscan_write_folio", t.folio.nr)
        super().step_P_DISPATCH(c, t)

    # -- flushes

    def step_FL_START(self, c, t):
        super().step_FL_START(c, t)
        self.many.discard(c.nr)
        if t.step == "FL_DONE":
            return
        self.flushing.add(c.nr)
        mm = NONE if c.fl_mm == NONE else c.fl_mm
        page = NONE if c.fl_vp == NONE else c.fl_vp - self.mms[c.fl_mm].base
        self.tell("flush_begin", mm, page, c.fl_nr, names.STEPS.index(c.fl_ret))
        if t.step == "FL_QUEUE":
            self.tell("tlb_flush", NONE if c.fl_vp == NONE else c.fl_nr, 4)

    def step_FL_QUEUE(self, c, t):
        queued = [len(j.queue) for j in self.cpus]
        super().step_FL_QUEUE(c, t)
        for j, n in zip(self.cpus, queued, strict=True):
            if len(j.queue) > n:
                self.tell("csd_queue_cpu", j.nr)

    def step_FL_SEND(self, c, t):
        targets = [j for j in self.cpus if c.fl_ipi & j.bit]
        for k, j in enumerate(targets):
            one = len(targets) == 1
            self.tell("ipi_send_cpu" if one else "ipi_send_cpumask", j.nr, k, len(targets))
            self.ipis.setdefault(j.nr, "call_function_single" if one else "call_function")
        self.many.add(c.nr)
        super().step_FL_SEND(c, t)

    def step_FL_LOCAL(self, c, t):
        if c.nr in self.many:
            self.tell("csd_function_entry", NONE)
        super().step_FL_LOCAL(c, t)
        if c.nr in self.many:
            self.tell("csd_function_exit", NONE, after=self.spent)

    def step_FL_WAIT(self, c, t):
        super().step_FL_WAIT(c, t)
        if c.mode == SPIN_ACK:
            self.tell("flush_wait_begin", c.acks)
            self.waiting.add(c.nr)

    def step_FL_DONE(self, c, t):
        super().step_FL_DONE(c, t)
        if c.nr in self.waiting:
            self.waiting.discard(c.nr)
            self.tell("flush_wait_end")
        if c.nr in self.flushing:
            self.flushing.discard(c.nr)
            self.tell("flush_end", c.fl_n)

    def flush_tlb_func(self, c, s, remote):
        loaded, lazy, g = c.loaded_mm, c.is_lazy, c.asid_gen[c.loaded_asid]
        gen = self.mms[loaded].tlb_gen if loaded >= 0 else None
        cost = super().flush_tlb_func(c, s, remote)
        after = c.irq_cost + cost if remote else cost
        reason = 1 if remote else 2 if s.fl_mm == NONE else 3
        if loaded < 0 or (remote and s.fl_mm not in (NONE, loaded)):
            return cost
        if lazy:
            self.tell("tlb_flush", 0 if self.world.pcid else -1, 0, after=after)
        elif s.fl_gen == NONE or s.fl_gen > g:
            one = s.fl_vp != NONE and s.fl_gen == g + 1 == gen
            self.tell("tlb_flush", 0 if g == gen else s.fl_nr if one else -1, reason, after=after)
        return cost

    # -- interrupts

    def entry(self, kind):
        self.irq[self.c.nr] = kind
        self.tell(kind + "_entry")

    def step_Q_ENTRY(self, c, t):
        self.entry(self.ipis.pop(c.nr, "call_function_single"))
        super().step_Q_ENTRY(c, t)

    def step_T_TICK(self, c, t):
        self.entry("local_timer")
        super().step_T_TICK(c, t)

    def step_T_TIMER(self, c, t):
        self.entry("local_timer")
        super().step_T_TIMER(c, t)

    def step_IO_ENTRY(self, c, t):
        self.entry("irq_handler")
        super().step_IO_ENTRY(c, t)

    def step_Q_FUNC(self, c, t):
        self.tell("csd_function_entry", c.hand[0].nr, after=c.irq_cost)
        super().step_Q_FUNC(c, t)

    def step_Q_ACK(self, c, t):
        self.tell("csd_function_exit", c.hand[0].nr, after=c.irq_cost)
        super().step_Q_ACK(c, t)

    def step_Q_EXIT(self, c, t):
        self.tell(self.irq.pop(c.nr) + "_exit", after=c.irq_cost)
        super().step_Q_EXIT(c, t)

    # -- the scheduler

    def step_SW_PICK(self, c, t):
        prev = self.prev[c.nr] = c.current
        super().step_SW_PICK(c, t)
        if c.current is not prev:
            state = QUEUED if prev is None else prev.state
            self.tell("sched_switch", -1 if prev is None else prev.nr,
                      -1 if c.current is None else c.current.nr, state)

    def newidle(self, c):
        home = {u.nr: u.cpu for j in self.cpus for u in j.runqueue}
        n = super().newidle(c)
        if n is not None:
            self.tell("sched_migrate_task", n.nr, home[n.nr], c.nr)
        return n

    def unlazy(self, c):
        stamp = c.tlb_stamp
        super().unlazy(c)
        if c.tlb_stamp != stamp:
            self.tell("tlb_flush", -1, 0, who=self.prev[c.nr])

    def step_SW_CR3(self, c, t):
        self.tell("tlb_flush", -1 if c.sw_flush else 0, 0, who=self.prev[c.nr])
        super().step_SW_CR3(c, t)

    def wake_task(self, u):
        home = u.cpu
        self.tell("sched_waking", u.nr, home)
        super().wake_task(u)
        if u.cpu != home:
            self.tell("sched_migrate_task", u.nr, home, u.cpu)

    def resched_guard(self, c, t):
        home = t.cpu
        gone = super().resched_guard(c, t)
        if t.cpu != home:
            self.tell("sched_migrate_task", t.nr, home, t.cpu)
        return gone
