// reduce_multicast: multicast memory (kernels/cuda/multicast.h) among the ranks of a comm, step by
// step, each agreed by all. May be included by reduce_peer.c only.
#ifndef OCTANT_WORKER_REDUCE_MULTICAST_H
#define OCTANT_WORKER_REDUCE_MULTICAST_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"
#include "kernels/cuda/multicast.h"
#include "worker/comm.h"

// Collective; fails on all ranks if on one, with that one's reason. DEADLINE_EXCEEDED: a rank did
// not come, and the group cannot go on; after any other error it can, without multicast. `bytes`
// at least, on every rank's card.
status reduce_multicast_open(comm *c, size_t bytes, int64_t deadline_ns, multicast **out);

#endif
