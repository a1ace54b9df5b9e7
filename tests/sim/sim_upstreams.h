// sim_upstreams: closed APIs behind the coordinator's edge: each call is a script drawn when it
// begins. What an upstream says is known by construction: handed a partial answer as a prefill, it
// goes on right after it; handed it in a user's turn, it may first say the end of it again. The
// calls' books are here, too: each has exactly one CORE_CALL_DONE, with what the edge said.
#ifndef OCTANT_TESTS_SIM_UPSTREAMS_H
#define OCTANT_TESTS_SIM_UPSTREAMS_H

#include "coordinator/core/core.h"
#include "tests/sim/sim_queue.h"
#include "tests/sim/sim_schedule.h"

struct world;
typedef struct sim_upstreams sim_upstreams;

// Draws a policy of 0 to SIM_UPSTREAMS_MAX targets into *out, which lives as long as the result.
sim_upstreams *sim_upstreams_create(uint64_t seed, bool timid, upstreams_policy *out);
void sim_upstreams_destroy(sim_upstreams *u);

// Effects.
void sim_upstreams_call(struct world *w, const core_effect *e);
void sim_upstreams_cancel(struct world *w, const core_effect *e);
void sim_upstreams_done(struct world *w, const core_effect *e);
void sim_upstreams_notice(struct world *w, const core_notice *n);

// The next words, or the end, of the call that `item` names.
void sim_upstreams_run(struct world *w, const sim_item *item);

int sim_upstreams_open(const sim_upstreams *u); // calls without an end

typedef struct sim_call_counts {
    uint64_t calls, faults, continued, cancelled;
} sim_call_counts;
void sim_upstreams_add(const sim_upstreams *u, sim_call_counts *sum);

#endif
