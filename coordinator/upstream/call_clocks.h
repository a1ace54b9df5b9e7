// call_clocks: when has one call taken too long, and by which of its target's clocks. Pure: times
// come in, a verdict and the next time to look go out.
//
//   connect         from the start to an open connection, name lookup and TLS included
//   first content   from the start to the first content (codec.h: text or a tool call)
//   between chunks  after it, between two signs that the model goes on; pings are none
//   minimum rate    after it, output tokens per second over windows that follow one another: a
//                   stream that drips is found within two of them
//   total           from the start
//   deadline        the request's own
//
// While our side holds a transfer back (the core's queue is full), between chunks and minimum rate
// stand still: that is not the upstream's fault. A clock of 0 is off; the deadline is always there.
#ifndef OCTANT_COORDINATOR_UPSTREAM_CALL_CLOCKS_H
#define OCTANT_COORDINATOR_UPSTREAM_CALL_CLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/core/policy.h"

typedef enum call_clock {
    CALL_CLOCK_NONE,
    CALL_CLOCK_CONNECT,
    CALL_CLOCK_FIRST_CONTENT,
    CALL_CLOCK_BETWEEN_CHUNKS,
    CALL_CLOCK_MIN_RATE,
    CALL_CLOCK_TOTAL,
    CALL_CLOCK_DEADLINE,
} call_clock;

typedef struct call_clocks {
    const upstream_policy *limits; // outlives them
    int64_t start_ns, deadline_ns;
    int64_t first_content_ns; // -1: not yet
    int64_t progress_ns;      // of the last sign of progress
    int64_t window_ns;        // when the running window of the rate began
    int32_t window_tokens;    // output tokens then
    bool connected, held;
} call_clocks;

call_clocks call_clocks_start(const upstream_policy *limits, int64_t deadline_ns, int64_t now_ns);
void call_clocks_connected(call_clocks *c);
// The model went on; `content`: what it said is content, `tokens` of output so far.
void call_clocks_progress(call_clocks *c, bool content, int32_t tokens, int64_t now_ns);
void call_clocks_hold(call_clocks *c);
void call_clocks_release(call_clocks *c, int32_t tokens, int64_t now_ns);

// Which clock has run out. Begins a new window of the rate where one ended well.
call_clock call_clocks_check(call_clocks *c, int32_t tokens, int64_t now_ns);
// When to check next, at the latest.
int64_t call_clocks_next(const call_clocks *c);

// What ran out, in words: "no content within 20 s (first-content)". `out` has room for `size`.
void call_clocks_explain(const call_clocks *c, call_clock which, char *out, size_t size);

#endif
