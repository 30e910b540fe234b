# Per-CPU TLBs and flush_tlb_func (arch/x86/mm/tlb.c; docs/model.md 1 and 5.7).
#
# An entry is stamp << 32 | vp << 1 | D.  It is live while its stamp is that of the loaded
# ASID, so that a full flush is one new stamp.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memmove

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport spend

cdef extern from *:
    """
    /* Two entries at a time, by halves: what the compilers make of it for the oldest x86-64, too. */
    typedef uint32_t reclaim_halves __attribute__((vector_size(16), aligned(8), may_alias));
    typedef uint64_t reclaim_pair __attribute__((vector_size(16)));
    static inline reclaim_pair reclaim_pair_is(const uint64_t *e, reclaim_pair tag)
    {
        const reclaim_pair but_d = {~(uint64_t)1, ~(uint64_t)1};
        reclaim_pair same = (reclaim_pair)((*(const reclaim_halves *)e & (reclaim_halves)but_d)
                                           == (reclaim_halves)tag);
        return same & same >> 32;
    }
    static inline int reclaim_set_holds(const uint64_t *e, int ways, uint64_t tag)
    {
        const reclaim_pair both = {tag, tag};
        reclaim_pair found = {0, 0};
        const uint64_t *end = e + ways, *fours = e + (ways & ~3);
        for (; e != fours; e += 4)
            found |= reclaim_pair_is(e, both) | reclaim_pair_is(e + 2, both);
        for (; e != end; e++)
            found[0] |= (*e & ~(uint64_t)1) == tag;
        return (uint32_t)(found[0] | found[1]) != 0;
    }
    """
    bint set_holds "reclaim_set_holds"(const uint64_t *e, int ways, uint64_t tag) noexcept nogil


cdef inline bint mask_test(const uint64_t *mask, int32_t c) noexcept nogil:
    return (mask[c >> 6] >> (c & 63)) & 1

cdef inline void mask_set(uint64_t *mask, int32_t c) noexcept nogil:
    mask[c >> 6] |= <uint64_t>1 << (c & 63)

cdef inline void mask_clear(uint64_t *mask, int32_t c) noexcept nogil:
    mask[c >> 6] &= ~(<uint64_t>1 << (c & 63))

cdef inline bint mask_any_but(const uint64_t *mask, int words, int32_t c) noexcept nogil:
    """cpumask_any_but(mask, c) < nr_cpu_ids"""
    cdef int i
    cdef uint64_t x
    for i in range(words):
        x = mask[i]
        if i == c >> 6:
            x &= ~(<uint64_t>1 << (c & 63))
        if x:
            return True
    return False

cdef inline int32_t mask_next(const uint64_t *mask, int words, int32_t start) noexcept nogil:
    """The lowest CPU >= start in the mask, or -1."""
    cdef int i = start >> 6
    cdef uint64_t x
    if i >= words:
        return -1
    x = mask[i] & (~<uint64_t>0 << (start & 63))
    while True:
        if x:
            return (i << 6) + ctz64(x)
        i += 1
        if i >= words:
            return -1
        x = mask[i]

cdef inline uint64_t *mm_mask(machine *m, int32_t mm) noexcept nogil:
    return m.mm_cpumask + <int64_t>mm * m.w.words


cdef inline uint64_t tlb_tag(const cpu_t *p, int32_t vp) noexcept nogil:
    return (<uint64_t>p.asid_stamp[p.loaded_asid] << 32) | (<uint64_t><uint32_t>vp << 1)

cdef inline uint64_t *l1_set(const machine *m, int32_t c, int32_t vp) noexcept nogil:
    """The entries of CPU c's first-level TLB among which the page's is, if any; newest first."""
    return m.l1 + (<int64_t>c * m.w.l1_sets + (vp & (m.w.l1_sets - 1))) * m.w.l1_ways

cdef inline uint64_t *l2_set(const machine *m, int32_t c, int32_t vp) noexcept nogil:
    return m.l2 + (<int64_t>c * m.w.l2_sets + (vp & (m.w.l2_sets - 1))) * m.w.l2_ways

cdef inline uint64_t *tlb_find(uint64_t *e, int32_t ways, uint64_t tag) noexcept nogil:
    cdef int i
    for i in range(ways):
        if (e[i] ^ tag) <= 1:
            return e + i
    return NULL

cdef inline uint64_t *tlb_find_rare(uint64_t *e, int32_t ways, uint64_t tag) noexcept nogil:
    """As tlb_find, where most sets do not hold the page."""
    return tlb_find(e, ways, tag) if set_holds(e, ways, tag) else NULL

cdef inline uint64_t tlb_insert(uint64_t *e, int32_t ways, uint64_t entry) noexcept nogil:
    """A page that the set does not hold: the oldest of the set is lost, and returned."""
    cdef uint64_t lost = e[ways - 1]
    memmove(e + 1, e, (ways - 1) * sizeof(uint64_t))
    e[0] = entry
    return lost

cdef inline void tlb_take_back(uint64_t *e, int32_t ways, uint64_t lost) noexcept nogil:
    """The last tlb_insert there did not happen."""
    memmove(e, e + 1, (ways - 1) * sizeof(uint64_t))
    e[ways - 1] = lost

cdef inline void tlb_fill(uint64_t *e, int32_t ways, uint64_t entry) noexcept nogil:
    cdef uint64_t *held = tlb_find(e, ways, entry & ~<uint64_t>1)
    if held != NULL:
        held[0] = entry
    else:
        tlb_insert(e, ways, entry)

cdef inline void flush_tlb_local(machine *m, int32_t c) noexcept nogil:
    """Everything of the loaded ASID, in O(1)."""
    cdef cpu_t *p = &m.cpu[c]
    p.tlb_stamp += 1
    p.asid_stamp[p.loaded_asid] = p.tlb_stamp

cdef inline void flush_tlb_one_user(machine *m, int32_t c, int32_t vp) noexcept nogil:
    cdef uint64_t tag = tlb_tag(&m.cpu[c], vp)
    cdef uint64_t *e = tlb_find(l1_set(m, c, vp), m.w.l1_ways, tag)
    if e != NULL:
        e[0] = 0
    e = tlb_find(l2_set(m, c, vp), m.w.l2_ways, tag)
    if e != NULL:
        e[0] = 0


cdef inline int64_t flush_tlb_func(machine *m, int32_t c, int32_t sender) noexcept nogil:
    """Run the sender's flush on CPU c; the cost."""
    cdef cpu_t *p = &m.cpu[c]
    cdef cpu_t *s = &m.cpu[sender]
    cdef bint remote = c != sender
    cdef int32_t loaded = p.loaded_mm, i
    cdef uint64_t g, gen
    if remote:
        m.counter[CN_nr_tlb_remote_flush_received] += 1
        p.irq_tlb_count += 1
        if s.fl_mm >= 0 and s.fl_mm != loaded:
            if m.w.mask_lazy:
                mask_clear(mm_mask(m, s.fl_mm), c)
            return m.w.cost[CO_tlb_check]
    if loaded < 0:
        return m.w.cost[CO_tlb_check]
    if p.is_lazy:                     # leave lazy mode: switch to init_mm
        p.is_lazy = 0
        if not m.w.mask_lazy:
            mask_clear(mm_mask(m, loaded), c)
        p.loaded_mm = MM_INIT
        return m.w.cost[CO_tlb_check]
    g = p.asid_gen[p.loaded_asid]
    if s.fl_gen >= 0 and <uint64_t>s.fl_gen <= g:
        return m.w.cost[CO_tlb_check]
    gen = m.mm[loaded].tlb_gen
    if g == gen:
        return m.w.cost[CO_tlb_check]
    p.asid_gen[p.loaded_asid] = gen
    if s.fl_vp >= 0 and <uint64_t>s.fl_gen == g + 1 and <uint64_t>s.fl_gen == gen:
        for i in range(s.fl_nr):
            flush_tlb_one_user(m, c, s.fl_vp + i)
        if not remote:
            m.counter[CN_nr_tlb_local_flush_one] += s.fl_nr
        return m.w.cost[CO_invlpg] * s.fl_nr
    flush_tlb_local(m, c)
    if not remote:
        m.counter[CN_nr_tlb_local_flush_all] += 1
    return m.w.cost[CO_tlb_flush_full]
