// The operators that treat rows for themselves (embed, norms, add, gate_up, gather, argmax) against
// the reference, over odd widths and enough rows that they are shared among threads; each row alone
// equals itself in the batch.
#include "fixture.h"

static const kernels_limits limits = {
    .tokens = 512, .cols = 1000, .context = 16, .heads = 1, .head_dim = 8};
static const int widths[] = {1, 7, 8, 31, 64, 576, 1000};
static const int tokens[] = {0, 1, 2, 65};
enum { WIDTHS = 7, COUNTS = 4 };

static guarded copy_of(const float *x, size_t count) {
    guarded g = guarded_make(count);
    memcpy(g.data, x, count * sizeof *x);
    return g;
}

static void check_norm(kernels *fast, kernels *reference, int width, int rows) {
    rng r = rng_make((uint64_t)(width * 100 + rows));
    size_t count = (size_t)(width * rows);
    float *x = random_floats(&r, count), *delta = random_floats(&r, count);
    float *weight = random_floats(&r, (size_t)width);
    double *sums = sums_of_floats(delta, count);
    guarded a = copy_of(x, count), b = copy_of(x, count), plain = guarded_make(count);
    guarded out = guarded_make(count), expected = guarded_make(count);
    kernels_add_rmsnorm(fast, a.data, sums, weight, 1e-5f, rows, width, act(out.data));
    kernels_add_rmsnorm(reference, b.data, sums, weight, 1e-5f, rows, width, act(expected.data));
    assert_close(out.data, expected.data, count, 1e-6, "add_rmsnorm");
    assert_same_bits(a.data, b.data, count, "x + delta");
    kernels_rmsnorm(fast, a.data, weight, 1e-5f, rows, width, act(plain.data));
    assert_same_bits(plain.data, out.data, count, "rmsnorm of the sum");
    kernels_add(fast, b.data, sums, rows, width);
    kernels_add(reference, x, sums, rows, width);
    kernels_add(reference, x, sums, rows, width);
    assert_same_bits(b.data, x, count, "add");
    guarded *all[] = {&a, &b, &plain, &out, &expected};
    for (int i = 0; i < 5; i++) guarded_free(all[i]);
    free(x);
    free(delta);
    free(sums);
    free(weight);
}

// Sums that are normed before they are added; with a norm of what that gives, and without.
static void check_add_normed(kernels *fast, kernels *reference, int width, int rows) {
    rng r = rng_make((uint64_t)(width * 100 + rows + 7));
    size_t count = (size_t)(width * rows), row = (size_t)width;
    float *x = random_floats(&r, count), *delta = random_floats(&r, count);
    float *weight = random_floats(&r, row), *post = random_floats(&r, row);
    guarded out = guarded_make(count), expected = guarded_make(count);
    for (int last = 0; last < 2; last++) {
        guarded a = copy_of(x, count), b = copy_of(x, count);
        double *sums[2] = {sums_of_floats(delta, count), sums_of_floats(delta, count)};
        const float *norm = last ? NULL : weight;
        kernels_add_normed(fast, a.data, sums[0], post, norm, 1e-5f, rows, width, act(out.data));
        kernels_add_normed(reference, b.data, sums[1], post, norm, 1e-5f, rows, width,
                           act(expected.data));
        assert_close(a.data, b.data, count, 1e-6, "x + rmsnorm(delta)");
        assert_close(out.data, expected.data, count, 1e-5, "add_normed");
        for (int t = 0; t < rows && !last; t++) {
            guarded one = copy_of(x + (size_t)t * row, row), alone = guarded_make(row);
            double *own = sums_of_floats(delta + (size_t)t * row, row);
            kernels_add_normed(fast, one.data, own, post, norm, 1e-5f, 1, width, act(alone.data));
            assert_same_bits(alone.data, out.data + (size_t)t * row, row, "add_normed alone");
            guarded_free(&one);
            guarded_free(&alone);
            free(own);
        }
        guarded *both[] = {&a, &b};
        for (int i = 0; i < 2; i++) guarded_free(both[i]), free(sums[i]);
    }
    guarded_free(&out);
    guarded_free(&expected);
    float *all[] = {x, delta, weight, post};
    for (int i = 0; i < 4; i++) free(all[i]);
}

// Few columns, so that the products are nearly exact and the activation shows.
static void check_gate_up(kernels *fast, kernels *reference, kernels_activation activation,
                          int width, int rows) {
    enum { COLS = 8 };
    rng r = rng_make((uint64_t)(width * 10 + rows));
    size_t count = (size_t)(width * rows);
    float *x = random_floats(&r, (size_t)(rows * COLS));
    test_weight gate = random_weight(&r, DTYPE_F32, width, COLS, 0);
    test_weight up = random_weight(&r, DTYPE_F32, width, COLS, 0);
    for (int i = 0; i < rows * COLS; i += 5) x[i] *= 6; // far out on both sides
    guarded a = guarded_make(count), b = guarded_make(count);
    kernels_gate_up(fast, activation, &gate.w, &up.w, act(x), rows, act(a.data));
    kernels_gate_up(reference, activation, &gate.w, &up.w, act(x), rows, act(b.data));
    assert_close(a.data, b.data, count, 1e-5, "gate_up");
    for (int t = 0; t < rows; t++) {
        guarded alone = guarded_make((size_t)width);
        kernels_gate_up(fast, activation, &gate.w, &up.w, act(x + t * COLS), 1, act(alone.data));
        assert_same_bits(alone.data, a.data + t * width, (size_t)width, "gate_up alone");
        guarded_free(&alone);
    }
    guarded_free(&a);
    guarded_free(&b);
    free(gate.memory);
    free(up.memory);
    free(x);
}

static void check_rows(kernels *fast, kernels *reference) {
    for (int i = 0; i < WIDTHS; i++)
        for (int j = 0; j < COUNTS; j++) {
            check_norm(fast, reference, widths[i], tokens[j]);
            check_add_normed(fast, reference, widths[i], tokens[j]);
            check_gate_up(fast, reference, KERNELS_SILU, widths[i], tokens[j]);
            check_gate_up(fast, reference, KERNELS_GELU_TANH, widths[i], tokens[j]);
        }
}

static void test_rows(void **state) {
    (void)state;
    for_each_backend(limits, check_rows);
}

static void check_embed(kernels *fast, kernels *reference) {
    enum { ROWS = 50, FIRST = 1000, IDS = 7 };
    static const int32_t ids[IDS] = {1000, 1049, 999, 1050, 1023, -1, INT32_MIN};
    for (dtype type = 0; type < DTYPE_COUNT; type++) {
        rng r = rng_make(type);
        int cols = whole_cols(type, 77);
        test_weight table = random_weight(&r, type, ROWS, cols, 12);
        size_t count = (size_t)(IDS * cols);
        double *out = malloc(count * sizeof *out), *expected = malloc(count * sizeof *out);
        assert_true(out && expected);
        memset(out, 0xff, count * sizeof *out);
        kernels_step step = {.tokens = IDS, .ids = ids, .block_tokens = 1};
        assert_int_equal(kernels_begin(fast, &step), IDS);
        kernels_embed(fast, &table.w, FIRST, out);
        kernels_begin(reference, &step);
        kernels_embed(reference, &table.w, FIRST, expected);
        assert_memory_equal(out, expected, count * sizeof *out);
        for (int c = 0; c < cols; c++) {
            assert_true(out[2 * cols + c] == 0); // another rank's rows
            assert_true(out[3 * cols + c] == 0);
            assert_true(out[5 * cols + c] == 0 && out[6 * cols + c] == 0);
        }
        free(out);
        free(expected);
        free(table.memory);
    }
}

static void test_embed(void **state) {
    (void)state;
    for_each_backend(limits, check_embed);
}

static void check_argmax(kernels *fast, kernels *reference) {
    (void)reference;
    for (int i = 0; i < WIDTHS; i++) {
        rng r = rng_make(i + 3);
        enum { ROWS = 40 };
        float *x = random_floats(&r, (size_t)(ROWS * widths[i])), values[ROWS];
        int32_t best[ROWS], wanted[ROWS];
        for (int t = 0; t < ROWS; t++) {
            // Two equal largest values: the first counts. Rows of -infinity have a first one, too.
            int a = (int)rng_below(&r, (uint64_t)widths[i]),
                b = (int)rng_below(&r, (uint64_t)widths[i]);
            float *row = x + t * widths[i];
            row[a] = row[b] = 100;
            wanted[t] = a < b ? a : b;
            if (t != 7) continue;
            for (int c = 0; c < widths[i]; c++) row[c] = -INFINITY;
            wanted[t] = 0;
        }
        kernels_argmax(fast, x, ROWS, widths[i], best, values);
        for (int t = 0; t < ROWS; t++) {
            assert_int_equal(best[t], wanted[t]);
            assert_true(values[t] == (t == 7 ? -INFINITY : 100));
        }
        free(x);
    }
}

static void test_argmax(void **state) {
    (void)state;
    for_each_backend(limits, check_argmax);
}

// From values that the cap leaves as they are to those that it flattens; long enough for threads.
static void check_soft_cap(kernels *fast, kernels *reference) {
    static const size_t counts[] = {1, 7, 8, 1000, 40003};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        rng r = rng_make(counts[i]);
        float *x = random_floats(&r, counts[i]);
        for (size_t c = 0; c < counts[i]; c++) x[c] *= c % 3 == 0 ? 1e-4f : c % 3 == 1 ? 20 : 500;
        guarded a = copy_of(x, counts[i]);
        kernels_soft_cap(fast, a.data, counts[i], 30);
        kernels_soft_cap(reference, x, counts[i], 30);
        for (size_t c = 0; c < counts[i]; c++)
            if (!(fabsf(a.data[c] - x[c]) <= 1e-6f * fabsf(x[c])))
                fail_msg("soft_cap: %.9g, expected %.9g", (double)a.data[c], (double)x[c]);
        guarded_free(&a);
        free(x);
    }
}

static void test_soft_cap(void **state) {
    (void)state;
    for_each_backend(limits, check_soft_cap);
}

static void check_gather(kernels *fast, kernels *reference) {
    (void)reference;
    rng r = rng_make(1);
    static const int32_t rows[] = {3, 0, 3, 8};
    float *x = random_floats(&r, 9 * 33);
    guarded out = guarded_make(4 * 33);
    kernels_begin(fast, &(kernels_step){.block_tokens = 1, .wanted = 4, .rows = rows});
    kernels_gather(fast, x, 0, 1, 33, out.data);
    kernels_gather(fast, x, 1, 3, 33, out.data + 33);
    for (int i = 0; i < 4; i++) assert_same_bits(out.data + i * 33, x + rows[i] * 33, 33, "gather");
    kernels_gather(fast, x, 4, 0, 33, out.data);
    guarded_free(&out);
    free(x);
}

static void test_gather(void **state) {
    (void)state;
    for_each_backend(limits, check_gather);
}

static void check_reorder(kernels *fast, kernels *reference) {
    (void)reference;
    enum { WIDTH = 33, ROWS = 3 };
    rng r = rng_make(2);
    float *x = random_floats(&r, ROWS * WIDTH);
    int32_t order[WIDTH];
    for (int i = 0; i < WIDTH; i++) order[i] = (i * 10 + 4) % WIDTH;
    guarded out = guarded_make(ROWS * WIDTH);
    kernels_reorder(fast, act(x), order, ROWS, WIDTH, act(out.data));
    for (int t = 0; t < ROWS; t++)
        for (int i = 0; i < WIDTH; i++)
            assert_true(out.data[t * WIDTH + i] == x[t * WIDTH + order[i]]);
    guarded_free(&out);
    free(x);
}

static void test_reorder(void **state) {
    (void)state;
    for_each_backend(limits, check_reorder);
}

static void test_names_and_memory(void **state) {
    (void)state;
    kernels *k = NULL;
    assert_int_equal(kernels_create_cpu(1, -1, "sse9", &k).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(kernels_create_cpu(0, -1, NULL, &k).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(kernels_create_cpu(100000, -1, NULL, &k).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(kernels_create_cpu(2, 0, NULL, &k).code, STATUS_OK);
    void *memory = NULL;
    assert_int_equal(kernels_alloc(k, SIZE_MAX - 3, &memory).code, STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(kernels_alloc(k, 100, &memory).code, STATUS_OK);
    assert_int_equal((uintptr_t)memory % 64, 0);
    for (int i = 0; i < 100; i++) assert_int_equal(((char *)memory)[i], 0);
    char text[] = "octant", back[7];
    assert_int_equal(kernels_upload(k, memory, text, 7).code, STATUS_OK);
    assert_int_equal(kernels_download(k, back, memory, 7).code, STATUS_OK);
    assert_string_equal(back, "octant");
    kernels_free(k, memory);
    kernels_destroy(k);
    kernels_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_argmax),
        cmocka_unit_test(test_soft_cap),
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_reorder),
        cmocka_unit_test(test_names_and_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
