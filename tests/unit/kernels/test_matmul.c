// matmul of every weight type against the reference: odd shapes, strides, no alignment; and batch
// invariance bit by bit.
#include "fixture.h"

enum { TOKENS_MAX = 40, COLS_MAX = 608 };
static const kernels_limits limits = {
    .tokens = TOKENS_MAX, .cols = COLS_MAX, .context = 16, .heads = 1, .head_dim = 8};

// Activations that 8 bits hold exactly, each block with its own power of two, so that a product
// with quantised weights differs from the reference by the rounding of sums alone.
static float *exact_activations(rng *r, int tokens, int cols) {
    float *x = malloc((size_t)tokens * (size_t)cols * sizeof *x);
    assert_non_null(x);
    for (int at = 0; at < tokens * cols; at += 32) {
        int n = tokens * cols - at < 32 ? tokens * cols - at : 32, sum;
        int values[32];
        do {
            sum = 0;
            for (int i = 0; i < n; i++) sum += values[i] = (int)rng_below(r, 255) - 127;
            sum += 127 - values[0];
            values[0] = 127;
        } while (abs(sum) > 2048); // the sum must survive F16
        float d = ldexpf(1, (int)rng_below(r, 5) - 8);
        for (int i = 0; i < n; i++) x[at + i] = d * (float)values[i];
    }
    return x;
}

static void check_shape(kernels *fast, kernels *reference, dtype type, int rows, int cols,
                        int tokens, size_t gap, bool with_bias) {
    rng r = rng_make((uint64_t)(type * 1000003 + rows * 1009 + cols * 31 + tokens));
    test_weight weight = random_weight(&r, type, rows, cols, gap);
    float *x = exact_activations(&r, tokens, cols), *bias = random_floats(&r, (size_t)rows);
    size_t count = (size_t)tokens * (size_t)rows;
    guarded out = guarded_make(count), expected = guarded_make(count);
    const kernels_weight *weights[] = {&weight.w};
    const float *biases[] = {with_bias ? bias : NULL};
    kernels_matmul(fast, 1, weights, biases, act(x), tokens, (float *[]){out.data});
    kernels_matmul(reference, 1, weights, biases, act(x), tokens, (float *[]){expected.data});
    char what[128];
    snprintf(what, sizeof what, "%s %s %dx%d T=%d", kernels_name(fast), dtype_name(type), rows,
             cols, tokens);
    assert_close(out.data, expected.data, count, 2e-5, what);
    guarded_free(&out);
    guarded_free(&expected);
    free(x);
    free(bias);
    free(weight.memory);
}

static void check_shapes(kernels *fast, kernels *reference) {
    static const int rows[] = {1, 3, 8, 13, 37, 100}, tokens[] = {0, 1, 2, 3, 7, 8, 9, 17, 40};
    for (dtype type = 0; type < DTYPE_COUNT; type++)
        for (size_t i = 0; i < 6; i++)
            for (size_t j = 0; j < 9; j++) {
                int cols = whole_cols(type, 1 + (int)(i * 97 + j * 31) % 600);
                check_shape(fast, reference, type, rows[i], cols, tokens[j], i % 2 ? 20 : 0, j % 2);
            }
}

static void test_against_reference(void **state) {
    (void)state;
    for_each_backend(limits, check_shapes);
}

// Several weights of mixed types in one call, one of them without rows.
static void check_several(kernels *fast, kernels *reference) {
    rng r = rng_make(7);
    enum { COLS = 96, T = 19 };
    static const dtype types[4] = {DTYPE_Q4_1, DTYPE_F16, DTYPE_Q8_0, DTYPE_Q5_0};
    static const int rows[4] = {70, 33, 0, 65};
    test_weight w[4];
    guarded out[4], expected[4];
    for (int i = 0; i < 4; i++) {
        w[i] = random_weight(&r, types[i], rows[i], COLS, 0);
        out[i] = guarded_make((size_t)(rows[i] * T));
        expected[i] = guarded_make((size_t)(rows[i] * T));
    }
    float *x = exact_activations(&r, T, COLS);
    const kernels_weight *weights[] = {&w[0].w, &w[1].w, &w[2].w, &w[3].w};
    float *outs[] = {out[0].data, out[1].data, out[2].data, out[3].data};
    float *wanted[] = {expected[0].data, expected[1].data, expected[2].data, expected[3].data};
    kernels_matmul(fast, 4, weights, NULL, act(x), T, outs);
    kernels_matmul(reference, 4, weights, NULL, act(x), T, wanted);
    for (int i = 0; i < 4; i++) {
        assert_close(outs[i], wanted[i], out[i].count, 2e-5, dtype_name(types[i]));
        guarded_free(&out[i]);
        guarded_free(&expected[i]);
        free(w[i].memory);
    }
    free(x);
}

static void test_several(void **state) {
    (void)state;
    for_each_backend(limits, check_several);
}

// Activations that 8 bits do not hold: the error stays that of one rounding to 1/127 of the block's
// largest.
static void check_rounding(kernels *fast, kernels *reference) {
    static const dtype types[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q5_0,
                                  DTYPE_Q4_K, DTYPE_Q6_K, DTYPE_I4,   DTYPE_I4_32};
    for (int i = 0; i < 8; i++) {
        rng r = rng_make(11);
        test_weight w = random_weight(&r, types[i], 64, 512, 0);
        float *x = random_floats(&r, 5 * 512);
        guarded out = guarded_make(5 * 64), expected = guarded_make(5 * 64);
        const kernels_weight *weights[] = {&w.w};
        kernels_matmul(fast, 1, weights, NULL, act(x), 5, (float *[]){out.data});
        kernels_matmul(reference, 1, weights, NULL, act(x), 5, (float *[]){expected.data});
        assert_close(out.data, expected.data, out.count, 0.03, dtype_name(types[i]));
        guarded_free(&out);
        guarded_free(&expected);
        free(x);
        free(w.memory);
    }
}

static void test_rounding(void **state) {
    (void)state;
    for_each_backend(limits, check_rounding);
}

// Rows of a batch equal the same rows alone, and any smaller batch, bit by bit.
static void check_batch(kernels *fast, kernels *reference) {
    (void)reference;
    for (dtype type = 0; type < DTYPE_COUNT; type++) {
        rng r = rng_make(type + 77);
        enum { ROWS = 77, T = TOKENS_MAX };
        int cols = whole_cols(type, 349);
        test_weight w = random_weight(&r, type, ROWS, cols, 0);
        float *x = random_floats(&r, (size_t)(T * cols));
        guarded all = guarded_make(T * ROWS);
        const kernels_weight *weights[] = {&w.w};
        kernels_matmul(fast, 1, weights, NULL, act(x), T, (float *[]){all.data});
        for (int n = 1; n <= 11; n++)
            for (int t = 0; t + n <= T; t += n) {
                guarded some = guarded_make((size_t)(n * ROWS));
                kernels_matmul(fast, 1, weights, NULL, act(x + t * cols), n,
                               (float *[]){some.data});
                assert_same_bits(some.data, all.data + t * ROWS, some.count, dtype_name(type));
                guarded_free(&some);
            }
        guarded_free(&all);
        free(x);
        free(w.memory);
    }
}

static void test_batch_invariance(void **state) {
    (void)state;
    for_each_backend(limits, check_batch);
}

// The number of threads changes no bit.
static void test_thread_invariance(void **state) {
    (void)state;
    for (int i = 0; i < ISAS; i++)
        for (dtype type = 0; type < DTYPE_COUNT; type++)
            for (int tokens = 1; tokens <= 33; tokens += 16) {
                guarded out[3];
                for (int threads = 1; threads <= 3; threads++) {
                    rng r = rng_make(type);
                    kernels *k = create(isa_names[i], threads, limits);
                    if (!k) goto next;
                    test_weight w = random_weight(&r, type, 301, whole_cols(type, 320), 0);
                    float *x = random_floats(&r, (size_t)(tokens * 320));
                    out[threads - 1] = guarded_make((size_t)(tokens * 301));
                    const kernels_weight *weights[] = {&w.w};
                    kernels_matmul(k, 1, weights, NULL, act(x), tokens,
                                   (float *[]){out[threads - 1].data});
                    kernels_destroy(k);
                    free(x);
                    free(w.memory);
                }
                assert_same_bits(out[0].data, out[1].data, out[0].count, "2 threads");
                assert_same_bits(out[0].data, out[2].data, out[0].count, "3 threads");
                for (int t = 0; t < 3; t++) guarded_free(&out[t]);
            next:;
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference), cmocka_unit_test(test_several),
        cmocka_unit_test(test_rounding),          cmocka_unit_test(test_batch_invariance),
        cmocka_unit_test(test_thread_invariance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
