// batch: what all ranks know of the open sequences (how long, which blocks), and the form in which
// a step reaches them.
//
// The leader checks a StepPlan against that state and writes it as a run of 32-bit words, "the last
// sampled token" already filled in; rank 0 tells all ranks the words; every rank, the leader too,
// applies them to its own state. So all ranks hold the same state by construction, and a plan that
// is wrong is refused before any rank has seen it. The leader may write a few plans before it
// applies the first of them: each is checked against the state behind those before it.
#ifndef OCTANT_WORKER_BATCH_H
#define OCTANT_WORKER_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "kernels/kernels.h"
#include "proto/cluster_msg.h"

typedef enum batch_kind {
    BATCH_STEP = 1,
    BATCH_IDLE, // nothing to do; the leader is alive
    BATCH_END,  // the group ends in order
    BATCH_CUT,  // the coordinator is gone, or has given this group up: all slots are closed
    BATCH_LAND, // no step follows so far: the outcome of the oldest under way is taken now
} batch_kind;

// How a row's logits are used.
typedef enum batch_sampling {
    BATCH_NO_SAMPLE,
    BATCH_ARGMAX, // greedy, nothing that moves logits: each rank's largest is enough
    BATCH_FULL,   // the leader needs the whole row
} batch_sampling;

// The rows of one sequence in the step being run.
typedef struct batch_rows {
    int32_t slot;
    int row, count, position; // first row, rows, position of the first
    batch_sampling sampling;
    int prompt_rows; // of the first rows, those whose tokens' log probabilities are asked for
    bool continues;  // rows of this sequence have run before
    bool keep_last;  // the last row's logits give the next chunk's first log probability
} batch_rows;

typedef struct batch batch;

// limits.vocab and limits.kv_blocks are known. ahead: runs of words that may be written and not yet
// applied, from 1 to BATCH_AHEAD_MAX. RESOURCE_EXHAUSTED.
enum { BATCH_AHEAD_MAX = 4 };
status batch_create(const cluster_limits *limits, int ahead, batch **out);
void batch_destroy(batch *b); // NULL is allowed

// Leader. Checks the plan and makes its words; `sampling_of[i]` (rows_count) says how rows[i] is
// sampled. INVALID_ARGUMENT names the field; the state is then as before. prompt_logprobs and
// prompt_tokens of a slot come from its OpenSeq. A slot that the plan closes is closed for the
// plans that follow.
status batch_write(batch *b, const step_plan *plan, const batch_sampling *sampling_of);
void batch_write_mark(batch *b, batch_kind kind);

// The token that stands for "last sampled" in the slot's next row. BATCH_FED: the ranks' devices
// have it, and the row's token is kernels_fed(slot).
enum { BATCH_FED = -2 };
void batch_set_last_token(batch *b, int32_t slot, int32_t token);

// The words that were written last, or, on other ranks, where to receive them: first
// BATCH_HEAD_WORDS of them (there are always that many to read), then, when batch_word_count says
// that there are more, the rest.
enum { BATCH_HEAD_WORDS = 256 };
int32_t *batch_words(batch *b);
size_t batch_word_count(const batch *b);

size_t batch_words_of(const step_plan *plan); // that a plan would become

// Every rank, words in place: applies those that were written first and not yet applied. After
// BATCH_STEP the getters below describe the step.
batch_kind batch_apply(batch *b);
const int32_t *batch_applied_words(const batch *b, size_t *count);

// Every rank: no slot is open any more.
void batch_clear(batch *b);

uint64_t batch_step(const batch *b);
const int32_t *batch_tokens(const batch *b, int *count);
const kernels_seq *batch_seqs(const batch *b, int *count);
const batch_rows *batch_entries(const batch *b, int *count); // same order as seqs

#endif
