// relay: hands the residual stream from stage to stage (shard_plan.h): a rank of the first stage
// receives nothing, one of the last sends nothing, and with one stage nobody does anything.
//
// All ranks of a stage hold the same rows, so each rank receives from one rank of the stage before:
// rank t of b from rank t * a / b of a, which is its own counterpart where the stages are equally
// wide, and one that others receive from too, or does not send at all, where they are not.
#ifndef OCTANT_WORKER_RELAY_H
#define OCTANT_WORKER_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/model/shard_plan.h"
#include "kernels/kernels.h"
#include "worker/comm.h"
#include "worker/progress.h"

typedef struct relay_options {
    comm *comm; // of all stages
    kernels *kernels;
    progress *progress;
    const shard *shards;   // (ranks)
    size_t max_count;      // floats of the longest message
    bool by_host;          // on a device, too
    bool by_nccl;          // or fail; else by the host where NCCL cannot
    const char *nccl_path; // libnccl.so.2; NULL: where the loader finds it
} relay_options;

typedef struct relay relay;

// Collective over all ranks: the same outcome on all. FAILED_PRECONDITION and the like where NCCL
// is demanded and cannot work.
status relay_open(const relay_options *o, int64_t deadline_ns, relay **out);
void relay_close(relay *r); // NULL is allowed

// Where this rank stands.
shard_place relay_place(const relay *r);

// Whether the two below only queue work, so that they may be recorded by kernels_run.
bool relay_queues(const relay *r);

// Whether the rows that relay_receive would wait for have begun to come, as far as the host can
// tell: always so where they go from device to device.
bool relay_has_come(relay *r);

// x[count], device memory: of the stage before, to the stage behind, in order with the kernels' own
// calls. Both do nothing at the ends. An error means that the group cannot go on.
status relay_receive(relay *r, float *x, size_t count, int64_t deadline_ns);
status relay_send(relay *r, const float *x, size_t count, int64_t deadline_ns);

// Of devices that hand on by themselves: whether that has failed, without waiting; and its end,
// when the group cannot go on. reduce_wait calls both.
status relay_check(relay *r);
void relay_abort(relay *r);

// Collectives counted so far (progress.h), and from where to count on: with what other stages do
// counted in, the numbers that heartbeats tell say of any two ranks which of them is behind.
uint64_t relay_counted(const relay *r);
void relay_count_from(relay *r, uint64_t collective);

#endif
