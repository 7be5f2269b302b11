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
#   (C) Up to four blocks go through the rounds in step: a round depends on the one before, so one block alone leaves
#       the processor's units idle for much of the time. Drawing and dropping took 14.3, 11.5 and 8.6 ns a chunk with
#       one, two and four (AVX-512), 37, 30 and 25 ns with AVX2, though its sixteen registers do not hold four.
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
    MOST_CHUNKS = 4  # made in step

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


# One round of `blocks` blocks that follow each other in x.
cdef inline inlined mix(uint32_t* x, int a, int b, int c, int d, int r, int s, int blocks) noexcept nogil:
    cdef int k
    for k in range(0, 4 * blocks, 4):
        x[k + a] += x[k + b]
        x[k + c] += x[k + d]
        x[k + b] = rotate(x[k + b], r) ^ x[k + a]
        x[k + d] = rotate(x[k + d], s) ^ x[k + c]


cdef inline inlined inject(
    uint32_t* x, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t step, int blocks
) noexcept nogil:
    cdef int k
    d += step
    for k in range(0, 4 * blocks, 4):
        x[k] += a
        x[k + 1] += b
        x[k + 2] += c
        x[k + 3] += d


# x: the counters on entry, the random words on return, (4·blocks,). With constants the tests and loops vanish.
cdef inline inlined threefry4x32(uint32_t* x, const Key* key, int rounds, int blocks) noexcept nogil:
    cdef uint32_t a = key.word[0], b = key.word[1], c = key.word[2], d = key.word[3]
    cdef uint32_t e = 0x1BD11BDA ^ a ^ b ^ c ^ d
    inject(x, a, b, c, d, 0, blocks)
    if rounds > 0:
        mix(x, 0, 1, 2, 3, 10, 26, blocks)
    if rounds > 1:
        mix(x, 0, 3, 2, 1, 11, 21, blocks)
    if rounds > 2:
        mix(x, 0, 1, 2, 3, 13, 27, blocks)
    if rounds > 3:
        mix(x, 0, 3, 2, 1, 23, 5, blocks)
        inject(x, b, c, d, e, 1, blocks)
    if rounds > 4:
        mix(x, 0, 1, 2, 3, 6, 20, blocks)
    if rounds > 5:
        mix(x, 0, 3, 2, 1, 17, 11, blocks)
    if rounds > 6:
        mix(x, 0, 1, 2, 3, 25, 10, blocks)
    if rounds > 7:
        mix(x, 0, 3, 2, 1, 18, 20, blocks)
        inject(x, c, d, e, a, 2, blocks)
    if rounds > 8:
        mix(x, 0, 1, 2, 3, 10, 26, blocks)
    if rounds > 9:
        mix(x, 0, 3, 2, 1, 11, 21, blocks)
    if rounds > 10:
        mix(x, 0, 1, 2, 3, 13, 27, blocks)
    if rounds > 11:
        mix(x, 0, 3, 2, 1, 23, 5, blocks)
        inject(x, d, e, a, b, 3, blocks)
    if rounds > 12:
        mix(x, 0, 1, 2, 3, 6, 20, blocks)
    if rounds > 13:
        mix(x, 0, 3, 2, 1, 17, 11, blocks)
    if rounds > 14:
        mix(x, 0, 1, 2, 3, 25, 10, blocks)
    if rounds > 15:
        mix(x, 0, 3, 2, 1, 18, 20, blocks)
        inject(x, e, a, b, c, 4, blocks)
    if rounds > 16:
        mix(x, 0, 1, 2, 3, 10, 26, blocks)
    if rounds > 17:
        mix(x, 0, 3, 2, 1, 11, 21, blocks)
    if rounds > 18:
        mix(x, 0, 1, 2, 3, 13, 27, blocks)
    if rounds > 19:
        mix(x, 0, 3, 2, 1, 23, 5, blocks)
        inject(x, a, b, c, d, 5, blocks)


# The words of `chunks` chunks of a plane from `index` on; chunk i holds the blocks i·LANES … i·LANES + LANES − 1.
cdef inline inlined draw_chunks(
    uint32_t* words,  # OUT  (chunks·CHUNK,)
    const Key* key,
    uint32_t plane,
    uint64_t index,
    int chunks,  # at most MOST_CHUNKS
) noexcept nogil:
    cdef uint32_t x[4 * MOST_CHUNKS]
    cdef uint64_t first
    cdef uint32_t lane  # unsigned, as wide as the counter: one vector of consecutive numbers
    cdef int k, i
    for lane in range(<uint32_t>LANES):
        for k in range(chunks):
            first = (index + k) * LANES
            x[4 * k] = <uint32_t>first + lane
            x[4 * k + 1] = <uint32_t>(first >> 32)
            x[4 * k + 2] = plane
            x[4 * k + 3] = 0
        threefry4x32(x, key, ROUNDS, chunks)
        for k in range(chunks):
            for i in range(4):
                words[k * CHUNK + i * LANES + lane] = x[4 * k + i]
