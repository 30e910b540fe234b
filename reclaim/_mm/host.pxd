# Host CPUs that run the simulated CPUs in turn (docs/model.md 5.11), as QEMU's round robin does.

from libc.stdint cimport int32_t, int64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport *
from reclaim._mm.program cimport cut_run


cdef inline bint host_can_run(machine *m, const cpu_t *p, int64_t now) noexcept nogil:
    """Has the CPU anything to do, that is more than to spin or to be halted?"""
    if p.in_irq or p.mode == CPU_RUN:
        return True
    if p.mode == CPU_SPIN_LOCK:
        if lock_of(m, p).holder < 0:
            return True
        if not p.last_on:
            return False
    return irq_time(p) <= now

cdef inline void take_lock(machine *m, int32_t c) noexcept nogil:
    """CPU c, which spins, found the lock free."""
    cdef qlock *l = lock_of(m, &m.cpu[c])
    cdef int32_t before = -1, w = l.head
    while w != c:
        before = w
        w = m.cpu[w].lock_next
    hand_over(m, l, c, before)

cdef inline void host_enter(machine *m, int32_t c, int64_t now, int64_t cost) noexcept nogil:
    """CPU c gets its host CPU; the time without it was stolen, or it waited anyway."""
    cdef cpu_t *p = &m.cpu[c]
    cdef int64_t *times = m.time + <int64_t>c * TM_NR
    cdef int a
    p.hosted = 1
    p.ask = 0
    if now > p.clock:
        times[TM_steal if p.in_irq or p.mode == CPU_RUN else wait_category(p)] += now - p.clock
        p.clock = now
    times[TM_steal] += cost
    p.clock += cost
    p.on_at = p.clock
    p.clock += p.host_left
    p.host_left = 0
    if p.mode == CPU_SPIN_LOCK and lock_of(m, p).holder < 0:
        take_lock(m, c)
    if p.pv_flush:                    # kvm_vcpu_flush_tlb_guest: every address space
        p.pv_flush = 0
        for a in range(NR_ASIDS):
            p.tlb_stamp += 1
            p.asid_stamp[a] = p.tlb_stamp

cdef inline void host_leave(machine *m, int32_t c, int64_t now) noexcept nogil:
    cdef cpu_t *p = &m.cpu[c]
    cut_run(m, c, now, m.c)
    p.hosted = 0
    p.kicked_at = now
    if p.in_irq or p.mode == CPU_RUN:
        p.host_left = p.clock - now
        p.clock = now

cdef inline void host_next(machine *m, int32_t h, int32_t first, int64_t now) noexcept nogil:
    """Host CPU h, which runs none, takes the first of its CPUs from `first` on that can run."""
    cdef int32_t c = first, before = m.host[h].running
    cdef bint other
    m.host[h].running = -1
    while True:
        if host_can_run(m, &m.cpu[c], now):
            m.host[h].running = c
            other = before >= 0 and before != c
            m.counter[CN_vcpu_switches] += other
            host_enter(m, c, now, m.w.cost[CO_vcpu_switch] if other else 0)
            if m.c >= 0:
                rekey(m, c)
            return
        c += m.w.host_cpus
        if c >= m.w.nr_cpus:
            c = h
        if c == first:
            return

cdef inline void host_turn(machine *m, int32_t h, int32_t r) noexcept nogil:
    """Host CPU h stops its CPU r and goes on round the ring."""
    cdef int32_t nxt = r + m.w.host_cpus
    host_leave(m, r, m.now)
    host_next(m, h, nxt if nxt < m.w.nr_cpus else h, m.now)
    if r != m.c:
        rekey(m, r)

cdef inline void step_H_EVENT(machine *m, cpu_t *p, bint kick) noexcept nogil:
    """A timer of the CPU ends its host CPU's turn; an interrupt wakes a host CPU that runs none."""
    cdef int32_t h = m.c % m.w.host_cpus, r = m.host[h].running
    m.row_step = ST_H_EVENT
    p.kicked_at = m.now
    p.ask = 0
    if r < 0:
        host_next(m, h, m.c, m.now)
    elif kick and m.host[h].turned_at != m.now:      # timers that are due at once make one interrupt
        m.host[h].turned_at = m.now
        host_turn(m, h, r)

cdef inline void step_H_YIELD(machine *m) noexcept nogil:
    """The CPU spins or halts, with no interrupt to take."""
    m.row_step = ST_H_YIELD
    host_turn(m, m.c % m.w.host_cpus, m.c)

cdef inline bint host_step(machine *m, cpu_t *p) noexcept nogil:
    """H_EVENT or H_YIELD, if the acting CPU's next action is one."""
    cdef bint kick = kick_time(p) <= m.now
    if kick or not p.hosted:
        step_H_EVENT(m, p, kick)
        return True
    if host_can_run(m, p, m.now):
        return False
    step_H_YIELD(m)
    return True
