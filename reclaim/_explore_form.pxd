# The canonical form of a state, by which it is known again: its behaviour, and nothing else.

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from reclaim._explore_world cimport *
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.ghost cimport *

cdef enum:                    # fields of a task that count, by step: tiny_t.live
    LIVE_ACCESS = 1
    LIVE_FAULT = 2
    LIVE_DRAIN = 4
    LIVE_FLUSH = 8
    LIVE_CHARGE = 16
    LIVE_ZAP = 32
    LIVE_FOLIO = 64
    LIVE_UNMAP = 128
    LIVE_BATCHED = 256
    LIVE_KIND = 512

cdef struct pen_t:            # writes a canonical form
    uint8_t *to
    int32_t n
    int32_t nr_frames
    int32_t nr_slots
    int8_t frame[MAX_FRAMES]          # frame -> its name, or 0
    int8_t slot[MAX_SLOTS]
    int8_t frames[MAX_FRAMES + 1]     # name -> frame
    int8_t slots[MAX_SLOTS + 1]

cdef extern from *:
    """
    static inline uint64_t reclaim_mum(uint64_t a, uint64_t b) {
        unsigned __int128 p = (unsigned __int128)a * b;
        return (uint64_t)p ^ (uint64_t)(p >> 64);
    }
    """
    uint64_t mum "reclaim_mum"(uint64_t a, uint64_t b) noexcept nogil

cdef inline void hash128(const uint64_t *w, int n, uint64_t *out) noexcept nogil:
    """Two independent lanes of multiply-and-fold (as wyhash) over n words."""
    cdef uint64_t a = <uint64_t>0x2d358dccaa6c78a5, b = <uint64_t>0x8bb84b93962eacc9
    cdef int i
    for i in range(n):
        a = mum(a ^ w[i], <uint64_t>0x4b33a62ed433d4a3) + w[i]
        b = mum(b + w[i], <uint64_t>0x4d5a2da51de1aa47) ^ (w[i] << 1 | w[i] >> 63)
    out[0] = mum(a ^ <uint64_t>0xa0761d6478bd642f, b ^ <uint64_t>n)
    out[1] = mum(b ^ <uint64_t>0xe7037ed1a0b428db, a + <uint64_t>0x8ebc6af09c88c6e3)

cdef inline void put(pen_t *k, int64_t x) noexcept nogil:
    k.to[k.n] = <uint8_t>x
    k.n += k.n < MAX_CODE - 8         # only a defect that ties a list to itself gets there

cdef inline void put_frame(pen_t *k, int32_t f) noexcept nogil:
    """A frame, by its name: frames are named in the order in which they are met."""
    if f < 0:
        put(k, 0)
        return
    if k.frame[f] == 0:
        k.nr_frames += 1
        k.frame[f] = <int8_t>k.nr_frames
        k.frames[k.nr_frames] = <int8_t>f
    put(k, k.frame[f])

cdef inline void put_slot(pen_t *k, int32_t s) noexcept nogil:
    if s < 0:
        put(k, 0)
        return
    if k.slot[s] == 0:
        k.nr_slots += 1
        k.slot[s] = <int8_t>k.nr_slots
        k.slots[k.nr_slots] = <int8_t>s
    put(k, k.slot[s])

cdef inline void put_pte(pen_t *k, uint64_t pte) noexcept nogil:
    cdef int kind = pte_kind_of(pte)
    put(k, pte & 0xff)
    if kind == PTE_SWAP:
        put_slot(k, pte_index(pte))
    elif kind == PTE_PRESENT or kind == PTE_ZAPPED:
        put_frame(k, pte_index(pte))

cdef inline void fingerprint(tiny_t *tiny, uint64_t *out) noexcept nogil:
    cdef int n = canonical(tiny)
    hash128(tiny.code, n, out)

cdef inline int canonical(tiny_t *tiny) noexcept nogil:
    """Write the state's behaviour to `code`; how many words."""
    cdef pen_t k
    cdef machine *m = &tiny.m
    cdef int32_t c, t, i, f, s
    k.to = <uint8_t *>tiny.code
    k.n = 0
    k.nr_frames = k.nr_slots = 0
    memset(k.frame, 0, MAX_FRAMES)
    memset(k.slot, 0, MAX_SLOTS)
    if not tiny.symmetry:                   # everybody is called by its number
        for i in range(m.w.nr_folios):
            k.frame[i] = <int8_t>(i + 1)
            k.frames[i + 1] = <int8_t>i
        for i in range(m.w.nr_slots):
            k.slot[i] = <int8_t>(i + 1)
            k.slots[i + 1] = <int8_t>i
        k.nr_frames = m.w.nr_folios
        k.nr_slots = m.w.nr_slots
    for i in range(m.w.nr_vps):
        put_pte(&k, m.pte[i])
        put(&k, tiny.x.reads[i] << 4 | tiny.x.writes[i])
        if tiny.environment & ENV_CALLS:
            put(&k, (m.pte[i] >= PTE_RO) << 4 | holds(tiny, tiny.g.latest[i]))
    for i in range(m.w.nr_mms):
        put_mm(tiny, &k, i)
    for t in range(m.w.nr_tasks):
        put_task(tiny, &k, t)
    for c in range(m.w.nr_cpus):
        put_cpu(tiny, &k, c)
    for i in range(m.w.nr_regions):
        put_lock(tiny, &k, &m.region[i].ptl)
        if tiny.environment & ENV_CALLS:
            put(&k, m.region[i].present)
    put_lock(tiny, &k, &m.cg.lru_lock)
    for i in range(2):
        f = m.cg.lru_head[i]
        s = 0
        while f >= 0 and s < MAX_FRAMES:
            put_frame(&k, f)
            f = m.folio[f].next
            s += 1
        put(&k, 0)
    put_device(tiny, &k)
    put_extra(tiny, &k)
    # what the names stand for; this may name more
    i = s = 0
    while i < k.nr_frames or s < k.nr_slots:
        if i < k.nr_frames:
            i += 1
            put_folio(tiny, &k, k.frames[i])
        else:
            s += 1
            put_slot_row(tiny, &k, k.slots[s])
    # free frames and slots that somebody still remembers, by their turn; the others are alike
    f = m.cg.frame_top
    i = 0
    while f >= 0 and i < MAX_FRAMES:
        i += 1
        if k.frame[f]:
            put(&k, i)
            put(&k, k.frame[f])
        f = m.folio[f].next
    put(&k, 0)
    s = m.cg.slot_top
    i = 0
    while s >= 0 and i < MAX_SLOTS:
        i += 1
        if k.slot[s]:
            put(&k, i)
            put(&k, k.slot[s])
        s = <int32_t>m.slot_entry[s] - 1
    put(&k, 0)
    put(&k, m.cg.slots_free)
    if tiny.policy_bytes:
        memcpy(k.to + k.n, tiny.state + tiny.policy_offset, tiny.policy_bytes)
        k.n += <int32_t>tiny.policy_bytes
    put(&k, k.n)                        # so that padding is never taken for content
    while k.n & 7:
        put(&k, 0)
    return k.n >> 3

cdef inline void put_mm(tiny_t *tiny, pen_t *k, int32_t i) noexcept nogil:
    cdef machine *m = &tiny.m
    cdef mm_t *mm = &m.mm[i]
    cdef int32_t u = mm.wait_head
    put(k, m.mm_cpumask[i])
    if tiny.environment & (ENV_ZAP | ENV_CALLS):
        put(k, mm.pending == mm.flushed)
    if mm.locks:
        put(k, mm.readers)
        put(k, mm.writer + 1)
        while u >= 0:
            put(k, u + 1)
            u = m.task[u].wait_next
        put(k, 0)

cdef inline void put_fifo(tiny_t *tiny, pen_t *k, const fifo *l) noexcept nogil:
    cdef int32_t f = l.head, n = 0
    while f >= 0 and n < MAX_FRAMES:
        put_frame(k, f)
        f = tiny.m.folio[f].next
        n += 1
    put(k, 0)

cdef inline void put_task(tiny_t *tiny, pen_t *k, int32_t i) noexcept nogil:
    cdef machine *m = &tiny.m
    cdef task_t *t = &m.task[i]
    cdef int step = t.step, live, j
    put(k, step)
    put(k, t.state | t.cpu << 2 | t.have << 5 | tiny.x.reclaims[i] << 6 | tiny.x.asleep[i] << 7)
    put(k, tiny.x.rounds[i])
    if step < 0:
        return
    live = tiny.live[step]
    if live & LIVE_ACCESS or t.have:
        put(k, t.vp << 1 | t.write)
    if live & LIVE_DRAIN:
        put(k, t.d_which)
        put(k, t.d_ret)
        live |= tiny.live[t.d_ret]
    if live & LIVE_FLUSH:                   # the CPU's: a task is not preempted in a flush
        live |= tiny.live[m.cpu[t.cpu].fl_ret]
    if live & LIVE_KIND:
        put(k, t.f_kind)
    if t.state == TASK_BLOCKED:
        put(k, t.wait_bit)
    if live & LIVE_CHARGE:
        put(k, t.c_ret)
        live |= tiny.live[t.c_ret]
    if live & LIVE_BATCHED:
        put(k, t.batched_ret)
        put(k, m.mm[t.mm].pending == t.batched)
        live |= tiny.live[t.batched_ret]
    if live & LIVE_FAULT:
        put_pte(k, t.f_orig)
        put_frame(k, t.f_pfn)
        put_frame(k, t.f_old)
        put(k, t.f_cached)
    if live & LIVE_ZAP:
        put(k, t.pass_no)
        put(k, t.zap)
    if tiny.environment & ENV_CALLS:
        put_call(tiny, k, t)
    if tiny.x.reclaims[i]:
        put_reclaim(tiny, k, i, t, live)
    if t.plug_nr:
        j = t.plug_head
        while j >= 0:
            put_slot(k, m.io[j].slot)
            j = m.io[j].next
        put(k, 0)

cdef inline void put_call(tiny_t *tiny, pen_t *k, task_t *t) noexcept nogil:
    """The system call on its mm that it is in."""
    put(k, t.call | t.mmap << 4)
    if t.call == 0:
        return
    put(k, t.pass_no)
    put(k, t.zap)
    put(k, t.phase | t.v_last << 2)
    put(k, t.v_at)
    put(k, t.v_lo)
    put(k, t.v_hi)
    put(k, t.v_nr)
    put(k, t.v_tables)
    if t.step == ST_V_MORE:
        put(k, t.v_next)

cdef inline void put_reclaim(tiny_t *tiny, pen_t *k, int32_t i, task_t *t, int live) noexcept nogil:
    cdef int32_t j
    if t.step == ST_I_START or t.step == ST_R_AGE:
        return
    put_fifo(tiny, k, &t.list)
    put_fifo(tiny, k, &t.ret)
    if live & LIVE_FOLIO:
        put_frame(k, t.folio)
    if live & LIVE_UNMAP:
        put(k, t.defer | (t.old_pte & (PTE_DIRTY | PTE_EXCL)))
    put(k, t.index)
    put(k, t.ordinal)
    put(k, t.plan_defer >> t.index if t.index else t.plan_defer)
    put(k, t.plan_flush >> t.ordinal)
    put(k, t.taken)
    put(k, t.in_batch | t.ubc_required << 1 | t.ubc_writable << 2)
    put(k, tiny.m.ubc_mask[i])
    if tiny.environment & ENV_FORK:
        put(k, t.rmap)
    put(k, t.nr_flush)
    if t.nr_flush:
        put(k, t.b_i)
        put(k, t.b_w)
        put(k, t.b_ret)
        for j in range(t.nr_flush):
            put_frame(k, t.flush_folios[j] if not t.in_batch or j < t.b_w or j >= t.b_i else -1)
    put(k, t.nr_free)
    for j in range(t.nr_free):
        put_frame(k, t.free_folios[j])
    put(k, t.reclaimed_local - tiny.g.freed[i])
    put(k, t.reclaimed_stat - tiny.g.freed[i])
    put(k, tiny.g.freed[i])

cdef inline void put_cpu(tiny_t *tiny, pen_t *k, int32_t c) noexcept nogil:
    cdef machine *m = &tiny.m
    cdef cpu_t *p = &m.cpu[c]
    cdef int32_t i, a, vp, mm
    cdef int step
    cdef uint64_t *e
    put(k, p.mode | p.in_irq << 2 | p.last_on << 3 | p.is_lazy << 4 | p.need_resched << 5
        | p.works << 6)
    put(k, p.istep)
    put(k, p.sstep)
    put(k, p.current + 1 | (p.push + 1) << 4)
    put(k, p.loaded_mm + 2 | (p.irq_at < INF) << 4 | (p.timer_at < INF) << 5)
    for mm in range(m.w.nr_mms):            # address spaces, by their mm
        for a in range(NR_ASIDS):
            if p.asid_mm[a] == mm:
                put(k, 1 + (m.mm[mm].tlb_gen - p.asid_gen[a]))
                put(k, a == p.loaded_asid)
                break
        else:
            put(k, 0)
    for vp in range(m.w.nr_vps):
        mm = mm_of(m, vp)
        e = held(tiny, c, vp, mm)
        if e == NULL:
            put(k, 0)
            continue
        put(k, 1 + <int>(e[0] & 1))
        i = <int32_t>tiny.g.reach[reach_at(m, c, vp)].frame
        if tiny.environment & ENV_CALLS:
            put(k, tiny.g.reach[reach_at(m, c, vp)].life >> 29)
        if i == ZERO_PAGE:
            put(k, 0xff)
        elif tiny.g.frame[i - 1].life != tiny.g.reach[reach_at(m, c, vp)].life & LIFE:
            put(k, 0xfe)                    # a frame that is another's by now
        else:
            put_frame(k, i - 1)
    i = p.rq_head
    while i >= 0:
        put(k, i + 1)
        i = m.task[i].rq_next
    put(k, 0)
    i = p.q_head
    while i >= 0:
        put(k, i + 1)
        i = m.csd_next[c * m.w.nr_cpus + i]
    put(k, 0)
    if p.in_irq:
        i = p.hand
        while i >= 0:
            put(k, i + 1)
            i = m.csd_next[c * m.w.nr_cpus + i]
        put(k, 0)
    if p.sstep == ST_SW_CR3:
        put(k, p.sw_flush)
        put(k, m.mm[m.task[p.current].mm].tlb_gen - p.sw_gen)
        put(k, p.sw_asid == p.loaded_asid)
    step = m.task[p.current].step if p.current >= 0 else -1
    if step >= 0 and tiny.live[step] & LIVE_FLUSH and p.sstep < 0:
        put(k, p.fl_ret)
        put(k, p.fl_mm)
        put(k, p.fl_vp)
        put(k, p.fl_nr | p.fl_tables << 7)
        if step != ST_FL_START:
            put(k, p.acks)
            put(k, p.fl_scan)
            put(k, m.fl_mask[c])
            put(k, m.fl_ipi[c])
            if p.fl_mm >= 0:
                put(k, m.mm[p.fl_mm].tlb_gen - <uint64_t>p.fl_gen)
    for i in range(p.nr_lru_add):
        put_frame(k, p.lru_add[i])
    put(k, 0)
    for i in range(p.nr_lru_move_tail):
        put_frame(k, p.lru_move_tail[i])
    put(k, 0)
    for i in range(p.nr_lru_activate):
        put_frame(k, p.lru_activate[i])
    put(k, 0)
    i = p.io_head
    while i >= 0:
        put_slot(k, m.io[i].slot)
        i = m.io[i].next
    put(k, 0)

cdef inline void put_lock(tiny_t *tiny, pen_t *k, const qlock *l) noexcept nogil:
    cdef int32_t c = l.head
    put(k, l.holder + 1)
    while c >= 0:
        put(k, c + 1)
        c = tiny.m.cpu[c].lock_next
    put(k, 0)

cdef inline void put_device(tiny_t *tiny, pen_t *k) noexcept nogil:
    cdef machine *m = &tiny.m
    cdef int32_t u = m.dev.wait_head
    put(k, m.dev.in_flight)
    while u >= 0:
        put(k, u + 1)
        u = m.task[u].wait_next
    put(k, 0)
    u = m.cg.sleep_head
    while u >= 0:
        put(k, u + 1 | m.task[u].sleep_on << 4)
        u = m.task[u].sleep_next
    put(k, 0)

cdef inline void put_extra(tiny_t *tiny, pen_t *k) noexcept nogil:
    cdef extra_t *x = tiny.x
    put(k, x.begun)
    if tiny.environment:
        put(k, x.actions)
        put_frame(k, x.pinned - 1)
        put(k, x.pinned_vp << 3 | x.orphan << 2 | x.got << 1 | x.dma)
        put_slot(k, x.slot - 1)
        put_frame(k, x.frame - 1)
    if tiny.environment & ENV_CALLS:
        put(k, x.moved << 4 | x.switches)
    if tiny.defects:
        put(k, x.saved_mask)
        put(k, x.saved_pte)

cdef inline int holds(tiny_t *tiny, uint32_t version) noexcept nogil:
    """Zeros, the latest version of a page, or what is past."""
    cdef int32_t vp
    if version == 0:
        return 1
    for vp in range(tiny.m.w.nr_vps):
        if tiny.g.latest[vp] == version:
            return 2 + vp
    return 0

cdef inline void put_folio(tiny_t *tiny, pen_t *k, int32_t f) noexcept nogil:
    cdef machine *m = &tiny.m
    cdef folio_t *q = &m.folio[f]
    cdef int32_t u
    put(k, tiny.g.frame[f].life & 1)
    if not tiny.g.frame[f].life & 1:
        return                                # free
    put(k, q.flags)
    put(k, q.flags >> 8)
    put(k, q.refcount)
    put(k, q.refcount >> 8)
    put(k, q.mapcount)
    put(k, q.vp)
    put_slot(k, q.slot)
    put(k, holds(tiny, tiny.g.frame[f].content))
    if q.flags & PG_locked:
        put(k, tiny.g.frame[f].owner + 1)
    if q.flags & PG_writeback:
        put(k, tiny.g.frame[f].sent == tiny.g.frame[f].content)
    if q.flags & PG_waiters:
        u = q.wait_head
        while u >= 0:
            put(k, u + 1 | m.task[u].wait_bit << 4)
            u = m.task[u].wait_next
        put(k, 0)

cdef inline void put_slot_row(tiny_t *tiny, pen_t *k, int32_t s) noexcept nogil:
    cdef machine *m = &tiny.m
    cdef uint64_t e = m.slot_entry[s]
    cdef int64_t lag
    put(k, m.slot_count[s])
    if m.slot_count[s] == 0:
        return                                # free: its entry is a link
    if slot_is_folio(e):
        put(k, 1)
        put_frame(k, <int32_t>(e >> 2))
    elif slot_is_shadow(e):
        lag = m.cg.nonresident_age - <int64_t>(e >> 3)
        put(k, 2 | (min(lag, MAX_FRAMES) << 2))
    else:
        put(k, 0)
    put(k, holds(tiny, tiny.g.stored[s]))
