# Generations, tiers and what refaults say of them: the part of the multi-generational LRU that
# faults and folio batches need (include/linux/mm_inline.h, mm/workingset.c, mm/vmscan.c;
# docs/model.md 4).  Its eviction and aging are in lru_gen.pxd.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.lists cimport list_add, list_del

cdef enum:
    LRU_REFS_FLAGS = PG_referenced | PG_workingset


cdef inline int gen_of_seq(int64_t seq) noexcept nogil:
    return <int>(seq & (NR_GENS - 1))

cdef inline int64_t nr_gens(const machine *m, int type) noexcept nogil:
    return m.cg.max_seq - m.cg.min_seq[type] + 1

cdef inline int folio_gen(const folio_t *q) noexcept nogil:
    """folio_lru_gen: -1 while it is on no list."""
    return (q.gen & GEN_MASK) - 1

cdef inline void folio_set_gen(folio_t *q, int gen) noexcept nogil:
    q.gen = <uint8_t>((q.gen & ~GEN_MASK) | (gen + 1))

cdef inline int folio_lru_refs(const folio_t *q) noexcept nogil:
    return ((q.gen & GEN_REFS_MASK) >> GEN_REFS_SHIFT) + (1 if q.flags & PG_workingset else 0)

cdef inline int tier_of_refs(int refs) noexcept nogil:
    """order_base_2(refs + 1), refs up to 4"""
    return refs - (1 if refs > 2 else 0)

cdef inline void folio_set_lru_refs(folio_t *q, int refs) noexcept nogil:
    q.gen = <uint8_t>((q.gen & ~GEN_REFS_MASK) | (refs << GEN_REFS_SHIFT))

cdef inline void folio_clear_lru_refs(folio_t *q) noexcept nogil:
    folio_set_lru_refs(q, 0)
    q.flags &= ~<uint32_t>LRU_REFS_FLAGS


# --- the lists; a folio that was promoted stays where it is until the eviction sorts it

cdef inline void gen_list_add(machine *m, int32_t f, int gen, bint tail) noexcept nogil:
    cdef folio_t *q = &m.folio[f]
    q.gen = <uint8_t>((q.gen & ((1 << GEN_ON_SHIFT) - 1)) | (gen << GEN_ON_SHIFT))
    list_add(m, GEN_LIST + gen, f, tail)

cdef inline void gen_list_del(machine *m, int32_t f) noexcept nogil:
    list_del(m, GEN_LIST + (m.folio[f].gen >> GEN_ON_SHIFT), f)

cdef inline void gen_list_move(machine *m, int32_t f, int gen, bint tail) noexcept nogil:
    gen_list_del(m, f)
    gen_list_add(m, f, gen, tail)

cdef inline void lru_gen_add_folio(machine *m, int32_t f, bint reclaiming) noexcept nogil:
    cdef memcg_t *g = m.cg
    cdef folio_t *q = &m.folio[f]
    cdef int64_t seq = g.min_seq[GEN_ANON]
    cdef int gen
    if q.flags & PG_active:
        seq = g.max_seq
        folio_set_lru_refs(q, 0)
        q.flags &= ~<uint32_t>(PG_referenced | PG_active)
    elif (not q.flags & PG_swapcache
          or (q.flags & PG_reclaim and q.flags & (PG_dirty | PG_writeback))):
        seq = g.max_seq - 1
    elif not reclaiming and seq + MIN_NR_GENS < g.max_seq:
        seq += 1
    gen = gen_of_seq(seq)
    folio_set_gen(q, gen)
    g.gen_nr[gen] += 1
    gen_list_add(m, f, gen, reclaiming)

cdef inline void lru_gen_del_folio(machine *m, int32_t f, bint reclaiming) noexcept nogil:
    cdef folio_t *q = &m.folio[f]
    cdef int gen = folio_gen(q)
    if not reclaiming and (gen == gen_of_seq(m.cg.max_seq) or gen == gen_of_seq(m.cg.max_seq - 1)):
        q.flags |= PG_active
    folio_set_gen(q, -1)
    m.cg.gen_nr[gen] -= 1
    gen_list_del(m, f)


# --- references

cdef inline int folio_update_gen(folio_t *q, int gen) noexcept nogil:
    """Promote a folio that was accessed through page tables; the generation it had."""
    cdef int old = folio_gen(q)
    if old < 0:
        q.flags |= PG_referenced             # isolated: for shrink_folio_list
    else:
        folio_clear_lru_refs(q)
        folio_set_gen(q, gen)
    return old

cdef inline void folio_inc_refs(folio_t *q) noexcept nogil:
    """folio_mark_accessed"""
    cdef int refs = (q.gen & GEN_REFS_MASK) >> GEN_REFS_SHIFT
    if not q.flags & PG_referenced:
        q.flags |= PG_referenced
    elif not q.flags & PG_workingset:
        q.flags |= PG_workingset
    elif refs < REFS_MAX:
        folio_set_lru_refs(q, refs + 1)


# --- refaults by tier: the feedback of the eviction

cdef inline uint64_t lru_gen_eviction(machine *m, const folio_t *q) noexcept nogil:
    """The shadow of a folio that leaves."""
    cdef int refs = folio_lru_refs(q)
    cdef uint64_t token = <uint64_t>m.cg.min_seq[GEN_ANON] << 2
    m.cg.evicted[tier_of_refs(refs)] += 1
    if refs == 0:
        return (token << 3) | 1
    return ((token | <uint64_t>(refs - 1)) << 3) | 4 | 1

cdef inline bint lru_gen_in_fault(const machine *m) noexcept nogil:
    """Of the fault's own mm: whose page a cluster brings in is not known."""
    return m.mm[m.task[m.cpu[m.c].current].mm].recency

cdef inline void lru_gen_refault(machine *m, folio_t *q, uint64_t shadow) noexcept nogil:
    cdef uint64_t token = shadow >> 3
    cdef int refs = <int>(token & REFS_MAX) + (1 if shadow & 4 else 0)
    m.counter[CN_workingset_refault_anon] += 1
    if <int64_t>(token >> 2) != m.cg.min_seq[GEN_ANON]:
        return
    m.cg.refaulted[tier_of_refs(refs)] += 1
    m.counter[CN_workingset_activate_anon] += 1
    if lru_gen_in_fault(m) or refs >= REFS_MAX:
        folio_set_lru_refs(q, REFS_MAX)
        q.flags |= PG_workingset
        m.counter[CN_workingset_restore_anon] += 1
