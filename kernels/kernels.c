// kernels: the door of the operators. It checks shapes against the contract, turns empty calls
// away, and goes through the backend's table; so a backend never sees a call that breaks the
// contract.
#include "kernels/kernels.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

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
    assert(limits.experts >= 0 && limits.experts <= KERNELS_EXPERTS_MAX);
    assert(limits.top >= 0 && limits.top <= KERNELS_EXPERTS_TOP_MAX);
    assert(limits.top <= limits.experts && (limits.top > 0) == (limits.experts > 0));
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

void kernels_copy(kernels *k, void *to, const void *from, size_t bytes) {
    if (bytes > 0) k->ops->copy(k, to, from, bytes);
}

status kernels_host_view(kernels *k, const void *device, size_t bytes, void *staging,
                         const void **out) {
    if (!k->ops->sync) {
        *out = device;
        return status_ok();
    }
    *out = staging;
    return kernels_download(k, staging, device, bytes);
}

status kernels_sync(kernels *k, int64_t deadline_ns) {
    return k->ops->sync ? k->ops->sync(k, deadline_ns) : status_ok();
}

status kernels_poll(kernels *k, bool *done) {
    *done = true;
    return k->ops->poll ? k->ops->poll(k, done) : status_ok();
}

status kernels_host_alloc(kernels *k, size_t bytes, void **out) {
    if (k->ops->host_alloc) return k->ops->host_alloc(k, bytes, out);
    *out = calloc(1, bytes > 0 ? bytes : 1);
    return *out ? status_ok()
                : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %zu bytes", bytes);
}

void kernels_host_free(kernels *k, void *host) {
    if (k->ops->host_free)
        k->ops->host_free(k, host);
    else
        free(host);
}

void kernels_send(kernels *k, void *host, const void *device, size_t bytes) {
    if (k->ops->send)
        k->ops->send(k, host, device, bytes);
    else
        memcpy(host, device, bytes);
}

void kernels_send_in_turn(kernels *k, void *host, size_t stride, const void *device, size_t bytes) {
    assert(stride % KERNELS_TURN_BYTES == 0 && bytes <= stride);
    if (bytes > 0) k->ops->send_in_turn(k, host, stride, device, bytes);
}

void kernels_mark(kernels *k, int mark) {
    assert(mark >= 0 && mark < KERNELS_MARKS);
    if (k->ops->mark) k->ops->mark(k, mark);
}

status kernels_mark_poll(kernels *k, int mark, bool *done) {
    assert(mark >= 0 && mark < KERNELS_MARKS);
    *done = true;
    return k->ops->mark_poll ? k->ops->mark_poll(k, mark, done) : status_ok();
}

void *kernels_stream(const kernels *k) {
    return k->ops->stream ? k->ops->stream(k) : NULL;
}

static void check_view(const kernels_weight *w) {
    assert((dtype_row_scales(w->type, (size_t)w->cols) > 0) == (w->scales != NULL));
    assert(w->type < DTYPE_ALL && w->rows >= 0 && w->cols >= 1);
    assert((size_t)w->cols % dtype_block_values(w->type) == 0);
    assert(w->rows <= 1 || w->row_stride >= dtype_row_bytes(w->type, (size_t)w->cols));
}

void kernels_weight_copy_scales(const kernels_weight *w, int first, int count, float *out) {
    size_t each = dtype_row_scales(w->type, (size_t)w->cols);
    for (int r = 0; r < count; r++, out += each)
        memcpy(out, kernels_weight_scales(w, first + r), each * sizeof *out);
}

// Of a matrix that was placed; what a device keeps of it is the device's affair.
static void check_weight(const kernels_weight *w) {
    assert(w->type < DTYPE_ALL && w->rows >= 0 && w->cols >= 1);
}

size_t kernels_weight_bytes(const kernels *k, const kernels_weight *host) {
    check_view(host);
    return k->ops->weight_bytes ? k->ops->weight_bytes(k, host) : 0;
}

status kernels_weight_place(kernels *k, const kernels_weight *host, void *device,
                            kernels_weight *out) {
    check_view(host);
    if (k->ops->weight_place) return k->ops->weight_place(k, host, device, out);
    *out = *host;
    return status_ok();
}

size_t kernels_act_bytes(const kernels *k, int tokens, int cols) {
    return (size_t)tokens * (((size_t)cols + 7) / 8 * 8) * k->act_bytes; // rows may be padded to 8
}

size_t kernels_sums_bytes(const kernels *k, size_t count) {
    return count * (k->sums_type == KERNELS_SUMS_EXACT ? sizeof(double) : sizeof(uint16_t));
}

kernels_sums kernels_sums_type(const kernels *k) {
    return k->sums_type;
}

int kernels_rows_max(const kernels *k, int tokens) {
    return k->ops->rows_max ? k->ops->rows_max(k, tokens) : tokens;
}

int kernels_round(const kernels *k, int rows) {
    return k->ops->round ? k->ops->round(k, rows) : rows;
}

// Every sequence lies within the step's rows and names blocks that exist.
static void check_step(const kernels *k, const kernels_step *step) {
    int rows = 0;
    assert(step->tokens >= 0 && step->tokens <= k->limits.tokens && step->seqs >= 0);
    assert(!step->fed || kernels_stream(k));
    assert(step->turn >= 0 && step->turn < KERNELS_MARKS);
    for (int s = 0; s < step->seqs; s++) {
        const kernels_seq *q = &step->seq[s];
        assert(q->tokens >= 0 && q->position >= 0 && q->row >= 0);
        int end = q->position + q->tokens;
        assert(end <= k->limits.context && q->row + q->tokens <= step->tokens);
        for (int b = 0; b * step->block_tokens < end; b++)
            assert(q->blocks[b] >= 0 && q->blocks[b] < step->blocks);
        rows += q->tokens;
    }
    assert(rows <= step->tokens && step->seqs <= k->limits.tokens);
}

int kernels_begin(kernels *k, const kernels_step *step) {
    check_step(k, step);
    k->step = *step;
    k->rows = step->tokens;
    if (k->ops->begin) k->rows = k->ops->begin(k);
    return k->rows;
}

status kernels_run(kernels *k, status (*enqueue)(void *context), void *context, uint64_t variant) {
    return k->ops->run ? k->ops->run(k, enqueue, context, variant) : enqueue(context);
}

status kernels_piece(kernels *k, int number, status (*enqueue)(void *context), void *context) {
    assert(number >= 0);
    return k->ops->piece ? k->ops->piece(k, number, enqueue, context) : enqueue(context);
}

status kernels_tail(kernels *k, status (*enqueue)(void *context), void *context, uint64_t variant) {
    return k->ops->tail ? k->ops->tail(k, enqueue, context, variant) : enqueue(context);
}

void kernels_record(kernels *k, kernels_graphs what) {
    if (k->ops->record) k->ops->record(k, what);
}

kernels_run_counts kernels_count_runs(const kernels *k) {
    return k->ops->run_counts ? k->ops->run_counts(k) : (kernels_run_counts){0};
}

void kernels_forget_runs(kernels *k) {
    if (k->ops->forget_runs) k->ops->forget_runs(k);
}

void kernels_embed(kernels *k, const kernels_weight *table, int first_row, void *sums) {
    check_weight(table);
    if (k->rows > 0) k->ops->embed(k, table, first_row, sums);
}

static void check_tokens(const kernels *k, int tokens) {
    assert(tokens >= 0 && tokens <= kernels_rows_max(k, k->limits.tokens));
}

void kernels_matmul(kernels *k, int count, const kernels_weight *const weights[],
                    const float *const biases[], const kernels_act *x, int tokens,
                    float *const outs[]) {
    assert(count >= 1 && count <= KERNELS_MATMUL_MAX);
    check_tokens(k, tokens);
    for (int i = 0; i < count; i++) {
        check_weight(weights[i]);
        assert(weights[i]->cols == weights[0]->cols && weights[i]->cols <= k->limits.cols);
    }
    if (tokens > 0) k->ops->matmul(k, count, weights, biases, x, tokens, outs);
}

void kernels_gate_up(kernels *k, kernels_activation activation, const kernels_weight *gate,
                     const kernels_weight *up, const kernels_act *x, int tokens, kernels_act *out) {
    check_weight(gate);
    check_weight(up);
    check_tokens(k, tokens);
    assert(gate->cols == up->cols && gate->rows == up->rows);
    assert(gate->cols <= k->limits.cols && gate->rows <= k->limits.cols);
    if (tokens > 0 && gate->rows > 0) k->ops->gate_up(k, activation, gate, up, x, tokens, out);
}

void kernels_matmul_sums(kernels *k, const kernels_weight *w, int segment, const kernels_act *x,
                         int tokens, void *sums) {
    check_weight(w);
    check_tokens(k, tokens);
    assert(w->cols <= k->limits.cols);
    assert(segment >= 1 && (size_t)segment % dtype_block_values(w->type) == 0);
    if (tokens > 0) k->ops->matmul_sums(k, w, segment, x, tokens, sums);
}

void kernels_zero_sums(kernels *k, void *sums, size_t count) {
    if (count > 0) k->ops->zero(k, sums, kernels_sums_bytes(k, count));
}

void kernels_route(kernels *k, const float *logits, int tokens, int experts, int top,
                   int32_t *choice, float *weight) {
    check_tokens(k, tokens);
    assert(experts >= 1 && experts <= k->limits.experts);
    assert(top >= 1 && top <= experts && top <= k->limits.top);
    if (tokens > 0) k->ops->route(k, logits, tokens, experts, top, choice, weight);
}

static void check_expert(const kernels *k, const kernels_experts *e, int i) {
    const kernels_weight *gate = &e->gate[i], *up = &e->up[i], *down = &e->down[i];
    check_weight(gate);
    check_weight(up);
    check_weight(down);
    assert(gate->rows == up->rows && gate->cols == up->cols && gate->rows >= 1);
    assert(down->cols == gate->rows && down->rows == gate->cols);
    assert(gate->type == e->gate->type && up->type == e->up->type && down->type == e->down->type);
    assert(gate->rows == e->gate->rows && gate->cols == e->gate->cols);
    assert(gate->rows <= k->limits.cols && gate->cols <= k->limits.cols);
}

void kernels_mix(kernels *k, const kernels_experts *e, int top, const int32_t *choice,
                 const float *weight, const kernels_act *x, int tokens, int segment, void *sums) {
    check_tokens(k, tokens);
    assert(e->count >= 1 && e->count <= k->limits.experts && top >= 1 && top <= k->limits.top);
    for (int i = 0; i < e->count; i++) check_expert(k, e, i);
    assert(segment >= 1 && (size_t)segment % dtype_block_values(e->down->type) == 0);
    if (tokens > 0) k->ops->mix(k, e, top, choice, weight, x, tokens, segment, sums);
}

void kernels_narrow(kernels *k, const void *sums, size_t count, float scale, float *out) {
    if (count > 0) k->ops->narrow(k, sums, count, scale, out);
}

void kernels_rmsnorm(kernels *k, const float *x, const float *weight, float epsilon, int tokens,
                     int width, kernels_act *out) {
    check_tokens(k, tokens);
    assert(width >= 1 && width <= k->limits.cols);
    if (tokens > 0) k->ops->rmsnorm(k, (float *)x, NULL, weight, epsilon, tokens, width, out);
}

void kernels_add_rmsnorm(kernels *k, float *x, const void *sums, const float *weight, float epsilon,
                         int tokens, int width, kernels_act *out) {
    check_tokens(k, tokens);
    assert(width >= 1 && width <= k->limits.cols && sums != NULL);
    if (tokens > 0) k->ops->rmsnorm(k, x, sums, weight, epsilon, tokens, width, out);
}

void kernels_add(kernels *k, float *x, const void *sums, int tokens, int width) {
    check_tokens(k, tokens);
    assert(width >= 1 && width <= k->limits.cols);
    if (tokens > 0) k->ops->add(k, x, sums, tokens, width);
}

void kernels_add_normed(kernels *k, float *x, void *sums, const float *post, const float *weight,
                        float epsilon, int tokens, int width, kernels_act *out) {
    check_tokens(k, tokens);
    assert(width >= 1 && width <= k->limits.cols && post != NULL);
    if (tokens > 0) k->ops->add_normed(k, x, sums, post, weight, epsilon, tokens, width, out);
}

void kernels_soft_cap(kernels *k, float *x, size_t count, float cap) {
    assert(cap > 0);
    if (count > 0) k->ops->soft_cap(k, x, count, cap);
}

static void check_kv(const kernels *k, const kernels_kv *kv) {
    bool plain = kv->type == DTYPE_F32 || kv->type == DTYPE_F16 || kv->type == DTYPE_BF16;
    bool scaled = kv->type == DTYPE_F8_E4M3 || kv->type == DTYPE_I8;
    assert(plain || (scaled && kernels_stream(k)));
    assert(kv->blocks >= k->step.blocks && kv->block_tokens == k->step.block_tokens);
    assert(kv->block_tokens >= 1 && kv->block_tokens <= KERNELS_BLOCK_TOKENS_MAX);
    assert(kv->heads >= 1 && kv->head_dim >= 1 && kv->head_dim <= k->limits.head_dim);
}

void kernels_rope_kv_write(kernels *k, const kernels_rope *rope, int heads, float *q, float *key,
                           const float *value, kernels_kv *kv) {
    if (k->rows == 0) return;
    check_kv(k, kv);
    assert(rope->rope_dims >= 0 && rope->rope_dims % 2 == 0 && rope->rope_dims <= kv->head_dim);
    assert(heads >= 0 && heads <= k->limits.heads);
    k->ops->rope_kv_write(k, rope, heads, q, key, value, kv);
}

void kernels_attention(kernels *k, const kernels_head_map *map,
                       const kernels_attention_options *options, const float *q,
                       const kernels_kv *kv, kernels_act *out) {
    if (k->rows == 0 || map->heads == 0) return;
    check_kv(k, kv);
    assert(options->scale > 0 && options->soft_cap >= 0 && options->window >= 0);
    assert(map->heads <= k->limits.heads && map->kv_heads == kv->heads);
    k->ops->attention(k, map, options, q, kv, out);
}

void kernels_gather(kernels *k, const float *x, int first, int count, int width, float *out) {
    assert(first >= 0 && count >= 0 && width >= 1);
    if (count > 0) k->ops->gather(k, x, first, count, width, out);
}

void kernels_reorder(kernels *k, const kernels_act *x, const int32_t *order, int tokens, int width,
                     kernels_act *out) {
    check_tokens(k, tokens);
    assert(width >= 1 && width <= k->limits.cols && out != x);
    if (tokens > 0) k->ops->reorder(k, x, order, tokens, width, out);
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
