// check_experts: a mixture's layer, routing to combined sums, against the formula in double, and
// one token alone against the batch.
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/experts.h"
#include "kernels/cuda/matmul.h"
#include "tests/device/check.h"

enum { SEGMENT = 32 };

typedef struct layer {
    check *c;
    dtype type;
    int experts, top, width, hidden; // D and F
    bool renormalise, f64;
    float *gate, *up, *down; // (experts, F, D), (experts, F, D), (experts, D, F): numbers
    weight_pack packs[3];    // of the first expert
    void *memory[96];        // device memory, freed at the end
    int count;
} layer;

static void *device(layer *l, const void *host, size_t bytes) {
    void *memory = NULL;
    if (!check_that(l->c, cudaMalloc(&memory, bytes) == cudaSuccess, "no device memory")) exit(1);
    cudaMemcpy(memory, host, bytes, cudaMemcpyHostToDevice);
    l->memory[l->count++] = memory;
    return memory;
}

static void *poisoned(layer *l, size_t bytes) {
    return device(l, check_host(l->c, bytes), bytes);
}

static void *fetch(layer *l, const void *memory, size_t bytes) {
    void *host = check_host(l->c, bytes);
    check_that(l->c, cudaDeviceSynchronize() == cudaSuccess, "the device reports an error");
    cudaMemcpy(host, memory, bytes, cudaMemcpyDeviceToHost);
    return host;
}

// One matrix of each expert, packed one behind the other.
static float *make_experts(layer *l, int which, int rows, int cols) {
    check *c = l->c;
    size_t stride = dtype_row_bytes(l->type, (size_t)cols),
           each = weight_pack_bytes(l->type, rows, cols);
    float *numbers = check_host(c, (size_t)(l->experts * rows * cols) * sizeof *numbers);
    uint8_t *memory = poisoned(l, each * (size_t)l->experts);
    l->packs[which] = weight_pack_at(l->type, rows, cols, memory);
    for (int e = 0; e < l->experts; e++) {
        uint8_t *file = check_host(c, (size_t)rows * stride);
        for (size_t i = 0; i < (size_t)rows * stride; i++) file[i] = (uint8_t)rng_next(&c->random);
        for (int r = 0; r < rows; r++) {
            uint8_t *row = file + (size_t)r * stride;
            for (size_t b = 0; b < stride; b += dtype_block_bytes(l->type)) {
                uint16_t d = dtype_f32_to_f16(0.01f), m = dtype_f32_to_f16(-0.06f);
                if (l->type == DTYPE_BF16)
                    d = dtype_f32_to_bf16((float)rng_uniform(&c->random) - 0.5f);
                memcpy(row + b, &d, 2);
                if (l->type == DTYPE_Q4_1) memcpy(row + b + 2, &m, 2);
            }
            dtype_to_f32(l->type, row, (size_t)cols,
                         numbers + ((size_t)e * (size_t)rows + (size_t)r) * (size_t)cols);
        }
        weight_pack at = weight_pack_at(l->type, rows, cols, memory + (size_t)e * each);
        const void *raw = device(l, file, (size_t)rows * stride);
        check_that(c,
                   weight_pack_rows(NULL, raw, stride, l->type, NULL, 0, rows, &at) == cudaSuccess,
                   "packing fails");
    }
    check_that(c, cudaDeviceSynchronize() == cudaSuccess, "packing fails");
    return numbers;
}

typedef struct result {
    int32_t *first_slot, *token, *slot, *choice; // on the host
    float *weight;
    uint16_t *hidden; // (slots, F) BF16
    void *sums;       // (T, D)
} result;

static result run(layer *l, const float *logits, const uint16_t *x, int tokens) {
    size_t slots = (size_t)(tokens * l->top), E = (size_t)l->experts, D = (size_t)l->width,
           F = (size_t)l->hidden;
    experts_table t = {.first_slot = poisoned(l, (E + 1) * 4), .token = poisoned(l, slots * 4)};
    t.scale = poisoned(l, slots * 4), t.slot = poisoned(l, slots * 4);
    t.choice = poisoned(l, slots * 4), t.weight = poisoned(l, slots * 4);
    size_t number = l->f64 ? sizeof(double) : sizeof(float),
           sum_bytes = (size_t)tokens * D * (l->f64 ? 8 : 2);
    void *hidden = poisoned(l, slots * (size_t)matmul_act_stride(l->hidden) * 2),
         *y = poisoned(l, slots * D * number);
    void *sums = poisoned(l, sum_bytes);
    const float *on_device = device(l, logits, (size_t)tokens * E * sizeof *logits);
    cudaError_t e = experts_choose(NULL, on_device, tokens, l->experts, l->top, l->renormalise, &t);
    if (e == cudaSuccess) e = experts_sort(NULL, tokens, l->experts, l->top, &t);
    matmul_experts of = {
        .count = l->experts, .first_slot = t.first_slot, .x_row = t.token, .scale = t.scale};
    matmul_call call = {
        .w = {l->packs[0], l->packs[1]}, .outs = {hidden}, .count = 2, .output = MATMUL_GATE_UP};
    call.tokens = tokens, call.experts = &of, call.multiprocessors = 132;
    call.x = device(l, x, (size_t)tokens * (size_t)matmul_act_stride(l->width) * 2);
    if (e == cudaSuccess) e = matmul(NULL, &call);
    of.x_row = NULL, of.scale = NULL;
    matmul_call down = {
        .w = {l->packs[2]}, .outs = {y}, .count = 1, .output = l->f64 ? MATMUL_F64 : MATMUL_FLOAT};
    down.tokens = tokens, down.experts = &of, down.multiprocessors = 132, down.x = hidden,
    down.segment = SEGMENT;
    if (e == cudaSuccess) e = matmul(NULL, &down);
    if (e == cudaSuccess) e = experts_combine(NULL, &t, tokens, l->top, l->width, y, l->f64, sums);
    check_that(l->c, e == cudaSuccess, "the layer: error %d", (int)e);
    return (result){fetch(l, t.first_slot, (E + 1) * 4),
                    fetch(l, t.token, slots * 4),
                    fetch(l, t.slot, slots * 4),
                    fetch(l, t.choice, slots * 4),
                    fetch(l, t.weight, slots * 4),
                    fetch(l, hidden, slots * (size_t)matmul_act_stride((int)F) * 2),
                    fetch(l, sums, sum_bytes)};
}

// Choices and weights of one token by the definition.
static void route(const layer *l, const float *logits, int *choice, double *weight) {
    double sum = 0, chosen = 0;
    bool taken[EXPERTS_MAX] = {false};
    for (int e = 0; e < l->experts; e++) sum += exp((double)logits[e]);
    for (int k = 0; k < l->top; k++) {
        int best = -1;
        for (int e = 0; e < l->experts; e++)
            if (!taken[e] && (best < 0 || logits[e] > logits[best])) best = e;
        taken[choice[k] = best] = true;
        chosen += weight[k] = exp((double)logits[best]);
    }
    for (int k = 0; k < l->top; k++) weight[k] /= l->renormalise ? chosen : sum;
}

static double dot(const float *w, const uint16_t *x, int cols, double *size) {
    double sum = 0;
    for (int i = 0; i < cols; i++) {
        double product = (double)w[i] * dtype_bf16_to_f32(x[i]);
        sum += product, *size += fabs(product);
    }
    return sum;
}

// The routing of all tokens, and that slots are sorted.
static bool check_routing(layer *l, const float *logits, int tokens, const result *r) {
    bool right = r->first_slot[0] == 0 && r->first_slot[l->experts] == tokens * l->top, near = true;
    for (int t = 0; t < tokens; t++) {
        int choice[EXPERTS_TOP_MAX];
        double weight[EXPERTS_TOP_MAX];
        route(l, logits + t * l->experts, choice, weight);
        for (int k = 0; k < l->top; k++) {
            int at = t * l->top + k, slot = r->slot[at], e = choice[k];
            right &= r->choice[at] == e && slot >= r->first_slot[e] && slot < r->first_slot[e + 1];
            if (!right) break;
            right &= r->token[slot] == t && (slot == r->first_slot[e] || r->token[slot - 1] < t);
            near &= fabs((double)r->weight[at] - weight[k]) <= 1e-5 * weight[k] + 1e-7;
        }
    }
    check_that(l->c, near, "a weight is off");
    return check_that(l->c, right, "tokens go to the wrong experts, or slots are not sorted");
}

// Hidden activations from x, then sums from the hidden activations that the device had: each
// against its own rounding.
static void check_values(layer *l, const uint16_t *x, int tokens, const result *r) {
    int bad_hidden = 0, bad_sums = 0, D = l->width, F = l->hidden, xs = matmul_act_stride(D),
        hs = matmul_act_stride(F);
    for (int at = 0; at < tokens * l->top; at++) {
        const uint16_t *from = x + at / l->top * xs;
        for (int f = 0; f < F; f++) {
            size_t row = (size_t)(r->choice[at] * F + f) * (size_t)D;
            double size = 0, up_size = 0, gate = dot(l->gate + row, from, D, &size);
            double up = dot(l->up + row, from, D, &up_size),
                   want = gate / (1 + exp(-gate)) * up * (double)r->weight[at];
            double bound =
                1e-5 * (size * fabs(up) + up_size * fabs(gate)) + fabs(want) / 250 + 1e-6;
            bad_hidden +=
                !(fabs((double)dtype_bf16_to_f32(r->hidden[r->slot[at] * hs + f]) - want) <= bound);
        }
    }
    for (int i = 0; i < tokens * D; i++) {
        double want = 0, size = 0;
        for (int k = 0; k < l->top; k++) {
            int at = i / D * l->top + k;
            want += dot(l->down + (size_t)(r->choice[at] * D + i % D) * (size_t)F,
                        r->hidden + r->slot[at] * hs, F, &size);
        }
        double got =
            l->f64 ? ((double *)r->sums)[i] : (double)dtype_bf16_to_f32(((uint16_t *)r->sums)[i]);
        bad_sums += !(fabs(got - want) <= 1e-5 * size + 1e-6 + (l->f64 ? 0 : fabs(want) / 250));
    }
    check_that(l->c, bad_hidden == 0, "%d hidden activations off", bad_hidden);
    check_that(l->c, bad_sums == 0, "%d sums off", bad_sums);
}

static void check_layer(check *c, layer l, int tokens) {
    check_case(c, "%s, %d experts, top %d, (%d, %d), T %d%s%s", dtype_name(l.type), l.experts,
               l.top, l.width, l.hidden, tokens, l.renormalise ? ", renormalised" : "",
               l.f64 ? ", exact" : "");
    l.c = c;
    l.gate = make_experts(&l, 0, l.hidden, l.width);
    l.up = make_experts(&l, 1, l.hidden, l.width);
    l.down = make_experts(&l, 2, l.width, l.hidden);
    int stride = matmul_act_stride(l.width);
    float *logits = check_random(c, (size_t)(tokens * l.experts), 3);
    if (tokens > 3) memcpy(logits + 3 * l.experts, logits, sizeof *logits); // and ties
    for (int e = 1; tokens > 2 && e < l.experts; e += 2)
        logits[2 * l.experts + e] = logits[2 * l.experts + e - 1];
    uint16_t *x = check_host(c, (size_t)(tokens * stride) * 2);
    for (int i = 0; i < tokens * stride; i++)
        x[i] = i % stride < l.width ? dtype_f32_to_bf16(2 * (float)rng_uniform(&c->random) - 1) : 0;
    result all = run(&l, logits, x, tokens);
    if (check_routing(&l, logits, tokens, &all)) check_values(&l, x, tokens, &all);
    int last = tokens - 1;
    result one = run(&l, logits + last * l.experts, x + last * stride, 1);
    size_t bytes = (size_t)l.width * (l.f64 ? 8 : 2);
    check_same(c, "one token alone", one.sums, (uint8_t *)all.sums + (size_t)last * bytes, bytes);
    while (l.count > 0) cudaFree(l.memory[--l.count]);
    check_release(c);
}

int check_experts(check *c) {
    check_layer(c,
                (layer){.type = DTYPE_BF16,
                        .experts = 4,
                        .top = 2,
                        .width = 40,
                        .hidden = 72,
                        .renormalise = true},
                1);
    check_layer(
        c,
        (layer){.type = DTYPE_BF16, .experts = 5, .top = 2, .width = 72, .hidden = 48, .f64 = true},
        7);
    check_layer(
        c,
        (layer){.type = DTYPE_Q4_1, .experts = 4, .top = 3, .width = 96, .hidden = 64, .f64 = true},
        6);
    check_layer(c,
                (layer){.type = DTYPE_Q8_0,
                        .experts = 6,
                        .top = 1,
                        .width = 64,
                        .hidden = 32,
                        .renormalise = true},
                19);
    check_layer(c, (layer){.type = DTYPE_BF16, .experts = 2, .top = 2, .width = 136, .hidden = 40},
                c->thorough ? 70 : 12);
    if (c->thorough)
        check_layer(
            c, (layer){.type = DTYPE_BF16, .experts = 9, .top = 9, .width = 32, .hidden = 16}, 5);
    check_case(c, "broken calls");
    experts_table none = {0};
    check_that(c, experts_choose(NULL, NULL, 1, 4, 5, false, &none) == cudaErrorInvalidValue,
               "top 5 of 4 is taken");
    check_that(c, experts_sort(NULL, 1, 300, 2, &none) == cudaErrorInvalidValue,
               "300 experts are taken");
    return c->failed;
}
