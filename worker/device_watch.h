// device_watch: a thread that asks this rank's card for its health (kernels/monitor.h), once a
// second and at once when it reports a fault. What it heard last lies where the heartbeat takes it,
// which therefore never waits for a driver: one that does not answer makes the health unknown.
#ifndef OCTANT_WORKER_DEVICE_WATCH_H
#define OCTANT_WORKER_DEVICE_WATCH_H

#include "common/base/device_health.h"
#include "common/base/status.h"
#include "kernels/monitor.h"

typedef struct device_watch device_watch;

// Watches nothing yet. NULL when memory is short.
device_watch *device_watch_create(void);

// Begins with the card of this number, once; later calls do nothing. A card that cannot be watched
// is no error: one debug line says why.
void device_watch_start(device_watch *w, int card);

// What is known of the card now. Returns whether it has a fault after which this rank cannot go on;
// `fault` says which.
bool device_watch_look(device_watch *w, device_health *out, char fault[KERNELS_FAULT_MAX]);

void device_watch_destroy(device_watch *w); // NULL is allowed

#endif
