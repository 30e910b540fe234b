"""What must hold of the mmap_lock and of calls on an mm after every action; invariants.py calls it.

A task's *call* is a pass DONTNEED, MUNMAP, MPROTECT or MREMAP that it is in.
"""

from .state import (BLOCKED, DEAD, DONTNEED, EXCLUSIVE, FORK, GATHERS, KIND, K_NONE, K_PRESENT, K_ZAPPED,
                    MPROTECT, NONE, PAYLOAD, READ, WAITS, WRITE, WRITE_LOCK)

_WAIT_ROWS = {READ: {"F_READ", "E_ZAP"}, WRITE_LOCK: {"V_LOCK"}}
_FREES = {"V_FREE", "V_FREED"}                          # t.step, so that its flush is done
_REVERSE_MAPS = {"K_NEXT", "S_REF", "S_UNMAP", "U_DEFER", "U_CLEAR", "U_GEN", "U_MASK", "U_FLUSH", "U_SET"}
_UNMAPPING = {"U_GEN", "U_MASK", "U_FLUSH", "U_SET"}


class CallInvariants:

    def _check_calls(self):
        for mm in self.mms:
            self._check_mmap_lock(mm)
        for t in self.tasks:
            if t.state != DEAD:
                self._check_call(t, self._outer(t))
        self._check_rights()
        self._check_shares()

    # -- the mmap_lock --------------------------------------------------------------------------

    def _check_mmap_lock(self, mm):
        readers = [t for t in mm.tasks if t.mmap == READ]
        writers = [t for t in mm.tasks if t.mmap == WRITE_LOCK]
        waiting = [t for t in mm.tasks if t.mmap is not None and t.mmap > WAITS]
        assert len(readers) == mm.readers, f"mm {mm.nr}: {mm.readers} readers, {[t.nr for t in readers]}"
        assert writers == [mm.writer] * (mm.writer is not None), f"mm {mm.nr}: its writer"
        assert not (readers and writers), f"mm {mm.nr}: read and written"
        assert sorted(t.nr for t in waiting) == sorted(t.nr for t in mm.waiters), f"mm {mm.nr}: its waiters"
        assert not waiting or readers or writers, f"mm {mm.nr}: tasks wait for a lock that is free"
        if mm.waiters and readers:
            assert mm.waiters[0].mmap == WAITS + WRITE_LOCK, f"mm {mm.nr}: a reader waits for readers"
        assert mm.locks or not (readers or writers or waiting), f"mm {mm.nr} locks, and nobody can wait"
        for t in waiting:
            assert t.state == BLOCKED and t.step in _WAIT_ROWS[t.mmap - WAITS], (
                f"task {t.nr} waits for its mm in state {t.state}, {t.step}")

    def _mmap_wanted(self, t, step):
        """What t must hold of the mmap_lock: a set of the possible."""
        if step in ("F_READ", "V_LOCK") or step == "E_ZAP" and t.call == DONTNEED:
            kind = WRITE_LOCK if step == "V_LOCK" else READ
            return {None, kind, WAITS + kind}           # before it, or just given it
        if step.startswith("F_") and step != "F_RETRY":
            return {READ}
        if step[:2] in ("E_", "V_") and step != "V_CALL" and t.call is not None:
            return {READ if t.call == DONTNEED else WRITE_LOCK}
        return {None}

    # -- one call -------------------------------------------------------------------------------

    def _check_call(self, t, outer):
        if t.mm.locks:
            wanted = self._mmap_wanted(t, outer)
            assert t.mmap in wanted, f"task {t.nr} has {t.mmap} of the mmap_lock in {t.step}"
        in_call = outer[:2] in ("E_", "V_") and outer not in ("E_LEFT", "V_CALL", "V_CHILD") and not self._exits(t)
        assert in_call == (t.call is not None), f"task {t.nr}: call {t.call} in {t.step}"
        if t.call not in GATHERS:
            assert t.v_new is None, f"task {t.nr}: a lock of a move is left"
            return
        self._check_tables_gone(t, outer)
        self._check_unreachable(t)
        if outer == "V_MOVED" and t.step == outer:
            old, _, extent = self.extent(t)
            self._assert_unreachable(t, range(old, old + extent), "moved away")
        if outer in ("V_MOVE", "V_END") and t.phase != 0 and not t.dying:
            p = self.current_pass(t)
            emptied = range(p.first, p.first + (t.v_at if outer == "V_MOVE" and t.phase == 1 else p.nr))
            assert all(self.pte[t.mm.base + page] & KIND == K_NONE for page in emptied), (
                f"task {t.nr}: a page is left where it moved from")

    def _check_tables_gone(self, t, outer):
        if t.v_last and outer in ("V_FREE", "V_FREED", "V_UNMAPPED"):
            left = [r for r in self.whole_regions(t) if self.is_present(t, r)]
            assert not left, f"task {t.nr}: the page tables {left} are left in {t.step}"
            kinds = {self.pte[t.mm.base + page] & KIND for page in self.call_range(t)}
            assert kinds <= {K_NONE, K_ZAPPED}, f"task {t.nr}: {kinds} in {t.step}"

    def _check_unreachable(self, t):
        """What is freed no CPU can use."""
        base = t.mm.base
        if t.step in _FREES or t.step == "V_MORE" and t.v_next in _FREES:
            gone = [p for p in self.call_range(t) if t.v_last or self.pte[base + p] & KIND == K_ZAPPED]
            self._assert_unreachable(t, gone, "freed")
        elif t.step == "V_UNMAPPED" or t.step == "V_END" and not t.dying:
            self._assert_unreachable(t, self.call_range(t), "unmapped")

    def _assert_unreachable(self, t, pages, how):
        own = {t.mm.base + p for p in pages}
        for c in self.cpus:
            if c.loaded_mm == t.mm.nr:
                reached = self._usable(c).intersection(own)
                assert not reached, (
                    f"CPU {c.nr} can use {sorted(reached)[:3]}, {how} by task {t.nr} in {t.step}")

    def _unflushed(self, t):
        """The virtual pages that t unmapped without a page-table lock until its flush is done."""
        pages = range(0)
        if t.state != DEAD and t.call in GATHERS:
            inner, flushing = self._inner(t), t.step.startswith("FL_")
            if inner == "V_MORE":
                inner = t.v_next
            if inner in ("E_ZAP", "E_PTES", "V_TABLES", "V_FULL") or inner == "V_FREE" and (
                    flushing or not t.v_last):
                pages = self.call_range(t)
        return range(t.mm.base + pages.start, t.mm.base + pages.stop)

    # -- the right to write ---------------------------------------------------------------------

    def _check_rights(self):
        """Where R is set no PTE lets anybody write, nor any TLB but while it is being taken."""
        for vp, read_only in enumerate(self.read_only):
            pte = self.pte[vp]
            if read_only and pte & KIND == K_PRESENT:
                assert not pte & WRITE, f"PTE {vp}: {pte:#x} of a page that nobody may write"
        taking = {t.mm.nr for t in self.tasks if t.state != DEAD and t.call == MPROTECT}
        for c in self.cpus:
            if c.loaded_mm == NONE or c.loaded_mm in taking:
                continue
            for vp in self._usable(c, writing=True):
                assert not self.read_only[vp], f"CPU {c.nr} can write page {vp}, which nobody may"

    # -- fork -----------------------------------------------------------------------------------

    def _check_shares(self):
        """What two map nobody may write, nor can anybody but while the fork is under way."""
        if not self.forks:
            return
        for t in self.tasks:
            assert not t.rmap or self._inner(t) in _REVERSE_MAPS, f"task {t.nr}: rmap {t.rmap} in {t.step}"
        forking = {t.mm for t in self.tasks if t.state != DEAD and t.call == FORK}
        copied = {self.pages_of(t.folio)[t.rmap & 3] for t in self.tasks if self._inner(t) in _UNMAPPING}
        for vp, pte in enumerate(self.pte):
            if pte & KIND != K_PRESENT or self.folios[pte >> PAYLOAD].mapcount < 2:
                continue
            f = self.folios[pte >> PAYLOAD]
            assert not pte & (WRITE | EXCLUSIVE), f"PTE {vp}: {pte:#x}, folio {f.nr} is mapped twice"
            assert f.mapcount == 2, f"folio {f.nr}: mapcount {f.mapcount}"
            if self.mm_of[vp] not in forking:
                for c in self.cpus:
                    assert vp not in self._usable(c, writing=True) or vp in copied, (
                        f"CPU {c.nr} can write page {vp}, which is shared")

    def _moved_locks(self, t):
        """The regions whose locks a move of pages holds."""
        old, _, _ = self.extent(t)
        locked = {t.mm.first_region + old // 512}
        if t.v_new is not None:
            locked.add(self.ptl.index(t.v_new))
        return locked
