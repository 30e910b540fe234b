"""The interleaving explorer: every order of micro-steps of a tiny world.

It makes the same steps as the timed simulation (`_core.act_alone`), but whoever can act may act
next, and clocks stand still.  A *state* is one block of memory: the tables of a small machine, the
ghosts of `_mm/ghost.pxd` and the budgets of what may still happen.  `docs/safety.md` explains.

(Attributes are assigned where they could be added to: a debug build takes `self.x += 1` for an
operation that needs the GIL.)
"""

cimport cython
import numpy as np

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from reclaim._core cimport Core, act_alone
from reclaim._policy cimport Policies
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport irq_time
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.tlb cimport *
from reclaim._mm.readahead cimport ra_reset
from reclaim._mm.sched cimport block, folio_unlock, rq_append, wake_task
from reclaim._mm.smp cimport flush, irq_entry_step
from reclaim._mm.memory cimport call_end, call_first
from reclaim._mm.mmap cimport move_from
from reclaim._mm.ghost cimport *
from reclaim._mm.rng cimport rng_below, rng_draw, rng_mix

from reclaim import names
from reclaim.errors import ReclaimError

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

# What can happen next, as numbers: kind << 8 | a << 4 | b.  Kept in the order of MOVES.
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

MOVES = ("step", "ipi", "io", "timer", "read", "write", "zap", "pin", "dma", "unpin", "migrate",
         "sleep", "wake", "speculate", "slot_take", "slot_give", "frame_take", "frame_give", "tick", "start",
         "protect", "munmap", "mremap", "fork")

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

ENVIRONMENTS = ("pin", "migrate", "idle", "zap", "speculative", "slots", "reuse", "write-protect", "munmap",
                "mremap", "fork")

# The passes of a program that are such calls, in the order of setup["calls"].
cdef enum:
    CALL_ZAP = 0
    CALL_PROTECT = 1
    CALL_UNPROTECT = 2
    CALL_UNMAP = 3
    CALL_MOVE = 4
    NR_CALLS = 5

CALLS = ("zap", "protect", "unprotect", "munmap", "mremap")

# Defects that can be planted: what a broken kernel does in place of a row.  Bits, in this order.
DEFECTS = (
    "no-flush-before-writeout",
    "flush-before-recheck",
    "no-refcount-test",
    "no-swapcount-test",
    "unlock-before-writeout",
    "drop-on-trylock",
    "add-twice",
    "count-twice",
    "index-not-advanced",
    "free-before-flush",
    "last-mask-only",
    "no-generation-check",
    "mask-before-clear",
    "skip-own-cpu",
    "dirty-before-clear",
    "slot-freed-in-io",
    "no-batched-pending",
    "no-generation-bump",
    "mask-after-generation",
    "ack-before-flush",
    "no-wait",
    "no-dirty-transfer",
    "no-dirty-test",
    "no-freeze",
    "no-cow-flush",
    "no-recheck-in-fault",
    "lock-leak",
    "no-trylock",
    "no-revoke-flush",
    "no-fork-flush",
    "reuse-shared",
)

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

cdef struct pen_t:            # writes a canonical form
    uint8_t *to
    int32_t n
    int32_t nr_frames
    int32_t nr_slots
    int8_t frame[MAX_FRAMES]          # frame -> its name, or 0
    int8_t slot[MAX_SLOTS]
    int8_t frames[MAX_FRAMES + 1]     # name -> frame
    int8_t slots[MAX_SLOTS + 1]


# --- the visited set: open addressing, 16 bytes a state

cdef int visited_grow(visited_t *v) except -1 nogil:
    cdef uint64_t size = 2 * (v.mask + 1) if v.entry != NULL else 1 << 16
    cdef uint64_t *old = v.entry
    cdef uint64_t i, h, n = v.mask + 1 if old != NULL else 0
    cdef uint64_t *entry = <uint64_t *>calloc(size, 16)
    if entry == NULL:
        with gil:
            raise MemoryError
    for i in range(n):
        if old[2 * i] or old[2 * i + 1]:
            h = old[2 * i] & (size - 1)
            while entry[2 * h] or entry[2 * h + 1]:
                h = (h + 1) & (size - 1)
            entry[2 * h] = old[2 * i]
            entry[2 * h + 1] = old[2 * i + 1]
    free(old)
    v.entry = entry
    v.mask = size - 1
    return 0

cdef int visited_add(visited_t *v, uint64_t a, uint64_t b) except -1 nogil:
    """1 if the fingerprint was not there."""
    cdef uint64_t h
    if v.entry == NULL or <uint64_t>v.nr * 3 >= (v.mask + 1) * 2:
        visited_grow(v)
    if a == 0 and b == 0:
        a = 1
    h = a & v.mask
    while v.entry[2 * h] or v.entry[2 * h + 1]:
        if v.entry[2 * h] == a and v.entry[2 * h + 1] == b:
            return 0
        h = (h + 1) & v.mask
    v.entry[2 * h] = a
    v.entry[2 * h + 1] = b
    v.nr += 1
    return 1


# --- fingerprints

cdef extern from *:
    """
    static inline uint64_t reclaim_mum(uint64_t a, uint64_t b) {
        unsigned __int128 p = (unsigned __int128)a * b;
        return (uint64_t)p ^ (uint64_t)(p >> 64);
    }
    """
    uint64_t mum "reclaim_mum"(uint64_t a, uint64_t b) noexcept nogil

cdef void hash128(const uint64_t *w, int n, uint64_t *out) noexcept nogil:
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
    k.n += 1

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


cdef inline int actor_of(int mv) noexcept nogil:
    cdef int kind = mv >> 8, a = mv >> 4 & 15
    if kind == MV_STEP or kind == MV_READ or kind == MV_WRITE or kind == MV_ZAP or kind >= MV_TICK and kind != MV_START:
        return a
    if kind == MV_IPI or kind == MV_IO or kind == MV_TIMER:
        return MAX_CPUS + a
    return 2 * MAX_CPUS + kind % MAX_CPUS

cdef inline int move(int kind, int a, int b) noexcept nogil:
    return kind << 8 | a << 4 | b


@cython.final
cdef class Explorer:
    """A tiny world that is stepped by hand.

    Parameters
    ----------
    core : Core
        Of a World that `reclaim.exploration` made: its tables are copied into small ones.
    setup : dict
        ``frames, slots, rounds, reads, writes, actions, environment, defects, roles`` ...
    """

    cdef Core core
    cdef Policies policies
    cdef machine m
    cdef ghost_t g
    cdef extra_t *x
    cdef char *state
    cdef char *root
    cdef char *parent
    cdef Py_ssize_t nbytes
    cdef int nr_words
    cdef object meters
    cdef char *policy_state           # of strategies that declare one: in the core's arena
    cdef Py_ssize_t policy_offset, policy_bytes
    cdef uint32_t environment
    cdef uint32_t defects
    cdef int rows                     # passes of each page in a program, ...
    cdef int row_of[NR_CALLS]         # ... and which of them is this call, or -1
    cdef int fork_row                 # the pass of a fork
    cdef uint8_t owned[MAX_VPS]       # the page is mapped at the root
    cdef uint8_t private[256]         # by step: nobody else notices it
    cdef uint16_t live[256]           # by step: which fields of a task count
    cdef uint64_t code[128]           # MAX_CODE bytes
    cdef visited_t visited
    cdef queue_t queue[2]             # this level's states and the next one's
    cdef int64_t at                   # word of the next state of this level
    cdef int64_t level
    cdef readonly int64_t transitions
    cdef readonly int64_t expanded
    cdef int64_t *parents             # state -> parent << 12 | move, where paths are kept
    cdef int64_t parents_room
    cdef int64_t index                # of the next state of this level
    cdef int found                    # the violation, and where
    cdef int64_t found_at
    cdef int found_move
    cdef int32_t found_folio
    cdef bint reduce, symmetry
    cdef int16_t taken_moves[2048]    # MAX_TAKEN
    cdef int nr_taken
    cdef int traced                   # micro-steps of the last move, where they are noted; -1: not
    cdef int32_t trace[64][3]         # CPU, step, folio

    def __cinit__(self, Core core not None, dict setup):
        self.core = core
        self.policies = core.policies
        self.m = core.m
        self.environment = setup["environment"]
        self.g.strict = setup["strict"]
        self.defects = setup["defects"]
        self.traced = -1
        self.rows = len(setup["calls"])
        self.fork_row = setup["fork_row"]
        for i, name in enumerate(CALLS):
            self.row_of[i] = setup["calls"].index(name) if name in setup["calls"] else -1
        self.reduce = setup.get("reduce", True)
        self.symmetry = setup.get("symmetry", True)
        self._allocate(setup)
        self._classify()
        self._initial(setup)
        self.nr_words = <int>(self.nbytes // 8)
        memcpy(self.root, self.state, self.nbytes)

    def __dealloc__(self):
        cdef int i
        free(self.state)
        free(self.root)
        free(self.parent)
        free(self.visited.entry)
        free(self.parents)
        for i in range(2):
            free(self.queue[i].words)

    # --- the small machine

    def _allocate(self, setup):
        cdef machine *m = &self.m
        cdef Py_ssize_t at = 0, counters, times
        cdef char *base
        m.w.nr_folios = setup["frames"]
        m.w.limit = 1 << 40                     # nobody reclaims but those who are told to
        for what, n, most in (("CPUs", m.w.nr_cpus, MAX_CPUS), ("tasks", m.w.nr_tasks, MAX_TASKS),
                              ("mms", m.w.nr_mms, MAX_MMS), ("pages", m.w.nr_vps, MAX_VPS),
                              ("frames", m.w.nr_folios, MAX_FRAMES), ("slots", m.w.nr_slots, MAX_SLOTS)):
            if n > most:
                raise ReclaimError(f"{n} {what}: the explorer takes at most {most}")
        sizes = {"cpu": m.w.nr_cpus * sizeof(cpu_t), "task": m.w.nr_tasks * sizeof(task_t),
                 "mm": m.w.nr_mms * sizeof(mm_t), "folio": m.w.nr_folios * sizeof(folio_t),
                 "region": m.w.nr_regions * sizeof(region_t), "memcg": sizeof(memcg_t),
                 "swapdev": sizeof(swapdev_t), "io": m.w.io_depth * sizeof(io_t),
                 "pte": m.w.nr_vps * 8, "slot_entry": m.w.nr_slots * 8, "slot_count": m.w.nr_slots,
                 "mm_cpumask": m.w.nr_mms * 8, "ubc_mask": m.w.nr_tasks * 8,
                 "fl_mask": m.w.nr_cpus * 8, "fl_ipi": m.w.nr_cpus * 8,
                 "tlb_l1": m.w.nr_cpus * m.w.l1_sets * m.w.l1_ways * 8,
                 "tlb_l2": m.w.nr_cpus * m.w.l2_sets * m.w.l2_ways * 8,
                 "csd_next": m.w.nr_cpus * m.w.nr_cpus * 2}
        sizes |= {"latest": m.w.nr_vps * 4, "stored": m.w.nr_slots * 4,
                  "frame": m.w.nr_folios * sizeof(frame_ghost),
                  "reach": m.w.nr_vps * m.w.nr_cpus * sizeof(reach_t), "freed": m.w.nr_tasks * 4, "version": 4}
        sizes["extra"] = sizeof(extra_t)
        places = {}
        for name, n in sizes.items():
            places[name] = at
            at += (n + 7) // 8 * 8
        self.policy_offset = at
        self._find_policy_state()
        at += (self.policy_bytes + 7) // 8 * 8
        at = (at + 63) // 64 * 64
        self.nbytes = at
        self.state = <char *>calloc(1, at)
        self.root = <char *>calloc(1, at)
        self.parent = <char *>calloc(1, at)
        if self.state == NULL or self.root == NULL or self.parent == NULL:
            raise MemoryError
        base = self.state
        for name, n in sizes.items():           # the core's initial rows, the first of each table
            if name in core_tables(self.core):
                offset = self.core.tables[name][0]
                memcpy(base + <Py_ssize_t>places[name], self.core.arena.data + <Py_ssize_t>offset, n)
        m.cpu = <cpu_t *>(base + <Py_ssize_t>places["cpu"])
        m.task = <task_t *>(base + <Py_ssize_t>places["task"])
        m.mm = <mm_t *>(base + <Py_ssize_t>places["mm"])
        m.folio = <folio_t *>(base + <Py_ssize_t>places["folio"])
        m.region = <region_t *>(base + <Py_ssize_t>places["region"])
        m.cg = <memcg_t *>(base + <Py_ssize_t>places["memcg"])
        m.dev = <swapdev_t *>(base + <Py_ssize_t>places["swapdev"])
        m.io = <io_t *>(base + <Py_ssize_t>places["io"])
        m.pte = <uint64_t *>(base + <Py_ssize_t>places["pte"])
        m.slot_entry = <uint64_t *>(base + <Py_ssize_t>places["slot_entry"])
        m.slot_count = <uint8_t *>(base + <Py_ssize_t>places["slot_count"])
        m.mm_cpumask = <uint64_t *>(base + <Py_ssize_t>places["mm_cpumask"])
        m.ubc_mask = <uint64_t *>(base + <Py_ssize_t>places["ubc_mask"])
        m.fl_mask = <uint64_t *>(base + <Py_ssize_t>places["fl_mask"])
        m.fl_ipi = <uint64_t *>(base + <Py_ssize_t>places["fl_ipi"])
        m.l1 = <uint64_t *>(base + <Py_ssize_t>places["tlb_l1"])
        m.l2 = <uint64_t *>(base + <Py_ssize_t>places["tlb_l2"])
        m.csd_next = <int16_t *>(base + <Py_ssize_t>places["csd_next"])
        self.g.latest = <uint32_t *>(base + <Py_ssize_t>places["latest"])
        self.g.stored = <uint32_t *>(base + <Py_ssize_t>places["stored"])
        self.g.frame = <frame_ghost *>(base + <Py_ssize_t>places["frame"])
        self.g.reach = <reach_t *>(base + <Py_ssize_t>places["reach"])
        self.g.freed = <int32_t *>(base + <Py_ssize_t>places["freed"])
        self.g.version = <uint32_t *>(base + <Py_ssize_t>places["version"])
        self.x = <extra_t *>(base + <Py_ssize_t>places["extra"])
        # meters: written by the steps, read by nobody
        counters = CN_NR
        times = m.w.nr_cpus * TM_NR
        self.meters = np.zeros(counters + times + 33 + m.w.nr_cpus, dtype=np.int64)
        cdef int64_t[::1] view = self.meters
        m.counter = &view[0]
        m.time = &view[counters]
        m.hist_batch = &view[counters + times]
        m.hist_targets = &view[counters + times + 33]
        m.runs = 0

    def _find_policy_state(self):
        """Strategies that declare a state keep it in the core's arena; it is copied with ours."""
        rows = [(offset, dtype.itemsize) for name, (offset, dtype, _) in self.core.tables.items()
                if name.startswith("policy_")]
        self.policy_bytes = 0
        self.policy_state = NULL
        if rows:
            first = min(offset for offset, _ in rows)
            last = max(offset + n for offset, n in rows)
            self.policy_state = self.core.arena.data + <Py_ssize_t>first
            self.policy_bytes = last - first

    def _classify(self):
        cdef int32_t j
        for i, name in enumerate(names.STEPS):
            self.live[i] = _LIVE.get(name, 0)
            self.private[i] = name in _PRIVATE
        steps = {name: i for i, name in enumerate(names.STEPS)}
        if self.core.in_python:                 # it may look at flags
            self.private[steps["S_PLAN"]] = 0
        if self.environment & ENV_MIGRATE:      # need_resched is set from outside
            self.private[steps["S_NEXT"]] = self.private[steps["V_MORE"]] = 0
        if self.environment & ENV_PIN:
            self.private[steps["S_PIN"]] = 0
        if not self.m.w.swap_sync:              # completions end write-back
            self.private[steps["S_WB"]] = 0
        for j in range(self.m.w.nr_mms):
            if self.m.mm[j].locks:              # faults give the mmap_lock back
                self.private[steps["F_DONE"]] = 0

    def _initial(self, setup):
        """Everything mapped and in the TLBs, the reclaimers about to plan their lists.

        ``tasks``: per task (cpu, reclaims, frames of its list); ``pages``: per vp (frame, cached).
        """
        cdef machine *m = &self.m
        cdef int32_t c, t, vp, f, s
        cdef cpu_t *p
        cdef task_t *u
        cdef folio_t *q
        cdef bint running
        for c in range(m.w.nr_cpus):
            p = &m.cpu[c]
            p.rq_head = p.rq_tail = -1
            p.rq_nr = 0
            p.tick_at = INF
            p.mode = CPU_IDLE
            p.sstep = p.current = -1
        m.cg.nr_idle = m.w.nr_cpus
        m.cg.frames_free = m.w.nr_folios
        for i in range(m.w.nr_regions):
            m.region[i].present = 1
        for t, (cpu, reclaims, frames) in enumerate(setup["tasks"]):
            u = &m.task[t]
            c = cpu
            p = &m.cpu[c]
            u.cpu = c
            if u.step == ST_V_CHILD:
                continue
            if self.environment & ENV_FORK and not reclaims and not any(
                    setup["pages"][m.mm[u.mm].base:m.mm[u.mm].base + m.mm[u.mm].nr_pages]):
                u.state = TASK_DEAD             # its CPU is for the child
                u.step = -1
                continue
            running = p.current < 0
            if running:
                u.state = TASK_RUNNING
                p.current = t
                p.mode = CPU_RUN
                m.cg.nr_idle -= 1
                p.loaded_mm = u.mm
                p.asid_mm[0] = u.mm
                p.asid_gen[0] = m.mm[u.mm].tlb_gen
                p.tlb_stamp = p.asid_stamp[0] = 1
                p.next_asid = 1
                m.mm_cpumask[u.mm] |= <uint64_t>1 << c
            else:
                u.state = TASK_QUEUED
                rq_append(m, c, t)
            u.step = ST_TOUCH
            self.x.rounds[t] = setup["rounds"] if reclaims else 0
        for s in range(m.w.nr_slots):
            self.g.stored[s] = GARBAGE
        for f in range(m.w.nr_folios):
            self.g.frame[f].owner = -1
            self.g.frame[f].content = GARBAGE
        for vp, page in enumerate(setup["pages"]):
            self.x.reads[vp] = self.x.writes[vp] = 0
            self.owned[vp] = page
            if not page:
                continue
            self.x.reads[vp] = setup["reads"]
            self.x.writes[vp] = setup["writes"]
            f = alloc_frame(m)
            self.g.frame[f].life = 1
            q = &m.folio[f]
            q.vp = vp
            q.mm = mm_of(m, vp)
            q.mapcount = 1
            m.mm[q.mm].rss += 1
            self.g.version[0] = self.g.version[0] + 1
            self.g.latest[vp] = self.g.frame[f].content = self.g.version[0]
            m.pte[vp] = pte_make(PTE_PRESENT, f, PTE_WRITE | PTE_EXCL | PTE_DIRTY)
            for c in range(m.w.nr_cpus):
                if m.cpu[c].loaded_mm == q.mm:
                    self._fill(c, vp, True)
        for t, (_, reclaims, frames) in enumerate(setup["tasks"]):
            u = &m.task[t]
            u.list.head = u.list.tail = u.ret.head = u.ret.tail = -1
            if not reclaims:
                continue
            self.x.reclaims[t] = 1
            u.nr_to_scan = setup["nr_to_scan"]
            u.step = ST_I_START
            if frames:
                u.step = ST_S_PLAN
                for f in frames:
                    m.folio[f].refcount += 1
                    fifo_push(m, &u.list, f)
                u.taken = u.scanned = u.list.nr
                m.cg.nr_isolated += u.taken
        self.x.actions = setup["actions"]
        self.x.switches = setup["actions"]
        self.x.dma = 1
        self.x.begun = not setup["starts"]
        for t in range(m.w.nr_tasks):
            m.task[t].pass_no = 0
            m.task[t].pos = 0
        self._settle()
        if self.x.begun and self.reduce:
            self.private_steps()

    cdef void _fill(self, int32_t c, int32_t vp, bint dirty) noexcept nogil:
        cdef machine *m = &self.m
        cdef uint64_t tag = tlb_tag(&m.cpu[c], vp)
        tlb_fill(l2_of(m, c), m.w.l2_sets, m.w.l2_ways, vp, tag, dirty)
        tlb_fill(l1_of(m, c), m.w.l1_sets, m.w.l1_ways, vp, tag, dirty)
        ghost_filled(m, &self.g, c, vp)

    # --- what can happen next

    cdef inline bint irq_possible(self, const cpu_t *p) noexcept nogil:
        """Interrupts are on between the CPU's last step and its next, or while it waits."""
        cdef int step
        if p.in_irq:
            return False
        if p.mode == CPU_SPIN_LOCK:
            return p.last_on
        if p.mode != CPU_RUN or p.last_on:
            return True
        step = p.sstep if p.sstep >= 0 else self.m.task[p.current].step
        return self.m.irq_on[step]

    cdef inline bint must_give_way(self, const cpu_t *p) noexcept nogil:
        """resched_guard would end the step: no budget is needed for that."""
        return p.drain_req or (p.need_resched and (p.rq_nr > 0 or p.push >= 0))

    cdef int moves(self, int16_t *out) noexcept nogil:
        """Everything that can happen next; how many."""
        cdef machine *m = &self.m
        cdef int n = 0, i
        cdef int32_t c
        cdef const cpu_t *p
        cdef const task_t *t
        if not self.x.begun:
            return self.starts(out)
        for c in range(m.w.nr_cpus):
            p = &m.cpu[c]
            if self.irq_possible(p):
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
            if p.sstep >= 0 or t.step != ST_TOUCH or t.have or self.must_give_way(p):
                out[n] = move(MV_STEP, c, 0)
                n += 1
            else:
                i = self.accesses(out, n, c, t)
                if p.rq_nr > 0 and (i == n or (self.environment & ENV_FORK and self.x.switches > 0)) \
                        and self.waits_for_cpu(p):
                    out[i] = move(MV_TICK, c, 0)
                    i += 1
                n = i
        return self.environment_moves(out, n) if self.environment else n

    cdef int starts(self, int16_t *out) noexcept nogil:
        """Every page dirty, or clean and in the swap cache; in the TLBs or not."""
        cdef int32_t pages = self.m.w.nr_folios - self.m.cg.frames_free, slots, a, b
        cdef int n = 0
        for a in range(1 << pages):
            slots = 0
            for b in range(pages):
                slots += a >> b & 1
            if slots > self.m.w.nr_slots:
                continue
            for b in range(1 << pages):
                out[n] = move(MV_START, a, b)
                n += 1
        return n

    cdef void begin(self, int cached, int cold) noexcept nogil:
        cdef machine *m = &self.m
        cdef int32_t vp, f, s, c
        cdef uint64_t *e
        self.x.begun = 1
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
                self.g.stored[s] = self.g.frame[f].content
            for c in range(m.w.nr_cpus):
                if m.cpu[c].loaded_mm != m.folio[f].mm:
                    continue
                e = tlb_find(l2_of(m, c), 1, m.w.l2_ways, vp, tlb_tag(&m.cpu[c], vp))
                e[0] = 0 if cold >> f & 1 else tlb_tag(&m.cpu[c], vp) | (not cached >> f & 1)
                tlb_find(l1_of(m, c), 1, m.w.l1_ways, vp, tlb_tag(&m.cpu[c], vp))[0] = e[0]

    cdef inline bint finished(self, const task_t *t) noexcept nogil:
        """In user mode, with nothing left to do."""
        cdef int16_t moves[6 * MAX_VPS]
        return t.step == ST_TOUCH and not t.have and self.accesses(moves, 0, 0, t) == 0

    cdef bint waits_for_cpu(self, const cpu_t *p) noexcept nogil:
        """A task that has something to do stands in the CPU's queue."""
        cdef int32_t u = p.rq_head
        while u >= 0:
            if not self.finished(&self.m.task[u]):
                return True
            u = self.m.task[u].rq_next
        return False

    cdef inline int32_t budget(self, int32_t vp) noexcept nogil:
        """The page whose budget an access of this one spends: both places of a page that moves share one,
        so do parent and child."""
        cdef int32_t mm
        if self.environment & ENV_FORK:
            mm = mm_of(&self.m, vp)
            return peer_page(&self.m, mm, vp) if self.m.mm[mm].is_child else vp
        return vp & ~1 if self.environment & ENV_MOVE else vp

    cdef inline int accesses(self, int16_t *out, int n, int32_t c, const task_t *t) noexcept nogil:
        cdef const mm_t *mm = &self.m.mm[t.mm]
        cdef int32_t vp, b
        for vp in range(mm.base, mm.base + mm.nr_pages):
            b = self.budget(vp)
            if self.x.reads[b] > 0 and (b == vp or self.x.moved or self.environment & ENV_FORK):
                out[n] = move(MV_READ, c, vp)
                n += 1
            if self.x.writes[b] > 0 and (b == vp or self.x.moved or self.environment & ENV_FORK):
                out[n] = move(MV_WRITE, c, vp)
                n += 1
            if self.environment & (ENV_ZAP | ENV_CALLS) and self.x.actions > 0:
                n = self.calls(out, n, c, vp)
        if self.environment & ENV_FORK and self.x.actions > 0 and self.unborn(mm):
            out[n] = move(MV_FORK, c, 0)
            n += 1
        return n

    cdef inline bint unborn(self, const mm_t *mm) noexcept nogil:
        """The mm's child was not forked yet."""
        cdef int32_t u
        for u in range(self.m.w.nr_tasks):
            if self.m.task[u].mm == mm.peer and self.m.task[u].step == ST_V_CHILD:
                return True
        return False

    cdef inline int calls(self, int16_t *out, int n, int32_t c, int32_t vp) noexcept nogil:
        """System calls on the page."""
        cdef uint32_t env = self.environment
        if env & ENV_ZAP:
            out[n] = move(MV_ZAP, c, vp)
            n += 1
        if not env & ENV_CALLS or not (self.owned[vp] or pte_kind_of(self.m.pte[vp]) != PTE_NONE):
            return n
        if env & ENV_PROTECT and not self.m.pte[vp] & PTE_RO:
            out[n] = move(MV_PROTECT, c, vp)
            n += 1
        if env & ENV_UNMAP:
            out[n] = move(MV_UNMAP, c, vp)
            n += 1
        if env & ENV_MOVE:
            out[n] = move(MV_MOVE, c, vp)
            n += 1
        return n

    cdef int environment_moves(self, int16_t *out, int n) noexcept nogil:
        cdef machine *m = &self.m
        cdef extra_t *x = self.x
        cdef bint more = x.actions > 0
        cdef int32_t c, j, vp, t, mm
        cdef const cpu_t *p
        cdef uint32_t env = self.environment
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
                    if pte_present(m.pte[vp]) and not self.held(c, vp, mm):
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

    cdef inline uint64_t *held(self, int32_t c, int32_t vp, int32_t mm) noexcept nogil:
        """CPU c's TLB entry of the page in the address space of its mm, or NULL."""
        cdef machine *m = &self.m
        cdef const cpu_t *p = &m.cpu[c]
        cdef int a
        for a in range(NR_ASIDS):
            if p.asid_mm[a] == mm:
                return tlb_find(l2_of(m, c), m.w.l2_sets, m.w.l2_ways, vp,
                                (<uint64_t>p.asid_stamp[a] << 32) | (<uint64_t><uint32_t>vp << 1))
        return NULL

    # --- making it happen

    cdef int act(self, int mv) except -1 nogil:
        """Let it happen; the invariant that broke, or 0."""
        cdef machine *m = &self.m
        cdef int kind = mv >> 8, a = mv >> 4 & 15, b = mv & 15, bad
        cdef cpu_t *p = &m.cpu[a]
        m.now = 0
        if self.policy_bytes:
            memcpy(self.policy_state, self.state + self.policy_offset, self.policy_bytes)
        if kind == MV_STEP:
            bad = self.step(a, INF)
        elif kind == MV_IPI:
            bad = self.step(a, p.irq_at)
        elif kind == MV_IO:
            bad = self.step(a, p.io_at)
        elif kind == MV_TIMER:
            m.now = p.timer_at
            bad = self.step(a, p.timer_at)
        elif kind == MV_READ or kind == MV_WRITE:
            bad = self.access(a, b, kind == MV_WRITE)
        else:
            bad = self.environment_act(kind, a, b)
        self._settle()
        if bad == BAD_NOTHING and self.reduce:
            bad = self.private_steps()
        if self.policy_bytes:
            memcpy(self.state + self.policy_offset, self.policy_state, self.policy_bytes)
        return bad

    cdef int private_steps(self) except -1 nogil:
        """Whoever is before a step that nobody else can notice makes it at once.

        Such a step commutes with everything that others do meanwhile and no invariant sees it, so
        one order stands for all.  No loop consists of them alone, and every state that is kept is
        expanded whole: nobody is put off for ever (the cycle proviso).
        """
        cdef machine *m = &self.m
        cdef int32_t c = 0
        cdef int bad
        cdef const cpu_t *p
        while c < m.w.nr_cpus:
            p = &m.cpu[c]
            if p.in_irq:
                if not self.private[p.istep]:
                    c += 1
                    continue
            elif p.mode != CPU_RUN or p.sstep >= 0 or not self.private[m.task[p.current].step]:
                c += 1
                continue
            m.now = 0
            bad = self.step(c, INF)
            if bad:
                return bad
            self._settle()
            c = 0
        return BAD_NOTHING

    cdef int access(self, int32_t c, int32_t vp, bint write) except -1 nogil:
        cdef task_t *t = &self.m.task[self.m.cpu[c].current]
        cdef int32_t b = self.budget(vp)
        if write:
            self.x.writes[b] = self.x.writes[b] - 1
        else:
            self.x.reads[b] = self.x.reads[b] - 1
        t.have = 1
        t.vp = vp
        t.write = write
        t.zero = 0
        return self.step(c, INF)

    cdef void _settle(self) noexcept nogil:
        """Clocks stand still; programs go on where the explorer says."""
        cdef machine *m = &self.m
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
            if u.step == ST_TOUCH:
                u.pass_no = 0
                u.pos = 0
            elif self.x.reclaims[t] and (u.step == ST_R_LIST or u.step == ST_R_END):
                self.reclaimed(t, u)

    cdef void reclaimed(self, int32_t t, task_t *u) noexcept nogil:
        """shrink_inactive_list returned: again, or back to the program."""
        if u.step == ST_R_LIST and u.plug_nr > 0:
            u.step = ST_R_AGE                  # the end of shrink_lruvec lets the plug go
            return
        self.x.rounds[t] = self.x.rounds[t] - 1
        if self.x.rounds[t] > 0:
            u.step = ST_I_START
            return
        u.step = ST_TOUCH
        self.x.reclaims[t] = 0

    cdef int step(self, int32_t c, int64_t interrupt) except -1 nogil:
        """One micro-step of CPU c, watched."""
        cdef machine *m = &self.m
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
        if 0 <= self.traced < 64:
            self.trace[self.traced][0] = c
            self.trace[self.traced][1] = step
            self.trace[self.traced][2] = seen_folio(m, c, step)
            self.traced = self.traced + 1
        bad = ghost_before(m, &self.g, c, step, self.policies, &seen)
        if bad:
            return bad
        if step == ST_V_MOVED and self.x.pinned and not self.x.orphan:
            if self.x.pinned_vp == m.mm[m.task[seen.task].mm].base + move_from(m, &m.task[seen.task]):
                self.x.pinned_vp = <int8_t>(self.x.pinned_vp ^ 1)
        if self.defects:
            self.defective_step(c, interrupt, step)
        else:
            act_alone(m, c, interrupt, self.policies)
        after = ghost_after(m, &self.g, c, &seen)
        if (step == ST_E_ZAP or step == ST_E_PTES) and self.x.pinned:
            self.zapped_pinned(&m.task[seen.task], step)
        if step == ST_F_READ and m.task[seen.task].step == ST_TOUCH:
            # SIGSEGV: the program's handler gives the right to write back
            self.call(&m.task[seen.task], CALL_UNPROTECT, m.task[seen.task].vp)
        if m.bad:
            after = BAD_SLOT if m.bad == 2 else BAD_STUCK
            m.bad = 0
            return after
        if after == BAD_NOTHING and m.dev.in_flight > 0:
            return self.requests()
        return after

    cdef void zapped_pinned(self, const task_t *t, int step) noexcept nogil:
        """The pinned page may have been zapped: what the device writes is nobody's then."""
        cdef machine *m = &self.m
        cdef int32_t page = self.x.pinned_vp - m.mm[t.mm].base
        if t.step != step and call_first(m, t) <= page < call_end(m, t) \
                and not ghost_holds(m, self.x.pinned_vp, self.x.pinned - 1):
            self.x.orphan = 1

    cdef int requests(self) noexcept nogil:
        """The device works on slots of folios that wait for it."""
        cdef machine *m = &self.m
        cdef int32_t c, r, f
        for c in range(m.w.nr_cpus):
            r = m.cpu[c].io_head
            while r >= 0:
                f = swap_cache_folio(m, m.io[r].slot)
                if f < 0 or not m.folio[f].flags & (PG_writeback | PG_locked):
                    self.g.folio = f
                    return BAD_SLOT
                r = m.io[r].next
        return BAD_NOTHING

    cdef inline void call(self, task_t *t, int which, int32_t vp) noexcept nogil:
        """The task makes a system call on the page: that pass of its program."""
        t.pass_no = 1 + (vp - self.m.mm[t.mm].base) * self.rows + self.row_of[which]
        t.pos = 0
        t.step = ST_DONTNEED if which == CALL_ZAP else ST_V_CALL

    cdef void system_call(self, int kind, int32_t c, int32_t vp) noexcept nogil:
        cdef extra_t *x = self.x
        cdef int which = (CALL_ZAP if kind == MV_ZAP else CALL_PROTECT if kind == MV_PROTECT
                          else CALL_UNMAP if kind == MV_UNMAP else CALL_MOVE)
        x.actions -= 1
        if kind == MV_FORK:
            self.m.task[self.m.cpu[c].current].pass_no = self.fork_row
            self.m.task[self.m.cpu[c].current].pos = 0
            self.m.task[self.m.cpu[c].current].step = ST_V_CALL
            return
        if kind == MV_MOVE:
            x.moved = 1
        self.call(&self.m.task[self.m.cpu[c].current], which, vp)

    cdef int environment_act(self, int kind, int a, int b) except -1 nogil:
        cdef machine *m = &self.m
        cdef extra_t *x = self.x
        cdef cpu_t *p = &m.cpu[a]
        cdef int32_t f
        if kind == MV_ZAP or kind > MV_START:
            self.system_call(kind, a, b)
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
            self.g.version[0] = self.g.version[0] + 1
            f = x.pinned - 1
            self.g.frame[f].content = self.g.version[0]
            # what is zapped can be reached through old entries until the flush
            if not x.orphan or (
                    pte_kind_of(m.pte[x.pinned_vp]) == PTE_ZAPPED and pte_index(m.pte[x.pinned_vp]) == f):
                ghost_latest(m, &self.g, x.pinned_vp, self.g.version[0])
        elif kind == MV_UNPIN:                 # unpin_user_pages_dirty_lock
            f = x.pinned - 1
            x.pinned = 0
            m.folio[f].flags |= PG_dirty
            if not x.got:
                m.folio[f].refcount -= PIN_BIAS - 1
            self.put(f)
        elif kind == MV_MIGRATE:               # as the tick of CPU a
            x.actions -= 1
            p.push = b
            p.need_resched = 1
        elif kind == MV_START:
            self.begin(a, b)
        elif kind == MV_TICK:
            p.need_resched = 1
            if x.switches > 0 and not self.finished(&m.task[p.current]):
                x.switches -= 1
        elif kind == MV_SLEEP:
            x.actions -= 1
            x.asleep[p.current] = 1
            self.as_cpu(a)
            block(m, p, &m.task[p.current])
        elif kind == MV_WAKE:
            x.asleep[a] = 0
            self.as_cpu(m.task[a].cpu)
            wake_task(m, a)
        elif kind == MV_SPECULATE:
            x.actions -= 1
            m.pte[b] |= PTE_YOUNG
            self._fill(a, b, (m.pte[b] & (PTE_DIRTY | PTE_WRITE)) == (PTE_DIRTY | PTE_WRITE))
        elif kind == MV_SLOT_TAKE:
            x.actions -= 1
            x.slot = <int8_t>(take_slot(m) + 1)
            self.g.stored[x.slot - 1] = GARBAGE
        elif kind == MV_SLOT_GIVE:
            slot_free(m, x.slot - 1)
            x.slot = 0
        elif kind == MV_FRAME_TAKE:
            x.actions -= 1
            f = alloc_frame(m)
            self.g.frame[f].life = self.g.frame[f].life + 1
            self.g.frame[f].content = GARBAGE
            x.frame = <int8_t>(f + 1)
        else:
            f = x.frame - 1
            x.frame = 0
            self.g.frame[f].life = self.g.frame[f].life + 1
            free_frame(m, f)
        return 0

    cdef void put(self, int32_t f) noexcept nogil:
        """folio_put by the environment"""
        cdef int32_t before = self.m.cg.frames_free
        folio_put(&self.m, f)
        if self.m.cg.frames_free != before:
            self.g.frame[f].life = self.g.frame[f].life + 1

    cdef void as_cpu(self, int32_t c) noexcept nogil:
        cdef machine *m = &self.m
        m.c = c
        m.p = &m.cpu[c]
        m.times = &m.time[c * TM_NR]
        m.turn = 0

    # --- planted defects

    cdef int defective_step(self, int32_t c, int64_t interrupt, int step) except -1 nogil:
        """The step as a broken kernel makes it."""
        cdef machine *m = &self.m
        cdef cpu_t *p = &m.cpu[c]
        cdef task_t *t = &m.task[p.current] if p.current >= 0 else NULL
        cdef uint32_t d = self.defects
        if self.skipped(d, c, p, t, step):
            p.last_on = m.irq_on[step]
            if self.traced > 0:
                self.trace[self.traced - 1][1] = -1 - step      # left out
            return 0
        if step == ST_P_OUT and d & DF_NO_REFCOUNT:
            return self.with_refcount(c, t.folio)
        if step == ST_S_FREE and d & DF_NO_FREEZE:
            return self.with_refcount(c, t.folio)
        if step == ST_P_WRITE and d & DF_NO_SWAPCOUNT:
            return self.with_swapcount(c, t.folio)
        if step == ST_F_SWAP_MAP and d & DF_SLOT_IN_IO:
            return self.without_flag(c, t.f_pfn, PG_writeback)
        if step == ST_S_FREE and d & DF_NO_DIRTY_TEST:
            return self.without_flag(c, t.folio, PG_dirty)
        if step == ST_U_MASK and d & DF_LAST_MASK:
            m.ubc_mask[p.current] = 0
        if d & DF_MASK_EARLY and (step == ST_U_MASK or (step == ST_FL_START and p.fl_ret == ST_U_SET)):
            return self.with_saved_mask(c, m.folio[t.folio].mm)
        if d & DF_NO_GEN_CHECK and (step == ST_SW_PICK or step == ST_W_BACK):
            p.is_lazy = 0
        if step == ST_U_DEFER and d & DF_DIRTY_EARLY:
            self.x.saved_pte = m.pte[m.folio[t.folio].vp] & PTE_DIRTY
        if d & DF_NO_BATCHED and (step == ST_E_ZAP or step == ST_V_PROT or step == ST_V_MOVE_NEW):
            m.mm[t.mm].flushed = m.mm[t.mm].pending
        if step == ST_U_SET and d & DF_NO_TRANSFER:
            t.old_pte &= ~<uint64_t>PTE_DIRTY
        if step == ST_F_WP and d & DF_REUSE_SHARED:
            return self.reusing(c, t)
        if step == ST_B_LOCK:
            return self.defective_relock(d, c, t)
        act_alone(m, c, interrupt, self.policies)
        self.spoil(d, c, p, t, step)
        return 0

    cdef bint skipped(self, uint32_t d, int32_t c, cpu_t *p, task_t *t, int step) noexcept nogil:
        """A row that is left out, or made otherwise altogether."""
        cdef machine *m = &self.m
        if step == ST_FL_START:
            if d & DF_NO_FLUSH and p.fl_mm < 0 and (p.fl_ret == ST_P_OUT or p.fl_ret == ST_B_OUT):
                t.step = p.fl_ret
                return True
            if d & DF_FREE_FIRST and (p.fl_ret == ST_S_END_FLUSHED or p.fl_ret == ST_S_FREE_FLUSHED):
                t.step = p.fl_ret
                return True
            if (d & DF_NO_COW_FLUSH and p.fl_ret == ST_F_WP_SET) or (d & DF_NO_REVOKE_FLUSH and t.call and (
                    p.fl_ret == ST_V_END or p.fl_ret == ST_V_FREE or p.fl_ret == ST_V_MOVED)) or (
                    d & DF_NO_FORK_FLUSH and p.fl_ret == ST_V_FORKED):
                t.step = p.fl_ret
                return True
        elif step == ST_FL_LOCAL and d & DF_SKIP_OWN:
            t.step = ST_FL_WAIT
            return True
        elif step == ST_FL_WAIT and d & DF_NO_WAIT:
            t.step = ST_FL_DONE
            return True
        elif step == ST_SW_SET and d & DF_MASK_LATE:
            p.sstep = ST_SW_GEN
            return True
        elif step == ST_Q_ACK and d & (DF_NO_WAIT | DF_ACK_EARLY):
            p.hand = m.csd_next[c * m.w.nr_cpus + p.hand]
            p.istep = ST_Q_FUNC if p.hand >= 0 else ST_Q_EXIT
            return True
        elif step == ST_F_RECHECK and d & DF_NO_FAULT_RECHECK:
            t.step = ST_F_SWAP_MAP
            return True
        return False

    cdef void spoil(self, uint32_t d, int32_t c, cpu_t *p, task_t *t, int step) noexcept nogil:
        """What is done besides, once the row was made."""
        cdef machine *m = &self.m
        cdef int32_t s
        if step == ST_B_START and d & DF_FLUSH_FIRST and t.step == ST_B_LOCK and t.ubc_writable:
            flush(m, p, t, -1, -1, ST_B_LOCK)
        elif step == ST_U_DEFER and d & DF_MASK_EARLY:
            self.x.saved_mask = m.mm_cpumask[m.folio[t.folio].mm]
        elif step == ST_U_CLEAR and d & DF_DIRTY_EARLY:
            t.old_pte = (t.old_pte & ~<uint64_t>PTE_DIRTY) | self.x.saved_pte
        elif step == ST_U_GEN and d & DF_NO_BUMP:
            m.mm[m.folio[t.folio].mm].tlb_gen -= 1
        elif step == ST_U_SET:
            self.x.saved_mask = self.x.saved_pte = 0
        elif step == ST_S_END_FLUSHED and d & DF_FREE_FIRST and t.ubc_required:
            flush(m, p, t, -1, -1, ST_I_PUT)
        elif step == ST_S_FREE and t.nr_free > 0 and not m.folio[t.free_folios[t.nr_free - 1]].flags & PG_swapcache:
            if d & DF_ADD_TWICE:
                fifo_push(m, &t.ret, t.folio)
            if d & DF_COUNT_TWICE:
                t.reclaimed_local += 1
                t.reclaimed_stat += 1
        elif step == ST_SW_CR3 and d & DF_MASK_LATE:
            mask_set(mm_mask(m, m.task[p.current].mm), c)
        elif step == ST_Q_TAKE and d & DF_ACK_EARLY:
            s = p.hand
            while s >= 0:
                m.cpu[s].acks -= 1
                if m.cpu[s].acks == 0 and m.cpu[s].mode == CPU_SPIN_ACK:
                    m.cpu[s].mode = CPU_RUN
                s = m.csd_next[c * m.w.nr_cpus + s]
        elif step == ST_P_OUT and d & DF_LOCK_LEAK and t.ret.nr > 0 and t.ret.tail == t.folio:
            m.folio[t.folio].flags |= PG_locked

    cdef int reusing(self, int32_t c, const task_t *t) except -1 nogil:
        """As if nobody shared the page."""
        if pte_present(self.m.pte[t.vp]):
            self.m.pte[t.vp] |= PTE_EXCL
        act_alone(&self.m, c, INF, self.policies)
        return 0

    cdef int with_refcount(self, int32_t c, int32_t f) except -1 nogil:
        """As if nobody else held the folio."""
        cdef folio_t *q = &self.m.folio[f]
        cdef int32_t refs = q.refcount
        if q.flags & PG_swapcache:
            q.refcount = 2
        act_alone(&self.m, c, INF, self.policies)
        if q.refcount == 2:
            q.refcount = refs
        return 0

    cdef int with_swapcount(self, int32_t c, int32_t f) except -1 nogil:
        """As if a PTE still named the folio's slot."""
        cdef int32_t s = self.m.folio[f].slot
        cdef bint none = s >= 0 and slot_maps(&self.m, s) == 0
        self.m.slot_count[s] = self.m.slot_count[s] + none
        act_alone(&self.m, c, INF, self.policies)
        self.m.slot_count[s] = self.m.slot_count[s] - none
        return 0

    cdef int without_flag(self, int32_t c, int32_t f, uint32_t flag) except -1 nogil:
        cdef folio_t *q = &self.m.folio[f]
        cdef uint32_t had = q.flags & flag
        q.flags &= ~flag
        act_alone(&self.m, c, INF, self.policies)
        if q.refcount > 0:
            q.flags |= had
        return 0

    cdef int with_saved_mask(self, int32_t c, int32_t mm) except -1 nogil:
        cdef uint64_t now = self.m.mm_cpumask[mm]
        self.m.mm_cpumask[mm] = self.x.saved_mask
        act_alone(&self.m, c, INF, self.policies)
        self.m.mm_cpumask[mm] = now
        return 0

    cdef int defective_relock(self, uint32_t d, int32_t c, task_t *t) except -1 nogil:
        cdef machine *m = &self.m
        cdef fifo ret = t.ret
        cdef int32_t n = t.b_w, i = t.b_i
        cdef bint locked = i < t.nr_flush and m.folio[t.flush_folios[i]].flags & PG_locked
        if locked and d & DF_NO_TRYLOCK:
            m.folio[t.flush_folios[i]].flags &= ~<uint32_t>PG_locked
        act_alone(m, c, INF, self.policies)
        if t.step != ST_B_LOCK or t.b_i != i + 1:
            return 0
        if t.b_w > n:
            if d & DF_UNLOCK:
                folio_unlock(m, t.folio)
        elif (d & DF_DROP and locked) or d & DF_NO_ADVANCE:
            t.ret = ret
            if ret.tail >= 0:
                m.folio[ret.tail].next = -1
            if d & DF_NO_ADVANCE:
                t.b_i = i
        return 0

    # --- the canonical form

    cdef void fingerprint(self, uint64_t *out) noexcept nogil:
        cdef int n = self.canonical()
        hash128(self.code, n, out)

    cdef int canonical(self) noexcept nogil:
        """Write the state's behaviour to `code`; how many words."""
        cdef pen_t k
        cdef machine *m = &self.m
        cdef int32_t c, t, i, f, s
        k.to = <uint8_t *>self.code
        k.n = 0
        k.nr_frames = k.nr_slots = 0
        memset(k.frame, 0, MAX_FRAMES)
        memset(k.slot, 0, MAX_SLOTS)
        if not self.symmetry:                   # everybody is called by its number
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
            put(&k, self.x.reads[i] << 4 | self.x.writes[i])
            if self.environment & ENV_CALLS:
                put(&k, (m.pte[i] >= PTE_RO) << 4 | self.holds(self.g.latest[i]))
        for i in range(m.w.nr_mms):
            self.put_mm(&k, i)
        for t in range(m.w.nr_tasks):
            self.put_task(&k, t)
        for c in range(m.w.nr_cpus):
            self.put_cpu(&k, c)
        for i in range(m.w.nr_regions):
            self.put_lock(&k, &m.region[i].ptl)
            if self.environment & ENV_CALLS:
                put(&k, m.region[i].present)
        self.put_lock(&k, &m.cg.lru_lock)
        for i in range(2):
            f = m.cg.lru_head[i]
            while f >= 0:
                put_frame(&k, f)
                f = m.folio[f].next
            put(&k, 0)
        self.put_device(&k)
        self.put_extra(&k)
        # what the names stand for; this may name more
        i = s = 0
        while i < k.nr_frames or s < k.nr_slots:
            if i < k.nr_frames:
                i += 1
                self.put_folio(&k, k.frames[i])
            else:
                s += 1
                self.put_slot_row(&k, k.slots[s])
        # free frames and slots that somebody still remembers, by their turn; the others are alike
        f = m.cg.frame_top
        i = 0
        while f >= 0:
            i += 1
            if k.frame[f]:
                put(&k, i)
                put(&k, k.frame[f])
            f = m.folio[f].next
        put(&k, 0)
        s = m.cg.slot_top
        i = 0
        while s >= 0:
            i += 1
            if k.slot[s]:
                put(&k, i)
                put(&k, k.slot[s])
            s = <int32_t>m.slot_entry[s] - 1
        put(&k, 0)
        put(&k, m.cg.slots_free)
        if self.policy_bytes:
            memcpy(k.to + k.n, self.state + self.policy_offset, self.policy_bytes)
            k.n += <int32_t>self.policy_bytes
        put(&k, k.n)                        # so that padding is never taken for content
        while k.n & 7:
            put(&k, 0)
        return k.n >> 3

    cdef void put_mm(self, pen_t *k, int32_t i) noexcept nogil:
        cdef machine *m = &self.m
        cdef mm_t *mm = &m.mm[i]
        cdef int32_t u = mm.wait_head
        put(k, m.mm_cpumask[i])
        if self.environment & (ENV_ZAP | ENV_CALLS):
            put(k, mm.pending == mm.flushed)
        if mm.locks:
            put(k, mm.readers)
            put(k, mm.writer + 1)
            while u >= 0:
                put(k, u + 1)
                u = m.task[u].wait_next
            put(k, 0)

    cdef void put_fifo(self, pen_t *k, const fifo *l) noexcept nogil:
        cdef int32_t f = l.head, n = 0
        while f >= 0 and n < MAX_FRAMES:
            put_frame(k, f)
            f = self.m.folio[f].next
            n += 1
        put(k, 0)

    cdef void put_task(self, pen_t *k, int32_t i) noexcept nogil:
        cdef machine *m = &self.m
        cdef task_t *t = &m.task[i]
        cdef int step = t.step, live, j
        put(k, step)
        put(k, t.state | t.cpu << 2 | t.have << 5 | self.x.reclaims[i] << 6 | self.x.asleep[i] << 7)
        put(k, self.x.rounds[i])
        if step < 0:
            return
        live = self.live[step]
        if live & LIVE_ACCESS or t.have:
            put(k, t.vp << 1 | t.write)
        if live & LIVE_DRAIN:
            put(k, t.d_which)
            put(k, t.d_ret)
            live |= self.live[t.d_ret]
        if live & LIVE_FLUSH:                   # the CPU's: a task is not preempted in a flush
            live |= self.live[m.cpu[t.cpu].fl_ret]
        if live & LIVE_KIND:
            put(k, t.f_kind)
        if t.state == TASK_BLOCKED:
            put(k, t.wait_bit)
        if live & LIVE_CHARGE:
            put(k, t.c_ret)
            live |= self.live[t.c_ret]
        if live & LIVE_BATCHED:
            put(k, t.batched_ret)
            put(k, m.mm[t.mm].pending == t.batched)
            live |= self.live[t.batched_ret]
        if live & LIVE_FAULT:
            put_pte(k, t.f_orig)
            put_frame(k, t.f_pfn)
            put_frame(k, t.f_old)
            put(k, t.f_cached)
        if live & LIVE_ZAP:
            put(k, t.pass_no)
            put(k, t.zap)
        if self.environment & ENV_CALLS:
            self.put_call(k, t)
        if self.x.reclaims[i]:
            self.put_reclaim(k, i, t, live)
        if t.plug_nr:
            j = t.plug_head
            while j >= 0:
                put_slot(k, m.io[j].slot)
                j = m.io[j].next
            put(k, 0)

    cdef void put_call(self, pen_t *k, task_t *t) noexcept nogil:
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

    cdef void put_reclaim(self, pen_t *k, int32_t i, task_t *t, int live) noexcept nogil:
        cdef int32_t j
        if t.step == ST_I_START or t.step == ST_R_AGE:
            return
        self.put_fifo(k, &t.list)
        self.put_fifo(k, &t.ret)
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
        put(k, self.m.ubc_mask[i])
        if self.environment & ENV_FORK:
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
        put(k, t.reclaimed_local - self.g.freed[i])
        put(k, t.reclaimed_stat - self.g.freed[i])
        put(k, self.g.freed[i])

    cdef void put_cpu(self, pen_t *k, int32_t c) noexcept nogil:
        cdef machine *m = &self.m
        cdef cpu_t *p = &m.cpu[c]
        cdef int32_t i, a, vp, mm
        cdef int step
        cdef uint64_t *e
        put(k, p.mode | p.in_irq << 2 | p.last_on << 3 | p.is_lazy << 4 | p.need_resched << 5
            | p.drain_req << 6)
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
            e = self.held(c, vp, mm)
            if e == NULL:
                put(k, 0)
                continue
            put(k, 1 + <int>(e[0] & 1))
            i = <int32_t>self.g.reach[reach_at(m, c, vp)].frame
            if self.environment & ENV_CALLS:
                put(k, self.g.reach[reach_at(m, c, vp)].life >> 29)
            if i == ZERO_PAGE:
                put(k, 0xff)
            elif self.g.frame[i - 1].life != self.g.reach[reach_at(m, c, vp)].life & LIFE:
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
        if step >= 0 and self.live[step] & LIVE_FLUSH and p.sstep < 0:
            put(k, p.fl_ret)
            put(k, p.fl_mm)
            put(k, p.fl_vp)
            if self.environment & ENV_CALLS:
                put(k, p.fl_nr << 1 | p.fl_tables)
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

    cdef void put_lock(self, pen_t *k, const qlock *l) noexcept nogil:
        cdef int32_t c = l.head
        put(k, l.holder + 1)
        while c >= 0:
            put(k, c + 1)
            c = self.m.cpu[c].lock_next
        put(k, 0)

    cdef void put_device(self, pen_t *k) noexcept nogil:
        cdef machine *m = &self.m
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

    cdef void put_extra(self, pen_t *k) noexcept nogil:
        cdef extra_t *x = self.x
        put(k, x.begun)
        if self.environment:
            put(k, x.actions)
            put_frame(k, x.pinned - 1)
            put(k, x.pinned_vp << 3 | x.orphan << 2 | x.got << 1 | x.dma)
            put_slot(k, x.slot - 1)
            put_frame(k, x.frame - 1)
        if self.environment & ENV_CALLS:
            put(k, x.moved << 4 | x.switches)
        if self.defects:
            put(k, x.saved_mask)
            put(k, x.saved_pte)

    cdef inline int holds(self, uint32_t version) noexcept nogil:
        """Zeros, the latest version of a page, or what is past."""
        cdef int32_t vp
        if version == 0:
            return 1
        for vp in range(self.m.w.nr_vps):
            if self.g.latest[vp] == version:
                return 2 + vp
        return 0

    cdef void put_folio(self, pen_t *k, int32_t f) noexcept nogil:
        cdef machine *m = &self.m
        cdef folio_t *q = &m.folio[f]
        cdef int32_t u
        put(k, self.g.frame[f].life & 1)
        if not self.g.frame[f].life & 1:
            return                                # free
        put(k, q.flags)
        put(k, q.flags >> 8)
        put(k, q.refcount)
        put(k, q.refcount >> 8)
        put(k, q.mapcount)
        put(k, q.vp)
        put_slot(k, q.slot)
        put(k, self.holds(self.g.frame[f].content))
        if q.flags & PG_locked:
            put(k, self.g.frame[f].owner + 1)
        if q.flags & PG_writeback:
            put(k, self.g.frame[f].sent == self.g.frame[f].content)
        if q.flags & PG_waiters:
            u = q.wait_head
            while u >= 0:
                put(k, u + 1 | m.task[u].wait_bit << 4)
                u = m.task[u].wait_next
            put(k, 0)

    cdef void put_slot_row(self, pen_t *k, int32_t s) noexcept nogil:
        cdef machine *m = &self.m
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
        put(k, self.holds(self.g.stored[s]))

    # --- breadth first

    cdef int pack(self, queue_t *q) except -1 nogil:
        """Append the state as its difference from the root."""
        cdef int n = self.nr_words, bits = (n + 63) // 64, i, j
        cdef const uint64_t *a = <const uint64_t *>self.state
        cdef const uint64_t *b = <const uint64_t *>self.root
        cdef uint64_t *to
        cdef uint64_t *map
        if q.nr + bits + n > q.room:
            q.room = max(2 * q.room, 1 << 16) + bits + n
            to = <uint64_t *>realloc(q.words, q.room * 8)
            if to == NULL:
                with gil:
                    raise MemoryError
            q.words = to
        map = q.words + q.nr
        to = map + bits
        memset(map, 0, bits * 8)
        for j in range(0, n, 8):                # rows are padded to whole lines
            if ((a[j] ^ b[j]) | (a[j + 1] ^ b[j + 1]) | (a[j + 2] ^ b[j + 2]) | (a[j + 3] ^ b[j + 3])
                    | (a[j + 4] ^ b[j + 4]) | (a[j + 5] ^ b[j + 5]) | (a[j + 6] ^ b[j + 6])
                    | (a[j + 7] ^ b[j + 7])) == 0:
                continue
            for i in range(j, j + 8):
                if a[i] != b[i]:
                    map[i >> 6] |= <uint64_t>1 << (i & 63)
                    to[0] = a[i]
                    to += 1
        q.nr = to - q.words
        q.states += 1
        return 0

    cdef int64_t unpack(self, const queue_t *q, int64_t at) noexcept nogil:
        """The packed state at that word to `parent`; the word after it."""
        cdef int n = self.nr_words, bits = (n + 63) // 64, i
        cdef const uint64_t *map = q.words + at
        cdef const uint64_t *source = map + bits
        cdef uint64_t *to = <uint64_t *>self.parent
        cdef uint64_t word
        memcpy(self.parent, self.root, self.nbytes)
        for i in range(bits):
            word = map[i]
            while word:
                to[(i << 6) + ctz64(word)] = source[0]
                source += 1
                word &= word - 1
        return source - q.words

    def start(self, *, bint paths=False):
        """Forget what was visited; the root is the first state."""
        cdef uint64_t h[2]
        cdef int i
        free(self.visited.entry)
        memset(&self.visited, 0, sizeof(visited_t))
        for i in range(2):
            self.queue[i].nr = self.queue[i].states = 0
        self.at = self.level = self.transitions = self.expanded = self.index = 0
        self.found = 0
        free(self.parents)
        self.parents = NULL
        self.parents_room = 0
        if paths:
            self.parents_room = 1 << 16
            self.parents = <int64_t *>malloc(self.parents_room * 8)
            if self.parents == NULL:
                raise MemoryError
            self.parents[0] = -1
        memcpy(self.state, self.root, self.nbytes)
        self.fingerprint(h)
        visited_add(&self.visited, h[0], h[1])
        self.pack(&self.queue[0])

    def expand(self, int64_t states, int64_t depth):
        """Expand that many states; True when there is nothing left below that depth."""
        cdef bint done
        with nogil:
            done = self.go_on(states, depth)
        return done

    cdef int go_on(self, int64_t states, int64_t depth) except -1 nogil:
        cdef queue_t *now
        while states > 0 and not self.found:
            now = &self.queue[self.level & 1]
            if self.at == now.nr:
                now.nr = now.states = 0
                self.level = self.level + 1
                self.at = 0
                if self.queue[self.level & 1].nr == 0 or self.level >= depth:
                    return 1
                continue
            self.at = self.unpack(now, self.at)
            self.expand_one(&self.queue[(self.level + 1) & 1])
            states -= 1
        return self.found != 0

    cdef int expand_one(self, queue_t *following) except -1 nogil:
        cdef int16_t moves[MAX_MOVES]
        cdef int n, i, bad
        cdef uint64_t h[2]
        memcpy(self.state, self.parent, self.nbytes)
        n = self.moves(moves)
        self.expanded = self.expanded + 1
        if n == 0:
            bad = self.end_check()
            if bad:
                self.report(bad, -1)
        for i in range(n):
            if i:
                memcpy(self.state, self.parent, self.nbytes)
            bad = self.act(moves[i])
            self.transitions = self.transitions + 1
            if bad:
                self.report(bad, moves[i])
                break
            self.fingerprint(h)
            if visited_add(&self.visited, h[0], h[1]):
                self.pack(following)
                if self.parents != NULL:
                    self.remember(moves[i])
            elif n == 1 and self.loops(h):
                self.report(BAD_NO_PROGRESS, moves[i])
                break
        self.index = self.index + 1
        return 0

    cdef bint loops(self, const uint64_t *h) except -1 nogil:
        """From a state with one move to one that is known: does the same actor come back to it,
        alone?  Then nobody will ever end that loop."""
        cdef int16_t moves[MAX_MOVES]
        cdef uint64_t now[2]
        cdef int i
        for i in range(MAX_LOOP):
            if self.moves(moves) != 1 or self.act(moves[0]):
                return False
            self.fingerprint(now)
            if now[0] == h[0] and now[1] == h[1]:
                return True
        return False

    cdef int remember(self, int mv) except -1 nogil:
        cdef int64_t *more
        if self.visited.nr > self.parents_room:
            self.parents_room = 2 * self.parents_room
            more = <int64_t *>realloc(self.parents, self.parents_room * 8)
            if more == NULL:
                with gil:
                    raise MemoryError
            self.parents = more
        self.parents[self.visited.nr - 1] = self.index << 16 | mv
        return 0

    cdef void report(self, int bad, int mv) noexcept nogil:
        self.found = bad
        self.found_at = self.index
        self.found_move = mv
        self.found_folio = self.g.folio

    cdef int end_check(self) noexcept nogil:
        """Nothing can happen any more: is everybody done, and everything where it belongs?"""
        cdef machine *m = &self.m
        cdef int32_t c, t, f, s, vp, n, i
        cdef folio_t *q
        cdef int32_t refs[MAX_FRAMES]
        cdef int32_t maps[MAX_FRAMES]
        cdef int32_t lists[MAX_FRAMES]
        cdef int32_t used[MAX_SLOTS]
        self.g.folio = -1
        for c in range(m.w.nr_cpus):
            if m.cpu[c].mode == CPU_SPIN_ACK or m.cpu[c].mode == CPU_SPIN_LOCK:
                return BAD_DEADLOCK
        for t in range(m.w.nr_tasks):
            if m.task[t].step == ST_V_CHILD or m.task[t].state == TASK_DEAD:
                continue
            if m.task[t].state == TASK_BLOCKED or not self.finished(&m.task[t]):
                return BAD_DEADLOCK
        memset(refs, 0, sizeof(refs))
        memset(maps, 0, sizeof(maps))
        memset(lists, 0, sizeof(lists))
        memset(used, 0, sizeof(used))
        for vp in range(m.w.nr_vps):
            if pte_present(m.pte[vp]):
                maps[pte_index(m.pte[vp])] += 1
            elif pte_kind_of(m.pte[vp]) == PTE_SWAP:
                used[pte_index(m.pte[vp])] += 1
        for i in range(2):
            f = m.cg.lru_head[i]
            n = 0
            while f >= 0 and n < 2 * MAX_FRAMES:
                lists[f] += 1
                n += 1
                f = m.folio[f].next
        for c in range(m.w.nr_cpus):
            for i in range(m.cpu[c].nr_lru_add):
                lists[m.cpu[c].lru_add[i]] += 1
                refs[m.cpu[c].lru_add[i]] += 1
            for i in range(m.cpu[c].nr_lru_move_tail):
                refs[m.cpu[c].lru_move_tail[i]] += 1
            for i in range(m.cpu[c].nr_lru_activate):
                refs[m.cpu[c].lru_activate[i]] += 1
        for f in range(m.w.nr_folios):
            q = &m.folio[f]
            if not self.g.frame[f].life & 1 or self.x.frame == f + 1:
                continue
            self.g.folio = f
            if self.x.pinned == f + 1:
                refs[f] += 1 if self.x.got else PIN_BIAS
            if q.flags & PG_locked:
                return BAD_LOCK_LEAKED
            if lists[f] != 1:
                return BAD_LISTS
            if (q.flags & PG_lru) != 0 and refs[f] == 0 and q.flags & PG_lru == 0:
                return BAD_NOT_BACK
            if q.mapcount != maps[f]:
                return BAD_MAPCOUNT
            if q.refcount != refs[f] + maps[f] + ((q.flags & PG_swapcache) != 0):
                return BAD_REFCOUNT
            if q.flags & PG_swapcache:
                if swap_cache_folio(m, q.slot) != f:
                    return BAD_SLOT
        self.g.folio = -1
        for s in range(m.w.nr_slots):
            if slot_maps(m, s) != used[s] and self.x.slot != s + 1:
                return BAD_SLOT
        if m.cg.lru_lock.holder >= 0:
            return BAD_LOCK_LEAKED
        for i in range(m.w.nr_regions):
            if m.region[i].ptl.holder >= 0:
                return BAD_LOCK_LEAKED
        for i in range(m.w.nr_mms):
            if m.mm[i].writer >= 0 or m.mm[i].readers > 0:
                return BAD_LOCK_LEAKED
        # every page can still be read back
        for vp in range(m.w.nr_vps):
            if pte_present(m.pte[vp]):
                f = pte_index(m.pte[vp])
                if self.g.frame[f].content != self.g.latest[vp]:
                    self.g.folio = f
                    return BAD_LOST_WRITE
            elif pte_kind_of(m.pte[vp]) == PTE_SWAP:
                s = pte_index(m.pte[vp])
                f = swap_cache_folio(m, s)
                if (self.g.frame[f].content if f >= 0 else self.g.stored[s]) != self.g.latest[vp]:
                    self.g.folio = f
                    return BAD_LOST_WRITE
            elif self.g.latest[vp] != 0:
                return BAD_LOST_WRITE
        return BAD_NOTHING

    # --- random schedules

    def random(self, int64_t schedules, uint64_t seed, int changes, int length):
        """Run that many schedules of random priorities; how many were run.

        Every actor (a CPU's steps, its interrupts, the environment) has a random priority; the
        first that can act does, and at `changes` places it falls behind all (Burckhardt and
        others 2010, PCT).  Stops at a violation, whose moves `taken` gives.
        """
        cdef int64_t made = 0
        with nogil:
            while made < schedules and not self.found:
                self.one_schedule(seed + <uint64_t>made, changes, length)
                made += 1
        return made

    cdef int one_schedule(self, uint64_t seed, int changes, int length) except -1 nogil:
        cdef int16_t moves[MAX_MOVES]
        cdef int64_t priority[3 * MAX_CPUS]
        cdef int change[16]
        cdef uint64_t rng = rng_mix(seed, 3, 0)
        cdef int i, n, a, best, same, pick, bad
        memcpy(self.state, self.root, self.nbytes)
        for i in range(3 * MAX_CPUS):
            priority[i] = <int64_t>(rng_draw(&rng) >> 2)
        for i in range(changes):
            change[i] = <int>rng_below(&rng, <uint64_t>length)
        self.nr_taken = 0
        while self.nr_taken < MAX_TAKEN:
            n = self.moves(moves)
            if n == 0:
                bad = self.end_check()
                if bad:
                    self.report(bad, -1)
                return 0
            best = -1
            same = 0
            pick = 0
            for i in range(n):
                a = actor_of(moves[i])
                if best < 0 or priority[a] > priority[best]:
                    best = a
                    same = 1
                    pick = i
                elif a == best:               # the same actor's other choice
                    same += 1
                    if rng_below(&rng, <uint64_t>same) == 0:
                        pick = i
            for i in range(changes):
                if change[i] == self.nr_taken:
                    priority[best] = -i - 1
            self.taken_moves[self.nr_taken] = moves[pick]
            self.nr_taken = self.nr_taken + 1
            self.transitions = self.transitions + 1
            bad = self.act(moves[pick])
            if bad:
                self.report(bad, -1)
                return 0
        return 0

    def taken(self):
        """The moves of the schedule that was run last."""
        return [int(self.taken_moves[i]) for i in range(self.nr_taken)]

    # --- by hand

    def reset(self):
        """Back to the root."""
        memcpy(self.state, self.root, self.nbytes)

    def enabled(self):
        """The moves that can be made now, as numbers."""
        cdef int16_t moves[MAX_MOVES]
        cdef int n = self.moves(moves), i
        return [int(moves[i]) for i in range(n)]

    def do(self, int mv):
        """Make a move; (invariant number, folio)."""
        cdef int bad
        bad = self.act(mv)
        return bad, int(self.g.folio)

    def do_traced(self, int mv):
        """Make a move; (invariant number, folio, micro-steps as (CPU, step, folio))."""
        cdef int bad, i
        self.traced = 0
        try:
            bad = self.act(mv)
            return bad, int(self.g.folio), [
                (self.trace[i][0], names.STEPS[self.trace[i][1]] if self.trace[i][1] >= 0
                 else "-" + names.STEPS[-1 - self.trace[i][1]], self.trace[i][2]) for i in range(self.traced)]
        finally:
            self.traced = -1

    def look(self):
        """What matters of the state, per page: a dict."""
        cdef machine *m = &self.m
        cdef int32_t vp, f, s, c
        cdef uint64_t pte
        cdef uint64_t *e
        cdef folio_t *q
        pages = []
        for vp in range(m.w.nr_vps):
            pte = m.pte[vp]
            kind = pte_kind_of(pte)
            page = {"vp": vp, "mm": mm_of(m, vp), "pte": names.PTE_KINDS[kind], "pte_dirty": bool(pte & PTE_DIRTY),
                    "latest": int(self.g.latest[vp]), "tlb": {}}
            f = s = -1
            if kind == PTE_PRESENT or kind == PTE_ZAPPED:
                f = pte_index(pte)
            elif kind == PTE_SWAP:
                s = pte_index(pte)
                f = swap_cache_folio(m, s)
            for c in range(m.w.nr_cpus):
                e = self.held(c, vp, mm_of(m, vp))
                if e != NULL:
                    page["tlb"][c] = (bool(e[0] & 1), int(<int32_t>self.g.reach[reach_at(m, c, vp)].frame) - 1)
                    if f < 0 and self.g.reach[reach_at(m, c, vp)].frame != <uint32_t>ZERO_PAGE:
                        f = <int32_t>self.g.reach[reach_at(m, c, vp)].frame - 1
            page["frame"], page["slot"] = f, s
            if f >= 0:
                q = &m.folio[f]
                if q.flags & PG_swapcache:
                    page["slot"] = s = q.slot
                page["flags"] = [name for i, name in enumerate(names.FOLIO_FLAGS) if q.flags >> i & 1]
                page["refcount"], page["mapcount"] = q.refcount, q.mapcount
                page["content"] = int(self.g.frame[f].content)
                page["free"] = not self.g.frame[f].life & 1
            if s >= 0:
                page["stored"] = int(self.g.stored[s])
            pages.append(page)
        return pages

    def at_end(self):
        """As when nothing can happen any more; (invariant number, folio)."""
        return self.end_check(), int(self.g.folio)

    def next_steps(self):
        """For each CPU the step that it makes next, or what it does instead."""
        cdef machine *m = &self.m
        cdef int32_t c
        out = []
        for c in range(m.w.nr_cpus):
            if m.cpu[c].in_irq:
                out.append(names.STEPS[m.cpu[c].istep])
            elif m.cpu[c].mode != CPU_RUN:
                out.append(names.CPU_MODES[m.cpu[c].mode])
            elif m.cpu[c].sstep >= 0:
                out.append(names.STEPS[m.cpu[c].sstep])
            else:
                out.append(names.STEPS[m.task[m.cpu[c].current].step])
        return out

    def loops_alone(self):
        """Whether the only actor left comes back to this state."""
        cdef uint64_t h[2]
        cdef bint found
        before = self.snapshot()
        self.fingerprint(h)
        found = self.loops(h)
        self.restore(before)
        return found

    def columns(self):
        """The state as the model's specification has it, for the comparison with the twin."""
        cdef machine *m = &self.m
        cdef int32_t i
        return {
            "pte": [int(m.pte[i]) for i in range(m.w.nr_vps)],
            "folio": [(m.folio[i].flags, m.folio[i].refcount, m.folio[i].mapcount, m.folio[i].vp, m.folio[i].slot)
                      for i in range(m.w.nr_folios)],
            "slot_count": [int(m.slot_count[i]) for i in range(m.w.nr_slots)],
            "cpumask": [int(m.mm_cpumask[i]) for i in range(m.w.nr_mms)],
            "tlb_gen": [int(m.mm[i].tlb_gen) for i in range(m.w.nr_mms)],
            "task": [(names.TASK_STATES[m.task[i].state], names.STEPS[m.task[i].step], m.task[i].cpu)
                     for i in range(m.w.nr_tasks)],
            "cpu": [(names.CPU_MODES[m.cpu[i].mode], m.cpu[i].in_irq, m.cpu[i].istep, m.cpu[i].sstep,
                     m.cpu[i].loaded_mm, m.cpu[i].is_lazy, m.cpu[i].acks, m.cpu[i].irq_at < INF)
                    for i in range(m.w.nr_cpus)],
            "tlb": [[self.held(i, vp, mm_of(m, vp)) != NULL and 1 + (self.held(i, vp, mm_of(m, vp))[0] & 1)
                     for vp in range(m.w.nr_vps)] for i in range(m.w.nr_cpus)],
        }

    def code_of(self):
        """The canonical form of the state."""
        cdef int n = self.canonical()
        return (<char *>self.code)[:n * 8]

    def snapshot(self):
        return self.state[:self.nbytes]

    def restore(self, bytes data):
        if len(data) != self.nbytes:
            raise ReclaimError("a snapshot of another world")
        memcpy(self.state, <char *>data, self.nbytes)

    def path(self):
        """The moves that led to what was found, if paths were kept."""
        cdef int64_t i = self.found_at
        if self.parents == NULL or not self.found:
            return None
        moves = [self.found_move] if self.found_move >= 0 else []
        while self.parents[i] >= 0:
            moves.append(int(self.parents[i] & 0xffff))
            i = self.parents[i] >> 16
        return moves[::-1]

    @property
    def strategies(self):
        return list(self.policies)

    @property
    def refused(self):
        """Folios that reached pageout() and failed its refcount test, over all transitions."""
        return int(self.m.counter[CN_putback_refcount])

    @property
    def violation(self):
        """(invariant number, folio) of what was found; None if nothing was."""
        return (self.found, self.found_folio) if self.found else None

    @property
    def states(self):
        return self.visited.nr

    @property
    def depth(self):
        return self.level

    @property
    def waiting(self):
        """States that are known and not expanded."""
        return self.queue[0].states + self.queue[1].states

    @property
    def state_bytes(self):
        return self.nbytes


cdef enum:
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


def _live_fields():
    live = {}
    for name in names.STEPS:
        bits = 0
        if name.startswith("F_"):
            bits = LIVE_ACCESS
            if name not in ("F_READ", "F_DONE"):
                bits |= LIVE_FAULT
            if name in ("F_ALLOC", "F_CHARGED", "F_FILL"):
                bits |= LIVE_KIND
        elif name.startswith("C_"):
            bits = LIVE_CHARGE | LIVE_KIND
        elif name.startswith("D_"):
            bits = LIVE_DRAIN
        elif name.startswith("FL_"):
            bits = LIVE_FLUSH
        elif name == "M_BATCHED":
            bits = LIVE_BATCHED
        elif name.startswith(("E_", "V_")) or name == "DONTNEED":
            bits = LIVE_ZAP
        elif name.startswith("U_"):
            bits = LIVE_FOLIO | LIVE_UNMAP
        elif name.startswith("P_") or (name.startswith("S_") and name not in (
                "S_PLAN", "S_NEXT", "S_TAIL", "S_END", "S_END_FLUSHED", "S_FREE_FLUSHED")):
            bits = LIVE_FOLIO
        live[name] = bits
    return live

_LIVE = _live_fields()

# Steps that read and write what is their task's or CPU's alone, or what nobody reads: counters, and
# charges where the limit is never met.  B_START and S_END only choose the next step.
_PRIVATE = frozenset(("S_PLAN", "S_NEXT", "S_WB", "S_PIN", "S_TAIL", "S_END", "B_START", "B_OUT", "FL_DONE",
                      "F_CHARGED", "C_TRY", "F_DONE", "Q_EXIT", "IO_ENTRY", "V_MORE"))


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

def core_tables(Core core):
    return core.tables


cdef inline int32_t mm_of(const machine *m, int32_t vp) noexcept nogil:
    cdef int32_t i = 0
    while vp >= m.mm[i].base + m.mm[i].nr_pages:
        i += 1
    return i

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
