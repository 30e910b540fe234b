# The five strategy slots as vtables.  docs/policies.md is the contract.
#
# Subclass these from Cython (`from reclaim._policy cimport FlushPolicy`) or, through the
# Py* classes of reclaim.policies, from Python.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef enum pageout_t:          # what pageout() returns (enum pageout, mm/vmscan.c)
    PAGE_KEEP = 0
    PAGE_ACTIVATE = 1
    PAGE_SUCCESS = 2
    PAGE_CLEAN = 3

cdef enum dispatch_t:         # what shrink_folio_list does about it
    DO_KEEP_LOCKED = 0
    DO_ACTIVATE_LOCKED = 1
    DO_KEEP = 2
    DO_FREE = 3

cdef enum activate_t:         # bits
    ACTIVATE_FREE_SWAP = 1
    ACTIVATE_SET_ACTIVE = 2
    ACTIVATE_COUNT = 4

cdef struct folio_view:
    int64_t pfn
    uint32_t flags            # bit i is names.FOLIO_FLAGS[i]
    int32_t refcount
    int32_t mapcount
    int32_t pad

cdef struct list_view:        # the folios of one shrink_folio_list call, in its order
    int32_t nr                # 1 to 64: 32 at most on the classic LRU
    int64_t pfn[64]
    uint32_t flags[64]

cdef class Strategy:
    cdef readonly object state

cdef class AccountingPolicy(Strategy):
    cdef int free(self, int64_t *local, int64_t *stat, int nr) except -1 nogil
    cdef int64_t count(self, int64_t local, int64_t stat) noexcept nogil

cdef class ActivationPolicy(Strategy):
    cdef int activate(self, const folio_view *folio) except -1 nogil

cdef class FreePolicy(Strategy):
    cdef int dispatch(self, int result, uint32_t flags) except -1 nogil
    cdef int free(self, uint32_t flags) except -1 nogil

cdef class UnmapPolicy(Strategy):
    cdef int plan(self, const list_view *folios, uint8_t *defer) except -1 nogil

cdef class FlushPolicy(Strategy):
    cdef readonly bint keeps_locks
    cdef readonly bint remainder
    cdef readonly int rechecks
    cdef int plan(self, const list_view *folios, uint8_t *flush_after) except -1 nogil

cdef class Policies:
    """One strategy per slot, bound to one simulation."""
    cdef readonly AccountingPolicy accounting
    cdef readonly ActivationPolicy activation
    cdef readonly FreePolicy free
    cdef readonly UnmapPolicy unmap
    cdef readonly FlushPolicy flush
