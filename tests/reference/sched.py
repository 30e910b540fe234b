"""Scheduling, the kworker and exit (docs/model.md, sections 5.9 and 5.10)."""

from .state import (DEAD, DIRTY, DIRTY_PTE, HAS_CACHE, IDLE, INF, KIND, K_NONE, K_PRESENT, K_SWAP,
                    K_ZAPPED, LOCKED, NONE, NR_ASIDS, PAYLOAD, RUNNING, SWAPCACHE, SWITCHING)


class Sched:

    def unlazy(self, c):
        if c.is_lazy:
            c.is_lazy = 0
            gen = self.mms[c.loaded_mm].tlb_gen
            if c.asid_gen[c.loaded_asid] != gen:
                self.flush_all(c)
                c.asid_gen[c.loaded_asid] = gen

    def newidle(self, c):
        """A task taken from the busiest other CPU, or None."""
        best = None
        for other in self.cpus:
            if other is c or other.need_resched or not any(not u.pinned for u in other.runqueue):
                continue
            if len(other.runqueue) == 1 and other.current is None:      # nr_running is 1
                continue
            if best is None or len(other.runqueue) > len(best.runqueue):
                best = other
        if best is None:
            return None
        n = next(u for u in best.runqueue if not u.pinned)
        best.runqueue.remove(n)
        n.cpu = c.nr
        self.counter["migrations"] += 1
        return n

    def next_tick(self, c, now):
        """The first tick of c after now."""
        tick = self.world.tick
        first = c.nr * self.world.tick_skew % tick
        return first if now < first else first + ((now - first) // tick + 1) * tick

    def step_SW_PICK(self, c, t):
        c.need_resched, c.push = 0, NONE
        n = c.runqueue.popleft() if c.runqueue else self.newidle(c)
        if n is None:
            c.current, c.mode, c.tick_at = None, IDLE, INF
            if c.loaded_mm >= 0:
                c.is_lazy = 1
            c.sstep = None
            self.last_on = 1
            return
        c.current, n.state, n.cpu = n, RUNNING, c.nr
        c.slice_ticks = 0
        self.counter["context_switches"] += 1
        self.lru.use_mm(n.mm)
        if c.tick_at == INF:
            c.tick_at = self.next_tick(c, self.now)
        if c.loaded_mm == n.mm.nr:
            self.unlazy(c)
            self.spend(self.cost["context_switch"])
            c.sstep = None
        else:
            c.sstep = "SW_CLEAR"

    def step_SW_CLEAR(self, c, t):
        c.is_lazy = 0
        loaded = c.loaded_mm
        c.loaded_mm = SWITCHING
        if loaded >= 0 and not self.world.mask_lazy:
            self.mms[loaded].cpumask &= ~c.bit
        c.sstep = "SW_SET"

    def step_SW_SET(self, c, t):
        t.mm.cpumask |= c.bit
        c.sstep = "SW_GEN"

    def step_SW_GEN(self, c, t):
        """choose_new_asid"""
        c.sw_gen = t.mm.tlb_gen
        c.sstep = "SW_CR3"
        if not self.world.pcid:
            c.sw_asid, c.sw_flush = 0, 1
            return
        for a in range(NR_ASIDS):
            if c.asid_mm[a] == t.mm.nr:
                c.sw_asid, c.sw_flush = a, 1 if c.asid_gen[a] < c.sw_gen else 0
                return
        c.sw_asid = c.next_asid
        c.next_asid += 1
        if c.sw_asid >= NR_ASIDS:
            c.sw_asid, c.next_asid = 0, 1
        c.sw_flush = 1

    def step_SW_CR3(self, c, t):
        c.loaded_asid = c.sw_asid
        self.spend(self.cost["context_switch"])
        if c.sw_flush:
            c.asid_mm[c.sw_asid], c.asid_gen[c.sw_asid] = t.mm.nr, c.sw_gen
            self.flush_all(c)
            self.spend(self.cost["tlb_flush_full"])
        c.loaded_mm = t.mm.nr
        c.sstep = None

    def step_W_DRAIN(self, c, t):
        c.drain_req = 0
        self.memcg.usage -= c.stock
        c.stock = 0
        if c.loaded_mm >= 0:
            c.is_lazy = 1
        self.spend(self.cost["kworker"])
        c.sstep = "W_BACK"

    def step_W_BACK(self, c, t):
        self.lru.use_mm(t.mm)
        if c.loaded_mm == t.mm.nr:
            self.unlazy(c)
            c.sstep = None
        else:
            c.sstep = "SW_CLEAR"

    # -- exit of an OOM victim, MADV_DONTNEED ----------------------------------------------------

    def leave_mm(self, c, t):
        """A killed thread leaves; the last one takes the mm down."""
        t.have = 0
        t.mm.users -= 1
        if t.mm.users:
            t.step = "E_LEFT"
            self.block(c, t)
        else:
            t.step = "E_ZAP"

    def zap_range(self, t):
        """The virtual pages that t zaps."""
        mm = t.mm
        if not t.dontneed:
            return range(mm.base, mm.base + mm.pages)
        p = self.current_pass(t)
        return range(mm.base + p.first, mm.base + p.first + p.nr)

    def zap_region(self, t):
        """Its number, and its pages in the range."""
        mm, pages = t.mm, self.zap_range(t)
        first = mm.base + t.zap * 512
        return mm.first_region + t.zap, range(max(first, pages.start), min(first + 512, pages.stop))

    def step_E_ZAP(self, c, t):
        if not t.dontneed:
            self.lru.exit_mm(t.mm)
        mm, end = t.mm, (self.zap_range(t)[-1] - t.mm.base) // 512 + 1
        while t.zap < end and not self.pt_present[mm.first_region + t.zap]:
            t.zap += 1
        if t.zap == end:
            t.step = "E_DONE"
            return
        if not self.lock(self.ptl[mm.first_region + t.zap]):
            return
        if not self.flush_tlb_batched_pending(t, "E_PTES"):
            self.step_E_PTES(c, t)

    def step_E_PTES(self, c, t):
        mm, zapped, gathered = t.mm, 0, []
        for vp in self.zap_region(t)[1]:
            pte = self.pte[vp]
            kind = pte & KIND
            if kind == K_NONE:
                continue
            zapped += 1
            if kind == K_SWAP:
                self.pte[vp] = 0
                self.zap_swap(mm, pte >> PAYLOAD)
                continue
            gathered.append(vp)
            if kind == K_PRESENT:
                f = self.folios[pte >> PAYLOAD]
                if pte & DIRTY_PTE:
                    f.flags |= DIRTY
                f.mapcount -= 1
                mm.rss -= 1
                self.pte[vp] = K_ZAPPED | f.nr << PAYLOAD
            else:
                self.pte[vp] = 0
        self.spend(self.cost["zap_pte"] * zapped)
        if t.dontneed and not gathered:
            t.step = "E_FREE"
        else:
            self.flush(mm, gathered[0] if t.dontneed and len(gathered) == 1 else NONE, "E_FREE")

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

    def step_E_FREE(self, c, t):
        if not self.lock(self.lru_lock):
            return
        for vp in self.zap_region(t)[1]:
            pte = self.pte[vp]
            if pte & KIND == K_ZAPPED:
                self.pte[vp] = 0
                f = self.folios[pte >> PAYLOAD]
                if f.flags & SWAPCACHE and not f.mapcount and not f.flags & LOCKED:
                    self.folio_free_swap(f)
                self.put(f)
        t.step = "E_UNLOCK"

    def step_E_UNLOCK(self, c, t):
        region, _ = self.zap_region(t)
        self.unlock(self.lru_lock)
        self.unlock(self.ptl[region])
        if not t.dontneed:
            self.pt_present[region] = 0
            self.lru.region_gone(region)
            self.memcg.kernel -= 1
            self.memcg.usage -= 1
        t.zap += 1
        t.step = "E_ZAP"

    def step_E_DONE(self, c, t):
        t.zap = 0
        if t.dontneed:
            t.dontneed = 0
            self.advance(t, self.current_pass(t))
            self.next_access(t)
            return
        restarted = False
        for u in t.mm.tasks:
            if u.state == DEAD:
                continue
            u.dying = 0
            if u.restart:
                restarted = True
                u.pass_ = u.pos = 0
                u.step = "TOUCH"
                t.mm.users += 1
                if u is not t:
                    self.wake_task(u)
                continue
            u.state = DEAD
            self.alive -= 1
            if u is t:
                c.sstep = "SW_PICK"
        if restarted:
            self.counter["restarts"] += 1
            t.mm.ra_page, t.mm.ra_win, t.mm.ra_hits = -2, 0, 4
            self.lru.new_mm(t.mm)
