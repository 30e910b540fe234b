# swap_vma_readahead (mm/swap_state.c; docs/model.md 5.2): reads pages around a fault's into the
# swap cache, by virtual address.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport spend
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.sched cimport folio_unlock
from reclaim._mm.memcg cimport charge_start
from reclaim._mm.swap cimport blk_mq_get_tag, submit_bio

cdef enum:
    RA_MAX_WIN = 8            # 1 << page_cluster
    RA_MAX_HITS = 63          # SWAP_RA_HITS_MAX


cdef inline void ra_reset(mm_t *mm) noexcept nogil:
    """swap_readahead_info of a new mapping"""
    mm.ra_page = -2
    mm.ra_win = 0
    mm.ra_hits = 4

cdef inline void swap_cache_hit(machine *m, task_t *t, int32_t f) noexcept nogil:
    """swap_cache_get_folio: a hit moves the remembered address; PG_reclaim is PG_readahead too."""
    cdef mm_t *mm = &m.mm[t.mm]
    if folio_test(m, f, PG_reclaim):
        m.folio[f].flags &= ~<uint32_t>PG_reclaim
        if mm.ra_hits < RA_MAX_HITS:
            mm.ra_hits += 1
        m.counter[CN_swap_ra_hit] += 1
    mm.ra_page = t.vp - mm.base

cdef inline int32_t swapin_nr_pages(const mm_t *mm, int32_t page) noexcept nogil:
    """__swapin_nr_pages"""
    cdef int32_t n = mm.ra_hits + 2, pages = 4
    if n == 2:
        pages = 2 if page == mm.ra_page + 1 or page == mm.ra_page - 1 else 1
    else:
        while pages < n:
            pages <<= 1
    if pages > RA_MAX_WIN:
        pages = RA_MAX_WIN
    return max(pages, mm.ra_win // 2)

cdef inline void read_alone(task_t *t) noexcept nogil:
    t.f_kind = FAULT_SWAP
    t.step = ST_F_ALLOC

cdef inline void step_F_RA_WIN(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """swap_vma_ra_win"""
    cdef mm_t *mm = &m.mm[t.mm]
    cdef int32_t page = t.vp - mm.base, prev = mm.ra_page, n = swapin_nr_pages(mm, page)
    cdef int32_t left, first = page // PTRS_PER_PTE * PTRS_PER_PTE
    mm.ra_page = page
    mm.ra_win = n
    mm.ra_hits = 0
    if n == 1:
        read_alone(t)
        return
    left = page if page == prev + 1 else page - n + 1 if page == prev - 1 else page - (n - 1) // 2
    t.ra_at = mm.base + max(left, first)
    t.ra_end = mm.base + min(left + n, min(mm.nr_pages, first + PTRS_PER_PTE))
    t.step = ST_F_RA_NEXT

cdef inline bint to_be_read(machine *m, int32_t vp) noexcept nogil:
    cdef uint64_t pte = m.pte[vp]
    return pte_kind_of(pte) == PTE_SWAP and not m.slot_count[pte_index(pte)] & SLOT_HAS_CACHE

cdef inline void step_F_RA_NEXT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t f
    while t.ra_at < t.ra_end and not to_be_read(m, t.ra_at):
        t.ra_at += 1
    if t.ra_at >= t.ra_end:
        drain_all(m, t, ST_F_TARGET)
        return
    t.ra_vp = t.ra_at
    t.ra_at += 1
    f = alloc_frame(m)
    if f >= 0:                        # else m.bad is set: the run stops here
        t.f_pfn = f
        charge_start(t, 1, ST_F_RA_CHARGED)

cdef inline void step_F_RA_CHARGED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """__read_swap_cache_async"""
    cdef int32_t s
    if t.c_failed or not to_be_read(m, t.ra_vp):
        if t.c_failed:
            free_frame(m, t.f_pfn)
        else:
            folio_put(m, t.f_pfn)
        t.f_pfn = -1
        t.step = ST_F_RA_NEXT
        return
    s = pte_index(m.pte[t.ra_vp])
    swapcache_prepare(m, t.f_pfn, s, t.mm, t.ra_vp)
    add_to_swap_cache(m, t.f_pfn, s)
    if t.ra_vp != t.vp:
        folio_set(m, t.f_pfn, PG_reclaim)
        m.counter[CN_swap_ra] += 1
    t.step = ST_F_RA_READ
    if folio_add_lru(m, t.f_pfn):
        drain(t, 1, ST_F_RA_READ)

cdef inline void ra_done(machine *m, task_t *t) noexcept nogil:
    folio_put(m, t.f_pfn)
    t.f_pfn = -1
    t.step = ST_F_RA_NEXT

cdef inline void step_F_RA_READ(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """swap_read_folio"""
    if m.slot_count[m.folio[t.f_pfn].slot] & SLOT_ZERO:
        m.counter[CN_swpin_zero] += 1
        spend(m, TM_swap, m.w.cost[CO_page_zero])
        folio_unlock(m, t.f_pfn)
        ra_done(m, t)
    else:
        m.counter[CN_pswpin] += 1
        t.step = ST_F_RA_SUBMIT

cdef inline void step_F_RA_SUBMIT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if blk_mq_get_tag(m, p, t):
        submit_bio(m, p, t.f_pfn)
        spend(m, TM_swap, m.w.cost[CO_io_submit])
        ra_done(m, t)

cdef inline void step_F_TARGET(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """the fault's own page, most often just read"""
    cdef int32_t s = pte_index(t.f_orig), f = swap_cache_folio(m, s)
    if f < 0:
        if slot_maps(m, s) > 0:
            read_alone(t)
        else:                             # another thread has read it, and it is mapped
            t.step = ST_F_DONE
        return
    t.f_pfn = f
    m.folio[f].refcount += 1
    t.f_cached = 1
    m.counter[CN_pgmajfault] += 1
    t.step = ST_F_LOCK
