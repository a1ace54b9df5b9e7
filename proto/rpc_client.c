// rpc_client: channels and streams over gRPC's C core.
//
// A stream has four kinds of operations in flight at most: initial metadata, one receive, one send,
// the status. Each has a tag in the stream; the channel's thread takes the tags and moves what they
// brought into the stream under its lock. The stream lives until its user has closed it and all
// tags are back. A unary call is a stream that is read once.
#include "proto/rpc_client.h"

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/urgent.h"
#include "proto/rpc_grpc.h"

enum {
    KEEPALIVE_DEFAULT_MS = 10000,
    BACKOFF_FIRST_MS = 50,
    BACKOFF_MAX_MS = 1000,
    CONNECT_MIN_MS = 5000,     // what one attempt to connect may take
    DESTROY_WAIT_SECONDS = 30, // cancelled calls come back at once; a longer wait is a bug
    UNARY_GRACE_SECONDS = 5,   // gRPC itself ends the call at its deadline
};

struct rpc_channel {
    grpc_channel *channel;
    grpc_completion_queue *queue;
    pthread_t thread;
    size_t message_max;
    rpc_fence fence;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    int streams; // that gRPC may still touch
};

typedef enum stream_tag_kind { TAG_INITIAL, TAG_RECEIVE, TAG_SEND, TAG_STATUS } stream_tag_kind;
enum { TAG_COUNT = TAG_STATUS + 1 };
typedef struct stream_tag {
    rpc_stream *stream;
    stream_tag_kind kind;
} stream_tag;

struct rpc_stream {
    rpc_channel *channel;
    grpc_call *call;
    stream_tag tags[TAG_COUNT];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool busy[TAG_COUNT]; // the tag is with gRPC
    bool closed;          // by the user
    bool end_wanted, end_sent;
    bool status_back;
    rpc_outbox outbox;
    grpc_slice inbox[RPC_INBOX_MESSAGES];
    int inbox_first, inbox_count;
    bool received_last;
    // what gRPC writes to
    grpc_byte_buffer *received, *sending;
    grpc_metadata_array initial, trailing;
    grpc_status_code code;
    grpc_slice details;
    status failed; // of our own making; wins over the call's status
};

static bool any_busy(const rpc_stream *s) {
    for (int i = 0; i < TAG_COUNT; i++)
        if (s->busy[i]) return true;
    return false;
}

// ---- starting operations; the lock is held, the tag is marked before ----

static void start(rpc_stream *s, stream_tag_kind kind, const grpc_op *ops, size_t count) {
    s->busy[kind] = true;
    rpc_fence_publish(&s->channel->fence);
    grpc_call_error error = grpc_call_start_batch(s->call, ops, count, &s->tags[kind], NULL);
    assert(error == GRPC_CALL_OK);
}

static void start_receive(rpc_stream *s) {
    if (s->busy[TAG_RECEIVE] || s->received_last || s->closed) return;
    if (s->inbox_count == RPC_INBOX_MESSAGES) return;
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &s->received;
    start(s, TAG_RECEIVE, &op, 1);
}

// The next of what waits: a message, or the end of sending. One at a time, as gRPC demands.
static void start_send(rpc_stream *s) {
    if (s->busy[TAG_SEND] || s->status_back || s->end_sent) return;
    grpc_op ops[2] = {0};
    size_t count = 0;
    s->sending = rpc_outbox_pop(&s->outbox);
    bool more = s->outbox.head != NULL;
    if (s->sending != NULL) {
        ops[count].op = GRPC_OP_SEND_MESSAGE;
        ops[count].flags = more ? GRPC_WRITE_BUFFER_HINT : 0;
        ops[count++].data.send_message.send_message = s->sending;
    }
    if (!more && s->end_wanted) {
        ops[count++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
        s->end_sent = true;
    }
    if (count > 0) start(s, TAG_SEND, ops, count);
}

// ---- tags coming back, on the channel's thread ----

static void stream_free(rpc_stream *s) {
    rpc_channel *c = s->channel;
    for (; s->inbox_count > 0; s->inbox_count--) {
        grpc_slice_unref(s->inbox[s->inbox_first]);
        s->inbox_first = (s->inbox_first + 1) % RPC_INBOX_MESSAGES;
    }
    rpc_outbox_clear(&s->outbox);
    grpc_metadata_array_destroy(&s->initial);
    grpc_metadata_array_destroy(&s->trailing);
    grpc_slice_unref(s->details);
    grpc_call_unref(s->call);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
    pthread_mutex_lock(&c->lock);
    c->streams--;
    pthread_cond_broadcast(&c->idle);
    pthread_mutex_unlock(&c->lock);
}

static void on_received(rpc_stream *s, bool ok) {
    grpc_byte_buffer *message = s->received;
    s->received = NULL;
    grpc_slice bytes;
    if (!ok || message == NULL || !rpc_grpc_read(message, &bytes)) {
        s->received_last = true;
        return;
    }
    s->inbox[(s->inbox_first + s->inbox_count++) % RPC_INBOX_MESSAGES] = bytes;
    start_receive(s);
}

static void on_sent(rpc_stream *s, bool ok) {
    if (s->sending != NULL) grpc_byte_buffer_destroy(s->sending);
    s->sending = NULL;
    if (ok)
        start_send(s);
    else
        rpc_outbox_clear(&s->outbox);
}

static void on_tag(const stream_tag *tag, bool ok) {
    rpc_stream *s = tag->stream;
    pthread_mutex_lock(&s->lock);
    s->busy[tag->kind] = false;
    if (tag->kind == TAG_RECEIVE) on_received(s, ok);
    if (tag->kind == TAG_SEND) on_sent(s, ok);
    if (tag->kind == TAG_STATUS) s->status_back = true;
    bool over = s->closed && !any_busy(s);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (over) stream_free(s);
}

static void *channel_run(void *argument) {
    rpc_channel *c = argument;
    (void)urgent_this_thread(); // heartbeats and plans wait for it, and it only moves bytes
    for (;;) {
        // Without a deadline: destroy shuts the queue down, which ends the wait.
        grpc_event e =
            grpc_completion_queue_next(c->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        rpc_fence_observe(&c->fence);
        if (e.type == GRPC_QUEUE_SHUTDOWN) return NULL;
        if (e.type == GRPC_OP_COMPLETE) on_tag(e.tag, e.success != 0);
    }
}

// ---- channels ----

status rpc_channel_create(const rpc_channel_options *options, rpc_channel **out) {
    size_t message_max = options->message_max ? options->message_max : RPC_CLIENT_MESSAGE_MAX;
    int keepalive = options->keepalive_ms ? options->keepalive_ms : KEEPALIVE_DEFAULT_MS;
    if (options->address == NULL || options->address[0] == 0)
        return status_error(STATUS_INVALID_ARGUMENT, "no address to connect to; give HOST:PORT");
    assert(message_max <= 1 << 30);
    rpc_channel *c = calloc(1, sizeof *c);
    if (c == NULL) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a channel");
    rpc_grpc_open();
    rpc_args args = {0};
    rpc_args_common(&args, message_max, keepalive);
    rpc_args_add(&args, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, BACKOFF_FIRST_MS);
    rpc_args_add(&args, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, BACKOFF_MAX_MS);
    rpc_args_add(&args, GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_MIN_MS);
    rpc_args_add(&args, GRPC_ARG_ENABLE_HTTP_PROXY, 0); // a cluster's peers are reached directly
    rpc_args_add(&args, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1); // one channel, one connection
    rpc_args_add(&args, GRPC_ARG_ENABLE_RETRIES, 0);            // who calls decides
    grpc_channel_credentials *plain = grpc_insecure_credentials_create();
    c->channel = grpc_channel_create(options->address, plain, &args.args);
    grpc_channel_credentials_release(plain);
    c->queue = grpc_completion_queue_create_for_next(NULL);
    c->message_max = message_max;
    pthread_mutex_init(&c->lock, NULL);
    rpc_cond_init(&c->idle);
    if (pthread_create(&c->thread, NULL, channel_run, c) == 0) {
        *out = c;
        return status_ok();
    }
    grpc_completion_queue_shutdown(c->queue);
    channel_run(c); // drains
    grpc_completion_queue_destroy(c->queue);
    grpc_channel_destroy(c->channel);
    rpc_grpc_close();
    free(c);
    return status_error(STATUS_RESOURCE_EXHAUSTED, "cannot start a channel's thread");
}

void rpc_channel_destroy(rpc_channel *c) {
    if (c == NULL) return;
    int64_t deadline = clock_now_ns() + DESTROY_WAIT_SECONDS * CLOCK_SECOND;
    pthread_mutex_lock(&c->lock);
    while (c->streams > 0) {
        bool in_time = rpc_cond_wait(&c->idle, &c->lock, deadline);
        assert(in_time); // a stream was not closed
    }
    pthread_mutex_unlock(&c->lock);
    grpc_completion_queue_shutdown(c->queue);
    pthread_join(c->thread, NULL);
    grpc_completion_queue_destroy(c->queue);
    grpc_channel_destroy(c->channel);
    pthread_cond_destroy(&c->idle);
    pthread_mutex_destroy(&c->lock);
    free(c);
    rpc_grpc_close();
}

// ---- streams ----

// Headers go out with the request, if there is one: one packet for a unary call.
static void start_call(rpc_stream *s, const void *request, size_t size,
                       const rpc_call_options *options) {
    grpc_metadata headers[RPC_CLIENT_METADATA_MAX];
    memset(headers, 0, sizeof headers);
    assert(options->header_count <= RPC_CLIENT_METADATA_MAX);
    for (int i = 0; i < options->header_count; i++) {
        headers[i].key = grpc_slice_from_copied_string(options->headers[i].key);
        headers[i].value = grpc_slice_from_copied_string(options->headers[i].value);
    }
    grpc_op ops[3] = {{.op = GRPC_OP_SEND_INITIAL_METADATA}};
    ops[0].flags = options->wait_for_ready ? GRPC_INITIAL_METADATA_WAIT_FOR_READY |
                                                 GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET
                                           : 0;
    ops[0].data.send_initial_metadata.count = (size_t)options->header_count;
    ops[0].data.send_initial_metadata.metadata = headers;
    if (request != NULL) {
        s->sending = rpc_grpc_bytes(request, size);
        s->end_wanted = s->end_sent = true;
        ops[1].op = GRPC_OP_SEND_MESSAGE;
        ops[1].data.send_message.send_message = s->sending;
        ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    }
    start(s, TAG_SEND, ops, request != NULL ? 3 : 1);
    for (int i = 0; i < options->header_count; i++) {
        grpc_slice_unref(headers[i].key);
        grpc_slice_unref(headers[i].value);
    }
    grpc_op initial = {.op = GRPC_OP_RECV_INITIAL_METADATA};
    initial.data.recv_initial_metadata.recv_initial_metadata = &s->initial;
    start(s, TAG_INITIAL, &initial, 1);
    grpc_op end = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    end.data.recv_status_on_client.trailing_metadata = &s->trailing;
    end.data.recv_status_on_client.status = &s->code;
    end.data.recv_status_on_client.status_details = &s->details;
    start(s, TAG_STATUS, &end, 1);
    start_receive(s);
}

// A header that gRPC would assert on; they may come from a user's command line.
static status check_headers(const rpc_call_options *options) {
    for (int i = 0; i < options->header_count; i++) {
        const rpc_header *h = &options->headers[i];
        bool ok = grpc_header_key_is_legal(grpc_slice_from_static_string(h->key)) &&
                  grpc_header_nonbin_value_is_legal(grpc_slice_from_static_string(h->value));
        if (!ok)
            return status_error(STATUS_INVALID_ARGUMENT,
                                "header '%s' has characters that HTTP/2 does not allow", h->key);
    }
    return status_ok();
}

status rpc_stream_open(rpc_channel *c, const char *path, const void *request, size_t size,
                       const rpc_call_options *options, rpc_stream **out) {
    static const rpc_call_options none = {0};
    if (options == NULL) options = &none;
    TRY(check_headers(options));
    if (size > c->message_max)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "request of %zu bytes; at most %zu", size,
                            c->message_max);
    rpc_stream *s = calloc(1, sizeof *s);
    if (s == NULL) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a call");
    s->channel = c;
    for (int i = 0; i < TAG_COUNT; i++) s->tags[i] = (stream_tag){s, (stream_tag_kind)i};
    pthread_mutex_init(&s->lock, NULL);
    rpc_cond_init(&s->changed);
    grpc_metadata_array_init(&s->initial);
    grpc_metadata_array_init(&s->trailing);
    s->details = grpc_empty_slice();
    s->failed = status_ok();
    grpc_slice method = grpc_slice_from_copied_string(path);
    s->call = grpc_channel_create_call(c->channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->queue, method,
                                       NULL, rpc_grpc_time(options->deadline_ns), NULL);
    grpc_slice_unref(method);
    pthread_mutex_lock(&c->lock);
    c->streams++;
    pthread_mutex_unlock(&c->lock);
    pthread_mutex_lock(&s->lock);
    start_call(s, request, size, options);
    pthread_mutex_unlock(&s->lock);
    *out = s;
    return status_ok();
}

// Copies the oldest message out; false when it does not fit.
static bool take_message(rpc_stream *s, buf *message) {
    grpc_slice bytes = s->inbox[s->inbox_first];
    s->inbox_first = (s->inbox_first + 1) % RPC_INBOX_MESSAGES;
    s->inbox_count--;
    buf_clear(message);
    bool ok = buf_append(message, GRPC_SLICE_START_PTR(bytes), GRPC_SLICE_LENGTH(bytes));
    if (!ok && s->failed.code == STATUS_OK)
        s->failed =
            status_error(STATUS_RESOURCE_EXHAUSTED, "a message of %zu bytes; at most %zu fit",
                         GRPC_SLICE_LENGTH(bytes), message->limit);
    grpc_slice_unref(bytes);
    if (ok)
        start_receive(s);
    else
        grpc_call_cancel(s->call, NULL);
    return ok;
}

rpc_read rpc_stream_read(rpc_stream *s, buf *message, int64_t deadline_ns, status *why) {
    rpc_read result = RPC_READ_TIMEOUT;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        if (s->failed.code == STATUS_OK && s->inbox_count > 0 && take_message(s, message)) {
            result = RPC_READ_MESSAGE;
            break;
        }
        if (s->failed.code != STATUS_OK) {
            *why = s->failed;
            result = RPC_READ_END;
            break;
        }
        if (s->status_back && !s->busy[TAG_RECEIVE]) {
            *why = rpc_grpc_status(s->code, s->details);
            result = RPC_READ_END;
            break;
        }
        if (!rpc_cond_wait(&s->changed, &s->lock, deadline_ns) && clock_now_ns() >= deadline_ns)
            break;
    }
    pthread_mutex_unlock(&s->lock);
    return result;
}

status rpc_stream_send(rpc_stream *s, const void *bytes, size_t size) {
    status result = status_ok();
    if (size > s->channel->message_max)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "message of %zu bytes; at most %zu", size,
                            s->channel->message_max);
    pthread_mutex_lock(&s->lock);
    assert(!s->closed);
    if (s->status_back || s->end_wanted)
        result = status_error(STATUS_CANCELLED, "the stream has ended");
    else if (!rpc_outbox_push(&s->outbox, bytes, size, RPC_CLIENT_OUTBOX))
        result = status_error(STATUS_RESOURCE_EXHAUSTED, "the server does not read: %zu bytes wait",
                              s->outbox.bytes);
    else
        start_send(s);
    pthread_mutex_unlock(&s->lock);
    return result;
}

void rpc_stream_send_end(rpc_stream *s) {
    pthread_mutex_lock(&s->lock);
    if (!s->end_wanted) {
        s->end_wanted = true;
        start_send(s);
    }
    pthread_mutex_unlock(&s->lock);
}

void rpc_stream_cancel(rpc_stream *s) {
    pthread_mutex_lock(&s->lock);
    if (!s->status_back) grpc_call_cancel(s->call, NULL);
    pthread_mutex_unlock(&s->lock);
}

int64_t rpc_stream_retry_after_ms(rpc_stream *s) {
    char text[24];
    int64_t result = 0;
    pthread_mutex_lock(&s->lock);
    if (s->status_back && rpc_grpc_metadata(&s->trailing, "retry-after-ms", text, sizeof text))
        result = strtoll(text, NULL, 10);
    pthread_mutex_unlock(&s->lock);
    return result > 0 ? result : 0;
}

void rpc_stream_close(rpc_stream *s) {
    if (s == NULL) return;
    pthread_mutex_lock(&s->lock);
    s->closed = true;
    if (!s->status_back) grpc_call_cancel(s->call, NULL);
    bool over = !any_busy(s);
    pthread_mutex_unlock(&s->lock);
    if (over) stream_free(s);
}

status rpc_unary(rpc_channel *c, const char *path, const void *request, size_t size,
                 const rpc_call_options *options, buf *response) {
    assert(options != NULL && options->deadline_ns > 0);
    if (options->retry_after_ms != NULL) *options->retry_after_ms = 0;
    rpc_stream *s;
    TRY(rpc_stream_open(c, path, request != NULL ? request : "", size, options, &s));
    int64_t limit = options->deadline_ns + UNARY_GRACE_SECONDS * CLOCK_SECOND;
    status why = status_ok();
    buf extra = buf_make(0);
    rpc_read first = rpc_stream_read(s, response, limit, &why);
    rpc_read then =
        first == RPC_READ_MESSAGE ? rpc_stream_read(s, &extra, limit, &why) : RPC_READ_END;
    if (first == RPC_READ_TIMEOUT || then == RPC_READ_TIMEOUT)
        why = status_error(STATUS_DEADLINE_EXCEEDED, "%s: no answer in time", path);
    else if (first == RPC_READ_END && why.code == STATUS_OK)
        why = status_error(STATUS_INTERNAL, "%s: the server sent no response", path);
    else if (then == RPC_READ_MESSAGE)
        why = status_error(STATUS_INTERNAL, "%s: more than one response", path);
    if (options->retry_after_ms != NULL) *options->retry_after_ms = rpc_stream_retry_after_ms(s);
    buf_free(&extra);
    rpc_stream_close(s);
    return why;
}
