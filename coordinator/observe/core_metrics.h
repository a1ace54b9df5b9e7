// core_metrics: the core's view for people and their tools: Prometheus text for /metrics, JSON for
// /status. Pure: view in, bytes out.
#ifndef OCTANT_COORDINATOR_OBSERVE_CORE_METRICS_H
#define OCTANT_COORDINATOR_OBSERVE_CORE_METRICS_H

#include "coordinator/core/core.h"
#include "coordinator/observe/metrics.h"

void core_metrics_append(const core_view *view, buf *out);

// The fields of octant.v1.ServerInfoResponse, by the same names.
void core_status_append(const core_view *view, const metrics_totals *totals, buf *out);

#endif
