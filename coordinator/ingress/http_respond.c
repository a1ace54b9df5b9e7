// Responses on their way out: whole ones, and streams that libmicrohttpd reads from as the socket
// takes bytes. A connection is suspended whenever its stream has nothing to send.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "coordinator/ingress/http_internal.h"
#include "coordinator/ingress/openai_error.h"
#include "coordinator/ingress/sse.h"

enum {
    STREAM_BLOCK_BYTES = 16 << 10, // most bytes of one chunk
    REPLY_BYTES_PER_SECOND =
        64 << 10, // a whole response may take its size over this, and write_timeout
};

// ---- whole responses ----

static void add_headers(http_exchange *x, struct MHD_Response *response) {
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, x->content_type);
    if (x->request_id[0]) {
        MHD_add_response_header(response, "x-request-id", x->request_id);
        MHD_add_response_header(response, "request-id", x->request_id); // Anthropic's name for it
    }
    if (x->served_by[0]) MHD_add_response_header(response, "octant-served-by", x->served_by);
    if (x->allow) MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, x->allow);
    if (x->status == 401)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (x->retry_after_ms > 0) {
        char seconds[32];
        snprintf(seconds, sizeof seconds, "%" PRId64, (x->retry_after_ms + 999) / 1000);
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
    }
}

static enum MHD_Result send_response(http_exchange *x, struct MHD_Response *response) {
    if (!response) return MHD_NO;
    add_headers(x, response);
    enum MHD_Result result = MHD_queue_response(x->connection, (unsigned)x->status, response);
    MHD_destroy_response(response);
    metrics_response(x->server->options.in->metrics, x->endpoint, x->status);
    return result;
}

enum MHD_Result http_send_reply(http_exchange *x) {
    size_t size = x->reply.size;
    char *body = x->reply.failed ? NULL : buf_take(&x->reply);
    if (!body) return MHD_NO;
    http_exchange_set_phase(x, HTTP_DONE);
    int64_t time = x->server->options.write_timeout_ns +
                   (int64_t)(size / REPLY_BYTES_PER_SECOND) * CLOCK_SECOND;
    http_conn_deadline(x->conn, clock_now_ns() + time);
    return send_response(x, MHD_create_response_from_buffer_with_free_callback(size, body, free));
}

static enum MHD_Result send_end_error(http_exchange *x, const answer_end *end) {
    refusal why;
    refuse_status(&why, end->why, NULL, NULL);
    why.retry_after_ms = end->retry_after_ms;
    http_reply_refusal(x, &why);
    return http_send_reply(x);
}

// ---- streams ----

// The header can only say who answers first; what follows is in the body.
static void note_server(http_exchange *x, const sink_event *event) {
    if (event->kind == SINK_PIECE && event->piece.served_by && !x->served_by[0])
        snprintf(x->served_by, sizeof x->served_by, "%s", event->piece.served_by);
}

// Events that wait become bytes in x->out. False when there were none.
static bool format_events(http_exchange *x) {
    bool some = x->taken_at < x->taken.size;
    if (!some) {
        some = sink_stream_take(x->answer.stream, &x->taken);
        x->taken_at = 0;
    }
    sink_event event;
    while (sink_event_next(&x->taken, &x->taken_at, &event)) {
        if (event.kind == SINK_PIECE) {
            x->answer.piece(x->answer.state, &event.piece, &x->out);
        } else {
            x->answer.end(x->answer.state, &event.end, &x->out);
            x->ended = true;
            x->failed = event.end.why.code != STATUS_OK;
        }
    }
    return some;
}

static bool take_keep_alive(http_exchange *x) {
    pthread_mutex_lock(&x->lock);
    bool due = x->keep_alive_due;
    x->keep_alive_due = false;
    pthread_mutex_unlock(&x->lock);
    return due;
}

static void suspend(void *exchange) {
    http_exchange_suspend(exchange);
}

static bool is_gone(http_exchange *x) {
    pthread_mutex_lock(&x->lock);
    bool gone = x->gone;
    pthread_mutex_unlock(&x->lock);
    return gone;
}

// Fills x->out. 1: there are bytes; 0: suspended; MHD_CONTENT_READER_END_*: that is all.
static ssize_t fill(http_exchange *x) {
    for (;;) {
        x->out_sent = 0;
        buf_clear(&x->out);
        if (x->ended) return MHD_CONTENT_READER_END_OF_STREAM;
        if (is_gone(x) || sink_stream_is_cancelled(x->answer.stream))
            return MHD_CONTENT_READER_END_WITH_ERROR;
        if (!format_events(x) && take_keep_alive(x)) sse_keep_alive(&x->out);
        if (x->out.failed) return MHD_CONTENT_READER_END_WITH_ERROR;
        if (x->out.size) return 1;
        if (x->ended) continue;
        if (sink_stream_sleep(x->answer.stream, suspend))
            return is_gone(x) ? MHD_CONTENT_READER_END_WITH_ERROR : 0;
    }
}

static ssize_t read_stream(void *exchange, uint64_t position, char *to, size_t room) {
    (void)position;
    http_exchange *x = exchange;
    int64_t now = clock_now_ns();
    atomic_store(&x->sending_since_ns, 0);
    if (x->out_sent == x->out.size) {
        ssize_t filled = fill(x);
        if (filled < 0) http_conn_deadline(x->conn, now + x->server->options.write_timeout_ns);
        if (filled <= 0) return filled;
    }
    size_t size = x->out.size - x->out_sent < room ? x->out.size - x->out_sent : room;
    memcpy(to, x->out.data + x->out_sent, size);
    x->out_sent += size;
    atomic_store(&x->sending_since_ns, now);
    atomic_store(&x->last_sent_ns, now);
    return (ssize_t)size;
}

static enum MHD_Result begin_stream(http_exchange *x) {
    http_exchange_set_phase(x, HTTP_STREAMING);
    x->status = 200;
    x->content_type = "text/event-stream; charset=utf-8";
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, x, NULL);
    if (!response) return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    MHD_add_response_header(response, "X-Accel-Buffering", "no"); // nginx: pass events on at once
    return send_response(x, response);
}

// Something waits, or the client must see life: an error in the first event is still an HTTP
// status.
enum MHD_Result http_answer_events(http_exchange *x) {
    if (sink_stream_take(x->answer.stream, &x->taken)) {
        sink_event event;
        size_t at = 0;
        bool some = sink_event_next(&x->taken, &at, &event);
        if (some && event.kind == SINK_END && event.end.why.code != STATUS_OK) {
            x->ended = true;
            return send_end_error(x, &event.end);
        }
        if (some) note_server(x, &event);
        x->taken_at = 0;
        return begin_stream(x);
    }
    if (sink_stream_is_cancelled(x->answer.stream)) return MHD_NO;
    pthread_mutex_lock(&x->lock);
    bool due = x->keep_alive_due;
    pthread_mutex_unlock(&x->lock);
    if (due) return begin_stream(x);
    if (sink_stream_sleep(x->answer.stream, suspend)) return is_gone(x) ? MHD_NO : MHD_YES;
    return http_answer_events(x);
}

static enum MHD_Result refuse_large_answer(http_exchange *x) {
    http_reply_error(x, 500, "The answer is too large to be sent whole. Use 'stream': true.", NULL,
                     NULL);
    return http_send_reply(x);
}

enum MHD_Result http_answer_whole(http_exchange *x) {
    if (sink_stream_is_cancelled(x->answer.stream)) return refuse_large_answer(x);
    if (sink_stream_sleep(x->answer.stream, suspend))
        return is_gone(x) ? MHD_NO : MHD_YES; // not yet its end
    sink_event event;
    sink_stream_take(x->answer.stream, &x->taken);
    while (sink_event_next(&x->taken, &x->taken_at, &event)) {
        note_server(x, &event);
        if (event.kind == SINK_PIECE) {
            x->answer.piece(x->answer.state, &event.piece, NULL);
            continue;
        }
        x->ended = true;
        if (event.end.why.code != STATUS_OK) return send_end_error(x, &event.end);
        x->answer.end(x->answer.state, &event.end, &x->out);
    }
    if (!x->ended) return MHD_NO;
    if (x->out.failed) return refuse_large_answer(x);
    http_reply(x, 200, "application/json", &x->out);
    return http_send_reply(x);
}
