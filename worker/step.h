// step: one step of the group, from plan to result: words to all, forward, logits, sample. The
// leader calls step_begin for a plan, step_finish for its result, and step_idle while there is
// neither; all other ranks call step_follow in a loop and do what the leader says.
//
// Several steps may be under way, each begun before the one before it is finished:
// - Where devices hand their tokens on themselves (choose_fed): it is queued behind that one, and
//   no device ever waits for a host. What went wrong in a step is told when it is finished; the
//   steps behind it are worthless then.
// - With stages, as many as there are stages, up to STEP_AHEAD_MAX: the first stage works on it
//   while that one is in the stages behind. Hosts hand tokens on, so it may hold no row that takes
//   a token which a step under way has yet to choose: the coordinator plans waves of sequences so
//   that few do.
//
// Only the leader knows how a sequence is sampled; the others learn from the batch whether their
// largest logit or the whole row is wanted.
#ifndef OCTANT_WORKER_STEP_H
#define OCTANT_WORKER_STEP_H

#include <assert.h>
#include <stdbool.h>

#include "common/base/status.h"
#include "proto/cluster_msg.h"
#include "worker/batch.h"
#include "worker/choose.h"
#include "worker/comm.h"
#include "worker/decoder.h"
#include "worker/progress.h"
#include "worker/relay.h"

enum { STEP_AHEAD_MAX = BATCH_AHEAD_MAX };
static_assert((int)CHOOSE_FLIGHTS <= (int)STEP_AHEAD_MAX, "each has a place");

typedef struct step_parts {
    cluster_limits limits; // vocab and kv_blocks known
    const shard *shards;   // (ranks)
    comm *comm;            // of all ranks
    comm *stage;           // of this rank's stage
    decoder *decoder;
    reduce *reduce;
    relay *relay;
    kernels *kernels;
    progress *progress;
    const tokenizer *tokenizer; // of the model
    int max_vocab;      // the largest vocabulary slice of any rank, rounded up to an even number
    int64_t timeout_ns; // longest that a step may take, and a follower waits for its leader
} step_parts;

typedef struct step step;

// RESOURCE_EXHAUSTED when memory is short.
status step_create(const step_parts *parts, step **out);
void step_destroy(step *s); // NULL is allowed

// Leader. Steps that have begun and are not finished, whether there is room for one more, and
// whether this plan's may begin now: not so while it needs tokens that steps under way have yet to
// choose, as rows that the host hands on, or for a grammar's mask.
int step_under_way(const step *s);
bool step_has_room(const step *s);
bool step_may_begin(const step *s, const step_plan *plan);

// Leader, while step_may_begin. With stages the plan stays where it is until its step is
// finished. INVALID_ARGUMENT: the plan is wrong, no rank has seen it. Other errors: the
// group cannot go on.
status step_begin(step *s, const step_plan *plan);

// Leader, while a step is under way: whether step_finish would not wait for the device, or for the
// stage before, any more.
bool step_is_done(const step *s);

// Leader. The oldest step's result. *result lies in memory of `s` (result->memory is NULL) and is
// valid until the next step_begin or step_finish. Errors: the group cannot go on.
status step_finish(step *s, step_result *result);

// Both, for a leader that has no other step under way.
status step_execute(step *s, const step_plan *plan, step_result *result);

// After an error of these: what kind it was, and the rank at fault (-1: not one).
cluster_failure step_failure(const step *s, int *rank);

// The next three with no step under way, or its result is dropped.

// Leader. Tells the others that it lives; at least each half timeout while no plan comes.
status step_idle(step *s);

// Leader. The others' step_follow then reports the end.
status step_end(step *s);

// Leader. Nothing of this epoch counts any more: the others' step_follow reports it, and all ranks
// have closed all slots.
status step_cut(step *s);

// Others. Takes part in one of these.
typedef enum step_turn { STEP_GOES_ON, STEP_ENDED, STEP_IS_CUT } step_turn;
status step_follow(step *s, step_turn *turn);

#endif
