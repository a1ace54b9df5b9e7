// upstream_metrics: what /metrics counts about calls of upstreams. Counted by the upstreams'
// thread, read by any; without locks. What the core knows about them (breaker, waits) is in
// core_metrics.
#ifndef OCTANT_COORDINATOR_OBSERVE_UPSTREAM_METRICS_H
#define OCTANT_COORDINATOR_OBSERVE_UPSTREAM_METRICS_H

#include "common/base/buf.h"
#include "coordinator/core/upstream_call.h"

typedef struct upstream_metrics upstream_metrics;

// `policy` outlives it. NULL when memory is short.
upstream_metrics *upstream_metrics_create(const upstreams_policy *policy);
void upstream_metrics_destroy(upstream_metrics *m); // NULL is allowed

// `upstream` is an index into the policy's.
void upstream_metrics_begin(upstream_metrics *m, int upstream);
void upstream_metrics_end(upstream_metrics *m, int upstream, const upstream_end *end);

// Appends Prometheus text (exposition format 0.0.4).
void upstream_metrics_append(const upstream_metrics *m, buf *out);

#endif
