// core: one event in, then whatever time has brought, then plans for every group that can take one.
#include "coordinator/core/core.h"

#include <assert.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "coordinator/core/admission.h"
#include "coordinator/core/deadlines.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/failover.h"
#include "coordinator/core/group.h"
#include "coordinator/core/lane.h"
#include "coordinator/core/membership.h"
#include "coordinator/core/request.h"
#include "coordinator/core/scheduler.h"

enum {
    STALL_MS = 200,         // a timer this late: the coordinator itself stood still
    HEAR_MS = 100,          // after no event at all for STALL_MS: time for what waits to be heard
    REQUEST_BUCKETS = 4096, // chains stay short: live requests are a few thousand
};

core_options core_default_options(void) {
    return (core_options){.max_queue = 1024,
                          .max_step_tokens = 256,
                          .max_seqs = 64,
                          .block_tokens = 16,
                          .heartbeat_ms = 100,
                          .heartbeat_timeout_ns = CLOCK_SECOND,
                          .start_timeout_ns = 30 * CLOCK_SECOND,
                          .step_timeout_ns = 60 * CLOCK_SECOND,
                          .no_group_wait_ns = 30 * CLOCK_SECOND,
                          .first_epoch = 1,
                          .hash_seed = 1};
}

core_request *core_request_create(void) {
    arena *memory = arena_create(SIZE_MAX);
    core_request *r = memory ? arena_alloc(memory, sizeof *r) : NULL;
    if (!r) {
        arena_destroy(memory);
        return NULL;
    }
    r->memory = memory;
    r->n = 1;
    r->sampling = sampling_default();
    r->route = (core_route){.local = true, .rule = "none"};
    return r;
}

core *core_create(const core_options *options) {
    assert(options->max_queue > 0 && options->max_seqs > 0 && options->block_tokens > 0);
    assert(options->max_seqs <= CLUSTER_SEQS_MAX &&
           options->block_tokens <= CLUSTER_BLOCK_TOKENS_MAX);
    assert(options->max_step_tokens >= options->max_seqs); // a row for each that decodes
    assert(options->max_step_tokens <= CLUSTER_STEP_TOKENS_MAX && options->first_epoch > 0);
    core *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->options = *options;
    c->timer_ns = INT64_MAX;
    c->next_epoch = options->first_epoch;
    c->next_group = c->next_order = 1;
    c->bucket_mask = REQUEST_BUCKETS - 1;
    c->buckets = calloc(REQUEST_BUCKETS, sizeof *c->buckets);
    if (c->buckets && failover_open(c)) return c;
    free(c->buckets);
    free(c);
    return NULL;
}

static void close_groups(core *c) {
    for (; c->group_count > 0; c->group_count--) {
        group *g = c->groups[c->group_count - 1];
        core_effect *e = effects_add(c->out, CORE_CLOSE_GROUP);
        e->epoch = g->epoch;
        e->reason = "the coordinator is shutting down";
        group_free(g);
    }
}

void core_destroy(core *c, core_effects *out) {
    c->out = out;
    for (request *r; (r = deadlines_first(&c->deadlines));)
        request_fail(r, c, status_error(STATUS_UNAVAILABLE, "the server has shut down"));
    close_groups(c);
    for (lane *l = c->lanes, *next; l; l = next) {
        next = l->next;
        lane_free(l);
    }
    deadlines_free(&c->deadlines);
    deadlines_free(&c->spills);
    failover_close(c);
    free(c->buckets);
    free(c->tokens);
    free(c);
}

void core_event_free(core_event *event) {
    if (event->kind == CORE_STEP_RESULT) arena_destroy(event->result.memory);
    if (event->kind == CORE_STEP_RESULT) event->result.memory = NULL;
    if (event->kind == CORE_UPSTREAM_CONTENT) free(event->upstream.memory);
    if (event->kind == CORE_UPSTREAM_CONTENT) event->upstream.memory = NULL;
}

static void cancel(core *c, uint64_t id) {
    request *r = request_find(c, id);
    if (r) request_fail(r, c, status_error(STATUS_CANCELLED, "the client went away"));
}

static void take_result(core *c, group *g, const step_result *result) {
    status s = scheduler_take_result(c, g, result);
    // An answer that makes no sense; DATA_LOSS: numbers that cannot be.
    if (!status_is_ok(&s))
        membership_lose(c, g, s.code == STATUS_DATA_LOSS ? LOSS_NUMBERS : LOSS_PROTOCOL, 0,
                        s.message);
}

// Events of a group that is gone find nobody.
static void dispatch_group(core *c, const core_event *e) {
    uint64_t epoch = e->kind == CORE_HEARTBEAT ? e->heartbeat.epoch : e->epoch;
    group *g = group_find(c, epoch);
    if (!g) return;
    switch (e->kind) {
    case CORE_GROUP_READY:
        membership_ready(c, g, &e->ready);
        break;
    case CORE_STEP_RESULT:
        take_result(c, g, &e->result);
        break;
    case CORE_GROUP_FAILED:
        membership_failed(c, g, &e->failed);
        break;
    case CORE_GROUP_CLOSED:
        membership_closed(c, g, e->reason);
        break;
    default:
        membership_heartbeat(c, g, &e->heartbeat);
        break;
    }
}

static void dispatch(core *c, const core_event *e) {
    switch (e->kind) {
    case CORE_TIMER:
        break;
    case CORE_REQUEST:
        admission_take(c, e->request);
        break;
    case CORE_CANCEL:
        cancel(c, e->request_id);
        break;
    case CORE_REGISTER:
        membership_register(c, e);
        break;
    case CORE_DRAIN:
        membership_drain(c, e);
        break;
    case CORE_UPSTREAM_CONTENT:
        failover_content(c, e);
        break;
    case CORE_UPSTREAM_END:
        failover_end(c, e);
        break;
    case CORE_UPSTREAM_RENEWED:
        failover_renew(c, e->renewed);
        break;
    default:
        dispatch_group(c, e);
        break;
    }
}

// Who waited for a group to the last hears that there is none; the others were too slow.
static status too_late(const core *c, const request *r) {
    bool waits = false; // by its first answers others may be done
    for (int i = 0; i < r->asked->n; i++)
        waits |=
            r->sequences[i].state == SEQUENCE_WAITING || r->sequences[i].state == SEQUENCE_PUT_BACK;
    if (waits && lane_groups(c, r->lane, GROUP_READY) == 0)
        return lane_no_group(r->lane, r, c->now_ns - r->waiting_since_ns);
    return status_error(STATUS_DEADLINE_EXCEEDED, "the deadline passed %s",
                        r->scheduled_ns < 0 ? "while it waited for a place"
                                            : "before the answer was complete");
}

static void expire(core *c) {
    while (deadlines_next(&c->deadlines) <= c->now_ns) {
        request *r = deadlines_first(&c->deadlines);
        request_fail(r, c, too_late(c, r));
    }
    for (lane *l = c->lanes; l; l = l->next) lane_expire(c, l);
}

static int64_t earlier(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t next_timer(const core *c) {
    int64_t next = earlier(membership_next(c), failover_next(c));
    next = earlier(next, deadlines_next(&c->deadlines));
    for (const lane *l = c->lanes; l; l = l->next) next = earlier(next, lane_expires(c, l));
    return next;
}

void core_handle(core *c, const core_event *event, int64_t now_ns, core_effects *out) {
    assert(now_ns >= c->now_ns);
    c->out = out;
    if (now_ns - c->now_ns > STALL_MS * CLOCK_MS) c->hear_first_ns = now_ns + HEAR_MS * CLOCK_MS;
    c->now_ns = now_ns;
    int64_t late = c->timer_ns < now_ns ? now_ns - c->timer_ns : 0;
    if (late > STALL_MS * CLOCK_MS) membership_forgive(c);
    dispatch(c, event);
    expire(c);
    membership_tick(c);
    failover_run(c);
    scheduler_run(c);
    c->timer_ns = next_timer(c);
}

int64_t core_next_timer(const core *c) {
    return c->timer_ns;
}

bool core_is_idle(const core *c) {
    return c->request_count == 0;
}
