/* What the steps of a norm cost by themselves, on one thread. Compiled by parts.py. */
#include "vectors.h"

static volatile float kept; /* so that nothing is left out */

void begin(void)
{
}

/* Reads dy, x, or both. */
static void read_one(const float *dy, const float *x, float *dx, ptrdiff_t n)
{
    f16 s[4] = {{0}};
    (void)dy, (void)dx;
    for (ptrdiff_t i = 0; i < n; i += 64)
        for (int k = 0; k < 4; k++) s[k] += *(const f16 *)(x + i + 16 * k);
    kept = ((s[0] + s[1]) + (s[2] + s[3]))[0];
}

static void read_two(const float *dy, const float *x, float *dx, ptrdiff_t n)
{
    f16 s[4] = {{0}}, t[4] = {{0}};
    (void)dx;
    for (ptrdiff_t i = 0; i < n; i += 64)
        for (int k = 0; k < 4; k++) {
            s[k] += *(const f16 *)(x + i + 16 * k);
            t[k] += *(const f16 *)(dy + i + 16 * k);
        }
    kept = ((s[0] + s[1]) + (s[2] + s[3]) + (t[0] + t[1]) + (t[2] + t[3]))[0];
}

static void write_one(const float *dy, const float *x, float *dx, ptrdiff_t n)
{
    const f16 value = *(const f16 *)x;
    (void)dy;
    for (ptrdiff_t i = 0; i < n; i += 64)
        for (int k = 0; k < 4; k++) *(f16 *)(dx + i + 16 * k) = value;
}

/* Σdy and Σdy·(x − 1), in double and in float. */
static void sums_double(const float *dy, const float *x, float *dx, ptrdiff_t n)
{
    d8 s[4] = {{0}}, t[4] = {{0}};
    double one = 1; /* a multiply-add by one leaves the adders to conversions and sums; the compiler must not know it */
    (void)dx;
    __asm__("" : "+m"(one));
    for (ptrdiff_t i = 0; i < n; i += 32)
        for (int k = 0; k < 4; k++) {
            const d8 g = widen(dy + i + 8 * k);
            s[k] += g;
            t[k] += g * (widen(x + i + 8 * k) * one - 1);
        }
    kept = (float)((s[0] + s[1]) + (s[2] + s[3]) + (t[0] + t[1]) + (t[2] + t[3]))[0];
}

static void sums_float(const float *dy, const float *x, float *dx, ptrdiff_t n)
{
    f16 s[4] = {{0}}, t[4] = {{0}};
    (void)dx;
    for (ptrdiff_t i = 0; i < n; i += 64)
        for (int k = 0; k < 4; k++) {
            const f16 g = *(const f16 *)(dy + i + 16 * k);
            s[k] += g;
            t[k] += g * (*(const f16 *)(x + i + 16 * k) - 1);
        }
    kept = ((s[0] + s[1]) + (s[2] + s[3]) + (t[0] + t[1]) + (t[2] + t[3]))[0];
}

/* dx = dy·a + (x − b)·c + d */
static void gradient(const float *dy, const float *x, float *dx, ptrdiff_t n)
{
    const float a = x[0], b = x[1], c = x[2], d = x[3];
    for (ptrdiff_t i = 0; i < n; i += 64)
        for (int k = 0; k < 4; k++)
            *(f16 *)(dx + i + 16 * k) =
                *(const f16 *)(dy + i + 16 * k) * a + ((*(const f16 *)(x + i + 16 * k) - b) * c + d);
}

typedef void (*step)(const float *, const float *, float *, ptrdiff_t);
static const step steps[] = {read_one, read_two, write_one, sums_double, sums_float, gradient};

/* n is a multiple of 64. */
void repeat(int number, const float *dy, const float *x, float *dx, ptrdiff_t n, ptrdiff_t times)
{
    const volatile step call = steps[number];
    for (ptrdiff_t k = 0; k < times; k++) call(dy, x, dx, n);
}
