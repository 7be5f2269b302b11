/* The memory limit: a copy by up to `threads` threads, in pieces that they share as kernels do their blocks. Compiled by
   copying.py. */
#include "team.h"
#include <string.h>

enum { PIECE = 1 << 16 };

struct copy {
    char *to;
    const char *from;
    size_t bytes;
};

static void piece(void *arguments, ptrdiff_t number)
{
    const struct copy *all = arguments;
    const size_t begin = (size_t)number * PIECE, rest = all->bytes - begin;
    memcpy(all->to + begin, all->from + begin, rest < PIECE ? rest : PIECE);
}

void begin(void)
{
    team_begin();
}

void copy(char *to, const char *from, size_t bytes, int threads)
{
    struct copy all = {to, from, bytes};
    if (threads == 1)
        memcpy(to, from, bytes);
    else
        team_run(piece, &all, (ptrdiff_t)((bytes + PIECE - 1) / PIECE), threads, 0, bytes / 16.0);
}
