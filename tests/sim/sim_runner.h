// sim_runner: many seeds, in processes of their own, so that an assertion, a crash or an endless
// loop of the core is a violation like any other; and the way from a failing seed to the smallest
// run that still fails.
#ifndef OCTANT_TESTS_SIM_RUNNER_H
#define OCTANT_TESTS_SIM_RUNNER_H

#include "tests/sim/sim_schedule.h"
#include "tests/sim/sim_world.h"

typedef struct sim_orders {
    uint64_t seed, seeds, events; // seeds `seed` to seed + seeds - 1, so many events each
    int jobs;                     // processes at once
    sim_set faults, clients;      // that may happen
    int tries;                    // at most, of making a run that fails smaller
    bool trace;                   // print what happens
    bool progress;                // say every few seconds how far it is
} sim_orders;

// True: no violation; *sums has what was met. Else everything about the first one was printed.
bool sim_runner_run(const sim_orders *orders, sim_sums *sums);

#endif
