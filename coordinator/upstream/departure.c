#include "coordinator/upstream/departure.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/upstream/transfer_internal.h"

enum {
    RETRY_AFTER_MS = 1000,
    HEADER_LINE_MAX = UPSTREAM_KEY_MAX + 256,
};

struct departures {
    upstream_keys *keys;
    void *owner;
    void (*ready)(void *owner, transfer *t);
    pthread_mutex_t lock;
    pthread_cond_t work;
    transfer *first, *last;
    bool closed;
    int thread_count;
    pthread_t threads[DEPARTURE_THREADS];
};

// ---- one departure ----

// What is left of the answer when a part of it was said elsewhere.
static int32_t tokens_left(const transfer_ask *a) {
    int32_t asked = a->prompt.max_tokens;
    if (asked <= 0 || a->mode == UPSTREAM_FRESH) return 0;
    int64_t said = (int64_t)(a->partial_size / BYTES_PER_TOKEN);
    if (a->partial_tokens > 0) said = a->partial_tokens;
    int64_t left = asked - said;
    return left < 1 ? 1 : (int32_t)left;
}

static status add_header(transfer *t, const char *line) {
    struct curl_slist *grown = curl_slist_append(t->headers, line);
    if (!grown) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the headers");
    t->headers = grown;
    return status_ok();
}

static status make_headers(transfer *t, upstream_keys *keys) {
    upstream_api api = t->target->api;
    for (const char *const *line = codec_headers(api); *line; line++) TRY(add_header(t, *line));
    TRY(add_header(t, "Expect:")); // no round trip to ask whether the body is welcome
    buf key = buf_make(HEADER_LINE_MAX);
    status s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the key");
    if (upstream_keys_append(keys, t->upstream, codec_key_header(api), &key, &t->key_version))
        s = key.size ? add_header(t, buf_string(&key)) : status_ok();
    upstream_keys_wipe(&key);
    return s;
}

static status make_request(transfer *t, upstream_keys *keys) {
    const transfer_ask *a = &t->ask;
    codec_ask ask = {.target = t->target,
                     .prompt = &a->prompt,
                     .mode = a->mode,
                     .partial = a->partial,
                     .partial_size = a->partial_size,
                     .max_tokens = tokens_left(a),
                     .call = t->call};
    TRY(codec_url(t->target, &t->url));
    TRY(codec_body(&ask, &t->body));
    t->codec = codec_open(&ask, t->body.size);
    if (!t->codec) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
    return make_headers(t, keys);
}

static void refuse(transfer *t, const status *why) {
    switch (why->code) {
    case STATUS_FAILED_PRECONDITION: // this target cannot, another may
        transfer_refuse(t, UPSTREAM_CLIENT, why->message);
        t->end.other_target = true;
        break;
    case STATUS_INVALID_ARGUMENT:
        transfer_refuse(t, UPSTREAM_CLIENT, why->message);
        break;
    default: // ours, and it may pass
        transfer_refuse(t, UPSTREAM_BUSY, why->message);
        t->end.retry_after_ms = RETRY_AFTER_MS;
        break;
    }
}

static status write_audit(const transfer *t) {
    const usage_port *books = &t->edge->usage;
    leave_record r = {.request_id = t->request_id,
                      .key = t->ask.client,
                      .upstream = t->target,
                      .privacy = t->privacy,
                      .rule = t->ask.rule,
                      .body = buf_string(&t->body),
                      .size = t->body.size};
    status s = books->leave(books->ledger, &r);
    // Whatever went wrong there is not the request's fault.
    if (!status_is_ok(&s))
        return status_error(STATUS_UNAVAILABLE, "no audit row, so nothing was sent: %s", s.message);
    return s;
}

void transfer_depart(transfer *t, upstream_keys *keys) {
    status s = status_ok();
    if (!atomic_load(&t->cancelled)) s = make_request(t, keys);
    if (atomic_load(&t->cancelled))
        transfer_refuse(t, UPSTREAM_CANCELLED, "not wanted any more before it was sent");
    else if (status_is_ok(&s))
        s = write_audit(t);
    if (!t->ended && !status_is_ok(&s)) refuse(t, &s);
    arena_destroy(t->ask.memory);
    t->ask = (transfer_ask){.memory = NULL};
}

// ---- the threads ----

static transfer *take(departures *d) {
    pthread_mutex_lock(&d->lock);
    while (!d->first && !d->closed) pthread_cond_wait(&d->work, &d->lock);
    transfer *t = d->first;
    if (t) d->first = t->next;
    if (!d->first) d->last = NULL;
    pthread_mutex_unlock(&d->lock);
    return t;
}

static void *run(void *argument) {
    departures *d = argument;
    for (transfer *t; (t = take(d));) {
        transfer_depart(t, d->keys);
        d->ready(d->owner, t);
    }
    return NULL;
}

status departures_create(upstream_keys *keys, void *owner, void (*ready)(void *owner, transfer *t),
                         departures **out) {
    departures *d = calloc(1, sizeof *d);
    if (!d) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for calls of upstreams");
    d->keys = keys;
    d->owner = owner;
    d->ready = ready;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->work, NULL);
    for (; d->thread_count < DEPARTURE_THREADS; d->thread_count++)
        if (pthread_create(&d->threads[d->thread_count], NULL, run, d)) {
            departures_destroy(d);
            return status_error(STATUS_RESOURCE_EXHAUSTED, "no thread for calls of upstreams");
        }
    *out = d;
    return status_ok();
}

void departures_add(departures *d, transfer *t) {
    t->next = NULL;
    pthread_mutex_lock(&d->lock);
    if (d->last)
        d->last->next = t;
    else
        d->first = t;
    d->last = t;
    pthread_cond_signal(&d->work);
    pthread_mutex_unlock(&d->lock);
}

void departures_destroy(departures *d) {
    if (!d) return;
    pthread_mutex_lock(&d->lock);
    d->closed = true;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    for (int i = 0; i < d->thread_count; i++) pthread_join(d->threads[i], NULL);
    pthread_cond_destroy(&d->work);
    pthread_mutex_destroy(&d->lock);
    free(d);
}
