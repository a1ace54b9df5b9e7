#include "coordinator/upstream/call_clocks.h"

#include <assert.h>
#include <stdio.h>

#include "common/base/clock.h"

call_clocks call_clocks_start(const upstream_policy *limits, int64_t deadline_ns, int64_t now_ns) {
    return (call_clocks){.limits = limits,
                         .start_ns = now_ns,
                         .deadline_ns = deadline_ns,
                         .first_content_ns = -1,
                         .progress_ns = now_ns};
}

void call_clocks_connected(call_clocks *c) {
    c->connected = true;
}

static void begin_window(call_clocks *c, int32_t tokens, int64_t now_ns) {
    c->window_ns = now_ns;
    c->window_tokens = tokens;
}

void call_clocks_progress(call_clocks *c, bool content, int32_t tokens, int64_t now_ns) {
    c->progress_ns = now_ns;
    if (!content || c->first_content_ns >= 0) return;
    c->first_content_ns = now_ns;
    begin_window(c, tokens, now_ns);
}

void call_clocks_hold(call_clocks *c) {
    c->held = true;
}

void call_clocks_release(call_clocks *c, int32_t tokens, int64_t now_ns) {
    if (!c->held) return;
    c->held = false;
    c->progress_ns = now_ns;
    begin_window(c, tokens, now_ns);
}

// When each clock runs out, as things stand; INT64_MAX: it does not run.
static int64_t due(const call_clocks *c, call_clock which) {
    const upstream_policy *u = c->limits;
    bool flows = c->first_content_ns >= 0 && !c->held;
    int64_t from = c->start_ns, lasts = 0;
    switch (which) {
    case CALL_CLOCK_CONNECT:
        lasts = c->connected ? 0 : u->connect_ns;
        break;
    case CALL_CLOCK_FIRST_CONTENT:
        lasts = c->first_content_ns >= 0 ? 0 : u->first_content_ns;
        break;
    case CALL_CLOCK_BETWEEN_CHUNKS:
        from = c->progress_ns;
        lasts = flows ? u->between_chunks_ns : 0;
        break;
    case CALL_CLOCK_MIN_RATE:
        from = c->window_ns;
        lasts = flows && u->min_rate > 0 ? u->rate_window_ns : 0;
        break;
    case CALL_CLOCK_TOTAL:
        lasts = u->total_ns;
        break;
    case CALL_CLOCK_DEADLINE:
        return c->deadline_ns;
    case CALL_CLOCK_NONE:
        break;
    }
    return lasts > 0 ? from + lasts : INT64_MAX;
}

static bool is_slow(const call_clocks *c, int32_t tokens, int64_t now_ns) {
    double seconds = (double)(now_ns - c->window_ns) / (double)CLOCK_SECOND;
    return (double)(tokens - c->window_tokens) < c->limits->min_rate * seconds;
}

call_clock call_clocks_check(call_clocks *c, int32_t tokens, int64_t now_ns) {
    // The request's own deadline first: when it is over, the others say nothing about the target.
    if (now_ns >= c->deadline_ns) return CALL_CLOCK_DEADLINE;
    for (int which = CALL_CLOCK_CONNECT; which <= CALL_CLOCK_TOTAL; which++) {
        if (now_ns < due(c, (call_clock)which)) continue;
        if (which != CALL_CLOCK_MIN_RATE || is_slow(c, tokens, now_ns)) return (call_clock)which;
        begin_window(c, tokens, now_ns);
    }
    return CALL_CLOCK_NONE;
}

int64_t call_clocks_next(const call_clocks *c) {
    int64_t next = c->deadline_ns;
    for (int which = CALL_CLOCK_CONNECT; which <= CALL_CLOCK_TOTAL; which++)
        if (due(c, (call_clock)which) < next) next = due(c, (call_clock)which);
    return next;
}

void call_clocks_explain(const call_clocks *c, call_clock which, char *out, size_t size) {
    const upstream_policy *u = c->limits;
    double s = (double)CLOCK_SECOND;
    switch (which) {
    case CALL_CLOCK_CONNECT:
        snprintf(out, size, "no connection within %g s (clock: connect)",
                 (double)u->connect_ns / s);
        return;
    case CALL_CLOCK_FIRST_CONTENT:
        snprintf(out, size, "no content within %g s (clock: first content)",
                 (double)u->first_content_ns / s);
        return;
    case CALL_CLOCK_BETWEEN_CHUNKS:
        snprintf(out, size, "nothing more for %g s (clock: between chunks)",
                 (double)u->between_chunks_ns / s);
        return;
    case CALL_CLOCK_MIN_RATE:
        snprintf(out, size, "less than %g tokens/s over %g s (clock: minimum rate)", u->min_rate,
                 (double)u->rate_window_ns / s);
        return;
    case CALL_CLOCK_TOTAL:
        snprintf(out, size, "not complete within %g s (clock: total)", (double)u->total_ns / s);
        return;
    case CALL_CLOCK_DEADLINE:
        snprintf(out, size, "the request's deadline passed");
        return;
    case CALL_CLOCK_NONE:
        break;
    }
    assert(!"a clock that ran out");
}
