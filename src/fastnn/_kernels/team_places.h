/* On which processor a thread runs, and whether it runs at all. Linux; elsewhere nothing is known and nothing done. */
#ifndef FASTNN_TEAM_PLACES_H
#define FASTNN_TEAM_PLACES_H

#include <stdint.h>

enum { PLACE_FUTILE = 16 }; /* moves in a row without effect (a sandbox may only pretend) after which none is tried */

#if defined(__linux__)

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* What others need in order to look after a thread. */
struct place {
    pid_t id;
    clockid_t time;
    int futile;
};

static inline void place_enter(struct place *self)
{
    self->id = (pid_t)syscall(SYS_gettid);
    self->futile = pthread_getcpuclockid(pthread_self(), &self->time) ? PLACE_FUTILE : 0;
    pthread_setname_np(pthread_self(), "fastnn");
}

/* The calling thread's processor. */
static inline int place_cpu(void)
{
    return sched_getcpu();
}

/* Whether the calling thread and its process (the first thread, for Linux) have one processor, the same. */
static inline int place_single(void)
{
    cpu_set_t own, first;
    if (sched_getaffinity(0, sizeof own, &own) || CPU_COUNT(&own) != 1) return 0;
    return !sched_getaffinity(getpid(), sizeof first, &first) && CPU_EQUAL(&own, &first);
}

/* The calling thread leaves a processor for the others that the process (its first thread, for Linux) may use, if any. */
static inline void place_leave(struct place *self, int cpu)
{
    cpu_set_t set;
    if (self->futile >= PLACE_FUTILE) return;
    self->futile++;
    if (sched_getaffinity(getpid(), sizeof set, &set)) return;
    CPU_CLR(cpu, &set);
    /* That a process has one processor is no reason never to look again: it may be given more. */
    if (!CPU_COUNT(&set) || (!sched_setaffinity(0, sizeof set, &set) && sched_getcpu() != cpu)) self->futile = 0;
}

/* Brings another thread to a processor, and nowhere else. Whether that was possible. */
static inline int place_bring(const struct place *other, int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return !sched_setaffinity(other->id, sizeof set, &set);
}

/* Nanoseconds that a thread has had a processor; −1: unknown. */
static inline int64_t place_time(const struct place *other)
{
    struct timespec used;
    if (clock_gettime(other->time, &used)) return -1;
    return used.tv_sec * INT64_C(1000000000) + used.tv_nsec;
}

#else

struct place {
    int futile;
};

static inline void place_enter(struct place *self)
{
    self->futile = PLACE_FUTILE;
}

static inline int place_cpu(void)
{
    return -1;
}

static inline int place_single(void)
{
    return 0;
}

static inline void place_leave(struct place *self, int cpu)
{
    (void)self, (void)cpu;
}

static inline int place_bring(const struct place *other, int cpu)
{
    (void)other, (void)cpu;
    return 0;
}

static inline int64_t place_time(const struct place *other)
{
    (void)other;
    return -1;
}

#endif
#endif
