// upstream_view: what the core knows about the upstreams (breakers, waits, alarms), for /metrics
// and for the JSON of /status and /health. Pure: view in, bytes out. What calls cost and how long
// they take is counted elsewhere: upstream_metrics.
#ifndef OCTANT_COORDINATOR_OBSERVE_UPSTREAM_VIEW_H
#define OCTANT_COORDINATOR_OBSERVE_UPSTREAM_VIEW_H

#include "common/base/buf.h"
#include "coordinator/core/core.h"

// Prometheus text; nothing without upstreams.
void upstream_view_append_metrics(const core_view *view, buf *out);

// An array of objects, one for each upstream:
//   {"name":"cheap","breaker":"open","disabled":false,"calls_open":0,"calls":9,"faults":5,"busy":0,
//    "wait_ms":1200,"reason":"..."}
// wait_ms: until it may be called again; 0: now; -1: not before somebody sees to it.
void upstream_view_append_json(const core_view *view, buf *out);

// One of them would be called now.
bool upstream_view_can_serve(const core_view *view);

#endif
