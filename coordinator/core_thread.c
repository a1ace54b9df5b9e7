// core_thread: pops events, runs the core, carries out what it says. One lock guards the core
// against those who only want to look; it is held while an event is handled (some ten
// microseconds), never while effects are carried out.
#include "coordinator/core_thread.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/ring.h"
#include "common/base/urgent.h"
#include "coordinator/ingress/sink.h"
#include "coordinator/model_registry.h"

enum {
    WAIT_MS_MAX = 1000,    // longest sleep when nothing is to come
    CANCEL_WAIT_MS = 1000, // then it is tried again, as long as the core lives
    DRAIN_POLL_MS = 20,
    DRAIN_GRACE_MS = 2000, // past the deadline, for the core's thread to say so
};

typedef enum drain_state { DRAIN_NONE, DRAIN_ASKED, DRAIN_COMPLETE, DRAIN_LATE } drain_state;

struct core_thread {
    pthread_mutex_t lock; // of `core`
    core *core;           // NULL once stopped
    core_effects *effects;
    core_ports ports;
    ring *events;
    int requests_most;
    atomic_int requests_waiting; // in `events`: they may not crowd out what workers say
    pthread_t thread;
    bool started;
    atomic_int drain; // drain_state

    uint64_t *gone; // requests whose sink has no listener: to be cancelled
    size_t gone_count, gone_room;
};

status core_thread_create(const core_thread_options *options, core_thread **out) {
    status s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the core");
    core_thread *t = calloc(1, sizeof *t);
    if (!t) return s;
    pthread_mutex_init(&t->lock, NULL);
    t->requests_most = options->core.max_queue;
    t->core = core_create(&options->core);
    t->effects = core_effects_create();
    t->events = ring_create(sizeof(core_event), (size_t)options->queue + (size_t)t->requests_most);
    if (t->core && t->effects && t->events) {
        *out = t;
        return status_ok();
    }
    core_thread_destroy(t);
    return s;
}

// ---- effects ----

static void end_request(core_thread *t, core_request *r, const answer_end *end) {
    const usage_port *usage = &t->ports.observe.usage;
    if (usage->ledger) usage->usage(usage->ledger, &(usage_record){r, end});
    sink_end(r->sink, end);
    served_model_release(r->owner);
    arena_destroy(r->memory);
}

// Nobody listens: the cancel is an event of its own, handled when these effects are done.
static void note_gone(core_thread *t, uint64_t id) {
    if (t->gone_count == t->gone_room) {
        size_t room = t->gone_room ? 2 * t->gone_room : 64;
        uint64_t *grown = realloc(t->gone, room * sizeof *grown);
        if (!grown) return; // its next piece says so again
        t->gone = grown;
        t->gone_room = room;
    }
    t->gone[t->gone_count++] = id;
}

static void record_call(core_thread *t, const core_effect *e) {
    const usage_port *usage = &t->ports.observe.usage;
    if (!usage->ledger) return;
    usage->call(usage->ledger, &(call_record){.request_id = e->call_done.public_id,
                                              .key = e->call_done.client,
                                              .upstream = e->call_done.upstream,
                                              .call = e->call_done.call,
                                              .failover = e->call_done.failover,
                                              .end = &e->call_done.end});
}

static void carry_out(core_thread *t, core_effect *e) {
    group_port *g = &t->ports.groups;
    switch (e->kind) {
    case CORE_PIECE:
        if (!sink_piece(e->piece.sink, &e->piece.piece)) note_gone(t, e->piece.request_id);
        break;
    case CORE_END:
        end_request(t, e->end.request, &e->end.end);
        break;
    case CORE_SEND_PLAN:
        g->send_plan(g->links, e->epoch, &e->plan);
        break;
    case CORE_REGISTER_REPLY:
        g->register_reply(g->links, e->joined.reply, &e->joined.why, e->epoch, &e->joined.response);
        break;
    case CORE_CLOSE_GROUP:
        g->close_group(g->links, e->epoch, e->reason, e->rejoin);
        break;
    case CORE_DRAIN_REPLY:
        if (e->drained.reply == t)
            atomic_store(&t->drain, e->drained.drained ? DRAIN_COMPLETE : DRAIN_LATE);
        else
            g->drain_reply(g->links, e->drained.reply, e->drained.drained, e->drained.running);
        break;
    case CORE_LOG:
        log_write((log_level)e->log.level, e->log.subject, "%s", e->log.line);
        break;
    case CORE_CALL_UPSTREAM:
        t->ports.upstreams.call(t->ports.upstreams.links, e);
        break;
    case CORE_CANCEL_UPSTREAM:
        t->ports.upstreams.cancel(t->ports.upstreams.links, e->call.call);
        break;
    case CORE_CALL_DONE:
        record_call(t, e);
        break;
    case CORE_NOTICE:
        if (t->ports.observe.notice) t->ports.observe.notice(t->ports.observe.events, &e->notice);
        break;
    }
}

static void carry_out_all(core_thread *t) {
    for (size_t i = 0; i < core_effects_count(t->effects); i++)
        carry_out(t, core_effects_at(t->effects, i));
    core_effects_clear(t->effects);
}

// ---- the thread ----

static void handle(core_thread *t, const core_event *event) {
    pthread_mutex_lock(&t->lock);
    core_handle(t->core, event, clock_now_ns(), t->effects);
    pthread_mutex_unlock(&t->lock);
    carry_out_all(t);
    while (t->gone_count > 0) {
        core_event cancel = {.kind = CORE_CANCEL, .request_id = t->gone[--t->gone_count]};
        pthread_mutex_lock(&t->lock);
        core_handle(t->core, &cancel, clock_now_ns(), t->effects);
        pthread_mutex_unlock(&t->lock);
        carry_out_all(t);
    }
}

// When to look up at the latest.
static int64_t wake_at(const core_thread *t) {
    int64_t timer = core_next_timer(t->core);
    int64_t latest = clock_now_ns() + WAIT_MS_MAX * CLOCK_MS;
    return timer < latest ? timer : latest;
}

static void *run(void *argument) {
    core_thread *t = argument;
    core_event event;
    (void)urgent_this_thread(); // each group waits for it, each step
    for (;;) {
        if (ring_pop(t->events, &event, wake_at(t))) {
            if (event.kind == CORE_REQUEST) atomic_fetch_sub(&t->requests_waiting, 1);
            handle(t, &event);
            core_event_free(&event);
        } else if (ring_is_closed(t->events) && ring_count(t->events) == 0) {
            break;
        } else if (core_next_timer(t->core) <= clock_now_ns()) {
            handle(t, &(core_event){.kind = CORE_TIMER});
        }
    }
    pthread_mutex_lock(&t->lock);
    core_destroy(t->core, t->effects);
    t->core = NULL;
    pthread_mutex_unlock(&t->lock);
    carry_out_all(t);
    return NULL;
}

status core_thread_start(core_thread *t, const core_ports *ports) {
    assert(!t->started);
    t->ports = *ports;
    if (pthread_create(&t->thread, NULL, run, t))
        return status_error(STATUS_RESOURCE_EXHAUSTED, "cannot start the core's thread");
    t->started = true;
    return status_ok();
}

// ---- what other threads call ----

bool core_thread_post(core_thread *t, const core_event *event, int64_t deadline_ns) {
    assert(event->kind != CORE_REQUEST);
    return ring_push(t->events, event, deadline_ns);
}

bool core_thread_submit(void *core_thread_, struct core_request *request) {
    core_thread *t = core_thread_;
    core_event event = {.kind = CORE_REQUEST, .request = request};
    bool room = atomic_fetch_add(&t->requests_waiting, 1) < t->requests_most;
    if (room && ring_try_push(t->events, &event)) return true;
    atomic_fetch_sub(&t->requests_waiting, 1);
    return false;
}

void core_thread_cancel(void *core_thread_, uint64_t id) {
    core_thread *t = core_thread_;
    core_event event = {.kind = CORE_CANCEL, .request_id = id};
    while (!ring_push(t->events, &event, clock_now_ns() + CANCEL_WAIT_MS * CLOCK_MS))
        if (ring_is_closed(t->events)) return; // it ends every request now
}

status core_thread_look(void *core_thread_, arena *memory, core_view *out) {
    core_thread *t = core_thread_;
    pthread_mutex_lock(&t->lock);
    status s = t->core ? core_look(t->core, clock_now_ns(), memory, out)
                       : status_error(STATUS_UNAVAILABLE, "the coordinator is shutting down");
    pthread_mutex_unlock(&t->lock);
    return s;
}

bool core_thread_drain(core_thread *t, int64_t deadline_ns) {
    core_event event = {.kind = CORE_DRAIN, .drain = {.deadline_ns = deadline_ns, .reply = t}};
    atomic_store(&t->drain, DRAIN_ASKED);
    int64_t last = deadline_ns + DRAIN_GRACE_MS * CLOCK_MS;
    if (!core_thread_post(t, &event, last)) return false;
    while (atomic_load(&t->drain) == DRAIN_ASKED && clock_now_ns() < last)
        clock_sleep_until(clock_now_ns() + DRAIN_POLL_MS * CLOCK_MS);
    return atomic_load(&t->drain) == DRAIN_COMPLETE;
}

void core_thread_stop(core_thread *t) {
    if (!t->started) return;
    ring_close(t->events);
    pthread_join(t->thread, NULL);
    t->started = false;
}

void core_thread_destroy(core_thread *t) {
    if (!t) return;
    assert(!t->started);
    if (t->core) core_destroy(t->core, t->effects); // never started: nobody is in it
    core_effects_destroy(t->effects);
    ring_destroy(t->events);
    free(t->gone);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
