# Requests of the swap device: their way to it, past a task's plug or through it
# (block/blk-core.c, block/blk-mq.c; docs/model.md 4).

from libc.stdint cimport int32_t, int64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *


cdef inline int32_t new_request(machine *m, int32_t slot) noexcept nogil:
    """A request for the folio of a slot, which has a tag; not issued yet."""
    cdef swapdev_t *dev = m.dev
    cdef int32_t r = dev.free_row
    dev.in_flight += 1
    dev.free_row = m.io[r].next
    m.io[r].slot = slot
    m.io[r].nr = 1
    m.io[r].next = -1
    return r

cdef inline void issue(machine *m, cpu_t *p, int32_t r) noexcept nogil:
    """To the device; the completion interrupts this CPU."""
    cdef int64_t done = m.now + m.w.io_latency, after = m.dev.last + m.io[r].nr * m.w.io_page
    if after > done:
        done = after
    m.dev.last = done
    m.io[r].done = done
    m.io[r].next = -1
    if p.io_head < 0:
        p.io_head = r
        p.io_at = done
    else:
        m.io[p.io_tail].next = r
    p.io_tail = r
    m.turn = 1                        # it may be done at once

cdef inline void submit_bio(machine *m, cpu_t *p, int32_t slot) noexcept nogil:
    issue(m, p, new_request(m, slot))

cdef inline void blk_flush_plug(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t r = t.plug_head, following
    while r >= 0:
        following = m.io[r].next
        issue(m, p, r)
        r = following
    t.plug_head = t.plug_tail = -1
    t.plug_nr = 0

cdef inline bint blk_attempt_plug_merge(machine *m, task_t *t, int32_t slot) noexcept nogil:
    """True if the page is now part of the plug's last request, its neighbour on the device."""
    cdef io_t *last
    if not m.w.rotational or t.plug_nr == 0:
        return False
    last = &m.io[t.plug_tail]
    if last.nr == BLK_MAX_SEGMENTS:
        return False
    if slot == last.slot - 1:
        last.slot = slot
    elif slot != last.slot + last.nr:
        return False
    last.nr += 1
    return True

cdef inline void blk_add_rq_to_plug(machine *m, cpu_t *p, task_t *t, int32_t slot) noexcept nogil:
    cdef int32_t r
    if t.plug_nr == BLK_MAX_REQUEST_COUNT or (
            t.plug_nr > 0 and m.io[t.plug_head].nr >= BLK_PLUG_FLUSH_PAGES):
        blk_flush_plug(m, p, t)
    r = new_request(m, slot)
    if t.plug_head < 0:
        t.plug_head = r
    else:
        m.io[t.plug_tail].next = r
    t.plug_tail = r
    t.plug_nr += 1

cdef inline bint reading_ahead(const task_t *t) noexcept nogil:
    return t.c_ret == ST_F_RA_CHARGED or t.c_ret == ST_F_CL_CHARGED

cdef inline void blk_finish_plug(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """The end of one reclaim of the lists; not if it is nested in a readahead, whose plug it then is."""
    if t.plug_nr > 0 and not reading_ahead(t):
        blk_flush_plug(m, p, t)
