// step: one step of the group, from plan to result: broadcast, forward, logits, sample. The leader
// calls step_execute for a plan and step_idle while there is none; all other ranks call step_follow
// in a loop and do what the leader says.
//
// Only the leader knows how a sequence is sampled; the others learn from the batch whether their
// largest logit or the whole row is wanted.
#ifndef OCTANT_WORKER_STEP_H
#define OCTANT_WORKER_STEP_H

#include <stdbool.h>

#include "common/base/status.h"
#include "proto/cluster_msg.h"
#include "worker/batch.h"
#include "worker/comm.h"
#include "worker/decoder.h"
#include "worker/progress.h"

typedef struct step_parts {
    cluster_limits limits; // vocab and kv_blocks known
    const shard *shards;   // (ranks)
    comm *comm;
    decoder *decoder;
    reduce *reduce;
    kernels *kernels;
    progress *progress;
    int max_vocab;      // the largest vocabulary slice of any rank, rounded up to an even number
    int64_t timeout_ns; // longest that a step may take, and a follower waits for its leader
} step_parts;

typedef struct step step;

// RESOURCE_EXHAUSTED when memory is short.
status step_create(const step_parts *parts, step **out);
void step_destroy(step *s); // NULL is allowed

// Leader. Runs a plan. *result lies in memory of `s` (result->memory is NULL) and is valid until
// the next call. INVALID_ARGUMENT: the plan is wrong, no rank has seen it. Other errors: the group
// cannot go on.
status step_execute(step *s, const step_plan *plan, step_result *result);

// After an error of step_execute: what kind it was, and the rank at fault (-1: not one).
cluster_failure step_failure(const step *s, int *rank);

// Leader. Tells the others that it lives; at least each half timeout while no plan comes.
status step_idle(step *s);

// Leader. The others' step_follow then reports the end.
status step_end(step *s);

// Leader. Nothing of this epoch counts any more: the others' step_follow reports it, and all ranks
// have closed all slots.
status step_cut(step *s);

// Others. Takes part in one of the four.
typedef enum step_turn { STEP_GOES_ON, STEP_ENDED, STEP_IS_CUT } step_turn;
status step_follow(step *s, step_turn *turn);

#endif
