"""The strategy slots, their built-in strategies, and the bridge to Python ones.

The contract is the table in ``docs/policies.md``; ``_policy.pxd`` holds the vtables.  A
strategy decides, the core carries out: it is asked before its step writes anything, so one
that raises leaves the world as it was.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

import operator

import numpy as np


cdef class Strategy:
    """What all strategies share.

    Attributes
    ----------
    name : str
        How the strategy is looked up.  Class attribute.
    state_dtype : numpy.dtype or None
        Declares the state that the strategy keeps between calls; it then lives in the
        simulation's arena and is part of snapshots.  Class attribute.
    state : numpy.ndarray or None
        One record of `state_dtype`, writable; None until bound to a simulation.
    """

    name = ""
    state_dtype = None

    def _bind(self, state):
        self.state = state

    def _traits(self):
        """What of the instance decides its behaviour, for provenance."""
        return {}

    def __repr__(self):
        traits = ", ".join(f"{k}={v!r}" for k, v in self._traits().items())
        return f"<{type(self).__name__} {self.name!r}{' ' + traits if traits else ''}>"


cdef class AccountingPolicy(Strategy):
    """Slot 1: where the count of reclaimed folios lives (patch 1 of v2 and v3)."""

    slot = "accounting"

    cdef int free(self, int64_t *local, int64_t *stat, int nr) except -1 nogil:
        local[0] += nr
        return 0

    cdef int64_t count(self, int64_t local, int64_t stat) noexcept nogil:
        return local + stat


cdef class Returned(AccountingPolicy):
    """A local variable of shrink_folio_list, returned (before; v4 passes a pointer to it)."""

    name = "returned"

    cdef int64_t count(self, int64_t local, int64_t stat) noexcept nogil:
        return local


cdef class ReclaimStat(AccountingPolicy):
    """reclaim_stat.nr_reclaimed; shrink_folio_list returns nothing (v1 to v3)."""

    name = "reclaim_stat"

    cdef int free(self, int64_t *local, int64_t *stat, int nr) except -1 nogil:
        stat[0] += nr
        return 0

    cdef int64_t count(self, int64_t local, int64_t stat) noexcept nogil:
        return stat


cdef class ActivationPolicy(Strategy):
    """Slot 2: what happens to a folio that cannot be reclaimed now (activate_locked)."""

    slot = "activation"

    cdef int activate(self, const folio_view *folio) except -1 nogil:
        return ACTIVATE_FREE_SWAP | ACTIVATE_SET_ACTIVE | ACTIVATE_COUNT


cdef class InlineActivation(ActivationPolicy):
    """The activate_locked label inside shrink_folio_list."""

    name = "kernel"


cdef class FolioActivateLocked(ActivationPolicy):
    """Patch 2: folio_active_bounce (v2, v3), folio_activate_locked (v4)."""

    name = "bounce"

    cdef int activate(self, const folio_view *folio) except -1 nogil:
        cdef int verdict = ACTIVATE_SET_ACTIVE | ACTIVATE_COUNT
        return verdict | ACTIVATE_FREE_SWAP


cdef class NeverActivate(ActivationPolicy):
    """Rejected folios go back to the inactive list."""

    name = "never"

    cdef int activate(self, const folio_view *folio) except -1 nogil:
        return 0


# bits of names.FOLIO_FLAGS that the dispatch looks at
cdef enum:
    F_LOCKED = 1 << 0
    F_DIRTY = 1 << 4
    F_WRITEBACK = 1 << 6


cdef class FreePolicy(Strategy):
    """Slot 3: the dispatch of pageout()'s results and when a clean folio is freed."""

    slot = "free"

    cdef int dispatch(self, int result, uint32_t flags) except -1 nogil:
        if result == PAGE_KEEP:
            return DO_KEEP_LOCKED
        if result == PAGE_ACTIVATE:
            return DO_ACTIVATE_LOCKED
        if result == PAGE_SUCCESS:
            if flags & (F_WRITEBACK | F_DIRTY):
                return DO_KEEP
            if flags & F_LOCKED:              # folio_trylock failed
                return DO_KEEP
        return DO_FREE

    cdef int free(self, uint32_t flags) except -1 nogil:
        return 1


cdef class InlineFree(FreePolicy):
    """The switch and the free_it label in shrink_folio_list."""

    name = "inline"


cdef class FolioFree(FreePolicy):
    """Patch 2 of v4: folio_free."""

    name = "folio_free"

    cdef int free(self, uint32_t flags) except -1 nogil:
        return (flags & F_DIRTY) == 0


cdef class ExtractedFree(FolioFree):
    """Patch 3: pageout_one beside folio_free."""

    name = "extracted"

    cdef int dispatch(self, int result, uint32_t flags) except -1 nogil:
        if result == PAGE_SUCCESS:
            return DO_KEEP if flags & (F_WRITEBACK | F_DIRTY | F_LOCKED) else DO_FREE
        if result == PAGE_CLEAN:
            return DO_FREE
        return DO_ACTIVATE_LOCKED if result == PAGE_ACTIVATE else DO_KEEP_LOCKED


cdef class UnmapPolicy(Strategy):
    """Slot 4: which of a list's folios are unmapped with TTU_BATCH_FLUSH."""

    slot = "unmap"

    cdef int plan(self, const list_view *folios, uint8_t *defer) except -1 nogil:
        memset(defer, 1, folios.nr)
        return 0


cdef class InlineUnmap(UnmapPolicy):
    """try_to_unmap called from shrink_folio_list, always with TTU_BATCH_FLUSH."""

    name = "kernel"


cdef class FolioTryUnmap(UnmapPolicy):
    """Patch 4: folio_try_unmap."""

    name = "extracted"

    cdef int plan(self, const list_view *folios, uint8_t *defer) except -1 nogil:
        cdef int i
        for i in range(folios.nr):
            defer[i] = 1
        return 0


cdef class ImmediateUnmap(UnmapPolicy):
    """No deferral: every PTE is cleared with ptep_clear_flush, as before 2015."""

    name = "immediate"

    cdef int plan(self, const list_view *folios, uint8_t *defer) except -1 nogil:
        memset(defer, 0, folios.nr)
        return 0


RECHECKS = ("writeback", "lru", "mapped", "pinned")


cdef class FlushPolicy(Strategy):
    """Slot 5: when the pending flushes of dirty folios are issued, and what is re-checked.

    Parameters
    ----------
    keeps_locks : bool
        The folio lock is held while a folio waits in the batch (so nothing is re-checked).
    rechecks : iterable of str
        Which of `RECHECKS` are tested after the folio was locked again.
    remainder : bool
        The unfinished batch is issued when the list ends.  False loses its folios: a planted
        defect, not a policy.
    """

    slot = "flush"

    def __init__(self, *, keeps_locks=False, rechecks=RECHECKS, remainder=True):
        unknown = [r for r in rechecks if r not in RECHECKS]
        if unknown:
            raise ValueError(f"unknown re-check {unknown[0]!r}: choose from {', '.join(RECHECKS)}")
        self.keeps_locks = bool(keeps_locks)
        self.remainder = bool(remainder)
        self.rechecks = 0
        for i, name in enumerate(RECHECKS):
            if name in rechecks:
                self.rechecks |= 1 << i

    def _traits(self):
        return {"keeps_locks": bool(self.keeps_locks), "remainder": bool(self.remainder),
                "rechecks": [r for i, r in enumerate(RECHECKS) if self.rechecks >> i & 1]}

    cdef int plan(self, const list_view *folios, uint8_t *flush_after) except -1 nogil:
        memset(flush_after, 1, folios.nr)
        return 0


cdef class PerFolioFlush(FlushPolicy):
    """try_to_unmap_flush_dirty before every pageout, the folio locked throughout (before)."""

    name = "per-folio"

    def __init__(self):
        FlushPolicy.__init__(self, keeps_locks=True)


cdef class BatchFlush(FlushPolicy):
    """Patch 5: collect `n` dirty folios, unlocked, then one flush for all of them.

    Parameters
    ----------
    n : int
        Folios in a batch, 1 to 31 (a folio_batch holds no more).
    """

    name = "batch"
    cdef readonly int n

    def __init__(self, n=31, *, keeps_locks=False, rechecks=RECHECKS, remainder=True):
        if not isinstance(n, int) or not 1 <= n <= 31:
            raise ValueError(f"batch size n must be an integer from 1 to 31, got {n!r}")
        FlushPolicy.__init__(self, keeps_locks=keeps_locks, rechecks=rechecks,
                             remainder=remainder)
        self.n = n

    def _traits(self):
        return {"n": self.n, **FlushPolicy._traits(self)}

    cdef int plan(self, const list_view *folios, uint8_t *flush_after) except -1 nogil:
        cdef int k = self.n - 1
        while k < folios.nr:
            flush_after[k] = 1
            k += self.n
        return 0


# --- the bridge to Python

cdef enum:
    MAX_LIST = 64             # of list_view


cdef class _Scratch:
    """C-owned memory that a Python strategy may keep views of, and cannot resize."""

    cdef int64_t pfn[MAX_LIST]
    cdef uint32_t flags[MAX_LIST]
    cdef uint8_t verdict[MAX_LIST]
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t stride[1]
    cdef int part

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef int size = 8 if self.part == 0 else 4 if self.part == 1 else 1
        self.shape[0] = MAX_LIST * size
        self.stride[0] = 1
        buffer.buf = (<char *>self.pfn if self.part == 0 else
                      <char *>self.flags if self.part == 1 else <char *>self.verdict)
        buffer.format = 'B'
        buffer.internal = NULL
        buffer.itemsize = 1
        buffer.len = MAX_LIST * size
        buffer.ndim = 1
        buffer.obj = self
        buffer.readonly = self.part != 2
        buffer.shape = self.shape
        buffer.strides = self.stride
        buffer.suboffsets = NULL

    def __releasebuffer__(self, Py_buffer *buffer):
        pass

    def array(self, int part, dtype):
        self.part = part
        return np.frombuffer(self, dtype=dtype, count=MAX_LIST)


cdef class _PyList:
    """The arrays through which a Python strategy sees a list and gives its verdicts."""

    cdef _Scratch scratch
    cdef object pfns
    cdef object flags
    cdef object verdict
    cdef list cut            # the three, cut to every length

    def __cinit__(self):
        self.scratch = _Scratch()
        self.pfns = self.scratch.array(0, np.int64)
        self.flags = self.scratch.array(1, np.uint32)
        self.verdict = self.scratch.array(2, np.bool_)
        self.cut = [(self.pfns[:n], self.flags[:n], self.verdict[:n]) for n in range(MAX_LIST + 1)]

    def __reduce__(self):
        return _PyList, ()

    cdef tuple load(self, const list_view *v):
        memcpy(self.scratch.pfn, v.pfn, v.nr * sizeof(int64_t))
        memcpy(self.scratch.flags, v.flags, v.nr * sizeof(uint32_t))
        memset(self.scratch.verdict, 0, v.nr)
        return <tuple>self.cut[v.nr]


cdef class PyAccountingPolicy(AccountingPolicy):
    """Subclass in Python: ``count_freed(nr) -> int``, how many the caller is told."""

    def count_freed(self, nr):
        return nr

    cdef int free(self, int64_t *local, int64_t *stat, int nr) except -1 nogil:
        cdef int64_t n
        with gil:
            n = operator.index(self.count_freed(nr))
            if not -1000000 < n < 1000000:
                raise ValueError(f"{type(self).__name__}.count_freed returned {n}, not a small count")
        stat[0] += n
        return 0

    cdef int64_t count(self, int64_t local, int64_t stat) noexcept nogil:
        return stat


cdef class PyActivationPolicy(ActivationPolicy):
    """Subclass in Python: ``activate_folio(pfn, flags, refcount, mapcount) -> bool``."""

    def activate_folio(self, pfn, flags, refcount, mapcount):
        return True

    cdef int activate(self, const folio_view *folio) except -1 nogil:
        with gil:
            if self.activate_folio(folio.pfn, folio.flags, folio.refcount, folio.mapcount):
                return ACTIVATE_FREE_SWAP | ACTIVATE_SET_ACTIVE | ACTIVATE_COUNT
            return 0


RESULTS = ("keep", "activate", "success", "clean")
ACTIONS = ("keep_locked", "activate_locked", "keep", "free")


cdef class PyFreePolicy(FreePolicy):
    """Subclass in Python: ``dispatch_result(result, flags) -> str``, ``free_folio(flags) -> bool``.

    `result` is one of `RESULTS`, the first one's return one of `ACTIONS`.  ``free_folio`` is asked
    about a clean folio that nobody else holds: False keeps it.
    """

    def dispatch_result(self, result, flags):
        if result == "success":
            return "keep" if flags & (F_WRITEBACK | F_DIRTY | F_LOCKED) else "free"
        return {"keep": "keep_locked", "activate": "activate_locked", "clean": "free"}[result]

    cdef int dispatch(self, int result, uint32_t flags) except -1 nogil:
        with gil:
            action = self.dispatch_result(RESULTS[result], flags)
            if action not in ACTIONS:
                raise ValueError(f"{type(self).__name__}.dispatch_result returned {action!r}: "
                                 f"choose from {', '.join(ACTIONS)}")
            return <int>ACTIONS.index(action)

    def free_folio(self, flags):
        return True

    cdef int free(self, uint32_t flags) except -1 nogil:
        with gil:
            return 1 if self.free_folio(flags) else 0


cdef class PyUnmapPolicy(UnmapPolicy):
    """Subclass in Python: ``plan_list(pfns, flags, defer)`` sets ``defer[i]``."""

    cdef _PyList py         # made when first asked, so that instances copy and pickle

    def plan_list(self, pfns, flags, defer):
        defer[:] = True

    cdef int plan(self, const list_view *folios, uint8_t *defer) except -1 nogil:
        with gil:
            if self.py is None:
                self.py = _PyList()
            pfns, flags, verdict = self.py.load(folios)
            self.plan_list(pfns, flags, verdict)
            memcpy(defer, self.py.scratch.verdict, folios.nr)
        return 0


cdef class PyFlushPolicy(FlushPolicy):
    """Subclass in Python: ``plan_list(pfns, flags, flush_after)`` sets ``flush_after[k]``.

    ``pfns`` (int64) and ``flags`` (uint32, bits of `reclaim.names.FOLIO_FLAGS`) are the
    folios of one shrink_folio_list call, 1 to 32 (64 with MGLRU), in its order; read-only.
    ``flush_after[k] = True`` (bool, same length, all False before) issues the batch after the
    k-th *dirty* folio of the list; a full batch of 31 and the end of the list issue it anyway.
    The arrays are reused: copy what you keep.
    """

    cdef _PyList py         # made when first asked, so that instances copy and pickle

    def plan_list(self, pfns, flags, flush_after):
        raise NotImplementedError(
            f"{type(self).__name__} must define plan_list(self, pfns, flags, flush_after)")

    cdef int plan(self, const list_view *folios, uint8_t *flush_after) except -1 nogil:
        with gil:
            if self.py is None:
                self.py = _PyList()
            pfns, flags, verdict = self.py.load(folios)
            self.plan_list(pfns, flags, verdict)
            memcpy(flush_after, self.py.scratch.verdict, folios.nr)
        return 0


cdef class Policies:
    """One strategy per slot."""

    def __cinit__(self, AccountingPolicy accounting not None, ActivationPolicy activation not None,
                  FreePolicy free not None, UnmapPolicy unmap not None, FlushPolicy flush not None):
        self.accounting = accounting
        self.activation = activation
        self.free = free
        self.unmap = unmap
        self.flush = flush

    def __iter__(self):
        return iter((self.accounting, self.activation, self.free, self.unmap, self.flush))

PYTHON = (PyAccountingPolicy, PyActivationPolicy, PyFreePolicy, PyUnmapPolicy, PyFlushPolicy)
