# User accesses and the fault path (mm/memory.c, mm/gup.c; docs/model.md 5.1, 5.2, 5.10).

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.generations cimport folio_inc_refs
from reclaim._mm.tlb cimport *
from reclaim._mm.smp cimport flush
from reclaim._mm.sched cimport *
from reclaim._mm.swap cimport blk_mq_get_tag, submit_bio
from reclaim._mm.memcg cimport charge_start
from reclaim._mm.readahead cimport ra_reset, read_alone, swap_cache_hit
from reclaim._mm.program cimport *


# --- user accesses

cdef inline void task_dies(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    t.state = TASK_DEAD
    t.step = -1
    m.cg.nr_alive -= 1
    p.sstep = ST_SW_PICK
    m.turn = 1

cdef inline void complete(machine *m, task_t *t, const pass_t *a, int64_t think) noexcept nogil:
    cdef uint64_t *pte
    m.counter[CN_page_touches] += 1
    m.cg.touches_left -= 1
    t.touches += 1
    m.counter[CN_bogo_units] += a.units
    if t.write:
        pte = &m.pte[t.vp]
        if t.zero:
            pte[0] |= PTE_Z
        else:
            pte[0] &= ~<uint64_t>PTE_Z
    t.have = 0
    advance(t, a)
    spend(m, TM_user, think)

cdef inline void walk_cost(machine *m, cpu_t *p, int32_t vp) noexcept nogil:
    if vp >> 3 == p.walk_line:
        spend(m, TM_walk, m.w.cost[CO_walk_warm])
    else:
        p.walk_line = vp >> 3
        spend(m, TM_walk, m.w.cost[CO_walk_cold])

cdef inline void pmd_mkyoung(machine *m, const task_t *t) noexcept nogil:
    """The walk sets the accessed bit of the entry of the page-table page, too."""
    cdef region_t *r = pte_region(m, t.mm, t.vp)
    r.young |= r.present

cdef inline void step_TOUCH(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if resched_guard(m, p, t):
        return
    touch(m, p, t)
    if m.row_cost == 0:               # so that simulated time always passes
        spend(m, TM_user, 1)

cdef inline void touch(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef const pass_t *a
    cdef uint64_t *e
    cdef uint64_t *l1
    cdef uint64_t *l2
    cdef uint64_t tag, pte
    cdef int kind
    if t.dying:
        t.step = ST_E_ZAP
        return
    if t.pass_no < 0:
        task_dies(m, p, t)
        return
    a = task_pass(m, t)
    if a.kind == PASS_POPULATE:
        t.step = ST_POPULATE
        return
    if not t.have:
        take_access(m, t, a)
    tag = tlb_tag(p, t.vp)
    l1 = l1_of(m, m.c)
    l2 = l2_of(m, m.c)
    e = tlb_find(l1, m.w.l1_sets, m.w.l1_ways, t.vp, tag)
    if e != NULL:
        if not t.write or e[0] & 1:
            complete(m, t, a, a.think)
            return
    else:
        e = tlb_find(l2, m.w.l2_sets, m.w.l2_ways, t.vp, tag)
        if e != NULL and (not t.write or e[0] & 1):
            tlb_insert(l1, m.w.l1_sets, m.w.l1_ways, t.vp, e[0])
            spend(m, TM_walk, m.w.cost[CO_tlb_l2_hit])
            complete(m, t, a, a.think)
            return
    walk_cost(m, p, t.vp)
    if unlikely(m.w.lru):
        pmd_mkyoung(m, t)
    pte = m.pte[t.vp]
    kind = pte_kind_of(pte)
    if kind == PTE_PRESENT and (not t.write or pte & PTE_WRITE):
        pte |= PTE_YOUNG
        if t.write:
            pte |= PTE_DIRTY
    elif kind == PTE_ZERO and not t.write:
        pte |= PTE_YOUNG
    else:
        spend(m, TM_fault, m.w.cost[CO_fault_entry])
        t.step = ST_F_READ
        prefetch_slot(m, pte)
        return
    m.pte[t.vp] = pte
    tag |= (pte & PTE_DIRTY) != 0
    if e == NULL:
        tlb_insert(l2, m.w.l2_sets, m.w.l2_ways, t.vp, tag)
        tlb_insert(l1, m.w.l1_sets, m.w.l1_ways, t.vp, tag)
    else:                             # held, but not yet dirty
        tlb_fill(l2, m.w.l2_sets, m.w.l2_ways, t.vp, tag & ~<uint64_t>1, <int>(tag & 1))
        tlb_fill(l1, m.w.l1_sets, m.w.l1_ways, t.vp, tag & ~<uint64_t>1, <int>(tag & 1))
    complete(m, t, a, a.think)


# --- MADV_POPULATE_READ: the kernel reads every page of the range

cdef inline bint folio_mark_accessed(machine *m, cpu_t *p, int32_t f) noexcept nogil:
    """True if it filled the CPU's activate batch."""
    cdef folio_t *q = &m.folio[f]
    cdef int i
    if unlikely(m.w.lru):
        folio_inc_refs(q)
        return False
    if not q.flags & PG_referenced:
        q.flags |= PG_referenced
        return False
    if q.flags & PG_active:
        return False
    if q.flags & PG_lru:
        folio_activate(m, f)
    else:                          # __lru_cache_activate_folio
        for i in range(p.nr_lru_add - 1, -1, -1):
            if p.lru_add[i] == f:
                q.flags |= PG_active
                break
    q.flags &= ~<uint32_t>PG_referenced
    m.cg.nonresident_age += 1
    return p.nr_lru_activate == BATCH

cdef inline void next_access(machine *m, task_t *t) noexcept nogil:
    if t.pass_no >= 0 and task_pass(m, t).kind == PASS_POPULATE:
        t.step = ST_POPULATE
    else:
        t.step = ST_TOUCH

cdef inline void step_POPULATE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef const pass_t *a
    cdef bint full
    cdef uint64_t pte
    cdef int kind
    if resched_guard(m, p, t):
        return
    if t.dying:
        t.step = ST_E_ZAP
        return
    a = task_pass(m, t)
    t.vp = m.mm[t.mm].base + seq_page(a, t.pos)
    t.write = 0
    spend(m, TM_fault, m.w.cost[CO_gup_page] if m.w.cost[CO_gup_page] > 0 else 1)
    pte = m.pte[t.vp]
    kind = pte_kind_of(pte)
    if kind == PTE_PRESENT:
        full = folio_mark_accessed(m, p, pte_index(pte))
        advance(t, a)
        next_access(m, t)
        if full:
            drain(t, 2, ST_TOUCH)
    elif kind == PTE_ZERO:
        advance(t, a)
        next_access(m, t)
    else:
        t.step = ST_F_READ
        prefetch_slot(m, pte)
        prefetch_slot(m, m.pte[t.vp + 1 if t.vp + 1 < m.w.nr_vps else t.vp])


# --- faults

cdef inline void step_F_READ(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """handle_pte_fault"""
    cdef uint64_t pte = m.pte[t.vp]
    cdef int kind = pte_kind_of(pte)
    t.f_orig = pte
    t.f_old = -1
    t.f_pfn = -1
    t.f_cached = 0
    if not pte_region(m, t.mm, t.vp).present:
        t.step = ST_F_PT
    elif kind == PTE_PRESENT:
        t.step = ST_F_WP if t.write and not pte & PTE_WRITE else ST_F_DONE
    elif kind == PTE_NONE:
        t.f_kind = FAULT_ANON
        t.step = ST_F_ALLOC if t.write else ST_F_ZERO
    elif kind == PTE_ZERO:
        t.f_kind = FAULT_COPY
        t.step = ST_F_ALLOC if t.write else ST_F_DONE
    else:
        t.step = ST_F_CACHE

cdef inline void step_F_PT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    charge_start(t, 1, ST_F_PT_SET)

cdef inline void step_F_PT_SET(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if t.c_failed:
        t.step = ST_F_DONE
        return
    pte_region(m, t.mm, t.vp).present = 1
    m.cg.kernel += 1
    t.step = ST_F_READ

cdef inline void step_F_ZERO(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef qlock *ptl = &pte_region(m, t.mm, t.vp).ptl
    if not lock(m, ptl):
        return
    if m.pte[t.vp] == t.f_orig:
        m.pte[t.vp] = PTE_ZERO | PTE_YOUNG | PTE_Z
    unlock(m, ptl)
    spend(m, TM_fault, m.w.cost[CO_fault_zero])
    t.step = ST_F_DONE

cdef inline void step_F_ALLOC(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t f = alloc_frame(m)
    if f < 0:
        return                      # m.bad is set: the run stops here
    t.f_pfn = f
    charge_start(t, 1, ST_F_CHARGED)

cdef inline void step_F_CHARGED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if t.c_failed:
        free_frame(m, t.f_pfn)
        t.f_pfn = -1
        if t.f_old >= 0:
            folio_put(m, t.f_old)
            t.f_old = -1
        t.step = ST_F_DONE
    else:
        t.step = ST_F_PREPARE if t.f_kind == FAULT_SWAP else ST_F_FILL

cdef inline void step_F_FILL(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    spend(m, TM_fault, m.w.cost[CO_fault_anon])
    if t.f_old >= 0:
        spend(m, TM_fault, m.w.cost[CO_page_copy])
    t.step = ST_F_MAP if t.f_kind == FAULT_ANON else ST_F_WP_CLEAR

cdef inline bint map_new_folio(machine *m, task_t *t) noexcept nogil:
    """A dirty exclusive mapping of f_pfn, on its way to the LRU; true if the batch is full."""
    cdef folio_t *q = &m.folio[t.f_pfn]
    m.pte[t.vp] = pte_make(PTE_PRESENT, t.f_pfn, PTE_YOUNG | PTE_DIRTY | PTE_WRITE | PTE_EXCL
                           | (m.pte[t.vp] & PTE_Z))
    q.vp = t.vp
    q.mm = t.mm
    q.mapcount = 1
    return folio_add_lru(m, t.f_pfn)

cdef inline void step_F_MAP(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef qlock *ptl = &pte_region(m, t.mm, t.vp).ptl
    cdef bint full
    if not lock(m, ptl):
        return
    if m.pte[t.vp] != t.f_orig:
        unlock(m, ptl)
        folio_put(m, t.f_pfn)
        t.step = ST_F_DONE
        return
    full = map_new_folio(m, t)
    m.mm[t.mm].rss += 1
    unlock(m, ptl)
    if full:
        drain(t, 1, ST_F_DONE)
    else:
        t.step = ST_F_DONE

cdef inline void wp_copy(machine *m, task_t *t, qlock *ptl) noexcept nogil:
    m.folio[t.f_old].refcount += 1
    unlock(m, ptl)
    t.f_kind = FAULT_COPY
    t.step = ST_F_ALLOC

cdef inline void wp_page_reuse(machine *m, task_t *t, qlock *ptl) noexcept nogil:
    m.pte[t.vp] |= PTE_WRITE | PTE_DIRTY | PTE_YOUNG
    m.counter[CN_pgreuse] += 1
    unlock(m, ptl)
    t.f_old = -1
    t.step = ST_F_DONE

cdef inline void step_F_WP(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """do_wp_page; the page-table lock stays held on the way to F_WP_REUSE"""
    cdef qlock *ptl = &pte_region(m, t.mm, t.vp).ptl
    cdef uint64_t pte
    if not lock(m, ptl):
        return
    pte = m.pte[t.vp]
    if not pte_present(pte) or pte & PTE_WRITE:
        unlock(m, ptl)
        t.step = ST_F_DONE
        return
    t.f_old = pte_index(pte)
    t.f_orig = pte
    if pte & PTE_EXCL:
        wp_page_reuse(m, t, ptl)
    elif m.folio[t.f_old].refcount > 3:
        wp_copy(m, t, ptl)
    elif not folio_test(m, t.f_old, PG_lru):
        drain_all(m, t, ST_F_WP_REUSE)
    else:
        t.step = ST_F_WP_REUSE

cdef inline void step_F_WP_REUSE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """wp_can_reuse_anon_folio"""
    cdef qlock *ptl = &pte_region(m, t.mm, t.vp).ptl
    cdef folio_t *q = &m.folio[t.f_old]
    cdef bint reuse = False
    cdef int cached = 1 if q.flags & PG_swapcache else 0
    if q.refcount <= 1 + cached and not q.flags & PG_locked:
        q.flags |= PG_locked
        if cached:
            folio_free_swap(m, t.f_old)
        reuse = q.refcount == 1
        folio_unlock(m, t.f_old)
    if reuse:
        m.pte[t.vp] |= PTE_EXCL
        wp_page_reuse(m, t, ptl)
    else:
        wp_copy(m, t, ptl)

cdef inline void step_F_WP_CLEAR(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef qlock *ptl = &pte_region(m, t.mm, t.vp).ptl
    if not lock(m, ptl):
        return
    if m.pte[t.vp] != t.f_orig:
        unlock(m, ptl)
        folio_put(m, t.f_pfn)
        if t.f_old >= 0:
            folio_put(m, t.f_old)
        t.f_old = -1
        t.step = ST_F_DONE
        return
    m.pte[t.vp] &= PTE_Z
    flush(m, p, t, t.mm, t.vp, ST_F_WP_SET)

cdef inline void step_F_WP_SET(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef qlock *ptl = &pte_region(m, t.mm, t.vp).ptl
    cdef bint full = map_new_folio(m, t)
    cdef folio_t *old
    if t.f_old >= 0:
        old = &m.folio[t.f_old]
        old.mapcount -= 1
        old.refcount -= 1
        unlock(m, ptl)
        if old.flags & PG_swapcache and old.mapcount == 0 and not old.flags & PG_locked:
            folio_free_swap(m, t.f_old)
        folio_put(m, t.f_old)
        t.f_old = -1
    else:
        m.mm[t.mm].rss += 1
        unlock(m, ptl)
    if full:
        drain(t, 1, ST_F_DONE)
    else:
        t.step = ST_F_DONE

cdef inline void step_F_CACHE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """do_swap_page: swap_cache_get_folio"""
    cdef uint64_t entry = m.slot_entry[pte_index(t.f_orig)]
    if slot_is_folio(entry):
        t.f_pfn = <int32_t>(entry >> 2)
        m.folio[t.f_pfn].refcount += 1
        t.f_cached = 1
        if not m.w.swap_sync:
            swap_cache_hit(m, t, t.f_pfn)
        t.step = ST_F_LOCK
    elif m.w.swap_sync:
        read_alone(t)
    else:
        t.step = ST_F_RA_WIN

cdef inline void step_F_PREPARE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t s = pte_index(t.f_orig)
    if m.pte[t.vp] != t.f_orig or m.slot_count[s] & SLOT_HAS_CACHE:
        folio_put(m, t.f_pfn)
        t.f_pfn = -1
        t.step = ST_F_READ
        return
    swapcache_prepare(m, t.f_pfn, s, t.mm, t.vp)
    m.counter[CN_pgmajfault] += 1
    if m.w.swapin_cached or not m.w.swap_sync:
        t.f_cached = not m.w.swap_sync
        add_to_swap_cache(m, t.f_pfn, s)
    if folio_add_lru(m, t.f_pfn):
        drain(t, 1, ST_F_SWAP_READ)
    else:
        t.step = ST_F_SWAP_READ

cdef inline void step_F_SWAP_READ(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """swap_read_folio"""
    if m.slot_count[pte_index(t.f_orig)] & SLOT_ZERO:
        m.counter[CN_swpin_zero] += 1
        spend(m, TM_swap, m.w.cost[CO_page_zero])
        if not m.w.swap_sync:
            folio_unlock(m, t.f_pfn)
            t.step = ST_F_LOCK
            return
    else:
        m.counter[CN_pswpin] += 1
        if not m.w.swap_sync:
            t.step = ST_F_SUBMIT
            return
        spend(m, TM_swap, m.w.cost[CO_zram_read])
    spend(m, TM_fault, m.w.cost[CO_fault_swap])
    t.step = ST_F_SWAP_MAP

cdef inline void step_F_SUBMIT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if blk_mq_get_tag(m, p, t):
        submit_bio(m, p, t.f_pfn)
        spend(m, TM_swap, m.w.cost[CO_io_submit])
        t.step = ST_F_LOCK

cdef inline void step_F_LOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """folio_lock_or_retry: a fault that waits starts again from the PTE"""
    if not folio_test(m, t.f_pfn, PG_locked):
        folio_set(m, t.f_pfn, PG_locked)
        t.step = ST_F_RECHECK
        return
    m.counter[CN_lock_waits] += 1
    t.step = ST_F_RETRY
    folio_wait(m, p, t, t.f_pfn, 0)

cdef inline void step_F_RETRY(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """VM_FAULT_RETRY"""
    folio_put(m, t.f_pfn)
    t.f_pfn = -1
    t.step = ST_F_READ

cdef inline void step_F_RECHECK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef folio_t *q = &m.folio[t.f_pfn]
    spend(m, TM_fault, m.w.cost[CO_fault_swap])
    if not q.flags & PG_swapcache or q.slot != pte_index(t.f_orig):
        folio_unlock(m, t.f_pfn)
        folio_put(m, t.f_pfn)
        t.step = ST_F_DONE
    elif t.write and not q.flags & PG_lru:
        drain_all(m, t, ST_F_SWAP_MAP)
    else:
        t.step = ST_F_SWAP_MAP

cdef inline void swap_free(machine *m, task_t *t, folio_t *q, int32_t s) noexcept nogil:
    """The PTE's reference to the slot goes; then the cache's, where 5.2 says so."""
    m.slot_count[s] -= 1
    if not t.f_cached and not m.w.swapin_cached:
        q.slot = -1
        m.slot_entry[s] = 0
        m.slot_count[s] &= ~SLOT_HAS_CACHE
        if slot_maps(m, s) == 0:
            slot_free(m, s)
    elif m.w.swapin_cached or swap_full(m) or (t.write and q.refcount == 2):
        folio_free_swap(m, t.f_pfn)

cdef inline void step_F_SWAP_MAP(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef qlock *ptl = &pte_region(m, t.mm, t.vp).ptl
    cdef folio_t *q = &m.folio[t.f_pfn]
    cdef uint64_t pte
    cdef bint excl
    if not lock(m, ptl):
        return
    if m.pte[t.vp] != t.f_orig:
        unlock(m, ptl)
        folio_unlock(m, t.f_pfn)
        folio_put(m, t.f_pfn)
        t.step = ST_F_DONE
        return
    excl = (t.f_orig & PTE_EXCL) != 0
    if not t.f_cached:
        excl = True
    elif q.flags & PG_writeback and m.w.swap_sync:      # zram: SWP_STABLE_WRITES
        excl = False
    swap_free(m, t, q, pte_index(t.f_orig))
    pte = pte_make(PTE_PRESENT, t.f_pfn, PTE_YOUNG | (t.f_orig & PTE_Z))
    if excl or q.refcount == 1:
        pte |= PTE_EXCL | PTE_WRITE
        if t.write:
            pte |= PTE_DIRTY
    m.pte[t.vp] = pte
    q.vp = t.vp
    q.mm = t.mm
    q.mapcount = 1
    m.mm[t.mm].rss += 1
    m.mm[t.mm].swapents -= 1
    unlock(m, ptl)
    folio_unlock(m, t.f_pfn)
    t.step = ST_F_WP if t.write and not pte & PTE_WRITE else ST_F_DONE

cdef inline void step_F_DONE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    m.counter[CN_pgfault] += 1
    t.f_pfn = -1
    next_access(m, t)


# --- exit of an OOM victim

cdef inline void step_E_ZAP(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef mm_t *mm = &m.mm[t.mm]
    cdef region_t *r
    cdef int32_t vp, f, s
    cdef uint64_t pte
    cdef int kind
    cdef int64_t n = 0
    t.have = 0
    if unlikely(m.w.lru):
        mm.lru_gen |= MM_GONE
    while t.zap < mm.nr_regions and not m.region[mm.first_region + t.zap].present:
        t.zap += 1
    if t.zap == mm.nr_regions:
        t.step = ST_E_DONE
        return
    r = &m.region[mm.first_region + t.zap]
    if not lock(m, &r.ptl):
        return
    for vp in range(mm.base + t.zap * PTRS_PER_PTE,
                    mm.base + min(mm.nr_pages, (t.zap + 1) * PTRS_PER_PTE)):
        pte = m.pte[vp]
        kind = pte_kind_of(pte)
        if kind == PTE_NONE:
            continue
        n += 1
        if kind == PTE_PRESENT:
            f = pte_index(pte)
            if pte & PTE_DIRTY:
                folio_set(m, f, PG_dirty)
            m.folio[f].mapcount -= 1
            mm.rss -= 1
            m.pte[vp] = pte_make(PTE_ZAPPED, f, 0)
        elif kind == PTE_SWAP:
            s = pte_index(pte)
            m.slot_count[s] -= 1
            mm.swapents -= 1
            m.pte[vp] = 0
            if slot_maps(m, s) == 0:
                if slot_is_folio(m.slot_entry[s]):
                    f = <int32_t>(m.slot_entry[s] >> 2)
                    if m.folio[f].mapcount == 0 and not folio_test(m, f, PG_locked):
                        m.folio[f].refcount += 1          # __try_to_reclaim_swap
                        folio_free_swap(m, f)
                        folio_put(m, f)
                elif not m.slot_count[s] & SLOT_HAS_CACHE:
                    slot_free(m, s)
        else:
            m.pte[vp] = 0
    spend(m, TM_fault, m.w.cost[CO_zap_pte] * n)
    flush(m, p, t, t.mm, -1, ST_E_FREE)

cdef inline void step_E_FREE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef mm_t *mm = &m.mm[t.mm]
    cdef int32_t vp, f
    if not lock_lru(m):
        return
    for vp in range(mm.base + t.zap * PTRS_PER_PTE,
                    mm.base + min(mm.nr_pages, (t.zap + 1) * PTRS_PER_PTE)):
        if pte_kind_of(m.pte[vp]) != PTE_ZAPPED:
            continue
        f = pte_index(m.pte[vp])
        m.pte[vp] = 0
        if (folio_test(m, f, PG_swapcache) and m.folio[f].mapcount == 0
                and not folio_test(m, f, PG_locked)):
            folio_free_swap(m, f)
        folio_put(m, f)
    t.step = ST_E_UNLOCK

cdef inline void step_E_UNLOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef region_t *r = &m.region[m.mm[t.mm].first_region + t.zap]
    unlock(m, &m.cg.lru_lock)
    unlock(m, &r.ptl)
    r.present = 0
    r.young = 0
    r.filter = 0
    m.cg.kernel -= 1
    m.cg.usage -= 1
    t.zap += 1
    t.step = ST_E_ZAP

cdef inline void step_E_DONE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    t.zap = 0
    t.dying = 0
    m.cg.nr_dying -= 1
    if t.restart:
        m.counter[CN_restarts] += 1
        t.pass_no = 0
        t.pos = 0
        ra_reset(&m.mm[t.mm])
        m.mm[t.mm].lru_gen = MM_USED | MM_FRESH if m.w.lru else 0
        t.step = ST_TOUCH
    else:
        task_dies(m, p, t)
