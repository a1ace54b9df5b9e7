// matmul_sums: near the reference, and the same bits however the columns are cut between ranks and
// the rows between batches.
#include "fixture.h"

enum { TOKENS = 21, ROWS = 45, PARTS = 6 };
static const kernels_limits limits = {
    .tokens = TOKENS, .cols = 256 * PARTS, .context = 16, .heads = 1, .head_dim = 8};

static int segment_of(dtype type) {
    int block = (int)dtype_block_values(type);
    return block > 64 ? block : 64;
}

static double *sums_of(kernels *k, const kernels_weight *w, int segment, const float *x,
                       int tokens) {
    double *sums = malloc((size_t)tokens * ROWS * sizeof *sums);
    assert_non_null(sums);
    for (int i = 0; i < tokens * ROWS; i++) sums[i] = NAN;
    kernels_matmul_sums(k, w, segment, act(x), tokens, sums);
    return sums;
}

// The sums of columns [from, to) of a matrix, as a rank that holds only these makes them.
static double *part_sums(kernels *k, const kernels_weight *w, int segment, const float *x, int from,
                         int to) {
    kernels_weight part = *w;
    part.data = (const char *)w->data + dtype_row_bytes(w->type, (size_t)from);
    part.cols = to - from;
    float *columns = malloc((size_t)TOKENS * (size_t)part.cols * sizeof *columns);
    assert_non_null(columns);
    for (int t = 0; t < TOKENS; t++)
        memcpy(columns + t * part.cols, x + t * w->cols + from,
               (size_t)part.cols * sizeof *columns);
    double *sums = sums_of(k, &part, segment, columns, TOKENS);
    free(columns);
    return sums;
}

static void check_cuts(kernels *fast, kernels *reference) {
    for (dtype type = 0; type < DTYPE_COUNT; type++) {
        rng r = rng_make(type + 5);
        int segment = segment_of(type), cols = segment * PARTS - (type == DTYPE_F32 ? 3 : 0);
        test_weight w = random_weight(&r, type, ROWS, cols, 4);
        float *x = random_floats(&r, (size_t)(TOKENS * cols));
        double *whole = sums_of(fast, &w.w, segment, x, TOKENS);
        for (int cut = 1; cut < PARTS; cut++) {
            double *left = part_sums(fast, &w.w, segment, x, 0, cut * segment);
            double *right = part_sums(fast, &w.w, segment, x, cut * segment, cols);
            for (int i = 0; i < TOKENS * ROWS; i++) {
                double sum = cut % 2 ? left[i] + right[i] : right[i] + left[i];
                if (sum != whole[i])
                    fail_msg("%s %s cut %d, value %d: %a, not %a", kernels_name(fast),
                             dtype_name(type), cut, i, sum, whole[i]);
            }
            free(left);
            free(right);
        }
        for (int t = 0; t < TOKENS; t++) {
            double *alone = sums_of(fast, &w.w, segment, x + t * cols, 1);
            assert_memory_equal(alone, whole + t * ROWS, ROWS * sizeof *alone);
            free(alone);
        }
        double *expected = sums_of(reference, &w.w, segment, x, TOKENS);
        guarded a = guarded_make(TOKENS * ROWS), b = guarded_make(TOKENS * ROWS);
        kernels_narrow(fast, whole, a.count, 3, a.data);
        kernels_narrow(reference, expected, b.count, 3, b.data);
        assert_close(a.data, b.data, a.count, 2e-2, dtype_name(type)); // activations in 8 bits
        guarded_free(&a);
        guarded_free(&b);
        free(expected);
        free(whole);
        free(x);
        free(w.memory);
    }
}

static void test_cuts(void **state) {
    (void)state;
    for_each_backend(limits, check_cuts);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
