// The breaker's three outcomes: faults open it, answers close it, everything else is no news.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/core/breaker.h"

static const upstream_policy policy = {.breaker_window = 4,
                                       .breaker_least = 3,
                                       .breaker_share = 0.5,
                                       .breaker_open_ns = 10 * CLOCK_SECOND};

// A call from beginning to end; the breaker must let it through.
static bool run(breaker *b, uint64_t call, upstream_outcome outcome, int64_t now) {
    assert_true(breaker_allows(b, &policy, now));
    breaker_began(b, call);
    return breaker_ended(b, &policy, call, outcome, now);
}

static breaker opened(int64_t now) {
    breaker b = {0};
    for (uint64_t i = 1; i < 3; i++) assert_false(run(&b, i, UPSTREAM_FAULT, now));
    assert_true(run(&b, 3, UPSTREAM_FAULT, now));
    return b;
}

static void test_opens_with_a_least_sample(void **state) {
    (void)state;
    breaker b = {0};
    assert_false(run(&b, 1, UPSTREAM_FAULT, 0)); // 1 of 1 is 100 %, and says nothing yet
    assert_false(run(&b, 2, UPSTREAM_FAULT, 0));
    assert_int_equal(b.state, BREAKER_CLOSED);
    assert_true(run(&b, 3, UPSTREAM_FAULT, 0));
    assert_int_equal(b.state, BREAKER_OPEN);
    assert_false(breaker_allows(&b, &policy, 10 * CLOCK_SECOND - 1));
    assert_int_equal(breaker_opens_at(&b, &policy, 0), 10 * CLOCK_SECOND);
}

static void test_needs_its_share(void **state) {
    (void)state;
    breaker b = {0};
    uint64_t call = 1;
    for (int i = 0; i < 20; i++) { // one of four, for ever
        assert_false(run(&b, call++, UPSTREAM_FAULT, 0));
        for (int k = 0; k < 3; k++) assert_false(run(&b, call++, UPSTREAM_OK, 0));
    }
    assert_false(run(&b, call++, UPSTREAM_FAULT, 0));
    assert_true(run(&b, call++, UPSTREAM_FAULT, 0)); // two of the last four
}

static void test_others_are_neutral(void **state) {
    (void)state;
    static const upstream_outcome neutral[] = {UPSTREAM_BUSY, UPSTREAM_CLIENT, UPSTREAM_ACCOUNT,
                                               UPSTREAM_CANCELLED};
    for (int k = 0; k < 4; k++) {
        breaker b = {0};
        run(&b, 1, UPSTREAM_FAULT, 0);
        run(&b, 2, UPSTREAM_FAULT, 0);
        for (uint64_t i = 3; i < 50; i++) assert_false(run(&b, i, neutral[k], 0));
        assert_int_equal(b.seen, 2);                  // they are no sample,
        assert_true(run(&b, 50, UPSTREAM_FAULT, 0));  // nor a good answer that resets it
        int64_t later = 11 * CLOCK_SECOND;            // and as a probe
        assert_false(run(&b, 51, neutral[k], later)); // they do not close it
        assert_int_equal(b.state, BREAKER_HALF_OPEN); // nor open it:
        assert_true(run(&b, 52, UPSTREAM_OK, later)); // the next call is the probe
        assert_int_equal(b.state, BREAKER_CLOSED);
    }
}

static void test_one_probe_at_a_time(void **state) {
    (void)state;
    breaker b = opened(0);
    int64_t now = 10 * CLOCK_SECOND;
    assert_true(breaker_allows(&b, &policy, now));
    breaker_began(&b, 7);
    assert_false(breaker_allows(&b, &policy, now + 3600 * CLOCK_SECOND));
    assert_int_equal(breaker_opens_at(&b, &policy, now), INT64_MAX);
    assert_true(breaker_ended(&b, &policy, 7, UPSTREAM_FAULT, now + 5));
    assert_int_equal(b.state, BREAKER_OPEN);
    assert_int_equal(breaker_opens_at(&b, &policy, now), now + 5 + 10 * CLOCK_SECOND);
}

static void test_calls_from_before_do_not_count(void **state) {
    (void)state;
    breaker b = {0};
    breaker_began(&b, 100);
    breaker_began(&b, 101);
    for (uint64_t i = 1; i <= 3; i++) run(&b, i, UPSTREAM_FAULT, 0);
    assert_int_equal(b.state, BREAKER_OPEN);
    assert_false(breaker_ended(&b, &policy, 100, UPSTREAM_OK, 1));
    assert_int_equal(b.state, BREAKER_OPEN);
    assert_true(breaker_allows(&b, &policy, 10 * CLOCK_SECOND));
    breaker_began(&b, 7);
    assert_false(breaker_ended(&b, &policy, 101, UPSTREAM_OK, 10 * CLOCK_SECOND));
    assert_int_equal(b.state, BREAKER_HALF_OPEN); // the probe alone decides
    assert_true(breaker_ended(&b, &policy, 7, UPSTREAM_OK, 10 * CLOCK_SECOND));
    assert_false(run(&b, 8, UPSTREAM_FAULT, 10 * CLOCK_SECOND)); // from zero again
}

static void test_any_window_of_the_policy(void **state) {
    (void)state;
    for (int window = -1; window <= BREAKER_WINDOW_MAX + 10; window++) {
        upstream_policy p = policy;
        p.breaker_window = window;
        p.breaker_least = 1;
        p.breaker_share = 1;
        breaker b = {0};
        for (uint64_t i = 1; i <= 200; i++) {
            breaker_began(&b, i);
            assert_false(breaker_ended(&b, &p, i, UPSTREAM_OK, 0));
        }
        int faults = 0;
        do {
            breaker_began(&b, 300);
            faults++;
        } while (!breaker_ended(&b, &p, 300, UPSTREAM_FAULT, 0));
        int held = window < 1 ? 1 : window < BREAKER_WINDOW_MAX ? window : BREAKER_WINDOW_MAX;
        assert_int_equal(faults, held);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_with_a_least_sample),
        cmocka_unit_test(test_needs_its_share),
        cmocka_unit_test(test_others_are_neutral),
        cmocka_unit_test(test_one_probe_at_a_time),
        cmocka_unit_test(test_calls_from_before_do_not_count),
        cmocka_unit_test(test_any_window_of_the_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
