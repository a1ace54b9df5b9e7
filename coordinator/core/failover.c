#include "coordinator/core/failover.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/core/deadlines.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/lane.h"
#include "coordinator/core/outcalls.h"
#include "coordinator/core/request.h"

enum { BYTES_PER_TOKEN = 4 }; // of English text in usual vocabularies

static int64_t earlier(int64_t a, int64_t b) {
    return a < b ? a : b;
}

bool failover_open(core *c) {
    int count = c->options.upstreams.count;
    assert(count >= 0 && count <= POLICY_UPSTREAMS_MAX);
    c->failover_at_ns = INT64_MAX;
    c->spills.of_spill = true;
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

// May be asked, now or when it opens; whether its account is refused is not the request's.
static bool may_try(const core *c, const request *r, int upstream) {
    int context = c->upstreams[upstream].policy->context;
    if (r->tried >> upstream & 1) return false;
    return context <= 0 || r->asked->prompt_count < context;
}

static bool has_target(const core *c, const request *r) {
    const core_route *route = &r->asked->route;
    int most = c->options.upstreams.max_attempts;
    if (most > 0 && r->attempts >= most) return false;
    if (route->cost_limit > 0 && r->spent >= route->cost_limit) return false;
    for (int i = 0; i < route->upstream_count; i++) {
        int u = route->upstreams[i];
        assert(u < c->options.upstreams.count);
        if (may_try(c, r, u) && !c->upstreams[u].disabled) return true;
    }
    return false;
}

static int64_t open_at(core *c, int upstream) {
    upstream_state *u = &c->upstreams[upstream];
    if (u->disabled) return INT64_MAX;
    int64_t limits = upstream_limits_open_at(&u->limits, u->policy, c->now_ns);
    if (breaker_allows(&u->breaker, u->policy, c->now_ns)) return limits;
    int64_t breaker = breaker_opens_at(&u->breaker, u->policy, c->now_ns);
    return limits > breaker ? limits : breaker;
}

// The first of its targets that can be called now; -1: none.
static int open_target(core *c, const request *r) {
    const core_route *route = &r->asked->route;
    for (int i = 0; i < route->upstream_count; i++) {
        int u = route->upstreams[i];
        if (may_try(c, r, u) && open_at(c, u) <= c->now_ns) return u;
    }
    return -1;
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

static void enter_outbound(core *c, request *r) {
    r->sequences[0].state = SEQUENCE_OUTBOUND;
    r->waits++;
    r->waiting_since_ns = c->now_ns;
    waiters_append(&c->outbound, &r->patience, r);
    failover_note(c, r);
}

static void leave_outbound(core *c, request *r) {
    r->waits--;
    waiters_remove(&c->outbound, &r->patience);
    failover_forget(c, r);
}

// Out of wherever it waits.
static void take_out(core *c, request *r) {
    sequence *s = &r->sequences[0];
    if (s->state == SEQUENCE_OUTBOUND)
        leave_outbound(c, r);
    else
        lane_remove(c, r->lane, s);
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
    if (is_ours(r))
        lane_put_back(c, r->lane, s);
    else
        enter_outbound(c, r);
}

void failover_enter(core *c, request *r) {
    assert(r->sequences[0].state == SEQUENCE_HELD);
    enter_outbound(c, r);
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

// ---- those who wait

void failover_note(core *c, request *r) {
    if (r->fresh.request || !failover_is_possible(c, r->asked)) return;
    waiters_append(&c->fresh, &r->fresh, r);
}

static void leave_doors(core *c, request *r) {
    const core_route *route = &r->asked->route;
    for (int i = 0; i < route->upstream_count; i++)
        waiters_remove(&c->upstreams[route->upstreams[i]].door, &r->doors[i]);
}

void failover_forget(core *c, request *r) {
    waiters_remove(&c->fresh, &r->fresh);
    leave_doors(c, r);
    if (r->spill_index >= 0) deadlines_remove(&c->spills, r);
}

static void stand_at_doors(core *c, request *r) {
    const core_route *route = &r->asked->route;
    for (int i = 0; i < route->upstream_count; i++) {
        int u = route->upstreams[i];
        if (!r->doors[i].request && may_try(c, r, u))
            waiters_insert(&c->upstreams[u].door, &r->doors[i], r);
    }
}

static void await_spill(core *c, request *r) {
    if (r->spill_index >= 0 || r->asked->route.spill_ns <= 0 || r->scheduled_ns >= 0) return;
    if (may_leave(c, r)) effects_must(deadlines_add(&c->spills, r) ? r : NULL);
}

// It waits, and something has changed for it: it stands where it may go, stays, or learns that
// there is no way.
static void consider(core *c, request *r) {
    if (is_broken_off(r)) {
        request_fail(r, c,
                     status_error(STATUS_UNAVAILABLE,
                                  "the answer broke off when its worker group was lost, and its "
                                  "route does not continue it elsewhere: %s",
                                  r->lane->last_loss));
    } else if (!wants_out(c, r)) {
        leave_doors(c, r);
        await_spill(c, r);
    } else if (has_target(c, r)) {
        stand_at_doors(c, r);
    } else {
        leave_doors(c, r);
        r->gave_up = true;
        if (!is_ours(r)) request_fail(r, c, no_upstream(r));
    }
}

// Of these each may be gone when it was considered, the others are not.
static void consider_all(core *c, const waiters *list) {
    for (waiter *w = list->first, *next; w; w = next) {
        next = w->next;
        consider(c, w->request);
    }
}

static void watch_lane(core *c, lane *l) {
    bool ready = lane_groups(c, l, GROUP_READY) > 0, turned = ready != (l->ready_since_ns >= 0);
    if (turned) l->ready_since_ns = ready ? c->now_ns : -1;
    if (l->left && ready) {
        int64_t back = l->ready_since_ns + c->options.upstreams.return_after_ns;
        if (c->now_ns >= back) {
            l->left = false;
            turned = true;
            notice_lane(c, l, NOTICE_TRAFFIC_BACK,
                        "a group is ready again: requests come back to it");
        } else {
            c->failover_at_ns = earlier(c->failover_at_ns, back);
        }
    }
    if (turned && c->options.upstreams.count > 0) consider_all(c, &l->patience);
}

// Who came first of those who stand at a door that is open; NULL: nobody.
static request *first_at_a_door(core *c) {
    request *first = NULL;
    for (int u = 0; u < c->options.upstreams.count; u++) {
        const waiter *w = c->upstreams[u].door.first;
        if (!w || (first && first->order < w->request->order)) continue;
        int64_t at = open_at(c, u);
        if (at <= c->now_ns)
            first = w->request;
        else
            c->failover_at_ns = earlier(c->failover_at_ns, at);
    }
    return first;
}

// What is not ours to serve waits for its targets only so long.
static void expire_outbound(core *c) {
    for (waiter *w; (w = c->outbound.first);) {
        int64_t end = w->request->waiting_since_ns + c->options.no_group_wait_ns;
        if (c->now_ns < end) {
            c->failover_at_ns = earlier(c->failover_at_ns, end);
            return;
        }
        request_fail(w->request, c, no_upstream(w->request));
    }
}

void failover_run(core *c) {
    c->failover_at_ns = INT64_MAX;
    for (lane *l = c->lanes; l; l = l->next) watch_lane(c, l);
    while (deadlines_next(&c->spills) <= c->now_ns) {
        request *r = deadlines_first(&c->spills);
        deadlines_remove(&c->spills, r);
        consider(c, r);
    }
    for (waiter *w; (w = c->fresh.first);) {
        request *r = w->request;
        waiters_remove(&c->fresh, w);
        consider(c, r);
    }
    for (request *r; (r = first_at_a_door(c));) go(c, r, open_target(c, r));
    expire_outbound(c);
    c->failover_at_ns = earlier(c->failover_at_ns, deadlines_next(&c->spills));
}

int64_t failover_next(const core *c) {
    return c->fresh.first ? c->now_ns : c->failover_at_ns;
}

// ---- what comes back

static void add_usage(core *c, request *r, const upstream_usage *u) {
    r->completion_tokens += u->output_tokens;
    c->counters.completion_tokens += (uint64_t)u->output_tokens;
    r->segments[r->segment_count - 1].tokens += u->output_tokens;
    r->estimated = r->estimated || !u->known;
    if (r->asked->prompt_count > 0 || r->upstream_prompt_tokens > 0) return;
    r->upstream_prompt_tokens = u->input_tokens; // what goes on from it is asked with more
    r->cached_tokens = u->cached_tokens;
}

// A stop text is complete while the upstream goes on: its API knows none, or has not seen the part
// of it that another said. What it used is told when the call ends, too late for this answer.
static void end_at_stop(core *c, outcall *call) {
    request *r = call->request;
    int32_t tokens = (int32_t)((call->taken + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN);
    add_usage(c, r, &(upstream_usage){.output_tokens = tokens});
    sequence_finish_away(c, &r->sequences[0], ANSWER_STOP); // lets go of the call
}

void failover_content(core *c, const core_event *e) {
    outcall *call = outcall_find(c, e->upstream.call);
    if (!call || !call->request) return;
    outcall_take(c, call, &e->upstream.content);
    if (call->stopped) end_at_stop(c, call);
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
    int upstream = call->upstream;
    const char *by = c->upstreams[upstream].policy->name;
    bool ok = end->outcome == UPSTREAM_OK;
    if (r && ok) outcall_flush(c, call, end->finish);
    bool committed = call->committed, stopped = call->stopped;
    if (r && !may_ask_again(call, end)) r->tried |= UINT32_C(1) << upstream;
    bool had_account = !c->upstreams[upstream].disabled;
    outcall_finish(c, call, end);
    if (had_account && c->upstreams[upstream].disabled)
        consider_all(c, &c->upstreams[upstream].door);
    if (!r) return;
    r->call = NULL;
    add_cost(r, end);
    snprintf(r->last_reason, sizeof r->last_reason, "%s", end->reason);
    if (ok) request_serve(r, by); // also an empty answer is somebody's
    if (ok || committed) add_usage(c, r, &end->usage);
    if (ok)
        sequence_finish_away(c, &r->sequences[0],
                             stopped || end->finish == ANSWER_GOES_ON ? ANSWER_STOP : end->finish);
    else if (committed)
        break_off(c, r, end);
    else
        next_target(c, r, end);
}

void failover_let_go(core *c, request *r) {
    const sequence *s = &r->sequences[0];
    if (s->state == SEQUENCE_OUTBOUND) leave_outbound(c, r);
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
    effects_log(c->out, LOG_INFO, "upstream", "%s: has another key: enabled again",
                u->policy->name);
}
