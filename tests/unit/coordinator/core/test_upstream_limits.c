// When an upstream may be called again: by the operator's limits, by what a busy API asks for, and
// by what the headers of a good answer say.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/core/upstream_limits.h"

static const int64_t NOW = 1000 * CLOCK_SECOND;
static const upstream_policy NO_LIMITS = {.name = "x"};

static int64_t wait_after(const upstream_end *end) {
    upstream_limits l = upstream_limits_make(&NO_LIMITS, NOW);
    upstream_limits_began(&l, &NO_LIMITS, 100);
    upstream_limits_ended(&l, &NO_LIMITS, 100, end, NOW);
    return upstream_limits_open_at(&l, &NO_LIMITS, NOW) - NOW;
}

static void test_what_the_api_says(void **state) {
    (void)state;
    assert_int_equal(wait_after(&(upstream_end){.outcome = UPSTREAM_OK}), 0);
    assert_int_equal(wait_after(&(upstream_end){.outcome = UPSTREAM_OK, .hold_ms = 1500}),
                     1500 * CLOCK_MS);
    upstream_end busy = {.outcome = UPSTREAM_BUSY, .retry_after_ms = 7000, .hold_ms = 1500};
    assert_int_equal(wait_after(&busy), 7000 * CLOCK_MS);
}

static void test_concurrency(void **state) {
    (void)state;
    const upstream_policy two = {.name = "x", .concurrency = 2};
    upstream_limits l = upstream_limits_make(&two, NOW);
    upstream_limits_began(&l, &two, 1);
    assert_int_equal(upstream_limits_open_at(&l, &two, NOW), NOW);
    upstream_limits_began(&l, &two, 1);
    assert_int_equal(upstream_limits_open_at(&l, &two, NOW), INT64_MAX);
    upstream_limits_ended(&l, &two, 1, &(upstream_end){.outcome = UPSTREAM_OK}, NOW);
    assert_int_equal(upstream_limits_open_at(&l, &two, NOW), NOW);
}

static void test_requests_of_a_minute(void **state) {
    (void)state;
    const upstream_policy sixty = {.name = "x", .requests_per_minute = 60};
    upstream_limits l = upstream_limits_make(&sixty, NOW);
    for (int i = 0; i < 60; i++) {
        assert_int_equal(upstream_limits_open_at(&l, &sixty, NOW), NOW);
        upstream_limits_began(&l, &sixty, 1);
    }
    int64_t at = upstream_limits_open_at(&l, &sixty, NOW);
    assert_true(at > NOW && at <= NOW + CLOCK_SECOND + 1);
    assert_int_equal(upstream_limits_open_at(&l, &sixty, at), at);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_the_api_says),
                                       cmocka_unit_test(test_concurrency),
                                       cmocka_unit_test(test_requests_of_a_minute)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
