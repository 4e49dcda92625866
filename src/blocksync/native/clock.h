/* Time as the native parts need it, in nanoseconds: a clock that nobody sets, and a sleep. */
#ifndef BLOCKSYNC_CLOCK_H
#define BLOCKSYNC_CLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

static inline int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void sleep_ns(int64_t ns)
{
    struct timespec span = {ns / 1000000000, ns % 1000000000};
    nanosleep(&span, NULL);
}

#endif
