# Histograms, flushes by cause, who pays for them: what no step reads (docs/model.md 9, docs/results.md).
#
# A histogram is a row of names.HISTOGRAMS and one call of `record`; a cause a row of names.CAUSES.  What is always
# on is called by the steps; the rest, of a simulation with record=True, stands around each step in the loop that
# makes one step at a time (Core.metered_step), so that other runs do not have it in their way at all.

from libc.string cimport memset
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *


cdef inline int32_t log2_bucket(int64_t ps) noexcept nogil:
    """Of a time: nanoseconds below LOG2_SUB by themselves, then LOG2_SUB buckets for each power of two."""
    cdef uint64_t ns = <uint64_t>ps // 1000 if ps > 0 else 0
    cdef int shift
    if ns >> LOG2_SUB_BITS == 0:
        return <int32_t>ns
    shift = log2_64(ns) - LOG2_SUB_BITS
    return <int32_t>((shift << LOG2_SUB_BITS) + (ns >> shift))

cdef inline void record(machine *m, int h, int64_t value) noexcept nogil:
    """One more in histogram h, of a number, or of a time [ps]."""
    cdef int64_t bucket = log2_bucket(value) if (HI_OF_TIMES >> h) & 1 else value
    m.hist[h][bucket if bucket < m.hist_last[h] else m.hist_last[h]] += 1

cdef inline int64_t *meters_of(machine *m, int cause) noexcept nogil:
    return m.flushes + cause * FM_NR


# --- always on: a few instructions a flush

cdef inline int flush_cause(const machine *m, const cpu_t *p, const task_t *t) noexcept nogil:
    cdef int cause = m.cause_of[<uint8_t>p.fl_ret]
    if unlikely(cause >= CA_madvise):           # and those behind it: calls, exits
        if cause == CA_madvise and t.call == 0:
            return CA_exit
        if cause == CA_munmap and t.call == PASS_MREMAP:
            return CA_mremap
    return cause

cdef inline void flush_begins(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    p.fl_ipis = 0
    t.fl_cause = <uint8_t>flush_cause(m, p, t)
    meters_of(m, t.fl_cause)[FM_flushes] += 1

cdef inline void flush_sent(machine *m, const cpu_t *p, const task_t *t) noexcept nogil:
    cdef int64_t *of = meters_of(m, t.fl_cause)
    record(m, HI_targets_per_flush, p.fl_n)
    of[FM_remote] += 1
    of[FM_targets] += p.fl_n
    of[FM_ipis] += p.fl_ipis


# --- detail: before and after a step

cdef struct before_t:         # what a step is about to change
    int64_t cost              # Q_FUNC: irq_cost; FL_LOCAL: time of flushes
    uint64_t gen
    uint32_t stamp
    int32_t folio
    int32_t kept
    bint spins

cdef inline bint shrinks(int step) noexcept nogil:
    return ST_S_PLAN <= step <= ST_B_OUT

cdef inline void meter_before(machine *m, cpu_t *p, int step, before_t *b) noexcept nogil:
    cdef const task_t *t = &m.task[p.current] if p.current >= 0 else NULL
    memset(b, 0, sizeof(before_t))
    b.spins = p.mode == CPU_SPIN_LOCK
    if step == ST_Q_FUNC:
        b.cost = p.irq_cost
        b.gen = p.asid_gen[p.loaded_asid]
        b.stamp = p.tlb_stamp
    elif step == ST_FL_LOCAL:
        b.cost = m.times[TM_flush]
    elif step == ST_F_SWAP_MAP:
        b.folio = t.f_pfn
    elif shrinks(step):
        b.folio = t.folio
        b.kept = t.ret.nr

cdef inline void meter_after(machine *m, cpu_t *p, int step, const before_t *b) noexcept nogil:
    cdef task_t *t = &m.task[p.current] if p.current >= 0 else NULL
    if p.mode == CPU_SPIN_LOCK and not b.spins:
        p.lock_since = m.now
    if step == ST_Q_TAKE:
        ipi_taken(m, p.hand)
    elif step == ST_Q_FUNC:
        request_served(m, p, b)
    elif t == NULL:
        return
    elif (step == ST_TOUCH or step == ST_POPULATE) and t.step == ST_F_READ:
        t.f_began = m.now
    elif step == ST_F_DONE:
        record(m, HI_fault_latency, m.now - t.f_began)
    elif step == ST_F_LOCK and t.state == TASK_BLOCKED:
        t.wait_since = m.now
    elif step == ST_F_SWAP_MAP:
        if m.folio[b.folio].mapcount > 0:
            unmapped_end(m, HI_unmapped_mapped, b.folio)
    elif step == ST_FL_START:
        t.fl_began = m.now
        t.fl_spent = m.times[TM_flush]
        t.fl_waited = m.times[TM_flush_wait]
        t.fl_own = 0
    elif step == ST_FL_LOCAL:
        t.fl_own = m.times[TM_flush] - b.cost
    elif step == ST_FL_DONE:
        flush_ends(m, p, t)
    elif shrinks(step):
        meter_shrink(m, t, step, b)


# a flush, on the CPU that asks for it

cdef inline int64_t later_of(int64_t a, int64_t b) noexcept nogil:
    return a if a > b else b

cdef inline void flush_ends(machine *m, const cpu_t *p, const task_t *t) noexcept nogil:
    cdef int64_t *of = meters_of(m, t.fl_cause)
    of[FM_elapsed] += m.now - t.fl_began
    of[FM_send] += m.times[TM_flush] - t.fl_spent - t.fl_own
    of[FM_own] += t.fl_own
    of[FM_wait] += m.times[TM_flush_wait] - t.fl_waited
    of[FM_spin] += spun_meanwhile(m, t)
    of[FM_sleep] += slept_meanwhile(m, t)
    if p.fl_n > 0:
        record(m, HI_flush_latency, m.now - t.fl_began)

cdef inline int64_t spun_meanwhile(const machine *m, const task_t *t) noexcept nogil:
    """How long other CPUs have spun in the flush for a lock that this one held through it."""
    cdef int32_t c
    cdef int64_t spun = 0
    cdef const cpu_t *w
    cdef const qlock *l
    for c in range(m.w.nr_cpus):
        w = &m.cpu[c]
        if w.mode == CPU_SPIN_LOCK:
            l = &m.cg.lru_lock if w.lock_at == 0 else &m.region[w.lock_at - 1].ptl
            if l.holder == m.c:
                spun += m.now - later_of(w.lock_since, t.fl_began)
    return spun

cdef inline bint holds_locked(const task_t *t, int32_t f) noexcept nogil:
    """Reclaim has f in hand, or in the batch that it flushes for."""
    cdef int i
    if t.folio == f:
        return True
    for i in range(t.nr_flush):
        if t.flush_folios[i] == f:
            return True
    return False

cdef inline int64_t slept_meanwhile(const machine *m, const task_t *t) noexcept nogil:
    """How long other tasks have slept in the flush for a folio that this one has locked."""
    cdef int32_t u
    cdef int64_t slept = 0
    cdef const task_t *w
    if not shrinks(t.step):
        return 0
    for u in range(m.w.nr_tasks):
        w = &m.task[u]
        if (w.state == TASK_BLOCKED and w.step == ST_F_RETRY and m.folio[w.f_pfn].flags & PG_locked
                and holds_locked(t, w.f_pfn)):
            slept += m.now - later_of(w.wait_since, t.fl_began)
    return slept


# ... and on those that it is sent to

cdef inline int cause_of_sender(const machine *m, int32_t sender) noexcept nogil:
    """The task that flushes stays on its CPU until all have answered."""
    return m.task[m.cpu[sender].current].fl_cause

cdef inline void ipi_taken(machine *m, int32_t hand) noexcept nogil:
    """The interrupt is on the account of the first request that it found; the others came along."""
    cdef int64_t n = 0
    cdef int32_t s = hand
    cdef int cause = CA_other if hand < 0 else cause_of_sender(m, hand)
    meters_of(m, cause)[FM_interrupt] += m.w.cost[CO_irq_entry] + m.w.cost[CO_irq_exit]
    while s >= 0:
        n += 1
        s = m.csd_next[<int64_t>m.c * m.w.nr_cpus + s]
    record(m, HI_requests_per_ipi, n)

cdef inline void request_served(machine *m, const cpu_t *p, const before_t *b) noexcept nogil:
    cdef int64_t *of = meters_of(m, cause_of_sender(m, p.hand))
    of[FM_interrupt] += p.irq_cost - b.cost
    if p.tlb_stamp != b.stamp:
        of[FM_flushed_all] += 1
    elif p.asid_gen[p.loaded_asid] != b.gen:
        of[FM_flushed_pages] += 1
    else:
        of[FM_flushed_nothing] += 1


# folios that wait unmapped

cdef inline void unmapped_end(machine *m, int h, int32_t f) noexcept nogil:
    if m.unmapped_at[f] >= 0:
        record(m, h, m.now - m.unmapped_at[f])
        m.unmapped_at[f] = -1

cdef inline void meter_shrink(machine *m, const task_t *t, int step, const before_t *b) noexcept nogil:
    if t.ret.nr > b.kept:
        unmapped_end(m, HI_unmapped_put_back, t.ret.tail)
    elif step == ST_U_CLEAR:
        m.unmapped_at[t.folio] = m.now
    elif step == ST_P_WRITE:
        unmapped_end(m, HI_unmapped_written, b.folio)
    elif step == ST_S_FREE:
        unmapped_end(m, HI_unmapped_freed, b.folio)
