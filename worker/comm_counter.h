// comm_counter: a counter in memory that processes share: one raises it, others wait for it, first
// spinning, where that is wanted, then asleep on it (futex). Included by comm_shm*.c only.
#ifndef OCTANT_WORKER_COMM_COUNTER_H
#define OCTANT_WORKER_COMM_COUNTER_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"

enum {
    COMM_SPIN_NS = 100 * 1000,
    COMM_SPIN_LOOKS = 64, // looks at the counter between two looks at the clock
};

typedef _Atomic uint32_t comm_counter; // wraps

static inline bool comm_counter_reached(comm_counter *c, uint32_t value) {
    return (int32_t)(atomic_load_explicit(c, memory_order_acquire) - value) >= 0;
}

// `sleepers`: how many may sleep on it.
static inline void comm_counter_raise(comm_counter *c, comm_counter *sleepers, uint32_t value) {
    atomic_store(c, value);
    // Sequentially consistent with the sleeper's own pair below: one of the two sees the other.
    if (atomic_load(sleepers) == 0) return;
    syscall(SYS_futex, c, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static inline void comm_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static inline bool comm_counter_spin(comm_counter *c, uint32_t value) {
    int64_t until = clock_now_ns() + COMM_SPIN_NS;
    do {
        for (int i = 0; i < COMM_SPIN_LOOKS; i++) {
            if (comm_counter_reached(c, value)) return true;
            comm_relax();
        }
    } while (clock_now_ns() < until);
    return false;
}

// Until it has reached the value; false: not by the deadline.
static inline bool comm_counter_await(comm_counter *c, comm_counter *sleepers, uint32_t value,
                                      bool spin, int64_t deadline_ns) {
    if (comm_counter_reached(c, value)) return true;
    if (spin && comm_counter_spin(c, value)) return true;
    bool there = true;
    atomic_fetch_add(sleepers, 1);
    for (;;) {
        uint32_t seen = atomic_load(c);
        if ((int32_t)(seen - value) >= 0) break;
        int64_t left = deadline_ns - clock_now_ns();
        there = left > 0;
        if (!there) break;
        struct timespec wait = {.tv_sec = left / CLOCK_SECOND, .tv_nsec = left % CLOCK_SECOND};
        syscall(SYS_futex, c, FUTEX_WAIT, seen, &wait, NULL, 0);
    }
    atomic_fetch_sub(sleepers, 1);
    return there;
}

#endif
