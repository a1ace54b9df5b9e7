// wgmma: products of FP8 weights with FP8 activations by the warpgroup instructions of sm_90
// (H100, H200). Private to kernels/cuda.
//
// An option, since it changes the numbers: activations are rounded to E4M3, each run of 128 columns
// of a token under a scale of its own. So it serves the option `fast`, on cards of compute
// capability 9.0, where sums over ranks are BF16; all other products are matmul.h's.
//
// The result of a token's row never depends on the other rows, bit by bit. For all numbers of
// tokens the weights are the instruction's first operand (64 rows) and the tokens its second (8 to
// 128), and all take the same steps: 128 columns are multiplied in the tensor core from zero, the
// product is multiplied with the token's scale (and the weights' own, where they have one for each
// block) and added in float, in ascending order, from zero for each of at most four strands of the
// columns; a strand is multiplied with its row's scale, and strands are added in ascending order.
//
// Weights lie in tiles of 64 rows x 128 columns, 8192 bytes, the tiles of the same rows one after
// another. A tile is what the tensor core wants to find in shared memory, so that one copy brings
// it: rows of 128 bytes, of which 16-byte piece i of row r stands at i ^ (r % 8) ("128-byte
// swizzling"). Padding, to whole tiles, is zeros. Behind the tiles are the scales: F8_E4M3 a float
// for each row; F8_BLOCK 64 floats for each tile, one for each of its rows.
#ifndef OCTANT_KERNELS_CUDA_WGMMA_H
#define OCTANT_KERNELS_CUDA_WGMMA_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/matmul.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    WGMMA_ROWS = 64,
    WGMMA_COLS = 128,
    WGMMA_TILE_BYTES = WGMMA_ROWS * WGMMA_COLS,
    WGMMA_TOKENS_MAX = 128 // of a block
};

// A packed matrix.
typedef struct wgmma_pack {
    const void *values;  // device memory, 256-byte aligned
    const float *scales; // F8_E4M3: (row tiles * 64); F8_BLOCK: (row tiles, column tiles, 64)
    int rows, cols;      // as the model has them
    dtype type;          // F8_E4M3 or F8_BLOCK
} wgmma_pack;

// Bytes of a (rows, cols) matrix, and the matrix that lies (or will lie) at `memory`, 256-byte
// aligned. Pure arithmetic.
size_t wgmma_pack_bytes(dtype type, int rows, int cols);
wgmma_pack wgmma_pack_at(dtype type, int rows, int cols, const void *memory);

// Packs rows [first_row, first_row + count), as weight_pack_rows does. raw_scales is a float for
// each of these rows.
cudaError_t wgmma_pack_rows(cudaStream_t stream, const void *raw, size_t raw_stride,
                            const float *raw_scales, int first_row, int count,
                            const wgmma_pack *out);

// As weight_embed, in BF16.
cudaError_t wgmma_embed(cudaStream_t stream, const wgmma_pack *w, int first_row, const int32_t *ids,
                        const int32_t *fed, int count, void *out);

typedef struct wgmma_call {
    wgmma_pack w[MATMUL_COUNT_MAX];      // as many columns each
    const float *bias[MATMUL_COUNT_MAX]; // NULL: none
    void *outs[MATMUL_COUNT_MAX];
    int count;
    matmul_output output; // not MATMUL_F64; what is said there of count and bias holds here
    kernels_activation activation; // MATMUL_GATE_UP
    const void *x;                 // (T, matmul_act_stride(cols)) BF16
    int tokens;                    // T
    int multiprocessors;
    void *workspace; // as matmul_call's
    void *x8;        // wgmma_x8_bytes of device memory; of one stream at a time
} wgmma_call;

// Room for the activations of every call of up to `tokens` tokens and `cols` columns, as E4M3 with
// their scales.
size_t wgmma_x8_bytes(int tokens, int cols);

// Enqueues the product: x to E4M3, the product, and a third kernel where the columns are split over
// blocks. T of 0 enqueues nothing. cudaErrorInvalidValue for a call that breaks the contract.
cudaError_t wgmma_product(cudaStream_t stream, const wgmma_call *call);

#ifdef __cplusplus
}
#endif

#endif
