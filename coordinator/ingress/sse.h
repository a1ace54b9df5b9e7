// sse: server-sent events (WHATWG HTML, section 9.2) written into a buf: "data: ...\n\n". The data
// is one line of JSON.
#ifndef OCTANT_COORDINATOR_INGRESS_SSE_H
#define OCTANT_COORDINATOR_INGRESS_SSE_H

#include "common/base/buf.h"

// Between begin and end the caller appends the data, which holds no newline (JSON built by
// json_append_* has none).
static inline void sse_begin(buf *out) {
    buf_append_string(out, "data: ");
}
static inline void sse_end(buf *out) {
    buf_append_string(out, "\n\n");
}

// What ends OpenAI's streams.
static inline void sse_done(buf *out) {
    buf_append_string(out, "data: [DONE]\n\n");
}

// A comment: clients skip it, proxies see life, a dead peer is noticed.
static inline void sse_keep_alive(buf *out) {
    buf_append_string(out, ": waiting\n\n");
}

#endif
