"""Zaps of page tables: exit of an OOM victim, MADV_DONTNEED, and the first half of munmap
(docs/model.md, section 5.10).
"""

from .state import (DEAD, DIRTY, DIRTY_PTE, DONTNEED, GATHERS, HAS_CACHE, KIND, K_NONE, K_PRESENT, K_SWAP,
                    K_ZAPPED, LOCKED, MREMAP, NONE, PAYLOAD, READ, SWAPCACHE)

FULL_GATHER = 9678                  # folios that the batches of an mmu_gather hold


class Zap:

    def leave_mm(self, c, t):
        """A killed thread leaves; the last one takes the mm down."""
        t.have = 0
        t.mm.users -= 1
        if t.mm.users:
            t.step = "E_LEFT"
            self.block(c, t)
        else:
            t.step = "E_ZAP"

    # -- ranges; pages count from the mm's first, regions too ------------------------------------

    def call_range(self, t):
        """The pages that t's call is about, or all of the mm."""
        if t.call is None:
            return range(t.mm.pages)
        p = self.current_pass(t)
        first = p.first + (p.stride if t.call == MREMAP and t.phase == 0 else 0)
        return range(first, first + p.nr)

    def call_regions(self, t):
        pages = self.call_range(t)
        return range(pages.start // 512, pages[-1] // 512 + 1)

    def pages_in(self, t, region):
        """The pages of the call's range in one of its regions."""
        pages = self.call_range(t)
        return range(max(region * 512, pages.start), min(region * 512 + 512, pages.stop))

    def zap_region(self, t):
        """The number of the region that is zapped, and its virtual pages in the range."""
        mm, pages = t.mm, self.pages_in(t, t.zap)
        return mm.first_region + t.zap, range(mm.base + pages.start, mm.base + pages.stop)

    # -- rows -----------------------------------------------------------------------------------

    def step_E_ZAP(self, c, t):
        if t.call is None:
            self.lru.exit_mm(t.mm)
        if t.call == DONTNEED and not self.mmap_lock(c, t, READ):
            return
        mm, end = t.mm, self.call_regions(t).stop
        while t.zap < end and not self.pt_present[mm.first_region + t.zap]:
            t.zap += 1
        if t.zap == end:
            t.step = "V_TABLES" if t.call in GATHERS else "E_DONE"
            return
        if not self.lock(self.ptl[mm.first_region + t.zap]):
            return
        if not self.flush_tlb_batched_pending(t, "E_PTES"):
            self.step_E_PTES(c, t)

    def step_E_PTES(self, c, t):
        mm, zapped, gathered = t.mm, 0, []
        region, pages = self.zap_region(t)
        full = False
        for vp in pages:
            pte = self.pte[vp]
            kind = pte & KIND
            if kind == K_NONE:
                continue
            zapped += 1
            self.pte[vp] = 0
            if kind == K_SWAP:
                self.zap_swap(mm, pte >> PAYLOAD)
                continue
            gathered.append(vp)
            if kind == K_PRESENT:
                self.zap_present(mm, vp, pte)
            if t.call in GATHERS:
                self.gather(t, vp - mm.base)
                t.v_nr += kind == K_PRESENT
                full = t.v_nr == FULL_GATHER
                if full:
                    break
        self.spend(self.cost["zap_pte"] * zapped)
        if full:
            self.flush_range(mm, t.v_lo, t.v_hi, 0, "V_FULL")
        elif t.call in GATHERS:
            self.unlock(self.ptl[region])
            t.zap += 1
            self.more(t, "E_ZAP")
        elif t.call == DONTNEED and not gathered:
            t.step = "E_FREE"
        else:
            self.flush(mm, gathered[0] if t.call == DONTNEED and len(gathered) == 1 else NONE, "E_FREE")

    def zap_present(self, mm, vp, pte):
        f = self.folios[pte >> PAYLOAD]
        if pte & DIRTY_PTE:
            f.flags |= DIRTY
        f.mapcount -= 1
        mm.rss -= 1
        self.pte[vp] = K_ZAPPED | f.nr << PAYLOAD

    def zap_swap(self, mm, s):
        assert self.map_count(s)
        self.slot_count[s] -= 1
        mm.swapents -= 1
        if self.map_count(s):
            return
        f = self.slot_folio(s)
        if f is not None:
            if not f.mapcount and not f.flags & LOCKED:
                f.refcount += 1
                self.folio_free_swap(f)
                self.put(f)
        elif not self.slot_count[s] & HAS_CACHE:
            self.slot_free(s)

    def free_zapped(self, pages):
        """The folios of ZAPPED PTEs, with the LRU lock held; some virtual pages."""
        for vp in pages:
            pte = self.pte[vp]
            if pte & KIND == K_ZAPPED:
                self.pte[vp] = 0
                f = self.folios[pte >> PAYLOAD]
                if f.flags & SWAPCACHE and not f.mapcount and not f.flags & LOCKED:
                    self.folio_free_swap(f)
                self.put(f)

    def step_E_FREE(self, c, t):
        if self.lock(self.lru_lock):
            self.free_zapped(self.zap_region(t)[1])
            t.step = "E_UNLOCK"

    def step_E_UNLOCK(self, c, t):
        region, _ = self.zap_region(t)
        self.unlock(self.lru_lock)
        self.unlock(self.ptl[region])
        if t.call is None:
            self.free_table(region)
        t.zap += 1
        t.step = "E_ZAP"

    def free_table(self, region):
        self.pt_present[region] = 0
        self.lru.region_gone(region)
        self.memcg.kernel -= 1
        self.uncharge(1)

    def step_E_DONE(self, c, t):
        if t.call == DONTNEED:
            self.call_return(t)
            return
        t.zap = 0
        mm = t.mm
        self.read_only[mm.base:mm.base + mm.pages] = [0] * mm.pages
        restarted = False
        for u in mm.tasks:
            if u.state == DEAD:
                continue
            u.dying = 0
            if u.restart:
                restarted = True
                u.pass_ = u.pos = 0
                u.step = "TOUCH"
                mm.users += 1
                if u is not t:
                    self.wake_task(u)
                continue
            u.state = DEAD
            self.alive -= 1
            if u is t:
                c.sstep = "SW_PICK"
        if restarted:
            self.counter["restarts"] += 1
            mm.ra_page, mm.ra_win, mm.ra_hits = -2, 0, 4
            self.lru.new_mm(mm)
