// weights: this rank's slices of the model, of its stage's layers: q, k, v, gate, up, embedding and
// output are cut by rows, o and down by columns; of a mixture of experts so is each expert, and the
// router is whole. Norms and biases, small, become float.
//
// On cpu matrices are views into the mapped files, never copied (a row_stride makes a column
// slice); their pages are read in by several threads, once, so that the first request does not wait
// for the disk. On a device they are read past the mapping, copied and repacked, all at the same
// time (loader.h), or come from a warm shard (warm_shard.h).
//
// Two exceptions: where a cut falls inside a quantisation block (odd head sizes), that matrix's
// slice is unpacked to float; and integers that a folder packs into words, transposed (GPTQ, AWQ),
// are made into rows of blocks (slice.h). On cpu these have memory of their own.
#ifndef OCTANT_WORKER_WEIGHTS_H
#define OCTANT_WORKER_WEIGHTS_H

#include "common/base/status.h"
#include "common/model/model.h"
#include "common/model/shard_plan.h"
#include "kernels/kernels.h"
#include "worker/progress.h"

typedef struct layer_weights {
    kernels_weight q, k, v;                // (heads * C, D)
    kernels_weight o;                      // (D, heads * C)
    kernels_weight router;                 // (experts, D); of a mixture
    kernels_weight *gate, *up;             // (F, D), of each expert; one without a mixture
    kernels_weight *down;                  // (D, F)
    float *attn_norm, *ffn_norm;           // (D)
    float *post_attn_norm, *post_ffn_norm; // (D) NULL when the model has none
    float *q_bias, *k_bias, *v_bias;       // NULL when the model has none
    // (D) device memory: q, k and v, and gate and up, are multiplied with column order[i] of the
    // normed rows in place i (layer_order.h). NULL: as it is
    int32_t *attn_order, *ffn_order;
} layer_weights;

typedef struct weights {
    kernels *kernels;
    kernels_weight embedding, output; // (V, D): the shard's rows of each
    float *output_norm;               // (D)
    float *inv_freq;                  // (rope_dims / 2)
    layer_weights *layers;            // (layer_count) from the shard's first on
    int layer_count;
    kernels_weight *ffn; // (layer_count, 3, experts): what gate, up and down point into
    void **owned;        // device memory, and on cpu what was unpacked; freed by weights_close
    int owned_count, owned_room;
    int64_t bytes; // of the matrices' slices
} weights;

typedef struct weights_options {
    const model *model; // outlives the weights
    const shard *shard;
    int rank, ranks; // a warm shard is of one rank
    int context;     // longest sequence that will be run
    kernels *kernels;
    progress *progress;      // load rises from 0 to 1
    const char *warm_folder; // of warm shards; NULL: none are kept
    int64_t warm_bytes;      // at most so many of this rank
    int64_t deadline_ns;
} weights_options;

// Loads all of them and logs one line with the rates. RESOURCE_EXHAUSTED; NOT_FOUND with the
// tensor; DATA_LOSS when a file changes meanwhile; else as loader_run. A warm shard that cannot be
// used or written costs a warning.
status weights_load(const weights_options *options, weights **out);
void weights_close(weights *w); // NULL is allowed

#endif
