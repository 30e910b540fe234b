"""Helpers of memory (docs/model.md, sections 1 and 4)."""

from math import isqrt

from .state import (ACTIVE, BATCH, DIRTY, HAS_CACHE, LOCKED, LRU, MAP_COUNT, NONE, RECLAIM,
                    SWAPCACHE, WAIT_WRITEBACK, WRITEBACK, Z)

FLUSH_CEILING = 33                  # tlb_single_page_flush_ceiling [pages]


class Memory:

    # -- frames ---------------------------------------------------------------------------------

    def alloc(self):
        f = self.free_frames.pop()
        f.flags, f.refcount, f.mapcount, f.vp, f.slot, f.gen, f.refs = 0, 1, 0, NONE, NONE, NONE, 0
        return f

    def free_frame(self, f):
        assert not f.waiters
        f.flags = f.refcount = f.mapcount = f.refs = 0
        f.vp = f.slot = f.gen = NONE
        self.free_frames.append(f)

    def uncharge(self, n):
        self.memcg.usage -= n

    def put(self, f):
        f.refcount -= 1
        if f.refcount == 0:
            if f.flags & LRU:
                self.lru.delete(f)
                f.flags &= ~LRU
            self.uncharge(1)
            self.free_frame(f)

    # -- LRU lists ------------------------------------------------------------------------------

    def batch_add(self, f):
        """folio_add_lru; true if the batch is full now."""
        f.refcount += 1
        self.lru.in_fault(f)
        self.c.lru_add.append(f)
        return len(self.c.lru_add) == BATCH

    def activate_add(self, c, f):
        """folio_activate; true if the batch is full now."""
        f.refcount += 1
        c.lru_activate.append(f)
        return len(c.lru_activate) == BATCH

    def move_tail(self, c):
        """lru_move_tail of its whole batch."""
        for f in c.lru_move_tail:
            if f.flags & LRU:
                self.lru.delete(f)
                f.flags &= ~ACTIVE
                self.lru.add_tail(f)
                self.counter["pgrotated"] += 1
            self.put(f)
        c.lru_move_tail.clear()

    def nr_lru(self):
        return len(self.inactive) + len(self.active)

    def inactive_is_low(self):
        gb = self.nr_lru() >> 18
        ratio = isqrt(10 * gb) if gb else 1
        return len(self.inactive) * ratio < len(self.active)

    def note_cost(self, io, rotated):
        m = self.memcg
        m.anon_cost += 32 * io + rotated
        if m.anon_cost > self.nr_lru() // 4:
            m.anon_cost //= 2

    # -- swap -----------------------------------------------------------------------------------

    def map_count(self, s):
        return self.slot_count[s] & MAP_COUNT

    def slot_folio(self, s):
        """The folio in the swap cache, or None."""
        entry = self.slot_entry[s]
        return self.folios[entry >> 2] if entry & 3 == 2 else None

    def drop_cache_bit(self, s):
        """HAS_CACHE cleared; the slot is free if its map count is 0."""
        self.slot_count[s] &= ~HAS_CACHE
        if not self.map_count(s):
            self.slot_free(s)

    def delete_from_swap_cache(self, f):
        s = f.slot
        self.slot_entry[s] = 0
        self.drop_cache_bit(s)
        f.flags &= ~SWAPCACHE
        f.slot = NONE
        f.refcount -= 1

    def folio_free_swap(self, f):
        if not f.flags & SWAPCACHE or f.flags & WRITEBACK or self.map_count(f.slot):
            return False
        self.delete_from_swap_cache(f)
        f.flags |= DIRTY
        return True

    # -- the swap device ------------------------------------------------------------------------

    def get_tag(self, c, t):
        """blk_mq_get_tag; False: the task waits for one, and its step stays."""
        if self.swapdev.in_flight < self.world.io_depth:
            return True
        self.counter["io_waits"] += 1
        self.swapdev.waiters.append(t)
        self.block(c, t)
        return False

    def submit(self, f):
        self.swapdev.in_flight += 1
        self.issue(f.slot, 1)

    def issue(self, slot, nr):
        c, dev, world = self.c, self.swapdev, self.world
        dev.last = max(self.now + world.io_latency, dev.last + nr * world.io_page)
        c.io.append((slot, nr, dev.last))
        c.io_at = c.io[0][2]

    def plug(self, c, t, f):
        """submit_bio with a plug; False: the task waits for a tag"""
        if self.world.rotational and t.plug and t.plug[-1][1] < 128:
            slot, nr = t.plug[-1]
            if f.slot in (slot - 1, slot + nr):
                t.plug[-1] = min(slot, f.slot), nr + 1
                return True
        if not self.get_tag(c, t):
            return False
        if len(t.plug) == 32 or t.plug and t.plug[0][1] >= 32:
            self.flush_plug(t)
        self.swapdev.in_flight += 1
        t.plug.append((f.slot, 1))
        return True

    def flush_plug(self, t):
        """blk_flush_plug"""
        for slot, nr in t.plug:
            self.issue(slot, nr)
        t.plug.clear()

    def finish_plug(self, t):
        """blk_finish_plug of reclaim; within a readahead the plug is the readahead's"""
        if t.c_ret not in ("F_RA_CHARGED", "F_CL_CHARGED"):
            self.flush_plug(t)

    def end_writeback(self, f):
        """folio_end_writeback"""
        c = self.c
        if f.flags & RECLAIM:
            f.flags &= ~RECLAIM
            if f.flags & (LOCKED | DIRTY | LRU) == LRU:     # folio_rotate_reclaimable
                f.refcount += 1
                c.lru_move_tail.append(f)
                if len(c.lru_move_tail) == BATCH:
                    c.irq_cost += self.cost["lru_lock"] + BATCH * self.cost["lru_add"]
                    self.move_tail(c)
        f.flags &= ~WRITEBACK
        self.folio_wake(f, WAIT_WRITEBACK)

    # -- page tables ----------------------------------------------------------------------------

    def set_pte(self, vp, value):
        """Every write of a PTE keeps Z; R is apart."""
        self.pte[vp] = value | (self.pte[vp] & Z)

    def ptl_of(self, vp):
        return self.ptl[self.region_of[vp]]

    def drop_moved(self, c, t, f):
        """What reclaim waited for is not where the folio is mapped now: that lock goes back, the row comes anew."""
        if c.granted is None:
            return
        vp = self.next_page(t, f) if self.forks else f.vp
        if vp is None or c.granted is not self.ptl_of(vp):
            granted, c.granted = c.granted, None
            self.unlock(granted)

    def others(self, mask):
        """Has the mask a CPU other than the acting one?"""
        return mask & ~self.c.bit != 0

    def flush(self, mm, vp, ret):
        """mm None: reclaim's batch; vp NONE: all."""
        c = self.c
        c.fl_mm = NONE if mm is None else mm.nr
        c.fl_vp, c.fl_ret = vp, ret
        c.fl_nr, c.fl_tables = 1, 0
        c.current.step = "FL_START"

    def flush_range(self, mm, lo, hi, tables, ret):
        """flush_tlb_mm_range of the pages lo to hi - 1 of the mm"""
        few = hi - lo <= FLUSH_CEILING
        self.flush(mm, mm.base + lo if few else NONE, ret)
        self.c.fl_nr, self.c.fl_tables = min(hi - lo, FLUSH_CEILING), tables
