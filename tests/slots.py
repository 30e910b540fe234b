"""Where a folio's swap slot comes from, written down once more: docs/model.md 4.1, label by label."""

from __future__ import annotations

from reclaim import names

HAS_CACHE, ZERO = 0x40, 0x80
FLAG = {name: 1 << i for i, name in enumerate(names.FOLIO_FLAGS)}
DEVICE = ("cluster_next", "cluster_nr", "lowest", "highest", "cache_active")


class Slots:
    """A copy of what S_SLOT may change; `alloc` changes the copy as the specification says."""

    def __init__(self, sim):
        self.world = sim.world
        device = sim.view("swapdev")[0]
        for name in DEVICE:
            setattr(self, name, int(device[name]))
        self.count, self.entry = sim.view("slot_count").copy(), sim.view("slot_entry").copy()
        self.flags = sim.view("folio")["flags"].astype(int)
        self.refcount = sim.view("folio")["refcount"].copy()
        self.free = int(sim.view("memcg")["slots_free"][0])
        self.met = set()                # which turns the scan took
        self.taken = [row["slots"][row["cur"]:row["cur"] + row["nr"]].tolist()
                      for row in sim.view("slot_cache")]
        self.returned = [row["slots_ret"][:row["n_ret"]].tolist() for row in sim.view("slot_cache")]

    def state(self):
        """Everything that can be compared with what the core did."""
        return (*(getattr(self, name) for name in DEVICE), self.free, self.taken, self.returned,
                self.count.tolist(), self.entry.tolist(), self.flags.tolist(), self.refcount.tolist())

    def swap_full(self):
        return self.free * 2 < self.world.nr_slots

    def unused(self):
        return int((self.count == 0).sum())

    def alloc(self, cpu):
        """folio_alloc_swap; None if there is no slot."""
        if self.world.slot_cache:
            if self.cache_active:
                if self.free < 128 * self.world.nr_cpus:
                    self.cache_active = 0
                    for c in range(self.world.nr_cpus):
                        for s in self.taken[c] + self.returned[c]:
                            self.put(s)
                        self.taken[c], self.returned[c] = [], []
            elif self.free > 320 * self.world.nr_cpus:
                self.cache_active = 1
            if self.cache_active:
                if not self.taken[cpu]:
                    self.taken[cpu] = self.take(64)
                if self.taken[cpu]:
                    return self.taken[cpu].pop(0)
        got = self.take(1)
        return got[0] if got else None

    def put(self, s):
        self.count[s] = self.entry[s] = 0
        self.free += 1
        self.lowest, self.highest = min(self.lowest, s), max(self.highest, s)

    def take(self, n):
        n = min(n, 64, self.free)
        if n == 0:
            return []
        self.free -= n
        got = self.scan(n)
        self.free += n - len(got)
        return got

    def reclaim(self, s):
        entry = int(self.entry[s])
        f = entry >> 2
        if entry & 3 != 2 or self.flags[f] & (FLAG["LOCKED"] | FLAG["WRITEBACK"]):
            return False
        self.flags[f] = self.flags[f] & ~FLAG["SWAPCACHE"] | FLAG["DIRTY"]
        self.put(s)
        self.refcount[f] -= 1
        if self.refcount[f] == 0:
            self.flags[f] = 0
        return True

    def may_be_reclaimed(self, s):
        return self.swap_full() and int(self.count[s]) & ~ZERO == HAS_CACHE

    def scan(self, n):
        ration, many, got = 256, False, []
        at = base = self.cluster_next
        if self.cluster_nr > 0:
            self.cluster_nr -= 1
        else:
            self.cluster_nr = 255
            self.met.add("few left")
            if self.unused() >= 256:
                self.met.discard("few left")
                self.met.add("no run")
                at = base = s = self.lowest
                last = s + 255
                while last <= self.highest:
                    if self.count[s]:
                        last = s + 256
                    elif s == last:
                        at = self.cluster_next = s - 255
                        self.met.discard("no run")
                        self.met.add("run" if at == self.lowest else "run further on")
                        break
                    ration = ration - 1 if ration > 0 else 256
                    s += 1
        label = "check"
        while True:
            if label == "check":
                if self.highest == -1:
                    return got
                if at > self.highest:
                    self.met.add("beyond the highest")
                    base = at = self.lowest
                if self.may_be_reclaimed(at):
                    label = "check" if self.reclaim(at) else "look on"
                    self.met.add("reclaimed" if label == "check" else "not reclaimed")
                    continue
                if self.count[at]:
                    label = "done" if got else "look on"
                    continue
                self.count[at], self.entry[at] = HAS_CACHE, 0
                got.append(at)
                self.lowest += at == self.lowest
                self.highest -= at == self.highest
                if self.unused() == 0:
                    self.met.add("the last one")
                    self.lowest, self.highest = self.world.nr_slots, -1
                label = "done"
                if len(got) == n or at >= self.highest:
                    continue
                ration -= 1
                if ration < 0:
                    self.met.add("gave way")
                    continue
                if self.cluster_nr > 0:
                    at += 1
                    if self.count[at] == 0:
                        self.cluster_nr -= 1
                        label = "check"
                        continue
                if many:
                    continue
                limit = base if at < base else self.highest
                while at <= limit:
                    ration -= 1
                    if ration <= 0:
                        self.met.add("gap too wide")
                        break
                    if self.count[at] == 0:
                        self.met.add("next in a gap")
                        label = "check"
                        break
                    at += 1
            elif label == "done":
                self.cluster_next = at + 1
                return got
            else:
                at += 1
                up, label = True, "none"
                while label == "none":
                    if at >= (self.highest + 1 if up else base):
                        if not up:
                            self.met.add("nothing found")
                            return got
                        self.met.add("wrapped")
                        at, up = self.lowest, False
                        continue
                    if ration == 0:
                        ration, many = 256, True
                        self.met.add("gave way in search")
                    else:
                        ration -= 1
                    if self.count[at] == 0 or self.may_be_reclaimed(at):
                        label = "check"
                    else:
                        at += 1
