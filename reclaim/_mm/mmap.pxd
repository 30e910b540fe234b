# munmap, mprotect and mremap of a program (mm/vma.c, mm/mmu_gather.c, mm/mprotect.c, mm/mremap.c;
# docs/model.md 5.12).  What they zap goes through the rows of an exit, in memory.pxd.

from libc.stdint cimport int32_t, int64_t, uint64_t

from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.clock cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport drain_all, swap_cache_folio
from reclaim._mm.smp cimport flush, flush_range, flush_tlb_batched_pending
from reclaim._mm.sched cimport mmap_lock, resched_guard, wake_task
from reclaim._mm.memcg cimport charge_start
from reclaim._mm.memory cimport *
from reclaim._mm.program cimport task_pass


cdef inline void step_V_CALL(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    if resched_guard(m, p, t):
        return
    if t.dying:
        leave_mm(m, p, t)
        return
    t.call = task_pass(m, t).kind
    t.phase = 0
    spend(m, TM_fault, m.w.cost[CO_fault_entry] if m.w.cost[CO_fault_entry] > 0 else 1)
    t.step = ST_V_LOCK

cdef inline int32_t child_of(const machine *m, const task_t *t) noexcept nogil:
    """The task that waits to be forked by this one, or -1."""
    cdef int32_t u
    for u in range(m.w.nr_tasks):
        if m.task[u].mm == m.mm[t.mm].peer and m.task[u].step == ST_V_CHILD:
            return u
    return -1

cdef inline void step_V_LOCK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """mmap_write_lock"""
    if not mmap_lock(m, p, t, MMAP_WRITE):
        return
    if unlikely(t.call == PASS_FORK):
        t.step = ST_V_FORK if child_of(m, t) >= 0 else ST_V_END
    else:
        t.step = ST_V_PROT if t.call == PASS_MPROTECT else ST_V_UNMAP
    t.zap = call_first(m, t) // PTRS_PER_PTE
    t.v_hi = 0                          # tlb_gather_mmu
    t.v_tables = 0

cdef inline void step_V_MORE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """cond_resched between two page-table pages"""
    if not resched_guard(m, p, t):
        t.step = t.v_next

cdef inline void more(task_t *t, int32_t step) noexcept nogil:
    t.v_next = step
    t.step = ST_V_MORE


# --- unmapping: zap (E_ZAP, E_PTES), free_pgtables, the flush, then the folios

cdef inline void step_V_UNMAP(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """vms_clear_ptes: lru_add_drain, tlb_gather_mmu"""
    t.zap = call_first(m, t) // PTRS_PER_PTE
    t.v_hi = 0
    t.v_nr = 0
    t.v_tables = 0
    t.v_last = 0
    drain_all(m, t, ST_E_ZAP)

cdef inline void tlb_flush_mmu(machine *m, cpu_t *p, task_t *t, int32_t ret) noexcept nogil:
    """tlb_flush_mmu_tlbonly: what is gathered, if anything"""
    t.step = ret
    if t.v_hi > 0:
        flush_range(m, p, t, t.v_lo, t.v_hi, t.v_tables > 0, ret)
    t.v_hi = 0
    t.v_tables = 0

cdef inline void free_gathered(machine *m, task_t *t) noexcept nogil:
    t.v_nr = 0
    t.v_at = call_first(m, t) // PTRS_PER_PTE
    t.step = ST_V_FREE

cdef inline void step_V_FULL(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """zap_pte_range, force_flush: the gather was flushed under the page-table lock"""
    cdef int32_t vp = m.mm[t.mm].base + t.v_hi
    unlock(m, &zap_region(m, t).ptl)
    if vp == zap_to(m, t, t.zap):
        t.zap += 1
    t.v_hi = 0
    free_gathered(m, t)

cdef inline bint whole_table(machine *m, const task_t *t, int32_t region) noexcept nogil:
    """No page of the region is mapped but those that are unmapped now."""
    cdef const mm_t *mm = &m.mm[t.mm]
    return (zap_from(m, t, region) == mm.base + region * PTRS_PER_PTE
            and zap_to(m, t, region) == mm.base + min(mm.nr_pages, (region + 1) * PTRS_PER_PTE))

cdef inline void step_V_TABLES(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """free_pgtables, then tlb_finish_mmu"""
    cdef int32_t i
    for i in range(call_first(m, t) // PTRS_PER_PTE, zap_end_region(m, t)):
        if not region_of(m, t, i).present or not whole_table(m, t, i):
            continue
        free_table(m, region_of(m, t, i))
        gather_page(m, t, m.mm[t.mm].base + i * PTRS_PER_PTE)
        t.v_tables += 1
        if t.v_tables == TABLE_BATCH:       # tlb_table_flush
            tlb_flush_mmu(m, p, t, ST_V_TABLES)
            return
    t.v_last = 1
    free_gathered(m, t)
    tlb_flush_mmu(m, p, t, ST_V_FREE)

cdef inline bint holds_zapped(machine *m, const task_t *t, int32_t region) noexcept nogil:
    cdef int32_t vp
    for vp in range(zap_from(m, t, region), zap_to(m, t, region)):
        if pte_kind_of(m.pte[vp]) == PTE_ZAPPED:
            return True
    return False

cdef inline void step_V_FREE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """tlb_batch_pages_flush, a page-table page's worth at a time"""
    cdef int32_t end = zap_end_region(m, t)
    while t.v_at < end and not holds_zapped(m, t, t.v_at):
        t.v_at += 1
    if t.v_at < end:
        if lock_lru(m):
            free_zapped(m, t, t.v_at)
            t.step = ST_V_FREED
    elif t.v_last:
        t.step = ST_V_UNMAPPED
    else:
        t.step = ST_E_ZAP

cdef inline void step_V_FREED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    unlock(m, &m.cg.lru_lock)
    t.v_at += 1
    more(t, ST_V_FREE)

cdef inline void step_V_UNMAPPED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t base = m.mm[t.mm].base, vp
    for vp in range(base + call_first(m, t), base + call_end(m, t)):
        m.pte[vp] = 0
    if t.call == PASS_MREMAP and t.phase == 0:
        t.phase = 1
        t.v_at = 0
        t.step = ST_V_MOVE
    else:
        t.step = ST_V_END

cdef inline void step_V_END(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """The lock goes; after munmap and mremap once what was unmapped is mapped again."""
    if t.call != PASS_MPROTECT:
        spend(m, TM_fault, m.w.cost[CO_fault_entry])
    call_done(m, t)


# --- mprotect

cdef inline bint protection_differs(machine *m, const task_t *t) noexcept nogil:
    cdef int32_t vp
    cdef uint64_t want = 0 if task_pass(m, t).write else PTE_RO
    for vp in range(zap_from(m, t, t.zap), zap_to(m, t, t.zap)):
        if m.pte[vp] & PTE_RO != want:
            return True
    return False

cdef inline void protect_none(machine *m, const task_t *t) noexcept nogil:
    """Pages without a page-table page: the VMA's flags only."""
    cdef int32_t vp
    for vp in range(zap_from(m, t, t.zap), zap_to(m, t, t.zap)):
        m.pte[vp] = (m.pte[vp] & ~PTE_RO) | (0 if task_pass(m, t).write else PTE_RO)

cdef inline void step_V_PROT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """change_pte_range"""
    cdef int32_t end = zap_end_region(m, t)
    while t.zap < end and not (zap_region(m, t).present and protection_differs(m, t)):
        protect_none(m, t)
        t.zap += 1
    if t.zap >= end:
        tlb_flush_mmu(m, p, t, ST_V_END)
    elif lock(m, &zap_region(m, t).ptl) and not flush_tlb_batched_pending(m, p, t, ST_V_PTES):
        step_V_PTES(m, p, t)

cdef inline void step_V_PTES(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t vp
    cdef uint64_t pte, new, want = 0 if task_pass(m, t).write else PTE_RO
    cdef int64_t n = 0
    for vp in range(zap_from(m, t, t.zap), zap_to(m, t, t.zap)):
        pte = m.pte[vp]
        if pte & PTE_RO == want:          # of another VMA, which is as it should be
            continue
        n += 1
        new = (pte & ~PTE_RO) | want
        if pte_present(pte):
            if want:
                new &= ~<uint64_t>PTE_WRITE
            elif pte & PTE_EXCL:          # can_change_pte_writable
                new |= PTE_WRITE
            if (new ^ pte) & PTE_WRITE:
                gather_page(m, t, vp)
        m.pte[vp] = new
    spend(m, TM_fault, m.w.cost[CO_walk_pte] * n)
    unlock(m, &zap_region(m, t).ptl)
    t.zap += 1
    more(t, ST_V_PROT)


# --- mremap: move_page_tables

cdef inline int32_t move_from(const machine *m, const task_t *t) noexcept nogil:
    """The next page to be moved, in pages of the mm, ..."""
    return <int32_t>task_pass(m, t).first + t.v_at

cdef inline int32_t move_to(const machine *m, const task_t *t) noexcept nogil:
    """... where it goes, ..."""
    return move_from(m, t) + task_pass(m, t).stride

cdef inline int32_t to_boundary(int32_t page) noexcept nogil:
    return PTRS_PER_PTE - page % PTRS_PER_PTE

cdef inline int32_t extent(const machine *m, const task_t *t) noexcept nogil:
    """... and how many go at once."""
    return min(<int32_t>task_pass(m, t).nr - t.v_at,
               min(to_boundary(move_from(m, t)), to_boundary(move_to(m, t))))

cdef inline region_t *old_table(machine *m, const task_t *t) noexcept nogil:
    return region_of(m, t, move_from(m, t) // PTRS_PER_PTE)

cdef inline region_t *new_table(machine *m, const task_t *t) noexcept nogil:
    return region_of(m, t, move_to(m, t) // PTRS_PER_PTE)

cdef inline bint moves_table(machine *m, const task_t *t) noexcept nogil:
    """move_normal_pmd: the page-table page itself goes to its new place."""
    return extent(m, t) == PTRS_PER_PTE and not new_table(m, t).present

cdef inline void move_word(machine *m, int32_t old, int32_t new) noexcept nogil:
    """The entry and what belongs to its page; Z stays behind too, until the flush."""
    cdef uint64_t pte = m.pte[old]
    cdef int32_t f = -1
    m.pte[new] = pte
    m.pte[old] = pte & PTE_Z
    if pte_present(pte):
        f = pte_index(pte)
    elif pte_kind_of(pte) == PTE_SWAP:
        f = swap_cache_folio(m, pte_index(pte))
    if f >= 0 and m.folio[f].vp == old:
        m.folio[f].vp = new

cdef inline void step_V_MOVE(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """move_page_tables"""
    cdef int32_t i, base = m.mm[t.mm].base
    while t.v_at < <int32_t>task_pass(m, t).nr and not old_table(m, t).present:
        for i in range(extent(m, t)):
            move_word(m, base + move_from(m, t) + i, base + move_to(m, t) + i)
        t.v_at += extent(m, t)
    if t.v_at == <int32_t>task_pass(m, t).nr:
        t.phase = 2
        t.step = ST_V_UNMAP
    elif not new_table(m, t).present and not moves_table(m, t):
        charge_start(t, 1, ST_V_PT)
    elif lock(m, &old_table(m, t).ptl):
        t.step = ST_V_MOVE_NEW

cdef inline void step_V_PT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """__pte_alloc; a task that was killed meanwhile moves no more."""
    if t.c_failed:
        t.step = ST_V_END
        return
    new_table(m, t).present = 1
    m.cg.kernel += 1
    t.step = ST_V_MOVE

cdef inline void step_V_MOVE_NEW(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """move_ptes: the other lock, if it is another; move_normal_pmd"""
    if not lock(m, &new_table(m, t).ptl):
        return
    if moves_table(m, t) or not flush_tlb_batched_pending(m, p, t, ST_V_MOVE_PTES):
        step_V_MOVE_PTES(m, p, t)

cdef inline void step_V_MOVE_PTES(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    cdef int32_t i, from_ = move_from(m, t), to = move_to(m, t), base = m.mm[t.mm].base
    cdef int64_t n = 0
    cdef bint need_flush = False
    if moves_table(m, t):
        need_flush = True
        n = 1
        old_table(m, t).present = 0
        old_table(m, t).young = 0
        old_table(m, t).filter = 0
        new_table(m, t).present = 1
        new_table(m, t).young = m.w.lru != 0      # a new PMD entry has its accessed bit
        for i in range(PTRS_PER_PTE):
            move_word(m, base + from_ + i, base + to + i)
    else:
        for i in range(extent(m, t)):
            if pte_kind_of(m.pte[base + from_ + i]) != PTE_NONE:
                n += 1
                need_flush |= pte_kind_of(m.pte[base + from_ + i]) != PTE_SWAP
            move_word(m, base + from_ + i, base + to + i)
    spend(m, TM_fault, m.w.cost[CO_walk_pte] * n)
    t.step = ST_V_MOVED
    if need_flush:
        flush_range(m, p, t, from_, from_ + extent(m, t), False, ST_V_MOVED)

cdef inline void step_V_MOVED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """What was written through TLBs until now belongs to the page where it is."""
    cdef int32_t i, base = m.mm[t.mm].base
    cdef int32_t from_ = base + move_from(m, t), to = base + move_to(m, t)
    for i in range(extent(m, t)):
        m.pte[to + i] = (m.pte[to + i] & ~<uint64_t>PTE_Z) | (m.pte[from_ + i] & PTE_Z)
        m.pte[from_ + i] = 0
    if new_table(m, t) != old_table(m, t):
        unlock(m, &new_table(m, t).ptl)
    unlock(m, &old_table(m, t).ptl)
    t.v_at += extent(m, t)
    more(t, ST_V_MOVE)


# --- fork: dup_mmap

cdef inline region_t *child_table(machine *m, const task_t *t) noexcept nogil:
    return &m.region[m.mm[m.mm[t.mm].peer].first_region + t.zap]

cdef inline void step_V_FORK(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """copy_page_range; after it flush_tlb_mm of the parent, whatever was copied"""
    cdef int32_t end = zap_end_region(m, t)
    while t.zap < end and not zap_region(m, t).present:
        t.zap += 1
    if t.zap >= end:
        flush(m, p, t, t.mm, -1, ST_V_FORKED)
    elif not child_table(m, t).present:
        charge_start(t, 1, ST_V_FORK_PT)
    elif lock(m, &child_table(m, t).ptl):
        t.step = ST_V_FORK_PTES

cdef inline void step_V_FORK_PT(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """__pte_alloc in the child; a parent that was killed meanwhile copies no more."""
    t.step = ST_V_FORK
    if t.c_failed:
        t.zap = zap_end_region(m, t)
        return
    child_table(m, t).present = 1
    m.cg.kernel += 1

cdef inline void copy_present_pte(machine *m, task_t *t, int32_t vp, int32_t to) noexcept nogil:
    """Neither may write to the folio from here on; the child's entry is old."""
    cdef uint64_t pte = m.pte[vp] & ~<uint64_t>(PTE_WRITE | PTE_EXCL)
    cdef folio_t *q = &m.folio[pte_index(pte)]
    q.mapcount += 1
    q.refcount += 1
    m.mm[m.mm[t.mm].peer].rss += 1
    m.pte[vp] = pte
    m.pte[to] = pte & ~<uint64_t>PTE_YOUNG

cdef inline void copy_nonpresent_pte(machine *m, task_t *t, int32_t vp, int32_t to) noexcept nogil:
    """swap_duplicate"""
    cdef uint64_t pte = m.pte[vp] & ~<uint64_t>PTE_EXCL
    m.slot_count[pte_index(pte)] += 1
    m.mm[m.mm[t.mm].peer].swapents += 1
    m.pte[vp] = m.pte[to] = pte

cdef inline void step_V_FORK_PTES(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """copy_pte_range (the child's page-table lock held)"""
    cdef int32_t vp, to
    cdef int kind
    cdef int64_t n = 0
    if not lock(m, &zap_region(m, t).ptl):
        return
    for vp in range(zap_from(m, t, t.zap), zap_to(m, t, t.zap)):
        to = peer_page(m, t.mm, vp)
        kind = pte_kind_of(m.pte[vp])
        n += kind != PTE_NONE
        if kind == PTE_PRESENT:
            copy_present_pte(m, t, vp, to)
        elif kind == PTE_SWAP:
            copy_nonpresent_pte(m, t, vp, to)
        else:
            m.pte[to] = m.pte[vp] & ~<uint64_t>PTE_YOUNG
    spend(m, TM_fault, m.w.cost[CO_walk_pte] * n)
    unlock(m, &zap_region(m, t).ptl)
    unlock(m, &child_table(m, t).ptl)
    t.zap += 1
    more(t, ST_V_FORK)

cdef inline void step_V_FORKED(machine *m, cpu_t *p, task_t *t) noexcept nogil:
    """The parent's TLBs are flushed: what it wrote until now the child has too.  wake_up_new_task"""
    cdef int32_t vp, to, u = child_of(m, t)
    for vp in range(m.mm[t.mm].base + call_first(m, t), m.mm[t.mm].base + call_end(m, t)):
        to = peer_page(m, t.mm, vp)
        m.pte[to] = (m.pte[to] & ~<uint64_t>PTE_Z) | (m.pte[vp] & PTE_Z)
    m.task[u].step = ST_TOUCH
    m.task[u].cpu = m.c
    wake_task(m, u)
    t.step = ST_V_END


cdef inline void step_V(machine *m, cpu_t *p, task_t *t, int step) noexcept nogil:
    if step == ST_V_CALL:
        step_V_CALL(m, p, t)
    elif step == ST_V_LOCK:
        step_V_LOCK(m, p, t)
    elif step == ST_V_UNMAP:
        step_V_UNMAP(m, p, t)
    elif step == ST_V_MORE:
        step_V_MORE(m, p, t)
    elif step == ST_V_FULL:
        step_V_FULL(m, p, t)
    elif step == ST_V_TABLES:
        step_V_TABLES(m, p, t)
    elif step == ST_V_FREE:
        step_V_FREE(m, p, t)
    elif step == ST_V_FREED:
        step_V_FREED(m, p, t)
    elif step == ST_V_UNMAPPED:
        step_V_UNMAPPED(m, p, t)
    elif step == ST_V_PROT:
        step_V_PROT(m, p, t)
    elif step == ST_V_PTES:
        step_V_PTES(m, p, t)
    elif step == ST_V_MOVE:
        step_V_MOVE(m, p, t)
    elif step == ST_V_PT:
        step_V_PT(m, p, t)
    elif step == ST_V_MOVE_NEW:
        step_V_MOVE_NEW(m, p, t)
    elif step == ST_V_MOVE_PTES:
        step_V_MOVE_PTES(m, p, t)
    elif step == ST_V_MOVED:
        step_V_MOVED(m, p, t)
    elif step == ST_V_END:
        step_V_END(m, p, t)
    elif step == ST_V_FORK:
        step_V_FORK(m, p, t)
    elif step == ST_V_FORK_PT:
        step_V_FORK_PT(m, p, t)
    elif step == ST_V_FORK_PTES:
        step_V_FORK_PTES(m, p, t)
    elif step == ST_V_FORKED:
        step_V_FORKED(m, p, t)
