// comm_transport: what a transport gives to comm.c. Included by comm*.c only.
#ifndef OCTANT_WORKER_COMM_TRANSPORT_H
#define OCTANT_WORKER_COMM_TRANSPORT_H

#include "worker/comm.h"

typedef struct comm_ops {
    const char *name;
    status (*allreduce_sum)(void *state, double *x, size_t count, int64_t deadline_ns);
    status (*broadcast)(void *state, void *bytes, size_t count, int64_t deadline_ns);
    status (*gather)(void *state, const void *mine, size_t count, void *all, int64_t deadline_ns);
    // Before the first send, on all ranks; `name` is of shared memory that rank 0 creates, before
    // the others come, and removes. Again: nothing happens.
    status (*open_lines)(void *state, const char *name, bool create);
    status (*send)(void *state, comm_line line, int to, const void *bytes, size_t count,
                   int64_t deadline_ns);
    status (*receive)(void *state, comm_line line, int from, void *bytes, size_t count,
                      int64_t deadline_ns);
    bool (*has_come)(void *state, comm_line line, int from);
    void (*progress)(void *state); // NULL, or: moves on what was sent; costs next to nothing
    void (*set_spin)(void *state, bool spin);
    int (*missing)(const void *state); // NULL: it does not know
    void (*close)(void *state);
} comm_ops;

struct comm {
    const comm_ops *ops;
    void *state;
    int rank, size, local_rank, local_size;
    comm *whole; // of a part; else NULL
    int first;   // rank 0's number in the whole
    comm_transport transport;
    int missing; // of the whole: the rank that was waited for in vain last; -1: none
    bool cores_shared, spin;
    bool mpi_started; // comm_close ends MPI too
    int64_t spent_ns;
    char host[COMM_HOST_MAX + 1];
};

extern const comm_ops comm_local_ops, comm_shm_ops, comm_mpi_ops;

// out[count] = the sum of `size` arrays that lie `stride` doubles apart, in their order.
void comm_sum_in_order(const double *first, size_t stride, int size, size_t count, double *out);

// Maps the segment `name` for `size` ranks; the rank that passes `create` makes it, before the
// others come. `first` is rank 0's number in the whole group, for messages.
status comm_shm_attach(const char *name, bool create, int rank, int size, int first, void **state);
status comm_shm_map(const char *name, bool create, size_t bytes, void **memory);
void comm_shm_unlink(const char *name);

enum { COMM_SEGMENT_NAME_MAX = 64 };
void comm_segment_name(char name[COMM_SEGMENT_NAME_MAX]); // one that nobody else has

// Lines in shared memory: comm_shm_lines.c.
typedef struct comm_lines comm_lines;
status comm_lines_attach(const char *name, bool create, int rank, int size, comm_lines **out);
void comm_lines_close(comm_lines *l); // NULL is allowed
status comm_lines_send(comm_lines *l, comm_line line, int to, const void *bytes, size_t count,
                       bool spin, int64_t deadline_ns);
status comm_lines_receive(comm_lines *l, comm_line line, int from, void *bytes, size_t count,
                          bool spin, int64_t deadline_ns);
bool comm_lines_has_come(const comm_lines *l, comm_line line, int from);

#endif
