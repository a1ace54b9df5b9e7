// sim_places: where worker groups run: started, lost, started again, as a supervisor does. Between
// a place and the coordinator lies a network: what is sent arrives later, in the order of its
// stream; a cut link holds it back; what a closed stream still carried is lost or comes late.
#ifndef OCTANT_TESTS_SIM_PLACES_H
#define OCTANT_TESTS_SIM_PLACES_H

#include "common/base/rng.h"
#include "coordinator/core/core.h"
#include "tests/sim/sim_group.h"
#include "tests/sim/sim_queue.h"
#include "tests/sim/sim_schedule.h"

enum { SIM_RANKS_MAX = 3, SIM_GHOSTS_MAX = 8 };

struct world;

typedef struct place {
    rng random;
    int model;      // of the site
    int version;    // of its files here
    uint64_t epoch; // 0: nothing registered
    int ranks, stages, kv_blocks;
    cluster_limits limits;
    sim_group *group;
    step_plan plans[CORE_PLANS_MAX];
    int plan_count;
    bool spare;                      // to take over when the others are gone
    bool ready, hangs, dead;         // dead: and the coordinator will hear of it
    int silent_rank;                 // -1: none
    int late_rank;                   // that a step which hangs waits for
    uint64_t begun;                  // steps entered
    uint32_t may_lose;               // bits of loss_reason: what may be said of its end
    bool lost_told;                  // and was
    uint64_t killer;                 // seed of the request that it died of; 0: of none
    int slow_ms;                     // more per step
    int64_t cut_until_ns;            // the link carries nothing until then
    int64_t arrived_ns;              // of the last message from here: a stream keeps its order
    int faults, results;             // so far, of both lives and deaths: they have numbers
    uint64_t ghosts[SIM_GHOSTS_MAX]; // epochs that only the coordinator still believes in
    int ghost_count;
    register_request registration; // borrowed by the core until it replies
    const char *hosts[SIM_RANKS_MAX];
    char fingerprint[16];
} place;

typedef struct sim_places {
    place items[SIM_PLACES_MAX];
    int count;
    model_config config; // of every model
} sim_places;

// A place for a model of the site, whose first registration is sent at once.
void sim_places_open(struct world *w, int model, uint64_t seed);
void sim_places_close(struct world *w);

// Effects.
void sim_places_plan(struct world *w, uint64_t epoch, step_plan *plan);
void sim_places_reply(struct world *w, core_effect *e);
void sim_places_bye(struct world *w, const core_effect *e);
void sim_places_notice(struct world *w, const core_notice *n);

// What is due at a place.
void sim_places_run(struct world *w, const sim_item *item);

#endif
