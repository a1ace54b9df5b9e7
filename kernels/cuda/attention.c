#include "kernels/cuda/attention.h"

#include <assert.h>

#include "kernels/cuda/attention_args.h"

// So many blocks keep any card busy (two for each of an H100's 132 multiprocessors). With fewer,
// chunks get blocks of their own.
enum { BLOCKS_ENOUGH = 264 };

static size_t value_bytes(dtype type) {
    switch ((int)type) {
    case DTYPE_F32:
        return 4;
    case DTYPE_F16:
    case DTYPE_BF16:
        return 2;
    case DTYPE_F8_E4M3:
    case DTYPE_I8:
        return 1;
    }
    assert(!"a type that no KV cache has");
    return 0;
}

// Where the scales start.
static size_t kv_data_bytes(dtype type, int blocks, int block_tokens, int heads, int head_dim) {
    size_t values = (size_t)blocks * (size_t)block_tokens * (size_t)heads * (size_t)head_dim;
    return (values * value_bytes(type) + 15) / 16 * 16;
}

size_t cuda_kv_bytes(dtype type, int blocks, int block_tokens, int heads, int head_dim) {
    size_t data = kv_data_bytes(type, blocks, block_tokens, heads, head_dim);
    if (value_bytes(type) > 1) return data;
    return data + (size_t)blocks * (size_t)block_tokens * (size_t)heads * sizeof(float);
}

static float *scales_of(const kernels_kv *kv, void *array) {
    if (value_bytes(kv->type) > 1) return NULL;
    size_t data = kv_data_bytes(kv->type, kv->blocks, kv->block_tokens, kv->heads, kv->head_dim);
    return (float *)((char *)array + data);
}

void attention_kv_scales(const kernels_kv *kv, float **k_scale, float **v_scale) {
    *k_scale = scales_of(kv, kv->k);
    *v_scale = scales_of(kv, kv->v);
}

static int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

static size_t partial_bytes(size_t rows, int chunks, int head_dim) {
    return rows * (size_t)chunks * ((size_t)head_dim * sizeof(float) + sizeof(float2));
}

size_t cuda_attention_scratch_bytes(int tokens, int heads, int head_dim, int context) {
    // A block of decode has up to 16 rows, and a slot is one of them at most.
    size_t rows = (size_t)tokens * (size_t)heads * ATTENTION_ROWS;
    if (rows > (size_t)BLOCKS_ENOUGH * ATTENTION_ROWS) rows = BLOCKS_ENOUGH * ATTENTION_ROWS;
    size_t bytes = partial_bytes(rows, ceil_div(context, ATTENTION_CHUNK), head_dim);
    return bytes < CUDA_ATTENTION_SCRATCH_MAX ? bytes : CUDA_ATTENTION_SCRATCH_MAX;
}

static bool fits_tensor_cores(const kernels_kv *kv) {
    int C = kv->head_dim, B = kv->block_tokens;
    return kv->type != DTYPE_F32 && (C == 64 || C == 80 || C == 96 || C == 128 || C == 256) &&
           B >= 16 && B <= 256 && (B & (B - 1)) == 0;
}

static int log2_of(int power) {
    int shift = 0;
    while (1 << shift < power) shift++;
    return shift;
}

static attention_args describe(const cuda_step *step, const kernels_head_map *map,
                               const kernels_attention_options *o, const float *q,
                               const kernels_kv *kv, void *out) {
    const float log2_e = 1.44269504f;
    attention_args a = {.seq = step->seq,
                        .blocks = step->blocks,
                        .first_head = map->first_head,
                        .q = q,
                        .k = kv->k,
                        .v = kv->v,
                        .k_scale = scales_of(kv, kv->k),
                        .v_scale = scales_of(kv, kv->v),
                        .out = out,
                        .seqs = step->seqs,
                        .tokens = step->tokens,
                        .heads = map->heads,
                        .kv_heads = map->kv_heads,
                        .head_dim = kv->head_dim,
                        .most = map->most,
                        .block_tokens = kv->block_tokens,
                        .block_shift = log2_of(kv->block_tokens),
                        .chunks = ceil_div(step->context, ATTENTION_CHUNK),
                        .window = o->window,
                        .soft_cap = o->soft_cap,
                        .cap_scale = o->soft_cap > 0 ? o->scale / o->soft_cap : 0,
                        .exponent = o->soft_cap > 0 ? log2_e : o->scale * log2_e};
    // What fits 16 rows is decode's.
    a.decode_tokens = map->most < ATTENTION_ROWS ? ATTENTION_ROWS / map->most : 1;
    if (a.decode_tokens > step->seq_tokens) a.decode_tokens = step->seq_tokens;
    a.row_tiles = ceil_div(a.decode_tokens * map->most, ATTENTION_ROWS);
    return a;
}

cudaError_t cuda_attention(cudaStream_t stream, const cuda_step *step, const kernels_head_map *map,
                           const kernels_attention_options *options, const float *q,
                           const kernels_kv *kv, void *scratch, size_t scratch_bytes, void *out) {
    assert(options->scale > 0 && options->soft_cap >= 0 && options->window >= 0);
    assert(kv->heads == map->kv_heads && kv->head_dim <= KERNELS_HEAD_DIM_MAX);
    if (step->tokens == 0 || step->seqs == 0 || map->heads == 0) return cudaSuccess;
    attention_args a = describe(step, map, options, q, kv, out);
    if (!fits_tensor_cores(kv)) return attention_plain_launch(stream, &a, kv->type);

    size_t rows = (size_t)a.seqs * (size_t)a.decode_tokens * (size_t)a.heads;
    bool split = a.chunks > 1 && a.seqs * a.kv_heads * a.row_tiles < BLOCKS_ENOUGH &&
                 partial_bytes(rows, a.chunks, a.head_dim) <= scratch_bytes;
    a.partial = scratch;
    a.partial_max = (float2 *)(a.partial + rows * (size_t)a.chunks * (size_t)a.head_dim);
    cudaError_t e = attention_decode_launch(stream, &a, kv->type, split);
    if (e == cudaSuccess && split) e = attention_combine_launch(stream, &a);
    if (e == cudaSuccess && step->seq_tokens > a.decode_tokens)
        e = attention_prefill_launch(stream, &a, kv->type);
    return e;
}
