// How many calls an upstream gets: places, requests and tokens of a minute, and its own wishes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/core/upstream_limits.h"

static const int64_t MINUTE_NS = 60 * CLOCK_SECOND;

static upstream_end end_of(upstream_outcome outcome, int32_t tokens, int64_t retry_ms) {
    return (upstream_end){.outcome = outcome,
                          .retry_after_ms = retry_ms,
                          .usage = {.input_tokens = tokens, .known = true}};
}

static void test_places(void **state) {
    (void)state;
    upstream_policy p = {.concurrency = 2};
    upstream_limits l = upstream_limits_make(&p, 0);
    upstream_end good = end_of(UPSTREAM_OK, 0, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(upstream_limits_open_at(&l, &p, 5), 5);
        upstream_limits_began(&l, &p, 10);
    }
    assert_int_equal(upstream_limits_open_at(&l, &p, 5), INT64_MAX);
    upstream_limits_ended(&l, &p, 10, &good, 6);
    assert_int_equal(upstream_limits_open_at(&l, &p, 6), 6);
}

static void test_no_limits(void **state) {
    (void)state;
    upstream_policy p = {0};
    upstream_limits l = upstream_limits_make(&p, 0);
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(upstream_limits_open_at(&l, &p, 5), 5);
        upstream_limits_began(&l, &p, 1 << 20);
    }
}

static void test_requests_of_a_minute(void **state) {
    (void)state;
    upstream_policy p = {.requests_per_minute = 30};
    upstream_limits l = upstream_limits_make(&p, 0);
    int began = 0;
    for (int64_t now = 0; now < 10 * MINUTE_NS; now += 50 * CLOCK_MS)
        while (upstream_limits_open_at(&l, &p, now) <= now)
            upstream_limits_began(&l, &p, 1), began++;
    assert_in_range(began, 329, 330); // the first burst, and 30 for each minute
}

// What it says is when the call may begin: a nanosecond earlier it may not.
static void test_tells_when(void **state) {
    (void)state;
    upstream_policy p = {.requests_per_minute = 6};
    upstream_limits l = upstream_limits_make(&p, 0);
    for (int i = 0; i < 6; i++) upstream_limits_began(&l, &p, 1);
    int64_t at = upstream_limits_open_at(&l, &p, 0);
    assert_in_range(at, 10 * CLOCK_SECOND, 10 * CLOCK_SECOND + 1000);
    upstream_limits early = l;
    assert_true(upstream_limits_open_at(&early, &p, at - CLOCK_MS) > at - CLOCK_MS);
    assert_int_equal(upstream_limits_open_at(&l, &p, at), at);
}

static void test_tokens_are_settled(void **state) {
    (void)state;
    upstream_policy p = {.tokens_per_minute = 6000};
    upstream_limits l = upstream_limits_make(&p, 0);
    upstream_limits_began(&l, &p, 5000); // an estimate
    upstream_end less = end_of(UPSTREAM_OK, 1000, 0), more = end_of(UPSTREAM_OK, 20000, 0);
    upstream_limits_ended(&l, &p, 5000, &less, 0);
    assert_true(l.tokens > 4999 && l.tokens < 5001);
    upstream_limits_began(&l, &p, 1000);
    upstream_limits_ended(&l, &p, 1000, &more, 0); // 15,000 below zero: two and a half minutes
    int64_t at = upstream_limits_open_at(&l, &p, 0);
    assert_in_range(at, 150 * CLOCK_SECOND, 151 * CLOCK_SECOND);
    assert_int_equal(upstream_limits_open_at(&l, &p, at), at);
}

static void test_retry_after_is_kept(void **state) {
    (void)state;
    upstream_policy p = {0};
    upstream_limits l = upstream_limits_make(&p, 0);
    upstream_end long_wait = end_of(UPSTREAM_BUSY, 0, 7000), brief = end_of(UPSTREAM_BUSY, 0, 1000);
    upstream_limits_began(&l, &p, 1);
    upstream_limits_began(&l, &p, 1);
    upstream_limits_ended(&l, &p, 1, &long_wait, 0);
    upstream_limits_ended(&l, &p, 1, &brief, 0); // does not shorten it
    assert_int_equal(upstream_limits_open_at(&l, &p, 0), 7 * CLOCK_SECOND);
}

static void test_holds_back_when_headers_say_so(void **state) {
    (void)state;
    upstream_policy p = {0};
    upstream_limits l = upstream_limits_make(&p, 0);
    upstream_end good = end_of(UPSTREAM_OK, 0, 0), busy = end_of(UPSTREAM_BUSY, 0, 7000);
    good.hold_ms = busy.hold_ms = 1500;
    upstream_limits_began(&l, &p, 1);
    upstream_limits_ended(&l, &p, 1, &good, 0);
    assert_int_equal(upstream_limits_open_at(&l, &p, 0), 1500 * CLOCK_MS);
    upstream_limits_began(&l, &p, 1);
    upstream_limits_ended(&l, &p, 1, &busy, 0); // the later of both
    assert_int_equal(upstream_limits_open_at(&l, &p, 0), 7 * CLOCK_SECOND);
}

static void test_backs_off_by_itself(void **state) {
    (void)state;
    upstream_policy p = {0};
    upstream_limits l = upstream_limits_make(&p, 0);
    upstream_end busy = end_of(UPSTREAM_BUSY, 0, 0), good = end_of(UPSTREAM_OK, 0, 0);
    int64_t now = 0, last = 0;
    for (int i = 0; i < 12; i++) {
        upstream_limits_began(&l, &p, 1);
        upstream_limits_ended(&l, &p, 1, &busy, now);
        int64_t wait = upstream_limits_open_at(&l, &p, now) - now;
        assert_true(wait >= last && wait > 0 && wait <= 30 * CLOCK_SECOND);
        last = wait;
        now += wait;
    }
    assert_int_equal(last, 30 * CLOCK_SECOND);
    upstream_limits_began(&l, &p, 1);
    upstream_limits_ended(&l, &p, 1, &good, now);
    upstream_limits_began(&l, &p, 1);
    upstream_limits_ended(&l, &p, 1, &busy, now);
    assert_int_equal(upstream_limits_open_at(&l, &p, now) - now, 500 * CLOCK_MS); // anew
}

static void test_one_goes_first_after_a_wait(void **state) {
    (void)state;
    upstream_policy p = {0};
    upstream_limits l = upstream_limits_make(&p, 0);
    upstream_end busy = end_of(UPSTREAM_BUSY, 0, 1000);
    upstream_limits_began(&l, &p, 1);
    upstream_limits_ended(&l, &p, 1, &busy, 0);
    int64_t now = CLOCK_SECOND;
    assert_int_equal(upstream_limits_open_at(&l, &p, now), now);
    upstream_limits_began(&l, &p, 1);
    assert_int_equal(upstream_limits_open_at(&l, &p, now), INT64_MAX);
    upstream_limits_answered(&l); // its first content
    assert_int_equal(upstream_limits_open_at(&l, &p, now), now);
    upstream_limits_began(&l, &p, 1);
    assert_int_equal(upstream_limits_open_at(&l, &p, now), now);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_no_limits),
        cmocka_unit_test(test_requests_of_a_minute),
        cmocka_unit_test(test_tells_when),
        cmocka_unit_test(test_tokens_are_settled),
        cmocka_unit_test(test_retry_after_is_kept),
        cmocka_unit_test(test_holds_back_when_headers_say_so),
        cmocka_unit_test(test_backs_off_by_itself),
        cmocka_unit_test(test_one_goes_first_after_a_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
