// How long the limit headers of an API hold the next call back.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "coordinator/upstream/limits_hold.h"

static int64_t requests(int64_t limit, int64_t remaining, int64_t reset_ms) {
    return limits_hold_ms(&(codec_limits){limit, remaining, reset_ms, -1, -1, -1}, 1000);
}

static int64_t tokens(int64_t limit, int64_t remaining, int64_t reset_ms, int64_t need) {
    return limits_hold_ms(&(codec_limits){-1, -1, -1, limit, remaining, reset_ms}, need);
}

static void test_holds(void **state) {
    (void)state;
    assert_int_equal(requests(-1, -1, -1), 0);   // not told
    assert_int_equal(requests(60, 1, 60000), 0); // one more
    assert_int_equal(requests(60, 0, 60000), 1000);
    assert_int_equal(requests(-1, 0, 500), 500);       // of how many?
    assert_int_equal(requests(60, 0, 0), 0);           // back already
    assert_int_equal(requests(60, 0, -1), 0);          // when, nobody says
    assert_int_equal(requests(1, 0, 86400000), 60000); // advice, not more
    assert_int_equal(tokens(10000, 5000, 10000, 2000), 0);
    assert_int_equal(tokens(10000, 5000, 10000, 6000), 2000);
    assert_int_equal(tokens(10000, 5000, 10000, 1 << 30), 10000); // never fits: try when it is full
    assert_int_equal(tokens(10000, 0, 10000, 0), 0);
    assert_int_equal(tokens(0, 0, 10000, 1000), 10000);
    // The longer of the two.
    codec_limits both = {60, 0, 60000, 10000, 0, 10000};
    assert_int_equal(limits_hold_ms(&both, 5000), 5000);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_holds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
