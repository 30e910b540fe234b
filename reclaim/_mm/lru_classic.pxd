# The classic LRU: an active and an inactive list (mm/vmscan.c shrink_lruvec; docs/model.md 5.4).

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from reclaim._policy cimport Policies
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.sched cimport *
from reclaim._mm.blk cimport blk_finish_plug
from reclaim._mm.vmscan cimport move_folios_to_lru, nr_reclaimed, pay, ptl_handed_over, rmap_next


# --- scan targets

cdef inline int64_t scan_target(machine *m, task_t *t, int lru) noexcept nogil:
    """get_scan_count for an anon list, with empty file lists"""
    cdef int64_t size = m.cg.lru_nr[lru], a, f, total, ap, fp
    cdef int64_t swappiness = m.w.swappiness
    if m.cg.slots_free == 0 or swappiness == 0:
        return 0                    # SCAN_FILE
    if t.prio == 0:
        return size                 # SCAN_EQUAL
    a = 2 * m.cg.anon_cost
    f = m.cg.anon_cost
    total = a + f
    ap = swappiness * (total + 1) // (a + 1)
    fp = (200 - swappiness) * (total + 1) // (f + 1)
    return (size >> t.prio) * ap // (ap + fp)

cdef inline void step_R_PRIO(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """prepare_scan_control, get_scan_count"""
    spend(m, TM_scan, m.w.cost[CO_reclaim_prio])
    t.may_deact = (t.force_deact != 0
                   or m.counter[CN_workingset_activate_anon] != m.cg.refaults_snapshot
                   or inactive_is_low(m))
    t.r_nr[0] = <int32_t>scan_target(m, t, 0)
    t.r_nr[1] = <int32_t>scan_target(m, t, 1)
    t.r_visit = 0
    t.r_loop = 0
    t.step = ST_R_LIST

cdef inline void shrink_active(machine *m, task_t *t, int32_t nr, int32_t ret) noexcept nogil:
    t.nr_to_scan = nr
    t.k_ret = ret
    m.counter[CN_shrink_active_list_calls] += 1
    drain_all(m, t, ST_K_LOCK)

cdef inline void step_R_LIST(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """shrink_lruvec: one list at a time"""
    cdef int32_t n
    if t.r_visit == 0:
        if t.r_nr[0] == 0:
            t.step = ST_R_AGE
            return
        n = min(t.r_nr[0], CLUSTER)
        t.r_nr[0] -= n
        t.nr_to_scan = n
        t.r_visit = 1
        t.stalled = 0
        t.step = ST_I_START
    elif t.r_visit == 1:
        t.r_visit = 2
        n = min(t.r_nr[1], CLUSTER)
        t.r_nr[1] -= n
        if n > 0 and t.may_deact:
            shrink_active(m, t, n, ST_R_LIST)
        elif n > 0:
            t.skipped_deact = 1
    else:
        if resched_guard(m, p, t):
            return
        t.r_visit = 0
        if t.r_loop >= CLUSTER:
            t.step = ST_R_AGE

cdef inline void step_R_AGE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    blk_finish_plug(m, p, t)
    t.sc_reclaimed += t.r_loop
    t.step = ST_R_END
    if m.w.nr_slots > 0 and inactive_is_low(m):
        shrink_active(m, t, CLUSTER, ST_R_END)


# --- isolation and put-back

cdef inline void isolate_lru_folios(machine *m, task_t *t, int lru) noexcept nogil:
    cdef int32_t f
    fifo_init(&t.list)
    fifo_init(&t.ret)
    prefetch_trail(m, lru, t.nr_to_scan)
    while t.list.nr < t.nr_to_scan:
        f = m.cg.lru_tail[lru]
        if f < 0:
            break
        lruvec_del_folio(m, f)
        m.folio[f].flags &= ~<uint32_t>PG_lru
        m.folio[f].refcount += 1
        fifo_push(m, &t.list, f)
    t.taken = t.list.nr
    t.scanned = t.list.nr
    m.cg.nr_isolated += t.taken
    spend(m, TM_scan, m.w.cost[CO_lru_lock] + m.w.cost[CO_lru_isolate] * t.taken)

cdef inline void step_I_START(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """shrink_inactive_list: too_many_isolated, lru_add_drain"""
    if t.dying:
        t.r_loop += CLUSTER
        t.step = ST_R_LIST
        return
    if m.w.cgroup == 2 and m.cg.nr_isolated > m.cg.lru_nr[0] >> 3:
        if t.stalled:
            t.step = ST_R_LIST
            return
        t.stalled = 1
        m.counter[CN_throttled] += 1
        schedule_timeout(m, p, t, SLEEP_THROTTLED, m.now + <int64_t>20000000000)
        return
    wake_up(m, SLEEP_THROTTLED)
    drain_all(m, t, ST_I_LOCK)

cdef inline void step_I_LOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if not lock_lru(m):
        return
    isolate_lru_folios(m, t, 0)
    m.counter[CN_pgscan_anon] += t.scanned
    t.step = ST_I_UNLOCK

cdef inline void step_I_UNLOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    unlock(m, &m.cg.lru_lock)
    t.step = ST_S_PLAN if t.taken > 0 else ST_R_LIST

cdef inline void step_I_PUT(machine *m, cpu_t *p, task_t *t, Policies s) noexcept nogil:
    if not lock_lru(m):
        return
    move_folios_to_lru(m, t)
    m.counter[CN_pgsteal_anon] += nr_reclaimed(t, s)
    t.step = ST_I_PUT_UNLOCK

cdef inline void step_I_PUT_UNLOCK(machine *m, cpu_t *p, task_t *t, Policies s) noexcept nogil:
    cdef int64_t n = nr_reclaimed(t, s)
    unlock(m, &m.cg.lru_lock)
    lru_note_cost(m, t.nr_pageout, t.scanned - n if t.scanned > n else 0)
    t.r_loop += <int32_t>n
    t.folio = -1
    t.step = ST_R_LIST


# --- shrink_active_list

cdef inline void step_K_LOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if not lock_lru(m):
        return
    isolate_lru_folios(m, t, 1)
    m.counter[CN_memcg_pgrefill] += t.taken
    if m.w.pgrefill_global:
        m.counter[CN_pgrefill] += t.taken
    t.step = ST_K_UNLOCK

cdef inline void step_K_UNLOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    unlock(m, &m.cg.lru_lock)
    t.step = ST_K_NEXT

cdef inline bint in_rmap(machine *m, const task_t *t) noexcept nogil:
    """The row goes on with a folio: its first page was looked at, or a lock was waited for."""
    return t.rmap > 0 or (m.p.lock_at > 0 and lock_of(m, m.p).holder == m.c)

cdef inline void step_K_NEXT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t f
    cdef folio_t *q
    cdef qlock *ptl = NULL
    f = t.list.head if t.list.nr > 0 else -1
    if f >= 0 and not unlikely(m.w.forks):
        ptl = ptl_handed_over(m, f)
    if ptl == NULL and not (unlikely(m.w.forks) and in_rmap(m, t)) and resched_guard(m, p, t):
        return
    if f < 0:
        pay(m, t)
        t.step = ST_K_PUT
        return
    t.folio = f
    q = &m.folio[f]
    if unlikely(m.w.forks):
        if rmap_next(m, t):
            return
        t.owed += m.w.cost[CO_rmap] * (t.rmap > 0)
        t.rmap = 0
    elif q.mapcount > 0:
        ptl = &pte_region(m, q.mm, q.vp).ptl
        if not lock(m, ptl):
            return
        if m.mm[q.mm].recency:
            m.pte[q.vp] &= ~<uint64_t>PTE_YOUNG
        t.owed += m.w.cost[CO_rmap]
    if ptl != NULL:
        unlock(m, ptl)
    fifo_pop(m, &t.list)
    q.flags = (q.flags & ~<uint32_t>PG_active) | PG_workingset
    fifo_push(m, &t.ret, f)

cdef inline void step_K_PUT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int64_t moved
    if not lock_lru(m):
        return
    moved = move_folios_to_lru(m, t)
    m.counter[CN_pgdeactivate] += moved
    m.counter[CN_memcg_pgdeactivate] += moved
    t.step = ST_K_PUT_UNLOCK

cdef inline void step_K_PUT_UNLOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    unlock(m, &m.cg.lru_lock)
    t.folio = -1
    t.step = t.k_ret
