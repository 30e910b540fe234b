"""Faults (docs/model.md, section 5.2).  Here f is the task's f_pfn unless said."""

from .state import (DIRTY_PTE, EXCLUSIVE, HAS_CACHE, KIND, K_NONE, K_PRESENT, K_SWAP, K_ZERO, K_ZAPPED,
                    LOCKED, LRU, ON_SWAPCACHE, PAYLOAD, READ, RECLAIM, SLOT_ZERO, SWAPCACHE, WAIT_LOCKED,
                    WRITE, WRITEBACK, YOUNG, Z, NONE)

_FRESH = K_PRESENT | YOUNG | DIRTY_PTE | WRITE | EXCLUSIVE


class Faults:

    def is_orig(self, t):
        """The PTE is f_orig: in all bits but Z (and R, which is not in `pte`)."""
        return not (self.pte[t.vp] ^ t.f_orig) & ~Z

    def step_F_READ(self, c, t):
        if not self.mmap_lock(c, t, READ):
            return
        if t.write and self.read_only[t.vp]:            # access_error: a signal, whose handler returns
            self.mmap_unlock(t)
            self.spend(self.cost["fault_entry"])
            t.step = "TOUCH"
            return
        pte = self.pte[t.vp]
        if pte & KIND == K_ZAPPED:
            pte = K_NONE
        t.f_orig = pte
        t.f_old = t.f_pfn = None
        t.f_cached = 0
        kind = pte & KIND
        if not self.pt_present[self.region_of[t.vp]]:
            t.step = "F_PT"
        elif kind == K_PRESENT:
            t.step = "F_WP" if t.write and not pte & WRITE else "F_DONE"
        elif kind == K_NONE:
            t.f_kind = "ANON" if t.write else t.f_kind
            t.step = "F_ALLOC" if t.write else "F_ZERO"
        elif kind == K_ZERO:
            t.f_kind = "COPY" if t.write else t.f_kind
            t.step = "F_ALLOC" if t.write else "F_DONE"
        else:
            assert kind == K_SWAP
            t.step = "F_CACHE"

    def step_F_PT(self, c, t):
        self.start_charge(t, "F_PT_SET")

    def step_F_PT_SET(self, c, t):
        if t.c_failed:
            t.step = "F_DONE"
            return
        t.step = "F_READ"
        region = self.region_of[t.vp]
        if self.pt_present[region]:         # another thread was first
            self.uncharge(1)
            return
        self.pt_present[region] = 1
        self.memcg.kernel += 1

    def step_F_ZERO(self, c, t):
        ptl = self.ptl_of(t.vp)
        if not self.lock(ptl):
            return
        if self.is_orig(t):
            self.pte[t.vp] = K_ZERO | YOUNG | Z
        self.unlock(ptl)
        self.spend(self.cost["fault_zero"])
        t.step = "F_DONE"

    def step_F_ALLOC(self, c, t):
        t.f_pfn = self.alloc()
        self.start_charge(t, "F_CHARGED")

    def step_F_CHARGED(self, c, t):
        if t.c_failed:
            self.free_frame(t.f_pfn)
            t.f_pfn = None
            if t.f_old is not None:
                self.put(t.f_old)
            t.step = "F_DONE"
        else:
            t.step = "F_PREPARE" if t.f_kind in ("SWAP", "SHARED") else "F_FILL"

    def step_F_FILL(self, c, t):
        self.spend(self.cost["fault_anon"])
        if t.f_old is not None:
            self.spend(self.cost["page_copy"])
        t.step = "F_MAP" if t.f_kind == "ANON" else "F_WP_CLEAR"

    def map_fresh(self, t):
        """PTE, folio and batch of a new page; true if the batch is full."""
        f = t.f_pfn
        self.set_pte(t.vp, _FRESH | f.nr << PAYLOAD)
        f.vp, f.mapcount = t.vp, 1
        return self.batch_add(f)

    def step_F_MAP(self, c, t):
        ptl = self.ptl_of(t.vp)
        if not self.lock(ptl):
            return
        if not self.is_orig(t):
            self.unlock(ptl)
            self.put(t.f_pfn)
            t.step = "F_DONE"
            return
        full = self.map_fresh(t)
        t.mm.rss += 1
        self.unlock(ptl)
        t.step = "F_DONE"
        if full:
            self.start_drain(t, 1, "F_DONE")

    def step_F_WP(self, c, t):
        ptl = self.ptl_of(t.vp)
        if not self.lock(ptl):
            return
        pte = self.pte[t.vp]
        if pte & KIND != K_PRESENT or pte & WRITE:
            self.unlock(ptl)
            t.step = "F_DONE"
            return
        t.f_old = old = self.folios[pte >> PAYLOAD]
        t.f_orig = pte
        if pte & EXCLUSIVE:
            self.pte[t.vp] = pte | WRITE | DIRTY_PTE | YOUNG
            self.counter["pgreuse"] += 1
            self.unlock(ptl)
            t.f_old = None
            t.step = "F_DONE"
        elif old.refcount > 3:
            old.refcount += 1
            self.unlock(ptl)
            t.f_kind = "COPY"
            t.step = "F_ALLOC"
        elif not old.flags & LRU and c.has_batched():
            self.start_drain(t, 7, "F_WP_REUSE")
        else:
            t.step = "F_WP_REUSE"

    def step_F_WP_REUSE(self, c, t):
        f = t.f_old
        ptl = self.ptl_of(t.vp)
        cached = 1 if f.flags & SWAPCACHE else 0
        reuse = f.refcount <= 1 + cached and not f.flags & LOCKED
        if reuse:
            f.flags |= LOCKED
            if f.flags & SWAPCACHE:
                self.folio_free_swap(f)
            if f.refcount != 1:
                reuse = False
            self.folio_unlock(f)
        if reuse:
            self.pte[t.vp] |= WRITE | DIRTY_PTE | YOUNG | EXCLUSIVE
            self.counter["pgreuse"] += 1
            self.unlock(ptl)
            t.f_old = None
            t.step = "F_DONE"
        else:
            f.refcount += 1
            self.unlock(ptl)
            t.f_kind = "COPY"
            t.step = "F_ALLOC"

    def step_F_WP_CLEAR(self, c, t):
        ptl = self.ptl_of(t.vp)
        if not self.lock(ptl):
            return
        if not self.is_orig(t):
            self.unlock(ptl)
            self.put(t.f_pfn)
            if t.f_old is not None:
                self.put(t.f_old)
            t.step = "F_DONE"
            return
        self.set_pte(t.vp, 0)
        self.flush(t.mm, t.vp, "F_WP_SET")

    def step_F_WP_SET(self, c, t):
        ptl, old = self.ptl_of(t.vp), t.f_old
        full = self.map_fresh(t)
        if old is not None:
            old.mapcount -= 1
            old.refcount -= 1
            self.unlock(ptl)
            if old.flags & SWAPCACHE and not old.mapcount and not old.flags & LOCKED:
                self.folio_free_swap(old)
            self.put(old)
        else:
            t.mm.rss += 1
            self.unlock(ptl)
        t.f_old = None
        t.step = "F_DONE"
        if full:
            self.start_drain(t, 1, "F_DONE")

    # -- swap-in --------------------------------------------------------------------------------

    def slot_of(self, t):
        return t.f_orig >> PAYLOAD

    def step_F_CACHE(self, c, t):
        f = self.slot_folio(self.slot_of(t))
        if f is not None:
            t.f_pfn = f
            f.refcount += 1
            t.f_cached = 1
            if not self.world.swap_sync:
                self.note_hit(t, f)
            t.step = "F_LOCK"
        elif self.world.swap_sync:
            self.alloc_swap(t)
        else:
            t.step = "F_CL_WIN" if self.world.rotational else "F_RA_WIN"

    def note_hit(self, t, f):
        ahead = f.flags & RECLAIM                   # PG_readahead
        f.flags &= ~RECLAIM
        self.counter["swap_ra_hit"] += 1 if ahead else 0
        if self.world.rotational:
            self.swapdev.ra_hits += 1 if ahead else 0
        else:
            t.mm.ra_hits = min(t.mm.ra_hits + 1, 63) if ahead else t.mm.ra_hits
            t.mm.ra_page = t.vp - t.mm.base

    def alloc_swap(self, t):
        shared = self.world.swap_sync and self.map_count(self.slot_of(t)) > 1
        t.f_kind = "SHARED" if shared else "SWAP"       # through the swap cache: __swap_count is not 1
        t.step = "F_ALLOC"

    def step_F_RA_WIN(self, c, t):
        """swap_vma_ra_win"""
        mm, p = t.mm, t.vp - t.mm.base
        prev = mm.ra_page
        n = mm.ra_hits + 2
        if n == 2:
            n = 2 if abs(p - prev) == 1 else 1
        else:
            n = max(4, 1 << (n - 1).bit_length())
        n = max(min(n, 8), mm.ra_win // 2)
        mm.ra_page, mm.ra_win, mm.ra_hits = p, n, 0
        if n == 1:
            self.alloc_swap(t)
            return
        left = p if p == prev + 1 else p - n + 1 if p == prev - 1 else p - (n - 1) // 2
        r = p // 512 * 512
        t.ra_at = mm.base + max(left, 0, r)
        t.ra_end = mm.base + min(left + n, mm.pages, r + 512)
        t.step = "F_RA_NEXT"

    def to_read(self, vp):
        """The slot that vp is to be read from, or None: no SWAP, or HAS_CACHE."""
        pte = self.pte[vp]
        if pte & KIND != K_SWAP or self.slot_count[pte >> PAYLOAD] & HAS_CACHE:
            return None
        return pte >> PAYLOAD

    def step_F_RA_NEXT(self, c, t):
        for vp in range(t.ra_at, t.ra_end):
            if self.to_read(vp) is not None:
                t.ra_vp, t.ra_at = vp, vp + 1
                t.f_pfn = self.alloc()
                self.start_charge(t, "F_RA_CHARGED")
                return
        self.read_all(c, t)

    def read_all(self, c, t):
        """Nothing of the window is left to be read."""
        self.flush_plug(t)
        t.step = "F_TARGET"
        if c.has_batched():
            self.start_drain(t, 7, "F_TARGET")

    def step_F_RA_CHARGED(self, c, t):
        self.read_ahead(c, t, self.to_read(t.ra_vp), t.ra_vp, t.ra_vp == t.vp)

    def read_ahead(self, c, t, s, vp, own):
        """__read_swap_cache_async: slot s (None: no more to be read), of page vp; own: the fault's."""
        f = t.f_pfn
        if t.c_failed or s is None:
            if t.c_failed:
                self.free_frame(f)
            else:
                self.put(f)
            t.f_pfn = None
            t.step = self.ra_next()
            return
        self.take_slot(f, s, vp)
        self.add_to_swap_cache(f)
        if not own:
            f.flags |= RECLAIM                      # PG_readahead
            self.counter["swap_ra"] += 1
        full = self.batch_add(f)
        t.step = "F_RA_READ"
        if full:
            self.start_drain(t, 1, "F_RA_READ")

    def ra_next(self):
        return "F_CL_NEXT" if self.world.rotational else "F_RA_NEXT"

    def ra_done(self, t):
        """The task lets the page go."""
        self.put(t.f_pfn)
        t.f_pfn = None
        t.step = self.ra_next()

    def step_F_RA_READ(self, c, t):
        f = t.f_pfn
        if self.slot_count[f.slot] & SLOT_ZERO:
            self.counter["swpin_zero"] += 1
            self.spend(self.cost["page_zero"])
            self.folio_unlock(f)
            self.ra_done(t)
        else:
            self.counter["pswpin"] += 1
            t.step = "F_RA_SUBMIT"

    def step_F_RA_SUBMIT(self, c, t):
        if self.plug(c, t, t.f_pfn):
            self.ra_done(t)
            self.spend(self.cost["io_submit"])

    # -- the same by slots, on a device that rotates (5.2.2) ------------------------------------

    def step_F_CL_WIN(self, c, t):
        """swapin_nr_pages"""
        dev, s = self.swapdev, self.slot_of(t)
        hits, dev.ra_hits = dev.ra_hits, 0
        if hits:
            n = 4 if hits <= 2 else 8
        else:
            n = 2 if abs(s - dev.ra_prev) == 1 else 1
            dev.ra_prev = s
        n = max(n, dev.ra_win // 2)
        dev.ra_win = n
        if n == 1:
            self.alloc_swap(t)
            return
        first = (s + 1) // n * n                    # a page of the device; page 0 is its header
        t.ra_at = max(first, 1) - 1
        t.ra_end = min(first + n - 1, self.world.nr_slots)
        t.step = "F_CL_NEXT"

    def is_to_read(self, s):
        return bool(self.map_count(s)) and not self.slot_count[s] & HAS_CACHE

    def step_F_CL_NEXT(self, c, t):
        for s in range(t.ra_at, t.ra_end):
            if self.is_to_read(s):
                t.ra_vp, t.ra_at = s, s + 1
                t.f_pfn = self.alloc()
                self.start_charge(t, "F_CL_CHARGED")
                return
        self.read_all(c, t)

    def step_F_CL_CHARGED(self, c, t):
        s = t.ra_vp if self.is_to_read(t.ra_vp) else None
        self.read_ahead(c, t, s, NONE, t.ra_vp == self.slot_of(t))

    def step_F_TARGET(self, c, t):
        s = self.slot_of(t)
        f = self.slot_folio(s)
        if f is not None:
            t.f_pfn = f
            f.refcount += 1
            t.f_cached = 1
            self.counter["pgmajfault"] += 1
            t.step = "F_LOCK"
        elif not self.map_count(s):         # read and mapped meanwhile
            t.step = "F_DONE"
        else:
            self.alloc_swap(t)

    def take_slot(self, f, s, vp):
        """swapcache_prepare, then workingset_refault if there is a shadow"""
        self.slot_count[s] |= HAS_CACHE
        f.flags |= LOCKED
        f.slot, f.vp = s, vp
        if self.slot_entry[s] & 3 == 1:
            self.lru.refault(f, self.slot_entry[s])

    def add_to_swap_cache(self, f):
        self.slot_entry[f.slot] = f.nr * 4 + 2
        f.flags |= SWAPCACHE
        f.refcount += 1

    def direct(self, t):
        """Swap-in goes past the swap cache."""
        return self.world.swap_sync and not self.world.swapin_cached and t.f_kind != "SHARED"

    def step_F_PREPARE(self, c, t):
        s, f = self.slot_of(t), t.f_pfn
        if not self.is_orig(t) or self.slot_count[s] & HAS_CACHE:
            if self.direct(t):
                self.counter["swapcache_waits"] += 1
                t.step = "F_BACKOFF"
                tick = self.world.tick
                self.sleep(c, t, ON_SWAPCACHE, (self.now // tick + 2) * tick)
                return
            self.put(f)
            t.f_pfn = None
            t.step = "F_TARGET" if self.is_orig(t) else "F_DONE"
            return
        self.take_slot(f, s, t.vp)
        self.counter["pgmajfault"] += 1
        if not self.direct(t):
            self.add_to_swap_cache(f)
        if not self.world.swap_sync or t.f_kind == "SHARED":
            t.f_cached = 1
        full = self.batch_add(f)
        t.step = "F_SWAP_READ"
        if full:
            self.start_drain(t, 1, "F_SWAP_READ")

    def step_F_BACKOFF(self, c, t):
        self.put(t.f_pfn)
        t.f_pfn = None
        t.step = "F_DONE"

    def step_F_SWAP_READ(self, c, t):
        sync, zero = self.world.swap_sync, self.slot_count[self.slot_of(t)] & SLOT_ZERO
        if zero:
            self.counter["swpin_zero"] += 1
            self.spend(self.cost["page_zero"])
        else:
            self.counter["pswpin"] += 1
        if sync:
            if not zero:
                self.spend(self.cost["zram_read"])
            if t.f_kind == "SHARED":
                self.folio_unlock(t.f_pfn)
                t.step = "F_LOCK"
            else:
                self.spend(self.cost["fault_swap"], "fault")
                t.step = "F_SWAP_MAP"
        elif zero:
            self.folio_unlock(t.f_pfn)
            t.step = "F_LOCK"
        else:
            t.step = "F_SUBMIT"

    def step_F_SUBMIT(self, c, t):
        if self.get_tag(c, t):
            self.submit(t.f_pfn)
            self.spend(self.cost["io_submit"])
            t.step = "F_LOCK"

    def step_F_LOCK(self, c, t):
        f = t.f_pfn
        if f.flags & LOCKED:
            self.counter["lock_waits"] += 1
            t.step = "F_RETRY"
            self.mmap_unlock(t)
            self.folio_wait(c, t, f, WAIT_LOCKED)
        else:
            f.flags |= LOCKED
            t.step = "F_RECHECK"

    def step_F_RETRY(self, c, t):
        self.put(t.f_pfn)
        t.f_pfn = None
        t.step = "F_READ"

    def step_F_RECHECK(self, c, t):
        f = t.f_pfn
        self.spend(self.cost["fault_swap"])
        if not f.flags & SWAPCACHE or f.slot != self.slot_of(t):
            self.folio_unlock(f)
            self.put(f)
            t.step = "F_DONE"
        elif t.write and not f.flags & LRU and c.has_batched():
            self.start_drain(t, 7, "F_SWAP_MAP")
        else:
            t.step = "F_SWAP_MAP"

    def step_F_SWAP_MAP(self, c, t):
        ptl, f, s = self.ptl_of(t.vp), t.f_pfn, self.slot_of(t)
        if not self.lock(ptl):
            return
        direct = not t.f_cached and not self.world.swapin_cached
        if not self.is_orig(t):
            self.unlock(ptl)
            if direct:
                self.swapcache_clear(f, s)
            self.folio_unlock(f)
            self.put(f)
            if direct:
                self.wake_up(ON_SWAPCACHE)
            t.step = "F_DONE"
            return
        excl = t.f_orig & EXCLUSIVE
        if not t.f_cached:
            excl = 1
        elif f.flags & WRITEBACK and self.world.swap_sync:
            excl = 0
        assert self.map_count(s)
        self.slot_count[s] -= 1
        if direct:
            self.swapcache_clear(f, s)
        elif self.world.swapin_cached or self.swap_full() or (t.write and f.refcount == 2):
            self.folio_free_swap(f)
        pte = K_PRESENT | YOUNG | f.nr << PAYLOAD
        if excl or f.refcount == 1:
            pte |= EXCLUSIVE if self.read_only[t.vp] else EXCLUSIVE | WRITE
            if t.write:
                pte |= DIRTY_PTE
        self.set_pte(t.vp, pte)
        f.vp = t.vp
        f.mapcount += 1
        t.mm.rss += 1
        t.mm.swapents -= 1
        self.unlock(ptl)
        self.folio_unlock(f)
        if direct:
            self.wake_up(ON_SWAPCACHE)
        t.step = "F_WP" if t.write and not pte & WRITE else "F_DONE"

    def swapcache_clear(self, f, s):
        self.slot_entry[s] = 0
        self.drop_cache_bit(s)
        f.slot = NONE

    def step_F_DONE(self, c, t):
        self.counter["pgfault"] += 1
        t.f_pfn = None
        self.mmap_unlock(t)
        self.next_access(t)
