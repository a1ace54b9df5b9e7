#include "coordinator/core/outcalls.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/failover.h"
#include "coordinator/core/overlap.h"
#include "coordinator/core/request.h"

enum { ESTIMATE_OUT_MAX = 1024 }; // tokens that an answer is thought to need at most

static outcall **bucket(core *c, uint64_t id) {
    return &c->calls[id % CALL_BUCKETS];
}

outcall *outcall_find(const core *c, uint64_t id) {
    outcall *call = c->calls[id % CALL_BUCKETS];
    while (call && call->id != id) call = call->peer;
    return call;
}

static int32_t estimate_of(const core_request *asked) {
    int32_t out = asked->max_tokens < ESTIMATE_OUT_MAX ? asked->max_tokens : ESTIMATE_OUT_MAX;
    return asked->prompt_count + out;
}

static void send(core *c, const outcall *call) {
    request *r = call->request;
    bool fresh = call->mode == UPSTREAM_FRESH;
    const char *partial = fresh ? "" : effects_copy(c->out, buf_string(&r->said), r->said.size + 1);
    core_effect *e = effects_add(c->out, CORE_CALL_UPSTREAM);
    e->call.call = call->id;
    e->call.upstream = call->upstream;
    e->call.mode = call->mode;
    e->call.request = r->asked;
    e->call.partial = partial;
    e->call.partial_size = fresh ? 0 : r->said.size;
    e->call.partial_tokens = fresh ? 0 : r->completion_tokens;
    e->call.deadline_ns = r->asked->deadline_ns;
    e->call.failover = call->failover;
}

void outcall_begin(core *c, request *r, int upstream, upstream_mode mode, bool failover) {
    const core_route *route = &r->asked->route;
    bool listed = false;
    for (int i = 0; i < route->upstream_count; i++) listed |= route->upstreams[i] == upstream;
    assert(route->privacy != PRIVACY_LOCAL_ONLY && listed && failover_is_possible(c, r->asked));
    assert(r->sequences[0].state == SEQUENCE_AWAY && !r->call);
    upstream_state *u = &c->upstreams[upstream];
    outcall *call = effects_must(calloc(1, sizeof *call));
    *call = (outcall){.id = c->next_call++,
                      .upstream = upstream,
                      .mode = mode,
                      .request = r,
                      .failover = failover,
                      .held = buf_make(SAID_BYTES_MAX),
                      .estimate = estimate_of(r->asked),
                      .peer = *bucket(c, c->next_call - 1)};
    snprintf(call->public_id, sizeof call->public_id, "%s", r->asked->public_id);
    snprintf(call->client, sizeof call->client, "%s", r->asked->client ? r->asked->client : "");
    *bucket(c, call->id) = call;
    c->call_count++;
    u->calls++;
    breaker_began(&u->breaker, call->id);
    upstream_limits_began(&u->limits, u->policy, call->estimate);
    r->call = call;
    send(c, call);
}

// ---- content

// The client hears it from now on.
static void commit(core *c, outcall *call) {
    if (call->committed) return;
    request *r = call->request;
    call->committed = true;
    if (r->said.size > 0) r->switches++;
    r->diverged = true;
    if (r->first_token_ns < 0) r->first_token_ns = c->now_ns;
    request_serve(r, c->upstreams[call->upstream].policy->name);
    detokenizer_resume(&r->sequences[0].text, buf_string(&r->said), r->said.size);
}

static void say(core *c, outcall *call, const char *text, size_t size) {
    commit(c, call);
    if (size && !call->stopped)
        call->stopped = sequence_say_away(c, &call->request->sequences[0], text, size);
}

static bool is_held_back(const outcall *call) {
    return call->mode == UPSTREAM_USER_TURN && !call->compared;
}

// `limited`: nothing more comes, as the answer was cut off by its limit.
static void compare(core *c, outcall *call, bool limited) {
    const buf *said = &call->request->said, *held = &call->held;
    size_t cut = overlap_size(buf_string(said), said->size, buf_string(held), held->size);
    if (limited && overlap_is_all(buf_string(said), said->size, buf_string(held), held->size))
        cut = held->size;
    call->compared = true;
    say(c, call, buf_string(held) + cut, held->size - cut);
    buf_free(&call->held);
}

void outcall_take(core *c, outcall *call, const upstream_content *content) {
    if (!content->size && !content->tool) return;
    upstream_limits_answered(&c->upstreams[call->upstream].limits); // others may follow
    call->taken += content->size;
    if (content->tool) {
        if (is_held_back(call)) compare(c, call, false);
        commit(c, call);
        if (call->stopped) return;
        call->request->used_tools = true;
        sequence_call_tool(c, &call->request->sequences[0], content->tool);
    }
    if (!content->size) return;
    if (!is_held_back(call)) {
        say(c, call, content->text, content->size);
        return;
    }
    buf_append(&call->held, content->text, content->size);
    if (call->held.size >= overlap_needed(call->request->said.size)) compare(c, call, false);
}

void outcall_flush(core *c, outcall *call, answer_finish finish) {
    const request *r = call->request;
    if (is_held_back(call) && call->held.size > 0) compare(c, call, finish == ANSWER_LENGTH);
    // An empty answer has an end, too: what our group's last words held back is none of it.
    if (!call->committed)
        detokenizer_resume(&r->sequences[0].text, buf_string(&r->said), r->said.size);
}

// ---- the end

void outcall_cancel(core *c, outcall *call) {
    call->request = NULL;
    core_effect *e = effects_add(c->out, CORE_CANCEL_UPSTREAM);
    e->call.call = call->id;
}

static void notice(core *c, const upstream_state *u, core_notice_kind kind, const char *text) {
    core_effect *e = effects_add(c->out, CORE_NOTICE);
    e->notice = (core_notice){.kind = kind,
                              .model = "",
                              .group = "",
                              .host = "",
                              .upstream = u->policy->name,
                              .rank = -1,
                              .text = effects_text(c->out, text)};
    effects_log(c->out, kind == NOTICE_BREAKER_CLOSED ? LOG_INFO : LOG_WARN, "upstream",
                "%s: %s%s%s", u->policy->name, core_notice_name(kind), *text ? ": " : "", text);
}

static void judge(core *c, upstream_state *u, const outcall *call, const upstream_end *end) {
    upstream_limits_ended(&u->limits, u->policy, call->estimate, end, c->now_ns);
    if (breaker_ended(&u->breaker, u->policy, call->id, end->outcome, c->now_ns)) {
        bool open = u->breaker.state == BREAKER_OPEN;
        notice(c, u, open ? NOTICE_BREAKER_OPEN : NOTICE_BREAKER_CLOSED, open ? end->reason : "");
    }
    if (end->outcome == UPSTREAM_FAULT) u->faults++;
    if (end->outcome == UPSTREAM_BUSY) u->busy++;
    if (end->outcome != UPSTREAM_OK && end->outcome != UPSTREAM_CANCELLED)
        snprintf(u->reason, sizeof u->reason, "%s", end->reason);
    if (end->prefill_refused && !u->no_prefill) {
        u->no_prefill = true;
        effects_log(c->out, LOG_WARN, "upstream",
                    "%s: refuses a last assistant message; set prefill: false", u->policy->name);
    }
    if (end->outcome == UPSTREAM_ACCOUNT && !u->disabled) {
        u->disabled = true;
        notice(c, u, NOTICE_UPSTREAM_DISABLED, end->reason);
    }
}

void outcall_finish(core *c, outcall *call, const upstream_end *end) {
    upstream_state *u = &c->upstreams[call->upstream];
    judge(c, u, call, end);
    const char *id = effects_text(c->out, call->public_id);
    const char *client = effects_text(c->out, call->client);
    core_effect *e = effects_add(c->out, CORE_CALL_DONE);
    e->call_done.call = call->id;
    e->call_done.upstream = u->policy;
    e->call_done.failover = call->failover;
    e->call_done.public_id = id;
    e->call_done.client = client;
    e->call_done.end = *end;
    outcall **link = bucket(c, call->id);
    while (*link != call) link = &(*link)->peer;
    *link = call->peer;
    c->call_count--;
    buf_free(&call->held);
    free(call);
}

void outcalls_free(core *c) {
    for (int i = 0; i < CALL_BUCKETS; i++)
        for (outcall *call = c->calls[i], *next; call; call = next) {
            next = call->peer;
            buf_free(&call->held);
            free(call);
        }
}
