// router: where one request may go. Pure: policy and facts in, decision out; no clock, no I/O, so
// that `octant route explain` shows the very decision that the coordinator would make.
//
//   1. what the model's name means (an alias, a model of ours, an upstream's name);
//   2. the first rule of `routes:` that matches;
//   3. the privacy class: the strictest of key, model, rule, the client's word and what the
//      detectors found. Local-only wins over everything, and what is unclear is local-only;
//   4. of the rule's upstreams, those that can serve the request and that the budgets allow;
//   5. who is asked first: the rule, its weights, a maintenance window;
//   6. when it may leave its queue: if leaving costs less than missing the deadline.
//
// Whatever the inputs, a LOCAL_ONLY decision lists no upstream (asserted, and tested at random).
#ifndef OCTANT_COORDINATOR_ROUTE_ROUTER_H
#define OCTANT_COORDINATOR_ROUTE_ROUTER_H

#include "common/base/arena.h"
#include "common/base/status.h"
#include "coordinator/core/route.h"
#include "coordinator/route/routing_policy.h"

enum { ROUTE_TRAIL_MAX = 512 };

// What a name that a client wrote as "model" means. Texts are the policy's, or `model` itself.
typedef struct route_target {
    const char *local;          // the model of ours to look for; NULL: an upstream is meant
    int upstream;               // index, or -1
    const routing_model *alias; // NULL: none
} route_target;
route_target router_resolve(const routing_policy *p, const char *model);

typedef struct route_facts {
    const char *key;         // the key's name; "": nobody's
    const char *model;       // as the client wrote it, or the only model's name if it wrote none
    const char *privacy;     // as the client wrote it; NULL: nothing
    bool local_known;        // router_resolve().local is a model of ours
    const char *local_lacks; // what no model of ours can do: "tools"; NULL: nothing
    const char *only_local;  // what no upstream can do: "n is 2"; NULL: nothing
    bool tools, json;        // wanted
    bool scanned;            // false: nobody looked, so that it must not leave
    detector_findings findings;
    complexity_level complexity;
    int64_t prompt_tokens;               // estimated
    int64_t max_tokens;                  // of the answer; -1: not told
    uint64_t id;                         // of the request: the weights' die
    int64_t now;                         // Unix seconds
    int64_t time_left_ns;                // to the deadline
    int64_t spent_key, spent_all;        // microdollars today; negative: not known
    int64_t costs[POLICY_UPSTREAMS_MAX]; // of this request, estimated; negative: not known
    bool explain;                        // fill the trail
} route_facts;

typedef struct route_decision {
    core_route route; // `rule` lives in the arena; `prompt` is the caller's to set
    // Not OK: nobody may serve it: PERMISSION_DENIED (privacy), RESOURCE_EXHAUSTED (budget),
    // NOT_FOUND (no such model), INVALID_ARGUMENT (nobody can do it). One line for the client.
    status refused;
    const char *refused_param; // "tools", "model"; NULL
    const char *trail[ROUTE_TRAIL_MAX];
    int trail_count;
} route_decision;

// Whether the contents must be scanned before router_decide: false when it stays here anyway.
bool router_may_leave(const routing_policy *p, const route_facts *f);

// False: the arena is full; then *out is a decision that stays here.
bool router_decide(const routing_policy *p, const route_facts *f, arena *memory,
                   route_decision *out);

// For tests and reports: the class without what the contents say.
privacy_class router_class(const routing_policy *p, const route_facts *f);

#endif
