// What libmicrohttpd calls: bytes in, bytes out. A connection is suspended while its handler works
// and whenever its stream has nothing to send.
#include "coordinator/ingress/http_internal.h"

#include <arpa/inet.h>
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "coordinator/ingress/api_keys.h"
#include "coordinator/ingress/openai_error.h"
#include "coordinator/ingress/sse.h"

enum {
    STREAM_BLOCK_BYTES = 16 << 10, // most bytes of one chunk
    REPLY_BYTES_PER_SECOND =
        64 << 10, // a whole response may take its size over this, and write_timeout
};

// ---- connections ----

void http_on_connection(void *server, struct MHD_Connection *connection, void **conn,
                        enum MHD_ConnectionNotificationCode what) {
    http_server *s = server;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*conn) http_conn_end(*conn);
        *conn = NULL;
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    *conn = info ? http_conn_begin(s->conns, info->connect_fd,
                                   clock_now_ns() + s->options.header_timeout_ns)
                 : NULL;
}

static void read_peer(http_exchange *x) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (!info || !info->client_addr) return;
    const struct sockaddr *address = info->client_addr;
    const void *bytes = address->sa_family == AF_INET6
                            ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
                            : (const void *)&((const struct sockaddr_in *)address)->sin_addr;
    inet_ntop(address->sa_family, bytes, x->peer, sizeof x->peer);
}

static const char *header(const http_exchange *x, const char *name) {
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

// Taken over only if it is harmless in a header and in a log line.
static void read_request_id(http_exchange *x) {
    const char *id = header(x, "x-request-id");
    if (!id || strlen(id) > HTTP_REQUEST_ID_MAX) return;
    for (const char *c = id; *c; c++)
        if (*c <= ' ' || *c >= 0x7f) return;
    memcpy(x->request_id, id, strlen(id) + 1);
}

// ---- responses ----

static void add_headers(http_exchange *x, struct MHD_Response *response) {
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, x->content_type);
    if (x->request_id[0]) MHD_add_response_header(response, "x-request-id", x->request_id);
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

static enum MHD_Result send_reply(http_exchange *x) {
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
    return send_reply(x);
}

// ---- streams ----

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
static enum MHD_Result answer_events(http_exchange *x) {
    if (sink_stream_take(x->answer.stream, &x->taken)) {
        sink_event event;
        size_t at = 0;
        if (sink_event_next(&x->taken, &at, &event) && event.kind == SINK_END &&
            event.end.why.code != STATUS_OK) {
            x->ended = true;
            return send_end_error(x, &event.end);
        }
        x->taken_at = 0;
        return begin_stream(x);
    }
    if (sink_stream_is_cancelled(x->answer.stream)) return MHD_NO;
    pthread_mutex_lock(&x->lock);
    bool due = x->keep_alive_due;
    pthread_mutex_unlock(&x->lock);
    if (due) return begin_stream(x);
    if (sink_stream_sleep(x->answer.stream, suspend)) return is_gone(x) ? MHD_NO : MHD_YES;
    return answer_events(x);
}

static enum MHD_Result refuse_large_answer(http_exchange *x) {
    http_reply_error(x, 500, "The answer is too large to be sent whole. Use 'stream': true.", NULL,
                     NULL);
    return send_reply(x);
}

static enum MHD_Result answer_whole(http_exchange *x) {
    if (sink_stream_is_cancelled(x->answer.stream)) return refuse_large_answer(x);
    if (sink_stream_sleep(x->answer.stream, suspend))
        return is_gone(x) ? MHD_NO : MHD_YES; // not yet its end
    sink_event event;
    sink_stream_take(x->answer.stream, &x->taken);
    while (sink_event_next(&x->taken, &x->taken_at, &event)) {
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
    return send_reply(x);
}

// ---- requests ----

// What can be said without reading the body. True: replied.
static bool refuse_header(http_exchange *x, const char *method, const char *url) {
    const char *rest = "", *allow = NULL;
    int status;
    x->route = http_route_find(method, url, &rest, &status, &allow);
    if (!x->route) {
        char message[256];
        snprintf(message, sizeof message,
                 status == 405 ? "Method not allowed: %.8s %.160s" : "Unknown URL: %.8s %.160s",
                 method, url);
        x->allow = allow;
        http_reply_error(x, status, message, NULL,
                         status == 405 ? "method_not_supported" : "unknown_url");
        return true;
    }
    x->endpoint = x->route->endpoint;
    const char *key = api_key_from_header(header(x, MHD_HTTP_HEADER_AUTHORIZATION));
    x->rest = strdup(rest);
    x->api_key = key ? strdup(key) : NULL;
    const char *type = header(x, MHD_HTTP_HEADER_CONTENT_TYPE);
    if (!strcmp(x->route->method, "POST") && type && strncasecmp(type, "application/json", 16)) {
        http_reply_error(x, 415, "Unsupported media type: send 'Content-Type: application/json'.",
                         NULL, NULL);
        return true;
    }
    return false;
}

static void refuse_size(http_exchange *x) {
    char message[128];
    snprintf(message, sizeof message, "The body is larger than this server takes (%zu bytes).",
             x->server->options.body_limit);
    http_reply_error(x, 413, message, NULL, "request_too_large");
}

static enum MHD_Result begin_request(http_server *s, struct MHD_Connection *connection,
                                     const char *url, const char *method, void **exchange) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    http_conn *conn = info ? info->socket_context : NULL;
    if (!conn) return MHD_NO; // more connections than are watched
    http_exchange *x = http_exchange_create(s, connection, conn);
    if (!x) return MHD_NO;
    *exchange = x;
    http_conn_deadline(conn, clock_now_ns() + s->options.body_timeout_ns);
    read_peer(x);
    read_request_id(x);
    const char *length = header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    bool too_large = length && strtoull(length, NULL, 10) > s->options.body_limit;
    if (!refuse_header(x, method, url) && too_large) refuse_size(x);
    // A client that asked first is told before it sends; others are heard out, so that they read
    // the answer, not a reset.
    return x->phase == HTTP_REPLY && header(x, MHD_HTTP_HEADER_EXPECT) ? send_reply(x) : MHD_YES;
}

// Bytes beyond the limit are read and dropped; the body's deadline bounds that.
static void read_body(http_exchange *x, const char *data, size_t size) {
    if (x->phase != HTTP_READING || x->body_too_large) return;
    if (!buf_append(&x->body, data, size)) {
        x->body_too_large = true;
        buf_free(&x->body);
    }
}

// The request is whole: run its handler here, or suspend and have a worker run it.
static enum MHD_Result dispatch(http_exchange *x) {
    http_server *s = x->server;
    http_conn_deadline(x->conn, INT64_MAX);
    if (x->body_too_large) refuse_size(x);
    if (x->phase == HTTP_REPLY) return send_reply(x);
    if (x->route->quick) {
        x->route->handler(x);
        return send_reply(x);
    }
    http_exchange_set_phase(x, HTTP_WORKING);
    http_conn_watch(x->conn, x);
    if (!http_exchange_suspend(x)) return MHD_NO;
    http_exchange *job = http_exchange_hold(x);
    if (ring_try_push(s->jobs, &job)) return MHD_YES;
    http_exchange_release(x);
    http_exchange_resume(x);
    x->retry_after_ms = 1000;
    http_reply_error(x, 503, "The server is busy. Try again later.", NULL, NULL);
    return MHD_YES; // called again after the resume, with the reply ready
}

enum MHD_Result http_on_request(void *server, struct MHD_Connection *connection, const char *url,
                                const char *method, const char *version, const char *data,
                                size_t *data_size, void **exchange) {
    (void)version;
    http_exchange *x = *exchange;
    if (!x) return begin_request(server, connection, url, method, exchange);
    if (*data_size) {
        read_body(x, data, *data_size);
        *data_size = 0;
        return MHD_YES;
    }
    pthread_mutex_lock(&x->lock);
    http_phase phase = x->phase;
    bool gone = x->gone;
    pthread_mutex_unlock(&x->lock);
    if (gone) return MHD_NO;
    switch (phase) {
    case HTTP_READING:
        return dispatch(x);
    case HTTP_REPLY:
        return send_reply(x);
    case HTTP_ANSWERING:
        return x->answer.events ? answer_events(x) : answer_whole(x);
    case HTTP_WORKING: // woken without reason
    case HTTP_STREAMING:
    case HTTP_DONE:
        break;
    }
    return MHD_YES;
}

void http_on_completed(void *server, struct MHD_Connection *connection, void **exchange,
                       enum MHD_RequestTerminationCode how) {
    (void)connection;
    (void)how;
    http_server *s = server;
    http_exchange *x = *exchange;
    if (!x) return;
    *exchange = NULL;
    http_conn_watch(x->conn, NULL);
    http_conn_deadline(x->conn, clock_now_ns() + s->options.idle_timeout_ns);
    if (x->answer.stream && !x->ended) {
        metrics_client_gone(s->options.in->metrics);
        sink_stream_cancel(x->answer.stream);
        x->answer.cancel(x->answer.state);
    }
    http_exchange_set_phase(x, HTTP_DONE);
    http_exchange_release(x);
}
