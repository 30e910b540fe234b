# try_charge_memcg (mm/memcontrol.c; docs/model.md 5.3).

from libc.stdint cimport int32_t, int64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport spend
from reclaim._mm.program cimport cut_run
from reclaim._mm.works cimport memcg_memory_event


cdef inline void charge_start(task_t *t, int32_t nr, int32_t ret) noexcept nogil:
    t.c_nr = nr
    t.c_ret = ret
    t.c_batch = nr if nr > CHARGE_BATCH else CHARGE_BATCH
    t.c_retries = MAX_RETRIES
    t.c_drained = 0
    t.c_failed = 0
    t.step = ST_C_TRY

cdef inline bint consume_stock(cpu_t *p, task_t *t) noexcept nogil:
    if p.stock < t.c_nr:
        return False
    p.stock -= t.c_nr
    return True

cdef inline void step_C_TRY(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef memcg_t *g = m.cg
    while True:
        if consume_stock(p, t):
            t.step = t.c_ret
            return
        if g.usage + t.c_batch <= m.w.limit:
            g.usage += t.c_batch
            p.stock += t.c_batch - t.c_nr
            if p.stock > CHARGE_BATCH:        # refill_stock, drain_stock
                g.usage -= p.stock
                p.stock = 0
            t.step = t.c_ret
            return
        if t.c_batch == t.c_nr:
            break
        t.c_batch = t.c_nr
    spend(m, TM_fault, m.w.cost[CO_charge] if m.w.cost[CO_charge] > 0 else 1)
    if t.dying:
        t.c_failed = 1
        t.step = t.c_ret
        return
    m.counter[CN_memcg_max] += 1
    if unlikely(m.w.kworkers):
        memcg_memory_event(m, p)
    t.step = ST_R_START

cdef inline void drain_all_stock(machine *m) noexcept nogil:
    cdef int32_t i
    m.counter[CN_drain_all_stock] += 1
    for i in range(m.w.nr_cpus):
        if m.cpu[i].stock == 0:
            continue
        if i == m.c or m.cpu[i].mode == CPU_IDLE:
            m.cg.usage -= m.cpu[i].stock
            m.cpu[i].stock = 0
        else:
            cut_run(m, i, m.now, m.c)
            m.cpu[i].works |= WORK_DRAIN

cdef inline void mem_cgroup_oom(machine *m) noexcept nogil:
    """Choose a victim, unless one is still dying; every task of its mm is killed."""
    cdef int32_t u, best = -1
    cdef int64_t size, most = -1
    if m.cg.nr_dying > 0:
        return
    for u in range(m.w.nr_tasks):
        if m.task[u].state == TASK_DEAD or m.task[u].step == ST_V_CHILD:
            continue
        size = <int64_t>m.mm[m.task[u].mm].rss + m.mm[m.task[u].mm].swapents
        if size > most:
            most = size
            best = m.task[u].mm
    for u in range(m.w.nr_tasks):
        if m.task[u].mm != best or m.task[u].state == TASK_DEAD:
            continue
        if m.cpu[m.task[u].cpu].current == u:
            cut_run(m, m.task[u].cpu, m.now, m.c)
        m.task[u].dying = 1
        m.cg.nr_dying += 1
    m.counter[CN_memcg_oom_kill] += 1

cdef inline void step_C_AFTER(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    t.step = ST_C_TRY
    if m.w.limit - m.cg.usage >= t.c_nr:
        return
    if not t.c_drained:
        t.c_drained = 1
        drain_all_stock(m)
        return
    if t.c_reclaimed > 0 and t.c_nr <= 8:     # 1 << PAGE_ALLOC_COSTLY_ORDER
        return
    if t.c_retries > 0:
        t.c_retries -= 1
        return
    mem_cgroup_oom(m)
    t.c_retries = MAX_RETRIES
