// norm: the launchers of norm.cu: RMSNorm of the residual stream, alone or with the sums of the
// product before it added first.
//
// May be included by C and .cu files of kernels/cuda, by bench and tests.
#ifndef OCTANT_KERNELS_CUDA_NORM_H
#define OCTANT_KERNELS_CUDA_NORM_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// A row lies in the registers of one block: of 1024 threads, 32 floats each.
enum { CUDA_NORM_WIDTH_MAX = 32768 };

// kernels_rmsnorm: out (T, matmul_act_stride(D)) in BF16 = x / sqrt(mean(x^2) + epsilon) * weight.
cudaError_t cuda_rmsnorm(cudaStream_t stream, const float *x, const float *weight, float epsilon,
                         int tokens, int width, void *out);

// kernels_add_rmsnorm: x (T, D) += sums (T, D), then as above.
cudaError_t cuda_add_rmsnorm(cudaStream_t stream, float *x, const void *sums, kernels_sums type,
                             const float *weight, float epsilon, int tokens, int width, void *out);

// kernels_add_normed: x += rmsnorm(sums) with `post`, then, unless weight is NULL, as above.
cudaError_t cuda_add_normed(cudaStream_t stream, float *x, const void *sums, kernels_sums type,
                            const float *post, const float *weight, float epsilon, int tokens,
                            int width, void *out);

#ifdef __cplusplus
}
#endif

#endif
