# The tiny world of the explorer: its limits, what may happen in it, what it is made of.
#
# `tiny_t` is a small machine (whose tables lie in `state`), its ghosts, the budgets of what may still
# happen, and what the search keeps.  The other headers of this family act on it:
#   _explore_environment.pxd  what happens from outside
#   _explore_defects.pxd      what a broken kernel does in place of a row
#   _explore_step.pxd         what can happen next, and making it happen
#   _explore_form.pxd         by what a state is known again
#   _explore_search.pxd       breadth first
#   _explore_random.pxd       random priorities

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.pte cimport peer_page, pte_kind_of
from reclaim._mm.tlb cimport l1_set, l2_set, tlb_fill, tlb_find, tlb_tag
from reclaim._mm.ghost cimport ghost_filled, ghost_t

cdef enum:                    # limits of a tiny world
    MAX_CPUS = 4
    MAX_TASKS = 6
    MAX_MMS = 6
    MAX_VPS = 8
    MAX_FRAMES = 16
    MAX_SLOTS = 12
    MAX_MOVES = 320
    MAX_CODE = 1024           # bytes of a state's canonical form
    MAX_TAKEN = 2048          # moves of one random schedule
    MAX_LOOP = 256            # steps of a loop without progress

# What can happen next, as numbers: kind << 8 | a << 4 | b.  _explore.MOVES names the kinds.
cdef enum:
    MV_STEP = 0               # CPU a makes its next step
    MV_IPI = 1                # CPU a takes its call-function interrupt
    MV_IO = 2                 # ... that of the swap device
    MV_TIMER = 3
    MV_READ = 4               # the task of CPU a reads page b
    MV_WRITE = 5              # ... writes it
    MV_ZAP = 6                # ... calls MADV_DONTNEED on it
    MV_PIN = 7                # the page b is pinned for DMA
    MV_DMA = 8                # the device writes into what is pinned
    MV_UNPIN = 9
    MV_MIGRATE = 10           # the load balancer moves CPU a's task to CPU b
    MV_SLEEP = 11             # CPU a's task waits for something outside
    MV_WAKE = 12              # task a is woken
    MV_SPECULATE = 13         # CPU a fills its TLB for page b
    MV_SLOT_TAKE = 14         # another cgroup takes a swap slot
    MV_SLOT_GIVE = 15
    MV_FRAME_TAKE = 16        # another mm takes the next free frame
    MV_FRAME_GIVE = 17
    MV_START = 19             # the start: a: pages that the slots hold too; b: that no TLB holds
    MV_TICK = 18              # CPU a's task, which has nothing left to do, gives way to one that has
    MV_PROTECT = 20           # CPU a's task takes the right to write page b
    MV_UNMAP = 21             # ... unmaps it
    MV_MOVE = 22              # ... moves it
    MV_FORK = 23              # CPU a's task forks

cdef enum:                    # classes of environment actions, as bits
    ENV_PIN = 1
    ENV_MIGRATE = 2
    ENV_IDLE = 4
    ENV_ZAP = 8
    ENV_SPECULATE = 16
    ENV_SLOTS = 32
    ENV_REUSE = 64
    ENV_PROTECT = 128
    ENV_UNMAP = 256
    ENV_MOVE = 512
    ENV_FORK = 1024
    ENV_CALLS = ENV_PROTECT | ENV_UNMAP | ENV_MOVE | ENV_FORK      # system calls that take the mmap_lock to write

# The passes of a program that are such calls, in the order of setup["calls"].  _explore.CALLS names them.
cdef enum:
    CALL_ZAP = 0
    CALL_PROTECT = 1
    CALL_UNPROTECT = 2
    CALL_UNMAP = 3
    CALL_MOVE = 4
    NR_CALLS = 5

# Defects that can be planted: what a broken kernel does in place of a row.  _explore.DEFECTS names them.
cdef enum:
    DF_NO_FLUSH = 1 << 0
    DF_FLUSH_FIRST = 1 << 1
    DF_NO_REFCOUNT = 1 << 2
    DF_NO_SWAPCOUNT = 1 << 3
    DF_UNLOCK = 1 << 4
    DF_DROP = 1 << 5
    DF_ADD_TWICE = 1 << 6
    DF_COUNT_TWICE = 1 << 7
    DF_NO_ADVANCE = 1 << 8
    DF_FREE_FIRST = 1 << 9
    DF_LAST_MASK = 1 << 10
    DF_NO_GEN_CHECK = 1 << 11
    DF_MASK_EARLY = 1 << 12
    DF_SKIP_OWN = 1 << 13
    DF_DIRTY_EARLY = 1 << 14
    DF_SLOT_IN_IO = 1 << 15
    DF_NO_BATCHED = 1 << 16
    DF_NO_BUMP = 1 << 17
    DF_MASK_LATE = 1 << 18
    DF_ACK_EARLY = 1 << 19
    DF_NO_WAIT = 1 << 20
    DF_NO_TRANSFER = 1 << 21
    DF_NO_DIRTY_TEST = 1 << 22
    DF_NO_FREEZE = 1 << 23
    DF_NO_COW_FLUSH = 1 << 24
    DF_NO_FAULT_RECHECK = 1 << 25
    DF_LOCK_LEAK = 1 << 26
    DF_NO_TRYLOCK = 1 << 27
    DF_NO_REVOKE_FLUSH = 1 << 28
    DF_NO_FORK_FLUSH = 1 << 29
    DF_REUSE_SHARED = 1 << 30

cdef struct extra_t:          # of a state, beside tables and ghosts: what may still happen
    int8_t rounds[MAX_TASKS]          # shrink_folio_list calls that a reclaimer still makes
    uint8_t reclaims[MAX_TASKS]       # it is in one
    int8_t asleep[MAX_TASKS]          # by MV_SLEEP
    int8_t reads[MAX_VPS]             # left of each page
    int8_t writes[MAX_VPS]
    int8_t actions                    # of the environment, left
    int8_t begun                      # the start was chosen
    int8_t dma                        # the device still writes
    int8_t pinned                     # frame + 1
    int8_t got                        # by a plain reference, not a pin
    int8_t orphan                     # its page was zapped since: what the device writes is nobody's
    int8_t pinned_vp
    int8_t slot                       # taken + 1
    int8_t frame                      # taken + 1
    int8_t moved                      # some page was to be: its new place may be accessed
    int8_t switches                   # fork: time slices that may end while a task has something to do
    uint64_t saved_mask               # what a planted defect remembers
    uint64_t saved_pte

cdef struct visited_t:
    uint64_t *entry           # pairs; (0, 0) is empty
    uint64_t mask
    int64_t nr

cdef struct queue_t:          # packed states, one after another
    uint64_t *words
    int64_t nr                # words in use
    int64_t room
    int64_t states

cdef struct tiny_t:           # the tiny world, and how far it is searched
    machine m
    ghost_t g
    extra_t *x
    char *state
    char *root
    char *parent
    Py_ssize_t nbytes
    int nr_words
    char *policy_state        # of strategies that declare one: in the core's arena
    Py_ssize_t policy_offset
    Py_ssize_t policy_bytes
    uint32_t environment
    uint32_t defects
    int rows                  # passes of each page in a program, ...
    int row_of[NR_CALLS]      # ... and which of them is this call, or -1
    int fork_row              # the pass of a fork
    uint8_t owned[MAX_VPS]    # the page is mapped at the root
    uint8_t private[256]      # by step: nobody else notices it
    uint16_t live[256]        # by step: which fields of a task count
    uint64_t code[128]        # MAX_CODE bytes
    visited_t visited
    queue_t queue[2]          # this level's states and the next one's
    int64_t at                # word of the next state of this level
    int64_t level
    int64_t transitions
    int64_t expanded
    int64_t *parents          # state -> parent << 16 | move, where paths are kept
    int64_t parents_room
    int64_t index             # of the next state of this level
    bint whole                # go on where an invariant broke, elsewhere
    uint32_t broken           # bit i: invariant i was
    int found                 # the violation, and where
    int64_t found_at
    int found_move
    int32_t found_folio
    bint reduce
    bint symmetry
    int16_t taken_moves[2048] # MAX_TAKEN
    int nr_taken
    int traced                # micro-steps of the last move, where they are noted; -1: not
    int32_t trace[64][3]      # CPU, step, folio

cdef inline int move(int kind, int a, int b) noexcept nogil:
    return kind << 8 | a << 4 | b

cdef inline int32_t mm_of(const machine *m, int32_t vp) noexcept nogil:
    cdef int32_t i = 0
    while vp >= m.mm[i].base + m.mm[i].nr_pages:
        i += 1
    return i

cdef inline void fill_tlb(tiny_t *tiny, int32_t c, int32_t vp, bint dirty) noexcept nogil:
    cdef machine *m = &tiny.m
    cdef uint64_t tag = tlb_tag(&m.cpu[c], vp)
    tlb_fill(l2_set(m, c, vp), m.w.l2_ways, tag | dirty)
    tlb_fill(l1_set(m, c, vp), m.w.l1_ways, tag | dirty)
    ghost_filled(m, &tiny.g, c, vp)

cdef inline bint irq_possible(tiny_t *tiny, const cpu_t *p) noexcept nogil:
    """Interrupts are on between the CPU's last step and its next, or while it waits."""
    cdef int step
    if p.in_irq:
        return False
    if p.mode == CPU_SPIN_LOCK:
        return p.last_on
    if p.mode != CPU_RUN or p.last_on:
        return True
    step = p.sstep if p.sstep >= 0 else tiny.m.task[p.current].step
    return tiny.m.irq_on[step]

cdef inline bint must_give_way(tiny_t *tiny, const cpu_t *p) noexcept nogil:
    """resched_guard would end the step: no budget is needed for that."""
    return p.works or (p.need_resched and (p.rq_nr > 0 or p.push >= 0))

cdef inline bint finished(tiny_t *tiny, const task_t *t) noexcept nogil:
    """In user mode, with nothing left to do."""
    cdef int16_t moves[6 * MAX_VPS]
    return t.step == ST_TOUCH and not t.have and accesses(tiny, moves, 0, 0, t) == 0

cdef inline bint waits_for_cpu(tiny_t *tiny, const cpu_t *p) noexcept nogil:
    """A task that has something to do stands in the CPU's queue."""
    cdef int32_t u = p.rq_head
    while u >= 0:
        if not finished(tiny, &tiny.m.task[u]):
            return True
        u = tiny.m.task[u].rq_next
    return False

cdef inline int32_t budget(tiny_t *tiny, int32_t vp) noexcept nogil:
    """The page whose budget an access of this one spends: both places of a page that moves share one,
    so do parent and child."""
    cdef int32_t mm
    if tiny.environment & ENV_FORK:
        mm = mm_of(&tiny.m, vp)
        return peer_page(&tiny.m, mm, vp) if tiny.m.mm[mm].is_child else vp
    return vp & ~1 if tiny.environment & ENV_MOVE else vp

cdef inline int accesses(tiny_t *tiny, int16_t *out, int n, int32_t c, const task_t *t) noexcept nogil:
    cdef const mm_t *mm = &tiny.m.mm[t.mm]
    cdef int32_t vp, b
    for vp in range(mm.base, mm.base + mm.nr_pages):
        b = budget(tiny, vp)
        if tiny.x.reads[b] > 0 and (b == vp or tiny.x.moved or tiny.environment & ENV_FORK):
            out[n] = move(MV_READ, c, vp)
            n += 1
        if tiny.x.writes[b] > 0 and (b == vp or tiny.x.moved or tiny.environment & ENV_FORK):
            out[n] = move(MV_WRITE, c, vp)
            n += 1
        if tiny.environment & (ENV_ZAP | ENV_CALLS) and tiny.x.actions > 0:
            n = calls(tiny, out, n, c, vp)
    if tiny.environment & ENV_FORK and tiny.x.actions > 0 and unborn(tiny, mm):
        out[n] = move(MV_FORK, c, 0)
        n += 1
    return n

cdef inline bint unborn(tiny_t *tiny, const mm_t *mm) noexcept nogil:
    """The mm's child was not forked yet."""
    cdef int32_t u
    for u in range(tiny.m.w.nr_tasks):
        if tiny.m.task[u].mm == mm.peer and tiny.m.task[u].step == ST_V_CHILD:
            return True
    return False

cdef inline int calls(tiny_t *tiny, int16_t *out, int n, int32_t c, int32_t vp) noexcept nogil:
    """System calls on the page."""
    cdef uint32_t env = tiny.environment
    if env & ENV_ZAP:
        out[n] = move(MV_ZAP, c, vp)
        n += 1
    if not env & ENV_CALLS or not (tiny.owned[vp] or pte_kind_of(tiny.m.pte[vp]) != PTE_NONE):
        return n
    if env & ENV_PROTECT and not tiny.m.pte[vp] & PTE_RO:
        out[n] = move(MV_PROTECT, c, vp)
        n += 1
    if env & ENV_UNMAP:
        out[n] = move(MV_UNMAP, c, vp)
        n += 1
    if env & ENV_MOVE:
        out[n] = move(MV_MOVE, c, vp)
        n += 1
    return n

cdef inline uint64_t *held(tiny_t *tiny, int32_t c, int32_t vp, int32_t mm) noexcept nogil:
    """CPU c's TLB entry of the page in the address space of its mm, or NULL."""
    cdef machine *m = &tiny.m
    cdef const cpu_t *p = &m.cpu[c]
    cdef int a
    for a in range(NR_ASIDS):
        if p.asid_mm[a] == mm:
            return tlb_find(l2_set(m, c, vp), m.w.l2_ways,
                            (<uint64_t>p.asid_stamp[a] << 32) | (<uint64_t><uint32_t>vp << 1))
    return NULL

cdef inline void as_cpu(tiny_t *tiny, int32_t c) noexcept nogil:
    cdef machine *m = &tiny.m
    m.c = c
    m.p = &m.cpu[c]
    m.times = &m.time[c * TM_NR]
    m.turn = 0
