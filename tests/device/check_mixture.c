// check_mixture: route and mix through kernels.h beside the CPU's reference; a row alone and a
// batch that is cut into stretches must give the bits of the whole.
#include <stdlib.h>
#include <string.h>

#include "common/base/dtype.h"
#include "tests/device/check.h"

enum { SEGMENT = 32, ROWS_MAX = 140 };

typedef struct sizes {
    int experts, top, width, hidden, tokens; // E, top, D, F, T
    dtype type;
    kernels_sums sums;
} sizes;

// Values that BF16 holds, so that both sides multiply the same numbers.
static float *numbers(check *c, size_t count, float scale) {
    float *x = check_random(c, count, scale);
    for (size_t i = 0; i < count; i++) x[i] = check_bf16(x[i]);
    return x;
}

// One matrix of each expert, on the device one behind another.
static kernels_weight *place(check *c, kernels *k, const sizes *s, const float *values, int rows,
                             int cols) {
    kernels_weight *out = check_host(c, (size_t)s->experts * sizeof *out);
    size_t row = dtype_row_bytes(s->type, (size_t)cols), count = (size_t)rows * (size_t)cols;
    kernels_weight view = {
        .row_stride = row, .rows = rows, .cols = cols, .type = s->type, .expert = true};
    size_t each = kernels_weight_bytes(k, &view);
    char *memory = check_poisoned(c, k, each * (size_t)s->experts + 1);
    for (int e = 0; e < s->experts; e++, values += count) {
        uint16_t *half = check_host(c, count * sizeof *half);
        for (size_t i = 0; i < count; i++) half[i] = dtype_f32_to_bf16(values[i]);
        view.data = s->type == DTYPE_BF16 ? (const void *)half : values;
        status st = kernels_weight_place(k, &view, memory + (size_t)e * each, &out[e]);
        check_that(c, status_is_ok(&st) && out[e].expert, "%s", st.message);
    }
    return out;
}

// Host memory: the layer and its inputs.
typedef struct inputs {
    float *gate, *up, *down, *logits, *x;
} inputs;

typedef struct outcome {
    int32_t *choice;
    float *weight, *sums; // (T, top), (T, top), (T, D)
} outcome;

// Activations as backend k holds them: padded rows of BF16, or floats.
static kernels_act *act(check *c, kernels *k, const float *x, int tokens, int width) {
    size_t stride = kernels_act_bytes(k, 1, width);
    if (stride == (size_t)width * sizeof *x) return check_put(c, k, x, stride * (size_t)tokens);
    uint16_t *rows = calloc((size_t)tokens, stride);
    for (int i = 0; i < tokens * width; i++)
        rows[(size_t)(i / width) * stride / 2 + (size_t)(i % width)] = dtype_f32_to_bf16(x[i]);
    kernels_act *out = check_put(c, k, rows, stride * (size_t)tokens);
    free(rows);
    return out;
}

static outcome run(check *c, kernels *k, const sizes *s, const kernels_experts *e, const inputs *in,
                   int first, int tokens) {
    size_t choices = (size_t)(tokens * s->top), count = (size_t)(tokens * s->width);
    const float *logits = in->logits + first * s->experts, *x = in->x + first * s->width;
    float *router = check_put(c, k, logits, (size_t)(tokens * s->experts) * sizeof *logits);
    int32_t *choice = check_poisoned(c, k, choices * sizeof *choice);
    float *weight = check_poisoned(c, k, choices * sizeof *weight);
    void *sums = check_poisoned(c, k, kernels_sums_bytes(k, count));
    float *narrow = check_poisoned(c, k, count * sizeof *narrow);
    kernels_route(k, router, tokens, s->experts, s->top, choice, weight);
    kernels_mix(k, e, s->top, choice, weight, act(c, k, x, tokens, s->width), tokens, SEGMENT,
                sums);
    kernels_narrow(k, sums, count, 1, narrow);
    return (outcome){check_get(c, k, choice, choices * sizeof *choice),
                     check_get(c, k, weight, choices * sizeof *weight),
                     check_get(c, k, narrow, count * sizeof *narrow)};
}

static void check_sizes(check *c, sizes s) {
    check_case(c, "%d experts of %d, top %d, D %d, T %d, %s, %s sums", s.experts, s.hidden, s.top,
               s.width, s.tokens, dtype_name(s.type),
               s.sums == KERNELS_SUMS_EXACT ? "exact" : "BF16");
    int cols = s.width > s.hidden ? s.width : s.hidden;
    check_open(c,
               (kernels_limits){.tokens = s.tokens,
                                .cols = cols,
                                .context = 16,
                                .heads = 1,
                                .head_dim = 8,
                                .experts = s.experts,
                                .top = s.top},
               (kernels_cuda_options){.sums = s.sums});
    size_t matrix = (size_t)(s.experts * s.width * s.hidden);
    inputs in = {numbers(c, matrix, 0.3f), numbers(c, matrix, 0.3f), numbers(c, matrix, 0.3f),
                 check_random(c, (size_t)(s.tokens * s.experts), 2),
                 numbers(c, (size_t)(s.tokens * s.width), 1)};
    kernels *both[] = {c->reference, c->device};
    kernels_experts e[2];
    outcome all[2];
    for (int i = 0; i < 2; i++) {
        e[i] = (kernels_experts){.count = s.experts,
                                 .gate = place(c, both[i], &s, in.gate, s.hidden, s.width),
                                 .up = place(c, both[i], &s, in.up, s.hidden, s.width),
                                 .down = place(c, both[i], &s, in.down, s.width, s.hidden)};
        all[i] = run(c, both[i], &s, &e[i], &in, 0, s.tokens);
    }
    size_t choices = (size_t)(s.tokens * s.top), count = (size_t)(s.tokens * s.width);
    check_same(c, "choices", all[1].choice, all[0].choice, choices * sizeof(int32_t));
    check_near(c, "weights", all[1].weight, all[0].weight, choices, 1e-6, 1e-5);
    check_near(c, "sums", all[1].sums, all[0].sums, count, 0.03, 0.02);
    const int alone[] = {0, s.tokens / 2, s.tokens - 1};
    for (int i = 0; i < 3; i++) {
        outcome one = run(c, c->device, &s, &e[1], &in, alone[i], 1);
        check_same(c, "a row alone", one.sums, all[1].sums + alone[i] * s.width,
                   (size_t)s.width * sizeof(float));
    }
    check_release(c);
}

int check_mixture(check *c) {
    check_sizes(c, (sizes){4, 2, 48, 64, 1, DTYPE_BF16, KERNELS_SUMS_EXACT});
    check_sizes(c, (sizes){8, 2, 64, 40, 11, DTYPE_F32, KERNELS_SUMS_BF16});
    if (c->thorough) { // more choices than go at a time
        check_sizes(c, (sizes){20, 16, 16, 32, ROWS_MAX, DTYPE_BF16, KERNELS_SUMS_EXACT});
        check_sizes(c, (sizes){20, 16, 16, 32, ROWS_MAX, DTYPE_BF16, KERNELS_SUMS_BF16});
    }
    return c->failed;
}
