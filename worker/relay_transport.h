// relay_transport: what a way of handing rows on gives to relay.c. Included by relay*.c and
// no_nccl.c only.
#ifndef OCTANT_WORKER_RELAY_TRANSPORT_H
#define OCTANT_WORKER_RELAY_TRANSPORT_H

#include "worker/relay.h"

typedef struct relay_ops {
    const char *name;
    // To `count` ranks, or from one: only queue work on the kernels' stream.
    status (*send)(void *state, const int *to, int to_count, const float *x, size_t count,
                   int64_t deadline_ns);
    status (*receive)(void *state, int from, float *x, size_t count, int64_t deadline_ns);
    status (*check)(void *state); // whether it has failed; never waits
    void (*abort)(void *state);   // ends what waits on the device for other ranks
    void (*close)(void *state);
} relay_ops;

// Collective over all ranks; fails on all if on one, but for UNIMPLEMENTED (built without), which
// every rank of one build has alike. On an error *state is untouched.
status relay_nccl_open(const relay_options *o, int64_t deadline_ns, const relay_ops **ops,
                       void **state);

#endif
