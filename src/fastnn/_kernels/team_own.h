/* The team's own threads: POSIX threads.

   Design
     (A) Nobody waits for a thread to come. A caller opens a job and begins; workers that run just then enter and take
         blocks; when none is left, the caller waits for those inside, each of which has a block. OpenMP's barrier waits
         for every worker, also for one that the scheduler has not let run: on a busy machine, or where waking a
         processor is slow, that takes longer than the work.
     (B) Sleeping workers are called when callers have worked alone for about as long as a call costs, over however many
         jobs that follow each other, the one at hand included: in a row of short jobs the workers are soon awake, and
         calling never costs more than the work. A job by itself, after which the workers fall asleep again, has to be
         several times as long, since they come several times as late as the call has returned. A call that costs more
         than the help it brings doubles the patience, one that pays halves it twice. Where the process has been confined
         to one processor, nobody is called.
     (C) All callers share one team. Each has a job of its own, and workers enter any that is open: n Python threads that
         call at once add members − 1 threads, not n times as many. Without a free job a caller works alone.
     (D) Each member has a share of neighbouring blocks and claims them one by one; when its own are gone, it claims those
         of the others from their ends. So a core meets the same part of an array in every pass and call, in long streams
         (blocks dealt out in turn cost up to half as much again), and nobody is idle while there is work. Which member
         does a block decides no bit.
     (E) A worker on the caller's processor only displaces the caller (some schedulers put it there to save a
         processor): it leaves before it takes a block. One that loses its processor to another program in the middle
         of a block is brought to the caller's, which the caller, having nothing left to do, gives up.
     (F) Who waits spins for about as long as falling asleep and being woken costs, then sleeps.
     (G) Workers start when they are first needed, take no signals, and end with the process. A forked child has none
         of them: its team begins anew.
     (H) A worker computes with its caller's floating-point modes, or a bit could tell which thread did a block. */
#ifndef FASTNN_TEAM_OWN_H
#define FASTNN_TEAM_OWN_H

#include "team_modes.h"
#include "team_places.h"
#include <pthread.h>
#include <signal.h>
#include <time.h>

enum {
    TEAM_MOST = 256,       /* members, the caller among them */
    TEAM_JOBS = 8,         /* callers that are helped at the same time */
    TEAM_STACK = 1 << 20,  /* bytes; the kernels' frames have up to 40 KB */
    TEAM_APART = 128,      /* bytes between what different threads write: processors fetch lines in pairs */
    TEAM_GLANCES = 16,     /* looks at what is waited for between two looks at the clock */
    TEAM_LATE = 4,         /* a called thread comes after about as many times the time that the call took */
    TEAM_INEXACT = 4,      /* a job may take as many times as long as expected */
    /* nanoseconds */
    TEAM_SPIN = 20000,
    TEAM_CALL = 15000,     /* what it costs to call a sleeping thread where that is slow: virtual machines */
    TEAM_MOST_PATIENCE = 2000000,
    TEAM_NAP = 500000      /* of a caller, between two looks at the workers it waits for */
};

/* A job's door: whether it is open, whether the caller sleeps until all have left, and how many workers are inside.

   What orders memory is the door alone. Opening it releases the job and the caller's data to those who enter; each who
   leaves releases its results to the caller, who acquires the door when nobody is inside. Entering and looking whether the
   door is open are one exchange: who looked at one job and comes to the next in its place gets all of the next. */
#define TEAM_OPEN 0x80000000u
#define TEAM_AWAITED 0x40000000u
#define TEAM_INSIDE 0x3fffffffu

/* Where one thread sleeps. */
struct team_bed {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
};

/* What is not atomic is the caller's to write while the door is closed and nobody inside. */
struct team_job {
    /* What waiting threads look at and workers write, apart from what the caller writes meanwhile. */
    _Alignas(TEAM_APART) _Atomic uint32_t door;
    _Atomic ptrdiff_t helped;             /* blocks that workers did */
    _Alignas(TEAM_APART) _Atomic int cpu; /* of the caller */
    _Atomic int called;                   /* members that need not be called any more */
    int members;
    team_task function;
    void *arguments;
    team_modes modes; /* the caller's */
    struct team_share *shares;
    _Alignas(64) _Atomic int taken;
    struct team_bed bed;
};

struct team_worker {
    _Alignas(64) _Atomic int asleep;
    _Atomic int brought; /* to a processor that it is to leave after its block */
    _Atomic(struct team_job *) job;
    struct place place;
    struct team_bed bed;
};

static struct {
    _Atomic int members;   /* the callers' place and the workers there are */
    _Atomic int awake;     /* workers that run or have been called */
    _Atomic int refused;   /* whether the system gave no more threads */
    /* nanoseconds; estimates, of which callers at the same time may lose one another's share */
    _Atomic int64_t alone;  /* of work that callers have done beside sleeping workers since they last called */
    _Atomic int64_t recent; /* of such work in jobs that followed each other */
    _Atomic int64_t until;  /* when a job comes too late to follow the last */
    _Atomic int64_t call;   /* what calling a worker has cost lately */
    _Atomic int64_t patience;
    pthread_mutex_t growing;
    struct team_job jobs[TEAM_JOBS];
    struct team_worker workers[TEAM_MOST]; /* the first is no worker but the callers' place */
} team;

static struct team_share team_shares[TEAM_JOBS][TEAM_MOST];

static void team_make_bed(struct team_bed *bed)
{
    pthread_mutex_init(&bed->mutex, NULL);
    pthread_cond_init(&bed->cond, NULL);
}

/* As it is before the first job; also in a forked child, whatever the parent's threads were doing. */
static void team_reset(void)
{
    atomic_store(&team.members, 1);
    atomic_store(&team.awake, 0);
    atomic_store(&team.refused, 0);
    atomic_store(&team.alone, 0);
    atomic_store(&team.recent, 0);
    atomic_store(&team.until, 0);
    atomic_store(&team.call, TEAM_CALL);
    atomic_store(&team.patience, TEAM_CALL);
    pthread_mutex_init(&team.growing, NULL);
    for (int j = 0; j < TEAM_JOBS; j++) {
        atomic_store(&team.jobs[j].door, 0);
        atomic_store(&team.jobs[j].taken, 0);
        team.jobs[j].shares = team_shares[j];
        team_make_bed(&team.jobs[j].bed);
    }
}

static void team_begin(void)
{
    team_reset();
    pthread_atfork(NULL, NULL, team_reset);
}

static inline void team_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory"); /* `yield` does nothing on most cores */
#endif
}

static inline int64_t team_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void team_wake(struct team_bed *bed)
{
    pthread_mutex_lock(&bed->mutex); /* whoever has seen the old state is asleep after this */
    pthread_mutex_unlock(&bed->mutex);
    pthread_cond_signal(&bed->cond);
}

/* A worker is asleep no more; whether it was. */
static int team_rouse(int member)
{
    int asleep = 1;
    if (!atomic_compare_exchange_strong(&team.workers[member].asleep, &asleep, 0)) return 0;
    atomic_fetch_add(&team.awake, 1);
    return 1;
}

/* Wakes a worker; whether it was asleep. */
static int team_call(int member)
{
    if (!team_rouse(member)) return 0;
    team_wake(&team.workers[member].bed);
    return 1;
}

static inline int64_t team_get(_Atomic int64_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

static inline void team_set(_Atomic int64_t *number, int64_t value)
{
    atomic_store_explicit(number, value, memory_order_relaxed);
}

/* Whether to call sleeping workers to a job that one thread would do in so many nanoseconds, more or less. */
static int team_impatient(double expected)
{
    const int64_t now = team_clock(), job = expected < 1e12 ? (int64_t)expected : INT64_C(1000000000000);
    const int follows = now < team_get(&team.until);
    const int64_t recent = (follows ? team_get(&team.recent) : 0) + job, alone = team_get(&team.alone) + job;
    const int64_t call = team_get(&team.call), patience = team_get(&team.patience);
    team_set(&team.until, now + TEAM_SPIN + TEAM_INEXACT * job);
    team_set(&team.recent, recent);
    team_set(&team.alone, alone);
    if (alone < patience || recent < (follows ? call : TEAM_LATE * call)) return 0;
    team_set(&team.alone, 0);
    if (patience < TEAM_MOST_PATIENCE) team_set(&team.patience, 2 * patience);
    return 1;
}

/* Does the blocks of the job that nobody has taken, those of the member's own share first. Once workers are to be called,
   whoever begins a block calls one more, so that those who call grow in number with those who are called. */
static void team_take(struct team_job *job, int member)
{
    ptrdiff_t done = 0;
    for (int k = 0; k < job->members; k++) {
        struct team_share *share = &job->shares[(member + k) % job->members];
        for (ptrdiff_t block; (block = team_claim(share, k == 0)) >= 0;) {
            if (atomic_load_explicit(&job->called, memory_order_relaxed) < job->members) {
                const int next = atomic_fetch_add_explicit(&job->called, 1, memory_order_relaxed);
                if (next < job->members) team_call(next);
            }
            job->function(job->arguments, block);
            done++;
        }
    }
    if (atomic_load_explicit(&job->door, memory_order_relaxed) & TEAM_OPEN) /* who comes now would find nothing */
        atomic_fetch_and_explicit(&job->door, ~TEAM_OPEN, memory_order_relaxed);
    if (member) atomic_fetch_add_explicit(&job->helped, done, memory_order_relaxed);
}

/* A worker does what it can for the jobs that are open; whether it did something. */
static int team_help(int member)
{
    struct team_worker *self = &team.workers[member];
    int helped = 0;
    for (int j = 0; j < TEAM_JOBS; j++) {
        struct team_job *job = &team.jobs[j];
        uint32_t door = atomic_load(&job->door);
        if (!(door & TEAM_OPEN)) continue;
        __builtin_prefetch(&job->cpu); /* these two lines together, which the caller's cache has */
        __builtin_prefetch(&team_shares[j][member], 1);
        const int cpu = place_cpu();
        if (cpu >= 0 && cpu == atomic_load_explicit(&job->cpu, memory_order_relaxed)) place_leave(&self->place, cpu);
        while (door & TEAM_OPEN && !atomic_compare_exchange_weak(&job->door, &door, door + 1))
            continue;
        if (!(door & TEAM_OPEN)) continue;
        if (member < job->members) {
            team_set_modes(&job->modes);
            atomic_store(&self->job, job);
            team_take(job, member);
            atomic_store(&self->job, NULL);
            helped = 1;
        }
        if (atomic_fetch_sub(&job->door, 1) == TEAM_AWAITED + 1) team_wake(&job->bed);
        if (atomic_exchange(&self->brought, 0)) place_leave(&self->place, place_cpu());
    }
    return helped;
}

static void *team_work(void *number)
{
    const int member = (int)(intptr_t)number;
    struct team_worker *self = &team.workers[member];
    place_enter(&self->place);
    for (;;) {
        int64_t until = team_clock() + TEAM_SPIN;
        while (team_clock() < until)
            for (int k = 0; k < TEAM_GLANCES; k++) {
                if (team_help(member)) until = team_clock() + TEAM_SPIN;
                team_pause();
            }
        /* A last look after saying so. A job missed all the same, whose caller had looked for sleepers before, does
           without this worker: see (A). */
        atomic_fetch_sub(&team.awake, 1);
        atomic_store(&self->asleep, 1);
        if (team_help(member)) { /* opened before its caller could see that this one sleeps */
            team_rouse(member);
            continue;
        }
        pthread_mutex_lock(&self->bed.mutex);
        while (atomic_load(&self->asleep))
            pthread_cond_wait(&self->bed.cond, &self->bed.mutex);
        pthread_mutex_unlock(&self->bed.mutex);
    }
    return NULL;
}

/* Starts the workers that a team of so many members lacks, unless somebody is at it or the system has refused. */
static void team_grow(int members)
{
    if (atomic_load(&team.members) >= members || atomic_load(&team.refused)) return;
    if (pthread_mutex_trylock(&team.growing)) return;
    /* Signals are for the threads that Python knows, but for those that a thread's own fault brings. */
    const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t signals, before;
    sigfillset(&signals);
    for (size_t k = 0; k < sizeof own / sizeof *own; k++)
        sigdelset(&signals, own[k]);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, TEAM_STACK);
    pthread_sigmask(SIG_BLOCK, &signals, &before);
    for (int k = atomic_load(&team.members); k < members; k++) {
        pthread_t thread;
        struct team_worker *worker = &team.workers[k];
        atomic_store(&worker->asleep, 0);
        atomic_store(&worker->brought, 0);
        atomic_store(&worker->job, NULL);
        team_make_bed(&worker->bed);
        atomic_fetch_add(&team.awake, 1);
        if (pthread_create(&thread, &attributes, team_work, (void *)(intptr_t)k)) {
            atomic_fetch_sub(&team.awake, 1);
            atomic_store(&team.refused, 1);
            break;
        }
        atomic_store(&team.members, k + 1);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    pthread_mutex_unlock(&team.growing);
}

static struct team_job *team_free_job(void)
{
    for (int j = 0; j < TEAM_JOBS; j++) {
        int taken = 0;
        if (atomic_compare_exchange_strong_explicit(
                &team.jobs[j].taken, &taken, 1, memory_order_acquire, memory_order_relaxed))
            return &team.jobs[j];
    }
    return NULL;
}

/* Spins until nobody is inside, or for a while; whether nobody is. */
static int team_spin(struct team_job *job)
{
    const int64_t until = team_clock() + TEAM_SPIN;
    do
        for (int k = 0; k < TEAM_GLANCES; k++) {
            if (!(atomic_load_explicit(&job->door, memory_order_acquire) & TEAM_INSIDE)) return 1;
            team_pause();
        }
    while (team_clock() < until);
    return 0;
}

/* Brings those inside that have lost their processor to the caller's. They are known by the time they use meanwhile. */
static void team_bring(struct team_job *job)
{
    int64_t used[TEAM_MOST];
    for (int k = 1; k < job->members; k++)
        used[k] = atomic_load(&team.workers[k].job) == job ? place_time(&team.workers[k].place) : -1;
    if (team_spin(job)) return;
    for (int k = 1; k < job->members; k++) {
        struct team_worker *worker = &team.workers[k];
        if (used[k] < 0 || atomic_load(&worker->job) != job) continue;
        if (place_time(&worker->place) - used[k] < TEAM_SPIN / 4 && place_bring(&worker->place, place_cpu()))
            atomic_store(&worker->brought, 1);
    }
}

/* All blocks are taken: until those that workers have are done. */
static void team_await(struct team_job *job)
{
    if (team_spin(job)) return;
    atomic_fetch_or(&job->door, TEAM_AWAITED);
    while (atomic_load(&job->door) & TEAM_INSIDE) {
        struct timespec until;
        team_bring(job);
        timespec_get(&until, TIME_UTC);
        until.tv_nsec += TEAM_NAP;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_mutex_lock(&job->bed.mutex);
        if (atomic_load(&job->door) & TEAM_INSIDE)
            pthread_cond_timedwait(&job->bed.cond, &job->bed.mutex, &until);
        pthread_mutex_unlock(&job->bed.mutex);
    }
}

static void team_run(team_task function, void *arguments, ptrdiff_t blocks, int members, int backward, double expected)
{
    if (members > TEAM_MOST) members = TEAM_MOST;
    team_grow(members);
    if (members > atomic_load(&team.members)) members = atomic_load(&team.members);
    /* Where nobody can come there is no job: after a pause, when nothing of it is in a cache, it would cost half a
       microsecond. */
    const int awake = atomic_load(&team.awake);
    const int calling = awake < members - 1 && team_impatient(expected) && !place_single();
    struct team_job *job = awake || calling ? team_free_job() : NULL;
    if (!job) {
        team_alone(function, arguments, blocks, backward);
        return;
    }
    job->function = function;
    job->arguments = arguments;
    team_get_modes(&job->modes);
    job->members = members;
    team_divide(job->shares, members, blocks, backward);
    atomic_store_explicit(&job->cpu, place_cpu(), memory_order_relaxed);
    atomic_store_explicit(&job->helped, 0, memory_order_relaxed);
    atomic_store_explicit(&job->called, members, memory_order_relaxed);
    int64_t start = 0, called = 0;
    atomic_store(&job->door, TEAM_OPEN); /* first: who wakes up where the caller runs is to see that it must leave */
    if (calling) {
        start = team_clock();
        const int slept = team_call(1);
        called = team_clock();
        /* no more than that of a caller that has lost its processor meanwhile */
        const int64_t took = called - start < 2 * TEAM_CALL ? called - start : 2 * TEAM_CALL;
        if (slept) team_set(&team.call, (3 * team_get(&team.call) + took) / 4);
        atomic_store_explicit(&job->called, 2, memory_order_relaxed);
    }
    team_take(job, 0);
    team_await(job);
    const ptrdiff_t helped = atomic_load_explicit(&job->helped, memory_order_relaxed);
    /* The call has paid if the caller would have taken longer for the workers' blocks than for the call. Help without a
       call comes of an earlier one, after which the jobs followed each other. */
    if (helped && (!calling || (double)(team_clock() - called) * helped > (double)(called - start) * (blocks - helped))) {
        const int64_t less = team_get(&team.patience) / 4, least = team_get(&team.call);
        team_set(&team.alone, 0);
        team_set(&team.patience, less > least ? less : least);
    }
    atomic_store_explicit(&job->taken, 0, memory_order_release);
}

#endif
