# Direct reclaim: its start and end, shrink_folio_list, pageout and its batch, whatever the LRU
# (mm/vmscan.c, mm/swap.c; docs/model.md 5.4 to 5.6).  What is isolated, and when, is the LRU's:
# lru_classic.pxd, lru_gen.pxd.
#
# Steps that ask a strategy return -1 if it raised, before they wrote anything.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from reclaim._policy cimport *
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport *
from reclaim._mm.meters cimport record
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.tlb cimport mask_any_but, mm_mask
from reclaim._mm.smp cimport flush
from reclaim._mm.sched cimport *
from reclaim._mm.works cimport vmpressure
from reclaim._mm.program cimport end_walks
from reclaim._mm.blk cimport blk_finish_plug
from reclaim._mm.swap cimport plug_bio
from reclaim._mm.swapfile cimport folio_alloc_swap, no_slot_left


# --- one reclaim, from priority to priority

cdef inline int32_t shrink_lruvec(const machine *m) noexcept nogil:
    """The step with which the LRU shrinks its lists at one priority."""
    return ST_G_SHRINK if m.w.lru else ST_R_PRIO

cdef inline void snapshot_refaults(machine *m) noexcept nogil:
    if not m.w.lru:
        m.cg.refaults_snapshot = m.counter[CN_workingset_activate_anon]

cdef inline void step_R_START(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """try_to_free_mem_cgroup_pages"""
    m.counter[CN_direct_reclaims] += 1
    m.nr_reclaiming += 1
    end_walks(m)
    t.r_began = m.now
    t.prio = DEF_PRIORITY
    t.sc_reclaimed = 0
    t.full_walk = 0
    t.force_deact = 0
    t.skipped_deact = 0
    t.step = shrink_lruvec(m)

cdef inline void step_R_END(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """do_try_to_free_pages"""
    blk_finish_plug(m, p, t)              # lru_gen_shrink_lruvec's; R_AGE has let that of the lists go
    if unlikely(m.w.kworkers):
        vmpressure(m, p, t.nr_scanned)
    t.nr_scanned = 0
    t.step = shrink_lruvec(m)
    if t.sc_reclaimed < CLUSTER:
        if t.prio > 0:
            t.prio -= 1
            if unlikely(m.w.kworkers) and t.prio <= VMPRESSURE_PRIO:
                vmpressure(m, p, VMPRESSURE_WIN)
            return
        snapshot_refaults(m)
        if t.sc_reclaimed == 0:
            if not t.full_walk:
                t.full_walk = 1
                t.prio = DEF_PRIORITY
                return
            if t.skipped_deact:
                t.prio = DEF_PRIORITY
                t.force_deact = 1
                t.skipped_deact = 0
                return
    snapshot_refaults(m)
    record(m, HI_direct_reclaim_latency, m.now - t.r_began)
    t.c_reclaimed = t.sc_reclaimed
    m.nr_reclaiming -= 1
    t.step = ST_C_AFTER

cdef inline bint in_reclaim(const machine *m, const task_t *t) noexcept nogil:
    """Between R_START and the end of R_END."""
    cdef int step = t.step
    if ST_FL_START <= step <= ST_FL_DONE:
        step = m.cpu[t.cpu].fl_ret
    elif step == ST_D_LOCK or step == ST_D_UNLOCK:
        step = t.d_ret
    return ST_R_PRIO <= step <= ST_B_OUT


# --- what every LRU does with the folios of its lists

cdef inline int64_t move_folios_to_lru(machine *m, task_t *t) noexcept nogil:
    """All of t.ret back to its list; how many were moved (the others were freed)."""
    cdef int32_t f
    cdef folio_t *q
    cdef int64_t moved = 0, n = t.ret.nr
    while t.ret.nr > 0:
        f = fifo_pop(m, &t.ret)
        q = &m.folio[f]
        q.flags |= PG_lru
        q.refcount -= 1
        if q.refcount == 0:
            q.flags &= ~<uint32_t>(PG_lru | PG_active)
            m.cg.usage -= 1
            free_frame(m, f)
            continue
        lruvec_add_folio(m, f)
        moved += 1
        if q.flags & PG_active:             # never in a generation
            m.cg.nonresident_age += 1
    if not m.w.lru:
        m.cg.nr_isolated -= t.taken
    spend(m, TM_scan, m.w.cost[CO_lru_lock] + m.w.cost[CO_lru_putback] * n)
    return moved

cdef inline int64_t nr_reclaimed(const task_t *t, Policies s) noexcept nogil:
    """What the accounting slot tells the caller; junk must not overflow the arithmetic below."""
    cdef int64_t n = s.accounting.count(t.reclaimed_local, t.reclaimed_stat)
    return 0 if n < 0 else 1 << 20 if n > 1 << 20 else n

# --- time that is charged once per list

cdef inline void pay(machine *m, task_t *t) noexcept nogil:
    """Short checks of many folios take their time together: a turn each would cost more than they do."""
    if t.owed > 0:
        spend(m, TM_scan, t.owed)
        t.owed = 0

cdef inline void lock_elsewhere(machine *m, const qlock *wanted) noexcept nogil:
    """page_vma_mapped_walk: what this CPU waited for is not the lock that it needs now, and is given
    back."""
    cdef qlock *was
    if m.p.lock_at == 0:
        return
    was = lock_of(m, m.p)
    if was.holder == m.c and was != wanted:
        unlock(m, was)

cdef inline void lock_moved(machine *m, const folio_t *q) noexcept nogil:
    """mremap moved the folio to another page-table page meanwhile."""
    if unlikely(m.w.moves):
        lock_elsewhere(m, &pte_region(m, q.mm, q.vp).ptl)

cdef inline bint rmap_next(machine *m, task_t *t) noexcept nogil:
    """folio_referenced_one, where folios may be mapped twice: one page a step.  False: no page is left."""
    cdef const folio_t *q = &m.folio[t.folio]
    cdef int32_t vp = mapped_page(m, t), mm
    cdef qlock *ptl = NULL
    if vp >= 0:
        mm = mm_of_page(m, q, vp)
        ptl = &pte_region(m, mm, vp).ptl
    lock_elsewhere(m, ptl)
    if vp < 0:
        return False
    if lock(m, ptl):
        if pte_maps(m, vp, t.folio) and m.pte[vp] & PTE_YOUNG and m.mm[mm].recency:
            m.pte[vp] &= ~<uint64_t>PTE_YOUNG
            t.rmap |= RMAP_YOUNG
        unlock(m, ptl)
        t.rmap += 1
    return True

cdef inline qlock *ptl_handed_over(machine *m, int32_t f) noexcept nogil:
    """The page-table lock over f's page if this CPU waited for it and has it now, else NULL."""
    cdef folio_t *q = &m.folio[f]
    cdef qlock *ptl
    if q.vp < 0:
        return NULL
    lock_moved(m, q)
    ptl = &pte_region(m, q.mm, q.vp).ptl
    return ptl if ptl.holder == m.c else NULL


# --- shrink_folio_list

cdef inline void next_folio(task_t *t) noexcept nogil:
    t.step = ST_B_OUT if t.in_batch else ST_S_NEXT

cdef inline void keep(machine *m, task_t *t) noexcept nogil:
    fifo_push(m, &t.ret, t.folio)
    next_folio(t)

cdef inline void keep_locked(machine *m, task_t *t) noexcept nogil:
    folio_unlock(m, t.folio)
    keep(m, t)

cdef inline int ask_activation(machine *m, task_t *t, Policies s) except -1 nogil:
    """The activation slot's verdict on t.folio, as bits of activate_t."""
    cdef folio_view v
    cdef folio_t *q = &m.folio[t.folio]
    v.pfn = t.folio
    v.flags = q.flags
    v.refcount = q.refcount
    v.mapcount = q.mapcount
    v.pad = 0
    return s.activation.activate(&v)

cdef inline void activate_locked(machine *m, task_t *t, int verdict) noexcept nogil:
    """The activate_locked label: folio_active_bounce in v2 and v3, folio_activate_locked in v4."""
    cdef int32_t f = t.folio
    if verdict & ACTIVATE_FREE_SWAP and folio_test(m, f, PG_swapcache) and swap_full(m):
        folio_free_swap(m, f)
    if verdict & ACTIVATE_SET_ACTIVE:
        folio_set(m, f, PG_active)
    if verdict & ACTIVATE_COUNT:
        t.nr_activate += 1
        m.counter[CN_memcg_pgactivate] += 1
    keep_locked(m, t)

cdef inline bint planned(uint64_t plan, int32_t i) noexcept nogil:
    return (plan >> i) & 1

cdef inline uint64_t plan_bits(const uint8_t *plan, int nr) noexcept nogil:
    cdef uint64_t bits = 0
    cdef int i
    for i in range(nr):
        bits |= <uint64_t>(plan[i] != 0) << i
    return bits

cdef inline int step_S_PLAN(machine *m, cpu_t *p, task_t *t, Policies s) except -1 nogil:
    """What is deferred and when it is flushed, decided once per list (patches 4 and 5)."""
    cdef list_view v
    cdef uint8_t defer[MAX_LIST]
    cdef uint8_t flush_after[MAX_LIST]
    cdef int32_t f = t.list.head
    cdef int i
    v.nr = t.list.nr
    for i in range(v.nr):
        v.pfn[i] = f
        v.flags[i] = m.folio[f].flags
        defer[i] = 0
        flush_after[i] = 0
        f = m.folio[f].next
    s.unmap.plan(&v, defer)
    s.flush.plan(&v, flush_after)
    t.plan_defer = plan_bits(defer, v.nr)
    t.plan_flush = plan_bits(flush_after, v.nr)
    m.counter[CN_shrink_folio_list_calls] += 1
    record(m, HI_shrink_list_length, v.nr)
    t.nr_pageout = 0
    t.nr_activate = 0
    t.reclaimed_local = 0
    t.reclaimed_stat = 0
    t.index = 0
    t.ordinal = 0
    t.nr_free = 0
    t.nr_flush = 0
    t.in_batch = 0
    t.step = ST_S_NEXT
    return 0

cdef inline void step_S_NEXT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if resched_guard(m, p, t):
        return
    if t.list.nr == 0:
        t.folio = -1
        t.step = ST_S_TAIL
        return
    t.folio = fifo_pop(m, &t.list)
    t.index += 1
    t.step = ST_S_LOCK

cdef inline void step_S_LOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if folio_test(m, t.folio, PG_locked):
        t.nr_scanned -= 1                 # S_END counts all of the list
        spend(m, TM_scan, m.w.cost[CO_scan])
        keep(m, t)
        return
    folio_set(m, t.folio, PG_locked)
    t.step = ST_S_WB

cdef inline bint promoted_meanwhile(const machine *m, const folio_t *q) noexcept nogil:
    """folio_update_gen() met the folio after it was isolated."""
    return not m.w.mglru_rework and q.mapcount > 0 and q.flags & PG_referenced

cdef inline int step_S_WB(machine *m, cpu_t *p, task_t *t, Policies s) except -1 nogil:
    cdef int verdict
    if unlikely(m.w.lru) and promoted_meanwhile(m, &m.folio[t.folio]):
        spend(m, TM_scan, m.w.cost[CO_scan])
        keep_locked(m, t)
    elif not folio_test(m, t.folio, PG_writeback):
        t.step = ST_S_GEN if m.w.lru else ST_S_REF
    elif m.w.cgroup == 1 and folio_test(m, t.folio, PG_reclaim):
        spend(m, TM_scan, m.w.cost[CO_scan])
        folio_unlock(m, t.folio)
        t.step = ST_S_WB_WAIT
    else:
        verdict = ask_activation(m, t, s)
        spend(m, TM_scan, m.w.cost[CO_scan])
        folio_set(m, t.folio, PG_reclaim)
        activate_locked(m, t, verdict)
    return 0

cdef inline void step_S_WB_WAIT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """folio_wait_writeback, then look at the folio again first of all"""
    cdef int32_t f = t.folio
    if folio_test(m, f, PG_writeback):
        m.counter[CN_writeback_waits] += 1
        folio_wait(m, p, t, f, 1)
        return
    m.folio[f].next = t.list.head
    t.list.head = f
    if t.list.nr == 0:
        t.list.tail = f
    t.list.nr += 1
    t.index -= 1
    t.nr_scanned += 1                     # once for each time that it is looked at
    t.folio = -1
    t.step = ST_S_NEXT

cdef inline int step_S_REF(machine *m, cpu_t *p, task_t *t, Policies s) except -1 nogil:
    """folio_check_references"""
    cdef folio_t *q = &m.folio[t.folio]
    cdef qlock *ptl
    cdef bint young = False, referenced = (q.flags & PG_referenced) != 0
    cdef int verdict = 0
    if unlikely(m.w.forks):
        if rmap_next(m, t):
            return 0
        young = t.rmap & RMAP_YOUNG != 0
        if young and referenced:
            verdict = ask_activation(m, t, s)
        t.rmap = 0
    elif q.mapcount == 0:
        ptl = ptl_handed_over(m, t.folio)
        if ptl != NULL:
            unlock(m, ptl)
    else:
        lock_moved(m, q)
        young = m.pte[q.vp] & PTE_YOUNG and m.mm[q.mm].recency
        ptl = &pte_region(m, q.mm, q.vp).ptl
        if ptl.holder < 0 or ptl.holder == m.c:
            if young and referenced:
                verdict = ask_activation(m, t, s)
        if not lock(m, ptl):
            return 0
        if young:
            m.pte[q.vp] &= ~<uint64_t>PTE_YOUNG
        unlock(m, ptl)
    q.flags &= ~<uint32_t>PG_referenced
    if young:
        t.owed += m.w.cost[CO_scan] + m.w.cost[CO_rmap]
        q.flags |= PG_referenced
        if referenced:
            activate_locked(m, t, verdict)
        else:
            keep_locked(m, t)
    else:
        t.step = ST_S_UNMAP if q.flags & PG_swapcache else ST_S_SLOT
    return 0

cdef inline void spend_check(machine *m, const task_t *t) noexcept nogil:
    """The time of S_REF's check of a folio that is not young."""
    spend(m, TM_scan, m.w.cost[CO_scan]
          + (m.w.cost[CO_rmap] if m.folio[t.folio].mapcount > 0 else 0))

cdef inline int step_S_SLOT(machine *m, cpu_t *p, task_t *t, Policies s) except -1 nogil:
    """folio_alloc_swap"""
    cdef int verdict
    if m.folio[t.folio].refcount >= PIN_BIAS:
        spend_check(m, t)
        keep_locked(m, t)
    elif no_slot_left(m):
        verdict = ask_activation(m, t, s)
        m.dev.cache_active = 0          # as folio_alloc_swap leaves it when it finds none
        spend_check(m, t)
        activate_locked(m, t, verdict)
    else:
        m.folio[t.folio].slot = folio_alloc_swap(m)
        t.step = ST_S_ADD
    return 0

cdef inline void step_S_ADD(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """add_to_swap"""
    cdef folio_t *q = &m.folio[t.folio]
    add_to_swap_cache(m, t.folio, q.slot)
    m.slot_count[q.slot] = SLOT_HAS_CACHE
    q.flags |= PG_dirty
    t.step = ST_S_UNMAP

cdef inline void step_S_UNMAP(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """try_to_unmap; the page-table lock stays held until U_SET"""
    cdef folio_t *q = &m.folio[t.folio]
    cdef qlock *ptl
    cdef int32_t vp = mapped_page(m, t)
    if vp < 0:
        if unlikely(m.w.forks):
            lock_elsewhere(m, NULL)
            t.rmap = 0
        else:
            ptl = ptl_handed_over(m, t.folio)
            if ptl != NULL:
                unlock(m, ptl)
        spend(m, TM_scan, m.w.cost[CO_scan])
        t.step = ST_S_PIN
        return
    ptl = &pte_region(m, mm_of_page(m, q, vp), vp).ptl
    if unlikely(m.w.moves or m.w.forks):
        lock_elsewhere(m, ptl)
    if not lock(m, ptl):
        return
    if unlikely(m.w.forks) and not pte_maps(m, vp, t.folio):
        unlock(m, ptl)
        t.rmap += 1
    else:
        t.step = ST_U_DEFER

cdef inline int32_t unmap_mm(const machine *m, const task_t *t) noexcept nogil:
    return mm_of_page(m, &m.folio[t.folio], unmap_page(m, t))

cdef inline void step_U_DEFER(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """should_defer_flush, arch_tlbbatch_should_defer"""
    t.defer = (planned(t.plan_defer, t.index - 1)
               and mask_any_but(mm_mask(m, unmap_mm(m, t)), m.w.words, m.c))
    t.step = ST_U_CLEAR

cdef inline void step_U_CLEAR(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t vp = unmap_page(m, t)
    t.old_pte = m.pte[vp]
    m.pte[vp] &= PTE_PAGE
    t.step = ST_U_GEN if t.defer else ST_U_FLUSH

cdef inline void step_U_GEN(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """arch_tlbbatch_add_pending: first the generation ..."""
    m.mm[unmap_mm(m, t)].tlb_gen += 1
    t.step = ST_U_MASK

cdef inline void step_U_MASK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """... then the mask; set_tlb_ubc_flush_pending"""
    cdef int32_t mm = unmap_mm(m, t)
    cdef int i
    for i in range(m.w.words):
        m.ubc_mask[<int64_t>p.current * m.w.words + i] |= mm_mask(m, mm)[i]
    t.ubc_required = 1
    m.mm[mm].pending += 1
    if t.old_pte & PTE_DIRTY:
        t.ubc_writable = 1
    t.step = ST_U_SET

cdef inline void step_U_FLUSH(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """ptep_clear_flush"""
    flush(m, p, t, unmap_mm(m, t), unmap_page(m, t), ST_U_SET)

cdef inline void step_U_SET(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """the rest of try_to_unmap_one"""
    cdef folio_t *q = &m.folio[t.folio]
    cdef int32_t vp = unmap_page(m, t), i = mm_of_page(m, q, vp)
    cdef mm_t *mm = &m.mm[i]
    if q.slot < 0:
        m.bad = 2
        m.turn = 1
        return
    if t.old_pte & PTE_DIRTY:
        q.flags |= PG_dirty
    m.slot_count[q.slot] += 1
    m.pte[vp] = pte_make(PTE_SWAP, q.slot, (t.old_pte & PTE_EXCL) | (m.pte[vp] & PTE_PAGE))
    mm.rss -= 1
    mm.swapents += 1
    q.mapcount -= 1
    q.refcount -= 1
    unlock(m, &pte_region(m, i, vp).ptl)
    spend(m, TM_scan, m.w.cost[CO_scan] + m.w.cost[CO_rmap])
    spend(m, TM_unmap, m.w.cost[CO_unmap])
    t.step = ST_S_PIN
    if unlikely(m.w.forks):
        t.rmap = t.rmap + 1 if q.mapcount > 0 else 0
        t.step = ST_S_UNMAP if q.mapcount > 0 else ST_S_PIN

cdef inline int step_S_PIN(machine *m, cpu_t *p, task_t *t, Policies s) except -1 nogil:
    """folio_maybe_dma_pinned; with forks also whether try_to_unmap left a mapping"""
    cdef int verdict
    if m.folio[t.folio].refcount >= PIN_BIAS or (unlikely(m.w.forks) and m.folio[t.folio].mapcount > 0):
        verdict = ask_activation(m, t, s)
        activate_locked(m, t, verdict)
    else:
        t.step = ST_S_DIRTY
    return 0

cdef inline void try_to_unmap_flush_dirty(machine *m, cpu_t *p, task_t *t, int32_t ret) noexcept nogil:
    m.counter[CN_try_to_unmap_flush_dirty_calls] += 1
    if t.ubc_writable:
        m.counter[CN_try_to_unmap_flush_dirty_effective] += 1
        flush(m, p, t, -1, -1, ret)
    else:
        t.step = ret

cdef inline void step_S_DIRTY(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t k
    if not folio_test(m, t.folio, PG_dirty):
        t.step = ST_S_FREE
        return
    k = t.ordinal
    t.ordinal += 1
    if planned(t.plan_flush, k) and t.nr_flush == 0 and m.flush_keeps:
        try_to_unmap_flush_dirty(m, p, t, ST_P_OUT)
        return
    t.flush_folios[t.nr_flush] = t.folio
    t.nr_flush += 1
    if not m.flush_keeps:
        folio_unlock(m, t.folio)
    if t.nr_flush == BATCH or planned(t.plan_flush, k):
        t.b_ret = ST_S_NEXT
        t.step = ST_B_START
    else:
        t.step = ST_S_NEXT


# --- pageout and the dispatch of its result (patch 3)

cdef inline int dispatch(machine *m, task_t *t, Policies s, int result) except -1 nogil:
    """Ask the free slot what to do about a result of pageout(), and do it."""
    cdef int what = s.free.dispatch(result, m.folio[t.folio].flags), verdict
    if what == DO_ACTIVATE_LOCKED:
        verdict = ask_activation(m, t, s)
        activate_locked(m, t, verdict)
    elif what == DO_FREE:
        t.step = ST_S_FREE
    elif what == DO_KEEP:
        keep(m, t)
    else:
        keep_locked(m, t)
    return what

cdef inline int step_P_OUT(machine *m, cpu_t *p, task_t *t, Policies s) except -1 nogil:
    """pageout, up to the write"""
    cdef folio_t *q = &m.folio[t.folio]
    if q.refcount != 2 or not q.flags & PG_swapcache:
        dispatch(m, t, s, PAGE_KEEP)
        m.counter[CN_putback_refcount] += 1
        return 0
    q.flags = (q.flags & ~<uint32_t>PG_dirty) | PG_reclaim
    m.counter[CN_nr_vmscan_write] += 1
    t.step = ST_P_WRITE
    return 0

cdef inline bint zero_filled(const machine *m, const folio_t *q) noexcept nogil:
    """is_folio_zero_filled: so says Z of a page that is, with forks, in the folio's slot."""
    cdef int32_t vp
    cdef int i
    if not unlikely(m.w.forks):
        return q.vp >= 0 and m.pte[q.vp] & PTE_Z
    for i in range(2 if q.vp >= 0 else 0):
        vp = rmap_page(m, q, i)
        if vp >= 0 and pte_kind_of(m.pte[vp]) == PTE_SWAP and pte_index(m.pte[vp]) == q.slot:
            return m.pte[vp] & PTE_Z != 0
    return False

cdef inline void step_P_WRITE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """swap_writepage"""
    cdef folio_t *q = &m.folio[t.folio]
    t.step = ST_P_DISPATCH
    spend(m, TM_swap, m.w.cost[CO_pageout])
    if q.slot < 0:                 # only a strategy that gave the lock away gets here
        m.bad = 2
        m.turn = 1
    elif slot_maps(m, q.slot) == 0:
        folio_free_swap(m, t.folio)
        q.flags &= ~<uint32_t>PG_reclaim
        folio_unlock(m, t.folio)
    elif zero_filled(m, q):
        m.slot_count[q.slot] |= SLOT_ZERO
        m.counter[CN_swpout_zero] += 1
        q.flags &= ~<uint32_t>PG_reclaim
        folio_unlock(m, t.folio)
    else:
        m.slot_count[q.slot] &= ~SLOT_ZERO
        m.counter[CN_pswpout] += 1
        q.flags |= PG_writeback
        folio_unlock(m, t.folio)
        if m.w.swap_sync:
            spend(m, TM_swap, m.w.cost[CO_zram_write])
            t.step = ST_P_END
        else:
            t.step = ST_P_SUBMIT

cdef inline void step_P_SUBMIT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if plug_bio(m, p, t, m.folio[t.folio].slot):
        spend(m, TM_swap, m.w.cost[CO_io_submit])
        t.step = ST_P_DISPATCH

cdef inline void step_P_END(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """folio_end_writeback: isolated, so it misses the rotation"""
    m.folio[t.folio].flags &= ~<uint32_t>(PG_writeback | PG_reclaim)
    t.step = ST_P_DISPATCH

cdef inline int step_P_DISPATCH(machine *m, cpu_t *p, task_t *t, Policies s) except -1 nogil:
    if dispatch(m, t, s, PAGE_SUCCESS) == DO_FREE:
        folio_set(m, t.folio, PG_locked)
    t.nr_pageout += 1
    return 0

cdef inline int step_S_FREE(machine *m, cpu_t *p, task_t *t, Policies s) except -1 nogil:
    """__remove_mapping and the free_it label (patch 3's folio_free)"""
    cdef folio_t *q = &m.folio[t.folio]
    cdef int32_t slot = q.slot
    if (not q.flags & PG_swapcache or q.refcount != 2 or q.flags & PG_dirty
            or not s.free.free(q.flags)):
        keep_locked(m, t)
        return 0
    s.accounting.free(&t.reclaimed_local, &t.reclaimed_stat, 1)
    m.slot_entry[slot] = workingset_eviction(m, q)
    m.slot_count[slot] &= ~SLOT_HAS_CACHE
    if slot_maps(m, slot) == 0:
        slot_free(m, slot)
    q.refcount = 0
    q.flags &= ~<uint32_t>PG_swapcache
    q.slot = -1
    folio_unlock(m, t.folio)
    t.free_folios[t.nr_free] = t.folio
    t.nr_free += 1
    next_folio(t)
    if t.nr_free == BATCH:
        m.cg.usage -= BATCH
        t.freed_ret = t.step
        if t.ubc_required:
            m.counter[CN_flush_before_free_effective] += 1
            flush(m, p, t, -1, -1, ST_S_FREE_FLUSHED)
        else:
            t.step = ST_S_FREE_FLUSHED
    return 0

cdef inline void free_unref_folios(machine *m, task_t *t) noexcept nogil:
    cdef int i
    spend(m, TM_scan, m.w.cost[CO_free] * t.nr_free)
    for i in range(t.nr_free):
        free_frame(m, t.free_folios[i])
    t.nr_free = 0

cdef inline void step_S_FREE_FLUSHED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    free_unref_folios(m, t)
    t.folio = -1
    t.step = t.freed_ret

cdef inline void step_S_TAIL(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """patch 5: the remainder of the batch"""
    pay(m, t)
    t.step = ST_S_END
    if t.nr_flush > 0 and m.flush_remainder:
        t.b_ret = ST_S_END
        t.step = ST_B_START

cdef inline void step_S_END(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    t.nr_scanned += t.index
    m.counter[CN_pgactivate] += t.nr_activate
    m.cg.usage -= t.nr_free
    if t.ubc_required:
        m.counter[CN_flush_at_list_end_effective] += 1
        flush(m, p, t, -1, -1, ST_S_END_FLUSHED)
    else:
        t.step = ST_S_END_FLUSHED

cdef inline void step_S_END_FLUSHED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    free_unref_folios(m, t)
    t.step = ST_G_KEEP if m.w.lru else ST_I_PUT


# --- pageout_batch (patch 5)

cdef inline void batch_done(task_t *t) noexcept nogil:
    t.nr_flush = 0
    t.in_batch = 0
    t.b_i = 0
    t.b_w = 0
    t.folio = -1
    t.step = t.b_ret

cdef inline void step_B_START(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    m.counter[CN_flush_batches] += 1
    m.counter[CN_folios_batched] += t.nr_flush
    record(m, HI_flush_batch_size, t.nr_flush)
    t.in_batch = 1
    t.b_i = 0
    t.b_w = 0
    t.folio = -1
    if m.flush_keeps:
        t.b_w = t.nr_flush
        try_to_unmap_flush_dirty(m, p, t, ST_B_OUT)
    else:
        t.step = ST_B_LOCK

cdef inline bint recheck_fails(machine *m, const folio_t *q) noexcept nogil:
    if m.flush_rechecks & RECHECK_WRITEBACK and q.flags & PG_writeback:
        m.counter[CN_putback_writeback] += 1
    elif m.flush_rechecks & RECHECK_LRU and q.flags & PG_lru:
        m.counter[CN_putback_lru] += 1
    elif m.flush_rechecks & RECHECK_MAPPED and q.mapcount > 0:
        m.counter[CN_putback_mapped] += 1
    elif m.flush_rechecks & RECHECK_PINNED and q.refcount >= PIN_BIAS:
        m.counter[CN_putback_pinned] += 1
    else:
        return False
    return True

cdef inline void step_B_LOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """lock again and look again, one folio a step"""
    cdef int32_t f
    cdef folio_t *q
    if t.b_i == t.nr_flush:
        pay(m, t)
        if t.b_w == 0:
            batch_done(t)
        else:
            t.nr_flush = t.b_w
            t.b_i = 0
            try_to_unmap_flush_dirty(m, p, t, ST_B_OUT)
        return
    f = t.flush_folios[t.b_i]
    q = &m.folio[f]
    t.folio = f
    t.b_i += 1
    t.owed += m.w.cost[CO_relock]
    if q.flags & PG_locked:
        m.counter[CN_putback_locked] += 1
        fifo_push(m, &t.ret, f)
    else:
        q.flags |= PG_locked
        if recheck_fails(m, q):
            folio_unlock(m, f)
            fifo_push(m, &t.ret, f)
        else:
            t.flush_folios[t.b_w] = f
            t.b_w += 1

cdef inline void step_B_OUT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """pageout_one on the next folio of the batch"""
    if t.b_i == t.b_w:
        batch_done(t)
    else:
        t.folio = t.flush_folios[t.b_i]
        t.b_i += 1
        t.step = ST_P_OUT


# --- draining the per-CPU folio batches (mm/swap.c)

cdef inline void step_D_LOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int i
    cdef int32_t f
    cdef folio_t *q
    cdef int64_t n = 0
    if not lock_lru(m):
        return
    if t.d_which & 1:
        for i in range(p.nr_lru_add):
            q = &m.folio[p.lru_add[i]]
            q.flags |= PG_lru
            lruvec_add_folio(m, p.lru_add[i])
            folio_put(m, p.lru_add[i])
        n += p.nr_lru_add
        p.nr_lru_add = 0
    if t.d_which & 4:
        n += p.nr_lru_move_tail
        lru_move_tail(m, p)
    if t.d_which & 2:
        for i in range(p.nr_lru_activate):
            f = p.lru_activate[i]
            q = &m.folio[f]
            if q.flags & PG_lru and not q.flags & PG_active:
                lruvec_del_folio(m, f)
                q.flags |= PG_active
                lruvec_add_folio(m, f)
                m.counter[CN_pgactivate] += 1
                m.counter[CN_memcg_pgactivate] += 1
            folio_put(m, f)
        n += p.nr_lru_activate
        p.nr_lru_activate = 0
    spend(m, TM_scan, m.w.cost[CO_lru_lock] + m.w.cost[CO_lru_add] * n)
    t.step = ST_D_UNLOCK

cdef inline void step_D_UNLOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    unlock(m, &m.cg.lru_lock)
    t.step = t.d_ret
