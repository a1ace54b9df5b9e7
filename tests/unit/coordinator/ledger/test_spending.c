// spending: sums of a day by key, with what is under way; more names than there is room for.
#include "coordinator/ledger/spending.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void test_a_day(void **state) {
    (void)state;
    spending *s = spending_create();
    assert_non_null(s);
    assert_int_equal(spending_today(s, 1, "a"), 0);
    assert_true(spending_begin(s, 1, "a", "r1", "up", 100));
    assert_true(spending_begin(s, 1, "a", "r2", "up", 200));
    assert_true(spending_begin(s, 1, "b", "r3", "up", 400));
    assert_int_equal(spending_today(s, 1, "a"), 300);
    assert_int_equal(spending_today(s, 1, NULL), 700);
    spending_end(s, 1, "a", "r1", "up", 7);
    assert_int_equal(spending_today(s, 1, "a"), 207);
    spending_end(s, 1, "a", "r2", "another", 1); // never began: its cost counts, r2 goes on
    assert_int_equal(spending_today(s, 1, "a"), 208);
    spending_end(s, 1, "b", "r3", "up", -1); // no price is known: nothing to add
    assert_int_equal(spending_today(s, 1, "b"), 0);
    // Midnight: sums begin again, what is under way is still to come.
    assert_int_equal(spending_today(s, 2, "a"), 200);
    spending_end(s, 2, "a", "r2", "up", 9);
    assert_int_equal(spending_today(s, 2, "a"), 9);
    assert_int_equal(spending_today(s, 2, NULL), 9);
    assert_int_equal(spending_today(s, 1, "a"), 9); // a clock that goes back takes nothing away
    spending_destroy(s);
}

static void test_two_calls_of_one_request(void **state) {
    (void)state;
    spending *s = spending_create();
    assert_non_null(s);
    assert_true(spending_begin(s, 1, "a", "r", "up", 100));
    assert_true(spending_begin(s, 1, "a", "r", "up", 100)); // once more, in another form
    spending_end(s, 1, "a", "r", "up", 1);
    assert_int_equal(spending_today(s, 1, "a"), 101);
    spending_end(s, 1, "a", "r", "up", 1);
    assert_int_equal(spending_today(s, 1, "a"), 2);
    spending_destroy(s); // with one under way: nothing leaks
    s = spending_create();
    assert_true(spending_begin(s, 1, "a", "r", "up", 100));
    spending_destroy(s);
}

// Names beyond the bound share a sum, which can only be too high.
static void test_too_many_names(void **state) {
    (void)state;
    spending *s = spending_create();
    assert_non_null(s);
    char name[32];
    for (int i = 0; i < SPENDING_KEYS_MAX + 10; i++) {
        snprintf(name, sizeof name, "client-%d", i);
        spending_end(s, 1, name, "r", "up", 3);
    }
    assert_int_equal(spending_today(s, 1, "client-0"), 3);
    assert_int_equal(spending_today(s, 1, name), 30);
    assert_int_equal(spending_today(s, 1, "a stranger"), 30);
    assert_int_equal(spending_today(s, 1, NULL), 3 * (SPENDING_KEYS_MAX + 10));
    spending_destroy(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_day),
        cmocka_unit_test(test_two_calls_of_one_request),
        cmocka_unit_test(test_too_many_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
