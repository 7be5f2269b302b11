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
#   (C) The block function is inlined by force (its return type carries the attribute): left to itself GCC finds it too
#       large in some callers, and a call in the loop over lanes costs a factor of twenty.
#   (D) Only +, ^ and rotations of 32-bit words: no dependence on the order of bytes.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
      #define FASTNN_INLINED __attribute__((always_inline)) void
    #else
      #define FASTNN_INLINED void
    #endif
    """
    ctypedef void inlined "FASTNN_INLINED"

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


cdef inline inlined mix(uint32_t* a, uint32_t* b, uint32_t* c, uint32_t* d, int r, int s) noexcept nogil:
    a[0] += b[0]
    b[0] = rotate(b[0], r) ^ a[0]
    c[0] += d[0]
    d[0] = rotate(d[0], s) ^ c[0]


cdef inline inlined inject(
    uint32_t* x, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t step
) noexcept nogil:
    x[0] += a
    x[1] += b
    x[2] += c
    x[3] += d + step


# x: the counter on entry, the random words on return. With a constant number of rounds the tests vanish.
cdef inline inlined threefry4x32(uint32_t* x, const Key* key, int rounds) noexcept nogil:
    cdef uint32_t a = key.word[0], b = key.word[1], c = key.word[2], d = key.word[3]
    cdef uint32_t e = 0x1BD11BDA ^ a ^ b ^ c ^ d
    inject(x, a, b, c, d, 0)
    if rounds > 0:
        mix(x, x + 1, x + 2, x + 3, 10, 26)
    if rounds > 1:
        mix(x, x + 3, x + 2, x + 1, 11, 21)
    if rounds > 2:
        mix(x, x + 1, x + 2, x + 3, 13, 27)
    if rounds > 3:
        mix(x, x + 3, x + 2, x + 1, 23, 5)
        inject(x, b, c, d, e, 1)
    if rounds > 4:
        mix(x, x + 1, x + 2, x + 3, 6, 20)
    if rounds > 5:
        mix(x, x + 3, x + 2, x + 1, 17, 11)
    if rounds > 6:
        mix(x, x + 1, x + 2, x + 3, 25, 10)
    if rounds > 7:
        mix(x, x + 3, x + 2, x + 1, 18, 20)
        inject(x, c, d, e, a, 2)
    if rounds > 8:
        mix(x, x + 1, x + 2, x + 3, 10, 26)
    if rounds > 9:
        mix(x, x + 3, x + 2, x + 1, 11, 21)
    if rounds > 10:
        mix(x, x + 1, x + 2, x + 3, 13, 27)
    if rounds > 11:
        mix(x, x + 3, x + 2, x + 1, 23, 5)
        inject(x, d, e, a, b, 3)
    if rounds > 12:
        mix(x, x + 1, x + 2, x + 3, 6, 20)
    if rounds > 13:
        mix(x, x + 3, x + 2, x + 1, 17, 11)
    if rounds > 14:
        mix(x, x + 1, x + 2, x + 3, 25, 10)
    if rounds > 15:
        mix(x, x + 3, x + 2, x + 1, 18, 20)
        inject(x, e, a, b, c, 4)
    if rounds > 16:
        mix(x, x + 1, x + 2, x + 3, 10, 26)
    if rounds > 17:
        mix(x, x + 3, x + 2, x + 1, 11, 21)
    if rounds > 18:
        mix(x, x + 1, x + 2, x + 3, 13, 27)
    if rounds > 19:
        mix(x, x + 3, x + 2, x + 1, 23, 5)
        inject(x, a, b, c, d, 5)


# The words of chunk `index` of a plane: blocks index·LANES … index·LANES + LANES − 1.
cdef inline void draw_chunk(
    uint32_t* words,  # OUT  (CHUNK,)
    const Key* key,
    uint32_t plane,
    uint64_t index,
) noexcept nogil:
    cdef uint64_t first = index * LANES
    cdef uint32_t low = <uint32_t>first
    cdef uint32_t high = <uint32_t>(first >> 32)
    cdef uint32_t x[4]
    cdef uint32_t lane  # unsigned, as wide as the counter: one vector of consecutive numbers
    for lane in range(<uint32_t>LANES):
        x[0] = low + lane
        x[1] = high
        x[2] = plane
        x[3] = 0
        threefry4x32(x, key, ROUNDS)
        words[lane] = x[0]
        words[LANES + lane] = x[1]
        words[2 * LANES + lane] = x[2]
        words[3 * LANES + lane] = x[3]
