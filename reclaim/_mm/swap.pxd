# Asynchronous swap: the device's queue, its completions, the end of write-back
# (mm/page_io.c, mm/swap.c, block/blk-mq.c; docs/model.md 4, 5.8).

from libc.stdint cimport int32_t, int64_t, uint32_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport spend
from reclaim._mm.folio cimport *
from reclaim._mm.blk cimport blk_add_rq_to_plug, blk_attempt_plug_merge
from reclaim._mm.sched cimport block, folio_wake, folio_unlock, wait_in_line, wake_task


cdef inline bint blk_mq_get_tag(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """True if a request may be submitted; else the task sleeps until one is done."""
    cdef swapdev_t *dev = m.dev
    if dev.in_flight < m.w.io_depth:
        return True
    m.counter[CN_io_waits] += 1
    wait_in_line(m, &dev.wait_head, &dev.wait_tail, p.current)
    block(m, p, t)
    return False

cdef inline bint plug_bio(machine *m, cpu_t *p, task_t *t, int32_t slot) noexcept nogil:
    """submit_bio in a plug; false if the task sleeps for a tag, to try again."""
    if blk_attempt_plug_merge(m, t, slot):
        return True
    if not blk_mq_get_tag(m, p, t):
        return False
    blk_add_rq_to_plug(m, p, t, slot)
    return True

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

cdef inline void end_bio(machine *m, cpu_t *p, int32_t f) noexcept nogil:
    """end_swap_bio_write, end_swap_bio_read"""
    p.irq_cost += m.w.cost[CO_io_complete]
    if folio_test(m, f, PG_writeback):
        folio_end_writeback(m, p, f)
    else:
        folio_unlock(m, f)

cdef inline void step_IO_END(machine *m, cpu_t *p) noexcept nogil:
    """blk_mq_end_request: one request a step"""
    cdef swapdev_t *dev = m.dev
    cdef int32_t r = p.io_head, s, u
    p.io_head = m.io[r].next
    if p.io_head < 0:
        p.io_tail = -1
    p.io_at = m.io[p.io_head].done if p.io_head >= 0 else INF
    m.io[r].next = dev.free_row
    dev.free_row = r
    dev.in_flight -= 1
    for s in range(m.io[r].slot, m.io[r].slot + m.io[r].nr):
        if slot_is_folio(m.slot_entry[s]):
            end_bio(m, p, <int32_t>(m.slot_entry[s] >> 2))
        else:                             # only a strategy that frees what is written gets here
            m.bad = 2
            m.turn = 1
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
