#include "common/base/clock.h"

#include <errno.h>
#include <time.h>

int64_t clock_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * CLOCK_SECOND + t.tv_nsec;
}

int64_t clock_unix_seconds(void) {
    return (int64_t)time(NULL);
}

int64_t clock_unix_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void clock_sleep_until(int64_t deadline_ns) {
    if (deadline_ns <= 0) return;
    struct timespec t = {.tv_sec = (time_t)(deadline_ns / CLOCK_SECOND),
                         .tv_nsec = (long)(deadline_ns % CLOCK_SECOND)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
}
