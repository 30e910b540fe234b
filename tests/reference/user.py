"""User accesses (docs/model.md, section 5.1)."""

from .state import (DEAD, DIRTY_PTE, DONTNEED, FORK, FWDREV, KIND, K_PRESENT, K_ZERO, MPROTECT, MREMAP, MUNMAP, NONE,
                    PAYLOAD, POPULATE, RAND, SEQ, WRITE, YOUNG, Z)

# Passes without touches, and their rows
_CALLS = {POPULATE: "POPULATE", DONTNEED: "DONTNEED", MUNMAP: "V_CALL", MPROTECT: "V_CALL", MREMAP: "V_CALL",
          FORK: "V_CALL"}


class User:

    # -- TLB (section 1) ------------------------------------------------------------------------

    def tlb_find(self, c, level, vp):
        """The live entry for vp, as (set, way), or None."""
        if c.loaded_mm < 0:
            return None
        stamp = c.asid_stamp[c.loaded_asid]
        ways = level[vp & (len(level) - 1)]
        for way, entry in enumerate(ways):
            if entry is not None and entry[0] == vp and entry[1] == stamp:
                return ways, way
        return None

    def tlb_fill(self, c, level, vp, d):
        entry = (vp, c.asid_stamp[c.loaded_asid], d)
        found = self.tlb_find(c, level, vp)
        if found:
            ways, way = found
            ways[way] = entry
        else:
            ways = level[vp & (len(level) - 1)]
            ways.pop()
            ways.insert(0, entry)

    def tlb_fill_both(self, c, vp, d):
        self.tlb_fill(c, c.l2, vp, d)
        self.tlb_fill(c, c.l1, vp, d)

    def tlb_lookup(self, c, vp):
        """(level, D) of the hit, or (0, 0)."""
        for nr, level in ((1, c.l1), (2, c.l2)):
            found = self.tlb_find(c, level, vp)
            if found:
                ways, way = found
                return nr, ways[way][2]
        return 0, 0

    # -- the program (5.1.1) --------------------------------------------------------------------

    def current_pass(self, t):
        return self.passes[t.passes[t.pass_]]

    def seq_page(self, p, pos):
        if p.stride > 0:
            return p.first + pos * p.stride % p.nr
        return p.first + p.nr - 1 - pos * -p.stride % p.nr

    def take_access(self, t, p):
        write = p.write
        if p.kind == SEQ:
            page = self.seq_page(p, t.pos)
        elif p.kind == RAND:
            page = p.first + t.draw(p.nr)
        elif p.kind == FWDREV:
            half = t.pos // 2 % p.nr
            page = p.first + p.nr - 1 - half if t.pos & 1 else p.first + half
        else:
            entry = self.trace[p.first + t.pos]
            page, write = entry >> 1, entry & 1
        if write == 2:
            write = t.draw(2)
        t.vp, t.write, t.zero = t.mm.base + page, write, p.zero
        t.have = 1

    def advance(self, t, p):
        t.pos += 1
        if t.pos == p.count:
            t.pos = 0
            t.pass_ += 1
            if t.pass_ == len(t.passes):
                t.pass_ = t.loop_to

    def complete(self, t, p):
        self.counter["page_touches"] += 1
        t.touches += 1
        self.counter["bogo_units"] += p.units
        if t.write and t.zero != bool(self.pte[t.vp] & Z):
            self.pte[t.vp] ^= Z
        t.have = 0
        self.advance(t, p)
        t.step = "TOUCH"

    # -- rows -----------------------------------------------------------------------------------

    def step_TOUCH(self, c, t):
        if self.resched_guard(c, t):
            return
        self.touch(c, t)
        if self.spent == 0:
            self.spend(1)

    def touch(self, c, t):
        if t.dying:
            self.leave_mm(c, t)
            return
        if t.pass_ == NONE:
            t.mm.users -= 1
            t.state = DEAD
            self.alive -= 1
            c.sstep = "SW_PICK"
            return
        p = self.current_pass(t)
        if p.kind in _CALLS:
            t.step = _CALLS[p.kind]
            return
        if not t.have:
            self.take_access(t, p)
        vp = t.vp
        level, d = self.tlb_lookup(c, vp)
        if level and (d or not t.write):
            self.spend(p.think)
            if level == 2:
                self.spend(self.cost["tlb_l2_hit"], "walk")
                self.tlb_fill(c, c.l1, vp, d)
            self.complete(t, p)
            return
        if vp >> 3 == c.walk_line:
            self.spend(self.cost["walk_warm"], "walk")
        else:
            self.spend(self.cost["walk_cold"], "walk")
            c.walk_line = vp >> 3
        self.lru.walked(self.region_of[vp])
        pte = self.pte[vp]
        kind = pte & KIND
        if kind == K_PRESENT and (not t.write or pte & WRITE):
            pte |= YOUNG
            if t.write:
                pte |= DIRTY_PTE
            self.pte[vp] = pte
            self.tlb_fill_both(c, vp, 1 if pte & DIRTY_PTE and pte & WRITE else 0)
            self.spend(p.think)
            self.complete(t, p)
        elif kind == K_ZERO and not t.write:
            self.pte[vp] = pte | YOUNG
            self.tlb_fill_both(c, vp, 0)
            self.spend(p.think)
            self.complete(t, p)
        else:
            self.spend(self.cost["fault_entry"], "fault")
            t.step = "F_READ"

    def step_POPULATE(self, c, t):
        if self.resched_guard(c, t):
            return
        if t.dying:
            self.leave_mm(c, t)
            return
        p = self.current_pass(t)
        t.vp, t.write = t.mm.base + self.seq_page(p, t.pos), 0
        pte = self.pte[t.vp]
        kind = pte & KIND
        self.spend(max(1, self.cost["gup_page"]))
        if kind == K_PRESENT:
            full = self.lru.mark_accessed(c, self.folios[pte >> PAYLOAD])
            self.advance(t, p)
            self.next_access(t)
            if full:
                self.start_drain(t, 2, "TOUCH")
        elif kind == K_ZERO:
            self.advance(t, p)
            self.next_access(t)
        else:
            t.step = "F_READ"

    def step_DONTNEED(self, c, t):
        if self.resched_guard(c, t):
            return
        if t.dying:
            self.leave_mm(c, t)
            return
        t.call, t.zap = DONTNEED, self.current_pass(t).first // 512
        self.spend(max(1, self.cost["fault_entry"]))
        t.step = "E_ZAP"

    def next_access(self, t):
        populate = t.pass_ != NONE and self.current_pass(t).kind == POPULATE
        t.step = "POPULATE" if populate else "TOUCH"
