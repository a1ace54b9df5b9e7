// heartbeat: each rank's sign of life: a thread with its own channel to the coordinator tells
// phase, step, load and memory every heartbeat_ms. It reads progress and touches nothing else, so
// it goes on while the main thread computes, and tells the truth when that stands still.
//
// A card with a fault after which it cannot be trusted ends the rank, once the coordinator has been
// told why.
//
// It is also how a rank learns that its epoch is over: the coordinator answers "stop", or does not
// answer for lost_timeout. Then the main thread is to leave the epoch (heartbeat_stop) and register
// again. Where it was told to stop and cannot, because it stands in a collective that nobody else
// comes to, the process ends with one line after stop_timeout. A coordinator that is merely gone
// ends nobody here. A launcher that is gone does, at once: whoever starts another one does not want
// these ranks beside its own.
#ifndef OCTANT_WORKER_HEARTBEAT_H
#define OCTANT_WORKER_HEARTBEAT_H

#include <stdint.h>

#include "common/base/status.h"
#include "proto/cluster_key.h"
#include "proto/cluster_msg.h"
#include "worker/device_watch.h"
#include "worker/progress.h"

typedef struct heartbeat_sender heartbeat_sender;

typedef struct heartbeat_options {
    const char *address; // of the coordinator; outlives the sender
    cluster_key key;
    heartbeat first; // group, epoch, rank, pid, host
    progress *progress;
    int interval_ms;
    int64_t lost_timeout_ns, stop_timeout_ns;
    device_watch *watch; // of the card; NULL: there is none
    int launcher; // pid of the parent without which the rank is to end (mpirun); 0: there is none
} heartbeat_options;

status heartbeat_start(const heartbeat_options *options, heartbeat_sender **out);

// Whether the epoch is over, and why.
bool heartbeat_is_stopped(heartbeat_sender *h, status *why);

// Tells a fatal error now, in a last heartbeat, waiting shortly for the answer.
void heartbeat_tell_error(heartbeat_sender *h, cluster_failure code, const char *error);

void heartbeat_stop(heartbeat_sender *h); // NULL is allowed

#endif
