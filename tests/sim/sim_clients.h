// sim_clients: who asks, and what they must hear: each request knows its answers beforehand, so
// that every piece is checked as it comes.
#ifndef OCTANT_TESTS_SIM_CLIENTS_H
#define OCTANT_TESTS_SIM_CLIENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/rng.h"
#include "coordinator/core/core.h"

struct sim_traffic;
enum { SIM_N_MAX = 4, SIM_CLIENTS = 6, SIM_MODELS_MAX = 3 };

typedef struct sim_clients sim_clients;

// What goes wrong in a run.
typedef enum sim_mood {
    SIM_ROUGH,    // anything
    SIM_TIMID,    // nothing
    SIM_POISONED, // groups die of requests, and of nothing else
} sim_mood;

// What there is to ask for.
typedef struct sim_site {
    sim_mood mood;
    int model_count;
    const char *models[SIM_MODELS_MAX];
    int versions[SIM_MODELS_MAX];       // of the files that its groups serve, or served last
    bool served[SIM_MODELS_MAX];        // by a group of ours, if it lives
    int least_capacity[SIM_MODELS_MAX]; // tokens that the smallest KV store of its groups holds
    upstreams_policy upstreams;
} sim_site;

// What may have happened to a request, so that its end can be judged.
typedef struct sim_weather {
    bool calm; // the last fault is long over: no group may be missing
    bool shutting_down;
} sim_weather;

sim_clients *sim_clients_create(uint64_t seed, const sim_site *site); // `site` outlives it
void sim_clients_destroy(sim_clients *c);

// A new request for the core, which owns it until its end; NULL: that client was left out.
core_request *sim_clients_ask(sim_clients *c, int64_t now_ns, bool calm);

// Some live request, or 0.
uint64_t sim_clients_pick(sim_clients *c);
bool sim_clients_lives(const sim_clients *c, uint64_t id);
void sim_clients_cancelled(sim_clients *c, uint64_t id);

void sim_clients_hear_piece(sim_clients *c, uint64_t id, const answer_piece *piece);
void sim_clients_hear_end(sim_clients *c, core_request *request, const answer_end *end,
                          int64_t now_ns, const sim_weather *weather);

// A group died of the request whose sampling has this seed; those below SIM_POISON kill nothing.
enum { SIM_POISON = 1 << 20 };
void sim_clients_killed(sim_clients *c, uint64_t seed);
uint64_t sim_clients_killer(uint64_t seed); // its id
// CORE_NOTICE that the request with this public id is not tried again; `killed`: the group that was
// lost just now died of a request, whichever that was.
void sim_clients_quarantined(sim_clients *c, const char *public_id, bool killed);

typedef struct sim_blames {
    uint64_t quarantined, unlucky; // unlucky: of them, those that kill nothing
} sim_blames;
void sim_clients_add(const sim_clients *c, sim_blames *sum);

// Upstreams. A request may be gone already when its call is over.
void sim_clients_called(sim_clients *c, const core_effect *e, const struct sim_traffic *traffic,
                        int64_t now_ns);
void sim_clients_call_cancelled(sim_clients *c, uint64_t id, uint64_t call);
void sim_clients_said(sim_clients *c, uint64_t id, uint64_t call, const char *text, size_t size);
void sim_clients_called_tool(sim_clients *c, uint64_t id, uint64_t call, const char *arguments,
                             size_t size);
void sim_clients_call_ending(sim_clients *c, uint64_t id, uint64_t call, const upstream_end *end);
void sim_clients_call_ended(sim_clients *c, uint64_t id);

int sim_clients_alive(const sim_clients *c);

#endif
