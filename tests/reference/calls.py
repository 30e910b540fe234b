"""munmap, mprotect, mremap, and the mmap_lock that they take (docs/model.md, sections 3 and 5.12).

Pages, and v_lo to v_at, count from the mm's first; so do regions.
"""

from .state import (EXCLUSIVE, FORK, HAS_CACHE, KIND, K_NONE, K_PRESENT, K_SWAP, K_ZAPPED, MPROTECT, MREMAP,
                    PAYLOAD, READ, WAITS, WRITE, WRITE_LOCK, Z)

_TABLE_BATCH = 509                  # MAX_TABLE_BATCH


class Calls:

    # -- the mmap_lock (kernel/locking/rwsem.c) --------------------------------------------------

    def mmap_lock(self, c, t, kind):
        """True: t has it.  False: it waits, and the step is over."""
        mm = t.mm
        if not mm.locks or t.mmap == kind:
            return True
        assert t.mmap is None, f"task {t.nr} has the mmap_lock, and wants it to {kind}"
        if mm.waiters or mm.writer or (kind == WRITE_LOCK and mm.readers):
            t.mmap = WAITS + kind
            mm.waiters.append(t)
            self.block(c, t)
            return False
        self.mmap_grant(t, kind)
        return True

    def mmap_grant(self, t, kind):
        t.mmap = kind
        if kind == WRITE_LOCK:
            t.mm.writer = t
        else:
            t.mm.readers += 1

    def mmap_unlock(self, t):
        mm = t.mm
        if t.mmap is None:
            return
        if t.mmap == READ:
            mm.readers -= 1
        else:
            mm.writer = None
        t.mmap = None
        if mm.readers or not mm.waiters:
            return
        kind = mm.waiters[0].mmap - WAITS
        due = [u for u in mm.waiters if u.mmap == WAITS + READ] if kind == READ else [mm.waiters[0]]
        for u in due:
            mm.waiters.remove(u)
            self.mmap_grant(u, kind)
            self.wake_task(u)

    # -- what the rows share --------------------------------------------------------------------

    def gather(self, t, page):
        """tlb_flush_pte_range of one page"""
        t.v_lo = page if not t.v_hi else min(t.v_lo, page)
        t.v_hi = max(t.v_hi, page + 1)

    def tlb_flush(self, t, ret):
        """What was gathered is flushed, before `ret`."""
        if t.v_hi:
            self.flush_range(t.mm, t.v_lo, t.v_hi, int(t.v_tables > 0), ret)
        else:
            t.step = ret
        t.v_hi = t.v_tables = 0

    def more(self, t, then):
        t.v_next = then
        t.step = "V_MORE"

    def step_V_MORE(self, c, t):
        if not self.resched_guard(c, t):
            t.step = t.v_next

    def is_present(self, t, region):
        return bool(self.pt_present[t.mm.first_region + region])

    def call_return(self, t):
        self.mmap_unlock(t)
        t.zap, t.call = 0, None
        self.advance(t, self.current_pass(t))
        self.next_access(t)

    # -- entry and return -----------------------------------------------------------------------

    def step_V_CALL(self, c, t):
        if self.resched_guard(c, t):
            return
        if t.dying:
            self.leave_mm(c, t)
            return
        t.call, t.phase = self.current_pass(t).kind, 0
        self.spend(max(1, self.cost["fault_entry"]))
        t.step = "V_LOCK"

    def step_V_LOCK(self, c, t):
        if self.mmap_lock(c, t, WRITE_LOCK):
            t.zap = self.call_regions(t).start
            t.v_hi = t.v_tables = 0
            if t.call == FORK:
                t.step = "V_END" if self.is_forked(t.mm) else "V_FORK"
            else:
                t.step = "V_PROT" if t.call == MPROTECT else "V_UNMAP"

    def step_V_END(self, c, t):
        if t.call != MPROTECT:
            self.spend(self.cost["fault_entry"])        # the mmap; a fork's is taken to be as long
        self.call_return(t)

    # -- munmap; its page tables are zapped by E_ZAP (zap.py) ------------------------------------

    def step_V_UNMAP(self, c, t):
        t.zap = self.call_regions(t).start
        t.v_hi = t.v_nr = t.v_tables = t.v_last = 0
        t.step = "E_ZAP"
        if c.has_batched():
            self.start_drain(t, 7, "E_ZAP")

    def step_V_FULL(self, c, t):
        self.unlock(self.ptl[t.mm.first_region + t.zap])
        if t.v_hi == self.pages_in(t, t.zap).stop:
            t.zap += 1
        t.v_hi = t.v_nr = 0
        t.v_at = self.call_regions(t).start
        t.step = "V_FREE"

    def whole_regions(self, t):
        """Those of the range of which all pages that the mm has are in the range."""
        pages, end = self.call_range(t), t.mm.pages
        return [r for r in self.call_regions(t)
                if pages.start <= r * 512 and min(r * 512 + 512, end) <= pages.stop]

    def step_V_TABLES(self, c, t):
        """free_pgtables"""
        for region in self.whole_regions(t):
            if not self.is_present(t, region):
                continue
            self.free_table(t.mm.first_region + region)
            self.gather(t, region * 512)
            t.v_tables += 1
            if t.v_tables == _TABLE_BATCH:
                self.tlb_flush(t, "V_TABLES")
                return
        t.v_last, t.v_nr = 1, 0
        t.v_at = self.call_regions(t).start
        self.tlb_flush(t, "V_FREE")

    def is_zapped(self, t, region):
        base = t.mm.base
        return any(self.pte[base + p] & KIND == K_ZAPPED for p in self.pages_in(t, region))

    def step_V_FREE(self, c, t):
        """tlb_batch_pages_flush"""
        end = self.call_regions(t).stop
        while t.v_at < end and not self.is_zapped(t, t.v_at):
            t.v_at += 1
        if t.v_at == end:
            t.step = "V_UNMAPPED" if t.v_last else "E_ZAP"
        elif self.lock(self.lru_lock):
            base = t.mm.base
            self.free_zapped([base + p for p in self.pages_in(t, t.v_at)])
            t.step = "V_FREED"

    def step_V_FREED(self, c, t):
        self.unlock(self.lru_lock)
        t.v_at += 1
        self.more(t, "V_FREE")

    def step_V_UNMAPPED(self, c, t):
        base = t.mm.base
        for p in self.call_range(t):
            self.pte[base + p] = self.read_only[base + p] = 0
        if t.call == MREMAP and t.phase == 0:
            t.phase, t.v_at = 1, 0
            t.step = "V_MOVE"
        else:
            t.step = "V_END"

    # -- mprotect -------------------------------------------------------------------------------

    def wanted(self, t):
        """R of the range after the call"""
        return 0 if self.current_pass(t).write else 1

    def to_change(self, t, region):
        """The virtual pages of the range there whose R is to change."""
        base, want = t.mm.base, self.wanted(t)
        return [base + p for p in self.pages_in(t, region) if self.read_only[base + p] != want]

    def step_V_PROT(self, c, t):
        end = self.call_regions(t).stop
        while t.zap < end:
            pages = self.to_change(t, t.zap)
            if pages and self.is_present(t, t.zap):
                break
            for vp in pages:                            # passed over
                self.read_only[vp] = self.wanted(t)
            t.zap += 1
        if t.zap == end:
            self.tlb_flush(t, "V_END")
            return
        if not self.lock(self.ptl[t.mm.first_region + t.zap]):
            return
        if not self.flush_tlb_batched_pending(t, "V_PTES"):
            self.step_V_PTES(c, t)

    def step_V_PTES(self, c, t):
        """change_pte_range"""
        want, pages = self.wanted(t), self.to_change(t, t.zap)
        for vp in pages:
            self.read_only[vp] = want
            pte = self.pte[vp]
            if pte & KIND != K_PRESENT:
                continue
            if want:
                new = pte & ~WRITE
            else:                                       # can_change_pte_writable
                new = pte | WRITE if pte & EXCLUSIVE else pte
            if new != pte:
                self.pte[vp] = new
                self.gather(t, vp - t.mm.base)
        self.spend(self.cost["walk_pte"] * len(pages))
        self.unlock(self.ptl[t.mm.first_region + t.zap])
        t.zap += 1
        self.more(t, "V_PROT")

    # -- mremap ---------------------------------------------------------------------------------

    def extent(self, t):
        """(old, new, extent): what is moved in one piece."""
        p = self.current_pass(t)
        old = p.first + t.v_at
        new = old + p.stride
        return old, new, min(p.nr - t.v_at, 512 - old % 512, 512 - new % 512)

    def move_words(self, t, old, new, extent):
        base = t.mm.base
        for i in range(extent):
            self.move_word(base + old + i, base + new + i)

    def move_word(self, o, n):
        pte = self.pte[o]
        self.pte[n], self.read_only[n] = pte, self.read_only[o]
        self.pte[o], self.read_only[o] = pte & Z, 0
        f = None
        if pte & KIND == K_PRESENT:
            f = self.folios[pte >> PAYLOAD]
        elif pte & KIND == K_SWAP and self.slot_count[pte >> PAYLOAD] & HAS_CACHE:
            f = self.slot_folio(pte >> PAYLOAD)
        if f is not None and f.vp == o:
            f.vp = n

    def step_V_MOVE(self, c, t):
        """move_page_tables"""
        nr = self.current_pass(t).nr
        while t.v_at < nr:
            old, new, extent = self.extent(t)
            if self.is_present(t, old // 512):
                break
            self.move_words(t, old, new, extent)
            t.v_at += extent
        if t.v_at == nr:
            t.phase = 2
            t.step = "V_UNMAP"
        elif not self.is_present(t, new // 512) and extent != 512:
            self.start_charge(t, "V_PT")
        elif self.lock(self.ptl[t.mm.first_region + old // 512]):
            t.step = "V_MOVE_NEW"

    def step_V_PT(self, c, t):
        """__pte_alloc"""
        if t.c_failed:
            t.step = "V_END"
            return
        _, new, _ = self.extent(t)
        self.pt_present[t.mm.first_region + new // 512] = 1
        self.memcg.kernel += 1
        t.step = "V_MOVE"

    def moves_table(self, t, new, extent):
        """The page table goes as it is: move_normal_pmd."""
        return extent == 512 and not self.is_present(t, new // 512)

    def step_V_MOVE_NEW(self, c, t):
        old, new, extent = self.extent(t)
        t.v_new = None
        if old // 512 != new // 512:
            ptl = self.ptl[t.mm.first_region + new // 512]
            if not self.lock(ptl):
                return
            t.v_new = ptl
        if self.moves_table(t, new, extent) or not self.flush_tlb_batched_pending(t, "V_MOVE_PTES"):
            self.step_V_MOVE_PTES(c, t)

    def step_V_MOVE_PTES(self, c, t):
        """move_ptes, move_normal_pmd"""
        mm = t.mm
        old, new, extent = self.extent(t)
        kinds = [pte & KIND for pte in self.pte[mm.base + old:mm.base + old + extent]]
        n = len(kinds) - kinds.count(K_NONE)
        need_flush = n > kinds.count(K_SWAP)
        if self.moves_table(t, new, extent):
            n, need_flush = 1, True
            self.move_table(mm.first_region + old // 512, mm.first_region + new // 512)
        self.move_words(t, old, new, extent)
        self.spend(self.cost["walk_pte"] * n)
        if need_flush:
            self.flush_range(mm, old, old + extent, 0, "V_MOVED")
        else:
            t.step = "V_MOVED"

    def move_table(self, old, new):
        self.pt_present[old] = 0
        self.lru.region_gone(old)
        self.pt_present[new] = 1
        self.lru.walked(new)

    def step_V_MOVED(self, c, t):
        base = t.mm.base
        old, new, extent = self.extent(t)
        for i in range(extent):
            self.pte[base + new + i] = self.pte[base + new + i] & ~Z | self.pte[base + old + i] & Z
            self.pte[base + old + i] = 0
        if t.v_new is not None:
            self.unlock(t.v_new)
            t.v_new = None
        self.unlock(self.ptl[t.mm.first_region + old // 512])
        t.v_at += extent
        self.more(t, "V_MOVE")
