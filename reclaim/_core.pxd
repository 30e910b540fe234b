# What other Cython modules may use of the core: the machine and one action of it.

from libc.stdint cimport int64_t

from reclaim._policy cimport Policies
from reclaim._mm.types cimport cpu_t, machine, task_t

cdef class Arena:
    cdef object buffer
    cdef char *data
    cdef Py_ssize_t nbytes
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]

cdef class Core:
    cdef machine m
    cdef readonly Arena arena
    cdef readonly object tables
    cdef readonly str layout
    cdef readonly Policies policies
    cdef object passes
    cdef object trace
    cdef bint running
    cdef int64_t[::1] tree
    cdef int act(self) except -1 nogil
    cdef void enter_irq(self, int64_t now, int64_t at) noexcept nogil
    cdef int step(self, cpu_t *p) except -1 nogil
    cdef int loop(self, int64_t end, int64_t budget, bint fuse) except -1 nogil
