/* The floor under the norms: what rows of floats cost with nothing but their arithmetic. Compiled by floor.py.

   A row's two sums, then its results, in vectors of the compiler's; no odd lengths, no checks, and of the closing of a
   group only a root and a quotient. Weights only in `own`, layer norm's backward, whose sums down the columns run along:
   there the sums of each row are float's, and those of BATCH rows come before the gradients of the same. `fused` takes
   the sums of the next BATCH rows along with the results of the present ones, so that one computes while the other waits
   for memory. */
#include "team.h"
#include "vectors.h"
#include <math.h>

enum { BATCH = 4, BLOCK = 16384 };

struct norm {
    const float *x, *dy; /* dy: backward, else NULL */
    float *y;
    ptrdiff_t rows, n, block; /* rows a multiple of BATCH, n of 32, in `own` of 64; rows of a task */
    int wide, fused;          /* sums in double, not in float */
    const float *weight;      /* `own`, else NULL */
    double *columns;          /* and its sums, 2 n for each task */
};

struct sums {
    d8 first[4], second[4];
    f16 first16[2], second16[2];
};

struct row {
    float shift, factor, c1, c2;
};

#define AT(p, i) ((p) ? (p) + (i) : 0)

/* A multiply-add by one leaves the adders to the conversion and the sums. */
INLINE void add(struct sums *s, const float *x, const float *dy, double shift, double one, int wide)
{
    if (wide)
        for (int k = 0; k < 4; k++) {
            const d8 d = widen(x + 8 * k) * one - shift;
            const d8 g = dy ? widen(dy + 8 * k) : d;
            s->first[k] += g;
            s->second[k] += g * d;
        }
    else
        for (int k = 0; k < 2; k++) {
            const f16 d = *(const f16 *)(x + 16 * k) - (float)shift;
            const f16 g = dy ? *(const f16 *)(dy + 16 * k) : d;
            s->first16[k] += g;
            s->second16[k] += g * d;
        }
}

INLINE void put(float *y, const float *x, const float *dy, struct row row)
{
    for (int k = 0; k < 2; k++) {
        f16 result = (*(const f16 *)(x + 16 * k) - row.shift) * row.c2 + row.c1;
        if (dy) result += *(const f16 *)(dy + 16 * k) * row.factor;
        *(f16 *)(y + 16 * k) = result;
    }
}

/* of the lanes of a, which is lost */
INLINE double total(d8 a)
{
    a += __builtin_shufflevector(a, a, 4, 5, 6, 7, 0, 1, 2, 3);
    a += __builtin_shufflevector(a, a, 2, 3, 0, 1, 6, 7, 4, 5);
    return a[0] + a[1];
}

INLINE double total16(f16 a)
{
    const f8 half = __builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7);
    return total(__builtin_convertvector(half + __builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15), d8));
}

INLINE struct row close_row(const struct sums *s, float shift, double n, int wide)
{
    const double first = wide ? total((s->first[0] + s->first[1]) + (s->first[2] + s->first[3]))
                              : total16(s->first16[0] + s->first16[1]);
    const double second = wide ? total((s->second[0] + s->second[1]) + (s->second[2] + s->second[3]))
                               : total16(s->second16[0] + s->second16[1]);
    const double mean = first / n, rstd = 1 / sqrt(fabs(second / n - mean * mean) + 1e-5);
    return (struct row){shift, (float)rstd, (float)(-mean * rstd), (float)rstd};
}

/* The results of one row, unless y is NULL, and the sums of another, unless `next` is. */
INLINE struct row both(
    const float *x, const float *dy, float *y, struct row row, const float *next, const float *next_dy, ptrdiff_t n, int wide)
{
    struct sums s = {0};
    double one = 1;
    __asm__("" : "+x"(one)); /* which the compiler must not know */
    for (ptrdiff_t i = 0; i < n; i += 32) {
        if (y) put(y + i, x + i, AT(dy, i), row);
        if (next) add(&s, next + i, AT(next_dy, i), next[0], one, wide);
    }
    return next ? close_row(&s, next[0], (double)n, wide) : row;
}

INLINE void rows(const struct norm *p, ptrdiff_t first, ptrdiff_t last, int backward, int wide, int fused)
{
    const ptrdiff_t n = p->n;
    const float *dy = backward ? p->dy : 0;
    struct row row[BATCH];
    for (ptrdiff_t r = first; r < last; r++) {
        const ptrdiff_t at = r * n, to = at - BATCH * n;
        if (fused && r >= first + BATCH)
            row[r % BATCH] = both(p->x + to, AT(dy, to), p->y + to, row[r % BATCH], p->x + at, AT(dy, at), n, wide);
        else
            row[r % BATCH] = both(0, 0, 0, row[0], p->x + at, AT(dy, at), n, wide);
        if (r + 1 == last || (!fused && r % BATCH == BATCH - 1))
            for (ptrdiff_t q = r - BATCH + 1; q <= r; q++)
                both(p->x + q * n, AT(dy, q * n), p->y + q * n, row[q % BATCH], 0, 0, n, wide);
    }
}

/* ---- layer norm's backward ---------------------------------------------------------------------------------------- */

struct own {
    float shift, rstd, slope, constant;
    double exact_rstd, exact_offset; /* x̂ = x · exact_rstd + exact_offset */
};

INLINE struct own sum_own(const float *dy, const float *x, const float *weight, ptrdiff_t n)
{
    f16 g[4] = {{0}}, gd[4] = {{0}};
    const float shift = x[0];
    for (ptrdiff_t i = 0; i < n; i += 64)
        for (int k = 0; k < 4; k++) {
            const f16 term = *(const f16 *)(dy + i + 16 * k) * *(const f16 *)(weight + i + 16 * k);
            g[k] += term;
            gd[k] += term * (*(const f16 *)(x + i + 16 * k) - shift);
        }
    const double mean = total16((g[0] + g[1]) + (g[2] + g[3])) / (double)n;
    const double slope = -total16((gd[0] + gd[1]) + (gd[2] + gd[3])) / (double)n;
    return (struct own){shift, 1, (float)slope, (float)-mean, 1, -shift};
}

/* The sums of 16 columns, in registers from row to row. */
struct columns {
    d8 dy0, dy1, dyx0, dyx1;
};

INLINE struct columns load_columns(const double *sums, ptrdiff_t n)
{
    const d8 *dy = (const d8 *)sums, *dyx = (const d8 *)(sums + n);
    return (struct columns){dy[0], dy[1], dyx[0], dyx[1]};
}

INLINE void store_columns(struct columns c, double *sums, ptrdiff_t n)
{
    d8 *dy = (d8 *)sums, *dyx = (d8 *)(sums + n);
    dy[0] = c.dy0, dy[1] = c.dy1, dyx[0] = c.dyx0, dyx[1] = c.dyx1;
}

INLINE struct columns step(struct columns c, const float *dy, const float *x, float *y, f16 weight, const struct own *row)
{
    const d8 dy0 = widen(dy), dy1 = widen(dy + 8);
    const d8 x0 = widen(x), x1 = widen(x + 8);
    const f16 common = (*(const f16 *)x - row->shift) * row->slope + row->constant;
    c.dy0 += dy0;
    c.dy1 += dy1;
    c.dyx0 += dy0 * (x0 * row->exact_rstd + row->exact_offset);
    c.dyx1 += dy1 * (x1 * row->exact_rstd + row->exact_offset);
    *(f16 *)y = *(const f16 *)dy * weight * row->rstd + common;
    return c;
}

static void own_rows(const struct norm *p, ptrdiff_t first, ptrdiff_t last, double *sums)
{
    const ptrdiff_t n = p->n;
    for (ptrdiff_t r = first; r < last; r += BATCH) {
        struct own row[BATCH];
        for (int k = 0; k < BATCH; k++)
            row[k] = sum_own(p->dy + (r + k) * n, p->x + (r + k) * n, p->weight, n);
        for (ptrdiff_t i = 0; i < n; i += 64) {
            const f16 *w = (const f16 *)(p->weight + i);
            const f16 w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
            struct columns c0 = load_columns(sums + i, n), c1 = load_columns(sums + i + 16, n);
            struct columns c2 = load_columns(sums + i + 32, n), c3 = load_columns(sums + i + 48, n);
            for (int k = 0; k < BATCH; k++) {
                const ptrdiff_t at = (r + k) * n + i;
                c0 = step(c0, p->dy + at, p->x + at, p->y + at, w0, row + k);
                c1 = step(c1, p->dy + at + 16, p->x + at + 16, p->y + at + 16, w1, row + k);
                c2 = step(c2, p->dy + at + 32, p->x + at + 32, p->y + at + 32, w2, row + k);
                c3 = step(c3, p->dy + at + 48, p->x + at + 48, p->y + at + 48, w3, row + k);
            }
            store_columns(c0, sums + i, n);
            store_columns(c1, sums + i + 16, n);
            store_columns(c2, sums + i + 32, n);
            store_columns(c3, sums + i + 48, n);
        }
    }
}

/* ---- all of it ---------------------------------------------------------------------------------------------------- */

static void task(void *arguments, ptrdiff_t number)
{
    const struct norm *p = arguments;
    const ptrdiff_t first = number * p->block, end = first + p->block, last = end < p->rows ? end : p->rows;
    if (p->weight) {
        own_rows(p, first, last, p->columns + 2 * number * p->n);
        return;
    }
    switch ((p->dy != 0) * 4 + p->wide * 2 + p->fused) {
        case 0: rows(p, first, last, 0, 0, 0); break;
        case 1: rows(p, first, last, 0, 0, 1); break;
        case 2: rows(p, first, last, 0, 1, 0); break;
        case 3: rows(p, first, last, 0, 1, 1); break;
        case 4: rows(p, first, last, 1, 0, 0); break;
        case 5: rows(p, first, last, 1, 0, 1); break;
        case 6: rows(p, first, last, 1, 1, 0); break;
        default: rows(p, first, last, 1, 1, 1);
    }
}

void begin(void)
{
    team_begin();
}

/* With `columns`, of 2 n ⌈rows / block⌉ numbers on a cache line, layer norm's backward; `block` is a multiple of 4. */
void norm(
    const float *x, const float *dy, float *y, const float *weight, double *columns, ptrdiff_t rows, ptrdiff_t n,
    ptrdiff_t block, int wide, int fused, int threads)
{
    if (!block) block = n * BATCH < BLOCK ? BLOCK / n / BATCH * BATCH : BATCH;
    struct norm p = {x, dy, y, rows, n, block, wide, fused, weight, columns};
    const double expected = (double)(rows * n) * (dy ? 12 : 8) / 16;
    if (threads == 1) {
        p.block = rows;
        task(&p, 0);
    } else
        team_run(task, &p, (rows + block - 1) / block, threads, 0, expected);
}
