// route: where one request may go. The router (route/router.h) decides it once, on an ingress
// thread, from the policy and the request; the core obeys it for the request's whole life. What the
// route does not list is never tried; a zeroed route stays on the site's own groups.
#ifndef OCTANT_COORDINATOR_CORE_ROUTE_H
#define OCTANT_COORDINATOR_CORE_ROUTE_H

#include "coordinator/core/policy.h"

typedef struct core_route {
    privacy_class privacy;
    bool local;          // a group of ours may serve it
    bool upstream_first; // the router preferred the upstreams (complexity, weights, maintenance)
    uint8_t upstreams[POLICY_TARGETS_MAX]; // indexes into the policy's; none with LOCAL_ONLY
    int upstream_count;
    midstream_policy midstream;
    bool may_continue;  // no tools, no JSON mode, no reasoning: a partial answer can be handed over
    int64_t spill_ns;   // queue time after which it may leave; 0: never for that
    int64_t cost_limit; // of all attempts, microdollars; 0: none
    const char *rule;   // which rule of the policy decided, for the audit: "key support"; not NULL
    // The conversation as an upstream is to get it (redacted already), for upstream/ alone; lives
    // in the request's memory. NULL: it cannot leave.
    const struct upstream_prompt *prompt;
} core_route;

#endif
