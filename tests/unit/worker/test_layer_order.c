// layer_order: which matrices of a layer are sorted, which follow, and which become numbers of 16
// bits instead.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/layer_order.h"

enum { COLS = 64, GROUP = 32 };

static int32_t odd_even[COLS], reversed[COLS];

static status read_memory(void *context, const void *mapped, size_t bytes, void *out) {
    int *left = context;
    if (left && (*left)-- == 0) return status_error(STATUS_DATA_LOSS, "cut");
    memcpy(out, mapped, bytes);
    return status_ok();
}

static void set_up_groups(void) {
    for (int i = 0; i < COLS; i++) {
        odd_even[i] = i % 2;
        reversed[i] = 1 - i / GROUP;
    }
}

static tensor matrix(const int32_t *groups) {
    return (tensor){.type = DTYPE_I4_32,
                    .rows = COLS,
                    .cols = COLS,
                    .scale_cols = GROUP,
                    .packing = TENSOR_GPTQ,
                    .groups = groups};
}

typedef struct layer {
    tensor t[TENSOR_ROLE_COUNT];
} layer;

static layer of(const int32_t *attention, const int32_t *ffn, const int32_t *down) {
    layer l = {0};
    l.t[TENSOR_Q] = l.t[TENSOR_K] = l.t[TENSOR_V] = matrix(attention);
    l.t[TENSOR_GATE] = l.t[TENSOR_UP] = matrix(ffn);
    l.t[TENSOR_DOWN] = matrix(down);
    return l;
}

static layer_order order_of(layer *l) {
    layer_order o;
    assert_string_equal(layer_order_find(l->t, read_memory, NULL, &o).message, "");
    return o;
}

static void test_all_sorted(void **state) {
    (void)state;
    layer l = of(odd_even, reversed, odd_even);
    layer_order o = order_of(&l);
    for (int i = 0; i < COLS; i++) {
        assert_int_equal(o.attention[i], i < GROUP ? 2 * i : 2 * (i - GROUP) + 1);
        assert_int_equal(o.ffn[i], (i + GROUP) % COLS);
        assert_int_equal(o.inner[i], o.attention[i]);
    }
    const tensor_role same[] = {TENSOR_Q, TENSOR_K, TENSOR_V, TENSOR_GATE, TENSOR_UP, TENSOR_DOWN};
    for (int i = 0; i < 6; i++) assert_int_equal(l.t[same[i]].type, DTYPE_I4_32);
    for (int i = 0; i < 3; i++) assert_ptr_equal(l.t[same[i]].col_order, o.attention);
    for (int i = 3; i < 5; i++) {
        assert_ptr_equal(l.t[same[i]].col_order, o.ffn);
        assert_ptr_equal(l.t[same[i]].row_order, o.inner);
    }
    assert_ptr_equal(l.t[TENSOR_DOWN].col_order, o.inner);
    layer_order_free(&o);
}

static void test_in_order(void **state) {
    (void)state;
    layer l = of(NULL, NULL, NULL);
    layer_order o = order_of(&l);
    assert_true(!o.attention && !o.ffn && !o.inner);
    assert_true(!l.t[TENSOR_Q].col_order && !l.t[TENSOR_UP].row_order);
}

// One of another order, or of none, takes the first's, in 16 bits.
static void test_strays(void **state) {
    (void)state;
    layer l = of(odd_even, odd_even, NULL);
    l.t[TENSOR_V].groups = reversed;
    l.t[TENSOR_UP].groups = NULL;
    layer_order o = order_of(&l);
    assert_int_equal(l.t[TENSOR_K].type, DTYPE_I4_32);
    assert_int_equal(l.t[TENSOR_V].type, DTYPE_F16);
    assert_ptr_equal(l.t[TENSOR_V].col_order, o.attention);
    assert_int_equal(l.t[TENSOR_UP].type, DTYPE_F16);
    assert_ptr_equal(l.t[TENSOR_UP].col_order, o.ffn);
    assert_null(o.inner);
    layer_order_free(&o);
}

// Beside a matrix that is not packed, and so stays as it is, nothing can be sorted.
static void test_beside_plain_ones(void **state) {
    (void)state;
    layer l = of(odd_even, odd_even, odd_even);
    l.t[TENSOR_K] = l.t[TENSOR_UP] = (tensor){.type = DTYPE_BF16, .rows = COLS, .cols = COLS};
    layer_order o = order_of(&l);
    assert_true(!o.attention && !o.ffn && !o.inner);
    const tensor_role wide[] = {TENSOR_Q, TENSOR_V, TENSOR_GATE, TENSOR_DOWN};
    for (int i = 0; i < 4; i++) assert_int_equal(l.t[wide[i]].type, DTYPE_F16);
    assert_int_equal(l.t[TENSOR_K].type, DTYPE_BF16);
}

static void test_reads_that_fail(void **state) {
    (void)state;
    for (int reads = 0; reads < 6; reads++) { // q k v, gate up, down
        layer l = of(odd_even, odd_even, odd_even);
        layer_order o;
        int left = reads;
        assert_int_equal(layer_order_find(l.t, read_memory, &left, &o).code, STATUS_DATA_LOSS);
        layer_order_free(&o);
    }
    int32_t changed[COLS] = {9};
    layer l = of(changed, NULL, NULL);
    layer_order o;
    assert_int_equal(layer_order_find(l.t, read_memory, NULL, &o).code, STATUS_DATA_LOSS);
    layer_order_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_sorted),      cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_strays),          cmocka_unit_test(test_beside_plain_ones),
        cmocka_unit_test(test_reads_that_fail),
    };
    set_up_groups();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
