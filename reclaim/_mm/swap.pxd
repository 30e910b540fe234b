# Asynchronous swap: the device's queue, its completions, the end of write-back
# (mm/page_io.c, mm/swap.c, block/blk-mq.c; docs/model.md 4, 5.8).

from libc.stdint cimport int32_t, int64_t, uint32_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport spend
from reclaim._mm.folio cimport *
from reclaim._mm.sched cimport block, folio_wake, folio_unlock, wake_task


cdef inline void submit_bio(machine *m, cpu_t *p, int32_t f) noexcept nogil:
    """A request for folio f; its completion interrupts this CPU."""
    cdef swapdev_t *dev = m.dev
    cdef int32_t r = dev.free_row
    cdef int64_t done = m.now + m.w.io_latency
    if dev.last + m.w.io_page > done:
        done = dev.last + m.w.io_page
    dev.last = done
    dev.in_flight += 1
    dev.free_row = m.io[r].next
    m.io[r].folio = f
    m.io[r].done = done
    m.io[r].next = -1
    if p.io_head < 0:
        p.io_head = r
        p.io_at = done
    else:
        m.io[p.io_tail].next = r
    p.io_tail = r

cdef inline bint blk_mq_get_tag(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """True if a request may be submitted; else the task sleeps until one is done."""
    cdef swapdev_t *dev = m.dev
    if dev.in_flight < m.w.io_depth:
        return True
    m.counter[CN_io_waits] += 1
    t.wait_next = -1
    if dev.wait_head < 0:
        dev.wait_head = p.current
    else:
        m.task[dev.wait_tail].wait_next = p.current
    dev.wait_tail = p.current
    block(m, p, t)
    return False

cdef inline void folio_rotate_reclaimable(machine *m, cpu_t *p, int32_t f) noexcept nogil:
    cdef folio_t *q = &m.folio[f]
    if q.flags & (PG_locked | PG_dirty) or not q.flags & PG_lru:
        return
    q.refcount += 1
    p.lru_move_tail[p.nr_lru_move_tail] = f
    p.nr_lru_move_tail += 1
    if p.nr_lru_move_tail == BATCH:
        p.irq_cost += m.w.cost[CO_lru_lock] + BATCH * m.w.cost[CO_lru_add]
        lru_move_tail(m, p)

cdef inline void folio_end_writeback(machine *m, cpu_t *p, int32_t f) noexcept nogil:
    cdef folio_t *q = &m.folio[f]
    if q.flags & PG_reclaim:
        q.flags &= ~<uint32_t>PG_reclaim
        folio_rotate_reclaimable(m, p, f)
    q.flags &= ~<uint32_t>PG_writeback
    folio_wake(m, f, 1)


cdef inline void step_IO_ENTRY(machine *m, cpu_t *p) noexcept nogil:
    spend(m, TM_interrupt, m.w.cost[CO_irq_entry])
    p.istep = ST_IO_END

cdef inline void step_IO_END(machine *m, cpu_t *p) noexcept nogil:
    """end_swap_bio_write, end_swap_bio_read: one request a step"""
    cdef swapdev_t *dev = m.dev
    cdef int32_t r = p.io_head, f = m.io[r].folio, u
    p.io_head = m.io[r].next
    if p.io_head < 0:
        p.io_tail = -1
    p.io_at = m.io[p.io_head].done if p.io_head >= 0 else INF
    m.io[r].next = dev.free_row
    dev.free_row = r
    dev.in_flight -= 1
    p.irq_cost += m.w.cost[CO_io_complete]
    if folio_test(m, f, PG_writeback):
        folio_end_writeback(m, p, f)
    else:
        folio_unlock(m, f)
    u = dev.wait_head
    if u >= 0:
        dev.wait_head = m.task[u].wait_next
        if dev.wait_head < 0:
            dev.wait_tail = -1
        m.task[u].wait_next = -1
        wake_task(m, u)
    p.istep = ST_Q_EXIT
    if p.io_at <= m.now:              # announced by the same interrupt
        p.kicked_at = m.now
        p.istep = ST_IO_END
