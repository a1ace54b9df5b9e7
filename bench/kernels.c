// bench-kernels: every operator in the shapes of real models: time, GB/s, GFLOP/s and the share of
// the memory bandwidth that a plain read reaches with the same threads in the same run.
//
//   bench-kernels [--threads N] [--isa NAME] [--seconds S] [--only TEXT] [--json]
//
// Weights rotate through an arena larger than the caches, as they do in a real step; activations
// stay hot. The section "step" runs all operators of one step of SmolLM2-135M (Q4_1, head Q8_0) in
// order: what a worker can reach at best.
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "kernels/cpu/pool.h"
#include "kernels/kernels.h"

enum {
    ARENA_BYTES = 256 << 20, // weights; beyond any last-level cache that matters here
    TOKENS_MAX = 512,
    COLS_MAX = 16384,
    ROWS_MAX = 152064,
    CONTEXT = 2048,
    BLOCK_TOKENS = 16,
    FFN_SEGMENT = 64,
    HEADS_MAX = 32,
    HEAD_DIM_MAX = 128,
    REPEATS_MIN = 3
};

typedef struct bench {
    kernels *k;
    int threads;
    double seconds; // spent on each line, at least
    const char *only;
    bool json;
    double bandwidth; // bytes/s of a plain read
    uint8_t *arena;
    dtype arena_type; // DTYPE_COUNT: not filled
    size_t cursor;
    float *x, *out; // (TOKENS_MAX, COLS_MAX), (TOKENS_MAX, widest output)
    double *sums;   // (TOKENS_MAX, COLS_MAX)
} bench;

// On cpu prepared activations are float.
static kernels_act *act(float *x) {
    return (kernels_act *)x;
}

static void die(const char *what) {
    fprintf(stderr, "bench-kernels: %s\n", what);
    exit(1);
}

static void check(status s) {
    if (s.code != STATUS_OK) die(s.message);
}

typedef void work(bench *b, void *argument);

// The least time of one run, over at least REPEATS_MIN runs and `seconds`: noise of other programs
// only adds.
static double measure(bench *b, work *run, void *argument) {
    double best = 1e30;
    int64_t begin = clock_now_ns();
    run(b, argument);
    for (int i = 0; i < REPEATS_MIN || clock_now_ns() - begin < (int64_t)(b->seconds * 1e9); i++) {
        int64_t start = clock_now_ns();
        run(b, argument);
        double seconds = (double)(clock_now_ns() - start) * 1e-9;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static void report(const bench *b, const char *model, const char *op, const char *type, int rows,
                   int cols, int tokens, double seconds, kernels_cost cost) {
    double share = cost.bytes / seconds / b->bandwidth;
    if (b->json)
        printf(
            "{\"model\":\"%s\",\"op\":\"%s\",\"type\":\"%s\",\"rows\":%d,\"cols\":%d,\"tokens\":%d,"
            "\"us\":%.2f,\"gb_per_s\":%.3f,\"gflop_per_s\":%.3f,\"bandwidth_share\":%.4f}\n",
            model, op, type, rows, cols, tokens, seconds * 1e6, cost.bytes / seconds * 1e-9,
            cost.flops / seconds * 1e-9, share);
    else
        printf("%-9s %-10s %-5s %6d x %-6d %5d %11.1f %8.2f %9.1f %8.0f%%\n", model, op, type, rows,
               cols, tokens, seconds * 1e6, cost.bytes / seconds * 1e-9,
               cost.flops / seconds * 1e-9, share * 100);
    fflush(stdout);
}

static bool wanted(const bench *b, const char *model, const char *op, const char *type) {
    char name[64];
    snprintf(name, sizeof name, "%s %s %s", model, op, type);
    return !b->only || strstr(name, b->only);
}

// --- memory ---

typedef struct read_job {
    const uint8_t *data;
    size_t bytes;
    int tasks;
    uint64_t sums[POOL_THREADS_MAX * 8];
} read_job;

static void read_task(void *context, int task, int thread) {
    (void)thread;
    read_job *job = context;
    size_t words = job->bytes / 8 / (size_t)job->tasks;
    const uint64_t *at = (const uint64_t *)job->data + (size_t)task * words;
    uint64_t sums[8] = {0};
    for (size_t i = 0; i + 8 <= words; i += 8)
        for (int j = 0; j < 8; j++) sums[j] += at[i + (size_t)j];
    for (int j = 0; j < 8; j++) job->sums[task] += sums[j];
}

static double measure_bandwidth(bench *b) {
    pool *p = NULL;
    check(pool_create(b->threads, -1, &p));
    read_job *job = calloc(1, sizeof *job);
    if (!job) die("no memory");
    *job = (read_job){.data = b->arena, .bytes = ARENA_BYTES, .tasks = b->threads * 4};
    double best = 1e30;
    for (int i = 0; i < 8; i++) {
        int64_t start = clock_now_ns();
        pool_run(p, job->tasks, read_task, job);
        double seconds = (double)(clock_now_ns() - start) * 1e-9;
        best = seconds < best ? seconds : best;
    }
    free(job);
    pool_destroy(p);
    return ARENA_BYTES / best;
}

// Fills the arena with valid rows of `type`: a random half MiB, repeated.
static void fill_arena(bench *b, dtype type) {
    if (b->arena_type == type) return;
    size_t block = dtype_block_bytes(type), values = dtype_block_values(type),
           count = (512 << 10) / block;
    rng r = rng_make(type + 1);
    for (size_t i = 0; i < count; i++) {
        uint8_t *p = b->arena + i * block;
        float x = (float)(rng_uniform(&r) - 0.5) * 0.1f;
        uint16_t half = type == DTYPE_BF16 ? dtype_f32_to_bf16(x) : dtype_f32_to_f16(x);
        if (values > 1)
            for (size_t j = 0; j < block; j++) p[j] = (uint8_t)rng_next(&r);
        memcpy(type == DTYPE_Q6_K ? p + 208 : p, &half, 2);
        if (type == DTYPE_F32) memcpy(p, &x, 4);
        if (type == DTYPE_Q4_1 || type == DTYPE_Q4_K) memcpy(p + 2, &half, 2);
        if (type == DTYPE_I4 || type == DTYPE_I4_32) p[2] = 7, p[3] = 0;
    }
    size_t filled = count * block;
    for (size_t at = filled; at < ARENA_BYTES; at += filled)
        memcpy(b->arena + at, b->arena, ARENA_BYTES - at < filled ? ARENA_BYTES - at : filled);
    b->arena_type = type;
    b->cursor = 0;
}

static kernels_weight next_weight(bench *b, dtype type, int rows, int cols) {
    size_t stride = dtype_row_bytes(type, (size_t)cols), bytes = stride * (size_t)rows;
    if (bytes > ARENA_BYTES) die("a matrix is larger than the arena");
    if (b->cursor + bytes > ARENA_BYTES) b->cursor = 0;
    kernels_weight w = {.data = b->arena + b->cursor,
                        .row_stride = stride,
                        .rows = rows,
                        .cols = cols,
                        .type = type};
    b->cursor += bytes / dtype_block_bytes(type) * dtype_block_bytes(type);
    return w;
}

// --- operators ---

typedef struct product {
    dtype type;
    int rows, cols, tokens;
} product;

static void run_product(bench *b, void *argument) {
    const product *p = argument;
    kernels_weight w = next_weight(b, p->type, p->rows, p->cols);
    const kernels_weight *weights[] = {&w};
    kernels_matmul(b->k, 1, weights, NULL, act(b->x), p->tokens, &b->out);
}

static void bench_product(bench *b, const char *model, const char *name, product p) {
    if (!wanted(b, model, name, dtype_name(p.type))) return;
    if ((size_t)p.cols % dtype_block_values(p.type) != 0) return;
    fill_arena(b, p.type);
    kernels_weight w = {.rows = p.rows, .cols = p.cols, .type = p.type};
    report(b, model, name, dtype_name(p.type), p.rows, p.cols, p.tokens,
           measure(b, run_product, &p), kernels_cost_matmul(&w, p.tokens));
}

typedef struct attention_case {
    int heads, kv_heads, head_dim, seqs, tokens, context;
    kernels_kv kv;
    kernels_seq *seq;
    int32_t *blocks, first_head[HEADS_MAX + 1];
    kernels_head_map map;
} attention_case;

static void run_attention(bench *b, void *argument) {
    attention_case *a = argument;
    kernels_attention(b->k, &a->map, &(kernels_attention_options){.scale = 0.125f}, b->x, &a->kv,
                      act(b->out));
}

static void run_rope(bench *b, void *argument) {
    attention_case *a = argument;
    static const float inv_freq[HEAD_DIM_MAX / 2] = {1.0f, 0.5f, 0.25f, 0.125f};
    kernels_rope rope = {inv_freq, a->head_dim, 1.0f, KERNELS_ROPE_HALF};
    kernels_rope_kv_write(b->k, &rope, a->heads, b->x, b->out, b->out, &a->kv);
}

// `seqs` sequences, each with `tokens` new rows at the end of `context` positions.
static void attention_open(bench *b, attention_case *a, dtype type) {
    int per_seq = (a->context + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    a->kv = (kernels_kv){.type = type,
                         .blocks = per_seq * a->seqs,
                         .block_tokens = BLOCK_TOKENS,
                         .heads = a->kv_heads,
                         .head_dim = a->head_dim};
    size_t bytes =
        kernels_kv_bytes(b->k, type, a->kv.blocks, BLOCK_TOKENS, a->kv_heads, a->head_dim);
    check(kernels_alloc(b->k, bytes, &a->kv.k));
    check(kernels_alloc(b->k, bytes, &a->kv.v));
    a->seq = calloc((size_t)a->seqs, sizeof *a->seq);
    a->blocks = calloc((size_t)a->kv.blocks, sizeof *a->blocks);
    if (!a->seq || !a->blocks) die("no memory");
    for (int i = 0; i < a->kv.blocks; i++) a->blocks[i] = i;
    for (int g = 0; g <= a->kv_heads; g++) a->first_head[g] = g * a->heads / a->kv_heads;
    a->map =
        (kernels_head_map){.heads = a->heads, .kv_heads = a->kv_heads, .first_head = a->first_head};
    for (int s = 0; s < a->seqs; s++)
        a->seq[s] = (kernels_seq){.row = s * a->tokens,
                                  .tokens = a->tokens,
                                  .position = a->context - a->tokens,
                                  .blocks = a->blocks + s * per_seq};
    kernels_begin(b->k, &(kernels_step){.tokens = a->seqs * a->tokens,
                                        .seqs = a->seqs,
                                        .seq = a->seq,
                                        .blocks = a->kv.blocks,
                                        .block_tokens = BLOCK_TOKENS});
}

static void attention_close(bench *b, attention_case *a) {
    kernels_free(b->k, a->kv.k);
    kernels_free(b->k, a->kv.v);
    free(a->seq);
    free(a->blocks);
}

static void bench_attention(bench *b, const char *model, attention_case a, dtype type) {
    const char *name = a.tokens > 1 ? "prefill" : "attention";
    if (!wanted(b, model, name, dtype_name(type))) return;
    attention_open(b, &a, type);
    kernels_cost cost =
        kernels_cost_attention(a.heads, a.kv_heads, a.head_dim, type, a.tokens, a.context);
    cost.bytes *= a.seqs;
    cost.flops *= a.seqs;
    report(b, model, name, dtype_name(type), a.heads * a.head_dim, a.context, a.seqs * a.tokens,
           measure(b, run_attention, &a), cost);
    int rows = a.seqs * a.tokens;
    double moved = 8.0 * rows * a.head_dim * (a.heads + 2 * a.kv_heads);
    report(
        b, model, "rope+write", dtype_name(type), a.heads * a.head_dim, a.context, rows,
        measure(b, run_rope, &a),
        (kernels_cost){.bytes = moved, .flops = 3.0 * rows * a.head_dim * (a.heads + a.kv_heads)});
    attention_close(b, &a);
}

typedef struct rows_case {
    int width, tokens;
    float *weight;
} rows_case;

static void run_norm(bench *b, void *argument) {
    rows_case *c = argument;
    kernels_add_rmsnorm(b->k, b->x, b->sums, c->weight, 1e-5f, c->tokens, c->width, act(b->out));
    kernels_rmsnorm(b->k, b->out, c->weight, 1e-5f, c->tokens, c->width, act(b->x));
}

static void run_argmax(bench *b, void *argument) {
    rows_case *c = argument;
    int32_t best[TOKENS_MAX];
    float value[TOKENS_MAX];
    kernels_argmax(b->k, b->out, c->tokens, c->width, best, value);
}

static void bench_rows(bench *b, const char *model, const char *name, work *run, rows_case c,
                       double floats, double flops) {
    if (!wanted(b, model, name, "F32")) return;
    double values = (double)c.tokens * c.width;
    report(b, model, name, "F32", c.width, 1, c.tokens, measure(b, run, &c),
           (kernels_cost){.bytes = 4 * floats * values, .flops = flops * values});
}

// --- models ---

typedef struct model_shape {
    const char *name;
    int dim, heads, kv_heads, head_dim, ffn, vocab, layers;
} model_shape;

static const model_shape models[] = {
    {"smollm2", 576, 9, 3, 64, 1536, 49152, 30},
    {"0.5b", 896, 14, 2, 64, 4864, 151936, 24},
    {"8b", 4096, 32, 8, 128, 14336, 128256, 32},
};

static void bench_products(bench *b, const model_shape *m, dtype type, int tokens) {
    int qkv = (m->heads + 2 * m->kv_heads) * m->head_dim;
    bench_product(b, m->name, "qkv", (product){type, qkv, m->dim, tokens});
    bench_product(b, m->name, "o", (product){type, m->dim, m->heads * m->head_dim, tokens});
    bench_product(b, m->name, "gate+up", (product){type, 2 * m->ffn, m->dim, tokens});
    bench_product(b, m->name, "down", (product){type, m->dim, m->ffn, tokens});
    if (tokens <= 16 && (size_t)m->dim % dtype_block_values(type) == 0 &&
        dtype_row_bytes(type, (size_t)m->dim) * (size_t)m->vocab <= ARENA_BYTES)
        bench_product(b, m->name, "head", (product){type, m->vocab, m->dim, tokens});
}

static void bench_model(bench *b, const model_shape *m) {
    static const dtype types[] = {DTYPE_Q4_1, DTYPE_Q8_0, DTYPE_Q4_K, DTYPE_Q4_0,
                                  DTYPE_Q5_0, DTYPE_Q6_K, DTYPE_I4,   DTYPE_I4_32,
                                  DTYPE_F16,  DTYPE_BF16, DTYPE_F32};
    enum { TYPES = sizeof types / sizeof *types };
    static const int tokens[] = {1, 4, 16, 512};
    // The large model in the types that it is served in, and a shorter prompt: minutes otherwise.
    bool large = m->dim >= 4096;
    for (int i = 0; i < (large ? 3 : TYPES); i++)
        for (int j = 0; j < 4; j++)
            bench_products(b, m, types[i], large && tokens[j] > 64 ? 64 : tokens[j]);
    attention_case a = {.heads = m->heads, .kv_heads = m->kv_heads, .head_dim = m->head_dim};
    a.seqs = 1, a.tokens = 1, a.context = 512;
    bench_attention(b, m->name, a, DTYPE_F16);
    a.context = CONTEXT;
    bench_attention(b, m->name, a, DTYPE_F16);
    a.seqs = 16, a.context = 512;
    bench_attention(b, m->name, a, DTYPE_F16);
    a.seqs = 1, a.tokens = TOKENS_MAX;
    bench_attention(b, m->name, a, DTYPE_F16);
    rows_case c = {.width = m->dim, .tokens = 1, .weight = b->x + m->dim};
    bench_rows(b, m->name, "2 norms", run_norm, c, 7, 9);
    c.tokens = TOKENS_MAX;
    bench_rows(b, m->name, "2 norms", run_norm, c, 7, 9);
    c.width = m->vocab, c.tokens = 1;
    bench_rows(b, m->name, "argmax", run_argmax, c, 1, 1);
}

// --- a whole step ---

typedef struct step_case {
    const model_shape *m;
    attention_case a;
    float *x, *q, *key, *value, *mixed, *gated;
    uint8_t *weights; // Q4_1: layers one after another, then the head (its bytes read as Q8_0)
} step_case;

static kernels_weight slice(uint8_t **at, dtype type, int rows, int cols) {
    kernels_weight w = {.data = *at,
                        .row_stride = dtype_row_bytes(type, (size_t)cols),
                        .rows = rows,
                        .cols = cols,
                        .type = type};
    *at += w.row_stride * (size_t)rows;
    return w;
}

static void run_layer(bench *b, step_case *s, uint8_t **at, int rows) {
    const model_shape *m = s->m;
    int dim = m->dim, q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    kernels_weight wq = slice(at, DTYPE_Q4_1, q, dim), wk = slice(at, DTYPE_Q4_1, kv, dim);
    kernels_weight wv = slice(at, DTYPE_Q4_1, kv, dim), wo = slice(at, DTYPE_Q4_1, dim, q);
    kernels_weight wg = slice(at, DTYPE_Q4_1, m->ffn, dim), wu = slice(at, DTYPE_Q4_1, m->ffn, dim);
    kernels_weight wd = slice(at, DTYPE_Q4_1, dim, m->ffn);
    const float *norm = b->x;
    static const float inv_freq[HEAD_DIM_MAX / 2] = {1.0f, 0.5f, 0.25f, 0.125f};
    kernels_rope rope = {inv_freq, m->head_dim, 1.0f, KERNELS_ROPE_INTERLEAVED};
    kernels_rmsnorm(b->k, s->x, norm, 1e-5f, rows, dim, act(s->mixed));
    kernels_matmul(b->k, 3, (const kernels_weight *[]){&wq, &wk, &wv}, NULL, act(s->mixed), rows,
                   (float *[]){s->q, s->key, s->value});
    kernels_rope_kv_write(b->k, &rope, m->heads, s->q, s->key, s->value, &s->a.kv);
    kernels_attention(b->k, &s->a.map, &(kernels_attention_options){.scale = 0.125f}, s->q,
                      &s->a.kv, act(s->mixed));
    kernels_matmul_sums(b->k, &wo, m->head_dim, act(s->mixed), rows, b->sums);
    kernels_add_rmsnorm(b->k, s->x, b->sums, norm, 1e-5f, rows, dim, act(s->mixed));
    kernels_gate_up(b->k, KERNELS_SILU, &wg, &wu, act(s->mixed), rows, act(s->gated));
    kernels_matmul_sums(b->k, &wd, FFN_SEGMENT, act(s->gated), rows, b->sums);
    kernels_add(b->k, s->x, b->sums, rows, dim);
}

static void run_step(bench *b, void *argument) {
    step_case *s = argument;
    uint8_t *at = s->weights;
    int rows = s->a.seqs * s->a.tokens;
    for (int i = 0; i < rows * s->m->dim; i++) s->x[i] = b->x[i];
    for (int layer = 0; layer < s->m->layers; layer++) run_layer(b, s, &at, rows);
    kernels_weight head = slice(&at, DTYPE_Q8_0, s->m->vocab, s->m->dim);
    kernels_matmul(b->k, 1, (const kernels_weight *[]){&head}, NULL, act(s->x), s->a.seqs, &b->out);
}

static void bench_step(bench *b, int seqs, int tokens, int context) {
    const model_shape *m = &models[0];
    if (!wanted(b, m->name, "step", "Q4_1")) return;
    fill_arena(b, DTYPE_Q4_1);
    step_case s = {.m = m,
                   .weights = b->arena,
                   .a = {.heads = m->heads,
                         .kv_heads = m->kv_heads,
                         .head_dim = m->head_dim,
                         .seqs = seqs,
                         .tokens = tokens,
                         .context = context}};
    attention_open(b, &s.a, DTYPE_F16);
    size_t rows = (size_t)(seqs * tokens), dim = (size_t)m->dim, ffn = (size_t)m->ffn;
    float *memory = calloc(rows * (6 * dim + ffn), sizeof *memory);
    if (!memory) die("no memory");
    s.x = memory, s.q = s.x + rows * dim, s.key = s.q + rows * dim, s.value = s.key + rows * dim;
    s.mixed = s.value + rows * dim, s.gated = s.mixed + 2 * rows * dim;
    double seconds = measure(b, run_step, &s);
    double bytes =
        m->layers * (2.0 * dim * dim + 2.0 * dim * m->kv_heads * m->head_dim + 3.0 * dim * ffn);
    double values = bytes;
    bytes = values / 32 * 20 + (double)m->vocab * m->dim / 32 * 34;
    double flops = 2 * (double)rows * values + 2.0 * seqs * m->vocab * m->dim;
    report(b, m->name, "step", "Q4_1", seqs, context, (int)rows, seconds,
           (kernels_cost){.bytes = bytes, .flops = flops});
    if (!b->json) printf("%-9s %-10s = %.1f tokens/s\n", "", "", (double)rows / seconds);
    free(memory);
    attention_close(b, &s.a);
}

static void open_bench(bench *b, const char *isa) {
    check(kernels_create_cpu(b->threads, -1, isa, &b->k));
    check(kernels_reserve(b->k, (kernels_limits){.tokens = TOKENS_MAX,
                                                 .cols = COLS_MAX,
                                                 .context = CONTEXT,
                                                 .heads = HEADS_MAX,
                                                 .head_dim = HEAD_DIM_MAX}));
    b->arena = aligned_alloc(64, ARENA_BYTES);
    size_t outputs = (size_t)TOKENS_MAX * 2 * 14336;
    if (outputs < (size_t)16 * ROWS_MAX) outputs = (size_t)16 * ROWS_MAX;
    b->x = malloc(sizeof(float) * TOKENS_MAX * COLS_MAX);
    b->out = calloc(outputs, sizeof(float));
    b->sums = calloc((size_t)TOKENS_MAX * COLS_MAX, sizeof *b->sums);
    if (!b->arena || !b->x || !b->out || !b->sums) die("no memory: about 400 MiB are needed");
    rng r = rng_make(1);
    for (size_t i = 0; i < (size_t)TOKENS_MAX * COLS_MAX; i++)
        b->x[i] = (float)(rng_uniform(&r) - 0.5);
    b->arena_type = DTYPE_COUNT;
    fill_arena(b, DTYPE_Q4_1);
    b->bandwidth = measure_bandwidth(b);
}

static void run_all(bench *b) {
    if (b->json)
        printf("{\"backend\":\"%s\",\"threads\":%d,\"read_gb_per_s\":%.3f}\n", kernels_name(b->k),
               b->threads, b->bandwidth * 1e-9);
    else
        printf(
            "%s, %d threads; plain read %.2f GB/s\n\n%-9s %-10s %-5s %-15s %5s %11s %8s %9s %9s\n",
            kernels_name(b->k), b->threads, b->bandwidth * 1e-9, "model", "op", "type",
            "  rows x cols", "T", "us", "GB/s", "GFLOP/s", "of read");
    bench_step(b, 1, 1, 128);
    bench_step(b, 16, 1, 128);
    bench_step(b, 1, TOKENS_MAX, TOKENS_MAX);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) bench_model(b, &models[i]);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"threads", required_argument, NULL, 't'}, {"isa", required_argument, NULL, 'i'},
        {"seconds", required_argument, NULL, 's'}, {"only", required_argument, NULL, 'o'},
        {"json", no_argument, NULL, 'j'},          {NULL, 0, NULL, 0}};
    bench b = {.threads = 2, .seconds = 0.1};
    const char *isa = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 't')
            b.threads = atoi(optarg);
        else if (c == 'i')
            isa = optarg;
        else if (c == 's')
            b.seconds = atof(optarg);
        else if (c == 'o')
            b.only = optarg;
        else if (c == 'j')
            b.json = true;
        else
            die("usage: bench-kernels [--threads N] [--isa NAME] [--seconds S] [--only TEXT] "
                "[--json]");
    }
    open_bench(&b, isa);
    run_all(&b);
    kernels_destroy(b.k);
    free(b.arena);
    free(b.x);
    free(b.out);
    free(b.sums);
    return 0;
}
