# What an action tells a trace: events, from the state before and after it (docs/timeline.md).
#
# Nothing here is called unless a trace is taken: the steps know nothing of it, so that a run without
# one pays nothing, and one with it makes the same steps.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from reclaim._policy cimport Policies
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.pte cimport pte_kind_of
from reclaim._mm.tlb cimport mask_next, mask_test
from reclaim._mm.vmscan cimport nr_reclaimed, promoted_meanwhile

cdef enum:                     # event_t.flags
    TR_NEED_RESCHED = 1
    TR_HARDIRQ = 2

cdef enum:                     # tlb_flush_reason
    TLB_FLUSH_ON_TASK_SWITCH = 0
    TLB_REMOTE_SHOOTDOWN = 1
    TLB_LOCAL_SHOOTDOWN = 2
    TLB_LOCAL_MM_SHOOTDOWN = 3
    TLB_REMOTE_SEND_IPI = 4

cdef struct event_t:           # EVENT_DTYPE
    int64_t at                # [ps]
    int32_t event
    int32_t cpu
    int32_t task              # who ran there, or -1
    uint32_t flags
    int32_t v[6]              # what the event says

cdef struct traced_cpu:        # what a trace remembers of a CPU from one action to the next
    int32_t prev              # the task that the last switch took off it, or -1
    uint8_t irq               # the event that ends the interrupt it is in, or 0
    uint8_t ipi               # the IPI on its way: 1 single, 2 one of several, 0 none
    uint8_t many              # its flush went through smp_call_function_many_cond
    uint8_t flushing          # flush_begin was told
    uint8_t waiting           # flush_wait_begin
    uint8_t spinning          # lock_wait_begin
    uint8_t pad[2]

cdef struct traced_task:
    int32_t cpu
    int32_t writeback         # of this list: folios under write-back, ...
    int32_t ref_keep          # ... and kept because they were referenced
    int32_t moved             # to the inactive list
    uint8_t fault             # 1: F_READ is the next step of a fault by a touch, 2: of a populate; 3: told
    uint8_t list              # the list's beginning was told ...
    uint8_t list_end          # ... and its end is to be
    uint8_t blocked           # is in `blocked`
    uint8_t user              # the fault is the user's: it has an exception
    uint8_t pad[3]

cdef struct tracer_t:
    event_t *row
    int64_t n
    traced_cpu *cpu
    traced_task *task
    int32_t *blocked          # tasks that sleep, in no order
    int32_t nr_blocked
    int32_t c                 # of the action: the CPU, and the state before it
    int32_t current
    int32_t hand
    int32_t loaded
    int32_t fl_n
    int32_t folio
    uint32_t stamp
    uint16_t folio_flags
    uint8_t lazy
    uint8_t asid
    uint8_t in_irq
    uint8_t aged              # MGLRU: too few generations to evict from
    uint64_t gen
    int64_t irq_cost
    int64_t pgdeactivate
    int64_t pgrefill


cdef inline event_t *tell(machine *m, tracer_t *x, int32_t event, int64_t at, int32_t task) noexcept nogil:
    cdef event_t *e = &x.row[x.n]
    cdef const cpu_t *p = &m.cpu[x.c]
    cdef int i
    x.n += 1
    e.at = at
    e.event = event
    e.cpu = x.c
    e.task = task
    e.flags = (TR_NEED_RESCHED if p.need_resched else 0) | (TR_HARDIRQ if x.in_irq or p.in_irq else 0)
    for i in range(6):
        e.v[i] = 0
    return e

cdef inline event_t *note(machine *m, tracer_t *x, int32_t event, int32_t v0, int32_t v1) noexcept nogil:
    """An event of the acting CPU's task, now."""
    cdef event_t *e = tell(m, x, event, m.now, x.current)
    e.v[0] = v0
    e.v[1] = v1
    return e


cdef inline void trace_before(machine *m, tracer_t *x, int32_t c) noexcept nogil:
    """CPU c is about to act."""
    cdef const cpu_t *p = &m.cpu[c]
    cdef const task_t *t
    x.c = c
    x.current = p.current
    x.in_irq = p.in_irq
    x.hand = p.hand
    x.irq_cost = p.irq_cost
    x.loaded = p.loaded_mm
    x.lazy = p.is_lazy
    x.asid = p.loaded_asid
    x.stamp = p.tlb_stamp
    x.gen = p.asid_gen[p.loaded_asid]
    x.fl_n = p.fl_n
    x.folio = -1
    x.folio_flags = 0
    x.pgdeactivate = m.counter[CN_pgdeactivate]
    x.pgrefill = m.counter[CN_memcg_pgrefill]
    x.aged = m.cg.max_seq - m.cg.min_seq[GEN_ANON] + 1 <= MIN_NR_GENS
    if p.current >= 0:
        t = &m.task[p.current]
        x.folio = t.folio
        if t.folio >= 0:
            x.folio_flags = m.folio[t.folio].flags


# --- flushes and interrupts

cdef inline void trace_tlb_flush(machine *m, tracer_t *x, int64_t at, int32_t task, int32_t pages,
                                 int32_t reason) noexcept nogil:
    cdef event_t *e = tell(m, x, EV_tlb_flush, at, task)
    e.v[0] = pages
    e.v[1] = reason

cdef inline void trace_flush_tlb_func(machine *m, tracer_t *x, int32_t sender, int64_t at) noexcept nogil:
    """What flush_tlb_func told on this CPU: 0 pages if there was nothing to do any more, and nothing if it
    found that out early."""
    cdef const cpu_t *p = &m.cpu[x.c]
    cdef const cpu_t *s = &m.cpu[sender]
    cdef int32_t reason = (TLB_REMOTE_SHOOTDOWN if sender != x.c else
                           TLB_LOCAL_SHOOTDOWN if s.fl_mm < 0 else TLB_LOCAL_MM_SHOOTDOWN)
    if x.loaded < 0 or (sender != x.c and s.fl_mm >= 0 and s.fl_mm != x.loaded):
        return
    if x.lazy:                # it switches to init_mm: a new ASID's first load flushes
        trace_tlb_flush(m, x, at, x.current, 0 if m.w.pcid else -1, TLB_FLUSH_ON_TASK_SWITCH)
    elif p.tlb_stamp != x.stamp:
        trace_tlb_flush(m, x, at, x.current, -1, reason)
    elif p.asid_gen[x.asid] != x.gen:
        trace_tlb_flush(m, x, at, x.current, s.fl_nr, reason)
    elif s.fl_gen < 0 or <uint64_t>s.fl_gen > x.gen:
        trace_tlb_flush(m, x, at, x.current, 0, reason)

cdef inline void trace_flush_start(machine *m, tracer_t *x, const task_t *t) noexcept nogil:
    cdef const cpu_t *p = &m.cpu[x.c]
    cdef event_t *e
    x.cpu[x.c].many = 0
    if t.step == ST_FL_DONE:
        return
    e = note(m, x, EV_flush_begin, p.fl_mm, p.fl_vp - m.mm[p.fl_mm].base if p.fl_vp >= 0 else -1)
    e.v[2] = p.fl_nr
    e.v[3] = p.fl_ret
    x.cpu[x.c].flushing = 1
    if t.step == ST_FL_QUEUE:
        trace_tlb_flush(m, x, m.now, x.current, p.fl_nr if p.fl_vp >= 0 else -1, TLB_REMOTE_SEND_IPI)

cdef inline void trace_flush_send(machine *m, tracer_t *x) noexcept nogil:
    cdef const uint64_t *ipi = m.fl_ipi + <int64_t>x.c * m.w.words
    cdef int32_t n = 0, k = 0, j = mask_next(ipi, m.w.words, 0)
    cdef event_t *e
    while j >= 0:
        n += 1
        j = mask_next(ipi, m.w.words, j + 1)
    j = mask_next(ipi, m.w.words, 0)
    while j >= 0:
        e = note(m, x, EV_ipi_send_cpu if n == 1 else EV_ipi_send_cpumask, j, k)
        e.v[2] = n
        if x.cpu[j].ipi == 0:
            x.cpu[j].ipi = 1 if n == 1 else 2
        k += 1
        j = mask_next(ipi, m.w.words, j + 1)
    x.cpu[x.c].many = 1

cdef inline void trace_flush(machine *m, tracer_t *x, int step, const task_t *t) noexcept nogil:
    """FL_START to FL_DONE; local functions have a csd of NULL."""
    cdef const cpu_t *p = &m.cpu[x.c]
    cdef traced_cpu *q = &x.cpu[x.c]
    if step == ST_FL_START:
        trace_flush_start(m, x, t)
    elif step == ST_FL_QUEUE:
        if p.fl_n != x.fl_n:
            note(m, x, EV_csd_queue_cpu, p.fl_scan - 1, 0)
    elif step == ST_FL_SEND:
        trace_flush_send(m, x)
    elif step == ST_FL_LOCAL:
        if q.many:
            note(m, x, EV_csd_function_entry, -1, 0)
        trace_flush_tlb_func(m, x, x.c, m.now + m.row_cost)
        if q.many:
            tell(m, x, EV_csd_function_exit, m.now + m.row_cost, x.current).v[0] = -1
    elif step == ST_FL_WAIT:
        if p.mode == CPU_SPIN_ACK:
            note(m, x, EV_flush_wait_begin, p.acks, 0)
            q.waiting = 1
    elif step == ST_FL_DONE:
        if q.waiting:
            note(m, x, EV_flush_wait_end, 0, 0)
        if q.flushing:
            note(m, x, EV_flush_end, p.fl_n, 0)
        q.waiting = q.flushing = 0

cdef inline void trace_irq(machine *m, tracer_t *x, int step) noexcept nogil:
    """A call-function interrupt's functions run one after the other, though the step's time comes with
    Q_EXIT: irq_cost is what those before it took."""
    cdef const cpu_t *p = &m.cpu[x.c]
    cdef traced_cpu *q = &x.cpu[x.c]
    if step == ST_Q_FUNC:
        tell(m, x, EV_csd_function_entry, m.now + x.irq_cost, x.current).v[0] = x.hand
        trace_flush_tlb_func(m, x, x.hand, m.now + p.irq_cost)
    elif step == ST_Q_ACK:
        tell(m, x, EV_csd_function_exit, m.now + x.irq_cost, x.current).v[0] = x.hand
    elif step == ST_Q_ENTRY:
        q.irq = EV_call_function_exit if q.ipi == 2 else EV_call_function_single_exit
        q.ipi = 0
    elif step == ST_T_TICK or step == ST_T_TIMER:
        q.irq = EV_local_timer_exit
    elif step == ST_IO_ENTRY:
        q.irq = EV_irq_handler_exit
    if step == ST_Q_ENTRY or step == ST_T_TICK or step == ST_T_TIMER or step == ST_IO_ENTRY:
        note(m, x, q.irq - 1, 0, 0)                   # each entry stands before its exit in EVENTS
        if step == ST_T_TICK:
            trace_balanced(m, x)
    elif step == ST_Q_EXIT and q.irq:
        tell(m, x, q.irq, m.now + x.irq_cost, x.current)
        q.irq = 0


# --- the scheduler

cdef inline void trace_balanced(machine *m, tracer_t *x) noexcept nogil:
    """What the balancer of a tick pulled stands in the CPU's run queue."""
    cdef int32_t u = m.cpu[x.c].rq_head
    while u >= 0:
        trace_moved(m, x, u)
        u = m.task[u].rq_next

cdef inline void trace_moved(machine *m, tracer_t *x, int32_t u) noexcept nogil:
    cdef event_t *e
    if m.task[u].cpu != x.task[u].cpu:
        e = note(m, x, EV_sched_migrate_task, u, x.task[u].cpu)
        e.v[2] = m.task[u].cpu
        x.task[u].cpu = m.task[u].cpu

cdef inline void trace_sched(machine *m, tracer_t *x, int step) noexcept nogil:
    cdef const cpu_t *p = &m.cpu[x.c]
    cdef event_t *e
    if step == ST_SW_PICK:
        x.cpu[x.c].prev = x.current
        if p.current >= 0:
            trace_moved(m, x, p.current)              # newidle balance
        if p.current != x.current:
            e = note(m, x, EV_sched_switch, x.current, p.current)
            e.v[2] = m.task[x.current].state if x.current >= 0 else TASK_QUEUED
    if step == ST_SW_CR3:
        trace_tlb_flush(m, x, m.now, x.cpu[x.c].prev, -1 if p.sw_flush else 0, TLB_FLUSH_ON_TASK_SWITCH)
    elif p.tlb_stamp != x.stamp:                      # back from lazy mode to an mm that changed
        trace_tlb_flush(m, x, m.now, x.cpu[x.c].prev, -1, TLB_FLUSH_ON_TASK_SWITCH)

cdef inline void trace_sleepers(machine *m, tracer_t *x) noexcept nogil:
    """Whom the action woke; and its own task, if it fell asleep."""
    cdef int32_t i = 0, u
    cdef traced_task *a
    while i < x.nr_blocked:
        u = x.blocked[i]
        if m.task[u].state == TASK_BLOCKED:
            i += 1
            continue
        x.nr_blocked -= 1
        x.blocked[i] = x.blocked[x.nr_blocked]
        x.task[u].blocked = 0
        if m.task[u].state == TASK_DEAD:
            continue
        note(m, x, EV_sched_waking, u, x.task[u].cpu)
        trace_moved(m, x, u)
    if x.current >= 0:
        a = &x.task[x.current]
        trace_moved(m, x, x.current)
        if m.task[x.current].state == TASK_BLOCKED and not a.blocked:
            a.blocked = 1
            x.blocked[x.nr_blocked] = x.current
            x.nr_blocked += 1


# --- faults and reclaim

cdef inline void trace_fault(machine *m, tracer_t *x, int step, const task_t *t) noexcept nogil:
    cdef traced_task *a = &x.task[x.current]
    cdef const mm_t *mm = &m.mm[t.mm]
    cdef int kind
    cdef event_t *e
    if step == ST_F_READ and (a.fault == 1 or a.fault == 2):
        if a.fault == 1:
            kind = pte_kind_of(m.pte[t.vp])
            e = note(m, x, EV_page_fault_user, t.vp - mm.base, 4 | (2 if t.write else 0)
                     | (1 if kind == PTE_PRESENT or kind == PTE_ZERO else 0))
            e.v[2] = t.mm
        e = note(m, x, EV_fault_begin, t.vp - mm.base, t.write)
        e.v[2] = t.mm
        e.v[3] = a.fault == 1
        a.fault = 3
    elif step == ST_F_DONE and a.fault == 3:
        note(m, x, EV_fault_end, 0, 0)
        a.fault = 0

cdef inline void trace_isolated(machine *m, tracer_t *x, const task_t *t, int32_t requested, int32_t scanned,
                                int32_t taken, int32_t active) noexcept nogil:
    cdef event_t *e = tell(m, x, EV_mm_vmscan_lru_isolate, m.now + m.row_cost, x.current)
    e.v[0] = requested
    e.v[1] = scanned
    e.v[2] = taken
    e.v[3] = active

cdef inline void trace_shrink_inactive(machine *m, tracer_t *x, const task_t *t, int32_t scanned,
                                       Policies s) noexcept nogil:
    cdef traced_task *a = &x.task[x.current]
    cdef event_t *e
    if not a.list:            # it began before the trace: what it kept is not known
        return
    a.list = 0
    e = note(m, x, EV_mm_vmscan_lru_shrink_inactive, scanned, <int32_t>nr_reclaimed(t, s))
    e.v[2] = a.writeback
    e.v[3] = t.nr_activate
    e.v[4] = a.ref_keep
    e.v[5] = t.prio

cdef inline void trace_list_end(machine *m, tracer_t *x, const task_t *t, Policies s) noexcept nogil:
    """The end of shrink_folio_list, as the step after it begins."""
    cdef traced_task *a = &x.task[x.current]
    if a.list_end:
        a.list_end = 0
        note(m, x, EV_shrink_folio_list_end, <int32_t>nr_reclaimed(t, s), 0)

cdef inline void trace_isolation(machine *m, tracer_t *x, int step, const task_t *t) noexcept nogil:
    """I_LOCK, K_LOCK, G_ISOLATE, K_PUT: unless the CPU waits for the lock"""
    cdef int32_t sorted
    if m.cpu[x.c].mode == CPU_SPIN_LOCK:
        return
    if step == ST_K_PUT:
        x.task[x.current].moved = <int32_t>(m.counter[CN_pgdeactivate] - x.pgdeactivate)
    elif step != ST_G_ISOLATE:
        trace_isolated(m, x, t, t.nr_to_scan, t.taken, t.taken, step == ST_K_LOCK)
    elif t.g_can_swap and not x.aged:
        sorted = <int32_t>(m.counter[CN_memcg_pgrefill] - x.pgrefill)
        trace_isolated(m, x, t, t.g_nr if m.w.mglru_batch and t.g_nr < MAX_LRU_BATCH else MAX_LRU_BATCH,
                       sorted + t.taken, t.taken, 0)

cdef inline void trace_reclaim(machine *m, tracer_t *x, int step, const task_t *t, Policies s) noexcept nogil:
    cdef traced_task *a = &x.task[x.current]
    cdef event_t *e
    if step == ST_I_LOCK or step == ST_K_LOCK or step == ST_G_ISOLATE or step == ST_K_PUT:
        trace_isolation(m, x, step, t)
    elif step == ST_S_PLAN:
        a.list = 1
        a.list_end = 1
        a.writeback = a.ref_keep = 0
        note(m, x, EV_shrink_folio_list_begin, t.taken, t.prio)
    elif step == ST_I_PUT or step == ST_G_KEEP:
        trace_list_end(m, x, t, s)
        if step == ST_G_KEEP:
            trace_shrink_inactive(m, x, t, t.g_delta, s)
    elif step == ST_I_PUT_UNLOCK:
        trace_shrink_inactive(m, x, t, t.scanned, s)
    elif step == ST_K_PUT_UNLOCK:
        e = note(m, x, EV_mm_vmscan_lru_shrink_active, t.taken, a.moved)
        e.v[2] = t.prio
    elif step == ST_R_START:
        note(m, x, EV_mm_vmscan_memcg_reclaim_begin, 0, 0)
    elif step == ST_R_END:
        if t.step == ST_C_AFTER:
            note(m, x, EV_mm_vmscan_memcg_reclaim_end, t.c_reclaimed, 0)

cdef inline void trace_folio(machine *m, tracer_t *x, int step, const task_t *t) noexcept nogil:
    """One folio of the list: why it stays, or that it was written"""
    cdef traced_task *a = &x.task[x.current]
    if step == ST_P_DISPATCH:
        note(m, x, EV_mm_vmscan_write_folio, x.folio, 0)
    elif t.step == step or x.folio < 0:               # it waits for a lock
        return
    elif step == ST_S_WB:
        if (x.folio_flags & PG_writeback and t.step != ST_S_WB_WAIT
                and not (m.w.lru and promoted_meanwhile(m, &m.folio[x.folio]))):
            a.writeback += 1
    elif step == ST_S_REF:
        if not x.folio_flags & PG_referenced and t.step != ST_S_UNMAP and t.step != ST_S_SLOT:
            a.ref_keep += 1
    elif step == ST_S_YOUNG:
        if not x.folio_flags & (PG_referenced | (PG_workingset if m.w.mglru_rework else 0)):
            a.ref_keep += 1


cdef inline void trace_task_step(machine *m, tracer_t *x, int step, Policies s) noexcept nogil:
    cdef const task_t *t = &m.task[x.current]
    if step == ST_TOUCH or step == ST_POPULATE:
        if t.step == ST_F_READ:
            x.task[x.current].fault = 1 if step == ST_TOUCH else 2
    elif step <= ST_F_DONE:
        trace_fault(m, x, step, t)
    elif step >= ST_FL_START:
        if step <= ST_FL_DONE:
            trace_flush(m, x, step, t)
    elif (step == ST_S_WB or step == ST_S_REF or step == ST_S_YOUNG or step == ST_P_DISPATCH):
        trace_folio(m, x, step, t)
    else:
        trace_reclaim(m, x, step, t, s)

cdef inline void trace_after(machine *m, tracer_t *x, Policies s) noexcept nogil:
    """The CPU of trace_before has acted."""
    cdef int step = m.row_step
    cdef const cpu_t *p = &m.cpu[x.c]
    cdef traced_cpu *q = &x.cpu[x.c]
    if step == ST_H_EVENT or step == ST_H_YIELD:
        return
    if step >= ST_Q_ENTRY and step <= ST_IO_END:
        trace_irq(m, x, step)
    else:
        if q.spinning:
            q.spinning = 0
            note(m, x, EV_lock_wait_end, 0, 0)
        if step >= ST_SW_PICK and step <= ST_W_BACK:
            trace_sched(m, x, step)
        elif x.current >= 0:
            trace_task_step(m, x, step, s)
        if p.mode == CPU_SPIN_LOCK:
            q.spinning = 1
            note(m, x, EV_lock_wait_begin, p.lock_at, 0)
    trace_sleepers(m, x)
