# Page-table entries: one 64-bit word per virtual page (docs/model.md 1).

from libc.stdint cimport int32_t, uint32_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *


cdef inline int pte_kind_of(uint64_t pte) noexcept nogil:
    return <int>(pte & PTE_KIND_MASK)

cdef inline bint pte_present(uint64_t pte) noexcept nogil:
    return (pte & PTE_KIND_MASK) == PTE_PRESENT

cdef inline int32_t pte_index(uint64_t pte) noexcept nogil:
    """The frame of a present (or zapped) entry, the slot of a swap entry."""
    return <int32_t>(pte >> 8)            # PTE_RO falls out

cdef inline uint64_t pte_make(int kind, int32_t index, uint64_t flags) noexcept nogil:
    return <uint64_t>kind | flags | (<uint64_t><uint32_t>index << 8)

cdef inline region_t *pte_region(machine *m, int32_t mm, int32_t vp) noexcept nogil:
    """The page-table page that holds the entry, with its lock (split PTL)."""
    cdef mm_t *p = &m.mm[mm]
    return &m.region[p.first_region + ((vp - p.base) >> 9)]


# Where a fork shares folios, page i of the parent and page i of the child are the only ones that
# may map the same one (anon_vma_fork): a reverse map looks at both.

cdef inline int32_t peer_page(const machine *m, int32_t mm, int32_t vp) noexcept nogil:
    """The same page of the mm's child, or parent; -1 if it has none."""
    cdef int32_t peer = m.mm[mm].peer
    return m.mm[peer].base + vp - m.mm[mm].base if peer >= 0 else -1

cdef inline int32_t rmap_page(const machine *m, const folio_t *q, int i) noexcept nogil:
    """The i-th page of a reverse map: the parent's comes first."""
    if m.mm[q.mm].peer < 0:
        return q.vp if i == 0 else -1
    return q.vp if m.mm[q.mm].is_child == i else peer_page(m, q.mm, q.vp)

cdef inline bint pte_maps(const machine *m, int32_t vp, int32_t f) noexcept nogil:
    return pte_present(m.pte[vp]) and pte_index(m.pte[vp]) == f

cdef inline int32_t mapped_page(machine *m, task_t *t) noexcept nogil:
    """The next page that maps the task's folio, as a look without the lock tells; -1: no more.
    Without forks it is the folio's only one."""
    cdef const folio_t *q = &m.folio[t.folio]
    cdef int32_t vp
    if q.mapcount == 0:
        return -1
    if not unlikely(m.w.forks):
        return q.vp
    while t.rmap & 3 < 2:
        vp = rmap_page(m, q, t.rmap & 3)
        if vp >= 0 and pte_maps(m, vp, t.folio):
            return vp
        t.rmap += 1
    return -1

cdef inline int32_t unmap_page(const machine *m, const task_t *t) noexcept nogil:
    """The page that is being unmapped, ..."""
    cdef const folio_t *q = &m.folio[t.folio]
    return rmap_page(m, q, t.rmap & 3) if unlikely(m.w.forks) else q.vp

cdef inline int32_t mm_of_page(const machine *m, const folio_t *q, int32_t vp) noexcept nogil:
    """... and the mm whose it is."""
    return q.mm if vp == q.vp else m.mm[q.mm].peer
