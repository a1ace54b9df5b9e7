// nccl_group: a communicator of NCCL's among the ranks of a comm: opened together, polled, aborted
// by a deadline. What is done with it is its users' affair: sums in reduce_nccl.c, rows from stage
// to stage in relay_nccl.c, who alone include this.
//
// The communicator is non-blocking: NCCL's calls come back at once and are polled, so that a rank
// that never starts is an error by the deadline. A kernel of NCCL's that waits for a dead rank
// never ends by itself; nccl_group_abort ends it.
#ifndef OCTANT_WORKER_NCCL_GROUP_H
#define OCTANT_WORKER_NCCL_GROUP_H

#include <stdint.h>

#include "common/base/status.h"
#include "kernels/kernels.h"
#include "worker/comm.h"
#include "worker/nccl_library.h"

typedef struct nccl_group {
    comm *comm;
    kernels *kernels;
    nccl_library api;
    ncclComm_t communicator; // NULL: aborted, or not open
} nccl_group;

// Collective over `c`; fails on all ranks if on one. FAILED_PRECONDITION: a device that is none of
// CUDA's, no NCCL, or different ones. `path` is libnccl.so.2, or NULL: where the loader finds it.
status nccl_group_open(comm *c, kernels *k, const char *path, int64_t deadline_ns, nccl_group *out);

// The end, in order where nothing has failed: all ranks. One that was never opened (all zero) is
// allowed.
void nccl_group_close(nccl_group *g);

// Waits until nothing that was queued uses NCCL any more: before what it knows is taken back.
status nccl_group_quiet(nccl_group *g);

// `code` is what a call named `what` returned at once. Waits, if it is still under way.
status nccl_group_finish(nccl_group *g, ncclResult_t code, const char *what, int64_t deadline_ns);

// Whether the communicator has failed; never waits.
status nccl_group_check(nccl_group *g);

// Frees the device from kernels that wait for a rank. Again: nothing happens.
void nccl_group_abort(nccl_group *g);

#endif
