// upstream_call: the words between the core and the upstreams' edge. The core says
// CORE_CALL_UPSTREAM (a call of one target for one request) and CORE_CANCEL_UPSTREAM; the edge
// answers with events about that call: content, then exactly one end, always, within the target's
// clocks.
#ifndef OCTANT_COORDINATOR_CORE_UPSTREAM_CALL_H
#define OCTANT_COORDINATOR_CORE_UPSTREAM_CALL_H

#include "coordinator/answer.h"
#include "coordinator/core/policy.h"

// How a call relates to what the client has already.
typedef enum upstream_mode {
    UPSTREAM_FRESH,
    UPSTREAM_PREFILL,   // the partial answer is the last assistant message
    UPSTREAM_USER_TURN, // the partial answer as assistant message, then a user's "go on"
} upstream_mode;

// How a call ended, in the breaker's words.
typedef enum upstream_outcome {
    UPSTREAM_OK,
    UPSTREAM_FAULT,     // refused, reset, timed out, 5xx, nonsense: the breaker counts it
    UPSTREAM_BUSY,      // 429, 503, 529: back-pressure; neutral, waits retry_after
    UPSTREAM_CLIENT,    // the request itself was refused (4xx): neutral; no other target is tried
                        // unless `other_target`
    UPSTREAM_ACCOUNT,   // 401, 402, 403, spend limits: the target is disabled, an alarm is raised
    UPSTREAM_CANCELLED, // by us
} upstream_outcome;
const char *upstream_outcome_name(upstream_outcome o);

typedef struct upstream_usage {
    int32_t input_tokens;   // all of the prompt, with cached ones
    int32_t cached_tokens;  // of them, read from a cache
    int32_t written_tokens; // of them, written to one
    int32_t output_tokens;  // with reasoning
    bool known;             // as the API said; false: estimated from bytes
} upstream_usage;

// From the edge: something came. Text is whole UTF-8 characters.
typedef struct upstream_content {
    const char *text; // may be NULL
    size_t size;
    const answer_tool *tool; // or a part of a tool call
} upstream_content;

// From the edge: the one end of a call.
typedef struct upstream_end {
    upstream_outcome outcome;
    answer_finish finish; // OK: why it ended
    bool other_target; // CLIENT: this target cannot (prefill refused, too long for it), another may
    bool prefill_refused;   // the model does not take a last assistant message: a user turn may do
    int http_status;        // 0: none came
    int64_t retry_after_ms; // 0: not told
    int64_t hold_ms;        // by its limits' headers a next call would hear "busy" before; 0: go on
    int64_t first_content_ns, total_ns; // from the start of the call; -1: none came
    upstream_usage usage;
    int64_t cost_microdollars; // of this call by the price file; -1: no price known
    char reason[200];          // one line, no text of the request, no key
} upstream_end;

#endif
