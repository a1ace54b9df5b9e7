// check_step: steps as a worker makes them: kernels_begin, then a layer's operators, eager and
// recorded. Small sizes, all kinds of steps: decode in buckets with padded rows, prompts in chunks,
// both at once, rows out of order of the blocks.
//
// Three runs of the same steps must agree: the CPU's reference (nearly), the device's calls one by
// one, and the device's recorded graphs (bit by bit, from the third step of a shape on a replay).
#include <math.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/dtype.h"
#include "tests/device/check.h"

enum {
    D = 64,
    H = 4,
    G = 2,
    C = 64, // H * C is the width of attention's output
    VOCAB = 40,
    B = 16, // tokens per block
    N = 40,
    T = 20,        // most rows of a step
    CONTEXT = 560, // past the first bucket of contexts, 512
    SEQS = 10
};

// A layer on one backend.
typedef struct layer {
    kernels *k;
    kernels_weight embedding, q, key, value, o;
    kernels_head_map map;
    kernels_rope rope;
    kernels_kv kv;
    float *norm, *x, *qx, *kx, *vx;
    void *sums;
    kernels_act *normed, *mixed;
    float *chosen;
    int rows;
} layer;

typedef struct model { // host memory
    float *embedding, *q, *key, *value, *o, *norm, *inv_freq;
} model;

static kernels_weight place(check *c, kernels *k, const float *host, int rows, int cols) {
    kernels_weight out = {0}, view = {.data = host,
                                      .row_stride = (size_t)cols * sizeof *host,
                                      .rows = rows,
                                      .cols = cols,
                                      .type = DTYPE_F32};
    void *memory = check_poisoned(c, k, kernels_weight_bytes(k, &view) + 1);
    status s = kernels_weight_place(k, &view, memory, &out);
    check_that(c, status_is_ok(&s), "%s", s.message);
    return out;
}

// What BF16 holds exactly: then device and reference multiply the same numbers.
static float *bf16_weights(check *c, size_t count, float scale) {
    float *w = check_random(c, count, scale);
    for (size_t i = 0; i < count; i++) w[i] = check_bf16(w[i]);
    return w;
}

static model make_model(check *c) {
    model m = {.embedding = bf16_weights(c, (size_t)VOCAB * D, 1),
               .q = bf16_weights(c, (size_t)H * C * D, 0.2f),
               .key = bf16_weights(c, (size_t)G * C * D, 0.2f),
               .value = bf16_weights(c, (size_t)G * C * D, 0.2f),
               .o = bf16_weights(c, (size_t)D * H * C, 0.1f),
               .norm = check_random(c, D, 1),
               .inv_freq = check_host(c, C / 2 * sizeof(float))};
    for (int i = 0; i < C / 2; i++) m.inv_freq[i] = powf(10000.0f, -2.0f * (float)i / C);
    return m;
}

static layer make_layer(check *c, kernels *k, const model *m) {
    int rows = kernels_rows_max(k, T);
    size_t t = (size_t)rows, row = sizeof(float);
    const int32_t heads[] = {0, 3, H}; // uneven on purpose
    size_t kv = kernels_kv_bytes(k, DTYPE_BF16, N, B, G, C);
    layer l = {
        .k = k,
        .embedding = place(c, k, m->embedding, VOCAB, D),
        .q = place(c, k, m->q, H * C, D),
        .key = place(c, k, m->key, G * C, D),
        .value = place(c, k, m->value, G * C, D),
        .o = place(c, k, m->o, D, H * C),
        .map = {.heads = H, .kv_heads = G, .most = 3},
        .rope = {.rope_dims = C, .scale = 1, .style = KERNELS_ROPE_HALF},
        .kv = {.type = DTYPE_BF16, .blocks = N, .block_tokens = B, .heads = G, .head_dim = C},
        .norm = check_put(c, k, m->norm, D * row),
        .x = check_poisoned(c, k, t * D * row),
        .qx = check_poisoned(c, k, t * H * C * row),
        .kx = check_poisoned(c, k, t * G * C * row),
        .vx = check_poisoned(c, k, t * G * C * row),
        .sums = check_poisoned(c, k, kernels_sums_bytes(k, t * D)),
        .normed = check_poisoned(c, k, kernels_act_bytes(k, rows, D)),
        .mixed = check_poisoned(c, k, kernels_act_bytes(k, rows, H * C)),
        .chosen = check_poisoned(c, k, t * D * row)};
    l.map.first_head = check_put(c, k, heads, sizeof heads);
    l.rope.inv_freq = check_put(c, k, m->inv_freq, C / 2 * row);
    l.kv.k = check_poisoned(c, k, kv);
    l.kv.v = check_poisoned(c, k, kv);
    return l;
}

static status enqueue(void *context) {
    layer *l = context;
    kernels *k = l->k;
    size_t count = (size_t)l->rows * D;
    kernels_embed(k, &l->embedding, 0, l->sums);
    kernels_narrow(k, l->sums, count, l->x);
    kernels_rmsnorm(k, l->x, l->norm, 1e-5f, l->rows, D, l->normed);
    kernels_matmul(k, 3, (const kernels_weight *const[]){&l->q, &l->key, &l->value}, NULL,
                   l->normed, l->rows, (float *const[]){l->qx, l->kx, l->vx});
    kernels_rope_kv_write(k, &l->rope, H, l->qx, l->kx, l->vx, &l->kv);
    kernels_attention(k, &l->map, 0.125f, l->qx, &l->kv, l->mixed);
    kernels_matmul_sums(k, &l->o, C, l->mixed, l->rows, l->sums);
    kernels_add(k, l->x, l->sums, l->rows, D);
    return status_ok();
}

// One step; returns the (tokens, D) rows after it, fetched in the order of `wanted`.
static float *run_step(check *c, layer *l, const kernels_step *step, bool recorded) {
    l->rows = kernels_begin(l->k, step);
    check_that(c, l->rows >= step->tokens && l->rows <= kernels_rows_max(l->k, T),
               "a step of %d rows became one of %d", step->tokens, l->rows);
    status s = recorded ? kernels_run(l->k, enqueue, l) : enqueue(l);
    check_that(c, status_is_ok(&s), "%s", s.message);
    kernels_gather(l->k, l->x, 0, step->wanted, D, l->chosen);
    return check_get(c, l->k, l->chosen, (size_t)step->wanted * D * sizeof(float));
}

// Sequences that grow, and the blocks that they hold.
typedef struct plan {
    int length[SEQS];
    int32_t blocks[SEQS][CONTEXT / B];
    int32_t free_blocks[N];
    int free_count;
    int32_t ids[T], wanted[T];
    kernels_seq seq[SEQS];
    kernels_step step;
} plan;

static void start(plan *p, rng *random) {
    *p = (plan){.free_count = N};
    for (int i = 0; i < N; i++) p->free_blocks[i] = i;
    for (int i = N - 1; i > 0; i--) { // not in order
        int j = (int)rng_below(random, (uint64_t)i + 1);
        int32_t t = p->free_blocks[i];
        p->free_blocks[i] = p->free_blocks[j];
        p->free_blocks[j] = t;
    }
}

// Sequence s grows by `tokens`, if there is room.
static void grow(plan *p, rng *random, int s, int tokens) {
    int length = p->length[s], end = length + tokens;
    int need = (end + B - 1) / B - (length + B - 1) / B;
    if (end > CONTEXT || need > p->free_count || p->step.tokens + tokens > T) return;
    for (int b = (length + B - 1) / B; b < (end + B - 1) / B; b++)
        p->blocks[s][b] = p->free_blocks[--p->free_count];
    p->seq[p->step.seqs++] = (kernels_seq){
        .row = p->step.tokens, .tokens = tokens, .position = length, .blocks = p->blocks[s]};
    for (int t = 0; t < tokens; t++) {
        p->wanted[p->step.tokens] = p->step.tokens;
        p->ids[p->step.tokens++] = (int32_t)rng_below(random, VOCAB);
    }
    p->length[s] = end;
}

static void next_step(plan *p, rng *random, int seqs, int tokens, int chunk) {
    p->step = (kernels_step){
        .ids = p->ids, .seq = p->seq, .blocks = N, .block_tokens = B, .rows = p->wanted};
    for (int s = 0; s < seqs; s++) grow(p, random, s, s == 0 ? chunk : tokens);
    p->step.wanted = p->step.tokens;
    for (int i = p->step.wanted - 1; i > 0; i--) { // fetched in another order
        int j = (int)rng_below(random, (uint64_t)i + 1);
        int32_t t = p->wanted[i];
        p->wanted[i] = p->wanted[j];
        p->wanted[j] = t;
    }
}

static const struct shape {
    int seqs, tokens, chunk;
} shapes[] = {
    {1, 1, 7},                        // a prompt
    {3, 2, 5},                        // three chunks
    {1, 1, 1},  {1, 1, 1}, {1, 1, 1}, // decode of one: eager, recorded, replayed
    {3, 1, 1},  {3, 1, 1}, {3, 1, 1}, // of three, padded to four
    {7, 1, 1},  {5, 1, 1}, {6, 1, 1}, // of five to seven, padded to eight
    {4, 1, 12},                       // a chunk beside decodes
    {6, 1, 1},  {1, 1, 1},
};

// Three layers that take the same steps.
typedef struct trio {
    layer want, eager, recorded;
    plan p;
} trio;

static void open_trio(check *c, kernels_sums sums, trio *t) {
    check_open(
        c,
        (kernels_limits){.tokens = T, .cols = H * C, .context = CONTEXT, .heads = H, .head_dim = C},
        (kernels_cuda_options){.sums = sums});
    model m = make_model(c);
    t->want = make_layer(c, c->reference, &m);
    t->eager = make_layer(c, c->device, &m);
    t->recorded = make_layer(c, c->device, &m);
    start(&t->p, &c->random);
}

static void take_step(check *c, trio *t, const struct shape *shape, const char *sums) {
    plan *p = &t->p;
    next_step(p, &c->random, shape->seqs, shape->tokens, shape->chunk);
    check_case(c, "%d rows, %d sequences, the first at %d, %s sums", p->step.tokens, p->step.seqs,
               p->length[0], sums);
    size_t count = (size_t)p->step.wanted * D;
    float *a = run_step(c, &t->want, &p->step, false);
    float *b = run_step(c, &t->eager, &p->step, false);
    float *d = run_step(c, &t->recorded, &p->step, true);
    check_near(c, "the device's rows", b, a, count, 0.04, 0.02);
    check_same(c, "recorded beside eager", d, b, count * sizeof *b);
}

static void all_shapes(check *c, kernels_sums sums) {
    trio t;
    open_trio(c, sums, &t);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        take_step(c, &t, &shapes[i], sums == KERNELS_SUMS_EXACT ? "exact" : "BF16");
}

// A context that grows out of its bucket while it decodes: what was recorded for the shorter one
// must not be replayed.
static void long_context(check *c) {
    trio t;
    open_trio(c, KERNELS_SUMS_EXACT, &t);
    while (t.p.length[0] < 500) take_step(c, &t, &(struct shape){1, 1, T}, "exact");
    while (t.p.length[0] < 520) take_step(c, &t, &(struct shape){1, 1, 1}, "exact");
}

// Many steps are queued before any is waited for: plans must not overwrite each other on their way.
static void queue_ahead(check *c) {
    enum { STEPS = 12 };
    float *x = check_random(c, T * D, 1);
    float *gx = check_put(c, c->device, x, T * D * sizeof *x);
    float *out[STEPS];
    int32_t ids[1] = {0}, rows[STEPS];
    for (int i = 0; i < STEPS; i++) {
        out[i] = check_poisoned(c, c->device, D * sizeof *x);
        rows[i] = (int32_t)rng_below(&c->random, T);
    }
    check_case(c, "%d steps ahead", STEPS);
    for (int i = 0; i < STEPS; i++) {
        int32_t row = rows[i]; // gone when the step runs
        kernels_begin(c->device, &(kernels_step){.tokens = 1,
                                                 .ids = ids,
                                                 .blocks = 1,
                                                 .block_tokens = B,
                                                 .wanted = 1,
                                                 .rows = &row});
        kernels_gather(c->device, gx, 0, 1, D, out[i]);
        row = 0;
    }
    for (int i = 0; i < STEPS; i++)
        check_same(c, "a row", check_get(c, c->device, out[i], D * sizeof *x), x + rows[i] * D,
                   D * sizeof *x);
}

int check_step(check *c) {
    all_shapes(c, KERNELS_SUMS_EXACT);
    queue_ahead(c);
    all_shapes(c, KERNELS_SUMS_BF16);
    if (c->thorough) long_context(c);
    return c->failed;
}
