// reduce_transport: what a way of reducing gives to reduce.c. Included by reduce*.c only.
#ifndef OCTANT_WORKER_REDUCE_TRANSPORT_H
#define OCTANT_WORKER_REDUCE_TRANSPORT_H

#include "worker/reduce.h"

typedef struct reduce_ops {
    const char *name;
    bool queues;
    status (*sum)(void *state, void *sums, size_t count, int64_t deadline_ns);
    status (*check)(void *state); // NULL, or: whether the communicator has failed; never waits
    void (*close)(void *state);
} reduce_ops;

// Each opens collectively; on an error *state is untouched.
status reduce_host_open(const reduce_options *o, int64_t deadline_ns, const reduce_ops **ops,
                        void **state);

#endif
