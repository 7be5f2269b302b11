/* Preloaded by test_faults.py: lets the n-th allocation of the calling thread fail, counted from fail_at(n). */
#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static __thread long left = -1; /* allocations that still succeed; −1: all */

void fail_at(long n) { left = n; }

/* How many more would have succeeded; −1 after the failure. */
long still_left(void) { return left; }

static int fails(void) {
  if (left < 0) return 0;
  if (left-- > 0) return 0;
  errno = ENOMEM;
  return 1;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }

void *realloc(void *block, size_t size) { return fails() ? NULL : __libc_realloc(block, size); }

int posix_memalign(void **block, size_t alignment, size_t size) {
  if (fails()) return ENOMEM;
  *block = __libc_memalign(alignment, size);
  return *block ? 0 : ENOMEM;
}
