// rpc_call: one call's life on the server.
//
//   begin      headers are here; RECV_CLOSE is asked for at once, so that a client that goes is
//   always seen request    unary and server stream: one message; bidi: on_open, then message after
//   message advance    the sender's turn: on_writable if it was woken and nothing waits, then one
//   batch to gRPC close      RECV_CLOSE is back; when the other tags and the callbacks are back
//   too, the sender says on_closed
//
// Every transition is made under the call's lock; gRPC is called without it, except to cancel, so
// that a thread which only wakes or queues never waits for a write.
#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "proto/rpc_server_internal.h"

enum { REQUEST_SECONDS = 60 }; // what a request may take to arrive

// ---- references and what a call knows of its client ----

void rpc_call_ref(rpc_call *call) {
    atomic_fetch_add_explicit(&call->references, 1, memory_order_relaxed);
}

void rpc_call_unref(rpc_call *call) {
    if (atomic_fetch_sub_explicit(&call->references, 1, memory_order_acq_rel) != 1) return;
    assert(call->closed);
    free(call->headers);
    pthread_mutex_destroy(&call->lock);
    free(call);
}

void rpc_call_set_user(rpc_call *call, void *user) {
    call->user = user;
}

void *rpc_call_user(const rpc_call *call) {
    return call->user;
}

const char *rpc_call_peer(const rpc_call *call) {
    return call->peer;
}

int64_t rpc_call_deadline_ns(const rpc_call *call) {
    return call->deadline_ns;
}

// The next header's value after *at of that name; NULL: there is none.
static const char *next_value(const rpc_call *call, const char *key, size_t *at) {
    while (*at < call->headers_size) {
        const char *name = call->headers + *at;
        const char *value = name + strlen(name) + 1;
        *at = (size_t)(value + strlen(value) + 1 - call->headers);
        if (strcmp(name, key) == 0) return value;
    }
    return NULL;
}

const char *rpc_call_metadata(const rpc_call *call, const char *key) {
    size_t at = 0;
    return next_value(call, key, &at);
}

int rpc_call_metadata_count(const rpc_call *call, const char *key) {
    int count = 0;
    for (size_t at = 0; next_value(call, key, &at);) count++;
    return count;
}

// "ipv4:10.0.0.1:4242" and "ipv6:%5B::1%5D:4242" to the address alone.
static void copy_peer(rpc_call *call, grpc_call *from) {
    char *uri = grpc_call_get_peer(from);
    const char *address = strchr(uri, ':');
    address = address != NULL ? address + 1 : uri;
    snprintf(call->peer, sizeof call->peer, "%s", address);
    gpr_free(uri);
    char *port = strrchr(call->peer, ':');
    if (port != NULL) *port = 0;
    char *in = call->peer, *out = call->peer;
    while (*in != 0) {
        if (strncmp(in, "%5B", 3) == 0 || strncmp(in, "%5D", 3) == 0)
            in += 3;
        else if (*in == '[' || *in == ']')
            in++;
        else
            *out++ = *in++;
    }
    *out = 0;
}

static bool has_nul(grpc_slice s) {
    return memchr(GRPC_SLICE_START_PTR(s), 0, GRPC_SLICE_LENGTH(s)) != NULL;
}

// gRPC's metadata dies with its call; ours is copied. Values with NULs (binary headers) are left
// out.
static bool copy_headers(rpc_call *call, const grpc_metadata_array *from) {
    size_t room = 0;
    for (size_t i = 0; i < from->count; i++)
        room += GRPC_SLICE_LENGTH(from->metadata[i].key) +
                GRPC_SLICE_LENGTH(from->metadata[i].value) + 2;
    char *at = call->headers = malloc(room + 1);
    if (at == NULL) return false;
    for (size_t i = 0; i < from->count; i++) {
        grpc_slice key = from->metadata[i].key, value = from->metadata[i].value;
        if (has_nul(key) || has_nul(value)) continue;
        memcpy(at, GRPC_SLICE_START_PTR(key), GRPC_SLICE_LENGTH(key));
        at += GRPC_SLICE_LENGTH(key);
        *at++ = 0;
        memcpy(at, GRPC_SLICE_START_PTR(value), GRPC_SLICE_LENGTH(value));
        at += GRPC_SLICE_LENGTH(value);
        *at++ = 0;
    }
    call->headers_size = (size_t)(at - call->headers);
    return true;
}

// ---- receiving ----

// Ends a callback and asks for the next message in one step: from here on the call stays because
// its tag is out.
static void start_receive(rpc_call *call) {
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &call->received;
    pthread_mutex_lock(&call->lock);
    call->receiving = true;
    call->in_callback = false;
    grpc_call *grpc = call->call;
    pthread_mutex_unlock(&call->lock);
    rpc_fence_publish(&call->server->fence);
    grpc_call_error error = grpc_call_start_batch(grpc, &op, 1, &call->receive_tag, NULL);
    assert(error == GRPC_CALL_OK);
}

static void start_close(rpc_call *call) {
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &call->cancelled;
    rpc_fence_publish(&call->server->fence);
    grpc_call_error error = grpc_call_start_batch(call->call, &op, 1, &call->close_tag, NULL);
    assert(error == GRPC_CALL_OK);
}

// Ends a callback: the call may be advanced or closed now.
static void callback_done(rpc_call *call) {
    pthread_mutex_lock(&call->lock);
    call->in_callback = false;
    rpc_server_ready(call->server, call); // under the lock: without it the call may be gone
    pthread_mutex_unlock(&call->lock);
}

static void drop_request(rpc_call *call) {
    grpc_slice_unref(call->request);
    call->request = grpc_empty_slice();
}

static void set_opened(rpc_call *call) {
    pthread_mutex_lock(&call->lock);
    call->opened = true;
    pthread_mutex_unlock(&call->lock);
}

static rpc_call *call_create(rpc_server *s, rpc_accept *accept) {
    rpc_call *call = calloc(1, sizeof *call);
    if (call == NULL || !copy_headers(call, &accept->metadata)) {
        free(call);
        return NULL;
    }
    atomic_init(&call->references, 1);
    atomic_init(&call->has_request, false);
    call->server = s;
    call->call = accept->call;
    call->deadline_ns = rpc_grpc_deadline(accept->details.deadline);
    call->request_by_ns = clock_now_ns() + REQUEST_SECONDS * CLOCK_SECOND;
    call->why = status_ok();
    call->close_tag = (rpc_tag){RPC_TAG_CLOSE, call};
    call->receive_tag = (rpc_tag){RPC_TAG_RECEIVE, call};
    call->send_tag = (rpc_tag){RPC_TAG_SEND, call};
    call->request = call->details = grpc_empty_slice();
    call->method = rpc_server_find(s, accept->details.method, &call->service);
    call->in_callback = true; // until begin is through
    copy_peer(call, accept->call);
    pthread_mutex_init(&call->lock, NULL);
    return call;
}

// False: the call is one too many.
static bool add_to_server(rpc_server *s, rpc_call *call) {
    pthread_mutex_lock(&s->lock);
    call->open_next = s->open_first;
    if (s->open_first != NULL) s->open_first->open_previous = call;
    s->open_first = call;
    bool fits = s->open_calls++ < s->options.calls_max;
    pthread_mutex_unlock(&s->lock);
    return fits;
}

static void refuse(rpc_call *call, status why, bool later) {
    rpc_metadata retry = {"retry-after-ms", "1000"};
    rpc_call_finish(call, why, &retry, later ? 1 : 0);
    callback_done(call);
}

static status admit(const rpc_call *call, bool fits) {
    if (call->method == NULL) return status_error(STATUS_UNIMPLEMENTED, "no such method");
    if (!fits) return status_error(STATUS_RESOURCE_EXHAUSTED, "too many calls are open");
    const rpc_service *service = call->service;
    return service->admit ? service->admit(service->owner, call) : status_ok();
}

void rpc_call_begin(rpc_server *s, rpc_accept *accept) {
    rpc_call *call = call_create(s, accept);
    if (call == NULL) {
        grpc_call_cancel_with_status(accept->call, GRPC_STATUS_RESOURCE_EXHAUSTED, "no memory",
                                     NULL);
        grpc_call_unref(accept->call);
        return;
    }
    bool fits = add_to_server(s, call);
    start_close(call);
    status admitted = admit(call, fits);
    if (admitted.code != STATUS_OK) {
        atomic_store(&call->has_request, true);
        refuse(call, admitted, call->method && !fits);
    } else if (call->method->kind == RPC_BIDI_STREAM) {
        atomic_store(&call->has_request, true);
        call->method->on_open(call->service->owner, call, NULL, 0);
        set_opened(call);
        rpc_server_ready(s, call);
        start_receive(call);
    } else {
        start_receive(call);
    }
}

void rpc_call_handle(rpc_call *call) {
    call->method->on_open(call->service->owner, call, GRPC_SLICE_START_PTR(call->request),
                          GRPC_SLICE_LENGTH(call->request));
    drop_request(call);
    set_opened(call);
    callback_done(call);
}

static void on_request(rpc_call *call) {
    if (call->method->run == RPC_RUN_SHORT) {
        rpc_call_handle(call);
        return;
    }
    rpc_call_ref(call); // the queue's
    if (ring_try_push(call->server->handler_queue, &call)) return;
    drop_request(call);
    refuse(call, status_error(STATUS_RESOURCE_EXHAUSTED, "too many requests wait"), true);
    rpc_call_unref(call);
}

static void on_bidi_message(rpc_call *call) {
    call->method->on_message(call->service->owner, call, GRPC_SLICE_START_PTR(call->request),
                             GRPC_SLICE_LENGTH(call->request));
    drop_request(call);
    start_receive(call);
}

static void on_bidi_end(rpc_call *call) {
    if (call->method->on_half_closed != NULL)
        call->method->on_half_closed(call->service->owner, call);
    else
        rpc_call_finish(call, status_ok(), NULL, 0);
    callback_done(call);
}

// A message, or the end of them. in_callback is set: the call cannot close under this.
static void on_received(rpc_call *call, bool have, bool over) {
    size_t size = GRPC_SLICE_LENGTH(call->request), most = call->method->request_max;
    bool bidi = call->method->kind == RPC_BIDI_STREAM;
    bool too_large = have && size > most;
    if (over || too_large) drop_request(call);
    if (over)
        callback_done(call); // nobody is left to be told
    else if (too_large)
        refuse(call,
               status_error(STATUS_RESOURCE_EXHAUSTED,
                            "the message has %zu bytes; %s takes at most %zu", size,
                            call->method->path, most),
               false);
    else if (bidi && have)
        on_bidi_message(call);
    else if (bidi)
        on_bidi_end(call);
    else if (have)
        on_request(call);
    else
        refuse(call, status_error(STATUS_INVALID_ARGUMENT, "the request is missing"), false);
}

void rpc_call_on_receive(rpc_call *call, bool ok) {
    pthread_mutex_lock(&call->lock);
    grpc_byte_buffer *message = call->received;
    call->received = NULL;
    call->receiving = false;
    call->in_callback = true;
    bool have = message != NULL && rpc_grpc_read(message, &call->request);
    bool over = call->close_back || call->finished || (!ok && !have);
    pthread_mutex_unlock(&call->lock);
    atomic_store(&call->has_request, true);
    on_received(call, have, over);
}

void rpc_call_expire(rpc_call *call, int64_t now_ns) {
    if (atomic_load(&call->has_request) || now_ns < call->request_by_ns || call->call == NULL)
        return;
    grpc_call_cancel_with_status(call->call, GRPC_STATUS_DEADLINE_EXCEEDED,
                                 "the request did not arrive in time", NULL);
}

// ---- sending; on the sender thread ----

// Fills a batch with what is due: headers once, a message, the status after the last message. The
// lock is held.
static size_t fill_batch(rpc_call *call, grpc_op ops[3]) {
    size_t count = 0;
    call->sent = rpc_outbox_pop(&call->outbox);
    bool more = call->outbox.head != NULL;
    bool last = call->finished && !more && !call->status_sent;
    if (call->sent == NULL && !last) return 0;
    bool first = !call->headers_sent;
    if (first) ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    call->headers_sent = true;
    if (call->sent != NULL) {
        ops[count].op = GRPC_OP_SEND_MESSAGE;
        // One write for all that waits. Not with the headers: gRPC holds both back then and the
        // batch never completes.
        ops[count].flags = more && !first ? GRPC_WRITE_BUFFER_HINT : 0;
        ops[count++].data.send_message.send_message = call->sent;
    }
    if (!last) return count;
    call->status_sent = true;
    ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[count].data.send_status_from_server.status = (grpc_status_code)call->why.code;
    ops[count].data.send_status_from_server.trailing_metadata = call->trailers;
    ops[count].data.send_status_from_server.trailing_metadata_count = call->trailer_count;
    if (call->why.code != STATUS_OK) {
        call->details = grpc_slice_from_copied_string(call->why.message);
        ops[count].data.send_status_from_server.status_details = &call->details;
    }
    return count + 1;
}

// The last thing that happens to a call. The lock is held, and dropped.
static void close_call(rpc_call *call) {
    call->closed = true;
    grpc_call *grpc = call->call;
    call->call = NULL;
    rpc_outbox_clear(&call->outbox);
    bool completed = call->status_sent && !call->cancelled;
    pthread_mutex_unlock(&call->lock);
    if (call->method != NULL && call->method->on_closed != NULL && call->opened)
        call->method->on_closed(call->service->owner, call, completed);
    for (size_t i = 0; i < call->trailer_count; i++) {
        grpc_slice_unref(call->trailers[i].key);
        grpc_slice_unref(call->trailers[i].value);
    }
    grpc_slice_unref(call->details);
    grpc_call_unref(grpc);
    rpc_server_closed(call->server, call);
    rpc_call_unref(call); // the server's
}

// The lock is held; on_writable runs without it.
static void run_writable(rpc_call *call) {
    call->woken = false;
    pthread_mutex_unlock(&call->lock);
    call->method->on_writable(call->service->owner, call);
    pthread_mutex_lock(&call->lock);
    if (call->outbox.head != NULL) call->woken = true; // again when that is out
}

void rpc_call_advance(rpc_call *call) {
    pthread_mutex_lock(&call->lock);
    bool idle = !call->receiving && !call->sending && !call->in_callback;
    if (call->close_back && idle && !call->closed) {
        close_call(call);
        return;
    }
    if (call->closed || call->close_back || call->sending) {
        pthread_mutex_unlock(&call->lock);
        return;
    }
    bool pulls = call->woken && call->opened && !call->finished && call->outbox.head == NULL;
    if (pulls && call->method->on_writable != NULL) run_writable(call);
    grpc_op ops[3];
    memset(ops, 0, sizeof ops);
    size_t count = call->close_back ? 0 : fill_batch(call, ops);
    call->sending = count > 0;
    pthread_mutex_unlock(&call->lock);
    if (count > 0) {
        rpc_fence_publish(&call->server->fence);
        grpc_call_error error =
            grpc_call_start_batch(call->call, ops, count, &call->send_tag, NULL);
        assert(error == GRPC_CALL_OK);
    }
}

void rpc_call_on_send(rpc_call *call, bool ok) {
    pthread_mutex_lock(&call->lock);
    call->sending = false;
    if (call->sent != NULL) grpc_byte_buffer_destroy(call->sent);
    call->sent = NULL;
    if (!ok) rpc_outbox_clear(&call->outbox);
    rpc_server_ready(call->server, call);
    pthread_mutex_unlock(&call->lock);
}

void rpc_call_on_close(rpc_call *call) {
    pthread_mutex_lock(&call->lock);
    call->close_back = true;
    rpc_outbox_clear(&call->outbox);
    rpc_server_ready(call->server, call);
    pthread_mutex_unlock(&call->lock);
}

// ---- what handlers call, from any thread ----

bool rpc_call_is_open(rpc_call *call) {
    pthread_mutex_lock(&call->lock);
    bool open = !call->closed && !call->close_back && !call->finished;
    pthread_mutex_unlock(&call->lock);
    return open;
}

// The lock is held, so the call is not closed, and its server there, until it is dropped.
static void ready_unless_closed(rpc_call *call) {
    if (!call->closed) rpc_server_ready(call->server, call);
}

status rpc_call_send(rpc_call *call, const void *bytes, size_t size) {
    status result = status_ok();
    pthread_mutex_lock(&call->lock);
    if (call->closed || call->close_back || call->finished)
        result = status_error(STATUS_CANCELLED, "the call is over");
    else if (size > call->server->options.message_max)
        result = status_error(STATUS_RESOURCE_EXHAUSTED, "message of %zu bytes; at most %zu", size,
                              call->server->options.message_max);
    else if (!rpc_outbox_push(&call->outbox, bytes, size, call->server->options.outbox_max))
        result = status_error(STATUS_RESOURCE_EXHAUSTED, "the client does not read: %zu bytes wait",
                              call->outbox.bytes);
    else if (!call->sending)
        ready_unless_closed(call);
    pthread_mutex_unlock(&call->lock);
    return result;
}

void rpc_call_wake(rpc_call *call) {
    pthread_mutex_lock(&call->lock);
    bool news = !call->woken;
    call->woken = true;
    if (news && !call->sending) ready_unless_closed(call);
    pthread_mutex_unlock(&call->lock);
}

void rpc_call_finish(rpc_call *call, status why, const rpc_metadata *trailers, int count) {
    assert(count <= RPC_METADATA_MAX);
    pthread_mutex_lock(&call->lock);
    if (!call->closed && !call->finished) {
        call->finished = true;
        call->why = why;
        for (int i = 0; i < count; i++) {
            call->trailers[i].key = grpc_slice_from_copied_string(trailers[i].key);
            call->trailers[i].value = grpc_slice_from_copied_string(trailers[i].value);
        }
        call->trailer_count = (size_t)count;
        if (!call->sending) ready_unless_closed(call);
    }
    pthread_mutex_unlock(&call->lock);
}

void rpc_call_reply(rpc_call *call, const void *bytes, size_t size) {
    status sent = rpc_call_send(call, bytes, size);
    rpc_call_finish(call, sent, NULL, 0);
}

void rpc_call_abort(rpc_call *call, status why) {
    assert(why.code != STATUS_OK);
    pthread_mutex_lock(&call->lock);
    if (!call->closed) {
        call->finished = true;
        rpc_outbox_clear(&call->outbox);
        grpc_call_cancel_with_status(call->call, (grpc_status_code)why.code, why.message, NULL);
    }
    pthread_mutex_unlock(&call->lock);
}
