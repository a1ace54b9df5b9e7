// routing_policy: everything that octant.yaml says about where requests may go, as plain data. Read
// once at start (policy_file.h), immutable afterwards, shared by all threads; the router decides by
// it. The core sees only the part in `upstreams`.
//
// Money is in microdollars (1,000,000 = $1), times in nanoseconds, except for days and windows,
// which are of the calendar, in UTC.
#ifndef OCTANT_COORDINATOR_ROUTE_ROUTING_POLICY_H
#define OCTANT_COORDINATOR_ROUTE_ROUTING_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/policy.h"
#include "coordinator/route/complexity.h"
#include "coordinator/route/detectors.h"
#include "coordinator/route/window.h"

enum {
    ROUTING_MODELS_MAX = 256,
    ROUTING_RULES_MAX = 256,
    ROUTING_NAMES_MAX = 64, // keys or models of one rule, windows of one maintenance
    ROUTING_KEYS_MAX = 4096,
    ROUTING_MAINTENANCE_MAX = 64,
    ROUTING_WEIGHT_MAX = 1000000,
    ROUTING_LOCAL = -1, // in place of an upstream's index: our own groups
};

typedef struct routing_names {
    const char *const *items; // (count)
    int count;
} routing_names;

// A name that clients may use as "model".
typedef struct routing_model {
    const char *name;
    const char *model;     // what it means: a model of ours, or an upstream's name
    privacy_class privacy; // its requests' class is at most this open; not told: MAY_LEAVE
} routing_model;

typedef struct routing_key {
    const char *name; // as in the file of --api-keys
    privacy_class privacy;
} routing_key;

// Which requests a rule is for; all that is given must hold, what is not given holds.
typedef struct routing_match {
    routing_names keys;    // count 0: any
    routing_names models;  // as the client wrote it: a model's, an alias's or an upstream's name
    unsigned complexities; // bits 1 << complexity_level; 0: any
    int64_t prompt_tokens_least, prompt_tokens_most; // estimated; most 0: no bound
    bool tools_given, tools;                         // the request has tools
    const window *windows;                           // (window_count); 0: at any time
    int window_count;
} routing_match;

typedef struct routing_share {
    int upstream; // index, or ROUTING_LOCAL
    int weight;
} routing_share;

// The first rule that matches decides.
typedef struct routing_rule {
    const char *name;
    routing_match match;
    bool local; // our groups may serve it
    bool upstream_first;
    uint8_t upstreams[POLICY_TARGETS_MAX];
    int upstream_count;
    routing_share shares[POLICY_TARGETS_MAX + 1]; // who is asked first, by weight
    int share_count;                              // 0: `upstream_first` says it
    privacy_class privacy;                        // at most this open; not told: MAY_LEAVE
    int64_t spill_ns;                             // 0: never leaves for its time in the queue
    int64_t miss_cost;                            // what a missed deadline costs; 0: not compared
    midstream_policy midstream;
    int64_t cost_limit; // of one request, all attempts; 0: none
} routing_rule;

// While one of the windows is open, requests of these models go to upstreams first, where they may.
typedef struct routing_maintenance {
    routing_names models; // of ours, or aliases; count 0: all
    const window *windows;
    int window_count;
} routing_maintenance;

// What may be spent outside; zero is nothing.
#define ROUTING_NO_LIMIT INT64_MAX
typedef struct routing_budget {
    const char *name;             // of the key
    int64_t per_day, per_request; // or ROUTING_NO_LIMIT
} routing_budget;

typedef struct routing_policy {
    bool given; // the file had any of the sections; else nothing ever leaves
    upstreams_policy upstreams;
    const routing_model *models;
    int model_count;
    privacy_class default_privacy; // of keys that are not listed, and of nobody's
    const routing_key *keys;
    int key_count;
    const detectors *detectors; // not NULL
    complexity_options complexity;
    const routing_rule *rules;
    int rule_count;
    const routing_maintenance *maintenance;
    int maintenance_count;
    int64_t all_per_day;           // of all keys together, or ROUTING_NO_LIMIT
    routing_budget default_budget; // of keys that are not listed; name NULL
    const routing_budget *budgets;
    int budget_count;
    double gpu_hour; // dollars that an hour of one rank (one GPU) costs; 0: not told
    void *memory;    // all of the above; routing_policy_free's
} routing_policy;

void routing_policy_free(routing_policy *p); // NULL is allowed

// Index of the upstream of that name, or -1.
int routing_find_upstream(const routing_policy *p, const char *name);
// NULL: there is none.
const routing_model *routing_find_model(const routing_policy *p, const char *name);
// The budget that holds for a key; "" is nobody's.
const routing_budget *routing_find_budget(const routing_policy *p, const char *key);

// A request's client ("key:NAME" for a key, anything else for nobody) to the key's name, or "".
const char *routing_key_of_client(const char *client);

#endif
