# The LRU lists: intrusive, doubly linked, by index (names.LISTS).

from libc.stdint cimport int32_t

from reclaim._mm.types cimport *


cdef inline void list_add(machine *m, int l, int32_t f, bint tail) noexcept nogil:
    """Folio f to the head of list l, or to its tail."""
    cdef memcg_t *g = m.cg
    cdef folio_t *q = &m.folio[f]
    q.prev = g.lru_tail[l] if tail else -1
    q.next = -1 if tail else g.lru_head[l]
    if q.prev >= 0:
        m.folio[q.prev].next = f
    else:
        g.lru_head[l] = f
    if q.next >= 0:
        m.folio[q.next].prev = f
    else:
        g.lru_tail[l] = f
    g.lru_nr[l] += 1

cdef inline void list_del(machine *m, int l, int32_t f) noexcept nogil:
    cdef memcg_t *g = m.cg
    cdef folio_t *q = &m.folio[f]
    if q.prev >= 0:
        m.folio[q.prev].next = q.next
    else:
        g.lru_head[l] = q.next
    if q.next >= 0:
        m.folio[q.next].prev = q.prev
    else:
        g.lru_tail[l] = q.prev
    g.lru_nr[l] -= 1
