// sim_traffic: where the requests of each model are to go, from what the core itself has announced:
// they leave only while no group is READY, and come back only after one has been for long enough.
#ifndef OCTANT_TESTS_SIM_TRAFFIC_H
#define OCTANT_TESTS_SIM_TRAFFIC_H

#include "tests/sim/sim_clients.h"

typedef struct sim_traffic {
    struct {
        uint64_t ready[CORE_GROUPS_MAX]; // epochs
        int ready_count;
        int64_t ready_since_ns; // while some are
        bool left;
    } models[SIM_MODELS_MAX];
} sim_traffic;

void sim_traffic_notice(sim_traffic *t, const sim_site *site, const core_notice *n, int64_t now_ns);

// A call that is a failover: nobody of ours could have served it.
bool sim_traffic_may_leave(const sim_traffic *t, int model);

#endif
