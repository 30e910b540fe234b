# The multi-generational LRU: eviction, references, aging (mm/vmscan.c lru_gen_shrink_lruvec;
# docs/model.md 5.4.1, 5.5.1).  Its lists, tiers and refaults are in generations.pxd.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from reclaim._policy cimport Policies
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.generations cimport *
from reclaim._mm.sched cimport *
from reclaim._mm.vmscan cimport (activate_locked, ask_activation, keep_locked, move_folios_to_lru,
                                 lock_moved, nr_reclaimed, ptl_handed_over)

cdef enum:
    PTRS_PER_PMD = 512


# --- how much, and whether to age first

cdef inline void step_G_SHRINK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """lru_gen_shrink_lruvec"""
    spend(m, TM_scan, m.w.cost[CO_reclaim_prio])
    t.g_can_swap = m.w.swappiness > 0 and m.cg.slots_free >= MIN_LRU_BATCH
    t.g_scanned = 0
    drain_all(m, t, ST_G_NEXT)

cdef inline int64_t gen_size(const machine *m, int64_t seq) noexcept nogil:
    """Pages of a generation; less than none while a walk has not reported."""
    cdef int64_t n = m.cg.gen_nr[gen_of_seq(seq)]
    return n if n > 0 else 0

cdef inline bint uneven(const machine *m, int64_t total) noexcept nogil:
    """Of three generations the youngest holds too much or the oldest too little."""
    cdef int64_t top = m.cg.max_seq
    return (gen_size(m, top) * MIN_NR_GENS > total
            or gen_size(m, top - MIN_NR_GENS) * (MIN_NR_GENS + 2) < total)

cdef inline void step_G_NEXT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """get_nr_to_scan, should_run_aging"""
    cdef int64_t n = 0, seq
    cdef int64_t oldest = m.cg.min_seq[GEN_ANON if t.g_can_swap else GEN_FILE]
    cdef bint out, age
    t.g_seq = m.cg.max_seq
    out = oldest + MIN_NR_GENS > t.g_seq
    if t.g_can_swap and not out:
        for seq in range(oldest, t.g_seq + 1):
            n += gen_size(m, seq)
    age = out
    if not m.w.mglru_rework:
        if t.g_can_swap and oldest + MIN_NR_GENS == t.g_seq:
            age = uneven(m, n)
        age = age and t.prio < DEF_PRIORITY
    t.step = ST_R_END
    if not age:
        t.g_nr = <int32_t>(n >> t.prio)
        if t.g_nr > 0:
            t.step = ST_G_ISOLATE
    elif t.g_seq > m.cg.mm_seq:
        t.g_force = 0
        t.step = ST_G_MM

cdef inline void step_G_MORE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """try_to_shrink_lruvec, between two lists"""
    if (t.g_delta == 0 or t.g_scanned >= t.g_nr
            or (m.w.mglru_stop and t.sc_reclaimed >= CLUSTER)):
        t.step = ST_R_END
    elif not resched_guard(m, p, t):
        t.step = ST_G_NEXT


# --- the tiers' controller

cdef inline uint64_t tier_refaulted(const machine *m, int tier) noexcept nogil:
    return m.cg.avg_refaulted[tier] + m.cg.refaulted[tier]

cdef inline uint64_t tier_total(const machine *m, int tier) noexcept nogil:
    return m.cg.avg_total[tier] + m.cg.evicted[tier] + m.cg.protected[tier]

cdef inline bint positive_ctrl_err(const machine *m, int tier) noexcept nogil:
    """The tier refaults no more than the first one does, as far as the gains go."""
    cdef uint64_t refaulted = tier_refaulted(m, tier)
    cdef uint64_t sp_gain = 2 if m.w.mglru_rework else 1, pv_gain = 3 if m.w.mglru_rework else 2
    return (refaulted < MIN_LRU_BATCH
            or refaulted * (tier_total(m, 0) + MIN_LRU_BATCH) * sp_gain
            <= (tier_refaulted(m, 0) + 1) * tier_total(m, tier) * pv_gain)

cdef inline int get_tier_idx(const machine *m) noexcept nogil:
    """The last tier that is evicted."""
    cdef int tier
    for tier in range(1, NR_TIERS):
        if not positive_ctrl_err(m, tier):
            return tier - 1
    return NR_TIERS - 1

cdef inline void reset_ctrl_pos(machine *m) noexcept nogil:
    """A generation is gone: what it taught goes into the averages."""
    cdef memcg_t *g = m.cg
    cdef int tier
    for tier in range(NR_TIERS):
        g.avg_refaulted[tier] = tier_refaulted(m, tier) // 2
        g.avg_total[tier] = tier_total(m, tier) // 2
        g.refaulted[tier] = 0
        g.evicted[tier] = 0
        g.protected[tier] = 0


# --- isolation and put-back

cdef inline void folio_inc_gen(machine *m, int32_t f, int old, bint tail) noexcept nogil:
    cdef folio_t *q = &m.folio[f]
    cdef int gen = (old + 1) & (NR_GENS - 1)
    folio_clear_lru_refs(q)
    folio_set_gen(q, gen)
    m.cg.gen_nr[old] -= 1
    m.cg.gen_nr[gen] += 1
    gen_list_move(m, f, gen, tail)

cdef inline bint sort_folio(machine *m, int32_t f, int oldest, int last_tier) noexcept nogil:
    """True if it is not to be evicted now."""
    cdef folio_t *q = &m.folio[f]
    cdef int gen = folio_gen(q), refs = folio_lru_refs(q), tier = tier_of_refs(refs)
    if gen != oldest:
        gen_list_move(m, f, gen, False)
    elif tier > last_tier or refs > REFS_MAX:
        folio_inc_gen(m, f, oldest, True)
        m.cg.protected[tier] += 1
    elif m.w.mglru_rework and q.flags & PG_writeback:
        q.flags |= PG_reclaim
        folio_inc_gen(m, f, oldest, False)
    else:
        return False
    return True

cdef inline void isolate_folio(machine *m, task_t *t, int32_t f) noexcept nogil:
    cdef folio_t *q = &m.folio[f]
    q.refcount += 1
    if not q.flags & PG_referenced:
        folio_clear_lru_refs(q)
    q.flags &= ~<uint32_t>(PG_lru | PG_referenced)
    lru_gen_del_folio(m, f, True)
    fifo_push(m, &t.list, f)

cdef inline int32_t scan_folios(machine *m, task_t *t) noexcept nogil:
    """Folios of the oldest generation, sorted or isolated; how many were looked at."""
    cdef int oldest = gen_of_seq(m.cg.min_seq[GEN_ANON]), last_tier = get_tier_idx(m)
    cdef int32_t room = min(MAX_LRU_BATCH, t.g_nr) if m.w.mglru_batch else MAX_LRU_BATCH
    cdef int32_t looked = 0, sorted = 0, f
    while looked < room and t.list.nr < MIN_LRU_BATCH:
        f = m.cg.lru_tail[GEN_LIST + oldest]
        if f < 0:
            break
        looked += 1
        if sort_folio(m, f, oldest, last_tier):
            sorted += 1
        else:
            isolate_folio(m, t, f)
    m.counter[CN_memcg_pgrefill] += sorted
    if m.w.pgrefill_global:
        m.counter[CN_pgrefill] += sorted
    t.g_delta = looked if t.list.nr > 0 or looked == room else 0
    return looked

cdef inline bint try_to_inc_min_seq(machine *m, bint can_swap) noexcept nogil:
    """Leave the oldest generations if they are empty; file ones always are."""
    cdef memcg_t *g = m.cg
    cdef int64_t anon = g.min_seq[GEN_ANON], file = g.min_seq[GEN_FILE]
    cdef int64_t last = g.max_seq - MIN_NR_GENS + 1
    cdef bint success = False
    if can_swap:
        while anon < last and g.lru_head[GEN_LIST + gen_of_seq(anon)] < 0:
            anon += 1
        file = max(anon, file)
    elif file < last:
        file = last
    if anon != g.min_seq[GEN_ANON]:
        reset_ctrl_pos(m)
        g.min_seq[GEN_ANON] = anon
        success = True
    if file != g.min_seq[GEN_FILE]:
        g.min_seq[GEN_FILE] = file
        success = True
    return success

cdef inline void step_G_ISOLATE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """evict_folios: isolate_folios, try_to_inc_min_seq"""
    cdef int32_t looked = 0
    if not lock_lru(m):
        return
    fifo_init(&t.list)
    fifo_init(&t.ret)
    fifo_init(&t.clean)
    t.g_delta = 0
    t.g_retry = 0
    if t.g_can_swap and nr_gens(m, GEN_ANON) > MIN_NR_GENS:
        looked = scan_folios(m, t)
    t.taken = t.list.nr
    t.scanned = t.list.nr
    m.counter[CN_pgscan_anon] += t.taken
    if try_to_inc_min_seq(m, t.g_can_swap):
        t.g_delta += 1
    if nr_gens(m, GEN_ANON if t.g_can_swap else GEN_FILE) == MIN_NR_GENS:
        t.g_delta = 0
    t.g_scanned += t.g_delta
    spend(m, TM_scan, m.w.cost[CO_lru_lock] + m.w.cost[CO_lru_isolate] * looked)
    t.step = ST_G_UNLOCK

cdef inline void step_G_UNLOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    unlock(m, &m.cg.lru_lock)
    t.step = ST_S_PLAN if t.taken > 0 else ST_G_MORE

cdef inline bint to_be_retried(const task_t *t, const folio_t *q) noexcept nogil:
    """It may have missed folio_rotate_reclaimable()."""
    return (not t.g_retry and q.mapcount == 0 and not q.flags & (
        PG_active | PG_referenced | PG_locked | PG_dirty | PG_writeback))

cdef inline void step_G_KEEP(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """evict_folios: what becomes of the folios that shrink_folio_list gave back"""
    cdef int32_t i, f
    cdef folio_t *q
    for i in range(t.ret.nr):
        f = fifo_pop(m, &t.ret)
        q = &m.folio[f]
        if q.flags & PG_reclaim and q.flags & (PG_dirty | PG_writeback):
            if q.flags & PG_workingset:
                q.flags |= PG_referenced
        elif to_be_retried(t, q):
            fifo_push(m, &t.clean, f)
            continue
        else:
            folio_clear_lru_refs(q)
            q.flags |= PG_active             # not to the oldest generation
        fifo_push(m, &t.ret, f)
    t.step = ST_G_PUT

cdef inline void step_G_PUT(machine *m, cpu_t *p, task_t *t, Policies s) noexcept nogil:
    if not lock_lru(m):
        return
    move_folios_to_lru(m, t)
    m.counter[CN_pgsteal_anon] += nr_reclaimed(t, s)
    t.step = ST_G_PUT_UNLOCK

cdef inline void step_G_PUT_UNLOCK(machine *m, cpu_t *p, task_t *t, Policies s) noexcept nogil:
    unlock(m, &m.cg.lru_lock)
    t.sc_reclaimed += <int32_t>nr_reclaimed(t, s)
    t.folio = -1
    t.step = ST_G_MORE
    if t.clean.nr > 0:
        t.list = t.clean
        t.taken = t.clean.nr
        fifo_init(&t.clean)
        t.g_retry = 1
        t.step = ST_S_PLAN


# --- folio_check_references: the neighbours of a young PTE are looked at, too

cdef inline bint look_range(machine *m, task_t *t, const folio_t *q) noexcept nogil:
    """The 64 pages around the folio's, within its page-table page; false if it is alone there."""
    cdef mm_t *mm = &m.mm[q.mm]
    cdef int32_t start = q.vp - ((q.vp - mm.base) & (PTRS_PER_PTE - 1))
    cdef int32_t end = min(start + PTRS_PER_PTE, mm.base + mm.nr_pages)
    if end - start > MIN_LRU_BATCH:
        if q.vp - start < MIN_LRU_BATCH // 2:
            end = start + MIN_LRU_BATCH
        elif end - q.vp < MIN_LRU_BATCH // 2:
            start = end - MIN_LRU_BATCH
        else:
            start = q.vp - MIN_LRU_BATCH // 2
            end = start + MIN_LRU_BATCH
    t.look_at = start
    t.look_end = end
    t.look_nr = <uint8_t>(end - start)
    t.look_young = 1
    t.look_seq = m.cg.max_seq
    return end - start > 1

cdef inline void step_S_GEN(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef folio_t *q = &m.folio[t.folio]
    cdef qlock *ptl
    if q.mapcount == 0:
        ptl = ptl_handed_over(m, t.folio)
    else:
        lock_moved(m, q)
        ptl = &pte_region(m, q.mm, q.vp).ptl
        if not lock(m, ptl):
            return
        if m.pte[q.vp] & PTE_YOUNG and m.mm[q.mm].recency:
            m.pte[q.vp] &= ~<uint64_t>PTE_YOUNG
            if ptl.head < 0 and look_range(m, t, q):        # not spin_is_contended()
                t.step = ST_S_LOOK
            else:
                unlock(m, ptl)
                t.step = ST_S_YOUNG
            return
    if ptl != NULL:
        unlock(m, ptl)
    if not m.w.mglru_rework:
        q.flags &= ~<uint32_t>PG_referenced
    t.step = ST_S_UNMAP if q.flags & PG_swapcache else ST_S_SLOT

cdef inline bint suitable_to_scan(int32_t total, int32_t young) noexcept nogil:
    return young * 8 >= total

cdef inline int64_t look_cost(const machine *m, int64_t total, int64_t young) noexcept nogil:
    return m.w.cost[CO_walk_pte] * total + m.w.cost[CO_walk_young] * young

cdef inline void update_bloom_filter(machine *m, region_t *r, int64_t seq) noexcept nogil:
    if m.cg.filters >> (seq & 1) & 1:
        r.filter |= <uint8_t>(1 << (seq & 1))

cdef inline bint clear_young(machine *m, int32_t vp) noexcept nogil:
    """ptep_clear_young of a present PTE; its dirty bit goes to a folio of the swap cache."""
    cdef uint64_t pte = m.pte[vp]
    cdef folio_t *q
    if not pte_present(pte) or not pte & PTE_YOUNG:
        return False
    m.pte[vp] = pte & ~<uint64_t>PTE_YOUNG
    q = &m.folio[pte_index(pte)]
    if pte & PTE_DIRTY and q.flags & PG_swapcache:
        q.flags |= PG_dirty
    return True

cdef inline bint look_at(machine *m, task_t *t, int32_t vp) noexcept nogil:
    """One page of lru_gen_look_around; true if the CPU's activate batch is full."""
    cdef int32_t f
    cdef int gen
    if not clear_young(m, vp):
        return False
    t.look_young += 1
    f = pte_index(m.pte[vp])
    gen = folio_gen(&m.folio[f])
    if gen < 0:
        m.folio[f].flags |= PG_referenced
        return False
    if gen == gen_of_seq(t.look_seq):
        return False
    folio_clear_lru_refs(&m.folio[f])
    return folio_activate(m, f)

cdef inline void step_S_LOOK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """lru_gen_look_around; the page-table lock is held"""
    cdef folio_t *q = &m.folio[t.folio]
    cdef region_t *r = pte_region(m, q.mm, q.vp)
    cdef int32_t first = t.look_at, young = t.look_young
    cdef bint full = False
    while t.look_at < t.look_end and not full:
        full = look_at(m, t, t.look_at)
        t.look_at += 1
    spend(m, TM_scan, look_cost(m, t.look_at - first, t.look_young - young))
    if full:
        drain(t, 2, ST_S_LOOK)
        return
    if suitable_to_scan(t.look_nr, t.look_young):
        update_bloom_filter(m, r, t.look_seq)
    unlock(m, &r.ptl)
    t.step = ST_S_YOUNG

cdef inline int step_S_YOUNG(machine *m, cpu_t *p, task_t *t, Policies s) except -1 nogil:
    """A young folio is kept at its first reference, activated at the second."""
    cdef folio_t *q = &m.folio[t.folio]
    cdef uint32_t seen = q.flags & (LRU_REFS_FLAGS if m.w.mglru_rework else PG_referenced)
    cdef int verdict = ask_activation(m, t, s) if seen else 0
    spend(m, TM_scan, m.w.cost[CO_scan] + m.w.cost[CO_rmap])
    if m.w.mglru_rework:
        folio_set_lru_refs(q, 0)
    if m.w.mglru_rework and seen:
        q.flags = (q.flags & ~<uint32_t>PG_referenced) | PG_workingset
    else:
        q.flags |= PG_referenced
    if seen:
        activate_locked(m, t, verdict)
    else:
        keep_locked(m, t)
    return 0


# --- aging: the page tables of every mm, then a new generation

cdef inline void reset_bloom_filter(machine *m, int64_t seq) noexcept nogil:
    cdef int32_t i
    cdef uint8_t bit = <uint8_t>(1 << (seq & 1))
    m.cg.filters |= bit
    for i in range(m.w.nr_regions):
        m.region[i].filter &= ~bit

cdef inline bint get_next_mm(machine *m, task_t *t) noexcept nogil:
    """Is the mm at mm_head to be walked?"""
    cdef mm_t *mm = &m.mm[m.cg.mm_head]
    cdef bint used = mm.lru_gen & MM_USED
    if mm.lru_gen & MM_FRESH:
        t.g_force = 1
        mm.lru_gen &= ~MM_FRESH
    if not t.g_force and not used:
        return False
    mm.lru_gen &= ~MM_USED
    return not mm.lru_gen & MM_GONE

cdef inline void step_G_MM(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """iterate_mm_list"""
    cdef memcg_t *g = m.cg
    cdef bint first = g.mm_head < 0
    if t.g_seq <= g.mm_seq:                  # another walker came to the end
        t.step = ST_R_END
        return
    while True:
        g.mm_head += 1
        if g.mm_head == m.w.nr_mms:
            g.mm_head = -1
            g.mm_seq += 1
            t.step = ST_G_MAX
            return
        if get_next_mm(m, t):
            break
    if first:
        reset_bloom_filter(m, t.g_seq + 1)
    if t.g_can_swap and m.mm[g.mm_head].recency:          # else should_skip_vma
        t.g_mm = g.mm_head
        t.g_region = 0
        t.step = ST_G_WALK

cdef inline bint skip_pmd(machine *m, const task_t *t, region_t *r) noexcept nogil:
    if not r.present:
        return True
    if t.g_force:
        return False
    if not r.young:
        return True
    r.young = 0
    return m.cg.filters >> (t.g_seq & 1) & 1 and not r.filter >> (t.g_seq & 1) & 1

cdef inline void walk_pte_range(machine *m, task_t *t, int32_t region) noexcept nogil:
    cdef mm_t *mm = &m.mm[t.g_mm]
    cdef region_t *r = &m.region[mm.first_region + region]
    cdef int32_t first = mm.base + region * PTRS_PER_PTE, vp, young = 0
    cdef int32_t end = min(first + PTRS_PER_PTE, mm.base + mm.nr_pages)
    cdef int old, gen = gen_of_seq(m.cg.max_seq)
    if r.ptl.holder >= 0:                    # spin_trylock
        return
    for vp in range(first, end):
        if not clear_young(m, vp):
            continue
        young += 1
        old = folio_update_gen(&m.folio[pte_index(m.pte[vp])], gen)
        if old >= 0 and old != gen:
            t.g_moved[old] -= 1
            t.g_moved[gen] += 1
            t.g_batched += 1
    spend(m, TM_scan, look_cost(m, end - first, young))
    if suitable_to_scan(end - first, young):
        update_bloom_filter(m, r, t.g_seq + 1)

cdef inline void step_G_WALK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """walk_mm: one page-table page a step"""
    cdef mm_t *mm = &m.mm[t.g_mm]
    cdef region_t *r = &m.region[mm.first_region]
    cdef int32_t end = min(mm.nr_regions, (t.g_region // PTRS_PER_PMD + 1) * PTRS_PER_PMD)
    while t.g_region < end and skip_pmd(m, t, r + t.g_region):
        t.g_region += 1
    if t.g_region < end:
        walk_pte_range(m, t, t.g_region)
        t.g_region += 1
    if t.g_region == mm.nr_regions or (
            t.g_region == end and (p.need_resched or t.g_batched >= MAX_LRU_BATCH)):
        t.step = ST_G_BATCH if t.g_batched > 0 else ST_G_AGAIN

cdef inline void step_G_BATCH(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """reset_batch_size"""
    cdef int gen
    if not lock_lru(m):
        return
    for gen in range(NR_GENS):
        m.cg.gen_nr[gen] += t.g_moved[gen]
        t.g_moved[gen] = 0
    t.g_batched = 0
    spend(m, TM_scan, m.w.cost[CO_lru_lock])
    t.step = ST_G_BATCH_UNLOCK

cdef inline void step_G_BATCH_UNLOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    unlock(m, &m.cg.lru_lock)
    t.step = ST_G_AGAIN

cdef inline void step_G_AGAIN(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """walk_mm, between two spans of page tables"""
    if resched_guard(m, p, t):
        return
    if t.g_region == m.mm[t.g_mm].nr_regions or t.g_seq != m.cg.max_seq:
        t.step = ST_G_MM
    else:
        t.step = ST_G_WALK

cdef inline void step_G_MAX(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """inc_max_seq"""
    if not lock_lru(m):
        return
    if nr_gens(m, GEN_FILE) == NR_GENS:
        m.cg.min_seq[GEN_FILE] += 1
    if nr_gens(m, GEN_ANON) == NR_GENS:      # only without swap: the folios stay where they are
        reset_ctrl_pos(m)
        m.cg.min_seq[GEN_ANON] += 1
    m.cg.max_seq += 1
    spend(m, TM_scan, m.w.cost[CO_lru_lock])
    t.step = ST_G_MAX_UNLOCK

cdef inline void step_G_MAX_UNLOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    unlock(m, &m.cg.lru_lock)
    t.step = ST_R_END
