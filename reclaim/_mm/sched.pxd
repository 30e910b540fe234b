# Run queues, wake-ups, switch_mm_irqs_off, ticks, folio locks (docs/model.md 3, 5.8, 5.9).

from libc.stdint cimport int32_t, int64_t, uint64_t, UINT64_MAX

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport *
from reclaim._mm.tlb cimport *
from reclaim._mm.rng cimport rng_draw, rng_below
from reclaim._mm.program cimport cut_run
from reclaim._mm.blk cimport blk_flush_plug
from reclaim._mm.works cimport run_works, work_timers


cdef inline void rq_append(machine *m, int32_t c, int32_t u) noexcept nogil:
    cdef cpu_t *p = &m.cpu[c]
    m.task[u].rq_next = -1
    if p.rq_head < 0:
        p.rq_head = u
    else:
        m.task[p.rq_tail].rq_next = u
    p.rq_tail = u
    p.rq_nr += 1

cdef inline void rq_prepend(machine *m, int32_t c, int32_t u) noexcept nogil:
    cdef cpu_t *p = &m.cpu[c]
    m.task[u].rq_next = p.rq_head
    p.rq_head = u
    if p.rq_tail < 0:
        p.rq_tail = u
    p.rq_nr += 1

cdef inline void rq_unlink(machine *m, int32_t c, int32_t u, int32_t before) noexcept nogil:
    """Take u off CPU c's queue; `before` is the task in front of it, or -1."""
    cdef cpu_t *p = &m.cpu[c]
    if before < 0:
        p.rq_head = m.task[u].rq_next
    else:
        m.task[before].rq_next = m.task[u].rq_next
    if p.rq_tail == u:
        p.rq_tail = before
    m.task[u].rq_next = -1
    p.rq_nr -= 1

cdef inline bint cpu_is_idle(const machine *m, int32_t c) noexcept nogil:
    return m.cpu[c].mode == CPU_IDLE

cdef inline int32_t lowest_idle(const machine *m) noexcept nogil:
    cdef int32_t c
    if m.cg.nr_idle > 0:
        for c in range(m.w.nr_cpus):
            if m.cpu[c].mode == CPU_IDLE:
                return c
    return -1

cdef inline void kick_idle(machine *m, int32_t c, int64_t d) noexcept nogil:
    m.cpu[c].sstep = ST_SW_PICK
    wake_cpu(m, c, d, TM_idle)

cdef inline bint goes_elsewhere(machine *m, const task_t *t, int32_t u) noexcept nogil:
    """select_idle_sibling: does the task leave its CPU, for an idle one?"""
    cdef const cpu_t *p = &m.cpu[t.cpu]
    if t.pinned:
        return False
    if p.mode != CPU_IDLE:
        return m.cg.nr_idle > 0 and p.current != u        # else ttwu_runnable(): not off it yet
    return (m.w.busy_threshold > 0 and m.cg.nr_idle > 1   # a kernel thread may run there just now
            and rng_draw(&m.p.rng) < m.w.busy_threshold)

cdef inline void wake_task(machine *m, int32_t u) noexcept nogil:
    """try_to_wake_up; the waker's cost is added to the step in hand, as system time."""
    cdef task_t *t = &m.task[u]
    cdef int32_t target = t.cpu, i
    if goes_elsewhere(m, t, u):
        i = target
        while True:
            i += 1
            if i == m.w.nr_cpus:
                i = 0
            if i == t.cpu:
                break
            if cpu_is_idle(m, i):
                target = i
                t.cpu = i
                m.counter[CN_migrations] += 1
                break
    t.state = TASK_QUEUED
    rq_append(m, target, u)
    if cpu_is_idle(m, target):
        if target != m.c:
            m.counter[CN_function_call_ipis] += 1       # ttwu_queue_wakelist
            m.cpu[target].irq_call_count += 1
            kick_idle(m, target, m.w.cost[CO_ipi_delivery] + m.p.irq_cost)
        else:
            kick_idle(m, target, 0)
    spend(m, TM_sched, m.w.cost[CO_wakeup])

cdef inline void folio_wake(machine *m, int32_t f, int bit) noexcept nogil:
    """folio_wake_bit: wake those who wait for this bit, in order; the others go on waiting."""
    cdef folio_t *p = &m.folio[f]
    cdef int32_t u, nxt, last = -1
    if not p.flags & PG_waiters:
        return
    u = p.wait_head
    p.wait_head = -1
    p.flags &= ~<uint32_t>PG_waiters
    while u >= 0:
        nxt = m.task[u].wait_next
        m.task[u].wait_next = -1
        if m.task[u].wait_bit == bit:
            wake_task(m, u)
        else:
            p.flags |= PG_waiters
            if last < 0:
                p.wait_head = u
            else:
                m.task[last].wait_next = u
            last = u
        u = nxt

cdef inline void folio_unlock(machine *m, int32_t f) noexcept nogil:
    m.folio[f].flags &= ~<uint32_t>PG_locked
    folio_wake(m, f, 0)

cdef inline void folio_wait(machine *m, cpu_t *p, task_t *t, int32_t f, int bit) noexcept nogil:
    """folio_wait_bit: sleep until the folio loses its lock (0) or ends its write-back (1)."""
    cdef folio_t *q = &m.folio[f]
    cdef int32_t last
    t.wait_bit = bit
    t.wait_next = -1
    if q.flags & PG_waiters:
        last = q.wait_head
        while m.task[last].wait_next >= 0:
            last = m.task[last].wait_next
        m.task[last].wait_next = p.current
    else:
        q.flags |= PG_waiters
        q.wait_head = p.current
    block(m, p, t)

cdef inline void block(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """schedule(), asleep: sched_submit_work() lets the task's requests go."""
    if t.plug_nr > 0:
        blk_flush_plug(m, p, t)
    t.state = TASK_BLOCKED
    p.sstep = ST_SW_PICK
    m.turn = 1

cdef inline void wait_in_line(machine *m, int32_t *head, int32_t *tail, int32_t u) noexcept nogil:
    """Task u to the end of a queue that is linked through task.wait_next."""
    m.task[u].wait_next = -1
    if head[0] < 0:
        head[0] = u
    else:
        m.task[tail[0]].wait_next = u
    tail[0] = u


# --- mmap_lock and the VMA locks, one lock of the mm: where threads share it and one of them
# changes its mappings; elsewhere nobody could wait

cdef inline bint mmap_lock(machine *m, cpu_t *p, task_t *t, uint8_t kind) noexcept nogil:
    """True if the task holds its mm's lock now; else it sleeps until it is given it."""
    cdef mm_t *mm = &m.mm[t.mm]
    if not mm.locks or t.mmap == kind:
        return True
    if mm.wait_head < 0 and mm.writer < 0 and (kind == MMAP_READ or mm.readers == 0):
        mmap_take(mm, t, p.current, kind)
        return True
    t.mmap = kind + MMAP_WAIT
    wait_in_line(m, &mm.wait_head, &mm.wait_tail, p.current)
    block(m, p, t)
    return False

cdef inline void mmap_take(mm_t *mm, task_t *t, int32_t u, uint8_t kind) noexcept nogil:
    t.mmap = kind
    if kind == MMAP_WRITE:
        mm.writer = u
    else:
        mm.readers += 1

cdef inline void mmap_wake(machine *m, mm_t *mm) noexcept nogil:
    """rwsem_mark_wake: the first waiter if it writes, else all that read."""
    cdef int32_t u = mm.wait_head, nxt
    cdef bint writer = m.task[u].mmap == MMAP_WRITE + MMAP_WAIT
    mm.wait_head = -1
    mm.wait_tail = -1
    while u >= 0:
        nxt = m.task[u].wait_next
        m.task[u].wait_next = -1
        if mm.writer < 0 and (writer or m.task[u].mmap == MMAP_READ + MMAP_WAIT):
            mmap_take(mm, &m.task[u], u, m.task[u].mmap - MMAP_WAIT)
            wake_task(m, u)
        else:
            wait_in_line(m, &mm.wait_head, &mm.wait_tail, u)
        u = nxt

cdef inline void mmap_unlock(machine *m, task_t *t) noexcept nogil:
    cdef mm_t *mm = &m.mm[t.mm]
    if t.mmap == 0:
        return
    if t.mmap == MMAP_WRITE:
        mm.writer = -1
    else:
        mm.readers -= 1
    t.mmap = 0
    if mm.readers == 0 and mm.wait_head >= 0:
        mmap_wake(m, mm)


cdef inline bint resched_guard(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """cond_resched: true if the step gives way and is over."""
    return (p.need_resched or p.works) and give_way(m, p, t)

cdef inline bint give_way(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t j
    if p.works and (not m.w.kworkers or p.slice_ticks >= m.w.slice_ticks):      # else protect_slice()
        p.sstep = ST_W_WORK
        m.turn = 1
        return True
    if not p.need_resched or p.rq_nr == 0 and p.push < 0:
        return False
    t.state = TASK_QUEUED
    if p.push >= 0:
        j = p.push
        p.push = -1
        t.cpu = j
        m.counter[CN_migrations] += 1
        rq_prepend(m, j, p.current)
        cut_run(m, j, m.now, m.c)
        m.cpu[j].need_resched = 1
        if cpu_is_idle(m, j):
            kick_idle(m, j, m.w.cost[CO_ipi_delivery])
    else:
        rq_append(m, m.c, p.current)
        j = lowest_idle(m)
        if j >= 0:
            kick_idle(m, j, m.w.cost[CO_ipi_delivery])
    p.sstep = ST_SW_PICK
    m.turn = 1
    return True


cdef inline int32_t kworker_waits(const machine *m, int32_t c) noexcept nogil:
    """Tasks in CPU c's queue that are its bound kernel thread: it, or none."""
    return m.w.kworkers and m.cpu[c].works != 0

cdef inline int32_t nr_running(const machine *m, int32_t c) noexcept nogil:
    return m.cpu[c].rq_nr + (m.cpu[c].current >= 0) + kworker_waits(m, c)

cdef inline int32_t newidle_balance(machine *m) noexcept nogil:
    """Pull a task from the longest run queue; -1 if there is none."""
    cdef int32_t j, best = -1, u, before, queued, most = 0
    for j in range(m.w.nr_cpus):
        if j == m.c or m.cpu[j].need_resched or m.cpu[j].rq_nr == 0:
            continue
        if nr_running(m, j) == 1:                             # its task is about to run there
            continue
        queued = m.cpu[j].rq_nr + kworker_waits(m, j)
        if queued <= most:
            continue
        u = m.cpu[j].rq_head
        while u >= 0 and m.task[u].pinned:
            u = m.task[u].rq_next
        if u >= 0:
            best = j
            most = queued
    if best < 0:
        return -1
    before = -1
    u = m.cpu[best].rq_head
    while m.task[u].pinned:
        before = u
        u = m.task[u].rq_next
    rq_unlink(m, best, u, before)
    m.counter[CN_migrations] += 1
    return u

cdef inline void unlazy(machine *m, cpu_t *p) noexcept nogil:
    cdef uint64_t gen
    if not p.is_lazy:
        return
    p.is_lazy = 0
    gen = m.mm[p.loaded_mm].tlb_gen
    if p.asid_gen[p.loaded_asid] != gen:
        flush_tlb_local(m, m.c)
        p.asid_gen[p.loaded_asid] = gen

cdef inline int64_t next_tick(const machine *m, int32_t c, int64_t now) noexcept nogil:
    """The first tick of CPU c after now."""
    cdef int64_t offset = c * m.w.tick_skew % m.w.tick
    if now < offset:
        return offset
    return now - (now - offset) % m.w.tick + m.w.tick

cdef inline void lru_gen_use_mm(machine *m, int32_t mm) noexcept nogil:
    if unlikely(m.w.lru):
        m.mm[mm].lru_gen |= MM_USED

cdef inline void step_SW_PICK(machine *m, cpu_t *p) noexcept nogil:
    cdef int32_t n = p.rq_head
    if p.works and m.w.kworkers:          # the kernel thread first, whoever waits
        p.need_resched = 0
        p.push = -1
        p.current = -1
        p.sstep = ST_W_WORK
        return
    if n >= 0:
        rq_unlink(m, m.c, n, -1)
    else:
        n = newidle_balance(m)
    p.need_resched = 0
    p.push = -1
    p.current = n
    if n < 0:
        p.mode = CPU_IDLE
        m.cg.nr_idle += 1
        p.last_on = 1
        p.tick_at = INF
        if p.loaded_mm >= 0:
            p.is_lazy = 1
        p.sstep = -1
        return
    m.task[n].state = TASK_RUNNING
    m.task[n].cpu = m.c
    p.slice_ticks = 0
    m.counter[CN_context_switches] += 1
    lru_gen_use_mm(m, m.task[n].mm)
    if p.tick_at == INF:
        p.tick_at = next_tick(m, m.c, m.now)
    if p.loaded_mm == m.task[n].mm:
        unlazy(m, p)
        spend(m, TM_sched, m.w.cost[CO_context_switch])
        p.sstep = -1
    else:
        p.sstep = ST_SW_CLEAR

cdef inline void step_SW_CLEAR(machine *m, cpu_t *p) noexcept nogil:
    cdef int32_t loaded = p.loaded_mm
    p.is_lazy = 0
    p.loaded_mm = MM_SWITCHING
    if loaded >= 0 and not m.w.mask_lazy:
        mask_clear(mm_mask(m, loaded), m.c)
    p.sstep = ST_SW_SET

cdef inline void step_SW_SET(machine *m, cpu_t *p) noexcept nogil:
    mask_set(mm_mask(m, m.task[p.current].mm), m.c)
    p.sstep = ST_SW_GEN

cdef inline void step_SW_GEN(machine *m, cpu_t *p) noexcept nogil:
    """choose_new_asid"""
    cdef int32_t mm = m.task[p.current].mm
    cdef int a
    p.sw_gen = m.mm[mm].tlb_gen
    p.sw_flush = 1
    p.sw_asid = 0
    p.sstep = ST_SW_CR3
    if not m.w.pcid:
        return
    for a in range(NR_ASIDS):
        if p.asid_mm[a] == mm:
            p.sw_asid = a
            p.sw_flush = p.asid_gen[a] < p.sw_gen
            return
    p.sw_asid = p.next_asid
    p.next_asid += 1
    if p.sw_asid >= NR_ASIDS:
        p.sw_asid = 0
        p.next_asid = 1

cdef inline void step_SW_CR3(machine *m, cpu_t *p) noexcept nogil:
    cdef int32_t mm = m.task[p.current].mm
    cdef int64_t cost = m.w.cost[CO_context_switch]
    p.loaded_asid = p.sw_asid
    if p.sw_flush:
        p.asid_mm[p.sw_asid] = mm
        p.asid_gen[p.sw_asid] = p.sw_gen
        flush_tlb_local(m, m.c)
        cost += m.w.cost[CO_tlb_flush_full]
    p.loaded_mm = mm
    spend(m, TM_sched, cost)
    p.sstep = -1

cdef inline void step_W_WORK(machine *m, cpu_t *p) noexcept nogil:
    """A bound kernel thread preempts the task, or runs before the next one."""
    spend(m, TM_sched, run_works(m, p) * m.w.cost[CO_kworker])
    if p.loaded_mm >= 0:
        p.is_lazy = 1
    p.sstep = ST_W_BACK if p.current >= 0 else ST_SW_PICK

cdef inline void step_W_BACK(machine *m, cpu_t *p) noexcept nogil:
    lru_gen_use_mm(m, m.task[p.current].mm)
    if p.loaded_mm == m.task[p.current].mm:
        unlazy(m, p)
        p.sstep = -1
    else:
        p.sstep = ST_SW_CLEAR


cdef inline uint64_t times(uint64_t threshold, int64_t n) noexcept nogil:
    """The chance of n draws, rounded up: n times the threshold."""
    if n > 1 and threshold > UINT64_MAX // <uint64_t>n:
        return UINT64_MAX
    return threshold * <uint64_t>n

cdef inline int32_t busiest(const machine *m, int32_t c) noexcept nogil:
    """Of the other CPUs, from c + 1 on, the first of those with the most tasks."""
    cdef int32_t i, j = c, best = -1, nr, most = -1
    for i in range(1, m.w.nr_cpus):
        j = j + 1 if j + 1 < m.w.nr_cpus else 0
        nr = nr_running(m, j)
        if nr > most:
            best = j
            most = nr
    return best

cdef inline int64_t load_imbalance(const machine *m, int32_t here, int32_t there) noexcept nogil:
    """sched_balance_find_src_group(), calculate_imbalance(), for CPUs that run `here` and `there`
    tasks and tasks that never sleep: each is a load of 1024."""
    cdef int64_t average = 0
    cdef int32_t j
    if there < 2 or here >= there or (here > 1 and 100 * there <= 117 * here):
        return 0
    for j in range(m.w.nr_cpus):
        average += nr_running(m, j)
    average = average * 1024 // m.w.nr_cpus
    return min(there * 1024 - average, average - here * 1024)

cdef inline int32_t detach_tasks(machine *m, cpu_t *p, int32_t src, int64_t imbalance) noexcept nogil:
    """Pull tasks, the one that waits longest first; their number, or -1 if all are pinned."""
    cdef int32_t u = m.cpu[src].rq_head, before = -1, nxt, moved = 0
    cdef bint pinned = True
    while u >= 0 and imbalance > 0:
        nxt = m.task[u].rq_next
        if m.task[u].pinned:
            before = u
            u = nxt
            continue
        pinned = False
        if 1024 >> p.balance_failed > imbalance:
            break
        rq_unlink(m, src, u, before)
        rq_append(m, m.c, u)
        m.task[u].cpu = m.c
        m.counter[CN_migrations] += 1
        imbalance -= 1024
        moved += 1
        u = nxt
    return -1 if pinned else moved

cdef inline void sched_balance_rq(machine *m, cpu_t *p) noexcept nogil:
    """The periodic load balancer of a busy CPU; its domain is all of them."""
    cdef int32_t src = busiest(m, m.c), moved = -1
    cdef int64_t imbalance = load_imbalance(m, nr_running(m, m.c), nr_running(m, src))
    if imbalance > 0:
        moved = detach_tasks(m, p, src, imbalance)
    p.balance_long = moved < 0
    p.balance_failed = min(p.balance_failed + 1, 10) if moved == 0 else 0
    p.balance_at = m.now + max((1 + p.balance_long) * m.w.nr_cpus * m.w.balance - m.w.tick, m.w.tick)

cdef inline void step_T_TICK(machine *m, cpu_t *p) noexcept nogil:
    cdef int32_t j
    cdef int64_t elapsed = 1
    m.counter[CN_ticks] += 1
    p.apic_timer_irqs += 1
    p.tick_at += m.w.tick
    if p.tick_at <= m.now:            # those that were missed are not made up for, but their time went by
        elapsed += 1 + (m.now - p.tick_at) // m.w.tick
        p.tick_at = next_tick(m, m.c, m.now)
    spend(m, TM_interrupt, m.w.cost[CO_tick])
    p.istep = ST_Q_EXIT
    if p.current < 0:
        return
    p.slice_ticks = <int32_t>min(p.slice_ticks + elapsed, MAX_SLICE)
    if p.slice_ticks >= m.w.slice_ticks and p.rq_nr > 0:
        p.need_resched = 1
    if (m.w.migrate_threshold > 0 and m.w.nr_cpus > 1 and p.push < 0
            and not m.task[p.current].pinned):
        if rng_draw(&p.rng) < times(m.w.migrate_threshold, elapsed):
            j = <int32_t>rng_below(&p.rng, m.w.nr_cpus - 1)
            if j >= m.c:
                j += 1
            p.push = j
            p.need_resched = 1
    if unlikely(m.w.kworkers):
        work_timers(m, p)
    if m.now >= p.balance_at and m.w.balance > 0 and m.w.nr_cpus > 1:
        sched_balance_rq(m, p)

# Tasks that sleep for a time: one list, in the order in which they fell asleep.

cdef inline void sleepers_add(machine *m, int32_t u) noexcept nogil:
    m.task[u].sleep_next = -1
    if m.cg.sleep_head < 0:
        m.cg.sleep_head = u
    else:
        m.task[m.cg.sleep_tail].sleep_next = u
    m.cg.sleep_tail = u

cdef inline void schedule_timeout(machine *m, cpu_t *p, task_t *t, int why, int64_t at) noexcept nogil:
    """Sleep until `at`, or until those who sleep for that reason are woken."""
    t.sleep_on = why
    t.wake_at = at
    sleepers_add(m, p.current)
    if at < p.timer_at:
        p.timer_at = at
    block(m, p, t)

cdef inline void sleepers_timers(machine *m, int why) noexcept nogil:
    """The timers of the CPUs where tasks sleep for that reason, as without these tasks."""
    cdef int32_t u = m.cg.sleep_head
    while u >= 0:
        if m.task[u].sleep_on == why:
            m.cpu[m.task[u].cpu].timer_at = INF
            rekey(m, m.task[u].cpu)
        u = m.task[u].sleep_next
    u = m.cg.sleep_head
    while u >= 0:
        if m.task[u].sleep_on != why and m.task[u].wake_at < m.cpu[m.task[u].cpu].timer_at:
            m.cpu[m.task[u].cpu].timer_at = m.task[u].wake_at
            rekey(m, m.task[u].cpu)
        u = m.task[u].sleep_next

cdef inline void sleepers_wake(machine *m, int why, int32_t c) noexcept nogil:
    """Wake all who sleep for that reason (c < 0), or those of CPU c whose time has come."""
    cdef int32_t u = m.cg.sleep_head, nxt
    cdef task_t *t
    m.cg.sleep_head = -1
    m.cg.sleep_tail = -1
    while u >= 0:
        t = &m.task[u]
        nxt = t.sleep_next
        if t.sleep_on == why if c < 0 else t.cpu == c and t.wake_at <= m.now:
            t.sleep_next = -1
            wake_task(m, u)
        else:
            sleepers_add(m, u)
        u = nxt

cdef inline void wake_up(machine *m, int why) noexcept nogil:
    if m.cg.sleep_head >= 0:
        sleepers_timers(m, why)
        sleepers_wake(m, why, -1)

cdef inline void step_T_TIMER(machine *m, cpu_t *p) noexcept nogil:
    cdef int32_t u
    p.apic_timer_irqs += 1
    sleepers_wake(m, 0, m.c)
    p.timer_at = INF
    u = m.cg.sleep_head
    while u >= 0:
        if m.task[u].cpu == m.c and m.task[u].wake_at < p.timer_at:
            p.timer_at = m.task[u].wake_at
        u = m.task[u].sleep_next
    p.istep = ST_Q_EXIT
