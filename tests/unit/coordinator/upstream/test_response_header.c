#include "coordinator/upstream/response_header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { NOW = 1767225600 }; // 2026-01-01T00:00:00Z, a Thursday

static response_header read_lines(const char *lines) {
    response_header h = response_header_make();
    for (const char *at = lines; *at;) {
        size_t size = strcspn(at, "\n");
        if (at[size]) size++;
        response_header_line(&h, at, size, NOW);
        at += size;
    }
    return h;
}

static void test_durations(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } CASES[] = {{"90", 90000},
                 {"1.5s", 1500},
                 {"6m0s", 360000},
                 {"120ms", 120},
                 {"1h2m3s", 3723000},
                 {"0", 0},
                 {"-1", 0},
                 {"0s", 0},
                 {"", 0},
                 {"soon", 0},
                 {"5 parsecs", 0},
                 {"0.0001s", 1},
                 {"nan", 0},
                 {"inf", 0},
                 {"1e30", RETRY_AFTER_MAX_MS},
                 {"99999999999", RETRY_AFTER_MAX_MS}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        if (duration_parse_ms(CASES[i].text, strlen(CASES[i].text)) != CASES[i].ms)
            fail_msg("%s: %lld", CASES[i].text,
                     (long long)duration_parse_ms(CASES[i].text, strlen(CASES[i].text)));
}

static void test_retry_after(void **state) {
    (void)state;
    static const struct {
        const char *lines;
        int64_t ms;
    } CASES[] = {
        {"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\n", 7000},
        {"HTTP/1.1 429 Too Many\r\nretry-after: Thu, 01 Jan 2026 00:00:30 GMT\r\n", 30000},
        {"HTTP/1.1 429 Too Many\r\nretry-after: Wed, 31 Dec 2025 00:00:30 GMT\r\n", 0},
        {"HTTP/1.1 429 X\r\nretry-after-ms: 250\r\nretry-after: 1\r\n", 250},
        {"HTTP/1.1 429 X\r\nretry-after: 1\r\nretry-after-ms: 250\r\n", 250},
        {"HTTP/1.1 429 X\r\nretry-after: -1\r\nretry-after-ms: 0\r\n", 0}, // Azure
        {"HTTP/1.1 429 X\r\nretry-after: 0\r\n", 0},
        {"HTTP/1.1 429 X\r\nretry-after: tomorrow\r\n", 0},
        {"HTTP/1.1 429 X\r\nretry-after: 9999999\r\n", RETRY_AFTER_MAX_MS},
        // Not told, but a limit of which nothing is left is reset then.
        {"HTTP/1.1 429 X\r\nx-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: "
         "2s\r\nx-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1m\r\n",
         60000},
        {"HTTP/1.1 429 X\r\nx-ratelimit-remaining-requests: 5\r\nx-ratelimit-reset-requests: "
         "2s\r\n",
         0},
        {"HTTP/1.1 429 X\r\nx-ratelimit-remaining-requests: 0\r\n", 0},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        response_header h = read_lines(CASES[i].lines);
        assert_int_equal(h.http_status, 429);
        if (response_header_wait_ms(&h) != CASES[i].ms)
            fail_msg("%s: %lld", CASES[i].lines, (long long)response_header_wait_ms(&h));
    }
}

static void test_limits(void **state) {
    (void)state;
    response_header h = read_lines(
        "HTTP/2 200\r\nX-RateLimit-Limit-Requests: 60\r\nx-ratelimit-remaining-requests: "
        "59\r\nx-ratelimit-reset-requests: 1s\r\nx-ratelimit-limit-tokens: "
        "150000\r\nx-ratelimit-remaining-tokens: 149984\r\nx-ratelimit-reset-tokens: "
        "6m0s\r\nContent-Type: text/event-stream\r\n");
    codec_limits l = response_header_limits(&h);
    assert_true(h.is_events && h.has_type);
    assert_int_equal(l.requests_limit, 60);
    assert_int_equal(l.requests_remaining, 59);
    assert_int_equal(l.requests_reset_ms, 1000);
    assert_int_equal(l.tokens_limit, 150000);
    assert_int_equal(l.tokens_remaining, 149984);
    assert_int_equal(l.tokens_reset_ms, 360000);
    h = read_lines("HTTP/2 200\r\nanthropic-ratelimit-requests-remaining: 9\r\n"
                   "anthropic-ratelimit-requests-reset: 2026-01-01T01:00:10+01:00\r\n"
                   "anthropic-ratelimit-tokens-remaining: 500\r\n"
                   "anthropic-ratelimit-input-tokens-limit: 1000\r\n"
                   "anthropic-ratelimit-input-tokens-remaining: 20\r\n"
                   "anthropic-ratelimit-input-tokens-reset: 2026-01-01T00:00:05.5Z\r\n"
                   "anthropic-ratelimit-output-tokens-remaining: 90\r\n");
    l = response_header_limits(&h);
    assert_int_equal(l.requests_remaining, 9);
    assert_int_equal(l.requests_reset_ms, 10000);
    assert_int_equal(l.tokens_remaining, 20); // the least
    assert_int_equal(l.tokens_limit, 1000);
    assert_int_equal(l.tokens_reset_ms, 5000);
    h = read_lines("HTTP/2 200\r\nx-ratelimit-limit-requests: -1\r\n"
                   "x-ratelimit-remaining-requests: -1\r\nx-ratelimit-limit-tokens: 0\r\n"
                   "x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 0\r\n");
    l = response_header_limits(&h);
    assert_true(l.requests_limit == -1 && l.requests_remaining == -1 && l.tokens_limit == -1 &&
                l.tokens_remaining == -1 && l.tokens_reset_ms == -1);
}

static void test_status_lines(void **state) {
    (void)state;
    static const struct {
        const char *line;
        int status;
    } CASES[] = {{"HTTP/1.1 200 OK", 200}, {"HTTP/2 529 ", 529}, {"HTTP/3 404", 404},
                 {"HTTP/1.1", 0},          {"HTTP/1.1 2x0", 0},  {"HTTP/1.1 20", 0}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_int_equal(read_lines(CASES[i].line).http_status, CASES[i].status);
    response_header h = read_lines("HTTP/1.1 103 Early\r\nContent-Type: a\r\nHTTP/1.1 200 OK\r\n");
    assert_false(h.has_type);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_status_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
