// matmul: products of packed weights (weight_pack.h) with BF16 activations. Private to
// kernels/cuda.
//
// The result of a token's row never depends on the other rows, bit by bit. So all kernels here take
// the same steps for each output: the columns are cut into four strands (matmul_strand_cols); each
// is summed from zero by m16n8k16 steps in ascending order in float (types with scales inside the
// row: each scale's columns from zero, times the scale, added in float), then the strands are added
// in ascending order. Which kernel, tile or split over blocks computes it changes nothing.
//
// Sums over ranks as double: each `segment` of columns is summed as above from zero, rounded to the
// grid (kernels_to_grid) and added in double, where the order does not matter.
#ifndef OCTANT_KERNELS_CUDA_MATMUL_H
#define OCTANT_KERNELS_CUDA_MATMUL_H

#include "kernels/cuda/weight_pack.h"

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
    MATMUL_FLOAT,   // outs[i] (T, rows) float, + bias
    MATMUL_F64,     // outs[0] (T, rows) double on the grid; count is 1, no bias
    MATMUL_BF16,    // outs[0] (T, rows) BF16; count is 1, no bias
    MATMUL_GATE_UP, // outs[0] (T, matmul_act_stride(rows)) BF16 = silu(w[0] x) * (w[1] x); count is
                    // 2
} matmul_output;

typedef struct matmul_call {
    weight_pack w[MATMUL_COUNT_MAX]; // all of one type and as many columns; else call once for each
    const float *bias[MATMUL_COUNT_MAX]; // NULL: none
    void *outs[MATMUL_COUNT_MAX];
    int count;
    matmul_output output;
    int segment;         // MATMUL_F64: columns; a multiple of 8 for F32, F16, BF16, else of 32
    const void *x;       // (T, matmul_act_stride(cols)) BF16
    int tokens;          // T
    int multiprocessors; // of the device: how finely the work is cut
    void *workspace;     // matmul_workspace_bytes, device memory; of one stream at a time
} matmul_call;

// Workspace for every call of up to `tokens` tokens and `rows` rows (of all matrices of the call
// together) on a device with so many multiprocessors. Never more than some tens of MB.
size_t matmul_workspace_bytes(int tokens, int rows, int multiprocessors);

// Enqueues the product: one kernel, or two where the columns are split over blocks. T of 0 enqueues
// nothing. cudaErrorInvalidValue for a call that breaks the contract above.
cudaError_t matmul(cudaStream_t stream, const matmul_call *call);

#ifdef __cplusplus
}
#endif

#endif
