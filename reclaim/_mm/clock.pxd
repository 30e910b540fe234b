# Clocks, keys and the winner tree: which CPU acts next (docs/model.md 2).

from libc.stdint cimport int32_t, int64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *

cdef enum:
    CPU_BITS = 10


cdef inline int64_t irq_time(const cpu_t *p) noexcept nogil:
    cdef int64_t t = p.irq_at
    if p.tick_at < t:
        t = p.tick_at
    if p.timer_at < t:
        t = p.timer_at
    if p.io_at < t:
        t = p.io_at
    return t


cdef inline int64_t later(int64_t t, int64_t best, int64_t bound) noexcept nogil:
    return t if bound < t < best else best


cdef inline int64_t kick_time(const cpu_t *p) noexcept nogil:
    """When a timer or device of the CPU next interrupts its host CPU."""
    cdef int64_t t = later(p.tick_at, INF, p.kicked_at)
    t = later(p.timer_at, t, p.kicked_at)
    return later(p.io_at, t, p.kicked_at)


cdef inline int64_t guest_key(const cpu_t *p) noexcept nogil:
    """cpu_key where host CPUs run the CPUs in turn."""
    cdef int64_t t = kick_time(p), own = p.clock
    if not p.hosted:
        t = later(p.irq_at, t, p.kicked_at)
        return p.clock if p.ask and p.clock < t else t
    if not p.in_irq and p.mode == CPU_RUN and p.last_on:
        own = irq_time(p)
        if own < p.on_at:
            own = p.on_at
        if own > p.clock:
            own = p.clock
    return t if t < own else own


cdef inline int64_t cpu_key(const machine *m, const cpu_t *p) noexcept nogil:
    """When the CPU acts next: the end of its step, or an interrupt inside it."""
    cdef int64_t t
    if unlikely(m.w.host_cpus):
        return guest_key(p)
    if p.in_irq:
        return p.clock
    if p.mode == CPU_RUN:
        if not p.last_on:
            return p.clock
        t = irq_time(p)
        return t if t < p.clock else p.clock
    if p.mode == CPU_SPIN_LOCK and not p.last_on:
        return INF
    t = irq_time(p)
    return t if t > p.clock else p.clock


cdef inline int64_t leaf_of(const machine *m, int32_t c) noexcept nogil:
    cdef int64_t k = cpu_key(m, &m.cpu[c])
    # the end of time, 2**53 ps, is after the end of every run
    return LEAF_INF if k >> 53 else (k << CPU_BITS) | c


cdef inline void tree_set(machine *m, int32_t c, int64_t leaf) noexcept nogil:
    """Replay CPU c's path to the root; tree[1] is the least leaf."""
    cdef int64_t *tree = m.tree
    cdef int64_t other
    cdef size_t i = <size_t>(m.tree_size + c)
    tree[i] = leaf
    while i > 1:
        other = tree[i ^ 1]
        leaf = other if other < leaf else leaf      # no branch: it would be a coin toss
        i >>= 1
        tree[i] = leaf


cdef inline int32_t next_cpu(const machine *m) noexcept nogil:
    """Who acts next; CPU 0 if nobody can."""
    return <int32_t>(m.tree[1] & ((1 << CPU_BITS) - 1)) if m.tree[1] != LEAF_INF else 0


cdef inline void rekey(machine *m, int32_t c) noexcept nogil:
    """CPU c's key changed; the acting CPU's own leaf is set when its action ends."""
    cdef int64_t leaf
    if c != m.c:
        leaf = leaf_of(m, c)
        tree_set(m, c, leaf)
        if leaf < m.leaf:             # it comes before the acting one, were that to go on now
            m.turn = 1


cdef inline void spend(machine *m, int32_t cat, int64_t cost) noexcept nogil:
    m.p.clock += cost
    m.times[cat] += cost
    m.row_cost += cost
    m.turn = 1


cdef inline void wake_cpu(machine *m, int32_t w, int64_t d, int32_t cat) noexcept nogil:
    """Make a waiting CPU run from now, or from its own later clock, plus d."""
    cdef cpu_t *p = &m.cpu[w]
    cdef int64_t u
    if p.mode == CPU_IDLE:
        m.cg.nr_idle -= 1
    p.mode = CPU_RUN
    if p.in_irq:
        p.left = d
        m.time[w * TM_NR + cat] += d
    else:
        u = p.clock if p.clock > m.now else m.now
        m.time[w * TM_NR + cat] += u - p.clock + d
        p.clock = u + d
        if m.w.host_cpus and not p.hosted:
            p.clock = u
            p.host_left = d
            p.ask = 1
    rekey(m, w)


cdef inline int wait_category(const cpu_t *p) noexcept nogil:
    if p.mode == CPU_SPIN_ACK:
        return TM_flush_wait
    if p.mode == CPU_SPIN_LOCK:
        return TM_lock_wait
    return TM_idle


# Spin locks: fair queues; where host CPUs run the CPUs in turn test-and-set (virt_spin_lock), so that
# who comes while no waiter runs takes the lock.

cdef inline qlock *lock_of(machine *m, const cpu_t *p) noexcept nogil:
    """What a CPU in SPIN_LOCK spins for."""
    return &m.cg.lru_lock if p.lock_at == 0 else &m.region[p.lock_at - 1].ptl


cdef inline bint lock(machine *m, qlock *l) noexcept nogil:
    """True if this CPU holds it now; else the CPU waits in line and the step is over."""
    cdef cpu_t *p = &m.cpu[m.c]
    if l.holder == m.c:
        return True
    if l.holder < 0:
        l.holder = m.c
        return True
    p.lock_at = 0 if l == &m.cg.lru_lock else 1 + <int32_t>(<region_t *>l - m.region)
    p.lock_next = -1
    if l.head < 0:
        l.head = m.c
    else:
        m.cpu[l.tail].lock_next = m.c
    l.tail = m.c
    m.turn = 1
    p.mode = CPU_SPIN_LOCK      # interrupts as the row says: last_on
    return False


cdef inline void hand_over(machine *m, qlock *l, int32_t w, int32_t before) noexcept nogil:
    """The lock goes to its waiter w, which stands behind `before` (-1: the first)."""
    cdef int32_t after = m.cpu[w].lock_next
    if before < 0:
        l.head = after
    else:
        m.cpu[before].lock_next = after
    if after < 0:
        l.tail = before
    m.cpu[w].lock_next = -1
    l.holder = w
    wake_cpu(m, w, m.w.cost[CO_lock_handoff], TM_lock_wait)


cdef inline void unlock_guest(machine *m, qlock *l) noexcept nogil:
    """To the first waiter that runs, or whose host CPU has nothing else to run."""
    cdef int32_t w = l.head, before = -1
    while w >= 0 and not m.cpu[w].hosted and m.host[w % m.w.host_cpus].running >= 0:
        before = w
        w = m.cpu[w].lock_next
    if w >= 0:
        hand_over(m, l, w, before)
    else:
        l.holder = -1


cdef inline void unlock(machine *m, qlock *l) noexcept nogil:
    if l.head < 0:
        l.holder = -1
    elif m.w.host_cpus:
        unlock_guest(m, l)
    else:
        hand_over(m, l, l.head, -1)


cdef inline bint lock_lru(machine *m) noexcept nogil:
    if lock(m, &m.cg.lru_lock):
        return True
    m.counter[CN_lru_lock_waits] += 1
    return False
