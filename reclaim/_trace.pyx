"""Running with a trace: as `Core.run`, one action at a time, and what each of them told.

`_mm/trace.pxd` knows which events an action has.  The steps, and so the digest, are those of any other run.
"""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t

from reclaim._core cimport Core
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport next_cpu
from reclaim._mm.trace cimport (TR_HARDIRQ, TR_NEED_RESCHED, event_t, trace_after, trace_before, traced_cpu,
                                traced_task, tracer_t)

from reclaim._core import STOPS

cnp.import_array()

NEED_RESCHED, HARDIRQ = TR_NEED_RESCHED, TR_HARDIRQ
EVENT_DTYPE = np.dtype([("at", "<i8"), ("event", "<i4"), ("cpu", "<i4"), ("task", "<i4"), ("flags", "<u4"),
                        ("v", "<i4", 6)])
assert EVENT_DTYPE.itemsize == sizeof(event_t)

cdef enum:
    STOP_BUDGET = 0           # of _core.STOPS


cdef class Tracer:
    """Takes the trace of a run from here on.

    Parameters
    ----------
    core : reclaim._core.Core
        To be run by `run` from now on; whatever else runs it meanwhile is missing from the trace.
    """

    cdef Core core
    cdef tracer_t x
    cdef object tables        # the arrays that it points to
    cdef readonly Py_ssize_t most      # events of one action

    def __cinit__(self, Core core not None):
        cdef machine *m = &core.m
        cdef int32_t c, t
        self.core = core
        self.tables = (np.zeros(m.w.nr_cpus * sizeof(traced_cpu), dtype=np.uint8),
                       np.zeros(m.w.nr_tasks * sizeof(traced_task), dtype=np.uint8),
                       np.zeros(m.w.nr_tasks, dtype=np.int32))
        self.x.cpu = <traced_cpu *>cnp.PyArray_DATA(<cnp.ndarray>self.tables[0])
        self.x.task = <traced_task *>cnp.PyArray_DATA(<cnp.ndarray>self.tables[1])
        self.x.blocked = <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>self.tables[2])
        self.x.nr_blocked = 0
        # every CPU is sent to; every task is woken, and migrates; and what one step tells of itself
        self.most = m.w.nr_cpus + 2 * m.w.nr_tasks + 16
        for c in range(m.w.nr_cpus):
            self.x.cpu[c].prev = -1
        for t in range(m.w.nr_tasks):
            self.x.task[t].cpu = m.task[t].cpu
            if m.task[t].state == TASK_BLOCKED:
                self.x.task[t].blocked = 1
                self.x.blocked[self.x.nr_blocked] = t
                self.x.nr_blocked += 1

    def run(self, int64_t end, *, int64_t actions=1 << 20, int64_t touches=0, Py_ssize_t events=1 << 14):
        """As `Core.run`, until `events` events were told, or a few more.

        Returns
        -------
        rows : array of EVENT_DTYPE
            What the actions made told; `at` of those of one CPU never falls, and is never before the time of
            their action.
        why : str
            One of `_core.STOPS`.
        """
        cdef Core core = self.core
        cdef machine *m = &core.m
        cdef int64_t left = actions
        cdef Py_ssize_t room = events
        cdef int why = STOP_BUDGET
        core._enter(end)
        core._set_touches(touches)
        rows = np.zeros(max(events, 1) + self.most, dtype=EVENT_DTYPE)
        self.x.row = <event_t *>cnp.PyArray_DATA(<cnp.ndarray>rows)
        self.x.n = 0
        core.running = True
        try:
            with nogil:
                while left > 0 and self.x.n <= room and not m.bad:
                    trace_before(m, &self.x, next_cpu(m))
                    why = core.loop_checked(end, 1) if core.checked else core.loop(end, 1)
                    if why != STOP_BUDGET:
                        break
                    trace_after(m, &self.x, core.policies)
                    left -= 1
        except BaseException:
            core._rebuild_tree()
            core.settle()
            raise
        finally:
            core.running = False
            self.x.row = NULL
        core._check_bad()
        return rows[:self.x.n], STOPS[why]
