// Breakers, waits and alarms of upstreams, as /metrics, /status and /health show them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/observe/upstream_view.h"

static const core_upstream_view UPSTREAMS[] = {
    {.name = "frontier",
     .breaker = BREAKER_HALF_OPEN,
     .calls_open = 1,
     .calls = 9,
     .faults = 5,
     .busy = 2,
     .wait_ns = 1500 * CLOCK_MS,
     .reason = "HTTP 500"},
    {.name = "cheap", .disabled = true, .wait_ns = INT64_MAX, .reason = "HTTP 401"}};

static void assert_says(const buf *page, const char *text) {
    if (!strstr(buf_string(page), text)) fail_msg("no '%s' in:\n%s", text, buf_string(page));
}

static void test_shown(void **state) {
    (void)state;
    core_view view = {.upstreams = UPSTREAMS, .upstream_count = 2, .away = 3};
    buf page = buf_make(1 << 16);
    upstream_view_append_metrics(&view, &page);
    assert_says(&page, "octant_requests_away 3\n");
    assert_says(&page, "octant_upstream_breaker{upstream=\"frontier\",state=\"half-open\"} 1\n");
    assert_says(&page, "octant_upstream_breaker{upstream=\"frontier\",state=\"closed\"} 0\n");
    assert_says(&page, "octant_upstream_disabled{upstream=\"cheap\"} 1\n");
    assert_says(&page, "octant_upstream_wait_seconds{upstream=\"frontier\"} 1.500\n");
    assert_says(&page, "octant_upstream_wait_seconds{upstream=\"cheap\"} +Inf\n");
    buf_clear(&page);
    upstream_view_append_json(&view, &page);
    assert_string_equal(
        buf_string(&page),
        "[{\"name\":\"frontier\",\"breaker\":\"half-open\",\"disabled\":false,\"calls_open\":1,"
        "\"calls\":9,\"faults\":5,\"busy\":2,\"wait_ms\":1500,\"reason\":\"HTTP 500\"},"
        "{\"name\":\"cheap\",\"breaker\":\"closed\",\"disabled\":true,\"calls_open\":0,"
        "\"calls\":0,\"faults\":0,\"busy\":0,\"wait_ms\":-1,\"reason\":\"HTTP 401\"}]");
    buf_free(&page);
}

static void test_none(void **state) {
    (void)state;
    core_view view = {.upstream_count = 0};
    buf page = buf_make(1 << 16);
    upstream_view_append_metrics(&view, &page);
    assert_string_equal(buf_string(&page), "");
    upstream_view_append_json(&view, &page);
    assert_string_equal(buf_string(&page), "[]");
    buf_free(&page);
}

static void test_can_serve(void **state) {
    (void)state;
    core_view view = {.upstreams = UPSTREAMS, .upstream_count = 2};
    assert_true(upstream_view_can_serve(&view)); // the half-open one
    view = (core_view){.upstreams = UPSTREAMS + 1, .upstream_count = 1};
    assert_false(upstream_view_can_serve(&view));
    core_upstream_view open = {.name = "x", .breaker = BREAKER_OPEN, .reason = ""};
    view = (core_view){.upstreams = &open, .upstream_count = 1};
    assert_false(upstream_view_can_serve(&view));
    assert_false(upstream_view_can_serve(&(core_view){.upstream_count = 0}));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shown), cmocka_unit_test(test_none),
                                       cmocka_unit_test(test_can_serve)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
