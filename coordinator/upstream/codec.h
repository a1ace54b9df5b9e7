// codec: what the four APIs look like on the wire, and nothing about how bytes travel. A call is
//
//   codec_url, codec_headers, codec_body         what to send; the caller adds its key after
//                                                codec_key_header
//   codec_open                                   a decoder for its response
//   codec_header (each line), codec_feed         as they come; content goes to the caller
//   codec_finish, codec_close                    the call's end, in the breaker's words
//
// Pure: no I/O, no clock (the caller tells calendar time), no thread; one codec belongs to one
// thread at a time. Bytes from outside are bounded and never trusted: whatever an upstream sends, a
// codec ends in one of the outcomes and in bounded memory.
//
// What counts as content is what the client may see: text and tool calls. Roles, ids, pings and
// reasoning are not, so that a call is committed to at its first content (rule 3 of the
// continuation rules). `reason` of an end is in our own words and knows only error types from a
// table: neither the request's text, nor the answer's, nor a key can get into it.
//
// Wire formats: OpenAI Chat Completions and Responses (platform.openai.com/docs/api-reference),
// Anthropic Messages version 2023-06-01 (docs.anthropic.com/en/api/messages-streaming), Gemini
// v1beta streamGenerateContent?alt=sse (ai.google.dev/api/generate-content).
#ifndef OCTANT_COORDINATOR_UPSTREAM_CODEC_H
#define OCTANT_COORDINATOR_UPSTREAM_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/status.h"
#include "coordinator/core/upstream_call.h"
#include "coordinator/upstream/upstream_prompt.h"

enum {
    CODEC_BODY_MAX = 32 << 20,       // of a request [bytes]
    CODEC_URL_MAX = 4096,            // [bytes]
    CODEC_EVENT_MAX = 1 << 20,       // of one event of a stream [bytes]; larger: a fault
    CODEC_ERROR_BODY_MAX = 64 << 10, // of an error's body; what is beyond is not looked at
    CODEC_TOOLS_MAX = 128,           // tool calls of one answer; more: a fault
    CODEC_OUTPUT_DEFAULT = 4096, // max_tokens where the API demands one and neither the request nor
                                 // the policy says any
};

// One call. All of it is borrowed, and only during the function that it is passed to.
typedef struct codec_ask {
    const upstream_policy *target;
    const upstream_prompt *prompt;
    upstream_mode mode;  // an empty `partial` makes it FRESH
    const char *partial; // what the client has so far, valid UTF-8
    size_t partial_size;
    int32_t max_tokens; // of this call (what is left of the prompt's); 0: as the prompt says
    uint64_t call;      // unique in this process: makes ids for tool calls where the API has none
} codec_ask;

// ---- the request: always a POST ----

// The whole URL, into `out` (of limit CODEC_URL_MAX). A query in the policy's base URL
// ("https://host/v1?api-version=x") stays at the end. INVALID_ARGUMENT when it is too long.
status codec_url(const upstream_policy *target, buf *out);

// Header lines without the key; the list ends with NULL.
const char *const *codec_headers(upstream_api api);
// What the key's header line begins with: "Authorization: Bearer ", "x-api-key: ", ...
const char *codec_key_header(upstream_api api);

// The JSON body, into `out` (of limit CODEC_BODY_MAX). FAILED_PRECONDITION: this target cannot
// (it takes no tools, the API has no such parameter): end the call as UPSTREAM_CLIENT with
// other_target. INVALID_ARGUMENT: the prompt is malformed. RESOURCE_EXHAUSTED: too large.
// Messages name fields, never values.
status codec_body(const codec_ask *ask, buf *out);

// ---- the response ----

typedef struct codec codec;

// `request_bytes` (of the body) is what input tokens are estimated from when the API tells none.
// NULL when memory is short.
codec *codec_open(const codec_ask *ask, size_t request_bytes);
void codec_close(codec *c); // NULL is allowed

// One line of the response's header as it came, the status line included (each status line starts
// anew: 1xx responses are forgotten). `unix_s` is the calendar's time now.
void codec_header(codec *c, const char *line, size_t size, int64_t unix_s);

// Where content goes, in order, during codec_feed. `content` is borrowed.
typedef struct codec_sink {
    void *owner;
    void (*content)(void *owner, const upstream_content *content);
} codec_sink;

// Bytes of the response's body, split anywhere. False: the verdict is there (the end event was
// seen, or an error, or nonsense); what follows changes nothing and the transfer may be ended. An
// error's body (status not 200) is true to its limit.
bool codec_feed(codec *c, const char *bytes, size_t size, const codec_sink *sink);

// How often the model said something, reasoning included, pings and comments not: what a clock
// between chunks should look at.
uint64_t codec_progress(const codec *c);
// Of the answer so far, by the API's word or by an estimate: what a minimum rate looks at.
int32_t codec_output_tokens(const codec *c);
int codec_http_status(const codec *c); // 0: none came

// What the headers say about limits. -1: not told (OpenAI-style servers also write -1, and Azure 0
// without a reset, for "unknown": openai-dotnet#838).
typedef struct codec_limits {
    int64_t requests_limit, requests_remaining, requests_reset_ms; // ms from when they came
    int64_t tokens_limit, tokens_remaining, tokens_reset_ms;
} codec_limits;
codec_limits codec_limits_seen(const codec *c);

// The end. `whole`: the transfer ended as HTTP's framing says it should (not cut, not timed out).
// Fills outcome, finish, other_target, prefill_refused, http_status, retry_after_ms, usage and
// reason; times are -1 and cost is -1 for the caller to fill in. A caller with a reason of its own
// (a clock, a cancel, a connection refused) overwrites outcome and reason and keeps the usage.
// Without an end event it is never OK.
void codec_finish(const codec *c, bool whole, upstream_end *out);

#endif
