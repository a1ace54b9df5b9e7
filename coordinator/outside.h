// outside: what the coordinator needs so that a request may leave the site: the policy (who may go
// where), the books (an audit row before a byte, costs after) and the edge that makes the calls.
// Built in two steps around the core, taken apart in two: the core's last words still find edge and
// books.
//
// No policy: nothing ever leaves. A policy with upstreams but no data directory cannot be obeyed,
// since what leaves must be on record, so the start is refused.
#ifndef OCTANT_COORDINATOR_OUTSIDE_H
#define OCTANT_COORDINATOR_OUTSIDE_H

#include "common/base/status.h"
#include "coordinator/core_thread.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/observe/upstream_metrics.h"
#include "coordinator/options.h"
#include "coordinator/route/routing_policy.h"
#include "coordinator/upstream/upstream_edge.h"

typedef struct outside {
    routing_policy *policy; // NULL: no file was named
    ledger *ledger;         // NULL: no --data-dir
    usage_port books;       // zeroed without a ledger
    upstream_metrics *metrics;
    upstream_edge *edge; // these two: NULL without upstreams
} outside;

// Reads the policy, opens the books. What was built when it fails is outside_free's.
status outside_open(outside *o, const options *given);

// The targets, for core_options; none without a policy.
upstreams_policy outside_upstreams(const outside *o);

// Starts the edge, if there are upstreams; its events go to `post`, of `core`.
status outside_start(outside *o, const options *given, void *core,
                     bool (*post)(void *core, const core_event *event, int64_t deadline_ns));

// Ends the calls under way while the core still hears of it.
void outside_close(outside *o, int64_t deadline_ns);

// Core and ingress have stopped.
void outside_free(outside *o);

#endif
