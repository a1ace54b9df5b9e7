// peer_group: one rank's membership in a group whose devices map each other's memory (peer.h):
// makes the region, maps the others', picks one-shot, two-shot or multicast, and reads the report
// of who did not come.
//
// The ranks are processes; what they have to tell each other at the start (peer_invitation) goes by
// whatever joins them: worker/reduce_peer.c sends it through comm.h, a check through a pipe. They
// may share one card.
//
// May be included by worker/reduce_peer.c, bench and tests.
#ifndef OCTANT_KERNELS_CUDA_PEER_GROUP_H
#define OCTANT_KERNELS_CUDA_PEER_GROUP_H

#include <stdbool.h>

#include "common/base/status.h"
#include "kernels/cuda/multicast.h"
#include "kernels/cuda/peer.h"

typedef struct peer_group peer_group;

// Plain bytes: how the others map a rank's region.
typedef struct peer_invitation {
    unsigned char memory[64]; // cudaIpcMemHandle_t
    char card[32];            // PCI bus id
    int64_t process;
    uint64_t bytes; // of the region; the same for all, else they were started differently
} peer_invitation;

typedef struct peer_group_options {
    int rank, ranks;       // 2 <= ranks <= PEER_RANKS_MAX, all on this host
    int first;             // what messages call rank 0; the others follow
    size_t one_shot_bytes; // longest message that may go one-shot; rounded up to 16
    size_t two_shot_bytes; // longest of one two-shot launch; longer messages are cut
    int64_t limit_ns;      // longest that a kernel waits for another rank
} peer_group_options;

// Memory for the region on the calling thread's present device. RESOURCE_EXHAUSTED.
status peer_group_create(const peer_group_options *options, peer_group **out,
                         peer_invitation *mine);

// Maps the regions of all[ranks], all[rank] being this one's own. FAILED_PRECONDITION where two
// cards cannot reach each other.
status peer_group_join(peer_group *g, const peer_invitation *all);

// Messages of up to this many bytes go one-shot, longer ones two-shot. The same on all ranks. Set
// to all that have room at first.
void peer_group_set_one_shot(peer_group *g, size_t bytes);

// Of the messages that do not go one-shot, those from `from_bytes` on go by multicast
// (peer_multicast.h), through `memory`, which all ranks have bound; shorter ones two-shot. The same
// on all ranks. NULL: none do, as at first.
void peer_group_set_multicast(peer_group *g, const multicast_view *memory, size_t from_bytes);

// Queues data (count) = its sum over ranks; every rank the same count and type. INTERNAL with the
// device's error.
status peer_group_sum(peer_group *g, void *stream, void *data, size_t count, kernels_sums type);

// The same, then cuda_add_rmsnorm (norm.h) with the result: in one kernel where the message goes
// one-shot or by multicast and the kernel takes it, else in two; the bits are the same. sums (T, D)
// are of no use afterwards.
status peer_group_add_rmsnorm(peer_group *g, void *stream, float *x, void *sums, kernels_sums type,
                              const float *weight, float epsilon, int tokens, int width, void *out);

// Queues the gathering of parts (ranks, each bytes), device memory: every rank brings its own, in
// its place, and afterwards has all. `each` is a multiple of 8, parts are aligned to 8.
status peer_group_gather(peer_group *g, void *stream, void *parts, size_t each);

// UNAVAILABLE, with the numbers of the ranks, once a rank has not come in time: what was summed
// since is worthless, and the group of no more use. Never waits.
status peer_group_check(const peer_group *g);

// Unmaps the others' regions. To be called by all, and finished by all, before any destroys its
// own; nothing may be queued any more.
void peer_group_leave(peer_group *g);
void peer_group_destroy(peer_group *g); // NULL is allowed

#endif
