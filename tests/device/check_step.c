// check_step: steps as a worker makes them: kernels_begin, then a layer's operators, eager and
// recorded. Small sizes, all kinds of steps: decode in buckets with padded rows, prompts in chunks,
// both at once, rows out of order of the blocks.
//
// Three runs of the same steps must agree: the CPU's reference (nearly), the device's calls one by
// one, and the device's recorded graphs (bit by bit, from the third step of a shape on a replay):
// whole steps that only decode, pieces of all others.
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
    SEQS = 10,
    WANTED = 24, // most rows that are fetched, rounded up
    TURN_BYTES = WANTED * D * 4
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
    void *sent; // (KERNELS_MARKS, WANTED, D) host memory, of the device
    int rows, wanted;
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
        .chosen = check_poisoned(c, k, TURN_BYTES)};
    if (k == c->device) {
        status s = kernels_host_alloc(k, (size_t)KERNELS_MARKS * TURN_BYTES, &l.sent);
        check_that(c, status_is_ok(&s), "%s", s.message);
    }
    l.map.first_head = check_put(c, k, heads, sizeof heads);
    l.rope.inv_freq = check_put(c, k, m->inv_freq, C / 2 * row);
    l.kv.k = check_poisoned(c, k, kv);
    l.kv.v = check_poisoned(c, k, kv);
    return l;
}

static status before_attention(void *context) {
    layer *l = context;
    kernels *k = l->k;
    size_t count = (size_t)l->rows * D;
    kernels_embed(k, &l->embedding, 0, l->sums);
    kernels_narrow(k, l->sums, count, 1, l->x);
    kernels_rmsnorm(k, l->x, l->norm, 1e-5f, l->rows, D, l->normed);
    kernels_matmul(k, 3, (const kernels_weight *const[]){&l->q, &l->key, &l->value}, NULL,
                   l->normed, l->rows, (float *const[]){l->qx, l->kx, l->vx});
    kernels_rope_kv_write(k, &l->rope, H, l->qx, l->kx, l->vx, &l->kv);
    return status_ok();
}

static status behind_attention(void *context) {
    layer *l = context;
    kernels_matmul_sums(l->k, &l->o, C, l->mixed, l->rows, l->sums);
    kernels_add(l->k, l->x, l->sums, l->rows, D);
    return status_ok();
}

static status tail(void *context) {
    layer *l = context;
    int wanted = l->wanted;
    kernels_gather(l->k, l->x, 0, wanted, D, l->chosen);
    if (l->sent)
        kernels_send_in_turn(l->k, l->sent, TURN_BYTES, l->chosen,
                             (size_t)wanted * D * sizeof(float));
    return status_ok();
}

static status enqueue(void *context) {
    layer *l = context;
    TRY(kernels_piece(l->k, 0, before_attention, l));
    kernels_attention(l->k, &l->map, &(kernels_attention_options){.scale = 0.125f}, l->qx, &l->kv,
                      l->mixed);
    TRY(kernels_piece(l->k, 1, behind_attention, l));
    return kernels_tail(l->k, tail, l, 0);
}

static status enqueue_eagerly(layer *l) {
    TRY(before_attention(l));
    kernels_attention(l->k, &l->map, &(kernels_attention_options){.scale = 0.125f}, l->qx, &l->kv,
                      l->mixed);
    TRY(behind_attention(l));
    return tail(l);
}

// One step; returns the (tokens, D) rows after it, fetched in the order of `wanted`.
static float *run_step(check *c, layer *l, const kernels_step *step, bool recorded) {
    kernels_step s = *step;
    s.in_run = recorded;
    l->wanted = s.wanted;
    l->rows = kernels_begin(l->k, &s);
    check_that(c, l->rows >= step->tokens && l->rows <= kernels_rows_max(l->k, T),
               "a step of %d rows became one of %d", step->tokens, l->rows);
    status st = recorded ? kernels_run(l->k, enqueue, l, 0) : enqueue_eagerly(l);
    check_that(c, status_is_ok(&st), "%s", st.message);
    size_t bytes = (size_t)step->wanted * D * sizeof(float);
    float *got = check_get(c, l->k, l->chosen, bytes);
    if (l->sent)
        check_same(c, "what was sent to the host in turn",
                   (const char *)l->sent + (size_t)step->turn * TURN_BYTES, got, bytes);
    return got;
}

// Sequences that grow, and the blocks that they hold.
typedef struct plan {
    int length[SEQS];
    int32_t blocks[SEQS][CONTEXT / B];
    int32_t free_blocks[N];
    int free_count;
    int32_t ids[T], wanted[WANTED];
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

static void next_step(plan *p, const kernels *k, rng *random, int seqs, int tokens, int chunk) {
    p->step = (kernels_step){.ids = p->ids,
                             .seq = p->seq,
                             .blocks = N,
                             .block_tokens = B,
                             .rows = p->wanted,
                             .turn = (p->step.turn + 1) % KERNELS_MARKS};
    for (int s = 0; s < seqs; s++) grow(p, random, s, s == 0 ? chunk : tokens);
    p->step.wanted = p->step.tokens;
    for (int i = p->step.wanted - 1; i > 0; i--) { // fetched in another order
        int j = (int)rng_below(random, (uint64_t)i + 1);
        int32_t t = p->wanted[i];
        p->wanted[i] = p->wanted[j];
        p->wanted[j] = t;
    }
    for (int more = kernels_round(k, p->step.wanted); p->step.wanted < more;)
        p->wanted[p->step.wanted++] = 0;
}

static const struct shape {
    int seqs, tokens, chunk;
} shapes[] = {
    {1, 1, 7},                         // a prompt
    {3, 2, 5},                         // three chunks
    {1, 1, 1},  {1, 1, 1},  {1, 1, 1}, // decode of one: eager, recorded, replayed
    {3, 1, 1},  {3, 1, 1},  {3, 1, 1}, // of three, padded to four
    {7, 1, 1},  {5, 1, 1},  {6, 1, 1}, // of five to seven, padded to eight
    {4, 1, 12}, {4, 1, 12},            // a chunk beside decodes: eager, recorded
    {2, 1, 15}, {3, 2, 10},            // replayed, in other company
    {6, 1, 1},  {1, 1, 1},
};

// Of them, in eager steps' places none: two of three steps of one row, of four and of eight, and
// the last two; four of sixteen rows, each in two pieces and a tail.
enum { STEPS_REPLAYED = 8, PIECES_REPLAYED = 12 };

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

static void close_trio(trio *t) {
    kernels_host_free(t->eager.k, t->eager.sent);
    kernels_host_free(t->recorded.k, t->recorded.sent);
}

static void take_step(check *c, trio *t, const struct shape *shape, const char *sums) {
    plan *p = &t->p;
    next_step(p, c->device, &c->random, shape->seqs, shape->tokens, shape->chunk);
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
    kernels_run_counts n = kernels_count_runs(c->device);
    check_case(c, "what was recorded");
    check_that(c, n.steps == STEPS_REPLAYED && n.pieces == PIECES_REPLAYED && n.failed == 0,
               "%d steps and %d pieces were replayed", (int)n.steps, (int)n.pieces);
    close_trio(&t);
}

// A context that grows out of its bucket while it decodes: what was recorded for the shorter one
// must not be replayed.
static void long_context(check *c) {
    trio t;
    open_trio(c, KERNELS_SUMS_EXACT, &t);
    while (t.p.length[0] < 500) take_step(c, &t, &(struct shape){1, 1, T}, "exact");
    while (t.p.length[0] < 520) take_step(c, &t, &(struct shape){1, 1, 1}, "exact");
    close_trio(&t);
}

typedef struct ahead {
    kernels *k;
    const float *x;
    float *row;
} ahead;

static status gather_one(void *context) {
    const ahead *a = context;
    kernels_gather(a->k, a->x, 0, 1, D, a->row);
    return status_ok();
}

// Many steps are queued before any is waited for: plans must not overwrite each other on their way,
// whether they go up at once or in what is replayed.
static void queue_ahead(check *c, bool in_run) {
    enum { STEPS = 12 };
    float *x = check_random(c, T * D, 1);
    ahead a = {.k = c->device, .x = check_put(c, c->device, x, T * D * sizeof *x)};
    float *places[2] = {check_poisoned(c, c->device, D * sizeof *x),
                        check_poisoned(c, c->device, D * sizeof *x)};
    float *out[STEPS];
    int32_t ids[1] = {0}, rows[STEPS];
    for (int i = 0; i < STEPS; i++) {
        out[i] = check_poisoned(c, c->device, D * sizeof *x);
        rows[i] = (int32_t)rng_below(&c->random, T);
    }
    check_case(c, "%d steps ahead, %s", STEPS, in_run ? "replayed" : "one by one");
    for (int i = 0; i < STEPS; i++) {
        int32_t row = rows[i]; // gone when the step runs
        kernels_begin(c->device, &(kernels_step){.tokens = 1,
                                                 .ids = ids,
                                                 .blocks = 1,
                                                 .block_tokens = B,
                                                 .wanted = 1,
                                                 .rows = &row,
                                                 .in_run = in_run});
        int variant = i % 2; // what is recorded for one must not be replayed for the other
        a.row = places[variant];
        status s =
            in_run ? kernels_run(c->device, gather_one, &a, (uint64_t)variant) : gather_one(&a);
        check_that(c, status_is_ok(&s), "%s", s.message);
        kernels_copy(c->device, out[i], a.row, D * sizeof *x);
        row = 0;
    }
    for (int i = 0; i < STEPS; i++)
        check_same(c, "a row", check_get(c, c->device, out[i], D * sizeof *x), x + rows[i] * D,
                   D * sizeof *x);
    kernels_forget_runs(c->device); // the next may be recorded for the same addresses
}

int check_step(check *c) {
    all_shapes(c, KERNELS_SUMS_EXACT);
    queue_ahead(c, false);
    queue_ahead(c, true);
    all_shapes(c, KERNELS_SUMS_BF16);
    if (c->thorough) long_context(c);
    return c->failed;
}
