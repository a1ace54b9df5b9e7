// column_order: what groups of columns are like, and the columns sorted by them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/model/column_order.h"

enum { COLS = 10, SIZE = 4 }; // groups of 4, 4 and 2 columns

static column_order of(const int32_t *groups) {
    char shifted[COLS * 4 + 1]; // safetensors promises no alignment
    memcpy(shifted + 1, groups, COLS * 4);
    column_order order;
    assert_string_equal(column_order_of(shifted + 1, COLS, SIZE, &order).message, "");
    return order;
}

static void test_kinds(void **state) {
    (void)state;
    assert_int_equal(of((int32_t[]){0, 0, 0, 0, 1, 1, 1, 1, 2, 2}), COLUMNS_IN_ORDER);
    assert_int_equal(of((int32_t[]){-1, -1, -1, -1, -1, -1, -1, -1, -1, -1}), COLUMNS_IN_ORDER);
    assert_int_equal(of((int32_t[]){2, 0, 1, 0, 1, 1, 0, 1, 2, 0}), COLUMNS_SORTABLE);
    assert_int_equal(of((int32_t[]){0, 0, 0, 1, 1, 1, 2, 2, 2, 2}), COLUMNS_SCATTERED);
    assert_int_equal(of((int32_t[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), COLUMNS_SCATTERED);
}

static void test_sort(void **state) {
    (void)state;
    int32_t order[COLS], groups[COLS] = {2, 0, 1, 0, 1, 1, 0, 1, 2, 0};
    const int32_t want[COLS] = {1, 3, 6, 9, 2, 4, 5, 7, 0, 8};
    assert_string_equal(column_order_sort(groups, COLS, SIZE, order).message, "");
    assert_memory_equal(order, want, sizeof want);
}

static void test_groups_that_are_none(void **state) {
    (void)state;
    static const int32_t wrong[] = {3, -1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int32_t order[COLS], groups[COLS] = {0, 0, 0, 0, 1, 1, 1, wrong[i], 2, 2};
        column_order kind;
        status s = column_order_of(groups, COLS, SIZE, &kind);
        assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
        assert_non_null(strstr(s.message, "column 7 is of group"));
        assert_int_equal(column_order_sort(groups, COLS, SIZE, order).code,
                         STATUS_INVALID_ARGUMENT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_sort),
        cmocka_unit_test(test_groups_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
