// router_parts: one decision in the making; for router*.c alone.
#ifndef OCTANT_COORDINATOR_ROUTE_ROUTER_PARTS_H
#define OCTANT_COORDINATOR_ROUTE_ROUTER_PARTS_H

#include "coordinator/route/router.h"

enum { ROUTER_BY_MAX = 127 };

typedef struct routing_case {
    const routing_policy *p;
    const route_facts *f;
    arena *memory;
    route_decision *out;
    route_target target;
    const routing_rule *rule; // NULL: none matches
    privacy_class privacy;
    char by[ROUTER_BY_MAX + 1]; // what decided the class: "key support"
    bool over_budget;           // an upstream was cut for its cost
} routing_case;

// A line of the trail; nothing unless it is wanted.
void router_say(routing_case *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Fills upstreams, order, spill_ns and cost_limit of the route.
void router_choose_targets(routing_case *c);

#endif
