// What libmicrohttpd calls: connections and requests on their way in. A connection is suspended
// while its handler works.
#include "coordinator/ingress/http_internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "coordinator/ingress/api_keys.h"

enum { HEARD_OUT_BYTES = 32 << 20 }; // of a body that is refused

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

// Several such headers that differ, like one that is cut here, are a word that nobody knows, which
// closes every door. An empty one does too: the client meant something.
static enum MHD_Result read_privacy(void *exchange, enum MHD_ValueKind kind, const char *name,
                                    const char *value) {
    (void)kind;
    http_exchange *x = exchange;
    if (strcasecmp(name, "octant-privacy")) return MHD_YES;
    if (!value || !*value || (x->privacy[0] && strcmp(x->privacy, value))) value = "unclear";
    snprintf(x->privacy, sizeof x->privacy, "%s", value);
    return MHD_YES;
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
    if (!key) key = header(x, "x-api-key"); // Anthropic's clients
    x->rest = strdup(rest);
    x->api_key = key ? strdup(key) : NULL;
    MHD_get_connection_values(x->connection, MHD_HEADER_KIND, read_privacy, x);
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
    unsigned long long size = length ? strtoull(length, NULL, 10) : 0;
    if (!refuse_header(x, method, url) && size > s->options.body_limit) refuse_size(x);
    // A client that asked first is told before it sends; others are heard out, within reason, so
    // that they read the answer, not a reset.
    bool now = header(x, MHD_HTTP_HEADER_EXPECT) || size > s->options.body_limit + HEARD_OUT_BYTES;
    return x->phase == HTTP_REPLY && now ? http_send_reply(x) : MHD_YES;
}

// Bytes beyond the limit are read and dropped; past HEARD_OUT_BYTES of them (or at the body's
// deadline) the connection is cut.
static enum MHD_Result read_body(http_exchange *x, const char *data, size_t size) {
    bool wanted = x->phase == HTTP_READING && !x->body_dropped;
    if (wanted && buf_append(&x->body, data, size)) return MHD_YES;
    if (wanted) buf_free(&x->body);
    x->body_dropped += size;
    return x->body_dropped <= HEARD_OUT_BYTES ? MHD_YES : MHD_NO;
}

// The request is whole: run its handler here, or suspend and have a worker run it.
static enum MHD_Result dispatch(http_exchange *x) {
    http_server *s = x->server;
    http_conn_deadline(x->conn, INT64_MAX);
    if (x->body_dropped && x->phase == HTTP_READING) refuse_size(x);
    if (x->phase == HTTP_REPLY) return http_send_reply(x);
    if (x->route->quick) {
        x->route->handler(x);
        return http_send_reply(x);
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
        enum MHD_Result more = read_body(x, data, *data_size);
        *data_size = 0;
        return more;
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
        return http_send_reply(x);
    case HTTP_ANSWERING:
        return x->answer.events ? http_answer_events(x) : http_answer_whole(x);
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
