// rpc_client: a gRPC client in our own terms, over gRPC's C core. Workers reach their coordinator
// with it, the command line and liboctant the public API.
//
// Threads: a channel has one thread of its own, which waits in gRPC. It never calls the caller's
// code: there are no callbacks. Reads block the thread that reads (give it a deadline), sends never
// block. Any thread may call any function; one thread reads a stream at a time. The typical leader
// link: the step loop itself reads plans with rpc_stream_read; while it computes, the next plan is
// already received and waits in the stream's inbox; results go out with rpc_stream_send from the
// same or another thread.
//
// Nothing here forks safely: fork before the first channel is made, or exec.
#ifndef OCTANT_PROTO_RPC_CLIENT_H
#define OCTANT_PROTO_RPC_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/status.h"

typedef struct rpc_channel rpc_channel;
typedef struct rpc_stream rpc_stream;

enum {
    RPC_INBOX_MESSAGES = 8, // received and not yet read, per stream; then the server is held back
    RPC_CLIENT_METADATA_MAX = 8,   // headers of one call
    RPC_CLIENT_OUTBOX = 256 << 20, // bytes that may wait in one stream
    RPC_CLIENT_MESSAGE_MAX = 4 << 20,
};

typedef struct rpc_header {
    const char *key; // lower case
    const char *value;
} rpc_header;

typedef struct rpc_channel_options {
    const char *address; // "host:50051", "127.0.0.1:50051", "[::1]:50051"
    size_t message_max;  // bytes of the largest message either way; 0: RPC_CLIENT_MESSAGE_MAX
    int keepalive_ms; // a silent connection is probed after this and is lost when no answer comes
                      // for as long again; 0: 10000
} rpc_channel_options;

// Makes the channel; connects with the first call (and again after a loss, with back-off of at most
// 1 s). INVALID_ARGUMENT, RESOURCE_EXHAUSTED.
status rpc_channel_create(const rpc_channel_options *options, rpc_channel **out);
// All streams must be closed before. NULL is allowed.
void rpc_channel_destroy(rpc_channel *c);

typedef struct rpc_call_options {
    int64_t deadline_ns; // monotonic; of the whole call; 0: none (streams only). The server is told
    const rpc_header *headers; // "authorization" and the like
    int header_count;
    bool wait_for_ready; // no connection yet: keep trying until the deadline instead of UNAVAILABLE
    int64_t *retry_after_ms; // out, may be NULL: the server's "retry-after-ms", 0 when it said none
} rpc_call_options;

// One request, one response; blocks until it is there or the deadline has passed. `response` is
// emptied first; more than its limit is RESOURCE_EXHAUSTED. The server's error comes back with its
// code and text.
status rpc_unary(rpc_channel *c, const char *path, const void *request, size_t size,
                 const rpc_call_options *options, buf *response);

// Opens a stream: "/octant.cluster.v1.Cluster/Steps". With a request (server stream): it is sent
// and the sending side closed. Without (NULL: bidi): send and read as you like. retry_after_ms is
// not used here: rpc_stream_retry_after_ms. Never blocks; failures to connect come from the first
// read.
status rpc_stream_open(rpc_channel *c, const char *path, const void *request, size_t size,
                       const rpc_call_options *options, rpc_stream **out);

typedef enum rpc_read {
    RPC_READ_MESSAGE, // *message holds the next message
    RPC_READ_END, // no more: *why is the call's status (OK: the server finished in order). Again on
                  // every later read
    RPC_READ_TIMEOUT, // deadline_ns passed; the stream lives on
} rpc_read;

// Waits for the next message. `message` is emptied first and its memory reused; a message over its
// limit ends the stream with RESOURCE_EXHAUSTED.
rpc_read rpc_stream_read(rpc_stream *s, buf *message, int64_t deadline_ns, status *why);

// Queues a copy and returns; written by this thread when nothing is on its way, else by the
// channel's. CANCELLED: the stream has ended (read it to learn why). RESOURCE_EXHAUSTED: the server
// does not read and RPC_CLIENT_OUTBOX bytes wait.
status rpc_stream_send(rpc_stream *s, const void *bytes, size_t size);
void rpc_stream_send_end(rpc_stream *s); // nothing more will be sent; after what waits

// Cancels; the read side then ends with CANCELLED. Any thread, any number of times; also wakes a
// blocked reader.
void rpc_stream_cancel(rpc_stream *s);

// After RPC_READ_END: the server's "retry-after-ms", 0 when it said none.
int64_t rpc_stream_retry_after_ms(rpc_stream *s);

// Cancels if it has not ended, waits for gRPC to let go (bounded: cancelling is prompt), frees. No
// other thread may be inside. NULL is allowed.
void rpc_stream_close(rpc_stream *s);

#endif
