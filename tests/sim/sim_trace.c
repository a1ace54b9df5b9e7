#include "tests/sim/sim_trace.h"

#include "tests/sim/sim_check.h"

typedef unsigned long long ull;

static void begin(const char *who) {
    fprintf(stderr, "%6llu %8.3f %s ", (ull)sim_here->event, (double)sim_here->now_ns / 1e9, who);
}

static const char *event_name(core_event_kind kind) {
    static const char *const names[] = {"timer",   "request",     "cancel", "register", "ready",
                                        "result",  "failed",      "closed", "beat",     "drain",
                                        "content", "end of call", "renewed"};
    return names[kind];
}

void sim_trace_event(const core_event *e) {
    if (!sim_here->trace || e->kind == CORE_HEARTBEAT) return;
    begin("->");
    fprintf(stderr, "%s", event_name(e->kind));
    if (e->kind == CORE_REQUEST) {
        const core_route *r = &e->request->route;
        fprintf(stderr, " %llu of %s, %d tokens, %s, local %d, first %d, %s, may continue %d, to",
                (ull)e->request->id, e->request->model, e->request->prompt_count,
                privacy_class_name(r->privacy), r->local, r->upstream_first,
                midstream_policy_name(r->midstream), r->may_continue);
        for (int i = 0; i < r->upstream_count; i++) fprintf(stderr, " %d", r->upstreams[i]);
    } else if (e->kind == CORE_CANCEL) {
        fprintf(stderr, " %llu", (ull)e->request_id);
    } else if (e->kind == CORE_UPSTREAM_CONTENT) {
        fprintf(stderr, " %llu '%.*s'", (ull)e->upstream.call, (int)e->upstream.content.size,
                e->upstream.content.text);
    } else if (e->kind == CORE_UPSTREAM_END) {
        const upstream_end *end = &e->upstream.end;
        fprintf(stderr, " %llu: %s, %s, retry after %lld ms, other target %d",
                (ull)e->upstream.call, upstream_outcome_name(end->outcome), end->reason,
                (long long)end->retry_after_ms, end->other_target);
    } else if (e->epoch) {
        fprintf(stderr, " of epoch %llu", (ull)e->epoch);
    }
    fprintf(stderr, "\n");
}

void sim_trace_effect(const core_effect *e) {
    if (!sim_here->trace) return;
    switch (e->kind) {
    case CORE_PIECE:
        begin("  ");
        fprintf(stderr, "piece of %llu/%d: '%.*s' %d tokens, finish %d\n", (ull)e->piece.request_id,
                e->piece.piece.index, (int)e->piece.piece.size, e->piece.piece.text,
                e->piece.piece.token_count, e->piece.piece.finish);
        break;
    case CORE_END:
        begin("  ");
        fprintf(stderr, "end of %llu: %s\n", (ull)e->end.request->id,
                status_is_ok(&e->end.end.why) ? "ok" : e->end.end.why.message);
        break;
    case CORE_CALL_UPSTREAM:
        begin("  ");
        fprintf(stderr, "call %llu of upstream %d for %llu, mode %d, partial '%.*s'\n",
                (ull)e->call.call, e->call.upstream, (ull)e->call.request->id, e->call.mode,
                (int)e->call.partial_size, e->call.partial);
        break;
    case CORE_CANCEL_UPSTREAM:
        begin("  ");
        fprintf(stderr, "cancel call %llu\n", (ull)e->call.call);
        break;
    case CORE_LOG:
        begin("  ");
        fprintf(stderr, "log: %s: %s\n", e->log.subject, e->log.line);
        break;
    case CORE_SEND_PLAN:
    case CORE_REGISTER_REPLY:
    case CORE_CLOSE_GROUP:
    case CORE_DRAIN_REPLY:
    case CORE_CALL_DONE:
    case CORE_NOTICE:
        break;
    }
}
