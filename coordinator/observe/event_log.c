// event_log: two hops. The core's thread copies a notice into a ring and goes on; the log's own
// thread numbers it, writes the line, keeps it, and tells the watchers, so that neither a slow disk
// nor a watcher ever holds the core.
#include "coordinator/observe/event_log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/ring.h"
#include "coordinator/observe/metrics.h"

enum { LINE_MAX = 8192, WAIT_MS = 1000 };

typedef struct watcher {
    event_log_tell *tell; // NULL: free
    void *user;
} watcher;

struct event_log {
    FILE *file; // NULL: memory only
    ring *queue;
    atomic_uint_fast64_t of_kind[NOTICE_KINDS], of_loss[LOSS_MEMORY + 1];
    atomic_uint_fast64_t left_out; // did not fit since the last that did
    pthread_t thread;
    pthread_mutex_t lock; // of what follows
    event_log_event kept[EVENT_LOG_KEPT];
    uint64_t count; // events so far: the newest is kept[(count - 1) % EVENT_LOG_KEPT]
    watcher watchers[EVENT_LOG_WATCHERS];
};

// ---- JSON ----

static void append_text(buf *out, const char *name, const char *text) {
    if (!text[0]) return;
    buf_printf(out, ",\"%s\":", name);
    json_append_string(out, text, strlen(text));
}

void event_log_append_json(const event_log_event *e, buf *out) {
    char time_text[32];
    time_t seconds = (time_t)(e->unix_ms / 1000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%S", &parts);
    buf_printf(out, "{\"sequence\":%" PRIu64 ",\"time\":\"%s.%03dZ\",\"kind\":\"%s\"", e->sequence,
               time_text, (int)(e->unix_ms % 1000), core_notice_name(e->kind));
    if (e->loss != LOSS_NONE) append_text(out, "loss", loss_reason_name(e->loss));
    append_text(out, "model", e->model);
    append_text(out, "group", e->group);
    if (e->epoch) buf_printf(out, ",\"epoch\":%" PRIu64, e->epoch);
    if (e->rank >= 0) buf_printf(out, ",\"rank\":%d", e->rank);
    append_text(out, "host", e->host);
    append_text(out, "upstream", e->upstream);
    if (e->sequences) buf_printf(out, ",\"sequences\":%d", e->sequences);
    append_text(out, "text", e->text);
    if (e->lost_before) buf_printf(out, ",\"lost_before\":%" PRIu64, e->lost_before);
    buf_append_char(out, '}');
}

// ---- the log's thread ----

static void write_line(event_log *l, const event_log_event *e, buf *line) {
    if (!l->file) return;
    buf_clear(line);
    event_log_append_json(e, line);
    buf_append_char(line, '\n');
    if (fwrite(line->data, 1, line->size, l->file) == line->size && fflush(l->file) == 0) return;
    log_warn("events", "the event log cannot be written, what follows is kept in memory only: %s",
             strerror(errno));
    fclose(l->file);
    l->file = NULL;
}

static void keep_and_tell(event_log *l, const event_log_event *e) {
    pthread_mutex_lock(&l->lock);
    l->kept[l->count++ % EVENT_LOG_KEPT] = *e;
    for (int i = 0; i < EVENT_LOG_WATCHERS; i++) {
        watcher *w = &l->watchers[i];
        if (w->tell && !w->tell(w->user, e)) *w = (watcher){0};
    }
    pthread_mutex_unlock(&l->lock);
}

static void *run(void *argument) {
    event_log *l = argument;
    event_log_event e;
    buf line = buf_make(LINE_MAX);
    for (;;) {
        if (ring_pop(l->queue, &e, clock_now_ns() + WAIT_MS * CLOCK_MS)) {
            e.sequence = l->count + 1; // this thread alone changes it
            write_line(l, &e, &line);
            keep_and_tell(l, &e);
        } else if (ring_is_closed(l->queue) && ring_count(l->queue) == 0) {
            break;
        }
    }
    buf_free(&line);
    return NULL;
}

// ---- life ----

status event_log_open(const char *path, event_log **out) {
    event_log *l = calloc(1, sizeof *l);
    if (!l) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the event log");
    status s = status_ok();
    pthread_mutex_init(&l->lock, NULL);
    l->queue = ring_create(sizeof(event_log_event), EVENT_LOG_QUEUE);
    if (!l->queue) s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the event log");
    if (status_is_ok(&s) && path && !(l->file = fopen(path, "ae")))
        s = status_error(STATUS_UNAVAILABLE, "cannot append to %s: %s", path, strerror(errno));
    if (status_is_ok(&s) && pthread_create(&l->thread, NULL, run, l) != 0)
        s = status_error(STATUS_RESOURCE_EXHAUSTED, "no thread for the event log");
    if (status_is_ok(&s)) {
        *out = l;
        return s;
    }
    if (l->file) fclose(l->file);
    ring_destroy(l->queue);
    pthread_mutex_destroy(&l->lock);
    free(l);
    return s;
}

void event_log_close(event_log *l) {
    if (!l) return;
    ring_close(l->queue);
    pthread_join(l->thread, NULL);
    if (l->file) fclose(l->file);
    ring_destroy(l->queue);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

// ---- writing ----

static void copy(char *to, size_t room, const char *from) {
    snprintf(to, room, "%s", from ? from : "");
}

void event_log_write(void *log, const core_notice *n) {
    event_log *l = log;
    atomic_fetch_add(&l->of_kind[n->kind], 1);
    if (n->kind == NOTICE_GROUP_LOST) atomic_fetch_add(&l->of_loss[n->loss], 1);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    event_log_event e = {.unix_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / CLOCK_MS,
                         .kind = n->kind,
                         .loss = n->loss,
                         .epoch = n->epoch,
                         .rank = n->rank,
                         .sequences = n->sequences};
    copy(e.model, sizeof e.model, n->model);
    copy(e.group, sizeof e.group, n->group);
    copy(e.host, sizeof e.host, n->host);
    copy(e.upstream, sizeof e.upstream, n->upstream);
    copy(e.text, sizeof e.text, n->text);
    e.lost_before = atomic_load(&l->left_out);
    if (ring_try_push(l->queue, &e))
        atomic_fetch_sub(&l->left_out, e.lost_before);
    else
        atomic_fetch_add(&l->left_out, 1);
}

void event_log_metrics_append(const event_log *l, buf *out) {
    metrics_append_head(out, "octant_events_total", "counter",
                        "What happened to groups, upstreams and requests, by kind.");
    for (int i = 0; i < NOTICE_KINDS; i++)
        buf_printf(out, "octant_events_total{kind=\"%s\"} %" PRIu64 "\n",
                   core_notice_name((core_notice_kind)i), (uint64_t)atomic_load(&l->of_kind[i]));
    metrics_append_head(out, "octant_group_losses_total", "counter",
                        "Groups declared LOST, by reason.");
    for (int i = LOSS_NONE + 1; i <= LOSS_MEMORY; i++)
        buf_printf(out, "octant_group_losses_total{loss=\"%s\"} %" PRIu64 "\n",
                   loss_reason_name((loss_reason)i), (uint64_t)atomic_load(&l->of_loss[i]));
}

// ---- watching ----

// What is kept and newer than `after`. False: the watcher has enough.
static bool tell_kept(const event_log *l, uint64_t after, event_log_tell *tell, void *user) {
    uint64_t oldest = l->count > EVENT_LOG_KEPT ? l->count - EVENT_LOG_KEPT : 0;
    for (uint64_t i = after > oldest ? after : oldest; i < l->count; i++)
        if (!tell(user, &l->kept[i % EVENT_LOG_KEPT])) return false;
    return true;
}

status event_log_watch(event_log *l, uint64_t after, event_log_tell *tell, void *user) {
    pthread_mutex_lock(&l->lock);
    watcher *free_place = NULL;
    for (int i = 0; i < EVENT_LOG_WATCHERS && !free_place; i++)
        if (!l->watchers[i].tell) free_place = &l->watchers[i];
    // Under the lock: no new event comes between the kept ones and the first that is told later.
    if (free_place && tell_kept(l, after, tell, user)) *free_place = (watcher){tell, user};
    pthread_mutex_unlock(&l->lock);
    if (free_place) return status_ok();
    return status_error(STATUS_RESOURCE_EXHAUSTED, "%d watch already; no more can",
                        EVENT_LOG_WATCHERS);
}

void event_log_unwatch(event_log *l, const void *user) {
    pthread_mutex_lock(&l->lock);
    for (int i = 0; i < EVENT_LOG_WATCHERS; i++)
        if (l->watchers[i].tell && l->watchers[i].user == user) l->watchers[i] = (watcher){0};
    pthread_mutex_unlock(&l->lock);
}
