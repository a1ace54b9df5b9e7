// sim_check: how the simulator says that something is wrong: the seed and the event, so that the
// same run can be had again, then one line. The process ends with 1.
#ifndef OCTANT_TESTS_SIM_CHECK_H
#define OCTANT_TESTS_SIM_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/sim/sim_schedule.h"

// Where the simulation stands; set by the loop, read by a failure anywhere below and, after a
// failure, by the process that started this one: it lies in memory that both see.
typedef struct sim_place {
    uint64_t seed, event;
    int64_t now_ns;
    char violation[256]; // what failed, without what changes from run to run; empty: an assertion
    bool trace;          // say what happens
    sim_schedule schedule;
} sim_place;
extern sim_place *sim_here;

#define SIM_CHECK(condition, ...)                                                                  \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "VIOLATION seed=%llu event=%llu t=%.3fs: ",                            \
                    (unsigned long long)sim_here->seed, (unsigned long long)sim_here->event,       \
                    (double)sim_here->now_ns / 1e9);                                               \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fprintf(stderr, "  [%s at %s:%d]\n", #condition, __FILE__, __LINE__);                  \
            snprintf(sim_here->violation, sizeof sim_here->violation, "%s:%d", __FILE__,           \
                     __LINE__);                                                                    \
            fflush(stderr);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

#endif
