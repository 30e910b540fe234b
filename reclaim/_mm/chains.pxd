# Runs of steps that take no time: made one after the other where the budget of actions has room
# for all of them, with no look at the step's number in between.
#
# Each is called with its first step made and says what is left of the budget.  In all of these
# rows interrupts are on.  A step that took time, waits, gave way or changed another CPU's key has
# set m.turn, and ends the run.

from libc.stdint cimport int64_t

from reclaim._policy cimport Policies
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.memcg cimport step_C_TRY
from reclaim._mm.memory cimport *
from reclaim._mm.vmscan cimport *

cdef enum:
    CHAIN = 16                # steps of the longest one, to where it looks at the budget again


cdef inline bint goes_on(const machine *m, const task_t *t, int step) noexcept nogil:
    return t.step == step and not m.turn


# --- faults

cdef inline int64_t fault_chain(machine *m, cpu_t *p, task_t *t, int64_t left) noexcept nogil:
    """From F_READ to the read of a page that is in swap."""
    if t.step != ST_F_CACHE:
        return left
    step_F_CACHE(m, p, t)
    if t.step != ST_F_ALLOC:
        return left - 1
    step_F_ALLOC(m, p, t)
    if m.turn:
        return left - 2
    step_C_TRY(m, p, t)
    if not goes_on(m, t, ST_F_CHARGED):
        return left - 3
    step_F_CHARGED(m, p, t)
    if t.step != ST_F_PREPARE:
        return left - 4
    step_F_PREPARE(m, p, t)
    if not goes_on(m, t, ST_F_SWAP_READ):
        return left - 5
    step_F_SWAP_READ(m, p, t)
    return left - 6

cdef inline int64_t done_chain(machine *m, cpu_t *p, task_t *t, int64_t left) noexcept nogil:
    """From F_SWAP_MAP to the end of the fault."""
    if not goes_on(m, t, ST_F_DONE):
        return left
    step_F_DONE(m, p, t)
    return left - 1


# --- shrink_folio_list

cdef inline int64_t unmap_chain(machine *m, cpu_t *p, task_t *t, int64_t left) noexcept nogil:
    """From S_UNMAP to U_SET."""
    if not goes_on(m, t, ST_U_DEFER):
        return left
    step_U_DEFER(m, p, t)
    step_U_CLEAR(m, p, t)
    if t.step != ST_U_GEN:
        return left - 2
    step_U_GEN(m, p, t)
    step_U_MASK(m, p, t)
    step_U_SET(m, p, t)
    return left - 5

cdef inline int64_t slot_chain(machine *m, cpu_t *p, task_t *t, int64_t left) noexcept nogil:
    """From S_SLOT to U_SET."""
    if not goes_on(m, t, ST_S_ADD):
        return left
    step_S_ADD(m, p, t)
    step_S_UNMAP(m, p, t)
    return unmap_chain(m, p, t, left - 2)

cdef inline int64_t scan_chain(machine *m, cpu_t *p, task_t *t, Policies s, int64_t left) except -1 nogil:
    """From S_NEXT on, folio after folio, to U_SET of one that is not young."""
    p.last_on = 1                     # a strategy may raise
    while goes_on(m, t, ST_S_LOCK):
        step_S_LOCK(m, p, t)
        left -= 1
        if not goes_on(m, t, ST_S_WB):
            return left
        step_S_WB(m, p, t, s)
        left -= 1
        if not goes_on(m, t, ST_S_REF):
            return left
        step_S_REF(m, p, t, s)
        left -= 1
        if goes_on(m, t, ST_S_SLOT):
            step_S_SLOT(m, p, t, s)
            return slot_chain(m, p, t, left - 1)
        if left <= CHAIN or not goes_on(m, t, ST_S_NEXT):
            return left
        step_S_NEXT(m, p, t)
        left -= 1
    return left

cdef inline int64_t write_chain(machine *m, cpu_t *p, task_t *t, int64_t left) noexcept nogil:
    """From P_OUT to P_WRITE."""
    if not goes_on(m, t, ST_P_WRITE):
        return left
    step_P_WRITE(m, p, t)
    return left - 1

cdef inline int64_t pin_chain(machine *m, cpu_t *p, task_t *t, Policies s, int64_t left) except -1 nogil:
    """From S_PIN: into the batch and on to the next folio, or to the write."""
    if not goes_on(m, t, ST_S_DIRTY):
        return left
    step_S_DIRTY(m, p, t)
    left -= 1
    p.last_on = 1
    if goes_on(m, t, ST_S_NEXT):
        step_S_NEXT(m, p, t)
        return scan_chain(m, p, t, s, left - 1)
    if goes_on(m, t, ST_P_OUT):
        step_P_OUT(m, p, t, s)
        return write_chain(m, p, t, left - 1)
    return left

cdef inline int64_t relock_chain(machine *m, cpu_t *p, task_t *t, int64_t left) noexcept nogil:
    """From B_LOCK on, folio after folio of the batch."""
    while left > CHAIN and goes_on(m, t, ST_B_LOCK):
        step_B_LOCK(m, p, t)
        left -= 1
    return left

cdef inline int64_t out_chain(machine *m, cpu_t *p, task_t *t, Policies s, int64_t left) except -1 nogil:
    """From B_OUT to P_WRITE, or on to the next folio of the list."""
    p.last_on = 1
    if goes_on(m, t, ST_P_OUT):
        step_P_OUT(m, p, t, s)
        return write_chain(m, p, t, left - 1)
    if goes_on(m, t, ST_S_NEXT):
        step_S_NEXT(m, p, t)
        return scan_chain(m, p, t, s, left - 1)
    return left

cdef inline int64_t end_chain(machine *m, cpu_t *p, task_t *t, Policies s, int64_t left) except -1 nogil:
    """From P_END: the folio is freed, and on to the next one."""
    p.last_on = 1
    step_P_DISPATCH(m, p, t, s)
    left -= 1
    if not goes_on(m, t, ST_S_FREE):
        return left
    step_S_FREE(m, p, t, s)
    left -= 1
    if goes_on(m, t, ST_S_NEXT):
        step_S_NEXT(m, p, t)
        return scan_chain(m, p, t, s, left - 1)
    if goes_on(m, t, ST_B_OUT):
        step_B_OUT(m, p, t)
        return out_chain(m, p, t, s, left - 1)
    return left
