# What can happen next in a tiny world, and making it happen: one step, or one group of them.

from libc.stdint cimport int16_t, int32_t, int64_t
from libc.string cimport memcpy

from reclaim._core cimport act_alone
from reclaim._explore_defects cimport defective_step
from reclaim._explore_environment cimport call, environment_act, environment_moves, starts
from reclaim._explore_world cimport *
from reclaim._policy cimport Policies
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.folio cimport swap_cache_folio
from reclaim._mm.memory cimport call_end, call_first
from reclaim._mm.mmap cimport move_from
from reclaim._mm.readahead cimport ra_reset
from reclaim._mm.smp cimport irq_entry_step
from reclaim._mm.ghost cimport *

cdef inline int32_t seen_folio(const machine *m, int32_t c, int step) noexcept nogil:
    """The folio that the step is about."""
    cdef int32_t u = m.cpu[c].current
    cdef const task_t *t = &m.task[u] if u >= 0 else NULL
    if t == NULL or step >= ST_FL_START and step != ST_M_BATCHED and step < ST_E_LEFT:
        return -1
    if step == ST_B_LOCK and t.b_i < t.nr_flush:
        return t.flush_folios[t.b_i]
    if step == ST_S_NEXT or step == ST_S_PLAN or step == ST_S_TAIL or step == ST_S_END:
        return -1
    if step >= ST_S_PLAN and step <= ST_B_OUT:
        return t.folio
    return t.f_pfn if step >= ST_F_READ and step <= ST_F_DONE else -1

cdef inline int find_moves(tiny_t *tiny, int16_t *out) noexcept nogil:
    """Everything that can happen next; how many."""
    cdef machine *m = &tiny.m
    cdef int n = 0, i
    cdef int32_t c
    cdef const cpu_t *p
    cdef const task_t *t
    if not tiny.x.begun:
        return starts(tiny, out)
    for c in range(m.w.nr_cpus):
        p = &m.cpu[c]
        if irq_possible(tiny, p):
            if p.irq_at < INF:
                out[n] = move(MV_IPI, c, 0)
                n += 1
            if p.io_at < INF:
                out[n] = move(MV_IO, c, 0)
                n += 1
            if p.timer_at < INF:
                out[n] = move(MV_TIMER, c, 0)
                n += 1
        if p.in_irq:
            out[n] = move(MV_STEP, c, 0)
            n += 1
            continue
        if p.mode != CPU_RUN:
            continue
        t = &m.task[p.current]
        if p.sstep >= 0 or t.step != ST_TOUCH or t.have or must_give_way(tiny, p):
            out[n] = move(MV_STEP, c, 0)
            n += 1
        else:
            i = accesses(tiny, out, n, c, t)
            if p.rq_nr > 0 and (i == n or (tiny.environment & ENV_FORK and tiny.x.switches > 0)) \
                    and waits_for_cpu(tiny, p):
                out[i] = move(MV_TICK, c, 0)
                i += 1
            n = i
    return environment_moves(tiny, out, n) if tiny.environment else n

cdef inline int make_move(tiny_t *tiny, Policies policies, int mv) except -1 nogil:
    """Let it happen; the invariant that broke, or 0."""
    cdef machine *m = &tiny.m
    cdef int kind = mv >> 8, a = mv >> 4 & 15, b = mv & 15, bad
    cdef cpu_t *p = &m.cpu[a]
    m.now = 0
    if tiny.policy_bytes:
        memcpy(tiny.policy_state, tiny.state + tiny.policy_offset, tiny.policy_bytes)
    if kind == MV_STEP:
        bad = make_step(tiny, policies, a, INF)
    elif kind == MV_IPI:
        bad = make_step(tiny, policies, a, p.irq_at)
    elif kind == MV_IO:
        bad = make_step(tiny, policies, a, p.io_at)
    elif kind == MV_TIMER:
        m.now = p.timer_at
        bad = make_step(tiny, policies, a, p.timer_at)
    elif kind == MV_READ or kind == MV_WRITE:
        bad = make_access(tiny, policies, a, b, kind == MV_WRITE)
    else:
        bad = environment_act(tiny, kind, a, b)
    settle(tiny)
    if bad == BAD_NOTHING and tiny.reduce:
        bad = private_steps(tiny, policies)
    if tiny.policy_bytes:
        memcpy(tiny.state + tiny.policy_offset, tiny.policy_state, tiny.policy_bytes)
    return bad

cdef inline int private_steps(tiny_t *tiny, Policies policies) except -1 nogil:
    """Whoever is before a step that nobody else can notice makes it at once.

    Such a step commutes with everything that others do meanwhile and no invariant sees it, so
    one order stands for all.  No loop consists of them alone, and every state that is kept is
    expanded whole: nobody is put off for ever (the cycle proviso).
    """
    cdef machine *m = &tiny.m
    cdef int32_t c = 0
    cdef int bad
    cdef const cpu_t *p
    while c < m.w.nr_cpus:
        p = &m.cpu[c]
        if p.in_irq:
            if not tiny.private[p.istep]:
                c += 1
                continue
        elif p.mode != CPU_RUN or p.sstep >= 0 or not tiny.private[m.task[p.current].step]:
            c += 1
            continue
        m.now = 0
        bad = make_step(tiny, policies, c, INF)
        if bad:
            return bad
        settle(tiny)
        c = 0
    return BAD_NOTHING

cdef inline int make_access(tiny_t *tiny, Policies policies, int32_t c, int32_t vp, bint write) except -1 nogil:
    cdef task_t *t = &tiny.m.task[tiny.m.cpu[c].current]
    cdef int32_t b = budget(tiny, vp)
    if write:
        tiny.x.writes[b] = tiny.x.writes[b] - 1
    else:
        tiny.x.reads[b] = tiny.x.reads[b] - 1
    t.have = 1
    t.vp = vp
    t.write = write
    t.zero = 0
    return make_step(tiny, policies, c, INF)

cdef inline void settle(tiny_t *tiny) noexcept nogil:
    """Clocks stand still; programs go on where the explorer says."""
    cdef machine *m = &tiny.m
    cdef int32_t c, t
    cdef task_t *u
    for c in range(m.w.nr_cpus):
        m.cpu[c].clock = 0
        m.cpu[c].left = 0
        m.cpu[c].irq_cost = 0
        m.cpu[c].tick_at = INF
        m.cpu[c].stock = 1
    for t in range(m.w.nr_tasks):
        u = &m.task[t]
        u.fl_cause = 0                      # of the meters
        if u.step == ST_TOUCH:
            u.pass_no = 0
            u.pos = 0
        elif tiny.x.reclaims[t] and (u.step == ST_R_LIST or u.step == ST_R_END):
            reclaimed(tiny, t, u)

cdef inline void reclaimed(tiny_t *tiny, int32_t t, task_t *u) noexcept nogil:
    """shrink_inactive_list returned: again, or back to the program."""
    if u.step == ST_R_LIST and u.plug_nr > 0:
        u.step = ST_R_AGE                  # the end of shrink_lruvec lets the plug go
        return
    tiny.x.rounds[t] = tiny.x.rounds[t] - 1
    if tiny.x.rounds[t] > 0:
        u.step = ST_I_START
        return
    u.step = ST_TOUCH
    tiny.x.reclaims[t] = 0

cdef inline int make_step(tiny_t *tiny, Policies policies, int32_t c, int64_t interrupt) except -1 nogil:
    """One micro-step of CPU c, watched."""
    cdef machine *m = &tiny.m
    cdef cpu_t *p = &m.cpu[c]
    cdef seen_t seen
    cdef int step, bad, after
    if interrupt < INF:
        step = irq_entry_step(p, interrupt)
    elif p.in_irq:
        step = p.istep
    elif p.sstep >= 0:
        step = p.sstep
    else:
        step = m.task[p.current].step
    if step == ST_F_RA_WIN:               # page_cluster is 0: nothing is read ahead
        ra_reset(&m.mm[m.task[p.current].mm])
        m.mm[m.task[p.current].mm].ra_hits = 0
    if 0 <= tiny.traced < 64:
        tiny.trace[tiny.traced][0] = c
        tiny.trace[tiny.traced][1] = step
        tiny.trace[tiny.traced][2] = seen_folio(m, c, step)
        tiny.traced = tiny.traced + 1
    m.run[c].missed = 0                   # of another state
    bad = ghost_before(m, &tiny.g, c, step, policies, &seen)
    if bad:
        return bad
    if step == ST_V_MOVED and tiny.x.pinned and not tiny.x.orphan:
        if tiny.x.pinned_vp == m.mm[m.task[seen.task].mm].base + move_from(m, &m.task[seen.task]):
            tiny.x.pinned_vp = <int8_t>(tiny.x.pinned_vp ^ 1)
    if tiny.defects:
        defective_step(tiny, policies, c, interrupt, step)
    else:
        act_alone(m, c, interrupt, policies)
    after = ghost_after(m, &tiny.g, c, &seen)
    if (step == ST_E_ZAP or step == ST_E_PTES) and tiny.x.pinned:
        zapped_pinned(tiny, &m.task[seen.task], step)
    if step == ST_F_READ and m.task[seen.task].step == ST_TOUCH:
        # SIGSEGV: the program's handler gives the right to write back
        call(tiny, &m.task[seen.task], CALL_UNPROTECT, m.task[seen.task].vp)
    if m.bad:
        after = BAD_SLOT if m.bad == 2 else BAD_STUCK
        m.bad = 0
        return after
    if after == BAD_NOTHING and m.dev.in_flight > 0:
        return requests(tiny)
    return after

cdef inline void zapped_pinned(tiny_t *tiny, const task_t *t, int step) noexcept nogil:
    """The pinned page may have been zapped: what the device writes is nobody's then."""
    cdef machine *m = &tiny.m
    cdef int32_t page = tiny.x.pinned_vp - m.mm[t.mm].base
    if t.step != step and call_first(m, t) <= page < call_end(m, t) \
            and not ghost_holds(m, tiny.x.pinned_vp, tiny.x.pinned - 1):
        tiny.x.orphan = 1

cdef inline int requests(tiny_t *tiny) noexcept nogil:
    """The device works on slots of folios that wait for it."""
    cdef machine *m = &tiny.m
    cdef int32_t c, r, f
    for c in range(m.w.nr_cpus):
        r = m.cpu[c].io_head
        while r >= 0:
            f = swap_cache_folio(m, m.io[r].slot)
            if f < 0 or not m.folio[f].flags & (PG_writeback | PG_locked):
                tiny.g.folio = f
                return BAD_SLOT
            r = m.io[r].next
    return BAD_NOTHING
