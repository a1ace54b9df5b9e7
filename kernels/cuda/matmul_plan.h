// matmul_plan: what matmul.c works out for one product and its kernels are given by value.
#ifndef OCTANT_KERNELS_CUDA_MATMUL_PLAN_H
#define OCTANT_KERNELS_CUDA_MATMUL_PLAN_H

#include "kernels/cuda/matmul.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MATMUL_STREAM_TOKENS = 8, // at most
    MATMUL_STREAM_WARPS = MATMUL_STRANDS,
    MATMUL_STREAM_DEPTH = 6,  // stages of the rings
    MATMUL_TILE_DEPTH_64 = 5, // with up to 64 tokens in a block
    MATMUL_TILE_DEPTH_128 = 4,
    MATMUL_TILE_ROWS = 128,
};

typedef struct matmul_plan {
    const void *values[MATMUL_COUNT_MAX], *scales[MATMUL_COUNT_MAX];
    const float *bias[MATMUL_COUNT_MAX];
    void *outs[MATMUL_COUNT_MAX];
    int rows[MATMUL_COUNT_MAX], out_stride[MATMUL_COUNT_MAX];
    int first_tile[MATMUL_COUNT_MAX + 1];  // of 16 rows, counted through all matrices
    int first_block[MATMUL_COUNT_MAX + 1]; // of the tile kernel, by rows
    int count, cols, stride;               // of the weights
    const void *x;
    int x_stride, tokens;
    int segment, segments;  // columns that are summed from zero, and how many such stretches
    int splits;             // over blocks: grid[2]
    void *partials;         // (splits, T, row tiles, 16) float or double, if splits > 1
    matmul_experts experts; // count 0: none
    size_t expert_bytes[MATMUL_COUNT_MAX]; // from an expert's matrix to the next's
    matmul_output output;
    kernels_activation activation;
    bool sm90;        // the warpgroup kernel, of 8, 16, 32, 64 or 128 tokens; else:
    int block_tokens; // MATMUL_STREAM_TOKENS: the stream kernel; else the tile kernel's
    unsigned grid[3];
} matmul_plan;

// One for each packed type (matmul_bf16.cu, ...).
typedef cudaError_t matmul_start(cudaStream_t stream, const matmul_plan *p);
matmul_start matmul_start_bf16_sm90; // BF16 with sm90
matmul_start matmul_start_bf16, matmul_start_f8_e4m3, matmul_start_f8_block, matmul_start_i8,
    matmul_start_i4, matmul_start_i4_32;
matmul_start matmul_start_q8_0, matmul_start_q5_0, matmul_start_q6_k, matmul_start_q4_0,
    matmul_start_q4_1, matmul_start_q4_k;

// Adds the partials of a split product, in order, and stores (matmul_finish.cu).
cudaError_t matmul_finish(cudaStream_t stream, const matmul_plan *p);

#ifdef __cplusplus
}
#endif

#endif
