#include "coordinator/observe/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/observe/core_metrics.h"

static void expect(const buf *page, const char *line) {
    if (!strstr(page->data, line)) fail_msg("no '%s' in:\n%s", line, page->data);
}

static void test_counts(void **state) {
    (void)state;
    metrics *m = metrics_create();
    metrics_first_token(m, 3 * CLOCK_MS);
    metrics_first_token(m, 700 * CLOCK_SECOND); // above all bounds
    metrics_next_tokens(m, 40 * CLOCK_MS, 4);   // four tokens, 10 ms each
    metrics_request_end(
        m, &(answer_end){.usage = {.prompt_tokens = 5, .completion_tokens = 6, .cached_tokens = 2}},
        CLOCK_SECOND);
    metrics_request_end(m, &(answer_end){.why = status_error(STATUS_UNAVAILABLE, "x")},
                        CLOCK_SECOND);
    metrics_response(m, METRICS_CHAT, 429);
    metrics_streams(m, 2);
    metrics_streams(m, -1);
    buf page = buf_make(1 << 20);
    metrics_append(m, &page);
    expect(&page, "octant_time_to_first_token_seconds_bucket{le=\"0.0025\"} 0\n");
    expect(&page, "octant_time_to_first_token_seconds_bucket{le=\"0.005\"} 1\n");
    expect(&page, "octant_time_to_first_token_seconds_bucket{le=\"600\"} 1\n");
    expect(&page, "octant_time_to_first_token_seconds_bucket{le=\"+Inf\"} 2\n");
    expect(&page, "octant_time_to_first_token_seconds_sum 700.003000\n");
    expect(&page, "octant_inter_token_seconds_bucket{le=\"0.01\"} 4\n");
    expect(&page, "octant_inter_token_seconds_sum 0.040000\n");
    expect(&page, "octant_requests_total{code=\"OK\"} 1\n");
    expect(&page, "octant_requests_total{code=\"UNAVAILABLE\"} 1\n");
    expect(&page, "octant_cached_tokens_total 2\n");
    expect(&page, "octant_http_responses_total{endpoint=\"chat\",status=\"429\"} 1\n");
    expect(&page, "octant_open_streams 1\n");
    assert_null(strstr(page.data, "process_resident_memory_bytes 0\n"));
    assert_int_equal(metrics_get_totals(m).completion_tokens, 6);
    buf_free(&page);
    metrics_destroy(m);
}

static void test_groups(void **state) {
    (void)state;
    core_rank_view rank = {.rank = 3,
                           .host = "h\"1",
                           .phase = CLUSTER_STEP,
                           .heartbeat_age_ns = 250 * CLOCK_MS,
                           .memory_bytes = 77};
    core_group_view group = {.id = "g1",
                             .model = "a\"b",
                             .backend = "cpu",
                             .reason = "",
                             .state = GROUP_READY,
                             .ranks_count = 1,
                             .ranks = &rank,
                             .kv_blocks_total = 10,
                             .kv_blocks_used = 4};
    core_view view = {
        .group_count = 1, .groups = &group, .queued = 2, .counters = {.preemptions = 8}};
    buf page = buf_make(1 << 20);
    core_metrics_append(&view, &page);
    expect(&page, "octant_requests_queued 2\n");
    expect(&page, "octant_preemptions_total 8\n");
    expect(&page, "octant_group_state{group=\"g1\",model=\"a\\\"b\",state=\"READY\"} 1\n");
    expect(&page, "octant_group_state{group=\"g1\",model=\"a\\\"b\",state=\"LOST\"} 0\n");
    expect(&page, "octant_kv_blocks_used{group=\"g1\",model=\"a\\\"b\"} 4\n");
    expect(&page, "rank=\"3\"} 0.250\n");
    buf_clear(&page);
    core_status_append(&view, &(metrics_totals){.requests = 1}, &page);
    expect(&page, "\"host\":\"h\\\"1\"");
    expect(&page, "\"kv_blocks_used\":4");
    buf_free(&page);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts),
                                       cmocka_unit_test(test_groups)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
