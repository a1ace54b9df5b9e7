// sim_world: everything around one core, from one seed: places where worker groups run, upstreams,
// clients and the clock.
#ifndef OCTANT_TESTS_SIM_WORLD_H
#define OCTANT_TESTS_SIM_WORLD_H

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "tests/sim/sim_check.h"
#include "tests/sim/sim_clients.h"
#include "tests/sim/sim_places.h"
#include "tests/sim/sim_queue.h"
#include "tests/sim/sim_traffic.h"
#include "tests/sim/sim_upstreams.h"

typedef struct world {
    core *core;
    core_effects *effects;
    core_options options;
    rng random; // of the world's shape, and of when who asks
    sim_queue queue;
    sim_clients *clients;
    sim_upstreams *upstreams;
    sim_places places;
    sim_site site;
    sim_weather weather;
    sim_traffic traffic;
    sim_mood mood;
    bool quiet;   // no new requests and no new faults
    int pause_ms; // between two requests
    int stalls;
    int64_t lost_ns; // when the last group was closed
    bool killed;     // the last that was lost: by a request
    int busy_timers; // in a row, without time in between
    int drains;      // without a reply so far
} world;

// One event, and all that the core wants done about it.
void sim_handle(world *w, const core_event *event);

// Milliseconds of [from, to], with a random part below one, from now.
int64_t sim_later(rng *random, int from, int to);
int sim_below(rng *random, int bound);

// What the runs met: a simulator that never preempts proves nothing about preemption.
typedef struct sim_sums {
    uint64_t events;
    core_counters core;
    sim_call_counts calls;
    sim_blames blames;
} sim_sums;

// A whole run. Returns when nothing is left; a violation ends the process.
void sim_world_run(uint64_t seed, uint64_t events, sim_sums *sums);

#endif
