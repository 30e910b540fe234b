"""Scheduling and the bound kernel threads (docs/model.md, sections 3 and 5.9)."""

from .state import IDLE, INF, NONE, NR_ASIDS, RUNNING, SWITCHING

_ONE_FOR_ALL = ("NOTIFY", "VMPRESSURE")
_COUNTERS = {"DRAIN": "stock_drains", "VMSTAT": "vmstat_updates", "NOTIFY": "memcg_notifies",
             "VMPRESSURE": "vmpressures"}


class Sched:

    def unlazy(self, c):
        if c.is_lazy:
            c.is_lazy = 0
            gen = self.mms[c.loaded_mm].tlb_gen
            if c.asid_gen[c.loaded_asid] != gen:
                self.flush_all(c)
                c.asid_gen[c.loaded_asid] = gen

    # -- bound kernel threads

    def queued(self, c):
        """Who waits in a run queue, with its CPU's kernel thread."""
        return len(c.runqueue) + (1 if self.world.kworkers and c.works else 0)

    def nr_running(self, c):
        return self.queued(c) + (c.current is not None)

    def queue_work(self, c, work):
        if work in _ONE_FOR_ALL:
            if work in self.memcg.works:
                return
            self.memcg.works.add(work)
        c.works.add(work)

    def memcg_event(self, c):
        """memory.events changed."""
        m, tick = self.memcg, self.world.tick
        if self.world.cgroup == 1:
            return
        j = self.now // tick
        if j >= m.notify_from:
            m.notify_from = j + 1 - -10**10 // tick
            self.queue_work(c, "NOTIFY")
        elif m.notify_cpu == NONE:
            m.notify_cpu = c.nr

    def vmpressure(self, c, scanned):
        self.memcg.tree_scanned += scanned
        if self.memcg.tree_scanned >= 512:
            self.queue_work(c, "VMPRESSURE")

    def work_timers(self, c):
        m = self.memcg
        if self.now >= c.vmstat_at:
            c.vmstat_at += 10**12 * (1 + (self.now - c.vmstat_at) // 10**12)
            self.queue_work(c, "VMSTAT")
        if m.notify_cpu == c.nr and self.now // self.world.tick >= m.notify_from:
            m.notify_cpu = NONE
            self.memcg_event(c)

    # -- run queues

    def newidle(self, c):
        """A task taken from the busiest other CPU, or None."""
        best = None
        for other in self.cpus:
            if other is c or other.need_resched or not any(not u.pinned for u in other.runqueue):
                continue
            if self.nr_running(other) == 1:
                continue
            if best is None or self.queued(other) > self.queued(best):
                best = other
        if best is None:
            return None
        n = next(u for u in best.runqueue if not u.pinned)
        best.runqueue.remove(n)
        n.cpu = c.nr
        self.counter["migrations"] += 1
        return n

    def balance(self, c):
        """The periodic load balancer of busy CPU c: it pulls tasks from the busiest other one."""
        n = len(self.cpus)
        running = {x: self.nr_running(x) for x in self.cpus}
        others = self.cpus[c.nr + 1:] + self.cpus[:c.nr]
        src = max(others, key=running.get)                  # the first of equals
        here, there, average = running[c], running[src], sum(running.values()) * 1024 // n
        imbalance = min(there * 1024 - average, average - here * 1024)
        if there < 2 or (here > 1 and 100 * there <= 117 * here):
            imbalance = 0
        free = [u for u in src.runqueue if not u.pinned]
        c.balance_long = 1
        failed, c.balance_failed = c.balance_failed, 0
        if imbalance > 0 and free:
            c.balance_long = 0
            pulled = 0
            for u in free:
                if imbalance <= 0 or 1024 >> failed > imbalance:
                    break
                src.runqueue.remove(u)
                c.runqueue.append(u)
                u.cpu = c.nr
                self.counter["migrations"] += 1
                imbalance -= 1024
                pulled += 1
            if not pulled:
                c.balance_failed = min(failed + 1, 10)
        wait = (1 + c.balance_long) * n * self.world.balance - self.world.tick
        c.balance_at = self.now + max(wait, self.world.tick)

    def next_tick(self, c, now):
        """The first tick of c after now."""
        tick = self.world.tick
        first = c.nr * self.world.tick_skew % tick
        return first if now < first else first + ((now - first) // tick + 1) * tick

    def step_SW_PICK(self, c, t):
        c.need_resched, c.push = 0, NONE
        if self.world.kworkers and c.works:
            c.current, c.sstep = None, "W_WORK"
            return
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

    def step_W_WORK(self, c, t):
        for work in c.works:
            self.counter[_COUNTERS[work]] += 1
            self.spend(self.cost["kworker"])
        if "DRAIN" in c.works:
            self.memcg.usage -= c.stock
            c.stock = 0
        if "VMPRESSURE" in c.works:
            self.memcg.tree_scanned = 0
        self.memcg.works -= c.works
        c.works = set()
        if c.loaded_mm >= 0:
            c.is_lazy = 1
        c.sstep = "SW_PICK" if c.current is None else "W_BACK"

    def step_W_BACK(self, c, t):
        self.lru.use_mm(t.mm)
        if c.loaded_mm == t.mm.nr:
            self.unlazy(c)
            c.sstep = None
        else:
            c.sstep = "SW_CLEAR"
