// comm_transport: what a transport gives to comm.c. Included by comm*.c only.
#ifndef OCTANT_WORKER_COMM_TRANSPORT_H
#define OCTANT_WORKER_COMM_TRANSPORT_H

#include "worker/comm.h"

typedef struct comm_ops {
    const char *name;
    status (*allreduce_sum)(void *state, double *x, size_t count, int64_t deadline_ns);
    status (*broadcast)(void *state, void *bytes, size_t count, int64_t deadline_ns);
    status (*gather)(void *state, const void *mine, size_t count, void *all, int64_t deadline_ns);
    void (*set_spin)(void *state, bool spin);
    int (*missing)(const void *state); // NULL: it does not know
    void (*close)(void *state);
} comm_ops;

struct comm {
    const comm_ops *ops;
    void *state;
    int rank, size, local_rank, local_size;
    bool cores_shared;
    bool mpi_started; // comm_close ends MPI too
    int64_t spent_ns;
    char host[COMM_HOST_MAX + 1];
};

extern const comm_ops comm_local_ops, comm_shm_ops, comm_mpi_ops;

// out[count] = the sum of `size` arrays that lie `stride` doubles apart, in their order.
void comm_sum_in_order(const double *first, size_t stride, int size, size_t count, double *out);

// Maps the segment `name` for `size` ranks; the rank that passes `create` makes it, before the
// others come.
status comm_shm_attach(const char *name, bool create, int rank, int size, void **state);
void comm_shm_unlink(const char *name);

#endif
