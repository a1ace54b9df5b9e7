// reduce_transport: what a way of reducing gives to reduce.c. Included by reduce*.c only.
#ifndef OCTANT_WORKER_REDUCE_TRANSPORT_H
#define OCTANT_WORKER_REDUCE_TRANSPORT_H

#include "worker/reduce.h"

typedef struct reduce_ops {
    const char *name;
    bool queues;
    status (*sum)(void *state, void *sums, size_t count, kernels_sums type, int64_t deadline_ns);
    status (*gather)(void *state, float *parts, size_t count,
                     int64_t deadline_ns);                    // where it queues
    status (*add_rmsnorm)(void *state, const reduce_norm *n); // NULL: sum, then the kernels' own
    status (*register_buffer)(void *state, void *sums, size_t bytes); // NULL: nothing to gain
    void (*watch)(void *state, size_t first, size_t count);           // NULL: it cannot look
    int (*first_bad)(const void *state);
    status (*check)(void *state); // NULL, or: whether the communicator has failed; never waits
    void (*abort)(void *state);   // NULL, or: ends what waits on the device for other ranks
    void (*close)(void *state);
} reduce_ops;

// Each opens collectively, and fails on all ranks if on one, but for UNIMPLEMENTED (built without),
// which every rank of one build has alike. On an error *state is untouched.
status reduce_host_open(const reduce_options *o, int64_t deadline_ns, const reduce_ops **ops,
                        void **state);
status reduce_peer_open(const reduce_options *o, int64_t deadline_ns, const reduce_ops **ops,
                        void **state);
status reduce_nccl_open(const reduce_options *o, int64_t deadline_ns, const reduce_ops **ops,
                        void **state);

#endif
