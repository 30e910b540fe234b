# What other Cython modules may use of the core: the machine and one action of it.

cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t

from reclaim._policy cimport Policies
from reclaim._mm.types cimport cpu_t, machine, task_t
from reclaim._mm.ghost cimport ghost_t

cdef int act_alone(machine *m, int32_t c, int64_t interrupt, Policies s) except -1 nogil

cdef class Arena:
    cdef object buffer
    cdef char *data
    cdef Py_ssize_t nbytes
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]

@cython.final
cdef class Core:
    cdef machine m
    cdef readonly Arena arena
    cdef readonly object tables
    cdef readonly str layout
    cdef readonly Policies policies
    cdef object passes
    cdef object trace
    cdef bint running
    cdef bint in_python       # a strategy may look at the world: no touch is made ahead
    cdef void settle(self) noexcept nogil
    cdef int64_t[::1] tree
    cdef int64_t[:, ::1] run_rows
    cdef int64_t[:, ::1] walk_rows
    cdef int32_t[::1] walkers
    cdef int32_t[:, ::1] trail
    cdef readonly bint checked        # every action is watched
    cdef ghost_t ghost
    cdef list ghosts          # the arrays that it points to
    cdef object track
    cdef char *track_rows
    cdef int64_t tracked
    cdef int violated         # and by which CPU: m.c
    cdef void *_ghosts(self, int64_t n) except NULL
    cdef unsigned char watched[256]
    cdef void remember(self, int32_t c, int step, int64_t made) noexcept nogil
    cdef void fetch_slot(self, uint64_t pte) noexcept nogil
    cdef void fetch_touch(self, int32_t c, const task_t *t) noexcept nogil
    cdef void fetch(self, const task_t *t, int32_t c, int step) noexcept nogil
    cdef int64_t unwatched(self, cpu_t *p, int step, int kind, int64_t budget) except -1 nogil
    cdef int64_t watch_steps(self, cpu_t *p, int step, int64_t room) except -1 nogil
    cdef int loop_checked(self, int64_t end, int64_t budget) except -1 nogil
    cdef int32_t _row_other(self, int32_t c, int32_t hand, int32_t called)
    cdef int metered_step(self) except -1 nogil
    cdef int loop(self, int64_t end, int64_t budget) except -1 nogil
    cdef int loop_exact(self, int64_t end, int64_t budget) except -1 nogil
    cdef int loop_unfused(self, int64_t end, int64_t budget) except -1 nogil
