// rpc_server: a gRPC server in our own terms, over gRPC's C core (grpc/grpc.h, 1.51). proto/rpc_*
// is the only code that touches gRPC; bytes come out of here and go in.
//
// Threads, all owned by the server:
//   pollers   wait in gRPC and run what is short: on_open of RPC_RUN_SHORT methods, on_message,
//   on_half_closed handlers  a pool that runs on_open of RPC_RUN_POOL methods (template, tokeniser,
//   model card: milliseconds and more) sender    runs on_writable and on_closed, and hands every
//   message to gRPC, so that no other thread pays for the
//             write (7 to 13 us each, with stalls of tens of ms measured under load)
//
// The callbacks of one call: on_open first; on_message and on_half_closed not before on_open has
// returned, one at a time; on_writable not before on_open has returned, one at a time; on_closed
// exactly once, when all others have returned for good. Callbacks must not block.
//
// Two ways to answer. Push: rpc_call_send from any thread; it queues up to a limit and never
// blocks. Pull, for what is produced faster than it may be read: rpc_call_wake from any thread,
// then on_writable takes whatever waits by then and sends it as few messages; while those are on
// their way more gathers.
#ifndef OCTANT_PROTO_RPC_SERVER_H
#define OCTANT_PROTO_RPC_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

typedef struct rpc_server rpc_server;
typedef struct rpc_call rpc_call;

enum {
    RPC_METADATA_MAX = 8,           // entries of trailing metadata of a call
    RPC_DEFAULT_CALLS_MAX = 16384,  // open calls of a server
    RPC_DEFAULT_OUTBOX = 4 << 20,   // bytes that may wait in one call
    RPC_MESSAGE_MAX_LIMIT = 1 << 30 // no limit below may be larger
};

typedef enum rpc_kind { RPC_UNARY, RPC_SERVER_STREAM, RPC_BIDI_STREAM } rpc_kind;
typedef enum rpc_run { RPC_RUN_SHORT, RPC_RUN_POOL } rpc_run;

typedef struct rpc_metadata {
    const char *key; // lower case
    const char *value;
} rpc_metadata;

typedef struct rpc_method {
    const char *path; // "/octant.v1.Inference/Chat"
    rpc_kind kind;
    rpc_run run;        // which thread runs on_open
    size_t request_max; // bytes of one message from the client; more is RESOURCE_EXHAUSTED. At most
                        // the server's
    // Unary and server stream: the request is here. Bidi: the call began, bytes is NULL. `bytes` is
    // valid until it returns.
    void (*on_open)(void *owner, rpc_call *call, const void *bytes, size_t size);
    void (*on_message)(void *owner, rpc_call *call, const void *bytes,
                       size_t size); // bidi; the next is read when it returns
    void (*on_half_closed)(
        void *owner,
        rpc_call *call); // bidi: the client sends no more. NULL: the call is finished with OK
    // After rpc_call_wake, when nothing of this call waits to be sent. As long as it sends
    // something, called again when that is out; when it sends nothing, not before the next
    // rpc_call_wake. NULL: the method only pushes
    void (*on_writable)(void *owner, rpc_call *call);
    // The call is over: status sent, cancelled by the client, deadline passed or connection lost.
    // `completed`: the status that was given to rpc_call_finish went out. NULL is allowed
    void (*on_closed)(void *owner, rpc_call *call, bool completed);
} rpc_method;

typedef struct rpc_service {
    const char *name; // "octant.v1.Inference", as reflection lists it
    const rpc_method *methods;
    int method_count;
    void *owner; // passed to the callbacks
    // Whether a call may be made at all, by its metadata and peer, before its first message is
    // read. An error ends it, and no other callback sees it. NULL: every call may
    status (*admit)(void *owner, const rpc_call *call);
} rpc_service;

typedef struct rpc_server_options {
    const char *address; // "127.0.0.1:50051", "[::]:50051", "0.0.0.0:0" (any port)
    size_t message_max;  // bytes of the largest message either way; 0: 4 MiB
    size_t outbox_max;   // bytes that may wait in one call; a message into an empty outbox always
                         // fits; 0: RPC_DEFAULT_OUTBOX
    int calls_max; // open calls; more are refused with RESOURCE_EXHAUSTED; 0: RPC_DEFAULT_CALLS_MAX
    int pollers;   // 0: 2
    int handlers;  // 0: 2
} rpc_server_options;

// Listens and serves. Services, methods and names must outlive the server. INVALID_ARGUMENT /
// UNAVAILABLE ("port in use") with one line.
status rpc_server_create(const rpc_server_options *options, const rpc_service *const *services,
                         int service_count, rpc_server **out);

// The port that it listens on (of interest with port 0).
int rpc_server_port(const rpc_server *s);
int rpc_server_open_calls(rpc_server *s);

// Refuses new connections and calls, lets open calls run until deadline_ns (0: no grace), then
// cancels them; returns when every on_closed has returned. Call once, from no callback. Then
// destroy.
void rpc_server_stop(rpc_server *s, int64_t deadline_ns);
void rpc_server_destroy(rpc_server *s); // stops without grace if nobody has; NULL is allowed

// ---- a call; all functions are thread-safe ----

// The server holds a call until on_closed has returned. Whoever keeps the pointer longer, or uses
// it from another thread than the callbacks', takes a reference. On a closed call every function
// below still works and does nothing.
void rpc_call_ref(rpc_call *call);
void rpc_call_unref(rpc_call *call);

// State of the method's own; set it in on_open, before any other thread knows of the call.
void rpc_call_set_user(rpc_call *call, void *user);
void *rpc_call_user(const rpc_call *call);

const char *
rpc_call_peer(const rpc_call *call); // the client's address without its port: "127.0.0.1", "::1"
int64_t rpc_call_deadline_ns(const rpc_call *call); // monotonic; 0: none was given
// First value of a header of the request ("authorization", "x-client-id"), or NULL. Lives as long
// as the call.
const char *rpc_call_metadata(const rpc_call *call, const char *key);
int rpc_call_metadata_count(const rpc_call *call, const char *key); // how many of that name came
bool rpc_call_is_open(
    rpc_call *call); // false: finished, cancelled or closed; work for it is wasted

// Queues a copy of the message. CANCELLED: the call is closed or finished. RESOURCE_EXHAUSTED: the
// client does not read and the outbox is full; nothing was queued.
status rpc_call_send(rpc_call *call, const void *bytes, size_t size);

// Asks for on_writable. Cheap: a lock and, if the sender sleeps, one futex wake.
void rpc_call_wake(rpc_call *call);

// Ends the call with this status after what waits. The first call wins; later ones and later sends
// do nothing. A unary call that finishes with OK must have sent exactly one message.
void rpc_call_finish(rpc_call *call, status why, const rpc_metadata *trailers, int count);
// Unary in one: sends and finishes with OK.
void rpc_call_reply(rpc_call *call, const void *bytes, size_t size);

// Ends the call now: what waits is dropped. For clients that do not read.
void rpc_call_abort(rpc_call *call, status why);

#endif
