"""Draining, flushing and interrupts (docs/model.md, sections 5.6 to 5.8)."""

from .state import ACTIVE, INF, LRU, NONE, SPIN_ACK, SWITCHING, WRITEBACK

_SECOND = 10**12                    # [ps]


class Flushing:

    # -- draining -------------------------------------------------------------------------------

    def start_drain(self, t, which, ret):
        t.d_which, t.d_ret = which, ret
        t.step = "D_LOCK"

    def step_D_LOCK(self, c, t):
        if not self.lock(self.lru_lock):
            return
        n = 0
        if t.d_which & 1:
            for f in c.lru_add:
                n += 1
                f.flags |= LRU
                self.lru.add(f)
                f.refcount -= 1
                if f.refcount == 0:
                    self.lru.delete(f)
                    f.flags &= ~(LRU | ACTIVE)
                    self.uncharge(1)
                    self.free_frame(f)
            c.lru_add.clear()
        if t.d_which & 4:
            n += len(c.lru_move_tail)
            self.move_tail(c)
        if t.d_which & 2:
            for f in c.lru_activate:
                n += 1
                if f.flags & LRU and not f.flags & ACTIVE:
                    self.lru.delete(f)
                    f.flags |= ACTIVE
                    self.lru.add(f)
                    self.counter["pgactivate"] += 1
                    self.counter["memcg_pgactivate"] += 1
                self.put(f)
            c.lru_activate.clear()
        self.spend(self.cost["lru_lock"] + self.cost["lru_add"] * n)
        t.step = "D_UNLOCK"

    def step_D_UNLOCK(self, c, t):
        self.unlock(self.lru_lock)
        t.step = t.d_ret

    # -- the sender -----------------------------------------------------------------------------

    def count_flush(self, c, what):
        self.counter[("arch_tlbbatch_flush_" if c.fl_mm == NONE else "flush_mm_") + what] += 1

    def step_FL_START(self, c, t):
        c.acks = c.fl_scan = c.fl_n = c.fl_ipi = 0
        if c.fl_mm != NONE:
            mm = self.mms[c.fl_mm]
            mm.tlb_gen += 1
            c.fl_gen = mm.tlb_gen
            c.fl_mask = mm.cpumask
            c.fl_trim = 1 if (self.world.trim and self.now > mm.next_trim
                              and self.others(c.fl_mask)) else 0
            if c.fl_trim:
                mm.next_trim = self.now + _SECOND
            here = c.loaded_mm == c.fl_mm
        else:
            c.fl_gen = NONE
            c.fl_mask = t.ubc_mask
            t.ubc_mask = t.ubc_required = t.ubc_writable = 0
            here = c.fl_mask & c.bit
        if self.others(c.fl_mask):
            self.counter["nr_tlb_remote_flush"] += 1
            self.count_flush(c, "remote")
            t.step = "FL_QUEUE"
        elif here:
            self.count_flush(c, "local")
            t.step = "FL_LOCAL"
        else:
            t.step = "FL_DONE"

    def step_FL_QUEUE(self, c, t):
        for j in self.cpus[c.fl_scan:]:
            if c.fl_mask & j.bit and j is not c:
                break
        else:
            t.step = "FL_SEND"
            return
        c.fl_scan = j.nr + 1
        self.count_flush(c, "targets")
        if self.should_flush(c, j):
            if self.world.pv_flush and not j.hosted:        # kvm_flush_tlb_multi
                j.pv_flush = 1
                self.counter["pv_flushes"] += 1
                return
            if not j.queue:
                c.fl_ipi |= j.bit
            j.queue.append(c)
            c.acks += 1
            c.fl_n += 1

    def should_flush(self, c, j):
        if c.fl_tables:
            return True
        if j.is_lazy:
            return False
        if c.fl_mm == NONE:
            return True
        return not self.world.trim or j.loaded_mm in (c.fl_mm, SWITCHING) or c.fl_trim

    def step_FL_SEND(self, c, t):
        cost = self.cost["flush_fixed"]
        for j in self.cpus:
            if c.fl_ipi & j.bit:
                cost += self.cost["ipi_send"]
                way = "ipi_delivery" if j.socket == c.socket else "ipi_delivery_cross"
                self.send_ipi(j, self.now + cost + self.cost[way])
        self.spend(cost)
        here = c.fl_mask & c.bit and not c.is_lazy and (c.fl_mm == NONE or c.loaded_mm == c.fl_mm)
        t.step = "FL_LOCAL" if here else "FL_WAIT"

    def send_ipi(self, j, at):
        if at < j.irq_at:
            j.irq_at = at
            if at <= j.kicked_at:
                j.kicked_at = at - 1

    def step_FL_LOCAL(self, c, t):
        self.spend(self.flush_tlb_func(c, c, False))
        t.step = "FL_WAIT"

    def step_FL_WAIT(self, c, t):
        if c.acks > 0:
            c.mode = SPIN_ACK
        else:
            self.spend(self.cost["csd_ack"] * c.fl_n)
        t.step = "FL_DONE"

    def step_FL_DONE(self, c, t):
        t.step = c.fl_ret

    def flush_tlb_batched_pending(self, t, ret):
        """True: what reclaim left unflushed in t's mm is flushed first."""
        mm = t.mm
        if mm.pending == mm.flushed:
            return False
        self.counter["flush_tlb_batched_pending"] += 1
        t.batched, t.batched_ret = mm.pending, ret
        self.flush(mm, NONE, "M_BATCHED")
        return True

    def step_M_BATCHED(self, c, t):
        if t.mm.pending == t.batched:
            t.mm.flushed = t.batched
        t.step = t.batched_ret

    # -- the flush itself -----------------------------------------------------------------------

    def flush_all(self, c):
        c.tlb_stamp += 1
        c.asid_stamp[c.loaded_asid] = c.tlb_stamp

    def invlpg(self, c, vp):
        for level in (c.l1, c.l2):
            found = self.tlb_find(c, level, vp)
            if found:
                ways, way = found
                ways[way] = None

    def flush_tlb_func(self, c, s, remote):
        """CPU s's flush, done on CPU c; what it costs."""
        loaded, check = c.loaded_mm, self.cost["tlb_check"]
        if remote:
            self.counter["nr_tlb_remote_flush_received"] += 1
            if s.fl_mm != NONE and s.fl_mm != loaded:
                if self.world.mask_lazy:
                    self.mms[s.fl_mm].cpumask &= ~c.bit
                return check
        if loaded < 0:
            return check
        mm = self.mms[loaded]
        if c.is_lazy:
            c.is_lazy = 0
            if not self.world.mask_lazy:
                mm.cpumask &= ~c.bit
            c.loaded_mm = NONE
            return check
        g = c.asid_gen[c.loaded_asid]
        if s.fl_gen != NONE and s.fl_gen <= g:
            return check
        gen = mm.tlb_gen
        if g == gen:
            return check
        if s.fl_vp != NONE and s.fl_gen == g + 1 and s.fl_gen == gen:
            for vp in range(s.fl_vp, s.fl_vp + s.fl_nr):
                self.invlpg(c, vp)
            cost = self.cost["invlpg"] * s.fl_nr
            if not remote:
                self.counter["nr_tlb_local_flush_one"] += s.fl_nr
        else:
            self.flush_all(c)
            cost = self.cost["tlb_flush_full"]
            if not remote:
                self.counter["nr_tlb_local_flush_all"] += 1
        c.asid_gen[c.loaded_asid] = gen
        return cost

    # -- interrupts -----------------------------------------------------------------------------

    def step_Q_ENTRY(self, c, t):
        self.counter["function_call_ipis"] += 1
        c.irq_at = INF
        self.spend(self.cost["irq_entry"])
        c.istep = "Q_TAKE"

    def step_Q_TAKE(self, c, t):
        c.hand.extend(c.queue)
        c.queue.clear()
        c.istep = "Q_FUNC" if c.hand else "Q_EXIT"

    def step_Q_FUNC(self, c, t):
        c.irq_cost += self.flush_tlb_func(c, c.hand[0], True)
        c.istep = "Q_ACK"

    def step_Q_ACK(self, c, t):
        s = c.hand.popleft()
        s.acks -= 1
        if s.acks == 0 and s.mode == SPIN_ACK:
            self.wake_cpu(s, c.irq_cost + self.cost["csd_ack"] * s.fl_n, "flush_wait")
        c.istep = "Q_FUNC" if c.hand else "Q_EXIT"

    def step_Q_EXIT(self, c, t):
        self.spend(c.irq_cost + self.cost["irq_exit"])      # then Machine.interrupt_exit
        c.irq_cost = 0

    def step_T_TICK(self, c, t):
        world = self.world
        self.counter["ticks"] += 1
        elapsed = 1 + (self.now - c.tick_at) // world.tick
        c.tick_at += world.tick
        if c.tick_at <= self.now:
            c.tick_at = self.next_tick(c, self.now)
        self.spend(self.cost["tick"])
        if t is not None:
            c.slice_ticks = min(c.slice_ticks + elapsed, 2**30 - 1)
            if c.slice_ticks >= world.slice_ticks and c.runqueue:
                c.need_resched = 1
            if (world.migrate_threshold > 0 and world.nr_cpus > 1 and not t.pinned
                    and c.push == NONE and c.draw64() < min(elapsed * world.migrate_threshold, 2**64 - 1)):
                j = c.draw(world.nr_cpus - 1)
                c.push = j + 1 if j >= c.nr else j
                c.need_resched = 1
            if world.kworkers:
                self.work_timers(c)
            if world.nr_cpus > 1 and world.balance > 0 and self.now >= c.balance_at:
                self.balance(c)
        c.istep = "Q_EXIT"

    def step_IO_ENTRY(self, c, t):
        self.spend(self.cost["irq_entry"])
        c.istep = "IO_END"

    def request_folios(self, request):
        slot, nr = request[:2]
        return [self.slot_folio(s) for s in range(slot, slot + nr)]

    def step_IO_END(self, c, t):
        """end_swap_bio_write, end_swap_bio_read"""
        dev = self.swapdev
        request = c.io.popleft()
        c.io_at = c.io[0][2] if c.io else INF
        dev.in_flight -= 1
        for f in self.request_folios(request):
            c.irq_cost += self.cost["io_complete"]
            if f.flags & WRITEBACK:
                self.end_writeback(f)
            else:
                self.folio_unlock(f)
        if dev.waiters:
            self.wake_task(dev.waiters.popleft())
        if c.io_at <= self.now:
            c.kicked_at = self.now
            c.istep = "IO_END"
        else:
            c.istep = "Q_EXIT"

    def step_T_TIMER(self, c, t):
        self.wake_sleepers([u for u in self.memcg.sleepers if u.cpu == c.nr and u.wake_at <= self.now])
        c.timer_at = self.next_timer(c)
        c.istep = "Q_EXIT"
