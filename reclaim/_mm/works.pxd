# Bound kernel threads: what a CPU's kworker is woken for (docs/model.md 3, 5.9).

from libc.stdint cimport int32_t, int64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *

cdef enum:
    WORKS_SHARED = WORK_NOTIFY | WORK_VMPRESSURE      # one work for all CPUs
    VMSTAT_SKEW = 3                                   # jiffies between the timers of two CPUs: __round_jiffies

cdef extern from *:
    """
    #define RECLAIM_SECOND ((int64_t)1000000000000)
    #define RECLAIM_NOTIFY_MIN_INTV ((int64_t)10000000000)
    """
    int64_t SECOND "RECLAIM_SECOND"
    int64_t NOTIFY_MIN_INTV "RECLAIM_NOTIFY_MIN_INTV"     # CGROUP_FILE_NOTIFY_MIN_INTV


cdef inline void queue_work(machine *m, cpu_t *p, int work) noexcept nogil:
    if (p.works | m.cg.works) & work:
        return
    p.works |= work
    m.cg.works |= work & WORKS_SHARED
    m.turn = 1

cdef inline void memcg_memory_event(machine *m, cpu_t *p) noexcept nogil:
    """cgroup_file_notify() of memory.events: at once, or by a timer once the least interval is over."""
    cdef int64_t tick = m.now // m.w.tick
    if m.w.cgroup == 1:
        return
    if tick >= m.cg.notify_from:
        m.cg.notify_from = tick + 1 + (NOTIFY_MIN_INTV + m.w.tick - 1) // m.w.tick
        queue_work(m, p, WORK_NOTIFY)
    elif m.cg.notify_cpu < 0:
        m.cg.notify_cpu = m.c

cdef inline void vmpressure(machine *m, cpu_t *p, int64_t scanned) noexcept nogil:
    """Of the tree; a group's own is of no consequence here."""
    if scanned <= 0:
        return
    m.cg.tree_scanned += scanned
    if m.cg.tree_scanned >= VMPRESSURE_WIN:
        queue_work(m, p, WORK_VMPRESSURE)

cdef inline int64_t first_vmstat(const machine *m, int32_t c) noexcept nogil:
    return SECOND - VMSTAT_SKEW * c * m.w.tick % SECOND

cdef inline void work_timers(machine *m, cpu_t *p) noexcept nogil:
    """Those of the CPU that a tick finds due."""
    if m.now >= p.vmstat_at:
        p.vmstat_at += SECOND * (1 + (m.now - p.vmstat_at) // SECOND)
        queue_work(m, p, WORK_VMSTAT)
    if m.cg.notify_cpu == m.c and m.now // m.w.tick >= m.cg.notify_from:
        m.cg.notify_cpu = -1
        memcg_memory_event(m, p)

cdef inline int32_t run_works(machine *m, cpu_t *p) noexcept nogil:
    """process_one_work() for each that is pending; how many."""
    cdef int works = p.works, nr = 0
    if works & WORK_DRAIN:
        m.cg.usage -= p.stock
        p.stock = 0
        m.counter[CN_stock_drains] += 1
        nr += 1
    if works & WORK_VMSTAT:
        m.counter[CN_vmstat_updates] += 1
        nr += 1
    if works & WORK_NOTIFY:
        m.counter[CN_memcg_notifies] += 1
        nr += 1
    if works & WORK_VMPRESSURE:
        m.cg.tree_scanned = 0
        m.counter[CN_vmpressures] += 1
        nr += 1
    m.cg.works &= ~<int64_t>(works & WORKS_SHARED)
    p.works = 0
    return nr
