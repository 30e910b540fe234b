"""Charging and direct reclaim (docs/model.md, sections 5.3 and 5.4)."""

from .state import (ACTIVE, DEAD, IDLE, KIND, K_PRESENT, LRU, NONE, ON_THROTTLED, WORKINGSET, YOUNG)

_TWENTY_MS = 20 * 10**9             # [ps]


class Charge:

    def start_charge(self, t, ret):
        t.c_nr, t.c_ret = 1, ret
        t.c_batch, t.c_retries, t.c_drained, t.c_failed = max(64, t.c_nr), 16, 0, 0
        t.unpaid = 1
        t.step = "C_TRY"

    def step_C_TRY(self, c, t):
        m, limit = self.memcg, self.world.limit
        while True:
            if c.stock >= t.c_nr:
                c.stock -= t.c_nr
                break
            if m.usage + t.c_batch <= limit:
                m.usage += t.c_batch
                c.stock += t.c_batch - t.c_nr
                if c.stock > 64:
                    m.usage -= c.stock
                    c.stock = 0
                break
            if t.c_batch > t.c_nr:
                t.c_batch = t.c_nr
                continue
            self.spend(max(1, self.cost["charge"]))
            if t.dying:
                t.c_failed = 1
                t.step = t.c_ret
                return
            self.counter["memcg_max"] += 1
            if self.world.kworkers:
                self.memcg_event(c)
            t.step = "R_START"
            return
        t.unpaid = 0
        t.step = t.c_ret

    def step_C_AFTER(self, c, t):
        m = self.memcg
        t.step = "C_TRY"
        margin = self.world.limit - m.usage
        if margin >= t.c_nr:
            return
        if not t.c_drained:
            t.c_drained = 1
            self.counter["drain_all_stock"] += 1
            for i in self.cpus:
                if i.stock > 0:
                    if i is c or i.mode == IDLE:
                        m.usage -= i.stock
                        i.stock = 0
                    else:
                        i.works.add("DRAIN")
            return
        if t.c_reclaimed > 0 and t.c_nr <= 8:
            return
        if t.c_retries > 0:
            t.c_retries -= 1
            return
        self.out_of_memory()
        t.c_retries = 16

    def out_of_memory(self):
        living = [u for u in self.tasks if u.state != DEAD and u.step != "V_CHILD"]
        if any(u.dying for u in living):
            return
        victim = max(living, key=lambda u: (u.mm.rss + u.mm.swapents, -u.nr))
        for u in living:
            if u.mm is victim.mm:
                u.dying = 1
        self.counter["memcg_oom_kill"] += 1

    # -- priorities -----------------------------------------------------------------------------

    def step_R_START(self, c, t):
        self.counter["direct_reclaims"] += 1
        t.prio, t.sc_reclaimed = 12, 0
        t.full_walk = t.force_deact = t.skipped_deact = 0
        t.step = self.lru.shrink

    def step_R_PRIO(self, c, t):
        m = self.memcg
        self.spend(self.cost["reclaim_prio"])
        t.may_deact = (t.force_deact
                       or self.counter["workingset_activate_anon"] != m.refaults_snapshot
                       or self.inactive_is_low())
        t.r_nr = [self.scan_target(len(lru), t.prio) for lru in (self.inactive, self.active)]
        t.r_visit = t.r_loop = 0
        t.step = "R_LIST"

    def scan_target(self, size, prio):
        """get_scan_count for one list."""
        swappiness = self.world.swappiness
        if not self.slots_free or swappiness == 0:
            return 0
        if prio == 0:
            return size
        cost = self.memcg.anon_cost
        a, f = 2 * cost, cost
        total = a + f
        ap = swappiness * (total + 1) // (a + 1)
        fp = (200 - swappiness) * (total + 1) // (f + 1)
        return (size >> prio) * ap // (ap + fp)

    def step_R_LIST(self, c, t):
        if t.r_visit == 0:
            if t.r_nr[0] == 0:
                t.step = "R_AGE"
                return
            n = min(32, t.r_nr[0])
            t.r_nr[0] -= n
            t.nr_to_scan = n
            t.r_visit, t.stalled = 1, 0
            t.step = "I_START"
        elif t.r_visit == 1:
            t.r_visit = 2
            t.step = "R_LIST"
            if t.r_nr[1] > 0:
                n = min(32, t.r_nr[1])
                t.r_nr[1] -= n
                if t.may_deact:
                    t.nr_to_scan = n
                    self.start_active(c, t, "R_LIST")
                else:
                    t.skipped_deact = 1
        else:
            if self.resched_guard(c, t):
                return
            t.r_visit = 0
            t.step = "R_AGE" if t.r_loop >= 32 else "R_LIST"

    def step_R_AGE(self, c, t):
        self.finish_plug(t)
        t.sc_reclaimed += t.r_loop
        if self.world.nr_slots > 0 and self.inactive_is_low():
            t.nr_to_scan = 32
            self.start_active(c, t, "R_END")
        else:
            t.step = "R_END"

    def step_R_END(self, c, t):
        self.finish_plug(t)
        m, kworkers = self.memcg, self.world.kworkers
        if kworkers and t.nr_scanned > 0:
            self.vmpressure(c, t.nr_scanned)
        t.nr_scanned = 0
        t.step = self.lru.shrink
        if t.sc_reclaimed < 32:
            if t.prio > 0:
                t.prio -= 1
                if kworkers and t.prio <= 3:
                    self.vmpressure(c, 512)
                return
            self.lru.snapshot()
            if t.sc_reclaimed == 0:
                if not t.full_walk:
                    t.full_walk, t.prio = 1, 12
                    return
                if t.skipped_deact:
                    t.prio, t.force_deact, t.skipped_deact = 12, 1, 0
                    return
        self.lru.snapshot()
        t.c_reclaimed = t.sc_reclaimed
        t.step = "C_AFTER"

    # -- the inactive list ----------------------------------------------------------------------

    def step_I_START(self, c, t):
        m = self.memcg
        if t.dying:
            t.r_loop += 32
            t.step = "R_LIST"
            return
        if self.world.cgroup == 2 and m.nr_isolated > len(self.inactive) >> 3:
            if t.stalled:
                t.step = "R_LIST"
                return
            t.stalled = 1
            self.counter["throttled"] += 1
            self.sleep(c, t, ON_THROTTLED, self.now + _TWENTY_MS)
            return
        self.wake_up(ON_THROTTLED)
        t.step = "I_LOCK"
        if c.has_batched():
            self.start_drain(t, 7, "I_LOCK")

    def isolate(self, t, lru):
        """isolate_lru_folios; the number taken."""
        n = min(t.nr_to_scan, len(lru))
        for _ in range(n):
            _, f = lru.popitem(last=False)      # the tail
            f.flags &= ~LRU
            f.refcount += 1
            t.list.append(f)
        t.taken = t.scanned = n
        self.memcg.nr_isolated += n
        self.spend(self.cost["lru_lock"] + self.cost["lru_isolate"] * n)
        return n

    def step_I_LOCK(self, c, t):
        if not self.lock(self.lru_lock):
            return
        self.counter["pgscan_anon"] += self.isolate(t, self.inactive)
        t.step = "I_UNLOCK"

    def step_I_UNLOCK(self, c, t):
        self.unlock(self.lru_lock)
        t.step = "S_PLAN" if t.taken else "R_LIST"

    def put_back(self, f):
        """One folio of `ret`; true if it is in the LRU again, not freed."""
        f.flags |= LRU
        f.refcount -= 1
        if f.refcount == 0:
            f.flags &= ~(LRU | ACTIVE)
            self.uncharge(1)
            self.free_frame(f)
            return False
        self.lru.add(f)
        return True

    def putback(self, t):
        """move_folios_to_lru of `ret`; the number moved (not those freed)."""
        n, moved = len(t.ret), 0
        while t.ret:
            f = t.ret.popleft()
            if self.put_back(f):
                moved += 1
                if f.flags & ACTIVE:
                    self.memcg.nonresident_age += 1
        self.memcg.nr_isolated -= t.taken
        self.spend(self.cost["lru_lock"] + self.cost["lru_putback"] * n)
        return moved

    def step_I_PUT(self, c, t):
        if not self.lock(self.lru_lock):
            return
        self.putback(t)
        self.counter["pgsteal_anon"] += t.nr_reclaimed
        t.step = "I_PUT_UNLOCK"

    def step_I_PUT_UNLOCK(self, c, t):
        self.unlock(self.lru_lock)
        self.note_cost(t.nr_pageout, t.scanned - t.nr_reclaimed)
        t.r_loop += t.nr_reclaimed
        t.folio = None
        t.step = "R_LIST"

    # -- the active list ------------------------------------------------------------------------

    def start_active(self, c, t, ret):
        t.k_ret = ret
        self.counter["shrink_active_list_calls"] += 1
        t.step = "K_LOCK"
        if c.has_batched():
            self.start_drain(t, 7, "K_LOCK")

    def step_K_LOCK(self, c, t):
        if not self.lock(self.lru_lock):
            return
        n = self.isolate(t, self.active)
        self.counter["memcg_pgrefill"] += n
        if self.world.pgrefill_global:
            self.counter["pgrefill"] += n
        t.step = "K_UNLOCK"

    def step_K_UNLOCK(self, c, t):
        self.unlock(self.lru_lock)
        t.step = "K_NEXT"

    def step_K_NEXT(self, c, t):
        # one of its mappings was looked at, or was waited for
        again = self.forks and (t.rmap != 0 or c.granted is not None)
        if c.granted is not None:
            self.drop_moved(c, t, t.list[0])
        if not again and self.resched_guard(c, t):
            return
        if not t.list:
            self.pay(t)
            t.step = "K_PUT"
            return
        t.folio = f = t.list[0]
        if self.forks:
            if self.look_at_next(t, f):
                return
            t.owed += self.cost["rmap"] if t.rmap else 0
            t.rmap = 0
        elif f.mapcount:
            ptl = self.ptl_of(f.vp)
            if not self.lock(ptl):
                return
            self.clear_young(f)
            self.unlock(ptl)
            t.owed += self.cost["rmap"]
        t.list.popleft()
        f.flags &= ~ACTIVE
        f.flags |= WORKINGSET
        t.ret.append(f)

    def clear_young(self, f):
        """folio_referenced, under the PTL; true if the page was young and its mm minds."""
        if not self.mm_of[f.vp].recency:
            return False
        pte = self.pte[f.vp]
        assert pte & KIND == K_PRESENT, "a mapped folio without a PTE under the PTL"
        self.pte[f.vp] = pte & ~YOUNG
        return bool(pte & YOUNG)

    def step_K_PUT(self, c, t):
        if not self.lock(self.lru_lock):
            return
        moved = self.putback(t)
        self.counter["pgdeactivate"] += moved
        self.counter["memcg_pgdeactivate"] += moved
        t.step = "K_PUT_UNLOCK"

    def step_K_PUT_UNLOCK(self, c, t):
        self.unlock(self.lru_lock)
        t.folio = None
        t.step = t.k_ret
