"""The state of one machine (docs/model.md, section 1): plain objects, plain integers."""

from collections import OrderedDict, deque

from ._load import names

NONE = -1
SWITCHING = -2                      # LOADED_MM_SWITCHING
INF = 1 << 62
MASK64 = (1 << 64) - 1
NR_ASIDS = 6
BATCH = 31                          # a folio batch

# PTE
KIND = 7
K_NONE, K_PRESENT, K_SWAP, K_ZERO, K_ZAPPED = range(5)
YOUNG, DIRTY_PTE, WRITE, EXCLUSIVE, Z = 8, 16, 32, 64, 128
PAYLOAD = 8                         # shift of the frame or slot

# Folio flags
(LOCKED, LRU, ACTIVE, REFERENCED, DIRTY, SWAPCACHE, WRITEBACK, RECLAIM, WORKINGSET,
 WAITERS) = (1 << i for i in range(len(names.FOLIO_FLAGS)))

# What a waiter of a folio waits for: `wait_bit`
WAIT_LOCKED, WAIT_WRITEBACK = 0, 1
# Why a task is in `sleepers`: `sleep_on`
ON_THROTTLED, ON_SWAPCACHE = 0, 1

# slot_count
MAP_COUNT, HAS_CACHE, SLOT_ZERO = 0x3F, 0x40, 0x80

# States are kept as the names' numbers.
RUNNING, QUEUED, BLOCKED, DEAD = range(4)
RUN, SPIN_ACK, SPIN_LOCK, IDLE = range(4)
SEQ, RAND, FWDREV, POPULATE, TRACE, DONTNEED, MUNMAP, MPROTECT, MREMAP, FORK = range(len(names.PASS_KINDS))
GATHERS = (MUNMAP, MREMAP)          # calls that unmap pages and free them after one flush

# A task and its mm's mmap_lock: `mmap` is None, one of these, or WAITS plus one of them.
READ, WRITE_LOCK, WAITS = 1, 2, 4


def splitmix(x):
    """One SplitMix64 draw: (advanced state, drawn number)."""
    x = (x + 0x9E3779B97F4A7C15) & MASK64
    z = x
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return x, z ^ (z >> 31)


def mix(seed, purpose, index):
    return splitmix(splitmix(seed)[1] ^ (purpose << 32) + index)[1]


class Stream:
    """Something with a state `rng`."""

    __slots__ = ()

    def draw64(self):
        self.rng, z = splitmix(self.rng)
        return z

    def draw(self, n):
        return ((self.draw64() >> 32) * n) >> 32


class Lock:
    __slots__ = ("name", "holder", "waiters")

    def __init__(self, name):
        self.name = name
        self.holder = None          # Cpu
        self.waiters = deque()      # Cpus


class Folio:
    __slots__ = ("nr", "flags", "refcount", "mapcount", "vp", "slot", "gen", "refs", "waiters")

    def __init__(self, nr):
        self.nr = nr
        self.flags = self.refcount = self.mapcount = 0
        self.vp = self.slot = self.gen = NONE
        self.refs = 0
        self.waiters = deque()


class Mm:
    __slots__ = ("nr", "base", "pages", "recency", "first_region", "nr_regions",
                 "tlb_gen", "cpumask", "pending", "flushed", "rss", "swapents", "next_trim",
                 "ra_page", "ra_win", "ra_hits", "tasks", "users", "lru_gen",
                 "locks", "readers", "writer", "waiters", "child", "peer", "is_child")

    def __init__(self, nr, base, pages, recency, first_region):
        self.nr, self.base, self.pages, self.recency = nr, base, pages, recency
        self.first_region = first_region
        self.nr_regions = -(-pages // 512)
        self.tlb_gen = 1
        self.cpumask = self.pending = self.flushed = self.rss = self.swapents = self.next_trim = 0
        self.ra_page, self.ra_win, self.ra_hits = -2, 0, 4
        self.tasks, self.users = [], 0                      # its threads; those still in use of it
        self.lru_gen = 0
        self.locks = False                                  # somebody can wait for the mmap_lock
        self.readers, self.writer, self.waiters = 0, None, deque()      # Tasks
        self.child = self.peer = None                       # Mms, of one that forks and of its child
        self.is_child = False


class Cpu(Stream):
    __slots__ = ("nr", "bit", "socket", "spins_for", "clock", "mode", "in_irq", "istep", "sstep", "current",
                 "last_on", "left", "irq_at", "tick_at", "timer_at", "io_at",
                 "loaded_mm", "loaded_asid", "next_asid", "is_lazy",
                 "asid_mm", "asid_gen", "asid_stamp", "sw_asid", "sw_gen", "sw_flush", "tlb_stamp",
                 "l1", "l2", "walk_line",
                 "runqueue", "need_resched", "slice_ticks", "push", "stock", "works", "vmstat_at",
                 "lru_add", "lru_move_tail", "lru_activate", "slots", "slots_ret", "io", "queue", "hand", "irq_cost",
                 "fl_mm", "fl_vp", "fl_nr", "fl_tables", "fl_gen", "fl_scan", "fl_ret", "fl_trim", "fl_mask", "fl_ipi",
                 "fl_n", "acks", "rng", "granted",
                 "host", "hosted", "ask", "pv_flush", "kicked_at", "on_at", "host_left",
                 "balance_at", "balance_long", "balance_failed",
                 "spins_since")     # of the meters

    def __init__(self, nr, world):
        self.nr = nr
        self.bit = 1 << nr
        self.socket = nr // world.cpus_per_socket
        self.clock = self.in_irq = self.left = 0
        self.last_on = 1
        self.spins_for = None       # Lock
        self.mode = IDLE
        self.istep = self.sstep = self.current = None
        self.irq_at = self.tick_at = self.timer_at = self.io_at = INF
        self.loaded_mm, self.loaded_asid, self.next_asid, self.is_lazy = NONE, 0, 0, 0
        self.asid_mm = [NONE] * NR_ASIDS
        self.asid_gen = [0] * NR_ASIDS
        self.asid_stamp = [0] * NR_ASIDS
        self.sw_asid = self.sw_gen = self.sw_flush = self.tlb_stamp = 0
        self.l1 = [[None] * world.l1_ways for _ in range(world.l1_sets)]
        self.l2 = [[None] * world.l2_ways for _ in range(world.l2_sets)]
        self.walk_line = NONE
        self.runqueue = deque()     # Tasks
        self.need_resched = self.slice_ticks = self.stock = 0
        self.works = set()          # names.WORKS
        self.vmstat_at = 10**12 - 3 * nr * world.tick % 10**12 if world.kworkers else 0
        self.push = NONE
        self.lru_add, self.lru_move_tail, self.lru_activate = [], [], []    # Folios
        self.slots, self.slots_ret = deque(), deque()       # the slot cache
        self.io = deque()           # (Folio, done)
        self.queue, self.hand = deque(), deque()            # Cpus
        self.fl_mm = self.fl_vp = self.fl_gen = NONE
        self.fl_ret = None
        self.fl_nr, self.fl_tables = 1, 0
        self.fl_scan = self.fl_trim = self.fl_mask = self.fl_ipi = self.fl_n = self.acks = self.irq_cost = 0
        self.rng = mix(world.seed, 2, nr)
        self.granted = None         # a Lock handed over, that the waiting step has not taken yet
        self.host = None            # HostCpu, if there are any
        self.balance_at = (nr + 1) * world.balance
        self.balance_long = self.balance_failed = 0
        self.hosted = self.ask = self.pv_flush = self.kicked_at = self.on_at = self.host_left = 0

    def t_irq(self):
        return min(self.irq_at, self.tick_at, self.timer_at, self.io_at)

    def has_batched(self):
        """Is one of its folio batches not empty?"""
        return bool(self.lru_add or self.lru_move_tail or self.lru_activate)


class Task(Stream):
    __slots__ = ("nr", "mm", "pinned", "passes", "loop_to", "restart",
                 "state", "cpu", "step", "dying", "pass_", "pos", "rng", "touches",
                 "have", "vp", "write", "zero",
                 "f_pfn", "f_orig", "f_kind", "f_old", "f_cached", "ra_at", "ra_end", "ra_vp",
                 "c_nr", "c_ret", "c_batch", "c_retries", "c_drained", "c_failed", "c_reclaimed",
                 "unpaid",
                 "prio", "sc_reclaimed", "full_walk", "force_deact", "skipped_deact",
                 "may_deact", "r_nr", "r_visit", "r_loop", "stalled", "k_ret",
                 "nr_to_scan", "list", "ret", "taken", "scanned", "folio", "index", "defer",
                 "old_pte", "owed", "nr_pageout", "nr_activate", "nr_reclaimed", "nr_scanned", "free_folios",
                 "flush_folios", "ordinal", "b_i", "b_w", "b_ret", "in_batch",
                 "nr_lost",         # left behind at S_TAIL; for check() only
                 "g_seq", "g_can_swap", "g_scanned", "g_nr", "g_delta", "clean", "g_retry",
                 "look_at", "look_end", "look_nr", "look_young", "look_seq",
                 "g_mm", "g_region", "g_force", "g_batched", "g_moved",
                 "plan_defer", "plan_flush", "freed_ret", "d_which", "d_ret", "wait_bit",
                 "ubc_required", "ubc_writable", "ubc_mask", "wake_at", "sleep_on", "zap",
                 "call", "mmap", "phase", "v_at", "v_lo", "v_hi", "v_nr", "v_tables", "v_last", "v_next",
                 "v_new", "rmap",
                 "batched", "batched_ret", "plug",
                 "fl_cause", "fl_began", "fl_times", "fl_own", "f_began", "r_began", "wait_since")  # of the meters

    def __init__(self, nr, world, mm):
        self.nr, self.mm = nr, mm
        self.plug = []
        self.pinned = bool(world.task_pinned[nr])
        first = int(world.task_first_pass[nr])
        self.passes = range(first, first + int(world.task_nr_passes[nr]))
        self.loop_to = int(world.task_loop_to[nr])
        self.restart = bool(world.task_restart[nr])
        self.state, self.cpu, self.step = QUEUED, int(world.task_cpu[nr]), "TOUCH"
        self.dying = self.pass_ = self.pos = self.touches = 0
        self.rng = mix(world.seed, 1, nr)
        self.have = self.write = self.zero = 0
        self.vp = NONE
        self.f_pfn = self.f_old = None                      # Folios
        self.f_orig = self.f_cached = 0
        self.f_kind = None
        self.ra_at = self.ra_end = self.ra_vp = 0
        self.c_nr = self.c_batch = self.c_retries = self.c_drained = self.c_failed = 0
        self.c_reclaimed = self.unpaid = 0
        self.c_ret = self.k_ret = None
        self.prio = self.sc_reclaimed = self.full_walk = 0
        self.force_deact = self.skipped_deact = self.may_deact = 0
        self.r_nr = [0, 0]
        self.r_visit = self.r_loop = self.stalled = 0
        self.nr_to_scan = self.taken = self.scanned = 0
        self.list, self.ret = deque(), deque()
        self.folio = None
        self.index = self.defer = self.old_pte = self.owed = 0
        self.nr_pageout = self.nr_activate = self.nr_reclaimed = self.nr_scanned = 0
        self.free_folios, self.flush_folios = [], []
        self.nr_lost = self.ordinal = self.b_i = self.b_w = self.in_batch = 0
        self.b_ret = self.freed_ret = self.d_ret = None
        self.g_seq = self.g_can_swap = self.g_scanned = self.g_nr = self.g_delta = self.g_retry = 0
        self.clean = deque()
        self.look_at = self.look_end = self.look_nr = self.look_young = self.look_seq = 0
        self.g_mm, self.g_moved = None, [0] * 4
        self.g_region = self.g_force = self.g_batched = 0
        self.plan_defer, self.plan_flush = [], []
        self.d_which = self.wait_bit = self.ubc_required = self.ubc_writable = self.ubc_mask = 0
        self.wake_at = self.sleep_on = self.zap = self.batched = 0
        self.batched_ret = None
        self.call = self.mmap = None
        self.phase = self.v_at = self.v_lo = self.v_hi = self.v_nr = self.v_tables = self.v_last = 0
        self.v_next = None
        self.rmap = 0               # how far the reverse map of a folio is, in worlds that fork
        self.v_new = None           # the Lock of the page table that pages move to, if held apart
        mm.tasks.append(self)
        mm.users += 1


class Pass:
    __slots__ = ("kind", "write", "zero", "first", "nr", "stride", "count", "think", "units")

    def __init__(self, row):
        for name in self.__slots__:
            setattr(self, name, int(row[name]))


class Memcg:
    __slots__ = ("usage", "kernel", "nr_isolated", "anon_cost", "nonresident_age",
                 "refaults_snapshot", "sleepers",
                 "works", "notify_from", "notify_cpu", "tree_scanned",
                 # generations; all 0 in a classic world
                 "max_seq", "min_seq", "gen_nr", "refaulted", "evicted", "protected",
                 "avg_refaulted", "avg_total", "mm_seq", "mm_head", "filters")

    def __init__(self, kernel_pages):
        self.usage = self.kernel = kernel_pages
        self.nr_isolated = self.anon_cost = self.nonresident_age = self.refaults_snapshot = 0
        self.sleepers = deque()    # Tasks
        self.works = set()
        self.notify_from = self.tree_scanned = 0
        self.notify_cpu = NONE
        self.max_seq = self.mm_seq = self.mm_head = self.filters = 0
        self.min_seq = [0, 0]       # anon, file
        self.gen_nr = [0] * 4
        # by tier
        self.refaulted, self.evicted, self.protected, self.avg_refaulted, self.avg_total = (
            [0] * 4 for _ in range(5))


class SwapDevice:
    __slots__ = ("in_flight", "last", "waiters", "cluster_next", "cluster_nr", "lowest", "highest",
                 "cache_active", "ra_hits", "ra_prev", "ra_win")

    def __init__(self, nr_slots):
        self.in_flight = self.last = 0
        self.cluster_next = self.cluster_nr = self.lowest = self.cache_active = self.ra_win = 0
        self.highest, self.ra_hits, self.ra_prev = nr_slots - 1, 4, -1
        self.waiters = deque()      # Tasks that wait for a tag


class HostCpu:
    __slots__ = ("nr", "running", "turned_at", "cpus")

    def __init__(self, nr, cpus):
        self.nr, self.cpus = nr, cpus
        self.running = None         # Cpu
        self.turned_at = -1
        for c in cpus:
            c.host = self


class State:
    """Everything of section 1, as it is at the start."""

    def build(self, world):
        self.world = world
        self.passes = [Pass(row) for row in world.passes]
        self.trace = [int(x) for x in world.trace]
        self.cpus = [Cpu(i, world) for i in range(world.nr_cpus)]
        self.hosts = [HostCpu(h, self.cpus[h::world.host_cpus]) for h in range(world.host_cpus)]
        self.mms, base, region = [], 0, 0
        for m, pages in enumerate(world.mm_pages):
            mm = Mm(m, base, int(pages), bool(world.mm_recency[m]), region)
            self.mms.append(mm)
            base += mm.pages
            region += mm.nr_regions
        self.tasks = [Task(t, world, self.mms[int(m)]) for t, m in enumerate(world.task_mm)]
        for mm, child in zip(self.mms, world.mm_child):
            if child >= 0:
                mm.child = mm.peer = self.mms[child]
                mm.child.peer, mm.child.is_child = mm, True
        self.forks = any(mm.child for mm in self.mms)
        for mm in self.mms:
            mm.locks = len(mm.tasks) > 1 and any(
                self.passes[i].kind in (MUNMAP, MPROTECT, MREMAP, FORK) for t in mm.tasks for i in t.passes)
        self.pte = [0] * base           # but for their bit R, which is here:
        self.read_only = [0] * base
        self.mm_of = [mm for mm in self.mms for _ in range(mm.pages)]
        self.region_of = [mm.first_region + i // 512 for mm in self.mms for i in range(mm.pages)]
        self.pt_present, self.pt_young, self.pt_filter = [0] * region, [0] * region, [0] * region
        self.ptl = [Lock(f"ptl{r}") for r in range(region)]
        self.lru_lock = Lock("lru")
        self.folios = [Folio(f) for f in range(world.nr_folios)]
        self.free_frames = list(reversed(self.folios))      # the top of the stack is the end
        # Both lists run from the tail (first) to the head (last).
        self.inactive, self.active = OrderedDict(), OrderedDict()
        self.slot_count = [0] * world.nr_slots
        self.slot_entry = [0] * world.nr_slots
        self.slots_free = world.nr_slots
        # The pool of a device that rotates is no stack: every slot whose slot_count is 0.
        self.free_slots = [] if world.rotational else list(range(world.nr_slots))[::-1]
        self.memcg = Memcg(world.kernel_pages)
        self.swapdev = SwapDevice(world.nr_slots)
        self.counter = dict.fromkeys(names.COUNTERS, 0)
        self.time = {cat: [0] * world.nr_cpus for cat in names.TIMES}
        self.cost = dict(zip(names.COSTS, (int(x) for x in world.costs)))
        self.unmapped = {}          # folio -> since when it waits unmapped; of the meters
        self.start_meters()
        self.alive = len(self.tasks)
        self.lost = []              # folios of the policy that drops the remainder; for check() only
        for task in self.tasks:
            if task.mm.is_child:        # until it is forked
                task.state, task.step = BLOCKED, "V_CHILD"
                continue
            cpu = self.cpus[task.cpu]
            cpu.runqueue.append(task)
            cpu.mode, cpu.sstep, cpu.tick_at = RUN, "SW_PICK", self.next_tick(cpu, 0)
        self.start_hosts()
