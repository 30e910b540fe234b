# What happens in a tiny world from outside: where it begins, and the environment's actions.

from libc.stdint cimport int8_t, int16_t, int32_t, uint32_t, uint64_t

from reclaim._explore_world cimport *
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.tlb cimport l1_set, l2_set, tlb_find, tlb_tag
from reclaim._mm.sched cimport block, wake_task
from reclaim._mm.ghost cimport GARBAGE, ghost_latest

cdef inline int32_t take_slot(machine *m) noexcept nogil:
    """A slot for somebody else, mapped there."""
    cdef int32_t s = m.cg.slot_top
    if s >= 0:
        m.cg.slot_top = <int32_t>m.slot_entry[s] - 1
    else:
        s = m.cg.slot_fresh
        m.cg.slot_fresh += 1
    m.cg.slots_free -= 1
    m.slot_entry[s] = 0
    m.slot_count[s] = 1
    return s

cdef inline int starts(tiny_t *tiny, int16_t *out) noexcept nogil:
    """Every page dirty, or clean and in the swap cache; in the TLBs or not."""
    cdef int32_t pages = tiny.m.w.nr_folios - tiny.m.cg.frames_free, slots, a, b
    cdef int n = 0
    for a in range(1 << pages):
        slots = 0
        for b in range(pages):
            slots += a >> b & 1
        if slots > tiny.m.w.nr_slots:
            continue
        for b in range(1 << pages):
            out[n] = move(MV_START, a, b)
            n += 1
    return n

cdef inline void begin(tiny_t *tiny, int cached, int cold) noexcept nogil:
    cdef machine *m = &tiny.m
    cdef int32_t vp, f, s, c
    cdef uint64_t *e
    tiny.x.begun = 1
    for vp in range(m.w.nr_vps):
        if not pte_present(m.pte[vp]):
            continue
        f = pte_index(m.pte[vp])
        if cached >> f & 1:
            m.pte[vp] &= ~<uint64_t>PTE_DIRTY
            s = m.cg.slot_fresh
            m.cg.slot_fresh += 1
            m.cg.slots_free -= 1
            m.folio[f].slot = s
            add_to_swap_cache(m, f, s)
            m.slot_count[s] = SLOT_HAS_CACHE
            tiny.g.stored[s] = tiny.g.frame[f].content
        for c in range(m.w.nr_cpus):
            if m.cpu[c].loaded_mm != m.folio[f].mm:
                continue
            e = tlb_find(l2_set(m, c, vp), m.w.l2_ways, tlb_tag(&m.cpu[c], vp))
            e[0] = 0 if cold >> f & 1 else tlb_tag(&m.cpu[c], vp) | (not cached >> f & 1)
            tlb_find(l1_set(m, c, vp), m.w.l1_ways, tlb_tag(&m.cpu[c], vp))[0] = e[0]

cdef inline int environment_moves(tiny_t *tiny, int16_t *out, int n) noexcept nogil:
    cdef machine *m = &tiny.m
    cdef extra_t *x = tiny.x
    cdef bint more = x.actions > 0
    cdef int32_t c, j, vp, t, mm
    cdef const cpu_t *p
    cdef uint32_t env = tiny.environment
    if env & ENV_PIN:
        for vp in range(m.w.nr_vps):
            if more and x.pinned == 0 and pte_present(m.pte[vp]) and m.pte[vp] & PTE_WRITE:
                out[n] = move(MV_PIN, 0, vp)
                out[n + 1] = move(MV_PIN, 1, vp)
                n += 2
        if x.pinned:
            if x.dma:
                out[n] = move(MV_DMA, 0, 0)
                n += 1
            if not m.folio[x.pinned - 1].flags & PG_locked:
                out[n] = move(MV_UNPIN, 0, 0)
                n += 1
    if env & ENV_MIGRATE and more:
        for c in range(m.w.nr_cpus):
            p = &m.cpu[c]
            if p.in_irq or p.mode == CPU_IDLE or p.current < 0 or p.push >= 0 or p.sstep >= 0:
                continue
            for j in range(m.w.nr_cpus):
                if j != c:
                    out[n] = move(MV_MIGRATE, c, j)
                    n += 1
    if env & ENV_IDLE:
        for c in range(m.w.nr_cpus):
            p = &m.cpu[c]
            if (more and not p.in_irq and p.mode == CPU_RUN and p.sstep < 0
                    and m.task[p.current].step == ST_TOUCH and not m.task[p.current].have):
                out[n] = move(MV_SLEEP, c, 0)
                n += 1
        for t in range(m.w.nr_tasks):
            if x.asleep[t]:
                out[n] = move(MV_WAKE, t, 0)
                n += 1
    if env & ENV_SPECULATE and more:
        for c in range(m.w.nr_cpus):
            p = &m.cpu[c]
            mm = p.asid_mm[p.loaded_asid]
            if mm < 0 or p.loaded_mm != mm:
                continue
            for vp in range(m.mm[mm].base, m.mm[mm].base + m.mm[mm].nr_pages):
                if pte_present(m.pte[vp]) and not held(tiny, c, vp, mm):
                    out[n] = move(MV_SPECULATE, c, vp)
                    n += 1
    if env & ENV_SLOTS:
        if more and x.slot == 0 and m.cg.slots_free > 0:
            out[n] = move(MV_SLOT_TAKE, 0, 0)
            n += 1
        if x.slot:
            out[n] = move(MV_SLOT_GIVE, 0, 0)
            n += 1
    if env & ENV_REUSE:
        if more and x.frame == 0 and m.cg.frames_free > 0:
            out[n] = move(MV_FRAME_TAKE, 0, 0)
            n += 1
        if x.frame:
            out[n] = move(MV_FRAME_GIVE, 0, 0)
            n += 1
    return n

cdef inline void call(tiny_t *tiny, task_t *t, int which, int32_t vp) noexcept nogil:
    """The task makes a system call on the page: that pass of its program."""
    t.pass_no = 1 + (vp - tiny.m.mm[t.mm].base) * tiny.rows + tiny.row_of[which]
    t.pos = 0
    t.step = ST_DONTNEED if which == CALL_ZAP else ST_V_CALL

cdef inline void system_call(tiny_t *tiny, int kind, int32_t c, int32_t vp) noexcept nogil:
    cdef extra_t *x = tiny.x
    cdef int which = (CALL_ZAP if kind == MV_ZAP else CALL_PROTECT if kind == MV_PROTECT
                      else CALL_UNMAP if kind == MV_UNMAP else CALL_MOVE)
    x.actions -= 1
    if kind == MV_FORK:
        tiny.m.task[tiny.m.cpu[c].current].pass_no = tiny.fork_row
        tiny.m.task[tiny.m.cpu[c].current].pos = 0
        tiny.m.task[tiny.m.cpu[c].current].step = ST_V_CALL
        return
    if kind == MV_MOVE:
        x.moved = 1
    call(tiny, &tiny.m.task[tiny.m.cpu[c].current], which, vp)

cdef inline int environment_act(tiny_t *tiny, int kind, int a, int b) except -1 nogil:
    cdef machine *m = &tiny.m
    cdef extra_t *x = tiny.x
    cdef cpu_t *p = &m.cpu[a]
    cdef int32_t f
    if kind == MV_ZAP or kind > MV_START:
        system_call(tiny, kind, a, b)
    elif kind == MV_PIN:                   # gup_fast with FOLL_PIN, or with FOLL_GET
        x.actions -= 1
        f = pte_index(m.pte[b])
        x.got = a
        x.orphan = 0
        m.folio[f].refcount += 1 if a else PIN_BIAS
        x.pinned = <int8_t>(f + 1)
        x.pinned_vp = <int8_t>b
    elif kind == MV_DMA:
        x.dma = 0
        tiny.g.version[0] = tiny.g.version[0] + 1
        f = x.pinned - 1
        tiny.g.frame[f].content = tiny.g.version[0]
        # what is zapped can be reached through old entries until the flush
        if not x.orphan or (
                pte_kind_of(m.pte[x.pinned_vp]) == PTE_ZAPPED and pte_index(m.pte[x.pinned_vp]) == f):
            ghost_latest(m, &tiny.g, x.pinned_vp, tiny.g.version[0])
    elif kind == MV_UNPIN:                 # unpin_user_pages_dirty_lock
        f = x.pinned - 1
        x.pinned = 0
        m.folio[f].flags |= PG_dirty
        if not x.got:
            m.folio[f].refcount -= PIN_BIAS - 1
        environment_put(tiny, f)
    elif kind == MV_MIGRATE:               # as the tick of CPU a
        x.actions -= 1
        p.push = b
        p.need_resched = 1
    elif kind == MV_START:
        begin(tiny, a, b)
    elif kind == MV_TICK:
        p.need_resched = 1
        if x.switches > 0 and not finished(tiny, &m.task[p.current]):
            x.switches -= 1
    elif kind == MV_SLEEP:
        x.actions -= 1
        x.asleep[p.current] = 1
        as_cpu(tiny, a)
        block(m, p, &m.task[p.current])
    elif kind == MV_WAKE:
        x.asleep[a] = 0
        as_cpu(tiny, m.task[a].cpu)
        wake_task(m, a)
    elif kind == MV_SPECULATE:
        x.actions -= 1
        m.pte[b] |= PTE_YOUNG
        fill_tlb(tiny, a, b, (m.pte[b] & (PTE_DIRTY | PTE_WRITE)) == (PTE_DIRTY | PTE_WRITE))
    elif kind == MV_SLOT_TAKE:
        x.actions -= 1
        x.slot = <int8_t>(take_slot(m) + 1)
        tiny.g.stored[x.slot - 1] = GARBAGE
    elif kind == MV_SLOT_GIVE:
        slot_free(m, x.slot - 1)
        x.slot = 0
    elif kind == MV_FRAME_TAKE:
        x.actions -= 1
        f = alloc_frame(m)
        tiny.g.frame[f].life = tiny.g.frame[f].life + 1
        tiny.g.frame[f].content = GARBAGE
        x.frame = <int8_t>(f + 1)
    else:
        f = x.frame - 1
        x.frame = 0
        tiny.g.frame[f].life = tiny.g.frame[f].life + 1
        free_frame(m, f)
    return 0

cdef inline void environment_put(tiny_t *tiny, int32_t f) noexcept nogil:
    """folio_put by the environment"""
    cdef int32_t before = tiny.m.cg.frames_free
    folio_put(&tiny.m, f)
    if tiny.m.cg.frames_free != before:
        tiny.g.frame[f].life = tiny.g.frame[f].life + 1
