# Folios: frames, references, LRU lists, isolated lists, swap slots (docs/model.md 4).

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.lists cimport list_add, list_del
from reclaim._mm.generations cimport (lru_gen_add_folio, lru_gen_del_folio, lru_gen_eviction,
                                      lru_gen_in_fault, lru_gen_refault)


cdef inline bint folio_test(const machine *m, int32_t f, uint32_t flag) noexcept nogil:
    return (m.folio[f].flags & flag) != 0

cdef inline void folio_set(machine *m, int32_t f, uint32_t flag) noexcept nogil:
    m.folio[f].flags |= flag


# --- FIFO lists of isolated folios (folio_list, ret_folios), linked through folio.next

cdef inline void fifo_init(fifo *l) noexcept nogil:
    l.head = -1
    l.tail = -1
    l.nr = 0

cdef inline void fifo_push(machine *m, fifo *l, int32_t f) noexcept nogil:
    m.folio[f].next = -1
    if l.head < 0:
        l.head = f
    else:
        m.folio[l.tail].next = f
    l.tail = f
    l.nr += 1

cdef inline int32_t fifo_pop(machine *m, fifo *l) noexcept nogil:
    cdef int32_t f = l.head
    l.head = m.folio[f].next
    if l.head < 0:
        l.tail = -1
    l.nr -= 1
    return f


# --- what is needed next, brought into the cache (no state, no effect on results)
#
# An LRU list is longer than the cache and in no order of memory.  Its folios leave at the tail in
# the order in which they came, so a ring of the frames that were added, `trail`, tells which are
# isolated next without following the list.  Those that left elsewhere stay in it: with asynchronous
# swap half of it, folios that were put back under write-back and rotated to the tail when that ended.

cdef inline void trail_add(machine *m, int l, int32_t f) noexcept nogil:
    m.trail[l][m.trail_head[l] & m.trail_mask] = f
    m.trail_head[l] += 1

cdef inline void trail_add_tail(machine *m, int32_t f) noexcept nogil:
    """To the tail of the inactive list: it is isolated first, and was not fetched."""
    m.trail_tail[0] -= 1
    m.trail[0][m.trail_tail[0] & m.trail_mask] = f
    m.trail_folios[0] = m.trail_tail[0]
    m.trail_ptes[0] = m.trail_tail[0]

cdef enum:
    TRAIL_GONE = 1024         # folios in a row that left elsewhere
    TRAIL_PTES = 2 * CLUSTER  # how far ahead of the tail PTEs are fetched ...
    TRAIL_FOLIOS = 4 * CLUSTER      # ... and the folios that tell where those are

cdef inline uint32_t trail_from(uint32_t fetched, uint32_t r, uint32_t end) noexcept nogil:
    """Where to go on fetching, between the tail and `end`."""
    return fetched if fetched - r <= end - r else r

cdef inline void prefetch_trail(machine *m, int l, int32_t n) noexcept nogil:
    """Before n folios are isolated: every folio and PTE is fetched once, well ahead of its turn."""
    cdef uint32_t r = m.trail_tail[l], mask = m.trail_mask, i, end
    cdef const int32_t *trail = m.trail[l]
    cdef int32_t f = m.cg.lru_tail[l], vp
    for i in range(<uint32_t>TRAIL_GONE):   # each is passed over once
        if trail[(r + i) & mask] == f:
            r += i
            break
    else:
        r = m.trail_head[l] - <uint32_t>m.cg.lru_nr[l]
    end = r + n + TRAIL_FOLIOS
    i = trail_from(m.trail_folios[l], r, end)
    while i != end:
        prefetch(&m.folio[trail[i & mask]])
        i += 1
    m.trail_folios[l] = end
    end = r + n + TRAIL_PTES
    i = trail_from(m.trail_ptes[l], r, end)
    while i != end:
        vp = m.folio[trail[i & mask]].vp
        if vp >= 0:
            prefetch(&m.pte[vp])
        i += 1
    m.trail_ptes[l] = end
    m.trail_tail[l] = r + n

cdef inline void prefetch_slot(machine *m, uint64_t pte) noexcept nogil:
    """A fault on this entry looks its slot up."""
    if (pte & PTE_KIND_MASK) == PTE_SWAP:
        prefetch(&m.slot_entry[<uint32_t>(pte >> 8)])
        prefetch(&m.slot_count[<uint32_t>(pte >> 8)])


# --- LRU lists

cdef inline int lru_of(const folio_t *q) noexcept nogil:
    """folio_lru_list: inactive or active"""
    return 1 if q.flags & PG_active else 0

cdef inline void lruvec_add_folio(machine *m, int32_t f) noexcept nogil:
    cdef int l = lru_of(&m.folio[f])
    if unlikely(m.w.lru):
        lru_gen_add_folio(m, f, False)
        return
    list_add(m, l, f, False)
    trail_add(m, l, f)

cdef inline void lruvec_del_folio(machine *m, int32_t f) noexcept nogil:
    if unlikely(m.w.lru):
        lru_gen_del_folio(m, f, False)
    else:
        list_del(m, lru_of(&m.folio[f]), f)


# --- frames: a stack; never-used frames lie below it, 0 first

cdef inline int32_t alloc_frame(machine *m) noexcept nogil:
    cdef memcg_t *g = m.cg
    cdef int32_t f = g.frame_top
    if f >= 0:
        g.frame_top = m.folio[f].next
        if g.frame_top >= 0:
            prefetch(&m.folio[g.frame_top])
    elif g.frame_fresh < m.w.nr_folios:
        f = g.frame_fresh
        g.frame_fresh += 1
    else:
        m.bad = 1
        m.turn = 1
        return -1
    g.frames_free -= 1
    m.folio[f].flags = 0
    m.folio[f].refcount = 1
    m.folio[f].mapcount = 0
    m.folio[f].gen = 0
    m.folio[f].vp = -1
    m.folio[f].mm = -1
    m.folio[f].slot = -1
    return f

cdef inline void free_frame(machine *m, int32_t f) noexcept nogil:
    cdef folio_t *p = &m.folio[f]
    p.flags = 0
    p.refcount = 0
    p.mapcount = 0
    p.gen = 0
    p.vp = -1
    p.mm = -1
    p.slot = -1
    p.next = m.cg.frame_top
    m.cg.frame_top = f
    m.cg.frames_free += 1

cdef inline void folio_put(machine *m, int32_t f) noexcept nogil:
    cdef folio_t *p = &m.folio[f]
    p.refcount -= 1
    if p.refcount == 0:
        if p.flags & PG_lru:
            lruvec_del_folio(m, f)
        m.cg.usage -= 1
        free_frame(m, f)


# --- swap slots: a stack like the frames', or by scanning (swapfile.pxd)

cdef inline bint swap_full(const machine *m) noexcept nogil:
    return m.w.nr_slots > 0 and m.cg.slots_free * 2 < m.w.nr_slots

cdef inline void pool_put(machine *m, int32_t s) noexcept nogil:
    """swap_range_free: from here on any task may take the slot"""
    m.slot_count[s] = 0
    m.cg.slots_free += 1
    if m.w.rotational:
        m.slot_entry[s] = 0
        m.dev.lowest = min(m.dev.lowest, s)
        m.dev.highest = max(m.dev.highest, s)
    else:
        # a free slot's entry links to the next free one (plus 1); its count stays 0
        m.slot_entry[s] = <uint64_t>(m.cg.slot_top + 1)
        m.cg.slot_top = s

cdef inline void put_returned(machine *m, slot_cache_t *k) noexcept nogil:
    cdef int32_t i
    for i in range(k.n_ret):
        pool_put(m, k.slots_ret[i])
    k.n_ret = 0

cdef inline void slot_return(machine *m, int32_t s) noexcept nogil:
    """free_swap_slot with slot caches"""
    cdef slot_cache_t *k = &m.slot_cache[m.c]
    if k.n_ret == SWAP_BATCH:
        put_returned(m, k)
    m.slot_count[s] = SLOT_HAS_CACHE          # as while a folio has it: nobody takes it
    m.slot_entry[s] = 0
    k.slots_ret[k.n_ret] = s
    k.n_ret += 1

cdef inline void slot_free(machine *m, int32_t s) noexcept nogil:
    if m.dev.cache_active:
        slot_return(m, s)
    else:
        pool_put(m, s)

cdef inline int slot_maps(const machine *m, int32_t s) noexcept nogil:
    return m.slot_count[s] & SLOT_COUNT_MASK

cdef inline bint slot_is_folio(uint64_t entry) noexcept nogil:
    return (entry & 3) == 2

cdef inline bint slot_is_shadow(uint64_t entry) noexcept nogil:
    return (entry & 1) != 0

cdef inline int32_t swap_cache_folio(const machine *m, int32_t s) noexcept nogil:
    """The folio of the slot in the swap cache, or -1; the entry of a free slot is a link."""
    if m.slot_count[s] & SLOT_HAS_CACHE and slot_is_folio(m.slot_entry[s]):
        return <int32_t>(m.slot_entry[s] >> 2)
    return -1

cdef inline void add_to_swap_cache(machine *m, int32_t f, int32_t s) noexcept nogil:
    m.slot_entry[s] = (<uint64_t>f << 2) | 2
    m.folio[f].flags |= PG_swapcache
    m.folio[f].refcount += 1

cdef inline void delete_from_swap_cache(machine *m, int32_t f) noexcept nogil:
    cdef folio_t *p = &m.folio[f]
    cdef int32_t s = p.slot
    m.slot_entry[s] = 0
    m.slot_count[s] &= ~SLOT_HAS_CACHE
    if slot_maps(m, s) == 0:
        slot_free(m, s)
    p.flags &= ~<uint32_t>PG_swapcache
    p.slot = -1
    p.refcount -= 1

cdef inline bint folio_free_swap(machine *m, int32_t f) noexcept nogil:
    cdef folio_t *p = &m.folio[f]
    if not p.flags & PG_swapcache or p.flags & PG_writeback or slot_maps(m, p.slot):
        return False
    delete_from_swap_cache(m, f)
    p.flags |= PG_dirty
    return True


# --- LRU bookkeeping

cdef inline void lru_note_cost(machine *m, int64_t nr_io, int64_t nr_rotated) noexcept nogil:
    cdef memcg_t *g = m.cg
    g.anon_cost += CLUSTER * nr_io + nr_rotated
    if g.anon_cost > (g.lru_nr[0] + g.lru_nr[1]) // 4:
        g.anon_cost //= 2

cdef inline int64_t int_sqrt(int64_t x) noexcept nogil:
    cdef int64_t r = 0
    while (r + 1) * (r + 1) <= x:
        r += 1
    return r

cdef inline bint inactive_is_low(const machine *m) noexcept nogil:
    cdef int64_t inactive = m.cg.lru_nr[0], active = m.cg.lru_nr[1]
    cdef int64_t gb = (inactive + active) >> 18
    cdef int64_t ratio = int_sqrt(10 * gb) if gb else 1
    return inactive * ratio < active

cdef inline bint folio_add_lru(machine *m, int32_t f) noexcept nogil:
    """Into this CPU's lru_add batch, with a reference; true if that filled it."""
    cdef cpu_t *p = &m.cpu[m.c]
    cdef folio_t *q = &m.folio[f]
    q.refcount += 1
    if unlikely(m.w.lru) and lru_gen_in_fault(m):
        q.flags |= PG_active
    p.lru_add[p.nr_lru_add] = f
    p.nr_lru_add += 1
    return p.nr_lru_add == BATCH

cdef inline bint folio_activate(machine *m, int32_t f) noexcept nogil:
    """Into this CPU's lru_activate batch, with a reference; true if that filled it."""
    cdef cpu_t *p = &m.cpu[m.c]
    m.folio[f].refcount += 1
    p.lru_activate[p.nr_lru_activate] = f
    p.nr_lru_activate += 1
    return p.nr_lru_activate == BATCH

cdef inline bint lru_batches(const machine *m) noexcept nogil:
    return (m.cpu[m.c].nr_lru_add > 0 or m.cpu[m.c].nr_lru_activate > 0
            or m.cpu[m.c].nr_lru_move_tail > 0)

cdef inline void drain(task_t *t, int which, int32_t ret) noexcept nogil:
    """lru_add_drain: 1 the lru_add batch, 2 lru_activate, 4 lru_move_tail; then on to `ret`."""
    t.d_which = which
    t.d_ret = ret
    t.step = ST_D_LOCK

cdef inline void drain_all(machine *m, task_t *t, int32_t ret) noexcept nogil:
    if lru_batches(m):
        drain(t, 7, ret)
    else:
        t.step = ret

cdef inline void lruvec_add_folio_tail(machine *m, int32_t f) noexcept nogil:
    """To the tail of the inactive list."""
    if unlikely(m.w.lru):
        lru_gen_add_folio(m, f, True)
    else:
        list_add(m, 0, f, True)
        trail_add_tail(m, f)

cdef inline void lru_move_tail(machine *m, cpu_t *p) noexcept nogil:
    """Drain the CPU's batch of folios whose write-back ended."""
    cdef int32_t f
    cdef int i
    for i in range(p.nr_lru_move_tail):
        f = p.lru_move_tail[i]
        if folio_test(m, f, PG_lru):
            lruvec_del_folio(m, f)
            m.folio[f].flags &= ~<uint32_t>PG_active
            lruvec_add_folio_tail(m, f)
            m.counter[CN_pgrotated] += 1
        folio_put(m, f)
    p.nr_lru_move_tail = 0

cdef inline uint64_t workingset_eviction(machine *m, const folio_t *q) noexcept nogil:
    """The shadow of a folio that leaves."""
    cdef uint64_t shadow
    if unlikely(m.w.lru):
        return lru_gen_eviction(m, q)
    shadow = (<uint64_t>m.cg.nonresident_age << 3) | 1
    if q.flags & PG_workingset:
        shadow |= 4
    m.cg.nonresident_age += 1
    return shadow

cdef inline void workingset_refault(machine *m, int32_t f, uint64_t shadow) noexcept nogil:
    cdef memcg_t *g = m.cg
    cdef int64_t age = <int64_t>(shadow >> 3)
    cdef int64_t size = g.lru_nr[1] if g.slots_free > 0 else 0
    if unlikely(m.w.lru):
        lru_gen_refault(m, &m.folio[f], shadow)
        return
    m.counter[CN_workingset_refault_anon] += 1
    if g.nonresident_age - age > size:
        return
    folio_set(m, f, PG_active)
    g.nonresident_age += 1
    m.counter[CN_workingset_activate_anon] += 1
    if shadow & 4:
        folio_set(m, f, PG_workingset)
        lru_note_cost(m, 1, 0)
        m.counter[CN_workingset_restore_anon] += 1

cdef inline void swapcache_prepare(machine *m, int32_t f, int32_t s, int32_t mm,
                                   int32_t vp) noexcept nogil:
    """A new folio, locked, is to hold the slot's page; its shadow tells how long it was away."""
    cdef folio_t *q = &m.folio[f]
    m.slot_count[s] |= SLOT_HAS_CACHE
    q.flags |= PG_locked
    q.slot = s
    q.vp = vp
    q.mm = mm
    if slot_is_shadow(m.slot_entry[s]):
        workingset_refault(m, f, m.slot_entry[s])
