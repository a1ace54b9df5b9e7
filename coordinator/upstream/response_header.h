// response_header: what the header of an upstream's response says that a caller acts on: status,
// kind of body, how long to wait, what is left of its limits. Pure.
//
// Sources: RFC 9110 (Retry-After), OpenAI's x-ratelimit-*, Anthropic's anthropic-ratelimit-* (reset
// in RFC 3339). Azure writes -1 and 0 where it does not know (openai-dotnet#838): both mean "not
// told".
#ifndef OCTANT_COORDINATOR_UPSTREAM_RESPONSE_HEADER_H
#define OCTANT_COORDINATOR_UPSTREAM_RESPONSE_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/upstream/codec.h"

enum { RETRY_AFTER_MAX_MS = 24 * 60 * 60 * 1000 }; // longer waits count as so long

typedef enum limit_kind {
    LIMIT_REQUESTS,
    LIMIT_TOKENS,
    LIMIT_INPUT_TOKENS,
    LIMIT_OUTPUT_TOKENS,
    LIMIT_KINDS,
} limit_kind;

typedef struct limit_seen {
    int64_t limit, remaining, reset_ms; // -1: not told
} limit_seen;

typedef struct response_header {
    int http_status;        // 0: none came
    bool has_type;          // a content type was told
    bool is_events;         // ... and it is text/event-stream
    int64_t retry_after_ms; // 0: not told
    limit_seen limits[LIMIT_KINDS];
} response_header;

response_header response_header_make(void);

// One line, with or without its CR LF. A status line starts anew. `unix_s`: the calendar now.
void response_header_line(response_header *h, const char *line, size_t size, int64_t unix_s);

// With several token limits: the one with the least left.
codec_limits response_header_limits(const response_header *h);

// How long to wait before the next request: what Retry-After says, else when a limit of which
// nothing is left is reset. 0: not told.
int64_t response_header_wait_ms(const response_header *h);

// "90", "1.5s", "6m0s", "120ms", "1h2m3s" as milliseconds, at most RETRY_AFTER_MAX_MS; 0: it is
// none, or not above zero. A number without unit is seconds.
int64_t duration_parse_ms(const char *text, size_t size);

#endif
