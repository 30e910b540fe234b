# The access program of a task (docs/model.md 5.1.1), and runs of touches that hit.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.rng cimport RNG_STEP, rng_below
from reclaim._mm.tlb cimport l1_set, l2_set, tlb_find, tlb_tag, tlb_take_back


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

cdef inline uint64_t draws_of(const pass_t *a) noexcept nogil:
    """How often an access of the pass draws."""
    return (a.kind == PASS_RAND) + (a.kind != PASS_TRACE and a.write == 2)

cdef enum:
    PREFETCH_RUN = 8          # touches ahead where one follows the other ...
    PREFETCH_TURN = 1         # ... and where those of other CPUs lie between

cdef inline int64_t page_to_come(const machine *m, const task_t *t, const pass_t *a, int nr) noexcept nogil:
    """The page of the access `nr` after the next, if no pass ends before it: for prefetches."""
    cdef int64_t base = m.mm[t.mm].base
    cdef uint64_t rng = t.rng + nr * draws_of(a) * RNG_STEP
    if a.kind == PASS_RAND:
        return base + a.first + <int64_t>rng_below(&rng, a.nr)
    if a.kind == PASS_TRACE:
        return base + (m.trace[a.first + min(t.pos + nr, a.count - 1)] >> 1)
    return base + min(max(t.vp - base + (nr + 1) * <int64_t>a.stride, 0), <int64_t>m.mm[t.mm].nr_pages - 1)

cdef inline void prefetch_pte(machine *m, const task_t *t, const pass_t *a, int nr) noexcept nogil:
    """Of a touch to come, where those of the pass are in no order of memory."""
    if a.kind == PASS_RAND or a.kind == PASS_TRACE:
        prefetch(&m.pte[page_to_come(m, t, a, nr)])

cdef inline void advance(task_t *t, const pass_t *a) noexcept nogil:
    t.pos += 1
    if t.pos < a.count:
        return
    t.pos = 0
    t.pass_no += 1
    if t.pass_no == t.nr_passes:
        t.pass_no = t.loop_to


# A run: touches that do not fault, made ahead of the other CPUs' order.
#
# Only an event on this CPU can change what they do: an interrupt, need_resched, works or dying.
# Who causes one calls `cut_run` first, which takes back the touches that start later; so the run has
# no effect on results.  (Not where threads share an mm: what a write leaves, Z, is read and written by
# all of them.)
#
# Touches that hit in the first-level TLB read and write nothing that another CPU looks at.  The others
# set bits of PTEs, at which reclaim looks, wherever it runs: they are made ahead only while no task
# reclaims, one that begins to takes them back, and what was there before each is kept in m.walk.
#
# Runs live in m.run, outside the arena, and only while the loop runs.  Their length follows what the
# last one kept, so that what is taken back is no more than what stays; after a touch that nothing
# could follow, more and more touches pass before a run is tried again.

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
    e = tlb_find(l1_set(m, m.c, t.vp), m.w.l1_ways, tlb_tag(p, t.vp))
    if e != NULL and (not t.write or (e[0] & 1 and ((m.pte[t.vp] & PTE_Z) != 0) == (t.zero != 0))):
        return True
    t.rng = rng
    return False

cdef inline void take_back(machine *m, task_t *t, const pass_t *a, uint64_t n) noexcept nogil:
    """Put the task's place in its program where it was n touches ago."""
    cdef uint64_t draws = draws_of(a)
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

cdef inline bint may_run(const cpu_t *p, const task_t *t) noexcept nogil:
    """Nothing that the CPU does before its task's next touch is due yet."""
    return not (p.sstep >= 0 or t.pos == 0 or t.pass_no < 0 or p.need_resched or p.works or t.dying)

cdef inline int64_t run_end(const machine *m, const cpu_t *p) noexcept nogil:
    """Touches that start from here on are not made ahead."""
    return min(irq_time(p), m.end)

cdef inline int32_t hits_ahead(machine *m, cpu_t *p, task_t *t, const pass_t *a, int64_t room) noexcept nogil:
    """Touches that hit and leave no trace but in the task, up to one that does not; how many."""
    cdef int64_t start = p.clock, at = run_end(m, p), cost = touch_cost(a)
    cdef int32_t n = 0
    # not the last of the pass: taking back ends at a pass
    while n < room and start < at and t.pos + 1 < a.count and next_touch_hits(m, p, t, a):
        t.pos += 1
        start += cost
        n += 1
    take_back(m, t, a, 0)            # vp and write are of the last one that was made
    if n > 0:
        count_touches(m, t, a, n)
        p.clock += n * cost
        m.times[TM_user] += n * cost
    return n

cdef inline void count_touches(machine *m, task_t *t, const pass_t *a, int64_t n) noexcept nogil:
    """n touches more, or less."""
    m.counter[CN_page_touches] += n
    m.counter[CN_bogo_units] += n * a.units
    m.cg.touches_left -= n
    t.touches += n

cdef inline bint comes_first(int64_t start, int32_t c, int64_t at, int32_t by) noexcept nogil:
    """Does what CPU c does at `start` come before what CPU `by` does at `at`?"""
    return start < at or (start == at and c < by)

cdef inline int32_t cut_hits(machine *m, int32_t c, int64_t at, int32_t by) noexcept nogil:
    """Take back those of CPU c's run, of hits, that come after; how many stay."""
    cdef cpu_t *p = &m.cpu[c]
    cdef task_t *t = &m.task[p.current]
    cdef const pass_t *a = task_pass(m, t)
    cdef int64_t cost = touch_cost(a), nr = m.run[c].nr, start = p.clock - nr * cost, kept
    cdef int64_t span = at - start + (1 if c < by else 0)
    kept = 0 if span <= 0 else min(nr, (span + cost - 1) // cost)
    if kept < nr:
        count_touches(m, t, a, kept - nr)
        p.clock -= (nr - kept) * cost
        m.time[c * TM_NR + TM_user] -= (nr - kept) * cost
        take_back(m, t, a, <uint64_t>(nr - kept))
    return <int32_t>kept

cdef inline void walk_take_back(machine *m, int32_t c, const walk_t *w) noexcept nogil:
    """CPU c's last touch did not happen."""
    cdef cpu_t *p = &m.cpu[c]
    cdef task_t *t = &m.task[p.current]
    count_touches(m, t, task_pass(m, t), -1)
    m.time[c * TM_NR + TM_walk] -= w.walk
    m.time[c * TM_NR + TM_user] -= p.clock - w.start - w.walk
    p.clock = w.start
    p.walk_line = w.walk_line
    m.pte[w.vp] = w.pte
    if w.filled & FILLED_L1:
        tlb_take_back(l1_set(m, c, w.vp), m.w.l1_ways, w.l1_lost)
    if w.filled & FILLED_L2:
        tlb_take_back(l2_set(m, c, w.vp), m.w.l2_ways, w.l2_lost)
    m.run[c].missed = 0
    t.pos -= 1
    t.rng = w.rng
    t.vp = w.last_vp
    t.write = w.last_write
    t.zero = w.last_zero

cdef inline int32_t cut_walks(machine *m, int32_t c, int64_t at, int32_t by) noexcept nogil:
    """The same of a run of touches that left traces."""
    cdef const walk_t *w = m.walk + <int64_t>c * WALK_MAX
    cdef int32_t n = m.run[c].nr
    while n > 0 and not comes_first(w[n - 1].start, c, at, by):
        n -= 1
        walk_take_back(m, c, w + n)
    return n

cdef inline void cut_run(machine *m, int32_t c, int64_t at, int32_t by) noexcept nogil:
    """Before CPU `by` acts on CPU c at `at`: take back c's touches that come after."""
    cdef run_t *r = &m.run[c]
    cdef int32_t kept
    if r.nr == 0:
        return
    kept = cut_walks(m, c, at, by) if r.walked else cut_hits(m, c, at, by)
    if kept == r.nr:
        return
    m.touches_back += r.nr - kept
    r.nr = kept
    r.limit = run_limit(kept)
    if c != m.c:
        tree_set(m, c, leaf_of(m, c))

cdef inline void note_walker(machine *m) noexcept nogil:
    """The acting CPU made touches ahead that left traces."""
    if not m.run[m.c].listed:
        m.run[m.c].listed = 1
        m.walkers[m.nr_walkers] = m.c
        m.nr_walkers += 1

cdef inline void end_walks(machine *m) noexcept nogil:
    """The acting CPU is to look at PTEs of others: reclaim does, from R_START on, and nothing else.  A new step
    that does must call this, too, and keep `nr_reclaiming` up while it goes on from step to step."""
    cdef int32_t i, c
    for i in range(m.nr_walkers):
        c = m.walkers[i]
        m.run[c].listed = 0
        if m.run[c].walked:
            cut_run(m, c, m.now, m.c)
    m.nr_walkers = 0
