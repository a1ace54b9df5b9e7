// sim_group: a worker group as the core sees one: it knows nothing but what plans tell it, keeps
// "KV entries" in numbered blocks, and checks every word of a plan that a real worker relies on.
#ifndef OCTANT_TESTS_SIM_GROUP_H
#define OCTANT_TESTS_SIM_GROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/cluster_msg.h"

typedef struct sim_group sim_group;

sim_group *sim_group_create(const cluster_limits *limits, int kv_blocks, uint64_t salt);
void sim_group_destroy(sim_group *g); // NULL is allowed

// The seed of a request that kills the group in this step, as such a one does again wherever it
// runs: as it is opened, or at a later position, there in any step or only in one that computes it
// alone. 0: none does.
uint64_t sim_group_killer(const sim_group *g, const step_plan *plan);

// Runs one step; result->memory is the caller's.
void sim_group_step(sim_group *g, const step_plan *plan, step_result *result);

#endif
