# Threefry4x32 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a block function
# of a 128-bit key and a 128-bit counter. Our key is (seed, stream), 64 bits each; the counter is a position in the
# stream and a plane, so every bit is a pure function of (seed, stream, plane, position).
#
# Design
#   (A) 13 rounds. The authors' tests found 12 rounds free of failures in TestU01's BigCrush; 13 is the least number
#       with a round to spare and with published known-answer vectors. 20 rounds cost half as much time again and
#       showed no difference in any of our statistics.
#   (B) LANES counters side by side, one loop over straight-line code: compilers turn that into vectors of any width,
#       and the order of the words (word k of lane j is word k·LANES + j of the chunk) is the same on every machine.
#   (C) Two blocks go through the rounds in step (`twice`): a round depends on the one before, so one block alone
#       leaves a third of the processor's units idle (8 against 12.6 ns a chunk).
#   (D) The functions are inlined by force: left to itself GCC finds them too large in some callers, and a call in the
#       loop over lanes costs a factor of twenty.
#   (E) Only +, ^ and rotations of 32-bit words: no dependence on the order of bytes.

from libc.stdint cimport uint32_t, uint64_t

from fastnn._kernels.inlining cimport inlined

cdef enum:
    LANES = 16
    CHUNK = 64  # 32-bit words in a chunk: LANES blocks of four
    ROUNDS = 13
    MAX_ROUNDS = 20

# Planes keep the counters of one stream's different uses apart.
cdef enum:
    PLANE_MAIN = 0
    PLANE_TIES = 1

ctypedef struct Key:
    uint32_t word[4]


cdef inline Key stream_key(uint64_t seed, uint64_t stream) noexcept nogil:
    cdef Key key
    key.word[0] = <uint32_t>seed
    key.word[1] = <uint32_t>(seed >> 32)
    key.word[2] = <uint32_t>stream
    key.word[3] = <uint32_t>(stream >> 32)
    return key


cdef inline uint32_t rotate(uint32_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (32 - bits))


# One round of one block, or of two that follow each other in x.
cdef inline inlined mix(uint32_t* x, int a, int b, int c, int d, int r, int s, bint twice) noexcept nogil:
    x[a] += x[b]
    if twice:
        x[4 + a] += x[4 + b]
    x[c] += x[d]
    if twice:
        x[4 + c] += x[4 + d]
    x[b] = rotate(x[b], r) ^ x[a]
    if twice:
        x[4 + b] = rotate(x[4 + b], r) ^ x[4 + a]
    x[d] = rotate(x[d], s) ^ x[c]
    if twice:
        x[4 + d] = rotate(x[4 + d], s) ^ x[4 + c]


cdef inline inlined inject(
    uint32_t* x, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t step, bint twice
) noexcept nogil:
    d += step
    x[0] += a
    x[1] += b
    x[2] += c
    x[3] += d
    if twice:
        x[4] += a
        x[5] += b
        x[6] += c
        x[7] += d


# x: the counter on entry, the random words on return, (4,), or (8,) if `twice`. With constants the tests vanish.
cdef inline inlined threefry4x32(uint32_t* x, const Key* key, int rounds, bint twice) noexcept nogil:
    cdef uint32_t a = key.word[0], b = key.word[1], c = key.word[2], d = key.word[3]
    cdef uint32_t e = 0x1BD11BDA ^ a ^ b ^ c ^ d
    inject(x, a, b, c, d, 0, twice)
    if rounds > 0:
        mix(x, 0, 1, 2, 3, 10, 26, twice)
    if rounds > 1:
        mix(x, 0, 3, 2, 1, 11, 21, twice)
    if rounds > 2:
        mix(x, 0, 1, 2, 3, 13, 27, twice)
    if rounds > 3:
        mix(x, 0, 3, 2, 1, 23, 5, twice)
        inject(x, b, c, d, e, 1, twice)
    if rounds > 4:
        mix(x, 0, 1, 2, 3, 6, 20, twice)
    if rounds > 5:
        mix(x, 0, 3, 2, 1, 17, 11, twice)
    if rounds > 6:
        mix(x, 0, 1, 2, 3, 25, 10, twice)
    if rounds > 7:
        mix(x, 0, 3, 2, 1, 18, 20, twice)
        inject(x, c, d, e, a, 2, twice)
    if rounds > 8:
        mix(x, 0, 1, 2, 3, 10, 26, twice)
    if rounds > 9:
        mix(x, 0, 3, 2, 1, 11, 21, twice)
    if rounds > 10:
        mix(x, 0, 1, 2, 3, 13, 27, twice)
    if rounds > 11:
        mix(x, 0, 3, 2, 1, 23, 5, twice)
        inject(x, d, e, a, b, 3, twice)
    if rounds > 12:
        mix(x, 0, 1, 2, 3, 6, 20, twice)
    if rounds > 13:
        mix(x, 0, 3, 2, 1, 17, 11, twice)
    if rounds > 14:
        mix(x, 0, 1, 2, 3, 25, 10, twice)
    if rounds > 15:
        mix(x, 0, 3, 2, 1, 18, 20, twice)
        inject(x, e, a, b, c, 4, twice)
    if rounds > 16:
        mix(x, 0, 1, 2, 3, 10, 26, twice)
    if rounds > 17:
        mix(x, 0, 3, 2, 1, 11, 21, twice)
    if rounds > 18:
        mix(x, 0, 1, 2, 3, 13, 27, twice)
    if rounds > 19:
        mix(x, 0, 3, 2, 1, 23, 5, twice)
        inject(x, a, b, c, d, 5, twice)


# The words of chunk `index` of a plane, blocks index·LANES … index·LANES + LANES − 1, and, if `twice`, of the next.
cdef inline inlined draw_chunks(
    uint32_t* words,  # OUT  (CHUNK,) or (2·CHUNK,)
    const Key* key,
    uint32_t plane,
    uint64_t index,
    bint twice,
) noexcept nogil:
    cdef uint64_t first = index * LANES, second = first + LANES
    cdef uint32_t low = <uint32_t>first, high = <uint32_t>(first >> 32)
    cdef uint32_t next_low = <uint32_t>second, next_high = <uint32_t>(second >> 32)
    cdef uint32_t x[8]
    cdef uint32_t lane  # unsigned, as wide as the counter: one vector of consecutive numbers
    for lane in range(<uint32_t>LANES):
        x[0] = low + lane
        x[1] = high
        x[2] = plane
        x[3] = 0
        if twice:
            x[4] = next_low + lane
            x[5] = next_high
            x[6] = plane
            x[7] = 0
        threefry4x32(x, key, ROUNDS, twice)
        words[lane] = x[0]
        words[LANES + lane] = x[1]
        words[2 * LANES + lane] = x[2]
        words[3 * LANES + lane] = x[3]
        if twice:
            words[CHUNK + lane] = x[4]
            words[CHUNK + LANES + lane] = x[5]
            words[CHUNK + 2 * LANES + lane] = x[6]
            words[CHUNK + 3 * LANES + lane] = x[7]
