# SplitMix64 (Steele, Lea, Flood 2014): one 64-bit state per stream, raw draws only.

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #define RECLAIM_RNG_STEP UINT64_C(0x9E3779B97F4A7C15)
    """
    uint64_t RNG_STEP "RECLAIM_RNG_STEP"       # what one draw adds to the state

cdef inline uint64_t rng_draw(uint64_t *x) noexcept nogil:
    cdef uint64_t z
    x[0] += RNG_STEP
    z = x[0]
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)

cdef inline uint64_t rng_below(uint64_t *x, uint64_t n) noexcept nogil:
    return ((rng_draw(x) >> 32) * n) >> 32

cdef inline uint64_t rng_mix(uint64_t seed, uint64_t purpose, uint64_t index) noexcept nogil:
    """The start of a stream.  The seed is mixed before the index comes in: else seeds share streams."""
    cdef uint64_t x = seed
    x = rng_draw(&x) ^ ((purpose << 32) + index)
    return rng_draw(&x)
