// fixture: what the kernel tests share: backends by name, random operands in guarded memory,
// comparison.
//
// Outputs come from guarded(): filled with NaN, so that a value that was not written shows, between
// canaries, so that a write outside shows.
#ifndef OCTANT_TESTS_KERNELS_FIXTURE_H
#define OCTANT_TESTS_KERNELS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"
#include "kernels/kernels.h"

static const char *const isa_names[] = {"portable", "avx2", "avx512"};
enum { ISAS = 3, CANARIES = 64 };
#define CANARY 12345.678f

// Runs `test` with every instruction set that this processor has and with 1, 2 and 3 threads.
typedef void backend_test(kernels *fast, kernels *reference);

static inline kernels *create(const char *isa, int threads, kernels_limits limits) {
    kernels *k = NULL;
    status s = kernels_create_cpu(threads, -1, isa, &k);
    if (s.code == STATUS_UNIMPLEMENTED) return NULL;
    if (s.code != STATUS_OK) fail_msg("%s: %s", isa, s.message);
    s = kernels_reserve(k, limits);
    if (s.code != STATUS_OK) fail_msg("%s: %s", isa, s.message);
    return k;
}

static inline void for_each_backend(kernels_limits limits, backend_test *test) {
    kernels *reference = create("reference", 1, limits);
    int tried = 0;
    for (int i = 0; i < ISAS; i++)
        for (int threads = 1; threads <= 3; threads++) {
            kernels *k = create(isa_names[i], threads, limits);
            if (!k) continue;
            test(k, reference);
            kernels_destroy(k);
            tried++;
        }
    assert_true(tried >= 3);
    kernels_destroy(reference);
}

typedef struct guarded {
    float *memory, *data;
    size_t count;
} guarded;

static inline guarded guarded_make(size_t count) {
    guarded g = {.memory = malloc((count + 2 * CANARIES) * sizeof(float)), .count = count};
    assert_non_null(g.memory);
    g.data = g.memory + CANARIES;
    for (size_t i = 0; i < CANARIES; i++) g.memory[i] = g.data[count + i] = CANARY;
    for (size_t i = 0; i < count; i++) g.data[i] = NAN;
    return g;
}

static inline void guarded_free(guarded *g) {
    for (size_t i = 0; i < CANARIES; i++)
        if (g->memory[i] != CANARY || g->data[g->count + i] != CANARY)
            fail_msg("write outside an output of %zu floats", g->count);
    free(g->memory);
}

static inline float normal(rng *r) {
    double sum = 0;
    for (int i = 0; i < 6; i++) sum += rng_uniform(r) - 0.5;
    return (float)(sum * 1.4);
}

static inline float *random_floats(rng *r, size_t count) {
    float *x = malloc((count ? count : 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < count; i++) x[i] = normal(r);
    return x;
}

// On cpu prepared activations are float.
static inline kernels_act *act(const float *x) {
    return (kernels_act *)x;
}

static inline double *sums_of_floats(const float *x, size_t count) {
    double *sums = malloc((count ? count : 1) * sizeof *sums);
    assert_non_null(sums);
    for (size_t i = 0; i < count; i++) sums[i] = (double)x[i];
    return sums;
}

// Random weights of any type; data at an odd address, rows `gap` bytes apart more than needed.
// The largest multiple of the type's block up to `cols`, at least one block.
static inline int whole_cols(dtype type, int cols) {
    int block = (int)dtype_block_values(type);
    return cols < block ? block : cols / block * block;
}

typedef struct test_weight {
    kernels_weight w;
    uint8_t *memory;
} test_weight;

static inline void put_f16(uint8_t *p, float x) {
    uint16_t bits = dtype_f32_to_f16(x);
    memcpy(p, &bits, sizeof bits);
}

static inline void random_block(rng *r, dtype type, uint8_t *p) {
    float x = normal(r);
    uint16_t half = type == DTYPE_BF16 ? dtype_f32_to_bf16(x) : dtype_f32_to_f16(x);
    if (type == DTYPE_F32)
        memcpy(p, &x, sizeof x);
    else if (type == DTYPE_F16 || type == DTYPE_BF16)
        memcpy(p, &half, sizeof half);
    else {
        for (size_t i = 0; i < dtype_block_bytes(type); i++) p[i] = (uint8_t)rng_next(r);
        bool nested = type == DTYPE_Q4_K || type == DTYPE_Q6_K; // scales of scales
        put_f16(type == DTYPE_Q6_K ? p + 208 : p, x * (nested ? 0.002f : 0.05f));
        if (type == DTYPE_I4 || type == DTYPE_I4_32) p[2] %= 17, p[3] = 0;
        if (type == DTYPE_Q4_1) put_f16(p + 2, normal(r) * 0.3f);
        if (type == DTYPE_Q4_K) put_f16(p + 2, fabsf(normal(r)) * 0.01f);
    }
}

static inline test_weight random_weight(rng *r, dtype type, int rows, int cols, size_t gap) {
    size_t stride = dtype_row_bytes(type, (size_t)cols) + gap;
    // Exactly as long as the rows need, so that a sanitizer sees a read past the last.
    size_t bytes = 1 + (size_t)rows * stride - (rows ? gap : 0);
    test_weight t = {.memory = malloc(bytes)};
    assert_non_null(t.memory);
    t.w = (kernels_weight){
        .data = t.memory + 1, .row_stride = stride, .rows = rows, .cols = cols, .type = type};
    memset(t.memory, 0x7f, bytes); // gaps hold NaNs
    for (int i = 0; i < rows; i++)
        for (size_t b = 0; b < (size_t)cols / dtype_block_values(type); b++)
            random_block(r, type, t.memory + 1 + (size_t)i * stride + b * dtype_block_bytes(type));
    return t;
}

static inline double root_mean_square(const float *x, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)x[i] * x[i];
    return count ? sqrt(sum / (double)count) : 0;
}

// Every value within `tolerance` of the expected one, relative to the size of the expected ones.
static inline void assert_close(const float *actual, const float *expected, size_t count,
                                double tolerance, const char *what) {
    double bound = tolerance * (root_mean_square(expected, count) + 1e-30);
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)actual[i] - expected[i]) <= bound + tolerance * fabs(expected[i])))
            fail_msg("%s: value %zu of %zu is %.9g, expected %.9g (tolerance %g)", what, i, count,
                     actual[i], expected[i], tolerance);
}

static inline void assert_same_bits(const float *a, const float *b, size_t count,
                                    const char *what) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s: value %zu of %zu differs: %.9g and %.9g", what, i, count, a[i], b[i]);
}

#endif
