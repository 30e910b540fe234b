"""shrink_folio_list, unmapping and pageout (docs/model.md, sections 5.5 and 6).

f is the folio in hand.
"""

from .state import (ACTIVE, BATCH, DIRTY, DIRTY_PTE, EXCLUSIVE, HAS_CACHE, K_SWAP, LOCKED, LRU,
                    NONE, PAYLOAD, RECLAIM, REFERENCED, SLOT_ZERO, SWAPCACHE, WAIT_WRITEBACK,
                    WRITEBACK)

_PINNED = 1024


class Shrink:

    # -- the ways out ---------------------------------------------------------------------------

    def next_step(self, t):
        return "B_OUT" if t.in_batch else "S_NEXT"

    def keep(self, t):
        t.ret.append(t.folio)
        t.step = self.next_step(t)

    def keep_locked(self, t):
        self.folio_unlock(t.folio)
        self.keep(t)

    def activate(self, t):
        """The activation slot."""
        f = t.folio
        if self.policy["activation"] == "kernel":
            if f.flags & SWAPCACHE and self.swap_full():
                self.folio_free_swap(f)
            f.flags |= ACTIVE
            t.nr_activate += 1
            self.counter["memcg_pgactivate"] += 1

    def activate_locked(self, t):
        self.activate(t)
        self.keep_locked(t)

    def flush_dirty(self, t, ret):
        """try_to_unmap_flush_dirty"""
        self.counter["try_to_unmap_flush_dirty_calls"] += 1
        if t.ubc_writable:
            self.counter["try_to_unmap_flush_dirty_effective"] += 1
            self.flush(None, NONE, ret)
        else:
            t.step = ret

    # -- one folio after the other --------------------------------------------------------------

    def step_S_PLAN(self, c, t):
        n, every = len(t.list), self.policy["flush_every"]
        t.plan_defer = [1 if self.policy["unmap"] == "kernel" else 0] * n
        t.plan_flush = [1 if (k + 1) % every == 0 else 0 for k in range(n)]
        self.counter["shrink_folio_list_calls"] += 1
        t.nr_pageout = t.nr_activate = t.nr_reclaimed = 0
        t.index = t.ordinal = t.nr_lost = 0
        t.free_folios.clear()
        t.flush_folios.clear()
        t.in_batch = 0
        t.step = "S_NEXT"

    def step_S_NEXT(self, c, t):
        if self.resched_guard(c, t):
            return
        if not t.list:
            t.folio = None
            t.step = "S_TAIL"
            return
        t.folio = t.list.popleft()
        t.index += 1
        t.step = "S_LOCK"

    def step_S_LOCK(self, c, t):
        f = t.folio
        if f.flags & LOCKED:
            t.nr_scanned -= 1
            self.spend(self.cost["scan"])
            self.keep(t)
            return
        f.flags |= LOCKED
        t.step = "S_WB"

    def step_S_WB(self, c, t):
        f, world = t.folio, self.world
        if world.lru and not world.mglru_rework and f.mapcount and f.flags & REFERENCED:
            self.spend(self.cost["scan"])       # a walk met it after it was isolated
            self.keep_locked(t)
        elif f.flags & WRITEBACK:
            self.spend(self.cost["scan"])
            if self.world.cgroup == 1 and f.flags & RECLAIM:
                self.folio_unlock(f)
                t.step = "S_WB_WAIT"
            else:
                f.flags |= RECLAIM
                self.activate_locked(t)
        else:
            t.step = self.lru.check_row

    def step_S_WB_WAIT(self, c, t):
        f = t.folio
        if f.flags & WRITEBACK:
            self.counter["writeback_waits"] += 1
            self.folio_wait(c, t, f, WAIT_WRITEBACK)
        else:
            t.list.appendleft(f)
            t.index -= 1
            t.nr_scanned += 1
            t.folio = None
            t.step = "S_NEXT"

    def step_S_REF(self, c, t):
        f = t.folio
        young = False
        self.drop_moved(c, t, f)
        if self.forks:
            if self.look_at_next(t, f):
                return
            young = self.looked_at(t)
        elif f.mapcount:
            ptl = self.ptl_of(f.vp)
            if not self.lock(ptl):
                return
            young = self.clear_young(f)
            self.unlock(ptl)
        referenced = f.flags & REFERENCED
        f.flags &= ~REFERENCED
        if young:
            t.owed += self.cost["scan"] + self.cost["rmap"]
            f.flags |= REFERENCED
            if referenced:
                self.activate_locked(t)
            else:
                self.keep_locked(t)
        else:
            t.step = "S_UNMAP" if f.flags & SWAPCACHE else "S_SLOT"

    def spend_check(self, f):
        self.spend(self.cost["scan"] + (self.cost["rmap"] if f.mapcount else 0), "scan")

    def step_S_SLOT(self, c, t):
        f = t.folio
        if f.refcount >= _PINNED:
            self.spend_check(f)
            self.keep_locked(t)
            return
        s = self.folio_alloc_swap(c)
        if s is None:
            self.spend_check(f)
            self.activate_locked(t)
        else:
            f.slot = s
            t.step = "S_ADD"

    def step_S_ADD(self, c, t):
        f = t.folio
        self.slot_entry[f.slot] = f.nr * 4 + 2
        self.slot_count[f.slot] = HAS_CACHE
        f.flags |= SWAPCACHE | DIRTY
        f.refcount += 1
        t.step = "S_UNMAP"

    def step_S_UNMAP(self, c, t):
        f = t.folio
        self.drop_moved(c, t, f)
        if self.forks:
            self.unmap_next(t, f)
            return
        if not f.mapcount:
            self.spend_check(f)
            t.step = "S_PIN"
            return
        if not self.lock(self.ptl_of(f.vp)):
            return
        t.step = "U_DEFER"

    # -- unmapping; the PTL is held -------------------------------------------------------------

    def step_U_DEFER(self, c, t):
        mm = self.mm_of[self.unmap_page(t)]
        t.defer = 1 if t.plan_defer[t.index - 1] and self.others(mm.cpumask) else 0
        t.step = "U_CLEAR"

    def step_U_CLEAR(self, c, t):
        vp = self.unmap_page(t)
        t.old_pte = self.pte[vp]
        self.set_pte(vp, 0)
        t.step = "U_GEN" if t.defer else "U_FLUSH"

    def step_U_GEN(self, c, t):
        self.mm_of[self.unmap_page(t)].tlb_gen += 1
        t.step = "U_MASK"

    def step_U_MASK(self, c, t):
        mm = self.mm_of[self.unmap_page(t)]
        t.ubc_mask |= mm.cpumask
        t.ubc_required = 1
        mm.pending += 1
        if t.old_pte & DIRTY_PTE:
            t.ubc_writable = 1
        t.step = "U_SET"

    def step_U_FLUSH(self, c, t):
        vp = self.unmap_page(t)
        self.flush(self.mm_of[vp], vp, "U_SET")

    def step_U_SET(self, c, t):
        f, vp = t.folio, self.unmap_page(t)
        mm = self.mm_of[vp]
        if t.old_pte & DIRTY_PTE:
            f.flags |= DIRTY
        self.slot_count[f.slot] += 1
        self.set_pte(vp, K_SWAP | t.old_pte & EXCLUSIVE | f.slot << PAYLOAD)
        mm.rss -= 1
        mm.swapents += 1
        f.mapcount -= 1
        f.refcount -= 1
        self.unlock(self.ptl_of(vp))
        self.spend(self.cost["scan"] + self.cost["rmap"], "scan")
        self.spend(self.cost["unmap"])
        t.rmap = t.rmap + 1 if f.mapcount else 0
        t.step = "S_UNMAP" if f.mapcount else "S_PIN"

    # -- after unmapping ------------------------------------------------------------------------

    def step_S_PIN(self, c, t):
        if t.folio.refcount >= _PINNED or t.folio.mapcount:
            self.activate_locked(t)
        else:
            t.step = "S_DIRTY"

    def step_S_DIRTY(self, c, t):
        f, keeps = t.folio, self.policy["keeps_locks"]
        if not f.flags & DIRTY:
            t.step = "S_FREE"
            return
        k = t.ordinal
        t.ordinal += 1
        if t.plan_flush[k] and not t.flush_folios and keeps:
            self.flush_dirty(t, "P_OUT")
            return
        t.flush_folios.append(f)
        if not keeps:
            self.folio_unlock(f)
        if len(t.flush_folios) == BATCH or t.plan_flush[k]:
            t.b_ret = "S_NEXT"
            t.step = "B_START"
        else:
            t.step = "S_NEXT"

    def step_P_OUT(self, c, t):
        f = t.folio
        if f.refcount != 2 or not f.flags & SWAPCACHE:
            self.counter["putback_refcount"] += 1
            self.keep_locked(t)
            return
        f.flags &= ~DIRTY
        f.flags |= RECLAIM
        self.counter["nr_vmscan_write"] += 1
        t.step = "P_WRITE"

    def step_P_WRITE(self, c, t):
        f = t.folio
        self.spend(self.cost["pageout"])
        if not self.map_count(f.slot):
            self.folio_free_swap(f)
            f.flags &= ~RECLAIM
            self.folio_unlock(f)
            t.step = "P_DISPATCH"
        elif self.written_zero(f):
            self.slot_count[f.slot] |= SLOT_ZERO
            self.counter["swpout_zero"] += 1
            f.flags &= ~RECLAIM
            self.folio_unlock(f)
            t.step = "P_DISPATCH"
        else:
            self.slot_count[f.slot] &= ~SLOT_ZERO
            self.counter["pswpout"] += 1
            f.flags |= WRITEBACK
            self.folio_unlock(f)
            if self.world.swap_sync:
                self.spend(self.cost["zram_write"])
                t.step = "P_END"
            else:
                t.step = "P_SUBMIT"

    def step_P_SUBMIT(self, c, t):
        if self.plug(c, t, t.folio):
            self.spend(self.cost["io_submit"])
            t.step = "P_DISPATCH"

    def step_P_END(self, c, t):
        t.folio.flags &= ~(WRITEBACK | RECLAIM)
        t.step = "P_DISPATCH"

    def step_P_DISPATCH(self, c, t):
        f = t.folio
        t.nr_pageout += 1
        if f.flags & (WRITEBACK | DIRTY | LOCKED):
            self.keep(t)
        else:
            f.flags |= LOCKED
            t.step = "S_FREE"

    def step_S_FREE(self, c, t):
        f = t.folio
        if not f.flags & SWAPCACHE or f.refcount != 2 or f.flags & DIRTY:
            self.keep_locked(t)
            return
        s = f.slot
        self.slot_entry[s] = self.lru.eviction(f)
        self.drop_cache_bit(s)
        f.refcount = 0
        f.flags &= ~SWAPCACHE
        f.slot = NONE
        self.folio_unlock(f)
        t.nr_reclaimed += 1             # the accounting slot
        t.free_folios.append(f)
        if len(t.free_folios) < BATCH:
            t.step = self.next_step(t)
            return
        self.uncharge(BATCH)
        t.freed_ret = self.next_step(t)
        if t.ubc_required:
            self.counter["flush_before_free_effective"] += 1
            self.flush(None, NONE, "S_FREE_FLUSHED")
        else:
            t.step = "S_FREE_FLUSHED"

    def free_all(self, t):
        self.spend(self.cost["free"] * len(t.free_folios))
        for f in t.free_folios:
            self.free_frame(f)
        t.free_folios.clear()

    def step_S_FREE_FLUSHED(self, c, t):
        self.free_all(t)
        t.folio = None
        t.step = t.freed_ret

    # -- the end of the list --------------------------------------------------------------------

    def pay(self, t):
        self.spend(t.owed, "scan")
        t.owed = 0

    def step_S_TAIL(self, c, t):
        self.pay(t)
        t.step = "S_END"
        if not t.flush_folios:
            return
        if self.policy["remainder"]:
            t.b_ret = "S_END"
            t.step = "B_START"
            return
        self.lost += t.flush_folios     # a planted defect: nobody has them any more
        t.nr_lost = len(t.flush_folios)
        t.flush_folios.clear()

    def step_S_END(self, c, t):
        t.nr_scanned += t.index
        self.counter["pgactivate"] += t.nr_activate
        self.uncharge(len(t.free_folios))
        if t.ubc_required:
            self.counter["flush_at_list_end_effective"] += 1
            self.flush(None, NONE, "S_END_FLUSHED")
        else:
            t.step = "S_END_FLUSHED"

    def step_S_END_FLUSHED(self, c, t):
        self.free_all(t)
        t.step = self.lru.putback

    # -- the batch ------------------------------------------------------------------------------

    def step_B_START(self, c, t):
        n = len(t.flush_folios)
        self.counter["flush_batches"] += 1
        self.counter["folios_batched"] += n
        t.in_batch, t.b_i, t.b_w = 1, 0, 0
        t.folio = None
        if self.policy["keeps_locks"]:
            t.b_w = n
            self.flush_dirty(t, "B_OUT")
        else:
            t.step = "B_LOCK"

    def step_B_LOCK(self, c, t):
        if t.b_i == len(t.flush_folios):
            self.pay(t)
            del t.flush_folios[t.b_w:]
            if t.b_w == 0:
                t.in_batch = 0
                t.folio = None
                t.step = t.b_ret
            else:
                t.b_i = 0
                self.flush_dirty(t, "B_OUT")
            return
        f = t.folio = t.flush_folios[t.b_i]
        t.b_i += 1
        t.owed += self.cost["relock"]
        if f.flags & LOCKED:
            self.counter["putback_locked"] += 1
            t.ret.append(f)
            return
        f.flags |= LOCKED
        for check, true in (("writeback", f.flags & WRITEBACK), ("lru", f.flags & LRU),
                            ("mapped", f.mapcount), ("pinned", f.refcount >= _PINNED)):
            if true and check in self.policy["rechecks"]:
                self.counter["putback_" + check] += 1
                self.folio_unlock(f)
                t.ret.append(f)
                return
        t.flush_folios[t.b_w] = f
        t.b_w += 1

    def step_B_OUT(self, c, t):
        if t.b_i == t.b_w:
            t.flush_folios.clear()
            t.in_batch = 0
            t.folio = None
            t.step = t.b_ret
        else:
            t.folio = t.flush_folios[t.b_i]
            t.b_i += 1
            t.step = "P_OUT"
