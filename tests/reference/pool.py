"""Swap slots: the pool, the scan of a device that rotates, the slot caches (docs/model.md, 4.1)."""

from .state import DIRTY, HAS_CACHE, LOCKED, NONE, SLOT_ZERO, SWAPCACHE, WRITEBACK

CACHED = 64                         # slots in a cache, and taken at once
CLUSTER = RATION = 256


class Pool:

    def swap_full(self):
        nr = self.world.nr_slots
        return nr > 0 and self.slots_free * 2 < nr

    def pool_put(self, s):
        """swap_range_free"""
        dev = self.swapdev
        self.slot_count[s] = self.slot_entry[s] = 0
        self.slots_free += 1
        if self.world.rotational:
            dev.lowest, dev.highest = min(dev.lowest, s), max(dev.highest, s)
        else:
            self.free_slots.append(s)

    def pool_take(self, n):
        """get_swap_pages: the slots taken."""
        n = min(n, CACHED, self.slots_free)
        if n == 0:
            return []
        self.slots_free -= n
        if self.world.rotational:
            taken = Scan(self, n).taken
            self.slots_free += n - len(taken)
            return taken
        taken = [self.free_slots.pop() for _ in range(n)]
        if self.world.slot_cache:
            for s in taken:
                self.slot_count[s] = HAS_CACHE
        return taken

    # -- the caches -----------------------------------------------------------------------------

    def folio_alloc_swap(self, c):
        """A slot, or None."""
        if self.world.slot_cache:
            self.check_caches()
            if self.swapdev.cache_active:
                if not c.slots:
                    c.slots.extend(self.pool_take(CACHED))
                if c.slots:
                    return c.slots.popleft()
        taken = self.pool_take(1)
        return taken[0] if taken else None

    def check_caches(self):
        dev, nr = self.swapdev, len(self.cpus)
        if not dev.cache_active:
            dev.cache_active = 1 if self.slots_free > 5 * CACHED * nr else 0
        elif self.slots_free < 2 * CACHED * nr:
            dev.cache_active = 0
            for c in self.cpus:
                self.put_all(c.slots)
                self.put_all(c.slots_ret)

    def put_all(self, slots):
        while slots:
            self.pool_put(slots.popleft())

    def slot_free(self, s):
        if not self.swapdev.cache_active:
            self.pool_put(s)
            return
        self.slot_count[s], self.slot_entry[s] = HAS_CACHE, 0
        back = self.c.slots_ret
        if len(back) == CACHED:
            self.put_all(back)
        back.append(s)

    # -- for the scan ---------------------------------------------------------------------------

    def reclaim_slot(self, s):
        """__try_to_reclaim_swap; true if the slot was given back."""
        f = self.slot_folio(s)
        if f is None or f.flags & (LOCKED | WRITEBACK):
            return False
        f.flags = f.flags & ~SWAPCACHE | DIRTY
        f.slot = NONE
        self.pool_put(s)
        self.put(f)
        return True


class Scan:
    """scan_swap_map_slots of a device without cluster_info; `taken` are its slots.

    The labels of the text are methods; each returns the next one, None at the end.
    """

    def __init__(self, machine, n):
        self.machine, self.dev, self.n = machine, machine.swapdev, n
        self.count, self.taken = machine.slot_count, []
        self.ration, self.many = RATION, False
        self.start()
        label = self.check
        while label is not None:
            label = label()

    def unused(self):
        return self.count.count(0)

    def only_cached(self, s):
        return self.machine.swap_full() and self.count[s] & ~SLOT_ZERO == HAS_CACHE

    def look_at_one(self):
        self.ration -= 1
        if self.ration >= 0:
            return False
        self.ration = RATION
        return True

    def start(self):
        dev = self.dev
        self.base = self.at = dev.cluster_next
        if dev.cluster_nr > 0:
            dev.cluster_nr -= 1
            return
        dev.cluster_nr = CLUSTER - 1
        if self.unused() >= CLUSTER:
            self.base = self.at = dev.lowest
            self.seek_run()

    def seek_run(self):
        """To the first of a whole cluster of unused slots, if there is one."""
        dev = self.dev
        s = dev.lowest
        last = s + CLUSTER - 1
        while last <= dev.highest:
            if self.count[s]:
                last = s + CLUSTER
            elif s == last:
                self.at = dev.cluster_next = s - (CLUSTER - 1)
                return
            self.look_at_one()
            s += 1

    def check(self):
        dev = self.dev
        if dev.highest == -1:
            return None
        if self.at > dev.highest:
            self.base = self.at = dev.lowest
        if self.only_cached(self.at):
            return self.check if self.machine.reclaim_slot(self.at) else self.look_on
        if self.count[self.at]:
            return self.done if self.taken else self.look_on
        self.take(self.at)
        if len(self.taken) == self.n or self.at >= dev.highest:
            return self.done
        self.ration -= 1
        return self.done if self.ration < 0 else self.another

    def take(self, s):
        dev = self.dev
        self.count[s], self.machine.slot_entry[s] = HAS_CACHE, 0
        self.taken.append(s)
        if s == dev.lowest:
            dev.lowest += 1
        if s == dev.highest:
            dev.highest -= 1
        if not self.unused():
            dev.lowest, dev.highest = len(self.count), -1

    def another(self):
        """One more, near the last."""
        dev = self.dev
        if dev.cluster_nr > 0:
            self.at += 1
            if not self.count[self.at]:
                dev.cluster_nr -= 1
                return self.check
        if self.many:
            return self.done
        limit = self.base if self.at < self.base else dev.highest
        while self.at <= limit:
            self.ration -= 1
            if self.ration <= 0:
                break
            if not self.count[self.at]:
                return self.check
            self.at += 1
        return self.done

    def done(self):
        self.dev.cluster_next = self.at + 1

    def look_on(self):
        self.at += 1
        if self.look_up_to(self.dev.highest):
            return self.check
        self.at = self.dev.lowest
        return self.check if self.look_up_to(self.base - 1) else None

    def look_up_to(self, end):
        while self.at <= end:
            if self.look_at_one():
                self.many = True
            if not self.count[self.at] or self.only_cached(self.at):
                return True
            self.at += 1
        return False
