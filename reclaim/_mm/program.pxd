# The access program of a task (docs/model.md 5.1.1), and runs of touches that hit.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.rng cimport RNG_STEP, rng_below
from reclaim._mm.tlb cimport l1_of, tlb_find, tlb_tag


cdef inline const pass_t *task_pass(const machine *m, const task_t *t) noexcept nogil:
    return &m.passes[t.first_pass + t.pass_no]

cdef inline bint by_the_kernel(const pass_t *a) noexcept nogil:
    """A pass that is a system call, not touches (of which all but one kind come first)."""
    return a.kind > PASS_FWDREV and a.kind != PASS_TRACE

cdef inline int32_t seq_page(const pass_t *a, uint64_t pos) noexcept nogil:
    cdef uint64_t step
    if a.stride > 0:
        return <int32_t>(a.first + (pos * <uint64_t>a.stride) % a.nr)
    step = <uint64_t>(-<int64_t>a.stride)
    return <int32_t>(a.first + a.nr - 1 - (pos * step) % a.nr)

cdef inline void take_access(machine *m, task_t *t, const pass_t *a) noexcept nogil:
    cdef int32_t page
    cdef uint32_t entry
    cdef int write = a.write
    if a.kind == PASS_SEQ:
        page = seq_page(a, t.pos)
    elif a.kind == PASS_RAND:
        page = <int32_t>(a.first + rng_below(&t.rng, a.nr))
    elif a.kind == PASS_FWDREV:
        page = <int32_t>((t.pos >> 1) % a.nr)
        page = <int32_t>(a.first + a.nr - 1) - page if t.pos & 1 else <int32_t>a.first + page
    else:
        entry = m.trace[a.first + t.pos]
        page = <int32_t>(entry >> 1)
        write = entry & 1
    if write == 2:
        write = <int>rng_below(&t.rng, 2)
    t.vp = m.mm[t.mm].base + page
    t.write = write
    t.zero = a.zero
    t.have = 1

cdef inline void advance(task_t *t, const pass_t *a) noexcept nogil:
    t.pos += 1
    if t.pos < a.count:
        return
    t.pos = 0
    t.pass_no += 1
    if t.pass_no == t.nr_passes:
        t.pass_no = t.loop_to


# A run: touches that hit in the first-level TLB, made ahead of the other CPUs' order.
#
# Such a touch reads and writes nothing that another CPU looks at, and only an event on this CPU
# can change what it does: an interrupt, need_resched, drain_req or dying.  Who causes one calls
# `cut_run` first, which takes back the touches that start later; so the run has no effect on
# results.  (Not where threads share an mm: what a write leaves, Z, is read and written by all of
# them.)  Runs live in m.run, outside the arena, and only while the loop runs.  Their length
# follows what the last one kept, so that what is taken back is no more than what stays; after a
# touch that nothing could follow, more and more touches pass before a run is tried again.

cdef enum:
    RUN_MIN = 16
    RUN_MAX = 4096
    PATIENCE_MAX = 32

cdef inline int32_t run_limit(int64_t kept) noexcept nogil:
    return <int32_t>max(RUN_MIN, min(2 * kept, RUN_MAX))

cdef inline int64_t touch_cost(const pass_t *a) noexcept nogil:
    return a.think if a.think > 0 else 1

cdef inline bint next_touch_hits(machine *m, cpu_t *p, task_t *t, const pass_t *a) noexcept nogil:
    """Take the next access; true if it hits and leaves no trace but in the task."""
    cdef uint64_t *e
    cdef uint64_t rng = t.rng
    take_access(m, t, a)
    t.have = 0
    e = tlb_find(l1_of(m, m.c), m.w.l1_sets, m.w.l1_ways, t.vp, tlb_tag(p, t.vp))
    if e != NULL and (not t.write or (e[0] & 1 and ((m.pte[t.vp] & PTE_Z) != 0) == (t.zero != 0))):
        return True
    t.rng = rng
    return False

cdef inline void take_back(machine *m, task_t *t, const pass_t *a, uint64_t n) noexcept nogil:
    """Put the task's place in its program where it was n touches ago."""
    cdef uint64_t draws = (a.kind == PASS_RAND) + (a.kind != PASS_TRACE and a.write == 2)
    t.pos -= n + 1
    t.rng -= (n + 1) * draws * RNG_STEP
    take_access(m, t, a)
    t.have = 0
    t.pos += 1

cdef inline bint held_back(run_t *r) noexcept nogil:
    if r.hold == 0:
        return False
    r.hold -= 1
    return True

cdef inline int run_ahead(machine *m, cpu_t *p, task_t *t, int64_t room) noexcept nogil:
    """After a touch: make at most `room` more that hit; how many."""
    cdef const pass_t *a
    cdef run_t *r = &m.run[m.c]
    cdef int64_t start = p.clock, at = irq_time(p), cost
    cdef int32_t n = 0
    if p.sstep >= 0 or t.pos == 0 or t.pass_no < 0 or p.need_resched or p.drain_req or t.dying:
        return 0
    a = task_pass(m, t)
    if by_the_kernel(a) or m.mm[t.mm].shared:
        return 0
    if at > m.end:
        at = m.end
    room = min(room, max(r.limit, RUN_MIN))
    cost = touch_cost(a)
    # not the last of the pass: taking back ends at a pass
    while n < room and start < at and t.pos + 1 < a.count and next_touch_hits(m, p, t, a):
        t.pos += 1
        start += cost
        n += 1
    take_back(m, t, a, 0)            # vp and write are of the last one that was made
    if n == 0:
        r.patience = min(2 * r.patience + 1, PATIENCE_MAX)
        r.hold = r.patience
        return 0
    r.patience = 0
    account_touches(m, p, t, a, n)
    r.start = p.clock - n * cost
    r.nr = n
    r.limit = run_limit(n)
    m.touches_ahead += n
    return n

cdef inline void account_touches(machine *m, cpu_t *p, task_t *t, const pass_t *a,
                                 int64_t n) noexcept nogil:
    """n touches more, or less."""
    cdef int64_t time = n * touch_cost(a)
    m.counter[CN_page_touches] += n
    m.counter[CN_bogo_units] += n * a.units
    m.cg.touches_left -= n
    t.touches += n
    p.clock += time
    m.time[(p - m.cpu) * TM_NR + TM_user] += time

cdef inline void cut_run(machine *m, int32_t c, int64_t at, int32_t by) noexcept nogil:
    """Before CPU `by` acts on CPU c at `at`: take back c's touches that come after."""
    cdef run_t *r = &m.run[c]
    cdef cpu_t *p = &m.cpu[c]
    cdef task_t *t
    cdef const pass_t *a
    cdef int64_t cost, span, undo
    if r.nr == 0:
        return
    t = &m.task[p.current]
    a = task_pass(m, t)
    cost = touch_cost(a)
    span = at - r.start + (1 if c < by else 0)
    undo = r.nr - (0 if span <= 0 else (span + cost - 1) // cost)
    if undo <= 0:
        return
    r.nr -= <int32_t>undo
    r.limit = run_limit(r.nr)
    m.touches_back += undo
    account_touches(m, p, t, a, -undo)
    take_back(m, t, a, <uint64_t>undo)
    if c != m.c:
        tree_set(m, c, leaf_of(m, c))
