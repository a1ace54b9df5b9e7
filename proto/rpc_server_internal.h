// rpc_server_internal: what rpc_server.c (listening, accepting, threads) and rpc_call.c (one call's
// life) share.
#ifndef OCTANT_PROTO_RPC_SERVER_INTERNAL_H
#define OCTANT_PROTO_RPC_SERVER_INTERNAL_H

#include "common/base/ring.h"
#include "proto/rpc_grpc.h"
#include "proto/rpc_server.h"

enum {
    RPC_ACCEPTS = 64, // calls that gRPC may hand over before we asked again
    RPC_HANDLER_QUEUE = RPC_DEFAULT_CALLS_MAX, // requests that wait for a handler; more are refused
    RPC_POLLERS_MAX = 16,
    RPC_HANDLERS_MAX = 64,
    RPC_PEER_MAX = 64,
};

// The first field of everything that is a tag.
typedef enum rpc_tag_kind {
    RPC_TAG_ACCEPT,
    RPC_TAG_SHUTDOWN,
    RPC_TAG_CLOSE,
    RPC_TAG_RECEIVE,
    RPC_TAG_SEND,
} rpc_tag_kind;
typedef struct rpc_tag {
    rpc_tag_kind kind;
    void *of; // rpc_accept or rpc_call
} rpc_tag;

typedef struct rpc_accept {
    rpc_tag tag;
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array metadata;
} rpc_accept;

struct rpc_server {
    grpc_server *server;
    grpc_completion_queue *queue;
    const rpc_service *const *services;
    int service_count;
    rpc_server_options options; // with defaults filled in
    int port;
    rpc_fence fence;
    rpc_accept accepts[RPC_ACCEPTS];
    rpc_tag shutdown_tag;
    ring *handler_queue; // of rpc_call *, each with a reference
    pthread_t pollers[RPC_POLLERS_MAX], handlers[RPC_HANDLERS_MAX], sender;
    int poller_count, handler_count;
    bool sender_runs, stopped;

    pthread_mutex_t lock; // of what follows; taken after a call's lock, never before
    pthread_cond_t ready_changed, closed_changed;
    rpc_call *ready_first, *ready_last; // calls that the sender is to look at
    rpc_call *open_first;               // all open calls
    int open_calls, accepts_out;
    bool stopping, shutdown_back, sender_stop;
};

struct rpc_call {
    atomic_int references;
    rpc_server *server;
    const rpc_method *method; // NULL: unknown
    const rpc_service *service;
    void *user;
    int64_t deadline_ns;
    int64_t request_by_ns; // when its request must have arrived
    char peer[RPC_PEER_MAX];
    char *headers; // key NUL value NUL ...
    size_t headers_size;
    rpc_tag close_tag, receive_tag, send_tag;

    rpc_call *ready_next; // with server->lock
    bool ready;
    rpc_call *open_next, *open_previous;

    pthread_mutex_t lock;
    grpc_call *call;  // NULL once closed
    bool opened;      // on_open has returned
    bool in_callback; // on_open, on_message or on_half_closed runs, or waits for a handler
    bool receiving, sending, close_back;
    bool woken;
    bool headers_sent, finished, status_sent;
    bool closed;
    rpc_outbox outbox;
    // Not beside the flags under `lock`: the compiler reads those eight at a time.
    atomic_bool has_request;
    status why;
    grpc_metadata trailers[RPC_METADATA_MAX];
    size_t trailer_count;
    // what gRPC reads and writes
    grpc_byte_buffer *received, *sent;
    grpc_slice request, details;
    int cancelled;
};

// rpc_server.c
const rpc_method *rpc_server_find(const rpc_server *s, grpc_slice path,
                                  const rpc_service **service);
void rpc_server_ready(rpc_server *s, rpc_call *call); // the sender is to look at it
void rpc_server_closed(rpc_server *s, rpc_call *call);

// rpc_call.c: from the pollers
void rpc_call_begin(rpc_server *s, rpc_accept *accept); // takes accept->call over
void rpc_call_on_close(rpc_call *call);
void rpc_call_on_receive(rpc_call *call, bool ok);
void rpc_call_on_send(rpc_call *call, bool ok);
// from the handlers: runs on_open
void rpc_call_handle(rpc_call *call);
// from the sender
void rpc_call_advance(rpc_call *call);
// From the sender, with the server's lock: a request that does not arrive must not hold a call for
// ever.
void rpc_call_expire(rpc_call *call, int64_t now_ns);

#endif
