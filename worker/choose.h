// choose: from the hidden rows of a step to tokens: which rows' logits are wanted, whole or only
// their largest, and who chooses. Two steps may be under way: each has a flight of its own.
//
// Only the leader knows how a sequence is sampled, and samples whole rows (kernels/sampling.h);
// of greedy rows the ranks bring their largest logit each. Three ways, by where the logits are:
// - by the host: on cpu, and where sums go by way of the host. One step at a time.
// - one device: its sampler takes all rows.
// - devices that reach each other (reduce_queues): the leader's sampler takes whole rows, and then
//   all ranks take the tokens of all rows from one gathering of pairs of a value and a token, 16
//   bytes for each row and rank.
// In the last two no rank's host is needed between two steps: every device has the tokens last
// chosen, by slot (choose_fed).
//
// With stages of pipeline parallelism the logits are made in the leader's, which is the last, and
// the host hands tokens on, among the words of a step that follows; the ranks of other stages have
// nothing to do here.
#ifndef OCTANT_WORKER_CHOOSE_H
#define OCTANT_WORKER_CHOOSE_H

#include <assert.h>
#include <stdbool.h>

#include "common/base/status.h"
#include "common/model/tokenizer.h"
#include "proto/cluster_msg.h"
#include "worker/batch.h"
#include "worker/comm.h"
#include "worker/decoder.h"
#include "worker/progress.h"
#include "worker/reduce.h"

enum { CHOOSE_FLIGHTS = 2 };
static_assert((int)CHOOSE_FLIGHTS <= (int)KERNELS_MARKS, "each step that is under way has a mark");

typedef struct choose_parts {
    cluster_limits limits;
    const shard *shards; // (ranks)
    int ranks;           // of the group
    comm *comm;          // of this rank's stage
    decoder *decoder;
    reduce *reduce;
    kernels *kernels;
    progress *progress;
    const tokenizer *tokenizer; // of the model, for grammars
    int max_vocab;              // see step_parts
} choose_parts;

typedef struct choose choose;

// RESOURCE_EXHAUSTED when memory is short.
status choose_create(const choose_parts *parts, choose **out);
void choose_destroy(choose *c); // NULL is allowed

// Device memory, (max_seqs): the token last chosen in each slot, the same on all ranks; NULL where
// the host hands tokens on.
const int32_t *choose_fed(const choose *c);

// Leader. Puts a sequence in its slot.
status choose_open(choose *c, const open_seq *o);

// Leader. Whether the slot's sequence is under a grammar: it is sampled with a mask that the token
// before decides, which choose_take must have told.
bool choose_is_masked(const choose *c, int slot);

// How the rows of a sequence that are sampled are.
batch_sampling choose_kind(const open_seq *o);

// What is wanted of a step, valid until the next choose_begin.
typedef struct choose_wanted {
    const int32_t *rows;  // (count) rows of hidden states
    const int32_t *slots; // (count) the slots that get their tokens
    int count;
    uint64_t variant; // what choose_calls depends on, beside the count
} choose_wanted;

// Collects it of the batch's step, before decoder_forward. With choose_fed the rows are rounded up
// (kernels_round) and the sampler is told of them: surplus rows are nobody's.
status choose_begin(choose *c, int flight, const batch *b, int64_t deadline_ns, choose_wanted *out);

// With choose_fed, behind the layers: queues the logits and the choice of the step that began last.
// To be recorded (decoder_step.then); `context` is the choose.
status choose_calls(void *context);

// After decoder_forward. With choose_fed the step is queued by now, and the tokens to come are
// known by their slots; else makes the logits and chooses.
status choose_end(choose *c, int flight, batch *b, int64_t deadline_ns);

// After the step's kept rows are known: keeps them for the log probability of the next chunk.
void choose_keep_rows(choose *c, const batch *b);

// Leader, when what was queued is done: *out (count), valid until the flight begins again.
// *bad_rank is the rank whose logits were NaN or infinite, -1: not known; of such a row's result
// bad_numbers is set.
status choose_take(choose *c, int flight, batch *b, int64_t deadline_ns, seq_result **out,
                   int *count, int *bad_rank);

#endif
