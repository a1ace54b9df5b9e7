// gpu_ops: each operator alone, at the sizes of one layer of each shape. Weights and caches rotate
// among copies, because in a step each layer has its own and none is in the cache.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/gpu.h"
#include "bench/gpu_sampling.h"
#include "bench/gpu_sequences.h"

enum { SEGMENT = 256, CASE_NAME_MAX = 80, CONTEXT_MAX = 8192, CHUNK = 2048 };

// Opens the backend for one shape; its scratch is for all cases below.
static void open_ops(gpu *g, const roofline_shape *s, int tokens) {
    gpu_open(g, (kernels_limits){.tokens = tokens,
                                 .cols = s->ffn > s->width ? s->ffn : s->width,
                                 .context = g->tiny ? 64 : CONTEXT_MAX,
                                 .heads = s->heads,
                                 .head_dim = s->head_dim});
}

// ---- products

typedef enum product_kind { QKV, O, GATE_UP, DOWN, HEAD, PRODUCT_KINDS } product_kind;
static const char *const product_names[] = {"qkv", "o", "gate_up", "down", "head"};

typedef struct product {
    product_kind kind;
    kernels_weight w[GPU_SETS_MAX][3];
    int count, sets, tokens;
    kernels_act *x, *act;
    float *outs[3];
    void *sums;
} product;

static void run_product(gpu *g, void *context, int set) {
    product *p = context;
    kernels_weight *w = p->w[set];
    switch (p->kind) {
    case GATE_UP:
        kernels_gate_up(g->k, KERNELS_SILU, &w[0], &w[1], p->x, p->tokens, p->act);
        break;
    case O:
    case DOWN:
        kernels_matmul_sums(g->k, &w[0], SEGMENT, p->x, p->tokens, p->sums);
        break;
    default:
        kernels_matmul(g->k, p->count, (const kernels_weight *const[]){&w[0], &w[1], &w[2]}, NULL,
                       p->x, p->tokens, p->outs);
    }
}

static int product_rows(const roofline_shape *s, product_kind kind, int rows[3], int *cols) {
    *cols = kind == O ? s->heads * s->head_dim : kind == DOWN ? s->ffn : s->width;
    rows[1] = rows[2] = kind == GATE_UP ? s->ffn : s->kv_heads * s->head_dim;
    rows[0] = kind == QKV       ? s->heads * s->head_dim
              : kind == GATE_UP ? s->ffn
              : kind == HEAD    ? s->vocab
                                : s->width;
    return kind == QKV ? 3 : kind == GATE_UP ? 2 : 1;
}

// Weights of all sets, opened before the first case that is wanted.
static void open_product(gpu *g, product *p, dtype type, const int rows[3], int cols) {
    double bytes = 0;
    for (int i = 0; i < p->count; i++) {
        p->w[0][i] = gpu_weight(g, type, rows[i], cols);
        bytes += gpu_weight_bytes(&p->w[0][i]);
    }
    p->sets = gpu_sets(g, bytes);
    for (int set = 1; set < p->sets; set++)
        for (int i = 0; i < p->count; i++) p->w[set][i] = gpu_weight_again(g, &p->w[0][i]);
}

static bool is_f8(dtype type) {
    return type == DTYPE_F8_E4M3 || type == DTYPE_F8_BLOCK;
}

static void bench_tokens(gpu *g, product *p, const char *name, const int rows[3], int cols) {
    size_t tokens = (size_t)p->tokens;
    double weights = 0, all = 0;
    bool sums = p->kind == O || p->kind == DOWN;
    for (int i = 0; i < p->count; i++) {
        weights += gpu_weight_bytes(&p->w[0][i]);
        all += rows[i];
        if (!sums && p->kind != GATE_UP)
            p->outs[i] = gpu_take(g, tokens * (size_t)rows[i] * sizeof(float));
    }
    p->x = gpu_act(g, p->tokens, cols);
    if (p->kind == GATE_UP) p->act = gpu_take(g, kernels_act_bytes(g->k, p->tokens, rows[0]));
    if (sums) p->sums = gpu_take(g, kernels_sums_bytes(g->k, tokens * (size_t)rows[0]));
    double out = p->kind == GATE_UP ? 2.0 * rows[0] : sums ? 2.0 * all : 4.0 * all;
    double bytes = weights + p->tokens * (2.0 * cols + out), flops = 2.0 * p->tokens * all * cols;
    double floor = gpu_floor(g, bytes, flops, is_f8(p->w[0][0].type));
    gpu_report(g, "ops", name, gpu_time(g, run_product, p, p->sets, floor), bytes, flops, floor,
               "");
}

// One product at each number of tokens, over the same weights.
static void bench_product(gpu *g, const gpu_shape *shape, dtype type, product_kind kind,
                          const int *tokens, size_t count) {
    int rows[3], cols, all = 0;
    product p = {.kind = kind, .count = product_rows(&shape->of, kind, rows, &cols)};
    for (int i = 0; i < p.count; i++) all += rows[i];
    int kept = 0;
    for (size_t i = 0; i < count; i++) {
        char name[CASE_NAME_MAX];
        p.tokens = tokens[i];
        snprintf(name, sizeof name, "%s %s %dx%d %s T=%d", shape->name, product_names[kind], all,
                 cols, dtype_name(type), p.tokens);
        if (!gpu_wanted(g, name)) continue;
        if (kept == 0) {
            open_product(g, &p, type, rows, cols);
            kept = g->taken_count;
        }
        bench_tokens(g, &p, name, rows, cols);
        gpu_release_to(g, kept);
    }
    if (kept > 0) gpu_release(g);
}

static void bench_products(gpu *g, const gpu_shape *shape) {
    static const int real[] = {1, 8, 32, 256, CHUNK}, tiny[] = {1, 3};
    const int *tokens = g->tiny ? tiny : real;
    size_t count = g->tiny ? 2 : 5;
    for (int kind = 0; kind < HEAD; kind++)
        bench_product(g, shape, shape->linear, (product_kind)kind, tokens, count);
    bench_product(g, shape, shape->head, HEAD, tokens, g->tiny ? 2 : 4);
}

// The other weight types, at one matrix.
static void bench_types(gpu *g, const gpu_shape *shape) {
    static const dtype types[] = {DTYPE_F8_E4M3, DTYPE_F8_BLOCK, DTYPE_I8,   DTYPE_I4,
                                  DTYPE_I4_32,   DTYPE_Q8_0,     DTYPE_Q4_0, DTYPE_Q4_1,
                                  DTYPE_Q5_0,    DTYPE_Q4_K,     DTYPE_Q6_K};
    static const int real[] = {1, 32}, tiny[] = {1, 2};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        bench_product(g, shape, types[i], DOWN, g->tiny ? tiny : real, 2);
}

// ---- attention

typedef struct attention {
    sequences seqs;
    kernels_head_map map;
    kernels_kv kv[GPU_SETS_MAX];
    kernels_rope rope;
    float *q, *key, *value;
    kernels_act *out;
} attention;

static void run_attention(gpu *g, void *context, int set) {
    attention *a = context;
    kernels_attention(g->k, &a->map, &(kernels_attention_options){.scale = 0.088f}, a->q,
                      &a->kv[set], a->out);
}

static void run_rope(gpu *g, void *context, int set) {
    attention *a = context;
    kernels_rope_kv_write(g->k, &a->rope, a->map.heads, a->q, a->key, a->value, &a->kv[set]);
}

static void open_attention(gpu *g, const roofline_shape *s, attention *a, int sets, dtype type) {
    a->map = gpu_head_map(g, s->heads, s->kv_heads);
    size_t rows = (size_t)a->seqs.rows, c = (size_t)s->head_dim;
    a->q = gpu_floats(g, rows * (size_t)s->heads * c);
    a->key = gpu_floats(g, rows * (size_t)s->kv_heads * c);
    a->value = gpu_floats(g, rows * (size_t)s->kv_heads * c);
    a->out = gpu_take(g, kernels_act_bytes(g->k, (int)rows, s->heads * s->head_dim));
    a->rope = (kernels_rope){gpu_floats(g, c / 2), s->head_dim, 1, KERNELS_ROPE_HALF};
    for (int i = 0; i < sets; i++) a->kv[i] = gpu_kv(g, &a->seqs, type, s->kv_heads, s->head_dim);
}

static void bench_attention(gpu *g, const gpu_shape *shape, int seqs, int tokens, int context,
                            dtype type) {
    const roofline_shape *s = &shape->of;
    char name[CASE_NAME_MAX];
    snprintf(name, sizeof name, "%s attention S=%d T=%d context=%d %s", shape->name, seqs, tokens,
             context, dtype_name(type));
    char rope_name[CASE_NAME_MAX];
    snprintf(rope_name, sizeof rope_name, "%s rope_kv_write S=%d T=%d %s", shape->name, seqs,
             tokens, dtype_name(type));
    if (!gpu_wanted(g, name) && !gpu_wanted(g, rope_name)) return;
    kernels_cost one =
        kernels_cost_attention(s->heads, s->kv_heads, s->head_dim, type, tokens, context);
    double bytes = seqs * one.bytes, flops = seqs * one.flops,
           floor = gpu_floor(g, bytes, flops, false);
    int sets = gpu_sets(g, bytes);
    attention a = {.seqs = sequences_open(seqs, tokens, context)};
    gpu_begin(g, &a.seqs);
    open_attention(g, s, &a, sets, type);
    if (gpu_wanted(g, name))
        gpu_report(g, "ops", name, gpu_time(g, run_attention, &a, sets, floor), bytes, flops, floor,
                   "");
    if (gpu_wanted(g, rope_name)) {
        double q = 4.0 * s->heads * s->head_dim, kv = 2.0 * s->kv_heads * s->head_dim;
        bytes = seqs * tokens * (2 * q + kv * (4 + (double)dtype_row_bytes(type, 128) / 128));
        floor = gpu_floor(g, bytes, 0, false);
        gpu_report(g, "ops", rope_name, gpu_time(g, run_rope, &a, sets, floor), bytes, 0, floor,
                   "");
    }
    sequences_close(&a.seqs);
    gpu_release(g);
}

static void bench_attentions(gpu *g, const gpu_shape *shape) {
    dtype type = DTYPE_BF16;
    if (g->tiny) {
        bench_attention(g, shape, 2, 1, 40, type);
        bench_attention(g, shape, 1, 5, 40, type);
        return;
    }
    static const int seqs[] = {1, 32, 256}, contexts[] = {1024, CONTEXT_MAX};
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++)
        for (size_t j = 0; j < sizeof seqs / sizeof *seqs; j++)
            bench_attention(g, shape, seqs[j], 1, contexts[i], type);
    bench_attention(g, shape, 1, CHUNK, CHUNK, type);
    bench_attention(g, shape, 1, CHUNK, CONTEXT_MAX, type);
    bench_attention(g, shape, 32, 1, CONTEXT_MAX, DTYPE_F8_E4M3);
}

// ---- rows

typedef struct rows_case {
    int tokens, width;
    float *x[GPU_SETS_MAX], *weight;
    void *sums[GPU_SETS_MAX];
    kernels_act *acts[GPU_SETS_MAX], *out;
    int32_t *order;
} rows_case;

static void run_add_norm(gpu *g, void *context, int set) {
    rows_case *r = context;
    kernels_add_rmsnorm(g->k, r->x[set], r->sums[set], r->weight, 1e-5f, r->tokens, r->width,
                        r->out);
}

static void bench_norm(gpu *g, const gpu_shape *shape, int tokens) {
    rows_case r = {.tokens = tokens, .width = shape->of.width};
    char name[CASE_NAME_MAX];
    snprintf(name, sizeof name, "%s add_rmsnorm D=%d T=%d", shape->name, r.width, tokens);
    if (!gpu_wanted(g, name)) return;
    size_t count = (size_t)tokens * (size_t)r.width;
    size_t sum_bytes = kernels_sums_bytes(g->k, count);
    double bytes = 4.0 * (double)count * 2 + (double)sum_bytes + 2.0 * (double)count;
    double floor = gpu_floor(g, bytes, 0, false);
    int sets = gpu_sets(g, bytes);
    for (int i = 0; i < sets; i++) {
        r.x[i] = gpu_floats(g, count);
        r.sums[i] = gpu_take(g, sum_bytes);
    }
    r.weight = gpu_floats(g, (size_t)r.width);
    r.out = gpu_take(g, kernels_act_bytes(g->k, tokens, r.width));
    gpu_report(g, "ops", name, gpu_time(g, run_add_norm, &r, sets, floor), bytes, 0, floor, "");
    gpu_release(g);
}

static void run_reorder(gpu *g, void *context, int set) {
    rows_case *r = context;
    kernels_reorder(g->k, r->acts[set], r->order, r->tokens, r->width, r->out);
}

// Every column to another place, as far away as it may be.
static int32_t *scattered(gpu *g, int width) {
    size_t bytes = (size_t)width * sizeof(int32_t);
    int32_t *device = gpu_take(g, bytes), *order = malloc(bytes);
    if (!order) gpu_must(status_error(STATUS_RESOURCE_EXHAUSTED, "no memory"), "an order");
    for (int i = 0; i < width; i++) order[i] = i;
    for (int i = width - 1; i > 0; i--) {
        int j = (int)rng_below(&g->random, (uint64_t)i + 1), other = order[i];
        order[i] = order[j];
        order[j] = other;
    }
    gpu_must(kernels_upload(g->k, device, order, bytes), "an order");
    free(order);
    return device;
}

static void bench_reorder(gpu *g, const gpu_shape *shape, int tokens) {
    rows_case r = {.tokens = tokens, .width = shape->of.width};
    char name[CASE_NAME_MAX];
    snprintf(name, sizeof name, "%s reorder D=%d T=%d", shape->name, r.width, tokens);
    if (!gpu_wanted(g, name)) return;
    double bytes = 2.0 * 2 * tokens * r.width + 4.0 * r.width,
           floor = gpu_floor(g, bytes, 0, false);
    int sets = gpu_sets(g, bytes);
    for (int i = 0; i < sets; i++) r.acts[i] = gpu_act(g, tokens, r.width);
    r.order = scattered(g, r.width);
    r.out = gpu_take(g, kernels_act_bytes(g->k, tokens, r.width));
    gpu_report(g, "ops", name, gpu_time(g, run_reorder, &r, sets, floor), bytes, 0, floor, "");
    gpu_release(g);
}

void gpu_run_ops(gpu *g) {
    const gpu_shape *shapes;
    int count = gpu_shapes(g, &shapes);
    for (int i = 0; i < count; i++) {
        open_ops(g, &shapes[i].of, g->tiny ? 8 : CHUNK);
        bench_norm(g, &shapes[i], 1);
        bench_norm(g, &shapes[i], g->tiny ? 3 : 256);
        if (i == 0) bench_reorder(g, &shapes[i], 1);
        if (i == 0) bench_reorder(g, &shapes[i], g->tiny ? 3 : 256);
        bench_attentions(g, &shapes[i]);
        bench_products(g, &shapes[i]);
        if (i == 0) gpu_run_sampling(g, shapes[i].of.vocab);
        if (i == 0) bench_types(g, &shapes[i]);
        gpu_close(g);
    }
}
