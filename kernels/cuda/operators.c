// operators: the table: each operator to the launchers that do it. Calls return nothing, so an
// error of a launch is kept and told by the next wait. Shapes were checked at the door (kernels.c).
#include <math.h>
#include <string.h>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/feed.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/sampler.h"
#include "kernels/cuda/wgmma.h"

// The most rows that one call's matrices may have together: only the products' workspace depends on
// it.
enum { PRODUCT_ROWS_MAX = 1 << 18 };

status cuda_scratch_create(cuda *k, kernels_limits limits) {
    void *memory = NULL;
    int rows = cuda_rows_max(&k->base, limits.tokens);
    TRY(cuda_device_alloc(
        k, matmul_workspace_bytes(rows, PRODUCT_ROWS_MAX, k->card.multiprocessors), &memory));
    k->product_workspace = memory;
    if (k->wgmma) TRY(cuda_device_alloc(k, wgmma_x8_bytes(rows, limits.cols), &k->x8));
    k->attention_scratch_bytes =
        cuda_attention_scratch_bytes(rows, limits.heads, limits.head_dim, limits.context);
    TRY(cuda_device_alloc(k, k->attention_scratch_bytes, &k->attention_scratch));
    k->pair_rows = k->blas ? CUDA_PAIR_ROWS_FAST : CUDA_PAIR_ROWS;
    TRY(cuda_device_alloc(k, 2 * sizeof(float) * (size_t)k->pair_rows * (size_t)limits.cols,
                          &memory));
    k->pair = memory;
    TRY(cuda_device_alloc(k, CUDA_ARGMAX_ROWS * sizeof *k->best, &memory));
    k->best = memory;
    TRY(cuda_pinned_alloc(CUDA_ARGMAX_ROWS * sizeof *k->best, &memory));
    k->best_host = memory;
    return cuda_mixture_create(k, limits);
}

void cuda_scratch_destroy(cuda *k) {
    void *all[] = {k->product_workspace, k->x8, k->attention_scratch, k->pair, k->best};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) (void)cudaFree(all[i]);
    (void)cudaFreeHost(k->best_host);
    cuda_mixture_destroy(k);
}

static weight_pack pack_of(const kernels_weight *w) {
    return weight_pack_at(w->type, w->rows, w->cols, w->data);
}

static wgmma_pack tiles_of(const kernels_weight *w) {
    return wgmma_pack_at(w->type, w->rows, w->cols, w->data);
}

static void embed(kernels *base, const kernels_weight *table, int first_row, void *sums) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    weight_number number = base->sums_type == KERNELS_SUMS_EXACT ? WEIGHT_DOUBLE : WEIGHT_BF16;
    if (cuda_takes_wgmma(k, table)) {
        wgmma_pack tiles = tiles_of(table);
        cuda_note(k,
                  wgmma_embed(k->stream, &tiles, first_row, k->step.ids, k->step.fed,
                              k->step.tokens, sums),
                  "embed");
        return;
    }
    weight_pack w = pack_of(table);
    cuda_note(k,
              weight_embed(k->stream, &w, first_row, k->step.ids, k->step.fed, k->step.tokens,
                           number, sums),
              "embed");
}

static matmul_call call_of(const cuda *k, const void *x, int tokens, matmul_output output) {
    return (matmul_call){.x = x,
                         .tokens = tokens,
                         .output = output,
                         .multiprocessors = k->card.multiprocessors,
                         .sm90 = k->card.major == 9,
                         .workspace = k->product_workspace};
}

static wgmma_call wgmma_call_of(const cuda *k, const void *x, int tokens, matmul_output output) {
    return (wgmma_call){.x = x,
                        .tokens = tokens,
                        .output = output,
                        .multiprocessors = k->card.multiprocessors,
                        .workspace = k->product_workspace,
                        .x8 = k->x8};
}

// Whether a product goes to cuBLASLt; it has been queued then.
static bool by_library(cuda *k, const kernels_weight *w, const float *bias, const void *x,
                       int tokens, void *out, bool bf16) {
    if (!cublas_wants(k->blas, w, tokens)) return false;
    weight_pack pack = pack_of(w);
    cuda_note_status(k, cublas_product(k->blas, k->stream, &pack, bias, x, tokens, out, bf16));
    return true;
}

static void matmul_all(kernels *base, int count, const kernels_weight *const weights[],
                       const float *const biases[], const kernels_act *x, int tokens,
                       float *const outs[]) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    matmul_call call = call_of(k, x, tokens, MATMUL_FLOAT);
    wgmma_call tiles = wgmma_call_of(k, x, tokens, MATMUL_FLOAT);
    for (int i = 0; i < count; i++) {
        const float *bias = biases ? biases[i] : NULL;
        if (weights[i]->rows == 0) continue;
        if (cuda_takes_wgmma(k, weights[i])) {
            tiles.w[tiles.count] = tiles_of(weights[i]);
            tiles.bias[tiles.count] = bias;
            tiles.outs[tiles.count++] = outs[i];
            continue;
        }
        if (by_library(k, weights[i], bias, x, tokens, outs[i], false)) continue;
        call.w[call.count] = pack_of(weights[i]);
        call.bias[call.count] = bias;
        call.outs[call.count++] = outs[i];
    }
    if (call.count > 0) cuda_note(k, matmul(k->stream, &call), "matmul");
    if (tiles.count > 0) cuda_note(k, wgmma_product(k->stream, &tiles), "matmul by wgmma");
}

// Two products, then their gate: where gate and up are of different types, or the library
// multiplies.
static void gate_up_pair(cuda *k, kernels_activation activation, const kernels_weight *gate,
                         const kernels_weight *up, const uint16_t *x, int tokens, uint16_t *out) {
    size_t x_stride = (size_t)matmul_act_stride(gate->cols);
    size_t out_stride = (size_t)matmul_act_stride(gate->rows);
    float *outs[2] = {k->pair, k->pair + (size_t)k->pair_rows * (size_t)gate->rows};
    for (int t = 0; t < tokens; t += k->pair_rows) {
        int count = tokens - t < k->pair_rows ? tokens - t : k->pair_rows;
        matmul_all(&k->base, 2, (const kernels_weight *const[]){gate, up}, NULL,
                   (const kernels_act *)(x + (size_t)t * x_stride), count, outs);
        cuda_note(k,
                  cuda_glu(k->stream, activation, outs[0], outs[1], count, gate->rows,
                           out + (size_t)t * out_stride),
                  "the gate");
    }
}

static void gate_up(kernels *base, kernels_activation activation, const kernels_weight *gate,
                    const kernels_weight *up, const kernels_act *x, int tokens, kernels_act *out) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    bool tiles = cuda_takes_wgmma(k, gate);
    if (gate->type != up->type || (!tiles && cublas_wants(k->blas, gate, tokens))) {
        gate_up_pair(k, activation, gate, up, (const uint16_t *)x, tokens, (uint16_t *)out);
        return;
    }
    if (tiles) {
        wgmma_call call = wgmma_call_of(k, x, tokens, MATMUL_GATE_UP);
        call.activation = activation;
        call.w[0] = tiles_of(gate);
        call.w[1] = tiles_of(up);
        call.outs[0] = out;
        call.count = 2;
        cuda_note(k, wgmma_product(k->stream, &call), "gate_up by wgmma");
        return;
    }
    matmul_call call = call_of(k, x, tokens, MATMUL_GATE_UP);
    call.activation = activation;
    call.w[0] = pack_of(gate);
    call.w[1] = pack_of(up);
    call.outs[0] = out;
    call.count = 2;
    cuda_note(k, matmul(k->stream, &call), "gate_up");
}

static void matmul_sums(kernels *base, const kernels_weight *w, int segment, const kernels_act *x,
                        int tokens, void *sums) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    bool exact = base->sums_type == KERNELS_SUMS_EXACT;
    if (cuda_takes_wgmma(k, w)) {
        wgmma_call tiles = wgmma_call_of(k, x, tokens, MATMUL_BF16);
        tiles.w[0] = tiles_of(w);
        tiles.outs[0] = sums;
        tiles.count = 1;
        cuda_note(k, wgmma_product(k->stream, &tiles), "matmul_sums by wgmma");
        return;
    }
    if (!exact && by_library(k, w, NULL, x, tokens, sums, true)) return;
    matmul_call call = call_of(k, x, tokens, exact ? MATMUL_F64 : MATMUL_BF16);
    call.w[0] = pack_of(w);
    call.outs[0] = sums;
    call.count = 1;
    call.segment = segment;
    cuda_note(k, matmul(k->stream, &call), "matmul_sums");
}

static void zero(kernels *base, void *device, size_t bytes) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cudaMemsetAsync(device, 0, bytes, k->stream), "zero_sums");
}

static void narrow(kernels *base, const void *sums, size_t count, float scale, float *out) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cuda_narrow(k->stream, sums, base->sums_type, count, scale, out), "narrow");
}

static void rmsnorm(kernels *base, float *x, const void *sums, const float *weight, float epsilon,
                    int tokens, int width, kernels_act *out) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k,
              sums ? cuda_add_rmsnorm(k->stream, x, sums, base->sums_type, weight, epsilon, tokens,
                                      width, out)
                   : cuda_rmsnorm(k->stream, x, weight, epsilon, tokens, width, out),
              "rmsnorm");
}

static void add(kernels *base, float *x, const void *sums, int tokens, int width) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cuda_add(k->stream, x, sums, base->sums_type, (size_t)tokens * (size_t)width),
              "add");
}

static void add_normed(kernels *base, float *x, void *sums, const float *post, const float *weight,
                       float epsilon, int tokens, int width, kernels_act *out) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k,
              cuda_add_normed(k->stream, x, sums, base->sums_type, post, weight, epsilon, tokens,
                              width, out),
              "add_normed");
}

static void soft_cap(kernels *base, float *x, size_t count, float cap) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cuda_soft_cap(k->stream, x, count, cap), "soft_cap");
}

static void rope_kv_write(kernels *base, const kernels_rope *rope, int heads, float *q, float *key,
                          const float *value, kernels_kv *kv) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cuda_rope_kv_write(k->stream, &k->step, rope, heads, q, key, value, kv),
              "rope_kv_write");
}

static void attention(kernels *base, const kernels_head_map *map,
                      const kernels_attention_options *options, const float *q,
                      const kernels_kv *kv, kernels_act *out) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_step step = k->step;
    if (!cuda_plan_is_decode(k)) step.tokens = base->step.tokens; // those that pad have no sequence
    cuda_note(k,
              cuda_attention(k->stream, &step, map, options, q, kv, k->attention_scratch,
                             k->attention_scratch_bytes, out),
              "attention");
}

static void gather(kernels *base, const float *x, int first, int count, int width, float *out) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cuda_gather(k->stream, x, k->wanted + first, count, width, out), "gather");
}

static void reorder(kernels *base, const kernels_act *x, const int32_t *order, int tokens,
                    int width, kernels_act *out) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cuda_reorder(k->stream, x, order, tokens, width, out), "reorder");
}

// Some rows at a time; returns when they are on the host.
static status argmax_rows(cuda *k, const float *logits, int count, int width, int32_t *best,
                          float *value) {
    TRY(cuda_status(cuda_argmax(k->stream, logits, count, width, k->best), "argmax"));
    TRY(cuda_status(cudaMemcpyAsync(k->best_host, k->best, (size_t)count * sizeof *k->best,
                                    cudaMemcpyDeviceToHost, k->stream),
                    "argmax"));
    TRY(cuda_sync(&k->base, clock_now_ns() + CUDA_WAIT_NS));
    for (int i = 0; i < count; i++) cuda_argmax_unpack(k->best_host[i], &best[i], &value[i]);
    return status_ok();
}

static void argmax(kernels *base, const float *logits, int count, int width, int32_t *best,
                   float *value) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    for (int t = 0; t < count; t += CUDA_ARGMAX_ROWS) {
        int rows = count - t < CUDA_ARGMAX_ROWS ? count - t : CUDA_ARGMAX_ROWS;
        status s =
            argmax_rows(k, logits + (size_t)t * (size_t)width, rows, width, best + t, value + t);
        if (status_is_ok(&s)) continue;
        cuda_note_status(k, s);
        for (int i = t; i < count; i++) {
            best[i] = 0; // a column that exists; the error is told by the next wait
            value[i] = NAN;
        }
        return;
    }
}

static void best(kernels *base, const float *logits, int count, int width, int first_token,
                 double *pairs) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cuda_best(k->stream, logits, count, width, first_token, pairs), "best");
}

static void told(kernels *base, const int32_t *tokens, int first, int count, double *pairs) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cuda_told(k->stream, tokens, k->slots + first, count, pairs), "told");
}

static void pick(kernels *base, const double *pairs, int parts, int count, int32_t *tokens,
                 int32_t *chosen) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cuda_pick(k->stream, pairs, parts, count, k->slots, tokens, chosen), "pick");
}

const kernels_ops cuda_ops = {
    .destroy = cuda_destroy,
    .reserve = cuda_reserve,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .kv_bytes = cuda_kv_bytes,
    .sync = cuda_sync,
    .poll = cuda_poll,
    .host_alloc = cuda_host_alloc,
    .host_free = cuda_host_free,
    .send = cuda_send,
    .send_in_turn = cuda_send_in_turn,
    .mark = cuda_mark,
    .mark_poll = cuda_mark_poll,
    .stream = cuda_stream,
    .weight_bytes = cuda_weight_bytes,
    .weight_place = cuda_weight_place,
    .stage_open = cuda_stage_open,
    .stage_close = cuda_stage_close,
    .stage_rows = cuda_stage_rows,
    .stage_copy = cuda_stage_copy,
    .stage_poll = cuda_stage_poll,
    .stage_sync = cuda_stage_sync,
    .begin = cuda_begin,
    .rows_max = cuda_rows_max,
    .round = cuda_round,
    .run = cuda_run,
    .piece = cuda_piece,
    .tail = cuda_tail,
    .record = cuda_record,
    .forget_runs = cuda_forget_runs,
    .run_counts = cuda_run_counts,
    .embed = embed,
    .matmul = matmul_all,
    .gate_up = gate_up,
    .matmul_sums = matmul_sums,
    .route = cuda_route,
    .mix = cuda_mix,
    .zero = zero,
    .narrow = narrow,
    .rmsnorm = rmsnorm,
    .add = add,
    .add_normed = add_normed,
    .soft_cap = soft_cap,
    .rope_kv_write = rope_kv_write,
    .attention = attention,
    .gather = gather,
    .reorder = reorder,
    .argmax = argmax,
    .best = best,
    .told = told,
    .pick = pick,
    .sampler_create = cuda_sampler_create,
    .sampler_destroy = cuda_sampler_destroy,
    .sampler_open = cuda_sampler_open,
    .sampler_begin = cuda_sampler_begin,
    .sampler_load = cuda_sampler_load,
    .sample = cuda_sample,
    .sampler_send = cuda_sampler_send,
    .sampler_end = cuda_sampler_end,
    .sampler_wait = cuda_sampler_wait,
};
