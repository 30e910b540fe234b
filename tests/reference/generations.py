"""The multi-generational LRU (docs/model.md, sections 1 "Generations", 4.2, 5.4.1 and 5.5)."""

from collections import OrderedDict

from .state import (ACTIVE, DIRTY, DIRTY_PTE, KIND, K_PRESENT, LOCKED, LRU, MASK64, NONE, PAYLOAD,
                    RECLAIM, REFERENCED, SWAPCACHE, WORKINGSET, WRITEBACK, YOUNG)

NR_GENS, NR_TIERS = 4, 4
ANON, FILE = 0, 1
USED, FRESH, GONE = 1, 2, 4             # mm.lru_gen
_LEAST_SLOTS = 64                       # that are free, to swap at all
_MARGIN = 64                            # of the tiers: refaults that say something
_MANY = 4096                            # MAX_LRU_BATCH
_LIST = 64                              # folios that one eviction takes
_LOOK = 64                              # PTEs that are looked at around a young one


def refs(f):
    return f.refs + (1 if f.flags & WORKINGSET else 0)


def tier(r):
    """The least t with 2**t >= r + 1."""
    return r.bit_length()


def clear_refs(f):
    f.refs = 0
    f.flags &= ~(REFERENCED | WORKINGSET)


class Lists:
    """Four lists instead of two; the interface is that of lists.Classic."""

    shrink, check_row, putback = "G_SHRINK", "S_GEN", "G_KEEP"

    def __init__(self, machine):
        self.machine, self.memcg = machine, machine.memcg
        # Each runs from the tail (first) to the head (last).
        self.gens = [OrderedDict() for _ in range(NR_GENS)]
        self.memcg.max_seq, self.memcg.mm_seq, self.memcg.mm_head = 3, 2, NONE
        for mm in machine.mms:
            mm.lru_gen = FRESH
        self.inverted = False           # folios were left on a list that became the youngest; for check()

    def named(self):
        return [(f"GEN{i}", gen, 0) for i, gen in enumerate(self.gens)]

    def isolated(self, n):
        return 0

    # -- generations ----------------------------------------------------------------------------

    def nr_gens(self, kind):
        return self.memcg.max_seq - self.memcg.min_seq[kind] + 1

    def gen_of(self, seq):
        """The list of a generation."""
        return self.gens[seq % NR_GENS]

    def place(self, f, seq, tail=False):
        f.gen = seq % NR_GENS
        self.memcg.gen_nr[f.gen] += 1
        self.move(f, f.gen, tail)

    def move(self, f, g, tail=False):
        gen = self.gens[g]
        assert f.nr not in gen
        gen[f.nr] = f
        if tail:
            gen.move_to_end(f.nr, last=False)

    def take_off(self, f):
        """Off its list, which may be that of another generation than its `gen`."""
        gen, = (gen for gen in self.gens if f.nr in gen)
        del gen[f.nr]

    def add(self, f, tail=False):
        m = self.memcg
        oldest = m.min_seq[ANON]
        if f.flags & ACTIVE:
            seq = m.max_seq
            f.refs = 0
            f.flags &= ~(REFERENCED | ACTIVE)
        elif not f.flags & SWAPCACHE or (f.flags & RECLAIM and f.flags & (DIRTY | WRITEBACK)):
            seq = m.max_seq - 1
        elif tail or oldest + 2 >= m.max_seq:
            seq = oldest
        else:
            seq = oldest + 1
        self.place(f, seq, tail)

    def add_tail(self, f):
        self.add(f, tail=True)

    def delete(self, f):
        m = self.memcg
        if f.gen in (m.max_seq % NR_GENS, (m.max_seq - 1) % NR_GENS):
            f.flags |= ACTIVE
        self.isolate(f)

    def isolate(self, f):
        """delete, for who does not ask whether f was young."""
        self.memcg.gen_nr[f.gen] -= 1
        f.gen = NONE
        self.take_off(f)

    def update_gen(self, f, g):
        """folio_update_gen: the generation that it had, or NONE if it is on no list."""
        old = f.gen
        if old == NONE:
            f.flags |= REFERENCED
        else:
            clear_refs(f)
            f.gen = g
        return old

    def inc_gen(self, f):
        clear_refs(f)
        gen_nr = self.memcg.gen_nr
        gen_nr[f.gen] -= 1
        f.gen = (f.gen + 1) % NR_GENS
        gen_nr[f.gen] += 1

    # -- accesses, refaults, tiers --------------------------------------------------------------

    def recency(self):
        """lru_gen_in_fault"""
        return self.machine.c.current.mm.recency

    def in_fault(self, f):
        if self.recency():
            f.flags |= ACTIVE

    def mark_accessed(self, c, f):
        """folio_inc_refs"""
        if not f.flags & REFERENCED:
            f.flags |= REFERENCED
        elif not f.flags & WORKINGSET:
            f.flags |= WORKINGSET
        else:
            f.refs = min(f.refs + 1, 3)
        return False

    def eviction(self, f):
        """lru_gen_eviction: the shadow that f leaves."""
        m, r = self.memcg, refs(f)
        m.evicted[tier(r)] = m.evicted[tier(r)] + 1 & MASK64
        token = m.min_seq[ANON] * 4 + max(r - 1, 0)
        return token * 8 + (4 if r > 0 else 0) + 1

    def refault(self, f, shadow):
        """lru_gen_refault"""
        m, counter = self.memcg, self.machine.counter
        counter["workingset_refault_anon"] += 1
        token, workingset = shadow >> 3, 1 if shadow & 4 else 0
        if token // 4 != m.min_seq[ANON]:
            return
        r = token % 4 + workingset
        m.refaulted[tier(r)] = m.refaulted[tier(r)] + 1 & MASK64
        counter["workingset_activate_anon"] += 1
        if self.recency() or r >= 3:
            f.refs = 3
            f.flags |= WORKINGSET
            counter["workingset_restore_anon"] += 1

    def refaults(self, t):
        """R(t)"""
        return self.memcg.avg_refaulted[t] + self.memcg.refaulted[t] & MASK64

    def total(self, t):
        """T(t)"""
        return self.memcg.avg_total[t] + self.memcg.evicted[t] + self.memcg.protected[t] & MASK64

    def tier_idx(self):
        """get_tier_idx: the last tier that is not protected."""
        first, other = (2, 3) if self.machine.world.mglru_rework else (1, 2)
        for t in range(1, NR_TIERS):
            few = self.refaults(t) < _MARGIN
            less = (self.refaults(t) * (self.total(0) + _MARGIN) * first
                    <= (self.refaults(0) + 1) * self.total(t) * other)
            if not few and not less:
                return t - 1
        return NR_TIERS - 1

    def reset_ctrl(self):
        """reset_ctrl_pos, with what is carried over"""
        m = self.memcg
        for t in range(NR_TIERS):
            m.avg_refaulted[t], m.avg_total[t] = self.refaults(t) // 2, self.total(t) // 2
            m.refaulted[t] = m.evicted[t] = m.protected[t] = 0

    def snapshot(self):
        """R_END: nothing"""

    # -- what is walked -------------------------------------------------------------------------

    def walked(self, region):
        if self.machine.pt_present[region]:
            self.machine.pt_young[region] = 1

    def use_mm(self, mm):
        mm.lru_gen |= USED

    def exit_mm(self, mm):
        mm.lru_gen |= GONE

    def new_mm(self, mm):
        mm.lru_gen = USED | FRESH

    def region_gone(self, region):
        self.machine.pt_young[region] = self.machine.pt_filter[region] = 0

    def clear_pte_young(self, vp):
        """clear_young(vp): was it young?"""
        pte = self.machine.pte[vp]
        if pte & KIND != K_PRESENT or not pte & YOUNG:
            return False
        self.machine.pte[vp] = pte & ~YOUNG
        f = self.machine.folios[pte >> PAYLOAD]
        if pte & DIRTY_PTE and f.flags & SWAPCACHE:
            f.flags |= DIRTY
        return True

    def mark_filter(self, region, s):
        bit = 1 << (s & 1)
        if self.memcg.filters & bit:
            self.machine.pt_filter[region] |= bit

    def new_filter(self, s):
        """reset_bloom_filter"""
        bit = 1 << (s & 1)
        self.memcg.filters |= bit
        self.machine.pt_filter = [x & ~bit for x in self.machine.pt_filter]


class Generations:
    """The rows; `self.lru` is a Lists."""

    # -- eviction -------------------------------------------------------------------------------

    def step_G_SHRINK(self, c, t):
        self.spend(self.cost["reclaim_prio"])
        t.g_can_swap = self.world.swappiness > 0 and self.slots_free >= _LEAST_SLOTS
        t.g_scanned = 0
        t.step = "G_NEXT"
        if c.has_batched():
            self.start_drain(t, 7, "G_NEXT")

    def step_G_NEXT(self, c, t):
        """get_nr_to_scan, should_run_aging"""
        m = self.memcg
        t.g_seq = m.max_seq
        out = m.min_seq[ANON if t.g_can_swap else FILE] + 2 > t.g_seq
        sizes = {s: max(m.gen_nr[s % NR_GENS], 0) for s in range(m.min_seq[ANON], t.g_seq + 1)}
        total = 0 if out or not t.g_can_swap else sum(sizes.values())
        age = out
        if not self.world.mglru_rework:
            if t.g_can_swap and m.min_seq[ANON] + 2 == t.g_seq:
                young, old = sizes[t.g_seq], sizes[t.g_seq - 2]
                age = young * 2 > total or old * 4 < total
            if t.prio == 12:
                age = False
        if not age:
            t.g_nr = total >> t.prio
            t.step = "G_ISOLATE" if t.g_nr > 0 else "R_END"
        elif t.g_seq <= m.mm_seq:
            t.step = "R_END"
        else:
            t.g_force = 0
            t.step = "G_MM"

    def step_G_ISOLATE(self, c, t):
        """evict_folios, up to try_to_inc_min_seq"""
        if not self.lock(self.lru_lock):
            return
        t.list.clear()
        t.ret.clear()
        t.clean.clear()
        t.g_delta = t.g_retry = looked = 0
        if t.g_can_swap and self.lru.nr_gens(ANON) > 2:
            looked = self.scan_folios(t)
        t.taken = t.scanned = len(t.list)
        self.counter["pgscan_anon"] += t.taken
        if self.inc_min_seq(t):
            t.g_delta += 1
        if self.lru.nr_gens(ANON if t.g_can_swap else FILE) == 2:
            t.g_delta = 0
        t.g_scanned += t.g_delta
        self.spend(self.cost["lru_lock"] + self.cost["lru_isolate"] * looked)
        t.step = "G_UNLOCK"

    def scan_folios(self, t):
        """The oldest generation from its tail: how many were looked at."""
        lru, looked, isolated_before = self.lru, 0, self.lru.tier_idx()
        oldest = self.memcg.min_seq[ANON] % NR_GENS
        room = min(_MANY, t.g_nr) if self.world.mglru_batch else _MANY
        sorted_ = 0
        while looked < room and len(t.list) < _LIST and lru.gens[oldest]:
            f = next(iter(lru.gens[oldest].values()))
            looked += 1
            if self.sort_folio(f, oldest, isolated_before):
                sorted_ += 1
            else:
                self.isolate_folio(t, f)
        self.counter["memcg_pgrefill"] += sorted_
        if self.world.pgrefill_global:
            self.counter["pgrefill"] += sorted_
        t.g_delta = looked if t.list or looked == room else 0
        return looked

    def sort_folio(self, f, oldest, last_tier):
        """True: f stays in the LRU, and is on another list now."""
        lru, r = self.lru, refs(f)
        if f.gen != oldest:                             # promoted by a walk
            lru.take_off(f)
            lru.move(f, f.gen)
        elif tier(r) > last_tier or r == 4:             # protected
            lru.take_off(f)
            lru.inc_gen(f)
            lru.move(f, f.gen, tail=True)
            protected = self.memcg.protected
            protected[tier(r)] = protected[tier(r)] + 1 & MASK64
        elif self.world.mglru_rework and f.flags & WRITEBACK:
            f.flags |= RECLAIM
            lru.take_off(f)
            lru.inc_gen(f)
            lru.move(f, f.gen)
        else:
            return False
        return True

    def isolate_folio(self, t, f):
        f.refcount += 1
        if not f.flags & REFERENCED:
            clear_refs(f)
        f.flags &= ~(LRU | REFERENCED)
        self.lru.isolate(f)
        t.list.append(f)

    def inc_min_seq(self, t):
        """try_to_inc_min_seq; true if one of the two changed."""
        m, lru = self.memcg, self.lru
        anon, file = before = tuple(m.min_seq)
        last = m.max_seq - 1
        if t.g_can_swap:
            while anon < last and not lru.gen_of(anon):
                anon += 1
            file = max(anon, file)
        else:
            file = max(file, last)
        if anon != before[ANON]:
            lru.reset_ctrl()
        m.min_seq = [anon, file]
        return (anon, file) != before

    def step_G_UNLOCK(self, c, t):
        self.unlock(self.lru_lock)
        t.step = "S_PLAN" if t.taken else "G_MORE"

    def step_G_KEEP(self, c, t):
        """evict_folios, after shrink_folio_list"""
        stay = []
        for f in t.ret:
            if f.flags & RECLAIM and f.flags & (DIRTY | WRITEBACK):
                if f.flags & WORKINGSET:
                    f.flags |= REFERENCED
                stay.append(f)
            elif not (t.g_retry or f.mapcount
                      or f.flags & (ACTIVE | REFERENCED | LOCKED | DIRTY | WRITEBACK)):
                t.clean.append(f)
            else:
                clear_refs(f)
                f.flags |= ACTIVE
                stay.append(f)
        t.ret.clear()
        t.ret.extend(stay)
        t.step = "G_PUT"

    def step_G_PUT(self, c, t):
        if not self.lock(self.lru_lock):
            return
        self.spend(self.cost["lru_lock"] + self.cost["lru_putback"] * len(t.ret))
        while t.ret:
            self.put_back(t.ret.popleft())
        self.counter["pgsteal_anon"] += t.nr_reclaimed
        t.step = "G_PUT_UNLOCK"

    def step_G_PUT_UNLOCK(self, c, t):
        self.unlock(self.lru_lock)
        t.sc_reclaimed += t.nr_reclaimed
        t.folio = None
        if t.clean:
            t.list.extend(t.clean)
            t.clean.clear()
            t.taken = len(t.list)
            t.g_retry = 1
            t.step = "S_PLAN"
        else:
            t.step = "G_MORE"

    def step_G_MORE(self, c, t):
        """try_to_shrink_lruvec, should_abort_scan"""
        if (t.g_delta == 0 or t.g_scanned >= t.g_nr
                or (self.world.mglru_stop and t.sc_reclaimed >= 32)):
            t.step = "R_END"
        elif not self.resched_guard(c, t):
            t.step = "G_NEXT"

    # -- aging ----------------------------------------------------------------------------------

    def step_G_MM(self, c, t):
        """iterate_mm_list"""
        m = self.memcg
        if t.g_seq <= m.mm_seq:
            t.step = "R_END"
            return
        first = m.mm_head == NONE
        mm = self.next_mm(t)
        if mm is None:
            m.mm_head = NONE
            m.mm_seq += 1
            t.step = "G_MAX"
            return
        if first:
            self.lru.new_filter(t.g_seq + 1)
        if t.g_can_swap and mm.recency:
            t.g_mm, t.g_region = mm, 0
            t.step = "G_WALK"

    def next_mm(self, t):
        """get_next_mm, over and over: the next mm to walk, or None at the end."""
        m = self.memcg
        while m.mm_head + 1 < len(self.mms):            # NONE is before the first
            m.mm_head += 1
            mm = self.mms[m.mm_head]
            if mm.lru_gen & FRESH:
                mm.lru_gen &= ~FRESH
                t.g_force = 1
            if not t.g_force and not mm.lru_gen & USED:
                continue
            mm.lru_gen &= ~USED
            if not mm.lru_gen & GONE:
                return mm
        return None

    def step_G_WALK(self, c, t):
        """walk_pmd_range"""
        mm = t.g_mm
        end = min(mm.nr_regions, (t.g_region // 512 + 1) * 512)
        while t.g_region < end and self.is_skipped(t, mm.first_region + t.g_region):
            t.g_region += 1
        if t.g_region < end:
            self.walk_pte_range(t, mm, t.g_region)
            t.g_region += 1
        if t.g_region == mm.nr_regions or (
                t.g_region == end and (c.need_resched or t.g_batched >= _MANY)):
            t.step = "G_BATCH" if t.g_batched else "G_AGAIN"

    def is_skipped(self, t, region):
        if not self.pt_present[region]:
            return True
        if t.g_force:
            return False
        if not self.pt_young[region]:
            return True
        self.pt_young[region] = 0
        bit = 1 << (t.g_seq & 1)
        return bool(self.memcg.filters & bit) and not self.pt_filter[region] & bit

    def walk_pte_range(self, t, mm, index):
        region = mm.first_region + index
        if self.ptl[region].holder is not None:         # a trylock
            return
        first = mm.base + index * 512
        pages = range(first, min(first + 512, mm.base + mm.pages))
        young, new = 0, self.memcg.max_seq % NR_GENS
        for vp in pages:
            if self.lru.clear_pte_young(vp):
                young += 1
                old = self.lru.update_gen(self.folio_at(vp), new)
                if old not in (NONE, new):
                    t.g_moved[old] -= 1
                    t.g_moved[new] += 1
                    t.g_batched += 1
        self.spend(self.cost["walk_pte"] * len(pages) + self.cost["walk_young"] * young)
        if young * 8 >= len(pages):
            self.lru.mark_filter(region, t.g_seq + 1)

    def folio_at(self, vp):
        return self.folios[self.pte[vp] >> PAYLOAD]

    def step_G_BATCH(self, c, t):
        """reset_batch_size"""
        if not self.lock(self.lru_lock):
            return
        for i, n in enumerate(t.g_moved):
            self.memcg.gen_nr[i] += n
        t.g_moved = [0] * NR_GENS
        t.g_batched = 0
        self.spend(self.cost["lru_lock"])
        t.step = "G_BATCH_UNLOCK"

    def step_G_BATCH_UNLOCK(self, c, t):
        self.unlock(self.lru_lock)
        t.step = "G_AGAIN"

    def step_G_AGAIN(self, c, t):
        if self.resched_guard(c, t):
            return
        over = t.g_region == t.g_mm.nr_regions or t.g_seq != self.memcg.max_seq
        t.step = "G_MM" if over else "G_WALK"

    def step_G_MAX(self, c, t):
        """inc_max_seq"""
        if not self.lock(self.lru_lock):
            return
        m, lru = self.memcg, self.lru
        if lru.nr_gens(FILE) == NR_GENS:
            m.min_seq[FILE] += 1
        if lru.nr_gens(ANON) == NR_GENS:
            lru.inverted = lru.inverted or bool(lru.gen_of(m.min_seq[ANON]))
            lru.reset_ctrl()
            m.min_seq[ANON] += 1
        m.max_seq += 1
        self.spend(self.cost["lru_lock"])
        t.step = "G_MAX_UNLOCK"

    def step_G_MAX_UNLOCK(self, c, t):
        self.unlock(self.lru_lock)
        t.step = "R_END"

    # -- rows of shrink_folio_list --------------------------------------------------------------

    def step_S_GEN(self, c, t):
        """folio_check_references, as far as the PTE is looked at"""
        f, young = t.folio, False
        self.drop_moved(c, t, f)
        if f.mapcount:
            ptl = self.ptl_of(f.vp)
            if not self.lock(ptl):
                return
            young = self.clear_young(f)
            if young and not ptl.waiters and self.window(t, f.vp) > 1:
                t.step = "S_LOOK"                       # the PTL stays held
                return
            self.unlock(ptl)
        if young:
            t.step = "S_YOUNG"
            return
        if not self.world.mglru_rework:
            f.flags &= ~REFERENCED
        t.step = "S_UNMAP" if f.flags & SWAPCACHE else "S_SLOT"

    def window(self, t, vp):
        """The pages to look at around vp, all of one page-table page; their number."""
        mm = self.mm_of[vp]
        s = mm.base + (vp - mm.base) // 512 * 512
        e = min(s + 512, mm.base + mm.pages)
        half = _LOOK // 2
        if e - s > _LOOK:
            if vp - s < half:
                e = s + _LOOK
            elif e - vp < half:
                s = e - _LOOK
            else:
                s, e = vp - half, vp + half
        t.look_at, t.look_end, t.look_nr, t.look_young = s, e, e - s, 1
        t.look_seq = self.memcg.max_seq
        return e - s

    def step_S_LOOK(self, c, t):
        """lru_gen_look_around, with the PTL held"""
        looked, found, full = 0, 0, False
        while t.look_at < t.look_end and not full:
            vp = t.look_at
            t.look_at += 1
            looked += 1
            if self.lru.clear_pte_young(vp):
                t.look_young += 1
                found += 1
                full = self.look_at_young(c, t, self.folio_at(vp))
        self.spend(self.cost["walk_pte"] * looked + self.cost["walk_young"] * found)
        if full:
            self.start_drain(t, 2, "S_LOOK")
            return
        region = self.region_of[t.folio.vp]
        if t.look_young * 8 >= t.look_nr:
            self.lru.mark_filter(region, t.look_seq)
        self.unlock(self.ptl[region])
        t.step = "S_YOUNG"

    def look_at_young(self, c, t, f):
        """True if the activate batch became full."""
        if f.gen == NONE:
            f.flags |= REFERENCED
        elif f.gen != t.look_seq % NR_GENS:
            clear_refs(f)
            return self.activate_add(c, f)
        return False

    def step_S_YOUNG(self, c, t):
        f = t.folio
        self.spend(self.cost["scan"] + self.cost["rmap"])
        rework = self.world.mglru_rework
        seen = f.flags & ((REFERENCED | WORKINGSET) if rework else REFERENCED)
        if seen:
            self.activate(t)                            # before the flags change
        if rework:
            f.refs = 0
        if rework and seen:
            f.flags = f.flags & ~REFERENCED | WORKINGSET
        else:
            f.flags |= REFERENCED
        self.keep_locked(t)
