// join: from strangers to a group: the ranks meet and compare what they are, rank 0 registers them
// with the coordinator, all get the plan. The meeting is held once; registering again whenever the
// coordinator was gone or has given the group up, with the same ranks and a new epoch.
#ifndef OCTANT_WORKER_JOIN_H
#define OCTANT_WORKER_JOIN_H

#include "common/base/status.h"
#include "common/model/model.h"
#include "proto/cluster_msg.h"
#include "worker/comm.h"
#include "worker/leader_link.h"
#include "worker/options.h"

typedef struct join join;

// What a rank brings. All outlive the join.
typedef struct join_options {
    const options *o;
    comm *comm;
    const cluster_key *key; // of the coordinator
    const model *model;
    const char *backend; // rank 0's, as engine_probe_backend names it
} join_options;

// Collective: all ranks tell each other host, version and model. FAILED_PRECONDITION on all when
// they differ.
status join_meet(const join_options *options, join **out);
void join_destroy(join *j); // NULL is allowed

// Collective. Rank 0 dials the coordinator for at most `patience_ns`; all ranks get the response
// (arena_destroy(out->memory)). `again`: the group has served before: a coordinator that is
// shutting down or full is asked again, too. *link: rank 0's, to open its step stream with.
// Otherwise the first refusal is the answer.
status join_register(join *j, int64_t patience_ns, bool again, register_response *out,
                     leader_link **link);

#endif
