// decoder: the forward pass of one rank: from the rows of a step to hidden states, and from chosen
// hidden states to this rank's part of the logits. What the families differ in is in the config and
// in what the weights have (model_config.h).
//
// Every rank runs the same calls with the same arguments. The hidden states (T, D) are whole and
// equal, bit by bit, on every rank of a stage; heads, FFN columns and vocabulary rows are this
// rank's own.
//
// With several stages (shard_plan.h) a rank runs its stage's layers: it embeds, or receives the
// rows from the stage before, and sends them on, or makes logits. A step of many rows is cut into
// micro-batches, so that a stage works on one while the next stage works on the one before it. A
// row's numbers do not depend on the rows beside it (kernels.h), so no cut leaves a trace.
#ifndef OCTANT_WORKER_DECODER_H
#define OCTANT_WORKER_DECODER_H

#include "common/base/status.h"
#include "common/model/model_config.h"
#include "common/model/shard_plan.h"
#include "kernels/kernels.h"
#include "worker/comm.h"
#include "worker/kv_store.h"
#include "worker/reduce.h"
#include "worker/relay.h"
#include "worker/weights.h"

// Rows of logits made at once, for which the output matrix is read once; it bounds the (rows, V)
// buffers whatever a step asks for. On cpu DECODER_LOGIT_ROWS; on a device as many as `seqs`
// sequences sample in a step, where (rows, V) floats are within DECODER_LOGIT_BYTES. `vocab` is
// that of the model: all ranks come to the same number.
enum { DECODER_LOGIT_ROWS = 32 };
#define DECODER_LOGIT_BYTES ((size_t)256 << 20)
int decoder_logit_rows(const kernels *k, int seqs, int vocab);

typedef struct decoder_parts {
    const model_config *config;
    const shard *shard;
    const weights *weights;
    kernels *kernels;
    reduce *reduce; // of the stage
    relay *relay;   // between stages
    int max_tokens; // rows of a step
    int kept_rows;  // hidden rows that outlive a step
    int logit_rows; // rows of one decoder_logits, at most
    int max_vocab;  // at least the largest vocabulary slice of any rank: row capacity of the logits
} decoder_parts;

typedef struct decoder decoder;

// Allocates all that later calls need. RESOURCE_EXHAUSTED.
status decoder_create(const decoder_parts *parts, decoder **out);
void decoder_destroy(decoder *d); // NULL is allowed

// Where keys and values lie; before the first forward. It comes last because it takes what is left.
void decoder_set_kv(decoder *d, const kv_store *kv);

// The rows of a step, host memory, unchanged until the next forward.
typedef struct decoder_step {
    const int32_t *ids; // (tokens) see kernels_step, as for fed and slots
    const int32_t *fed; // device memory, or NULL
    int tokens;
    const kernels_seq *seqs; // (seq_count)
    int seq_count;
    const int32_t *wanted; // (wanted_count) rows of this step, or kept rows, for decoder_logits
    const int32_t *slots;  // (wanted_count), or NULL
    int wanted_count;
    int turn; // see kernels_step
    // Calls to be queued behind the layers, and recorded with them (kernels_run, kernels_tail); for
    // a model in one stage whose sums are queued. NULL: none.
    status (*then)(void *context);
    void *then_context;
    uint64_t then_variant;
} decoder_step;

// Runs the rows through all layers and writes their keys and values to the cache. On a device this
// only queues work. Errors are the communicator's or the device's: the group cannot go on.
status decoder_forward(decoder *d, const decoder_step *step, int64_t deadline_ns);

// Keeps hidden row `row` of the last forward under `index` (0 to kept_rows - 1), and the number
// that names it among wanted rows.
void decoder_keep_row(decoder *d, int row, int index);
int decoder_kept_row(const decoder *d, int index);

// logits (count, V of this rank), device memory with room for (logit_rows, max_vocab): of the
// wanted rows first to first + count - 1 of the last forward. count <= logit_rows. Valid until the
// next call; on a device only queued. Of no meaning but in the last stage.
const float *decoder_logits(decoder *d, int first, int count);

// Before a step: has its row `row` looked at, where the transport can (reduce_watch).
void decoder_watch(decoder *d, int row);
// Row `row` of the last forward, (D), device memory.
const float *decoder_row(const decoder *d, int row);
int decoder_width(const decoder *d);

// Waits until all that was queued is done.
status decoder_wait(decoder *d, int64_t deadline_ns);

#endif
