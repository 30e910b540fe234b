# Planted defects: what a broken kernel does in place of a row, or besides it.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from reclaim._core cimport act_alone
from reclaim._explore_world cimport *
from reclaim._policy cimport Policies
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.tlb cimport *
from reclaim._mm.sched cimport folio_unlock
from reclaim._mm.smp cimport flush

cdef inline int defective_step(tiny_t *tiny, Policies policies, int32_t c, int64_t interrupt, int step) except -1 nogil:
    """The step as a broken kernel makes it."""
    cdef machine *m = &tiny.m
    cdef cpu_t *p = &m.cpu[c]
    cdef task_t *t = &m.task[p.current] if p.current >= 0 else NULL
    cdef uint32_t d = tiny.defects
    if skipped(tiny, d, c, p, t, step):
        p.last_on = m.irq_on[step]
        if tiny.traced > 0:
            tiny.trace[tiny.traced - 1][1] = -1 - step      # left out
        return 0
    if step == ST_P_OUT and d & DF_NO_REFCOUNT:
        return with_refcount(tiny, policies, c, t.folio)
    if step == ST_S_FREE and d & DF_NO_FREEZE:
        return with_refcount(tiny, policies, c, t.folio)
    if step == ST_P_WRITE and d & DF_NO_SWAPCOUNT:
        return with_swapcount(tiny, policies, c, t.folio)
    if step == ST_F_SWAP_MAP and d & DF_SLOT_IN_IO:
        return without_flag(tiny, policies, c, t.f_pfn, PG_writeback)
    if step == ST_S_FREE and d & DF_NO_DIRTY_TEST:
        return without_flag(tiny, policies, c, t.folio, PG_dirty)
    if step == ST_U_MASK and d & DF_LAST_MASK:
        m.ubc_mask[p.current] = 0
    if d & DF_MASK_EARLY and (step == ST_U_MASK or (step == ST_FL_START and p.fl_ret == ST_U_SET)):
        return with_saved_mask(tiny, policies, c, m.folio[t.folio].mm)
    if d & DF_NO_GEN_CHECK and (step == ST_SW_PICK or step == ST_W_BACK):
        p.is_lazy = 0
    if step == ST_U_DEFER and d & DF_DIRTY_EARLY:
        tiny.x.saved_pte = m.pte[m.folio[t.folio].vp] & PTE_DIRTY
    if d & DF_NO_BATCHED and (step == ST_E_ZAP or step == ST_V_PROT or step == ST_V_MOVE_NEW):
        m.mm[t.mm].flushed = m.mm[t.mm].pending
    if step == ST_U_SET and d & DF_NO_TRANSFER:
        t.old_pte &= ~<uint64_t>PTE_DIRTY
    if step == ST_F_WP and d & DF_REUSE_SHARED:
        return reusing(tiny, policies, c, t)
    if step == ST_B_LOCK:
        return defective_relock(tiny, policies, d, c, t)
    act_alone(m, c, interrupt, policies)
    spoil(tiny, d, c, p, t, step)
    return 0

cdef inline bint still_queued(machine *m, int32_t c, cpu_t *p) noexcept nogil:
    """The next target has not served CPU c's last request, which nobody waited for: that one stands for both."""
    cdef uint64_t *mask = m.fl_mask + <int64_t>c * m.w.words
    cdef int32_t j = mask_next(mask, m.w.words, p.fl_scan), s
    cdef bint found = False
    if j == c:
        j = mask_next(mask, m.w.words, j + 1)
    if j < 0:
        return False
    s = m.cpu[j].q_head
    while s >= 0:
        found |= s == c
        s = m.csd_next[j * m.w.nr_cpus + s]
    s = m.cpu[j].hand
    while s >= 0:
        found |= s == c
        s = m.csd_next[j * m.w.nr_cpus + s]
    if found:
        p.fl_scan = j + 1
    return found

cdef inline bint skipped(tiny_t *tiny, uint32_t d, int32_t c, cpu_t *p, task_t *t, int step) noexcept nogil:
    """A row that is left out, or made otherwise altogether."""
    cdef machine *m = &tiny.m
    if step == ST_FL_START:
        if d & DF_NO_FLUSH and p.fl_mm < 0 and (p.fl_ret == ST_P_OUT or p.fl_ret == ST_B_OUT):
            t.step = p.fl_ret
            return True
        if d & DF_FREE_FIRST and (p.fl_ret == ST_S_END_FLUSHED or p.fl_ret == ST_S_FREE_FLUSHED):
            t.step = p.fl_ret
            return True
        if (d & DF_NO_COW_FLUSH and p.fl_ret == ST_F_WP_SET) or (d & DF_NO_REVOKE_FLUSH and t.call and (
                p.fl_ret == ST_V_END or p.fl_ret == ST_V_FREE or p.fl_ret == ST_V_MOVED)) or (
                d & DF_NO_FORK_FLUSH and p.fl_ret == ST_V_FORKED):
            t.step = p.fl_ret
            return True
    elif step == ST_FL_LOCAL and d & DF_SKIP_OWN:
        t.step = ST_FL_WAIT
        return True
    elif step == ST_FL_QUEUE and d & DF_NO_WAIT:
        return still_queued(m, c, p)
    elif step == ST_FL_WAIT and d & DF_NO_WAIT:
        t.step = ST_FL_DONE
        return True
    elif step == ST_SW_SET and d & DF_MASK_LATE:
        p.sstep = ST_SW_GEN
        return True
    elif step == ST_Q_ACK and d & (DF_NO_WAIT | DF_ACK_EARLY):
        p.hand = m.csd_next[c * m.w.nr_cpus + p.hand]
        p.istep = ST_Q_FUNC if p.hand >= 0 else ST_Q_EXIT
        return True
    elif step == ST_F_RECHECK and d & DF_NO_FAULT_RECHECK:
        t.step = ST_F_SWAP_MAP
        return True
    return False

cdef inline void spoil(tiny_t *tiny, uint32_t d, int32_t c, cpu_t *p, task_t *t, int step) noexcept nogil:
    """What is done besides, once the row was made."""
    cdef machine *m = &tiny.m
    cdef int32_t s
    if step == ST_B_START and d & DF_FLUSH_FIRST and t.step == ST_B_LOCK and t.ubc_writable:
        flush(m, p, t, -1, -1, ST_B_LOCK)
    elif step == ST_U_DEFER and d & DF_MASK_EARLY:
        tiny.x.saved_mask = m.mm_cpumask[m.folio[t.folio].mm]
    elif step == ST_U_CLEAR and d & DF_DIRTY_EARLY:
        t.old_pte = (t.old_pte & ~<uint64_t>PTE_DIRTY) | tiny.x.saved_pte
    elif step == ST_U_GEN and d & DF_NO_BUMP:
        m.mm[m.folio[t.folio].mm].tlb_gen -= 1
    elif step == ST_U_SET:
        tiny.x.saved_mask = tiny.x.saved_pte = 0
    elif step == ST_S_END_FLUSHED and d & DF_FREE_FIRST and t.ubc_required:
        flush(m, p, t, -1, -1, ST_I_PUT)
    elif step == ST_S_FREE and t.nr_free > 0 and not m.folio[t.free_folios[t.nr_free - 1]].flags & PG_swapcache:
        if d & DF_ADD_TWICE:
            fifo_push(m, &t.ret, t.folio)
        if d & DF_COUNT_TWICE:
            t.reclaimed_local += 1
            t.reclaimed_stat += 1
    elif step == ST_SW_CR3 and d & DF_MASK_LATE:
        mask_set(mm_mask(m, m.task[p.current].mm), c)
    elif step == ST_Q_TAKE and d & DF_ACK_EARLY:
        s = p.hand
        while s >= 0:
            m.cpu[s].acks -= 1
            if m.cpu[s].acks == 0 and m.cpu[s].mode == CPU_SPIN_ACK:
                m.cpu[s].mode = CPU_RUN
            s = m.csd_next[c * m.w.nr_cpus + s]
    elif step == ST_P_OUT and d & DF_LOCK_LEAK and t.ret.nr > 0 and t.ret.tail == t.folio:
        m.folio[t.folio].flags |= PG_locked

cdef inline int reusing(tiny_t *tiny, Policies policies, int32_t c, const task_t *t) except -1 nogil:
    """As if nobody shared the page."""
    if pte_present(tiny.m.pte[t.vp]):
        tiny.m.pte[t.vp] |= PTE_EXCL
    act_alone(&tiny.m, c, INF, policies)
    return 0

cdef inline int with_refcount(tiny_t *tiny, Policies policies, int32_t c, int32_t f) except -1 nogil:
    """As if nobody else held the folio."""
    cdef folio_t *q = &tiny.m.folio[f]
    cdef int32_t refs = q.refcount
    if q.flags & PG_swapcache:
        q.refcount = 2
    act_alone(&tiny.m, c, INF, policies)
    if q.refcount == 2:
        q.refcount = refs
    return 0

cdef inline int with_swapcount(tiny_t *tiny, Policies policies, int32_t c, int32_t f) except -1 nogil:
    """As if a PTE still named the folio's slot."""
    cdef int32_t s = tiny.m.folio[f].slot
    cdef bint none = s >= 0 and slot_maps(&tiny.m, s) == 0
    tiny.m.slot_count[s] = tiny.m.slot_count[s] + none
    act_alone(&tiny.m, c, INF, policies)
    tiny.m.slot_count[s] = tiny.m.slot_count[s] - none
    return 0

cdef inline int without_flag(tiny_t *tiny, Policies policies, int32_t c, int32_t f, uint32_t flag) except -1 nogil:
    cdef folio_t *q = &tiny.m.folio[f]
    cdef uint32_t had = q.flags & flag
    q.flags &= ~flag
    act_alone(&tiny.m, c, INF, policies)
    if q.refcount > 0:
        q.flags |= had
    return 0

cdef inline int with_saved_mask(tiny_t *tiny, Policies policies, int32_t c, int32_t mm) except -1 nogil:
    cdef uint64_t now = tiny.m.mm_cpumask[mm]
    tiny.m.mm_cpumask[mm] = tiny.x.saved_mask
    act_alone(&tiny.m, c, INF, policies)
    tiny.m.mm_cpumask[mm] = now
    return 0

cdef inline int defective_relock(tiny_t *tiny, Policies policies, uint32_t d, int32_t c, task_t *t) except -1 nogil:
    cdef machine *m = &tiny.m
    cdef fifo ret = t.ret
    cdef int32_t n = t.b_w, i = t.b_i
    cdef bint locked = i < t.nr_flush and m.folio[t.flush_folios[i]].flags & PG_locked
    if locked and d & DF_NO_TRYLOCK:
        m.folio[t.flush_folios[i]].flags &= ~<uint32_t>PG_locked
    act_alone(m, c, INF, policies)
    if t.step != ST_B_LOCK or t.b_i != i + 1:
        return 0
    if t.b_w > n:
        if d & DF_UNLOCK:
            folio_unlock(m, t.folio)
    elif (d & DF_DROP and locked) or d & DF_NO_ADVANCE:
        t.ret = ret
        if ret.tail >= 0:
            m.folio[ret.tail].next = -1
        if d & DF_NO_ADVANCE:
            t.b_i = i
    return 0
