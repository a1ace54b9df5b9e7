// heartbeat: each rank's sign of life: a thread with its own channel to the coordinator tells
// phase, step, load and memory every heartbeat_ms. It reads progress and touches nothing else, so
// it goes on while the main thread computes, and tells the truth when that stands still.
//
// It is also how a rank learns that it is not wanted: the coordinator answers "stop", or does not
// answer for lost_timeout. Then the main thread gets a short grace to end in order; after that the
// process ends with one line.
#ifndef OCTANT_WORKER_HEARTBEAT_H
#define OCTANT_WORKER_HEARTBEAT_H

#include <stdint.h>

#include "common/base/status.h"
#include "proto/cluster_msg.h"
#include "worker/progress.h"

typedef struct heartbeat_sender heartbeat_sender;

typedef struct heartbeat_options {
    const char *address; // of the coordinator; outlives the sender
    heartbeat first;     // group, epoch, rank, pid, host
    progress *progress;
    int interval_ms;
    int64_t lost_timeout_ns;
} heartbeat_options;

status heartbeat_start(const heartbeat_options *options, heartbeat_sender **out);

// Tells a fatal error now, in a last heartbeat, waiting shortly for the answer.
void heartbeat_tell_error(heartbeat_sender *h, const char *error);

void heartbeat_stop(heartbeat_sender *h); // NULL is allowed

#endif
