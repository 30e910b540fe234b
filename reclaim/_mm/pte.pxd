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
