#include "coordinator/upstream/transfer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/upstream/limits_hold.h"
#include "coordinator/upstream/transfer_internal.h"

#define RETRY_NS (2 * CLOCK_MS)     // until a full queue of the core is tried again
#define LINGER_NS (500 * CLOCK_MS)  // for a connection to come to a clean end
enum { ASK_BYTES_MAX = 256 << 20 }; // of a request's copy; the ingress allows far less

// ---- the ask ----

static bool copy_text(arena *memory, const char *text, const char **out) {
    *out = text ? arena_copy_string(memory, text) : NULL;
    return !text || *out;
}

static bool copy_ask(transfer *t, const core_effect *e) {
    transfer_ask *a = &t->ask;
    const core_request *r = e->call.request;
    const upstream_prompt *p = r->route.prompt;
    if (!(a->memory = arena_create(ASK_BYTES_MAX))) return false;
    a->prompt = *p;
    a->mode = e->call.mode;
    a->partial_size = e->call.partial_size;
    a->partial_tokens = e->call.partial_tokens;
    a->partial = arena_copy(a->memory, e->call.partial ? e->call.partial : "", a->partial_size);
    return a->partial && copy_text(a->memory, p->messages, &a->prompt.messages) &&
           copy_text(a->memory, p->tools, &a->prompt.tools) &&
           copy_text(a->memory, p->tool_choice, &a->prompt.tool_choice) &&
           copy_text(a->memory, p->response_format, &a->prompt.response_format) &&
           copy_text(a->memory, p->stop, &a->prompt.stop) &&
           copy_text(a->memory, r->client ? r->client : "", &a->client) &&
           copy_text(a->memory, r->route.rule ? r->route.rule : "", &a->rule);
}

static bool is_listed(const core_route *route, int upstream) {
    for (int i = 0; i < route->upstream_count; i++)
        if (route->upstreams[i] == upstream) return true;
    return false;
}

// The last of three doors (router, core, here). A core that gets here with such a call has a bug:
// it is said aloud, and nothing leaves.
static const char *why_it_may_not_leave(const core_effect *e) {
    const core_route *route = &e->call.request->route;
    if (route->privacy == PRIVACY_LOCAL_ONLY) return "the request is local-only: refused";
    if (!is_listed(route, e->call.upstream)) return "the route does not list the target: refused";
    if (!route->prompt) return "the request has no form for upstreams: refused";
    return NULL;
}

transfer *transfer_create(const upstream_edge_options *edge, const core_effect *call,
                          int64_t now_ns) {
    transfer *t = calloc(1, sizeof *t);
    if (!t) {
        log_error("upstream", "out of memory for a call; ending");
        abort();
    }
    assert(call->call.upstream >= 0 && call->call.upstream < edge->policy->count);
    t->edge = edge;
    t->call = call->call.call;
    t->upstream = call->call.upstream;
    t->target = &edge->policy->items[t->upstream];
    t->privacy = call->call.request->route.privacy;
    snprintf(t->request_id, sizeof t->request_id, "%s", call->call.request->public_id);
    t->clocks = call_clocks_start(t->target, call->call.deadline_ns, now_ns);
    t->drain_until_ns = t->linger_until_ns = INT64_MAX;
    t->url = buf_make(CODEC_URL_MAX);
    t->body = buf_make(CODEC_BODY_MAX);
    const char *refused = why_it_may_not_leave(call);
    if (refused) {
        log_error("upstream", "%s: call of %s: %s; this is a bug", t->request_id, t->target->name,
                  refused);
        transfer_refuse(t, UPSTREAM_CLIENT, refused);
    } else if (!copy_ask(t, call)) {
        transfer_refuse(t, UPSTREAM_BUSY, "no memory for the call");
    }
    return t;
}

void transfer_free(transfer *t) {
    assert(!t->easy);
    outbox_clear(&t->outbox);
    arena_destroy(t->ask.memory);
    buf_free(&t->url);
    buf_free(&t->body);
    codec_close(t->codec);
    free(t);
}

// ---- the end ----

// What is said of a call that cannot have cost anything is exact. One that was sent and heard
// nothing may have been charged for its prompt: estimated, as the codec does it for the rest.
static void count_usage(transfer *t) {
    upstream_end *end = &t->end;
    if (!t->sent) {
        end->usage = (upstream_usage){.known = true};
        end->cost_microdollars = 0;
        return;
    }
    if (!end->http_status)
        end->usage.input_tokens = (int32_t)((t->body.size + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN);
    const usage_port *books = &t->edge->usage;
    end->cost_microdollars = books->price(books->ledger, t->target, &end->usage);
}

static void log_end(const transfer *t) {
    const upstream_end *end = &t->end;
    log_level level = LOG_INFO;
    if (end->outcome == UPSTREAM_OK || end->outcome == UPSTREAM_CANCELLED) level = LOG_DEBUG;
    if (end->outcome == UPSTREAM_ACCOUNT) level = LOG_WARN;
    log_write(level, "upstream", "%s: call %llu of %s: %s%s%s", t->request_id,
              (unsigned long long)t->call, t->target->name, upstream_outcome_name(end->outcome),
              end->reason[0] ? ": " : "", end->reason);
}

static void end_now(transfer *t, int64_t now_ns) {
    const upstream_usage *used = &t->end.usage;
    codec_limits limits = {-1, -1, -1, -1, -1, -1};
    if (t->codec) limits = codec_limits_seen(t->codec);
    t->end.hold_ms = limits_hold_ms(&limits, (int64_t)used->input_tokens + used->output_tokens);
    int64_t first = t->clocks.first_content_ns;
    t->end.first_content_ns = first < 0 ? -1 : first - t->clocks.start_ns;
    t->end.total_ns = now_ns - t->clocks.start_ns;
    count_usage(t);
    t->ended = true;
    log_end(t);
}

void transfer_end_by_codec(transfer *t, bool whole, int64_t now_ns) {
    assert(!t->ended);
    codec_finish(t->codec, whole, &t->end);
    end_now(t, now_ns);
}

void transfer_end_as(transfer *t, upstream_outcome outcome, const char *reason, int64_t now_ns) {
    assert(!t->ended);
    if (t->codec) codec_finish(t->codec, false, &t->end);
    t->end.outcome = outcome;
    t->end.finish = ANSWER_GOES_ON;
    t->end.other_target = t->end.prefill_refused = false;
    snprintf(t->end.reason, sizeof t->end.reason, "%s", reason);
    end_now(t, now_ns);
}

void transfer_refuse(transfer *t, upstream_outcome outcome, const char *reason) {
    if (!t->ended) transfer_end_as(t, outcome, reason, clock_now_ns());
}

void transfer_stop(transfer *t, int64_t now_ns) {
    if (!t->ended) transfer_end_as(t, UPSTREAM_CANCELLED, "the coordinator stops", now_ns);
}

// ---- its life on the edge's thread ----

static int32_t tokens_of(const transfer *t) {
    return t->codec ? codec_output_tokens(t->codec) : 0;
}

static bool is_draining(const transfer *t) {
    return t->drain_until_ns != INT64_MAX;
}

// libcurl may call back from within this: with what it kept, and again with a pause.
static void resume(transfer *t, int64_t now_ns) {
    if (!t->clocks.held) return;
    call_clocks_release(&t->clocks, tokens_of(t), now_ns);
    if (t->easy) curl_easy_pause(t->easy, CURLPAUSE_CONT);
}

// Nobody wants the answer any more; only what it used.
static void begin_drain(transfer *t, int64_t now_ns) {
    outbox_clear(&t->outbox);
    if (!t->sent) {
        transfer_end_as(t, UPSTREAM_CANCELLED, "not wanted any more before it was sent", now_ns);
        return;
    }
    t->drain_until_ns = now_ns + t->target->drain_ns;
    resume(t, now_ns);
}

static void look_at_drain(transfer *t, int64_t now_ns) {
    if (t->verdict) {
        transfer_end_as(t, UPSTREAM_CANCELLED, "not wanted any more; drained to its end", now_ns);
        t->linger_until_ns = now_ns + LINGER_NS;
    } else if (now_ns >= t->drain_until_ns || t->drained > DRAIN_BYTES_MAX) {
        transfer_end_as(t, UPSTREAM_CANCELLED, "not wanted any more; cut before its end", now_ns);
    }
}

static void look_at_clocks(transfer *t, int64_t now_ns) {
    call_clock over = call_clocks_check(&t->clocks, tokens_of(t), now_ns);
    if (over == CALL_CLOCK_NONE) return;
    if (over == CALL_CLOCK_DEADLINE) {
        begin_drain(t, now_ns);
        return;
    }
    char reason[sizeof t->end.reason];
    call_clocks_explain(&t->clocks, over, reason, sizeof reason);
    t->timed_out = true;
    transfer_end_as(t, UPSTREAM_FAULT, reason, now_ns);
}

// Content first, then the end, as far as the core takes them.
static bool tell(transfer *t) {
    const upstream_edge_options *o = t->edge;
    if (!outbox_flush(&t->outbox, t->call, o->post, o->core)) return false;
    if (!t->ended || t->told) return true;
    core_event event = {.kind = CORE_UPSTREAM_END};
    event.upstream.call = t->call;
    event.upstream.end = t->end;
    t->told = o->post(o->core, &event, 0);
    return t->told;
}

static int64_t earlier(int64_t a, int64_t b) {
    return a < b ? a : b;
}

int64_t transfer_look(transfer *t, int64_t now_ns) {
    if (tell(t)) resume(t, now_ns);
    if (!t->ended && !is_draining(t) && atomic_load(&t->cancelled)) begin_drain(t, now_ns);
    if (!t->ended && is_draining(t)) look_at_drain(t, now_ns);
    if (!t->ended && t->verdict) {
        transfer_end_by_codec(t, true, now_ns);
        t->linger_until_ns = now_ns + LINGER_NS;
    }
    if (!t->ended && !is_draining(t)) look_at_clocks(t, now_ns);
    bool told = tell(t);
    if (!told) return now_ns + RETRY_NS;
    if (t->ended) return t->easy ? t->linger_until_ns : INT64_MAX;
    return earlier(t->drain_until_ns, is_draining(t) ? INT64_MAX : call_clocks_next(&t->clocks));
}

void transfer_closed(transfer *t, CURLcode code, int64_t now_ns) {
    if (t->ended) return;
    int http = t->codec ? codec_http_status(t->codec) : 0;
    if (is_draining(t)) {
        t->verdict = true;
        look_at_drain(t, now_ns);
    } else if (t->verdict || code == CURLE_OK) {
        transfer_end_by_codec(t, true, now_ns);
    } else if (http >= 300 && !t->broken) {
        transfer_end_by_codec(t, false, now_ns); // what its status said counts, cut or not
    } else {
        transfer_end_as(t, UPSTREAM_FAULT, transfer_explain(t, code), now_ns);
    }
}
