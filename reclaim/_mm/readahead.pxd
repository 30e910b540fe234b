# swap_vma_readahead and swap_cluster_readahead (mm/swap_state.c; docs/model.md 5.2): reads pages
# around a fault's into the swap cache, by virtual address, or by slot if the device rotates.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport spend
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.sched cimport folio_unlock
from reclaim._mm.memcg cimport charge_start
from reclaim._mm.blk cimport blk_flush_plug
from reclaim._mm.swap cimport plug_bio

cdef enum:
    RA_MAX_WIN = 8            # 1 << page_cluster
    RA_MAX_HITS = 63          # SWAP_RA_HITS_MAX
    RA_FIRST_HITS = 4


cdef inline void ra_reset(mm_t *mm) noexcept nogil:
    """swap_readahead_info of a new mapping"""
    mm.ra_page = -2
    mm.ra_win = 0
    mm.ra_hits = RA_FIRST_HITS

cdef inline void swap_cache_hit(machine *m, task_t *t, int32_t f) noexcept nogil:
    """swap_cache_get_folio: a hit moves the remembered address; PG_reclaim is PG_readahead too."""
    cdef mm_t *mm = &m.mm[t.mm]
    cdef bint hit = folio_test(m, f, PG_reclaim)
    if hit:
        m.folio[f].flags &= ~<uint32_t>PG_reclaim
        m.counter[CN_swap_ra_hit] += 1
    if m.w.rotational:
        m.dev.ra_hits += hit
        return
    if hit and mm.ra_hits < RA_MAX_HITS:
        mm.ra_hits += 1
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

cdef inline void read_alone(machine *m, task_t *t) noexcept nogil:
    """Without others around it; from a synchronous device past the swap cache, but if the slot is shared"""
    t.f_kind = FAULT_SWAP
    if unlikely(m.w.forks) and m.w.swap_sync and slot_maps(m, pte_index(t.f_orig)) > 1:
        t.f_kind = FAULT_SHARED
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
        read_alone(m, t)
        return
    left = page if page == prev + 1 else page - n + 1 if page == prev - 1 else page - (n - 1) // 2
    t.ra_at = mm.base + max(left, first)
    t.ra_end = mm.base + min(left + n, min(mm.nr_pages, first + PTRS_PER_PTE))
    t.step = ST_F_RA_NEXT

cdef inline bint to_be_read(machine *m, int32_t vp) noexcept nogil:
    cdef uint64_t pte = m.pte[vp]
    return pte_kind_of(pte) == PTE_SWAP and not m.slot_count[pte_index(pte)] & SLOT_HAS_CACHE

cdef inline void read_next(machine *m, task_t *t, int32_t ret) noexcept nogil:
    """A frame for what is at ra_at, if that is not the end."""
    cdef int32_t f
    if t.ra_at >= t.ra_end:
        blk_flush_plug(m, m.p, t)
        drain_all(m, t, ST_F_TARGET)
        return
    t.ra_vp = t.ra_at
    t.ra_at += 1
    f = alloc_frame(m)
    if f >= 0:                        # else m.bad is set: the run stops here
        t.f_pfn = f
        charge_start(t, 1, ret)

cdef inline void step_F_RA_NEXT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    while t.ra_at < t.ra_end and not to_be_read(m, t.ra_at):
        t.ra_at += 1
    read_next(m, t, ST_F_RA_CHARGED)

cdef inline void ra_go_on(machine *m, task_t *t) noexcept nogil:
    t.f_pfn = -1
    t.step = ST_F_CL_NEXT if m.w.rotational else ST_F_RA_NEXT

cdef inline bint read_in_vain(machine *m, task_t *t, bint wanted) noexcept nogil:
    """True, and the frame is given up, if it was not charged or the page is not `wanted` any more."""
    if t.c_failed:
        free_frame(m, t.f_pfn)
    elif not wanted:
        folio_put(m, t.f_pfn)
    else:
        return False
    ra_go_on(m, t)
    return True

cdef inline void read_async(machine *m, task_t *t, int32_t s, int32_t mm, int32_t vp,
                            bint own) noexcept nogil:
    """__read_swap_cache_async, from swapcache_prepare on; the fault's own page gets no mark"""
    swapcache_prepare(m, t.f_pfn, s, mm, vp)
    add_to_swap_cache(m, t.f_pfn, s)
    if not own:
        folio_set(m, t.f_pfn, PG_reclaim)
        m.counter[CN_swap_ra] += 1
    t.step = ST_F_RA_READ
    if folio_add_lru(m, t.f_pfn):
        drain(t, 1, ST_F_RA_READ)

cdef inline void step_F_RA_CHARGED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if not read_in_vain(m, t, to_be_read(m, t.ra_vp)):
        read_async(m, t, pte_index(m.pte[t.ra_vp]), t.mm, t.ra_vp, t.ra_vp == t.vp)

cdef inline void ra_done(machine *m, task_t *t) noexcept nogil:
    folio_put(m, t.f_pfn)
    ra_go_on(m, t)

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
    if plug_bio(m, p, t, m.folio[t.f_pfn].slot):
        spend(m, TM_swap, m.w.cost[CO_io_submit])
        ra_done(m, t)

cdef inline void step_F_TARGET(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """the fault's own page, most often just read"""
    cdef int32_t s = pte_index(t.f_orig), f = swap_cache_folio(m, s)
    if f < 0:
        if slot_maps(m, s) > 0:
            read_alone(m, t)
        else:                             # another thread has read it, and it is mapped
            t.step = ST_F_DONE
        return
    t.f_pfn = f
    m.folio[f].refcount += 1
    t.f_cached = 1
    m.counter[CN_pgmajfault] += 1
    t.step = ST_F_LOCK


# --- by slot: an aligned cluster, pages of other mms included

cdef inline int32_t cluster_pages(const swapdev_t *dev, int32_t s) noexcept nogil:
    """swapin_nr_pages, from hits and the last slot of all mms"""
    cdef int32_t n = 8
    if dev.ra_hits == 0:
        n = 2 if s == dev.ra_prev + 1 or s == dev.ra_prev - 1 else 1
    elif dev.ra_hits <= 2:
        n = 4
    return max(n, dev.ra_win // 2)

cdef inline void step_F_CL_WIN(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef swapdev_t *dev = m.dev
    cdef int32_t s = pte_index(t.f_orig), n = cluster_pages(dev, s), first
    if dev.ra_hits == 0:
        dev.ra_prev = s
    dev.ra_hits = 0
    dev.ra_win = n
    if n == 1:
        read_alone(m, t)
        return
    first = (s + 1) // n * n          # in pages of the device: slot 0 is page 1, after the header
    t.ra_at = max(first, 1) - 1
    t.ra_end = min(first + n - 1, m.w.nr_slots)
    t.step = ST_F_CL_NEXT

cdef inline bint slot_to_be_read(const machine *m, int32_t s) noexcept nogil:
    return slot_maps(m, s) > 0 and not m.slot_count[s] & SLOT_HAS_CACHE

cdef inline void step_F_CL_NEXT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    while t.ra_at < t.ra_end and not slot_to_be_read(m, t.ra_at):
        t.ra_at += 1
    read_next(m, t, ST_F_CL_CHARGED)

cdef inline void step_F_CL_CHARGED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if not read_in_vain(m, t, slot_to_be_read(m, t.ra_vp)):
        # whose page it is shows when it is mapped
        read_async(m, t, t.ra_vp, -1, -1, t.ra_vp == pte_index(t.f_orig))
