// check_cublas: the option `fast`: products of many rows by cuBLASLt, its heuristics asked once per
// shape, weights of other types unpacked for it. On the emulated device libcublaslt.c stands in for
// the library.
#include <stdlib.h>
#include <string.h>

#include "common/base/dtype.h"
#include "tests/device/check.h"

enum { COLS = 96, ROWS = 72, TOKENS_MAX = 160 };

static kernels_weight place(check *c, kernels *k, const kernels_weight *view) {
    kernels_weight out = {0};
    void *memory = check_poisoned(c, k, kernels_weight_bytes(k, view) + 1);
    status s = kernels_weight_place(k, view, memory, &out);
    check_that(c, status_is_ok(&s), "%s", s.message);
    return out;
}

// Random bytes with sane scales: Q8_0 has one float16 before each 32 values.
static kernels_weight make_weight(check *c, dtype type, int rows, int cols) {
    size_t row = dtype_row_bytes(type, (size_t)cols), count = (size_t)rows * (size_t)cols;
    uint8_t *data = check_host(c, (size_t)rows * row);
    if (type == DTYPE_Q8_0) {
        for (size_t i = 0; i < (size_t)rows * row; i++) data[i] = (uint8_t)rng_next(&c->random);
        for (size_t b = 0; b < count / 32; b++) {
            uint16_t d = dtype_f32_to_f16((float)(0.01 * rng_uniform(&c->random)));
            memcpy(data + b * 34, &d, sizeof d);
        }
    } else {
        for (size_t i = 0; i < count; i++) {
            uint16_t bits = dtype_f32_to_bf16((float)(2 * rng_uniform(&c->random) - 1));
            memcpy(data + 2 * i, &bits, sizeof bits);
        }
    }
    return (kernels_weight){
        .data = data, .row_stride = row, .rows = rows, .cols = cols, .type = type};
}

// Activations in each backend's form.
static kernels_act *make_act(check *c, kernels *k, const float *x, int tokens, int cols) {
    if (k == c->reference) return check_put(c, k, x, (size_t)tokens * (size_t)cols * sizeof *x);
    size_t stride = (size_t)(cols + 7) / 8 * 8, bytes = kernels_act_bytes(k, tokens, cols);
    uint16_t *bits = check_host(c, bytes);
    for (size_t t = 0; t < (size_t)tokens; t++)
        for (size_t i = 0; i < stride; i++)
            bits[t * stride + i] =
                i < (size_t)cols ? dtype_f32_to_bf16(x[t * (size_t)cols + i]) : 0;
    return check_put(c, k, bits, bytes);
}

static float *bf16_random(check *c, size_t count) {
    float *x = check_random(c, count, 1);
    for (size_t i = 0; i < count; i++) x[i] = check_bf16(x[i]);
    return x;
}

static void product(check *c, dtype type, int cols, int tokens) {
    kernels_weight a = make_weight(c, type, ROWS, cols), b = make_weight(c, type, 40, cols);
    float *x = bf16_random(c, (size_t)tokens * (size_t)cols), *bias = check_random(c, ROWS, 1);
    float *out[2][2]; // of the device and the reference, of a and b
    kernels *both[2] = {c->device, c->reference};
    check_case(c, "matmul of %d rows by %s (%d, %d)", tokens, dtype_name(type), ROWS, cols);
    for (int s = 0; s < 2; s++) {
        kernels *k = both[s];
        kernels_weight wa = place(c, k, &a), wb = place(c, k, &b);
        out[s][0] = check_poisoned(c, k, (size_t)tokens * ROWS * sizeof(float));
        out[s][1] = check_poisoned(c, k, (size_t)tokens * 40 * sizeof(float));
        float *biases[2] = {check_put(c, k, bias, ROWS * sizeof *bias), NULL};
        kernels_matmul(k, 2, (const kernels_weight *const[]){&wa, &wb},
                       (const float *const[]){biases[0], biases[1]},
                       make_act(c, k, x, tokens, cols), tokens, out[s]);
    }
    size_t counts[2] = {(size_t)tokens * ROWS, (size_t)tokens * 40};
    for (int i = 0; i < 2; i++)
        check_near(c, "the product", check_get(c, c->device, out[0][i], counts[i] * sizeof(float)),
                   out[1][i], counts[i], type == DTYPE_BF16 ? 1e-4 : 0.05, 0);
    check_release(c);
}

// gate_up as two products and their gate, and sums in BF16.
static void gate_and_sums(check *c, int tokens, dtype type) {
    kernels_weight gate = make_weight(c, type, ROWS, COLS);
    kernels_weight up = make_weight(c, DTYPE_BF16, ROWS, COLS);
    float *x = bf16_random(c, (size_t)tokens * COLS);
    size_t count = (size_t)tokens * ROWS;
    kernels *both[2] = {c->device, c->reference};
    void *gated[2], *sums[2];
    check_case(c, "gate_up and matmul_sums of %d rows, a gate of %s", tokens, dtype_name(type));
    for (int s = 0; s < 2; s++) {
        kernels *k = both[s];
        kernels_weight g = place(c, k, &gate), u = place(c, k, &up);
        kernels_act *in = make_act(c, k, x, tokens, COLS);
        gated[s] = check_poisoned(c, k, kernels_act_bytes(k, tokens, ROWS));
        sums[s] = check_poisoned(c, k, kernels_sums_bytes(k, count));
        kernels_gate_up(k, KERNELS_SILU, &g, &u, in, tokens, gated[s]);
        kernels_matmul_sums(k, &g, 32, in, tokens, sums[s]);
    }
    const uint16_t *got = check_get(c, c->device, gated[0], count * sizeof *got);
    const uint16_t *got_sums = check_get(c, c->device, sums[0], count * sizeof *got_sums);
    const double *exact = sums[1];
    float *a = check_host(c, count * sizeof *a), *b = check_host(c, count * sizeof *b);
    float *want_sums = check_host(c, count * sizeof *want_sums);
    for (size_t i = 0; i < count; i++) {
        a[i] = dtype_bf16_to_f32(got[i]);
        b[i] = dtype_bf16_to_f32(got_sums[i]);
        want_sums[i] = (float)exact[i];
    }
    check_near(c, "gate_up", a, gated[1], count, 1e-3, 1.0 / 256 + 1e-4);
    check_near(c, "the sums", b, want_sums, count, 1e-3, 1.0 / 256 + 1e-4);
    check_release(c);
}

static void open_for(check *c, bool fast) {
    check_open(c,
               (kernels_limits){
                   .tokens = TOKENS_MAX, .cols = 128, .context = 16, .heads = 1, .head_dim = 16},
               (kernels_cuda_options){.sums = KERNELS_SUMS_BF16, .fast = fast});
}

int check_cublas(check *c) {
    open_for(c, true);
    check_case(c, "the library");
    if (!check_that(c, strstr(kernels_name(c->device), "cublaslt") || !check_target_emulated(),
                    "%s: libcublasLt was not loaded", kernels_name(c->device)))
        return c->failed;
    product(c, DTYPE_BF16, COLS, 128);
    product(c, DTYPE_BF16, COLS, 128);       // the shape again
    product(c, DTYPE_BF16, 100, TOKENS_MAX); // columns that are no multiple of 8
    product(c, DTYPE_Q8_0, COLS, 130);
    gate_and_sums(c, 129, DTYPE_BF16);
    open_for(c, false); // gate and up of two types: two products here too, some rows at a time
    gate_and_sums(c, 100, DTYPE_Q8_0);
    return c->failed;
}
