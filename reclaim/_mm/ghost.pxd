# Ghosts: what every page, frame, slot and TLB entry really holds, beside the model and unknown to it.
#
# A step is watched from outside: `ghost_before` sees the world as the step finds it, `ghost_after` as
# the step leaves it.  No row of the model knows of this, so runs that are not checked pay nothing.
# The explorer and checked runs share it.  In a checked run what is watched may also be one of the
# chains of chains.pxd: steps of one task with nobody else's in between, so that what lies between can be
# told from where it began and where it ended.
#
# A version is a number that no other store has; 0 is a page of zeros, GARBAGE what nobody may see.
# A request in flight is the worst a device may do: until a read ends the frame holds garbage, until
# a write ends the slot does, and a page that changed on its way out leaves garbage in the slot.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from reclaim._policy cimport Policies
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.tlb cimport mask_test
from reclaim._mm.memory cimport call_end, call_first, zap_from, zap_to
from reclaim._mm.mmap cimport extent, move_from, move_to
from reclaim._mm.program cimport task_pass

cdef extern from *:
    """
    #define RECLAIM_GARBAGE UINT32_MAX
    """
    uint32_t GARBAGE "RECLAIM_GARBAGE"

cdef enum:                    # what a step did wrong, in the order of counterexample.INVARIANTS
    BAD_NOTHING = 0
    BAD_LOST_WRITE = 1
    BAD_STALE = 2
    BAD_FREED = 3
    BAD_MAPPED_OUT = 4
    BAD_PINNED_OUT = 5
    BAD_UNLOCKED_OUT = 6
    BAD_SLOT = 7
    BAD_TWICE_OUT = 8
    BAD_CONSERVATION = 9
    BAD_NOT_BACK = 10
    BAD_COUNT = 11
    BAD_PENDING = 12
    BAD_LISTS = 13
    BAD_REFCOUNT = 14
    BAD_MAPCOUNT = 15
    BAD_LOCK_LEAKED = 16
    BAD_DEADLOCK = 17
    BAD_NO_PROGRESS = 18
    BAD_STUCK = 19
    BAD_REVOKED = 20
    BAD_FORK = 21

cdef struct frame_ghost:
    uint32_t content          # a version
    uint32_t life             # odd while it is allocated; another number, another owner
    uint32_t sent             # what it held as its request went to the device
    int32_t owner             # the task that locked it last

cdef struct reach_t:          # of a TLB entry
    uint32_t frame            # that it reaches, + 1; ZERO_PAGE
    uint32_t life             # of the frame when the entry was filled; REVOKED, PROTECTED

cdef struct ghost_t:
    uint32_t *latest          # [vp] the version that a load must see
    uint32_t *stored          # [slot]
    frame_ghost *frame        # [frame]
    reach_t *reach            # [cpu][vp]
    int32_t *freed            # [task] folios that left in this shrink_folio_list
    uint32_t *version         # the last one given out
    int32_t folio             # of the last violation; -1: none
    int32_t strict            # loads through entries whose flush is pending are judged, too

cdef enum:
    ZERO_PAGE = -1
    PROTECTED = 1 << 29       # of a reach: mprotect has taken the right to write since it was filled ...
    REVOKED = 1 << 30         # ... munmap or mremap has unmapped the page
    LIFE = (1 << 29) - 1
    NOT_WALKED = 2            # run_t.missed, as ghosts leave it: no tag; the walk of an access clears it

cdef struct seen_t:           # of the world before the step
    int step
    int32_t task
    int32_t folio
    int32_t slot
    int32_t n
    int32_t out               # the folio that may be written out, ...
    int32_t out_slot
    int out_bad               # ... and what would be wrong with that
    int32_t frames_free
    int64_t touches


cdef inline int64_t reach_at(const machine *m, int32_t c, int32_t vp) noexcept nogil:
    return <int64_t>c * m.w.nr_vps + vp

cdef inline void ghost_filled(machine *m, ghost_t *g, int32_t c, int32_t vp) noexcept nogil:
    """CPU c's TLB was filled from the entry of vp."""
    cdef uint64_t pte = m.pte[vp]
    cdef int64_t i = reach_at(m, c, vp)
    cdef int32_t f
    if pte_present(pte):
        f = pte_index(pte)
        g.reach[i].frame = <uint32_t>f + 1
        g.reach[i].life = g.frame[f].life
    else:
        g.reach[i].frame = <uint32_t>ZERO_PAGE
        g.reach[i].life = 0

cdef inline void ghost_revoke(machine *m, ghost_t *g, int32_t vp, uint32_t mark) noexcept nogil:
    """Who still has an entry of the page may use it no more."""
    cdef int32_t c
    for c in range(m.w.nr_cpus):
        g.reach[reach_at(m, c, vp)].life |= mark

cdef inline bint ghost_revoked(const machine *m, uint32_t life, const task_t *t) noexcept nogil:
    """The entry was revoked for this access, and the right did not come back."""
    return life > LIFE and (life & REVOKED or (t.write and life & PROTECTED and m.pte[t.vp] >= PTE_RO))

cdef inline bint ghost_moving(const machine *m, const task_t *t) noexcept nogil:
    """mremap has moved entries and has not flushed their old place yet."""
    if t.call != PASS_MREMAP:
        return False
    return t.step == ST_V_MOVED or (ST_FL_START <= t.step <= ST_FL_DONE and m.cpu[t.cpu].fl_ret == ST_V_MOVED)

cdef inline int32_t ghost_alias(machine *m, int32_t vp) noexcept nogil:
    """The other place of a page that is being moved: until the flush both reach it.  Or -1."""
    cdef int32_t u, page, length
    cdef task_t *t
    if not m.w.moves:
        return -1
    for u in range(m.w.nr_tasks):
        t = &m.task[u]
        if not ghost_moving(m, t):
            continue
        page = vp - m.mm[t.mm].base
        length = extent(m, t)
        if 0 <= page - move_from(m, t) < length:
            return vp + move_to(m, t) - move_from(m, t)
        if 0 <= page - move_to(m, t) < length:
            return vp + move_from(m, t) - move_to(m, t)
    return -1

cdef inline bint ghost_forking(const machine *m, int32_t mm) noexcept nogil:
    """A fork of the mm has not flushed its TLBs yet: what is written still goes to both."""
    cdef int32_t u
    for u in range(m.w.nr_tasks):
        if m.task[u].mm == mm and m.task[u].call == PASS_FORK and m.task[u].step != ST_V_END:
            return True
    return False

cdef inline bint ghost_holds(machine *m, int32_t vp, int32_t f) noexcept nogil:
    """The frame is that of the page: mapped, in the swap cache, or on the way from one to the other."""
    cdef uint64_t pte = m.pte[vp]
    cdef const task_t *t
    cdef int32_t u
    if pte_kind_of(pte) != PTE_NONE:
        return pte_maps(m, vp, f) or (pte_kind_of(pte) == PTE_SWAP and swap_cache_folio(m, pte_index(pte)) == f)
    for u in range(m.w.nr_tasks):
        t = &m.task[u]
        if (t.folio == f and unmap_page(m, t) == vp and (ST_U_GEN <= t.step <= ST_U_SET or (
                ST_FL_START <= t.step <= ST_FL_DONE and m.cpu[t.cpu].fl_ret == ST_U_SET))):
            return True
    return False

cdef inline int ghost_shared(machine *m, ghost_t *g, int32_t mm, int32_t vp, int32_t f) noexcept nogil:
    """The page was written in frame f: does another process see that, whose page it is, too?"""
    cdef int32_t other = peer_page(m, mm, vp)
    if other < 0 or not ghost_holds(m, other, f):
        return BAD_NOTHING
    if ghost_forking(m, mm):
        g.latest[other] = g.latest[vp]
        return BAD_NOTHING
    return BAD_FORK

cdef inline void ghost_copied_ptes(machine *m, ghost_t *g, const task_t *t) noexcept nogil:
    """fork copied a page-table page."""
    cdef int32_t vp
    for vp in range(zap_from(m, t, t.zap - 1), zap_to(m, t, t.zap - 1)):
        g.latest[peer_page(m, t.mm, vp)] = g.latest[vp]

cdef inline void ghost_latest(machine *m, ghost_t *g, int32_t vp, uint32_t version) noexcept nogil:
    """The page holds this from here on."""
    cdef int32_t other = ghost_alias(m, vp)
    g.latest[vp] = version
    if other >= 0:
        g.latest[other] = version

cdef inline void ghost_moved(machine *m, ghost_t *g, task_t *t, bint done) noexcept nogil:
    """mremap's entries are at their new place; done: and no more at the old one."""
    cdef int32_t i, base = m.mm[t.mm].base
    for i in range(extent(m, t)):
        g.latest[base + move_to(m, t) + i] = g.latest[base + move_from(m, t) + i]
        if done:
            g.latest[base + move_from(m, t) + i] = 0

cdef inline void ghost_unmapped(machine *m, ghost_t *g, task_t *t) noexcept nogil:
    """The range reads as zeros, and through no old entry."""
    cdef int32_t vp, base = m.mm[t.mm].base
    for vp in range(base + call_first(m, t), base + call_end(m, t)):
        g.latest[vp] = 0
        ghost_revoke(m, g, vp, REVOKED)

cdef inline void ghost_returns(machine *m, ghost_t *g, task_t *t) noexcept nogil:
    """A system call on the mm returns: what mprotect took is gone now."""
    cdef int32_t vp, base = m.mm[t.mm].base
    if t.call != PASS_MPROTECT or task_pass(m, t).write:
        return
    for vp in range(base + call_first(m, t), base + call_end(m, t)):
        ghost_revoke(m, g, vp, PROTECTED)

cdef inline bint ghost_copied(machine *m, int32_t f) noexcept nogil:
    """Folio f is clean, and no write-out that is under way has yet to take its copy."""
    cdef int32_t u
    if m.folio[f].flags & PG_dirty:
        return False
    for u in range(m.w.nr_tasks):
        if m.task[u].step == ST_P_WRITE and m.task[u].folio == f:
            return False
    return True

cdef inline bint ghost_deferred(machine *m, int32_t c) noexcept nogil:
    """Reclaim owes CPU c a flush that it deferred, or is about to make it."""
    cdef int32_t i, u
    for u in range(m.w.nr_tasks):
        if m.task[u].ubc_required and mask_test(m.ubc_mask + <int64_t>u * m.w.words, c):
            return True
    for i in range(m.w.nr_cpus):
        u = m.cpu[i].current
        if u >= 0 and ST_FL_QUEUE <= m.task[u].step <= ST_FL_DONE and m.cpu[i].fl_mm < 0 \
                and mask_test(m.fl_mask + <int64_t>i * m.w.words, c):
            return True
    return False

cdef inline int ghost_touch(machine *m, ghost_t *g, int32_t c, const task_t *t) noexcept nogil:
    """A user instruction completed on what the TLB of CPU c reaches: what is wrong with it?"""
    cdef int64_t i = reach_at(m, c, t.vp)
    cdef uint32_t r = g.reach[i].frame, life = g.reach[i].life
    cdef int32_t f
    if ghost_revoked(m, life, t):
        g.folio = <int32_t>r - 1 if r != <uint32_t>ZERO_PAGE else -1
        return BAD_REVOKED
    if r == <uint32_t>ZERO_PAGE:
        return BAD_STALE if g.latest[t.vp] != 0 or t.write else BAD_NOTHING
    f = <int32_t>r - 1
    g.folio = f
    if g.frame[f].life != life & LIFE:
        return BAD_FREED
    if g.frame[f].content != g.latest[t.vp]:
        # The kernel's own window: a clean folio leaves the swap cache before its flush, is read back
        # into another frame and written there; docs/safety.md.  What was revoked reads as zeros.
        if not t.write and not g.strict and g.latest[t.vp] != 0 and ghost_deferred(m, c):
            return BAD_NOTHING
        return BAD_LOST_WRITE if pte_index(m.pte[t.vp]) == f and pte_present(m.pte[t.vp]) else BAD_STALE
    if t.write:
        g.version[0] += t.zero == 0
        g.frame[f].content = 0 if t.zero else g.version[0]
        ghost_latest(m, g, t.vp, g.frame[f].content)
        if m.w.forks and ghost_shared(m, g, t.mm, t.vp, f):
            return BAD_FORK
        # through an old entry, into a folio that nobody will write out again
        if pte_kind_of(m.pte[t.vp]) == PTE_SWAP and ghost_copied(m, f):
            return BAD_LOST_WRITE
    return BAD_NOTHING

cdef inline int ghost_writeout(machine *m, ghost_t *g, int32_t u, int32_t f) noexcept nogil:
    """Task u is about to start the I/O of folio f."""
    cdef const folio_t *q = &m.folio[f]
    g.folio = f
    if not q.flags & PG_locked or g.frame[f].owner != u:
        return BAD_UNLOCKED_OUT
    if q.slot < 0 or not q.flags & PG_swapcache or swap_cache_folio(m, q.slot) != f:
        return BAD_SLOT
    if q.flags & PG_writeback:
        return BAD_TWICE_OUT
    return BAD_NOTHING

cdef inline int ghost_started(machine *m, ghost_t *g, int32_t f) noexcept nogil:
    """The I/O of folio f has begun."""
    cdef const folio_t *q = &m.folio[f]
    g.folio = f
    if q.mapcount > 0:
        return BAD_MAPPED_OUT
    return BAD_PINNED_OUT if q.refcount >= PIN_BIAS else BAD_NOTHING

cdef inline int ghost_request_done(machine *m, ghost_t *g, const cpu_t *p) noexcept nogil:
    cdef const io_t *r = &m.io[p.io_head]
    cdef int32_t s, f
    for s in range(r.slot, r.slot + r.nr):
        f = swap_cache_folio(m, s)
        if f < 0:
            return BAD_SLOT
        if m.folio[f].flags & PG_writeback:
            g.stored[s] = g.frame[f].content if g.frame[f].content == g.frame[f].sent else GARBAGE
        else:
            g.frame[f].content = g.stored[s]
    return BAD_NOTHING

cdef inline int ghost_put_back(machine *m, ghost_t *g, const task_t *t, int32_t u,
                               Policies s) noexcept nogil:
    """shrink_folio_list returned: everything that was isolated was freed or is on its way back."""
    cdef int32_t f = t.ret.head, n = 0
    g.folio = -1
    while f >= 0 and n <= t.ret.nr:
        n += 1
        g.folio = f
        if m.folio[f].flags & PG_lru:
            return BAD_LISTS
        if m.folio[f].flags & PG_locked and g.frame[f].owner == u:
            return BAD_LOCK_LEAKED
        f = m.folio[f].next
    g.folio = -1
    if n != t.ret.nr:
        return BAD_LISTS
    if n + g.freed[u] != t.taken:
        return BAD_CONSERVATION
    if t.ubc_required:
        return BAD_PENDING
    return BAD_COUNT if s.accounting.count(t.reclaimed_local, t.reclaimed_stat) != g.freed[u] else BAD_NOTHING


cdef inline void ghost_may_write(machine *m, ghost_t *g, seen_t *x, int32_t f) noexcept nogil:
    x.out = f
    x.out_slot = m.folio[f].slot
    x.out_bad = ghost_writeout(m, g, x.task, f)

cdef inline void ghost_may_free(machine *m, seen_t *x, int32_t f) noexcept nogil:
    x.folio = f
    x.slot = m.folio[f].slot
    x.n = slot_maps(m, x.slot) if x.slot >= 0 else 0

cdef inline int ghost_before(machine *m, ghost_t *g, int32_t c, int step, Policies s,
                             seen_t *x) noexcept nogil:
    """CPU c is about to make the step, or the chain that begins with it; what that breaks, if anything."""
    cdef cpu_t *p = &m.cpu[c]
    cdef int32_t u = p.current, vp
    cdef task_t *t = &m.task[u] if u >= 0 else NULL
    x.step = step
    x.task = u
    x.frames_free = m.cg.frames_free
    x.folio = x.slot = x.out = x.out_slot = -1
    x.n = x.out_bad = x.touches = 0
    g.folio = -1
    if step == ST_TOUCH:
        x.touches = t.touches
        if m.run[c].missed == 0:
            m.run[c].missed = NOT_WALKED
    elif step == ST_S_PLAN:
        g.freed[u] = 0
    elif step == ST_S_FREE:
        ghost_may_free(m, x, t.folio)
    elif step == ST_P_END:
        ghost_may_free(m, x, t.folio)
        if t.in_batch and t.b_i < t.b_w:
            ghost_may_write(m, g, x, t.flush_folios[t.b_i])
    elif step == ST_P_OUT or (step == ST_S_PIN and m.flush_keeps):
        ghost_may_write(m, g, x, t.folio)
    elif step == ST_B_OUT:
        if t.b_i < t.b_w:
            ghost_may_write(m, g, x, t.flush_folios[t.b_i])
    elif step == ST_P_WRITE:
        ghost_may_write(m, g, x, t.folio)
        return x.out_bad
    elif step == ST_F_SWAP_READ or step == ST_F_RA_READ:
        x.slot = m.folio[t.f_pfn].slot
        x.folio = t.f_pfn
    elif step == ST_B_LOCK:
        x.n = t.b_w
    elif step == ST_IO_END:
        return ghost_request_done(m, g, p)
    elif step == ST_I_PUT or step == ST_G_KEEP:
        return ghost_put_back(m, g, t, u, s)
    elif step == ST_E_UNLOCK:             # the range reads as zeros from here on
        for vp in range(zap_from(m, t, t.zap), zap_to(m, t, t.zap)):
            g.latest[vp] = 0
    elif step == ST_V_UNMAPPED:
        ghost_unmapped(m, g, t)
    elif step == ST_V_MOVED:
        ghost_moved(m, g, t, True)
    elif step == ST_V_END:
        ghost_returns(m, g, t)
    return BAD_NOTHING


cdef inline void ghost_frames(machine *m, ghost_t *g, const seen_t *x) noexcept nogil:
    """Frames were freed: they are on top of the stack.  Or one was allocated."""
    cdef int32_t n = m.cg.frames_free - x.frames_free, f = m.cg.frame_top
    while n > 0:
        g.frame[f].life += 1
        f = m.folio[f].next
        n -= 1
    if n < 0:
        f = m.task[x.task].f_pfn
        g.frame[f].life += 1
        g.frame[f].content = GARBAGE
        g.frame[f].owner = -1

cdef inline int ghost_left(machine *m, ghost_t *g, const seen_t *x) noexcept nogil:
    """A folio left the swap cache for good: the slot must hold what it held, if a PTE names the slot."""
    cdef const folio_t *q = &m.folio[x.folio]
    cdef int32_t vp
    cdef int i
    if q.flags & PG_swapcache or q.refcount:
        return BAD_NOTHING
    g.freed[x.task] += 1
    g.folio = x.folio
    for i in range(2 if m.w.forks and q.vp >= 0 else 0):
        vp = rmap_page(m, q, i)
        if vp >= 0 and pte_kind_of(m.pte[vp]) == PTE_SWAP and pte_index(m.pte[vp]) == x.slot \
                and g.frame[x.folio].content == g.latest[vp] and g.stored[x.slot] != g.latest[vp]:
            return BAD_LOST_WRITE
    if x.n > 0 and not m.w.forks and q.vp >= 0 and g.frame[x.folio].content == g.latest[q.vp] \
            and g.stored[x.slot] != g.frame[x.folio].content:
        return BAD_LOST_WRITE
    return BAD_NOTHING

cdef inline void ghost_faulted(machine *m, ghost_t *g, const seen_t *x, const task_t *t) noexcept nogil:
    """A fault got this far with the frame that it took."""
    if t.step == ST_F_SWAP_READ or t.step == ST_D_LOCK or t.step == ST_F_SUBMIT:
        g.frame[t.f_pfn].owner = x.task
    elif t.step == ST_F_SWAP_MAP or t.step == ST_F_LOCK:
        g.frame[t.f_pfn].owner = x.task
        g.frame[t.f_pfn].content = g.stored[m.folio[t.f_pfn].slot]

cdef inline void ghost_scanned(machine *m, ghost_t *g, const seen_t *x, const task_t *t) noexcept nogil:
    """shrink_folio_list got this far with the folio in hand."""
    cdef const folio_t *q
    if t.step != ST_S_WB and not ST_S_REF <= t.step <= ST_S_PIN:
        return
    g.frame[t.folio].owner = x.task
    q = &m.folio[t.folio]
    if t.step >= ST_S_UNMAP and q.flags & PG_dirty:       # the slot is another's, or behind
        g.stored[q.slot] = GARBAGE

cdef inline bint ghost_has_written(const seen_t *x, const task_t *t) noexcept nogil:
    """The last step was P_WRITE of the folio that could be written out."""
    return x.out >= 0 and t.folio == x.out and (
        t.step == ST_P_END or t.step == ST_P_SUBMIT or t.step == ST_P_DISPATCH)

cdef inline int ghost_written(machine *m, ghost_t *g, const seen_t *x, const task_t *t) noexcept nogil:
    """P_WRITE was made."""
    cdef int32_t s = x.out_slot
    g.folio = x.out
    if x.out_bad or s < 0:
        return x.out_bad
    if t.step == ST_P_SUBMIT:
        g.stored[s] = GARBAGE
        return ghost_started(m, g, x.out)
    if t.step == ST_P_END:
        g.stored[s] = g.frame[x.out].content
        return ghost_started(m, g, x.out)
    if m.slot_count[s] & SLOT_ZERO:                       # no I/O: the slot stands for zeros
        g.stored[s] = 0 if g.frame[x.out].content == 0 else GARBAGE
    return BAD_NOTHING

cdef inline int ghost_shrunk(machine *m, ghost_t *g, const seen_t *x, const task_t *t) noexcept nogil:
    """Steps of shrink_folio_list were made: of one folio its end, of the next one its beginning."""
    cdef int bad = BAD_NOTHING
    if x.folio >= 0:
        bad = ghost_left(m, g, x)
    if bad == BAD_NOTHING and ghost_has_written(x, t):
        return ghost_written(m, g, x, t)
    ghost_scanned(m, g, x, t)
    return bad

cdef inline int ghost_after(machine *m, ghost_t *g, int32_t c, const seen_t *x) noexcept nogil:
    """The step was made, or the chain that began with it; what it broke, if anything."""
    cdef int step = x.step
    cdef int32_t i
    cdef task_t *t = &m.task[x.task] if x.task >= 0 else NULL
    if m.cg.frames_free != x.frames_free:
        ghost_frames(m, g, x)
    if step == ST_TOUCH:
        if t.touches != x.touches:
            if m.run[c].missed == 0:
                ghost_filled(m, g, c, t.vp)
            return ghost_touch(m, g, c, t)
    elif step == ST_F_FILL:
        g.frame[t.f_pfn].content = 0 if t.f_old < 0 else g.frame[t.f_old].content
    elif step == ST_F_SWAP_READ:
        if t.step != ST_F_SUBMIT:
            g.frame[x.folio].content = g.stored[x.slot]
    elif step == ST_F_RA_READ:
        if t.step != ST_F_RA_SUBMIT:
            g.frame[x.folio].content = g.stored[x.slot]
    elif step == ST_S_ADD:                # whatever the slot's last owner left there
        g.stored[m.folio[t.folio].slot] = GARBAGE
    elif step == ST_F_LOCK:
        if t.step == ST_F_RECHECK:
            g.frame[t.f_pfn].owner = x.task
    elif step == ST_F_PREPARE:
        if t.f_pfn >= 0:
            g.frame[t.f_pfn].owner = x.task
    elif step == ST_S_LOCK:
        if t.step == ST_S_WB:
            g.frame[t.folio].owner = x.task
    elif step == ST_B_LOCK:
        for i in range(x.n, t.b_w):
            g.frame[t.flush_folios[i]].owner = x.task
    elif step == ST_P_DISPATCH:
        if t.step == ST_S_FREE:
            g.frame[t.folio].owner = x.task
    elif step == ST_P_WRITE:
        return ghost_written(m, g, x, t)
    elif step == ST_S_PIN or step == ST_P_OUT or step == ST_P_END or step == ST_B_OUT or step == ST_S_NEXT \
            or step == ST_S_SLOT:
        return ghost_shrunk(m, g, x, t)
    elif step == ST_F_READ:
        if m.cg.frames_free < x.frames_free:
            ghost_faulted(m, g, x, t)
    elif step == ST_P_SUBMIT:
        if t.step == ST_P_DISPATCH:
            g.frame[t.folio].sent = g.frame[t.folio].content
    elif step == ST_S_FREE:
        return ghost_left(m, g, x)
    elif step == ST_V_MOVE_NEW or step == ST_V_MOVE_PTES:
        if ghost_moving(m, t):
            ghost_moved(m, g, t, False)
    elif step == ST_V_FORK_PTES:
        if t.step == ST_V_MORE:
            ghost_copied_ptes(m, g, t)
    return BAD_NOTHING
