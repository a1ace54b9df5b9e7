#include "coordinator/ingress/http_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "coordinator/ingress/openai_error.h"

enum { ERROR_BODY_MAX = 16 << 10, REPLY_BODY_MAX = 256 << 20 };

http_exchange *http_exchange_create(http_server *s, struct MHD_Connection *connection,
                                    http_conn *conn) {
    http_exchange *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    atomic_init(&x->holds, 1);
    pthread_mutex_init(&x->lock, NULL);
    x->server = s;
    x->connection = connection;
    x->conn = conn;
    x->endpoint = METRICS_OTHER;
    x->body = buf_make(s->options.body_limit);
    x->reply = buf_make(REPLY_BODY_MAX);
    x->taken = buf_make(REPLY_BODY_MAX);
    x->out = buf_make(REPLY_BODY_MAX);
    atomic_fetch_add(&s->active, 1);
    return x;
}

http_exchange *http_exchange_hold(http_exchange *x) {
    atomic_fetch_add(&x->holds, 1);
    return x;
}

void http_exchange_release(http_exchange *x) {
    if (atomic_fetch_sub(&x->holds, 1) > 1) return;
    if (x->answer.stream) {
        sink_stream_release(x->answer.stream);
        x->answer.free(x->answer.state);
        metrics_streams(x->server->options.in->metrics, -1);
    }
    free(x->rest);
    free(x->api_key);
    buf_free(&x->body);
    buf_free(&x->reply);
    buf_free(&x->taken);
    buf_free(&x->out);
    pthread_mutex_destroy(&x->lock);
    atomic_fetch_sub(&x->server->active, 1);
    free(x);
}

bool http_exchange_suspend(http_exchange *x) {
    pthread_mutex_lock(&x->lock);
    bool stays = !x->gone;
    if (stays) {
        x->suspended = true;
        MHD_suspend_connection(x->connection);
    }
    pthread_mutex_unlock(&x->lock);
    return stays;
}

static void resume_locked(http_exchange *x) {
    if (!x->suspended) return;
    x->suspended = false;
    MHD_resume_connection(x->connection);
}

void http_exchange_resume(http_exchange *x) {
    pthread_mutex_lock(&x->lock);
    resume_locked(x);
    pthread_mutex_unlock(&x->lock);
}

void http_exchange_set_phase(http_exchange *x, http_phase phase) {
    pthread_mutex_lock(&x->lock);
    x->phase = phase;
    pthread_mutex_unlock(&x->lock);
}

static bool is_answering(const http_exchange *x) {
    return x->phase == HTTP_ANSWERING || x->phase == HTTP_STREAMING;
}

static void cancel_answer(http_exchange *x) {
    sink_stream_cancel(x->answer.stream);
    x->answer.cancel(x->answer.state);
}

void http_exchange_gone(http_exchange *x) {
    pthread_mutex_lock(&x->lock);
    x->gone = true;
    bool answering = is_answering(x);
    if (answering) resume_locked(x); // else the worker does, when it is through
    pthread_mutex_unlock(&x->lock);
    if (answering) cancel_answer(x);
}

void http_exchange_check(http_exchange *x, int64_t now_ns) {
    int64_t sending_since = atomic_load(&x->sending_since_ns),
            last_sent = atomic_load(&x->last_sent_ns);
    if (sending_since && now_ns - sending_since > x->server->options.write_timeout_ns) {
        metrics_client_cut(x->server->options.in->metrics);
        http_conn_cut(x->conn, x);
        http_exchange_gone(x);
        return;
    }
    if (now_ns - last_sent < x->server->options.keep_alive_ns) return;
    pthread_mutex_lock(&x->lock);
    if (is_answering(x) && x->answer.events && x->suspended) {
        x->keep_alive_due = true;
        resume_locked(x);
    }
    pthread_mutex_unlock(&x->lock);
}

// ---- for endpoints ----

const ingress *http_exchange_ingress(const http_exchange *x) {
    return x->server->options.in;
}

const char *http_exchange_rest(const http_exchange *x) {
    return x->rest;
}

const buf *http_exchange_body(const http_exchange *x) {
    return &x->body;
}

const char *http_exchange_privacy(const http_exchange *x) {
    return x->privacy[0] ? x->privacy : NULL;
}

const char *http_exchange_api_key(const http_exchange *x) {
    return x->api_key;
}

const char *http_exchange_peer(const http_exchange *x) {
    return x->peer;
}

void http_exchange_name(http_exchange *x, const char *id) {
    if (!x->request_id[0]) snprintf(x->request_id, sizeof x->request_id, "%s", id);
}

bool http_exchange_is_draining(const http_exchange *x) {
    return atomic_load(&x->server->draining);
}

void http_reply(http_exchange *x, int http_status, const char *content_type, buf *body) {
    buf_free(&x->reply);
    x->reply = *body;
    *body = buf_make(body->limit);
    x->status = http_status;
    x->content_type = content_type;
    http_exchange_set_phase(x, HTTP_REPLY);
}

void http_reply_error(http_exchange *x, int http_status, const char *message, const char *param,
                      const char *code) {
    buf body = buf_make(ERROR_BODY_MAX);
    http_error_form *form = x->route && x->route->error ? x->route->error : openai_error_append;
    form(&body, http_status, message, param, code);
    http_reply(x, http_status, "application/json", &body);
}

void http_reply_refusal(http_exchange *x, const refusal *why) {
    x->retry_after_ms = why->retry_after_ms;
    http_reply_error(x, openai_error_http(why->why.code), why->why.message, why->param, why->code);
}

static void wake(void *exchange) {
    http_exchange_resume(exchange);
}

// A reader that is blocked on a full socket is never called again: only the socket's end frees it.
static void cut(void *exchange) {
    http_exchange *x = exchange;
    if (!x->answer.events) return; // nothing was sent yet: it can still be told
    metrics_client_cut(x->server->options.in->metrics);
    http_conn_cut(x->conn, x);
}

sink_edge http_exchange_edge(http_exchange *x) {
    return (sink_edge){.owner = x, .wake = wake, .cut = cut};
}

void http_reply_answer(http_exchange *x, const http_answer *answer, void (*send)(void *state)) {
    metrics_streams(x->server->options.in->metrics, 1);
    atomic_store(&x->last_sent_ns, clock_now_ns());
    pthread_mutex_lock(&x->lock);
    x->answer = *answer;
    x->phase = HTTP_ANSWERING;
    pthread_mutex_unlock(&x->lock);
    // The connection is suspended already: the first event resumes it.
    bool asleep = sink_stream_sleep(answer->stream, NULL);
    assert(asleep);
    send(answer->state);
    pthread_mutex_lock(&x->lock);
    bool gone = x->gone;
    if (gone) resume_locked(x);
    pthread_mutex_unlock(&x->lock);
    if (gone) cancel_answer(x);
}
