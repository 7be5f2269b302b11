/* The memory limit: a copy by `threads` threads, each with its own part. Compiled by copying.py. */
#include <stddef.h>
#include <string.h>

void copy(char *to, const char *from, size_t bytes, int threads)
{
    if (threads == 1) {
        memcpy(to, from, bytes);
        return;
    }
    #pragma omp parallel for num_threads(threads)
    for (int k = 0; k < threads; k++) {
        size_t begin = bytes / threads * k, end = k + 1 == threads ? bytes : bytes / threads * (k + 1);
        memcpy(to + begin, from + begin, end - begin);
    }
}
