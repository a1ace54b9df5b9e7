// reduce: turns the ranks' partial sums of a half layer into the whole, in device memory, in order
// with the kernels' own calls. Every rank calls the same verbs in the same order.
//
// How: `host` moves the sums through the communicator of comm.h (cpu; any device, slowly); `nccl`
// and `peer` add on the device and never stop the host.
#ifndef OCTANT_WORKER_REDUCE_H
#define OCTANT_WORKER_REDUCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"
#include "kernels/kernels.h"
#include "worker/comm.h"
#include "worker/progress.h"
#include "worker/relay.h"

typedef enum reduce_kind { REDUCE_AUTO, REDUCE_HOST, REDUCE_NCCL, REDUCE_PEER } reduce_kind;

typedef struct reduce_options {
    comm *comm;
    kernels *kernels;
    progress *progress;
    relay *relay;          // reduce_wait watches and ends it too; NULL is allowed
    reduce_kind kind;      // AUTO: host on cpu; on cuda the fastest that works here
    size_t max_count;      // sums of the largest call
    int64_t timeout_ns;    // longest that one sum may take on the device before the rank gives up
    bool fast;             // BF16 sums in NCCL's or a switch's own order, see kernels_cuda_options
    size_t one_shot_bytes; // peer: messages up to this long go one-shot; 0: measured at the start
    bool multicast;        // peer: by the switch between the cards, where that works and is faster
                           // and no row's numbers depend on it: exact sums, or `fast`
    const char *nccl_path; // libnccl.so.2; NULL: where the loader finds it
} reduce_options;

typedef struct reduce reduce;

// Collective. FAILED_PRECONDITION where a forced kind cannot work, with the reason.
status reduce_open(const reduce_options *o, int64_t deadline_ns, reduce **out);
void reduce_close(reduce *r);             // NULL is allowed
const char *reduce_name(const reduce *r); // "none" (one rank), "host", "nccl", "peer", "multicast"

// Tells of an array of `count` sums that reduce_sum will be given, before the first time: a
// transport may then do without copies. All ranks alike.
status reduce_register(reduce *r, void *sums, size_t count);

// Whether reduce_sum only queues work, so that it may be recorded by kernels_run.
bool reduce_queues(const reduce *r);

// sums[count] (device memory, of kernels_sums_type) = their sum over all ranks.
status reduce_sum(reduce *r, void *sums, size_t count, int64_t deadline_ns);

// parts (ranks, count), device memory: every rank brings its own part, in its place, and afterwards
// has all, bit by bit. For ranks that queue; count is even.
status reduce_gather(reduce *r, float *parts, size_t count, int64_t deadline_ns);

// reduce_sum of sums (T, D), then kernels_add_rmsnorm with them, in one kernel where the transport
// has it and it pays, or with a `post` weight kernels_add_normed. The bits are the same; what is
// left in `sums` is of no use.
typedef struct reduce_norm {
    float *x; // (T, D)
    void *sums;
    const float *post;   // (D); NULL: the sums are added as they are
    const float *weight; // (D); with `post` NULL where no norm follows
    float epsilon;
    int tokens, width; // T, D
    kernels_act *out;
} reduce_norm;
status reduce_add_rmsnorm(reduce *r, const reduce_norm *n, int64_t deadline_ns);

// From now on, looks at elements [first, first + count) of this rank's own part of every sum,
// before it is added to the others'. For transports by way of the host; others look at nothing.
void reduce_watch(reduce *r, size_t first, size_t count);
// How many sums after reduce_watch the first came that held NaN or infinity there, from 0;
// REDUCE_ALL_FINITE: none.
enum { REDUCE_ALL_FINITE = INT32_MAX };
int reduce_first_bad(const reduce *r);

// Waits for all that was queued on the kernels' device, this rank's sums included, and meanwhile
// watches the communicator. An error means that the group cannot go on; it names the rank that did
// not come where that is known.
status reduce_wait(reduce *r, int64_t deadline_ns);

// The same for what was queued before a mark (kernels_mark).
status reduce_wait_mark(reduce *r, int mark, int64_t deadline_ns);

#endif
