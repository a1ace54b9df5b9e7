// matmul: products of packed weights (weight_pack.h) with BF16 activations. Private to
// kernels/cuda.
//
// The result of a token's row never depends on the other rows, bit by bit. So all kernels here take
// the same steps for each output: the columns are cut into at most four strands of whole 64-column
// tiles; each is summed from zero by m16n8k16 steps in ascending order in float (types with scales
// along the row: each scale's columns, at most 32, from zero, then times the scale and added in
// float), times the row's scale if it has one, and the strands are added in ascending order. Which
// kernel, tile or split over blocks computes it changes nothing.
//
// Weights enter the tensor core exactly, as BF16 (a value before its scale is a small integer or
// an FP8 number), except that F32 and F16 were rounded to BF16 when they were packed.
//
// On sm_90 the strands (and segments) of BF16 weights are summed by m64nNk16 steps instead, for any
// number of tokens (wgmma_bf16_sm90a.cu).
//
// Sums over ranks as double: each `segment` of columns is summed as a strand is, rounded to the
// grid (kernels_to_grid) and added in double, where the order does not matter.
#ifndef OCTANT_KERNELS_CUDA_MATMUL_H
#define OCTANT_KERNELS_CUDA_MATMUL_H

#include "kernels/cuda/weight_pack.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MATMUL_COUNT_MAX = 4, MATMUL_STRANDS = 4 };

// Elements from row to row of BF16 activations with `cols` columns: a multiple of 8. What lies
// between is written as zeros by whoever writes activations.
static inline int matmul_act_stride(int cols) {
    return (cols + 7) / 8 * 8;
}

typedef enum matmul_output {
    MATMUL_FLOAT, // outs[i] (T, rows) float, + bias
    MATMUL_F64,   // outs[0] (T, rows) double on the grid; count is 1, no bias
    MATMUL_BF16,  // outs[0] (T, rows) BF16; count is 1, no bias
    // outs[0] (T, matmul_act_stride(rows)) BF16 = activation(w[0] x) * (w[1] x); count is 2
    MATMUL_GATE_UP,
} matmul_output;

// A mixture of experts: each matrix of the call is the first expert's, the others follow at
// weight_pack_bytes. Rows of the outputs are slots, sorted by expert (experts.h); at most `tokens`
// of one expert.
typedef struct matmul_experts {
    int count;
    const int32_t *first_slot; // (count + 1), device memory: expert e has slots [e, e + 1)
    const int32_t *x_row;      // (slots) which row of x a slot takes; NULL: its own
    const float *scale;        // (slots), NULL, or what MATMUL_GATE_UP multiplies a slot's row with
} matmul_experts;

typedef struct matmul_call {
    weight_pack w[MATMUL_COUNT_MAX];     // as many columns each; types may differ with MATMUL_FLOAT
    const float *bias[MATMUL_COUNT_MAX]; // NULL: none
    void *outs[MATMUL_COUNT_MAX];
    int count;
    matmul_output output;
    kernels_activation activation; // MATMUL_GATE_UP
    int segment;   // MATMUL_F64: columns; a multiple of 8 for BF16 weights, else of 16
    const void *x; // (T, matmul_act_stride(cols)) BF16
    int tokens;    // T
    const matmul_experts *experts; // NULL: none; then no bias, and all matrices of one type
    int multiprocessors;           // of the device: how finely the work is cut
    bool sm90;                     // of the device: capability 9.0
    void *workspace;               // matmul_workspace_bytes, device memory; of one stream at a time
} matmul_call;

// Workspace for every call of up to `tokens` tokens and `rows` rows (of all matrices of the call
// together) on a device with so many multiprocessors. Never more than some tens of MB.
size_t matmul_workspace_bytes(int tokens, int rows, int multiprocessors);

// The weights must lie in place, the host having waited for them: kernels read them before they
// wait for the work queued before them. Enqueues the product: one kernel for each run of matrices
// of one type, and a second where the columns are split over blocks. T of 0 enqueues nothing.
// cudaErrorInvalidValue for a call that breaks the contract above.
cudaError_t matmul(cudaStream_t stream, const matmul_call *call);

#ifdef __cplusplus
}
#endif

#endif
