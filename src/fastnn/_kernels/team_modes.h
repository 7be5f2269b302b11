/* A thread's floating-point modes: how it rounds, and whether it takes subnormal numbers for zero. */
#ifndef FASTNN_TEAM_MODES_H
#define FASTNN_TEAM_MODES_H

#if defined(__SSE__)

typedef unsigned int team_modes; /* MXCSR; <fenv.h> would do the x87 unit too, which takes ten times as long */

static inline void team_get_modes(team_modes *own)
{
    *own = __builtin_ia32_stmxcsr();
}

static inline void team_set_modes(const team_modes *wanted)
{
    __builtin_ia32_ldmxcsr(*wanted);
}

#elif defined(__aarch64__)

#include <stdint.h>

typedef uint64_t team_modes; /* FPCR */

static inline void team_get_modes(team_modes *own)
{
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(*own)::"memory");
}

static inline void team_set_modes(const team_modes *wanted)
{
    __asm__ __volatile__("msr fpcr, %0" ::"r"(*wanted) : "memory");
}

#else

#include <fenv.h>

typedef fenv_t team_modes;

static inline void team_get_modes(team_modes *own)
{
    fegetenv(own);
}

static inline void team_set_modes(const team_modes *wanted)
{
    fesetenv(wanted);
}

#endif
#endif
