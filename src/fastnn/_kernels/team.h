/* A team of threads that helps whoever has blocks of work to do. C11, nothing of Python.

   By default the threads are our own (team_own.h). TEAM_OPENMP puts OpenMP's in their place, to compare; TEAM_NONE, as
   on platforms without POSIX threads, a loop. */
#ifndef FASTNN_TEAM_H
#define FASTNN_TEAM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* where threads run is Linux's own */
#endif
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef void (*team_task)(void *arguments, ptrdiff_t block);

static _Atomic int team_limit = 1; /* threads of any team; for who calls to respect */

static inline int team_get_limit(void)
{
    return atomic_load_explicit(&team_limit, memory_order_relaxed);
}

static inline void team_set_limit(int members)
{
    atomic_store_explicit(&team_limit, members, memory_order_relaxed);
}

/* A member's share of a job's blocks: `count` of them, from `first` on up or down. Its member claims them from the first
   on, others, when their own are gone, from the last on. Who is ahead by a little in every call then takes the same
   blocks in every call, which stay in its cache; taken where the member is just then, they would come and go. */
struct team_share {
    _Alignas(64) _Atomic uint64_t claimed; /* by its member, and by others in the upper half */
    ptrdiff_t count, first;
    int step;
};

static inline void team_divide(struct team_share *shares, int members, ptrdiff_t blocks, int backward)
{
    ptrdiff_t begin = 0;
    for (int k = 0; k < members; k++) {
        const ptrdiff_t count = blocks / members + (k < blocks % members);
        atomic_store_explicit(&shares[k].claimed, 0, memory_order_relaxed);
        shares[k].count = count;
        shares[k].first = backward ? begin + count - 1 : begin;
        shares[k].step = backward ? -1 : 1;
        begin += count;
    }
}

/* A block of the share that nobody has, or −1. */
static inline ptrdiff_t team_claim(struct team_share *share, int own)
{
    uint64_t claimed = atomic_load_explicit(&share->claimed, memory_order_relaxed);
    if ((ptrdiff_t)((uint32_t)claimed + (claimed >> 32)) >= share->count) return -1;
    claimed = atomic_fetch_add_explicit(&share->claimed, own ? 1 : UINT64_C(1) << 32, memory_order_relaxed);
    const ptrdiff_t front = (uint32_t)claimed, back = (ptrdiff_t)(claimed >> 32);
    if (front + back >= share->count) return -1;
    return share->first + share->step * (own ? front : share->count - 1 - back);
}

static inline void team_alone(team_task function, void *arguments, ptrdiff_t blocks, int backward)
{
    if (backward)
        for (ptrdiff_t block = blocks - 1; block >= 0; block--)
            function(arguments, block);
    else
        for (ptrdiff_t block = 0; block < blocks; block++)
            function(arguments, block);
}

/* team_begin(): once, before anything else.
   team_run(function, arguments, blocks, members, backward, expected): function(arguments, block) for every block from 0
   on, by the calling thread and up to members − 1 others; returns when all are done. Each begins with a share of its own,
   at the end of it if `backward`. One thread would take about `expected` nanoseconds. */

#if defined(TEAM_NONE) || !(defined(__unix__) || defined(__APPLE__)) || defined(__EMSCRIPTEN__)

#define TEAM_KIND "none"

static inline void team_begin(void) {}

static inline void team_run(team_task function, void *arguments, ptrdiff_t blocks, int members, int backward,
                            double expected)
{
    (void)members, (void)expected;
    team_alone(function, arguments, blocks, backward);
}

#elif defined(TEAM_OPENMP)

#include <omp.h>
#include <pthread.h>
#define TEAM_KIND "OpenMP"

static int team_forked; /* libgomp would wait for workers that a child does not have */

static void team_in_child(void)
{
    team_forked = 1;
}

static inline void team_begin(void)
{
    pthread_atfork(NULL, NULL, team_in_child);
}

static inline void team_run(team_task function, void *arguments, ptrdiff_t blocks, int members, int backward,
                            double expected)
{
    (void)expected;
    struct team_share shares[64];
    if (members > 64) members = 64;
    if (team_forked) {
        team_alone(function, arguments, blocks, backward);
        return;
    }
    team_divide(shares, members, blocks, backward);
#pragma omp parallel num_threads(members)
    for (int k = 0; k < members; k++)
        for (ptrdiff_t block; (block = team_claim(&shares[(omp_get_thread_num() + k) % members], k == 0)) >= 0;)
            function(arguments, block);
}

#else

#define TEAM_KIND "own"
#include "team_own.h"

#endif
#endif
