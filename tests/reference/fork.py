"""fork, and folios that a parent and its child both map (docs/model.md, section 5.13).

Pages count from the mm's first, as in calls.py; `vp` is a virtual page of all.
"""

from .state import (EXCLUSIVE, KIND, K_NONE, K_PRESENT, K_SWAP, NONE, PAYLOAD, WRITE, YOUNG, Z)

_PAGE, _YOUNG = 3, 4                # of a task's `rmap`: which mapping is next; one was young


class Fork:

    # -- who maps a folio -----------------------------------------------------------------------

    def peer_of(self, vp):
        """The same page of the other of parent and child."""
        mm = self.mm_of[vp]
        return mm.peer.base + vp - mm.base

    def pages_of(self, f):
        """The virtual pages that may map f, the parent's first."""
        mm = self.mm_of[f.vp]
        if mm.peer is None:
            return [f.vp]
        return sorted((f.vp, self.peer_of(f.vp)), key=lambda vp: self.mm_of[vp].is_child)

    def maps(self, vp, f):
        pte = self.pte[vp]
        return pte & KIND == K_PRESENT and pte >> PAYLOAD == f.nr

    def next_page(self, t, f):
        """Where the reverse map of f goes on, as a look without the lock tells; None: nowhere."""
        if not f.mapcount:
            return None
        start, t.rmap = t.rmap & _PAGE, t.rmap & ~_PAGE
        for i, vp in enumerate(self.pages_of(f)):
            if i >= start and self.maps(vp, f):
                t.rmap |= i
                return vp
        t.rmap |= 2
        return None

    def look_at_next(self, t, f):
        """folio_referenced of one mapping; True: the row is over, and comes again."""
        vp = self.next_page(t, f)
        if vp is None:
            return False
        ptl = self.ptl_of(vp)
        if self.lock(ptl):
            if self.maps(vp, f) and self.pte[vp] & YOUNG and self.mm_of[vp].recency:
                self.pte[vp] &= ~YOUNG
                t.rmap |= _YOUNG
            self.unlock(ptl)
            t.rmap += 1
        return True

    def looked_at(self, t):
        """After the last mapping: was one of them young?"""
        young, t.rmap = bool(t.rmap & _YOUNG), 0
        return young

    def unmap_page(self, t):
        """The virtual page that the rows U_ are about."""
        f = t.folio
        return self.pages_of(f)[t.rmap & _PAGE] if self.forks else f.vp

    def unmap_next(self, t, f):
        """S_UNMAP"""
        vp = self.next_page(t, f)
        if vp is None:
            t.rmap = 0
            self.spend(self.cost["scan"])
            t.step = "S_PIN"
        elif self.lock(self.ptl_of(vp)):
            if self.maps(vp, f):
                t.step = "U_DEFER"
            else:
                self.unlock(self.ptl_of(vp))
                t.rmap += 1

    def written_zero(self, f):
        """P_WRITE: is what goes to f's slot all zero?"""
        if f.vp == NONE:
            return False
        if not self.forks:
            return bool(self.pte[f.vp] & Z)
        for vp in self.pages_of(f):
            if self.pte[vp] & KIND == K_SWAP and self.pte[vp] >> PAYLOAD == f.slot:
                return bool(self.pte[vp] & Z)
        return False

    # -- the call -------------------------------------------------------------------------------

    def is_forked(self, mm):
        child, = mm.child.tasks
        return child.step != "V_CHILD"

    def step_V_FORK(self, c, t):
        """copy_page_range"""
        end = self.call_regions(t).stop
        while t.zap < end and not self.is_present(t, t.zap):
            t.zap += 1
        child = t.mm.child.first_region + t.zap
        if t.zap == end:
            self.flush(t.mm, NONE, "V_FORKED")
        elif not self.pt_present[child]:
            self.start_charge(t, "V_FORK_PT")
        elif self.lock(self.ptl[child]):
            t.step = "V_FORK_PTES"

    def step_V_FORK_PT(self, c, t):
        """__pte_alloc"""
        t.step = "V_FORK"
        if t.c_failed:
            t.zap = self.call_regions(t).stop
            return
        self.pt_present[t.mm.child.first_region + t.zap] = 1
        self.memcg.kernel += 1

    def step_V_FORK_PTES(self, c, t):
        """copy_pte_range, with the child's PTL held"""
        mm, copied = t.mm, 0
        if not self.lock(self.ptl[mm.first_region + t.zap]):
            return
        for p in self.pages_in(t, t.zap):
            copied += self.pte[mm.base + p] & KIND != K_NONE
            self.copy_pte(mm.base + p, mm.child)
        self.spend(self.cost["walk_pte"] * copied)
        self.unlock(self.ptl[mm.first_region + t.zap])
        self.unlock(self.ptl[mm.child.first_region + t.zap])
        t.zap += 1
        self.more(t, "V_FORK")

    def copy_pte(self, vp, child):
        pte, kind, peer = self.pte[vp], self.pte[vp] & KIND, self.peer_of(vp)
        if kind == K_PRESENT:
            f = self.folios[pte >> PAYLOAD]
            pte &= ~(WRITE | EXCLUSIVE)
            f.mapcount += 1
            f.refcount += 1
            child.rss += 1
        elif kind == K_SWAP:
            pte &= ~EXCLUSIVE
            self.slot_count[pte >> PAYLOAD] += 1
            child.swapents += 1
        self.pte[vp] = pte
        self.pte[peer] = pte if kind == K_SWAP else pte & ~YOUNG
        self.read_only[peer] = self.read_only[vp]

    def step_V_FORKED(self, c, t):
        """wake_up_new_task"""
        for p in self.call_range(t):
            vp = t.mm.base + p
            peer = self.peer_of(vp)
            self.pte[peer] = self.pte[peer] & ~Z | self.pte[vp] & Z
        child, = t.mm.child.tasks
        child.step, child.cpu = "TOUCH", c.nr
        self.wake_task(child)
        t.step = "V_END"
