"""The interleaving explorer: every order of micro-steps of a tiny world.

It makes the same steps as the timed simulation (`_core.act_alone`), but whoever can act may act
next, and clocks stand still.  A *state* is one block of memory: the tables of a small machine, the
ghosts of `_mm/ghost.pxd` and the budgets of what may still happen.  `docs/safety.md` explains.

The class here is what Python sees of it; what it does is in the headers `_explore_*.pxd`.
"""

cimport cython
import numpy as np

from libc.stdint cimport int16_t, int32_t, int64_t, int8_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from reclaim._core cimport Core
from reclaim._explore_environment cimport *
from reclaim._explore_form cimport *
from reclaim._explore_random cimport *
from reclaim._explore_search cimport *
from reclaim._explore_step cimport *
from reclaim._explore_world cimport *
from reclaim._policy cimport Policies
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.sched cimport rq_append
from reclaim._mm.tlb cimport tlb_tag
from reclaim._mm.ghost cimport *

from reclaim import names
from reclaim.errors import ReclaimError

MOVES = ("step", "ipi", "io", "timer", "read", "write", "zap", "pin", "dma", "unpin", "migrate",
         "sleep", "wake", "speculate", "slot_take", "slot_give", "frame_take", "frame_give", "tick", "start",
         "protect", "munmap", "mremap", "fork")

ENVIRONMENTS = ("pin", "migrate", "idle", "zap", "speculative", "slots", "reuse", "write-protect", "munmap",
                "mremap", "fork")

# The passes of a program that are system calls, in the order of setup["calls"].
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
    cdef tiny_t tiny
    cdef object meters
    cdef dict places                  # table -> its offset in a state

    def __cinit__(self, Core core not None, dict setup):
        self.core = core
        self.policies = core.policies
        self.tiny.m = core.m
        self.tiny.environment = setup["environment"]
        self.tiny.g.strict = setup["strict"]
        self.tiny.defects = setup["defects"]
        self.tiny.traced = -1
        self.tiny.rows = len(setup["calls"])
        self.tiny.fork_row = setup["fork_row"]
        for i, name in enumerate(CALLS):
            self.tiny.row_of[i] = setup["calls"].index(name) if name in setup["calls"] else -1
        self.tiny.reduce = setup.get("reduce", True)
        self.tiny.symmetry = setup.get("symmetry", True)
        self.tiny.whole = setup.get("whole", False)
        self._allocate(setup)
        self._classify()
        self._initial(setup)
        self.tiny.nr_words = <int>(self.tiny.nbytes // 8)
        memcpy(self.tiny.root, self.tiny.state, self.tiny.nbytes)

    def __dealloc__(self):
        cdef int i
        free(self.tiny.state)
        free(self.tiny.root)
        free(self.tiny.parent)
        free(self.tiny.visited.entry)
        free(self.tiny.parents)
        for i in range(2):
            free(self.tiny.queue[i].words)

    # --- the small machine

    def _allocate(self, setup):
        cdef machine *m = &self.tiny.m
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
        self.places = places
        self.tiny.policy_offset = at
        self._find_policy_state()
        at += (self.tiny.policy_bytes + 7) // 8 * 8
        at = (at + 63) // 64 * 64
        self.tiny.nbytes = at
        self.tiny.state = <char *>calloc(1, at)
        self.tiny.root = <char *>calloc(1, at)
        self.tiny.parent = <char *>calloc(1, at)
        if self.tiny.state == NULL or self.tiny.root == NULL or self.tiny.parent == NULL:
            raise MemoryError
        base = self.tiny.state
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
        self.tiny.g.latest = <uint32_t *>(base + <Py_ssize_t>places["latest"])
        self.tiny.g.stored = <uint32_t *>(base + <Py_ssize_t>places["stored"])
        self.tiny.g.frame = <frame_ghost *>(base + <Py_ssize_t>places["frame"])
        self.tiny.g.reach = <reach_t *>(base + <Py_ssize_t>places["reach"])
        self.tiny.g.freed = <int32_t *>(base + <Py_ssize_t>places["freed"])
        self.tiny.g.version = <uint32_t *>(base + <Py_ssize_t>places["version"])
        self.tiny.x = <extra_t *>(base + <Py_ssize_t>places["extra"])
        # meters: written by the steps, read by nobody
        counters = CN_NR
        times = m.w.nr_cpus * TM_NR
        meters = ["flushes", *(f"hist_{row[0]}" for row in names.HISTOGRAMS)]
        self.meters = np.zeros(counters + times + sum(self.core.tables[name][2] for name in meters), dtype=np.int64)
        cdef int64_t[::1] view = self.meters
        m.counter = &view[0]
        m.time = &view[counters]
        at = counters + times
        m.flushes = &view[at]
        for i, name in enumerate(meters):
            if i > 0:
                m.hist[i - 1] = &view[at]
            at += self.core.tables[name][2]
        m.runs = 0

    def _find_policy_state(self):
        """Strategies that declare a state keep it in the core's arena; it is copied with ours."""
        rows = [(offset, dtype.itemsize) for name, (offset, dtype, _) in self.core.tables.items()
                if name.startswith("policy_")]
        self.tiny.policy_bytes = 0
        self.tiny.policy_state = NULL
        if rows:
            first = min(offset for offset, _ in rows)
            last = max(offset + n for offset, n in rows)
            self.tiny.policy_state = self.core.arena.data + <Py_ssize_t>first
            self.tiny.policy_bytes = last - first
        if self.tiny.policy_bytes > MAX_CODE // 2:
            raise ReclaimError(f"the strategies keep {self.tiny.policy_bytes} bytes of state: the explorer takes "
                               f"at most {MAX_CODE // 2}")

    def _classify(self):
        cdef int32_t j
        for i, name in enumerate(names.STEPS):
            self.tiny.live[i] = _LIVE.get(name, 0)
            self.tiny.private[i] = name in _PRIVATE
        steps = {name: i for i, name in enumerate(names.STEPS)}
        if self.core.in_python:                 # it may look at flags
            self.tiny.private[steps["S_PLAN"]] = 0
        if self.tiny.environment & ENV_MIGRATE:      # need_resched is set from outside
            self.tiny.private[steps["S_NEXT"]] = self.tiny.private[steps["V_MORE"]] = 0
        if self.tiny.environment & ENV_PIN:
            self.tiny.private[steps["S_PIN"]] = 0
        if not self.tiny.m.w.swap_sync:              # completions end write-back
            self.tiny.private[steps["S_WB"]] = 0
        for j in range(self.tiny.m.w.nr_mms):
            if self.tiny.m.mm[j].locks:              # faults give the mmap_lock back
                self.tiny.private[steps["F_DONE"]] = 0

    def _initial(self, setup):
        """Everything mapped and in the TLBs, the reclaimers about to plan their lists.

        ``tasks``: per task (cpu, reclaims, frames of its list); ``pages``: per vp (frame, cached).
        """
        cdef machine *m = &self.tiny.m
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
            if self.tiny.environment & ENV_FORK and not reclaims and not any(
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
            self.tiny.x.rounds[t] = setup["rounds"] if reclaims else 0
        for s in range(m.w.nr_slots):
            self.tiny.g.stored[s] = GARBAGE
        for f in range(m.w.nr_folios):
            self.tiny.g.frame[f].owner = -1
            self.tiny.g.frame[f].content = GARBAGE
        for vp, page in enumerate(setup["pages"]):
            self.tiny.x.reads[vp] = self.tiny.x.writes[vp] = 0
            self.tiny.owned[vp] = page
            if not page:
                continue
            self.tiny.x.reads[vp] = setup["reads"]
            self.tiny.x.writes[vp] = setup["writes"]
            f = alloc_frame(m)
            self.tiny.g.frame[f].life = 1
            q = &m.folio[f]
            q.vp = vp
            q.mm = mm_of(m, vp)
            q.mapcount = 1
            m.mm[q.mm].rss += 1
            self.tiny.g.version[0] = self.tiny.g.version[0] + 1
            self.tiny.g.latest[vp] = self.tiny.g.frame[f].content = self.tiny.g.version[0]
            m.pte[vp] = pte_make(PTE_PRESENT, f, PTE_WRITE | PTE_EXCL | PTE_DIRTY)
            for c in range(m.w.nr_cpus):
                if m.cpu[c].loaded_mm == q.mm:
                    fill_tlb(&self.tiny, c, vp, True)
        for t, (_, reclaims, frames) in enumerate(setup["tasks"]):
            u = &m.task[t]
            u.list.head = u.list.tail = u.ret.head = u.ret.tail = -1
            if not reclaims:
                continue
            self.tiny.x.reclaims[t] = 1
            u.nr_to_scan = setup["nr_to_scan"]
            u.step = ST_I_START
            if frames:
                u.step = ST_S_PLAN
                for f in frames:
                    m.folio[f].refcount += 1
                    fifo_push(m, &u.list, f)
                u.taken = u.scanned = u.list.nr
                m.cg.nr_isolated += u.taken
        self.tiny.x.actions = setup["actions"]
        self.tiny.x.switches = setup["actions"]
        self.tiny.x.dma = 1
        self.tiny.x.begun = not setup["starts"]
        for t in range(m.w.nr_tasks):
            m.task[t].pass_no = 0
            m.task[t].pos = 0
        settle(&self.tiny)
        if self.tiny.x.begun and self.tiny.reduce:
            private_steps(&self.tiny, self.policies)

    # --- the search

    def start(self, *, bint paths=False):
        """Forget what was visited; the root is the first state."""
        cdef uint64_t h[2]
        cdef int i
        free(self.tiny.visited.entry)
        memset(&self.tiny.visited, 0, sizeof(visited_t))
        for i in range(2):
            self.tiny.queue[i].nr = self.tiny.queue[i].states = 0
        self.tiny.at = self.tiny.level = self.tiny.transitions = self.tiny.expanded = self.tiny.index = 0
        self.tiny.found = self.tiny.broken = 0
        free(self.tiny.parents)
        self.tiny.parents = NULL
        self.tiny.parents_room = 0
        if paths:
            self.tiny.parents_room = 1 << 16
            self.tiny.parents = <int64_t *>malloc(self.tiny.parents_room * 8)
            if self.tiny.parents == NULL:
                raise MemoryError
            self.tiny.parents[0] = -1
        memcpy(self.tiny.state, self.tiny.root, self.tiny.nbytes)
        fingerprint(&self.tiny, h)
        visited_add(&self.tiny.visited, h[0], h[1])
        pack_state(&self.tiny, &self.tiny.queue[0])

    def expand(self, int64_t states, int64_t depth):
        """Expand that many states; True when there is nothing left below that depth."""
        cdef bint done
        with nogil:
            done = go_on(&self.tiny, self.policies, states, depth)
        return done

    # --- random schedules

    def random(self, int64_t schedules, uint64_t seed, int changes, int length):
        """Run that many schedules of random priorities; how many were run.

        Every actor (a CPU's steps, its interrupts, the environment) has a random priority; the
        first that can act does, and at `changes` places it falls behind all (Burckhardt and
        others 2010, PCT).  Stops at a violation, whose moves `taken` gives.
        """
        cdef int64_t made = 0
        with nogil:
            while made < schedules and not self.tiny.found:
                one_schedule(&self.tiny, self.policies, seed + <uint64_t>made, changes, length)
                made += 1
        return made

    def taken(self):
        """The moves of the schedule that was run last."""
        return [int(self.tiny.taken_moves[i]) for i in range(self.tiny.nr_taken)]

    # --- by hand

    def reset(self):
        """Back to the root."""
        memcpy(self.tiny.state, self.tiny.root, self.tiny.nbytes)

    def enabled(self):
        """The moves that can be made now, as numbers."""
        cdef int16_t moves[MAX_MOVES]
        cdef int n = find_moves(&self.tiny, moves), i
        return [int(moves[i]) for i in range(n)]

    def do(self, int mv):
        """Make a move; (invariant number, folio)."""
        cdef int bad
        bad = make_move(&self.tiny, self.policies, mv)
        return bad, int(self.tiny.g.folio)

    def do_traced(self, int mv):
        """Make a move; (invariant number, folio, micro-steps as (CPU, step, folio))."""
        cdef int bad, i
        cdef int32_t step
        steps = []
        self.tiny.traced = 0
        try:
            bad = make_move(&self.tiny, self.policies, mv)
            for i in range(self.tiny.traced):
                step = self.tiny.trace[i][1]
                name = names.STEPS[step] if step >= 0 else "-" + names.STEPS[-1 - step]
                steps.append((self.tiny.trace[i][0], name, self.tiny.trace[i][2]))
            return bad, int(self.tiny.g.folio), steps
        finally:
            self.tiny.traced = -1

    def look(self):
        """What matters of the state, per page: a dict."""
        cdef machine *m = &self.tiny.m
        cdef int32_t vp, f, s, c
        cdef uint64_t pte
        cdef uint64_t *e
        cdef folio_t *q
        pages = []
        for vp in range(m.w.nr_vps):
            pte = m.pte[vp]
            kind = pte_kind_of(pte)
            page = {"vp": vp, "mm": mm_of(m, vp), "pte": names.PTE_KINDS[kind], "pte_dirty": bool(pte & PTE_DIRTY),
                    "latest": int(self.tiny.g.latest[vp]), "tlb": {}}
            f = s = -1
            if kind == PTE_PRESENT or kind == PTE_ZAPPED:
                f = pte_index(pte)
            elif kind == PTE_SWAP:
                s = pte_index(pte)
                f = swap_cache_folio(m, s)
            for c in range(m.w.nr_cpus):
                e = held(&self.tiny, c, vp, mm_of(m, vp))
                if e != NULL:
                    page["tlb"][c] = (bool(e[0] & 1), int(<int32_t>self.tiny.g.reach[reach_at(m, c, vp)].frame) - 1)
                    if f < 0 and self.tiny.g.reach[reach_at(m, c, vp)].frame != <uint32_t>ZERO_PAGE:
                        f = <int32_t>self.tiny.g.reach[reach_at(m, c, vp)].frame - 1
            page["frame"], page["slot"] = f, s
            if f >= 0:
                q = &m.folio[f]
                if q.flags & PG_swapcache:
                    page["slot"] = s = q.slot
                page["flags"] = [name for i, name in enumerate(names.FOLIO_FLAGS) if q.flags >> i & 1]
                page["refcount"], page["mapcount"] = q.refcount, q.mapcount
                page["content"] = int(self.tiny.g.frame[f].content)
                page["free"] = not self.tiny.g.frame[f].life & 1
            if s >= 0:
                page["stored"] = int(self.tiny.g.stored[s])
            pages.append(page)
        return pages

    def at_end(self):
        """As when nothing can happen any more; (invariant number, folio)."""
        return end_check(&self.tiny), int(self.tiny.g.folio)

    def next_steps(self):
        """For each CPU the step that it makes next, or what it does instead."""
        cdef machine *m = &self.tiny.m
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
        fingerprint(&self.tiny, h)
        found = loops(&self.tiny, self.policies, h)
        self.restore(before)
        return found

    def columns(self):
        """The state as the model's specification has it, for the comparison with the twin."""
        cdef machine *m = &self.tiny.m
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
            "tlb": [[self._tlb_entry(i, vp) for vp in range(m.w.nr_vps)] for i in range(m.w.nr_cpus)],
        }

    def _tlb_entry(self, int32_t c, int32_t vp):
        cdef uint64_t *e = held(&self.tiny, c, vp, mm_of(&self.tiny.m, vp))
        return False if e == NULL else 1 + (e[0] & 1)

    def table(self, name):
        """A copy of the rows of one of the core's tables."""
        _, dtype, _ = self.core.tables[name]
        at = self.places[name]
        n = {"cpu": self.tiny.m.w.nr_cpus, "task": self.tiny.m.w.nr_tasks, "mm": self.tiny.m.w.nr_mms,
             "folio": self.tiny.m.w.nr_folios, "region": self.tiny.m.w.nr_regions,
             "memcg": 1, "swapdev": 1, "io": self.tiny.m.w.io_depth}[name]
        return np.frombuffer(self.snapshot(), dtype=dtype, count=n, offset=at)

    def code_of(self):
        """The canonical form of the state."""
        cdef int n = canonical(&self.tiny)
        return (<char *>self.tiny.code)[:n * 8]

    def snapshot(self):
        return self.tiny.state[:self.tiny.nbytes]

    def restore(self, bytes data):
        if len(data) != self.tiny.nbytes:
            raise ReclaimError("a snapshot of another world")
        memcpy(self.tiny.state, <char *>data, self.tiny.nbytes)

    def path(self):
        """The moves that led to what was found, if paths were kept."""
        cdef int64_t i = self.tiny.found_at
        if self.tiny.parents == NULL or not self.tiny.found:
            return None
        moves = [self.tiny.found_move] if self.tiny.found_move >= 0 else []
        while self.tiny.parents[i] >= 0:
            moves.append(int(self.tiny.parents[i] & 0xffff))
            i = self.tiny.parents[i] >> 16
        return moves[::-1]

    @property
    def strategies(self):
        return list(self.policies)

    @property
    def violation(self):
        """(invariant number, folio) of what was found; None if nothing was."""
        return (self.tiny.found, self.tiny.found_folio) if self.tiny.found else None

    @property
    def broken(self):
        """The numbers of the invariants that were found broken."""
        return [i for i in range(32) if self.tiny.broken >> i & 1]

    @property
    def states(self):
        return self.tiny.visited.nr

    @property
    def depth(self):
        return self.tiny.level

    @property
    def waiting(self):
        """States that are known and not expanded."""
        return self.tiny.queue[0].states + self.tiny.queue[1].states

    @property
    def state_bytes(self):
        return self.tiny.nbytes

    @property
    def transitions(self):
        return self.tiny.transitions

    @property
    def expanded(self):
        return self.tiny.expanded


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


def core_tables(Core core):
    return core.tables
