// rows: the launchers of rows.cu: what treats each row, or each number, for itself.
//
// May be included by C and .cu files of kernels/cuda, by bench and tests.
#ifndef OCTANT_KERNELS_CUDA_ROWS_H
#define OCTANT_KERNELS_CUDA_ROWS_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// kernels_narrow: out (count) = sums (count), rounded to float, times `scale`.
cudaError_t cuda_narrow(cudaStream_t stream, const void *sums, kernels_sums type, size_t count,
                        float scale, float *out);

// kernels_add: x (count) += sums (count).
cudaError_t cuda_add(cudaStream_t stream, float *x, const void *sums, kernels_sums type,
                     size_t count);

// out (T, matmul_act_stride(F)) in BF16 = activation(gate) * up, both (T, F): the end of
// kernels_gate_up where the products came as two.
cudaError_t cuda_glu(cudaStream_t stream, kernels_activation activation, const float *gate,
                     const float *up, int tokens, int width, void *out);

// kernels_soft_cap.
cudaError_t cuda_soft_cap(cudaStream_t stream, float *x, size_t count, float cap);

// kernels_gather: out (count, D) = rows[i] of x (., D). `rows` is device memory; a row number < 0
// gives zeros.
cudaError_t cuda_gather(cudaStream_t stream, const float *x, const int32_t *rows, int count,
                        int width, float *out);

// kernels_reorder: out (T, matmul_act_stride(D)) = x with column order[i] in place i, both BF16.
cudaError_t cuda_reorder(cudaStream_t stream, const void *x, const int32_t *order, int tokens,
                         int width, void *out);

// kernels_argmax: keys (count) = the largest value of each row and its column, packed: the larger
// the value, and on a tie the lower the column, the larger the key. NaN is below every number; -0
// is 0. `keys` is device memory.
cudaError_t cuda_argmax(cudaStream_t stream, const float *logits, int count, int width,
                        uint64_t *keys);
// Unpacks a key, on the host.
void cuda_argmax_unpack(uint64_t key, int32_t *column, float *value);

#ifdef __cplusplus
}
#endif

#endif
