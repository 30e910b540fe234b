# User accesses and the fault path (mm/memory.c, mm/gup.c; docs/model.md 5.1, 5.2, 5.10; 5.12 is in
# mmap.pxd).

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.generations cimport folio_inc_refs
from reclaim._mm.tlb cimport *
from reclaim._mm.smp cimport flush, flush_range, flush_tlb_batched_pending
from reclaim._mm.sched cimport *
from reclaim._mm.blk cimport submit_bio
from reclaim._mm.swap cimport blk_mq_get_tag
from reclaim._mm.memcg cimport charge_start
from reclaim._mm.readahead cimport ra_reset, read_alone, swap_cache_hit
from reclaim._mm.program cimport *


# --- user accesses

cdef inline void task_dies(machine *m, task_t *t) noexcept nogil:
    t.state = TASK_DEAD
    t.step = -1
    m.cg.nr_alive -= 1

cdef inline void leave_mm(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """Of the killed tasks of an mm the last one takes it down; the others are gone."""
    t.have = 0
    m.mm[t.mm].users -= 1
    if m.mm[t.mm].users == 0:
        t.step = ST_E_ZAP
    else:
        t.step = ST_E_LEFT
        block(m, p, t)

cdef inline void complete(machine *m, task_t *t, const pass_t *a, int64_t think) noexcept nogil:
    cdef uint64_t *pte
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

cdef inline int32_t call_row(const pass_t *a) noexcept nogil:
    if a.kind == PASS_POPULATE:
        return ST_POPULATE
    return ST_DONTNEED if a.kind == PASS_DONTNEED else ST_V_CALL

cdef inline void step_TOUCH(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if resched_guard(m, p, t):
        return
    touch(m, p, t)
    if m.row_cost == 0:               # so that simulated time always passes
        spend(m, TM_user, 1)

cdef inline void touch(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef const pass_t *a
    if t.dying:
        leave_mm(m, p, t)
        return
    if t.pass_no < 0:
        m.mm[t.mm].users -= 1
        task_dies(m, t)
        p.sstep = ST_SW_PICK
        m.turn = 1
        return
    a = task_pass(m, t)
    if by_the_kernel(a):
        t.step = call_row(a)
        return
    if touch_page(m, p, t, a, NULL):
        prefetch_pte(m, t, a, PREFETCH_TURN)
        count_touches(m, t, a, 1)

cdef inline void page_fault(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    walk_cost(m, p, t.vp)
    if unlikely(m.w.lru):
        pmd_mkyoung(m, t)
    spend(m, TM_fault, m.w.cost[CO_fault_entry])
    t.step = ST_F_READ
    prefetch_slot(m, m.pte[t.vp])

cdef inline bint walk_finds(uint64_t pte, bint write) noexcept nogil:
    """Does the page walk end without a fault?"""
    cdef int kind = pte_kind_of(pte)
    return (kind == PTE_PRESENT and (not write or pte & PTE_WRITE)) or (kind == PTE_ZERO and not write)

cdef inline bint touch_page(machine *m, cpu_t *p, task_t *t, const pass_t *a, walk_t *w) noexcept nogil:
    """An access; false if it is not completed, for it faults.  With `w` it is made ahead: what it changes goes
    there, and one that faults, or sets the D of a TLB entry, is not made."""
    cdef uint64_t *e = NULL
    cdef uint64_t *l1
    cdef uint64_t *l2
    cdef uint64_t tag, pte, lost
    if not t.have:
        take_access(m, t, a)
    tag = tlb_tag(p, t.vp)
    l1 = l1_set(m, m.c, t.vp)
    l2 = l2_set(m, m.c, t.vp)
    if w != NULL:
        w.vp = t.vp
        w.pte = m.pte[t.vp]
    if m.run[m.c].missed != tag | 1:  # a touch that faulted is tried again, and misses again
        e = tlb_find(l1, m.w.l1_ways, tag)
        if e != NULL:
            if not t.write or e[0] & 1:
                complete(m, t, a, a.think)
                return True
        else:
            e = tlb_find_rare(l2, m.w.l2_ways, tag)
            if e == NULL:
                m.run[m.c].missed = tag | 1
            elif not t.write or e[0] & 1:
                lost = tlb_insert(l1, m.w.l1_ways, e[0])
                if w != NULL:
                    w.filled = FILLED_L1
                    w.l1_lost = lost
                spend(m, TM_walk, m.w.cost[CO_tlb_l2_hit])
                complete(m, t, a, a.think)
                return True
    pte = m.pte[t.vp]
    if not walk_finds(pte, t.write) or (w != NULL and e != NULL):
        if w == NULL:
            page_fault(m, p, t)
        return False
    walk_cost(m, p, t.vp)
    if unlikely(m.w.lru):
        pmd_mkyoung(m, t)
    pte |= PTE_YOUNG | (PTE_DIRTY if t.write else 0)
    m.pte[t.vp] = pte
    tag |= (pte & (PTE_DIRTY | PTE_WRITE)) == (PTE_DIRTY | PTE_WRITE)
    m.run[m.c].missed = 0
    if e != NULL:                     # held, but not yet dirty
        tlb_fill(l2, m.w.l2_ways, tag)
        tlb_fill(l1, m.w.l1_ways, tag)
    else:
        lost = tlb_insert(l2, m.w.l2_ways, tag)
        if w != NULL:
            w.l2_lost = lost
        lost = tlb_insert(l1, m.w.l1_ways, tag)
        if w != NULL:
            w.l1_lost = lost
            w.filled = FILLED_L1 | FILLED_L2
    complete(m, t, a, a.think)
    return True


# --- touches ahead (program.pxd)

cdef inline bint walk_ahead(machine *m, cpu_t *p, task_t *t, const pass_t *a, walk_t *w) noexcept nogil:
    """The task's next touch, if it may be made ahead."""
    w.start = p.clock
    w.walk = m.times[TM_walk]
    w.rng = t.rng
    w.last_vp = t.vp
    w.walk_line = p.walk_line
    w.last_write = t.write
    w.last_zero = t.zero
    w.filled = 0
    prefetch_pte(m, t, a, PREFETCH_RUN)
    if touch_page(m, p, t, a, w):
        if p.clock == w.start:
            spend(m, TM_user, 1)
        w.walk = m.times[TM_walk] - w.walk
        return True
    t.have = 0
    t.rng = w.rng
    t.vp = w.last_vp
    t.write = w.last_write
    t.zero = w.last_zero
    return False

cdef inline int32_t walks_ahead(machine *m, cpu_t *p, task_t *t, const pass_t *a, int64_t room) noexcept nogil:
    """Touches of whatever kind, up to one that faults; how many."""
    cdef int64_t at = run_end(m, p)
    cdef walk_t *w = m.walk + <int64_t>m.c * WALK_MAX
    cdef int32_t n = 0
    if m.nr_reclaiming > 0 or m.w.lru:          # a walk also sets `young` of a region
        return 0
    room = min(room, WALK_MAX)
    while n < room and p.clock < at and t.pos + 1 < a.count and walk_ahead(m, p, t, a, w + n):
        n += 1
    if n > 0:
        count_touches(m, t, a, n)
        note_walker(m)
    return n

cdef inline int32_t touches_ahead(machine *m, cpu_t *p, task_t *t, int64_t room) noexcept nogil:
    """After a touch: make at most `room` more; how many."""
    cdef run_t *r = &m.run[m.c]
    cdef const pass_t *a
    if not may_run(p, t):
        return 0
    a = task_pass(m, t)
    if by_the_kernel(a) or m.mm[t.mm].shared:
        return 0
    room = min(room, max(r.limit, RUN_MIN))
    r.nr = hits_ahead(m, p, t, a, room)
    r.walked = r.nr == 0
    if r.walked:
        r.nr = walks_ahead(m, p, t, a, room)
    if r.nr == 0:
        r.patience = min(2 * r.patience + 1, PATIENCE_MAX)
        r.hold = r.patience
    else:
        r.patience = 0
        r.limit = run_limit(r.nr)
        m.touches_ahead += r.nr
    return r.nr


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
        leave_mm(m, p, t)
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


cdef inline void step_DONTNEED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """madvise(MADV_DONTNEED) of the pass's range: the rows of an exit, of these pages"""
    if resched_guard(m, p, t):
        return
    if t.dying:
        leave_mm(m, p, t)
        return
    t.call = PASS_DONTNEED
    t.zap = <int32_t>(task_pass(m, t).first // PTRS_PER_PTE)
    spend(m, TM_fault, m.w.cost[CO_fault_entry] if m.w.cost[CO_fault_entry] > 0 else 1)
    t.step = ST_E_ZAP


# --- faults

cdef inline bint pte_same(const machine *m, const task_t *t) noexcept nogil:
    """The PTE is what the fault began with; what belongs to its page, Z and RO, is not part of it."""
    return (m.pte[t.vp] ^ t.f_orig) & ~PTE_PAGE == 0

cdef inline void bad_area_access_error(machine *m, task_t *t) noexcept nogil:
    """SIGSEGV; the program's handler returns, and the write is tried again."""
    mmap_unlock(m, t)
    spend(m, TM_fault, m.w.cost[CO_fault_entry])
    t.step = ST_TOUCH

cdef inline void step_F_READ(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """handle_pte_fault"""
    cdef uint64_t pte
    cdef int kind
    if unlikely(m.mm[t.mm].locks) and not mmap_lock(m, p, t, MMAP_READ):
        return
    pte = m.pte[t.vp]
    kind = pte_kind_of(pte)
    if unlikely(pte >= PTE_RO):
        if t.write:
            bad_area_access_error(m, t)
            return
        pte &= ~PTE_RO
    if kind == PTE_ZAPPED:                # cleared, under the page-table lock
        pte = 0
        kind = PTE_NONE
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
    t.step = ST_F_READ
    if pte_region(m, t.mm, t.vp).present:        # another thread was first
        m.cg.usage -= 1
        return
    pte_region(m, t.mm, t.vp).present = 1
    m.cg.kernel += 1

cdef inline void step_F_ZERO(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef qlock *ptl = &pte_region(m, t.mm, t.vp).ptl
    if not lock(m, ptl):
        return
    if pte_same(m, t):
        m.pte[t.vp] = PTE_ZERO | PTE_YOUNG | PTE_Z | (m.pte[t.vp] & PTE_RO)
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
        t.step = ST_F_PREPARE if t.f_kind >= FAULT_SWAP else ST_F_FILL

cdef inline void step_F_FILL(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    spend(m, TM_fault, m.w.cost[CO_fault_anon])
    if t.f_old >= 0:
        spend(m, TM_fault, m.w.cost[CO_page_copy])
    t.step = ST_F_MAP if t.f_kind == FAULT_ANON else ST_F_WP_CLEAR

cdef inline bint map_new_folio(machine *m, task_t *t) noexcept nogil:
    """A dirty exclusive mapping of f_pfn, on its way to the LRU; true if the batch is full."""
    cdef folio_t *q = &m.folio[t.f_pfn]
    m.pte[t.vp] = pte_make(PTE_PRESENT, t.f_pfn, PTE_YOUNG | PTE_DIRTY | PTE_WRITE | PTE_EXCL
                           | (m.pte[t.vp] & PTE_PAGE))
    q.vp = t.vp
    q.mm = t.mm
    q.mapcount = 1
    return folio_add_lru(m, t.f_pfn)

cdef inline void step_F_MAP(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef qlock *ptl = &pte_region(m, t.mm, t.vp).ptl
    cdef bint full
    if not lock(m, ptl):
        return
    if not pte_same(m, t):
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
    if not pte_same(m, t):
        unlock(m, ptl)
        folio_put(m, t.f_pfn)
        if t.f_old >= 0:
            folio_put(m, t.f_old)
        t.f_old = -1
        t.step = ST_F_DONE
        return
    m.pte[t.vp] &= PTE_PAGE
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
    cdef int32_t f = swap_cache_folio(m, pte_index(t.f_orig))
    if f >= 0:
        t.f_pfn = f
        m.folio[f].refcount += 1
        t.f_cached = 1
        if not m.w.swap_sync:
            swap_cache_hit(m, t, t.f_pfn)
        t.step = ST_F_LOCK
    elif m.w.swap_sync:
        read_alone(m, t)
    else:
        t.step = ST_F_CL_WIN if m.w.rotational else ST_F_RA_WIN

cdef inline void lose_slot(machine *m, cpu_t *p, task_t *t, bint same) noexcept nogil:
    """Another thread reads the page, or has: wait for it where its folio cannot be found."""
    if m.w.swap_sync and not m.w.swapin_cached and t.f_kind == FAULT_SWAP:
        m.counter[CN_swapcache_waits] += 1
        t.step = ST_F_BACKOFF
        # one jiffy, which the timer wheel rounds up
        schedule_timeout(m, p, t, SLEEP_SWAPCACHE, (m.now // m.w.tick + 2) * m.w.tick)
        return
    folio_put(m, t.f_pfn)
    t.f_pfn = -1
    t.step = ST_F_TARGET if same else ST_F_DONE

cdef inline void step_F_BACKOFF(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    folio_put(m, t.f_pfn)
    t.f_pfn = -1
    t.step = ST_F_DONE

cdef inline void step_F_PREPARE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t s = pte_index(t.f_orig)
    cdef bint same = pte_same(m, t)
    if not same or m.slot_count[s] & SLOT_HAS_CACHE:
        lose_slot(m, p, t, same)
        return
    swapcache_prepare(m, t.f_pfn, s, t.mm, t.vp)
    m.counter[CN_pgmajfault] += 1
    if m.w.swapin_cached or not m.w.swap_sync or t.f_kind == FAULT_SHARED:
        t.f_cached = not m.w.swap_sync or t.f_kind == FAULT_SHARED
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
    if unlikely(t.f_kind == FAULT_SHARED):
        folio_unlock(m, t.f_pfn)
        t.step = ST_F_LOCK
        return
    spend(m, TM_fault, m.w.cost[CO_fault_swap])
    t.step = ST_F_SWAP_MAP

cdef inline void step_F_SUBMIT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if blk_mq_get_tag(m, p, t):
        submit_bio(m, p, m.folio[t.f_pfn].slot)
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
    if unlikely(t.mmap):              # release_fault_lock
        mmap_unlock(m, t)
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

cdef inline bint reads_directly(const machine *m, const task_t *t) noexcept nogil:
    """The fault read its page past the swap cache and pins the slot."""
    return not t.f_cached and not m.w.swapin_cached

cdef inline void swapcache_clear(machine *m, folio_t *q, int32_t s) noexcept nogil:
    q.slot = -1
    m.slot_entry[s] = 0
    m.slot_count[s] &= ~SLOT_HAS_CACHE
    if slot_maps(m, s) == 0:
        slot_free(m, s)

cdef inline void swap_free(machine *m, task_t *t, folio_t *q, int32_t s) noexcept nogil:
    """The PTE's reference to the slot goes; then the cache's, where 5.2 says so."""
    m.slot_count[s] -= 1
    if reads_directly(m, t):
        swapcache_clear(m, q, s)
    elif m.w.swapin_cached or swap_full(m) or (t.write and q.refcount == 2):
        folio_free_swap(m, t.f_pfn)

cdef inline void step_F_SWAP_MAP(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef qlock *ptl = &pte_region(m, t.mm, t.vp).ptl
    cdef folio_t *q = &m.folio[t.f_pfn]
    cdef uint64_t pte
    cdef bint excl, direct = reads_directly(m, t)
    if not lock(m, ptl):
        return
    if not pte_same(m, t):
        unlock(m, ptl)
        if direct:
            swapcache_clear(m, q, pte_index(t.f_orig))
        folio_unlock(m, t.f_pfn)
        folio_put(m, t.f_pfn)
        t.step = ST_F_DONE
        if direct:
            wake_up(m, SLEEP_SWAPCACHE)
        return
    excl = (t.f_orig & PTE_EXCL) != 0
    if not t.f_cached:
        excl = True
    elif q.flags & PG_writeback and m.w.swap_sync:      # zram: SWP_STABLE_WRITES
        excl = False
    swap_free(m, t, q, pte_index(t.f_orig))
    pte = pte_make(PTE_PRESENT, t.f_pfn, PTE_YOUNG | (m.pte[t.vp] & PTE_PAGE))
    if excl or q.refcount == 1:
        pte |= PTE_EXCL if pte >= PTE_RO else PTE_EXCL | PTE_WRITE
        if t.write:
            pte |= PTE_DIRTY
    m.pte[t.vp] = pte
    q.vp = t.vp
    q.mm = t.mm
    q.mapcount += 1
    m.mm[t.mm].rss += 1
    m.mm[t.mm].swapents -= 1
    unlock(m, ptl)
    folio_unlock(m, t.f_pfn)
    if direct:
        wake_up(m, SLEEP_SWAPCACHE)
    t.step = ST_F_WP if t.write and not pte & PTE_WRITE else ST_F_DONE

cdef inline void step_F_DONE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    m.counter[CN_pgfault] += 1
    t.f_pfn = -1
    if unlikely(t.mmap):
        mmap_unlock(m, t)
    next_access(m, t)


# --- exit of an OOM victim; MADV_DONTNEED, and what munmap and mremap zap

cdef inline bint gathers(const task_t *t) noexcept nogil:
    """The task's zap is of an mmu_gather: munmap, mremap."""
    return t.call > PASS_DONTNEED

cdef inline int32_t call_first(const machine *m, const task_t *t) noexcept nogil:
    """The first page of what the task's call changes now: of its destination, if it unmaps that."""
    cdef const pass_t *a = task_pass(m, t)
    return <int32_t>a.first + (a.stride if t.call == PASS_MREMAP and t.phase == 0 else 0)

cdef inline int32_t call_end(const machine *m, const task_t *t) noexcept nogil:
    return call_first(m, t) + <int32_t>task_pass(m, t).nr

cdef inline int32_t zap_end(machine *m, const task_t *t) noexcept nogil:
    """The end of what is zapped, in pages of the mm."""
    return call_end(m, t) if t.call else m.mm[t.mm].nr_pages

cdef inline int32_t zap_end_region(machine *m, const task_t *t) noexcept nogil:
    return (zap_end(m, t) + PTRS_PER_PTE - 1) // PTRS_PER_PTE

cdef inline int32_t zap_from(machine *m, const task_t *t, int32_t region) noexcept nogil:
    """The first page of the mm's region that is zapped, ..."""
    return m.mm[t.mm].base + max(call_first(m, t) if t.call else 0, region * PTRS_PER_PTE)

cdef inline int32_t zap_to(machine *m, const task_t *t, int32_t region) noexcept nogil:
    """... and the end of them."""
    return m.mm[t.mm].base + min(zap_end(m, t), (region + 1) * PTRS_PER_PTE)

cdef inline region_t *region_of(machine *m, const task_t *t, int32_t region) noexcept nogil:
    return &m.region[m.mm[t.mm].first_region + region]

cdef inline region_t *zap_region(machine *m, const task_t *t) noexcept nogil:
    return region_of(m, t, t.zap)

cdef inline void step_E_ZAP(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """zap_pte_range"""
    cdef int32_t end = zap_end_region(m, t)
    if unlikely(m.w.lru) and not t.call:
        m.mm[t.mm].lru_gen |= MM_GONE
    if t.call == PASS_DONTNEED and not mmap_lock(m, p, t, MMAP_READ):
        return
    while t.zap < end and not zap_region(m, t).present:
        t.zap += 1
    if t.zap >= end:
        t.step = ST_V_TABLES if gathers(t) else ST_E_DONE
    elif lock(m, &zap_region(m, t).ptl) and not flush_tlb_batched_pending(m, p, t, ST_E_PTES):
        step_E_PTES(m, p, t)

cdef inline void zap_swap(machine *m, int32_t s) noexcept nogil:
    """free_swap_and_cache"""
    cdef int32_t f
    m.slot_count[s] -= 1
    if slot_maps(m, s) > 0:
        return
    if slot_is_folio(m.slot_entry[s]):
        f = <int32_t>(m.slot_entry[s] >> 2)
        if m.folio[f].mapcount == 0 and not folio_test(m, f, PG_locked):
            m.folio[f].refcount += 1          # __try_to_reclaim_swap
            folio_free_swap(m, f)
            folio_put(m, f)
    elif not m.slot_count[s] & SLOT_HAS_CACHE:
        slot_free(m, s)

cdef inline void gather_page(machine *m, task_t *t, int32_t vp) noexcept nogil:
    """tlb_flush_pte_range: the page is among those to be flushed."""
    vp -= m.mm[t.mm].base
    if t.v_hi == 0 or vp < t.v_lo:
        t.v_lo = vp
    if vp >= t.v_hi:
        t.v_hi = vp + 1

cdef inline void gather_done(machine *m, cpu_t *p, task_t *t, bint full) noexcept nogil:
    """The end of zap_pte_range; a full gather is flushed before the lock goes."""
    if full:
        flush_range(m, p, t, t.v_lo, t.v_hi, False, ST_V_FULL)
        return
    unlock(m, &zap_region(m, t).ptl)
    t.zap += 1
    t.v_next = ST_E_ZAP
    t.step = ST_V_MORE

cdef inline void step_E_PTES(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef mm_t *mm = &m.mm[t.mm]
    cdef int32_t vp, f, last = -1, mapped = 0
    cdef uint64_t pte, ro
    cdef int kind
    cdef int64_t n = 0
    cdef bint full = False
    for vp in range(zap_from(m, t, t.zap), zap_to(m, t, t.zap)):
        pte = m.pte[vp]
        kind = pte_kind_of(pte)
        if kind == PTE_NONE:
            continue
        n += 1
        ro = pte & PTE_RO
        if kind == PTE_SWAP:
            zap_swap(m, pte_index(pte))
            mm.swapents -= 1
            m.pte[vp] = ro
            continue
        mapped += 1
        last = vp
        if gathers(t):
            gather_page(m, t, vp)
        if kind == PTE_ZERO:
            m.pte[vp] = ro
            continue
        f = pte_index(pte)
        if pte & PTE_DIRTY:
            folio_set(m, f, PG_dirty)
        m.folio[f].mapcount -= 1
        mm.rss -= 1
        m.pte[vp] = pte_make(PTE_ZAPPED, f, ro)
        if gathers(t):
            t.v_nr += 1
            if t.v_nr == GATHER_PAGES:
                full = True
                break
    spend(m, TM_fault, m.w.cost[CO_zap_pte] * n)
    if gathers(t):
        gather_done(m, p, t, full)
    elif t.call and mapped == 0:          # tlb_finish_mmu: nothing was gathered
        t.step = ST_E_FREE
    else:
        flush(m, p, t, t.mm, last if t.call and mapped == 1 else -1, ST_E_FREE)

cdef inline void free_zapped(machine *m, const task_t *t, int32_t region) noexcept nogil:
    """free_pages_and_swap_cache of what was zapped there (lru_lock held)"""
    cdef int32_t vp, f
    for vp in range(zap_from(m, t, region), zap_to(m, t, region)):
        if pte_kind_of(m.pte[vp]) != PTE_ZAPPED:
            continue
        f = pte_index(m.pte[vp])
        m.pte[vp] &= PTE_RO
        if (folio_test(m, f, PG_swapcache) and m.folio[f].mapcount == 0
                and not folio_test(m, f, PG_locked)):
            folio_free_swap(m, f)
        folio_put(m, f)

cdef inline void step_E_FREE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if not lock_lru(m):
        return
    free_zapped(m, t, t.zap)
    t.step = ST_E_UNLOCK

cdef inline void free_table(machine *m, region_t *r) noexcept nogil:
    r.present = 0
    r.young = 0
    r.filter = 0
    m.cg.kernel -= 1
    m.cg.usage -= 1

cdef inline void step_E_UNLOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef region_t *r = zap_region(m, t)
    unlock(m, &m.cg.lru_lock)
    unlock(m, &r.ptl)
    if not t.call:
        free_table(m, r)
    t.zap += 1
    t.step = ST_E_ZAP

cdef inline void restart(machine *m, int32_t u) noexcept nogil:
    """A thread of the process that takes the place of the one that was killed."""
    cdef task_t *t = &m.task[u]
    t.pass_no = 0
    t.pos = 0
    t.step = ST_TOUCH
    m.mm[t.mm].users += 1
    if u != m.p.current:
        wake_task(m, u)

cdef inline void call_done(machine *m, task_t *t) noexcept nogil:
    """The task's system call returns."""
    mmap_unlock(m, t)
    t.zap = 0
    t.call = 0
    advance(t, task_pass(m, t))
    next_access(m, t)

cdef inline void step_E_DONE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t u
    cdef bint again = False
    if t.call:
        call_done(m, t)
        return
    t.zap = 0
    for u in range(m.mm[t.mm].base, m.mm[t.mm].base + m.mm[t.mm].nr_pages):
        m.pte[u] &= ~PTE_RO               # the next mapping may be written to
    for u in range(m.w.nr_tasks):
        if m.task[u].mm != t.mm or m.task[u].state == TASK_DEAD:
            continue
        m.task[u].dying = 0
        m.cg.nr_dying -= 1
        if m.task[u].restart:
            again = True
            restart(m, u)
        else:
            task_dies(m, &m.task[u])
    if t.state == TASK_DEAD:
        p.sstep = ST_SW_PICK
        m.turn = 1
    if again:
        m.counter[CN_restarts] += 1
        ra_reset(&m.mm[t.mm])
        if m.w.lru:
            m.mm[t.mm].lru_gen = MM_USED | MM_FRESH
