// experts: which experts of a mixture a token goes to, and what they give back. Private to
// kernels/cuda; the products between are matmul's with matmul_experts.
//
// A token's experts are those of its `top` highest router logits, the lower number first on a tie.
// Each choice is a slot; slots are sorted by expert and inside one by token. The layer is then
//   route; gate_up with x_row = token and scale (so that the router's weight is in the activations,
//   and the sums of down stay sums); down, slot by slot; combine: a token's slots added in the
//   order of its choices.
// Rows are chosen for all at once; sorting and the layer may take some of them at a time.
#ifndef OCTANT_KERNELS_CUDA_EXPERTS_H
#define OCTANT_KERNELS_CUDA_EXPERTS_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { EXPERTS_MAX = 256, EXPERTS_TOP_MAX = 16 };

// Device memory. Slots are T * top.
typedef struct experts_table {
    int32_t *first_slot; // (experts + 1)
    int32_t *token;      // (slots) whose
    float *scale;        // (slots) the router's weight
    int32_t *slot;       // (T, top) of a token's choices, the best first
    int32_t *choice;     // (T, top) the experts themselves
    float *weight;       // (T, top)
} experts_table;

// Fills the table's choice and weight from router logits (T, experts). Weights are softmax over all
// experts, or over the chosen ones with `renormalise` (Mixtral; Qwen by config). NaN counts as the
// lowest. 1 <= top <= experts.
cudaError_t experts_choose(cudaStream_t stream, const float *logits, int tokens, int experts,
                           int top, bool renormalise, const experts_table *out);

// Fills the rest of the table from these.
cudaError_t experts_sort(cudaStream_t stream, int tokens, int experts, int top,
                         const experts_table *out);

// sums (T, width) = the sum of each token's slots of y (slots, width): double from double (exact on
// the grid), or BF16 from float.
cudaError_t experts_combine(cudaStream_t stream, const experts_table *table, int tokens, int top,
                            int width, const void *y, bool f64, void *sums);

#ifdef __cplusplus
}
#endif

#endif
