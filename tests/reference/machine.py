"""Time, order, interrupts, locks and waking (docs/model.md, sections 1 "Locks", 2 and 3)."""

from .rows import CAT, IRQ_ON, NUMBER
from .state import (BLOCKED, IDLE, INF, LOCKED, NONE, QUEUED, RUN, SPIN_ACK, SPIN_LOCK, WAITERS,
                    WAIT_LOCKED)

WAIT = {SPIN_ACK: "flush_wait", SPIN_LOCK: "lock_wait", IDLE: "idle"}
_FOLIO_ROWS = ("S_", "U_", "P_", "B_")
_LOGS = {name: "folio" if name.startswith(_FOLIO_ROWS) else "f_pfn" if name.startswith("F_") else None
         for name in NUMBER}


class Machine:
    """The loop.  `now`, `row`, `spent` and `last_on` belong to the action that is being done."""

    # -- the loop -------------------------------------------------------------------------------

    def key(self, c):
        if self.hosts:
            return self.host_key(c)
        if c.in_irq:
            return c.clock
        if c.mode == RUN:
            return min(c.clock, c.t_irq()) if c.last_on else c.clock
        if c.mode == SPIN_LOCK and not c.last_on:
            return INF
        return max(c.clock, c.t_irq())

    def least(self):
        """The CPU that acts next, and its key."""
        best, best_key = None, INF
        for c in self.cpus:
            key = self.key(c)
            if key < best_key:
                best, best_key = c, key
        return best, best_key

    def act(self):
        """Do one action; its log row, or None if no CPU has a key below INF."""
        c, key = self.least()
        return None if c is None else self._act(c, key)

    def run(self, end, max_touches=0, log=True):
        rows = []
        while self.alive and not (max_touches and self.counter["page_touches"] >= max_touches):
            c, key = self.least()
            if c is None or key >= end:
                break
            row = self._act(c, key)
            if log:
                rows.append(row)
        return rows

    def _act(self, c, key):
        self.now, self.spent, self.last_on = key, 0, None
        row = self.host_row(c)
        if row:                         # costs nothing, and has no column irq: last_on stays
            self.steps[row](c, c.current)
            return key, c.nr, NUMBER[row], NONE, 0
        if c.in_irq:
            row = c.istep
        elif key < c.clock or c.mode != RUN or (c.last_on and c.t_irq() < c.clock):
            row = self.interrupt_entry(c)
        else:
            row = c.sstep or c.current.step
            if IRQ_ON[row] and c.t_irq() <= c.clock:
                row = self.interrupt_entry(c)
        self.row, self.c = row, c
        t = c.current
        granted = c.granted if not c.in_irq else None
        before = self.meter_before(row, c, t)
        self.steps[row](c, t)
        self.meter_after(row, c, t, before)
        if granted is not None and c.granted is granted:    # handed over, no longer mapped
            c.granted = None
            self.unlock(granted)
        c.clock += self.spent
        c.last_on = IRQ_ON[row] if self.last_on is None else self.last_on
        if row == "Q_EXIT":
            self.interrupt_exit(c)
        shown = _LOGS[row]
        f = getattr(t, shown) if shown else None
        return key, c.nr, NUMBER[row], NONE if f is None else f.nr, self.spent

    def interrupt_entry(self, c):
        now = self.now
        if c.mode == RUN:
            c.left = c.clock - now
        else:
            c.left = 0
            self.time[WAIT[c.mode]][c.nr] += now - c.clock
        c.clock, c.in_irq = now, 1
        c.istep = self.source(c)
        return c.istep

    def source(self, c):
        """The first step of the interrupt that comes first."""
        first = c.t_irq()
        for at, entry in ((c.irq_at, "Q_ENTRY"), (c.tick_at, "T_TICK"), (c.timer_at, "T_TIMER")):
            if at == first:
                return entry
        return "IO_ENTRY"

    def interrupt_exit(self, c):
        """Q_EXIT, after its cost."""
        if c.t_irq() <= c.clock:
            c.istep = self.source(c)
            return
        c.in_irq, c.istep, c.last_on = 0, None, 1
        if c.mode == RUN:
            c.clock += c.left
        c.left = 0

    def spend(self, cost, cat=None):
        """Add to the cost of the step, under its row's category unless said."""
        self.spent += cost
        self.time[cat or CAT[self.row]][self.c.nr] += cost

    # -- waking ---------------------------------------------------------------------------------

    def wake_cpu(self, w, d, cat):
        w.mode = RUN
        times = self.time[cat]
        if w.in_irq:
            w.left = d
            times[w.nr] += d
        else:
            u = max(w.clock, self.now)
            times[w.nr] += u - w.clock + d
            if w.host and not w.hosted:
                w.clock, w.host_left, w.ask = u, d, 1
            else:
                w.clock = u + d

    def wake_idle(self, w, d=None):
        w.sstep = "SW_PICK"
        self.wake_cpu(w, self.cost["ipi_delivery"] if d is None else d, "idle")

    def leaves(self, u, home):
        """A task that is woken goes to another CPU, if one is idle."""
        if u.pinned:
            return False
        if home.mode != IDLE:
            return home.current is not u
        others = any(c.mode == IDLE for c in self.cpus if c is not home)
        return self.world.busy_threshold > 0 and others and self.c.draw64() < self.world.busy_threshold

    def wake_task(self, u):
        """try_to_wake_up"""
        target = self.cpus[u.cpu]
        nr = len(self.cpus)
        if self.leaves(u, target):
            for k in range(1, nr):
                other = self.cpus[(u.cpu + k) % nr]
                if other.mode == IDLE:
                    target = other
                    u.cpu = other.nr
                    self.counter["migrations"] += 1
                    break
        u.state = QUEUED
        target.runqueue.append(u)
        if target.mode == IDLE:
            if target is self.c:
                self.wake_idle(target, 0)
            else:                       # ttwu_queue_wakelist
                self.wake_idle(target, self.cost["ipi_delivery"] + self.c.irq_cost)
                self.counter["function_call_ipis"] += 1
        self.spend(self.cost["wakeup"], "sched")

    def folio_unlock(self, f):
        f.flags &= ~LOCKED
        self.folio_wake(f, WAIT_LOCKED)

    def folio_wait(self, c, t, f, bit):
        t.wait_bit = bit
        f.waiters.append(t)
        f.flags |= WAITERS
        self.block(c, t)

    def folio_wake(self, f, bit):
        if not f.flags & WAITERS:
            return
        due = [u for u in f.waiters if u.wait_bit == bit]
        for u in due:
            f.waiters.remove(u)
            self.wake_task(u)
        if not f.waiters:
            f.flags &= ~WAITERS

    def block(self, c, t):
        self.flush_plug(t)
        t.state = BLOCKED
        c.sstep = "SW_PICK"

    def sleep(self, c, t, why, at):
        """schedule_timeout"""
        t.sleep_on, t.wake_at = why, at
        self.memcg.sleepers.append(t)
        c.timer_at = min(c.timer_at, at)
        self.block(c, t)

    def next_timer(self, c):
        """timer_at of CPU c, from those who sleep there."""
        return min((u.wake_at for u in self.memcg.sleepers if u.cpu == c.nr), default=INF)

    def wake_sleepers(self, due):
        for u in due:
            self.memcg.sleepers.remove(u)
        for c in {self.cpus[u.cpu] for u in due}:
            c.timer_at = self.next_timer(c)
        for u in due:
            self.wake_task(u)

    def wake_up(self, why):
        self.wake_sleepers([u for u in self.memcg.sleepers if u.sleep_on == why])

    def resched_guard(self, c, t):
        """True: the step is over."""
        if c.granted is not None:       # the step waited for a lock and has it now
            return False
        if c.works and not (self.world.kworkers and c.slice_ticks < self.world.slice_ticks):
            c.sstep = "W_WORK"
            return True
        if not (c.need_resched and (c.runqueue or c.push != NONE)):
            return False
        t.state = QUEUED
        if c.push != NONE:
            j = self.cpus[c.push]
            c.push = NONE
            t.cpu = j.nr
            self.counter["migrations"] += 1
            j.runqueue.appendleft(t)
            j.need_resched = 1
            if j.mode == IDLE:
                self.wake_idle(j)
        else:
            c.runqueue.append(t)
            for i in self.cpus:
                if i.mode == IDLE:
                    self.wake_idle(i)
                    break
        c.sstep = "SW_PICK"
        return True

    # -- locks ----------------------------------------------------------------------------------

    def lock(self, l):
        """True: this CPU holds it now.  False: it waits, and the step is over."""
        c = self.c
        if l.holder is None:
            l.holder = c
            return True
        if l.holder is c:
            assert c.granted is l, f"CPU {c.nr} takes {l.name} twice in {self.row}"
            c.granted = None
            return True
        l.waiters.append(c)
        c.mode, c.spins_for = SPIN_LOCK, l
        if l is self.lru_lock:
            self.counter["lru_lock_waits"] += 1
        return False

    def unlock(self, l):
        assert l.holder is self.c, f"CPU {self.c.nr} does not hold {l.name} in {self.row}"
        able = [w for w in l.waiters if not self.hosts or w.hosted or w.host.running is None]
        if able:
            self.hand_over(l, able[0])
        else:
            l.holder = None

    def hand_over(self, l, w):
        l.waiters.remove(w)
        l.holder, w.granted, w.spins_for = w, l, None
        self.wake_cpu(w, self.cost["lock_handoff"], "lock_wait")
