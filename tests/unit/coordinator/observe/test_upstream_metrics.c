// What /metrics says about upstreams after a few calls: each outcome, tokens, costs, times.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/observe/upstream_metrics.h"

static const upstream_policy TARGETS[] = {{.name = "frontier"}, {.name = "che\"ap"}};
static const upstreams_policy POLICY = {.items = TARGETS, .count = 2};

static void assert_says(const buf *page, const char *line) {
    if (strstr(buf_string(page), line)) return;
    print_error("no line '%s' in:\n%s\n", line, buf_string(page));
    fail();
}

static void test_counts(void **state) {
    (void)state;
    upstream_metrics *m = upstream_metrics_create(&POLICY);
    upstream_end good = {.outcome = UPSTREAM_OK,
                         .first_content_ns = 20 * CLOCK_MS,
                         .total_ns = 2 * CLOCK_SECOND,
                         .usage = {.input_tokens = 100,
                                   .cached_tokens = 60,
                                   .written_tokens = 7,
                                   .output_tokens = 30,
                                   .known = true},
                         .cost_microdollars = 1500};
    upstream_end fault = {.outcome = UPSTREAM_FAULT,
                          .first_content_ns = -1,
                          .total_ns = 5 * CLOCK_SECOND,
                          .usage = {.input_tokens = 100},
                          .cost_microdollars = -1};
    for (int i = 0; i < 3; i++) upstream_metrics_begin(m, 0);
    upstream_metrics_end(m, 0, &good);
    upstream_metrics_end(m, 0, &fault);
    upstream_metrics_begin(m, 1);
    upstream_metrics_end(m, 1, &good);
    buf page = buf_make(1 << 20);
    upstream_metrics_append(m, &page);
    assert_false(page.failed);
    assert_says(&page, "octant_upstream_calls_total{upstream=\"frontier\",outcome=\"ok\"} 1\n");
    assert_says(&page, "octant_upstream_calls_total{upstream=\"frontier\",outcome=\"fault\"} 1\n");
    assert_says(&page, "octant_upstream_calls_total{upstream=\"frontier\",outcome=\"busy\"} 0\n");
    assert_says(&page, "octant_upstream_calls_total{upstream=\"che\\\"ap\",outcome=\"ok\"} 1\n");
    assert_says(&page, "octant_upstream_calls_open{upstream=\"frontier\"} 1\n");
    assert_says(&page, "octant_upstream_calls_open{upstream=\"che\\\"ap\"} 0\n");
    assert_says(&page, "octant_upstream_tokens_total{upstream=\"frontier\",kind=\"input\"} 200\n");
    assert_says(&page, "octant_upstream_tokens_total{upstream=\"frontier\",kind=\"cached\"} 60\n");
    assert_says(&page, "octant_upstream_tokens_total{upstream=\"frontier\",kind=\"written\"} 7\n");
    assert_says(&page, "octant_upstream_tokens_total{upstream=\"frontier\",kind=\"output\"} 30\n");
    assert_says(&page, "octant_upstream_usage_estimated_total{upstream=\"frontier\"} 1\n");
    assert_says(&page, "octant_upstream_unpriced_total{upstream=\"frontier\"} 1\n");
    assert_says(&page, "octant_upstream_cost_dollars_total{upstream=\"frontier\"} 0.001500\n");
    assert_says(&page, "octant_upstream_first_content_seconds_bucket{upstream=\"frontier\","
                       "le=\"0.025\"} 1\n");
    assert_says(&page, "octant_upstream_first_content_seconds_bucket{upstream=\"frontier\","
                       "le=\"0.01\"} 0\n");
    assert_says(&page, "octant_upstream_first_content_seconds_count{upstream=\"frontier\"} 1\n");
    assert_says(&page, "octant_upstream_call_seconds_sum{upstream=\"frontier\"} 2.000000\n");
    buf_free(&page);
    upstream_metrics_destroy(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
