"""Host CPUs that run the CPUs in turn (docs/model.md, sections 2 "Host CPUs" and 5.11).

Used only if host_cpus > 0; `self.hosts` is empty otherwise.
"""

from .machine import WAIT
from .state import INF, RUN, SPIN_LOCK


class Host:

    def kick(self, c):
        """The first timer of c that its host CPU has not heard of."""
        return min((at for at in (c.tick_at, c.timer_at, c.io_at) if at > c.kicked_at), default=INF)

    def host_key(self, c):
        if not c.hosted:
            ipi = c.irq_at if c.irq_at > c.kicked_at else INF
            return min(self.kick(c), ipi, c.clock if c.ask else INF)
        key = c.clock
        if not c.in_irq and c.mode == RUN and c.last_on:
            key = min(key, max(c.t_irq(), c.on_at))
        return min(self.kick(c), key)

    def host_row(self, c):
        """What the host CPU does now, or None: c acts by itself."""
        if not self.hosts:
            return None
        if not c.hosted or self.kick(c) <= self.now:
            return "H_EVENT"
        return None if self.can_run(c) else "H_YIELD"

    def can_run(self, c):
        if c.in_irq or c.mode == RUN:
            return True
        if c.mode == SPIN_LOCK and c.spins_for.holder is None:
            return True
        return c.t_irq() <= self.now and not (c.mode == SPIN_LOCK and not c.last_on)

    # -- changing places ------------------------------------------------------------------------

    def enter(self, c, switch):
        c.hosted, c.ask = 1, 0
        if self.now > c.clock:
            cat = "steal" if c.in_irq or c.mode == RUN else WAIT[c.mode]
            self.time[cat][c.nr] += self.now - c.clock
            c.clock = self.now
        self.time["steal"][c.nr] += switch
        c.clock += switch
        c.on_at = c.clock
        c.clock += c.host_left
        c.host_left = 0
        if c.mode == SPIN_LOCK and c.spins_for.holder is None:
            self.hand_over(c.spins_for, c)
        if c.pv_flush:
            c.pv_flush = 0
            for a in range(len(c.asid_stamp)):
                c.tlb_stamp += 1
                c.asid_stamp[a] = c.tlb_stamp

    def leave(self, c):
        c.hosted, c.kicked_at = 0, self.now
        if c.in_irq or c.mode == RUN:
            c.host_left = c.clock - self.now
            c.clock = self.now

    def next_of(self, h, first):
        """Next(h, first)"""
        before, h.running = h.running, None
        at = h.cpus.index(first)
        for c in h.cpus[at:] + h.cpus[:at]:
            if self.can_run(c):
                break
        else:
            return
        h.running = c
        if before in (None, c):
            self.enter(c, 0)
        else:
            self.counter["vcpu_switches"] += 1
            self.enter(c, self.cost["vcpu_switch"])

    def after(self, c):
        ring = c.host.cpus
        return ring[(ring.index(c) + 1) % len(ring)]

    def start_hosts(self):
        self.now = 0
        for h in self.hosts:
            self.next_of(h, h.cpus[0])

    # -- rows -----------------------------------------------------------------------------------

    def step_H_EVENT(self, c, t):
        was = self.kick(c) <= self.now
        c.kicked_at, c.ask = self.now, 0
        h = c.host
        if h.running is None:
            self.next_of(h, c)
        elif was and h.turned_at != self.now:
            h.turned_at = self.now
            r = h.running
            self.leave(r)
            self.next_of(h, self.after(r))

    def step_H_YIELD(self, c, t):
        self.leave(c)
        self.next_of(c.host, self.after(c))
