// weights: this rank's slices of the model. Matrices are views into the mapped files, never copied:
// q, k, v, gate, up, embedding and output are cut by rows, o and down by columns (a row_stride does
// it). Norms and biases, small, become float.
//
// One exception: where a cut falls inside a quantisation block (odd head sizes), that matrix's
// slice is unpacked to float.
#ifndef OCTANT_WORKER_WEIGHTS_H
#define OCTANT_WORKER_WEIGHTS_H

#include "common/base/status.h"
#include "common/model/model.h"
#include "common/model/shard_plan.h"
#include "kernels/kernels.h"
#include "worker/progress.h"

typedef struct layer_weights {
    kernels_weight q, k, v;          // (heads * C, D)
    kernels_weight o;                // (D, heads * C)
    kernels_weight gate, up;         // (F, D)
    kernels_weight down;             // (D, F)
    float *attn_norm, *ffn_norm;     // (D)
    float *q_bias, *k_bias, *v_bias; // NULL when the model has none
} layer_weights;

typedef struct weights {
    kernels *kernels;
    kernels_weight embedding, output; // (V, D): rows [vocab.begin, vocab.end)
    float *output_norm;               // (D)
    float *inv_freq;                  // (rope_dims / 2)
    layer_weights *layers;
    int layer_count;
    void **owned; // device memory, freed by weights_close
    int owned_count, owned_room;
    int64_t bytes; // of the matrices' slices
} weights;

// Finds every slice and reads its pages in, once, so that the first request does not wait for the
// disk; progress->load rises from 0 to 1. `m` must outlive the weights. RESOURCE_EXHAUSTED,
// NOT_FOUND with the tensor.
status weights_load(const model *m, const shard *s, kernels *k, progress *p, weights **out);
void weights_close(weights *w); // NULL is allowed

#endif
