# Flushing other CPUs: call queues, IPIs, acknowledgements (kernel/smp.c; docs/model.md 5.7, 5.8).

from libc.stdint cimport int32_t, int64_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport *
from reclaim._mm.meters cimport flush_begins, flush_sent
from reclaim._mm.tlb cimport *


cdef inline void flush(machine *m, cpu_t *p, task_t *t, int32_t mm, int32_t vp,
                       int32_t ret) noexcept nogil:
    """flush_tlb_mm_range (mm >= 0) or arch_tlbbatch_flush (mm = -1), then on to `ret`."""
    p.fl_mm = mm
    p.fl_vp = vp
    p.fl_nr = 1
    p.fl_tables = 0
    p.fl_ret = ret
    t.step = ST_FL_START

cdef inline void flush_range(machine *m, cpu_t *p, task_t *t, int32_t lo, int32_t hi, bint tables,
                             int32_t ret) noexcept nogil:
    """flush_tlb_mm_range of the task's own mm, pages lo to hi - 1 of it."""
    flush(m, p, t, t.mm, m.mm[t.mm].base + lo if hi - lo <= FLUSH_CEILING else -1, ret)
    p.fl_nr = <uint8_t>min(hi - lo, FLUSH_CEILING)
    p.fl_tables = tables

cdef inline void step_FL_START(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int words = m.w.words, i
    cdef uint64_t *mask = m.fl_mask + <int64_t>m.c * words
    cdef uint64_t *ipi = m.fl_ipi + <int64_t>m.c * words
    cdef uint64_t *source
    cdef mm_t *mm
    cdef bint others, batch = p.fl_mm < 0
    p.acks = 0
    p.fl_scan = 0
    p.fl_n = 0
    p.fl_trim = 0
    flush_begins(m, p, t)
    if batch:
        source = m.ubc_mask + <int64_t>p.current * words
        p.fl_gen = -1
        t.ubc_required = 0
        t.ubc_writable = 0
    else:
        source = mm_mask(m, p.fl_mm)
        mm = &m.mm[p.fl_mm]
        mm.tlb_gen += 1
        p.fl_gen = <int64_t>mm.tlb_gen
    for i in range(words):
        mask[i] = source[i]
        ipi[i] = 0
        if batch:
            source[i] = 0
    others = mask_any_but(mask, words, m.c)
    if others:
        if not batch and m.w.trim and m.now > m.mm[p.fl_mm].next_trim:
            m.mm[p.fl_mm].next_trim = m.now + <int64_t>1000000000000
            p.fl_trim = 1
        m.counter[CN_nr_tlb_remote_flush] += 1
        m.counter[CN_arch_tlbbatch_flush_remote if batch else CN_flush_mm_remote] += 1
        t.step = ST_FL_QUEUE
    elif mask_test(mask, m.c) if batch else p.loaded_mm == p.fl_mm:
        m.counter[CN_arch_tlbbatch_flush_local if batch else CN_flush_mm_local] += 1
        t.step = ST_FL_LOCAL
    else:
        t.step = ST_FL_DONE

cdef inline bint should_flush_tlb(const machine *m, const cpu_t *p, int32_t j) noexcept nogil:
    cdef const cpu_t *q = &m.cpu[j]
    if q.is_lazy or p.fl_tables:
        return p.fl_tables            # with freed tables every CPU of the mask
    if p.fl_mm < 0 or not m.w.trim or p.fl_trim:
        return True
    return q.loaded_mm == p.fl_mm or q.loaded_mm == MM_SWITCHING

cdef inline void step_FL_QUEUE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """smp_call_function_many_cond: one target a step"""
    cdef int words = m.w.words
    cdef int32_t j = mask_next(m.fl_mask + <int64_t>m.c * words, words, p.fl_scan)
    cdef cpu_t *q
    if j == m.c:
        j = mask_next(m.fl_mask + <int64_t>m.c * words, words, j + 1)
    if j < 0:
        t.step = ST_FL_SEND
        return
    p.fl_scan = j + 1
    m.counter[CN_arch_tlbbatch_flush_targets if p.fl_mm < 0 else CN_flush_mm_targets] += 1
    if not should_flush_tlb(m, p, j):
        return
    q = &m.cpu[j]
    if m.w.pv_flush and not q.hosted:
        q.pv_flush = 1
        m.counter[CN_pv_flushes] += 1
        return
    m.csd_next[<int64_t>j * m.w.nr_cpus + m.c] = -1
    if q.q_head < 0:
        q.q_head = m.c
        mask_set(m.fl_ipi + <int64_t>m.c * words, j)
        p.fl_ipis += 1
    else:
        m.csd_next[<int64_t>j * m.w.nr_cpus + q.q_tail] = <int16_t>m.c
    q.q_tail = m.c
    p.acks += 1
    p.fl_n += 1

cdef inline void step_FL_SEND(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int words = m.w.words
    cdef uint64_t *ipi = m.fl_ipi + <int64_t>m.c * words
    cdef int32_t socket = m.c // m.w.cpus_per_socket
    cdef int32_t j = mask_next(ipi, words, 0)
    cdef int64_t sent = m.w.cost[CO_flush_fixed], at
    while j >= 0:
        sent += m.w.cost[CO_ipi_send]
        at = m.now + sent + m.w.cost[CO_ipi_delivery if j // m.w.cpus_per_socket == socket
                                     else CO_ipi_delivery_cross]
        if at < m.cpu[j].irq_at:
            m.cpu[j].irq_at = at
            if at <= m.cpu[j].kicked_at:
                m.cpu[j].kicked_at = at - 1
            rekey(m, j)
        j = mask_next(ipi, words, j + 1)
    spend(m, TM_flush, sent)
    flush_sent(m, p, t)
    if (mask_test(m.fl_mask + <int64_t>m.c * words, m.c) and not p.is_lazy
            and (p.fl_mm < 0 or p.loaded_mm == p.fl_mm)):
        t.step = ST_FL_LOCAL
    else:
        t.step = ST_FL_WAIT

cdef inline void step_FL_LOCAL(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    spend(m, TM_flush, flush_tlb_func(m, m.c, m.c))
    t.step = ST_FL_WAIT

cdef inline void step_FL_WAIT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """csd_lock_wait: spin, interrupts on, and serve what comes in"""
    t.step = ST_FL_DONE
    if p.acks > 0:
        p.mode = CPU_SPIN_ACK
        m.turn = 1
    else:
        spend(m, TM_flush, m.w.cost[CO_csd_ack] * p.fl_n)

cdef inline void step_FL_DONE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    t.step = p.fl_ret


cdef inline bint flush_tlb_batched_pending(machine *m, cpu_t *p, task_t *t,
                                           int32_t ret) noexcept nogil:
    """Under a page-table lock, before the PTEs of the task's mm are looked at: true if what reclaim
    unmapped and may not have flushed yet is flushed first, and then `ret`."""
    cdef const mm_t *mm = &m.mm[t.mm]
    if mm.pending == mm.flushed:
        return False
    m.counter[CN_flush_tlb_batched_pending] += 1
    t.batched = mm.pending
    t.batched_ret = ret
    flush(m, p, t, t.mm, -1, ST_M_BATCHED)
    return True

cdef inline void step_M_BATCHED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """What was unmapped during the flush stays pending."""
    if m.mm[t.mm].pending == t.batched:
        m.mm[t.mm].flushed = t.batched
    t.step = t.batched_ret


cdef inline void step_Q_ENTRY(machine *m, cpu_t *p) noexcept nogil:
    m.counter[CN_function_call_ipis] += 1
    p.irq_call_count += 1
    p.irq_at = INF
    spend(m, TM_interrupt, m.w.cost[CO_irq_entry])
    p.istep = ST_Q_TAKE

cdef inline void step_Q_TAKE(machine *m, cpu_t *p) noexcept nogil:
    p.hand = p.q_head
    p.q_head = -1
    p.q_tail = -1
    p.istep = ST_Q_FUNC if p.hand >= 0 else ST_Q_EXIT

cdef inline void step_Q_FUNC(machine *m, cpu_t *p) noexcept nogil:
    p.irq_cost += flush_tlb_func(m, m.c, p.hand)
    p.istep = ST_Q_ACK

cdef inline void step_Q_ACK(machine *m, cpu_t *p) noexcept nogil:
    cdef int32_t s = p.hand
    p.hand = m.csd_next[<int64_t>m.c * m.w.nr_cpus + s]
    m.cpu[s].acks -= 1
    if m.cpu[s].acks == 0 and m.cpu[s].mode == CPU_SPIN_ACK:
        wake_cpu(m, s, p.irq_cost + m.w.cost[CO_csd_ack] * m.cpu[s].fl_n, TM_flush_wait)
    p.istep = ST_Q_FUNC if p.hand >= 0 else ST_Q_EXIT

cdef inline int irq_entry_step(const cpu_t *p, int64_t at) noexcept nogil:
    """The first step of the interrupt that came at `at`."""
    if p.irq_at == at:
        return ST_Q_ENTRY
    if p.tick_at == at:
        return ST_T_TICK
    return ST_T_TIMER if p.timer_at == at else ST_IO_ENTRY

cdef inline void step_Q_EXIT(machine *m, cpu_t *p) noexcept nogil:
    cdef int64_t at = irq_time(p)
    spend(m, TM_interrupt, p.irq_cost + m.w.cost[CO_irq_exit])
    p.irq_cost = 0
    if at <= p.clock:                 # another one is pending: taken at once
        p.istep = irq_entry_step(p, at)
        return
    p.in_irq = 0
    p.istep = -1
    p.last_on = 1
    if p.mode == CPU_RUN:
        p.clock += p.left
    p.left = 0
