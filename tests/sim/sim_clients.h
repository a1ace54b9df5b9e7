// sim_clients: who asks, and what they must hear: each request knows its answers beforehand, so
// that every piece is checked as it comes.
#ifndef OCTANT_TESTS_SIM_CLIENTS_H
#define OCTANT_TESTS_SIM_CLIENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/rng.h"
#include "coordinator/core/core.h"

enum { SIM_N_MAX = 4, SIM_CLIENTS = 6 };

typedef struct sim_clients sim_clients;

// What may have happened to a request, so that its end can be judged.
typedef struct sim_weather {
    bool calm;          // the last fault is long over: no group may be missing
    int least_capacity; // tokens that the smallest KV store of this run holds
    bool bad_numbers;   // some results had NaN logits
} sim_weather;

sim_clients *sim_clients_create(uint64_t seed);
void sim_clients_destroy(sim_clients *c);

// A new request for the core, which owns it until its end.
core_request *sim_clients_ask(sim_clients *c, int64_t now_ns, bool calm);

// Some live request, or 0.
uint64_t sim_clients_pick(sim_clients *c);
void sim_clients_cancelled(sim_clients *c, uint64_t id);

void sim_clients_hear_piece(sim_clients *c, uint64_t id, const answer_piece *piece);
void sim_clients_hear_end(sim_clients *c, core_request *request, const answer_end *end,
                          int64_t now_ns, const sim_weather *weather);

int sim_clients_alive(const sim_clients *c);

#endif
