# Windows two columns wide and two apart, all inside the image, channels first: the usual pooling.
#
#   (a) A chunk is LANES results that are neighbours in memory, across the ends of lines and planes: vectors are full
#       however small the images are.
#   (b) The chunk's pieces of image rows are put side by side; even and odd numbers of that are the windows' elements.

from cython cimport floating
from libc.stdint cimport int32_t
from libc.string cimport memcpy, memset

from fastnn._kernels.runs cimport add_run, copy_run
from fastnn._kernels.window cimport Axis

cdef enum:
    LANES = 16


cdef struct Pieces:
    # of the chunk's lines: where each starts in the images and among the chunk's results, and the end
    Py_ssize_t count
    Py_ssize_t sources[LANES]
    Py_ssize_t starts[LANES + 1]
    int32_t places[LANES]       # of each result's window, in its plane


cdef struct Line:
    Py_ssize_t plane
    Py_ssize_t oh
    Py_ssize_t ow


cdef inline bint in_pairs(const Axis* h, const Axis* w, Py_ssize_t run) noexcept nogil:
    if run != 1 or w.kernel != 2 or w.stride != 2 or w.dilation != 1 or w.padding != 0 or 2 * w.out > w.size:
        return False
    return h.dilation == 1 and h.padding == 0 and (h.out - 1) * h.stride + h.kernel <= h.size


cdef inline void next_pieces(const Axis* h, const Axis* w, Line* line, Py_ssize_t n, Pieces* pieces) noexcept nogil:
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t m
    cdef int32_t place, j
    pieces.count = 0
    while at < n:
        m = min(n - at, w.out - line.ow)
        place = <int32_t>(line.oh * h.stride * w.size + 2 * line.ow)
        pieces.sources[pieces.count] = line.plane * h.size * w.size + place
        pieces.starts[pieces.count] = at
        for j in range(<int32_t>m):
            pieces.places[at + j] = place + 2 * j
        pieces.count += 1
        at += m
        line.ow += m
        if line.ow == w.out:
            line.ow = 0
            line.oh += 1
            if line.oh == h.out:
                line.oh = 0
                line.plane += 1
    pieces.starts[pieces.count] = n


cdef inline void elements(
    const floating* x, const Pieces* pieces, floating* left, floating* right,
) noexcept nogil:
    # of one row of all windows
    cdef floating row[2 * LANES]
    cdef Py_ssize_t i, j
    memset(row, 0, sizeof(row))
    for i in range(pieces.count):
        copy_run(
            x + pieces.sources[i], row + 2 * pieces.starts[i], 2 * (pieces.starts[i + 1] - pieces.starts[i]),
        )
    for j in range(LANES):
        left[j] = row[2 * j]
        right[j] = row[2 * j + 1]


cdef inline void raise_best(
    const floating* v, const int32_t* places, int32_t offset, floating* best, int32_t* where,
) noexcept nogil:
    # the first of equals stays, and NaN wins
    cdef Py_ssize_t j
    cdef bint take
    for j in range(LANES):
        take = (v[j] > best[j]) | (v[j] != v[j]) | (where[j] < 0)
        where[j] = places[j] + offset if take else where[j]
        best[j] = v[j] if take else best[j]


cdef inline void pool_pairs(
    const floating* x,          # IN   (planes, H, W)
    const Axis* h, const Axis* w, Py_ssize_t plane, Py_ssize_t end,     # planes [plane, end)
    bint maximum, Py_ssize_t divisor,   # 0: the number of elements
    floating* y,                # OUT  (planes, OH, OW)
    int32_t* winner,            # OUT  like y, or NULL
) noexcept nogil:
    cdef Py_ssize_t q = plane * h.out * w.out
    cdef Py_ssize_t total = end * h.out * w.out
    cdef double share = divisor if divisor else 2 * h.kernel
    cdef floating left[LANES]
    cdef floating right[LANES]
    cdef floating best[LANES]
    cdef double sums[LANES]
    cdef int32_t where[LANES]
    cdef Pieces pieces
    cdef Line line
    cdef Py_ssize_t kh, j, n
    line.plane, line.oh, line.ow = plane, 0, 0
    memset(pieces.places, 0, sizeof(pieces.places))
    while q < total:
        n = min(<Py_ssize_t>LANES, total - q)
        next_pieces(h, w, &line, n, &pieces)
        for j in range(LANES):
            where[j] = -1
            best[j] = 0
            sums[j] = 0
        for kh in range(h.kernel):
            elements(x + kh * w.size, &pieces, left, right)
            if maximum:
                raise_best(left, pieces.places, <int32_t>(kh * w.size), best, where)
                raise_best(right, pieces.places, <int32_t>(kh * w.size) + 1, best, where)
            else:
                for j in range(LANES):
                    sums[j] += left[j]
                    sums[j] += right[j]
        if not maximum:
            for j in range(LANES):
                best[j] = <floating>(sums[j] / share)
        copy_run(best, y + q, n)
        if winner != NULL:
            if n == LANES:
                memcpy(winner + q, where, LANES * sizeof(int32_t))
            else:
                for j in range(n):
                    winner[q + j] = where[j]
        q += LANES


cdef inline void spread_pairs(
    const floating* dy,         # IN   (OH, OW)
    const Axis* h, const Axis* w, floating share,
    floating* dx,               # IN   (H, W), OUT  with dy/share added to each element of its window
) noexcept nogil:
    cdef floating v[LANES]
    cdef floating both[2 * LANES]
    cdef floating* row
    cdef Py_ssize_t oh, at, kh, j, n
    memset(v, 0, sizeof(v))
    for oh in range(h.out):
        at = 0
        while at < w.out:
            n = min(<Py_ssize_t>LANES, w.out - at)
            copy_run(dy + at, v, n)
            for j in range(LANES):
                both[2 * j] = both[2 * j + 1] = v[j] / share
            for kh in range(h.kernel):
                row = dx + (oh * h.stride + kh) * w.size + 2 * at
                if n == LANES:
                    for j in range(2 * LANES):
                        row[j] += both[j]
                else:
                    add_run(both, row, 2 * n)
            at += n
        dy += w.out
