// check_attention: attention over the device's paged cache. Values against the formula in double
// (and the formula against the CPU's reference); bits against each other: a row's must be the same
// however its prompt was cut, whatever else is in the step, and whether its chunks were shared out
// over blocks or not.
//
// A world is some sequences' queries, keys and values, and a cache on the device that holds them;
// what it does not hold is NaN. Steps over parts of it can then be run at will.
#include <math.h>
#include <stdio.h>

#include "tests/device/device_step.h"

enum { KV_HEADS_MAX = 5, WORLD_SEQS_MAX = 4 };

typedef struct shape {
    dtype type;
    int head_dim, block_tokens;
    int kv_heads, serves[KV_HEADS_MAX]; // query heads of each KV head
    float soft_cap;
    int window;
} shape;

typedef struct world {
    shape s;
    int seqs, length[WORLD_SEQS_MAX], heads, most;
    int32_t *table[WORLD_SEQS_MAX], first_head[KV_HEADS_MAX + 1];
    float *q[WORLD_SEQS_MAX], *k[WORLD_SEQS_MAX], *v[WORLD_SEQS_MAX]; // as stored: rounded
    device_memory memory;
    kernels_kv kv;
    kernels_head_map map;
    kernels_attention_options options;
} world;

static float rounded(dtype type, float x) {
    if (type == DTYPE_F16) return dtype_f16_to_f32(dtype_f32_to_f16(x));
    return type == DTYPE_F32 ? x : check_bf16(x);
}

// A head (C) to what a cache of `type` gives back.
static void round_head(dtype type, float *x, int C) {
    float most = 0;
    for (int i = 0; i < C; i++) most = fmaxf(most, fabsf(x[i]));
    for (int i = 0; i < C; i++) {
        if (type == DTYPE_I8)
            x[i] = rintf(x[i] * (127 / most)) * (most / 127);
        else if (type == DTYPE_F8_E4M3)
            x[i] = dtype_f8_to_f32(dtype_f32_to_f8(x[i] * (448 / most))) * (most / 448);
        else
            x[i] = rounded(type, x[i]);
    }
}

// Writes all keys and values of all sequences into the device's cache, then rounds them here too.
static void fill_cache(check *c, world *w) {
    int C = w->s.head_dim, G = w->s.kv_heads, mark = w->memory.count;
    for (int s = 0; s < w->seqs; s++) {
        size_t count = (size_t)w->length[s] * (size_t)G * (size_t)C;
        kernels_seq seq = {0, w->length[s], 0, w->table[s]};
        cuda_step step = device_step(&w->memory, 1, &seq, w->s.block_tokens, 0, 0);
        kernels_rope rope = {NULL, 0, 1, KERNELS_ROPE_HALF};
        cudaError_t e = cuda_rope_kv_write(
            NULL, &step, &rope, 0, NULL, device_put(&w->memory, w->k[s], count * sizeof(float)),
            device_put(&w->memory, w->v[s], count * sizeof(float)), &w->kv);
        check_that(c, e == cudaSuccess && cudaDeviceSynchronize() == cudaSuccess, "filling");
        for (size_t i = 0; i < count; i += (size_t)C) {
            round_head(w->s.type, w->k[s] + i, C);
            round_head(w->s.type, w->v[s] + i, C);
        }
        device_release(&w->memory, mark);
    }
}

// Sequences of these lengths. Their blocks lie in any order; the blocks that the first `shared`
// tokens fill are common to all.
static void make_world(check *c, world *w, const shape *s, int seqs, const int *lengths,
                       int shared) {
    int B = s->block_tokens, blocks = 0, common = shared / B;
    *w = (world){.s = *s, .seqs = seqs};
    for (int g = 0; g < s->kv_heads; g++) {
        w->first_head[g + 1] = w->first_head[g] + s->serves[g];
        if (s->serves[g] > w->most) w->most = s->serves[g];
    }
    w->heads = w->first_head[s->kv_heads];
    for (int i = 0; i < seqs; i++) blocks += (lengths[i] + B - 1) / B + 1;
    int32_t *order = check_host(c, (size_t)blocks * sizeof *order);
    for (int i = 0; i < blocks; i++) {
        int at = (int)rng_below(&c->random, (uint64_t)i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    for (int i = 0, next = 0; i < seqs; i++) {
        size_t L = (size_t)lengths[i], C = (size_t)s->head_dim, G = (size_t)s->kv_heads;
        int needs = (lengths[i] + B - 1) / B;
        w->length[i] = lengths[i];
        w->table[i] = check_host(c, (size_t)needs * sizeof(int32_t));
        for (int b = 0; b < needs; b++)
            w->table[i][b] = i > 0 && b < common ? w->table[0][b] : order[next++];
        w->q[i] = check_random(c, L * (size_t)w->heads * C, 2.5f);
        w->k[i] = check_random(c, L * G * C, 2);
        w->v[i] = check_random(c, L * G * C, 1);
        for (size_t j = 0; j < L * (size_t)w->heads * C; j++)
            w->q[i][j] = rounded(s->type, w->q[i][j]);
    }
    size_t head = (size_t)s->head_dim * sizeof(float) * (size_t)s->kv_heads;
    for (int i = 1; i < seqs; i++) {
        memcpy(w->k[i], w->k[0], (size_t)(common * B) * head);
        memcpy(w->v[i], w->v[0], (size_t)(common * B) * head);
    }
    size_t bytes = cuda_kv_bytes(s->type, blocks, B, s->kv_heads, s->head_dim);
    w->kv = (kernels_kv){device_poisoned(c, &w->memory, bytes),
                         device_poisoned(c, &w->memory, bytes),
                         s->type,
                         blocks,
                         B,
                         s->kv_heads,
                         s->head_dim};
    w->map = (kernels_head_map){w->heads, s->kv_heads, w->most,
                                device_put(&w->memory, w->first_head, sizeof w->first_head)};
    w->options = (kernels_attention_options){1 / sqrtf((float)s->head_dim), s->soft_cap, s->window};
    fill_cache(c, w);
}

static void free_world(check *c, world *w) {
    device_release(&w->memory, 0);
    check_release(c);
}

// Rows of a step: `tokens` of sequence `seq` of the world from `position` on.
typedef struct part {
    int seq, position, tokens;
} part;

enum { PAD_ROWS = 3, PAD_SEQS = 2 };

// The step's result: (T, H, C) in BF16.
static uint16_t *run_step(check *c, world *w, int count, const part *parts, bool may_split) {
    kernels_seq seq[DEVICE_SEQS_MAX];
    size_t width = (size_t)w->heads * (size_t)w->s.head_dim;
    int rows = 0, mark = w->memory.count;
    assert(count <= DEVICE_SEQS_MAX - PAD_SEQS);
    for (int i = 0; i < count; i++) {
        const part *p = &parts[i];
        assert(p->position + p->tokens <= w->length[p->seq]);
        seq[i] = (kernels_seq){rows, p->tokens, p->position, w->table[p->seq]};
        rows += p->tokens;
    }
    size_t values = (size_t)(rows + PAD_ROWS) * width;
    float *q = check_host(c, values * sizeof *q);
    for (int i = 0; i < count; i++)
        memcpy(q + (size_t)seq[i].row * width,
               w->q[parts[i].seq] + (size_t)parts[i].position * width,
               (size_t)parts[i].tokens * width * sizeof *q);
    cuda_step step = device_step(&w->memory, count, seq, w->s.block_tokens, PAD_ROWS, PAD_SEQS);
    size_t scratch_bytes =
        may_split ? cuda_attention_scratch_bytes(step.tokens, w->heads, w->s.head_dim, step.context)
                  : 0;
    void *scratch = device_poisoned(c, &w->memory, scratch_bytes);
    void *out = device_poisoned(c, &w->memory, values * 2);
    cudaError_t e = cuda_attention(NULL, &step, &w->map, &w->options,
                                   device_put(&w->memory, q, values * sizeof *q), &w->kv, scratch,
                                   scratch_bytes, out);
    check_that(c, e == cudaSuccess, "launch: cuda error %d", (int)e);
    uint16_t *got = device_get(c, out, values * 2);
    device_release(&w->memory, mark);
    size_t touched = 0;
    for (size_t i = (size_t)rows * width; i < values; i++) touched += got[i] != 0xffff;
    check_that(c, touched == 0, "%zu values of padded rows were written", touched);
    return got;
}

// One row and query head by the formula.
static void formula(const world *w, int s, int position, int head, double *scores, float *out) {
    int C = w->s.head_dim, G = w->s.kv_heads, g = 0;
    int from = w->s.window > 0 && position >= w->s.window ? position - w->s.window + 1 : 0;
    while (w->first_head[g + 1] <= head) g++;
    const float *q = w->q[s] + ((size_t)position * (size_t)w->heads + (size_t)head) * (size_t)C;
    double most = -INFINITY, total = 0;
    for (int p = from; p <= position; p++) {
        const float *k = w->k[s] + ((size_t)p * (size_t)G + (size_t)g) * (size_t)C;
        double x = 0;
        for (int i = 0; i < C; i++) x += (double)q[i] * k[i];
        x *= w->options.scale;
        if (w->s.soft_cap > 0) x = w->s.soft_cap * tanh(x / w->s.soft_cap);
        scores[p] = x;
        most = fmax(most, x);
    }
    for (int p = from; p <= position; p++) total += scores[p] = exp(scores[p] - most);
    for (int i = 0; i < C; i++) {
        double sum = 0;
        for (int p = from; p <= position; p++)
            sum += scores[p] * w->v[s][((size_t)p * (size_t)G + (size_t)g) * (size_t)C + (size_t)i];
        out[i] = (float)(sum / total);
    }
}

static void check_values(check *c, world *w, int count, const part *parts, const uint16_t *got) {
    size_t C = (size_t)w->s.head_dim, rows = 0;
    for (int i = 0; i < count; i++) rows += (size_t)parts[i].tokens;
    size_t values = rows * (size_t)w->heads * C, at = 0;
    float *want = check_host(c, values * sizeof *want),
          *have = check_host(c, values * sizeof *have);
    double *scores = check_host(c, 4096 * sizeof *scores);
    for (int i = 0; i < count; i++)
        for (int t = 0; t < parts[i].tokens; t++)
            for (int h = 0; h < w->heads; h++, at += C)
                formula(w, parts[i].seq, parts[i].position + t, h, scores, want + at);
    for (size_t i = 0; i < values; i++) have[i] = dtype_bf16_to_f32(got[i]);
    // The output's rounding is 2^-9 of it; that of the probabilities 2^-9 of each in BF16, 2^-12 in
    // F16, none in F32.
    double absolute = w->s.type == DTYPE_F32 ? 2e-5 : w->s.type == DTYPE_F16 ? 5e-4 : 3e-3;
    check_near(c, "out", have, want, values, absolute, 0x1.1p-8);
}

static void name_case(check *c, const char *what, const shape *s) {
    check_case(c, "%s: %s C %d B %d G %d (%d %d %d ..) cap %g window %d", what, dtype_name(s->type),
               s->head_dim, s->block_tokens, s->kv_heads, s->serves[0], s->serves[1], s->serves[2],
               (double)s->soft_cap, s->window);
}

// Decode and prefill in one step, with padding, and with a prefix in common.
static void check_mixed(check *c, const shape *s) {
    world w;
    name_case(c, "mixed", s);
    make_world(c, &w, s, 3, (int[]){330, 110, 64}, 40);
    part parts[] = {{0, 329, 1}, {1, 40, 70}, {2, 0, 1}, {0, 300, 2}, {2, 0, 64}, {1, 16, 1}};
    int count = (int)(sizeof parts / sizeof *parts);
    check_values(c, &w, count, parts, run_step(c, &w, count, parts, true));
    free_world(c, &w);
}

// Decode at many lengths of one context, each with other blocks behind it; split over blocks and
// not.
static void check_contexts(check *c, const shape *s, const int *contexts, int count) {
    world w;
    part parts[DEVICE_SEQS_MAX];
    name_case(c, "contexts", s);
    make_world(c, &w, s, 1, &contexts[count - 1], 0);
    for (int i = 0; i < count; i++) parts[i] = (part){0, contexts[i] - 1, 1};
    uint16_t *split = run_step(c, &w, count, parts, true);
    uint16_t *serial = run_step(c, &w, count, parts, false);
    size_t width = (size_t)w.heads * (size_t)s->head_dim;
    check_values(c, &w, count, parts, split);
    check_same(c, "split and serial", split, serial, (size_t)count * width * 2);
    uint16_t *alone = run_step(c, &w, 1, &parts[count / 2], true);
    check_same(c, "a row alone", alone, split + (size_t)(count / 2) * width, width * 2);
    free_world(c, &w);
}

// The same prompt at once, and in chunks: the same bits.
static void check_chunks(check *c, const shape *s, int length) {
    static const int chunks[] = {64, 7, 3, 1};
    world w;
    name_case(c, "chunks", s);
    make_world(c, &w, s, 1, &length, 0);
    part all = {0, 0, length};
    uint16_t *whole = run_step(c, &w, 1, &all, true);
    size_t width = (size_t)w.heads * (size_t)s->head_dim;
    if (c->thorough) check_values(c, &w, 1, &all, whole);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        // Of small chunks the last 14 positions are enough: they cross from one chunk to the next.
        int n = chunks[i], from = n == 64 ? 0 : length - 14, bad = 0;
        for (int p = from; p < length; p += n) {
            part piece = {0, p, p + n < length ? n : length - p};
            uint16_t *got = run_step(c, &w, 1, &piece, p % 2);
            if (memcmp(got, whole + (size_t)p * width, (size_t)piece.tokens * width * 2) != 0 &&
                bad++ == 0)
                check_that(c, false, "in chunks of %d, rows from %d differ", n, p);
            free(c->taken[--c->taken_count].memory); // `got`; the rest is small
        }
        if (bad == 0) check_that(c, true, "chunks of %d", n);
    }
    free_world(c, &w);
}

// The formula above is that of the CPU's reference.
static void check_formula(check *c) {
    const shape s = {DTYPE_F32, 48, 16, 3, {2, 0, 3}, 0, 0};
    world w;
    int length = 70;
    name_case(c, "formula", &s);
    make_world(c, &w, &s, 1, &length, 0);
    size_t values = (size_t)(length * w.heads * s.head_dim);
    size_t bytes = kernels_kv_bytes(c->reference, DTYPE_F32, w.kv.blocks, s.block_tokens,
                                    s.kv_heads, s.head_dim);
    kernels_kv kv = w.kv;
    kv.k = check_host(c, bytes);
    kv.v = check_host(c, bytes);
    kernels_head_map map = {w.heads, s.kv_heads, w.most, w.first_head};
    kernels_rope rope = {NULL, 0, 1, KERNELS_ROPE_HALF};
    kernels_seq seq = {0, length, 0, w.table[0]};
    int32_t *ids = check_host(c, (size_t)length * sizeof *ids);
    float *out = check_host(c, values * sizeof *out), *want = check_host(c, values * sizeof *want);
    kernels_begin(c->reference, &(kernels_step){.tokens = length,
                                                .ids = ids,
                                                .seqs = 1,
                                                .seq = &seq,
                                                .blocks = kv.blocks,
                                                .block_tokens = s.block_tokens});
    kernels_rope_kv_write(c->reference, &rope, w.heads, w.q[0], w.k[0], w.v[0], &kv);
    kernels_attention(c->reference, &map, &w.options, w.q[0], &kv, (kernels_act *)out);
    double scores[70];
    for (int p = 0; p < length; p++)
        for (int h = 0; h < w.heads; h++)
            formula(&w, 0, p, h, scores, want + (size_t)((p * w.heads + h) * s.head_dim));
    check_near(c, "the formula", want, out, values, 1e-6, 1e-6);
    free_world(c, &w);
}

int check_attention(check *c) {
    static const shape mixed[] = {
        {DTYPE_F16, 64, 16, 4, {3, 0, 4, 1}, 0, 0}, {DTYPE_F8_E4M3, 128, 16, 1, {3}, 0, 0},
        {DTYPE_F16, 80, 32, 1, {5}, 0, 0},          {DTYPE_F16, 96, 64, 2, {1, 1}, 0, 0},
        {DTYPE_F16, 128, 16, 2, {4, 2}, 0, 0},      {DTYPE_F16, 256, 16, 1, {2}, 0, 0},
        {DTYPE_BF16, 64, 256, 1, {20}, 0, 0},       {DTYPE_BF16, 128, 16, 1, {16}, 0, 0},
        {DTYPE_F8_E4M3, 64, 16, 2, {2, 3}, 0, 0},   {DTYPE_F8_E4M3, 80, 16, 1, {4}, 0, 0},
        {DTYPE_F8_E4M3, 96, 32, 1, {3}, 0, 0},      {DTYPE_I8, 128, 16, 2, {2, 1}, 0, 0},
        {DTYPE_I8, 256, 16, 1, {2}, 0, 0},          {DTYPE_F16, 64, 16, 1, {3}, 20, 0}, // soft cap
        {DTYPE_F16, 64, 16, 1, {4}, 0, 50},                                             // window
        {DTYPE_F8_E4M3, 64, 16, 1, {4}, 0, 3},      {DTYPE_F32, 64, 16, 2, {2, 1}, 0, 0}, // plain
        {DTYPE_F32, 33, 5, 1, {2}, 10, 40},         {DTYPE_F16, 64, 7, 1, {2}, 0, 0},
        {DTYPE_I8, 72, 16, 1, {2}, 0, 0},           {DTYPE_I8, 512, 3, 1, {1}, 0, 0},
        {DTYPE_BF16, 40, 16, 1, {2}, 0, 0},
    };
    static const int contexts[] = {1, 17, 64, 255, 256, 257, 513, 1100};
    static const shape decoded[] = {
        {DTYPE_F16, 64, 16, 2, {2, 0}, 0, 0},  {DTYPE_BF16, 128, 32, 1, {8}, 0, 0},
        {DTYPE_I8, 64, 16, 1, {5}, 0, 0},      {DTYPE_F8_E4M3, 128, 16, 1, {3}, 0, 0},
        {DTYPE_F16, 64, 16, 1, {2}, 15, 300},  {DTYPE_F16, 256, 64, 1, {1}, 0, 0},
        {DTYPE_BF16, 80, 16, 1, {17}, 0, 256}, {DTYPE_F32, 64, 16, 1, {1}, 0, 0},
    };
    static const shape chunked[] = {
        {DTYPE_F16, 64, 16, 1, {4}, 0, 0},     {DTYPE_BF16, 128, 16, 1, {5}, 0, 0},
        {DTYPE_F8_E4M3, 64, 16, 1, {2}, 0, 0}, {DTYPE_I8, 80, 16, 1, {3}, 0, 100},
        {DTYPE_F16, 256, 16, 1, {1}, 30, 0},   {DTYPE_BF16, 96, 32, 1, {1}, 0, 0},
        {DTYPE_F16, 40, 16, 1, {1}, 0, 0},
    };
    device_open_reference(
        c,
        (kernels_limits){.tokens = 128, .cols = 64, .context = 1024, .heads = 16, .head_dim = 64});
    check_formula(c);
    // Orders of threads after the first see a third of the shapes, each another one.
    size_t third = c->thorough ? 1 : 3, first = c->thorough ? 0 : rng_below(&c->random, 3);
    for (size_t i = first; i < sizeof mixed / sizeof *mixed; i += third) check_mixed(c, &mixed[i]);
    for (size_t i = first; i < sizeof decoded / sizeof *decoded; i += third)
        check_contexts(c, &decoded[i], contexts, (int)(sizeof contexts / sizeof *contexts));
    for (size_t i = first; i < sizeof chunked / sizeof *chunked; i += third)
        check_chunks(c, &chunked[i], 262);
    return c->failed;
}
