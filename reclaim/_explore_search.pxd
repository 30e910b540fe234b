# The search, breadth first: the states that are known, those that wait, and what is wrong at the end.

from libc.stdint cimport int16_t, int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from reclaim._explore_form cimport fingerprint
from reclaim._explore_step cimport find_moves, make_move
from reclaim._explore_world cimport *
from reclaim._policy cimport Policies
from reclaim._mm.names cimport *
from reclaim._mm.types cimport *
from reclaim._mm.pte cimport *
from reclaim._mm.folio cimport *
from reclaim._mm.ghost cimport *

# --- the visited set: open addressing, 16 bytes a state
cdef inline int visited_grow(visited_t *v) except -1 nogil:
    cdef uint64_t size = 2 * (v.mask + 1) if v.entry != NULL else 1 << 16
    cdef uint64_t *old = v.entry
    cdef uint64_t i, h, n = v.mask + 1 if old != NULL else 0
    cdef uint64_t *entry = <uint64_t *>calloc(size, 16)
    if entry == NULL:
        with gil:
            raise MemoryError
    for i in range(n):
        if old[2 * i] or old[2 * i + 1]:
            h = old[2 * i] & (size - 1)
            while entry[2 * h] or entry[2 * h + 1]:
                h = (h + 1) & (size - 1)
            entry[2 * h] = old[2 * i]
            entry[2 * h + 1] = old[2 * i + 1]
    free(old)
    v.entry = entry
    v.mask = size - 1
    return 0

cdef inline int visited_add(visited_t *v, uint64_t a, uint64_t b) except -1 nogil:
    """1 if the fingerprint was not there."""
    cdef uint64_t h
    if v.entry == NULL or <uint64_t>v.nr * 3 >= (v.mask + 1) * 2:
        visited_grow(v)
    if a == 0 and b == 0:
        a = 1
    h = a & v.mask
    while v.entry[2 * h] or v.entry[2 * h + 1]:
        if v.entry[2 * h] == a and v.entry[2 * h + 1] == b:
            return 0
        h = (h + 1) & v.mask
    v.entry[2 * h] = a
    v.entry[2 * h + 1] = b
    v.nr += 1
    return 1

# --- breadth first

cdef inline int pack_state(tiny_t *tiny, queue_t *q) except -1 nogil:
    """Append the state as its difference from the root."""
    cdef int n = tiny.nr_words, bits = (n + 63) // 64, i, j
    cdef const uint64_t *a = <const uint64_t *>tiny.state
    cdef const uint64_t *b = <const uint64_t *>tiny.root
    cdef uint64_t *to
    cdef uint64_t *map
    if q.nr + bits + n > q.room:
        q.room = max(2 * q.room, 1 << 16) + bits + n
        to = <uint64_t *>realloc(q.words, q.room * 8)
        if to == NULL:
            with gil:
                raise MemoryError
        q.words = to
    map = q.words + q.nr
    to = map + bits
    memset(map, 0, bits * 8)
    for j in range(0, n, 8):                # rows are padded to whole lines
        if ((a[j] ^ b[j]) | (a[j + 1] ^ b[j + 1]) | (a[j + 2] ^ b[j + 2]) | (a[j + 3] ^ b[j + 3])
                | (a[j + 4] ^ b[j + 4]) | (a[j + 5] ^ b[j + 5]) | (a[j + 6] ^ b[j + 6])
                | (a[j + 7] ^ b[j + 7])) == 0:
            continue
        for i in range(j, j + 8):
            if a[i] != b[i]:
                map[i >> 6] |= <uint64_t>1 << (i & 63)
                to[0] = a[i]
                to += 1
    q.nr = to - q.words
    q.states += 1
    return 0

cdef inline int64_t unpack_state(tiny_t *tiny, const queue_t *q, int64_t at) noexcept nogil:
    """The packed state at that word to `parent`; the word after it."""
    cdef int n = tiny.nr_words, bits = (n + 63) // 64, i
    cdef const uint64_t *map = q.words + at
    cdef const uint64_t *source = map + bits
    cdef uint64_t *to = <uint64_t *>tiny.parent
    cdef uint64_t word
    memcpy(tiny.parent, tiny.root, tiny.nbytes)
    for i in range(bits):
        word = map[i]
        while word:
            to[(i << 6) + ctz64(word)] = source[0]
            source += 1
            word &= word - 1
    return source - q.words

cdef inline int go_on(tiny_t *tiny, Policies policies, int64_t states, int64_t depth) except -1 nogil:
    cdef queue_t *now
    while states > 0 and not tiny.found:
        now = &tiny.queue[tiny.level & 1]
        if tiny.at == now.nr:
            now.nr = now.states = 0
            tiny.level = tiny.level + 1
            tiny.at = 0
            if tiny.queue[tiny.level & 1].nr == 0 or tiny.level >= depth:
                return 1
            continue
        tiny.at = unpack_state(tiny, now, tiny.at)
        expand_one(tiny, policies, &tiny.queue[(tiny.level + 1) & 1])
        states -= 1
    return tiny.found != 0

cdef inline int expand_one(tiny_t *tiny, Policies policies, queue_t *following) except -1 nogil:
    cdef int16_t moves[MAX_MOVES]
    cdef int n, i, bad
    cdef uint64_t h[2]
    memcpy(tiny.state, tiny.parent, tiny.nbytes)
    n = find_moves(tiny, moves)
    tiny.expanded = tiny.expanded + 1
    if n == 0:
        bad = end_check(tiny)
        if bad:
            report(tiny, bad, -1)
    for i in range(n):
        if i:
            memcpy(tiny.state, tiny.parent, tiny.nbytes)
        bad = make_move(tiny, policies, moves[i])
        tiny.transitions = tiny.transitions + 1
        if bad:
            report(tiny, bad, moves[i])
            if tiny.found:
                break
            continue
        fingerprint(tiny, h)
        if visited_add(&tiny.visited, h[0], h[1]):
            pack_state(tiny, following)
            if tiny.parents != NULL:
                remember(tiny, moves[i])
        elif n == 1 and loops(tiny, policies, h):
            report(tiny, BAD_NO_PROGRESS, moves[i])
            if tiny.found:
                break
    tiny.index = tiny.index + 1
    return 0

cdef inline bint loops(tiny_t *tiny, Policies policies, const uint64_t *h) except -1 nogil:
    """From a state with one move to one that is known: does the same actor come back to it,
    alone?  Then nobody will ever end that loop."""
    cdef int16_t moves[MAX_MOVES]
    cdef uint64_t now[2]
    cdef int i
    for i in range(MAX_LOOP):
        if find_moves(tiny, moves) != 1 or make_move(tiny, policies, moves[0]):
            return False
        fingerprint(tiny, now)
        if now[0] == h[0] and now[1] == h[1]:
            return True
    return False

cdef inline int remember(tiny_t *tiny, int mv) except -1 nogil:
    cdef int64_t *more
    if tiny.visited.nr > tiny.parents_room:
        tiny.parents_room = 2 * tiny.parents_room
        more = <int64_t *>realloc(tiny.parents, tiny.parents_room * 8)
        if more == NULL:
            with gil:
                raise MemoryError
        tiny.parents = more
    tiny.parents[tiny.visited.nr - 1] = tiny.index << 16 | mv
    return 0

cdef inline void report(tiny_t *tiny, int bad, int mv) noexcept nogil:
    tiny.broken |= <uint32_t>1 << bad
    if tiny.whole:
        return
    tiny.found = bad
    tiny.found_at = tiny.index
    tiny.found_move = mv
    tiny.found_folio = tiny.g.folio

cdef inline int end_check(tiny_t *tiny) noexcept nogil:
    """Nothing can happen any more: is everybody done, and everything where it belongs?"""
    cdef machine *m = &tiny.m
    cdef int32_t c, t, f, s, vp, n, i
    cdef folio_t *q
    cdef int32_t refs[MAX_FRAMES]
    cdef int32_t maps[MAX_FRAMES]
    cdef int32_t lists[MAX_FRAMES]
    cdef int32_t used[MAX_SLOTS]
    tiny.g.folio = -1
    for c in range(m.w.nr_cpus):
        if m.cpu[c].mode == CPU_SPIN_ACK or m.cpu[c].mode == CPU_SPIN_LOCK:
            return BAD_DEADLOCK
    for t in range(m.w.nr_tasks):
        if m.task[t].step == ST_V_CHILD or m.task[t].state == TASK_DEAD:
            continue
        if m.task[t].state == TASK_BLOCKED or not finished(tiny, &m.task[t]):
            return BAD_DEADLOCK
    memset(refs, 0, sizeof(refs))
    memset(maps, 0, sizeof(maps))
    memset(lists, 0, sizeof(lists))
    memset(used, 0, sizeof(used))
    for vp in range(m.w.nr_vps):
        if pte_present(m.pte[vp]):
            maps[pte_index(m.pte[vp])] += 1
        elif pte_kind_of(m.pte[vp]) == PTE_SWAP:
            used[pte_index(m.pte[vp])] += 1
    for i in range(2):
        f = m.cg.lru_head[i]
        n = 0
        while f >= 0 and n < 2 * MAX_FRAMES:
            if not m.folio[f].flags & PG_lru:
                tiny.g.folio = f
                return BAD_NOT_BACK
            lists[f] += 1
            n += 1
            f = m.folio[f].next
    for c in range(m.w.nr_cpus):
        for i in range(m.cpu[c].nr_lru_add):
            lists[m.cpu[c].lru_add[i]] += 1
            refs[m.cpu[c].lru_add[i]] += 1
        for i in range(m.cpu[c].nr_lru_move_tail):
            refs[m.cpu[c].lru_move_tail[i]] += 1
        for i in range(m.cpu[c].nr_lru_activate):
            refs[m.cpu[c].lru_activate[i]] += 1
    for f in range(m.w.nr_folios):
        q = &m.folio[f]
        if not tiny.g.frame[f].life & 1 or tiny.x.frame == f + 1:
            continue
        tiny.g.folio = f
        if tiny.x.pinned == f + 1:
            refs[f] += 1 if tiny.x.got else PIN_BIAS
        if q.flags & PG_locked:
            return BAD_LOCK_LEAKED
        if lists[f] != 1:
            return BAD_LISTS
        if q.mapcount != maps[f]:
            return BAD_MAPCOUNT
        if q.refcount != refs[f] + maps[f] + ((q.flags & PG_swapcache) != 0):
            return BAD_REFCOUNT
        if q.flags & PG_swapcache:
            if swap_cache_folio(m, q.slot) != f:
                return BAD_SLOT
    tiny.g.folio = -1
    for s in range(m.w.nr_slots):
        if slot_maps(m, s) != used[s] and tiny.x.slot != s + 1:
            return BAD_SLOT
    if m.cg.lru_lock.holder >= 0:
        return BAD_LOCK_LEAKED
    for i in range(m.w.nr_regions):
        if m.region[i].ptl.holder >= 0:
            return BAD_LOCK_LEAKED
    for i in range(m.w.nr_mms):
        if m.mm[i].writer >= 0 or m.mm[i].readers > 0:
            return BAD_LOCK_LEAKED
    # every page can still be read back
    for vp in range(m.w.nr_vps):
        if pte_present(m.pte[vp]):
            f = pte_index(m.pte[vp])
            if tiny.g.frame[f].content != tiny.g.latest[vp]:
                tiny.g.folio = f
                return BAD_LOST_WRITE
        elif pte_kind_of(m.pte[vp]) == PTE_SWAP:
            s = pte_index(m.pte[vp])
            f = swap_cache_folio(m, s)
            if (tiny.g.frame[f].content if f >= 0 else tiny.g.stored[s]) != tiny.g.latest[vp]:
                tiny.g.folio = f
                return BAD_LOST_WRITE
        elif tiny.g.latest[vp] != 0:
            return BAD_LOST_WRITE
    return BAD_NOTHING
