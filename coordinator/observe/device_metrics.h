// device_metrics: what the ranks' cards say of themselves, on /metrics and /status. A card that
// does not tell a number has no line and no field for it.
#ifndef OCTANT_COORDINATOR_OBSERVE_DEVICE_METRICS_H
#define OCTANT_COORDINATOR_OBSERVE_DEVICE_METRICS_H

#include "common/base/buf.h"
#include "coordinator/core/core.h"

void device_metrics_append(const core_view *view, buf *out);

// `,"device":{...}`; nothing when it is not known.
void device_metrics_append_json(const device_health *h, buf *out);

#endif
