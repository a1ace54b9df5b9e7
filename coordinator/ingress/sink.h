// sink: how answers get from the core to whoever asked, whatever the protocol.
//
// The core holds one `sink` for each of its requests and says pieces, then one end; it never waits.
// The edge (HTTP JSON, SSE, gRPC, later a batch row) holds one `sink_stream`: it merges the sinks
// of what the client sees as one request (several prompts in one body), keeps what was not yet sent
// in a bounded buffer, and wakes the edge's own thread. A client that does not read fills that
// buffer, is cancelled, and slows nobody.
//
// All functions are thread-safe. A stream and its sinks are freed when the edge has released the
// stream and every sink has had its end.
#ifndef OCTANT_COORDINATOR_INGRESS_SINK_H
#define OCTANT_COORDINATOR_INGRESS_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "coordinator/answer.h"

typedef struct sink sink;
typedef struct sink_stream sink_stream;
struct metrics; // coordinator/observe/metrics.h

enum {
    SINK_STREAM_BYTES = 256 << 10, // default limit of what waits for a streaming client
    SINK_COLLECT_BYTES = 64 << 20, // limit for an answer that is collected and sent whole
    SINK_PER_STREAM_MAX = 128,     // prompts of one request
    SINK_ANSWERS_MAX = 128,        // prompts times n
};

// ---- the core's side ----

// Copies the piece; piece->index counts within this sink's n answers. False: nobody listens any
// more (client gone, or it does not read): cancel the request; its end must still be said. After an
// end: a bug.
bool sink_piece(sink *s, const answer_piece *piece);

// The one end. The sink must not be used afterwards.
void sink_end(sink *s, const answer_end *end);

// ---- the edge's side ----

// What a stream calls, under its lock, from whatever thread makes an event: no call back into the
// stream from here.
typedef struct sink_edge {
    void *owner;
    void (*wake)(void *owner); // the edge slept (sink_stream_sleep) and something is there now
    void (*cut)(void *owner); // over the limit: the stream is cancelled. Stop what blocks (shutdown
                              // of the socket). NULL: only wake
} sink_edge;

typedef struct sink_stream_options {
    int sinks;    // 1 to SINK_PER_STREAM_MAX
    int answers;  // n, of each sink; sinks * answers <= SINK_ANSWERS_MAX
    size_t limit; // bytes that may wait: SINK_STREAM_BYTES or SINK_COLLECT_BYTES
    bool collect; // wake at the end only
    sink_edge edge;
    struct metrics *metrics; // NULL: count nothing
} sink_stream_options;

// NULL when memory is short.
sink_stream *sink_stream_create(const sink_stream_options *options);

// Sink i. Its answers have the stream's indexes i * answers .. (i + 1) * answers - 1. Every sink
// must get an end: one whose request never reached the core is ended by whoever failed to send it.
sink *sink_stream_sink(sink_stream *s, int i);

// A text that comes before everything else of each answer of sink i (echo); copied. Sent with the
// first piece, so that a refusal stays a refusal. False when memory is short. Call before the
// request is sent.
bool sink_stream_preface(sink_stream *s, int i, const char *text, size_t size);

typedef enum sink_event_kind { SINK_PIECE, SINK_END } sink_event_kind;
typedef struct sink_event {
    sink_event_kind kind;
    answer_piece piece; // index counts within the stream; arrays point into the taken bytes
    answer_tool tool;   // what piece.tool points to
    answer_end end;     // of the whole stream: all sinks ended (usage added up), or the first error
} sink_event;

// Swaps everything that waits into *into (emptied before); false when nothing waits.
bool sink_stream_take(sink_stream *s, buf *into);

// Walks taken bytes: *at starts at 0. False at their end. SINK_END is the last event of a stream
// and comes exactly once.
bool sink_event_next(const buf *taken, size_t *at, sink_event *out);

// If nothing waits: arms edge.wake for the next event, calls `suspend(owner)` (may be NULL) under
// the lock, and returns true. Else false: take first.
bool sink_stream_sleep(sink_stream *s, void (*suspend)(void *owner));

// Wakes a sleeping edge without an event (deadline, shutdown, client gone).
void sink_stream_wake(sink_stream *s);

// Nobody listens any more: what waits and what comes is dropped, sink_piece says false. The edge is
// not called again.
void sink_stream_cancel(sink_stream *s);
bool sink_stream_is_cancelled(sink_stream *s);

// For deadlines: bytes that wait, and since when the edge has not taken any [ns of the monotonic
// clock].
size_t sink_stream_waiting(sink_stream *s, int64_t *since_ns);

// Cancels and gives up the edge's hold.
void sink_stream_release(sink_stream *s);

#endif
