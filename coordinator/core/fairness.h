// fairness: whose turn it is. The virtual token counter of Sheng et al. 2024 ("Fairness in Serving
// Large Language Models", OSDI 24): each client has a counter of the work done for it, and the next
// free place goes to the client with the lowest. A client that was idle is lifted to the lowest of
// those that are not, so that nobody saves up a claim; one that takes everything falls behind at
// once, without any limit to configure. Within a client: first come, first served.
//
// Clients that wait are in a binary heap by counter, so that it costs little how many they are.
// The table is bounded: a client without work is forgotten, longest idle first, when room is
// needed.
#ifndef OCTANT_COORDINATOR_CORE_FAIRNESS_H
#define OCTANT_COORDINATOR_CORE_FAIRNESS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    FAIRNESS_IDLE_MAX = 1024,   // idle clients that are remembered
    FAIRNESS_PROMPT_WEIGHT = 1, // of a prompt token that is computed
    FAIRNESS_ANSWER_WEIGHT = 2, // of a token that is sampled (the paper's ratio)
};

// What waits: embedded in the thing that does. Zeroed before the first use.
typedef struct fair_item {
    struct fair_item *prev, *next;
    struct fair_client *client; // NULL: does not wait
} fair_item;

typedef struct fairness fairness;
typedef struct fair_client fair_client;

fairness *fairness_create(void); // NULL when memory is short
void fairness_destroy(fairness *f);

// A request of this client begins; its end gives the hold back. NULL when memory is short.
fair_client *fairness_enter(fairness *f, const char *name);
void fairness_leave(fairness *f, fair_client *client);

// Puts an item in its client's queue: at the end, or at the front when it has waited before.
void fairness_push(fairness *f, fair_client *client, fair_item *item, bool front);
void fairness_remove(fairness *f, fair_item *item); // no-op when it does not wait

// The item whose turn it is; NULL when nothing waits. Stays where it is.
fair_item *fairness_first(const fairness *f);

// Work was done for the client.
void fairness_charge(fair_client *client, int64_t tokens, int weight);

int fairness_waiting(const fairness *f);

#endif
