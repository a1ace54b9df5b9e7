// kernels: the door of the operators. It checks shapes against the contract, turns empty calls
// away, and goes through the backend's table; so a backend never sees a call that breaks the
// contract.
#include "kernels/kernels.h"

#include <assert.h>

#include "kernels/backend.h"

void kernels_destroy(kernels *k) {
    if (k) k->ops->destroy(k);
}

const char *kernels_name(const kernels *k) {
    return k->name;
}

status kernels_reserve(kernels *k, kernels_limits limits) {
    assert(limits.tokens >= 1 && limits.cols >= 1 && limits.context >= 1 && limits.heads >= 1);
    assert(limits.head_dim >= 1 && limits.head_dim <= KERNELS_HEAD_DIM_MAX);
    assert(k->limits.tokens == 0); // once
    TRY(k->ops->reserve(k, limits));
    k->limits = limits;
    return status_ok();
}

status kernels_alloc(kernels *k, size_t bytes, void **out) {
    return k->ops->alloc(k, bytes, out);
}

void kernels_free(kernels *k, void *memory) {
    k->ops->release(k, memory);
}

status kernels_upload(kernels *k, void *device, const void *host, size_t bytes) {
    return k->ops->upload(k, device, host, bytes);
}

status kernels_download(kernels *k, void *host, const void *device, size_t bytes) {
    return k->ops->download(k, host, device, bytes);
}

status kernels_sync(kernels *k) {
    return k->ops->sync(k);
}

static void check_weight(const kernels_weight *w) {
    assert(w->type < DTYPE_COUNT && w->rows >= 0 && w->cols >= 1);
    assert((size_t)w->cols % dtype_block_values(w->type) == 0);
    assert(w->rows <= 1 || w->row_stride >= dtype_row_bytes(w->type, (size_t)w->cols));
}

void kernels_embed(kernels *k, const kernels_weight *table, int first_row, const int32_t *ids,
                   int tokens, float *out) {
    check_weight(table);
    assert(tokens >= 0 && tokens <= k->limits.tokens);
    if (tokens > 0) k->ops->embed(k, table, first_row, ids, tokens, out);
}

void kernels_matmul(kernels *k, int count, const kernels_weight *const weights[],
                    const float *const biases[], const float *x, int tokens, float *const outs[]) {
    assert(count >= 1 && count <= KERNELS_MATMUL_MAX);
    assert(tokens >= 0 && tokens <= k->limits.tokens);
    for (int i = 0; i < count; i++) {
        check_weight(weights[i]);
        assert(weights[i]->cols == weights[0]->cols && weights[i]->cols <= k->limits.cols);
    }
    if (tokens > 0) k->ops->matmul(k, count, weights, biases, x, tokens, outs);
}

void kernels_matmul_sums(kernels *k, const kernels_weight *w, int segment, const float *x,
                         int tokens, double *sums) {
    check_weight(w);
    assert(w->cols <= k->limits.cols && tokens >= 0 && tokens <= k->limits.tokens);
    assert(segment >= 1 && (size_t)segment % dtype_block_values(w->type) == 0);
    if (tokens > 0) k->ops->matmul_sums(k, w, segment, x, tokens, sums);
}

void kernels_narrow(kernels *k, const double *sums, size_t count, float *out) {
    if (count > 0) k->ops->narrow(k, sums, count, out);
}

void kernels_rmsnorm(kernels *k, const float *x, const float *weight, float epsilon, int tokens,
                     int width, float *out) {
    assert(tokens >= 0 && width >= 1);
    if (tokens > 0) k->ops->rmsnorm(k, (float *)x, NULL, weight, epsilon, tokens, width, out);
}

void kernels_add_rmsnorm(kernels *k, float *x, const float *delta, const float *weight,
                         float epsilon, int tokens, int width, float *out) {
    assert(tokens >= 0 && width >= 1 && delta != NULL);
    if (tokens > 0) k->ops->rmsnorm(k, x, delta, weight, epsilon, tokens, width, out);
}

void kernels_add(kernels *k, float *x, const float *delta, int tokens, int width) {
    assert(tokens >= 0 && width >= 1);
    if (tokens > 0) k->ops->add(k, x, delta, tokens, width);
}

static void check_kv(const kernels_kv *kv) {
    assert(kv->type == DTYPE_F32 || kv->type == DTYPE_F16 || kv->type == DTYPE_BF16);
    assert(kv->blocks >= 1 && kv->heads >= 1);
    assert(kv->block_tokens >= 1 && kv->block_tokens <= KERNELS_BLOCK_TOKENS_MAX);
    assert(kv->head_dim >= 1 && kv->head_dim <= KERNELS_HEAD_DIM_MAX);
}

// Rows of all sequences; also checks that every block which they touch exists.
static int check_seqs(const kernels *k, int seqs, const kernels_seq *seq, const kernels_kv *kv) {
    assert(seqs >= 0);
    int rows = 0;
    for (int s = 0; s < seqs; s++) {
        assert(seq[s].tokens >= 0 && seq[s].position >= 0 && seq[s].row >= 0);
        int end = seq[s].position + seq[s].tokens;
        assert(end <= k->limits.context && seq[s].row + seq[s].tokens <= k->limits.tokens);
        for (int b = 0; b * kv->block_tokens < end; b++)
            assert(seq[s].blocks[b] >= 0 && seq[s].blocks[b] < kv->blocks);
        rows += seq[s].tokens;
    }
    assert(rows <= k->limits.tokens && seqs <= k->limits.tokens);
    return rows;
}

void kernels_rope_kv_write(kernels *k, const kernels_rope *rope, int seqs, const kernels_seq *seq,
                           int heads, float *q, float *key, const float *value, kernels_kv *kv) {
    check_kv(kv);
    assert(rope->rope_dims >= 0 && rope->rope_dims % 2 == 0 && rope->rope_dims <= kv->head_dim);
    assert(heads >= 0 && heads <= k->limits.heads && kv->head_dim <= k->limits.head_dim);
    if (check_seqs(k, seqs, seq, kv) > 0)
        k->ops->rope_kv_write(k, rope, seqs, seq, heads, q, key, value, kv);
}

void kernels_attention(kernels *k, int seqs, const kernels_seq *seq, int heads,
                       const int32_t *kv_head_of, float scale, const float *q, const kernels_kv *kv,
                       float *out) {
    check_kv(kv);
    assert(heads >= 0 && heads <= k->limits.heads && kv->head_dim <= k->limits.head_dim);
    for (int h = 0; h < heads; h++) assert(kv_head_of[h] >= 0 && kv_head_of[h] < kv->heads);
    if (heads > 0 && check_seqs(k, seqs, seq, kv) > 0)
        k->ops->attention(k, seqs, seq, heads, kv_head_of, scale, q, kv, out);
}

void kernels_swiglu(kernels *k, float *gate, const float *up, int tokens, int width) {
    assert(tokens >= 0 && width >= 1);
    if (tokens > 0) k->ops->swiglu(k, gate, up, tokens, width);
}

void kernels_gather_rows(kernels *k, const float *x, const int32_t *rows, int count, int width,
                         float *out) {
    assert(count >= 0 && width >= 1);
    if (count > 0) k->ops->gather_rows(k, x, rows, count, width, out);
}

void kernels_argmax(kernels *k, const float *logits, int count, int width, int32_t *best,
                    float *value) {
    assert(count >= 0 && width >= 1);
    if (count > 0) k->ops->argmax(k, logits, count, width, best, value);
}

size_t kernels_kv_bytes(const kernels *k, dtype type, int blocks, int block_tokens, int heads,
                        int head_dim) {
    return k->ops->kv_bytes(type, blocks, block_tokens, heads, head_dim);
}

kernels_cost kernels_cost_matmul(const kernels_weight *w, int tokens) {
    double weights = (double)w->rows * (double)dtype_row_bytes(w->type, (size_t)w->cols);
    double activations = 4.0 * tokens * ((double)w->rows + w->cols);
    return (kernels_cost){.bytes = weights + activations,
                          .flops = 2.0 * tokens * (double)w->rows * w->cols};
}

kernels_cost kernels_cost_attention(int heads, int kv_heads, int head_dim, dtype kv_type,
                                    int query_tokens, int context) {
    // Query row i of the chunk sees context - query_tokens + i + 1 positions.
    double seen = query_tokens * (context - (query_tokens - 1) / 2.0);
    double cache = 2.0 * context * kv_heads * (double)dtype_row_bytes(kv_type, (size_t)head_dim);
    return (kernels_cost){.bytes = cache + 8.0 * query_tokens * heads * head_dim,
                          .flops = 4.0 * heads * head_dim * seen};
}
