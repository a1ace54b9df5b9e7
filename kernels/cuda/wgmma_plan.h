// wgmma_plan: what wgmma.c works out for one product and its kernels are given by value.
#ifndef OCTANT_KERNELS_CUDA_WGMMA_PLAN_H
#define OCTANT_KERNELS_CUDA_WGMMA_PLAN_H

#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda/wgmma.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wgmma_plan {
    matmul_plan
        base; // its x, x_stride, stride and expert fields are not used; scales are the rows'
    const float *block_scales[MATMUL_COUNT_MAX];
    int col_tiles;
    int padded; // tokens, padded to whole blocks
    // Groups of 8 tokens x 128 columns are 1024 bytes, swizzled as the weights' tiles are:
    // (col_tiles, padded / 8) of them. Scales: (col_tiles, padded).
    const void *x8;
    const float *x_scales;
} wgmma_plan;

// x8 and x_scales from x (wgmma_pack.cu).
cudaError_t wgmma_quantise_x(cudaStream_t stream, const void *x, int tokens, int cols, int padded,
                             void *x8, float *x_scales);

// base.block_tokens is 8, 16, 32, 64 or 128 (wgmma_f8_sm90a.cu).
cudaError_t wgmma_start_f8(cudaStream_t stream, const wgmma_plan *p);

#ifdef __cplusplus
}
#endif

#endif
