// Each clock runs out by itself, at its time and not before, and stands still when it should.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/upstream/call_clocks.h"

#define S CLOCK_SECOND
static const upstream_policy LIMITS = {.connect_ns = 2 * S,
                                       .first_content_ns = 5 * S,
                                       .between_chunks_ns = 3 * S,
                                       .total_ns = 60 * S,
                                       .min_rate = 10,
                                       .rate_window_ns = 4 * S};
static const int64_t T0 = 1000 * S, DEADLINE = T0 + 100 * S;

static call_clocks started(const upstream_policy *limits) {
    return call_clocks_start(limits, DEADLINE, T0);
}

// It is told to look at `at`, there is nothing a moment before, and `which` then.
static void expect(call_clocks *c, int32_t tokens, int64_t at, call_clock which) {
    assert_int_equal(call_clocks_next(c) - T0, at - T0);
    assert_int_equal(call_clocks_check(c, tokens, at - 1), CALL_CLOCK_NONE);
    assert_int_equal(call_clocks_check(c, tokens, at), which);
}

static void test_one_after_the_other(void **state) {
    (void)state;
    call_clocks c = started(&LIMITS);
    expect(&c, 0, T0 + 2 * S, CALL_CLOCK_CONNECT);
    call_clocks_connected(&c);
    expect(&c, 0, T0 + 5 * S, CALL_CLOCK_FIRST_CONTENT);
    call_clocks_progress(&c, false, 0, T0 + 4 * S); // reasoning: not what is waited for
    expect(&c, 0, T0 + 5 * S, CALL_CLOCK_FIRST_CONTENT);
    call_clocks_progress(&c, true, 1, T0 + 4 * S);
    expect(&c, 1, T0 + 7 * S, CALL_CLOCK_BETWEEN_CHUNKS);
    call_clocks_progress(&c, false, 1, T0 + 6 * S); // after it, a sign of life
    expect(&c, 1, T0 + 8 * S, CALL_CLOCK_MIN_RATE);
}

static void test_rate(void **state) {
    (void)state;
    call_clocks c = started(&LIMITS);
    call_clocks_connected(&c);
    call_clocks_progress(&c, true, 100, T0);
    for (int i = 1; i <= 3; i++) call_clocks_progress(&c, true, 100 + 10 * i, T0 + i * S);
    // 40 tokens in 4 s: just enough; the next window begins with what was there.
    assert_int_equal(call_clocks_check(&c, 140, T0 + 4 * S), CALL_CLOCK_NONE);
    call_clocks_progress(&c, true, 140, T0 + 7 * S);
    expect(&c, 179, T0 + 8 * S, CALL_CLOCK_MIN_RATE);
}

static void test_held(void **state) {
    (void)state;
    call_clocks c = started(&LIMITS);
    call_clocks_connected(&c);
    call_clocks_progress(&c, true, 1, T0 + S);
    call_clocks_hold(&c);
    expect(&c, 1, T0 + 60 * S, CALL_CLOCK_TOTAL);
    call_clocks_release(&c, 1, T0 + 30 * S);
    expect(&c, 1, T0 + 33 * S, CALL_CLOCK_BETWEEN_CHUNKS);
    call_clocks_progress(&c, true, 1, T0 + 33 * S);
    expect(&c, 1, T0 + 34 * S, CALL_CLOCK_MIN_RATE); // from the release on
}

static void test_off_and_deadline(void **state) {
    (void)state;
    const upstream_policy none = {.name = "x"};
    call_clocks c = started(&none);
    expect(&c, 0, DEADLINE, CALL_CLOCK_DEADLINE);
    call_clocks_progress(&c, true, 1, T0);
    expect(&c, 0, DEADLINE, CALL_CLOCK_DEADLINE);
    // When both are over, the request's own says less against the target.
    c = call_clocks_start(&LIMITS, T0 + S, T0);
    assert_int_equal(call_clocks_check(&c, 0, T0 + 100 * S), CALL_CLOCK_DEADLINE);
}

static void test_words(void **state) {
    (void)state;
    const char *const words[] = {"clock: connect",        "clock: first content",
                                 "clock: between chunks", "clock: minimum rate",
                                 "clock: total",          "deadline"};
    call_clocks c = started(&LIMITS);
    for (int which = CALL_CLOCK_CONNECT; which <= CALL_CLOCK_DEADLINE; which++) {
        char text[200];
        call_clocks_explain(&c, (call_clock)which, text, sizeof text);
        assert_non_null(strstr(text, words[which - CALL_CLOCK_CONNECT]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_after_the_other),
                                       cmocka_unit_test(test_rate), cmocka_unit_test(test_held),
                                       cmocka_unit_test(test_off_and_deadline),
                                       cmocka_unit_test(test_words)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
