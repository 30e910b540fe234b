"""What must hold after every action; derived anew from PTEs, lists and steps."""

from .state import (BATCH, DEAD, GATHERS, HAS_CACHE, IDLE, INF, KIND, K_NONE, K_PRESENT, K_SWAP, K_ZAPPED, K_ZERO,
                    LOCKED, LRU, MAP_COUNT, NONE, ON_SWAPCACHE, PAYLOAD, RECLAIM, RUN, RUNNING,
                    QUEUED, SPIN_ACK, SPIN_LOCK, ACTIVE, SWAPCACHE, WAITERS, WAIT_WRITEBACK, WRITEBACK)

_F_HELD = {"F_CHARGED", "F_FILL", "F_MAP", "F_WP_CLEAR", "F_WP_SET", "F_PREPARE", "F_BACKOFF",
           "F_SWAP_READ", "F_SUBMIT", "F_LOCK", "F_RETRY", "F_RECHECK", "F_SWAP_MAP",
           "F_RA_CHARGED", "F_CL_CHARGED", "F_RA_READ", "F_RA_SUBMIT"}
_NOT_HELD = {"F_CACHE", "F_RA_WIN", "F_RA_NEXT", "F_CL_WIN", "F_CL_NEXT", "F_TARGET"}  # f_pfn is NONE
_AHEAD = {"F_RA_READ", "F_RA_SUBMIT"}
_READ = {"F_SWAP_READ", "F_SUBMIT", "F_LOCK", "F_RETRY", "F_RECHECK",
         "F_SWAP_MAP"} | _AHEAD     # in the LRU, too
_BY_VP = {"F_RA_WIN", "F_RA_NEXT", "F_RA_CHARGED"}
_BY_SLOT = {"F_CL_WIN", "F_CL_NEXT", "F_CL_CHARGED"}
_CHARGED = {"F_CHARGED", "F_RA_CHARGED", "F_CL_CHARGED"}
_OLD_HELD = {"F_ALLOC", "F_CHARGED", "F_FILL", "F_WP_CLEAR", "F_WP_SET"}
_IN_HAND = {"S_LOCK", "S_WB", "S_WB_WAIT", "S_REF", "S_GEN", "S_LOOK", "S_YOUNG", "S_SLOT",
            "S_ADD", "S_UNMAP", "U_DEFER", "U_CLEAR", "U_GEN", "U_MASK", "U_FLUSH", "U_SET", "S_PIN", "S_DIRTY", "P_OUT", "P_WRITE",
            "P_SUBMIT", "P_END", "P_DISPATCH", "S_FREE"}
_UNLOCKED = {"S_LOCK", "S_WB_WAIT", "P_SUBMIT", "P_END", "P_DISPATCH"}  # in hand, not locked by us
_SUBMITS = {"F_SUBMIT", "F_RA_SUBMIT", "P_SUBMIT"}
_UNMAPPING = {"U_GEN", "U_MASK", "U_FLUSH", "U_SET"}
_MOVING = {"V_MOVE_NEW", "V_MOVE_PTES", "V_MOVED"}
_PTL_HELD = {"F_WP_REUSE", "F_WP_SET", "S_LOOK", "U_DEFER", "U_CLEAR", "E_PTES", "E_FREE", "E_UNLOCK",
             "V_FULL", "V_PTES", "V_FORK_PTES"} | _UNMAPPING | _MOVING
_LRU_HELD = {"I_UNLOCK", "I_PUT_UNLOCK", "K_UNLOCK", "K_PUT_UNLOCK", "D_UNLOCK", "E_UNLOCK",
             "V_FREED", "G_UNLOCK", "G_PUT_UNLOCK", "G_BATCH_UNLOCK", "G_MAX_UNLOCK"}
_ACTIVE_SIDE = {"K_UNLOCK", "K_NEXT", "K_PUT"}
_INACTIVE_SIDE = _IN_HAND | {"I_UNLOCK", "S_PLAN", "S_NEXT", "S_FREE_FLUSHED", "S_TAIL", "S_END",
                             "S_END_FLUSHED", "B_START", "B_LOCK", "B_OUT", "I_PUT",
                             "G_UNLOCK", "G_KEEP", "G_PUT"}
_JUST_ISOLATED = {"I_UNLOCK", "G_UNLOCK", "S_PLAN"}     # what was freed is of the list before
_UNCHARGED = {"S_FREE_FLUSHED", "S_END_FLUSHED"}    # waiting for these: free_folios is uncharged


class Invariants:

    def check(self):
        """Raise AssertionError, with what is wrong, if the state is not consistent."""
        self._check_times()
        self._check_hosts()
        self._check_tasks()
        self._check_mms()
        self._check_zaps()
        self._check_batched()
        self._check_places()
        self._check_usage()
        self._check_slots()
        self._check_locks()
        self._check_queues()
        self._check_io()
        self._check_readahead()
        self._check_generations()
        self._check_calls()

    # -- where a task is ------------------------------------------------------------------------

    def _flush_ret(self, t):
        return self.cpus[t.cpu].fl_ret

    def _inner(self, t):
        """The step of reclaim (or of the fault) that comes when a drain or a flush is done."""
        step = t.step
        while True:
            if step in ("D_LOCK", "D_UNLOCK"):
                step = t.d_ret
            elif step.startswith("FL_"):
                step = self._flush_ret(t)
            elif step == "M_BATCHED":
                step = t.batched_ret
            else:
                return step

    def _outer(self, t):
        """The step of the fault that comes when charging is done."""
        step = self._inner(t)
        return t.c_ret if step[:2] in ("C_", "R_", "G_", "I_", "K_", "S_", "U_", "P_", "B_") and not (
            step == "POPULATE") else step

    # -- the parts ------------------------------------------------------------------------------

    def _check_times(self):
        for c in self.cpus:
            total = sum(times[c.nr] for times in self.time.values())
            clock = c.clock + (c.left if c.in_irq else 0) + c.host_left
            assert total == clock, f"CPU {c.nr}: its times sum to {total}, its clock is {clock}"
            assert 0 <= c.stock <= 64, f"CPU {c.nr}: stock {c.stock}"
            assert (c.istep is not None) == bool(c.in_irq), f"CPU {c.nr}: istep {c.istep}"
            assert c.mode != IDLE or (c.current is None and c.sstep is None), f"CPU {c.nr}: idle"
            if c.mode == RUN:
                assert c.sstep or c.current, f"CPU {c.nr} runs nothing"
            batches = (c.lru_add, c.lru_move_tail, c.lru_activate)
            assert max(map(len, batches)) <= BATCH, f"CPU {c.nr}: batches"
            assert len(c.lru_move_tail) < BATCH, f"CPU {c.nr}: a full lru_move_tail is left"

    def _check_hosts(self):
        for c in self.cpus:
            assert c.host_left >= 0, f"CPU {c.nr}: host_left {c.host_left}"
            assert not (c.ask and c.hosted), f"CPU {c.nr}: asks for what it has"
            assert not (c.pv_flush and c.hosted), f"CPU {c.nr} runs with a flush pending"
            if c.hosted:
                assert c.on_at <= c.clock and not c.host_left, f"CPU {c.nr}: on_at, host_left"
            elif not c.in_irq and c.mode != RUN:
                assert not (c.host_left or c.ask), f"CPU {c.nr}: waits, and has work left"
            if not self.hosts:
                assert not (c.hosted or c.ask or c.on_at or c.host_left), f"CPU {c.nr}: no host CPU"
        assert sorted(c.nr for h in self.hosts for c in h.cpus) == [
            c.nr for c in self.cpus if self.hosts], "a CPU has not one host CPU"
        for h in self.hosts:
            hosted = [c for c in h.cpus if c.hosted]
            assert hosted == ([h.running] if h.running else []), (
                f"host CPU {h.nr} runs {h.running and h.running.nr}, hosted {[c.nr for c in hosted]}")
            if h.running is None:
                for c in h.cpus:        # nobody who could run is forgotten
                    assert c.ask or not self.can_run(c) or self.key(c) <= self.now, (
                        f"host CPU {h.nr} is idle, CPU {c.nr} can run")

    def _check_tasks(self):
        queued = [u for c in self.cpus for u in c.runqueue]
        assert len(set(queued)) == len(queued), "a task stands in two run queues"
        waiting = {u for f in self.folios for u in f.waiters}
        asleep = set(self.memcg.sleepers)
        for_tag = set(self.swapdev.waiters)
        for_mm = [u for mm in self.mms for u in mm.waiters]
        sleepers = [*(u for f in self.folios for u in f.waiters), *self.memcg.sleepers,
                    *self.swapdev.waiters, *for_mm]
        assert len(set(sleepers)) == len(sleepers), "a task waits for two things"
        for t in self.tasks:
            holders = [c for c in self.cpus if c.current is t and c.sstep != "SW_PICK"]
            if t.state == RUNNING:
                assert [c.nr for c in holders] == [t.cpu], f"task {t.nr} runs on {holders}"
            else:
                assert not holders, f"task {t.nr} is current, and in state {t.state}"
            assert (t.state == QUEUED) == (t in queued), f"task {t.nr}: state {t.state}, run queue"
            if t.state not in (RUNNING, QUEUED, DEAD):
                assert (t in sleepers) != (t.step in ("E_LEFT", "V_CHILD")), f"task {t.nr} blocks on nothing"
            else:
                assert t not in sleepers, f"task {t.nr} waits and does not"
                assert t.state == DEAD or t.step not in ("E_LEFT", "V_CHILD"), f"task {t.nr} runs in {t.step}"
            if t in asleep:
                wanted = "F_BACKOFF" if t.sleep_on == ON_SWAPCACHE else "I_START"
                assert t.step == wanted, f"task {t.nr} sleeps on {t.sleep_on} in {t.step}"
            if t in for_tag:
                assert t.step in _SUBMITS, f"task {t.nr} waits for a tag in {t.step}"
            if t in waiting:
                assert t.step == ("S_WB_WAIT" if t.wait_bit else "F_RETRY"), (
                    f"task {t.nr} waits for a folio in {t.step}")
            if t.state == QUEUED:
                assert t in self.cpus[t.cpu].runqueue, f"task {t.nr}: queued elsewhere than cpu"
        assert self.alive == sum(t.state != DEAD for t in self.tasks), "alive"
        for c in self.cpus:
            assert c.timer_at == self.next_timer(c), f"CPU {c.nr}: timer_at {c.timer_at}"

    def _exits(self, t):
        """t takes its mm down."""
        return t.call is None and t.step != "E_LEFT" and self._inner(t).startswith("E_")

    def _check_mms(self):
        dying = set()
        for mm in self.mms:
            living = [t for t in mm.tasks if t.state != DEAD]
            left = [t for t in living if t.step == "E_LEFT"]
            exits = [t for t in living if self._exits(t)]
            assert mm.users == len(living) - len(left) - len(exits), f"mm {mm.nr}: users {mm.users}"
            assert len(exits) == (1 if living and not mm.users else 0), (
                f"mm {mm.nr}: {mm.users} users, and tasks {[t.nr for t in exits]} take it down")
            assert len({t.dying for t in living}) < 2, f"mm {mm.nr}: not all of it is killed"
            if any(t.dying for t in living):
                dying.add(mm)
            assert all(t.dying for t in (*left, *exits)), f"mm {mm.nr}: who was not killed left"
            assert 0 <= mm.flushed <= mm.pending, f"mm {mm.nr}: flushed {mm.flushed} of {mm.pending}"
        assert len(dying) < 2, "two mms are killed at once"
        for t in self.tasks:
            if "M_BATCHED" in (t.step, self._flush_ret(t) if t.step.startswith("FL_") else None):
                assert t.mm.flushed < t.batched <= t.mm.pending, f"task {t.nr}: batched {t.batched}"

    def _check_zaps(self):
        """ZAPPED PTEs are in a zap; behind it nothing is left."""
        zapped = set()
        for t in self.tasks:
            inner = self._inner(t)
            if t.call in GATHERS and t.state != DEAD:
                zapped.update(t.mm.base + page for page in self.call_range(t))
            if t.state == DEAD or not inner.startswith("E_") or inner == "E_LEFT":
                continue
            mm = t.mm
            if inner in ("E_FREE", "E_UNLOCK"):
                own = self.zap_region(t)[1]
                kinds = {self.pte[vp] & KIND for vp in own}
                assert kinds <= {K_NONE, K_ZAPPED}, f"task {t.nr}: {kinds} after the zap"
                zapped.update(own)
                assert inner == "E_FREE" or not any(self.pte[vp] for vp in own), (
                    f"task {t.nr}: PTEs are left in {t.step}")
                if t.step in ("E_FREE", "E_UNLOCK"):
                    for c in self.cpus:
                        reached = self._usable(c).intersection(own)
                        assert not reached, f"CPU {c.nr} can use {reached}, zapped by task {t.nr}"
            if t.call is None:      # nobody else uses the mm
                assert not any(self.pt_present[mm.first_region:mm.first_region + t.zap]), (
                    f"mm {mm.nr}: a page table is left before region {t.zap}")
                assert not any(self.pte[mm.base:mm.base + min(t.zap * 512, mm.pages)]), (
                    f"mm {mm.nr}: pages are left before region {t.zap}")
                if inner == "E_DONE":
                    assert not (mm.rss or mm.swapents), f"mm {mm.nr}: rss {mm.rss}, {mm.swapents}"
        for vp, pte in enumerate(self.pte):
            assert pte & KIND != K_ZAPPED or vp in zapped, f"PTE {vp} is ZAPPED, and nobody zaps it"

    def _usable(self, c, writing=False):
        """The pages that c can use (or write) through its TLB, without a flush or a switch before that."""
        if c.loaded_mm < 0 or c.is_lazy or c.pv_flush:
            return set()
        stamp = c.asid_stamp[c.loaded_asid]
        return {e[0] for level in (c.l1, c.l2) for ways in level for e in ways
                if e and e[1] == stamp and (e[2] or not writing)}

    def _check_batched(self):
        """Where nothing is pending no CPU in the mm can use a page that is not mapped."""
        clean = {mm.nr for mm in self.mms if mm.flushed == mm.pending}
        changing = {region for t in self.tasks if t.state == RUNNING and self._inner(t) in _PTL_HELD
                    for region in self._regions_held(t)}
        gathered = [pages for t in self.tasks if (pages := self._unflushed(t))]
        for c in self.cpus:
            for vp in self._usable(c) if c.loaded_mm in clean else ():
                unmapped = self.pte[vp] & KIND not in (K_PRESENT, K_ZERO)
                assert not unmapped or self.region_of[vp] in changing or any(vp in p for p in gathered), (
                    f"CPU {c.nr} can use page {vp}, PTE {self.pte[vp]:#x}")

    def _batch_part(self, t):
        """The folios of flush_folios that are still there."""
        ff = t.flush_folios
        if not t.in_batch:
            return list(ff)
        if t.step == "B_LOCK":
            return ff[:t.b_w] + ff[t.b_i:]
        return ff[t.b_i:t.b_w]

    def _check_places(self):
        place, refs, maps = {}, {}, {}

        def put_at(f, where):
            assert f not in place, f"folio {f.nr} is in {place[f]} and in {where}"
            place[f] = where

        def add(counts, f, n=1):
            counts[f] = counts.get(f, 0) + n

        for f in self.free_frames:
            put_at(f, "the free stack")
            assert (f.flags, f.refcount, f.mapcount, f.vp, f.slot, f.gen, f.refs) == (
                0, 0, 0, NONE, NONE, NONE, 0), f"free folio {f.nr} is not clean"
        lists = self.lru.named()
        for name, lru, flag in lists:
            for f in lru.values():
                put_at(f, name)
                assert f.flags & LRU, f"folio {f.nr} is in {name} without LRU"
                assert f.flags & ACTIVE == flag, f"folio {f.nr} is in {name}: ACTIVE is wrong"
        for c in self.cpus:
            for f in c.lru_add:
                put_at(f, f"lru_add of CPU {c.nr}")
                add(refs, f)
            for f in (*c.lru_move_tail, *c.lru_activate):
                add(refs, f)
        for f in self.lost:
            put_at(f, "no place: lost at S_TAIL")
            add(refs, f)
        isolated = 0
        for t in self.tasks:
            inner, outer = self._inner(t), self._outer(t)
            parts = [("list", t.list), ("ret", t.ret), ("clean", t.clean),
                     ("flush_folios", self._batch_part(t))]
            if inner in _IN_HAND:
                parts.append(("hand", [t.folio]))
            held = 0
            for where, folios in parts:
                for f in folios:
                    put_at(f, f"{where} of task {t.nr}")
                    add(refs, f)
                    held += 1
            for f in t.free_folios:
                put_at(f, f"free_folios of task {t.nr}")
            if inner in _ACTIVE_SIDE or inner in _INACTIVE_SIDE:
                if inner in _INACTIVE_SIDE - _JUST_ISOLATED:
                    held += t.nr_reclaimed + t.nr_lost
                assert held == t.taken, f"task {t.nr}: {held} of {t.taken} isolated folios"
                isolated += t.taken
            elif inner == "G_PUT_UNLOCK":
                assert held == len(t.clean), f"task {t.nr}: {held} folios are not put back"
            else:
                assert held == 0, f"task {t.nr} has {held} isolated folios in {t.step}"
            if inner in _UNMAPPING:
                add(refs, t.folio)
                add(maps, t.folio)
            if outer in _F_HELD and t.f_pfn is not None:
                add(refs, t.f_pfn)
                if outer not in _READ:
                    put_at(t.f_pfn, f"the fault of task {t.nr}")
            if outer in _OLD_HELD and t.f_old is not None:
                add(refs, t.f_old)
                if outer == "F_WP_SET":
                    add(refs, t.f_old)
                    add(maps, t.f_old)
        assert self.memcg.nr_isolated == self.lru.isolated(isolated), (
            f"nr_isolated {self.memcg.nr_isolated}, counted {isolated}")
        on_lists = {name for name, _, _ in lists}
        for mm in self.mms:
            rss = swapents = 0
            for vp in range(mm.base, mm.base + mm.pages):
                pte = self.pte[vp]
                kind = pte & KIND
                if kind in (K_PRESENT, K_ZAPPED):
                    f = self.folios[pte >> PAYLOAD]
                    assert f.vp != NONE and vp in self.pages_of(f), (
                        f"folio {f.nr}: vp {f.vp}, mapped at {vp}")
                    add(refs, f)
                    if kind == K_PRESENT:
                        add(maps, f)
                        rss += 1
                elif kind == K_SWAP:
                    swapents += 1
                if kind not in (K_NONE, K_ZAPPED):
                    assert self.pt_present[self.region_of[vp]], f"PTE {vp} without a page table"
            clearing = sum(1 for t in self.tasks if self._inner(t) in _UNMAPPING
                           and self.mm_of[self.unmap_page(t)] is mm)
            clearing += sum(1 for t in self.tasks if self._outer(t) == "F_WP_SET" and t.mm is mm
                            and t.f_old is not None)
            assert mm.rss == rss + clearing, f"mm {mm.nr}: rss {mm.rss}, counted {rss + clearing}"
            assert mm.swapents == swapents, f"mm {mm.nr}: swapents {mm.swapents}, {swapents} PTEs"
        for f in self.folios:
            if f.flags & SWAPCACHE:
                add(refs, f)
                assert self.slot_entry[f.slot] == f.nr * 4 + 2, f"folio {f.nr}: slot {f.slot}"
            assert f in place, f"folio {f.nr} is nowhere: flags {f.flags:#x}, refcount {f.refcount}"
            assert f.refcount == refs.get(f, 0), (
                f"folio {f.nr} ({place[f]}): refcount {f.refcount}, counted {refs.get(f, 0)}")
            assert f.mapcount == maps.get(f, 0), (
                f"folio {f.nr} ({place[f]}): mapcount {f.mapcount}, counted {maps.get(f, 0)}")
            assert bool(f.flags & LRU) == (place[f] in on_lists), (
                f"folio {f.nr}: LRU, and in {place[f]}")
            assert bool(f.flags & WAITERS) == bool(f.waiters), f"folio {f.nr}: WAITERS"
            for u in f.waiters:
                wanted = WRITEBACK if u.wait_bit == WAIT_WRITEBACK else LOCKED
                assert f.flags & wanted, f"folio {f.nr}: task {u.nr} waits for what it has not"
        self._check_folio_locks()

    def _requests(self):
        return [r for c in self.cpus for r in c.io] + [r for t in self.tasks for r in t.plug]

    def _check_folio_locks(self):
        """LOCKED folios have an owner, a task or a read; those under WRITEBACK have a writer."""
        owned = set(self.lost) if self.policy["keeps_locks"] else set()
        sent = [f for request in self._requests() for f in self.request_folios(request)]
        assert len(set(sent)) == len(sent), "a folio is in two requests"
        writing = {f for f in sent if f.flags & WRITEBACK}
        owned.update(set(sent) - writing)
        for t in self.tasks:
            inner, outer = self._inner(t), self._outer(t)
            if inner in _IN_HAND - _UNLOCKED:
                owned.add(t.folio)
            if inner in ("P_SUBMIT", "P_END"):
                assert t.folio not in writing, f"folio {t.folio.nr} is written twice"
                writing.add(t.folio)
            if outer in _READ - {"F_LOCK", "F_RETRY"}:
                owned.add(t.f_pfn)
            part = self._batch_part(t)
            if self.policy["keeps_locks"]:
                owned.update(part)
            elif t.in_batch:
                owned.update(t.flush_folios[:t.b_w] if t.step == "B_LOCK" else part)
        for f in self.folios:
            assert bool(f.flags & LOCKED) == (f in owned), (
                f"folio {f.nr}: LOCKED is {bool(f.flags & LOCKED)}, owned is {f in owned}")
            assert bool(f.flags & WRITEBACK) == (f in writing), (
                f"folio {f.nr}: WRITEBACK is {bool(f.flags & WRITEBACK)}, written {f in writing}")
            if f in sent or f in writing:
                assert f.flags & SWAPCACHE, f"folio {f.nr}: in a request, not in the swap cache"

    def _check_usage(self):
        m = self.memcg
        pending = sum(1 for t in self.tasks if self._outer(t) in ("F_PT_SET", "V_PT", "V_FORK_PT") and not t.unpaid)
        uncharged = 0
        for t in self.tasks:
            if self._outer(t) in _CHARGED and t.unpaid:
                uncharged += 1
            if self._inner(t) in _UNCHARGED:
                uncharged += len(t.free_folios)
        folios = len(self.folios) - len(self.free_frames) - uncharged
        stocks = sum(c.stock for c in self.cpus)
        total = m.kernel + stocks + folios + pending
        assert m.usage == total, (
            f"usage {m.usage}; kernel {m.kernel} + stocks {stocks} + folios {folios} + {pending}")
        assert m.kernel == self.world.kernel_pages + sum(self.pt_present), "kernel pages"

    def _check_slots(self):
        counted = [0] * self.world.nr_slots
        for pte in self.pte:
            if pte & KIND == K_SWAP:
                counted[pte >> PAYLOAD] += 1
        free = self._free_slots()
        taken = {t.folio.slot for t in self.tasks if t.step == "S_ADD"}
        in_caches = self._slots_in_caches()
        assert not taken & set(in_caches), "a slot was taken and is in a cache"
        if self.world.rotational or self.world.slot_cache:
            in_caches.update(taken)
        reading = {t.f_pfn.slot for t in self.tasks
                   if self._outer(t) in ("F_SWAP_READ", "F_SWAP_MAP") and not t.f_cached}
        for s, n in enumerate(counted):
            count, entry = self.slot_count[s], self.slot_entry[s]
            assert count & MAP_COUNT == n, f"slot {s}: map count {count & MAP_COUNT}, {n} PTEs"
            used = bool(count) or s in taken
            assert used == (s not in free), f"slot {s}: count {count:#x}, free {s in free}"
            in_cache = entry & 3 == 2 and not (s in free)
            if in_cache:
                f = self.folios[entry >> 2]
                assert f.flags & SWAPCACHE and f.slot == s, f"slot {s}: its folio {f.nr} is not it"
            assert bool(count & HAS_CACHE) == (in_cache or s in reading or s in in_caches), (
                f"slot {s}: HAS_CACHE")
            if s in in_caches:
                assert (count, entry) == (HAS_CACHE, 0), f"slot {s}: {count:#x}, {entry} in a cache"

    def _free_slots(self):
        """The pool."""
        dev, rotational = self.swapdev, self.world.rotational
        pool = [s for s, count in enumerate(self.slot_count) if count == 0] if rotational else self.free_slots
        free = set(pool)
        assert len(free) == len(pool) == self.slots_free, "slots_free, or a slot is free twice"
        assert not any(self.slot_entry[s] for s in free), "a free slot has an entry"
        if not rotational:
            assert (dev.cluster_next, dev.cluster_nr, dev.lowest, dev.highest) == (
                0, 0, 0, self.world.nr_slots - 1), "a scan of a device that does not rotate"
        elif free:
            assert 0 <= dev.lowest <= min(free) and max(free) <= dev.highest < self.world.nr_slots, (
                f"free slots from {min(free)} to {max(free)}, {dev.lowest} to {dev.highest} known")
        else:
            assert (dev.lowest, dev.highest) == (self.world.nr_slots, -1) or not self.world.nr_slots, (
                f"no slot is free, {dev.lowest} to {dev.highest} known")
        assert 0 <= dev.cluster_nr < 256 and 0 <= dev.cluster_next <= self.world.nr_slots, "cluster"
        return free

    def _slots_in_caches(self):
        caches = [slots for c in self.cpus for slots in (c.slots, c.slots_ret)]
        assert max(map(len, caches)) <= 64, "a slot cache holds too much"
        slots = [s for cache in caches for s in cache]
        assert len(set(slots)) == len(slots), "a slot is in two caches"
        assert self.world.slot_cache or not self.swapdev.cache_active, "slot caches in use"
        assert self.swapdev.cache_active or not slots, "slots in caches that are off"
        return set(slots)

    def _check_locks(self):
        def owner_ok(lock, steps, wanted=None):
            c = lock.holder
            if c is None:
                assert all(self.hosts and not w.hosted for w in lock.waiters), (
                    f"{lock.name} is free and has waiters that run")
                return
            if c.granted is lock:
                return
            t = c.current
            ok = t is not None and t.state == RUNNING and self._holds(t, steps)
            assert ok, f"{lock.name} is held by CPU {c.nr} for nothing ({t and t.step})"
            if wanted is not None:
                assert wanted(t), f"{lock.name}: task {t.nr} in {t.step} holds another one"
        owner_ok(self.lru_lock, None)
        for region, lock in enumerate(self.ptl):
            owner_ok(lock, _PTL_HELD, lambda t, r=region: r in self._regions_held(t))
        for c in self.cpus:
            waits = sum(lock.waiters.count(c) for lock in [self.lru_lock, *self.ptl])
            assert waits == (c.mode == SPIN_LOCK), f"CPU {c.nr}: mode {c.mode}, in {waits} queues"
        for t in self.tasks:
            if t.state == RUNNING:
                if self._inner(t) in _PTL_HELD:
                    assert all(self.ptl[r].holder is self.cpus[t.cpu] for r in self._regions_held(t)), (
                        f"task {t.nr} in {t.step} does not hold its PTL")
                if t.step in _LRU_HELD:
                    assert self.lru_lock.holder is self.cpus[t.cpu], (
                        f"task {t.nr} in {t.step} does not hold the LRU lock")

    def _holds(self, t, steps):
        return t.step in _LRU_HELD if steps is None else self._inner(t) in steps

    def _regions_held(self, t):
        inner = self._inner(t)
        if inner in _MOVING:
            return self._moved_locks(t)
        if inner[:2] in ("E_", "V_"):
            return {(t.mm.child if inner == "V_FORK_PTES" else t.mm).first_region + t.zap}
        return {self.region_of[t.vp if inner.startswith("F_") else self.unmap_page(t)]}

    def _check_queues(self):
        for s in self.cpus:
            owed = sum(c.queue.count(s) + c.hand.count(s) for c in self.cpus)
            assert s.acks == owed, f"CPU {s.nr}: waits for {s.acks} acks, {owed} are on the way"
            if s.mode == SPIN_ACK:
                assert s.acks > 0, f"CPU {s.nr} waits for no ack"
        sending = {j for s in self.cpus if s.current and s.current.step in ("FL_QUEUE", "FL_SEND")
                   for j in self.cpus if s.fl_ipi & j.bit}
        for j in self.cpus:
            if j.queue:
                coming = j.irq_at < INF or j.istep == "Q_TAKE" or j in sending
                assert coming, f"CPU {j.nr}: a call is queued and no interrupt will come"

    def _check_io(self):
        dev, world = self.swapdev, self.world
        assert dev.in_flight == len(self._requests()), f"in flight {dev.in_flight}"
        for c in self.cpus:
            own = [d for _, _, d in c.io]
            assert own == sorted(own), f"CPU {c.nr}: requests out of order, {own}"
            assert c.io_at == (own[0] if own else INF), f"CPU {c.nr}: io_at {c.io_at}"
        done = sorted(d for c in self.cpus for _, _, d in c.io)
        # The last one may be over before an older one of a CPU with interrupts off.
        assert not done or done[-1] == dev.last or done[-1] < dev.last <= self.now, (
            f"the last request is not done at {dev.last}")
        ends = sorted((d, nr) for c in self.cpus for _, nr, d in c.io)
        assert all(b - a >= n * world.io_page for (a, _), (b, n) in zip(ends, ends[1:])), "two ends too close"
        if world.swap_sync:
            assert not (dev.in_flight or dev.last or dev.waiters), "a synchronous device at work"
            assert not any(c.lru_move_tail for c in self.cpus), "rotation without write-back"
            return
        assert dev.in_flight <= world.io_depth, f"{dev.in_flight} requests, depth {world.io_depth}"
        if dev.waiters:     # a tag given back wakes a waiter: no tag is free for nobody
            awake = sum(1 for t in self.tasks if t.step in _SUBMITS and t not in dev.waiters)
            assert dev.in_flight + awake >= world.io_depth, "a tag is free, and tasks wait for it"

    def _check_readahead(self):
        for mm in self.mms:
            ra = mm.ra_page, mm.ra_win, mm.ra_hits
            if self.world.swap_sync or self.world.rotational:
                assert ra == (-2, 0, 4), f"mm {mm.nr}: read ahead {ra}, not by pages"
            assert (0 <= mm.ra_page < mm.pages or mm.ra_page == -2) and 0 <= mm.ra_hits <= 63 and (
                mm.ra_win in (0, 1, 2, 4, 8)), f"mm {mm.nr}: read ahead {ra}"
        dev = self.swapdev
        if not self.world.rotational:
            assert (dev.ra_hits, dev.ra_prev, dev.ra_win) == (4, -1, 0), "read ahead by slots"
        assert dev.ra_hits >= 0 and -1 <= dev.ra_prev < max(self.world.nr_slots, 1) and (
            dev.ra_win in (0, 1, 2, 4, 8)), f"read ahead by slots: {dev.ra_hits}, {dev.ra_prev}, {dev.ra_win}"
        for t in self.tasks:
            step, mm, f = self._outer(t), t.mm, t.f_pfn
            if step in _NOT_HELD:
                assert f is None, f"task {t.nr} holds folio {f.nr} in {t.step}"
            if self.world.rotational:
                self._check_cluster(t, step, f)
                continue
            assert step not in _BY_SLOT, f"task {t.nr} in {step}, on a device that does not rotate"
            if step == "F_TARGET" or step.startswith("F_RA_") and step != "F_RA_WIN":
                p, r = t.vp - mm.base, (t.vp - mm.base) // 512 * 512
                assert mm.base + r <= t.ra_at <= t.ra_end <= mm.base + min(r + 512, mm.pages), (
                    f"task {t.nr}: the window of page {p} goes from {t.ra_at} to {t.ra_end}")
            if step in _AHEAD:
                assert f.flags & SWAPCACHE and f.vp == t.ra_vp, f"folio {f.nr}: in {t.step}"
                if self.map_count(f.slot):      # not zapped meanwhile
                    pte = self.pte[f.vp]
                    assert pte & KIND == K_SWAP and pte >> PAYLOAD == f.slot, f"folio {f.nr}: not its slot"
                # Another thread may have met it, and cleared the flag.
                assert f.flags & RECLAIM or f.vp == t.vp or len(mm.tasks) > 1, (
                    f"folio {f.nr}: PG_readahead is not set")

    def _check_cluster(self, t, step, f):
        assert step not in _BY_VP, f"task {t.nr} in {step}, on a device that rotates"
        if step in _AHEAD or step in _BY_SLOT and step != "F_CL_WIN":
            s = t.f_orig >> PAYLOAD
            assert 0 <= t.ra_at <= t.ra_end <= self.world.nr_slots and t.ra_end - 8 <= s < t.ra_end, (
                f"task {t.nr}: the cluster of slot {s} goes from {t.ra_at} to {t.ra_end}")
        if step in _AHEAD:
            assert f.flags & SWAPCACHE and (f.slot, f.vp) == (t.ra_vp, NONE), f"folio {f.nr}: in {t.step}"
