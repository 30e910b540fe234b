# Taking swap slots: the pool, the scan of a device that rotates, the slot caches of the CPUs
# (mm/swapfile.c, mm/swap_slots.c; docs/model.md 4.1).  Giving them back is in folio.pxd.

from libc.stdint cimport int32_t, uint64_t

from reclaim._mm.types cimport *
from reclaim._mm.names cimport *
from reclaim._mm.folio cimport *

cdef enum:
    SWAPFILE_CLUSTER = 256
    LATENCY_LIMIT = 256

cdef struct scan_t:
    int32_t at                # the slot that is looked at
    int32_t base              # where the scan began
    int32_t ration            # slots to look at until the kernel would give way
    int32_t goal
    int32_t got
    bint many                 # it gave way in the search for a first slot


cdef inline bint tired(scan_t *k) noexcept nogil:
    """One more slot was looked at; true if the kernel gives way now."""
    k.ration -= 1
    if k.ration >= 0:
        return False
    k.ration = LATENCY_LIMIT
    return True

cdef inline bint reclaimable(const machine *m, int32_t s) noexcept nogil:
    """A slot that only the swap cache holds, when slots are getting few."""
    return m.slot_count[s] & ~SLOT_ZERO == SLOT_HAS_CACHE and swap_full(m)

cdef inline bint try_to_reclaim_swap(machine *m, int32_t s) noexcept nogil:
    """__try_to_reclaim_swap(TTRS_ANYWAY | TTRS_DIRECT): past the slot cache, back to the pool."""
    cdef uint64_t entry = m.slot_entry[s]
    cdef int32_t f = <int32_t>(entry >> 2)
    cdef folio_t *q
    if not slot_is_folio(entry) or folio_test(m, f, PG_locked | PG_writeback):
        return False
    q = &m.folio[f]
    q.flags = (q.flags & ~<uint32_t>PG_swapcache) | PG_dirty
    q.slot = -1
    pool_put(m, s)
    folio_put(m, f)
    return True

cdef inline void find_cluster(machine *m, scan_t *k) noexcept nogil:
    """The scan begins at the first run of SWAPFILE_CLUSTER unused slots, or at the lowest one."""
    cdef swapdev_t *dev = m.dev
    cdef int32_t s = dev.lowest, last = s + SWAPFILE_CLUSTER - 1
    k.base = s
    k.at = s
    while last <= dev.highest:
        if m.slot_count[s]:
            last = s + SWAPFILE_CLUSTER
        elif s == last:
            k.at = s - SWAPFILE_CLUSTER + 1
            dev.cluster_next = k.at
            return
        tired(k)
        s += 1

cdef inline void take_slot(machine *m, scan_t *k, int32_t *slots) noexcept nogil:
    """swap_range_alloc"""
    cdef swapdev_t *dev = m.dev
    m.slot_count[k.at] = SLOT_HAS_CACHE
    slots[k.got] = k.at
    k.got += 1
    if k.at == dev.lowest:
        dev.lowest += 1
    if k.at == dev.highest:
        dev.highest -= 1
    if m.cg.slots_free + k.goal == k.got:           # none is unused
        dev.lowest = m.w.nr_slots
        dev.highest = -1

cdef inline bint next_in_cluster(machine *m, scan_t *k) noexcept nogil:
    """After one was taken: true if another is to be had close by."""
    cdef swapdev_t *dev = m.dev
    cdef int32_t limit
    if k.got == k.goal or k.at >= dev.highest:
        return False
    k.ration -= 1
    if k.ration < 0:
        return False
    if dev.cluster_nr > 0:
        k.at += 1
        if m.slot_count[k.at] == 0:
            dev.cluster_nr -= 1
            return True
    if k.many:
        return False
    limit = k.base if k.at < k.base else dev.highest
    while k.at <= limit:
        k.ration -= 1
        if k.ration <= 0:
            return False
        if m.slot_count[k.at] == 0:
            return True
        k.at += 1
    return False

cdef inline bint look_until(machine *m, scan_t *k, int32_t end) noexcept nogil:
    while k.at < end:
        if tired(k):
            k.many = True
        if m.slot_count[k.at] == 0 or reclaimable(m, k.at):
            return True
        k.at += 1
    return False

cdef inline bint look_on(machine *m, scan_t *k) noexcept nogil:
    """The next one up to the highest, then from the lowest to where the scan began."""
    k.at += 1
    if look_until(m, k, m.dev.highest + 1):
        return True
    k.at = m.dev.lowest
    return look_until(m, k, k.base)

cdef inline int32_t scan_swap_map_slots(machine *m, int32_t *slots, int32_t n) noexcept nogil:
    """Take up to n slots, which slots_free no longer counts; how many."""
    cdef swapdev_t *dev = m.dev
    cdef scan_t k
    k.at = dev.cluster_next
    k.base = k.at
    k.ration = LATENCY_LIMIT
    k.goal = n
    k.got = 0
    k.many = False
    if dev.cluster_nr > 0:
        dev.cluster_nr -= 1
    else:
        dev.cluster_nr = SWAPFILE_CLUSTER - 1
        if m.cg.slots_free + n >= SWAPFILE_CLUSTER:
            find_cluster(m, &k)
    while dev.highest >= 0:
        if k.at > dev.highest:
            k.base = dev.lowest
            k.at = dev.lowest
        if m.slot_count[k.at] == 0:
            take_slot(m, &k, slots)
            if next_in_cluster(m, &k):
                continue
        elif reclaimable(m, k.at):
            if try_to_reclaim_swap(m, k.at) or look_on(m, &k):
                continue
            return k.got
        elif k.got == 0:
            if look_on(m, &k):
                continue
            return 0
        dev.cluster_next = k.at + 1
        return k.got
    return k.got


cdef inline int32_t slot_pop(machine *m) noexcept nogil:
    """From the stack of a device that does not rotate; slots_free > 0."""
    cdef memcg_t *g = m.cg
    cdef int32_t s = g.slot_top
    if s >= 0:
        g.slot_top = <int32_t>(m.slot_entry[s]) - 1
        m.slot_entry[s] = 0
        if g.slot_top >= 0:
            prefetch(&m.slot_entry[g.slot_top])
    else:
        s = g.slot_fresh
        g.slot_fresh += 1
    g.slots_free -= 1
    return s

cdef inline int32_t get_swap_pages(machine *m, int32_t *slots, int32_t n) noexcept nogil:
    """Up to n slots of the pool; how many."""
    cdef int32_t i
    n = min(n, m.cg.slots_free)
    if n <= 0:
        return 0
    if m.w.rotational:
        m.cg.slots_free -= n
        i = scan_swap_map_slots(m, slots, n)
        m.cg.slots_free += n - i
        return i
    for i in range(n):
        slots[i] = slot_pop(m)
        if m.w.slot_cache:
            m.slot_count[slots[i]] = SLOT_HAS_CACHE
    return n


# --- slot caches

cdef inline void drain_slot_caches(machine *m) noexcept nogil:
    """deactivate_swap_slots_cache"""
    cdef slot_cache_t *k
    cdef int32_t c, i
    m.dev.cache_active = 0
    for c in range(m.w.nr_cpus):
        k = &m.slot_cache[c]
        for i in range(k.nr):
            pool_put(m, k.slots[k.cur + i])
        k.cur = 0
        k.nr = 0
        put_returned(m, k)

cdef inline bint check_cache_active(machine *m) noexcept nogil:
    cdef swapdev_t *dev = m.dev
    if not dev.cache_active:
        dev.cache_active = m.cg.slots_free > 5 * SWAP_BATCH * m.w.nr_cpus
    elif m.cg.slots_free < 2 * SWAP_BATCH * m.w.nr_cpus:
        drain_slot_caches(m)
    return dev.cache_active != 0

cdef inline int32_t cached_slot(machine *m, slot_cache_t *k) noexcept nogil:
    """The next slot of a CPU's cache, which is filled again if it is empty."""
    cdef int32_t s
    if k.nr == 0:
        k.cur = 0
        k.nr = get_swap_pages(m, k.slots, SWAP_BATCH)
        if k.nr == 0:
            return -1
    s = k.slots[k.cur]
    k.cur += 1
    k.nr -= 1
    return s

cdef inline int32_t folio_alloc_swap(machine *m) noexcept nogil:
    """A slot for a folio, or -1."""
    cdef int32_t s = -1
    if m.w.slot_cache and check_cache_active(m):
        s = cached_slot(m, &m.slot_cache[m.c])
    if s < 0 and get_swap_pages(m, &s, 1) == 0:
        return -1
    return s

cdef inline bint no_slot_left(const machine *m) noexcept nogil:
    """Whether folio_alloc_swap would fail: it drains every cache before it does."""
    cdef int32_t c
    if m.cg.slots_free > 0:
        return False
    if m.w.slot_cache:
        for c in range(m.w.nr_cpus):
            if m.slot_cache[c].nr > 0 or m.slot_cache[c].n_ret > 0:
                return False
    return True
