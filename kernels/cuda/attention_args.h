// attention_args: what attention.c hands to the kernels of attention_*.cu, by value. Private to
// these files.
#ifndef OCTANT_KERNELS_CUDA_ATTENTION_ARGS_H
#define OCTANT_KERNELS_CUDA_ATTENTION_ARGS_H

#include <cuda_runtime_api.h>

#include "kernels/cuda/attention.h"

enum {
    ATTENTION_CHUNK = 256, // positions whose result is one partial; see attention.h
    ATTENTION_TILE = 64,   // positions that share one maximum
    ATTENTION_ROWS = 16    // rows of an mma
};

// A "row" of a KV head's work is one query head of one token: row i of a sequence is token i / n,
// query head first_head[g] + i % n, n being the heads that KV head g serves. So all its query heads
// share each load of K and V.
typedef struct attention_args {
    const cuda_step_seq *seq; // (seqs)
    const int32_t *blocks;
    const int32_t *first_head; // (kv_heads + 1)
    const float *q;
    const void *k, *v;
    const float *k_scale, *v_scale; // NULL for types without
    void *out;
    // Partial results of decode, by slot: sequence * decode_tokens + token of the sequence.
    float *partial;      // (slots, heads, chunks, head_dim) sums of chunks, not divided
    float2 *partial_max; // (slots, heads, chunks): maximum, sum of probabilities
    int seqs, tokens, heads, kv_heads, head_dim;
    int most;                      // query heads of the KV head that serves most
    int block_tokens, block_shift; // 1 << block_shift = block_tokens, where that is a power of 2
    int chunks;                    // of the context
    int decode_tokens; // sequences of up to so many rows are decode's, the others prefill's
    int row_tiles;     // decode: of 16 rows, for the KV head that serves most
    int window;
    float soft_cap, cap_scale; // > 0: a score x becomes soft_cap * tanh(cap_scale * x)
    float exponent;            // > 0: a score times this is the power of 2 that it becomes
} attention_args;

#ifdef __cplusplus
extern "C" {
#endif

// Each launches for the sequences that are its own. `split`: each chunk has a block of its own, and
// attention_combine_launch must follow; else a block takes all chunks of its rows.
cudaError_t attention_decode_launch(cudaStream_t stream, const attention_args *args, dtype type,
                                    bool split);
cudaError_t attention_combine_launch(cudaStream_t stream, const attention_args *args);
cudaError_t attention_prefill_launch(cudaStream_t stream, const attention_args *args, dtype type);
cudaError_t attention_plain_launch(cudaStream_t stream, const attention_args *args, dtype type);

// Where a cache's scales start; NULL for types without.
void attention_kv_scales(const kernels_kv *kv, float **k_scale, float **v_scale);

#ifdef __cplusplus
}
#endif

#endif
