"""The simulation core: the arena, its views, the step function and the loop.

The steps themselves are in ``_mm/*.pxd``, one header of inline functions per kernel concept;
``docs/model.md`` specifies them.  `Core` is what `reclaim.Simulation` wraps.
"""

import hashlib

import numpy as np

cimport cython
cimport numpy as cnp
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from reclaim._policy cimport Policies
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.rng cimport rng_mix
from reclaim._mm.clock cimport *
from reclaim._mm.meters cimport before_t, meter_after, meter_before
from reclaim._mm.sched cimport *
from reclaim._mm.works cimport first_vmstat
from reclaim._mm.smp cimport *
from reclaim._mm.folio cimport trail_add
from reclaim._mm.program cimport by_the_kernel, cut_run, held_back, page_to_come, task_pass
from reclaim._mm.memcg cimport *
from reclaim._mm.host cimport *
from reclaim._mm.swap cimport step_IO_END, step_IO_ENTRY
from reclaim._mm.readahead cimport *
from reclaim._mm.memory cimport *
from reclaim._mm.mmap cimport step_V
from reclaim._mm.pte cimport pte_index, pte_kind_of
from reclaim._mm.vmscan cimport *
from reclaim._mm.lru_classic cimport *
from reclaim._mm.lru_gen cimport *
from reclaim._mm.chains cimport *
from reclaim._mm.ghost cimport frame_ghost, ghost_after, ghost_before, ghost_t, reach_at, reach_t, seen_t

from reclaim import names
from reclaim._policy import PYTHON
from reclaim.errors import SimulationError, SnapshotError
from reclaim.world import PASS_DTYPE

cnp.import_array()

MODEL_VERSION = 1

cdef extern from *:
    """
    #ifndef RECLAIM_DEBUG
    #define RECLAIM_DEBUG 0
    #endif
    """
    int RECLAIM_DEBUG

DEBUG = bool(RECLAIM_DEBUG)       # a debug build: Simulation verifies after every action

# Why a run stopped.
cdef enum:
    STOP_BUDGET = 0
    STOP_END = 1
    STOP_NO_KEY = 2
    STOP_TOUCHES = 3
    STOP_DEAD = 4
    STOP_VIOLATION = 5

STOPS = ("budget", "end", "stuck", "touches", "finished", "violation")

# What a checked run does with a step: most are watched one by one.  No ghost cares for these, ...
QUIET_STEPS = frozenset((
    "POPULATE", "DONTNEED", "F_PT", "F_ZERO", "F_MAP", "F_CACHE", "F_RA_WIN", "F_CL_WIN", "F_DONE", "C_TRY",
    "C_AFTER", "R_START", "R_PRIO", "R_LIST", "R_AGE", "R_END", "I_START", "I_LOCK", "I_UNLOCK",
    "I_PUT_UNLOCK", "K_LOCK", "K_UNLOCK", "K_NEXT", "K_PUT_UNLOCK", "S_WB", "S_REF", "U_DEFER", "U_CLEAR",
    "U_GEN", "U_MASK", "U_FLUSH", "U_SET", "S_DIRTY", "S_TAIL", "S_END", "B_START", "D_UNLOCK", "FL_START",
    "FL_QUEUE", "FL_SEND", "FL_LOCAL", "FL_WAIT", "FL_DONE", "M_BATCHED", "Q_ENTRY", "Q_TAKE", "Q_FUNC",
    "Q_ACK", "Q_EXIT", "T_TICK", "T_TIMER", "IO_ENTRY", "SW_PICK", "SW_CLEAR", "SW_SET", "SW_GEN", "SW_CR3",
    "W_WORK", "W_BACK"))
# ... and with these begins a chain (chains.pxd), watched as one.
CHAINED_STEPS = frozenset(("F_READ", "F_SWAP_MAP", "S_NEXT", "S_SLOT", "S_UNMAP", "S_PIN", "P_OUT", "P_END",
                           "B_LOCK", "B_OUT"))

IRQ_OFF_STEPS = frozenset((
    "I_LOCK", "I_UNLOCK", "I_PUT", "I_PUT_UNLOCK", "K_LOCK", "K_UNLOCK", "K_PUT", "K_PUT_UNLOCK",
    "G_ISOLATE", "G_UNLOCK", "G_PUT", "G_PUT_UNLOCK", "G_BATCH", "G_BATCH_UNLOCK", "G_MAX",
    "G_MAX_UNLOCK", "D_LOCK", "D_UNLOCK", "FL_LOCAL", "Q_ENTRY", "Q_TAKE", "Q_FUNC", "Q_ACK",
    "Q_EXIT", "T_TICK", "T_TIMER", "IO_ENTRY", "IO_END", "SW_PICK", "SW_CLEAR", "SW_SET", "SW_GEN",
    "SW_CR3", "W_BACK", "E_FREE", "V_FREE"))

LOG_DTYPE = np.dtype([("now", "<i8"), ("cpu", "<i4"), ("step", "<i4"), ("folio", "<i4"),
                      ("other", "<i4"), ("cost", "<i8"), ("irq_cost", "<i8")])


# --- dtypes of the tables, from the C structs

ctypedef fused row_t:
    cpu_t
    task_t
    mm_t
    folio_t
    region_t
    memcg_t
    swapdev_t
    io_t
    host_t
    slot_cache_t

cdef object _dtype_of(row_t *row, str name):
    dtype = np.asarray(<row_t[:1]>row).dtype
    ends = [offset + field.itemsize for field, offset in dtype.fields.values()]
    assert max(ends) == dtype.itemsize == sizeof(row_t), f"{name}: implicit padding at its end"
    return dtype

cdef object _dtypes():
    cdef cpu_t cpu
    cdef task_t task
    cdef mm_t mm
    cdef folio_t folio
    cdef region_t region
    cdef memcg_t memcg
    cdef swapdev_t swapdev
    cdef io_t io
    cdef host_t host
    cdef slot_cache_t slot_cache
    return {"cpu": _dtype_of(&cpu, "cpu"), "task": _dtype_of(&task, "task"),
            "mm": _dtype_of(&mm, "mm"), "folio": _dtype_of(&folio, "folio"),
            "region": _dtype_of(&region, "region"), "memcg": _dtype_of(&memcg, "memcg"),
            "swapdev": _dtype_of(&swapdev, "swapdev"), "io": _dtype_of(&io, "io"),
            "host": _dtype_of(&host, "host"),
            "slot_cache": _dtype_of(&slot_cache, "slot_cache")}

DTYPES = _dtypes()
assert PASS_DTYPE.itemsize == sizeof(pass_t)


cdef enum:
    TRACK_NR = 64             # runs of steps that a checked run remembers: a power of two
    WATCH_ONE = 0             # Core.watched
    WATCH_NONE = 1
    WATCH_CHAIN = 2

cdef struct track_t:          # a step, or several that its CPU made at once
    int64_t now
    int32_t folio
    uint16_t cpu
    uint8_t step
    uint8_t made

cdef object _track_dtype():
    cdef track_t row
    return np.asarray(<track_t[:1]>&row).dtype

TRACK_DTYPE = _track_dtype()


cdef class Arena:
    """Every mutable byte of a simulated world, exported read-only.

    The NumPy buffer behind it is never handed out, so no view can be made writable or resized.
    """

    def __cinit__(self, Py_ssize_t nbytes):
        self.buffer = np.zeros(nbytes // 8 + 8, dtype=np.uint64)
        self.data = <char *>cnp.PyArray_DATA(<cnp.ndarray>self.buffer)
        self.data += -<uintptr_t>self.data % 64          # cache lines, as the tables' offsets
        self.nbytes = nbytes

    def __len__(self):
        return self.nbytes

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if flags & 1:                                   # PyBUF_WRITABLE
            raise BufferError("the arena is read-only: change the world by running it")
        self.shape[0] = self.nbytes
        self.strides[0] = 1
        buffer.buf = self.data
        buffer.format = 'B'
        buffer.internal = NULL
        buffer.itemsize = 1
        buffer.len = self.nbytes
        buffer.ndim = 1
        buffer.obj = self
        buffer.readonly = 1
        buffer.shape = self.shape
        buffer.strides = self.strides
        buffer.suboffsets = NULL

    def __releasebuffer__(self, Py_buffer *buffer):
        pass


def buckets_of(world, buckets):
    """How many a histogram has in this world, of its `buckets` in names.HISTOGRAMS."""
    return {"cpus": world.nr_cpus, "log2": LOG2_BUCKETS}.get(buckets) or int(buckets)


def plan_tables(world, *, state_dtypes=(), record=False):
    """Name, dtype and length of every table of the arena for this world, in its order."""
    words = (world.nr_cpus + 63) // 64
    regions = sum(-(-n // PTRS_PER_PTE) for n in world.mm_pages)
    tables = [
        ("cpu", DTYPES["cpu"], world.nr_cpus),
        ("task", DTYPES["task"], len(world.task_mm)),
        ("mm", DTYPES["mm"], len(world.mm_pages)),
        ("folio", DTYPES["folio"], world.nr_folios),
        ("region", DTYPES["region"], regions),
        ("memcg", DTYPES["memcg"], 1),
        ("swapdev", DTYPES["swapdev"], 1),
        ("io", DTYPES["io"], world.io_depth),
        ("host", DTYPES["host"], world.host_cpus),
        ("slot_cache", DTYPES["slot_cache"], world.nr_cpus if world.slot_cache else 0),
        ("pte", np.dtype("<u8"), sum(world.mm_pages)),
        ("slot_entry", np.dtype("<u8"), world.nr_slots),
        ("slot_count", np.dtype("u1"), world.nr_slots),
        ("mm_cpumask", np.dtype("<u8"), len(world.mm_pages) * words),
        ("ubc_mask", np.dtype("<u8"), len(world.task_mm) * words),
        ("fl_mask", np.dtype("<u8"), world.nr_cpus * words),
        ("fl_ipi", np.dtype("<u8"), world.nr_cpus * words),
        ("tlb_l1", np.dtype("<u8"), world.nr_cpus * world.l1_sets * world.l1_ways),
        ("tlb_l2", np.dtype("<u8"), world.nr_cpus * world.l2_sets * world.l2_ways),
        ("csd_next", np.dtype("<i2"), world.nr_cpus * world.nr_cpus),
        ("counter", np.dtype("<i8"), CN_NR),
        ("time", np.dtype("<i8"), world.nr_cpus * TM_NR),
        *((f"hist_{name}", np.dtype("<i8"), buckets_of(world, buckets))
          for name, _, _, buckets, *_ in names.HISTOGRAMS),
        ("flushes", np.dtype("<i8"), CA_NR * FM_NR),
        ("unmapped_at", np.dtype("<i8"), world.nr_folios if record else 0),
    ]
    for slot, dtype in state_dtypes:
        tables.append((f"policy_{slot}", dtype, 1))
    return tables


cdef class _Window:
    """One strategy's record of the arena: writable, but only that."""

    cdef Arena arena
    cdef Py_ssize_t offset
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]

    def __cinit__(self, Arena arena, Py_ssize_t offset, Py_ssize_t nbytes):
        self.arena = arena
        self.offset = offset
        self.shape[0] = nbytes
        self.strides[0] = 1

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        buffer.buf = self.arena.data + self.offset
        buffer.format = 'B'
        buffer.internal = NULL
        buffer.itemsize = 1
        buffer.len = self.shape[0]
        buffer.ndim = 1
        buffer.obj = self
        buffer.readonly = 0
        buffer.shape = self.shape
        buffer.strides = self.strides
        buffer.suboffsets = NULL

    def __releasebuffer__(self, Py_buffer *buffer):
        pass


cdef inline void irq_step(machine *m, cpu_t *p, int step) noexcept nogil:
    if step == ST_Q_ENTRY:
        step_Q_ENTRY(m, p)
    elif step == ST_Q_TAKE:
        step_Q_TAKE(m, p)
    elif step == ST_Q_FUNC:
        step_Q_FUNC(m, p)
    elif step == ST_Q_ACK:
        step_Q_ACK(m, p)
    elif step == ST_Q_EXIT:
        step_Q_EXIT(m, p)
    elif step == ST_T_TICK:
        step_T_TICK(m, p)
    elif step == ST_IO_ENTRY:
        step_IO_ENTRY(m, p)
    elif step == ST_IO_END:
        step_IO_END(m, p)
    else:
        step_T_TIMER(m, p)


cdef inline void enter_irq(machine *m, cpu_t *p, int64_t now, int64_t at) noexcept nogil:
    if p.mode == CPU_RUN:
        cut_run(m, m.c, now, m.c)
        p.left = p.clock - now
    else:
        p.left = 0
        m.time[m.c * TM_NR + wait_category(p)] += now - p.clock
    p.clock = now
    p.in_irq = 1
    p.istep = irq_entry_step(p, at)


cdef inline bint irq_due(machine *m, cpu_t *p, int64_t at) noexcept nogil:
    """At the key of a CPU that is not in an interrupt: does one come before its next step?"""
    cdef int32_t step
    if p.mode != CPU_RUN or (p.last_on and at < p.clock):
        return True
    if at > p.clock:
        return False
    step = p.sstep if p.sstep >= 0 else m.task[p.current].step
    return m.irq_on[step]


cdef void sched_step(machine *m, cpu_t *p, int step) noexcept nogil:
    m.row_step = step
    p.last_on = m.irq_on[step]
    if step == ST_SW_PICK:
        step_SW_PICK(m, p)
    elif step == ST_SW_CLEAR:
        step_SW_CLEAR(m, p)
    elif step == ST_SW_SET:
        step_SW_SET(m, p)
    elif step == ST_SW_GEN:
        step_SW_GEN(m, p)
    elif step == ST_SW_CR3:
        step_SW_CR3(m, p)
    elif step == ST_W_WORK:
        step_W_WORK(m, p)
    else:
        step_W_BACK(m, p)


cdef int64_t task_steps(machine *m, cpu_t *p, Policies s, int64_t budget) except -1 nogil:
    """The next step of the CPU's task, and those after it while the turn cannot pass.

    It may pass (m.turn) once a step took time, waits, gave way or changed another CPU's key.
    Returns how many steps were made; m.row_step is the last one.
    """
    cdef task_t *t = &m.task[p.current]
    cdef int64_t left = budget
    cdef int step
    while True:
        step = t.step
        m.row_step = step
        if step == ST_TOUCH:
            step_TOUCH(m, p, t)
            if (m.runs and t.step == ST_TOUCH and left > CHAIN
                    and not held_back(&m.run[m.c])):
                left -= touches_ahead(m, p, t, left - 1)
        elif step == ST_POPULATE:
            step_POPULATE(m, p, t)
        elif step == ST_DONTNEED:
            step_DONTNEED(m, p, t)
        elif step == ST_F_READ:
            step_F_READ(m, p, t)
            if left > CHAIN:
                left = fault_chain(m, p, t, left)
        elif step == ST_F_PT:
            step_F_PT(m, p, t)
        elif step == ST_F_PT_SET:
            step_F_PT_SET(m, p, t)
        elif step == ST_F_ZERO:
            step_F_ZERO(m, p, t)
        elif step == ST_F_ALLOC:
            step_F_ALLOC(m, p, t)
        elif step == ST_F_CHARGED:
            step_F_CHARGED(m, p, t)
        elif step == ST_F_FILL:
            step_F_FILL(m, p, t)
        elif step == ST_F_MAP:
            step_F_MAP(m, p, t)
        elif step == ST_F_WP:
            step_F_WP(m, p, t)
        elif step == ST_F_WP_REUSE:
            step_F_WP_REUSE(m, p, t)
        elif step == ST_F_WP_CLEAR:
            step_F_WP_CLEAR(m, p, t)
        elif step == ST_F_WP_SET:
            step_F_WP_SET(m, p, t)
        elif step == ST_F_CACHE:
            step_F_CACHE(m, p, t)
        elif step == ST_F_RA_WIN:
            step_F_RA_WIN(m, p, t)
        elif step == ST_F_RA_NEXT:
            step_F_RA_NEXT(m, p, t)
        elif step == ST_F_RA_CHARGED:
            step_F_RA_CHARGED(m, p, t)
        elif step == ST_F_RA_READ:
            step_F_RA_READ(m, p, t)
        elif step == ST_F_RA_SUBMIT:
            step_F_RA_SUBMIT(m, p, t)
        elif step == ST_F_TARGET:
            step_F_TARGET(m, p, t)
        elif step == ST_F_CL_WIN:
            step_F_CL_WIN(m, p, t)
        elif step == ST_F_CL_NEXT:
            step_F_CL_NEXT(m, p, t)
        elif step == ST_F_CL_CHARGED:
            step_F_CL_CHARGED(m, p, t)
        elif step == ST_F_PREPARE:
            step_F_PREPARE(m, p, t)
        elif step == ST_F_BACKOFF:
            step_F_BACKOFF(m, p, t)
        elif step == ST_F_SWAP_READ:
            step_F_SWAP_READ(m, p, t)
        elif step == ST_F_SUBMIT:
            step_F_SUBMIT(m, p, t)
        elif step == ST_F_LOCK:
            step_F_LOCK(m, p, t)
        elif step == ST_F_RETRY:
            step_F_RETRY(m, p, t)
        elif step == ST_F_RECHECK:
            step_F_RECHECK(m, p, t)
        elif step == ST_F_SWAP_MAP:
            step_F_SWAP_MAP(m, p, t)
            if left > CHAIN:
                left = done_chain(m, p, t, left)
        elif step == ST_F_DONE:
            step_F_DONE(m, p, t)
        elif step == ST_C_TRY:
            step_C_TRY(m, p, t)
        elif step == ST_C_AFTER:
            step_C_AFTER(m, p, t)
        elif step == ST_R_START:
            step_R_START(m, p, t)
        elif step == ST_R_PRIO:
            step_R_PRIO(m, p, t)
        elif step == ST_R_LIST:
            step_R_LIST(m, p, t)
        elif step == ST_R_AGE:
            step_R_AGE(m, p, t)
        elif step == ST_R_END:
            step_R_END(m, p, t)
        elif step == ST_I_START:
            step_I_START(m, p, t)
        elif step == ST_I_LOCK:
            step_I_LOCK(m, p, t)
        elif step == ST_I_UNLOCK:
            step_I_UNLOCK(m, p, t)
        elif step == ST_I_PUT:
            step_I_PUT(m, p, t, s)
        elif step == ST_I_PUT_UNLOCK:
            step_I_PUT_UNLOCK(m, p, t, s)
        elif step == ST_K_LOCK:
            step_K_LOCK(m, p, t)
        elif step == ST_K_UNLOCK:
            step_K_UNLOCK(m, p, t)
        elif step == ST_K_NEXT:
            step_K_NEXT(m, p, t)
        elif step == ST_K_PUT:
            step_K_PUT(m, p, t)
        elif step == ST_K_PUT_UNLOCK:
            step_K_PUT_UNLOCK(m, p, t)
        elif step == ST_G_SHRINK:
            step_G_SHRINK(m, p, t)
        elif step == ST_G_NEXT:
            step_G_NEXT(m, p, t)
        elif step == ST_G_ISOLATE:
            step_G_ISOLATE(m, p, t)
        elif step == ST_G_UNLOCK:
            step_G_UNLOCK(m, p, t)
        elif step == ST_G_KEEP:
            step_G_KEEP(m, p, t)
        elif step == ST_G_PUT:
            step_G_PUT(m, p, t, s)
        elif step == ST_G_PUT_UNLOCK:
            step_G_PUT_UNLOCK(m, p, t, s)
        elif step == ST_G_MORE:
            step_G_MORE(m, p, t)
        elif step == ST_G_MM:
            step_G_MM(m, p, t)
        elif step == ST_G_WALK:
            step_G_WALK(m, p, t)
        elif step == ST_G_BATCH:
            step_G_BATCH(m, p, t)
        elif step == ST_G_BATCH_UNLOCK:
            step_G_BATCH_UNLOCK(m, p, t)
        elif step == ST_G_AGAIN:
            step_G_AGAIN(m, p, t)
        elif step == ST_G_MAX:
            step_G_MAX(m, p, t)
        elif step == ST_G_MAX_UNLOCK:
            step_G_MAX_UNLOCK(m, p, t)
        elif step == ST_S_PLAN:
            step_S_PLAN(m, p, t, s)
        elif step == ST_S_NEXT:
            step_S_NEXT(m, p, t)
            if left > CHAIN:
                left = scan_chain(m, p, t, s, left)
        elif step == ST_S_LOCK:
            step_S_LOCK(m, p, t)
        elif step == ST_S_WB:
            step_S_WB(m, p, t, s)
        elif step == ST_S_WB_WAIT:
            step_S_WB_WAIT(m, p, t)
        elif step == ST_S_REF:
            step_S_REF(m, p, t, s)
        elif step == ST_S_GEN:
            step_S_GEN(m, p, t)
        elif step == ST_S_LOOK:
            step_S_LOOK(m, p, t)
        elif step == ST_S_YOUNG:
            step_S_YOUNG(m, p, t, s)
        elif step == ST_S_SLOT:
            step_S_SLOT(m, p, t, s)
            if left > CHAIN:
                left = slot_chain(m, p, t, left)
        elif step == ST_S_ADD:
            step_S_ADD(m, p, t)
        elif step == ST_S_UNMAP:
            step_S_UNMAP(m, p, t)
            if left > CHAIN:
                left = unmap_chain(m, p, t, left)
        elif step == ST_U_DEFER:
            step_U_DEFER(m, p, t)
        elif step == ST_U_CLEAR:
            step_U_CLEAR(m, p, t)
        elif step == ST_U_GEN:
            step_U_GEN(m, p, t)
        elif step == ST_U_MASK:
            step_U_MASK(m, p, t)
        elif step == ST_U_FLUSH:
            step_U_FLUSH(m, p, t)
        elif step == ST_U_SET:
            step_U_SET(m, p, t)
        elif step == ST_S_PIN:
            step_S_PIN(m, p, t, s)
            if left > CHAIN:
                left = pin_chain(m, p, t, s, left)
        elif step == ST_S_DIRTY:
            step_S_DIRTY(m, p, t)
        elif step == ST_S_FREE:
            step_S_FREE(m, p, t, s)
        elif step == ST_S_FREE_FLUSHED:
            step_S_FREE_FLUSHED(m, p, t)
        elif step == ST_S_TAIL:
            step_S_TAIL(m, p, t)
        elif step == ST_S_END:
            step_S_END(m, p, t)
        elif step == ST_S_END_FLUSHED:
            step_S_END_FLUSHED(m, p, t)
        elif step == ST_P_OUT:
            step_P_OUT(m, p, t, s)
            if left > CHAIN:
                left = write_chain(m, p, t, left)
        elif step == ST_P_WRITE:
            step_P_WRITE(m, p, t)
        elif step == ST_P_SUBMIT:
            step_P_SUBMIT(m, p, t)
        elif step == ST_P_END:
            step_P_END(m, p, t)
            if left > CHAIN:
                left = end_chain(m, p, t, s, left)
        elif step == ST_P_DISPATCH:
            step_P_DISPATCH(m, p, t, s)
        elif step == ST_B_START:
            step_B_START(m, p, t)
        elif step == ST_B_LOCK:
            step_B_LOCK(m, p, t)
            if left > CHAIN:
                left = relock_chain(m, p, t, left)
        elif step == ST_B_OUT:
            step_B_OUT(m, p, t)
            if left > CHAIN:
                left = out_chain(m, p, t, s, left)
        elif step == ST_D_LOCK:
            step_D_LOCK(m, p, t)
        elif step == ST_D_UNLOCK:
            step_D_UNLOCK(m, p, t)
        elif step == ST_FL_START:
            step_FL_START(m, p, t)
        elif step == ST_FL_QUEUE:
            step_FL_QUEUE(m, p, t)
        elif step == ST_FL_SEND:
            step_FL_SEND(m, p, t)
        elif step == ST_FL_LOCAL:
            step_FL_LOCAL(m, p, t)
        elif step == ST_FL_WAIT:
            step_FL_WAIT(m, p, t)
        elif step == ST_FL_DONE:
            step_FL_DONE(m, p, t)
        elif step == ST_M_BATCHED:
            step_M_BATCHED(m, p, t)
        elif step == ST_E_ZAP:
            step_E_ZAP(m, p, t)
        elif step == ST_E_PTES:
            step_E_PTES(m, p, t)
        elif step == ST_E_FREE:
            step_E_FREE(m, p, t)
        elif step == ST_E_UNLOCK:
            step_E_UNLOCK(m, p, t)
        elif step == ST_E_DONE:
            step_E_DONE(m, p, t)
        else:
            step_V(m, p, t, step)
        left -= 1
        p.last_on = m.irq_on[m.row_step]
        if m.turn or left == 0:
            return budget - left


cdef int64_t irq_steps(machine *m, cpu_t *p, int64_t budget) noexcept nogil:
    """The steps of the CPU's interrupt while the turn cannot pass; how many."""
    cdef int64_t left = budget
    p.last_on = 0
    while True:
        m.row_step = p.istep
        irq_step(m, p, p.istep)
        left -= 1
        if m.turn or left == 0:
            return budget - left


cdef inline cpu_t *begin_turn(machine *m, int32_t c) noexcept nogil:
    """CPU c acts."""
    cdef cpu_t *p = &m.cpu[c]
    m.c = c
    m.p = p
    m.times = &m.time[c * TM_NR]
    m.turn = 0
    m.row_cost = 0
    return p

cdef inline cpu_t *begin_least(machine *m, int64_t leaf) noexcept nogil:
    """The CPU of the least leaf acts."""
    cdef cpu_t *p = begin_turn(m, <int32_t>(leaf & ((1 << CPU_BITS) - 1)))
    m.now = leaf >> CPU_BITS
    m.leaf = leaf
    return p

cdef int64_t cpu_steps(machine *m, cpu_t *p, Policies s, int64_t budget) except -1 nogil:
    """What the CPU does next, of an interrupt, of the scheduler or of its task; how many steps.
    (The loop has the three in it: a call more would cost it 3%.)"""
    if p.in_irq:
        return irq_steps(m, p, budget)
    if p.sstep >= 0:
        sched_step(m, p, p.sstep)
        return 1
    return task_steps(m, p, s, budget)

cdef int64_t chain_steps(machine *m, cpu_t *p, Policies s, int step, int64_t budget) except -1 nogil:
    """The next step of the CPU's task, one of CHAINED_STEPS, and what is chained to it; how many.
    (The step itself through task_steps: were it named twice, gcc would call it there, too.)"""
    cdef task_t *t = &m.task[p.current]
    cdef int64_t left = budget - task_steps(m, p, s, 1)
    if step == ST_F_READ:
        left = fault_chain(m, p, t, left)
    elif step == ST_F_SWAP_MAP:
        left = done_chain(m, p, t, left)
    elif step == ST_S_NEXT:
        left = scan_chain(m, p, t, s, left)
    elif step == ST_S_SLOT:
        left = slot_chain(m, p, t, left)
    elif step == ST_S_UNMAP:
        left = unmap_chain(m, p, t, left)
    elif step == ST_S_PIN:
        left = pin_chain(m, p, t, s, left)
    elif step == ST_P_OUT:
        left = write_chain(m, p, t, left)
    elif step == ST_P_END:
        left = end_chain(m, p, t, s, left)
    elif step == ST_B_LOCK:
        left = relock_chain(m, p, t, left)
    else:
        left = out_chain(m, p, t, s, left)
    return budget - left

cdef int act_alone(machine *m, int32_t c, int64_t interrupt, Policies s) except -1 nogil:
    """One action of CPU c, whatever the clocks say: the interrupt pending at that time, or, if it
    is INF, the CPU's next step.  The explorer chooses who acts, and has no hints (run_t) of another state."""
    cdef cpu_t *p = begin_turn(m, c)
    if interrupt < INF:
        enter_irq(m, p, m.now, interrupt)
    return <int>cpu_steps(m, p, s, 1)


@cython.final
cdef class Core:
    """One simulated machine.

    Parameters
    ----------
    world : reclaim.world.World
        Checked by `reclaim.world.check` before anything is allocated.
    policies : reclaim._policy.Policies
        Used as they are: `Simulation` copies the user's.
    record : bool
        Meter what costs something for each target of a flush or each page, too.

    Raises
    ------
    reclaim.errors.WorldError : a value of `world` is out of its range.
    """

    def __cinit__(self, world, Policies policies not None, bint record=False):
        from reclaim.world import check
        check(world)
        self.policies = policies
        self.in_python = any(isinstance(strategy, PYTHON) for strategy in policies)
        self.passes = np.array(world.passes, dtype=PASS_DTYPE)
        self.trace = np.array(world.trace, dtype="<u4")
        states = []
        for strategy in policies:
            if strategy.state_dtype is not None:
                states.append((strategy.slot, np.dtype(strategy.state_dtype)))
        self._allocate(plan_tables(world, state_dtypes=states, record=record))
        for strategy in policies:
            strategy._bind(self._policy_state(strategy))
        self._constants(world)
        self._initial(world)

    def _allocate(self, plan):
        cdef Py_ssize_t offset = 0
        tables = {}
        for name, dtype, count in plan:
            tables[name] = (offset, dtype, count)
            offset += -(-dtype.itemsize * count // 64) * 64
        self.arena = Arena(offset)
        self.tables = tables
        text = repr([(n, str(d), c) for n, d, c in plan]) + repr(names.STEPS) + str(MODEL_VERSION)
        self.layout = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        cdef char *base = self.arena.data
        cdef int i
        self.m.cpu = <cpu_t *>(base + <Py_ssize_t>tables["cpu"][0])
        self.m.task = <task_t *>(base + <Py_ssize_t>tables["task"][0])
        self.m.mm = <mm_t *>(base + <Py_ssize_t>tables["mm"][0])
        self.m.folio = <folio_t *>(base + <Py_ssize_t>tables["folio"][0])
        self.m.region = <region_t *>(base + <Py_ssize_t>tables["region"][0])
        self.m.cg = <memcg_t *>(base + <Py_ssize_t>tables["memcg"][0])
        self.m.dev = <swapdev_t *>(base + <Py_ssize_t>tables["swapdev"][0])
        self.m.io = <io_t *>(base + <Py_ssize_t>tables["io"][0])
        self.m.host = <host_t *>(base + <Py_ssize_t>tables["host"][0])
        self.m.slot_cache = <slot_cache_t *>(base + <Py_ssize_t>tables["slot_cache"][0])
        self.m.pte = <uint64_t *>(base + <Py_ssize_t>tables["pte"][0])
        self.m.slot_entry = <uint64_t *>(base + <Py_ssize_t>tables["slot_entry"][0])
        self.m.slot_count = <uint8_t *>(base + <Py_ssize_t>tables["slot_count"][0])
        self.m.mm_cpumask = <uint64_t *>(base + <Py_ssize_t>tables["mm_cpumask"][0])
        self.m.ubc_mask = <uint64_t *>(base + <Py_ssize_t>tables["ubc_mask"][0])
        self.m.fl_mask = <uint64_t *>(base + <Py_ssize_t>tables["fl_mask"][0])
        self.m.fl_ipi = <uint64_t *>(base + <Py_ssize_t>tables["fl_ipi"][0])
        self.m.l1 = <uint64_t *>(base + <Py_ssize_t>tables["tlb_l1"][0])
        self.m.l2 = <uint64_t *>(base + <Py_ssize_t>tables["tlb_l2"][0])
        self.m.csd_next = <int16_t *>(base + <Py_ssize_t>tables["csd_next"][0])
        self.m.counter = <int64_t *>(base + <Py_ssize_t>tables["counter"][0])
        self.m.time = <int64_t *>(base + <Py_ssize_t>tables["time"][0])
        for i, (name, *_) in enumerate(names.HISTOGRAMS):
            self.m.hist[i] = <int64_t *>(base + <Py_ssize_t>tables[f"hist_{name}"][0])
            self.m.hist_last[i] = tables[f"hist_{name}"][2] - 1
        self.m.flushes = <int64_t *>(base + <Py_ssize_t>tables["flushes"][0])
        self.m.unmapped_at = <int64_t *>(base + <Py_ssize_t>tables["unmapped_at"][0])
        self.m.detail = tables["unmapped_at"][2] > 0
        self.m.passes = <const pass_t *>cnp.PyArray_DATA(<cnp.ndarray>self.passes)
        self.m.trace = <const uint32_t *>cnp.PyArray_DATA(<cnp.ndarray>self.trace)

    def _policy_state(self, strategy):
        if strategy.state_dtype is None:
            return None
        offset, dtype, _ = self.tables[f"policy_{strategy.slot}"]
        window = _Window(self.arena, offset, dtype.itemsize)
        return np.frombuffer(window, dtype=dtype, count=1)

    def _constants(self, world):
        cdef world_t *w = &self.m.w
        cdef int i
        memset(w, 0, sizeof(world_t))
        w.nr_cpus = world.nr_cpus
        w.nr_tasks = len(world.task_mm)
        w.nr_mms = len(world.mm_pages)
        w.nr_regions = self.tables["region"][2]
        w.nr_vps = self.tables["pte"][2]
        w.nr_folios = world.nr_folios
        w.nr_slots = world.nr_slots
        w.nr_passes = len(self.passes)
        w.words = (world.nr_cpus + 63) // 64
        w.cpus_per_socket = world.cpus_per_socket
        w.l1_sets, w.l1_ways = world.l1_sets, world.l1_ways
        w.l2_sets, w.l2_ways = world.l2_sets, world.l2_ways
        w.slice_ticks = world.slice_ticks
        w.swappiness = world.swappiness
        w.cgroup = world.cgroup
        w.pcid = bool(world.pcid)
        w.mask_lazy = bool(world.mask_lazy)
        w.trim = bool(world.trim)
        w.swapin_cached = bool(world.swapin_cached)
        w.pgrefill_global = bool(world.pgrefill_global)
        w.swap_sync = bool(world.swap_sync)
        w.rotational = bool(world.rotational)
        w.slot_cache = bool(world.slot_cache)
        w.lru = world.lru
        w.mglru_batch = bool(world.mglru_batch)
        w.mglru_stop = bool(world.mglru_stop)
        w.mglru_rework = bool(world.mglru_rework)
        w.io_depth = world.io_depth
        w.host_cpus = world.host_cpus
        w.pv_flush = bool(world.pv_flush)
        w.tick_skew = world.tick_skew
        w.io_latency = world.io_latency
        w.io_page = world.io_page
        w.limit = world.limit
        w.tick = world.tick
        w.balance = world.balance
        w.migrate_threshold = world.migrate_threshold
        w.busy_threshold = world.busy_threshold
        w.kworkers = bool(world.kworkers)
        w.moves = bool((self.passes["kind"] == PASS_MREMAP).any())
        w.forks = any(child >= 0 for child in world.mm_child)
        w.trace_len = len(self.trace)
        for i in range(CO_NR):
            w.cost[i] = world.costs[i]
        for i, name in enumerate(names.STEPS):
            self.m.irq_on[i] = name not in IRQ_OFF_STEPS
            self.m.cause_of[i] = CA_other
        for i, (_, steps, _) in enumerate(names.CAUSES):
            for name in steps:
                self.m.cause_of[names.STEPS.index(name)] = i
        flush_policy = self.policies.flush
        self.m.flush_keeps = flush_policy.keeps_locks
        self.m.flush_remainder = flush_policy.remainder
        self.m.flush_rechecks = flush_policy.rechecks
        self.m.tree_size = 1
        while self.m.tree_size < w.nr_cpus:
            self.m.tree_size *= 2
        self.tree = np.zeros(2 * self.m.tree_size, dtype=np.int64)
        self.m.tree = &self.tree[0]
        self.run_rows = np.zeros((w.nr_cpus, sizeof(run_t) // 8), dtype=np.int64)
        self.m.run = <run_t *>&self.run_rows[0, 0]
        self.walk_rows = np.zeros((w.nr_cpus * WALK_MAX, sizeof(walk_t) // 8), dtype=np.int64)
        self.m.walk = <walk_t *>&self.walk_rows[0, 0]
        self.walkers = np.zeros(w.nr_cpus, dtype=np.int32)
        self.m.walkers = &self.walkers[0]
        self.trail = np.zeros((2, 1 << max(8, (w.nr_folios - 1).bit_length())), dtype=np.int32)
        self.m.trail_mask = self.trail.shape[1] - 1
        for i in range(2):
            self.m.trail[i] = &self.trail[i, 0]

    def _initial(self, world):
        cdef machine *m = &self.m
        cdef int32_t c, t, i
        cdef cpu_t *p
        cdef task_t *u
        cdef int32_t base = 0, region = 0
        cdef int64_t[::1] changes = np.concatenate(     # calls on their mm in the passes before
            [[0], np.cumsum(self.passes["kind"] > PASS_DONTNEED, dtype=np.int64)])
        for c in range(m.w.nr_cpus):
            p = &m.cpu[c]
            p.irq_at = p.tick_at = p.timer_at = p.io_at = INF
            p.io_head = p.io_tail = -1
            p.rng = rng_mix(world.seed, 2, c)
            p.balance_at = (c + 1) * m.w.balance
            p.vmstat_at = first_vmstat(m, c) if m.w.kworkers else 0
            for i in range(NR_ASIDS):
                p.asid_mm[i] = -1
            p.current = p.istep = p.sstep = p.walk_line = p.push = -1
            p.loaded_mm = MM_INIT
            p.rq_head = p.rq_tail = p.fl_mm = p.fl_vp = p.fl_ret = -1
            p.q_head = p.q_tail = p.hand = p.lock_next = -1
            p.mode = CPU_IDLE
            p.last_on = 1
        memset(m.csd_next, 0xff, <size_t>m.w.nr_cpus * m.w.nr_cpus * sizeof(int16_t))
        for i in range(m.w.nr_mms):
            m.mm[i].tlb_gen = 1
            m.mm[i].base = base
            m.mm[i].nr_pages = world.mm_pages[i]
            m.mm[i].first_region = region
            m.mm[i].nr_regions = (m.mm[i].nr_pages + PTRS_PER_PTE - 1) // PTRS_PER_PTE
            m.mm[i].writer = m.mm[i].wait_head = m.mm[i].wait_tail = -1
            ra_reset(&m.mm[i])
            m.mm[i].lru_gen = MM_FRESH if m.w.lru else 0
            m.mm[i].recency = bool(world.mm_recency[i])
            m.mm[i].peer = -1
            base += m.mm[i].nr_pages
            region += m.mm[i].nr_regions
        for i, child in enumerate(world.mm_child):
            if child >= 0:
                m.mm[i].peer = child
                m.mm[<int32_t>child].peer = i
                m.mm[<int32_t>child].is_child = 1
        for i in range(m.w.nr_regions):
            m.region[i].ptl.holder = m.region[i].ptl.head = m.region[i].ptl.tail = -1
        for i in range(m.w.nr_folios):
            m.folio[i].vp = m.folio[i].mm = m.folio[i].slot = -1
            m.folio[i].prev = m.folio[i].next = -1
            m.folio[i].wait_head = -1
            if m.detail:
                m.unmapped_at[i] = -1
        m.cg.usage = m.cg.kernel = world.kernel_pages
        m.cg.notify_cpu = -1
        m.dev.wait_head = m.dev.wait_tail = -1
        m.dev.highest = m.w.nr_slots - 1
        m.dev.ra_hits = RA_FIRST_HITS
        m.dev.ra_prev = -1
        for i in range(m.w.io_depth):
            m.io[i].next = i + 1 if i + 1 < m.w.io_depth else -1
            m.io[i].slot = -1
        for i in range(NR_LISTS):
            m.cg.lru_head[i] = m.cg.lru_tail[i] = -1
        if m.w.lru:
            m.cg.max_seq = MIN_NR_GENS + 1
            m.cg.mm_seq = MIN_NR_GENS
            m.cg.mm_head = -1
        m.cg.slots_free = m.w.nr_slots
        m.cg.slot_top = -1
        m.cg.frames_free = m.w.nr_folios
        m.cg.frame_top = -1
        m.cg.sleep_head = m.cg.sleep_tail = -1
        m.cg.nr_alive = m.w.nr_tasks
        m.cg.touches_left = -1
        m.cg.lru_lock.holder = m.cg.lru_lock.head = m.cg.lru_lock.tail = -1
        for t in range(m.w.nr_tasks):
            u = &m.task[t]
            u.rng = rng_mix(world.seed, 1, t)
            u.mm = world.task_mm[t]
            u.cpu = world.task_cpu[t]
            u.pinned = bool(world.task_pinned[t])
            u.restart = bool(world.task_restart[t])
            u.first_pass = world.task_first_pass[t]
            u.nr_passes = world.task_nr_passes[t]
            u.loop_to = world.task_loop_to[t]
            u.step = ST_TOUCH
            u.state = TASK_QUEUED
            u.vp = u.f_pfn = u.f_old = u.folio = u.c_ret = u.k_ret = u.b_ret = -1
            u.ra_at = u.ra_end = u.ra_vp = u.batched_ret = -1
            u.freed_ret = u.d_ret = u.rq_next = u.wait_next = u.sleep_next = -1
            u.list.head = u.list.tail = u.ret.head = u.ret.tail = -1
            m.mm[u.mm].shared = m.mm[u.mm].users > 0
            m.mm[u.mm].users += 1
            m.mm[u.mm].locks |= changes[u.first_pass + u.nr_passes] > changes[u.first_pass]
            u.clean.head = u.clean.tail = u.g_mm = -1
            u.plug_head = u.plug_tail = -1
            if m.mm[u.mm].is_child:
                u.step = ST_V_CHILD
                u.state = TASK_BLOCKED
            else:
                rq_append(m, u.cpu, t)
        for i in range(m.w.nr_mms):
            m.mm[i].locks &= m.mm[i].shared
        for c in range(m.w.nr_cpus):
            p = &m.cpu[c]
            if p.rq_nr > 0:
                p.mode = CPU_RUN
                p.sstep = ST_SW_PICK
                p.tick_at = next_tick(m, c, 0)
            else:
                m.cg.nr_idle += 1
        m.c = -1
        for i in range(m.w.host_cpus):
            m.host[i].running = -1
            m.host[i].turned_at = -1
            host_next(m, i, i, 0)
        self._rebuild_tree()

    def _rebuild_tree(self):
        cdef int32_t c, i
        for i in range(2 * self.m.tree_size):
            self.m.tree[i] = LEAF_INF
        self.m.c = -1
        for c in range(self.m.w.nr_cpus):
            tree_set(&self.m, c, leaf_of(&self.m, c))

    # --- running

    cdef int loop(self, int64_t end, int64_t budget) except -1 nogil:
        """Act until the least key reaches `end`, or `budget` actions were made.

        One turn of the loop is an interrupt entry or one or more steps of the CPU with the
        least key.  A step that takes no time leaves its CPU the least one, so its next step
        follows at once: with a budget of 1 every action asks the tree, with the same digest.
        """
        cdef machine *m = &self.m
        cdef int64_t limit = end << CPU_BITS
        cdef int64_t leaf, at
        cdef int32_t c
        cdef cpu_t *p
        while budget > 0:
            leaf = m.tree[1]
            if leaf >= limit:
                return STOP_NO_KEY if leaf == LEAF_INF else STOP_END
            if unlikely(m.cg.touches_left == 0):
                return STOP_TOUCHES
            if unlikely(m.cg.nr_alive == 0):
                return STOP_DEAD
            p = begin_least(m, leaf)
            c = m.c
            at = irq_time(p)
            if unlikely(m.w.host_cpus) and host_step(m, p):
                budget -= 1
                tree_set(m, c, leaf_of(m, c))
                continue
            if not p.in_irq and irq_due(m, p, at):
                enter_irq(m, p, m.now, at)
            m.run[c].nr = 0
            if p.in_irq:
                budget -= irq_steps(m, p, budget)
            elif p.sstep >= 0:
                sched_step(m, p, p.sstep)
                budget -= 1
            else:
                # with an interrupt pending, one step: it may come before the next
                budget -= task_steps(m, p, self.policies, 1 if at <= m.now else budget)
            tree_set(m, c, leaf_of(m, c))
            if unlikely(m.bad):
                break
        return STOP_BUDGET

    cdef int loop_exact(self, int64_t end, int64_t budget) except -1 nogil:
        """As `loop`, and then only what comes before the next action was made, no touch ahead."""
        cdef machine *m = &self.m
        cdef int why = STOP_BUDGET
        cdef int64_t left = budget, back
        cdef int32_t u
        m.end = end
        m.runs = m.cg.touches_left < 0 and not self.in_python
        m.nr_reclaiming = 0
        for u in range(m.w.nr_tasks):
            m.nr_reclaiming += in_reclaim(m, &m.task[u])
        while left > 0 and why == STOP_BUDGET and not m.bad:
            back = m.touches_back
            why = self.loop(end, left)
            self.settle()
            left = m.touches_back - back
            m.runs = m.runs and left > 64
        return why

    cdef void settle(self) noexcept nogil:
        """End every run where the next action of all stands."""
        cdef machine *m = &self.m
        cdef int32_t c
        cdef int64_t leaf = m.tree[1]
        m.c = -1
        for c in range(m.w.nr_cpus):
            cut_run(m, c, leaf >> CPU_BITS, <int32_t>(leaf & ((1 << CPU_BITS) - 1)))
            m.run[c].nr = 0

    cdef int loop_unfused(self, int64_t end, int64_t budget) except -1 nogil:
        cdef int why = STOP_BUDGET
        while budget > 0 and why == STOP_BUDGET and not self.m.bad:
            why = self.loop(end, 1)
            budget -= 1
        return why

    cdef int metered_step(self) except -1 nogil:
        """The acting CPU's next step, with what stands around it in meters.pxd."""
        cdef machine *m = &self.m
        cdef cpu_t *p = m.p
        cdef before_t before
        cdef int step = p.istep if p.in_irq else p.sstep if p.sstep >= 0 else m.task[p.current].step
        meter_before(m, p, step, &before)
        cpu_steps(m, p, self.policies, 1)
        meter_after(m, p, step, &before)
        return 0

    def watch(self):
        """From here on every action is checked with ghosts (_mm/ghost.pxd); before the first one."""
        cdef machine *m = &self.m
        self.ghosts = []
        self.ghost.latest = <uint32_t *>self._ghosts(m.w.nr_vps)
        self.ghost.stored = <uint32_t *>self._ghosts(m.w.nr_slots)
        self.ghost.frame = <frame_ghost *>self._ghosts(<int64_t>m.w.nr_folios * (sizeof(frame_ghost) // 4))
        self.ghost.reach = <reach_t *>self._ghosts(<int64_t>m.w.nr_vps * m.w.nr_cpus * (sizeof(reach_t) // 4))
        self.ghost.freed = <int32_t *>self._ghosts(m.w.nr_tasks)
        self.ghost.version = <uint32_t *>self._ghosts(1)
        for i, name in enumerate(names.STEPS):
            self.watched[i] = (WATCH_NONE if name in QUIET_STEPS else
                               WATCH_CHAIN if name in CHAINED_STEPS else WATCH_ONE)
        self.track = np.zeros(TRACK_NR, dtype=TRACK_DTYPE)
        self.track_rows = <char *>cnp.PyArray_DATA(<cnp.ndarray>self.track)
        self.checked = True

    def ghost_rows(self):
        """What the ghosts hold, for `haunt`; None if nothing is checked."""
        return tuple(array.tobytes() for array in self.ghosts) if self.checked else None

    def haunt(self, rows):
        """Put back what `ghost_rows` gave; trusted: frames and tasks in it are not looked at."""
        for array, row in zip(self.ghosts, rows, strict=True):
            array[:] = np.frombuffer(row, dtype=np.uint32)
        self.violated, self.tracked = 0, 0
        self.ghost.folio = -1

    cdef void *_ghosts(self, int64_t n) except NULL:
        """n words of zero that live as long as this object."""
        array = np.zeros(max(n, 1), dtype=np.uint32)
        self.ghosts.append(array)
        return cnp.PyArray_DATA(<cnp.ndarray>array)

    cdef inline void remember(self, int32_t c, int step, int64_t made) noexcept nogil:
        """Into the ring of what was done last; the folio is that of the task, whatever the step."""
        cdef track_t *row = <track_t *>self.track_rows + (self.tracked & (TRACK_NR - 1))
        cdef int32_t u = self.m.cpu[c].current
        row.now = self.m.now
        row.cpu = <uint16_t>c
        row.step = <uint8_t>step
        row.made = <uint8_t>min(made, 255)
        row.folio = -1
        if u >= 0 and step < ST_FL_START:
            row.folio = self.m.task[u].f_pfn if step <= ST_F_DONE else self.m.task[u].folio
        self.tracked = self.tracked + 1         # += needs the GIL in a debug build

    cdef inline void fetch_slot(self, uint64_t pte) noexcept nogil:
        if pte_kind_of(pte) == PTE_SWAP:
            prefetch(&self.ghost.stored[pte_index(pte)])

    cdef inline void fetch_touch(self, int32_t c, const task_t *t) noexcept nogil:
        """Of the touch after this one, whose PTE was fetched with the last one, and the PTE of the next."""
        cdef machine *m = &self.m
        cdef const pass_t *a
        cdef int64_t vp
        if t.have or t.pass_no < 0:       # tried again: it was fetched before
            return
        a = task_pass(m, t)
        if by_the_kernel(a):
            return
        vp = page_to_come(m, t, a, 1)
        prefetch(&self.ghost.latest[vp])
        prefetch(&self.ghost.reach[reach_at(m, c, vp)])
        if pte_present(m.pte[vp]):
            prefetch(&self.ghost.frame[pte_index(m.pte[vp])])
        else:
            self.fetch_slot(m.pte[vp])

    cdef inline void fetch(self, const task_t *t, int32_t c, int step) noexcept nogil:
        """What the ghosts of the steps to come look at: tables larger than the cache, in no order."""
        cdef machine *m = &self.m
        if step == ST_TOUCH:
            self.fetch_touch(c, t)
        elif step == ST_S_PIN:
            if t.list.head >= 0:
                prefetch(&self.ghost.latest[max(m.folio[t.list.head].vp, 0)])
                if m.folio[t.list.head].next >= 0:
                    prefetch(&self.ghost.frame[m.folio[t.list.head].next])
        else:                             # F_READ; most programs go on with the next page
            self.fetch_slot(m.pte[t.vp])
            self.fetch_slot(m.pte[t.vp + 1 if t.vp + 1 < m.w.nr_vps else t.vp])
            if m.cg.frame_top >= 0:
                prefetch(&self.ghost.frame[m.cg.frame_top])

    cdef int64_t unwatched(self, cpu_t *p, int step, int kind, int64_t budget) except -1 nogil:
        """Steps that no ghost cares for: one, or all that take no time where nothing else can follow."""
        cdef bint more = step != ST_IO_ENTRY if kind == 2 else step == ST_FL_QUEUE and irq_time(p) > self.m.now
        return cpu_steps(&self.m, p, self.policies, budget if more else 1)

    cdef int64_t watch_steps(self, cpu_t *p, int step, int64_t room) except -1 nogil:
        """A step that is watched, or a chain of at most that many; how many were made."""
        cdef machine *m = &self.m
        cdef seen_t seen
        cdef int64_t made = 0
        self.violated = ghost_before(m, &self.ghost, m.c, step, self.policies, &seen)
        if self.violated == 0:
            if room > CHAIN and self.watched[step] == WATCH_CHAIN:
                made = chain_steps(m, p, self.policies, step, room)
            else:
                made = cpu_steps(m, p, self.policies, 1)
            self.violated = ghost_after(m, &self.ghost, m.c, &seen)
        return made

    cdef int loop_checked(self, int64_t end, int64_t budget) except -1 nogil:
        """As `loop`, watched step by step, or chain by chain; or metered, step by step."""
        cdef machine *m = &self.m
        cdef int64_t limit = end << CPU_BITS
        cdef int64_t leaf, at, made
        cdef int32_t c
        cdef cpu_t *p
        cdef int step, kind
        m.runs = 0
        while budget > 0:
            leaf = m.tree[1]
            if leaf >= limit:
                return STOP_NO_KEY if leaf == LEAF_INF else STOP_END
            if m.cg.touches_left == 0:
                return STOP_TOUCHES
            if m.cg.nr_alive == 0:
                return STOP_DEAD
            p = begin_least(m, leaf)
            c = m.c
            at = irq_time(p)
            if m.w.host_cpus and host_step(m, p):
                budget -= 1
                tree_set(m, c, leaf_of(m, c))
                continue
            if not p.in_irq and irq_due(m, p, at):
                enter_irq(m, p, m.now, at)
            if m.detail:
                self.metered_step()
                budget -= 1
                tree_set(m, c, leaf_of(m, c))
                if m.bad:
                    break
                continue
            kind = 2 if p.in_irq else 1 if p.sstep >= 0 else 0
            while True:
                step = p.istep if kind == 2 else p.sstep if kind == 1 else m.task[p.current].step
                if step == ST_TOUCH or step == ST_S_PIN or step == ST_F_READ:
                    self.fetch(&m.task[p.current], c, step)
                if self.watched[step] == WATCH_NONE:
                    made = self.unwatched(p, step, kind, budget)
                else:
                    made = self.watch_steps(p, step, budget if at > m.now else 1)
                self.remember(c, step, made)
                budget -= made
                if m.turn or budget <= 0 or self.violated or kind == 1 or (kind == 0 and at <= m.now):
                    break
            tree_set(m, c, leaf_of(m, c))
            if self.violated:
                return STOP_VIOLATION
            if m.bad:
                break
        return STOP_BUDGET

    def tracked_steps(self):
        """What a checked run did last, in order (TRACK_DTYPE)."""
        n = min(self.tracked, TRACK_NR)
        rows = self.track[[(self.tracked - n + i) % TRACK_NR for i in range(n)]]
        return rows

    @property
    def violation(self):
        """(number of the invariant, folio, CPU) that a checked run stopped at, or None."""
        return (self.violated, self.ghost.folio, self.m.c) if self.violated else None

    def run(self, int64_t end, *, int64_t actions=1 << 20, int64_t touches=0, bint fuse=True):
        """Run until simulated time `end`, or for `actions` actions.

        Parameters
        ----------
        end : int
            Simulated time [ps], 0 to 2**53 - 1; actions at or after it are not made.
        actions : int
            At most that many actions.
        touches : int
            Stop when this many user touches were completed since the start; 0: no limit.
        fuse : bool
            Let a CPU go on while it is the least one without asking the tree (same digest).

        Returns
        -------
        str : why it stopped, one of `STOPS`.

        Raises
        ------
        RuntimeError : called from inside a strategy.
        SimulationError : an invariant of the model broke (an unsafe strategy).
        """
        cdef int why
        self._enter(end)
        self._set_touches(touches)
        self.running = True
        try:
            with nogil:
                if self.checked or self.m.detail:
                    why = self.loop_checked(end, actions)
                elif fuse:
                    why = self.loop_exact(end, actions)
                else:
                    why = self.loop_unfused(end, actions)
        except BaseException:
            self._rebuild_tree()
            self.settle()
            raise
        finally:
            self.running = False
        self._check_bad()
        return STOPS[why]

    def run_log(self, int64_t end, *, int64_t actions=1 << 16, int64_t touches=0):
        """As `run`, one action at a time; a structured array (LOG_DTYPE) of the actions made.

        `other` is the CPU that a FL_QUEUE called, whose request a Q_FUNC or Q_ACK served, or whose lock the CPU spins
        for from then on; of a FL_START the cause (names.CAUSES); else -1.  `irq_cost` is what the requests of the
        interrupt took so far, which Q_EXIT spends.
        """
        cdef int why = STOP_BUDGET
        cdef int64_t made = 0
        cdef machine *m = &self.m
        cdef int32_t c, hand, called
        self._enter(end)
        self._set_touches(touches)
        rows = np.zeros(actions, dtype=LOG_DTYPE)
        self.running = True
        try:
            while made < actions:
                c = next_cpu(m)
                hand = m.cpu[c].hand
                called = m.cpu[c].fl_n
                why = self.loop_checked(end, 1) if self.checked or m.detail else self.loop(end, 1)
                if why != STOP_BUDGET:
                    break
                rows[made] = (m.now, c, m.row_step, self._row_folio(c), self._row_other(c, hand, called),
                              m.row_cost, m.cpu[c].irq_cost)
                made += 1
                if m.bad:
                    break
        except BaseException:
            self._rebuild_tree()
            self.settle()
            raise
        finally:
            self.running = False
        self._check_bad()
        return rows[:made], STOPS[why]

    def _row_folio(self, int32_t c):
        cdef int32_t u = self.m.cpu[c].current
        name = names.STEPS[self.m.row_step]
        if u < 0:
            return -1
        if name.startswith("F_"):
            return self.m.task[u].f_pfn
        return self.m.task[u].folio if name[:2] in ("S_", "U_", "P_", "B_") else -1

    cdef int32_t _row_other(self, int32_t c, int32_t hand, int32_t called):
        """Of CPU c's action; what it had in hand and how many it had called before."""
        cdef const cpu_t *p = &self.m.cpu[c]
        cdef int step = self.m.row_step
        if step == ST_FL_QUEUE:
            return p.fl_scan - 1 if p.fl_n > called else -1
        if step == ST_FL_START:
            return self.m.task[p.current].fl_cause
        if step == ST_Q_FUNC or step == ST_Q_ACK:
            return hand
        return lock_of(&self.m, p).holder if p.mode == CPU_SPIN_LOCK and not p.in_irq else -1

    def _enter(self, end):
        if self.running:
            raise RuntimeError("run, step and restore cannot be called from inside a strategy")
        if not 0 <= end < 1 << 53:
            raise ValueError(f"end must be 0 to 2**53 - 1 ps, got {end}")

    def _set_touches(self, touches):
        if touches < 0:
            raise ValueError(f"touches must be >= 0, got {touches}")
        done = self.m.counter[CN_page_touches]
        self.m.cg.touches_left = max(0, touches - done) if touches else -1

    def _check_bad(self):
        if self.m.bad:
            why = {1: "no free page frame", 2: "a folio in hand lost its swap slot"}[self.m.bad]
            raise SimulationError(
                f"the simulation cannot go on: {why} at {self.m.now} ps on a strategy's watch; "
                "a strategy that gives folio locks away does this, or World.nr_folios is too small")

    # --- looking

    def view(self, name):
        """Table `name` as a read-only array over the arena, live and zero-copy.

        Raises
        ------
        KeyError : no such table; see `tables`.
        """
        offset, dtype, count = self.tables[name]
        return np.frombuffer(self.arena, dtype=dtype, count=count, offset=offset)

    def lru_order(self, int which):
        """Frames of an LRU list (an index of `names.LISTS`) from head to tail, int64.

        Raises
        ------
        SnapshotError : the list does not end where its length says.
        """
        cdef int32_t f = self.m.cg.lru_head[which], before = -1
        cdef int64_t n = 0, length = self.m.cg.lru_nr[which]
        order = np.empty(length, dtype=np.int64)
        cdef int64_t[::1] out = order
        while f >= 0:
            if n == length or self.m.folio[f].prev != before:
                raise SnapshotError(f"{names.LISTS[which]} list is broken at frame {f}")
            out[n] = f
            n += 1
            before = f
            f = self.m.folio[f].next
        if n != length or self.m.cg.lru_tail[which] != before:
            raise SnapshotError(f"{names.LISTS[which]} list holds {n} folios, its length says {length}")
        return order

    @property
    def now(self):
        """The least key [ps]: when the next action happens; None when nothing can."""
        return None if self.m.tree[1] == LEAF_INF else self.m.tree[1] >> CPU_BITS

    @property
    def touches_ahead(self):
        """Touches that were made ahead of other CPUs so far, and how many of them were taken back."""
        return self.m.touches_ahead, self.m.touches_back

    # --- snapshots

    def snapshot(self):
        """The arena's bytes."""
        if self.running:
            raise RuntimeError("snapshot cannot be called from inside a strategy")
        return bytes(self.arena)

    def restore(self, const uint8_t[::1] data):
        """Put back bytes that `snapshot` gave (trusted) or that were audited."""
        if self.running:
            raise RuntimeError("run, step and restore cannot be called from inside a strategy")
        if data.shape[0] != self.arena.nbytes:
            raise SnapshotError(f"a snapshot of {data.shape[0]} bytes does not fit a world of "
                                f"{self.arena.nbytes} bytes: it is of another world or version")
        memcpy(self.arena.data, &data[0], self.arena.nbytes)
        self.m.bad = 0
        self.run_rows[:] = 0
        self.m.nr_walkers = 0
        self._rebuild_trail()
        self._rebuild_tree()

    def _rebuild_trail(self):
        cdef machine *m = &self.m
        cdef int32_t f
        cdef int l
        for l in range(2):
            m.trail_head[l] = m.trail_tail[l] = 0
            f = m.cg.lru_tail[l]
            while f >= 0 and m.trail_head[l] < m.trail_mask:
                trail_add(m, l, f)
                f = m.folio[f].prev


def constants():
    """Limits that the audit and the documentation share."""
    return {"BATCH": BATCH, "CLUSTER": CLUSTER, "NR_ASIDS": NR_ASIDS, "INF": INF,
            "PTRS_PER_PTE": PTRS_PER_PTE, "MAX_LIST": MAX_LIST, "GATHER_PAGES": GATHER_PAGES,
            "TABLE_BATCH": TABLE_BATCH, "FLUSH_CEILING": FLUSH_CEILING, "MMAP_READ": MMAP_READ,
            "MMAP_WRITE": MMAP_WRITE, "MMAP_WAIT": MMAP_WAIT,
            "BLK_MAX_SEGMENTS": BLK_MAX_SEGMENTS, "GEN_LIST": GEN_LIST, "GEN_MASK": GEN_MASK, "GEN_ON_SHIFT": GEN_ON_SHIFT}
