# Random priority schedules (PCT).

from libc.stdint cimport int16_t, int64_t, uint64_t
from libc.string cimport memcpy

from reclaim._explore_search cimport end_check, report
from reclaim._explore_step cimport find_moves, make_move
from reclaim._explore_world cimport *
from reclaim._policy cimport Policies
from reclaim._mm.rng cimport rng_below, rng_draw, rng_mix

cdef inline int actor_of(int mv) noexcept nogil:
    cdef int kind = mv >> 8, a = mv >> 4 & 15
    if kind == MV_STEP or kind == MV_READ or kind == MV_WRITE or kind == MV_ZAP or kind >= MV_TICK and kind != MV_START:
        return a
    if kind == MV_IPI or kind == MV_IO or kind == MV_TIMER:
        return MAX_CPUS + a
    return 2 * MAX_CPUS + kind % MAX_CPUS

cdef inline int one_schedule(tiny_t *tiny, Policies policies, uint64_t seed, int changes, int length) except -1 nogil:
    cdef int16_t moves[MAX_MOVES]
    cdef int64_t priority[3 * MAX_CPUS]
    cdef int change[16]
    cdef uint64_t rng = rng_mix(seed, 3, 0)
    cdef int i, n, a, best, same, pick, bad
    memcpy(tiny.state, tiny.root, tiny.nbytes)
    for i in range(3 * MAX_CPUS):
        priority[i] = <int64_t>(rng_draw(&rng) >> 2)
    for i in range(changes):
        change[i] = <int>rng_below(&rng, <uint64_t>length)
    tiny.nr_taken = 0
    while tiny.nr_taken < MAX_TAKEN:
        n = find_moves(tiny, moves)
        if n == 0:
            bad = end_check(tiny)
            if bad:
                report(tiny, bad, -1)
            return 0
        best = -1
        same = 0
        pick = 0
        for i in range(n):
            a = actor_of(moves[i])
            if best < 0 or priority[a] > priority[best]:
                best = a
                same = 1
                pick = i
            elif a == best:               # the same actor's other choice
                same += 1
                if rng_below(&rng, <uint64_t>same) == 0:
                    pick = i
        for i in range(changes):
            if change[i] == tiny.nr_taken:
                priority[best] = -i - 1
        tiny.taken_moves[tiny.nr_taken] = moves[pick]
        tiny.nr_taken = tiny.nr_taken + 1
        tiny.transitions = tiny.transitions + 1
        bad = make_move(tiny, policies, moves[pick])
        if bad:
            report(tiny, bad, -1)
            return 0
    return 0
