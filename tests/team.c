/* Run by test_team.py: the thread team by itself, without Python; with ThreadSanitizer where the compiler has it.
   Each part checks itself; one that hangs is ended by an alarm. */
#include "team.h"
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(truth) \
    do { \
        if (!(truth)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #truth); \
            exit(1); \
        } \
    } while (0)

enum { BLOCKS = 300 };

struct sum {
    long first;
    long numbers[BLOCKS]; /* plain memory: a block that two threads did, or one nobody waited for, shows */
};

static void add(void *arguments, ptrdiff_t block)
{
    struct sum *sum = arguments;
    for (int k = 0; k < 50; k++)
        sum->numbers[block] += sum->first + block;
}

/* One job of some size: every block exactly once, and all of them done when team_run returns. */
static void job(unsigned seed)
{
    static const ptrdiff_t sizes[] = {0, 1, 2, 3, 7, 64, 299, BLOCKS};
    struct sum sum = {.first = seed % 1000};
    const ptrdiff_t blocks = sizes[seed % 8];
    team_run(add, &sum, blocks, 2 + seed / 8 % 4, seed >> 5 & 1, 100 * (seed % 64)); /* whatever is expected */
    for (ptrdiff_t k = 0; k < BLOCKS; k++)
        CHECK(sum.numbers[k] == (k < blocks ? 50 * (sum.first + k) : 0));
}

static int jobs_of_each;

static void *jobs(void *seed)
{
    unsigned state = (unsigned)(uintptr_t)seed;
    for (int k = 0; k < jobs_of_each; k++) {
        state = state * 1664525u + 1013904223u;
        job(state >> 8);
        if (state >> 28 == 0) usleep(state >> 8 & 63); /* workers fall asleep now and then */
    }
    return NULL;
}

/* More callers than there are jobs at a time. */
static void many(int each)
{
    pthread_t callers[12];
    jobs_of_each = each;
    for (uintptr_t k = 0; k < 12; k++)
        CHECK(!pthread_create(&callers[k], NULL, jobs, (void *)k));
    for (int k = 0; k < 12; k++)
        CHECK(!pthread_join(callers[k], NULL));
}

static void outer(void *arguments, ptrdiff_t block)
{
    struct sum *sums = arguments;
    sums[block].first = block;
    team_run(add, &sums[block], BLOCKS, 3, 1, 1e4);
}

static void nested(void)
{
    static struct sum sums[8];
    team_run(outer, sums, 8, 3, 0, 1e6);
    for (int k = 0; k < 8; k++)
        for (int i = 0; i < BLOCKS; i++)
            CHECK(sums[k].numbers[i] == 50 * (k + i));
}

static _Atomic int inside, released;

static void hold(void *arguments, ptrdiff_t block)
{
    (void)arguments, (void)block;
    atomic_fetch_add(&inside, 1);
    while (!atomic_load(&released))
        usleep(100);
}

static void *holder(void *arguments)
{
    team_run(hold, arguments, 2, 2, 0, 1e9);
    return NULL;
}

/* The only worker is held in somebody else's block: a caller does not wait for it. */
static void absent(void)
{
    pthread_t caller;
    CHECK(!pthread_create(&caller, NULL, holder, NULL));
    while (atomic_load(&inside) < 2)
        usleep(100);
    for (unsigned k = 0; k < 1000; k++)
        job(8 * 4 * k + 7); /* for two threads, BLOCKS blocks */
    atomic_store(&released, 1);
    CHECK(!pthread_join(caller, NULL));
}

static _Atomic int threads_seen;

static void meet(void *arguments, ptrdiff_t block)
{
    (void)arguments, (void)block;
    atomic_fetch_add(&threads_seen, 1);
    for (int k = 0; k < 20000 && atomic_load(&threads_seen) < 2; k++)
        usleep(100);
}

/* Two blocks that each wait for the other, for two seconds: that a second thread does come. */
static void helped(void)
{
    atomic_store(&threads_seen, 0);
    team_run(meet, NULL, 2, 2, 0, 1e9);
    CHECK(atomic_load(&threads_seen) == 2);
}

static float quotients[2];

static void divide(void *arguments, ptrdiff_t block)
{
    volatile float one = 1, three = 3;
    meet(arguments, block);
    quotients[block] = one / three;
}

/* Both of two threads round as the caller does at the time, whatever it did when they started. */
static void modes(void)
{
    static const int directions[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO, FE_TONEAREST};
    helped();
    for (int k = 0; k < 5; k++) {
        CHECK(!fesetround(directions[k]));
        atomic_store(&threads_seen, 0);
        team_run(divide, NULL, 2, 2, 0, 1e9);
        CHECK(quotients[0] == quotients[1]);
    }
}

#if defined(__linux__)

static int processor[2];

static void look(void *arguments, ptrdiff_t block)
{
    meet(arguments, block);
    processor[block] = sched_getcpu();
}

static cpu_set_t all;

static pthread_t doers[2];

static void doze(void *arguments, ptrdiff_t block)
{
    (void)arguments;
    usleep(200); /* long enough for a worker to take the other block */
    doers[block] = pthread_self();
}

/* Its own processor is the process's only one, and after the first jobs nobody is called there; then the process gets
   more, and the worker goes there. */
static void *confined(void *number)
{
    for (int k = 0; k < 100; k++) {
        usleep(1000);
        team_run(doze, NULL, 2, 2, 0, 1e9);
        CHECK(k < 50 || pthread_equal(doers[0], doers[1]));
    }
    CHECK(!sched_setaffinity(getpid(), sizeof all, &all));
    for (int k = 0; k < 100; k++) {
        atomic_store(&threads_seen, 0);
        team_run(look, NULL, 2, 2, 0, 1e9);
        if (processor[0] != processor[1]) return number;
    }
    return NULL;
}

static void affinity(void)
{
    pthread_t caller;
    void *moved;
    cpu_set_t one;
    CHECK(!sched_getaffinity(0, sizeof all, &all));
    if (CPU_COUNT(&all) == 1) return;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    CHECK(!sched_setaffinity(0, sizeof one, &one));
    CHECK(!pthread_create(&caller, NULL, confined, "moved"));
    CHECK(!pthread_join(caller, &moved));
    CHECK(moved);
}

#else

static void affinity(void) {}

#endif

static _Atomic int stop;

static void *hammer(void *seed)
{
    unsigned state = (unsigned)(uintptr_t)seed;
    while (!atomic_load(&stop))
        job(state = state * 1664525u + 1013904223u);
    return NULL;
}

/* Children of a process whose threads are in the middle of jobs; they get a team of their own. */
static void forks(int count)
{
    pthread_t callers[3];
    for (uintptr_t k = 0; k < 3; k++)
        CHECK(!pthread_create(&callers[k], NULL, hammer, (void *)k));
    for (int k = 0; k < count; k++) {
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(20);
            for (unsigned seed = 0; seed < 100; seed++)
                job(seed);
            if (strcmp(TEAM_KIND, "own") == 0) helped();
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    atomic_store(&stop, 1);
    for (int k = 0; k < 3; k++)
        CHECK(!pthread_join(callers[k], NULL));
}

/* The system gives no more threads: no room for their stacks. */
static void refused(void)
{
    const struct rlimit none = {1 << 20, 1 << 20};
    CHECK(!setrlimit(RLIMIT_AS, &none));
    for (unsigned seed = 0; seed < 1000; seed++)
        job(seed);
}

int main(int count, char **names)
{
    alarm(240);
    team_begin();
    for (int k = 1; k < count; k++) {
        if (!strcmp(names[k], "many")) many(3000);
        else if (!strcmp(names[k], "nested")) nested();
        else if (!strcmp(names[k], "absent")) absent();
        else if (!strcmp(names[k], "helped")) helped();
        else if (!strcmp(names[k], "modes")) modes();
        else if (!strcmp(names[k], "affinity")) affinity();
        else if (!strcmp(names[k], "forks")) forks(200);
        else if (!strcmp(names[k], "refused")) refused();
        else return 2;
    }
    printf("%s\n", TEAM_KIND);
    return 0;
}
