#include "coordinator/core/upstream_limits.h"

#include <assert.h>
#include <math.h>

#include "common/base/clock.h"

enum {
    BACKOFF_FIRST_MS = 500, // a busy API that does not say for how long; doubles with each time
    BACKOFF_MAX_MS = 30000,
    RETRY_MAX_MS = 3600 * 1000, // what an API may ask for
};
static const double MINUTE = 60e9; // [ns]

upstream_limits upstream_limits_make(const upstream_policy *p, int64_t now_ns) {
    return (upstream_limits){.requests = p->requests_per_minute,
                             .tokens = (double)p->tokens_per_minute,
                             .filled_ns = now_ns};
}

static void fill(upstream_limits *l, const upstream_policy *p, int64_t now_ns) {
    double minutes = (double)(now_ns - l->filled_ns) / MINUTE;
    l->requests = fmin(l->requests + minutes * p->requests_per_minute, p->requests_per_minute);
    l->tokens =
        fmin(l->tokens + minutes * (double)p->tokens_per_minute, (double)p->tokens_per_minute);
    l->filled_ns = now_ns;
}

static int64_t later(int64_t a, int64_t b) {
    return a > b ? a : b;
}

int64_t upstream_limits_open_at(upstream_limits *l, const upstream_policy *p, int64_t now_ns) {
    fill(l, p, now_ns);
    if (p->concurrency > 0 && l->open >= p->concurrency) return INT64_MAX;
    if (l->trying) return INT64_MAX;
    int64_t at = later(now_ns, l->retry_ns);
    if (p->requests_per_minute > 0 && l->requests < 1)
        at = later(at, now_ns + 1 + (int64_t)((1 - l->requests) / p->requests_per_minute * MINUTE));
    if (p->tokens_per_minute > 0 && l->tokens <= 0)
        at = later(at,
                   now_ns + 1 + (int64_t)((1 - l->tokens) / (double)p->tokens_per_minute * MINUTE));
    return at;
}

void upstream_limits_began(upstream_limits *l, const upstream_policy *p, int32_t estimate) {
    l->open++;
    l->trying = l->busy_in_a_row > 0;
    if (p->requests_per_minute > 0) l->requests -= 1;
    if (p->tokens_per_minute > 0) l->tokens -= estimate;
}

void upstream_limits_answered(upstream_limits *l) {
    l->busy_in_a_row = 0;
    l->trying = false;
}

static int64_t back_off_ms(const upstream_limits *l) {
    int shift = l->busy_in_a_row < 6 ? l->busy_in_a_row : 6;
    int64_t ms = (int64_t)BACKOFF_FIRST_MS << shift;
    return ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
}

void upstream_limits_ended(upstream_limits *l, const upstream_policy *p, int32_t estimate,
                           const upstream_end *end, int64_t now_ns) {
    assert(l->open > 0);
    l->open--;
    l->trying = false;
    fill(l, p, now_ns);
    if (p->tokens_per_minute > 0)
        l->tokens += estimate - (double)end->usage.input_tokens - (double)end->usage.output_tokens;
    if (end->hold_ms > 0) {
        int64_t ms = end->hold_ms < RETRY_MAX_MS ? end->hold_ms : RETRY_MAX_MS;
        l->retry_ns = later(l->retry_ns, now_ns + ms * CLOCK_MS);
    }
    if (end->outcome == UPSTREAM_BUSY) {
        int64_t ms = end->retry_after_ms > 0 ? end->retry_after_ms : back_off_ms(l);
        if (ms > RETRY_MAX_MS) ms = RETRY_MAX_MS;
        l->retry_ns = later(l->retry_ns, now_ns + ms * CLOCK_MS);
        l->busy_in_a_row++;
    } else if (end->outcome == UPSTREAM_OK) {
        upstream_limits_answered(l);
    }
}
