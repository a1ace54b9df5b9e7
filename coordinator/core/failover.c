#include "coordinator/core/failover.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/lane.h"
#include "coordinator/core/outcalls.h"
#include "coordinator/core/request.h"

static int64_t earlier(int64_t a, int64_t b) {
    return a < b ? a : b;
}

bool failover_open(core *c) {
    int count = c->options.upstreams.count;
    assert(count >= 0 && count <= POLICY_UPSTREAMS_MAX);
    c->failover_at_ns = INT64_MAX;
    c->next_call = 1;
    c->upstreams = calloc((size_t)count + 1, sizeof *c->upstreams);
    for (int i = 0; c->upstreams && i < count; i++) {
        const upstream_policy *p = &c->options.upstreams.items[i];
        c->upstreams[i] = (upstream_state){.policy = p, .limits = upstream_limits_make(p, 0)};
    }
    return c->upstreams != NULL;
}

void failover_close(core *c) {
    outcalls_free(c);
    free(c->leavers);
    free(c->upstreams);
}

bool failover_is_possible(const core *c, const core_request *asked) {
    const core_route *route = &asked->route;
    return c->options.upstreams.count > 0 && route->privacy != PRIVACY_LOCAL_ONLY &&
           route->prompt && route->upstream_count > 0 && asked->n == 1 &&
           asked->sampling.logprobs < 0 && !asked->prompt_logprobs;
}

// ---- who wants to leave

static bool may_leave(const core *c, const request *r) {
    return !r->gave_up && failover_is_possible(c, r->asked);
}

static bool has_spilled(const core *c, const request *r) {
    int64_t spill = r->asked->route.spill_ns;
    return spill > 0 && r->scheduled_ns < 0 && c->now_ns - r->arrived_ns >= spill;
}

// Our groups saw what the copy that may leave does not hold, and may have said it again: their
// words stay. An upstream's words come from that copy.
static bool says_too_much(const request *r) {
    return r->asked->route.privacy != PRIVACY_MAY_LEAVE && !r->diverged;
}

// The part that the client has can be handed to another: its route says so, nothing in it stands
// against it, and it was not done before.
static bool may_switch(const request *r) {
    const core_route *route = &r->asked->route;
    if (says_too_much(r)) return false;
    return route->midstream == MIDSTREAM_CONTINUE && route->may_continue && r->switches == 0 &&
           !r->said.failed && !r->used_tools;
}

// A group of ours can still answer it: an upstream's words are not our tokens, so what one has
// begun only another can go on with.
static bool is_ours(const request *r) {
    return r->asked->route.local && !r->diverged;
}

static bool wants_out(const core *c, const request *r) {
    const core_route *route = &r->asked->route;
    if (!may_leave(c, r)) return false;
    if (!is_ours(r)) return true;
    bool ready = r->lane->ready_since_ns >= 0;
    if (r->said.size > 0) return !ready && may_switch(r);
    return route->upstream_first || !ready || r->lane->left || has_spilled(c, r);
}

// Its group is gone, a part was streamed, and its route says that this is the end.
static bool is_broken_off(const request *r) {
    midstream_policy p = r->asked->route.midstream;
    return r->said.size > 0 && r->lane->ready_since_ns < 0 &&
           (p == MIDSTREAM_ERROR || p == MIDSTREAM_RESTART);
}

// ---- targets

typedef enum choice { CHOICE_NOW, CHOICE_LATER, CHOICE_NONE } choice;

static bool is_open_to(const core *c, const request *r, int upstream) {
    const upstream_state *u = &c->upstreams[upstream];
    int context = u->policy->context;
    if (r->tried >> upstream & 1 || u->disabled) return false;
    return context <= 0 || r->asked->prompt_count < context;
}

static int64_t open_at(core *c, int upstream) {
    upstream_state *u = &c->upstreams[upstream];
    int64_t limits = upstream_limits_open_at(&u->limits, u->policy, c->now_ns);
    if (breaker_allows(&u->breaker, u->policy, c->now_ns)) return limits;
    int64_t breaker = breaker_opens_at(&u->breaker, u->policy, c->now_ns);
    return limits > breaker ? limits : breaker;
}

// The first target that can be called now. LATER: *at is when one may be.
static choice choose(core *c, const request *r, int *upstream, int64_t *at) {
    const core_route *route = &r->asked->route;
    int most = c->options.upstreams.max_attempts;
    if (most > 0 && r->attempts >= most) return CHOICE_NONE;
    if (route->cost_limit > 0 && r->spent >= route->cost_limit) return CHOICE_NONE;
    choice best = CHOICE_NONE;
    *at = INT64_MAX;
    for (int i = 0; i < route->upstream_count; i++) {
        *upstream = route->upstreams[i];
        assert(*upstream < c->options.upstreams.count);
        if (!is_open_to(c, r, *upstream)) continue;
        int64_t when = open_at(c, *upstream);
        if (when <= c->now_ns) return CHOICE_NOW;
        best = CHOICE_LATER;
        *at = earlier(*at, when);
    }
    return best;
}

static upstream_mode mode_for(const core *c, const request *r, int upstream) {
    const upstream_state *u = &c->upstreams[upstream];
    if (r->said.size == 0) return UPSTREAM_FRESH;
    return u->policy->takes_prefill && !u->no_prefill ? UPSTREAM_PREFILL : UPSTREAM_USER_TURN;
}

// ---- going

static void notice_lane(core *c, const lane *l, core_notice_kind kind, const char *text) {
    core_effect *e = effects_add(c->out, CORE_NOTICE);
    e->notice = (core_notice){.kind = kind,
                              .model = effects_text(c->out, l->model),
                              .group = "",
                              .host = "",
                              .upstream = "",
                              .rank = -1,
                              .text = effects_text(c->out, text)};
    effects_log(c->out, LOG_WARN, "failover", "%s: %s", l->model, text);
}

static void note_left(core *c, const request *r) {
    lane *l = r->lane;
    const core_route *route = &r->asked->route;
    if (!route->local || route->upstream_first || l->left || l->ready_since_ns >= 0) return;
    l->left = true;
    notice_lane(c, l, NOTICE_TRAFFIC_LEFT,
                "no group is ready: requests that may leave go to upstreams");
}

// Out of wherever it waits.
static void take_out(core *c, request *r) {
    sequence *s = &r->sequences[0];
    if (s->state == SEQUENCE_OUTBOUND)
        sequence_list_remove(&c->outbound, s);
    else
        lane_remove(r->lane, s);
    s->state = SEQUENCE_AWAY;
    c->away++;
    if (r->scheduled_ns >= 0) return;
    r->scheduled_ns = c->now_ns;
    c->queued--;
}

static void go(core *c, request *r, int upstream) {
    note_left(c, r);
    take_out(c, r);
    const core_route *route = &r->asked->route;
    r->attempts++;
    outcall_begin(c, r, upstream, mode_for(c, r, upstream), route->local && !route->upstream_first);
}

// Back from an upstream without an answer.
static void wait_again(core *c, request *r) {
    sequence *s = &r->sequences[0];
    assert(s->state == SEQUENCE_AWAY && !r->call);
    c->away--;
    r->waiting_since_ns = c->now_ns;
    c->failover_due = true;
    if (is_ours(r)) {
        lane_put_back(c, r->lane, s);
        return;
    }
    s->state = SEQUENCE_OUTBOUND;
    sequence_list_insert(&c->outbound, s);
}

void failover_enter(core *c, request *r) {
    sequence *s = &r->sequences[0];
    assert(s->state == SEQUENCE_HELD);
    s->state = SEQUENCE_OUTBOUND;
    sequence_list_insert(&c->outbound, s);
}

static status no_upstream(const request *r) {
    if (r->said.size > 0)
        return status_error(STATUS_UNAVAILABLE,
                            "the answer broke off at its upstream, and no other could go on with "
                            "it; the last: %s",
                            r->last_reason);
    return status_error(STATUS_UNAVAILABLE, "no upstream could serve this request%s%s",
                        r->last_reason[0] ? "; the last: " : ": all are disabled or too small",
                        r->last_reason);
}

// What waits and wants out: goes, waits on, or learns that there is no way.
static void try_out(core *c, request *r) {
    int upstream = -1;
    int64_t at = INT64_MAX;
    if (is_broken_off(r)) {
        request_fail(r, c,
                     status_error(STATUS_UNAVAILABLE,
                                  "the answer broke off when its worker group was lost, and its "
                                  "route does not continue it elsewhere: %s",
                                  r->lane->last_loss));
        return;
    }
    switch (choose(c, r, &upstream, &at)) {
    case CHOICE_NOW:
        go(c, r, upstream);
        return;
    case CHOICE_LATER:
        c->failover_at_ns = earlier(c->failover_at_ns, at);
        break;
    case CHOICE_NONE:
        r->gave_up = true;
        if (!is_ours(r)) request_fail(r, c, no_upstream(r));
        return;
    }
    if (is_ours(r)) return; // lane_expire sees to it
    int64_t end = r->waiting_since_ns + c->options.no_group_wait_ns;
    if (c->now_ns >= end)
        request_fail(r, c, no_upstream(r));
    else
        c->failover_at_ns = earlier(c->failover_at_ns, end);
}

// ---- all that waits

static void gather(core *c, request *r, int *count) {
    if (!wants_out(c, r) && !is_broken_off(r)) {
        int64_t spill = r->asked->route.spill_ns;
        if (spill > 0 && r->scheduled_ns < 0 && may_leave(c, r))
            c->failover_at_ns = earlier(c->failover_at_ns, r->arrived_ns + spill);
        return;
    }
    if (*count == c->leavers_room) {
        int room = c->leavers_room ? 2 * c->leavers_room : 256;
        c->leavers = effects_must(realloc(c->leavers, (size_t)room * sizeof(request *)));
        c->leavers_room = room;
    }
    c->leavers[(*count)++] = r;
}

static void watch_lane(core *c, lane *l) {
    bool ready = lane_groups(c, l, GROUP_READY) > 0;
    if (ready != (l->ready_since_ns >= 0)) {
        l->ready_since_ns = ready ? c->now_ns : -1;
        c->failover_due = true;
    }
    if (!l->left || !ready) return;
    int64_t back = l->ready_since_ns + c->options.upstreams.return_after_ns;
    if (c->now_ns >= back) {
        l->left = false;
        notice_lane(c, l, NOTICE_TRAFFIC_BACK, "a group is ready again: requests come back to it");
    } else {
        c->failover_at_ns = earlier(c->failover_at_ns, back);
    }
}

void failover_run(core *c) {
    for (lane *l = c->lanes; l; l = l->next) watch_lane(c, l);
    if (c->options.upstreams.count == 0) return;
    if (!c->failover_due && c->now_ns < c->failover_at_ns) return;
    c->failover_due = false;
    c->failover_at_ns = INT64_MAX;
    int count = 0;
    for (lane *l = c->lanes; l; l = l->next) {
        watch_lane(c, l); // its time is asked for anew
        for (sequence *s = l->put_back.first; s; s = s->next)
            if (s->index == 0) gather(c, s->request, &count);
        for (fair_item *i = fairness_each(l->fairness, NULL); i; i = fairness_each(l->fairness, i))
            if (lane_sequence(i)->index == 0) gather(c, lane_sequence(i)->request, &count);
    }
    for (sequence *s = c->outbound.first; s; s = s->next) gather(c, s->request, &count);
    for (int i = 0; i < count; i++) try_out(c, c->leavers[i]);
    c->failover_due = false;
}

int64_t failover_next(const core *c) {
    if (c->options.upstreams.count == 0) return INT64_MAX;
    return c->failover_due ? c->now_ns : c->failover_at_ns;
}

// ---- what comes back

void failover_content(core *c, const core_event *e) {
    outcall *call = outcall_find(c, e->upstream.call);
    if (!call || !call->request) return;
    outcall_take(c, call, &e->upstream.content);
}

static void add_usage(core *c, request *r, const upstream_usage *u) {
    r->completion_tokens += u->output_tokens;
    c->counters.completion_tokens += (uint64_t)u->output_tokens;
    r->segments[r->segment_count - 1].tokens += u->output_tokens;
    r->estimated = r->estimated || !u->known;
    if (r->asked->prompt_count > 0 || r->upstream_prompt_tokens > 0) return;
    r->upstream_prompt_tokens = u->input_tokens; // what goes on from it is asked with more
    r->cached_tokens = u->cached_tokens;
}

// A call without a price may have cost anything: with a budget, no other is made.
static void add_cost(request *r, const upstream_end *end) {
    int64_t limit = r->asked->route.cost_limit;
    if (end->cost_microdollars > 0) r->spent += end->cost_microdollars;
    bool used = end->usage.input_tokens > 0 || end->usage.output_tokens > 0;
    if (end->cost_microdollars < 0 && used && limit > r->spent) r->spent = limit;
}

// Content has come: the client has seen a part of it.
static void break_off(core *c, request *r, const upstream_end *end) {
    if (may_switch(r))
        wait_again(c, r);
    else
        request_fail(r, c,
                     status_error(STATUS_UNAVAILABLE, "the answer broke off at its upstream: %s",
                                  end->reason));
}

// Nothing has come: nobody saw this call.
static void next_target(core *c, request *r, const upstream_end *end) {
    const core_route *route = &r->asked->route;
    // The client's own fault, unless it is how we asked: to go on from a part.
    bool refused = end->outcome == UPSTREAM_CLIENT && !end->other_target && r->said.size == 0;
    r->gave_up = r->gave_up || refused;
    if (refused && !route->local)
        request_fail(r, c,
                     status_error(STATUS_INVALID_ARGUMENT, "the upstream refused the request: %s",
                                  end->reason));
    else if (is_ours(r) && r->lane_age != r->lane->age)
        request_fail(r, c,
                     status_error(STATUS_UNAVAILABLE,
                                  "the model %s was replaced by another of that name while an "
                                  "upstream was asked; send the request again",
                                  r->lane->model));
    else
        wait_again(c, r);
}

// None is asked twice, but for two that say when or how they may be: one that is busy, later; one
// that refused to go on from a last assistant message, by a user's turn.
static bool may_ask_again(const outcall *call, const upstream_end *end) {
    if (call->committed) return false;
    return end->outcome == UPSTREAM_BUSY ||
           (end->prefill_refused && call->mode == UPSTREAM_PREFILL);
}

void failover_end(core *c, const core_event *e) {
    const upstream_end *end = &e->upstream.end;
    outcall *call = outcall_find(c, e->upstream.call);
    if (!call) return;
    request *r = call->request;
    const char *by = c->upstreams[call->upstream].policy->name;
    bool ok = end->outcome == UPSTREAM_OK;
    if (r && ok) outcall_flush(c, call);
    bool committed = call->committed;
    if (r && !may_ask_again(call, end)) r->tried |= UINT32_C(1) << call->upstream;
    outcall_finish(c, call, end);
    c->failover_due = true; // its place is free
    if (!r) return;
    r->call = NULL;
    add_cost(r, end);
    snprintf(r->last_reason, sizeof r->last_reason, "%s", end->reason);
    if (ok) request_serve(r, by); // also an empty answer is somebody's
    if (ok || committed) add_usage(c, r, &end->usage);
    if (ok)
        sequence_finish_away(c, &r->sequences[0],
                             end->finish == ANSWER_GOES_ON ? ANSWER_STOP : end->finish);
    else if (committed)
        break_off(c, r, end);
    else
        next_target(c, r, end);
}

void failover_let_go(core *c, request *r) {
    sequence *s = &r->sequences[0];
    if (s->state == SEQUENCE_OUTBOUND) sequence_list_remove(&c->outbound, s);
    if (s->state != SEQUENCE_AWAY) return;
    c->away--;
    if (!r->call) return;
    outcall_cancel(c, r->call);
    r->call = NULL;
}

void failover_renew(core *c, int upstream) {
    assert(upstream >= 0 && upstream < c->options.upstreams.count);
    upstream_state *u = &c->upstreams[upstream];
    if (!u->disabled) return;
    u->disabled = false;
    u->reason[0] = 0;
    c->failover_due = true;
    effects_log(c->out, LOG_INFO, "upstream", "%s: has another key: enabled again",
                u->policy->name);
}
