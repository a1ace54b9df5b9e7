// upstream_edge: the thread that makes the calls. The core's thread adds transfers and marks them
// cancelled; departures write their bodies and audit rows; from then on everything about a
// transfer, libcurl included, happens here.
//
// Each turn: take what departed, let libcurl move bytes, look at every transfer (what waits to be
// posted, cancels, clocks), then sleep until the earliest of the next clock, a byte, or a wake-up.
// The work of a turn grows with the open calls, as libcurl's own does.
#include "coordinator/upstream/upstream_edge.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/upstream/address.h"
#include "coordinator/upstream/departure.h"
#include "coordinator/upstream/keys.h"
#include "coordinator/upstream/transfer.h"

enum {
    BUCKETS = 1024, // of the table of calls; a power of two
    SLEEP_MS_MAX = 1000,
    KEYS_EVERY_MS = 1000, // the files of refused keys are looked at so often
    CONNECTIONS_KEPT = 256,
};

struct upstream_edge {
    upstream_edge_options options;
    upstream_keys *keys;
    departures *departures;
    CURLM *multi;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock;     // of all up to `open`
    pthread_cond_t fewer;     // `alive` has fallen
    transfer *table[BUCKETS]; // every call without an end yet, by its number
    int alive;
    transfer *ready; // departed or ended, the last first
    bool closing, stop;

    transfer *open; // the thread's own
    // Whose account was refused, with which version of its key; 0: not.
    uint64_t refused_key[POLICY_UPSTREAMS_MAX];
    int64_t keys_seen_ns;             // when their files were looked at
    bool fresh[POLICY_UPSTREAMS_MAX]; // the next call opens a connection: the last one ran into a
                                      // clock
};

// ---- what the core's thread does ----

static transfer **bucket(upstream_edge *e, uint64_t call) {
    return &e->table[call & (BUCKETS - 1)];
}

static void add_ready(void *edge, transfer *t) {
    upstream_edge *e = edge;
    pthread_mutex_lock(&e->lock);
    t->next = e->ready;
    e->ready = t;
    pthread_mutex_unlock(&e->lock);
    curl_multi_wakeup(e->multi);
}

static void call(void *links, const core_effect *effect) {
    upstream_edge *e = links;
    transfer *t = transfer_create(&e->options, effect, clock_now_ns());
    if (e->options.metrics) upstream_metrics_begin(e->options.metrics, t->upstream);
    pthread_mutex_lock(&e->lock);
    t->same_bucket = *bucket(e, t->call);
    *bucket(e, t->call) = t;
    bool full = e->alive++ >= UPSTREAM_CALLS_MAX, closing = e->closing;
    pthread_mutex_unlock(&e->lock);
    if (closing) transfer_refuse(t, UPSTREAM_CANCELLED, "the coordinator stops");
    if (full) transfer_refuse(t, UPSTREAM_BUSY, "as many calls are open as this coordinator makes");
    if (t->ended)
        add_ready(e, t);
    else
        departures_add(e->departures, t);
}

static void cancel(void *links, uint64_t number) {
    upstream_edge *e = links;
    pthread_mutex_lock(&e->lock);
    transfer *t = *bucket(e, number);
    while (t && t->call != number) t = t->same_bucket;
    if (t) atomic_store(&t->cancelled, true);
    pthread_mutex_unlock(&e->lock);
    curl_multi_wakeup(e->multi);
}

// ---- the thread ----

static void take_ready(upstream_edge *e) {
    pthread_mutex_lock(&e->lock);
    transfer *t = e->ready;
    e->ready = NULL;
    pthread_mutex_unlock(&e->lock);
    for (transfer *next; t; t = next) {
        next = t->next;
        t->next = e->open;
        e->open = t;
        if (t->ended) continue;
        transfer_open(t, e->multi, e->fresh[t->upstream]);
        e->fresh[t->upstream] = false;
    }
}

static void read_messages(upstream_edge *e, int64_t now_ns) {
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(e->multi, &left));) {
        if (m->msg != CURLMSG_DONE) continue;
        transfer *t = NULL;
        CURLcode code = m->data.result; // `m` goes with the handle
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        transfer_closed(t, code, now_ns);
        transfer_close(t, e->multi);
    }
}

// The core has its end. The table forgets it; the connection may still come to its own.
static void forget(upstream_edge *e, transfer *t) {
    if (t->end.outcome == UPSTREAM_ACCOUNT) e->refused_key[t->upstream] = t->key_version;
    if (e->options.metrics) upstream_metrics_end(e->options.metrics, t->upstream, &t->end);
    pthread_mutex_lock(&e->lock);
    transfer **at = bucket(e, t->call);
    while (*at != t) at = &(*at)->same_bucket;
    *at = t->same_bucket;
    e->alive--;
    pthread_cond_broadcast(&e->fewer);
    pthread_mutex_unlock(&e->lock);
}

// A key that was refused has been replaced: its upstream may be called again.
static void look_at_keys(upstream_edge *e, int64_t now_ns) {
    if (now_ns - e->keys_seen_ns < KEYS_EVERY_MS * CLOCK_MS) return;
    e->keys_seen_ns = now_ns;
    for (int i = 0; i < e->options.policy->count; i++) {
        if (!e->refused_key[i] || upstream_keys_version(e->keys, i) == e->refused_key[i]) continue;
        core_event event = {.kind = CORE_UPSTREAM_RENEWED, .renewed = i};
        if (e->options.post(e->options.core, &event, 0)) e->refused_key[i] = 0; // else: again
    }
}

// Looks at one; returns when to do so again.
static int64_t look(upstream_edge *e, transfer *t, bool closing, int64_t now_ns) {
    bool was_told = t->told;
    if (closing) transfer_stop(t, now_ns);
    int64_t next = transfer_look(t, now_ns);
    if (t->told && !was_told) forget(e, t);
    if (t->timed_out) e->fresh[t->upstream] = true;
    // An end that was seen leaves a connection worth keeping; any other does not.
    bool lingers = t->linger_until_ns != INT64_MAX && now_ns < t->linger_until_ns && !closing;
    if (t->ended && !lingers) transfer_close(t, e->multi);
    return next;
}

static int64_t look_at_all(upstream_edge *e, bool closing) {
    int64_t now_ns = clock_now_ns(), next = now_ns + SLEEP_MS_MAX * CLOCK_MS;
    for (transfer **at = &e->open, *t; (t = *at);) {
        int64_t due = look(e, t, closing, now_ns);
        if (transfer_is_over(t)) {
            *at = t->next;
            transfer_free(t);
            continue;
        }
        if (due < next) next = due;
        at = &t->next;
    }
    return next;
}

static void sleep_until(upstream_edge *e, int64_t due_ns) {
    int64_t left_ns = due_ns - clock_now_ns();
    int ms = left_ns > 0 ? (int)((left_ns + CLOCK_MS - 1) / CLOCK_MS) : 0;
    curl_multi_poll(e->multi, NULL, 0, ms, NULL);
}

static void *run(void *argument) {
    upstream_edge *e = argument;
    for (;;) {
        pthread_mutex_lock(&e->lock);
        bool stop = e->stop, closing = e->closing;
        pthread_mutex_unlock(&e->lock);
        if (stop) return NULL;
        int running = 0;
        take_ready(e);
        curl_multi_perform(e->multi, &running);
        read_messages(e, clock_now_ns());
        look_at_keys(e, clock_now_ns());
        sleep_until(e, look_at_all(e, closing));
    }
}

// ---- life ----

static status check(const upstream_edge_options *o) {
    assert(o->policy->count >= 1 && o->policy->count <= POLICY_UPSTREAMS_MAX && o->post);
    if (!o->usage.leave)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "upstreams need books, or nothing may leave; give --data-dir");
    for (int i = 0; i < o->policy->count; i++) TRY(upstream_address_check(&o->policy->items[i]));
    return status_ok();
}

static status start(upstream_edge *e) {
    if (!(e->multi = curl_multi_init()))
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for calls of upstreams");
    curl_multi_setopt(e->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_KEPT);
    curl_multi_setopt(e->multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
    TRY(upstream_keys_open(e->options.policy, &e->keys));
    TRY(departures_create(e->keys, e, add_ready, &e->departures));
    if (pthread_create(&e->thread, NULL, run, e))
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no thread for calls of upstreams");
    e->started = true;
    return status_ok();
}

status upstream_edge_create(const upstream_edge_options *options, upstream_edge **out) {
    TRY(check(options));
    upstream_edge *e = calloc(1, sizeof *e);
    if (!e) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for calls of upstreams");
    e->options = *options;
    pthread_mutex_init(&e->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&e->fewer, &monotonic);
    pthread_condattr_destroy(&monotonic);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    status s = start(e);
    if (status_is_ok(&s))
        *out = e;
    else
        upstream_edge_destroy(e);
    return s;
}

upstream_port upstream_edge_port(upstream_edge *e) {
    return (upstream_port){.links = e, .call = call, .cancel = cancel};
}

// Under the lock.
static void cancel_all(upstream_edge *e) {
    for (int i = 0; i < BUCKETS; i++)
        for (transfer *t = e->table[i]; t; t = t->same_bucket) atomic_store(&t->cancelled, true);
}

void upstream_edge_close(upstream_edge *e, int64_t deadline_ns) {
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / CLOCK_SECOND),
                             .tv_nsec = (long)(deadline_ns % CLOCK_SECOND)};
    pthread_mutex_lock(&e->lock);
    e->closing = true;
    cancel_all(e);
    curl_multi_wakeup(e->multi);
    while (e->alive > 0 && !pthread_cond_timedwait(&e->fewer, &e->lock, &until)) {
    }
    int left = e->alive;
    pthread_mutex_unlock(&e->lock);
    if (left) log_warn("upstream", "the ends of %d calls were not taken in time", left);
}

static void free_all(upstream_edge *e, transfer *t) {
    for (transfer *next; t; t = next) {
        next = t->next;
        transfer_close(t, e->multi);
        transfer_free(t);
    }
}

void upstream_edge_destroy(upstream_edge *e) {
    if (!e) return;
    pthread_mutex_lock(&e->lock);
    cancel_all(e);
    e->stop = true;
    pthread_mutex_unlock(&e->lock);
    departures_destroy(e->departures);
    if (e->started) {
        curl_multi_wakeup(e->multi);
        pthread_join(e->thread, NULL);
    }
    free_all(e, e->ready);
    free_all(e, e->open);
    upstream_keys_close(e->keys);
    if (e->multi) curl_multi_cleanup(e->multi);
    curl_global_cleanup();
    pthread_cond_destroy(&e->fewer);
    pthread_mutex_destroy(&e->lock);
    free(e);
}
