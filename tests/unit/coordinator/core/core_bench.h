// core_bench: a core on a bench: events go in, effects are noted, time passes by hand.
#ifndef OCTANT_TESTS_CORE_BENCH_H
#define OCTANT_TESTS_CORE_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/core/core.h"

enum { VOCAB = 100, CONTEXT = 64, BLOCKS = 24, STEPS_MAX = 64, CALLS_MAX = 256 };

typedef struct seen_call {
    uint64_t call, request;
    int upstream;
    upstream_mode mode;
    bool failover;
} seen_call;

typedef struct bench {
    core *core;
    core_effects *effects;
    int64_t now;
    uint64_t epoch, next_id;
    status joined, ended; // the last reply, the last end
    int ends, pieces, finish;
    answer_end end;
    char closed[CLUSTER_REASON_MAX]; // why the last group was closed
    step_plan plans[STEPS_MAX];      // not yet answered, oldest first
    uint64_t of[STEPS_MAX];          // which group's
    int plan_count;
    bool drained;
    char said[4096], server[64]; // of all requests, in order
    seen_call calls[CALLS_MAX];  // of upstreams
    int call_count, done;
    uint64_t cancelled;
    char partial[4096]; // of the last call
    core_notice_kind notice;
    int hot, cool; // times that a card was said to be so
    loss_reason loss;
    int lost_rank;
    char poison[64]; // the last quarantined request
    char called[64]; // the function of the last call that began; its arguments are in `said`
} bench;

static inline void decode(const void *owner, int32_t id, buf *out) {
    (void)owner;
    buf_printf(out, "%d ", id);
}

// The plan leaves the list; its memory is the caller's.
static inline step_plan take_plan(bench *b, int i) {
    step_plan plan = b->plans[i];
    size_t rest = (size_t)(--b->plan_count - i);
    memmove(b->plans + i, b->plans + i + 1, rest * sizeof *b->plans);
    memmove(b->of + i, b->of + i + 1, rest * sizeof *b->of);
    return plan;
}

static inline void drop_plans(bench *b, uint64_t epoch) {
    for (int i = b->plan_count - 1; i >= 0; i--)
        if (b->of[i] == epoch) arena_destroy(take_plan(b, i).memory);
}

static inline void take(bench *b, core_effect *e) {
    switch (e->kind) {
    case CORE_PIECE:
        b->pieces++;
        if (e->piece.piece.prompt) break;
        snprintf(b->said + strlen(b->said), sizeof b->said - strlen(b->said), "%.*s",
                 (int)e->piece.piece.size, e->piece.piece.text);
        if (e->piece.piece.tool) {
            const answer_tool *t = e->piece.piece.tool;
            assert_int_equal(e->piece.piece.size, 0);
            snprintf(b->said + strlen(b->said), sizeof b->said - strlen(b->said), "%.*s",
                     (int)t->size, t->arguments);
            if (t->name) snprintf(b->called, sizeof b->called, "%s %.5s", t->name, t->id);
        }
        if (e->piece.piece.served_by)
            snprintf(b->server, sizeof b->server, "%s", e->piece.piece.served_by);
        b->finish = e->piece.piece.finish;
        break;
    case CORE_END:
        b->ends++;
        b->end = e->end.end;
        b->ended = e->end.end.why;
        arena_destroy(e->end.request->memory);
        break;
    case CORE_SEND_PLAN:
        assert_true(b->plan_count < STEPS_MAX);
        b->of[b->plan_count] = e->epoch;
        b->plans[b->plan_count++] = e->plan;
        break;
    case CORE_REGISTER_REPLY:
        b->joined = e->joined.why;
        if (status_is_ok(&b->joined)) b->epoch = e->epoch;
        break;
    case CORE_CLOSE_GROUP:
        snprintf(b->closed, sizeof b->closed, "%s", e->reason);
        drop_plans(b, e->epoch);
        break;
    case CORE_DRAIN_REPLY:
        b->drained = e->drained.drained;
        break;
    case CORE_CALL_UPSTREAM:
        assert_true(b->call_count < CALLS_MAX);
        b->calls[b->call_count++] = (seen_call){.call = e->call.call,
                                                .request = e->call.request->id,
                                                .upstream = e->call.upstream,
                                                .mode = e->call.mode,
                                                .failover = e->call.failover};
        snprintf(b->partial, sizeof b->partial, "%.*s", (int)e->call.partial_size, e->call.partial);
        break;
    case CORE_CANCEL_UPSTREAM:
        b->cancelled = e->call.call;
        break;
    case CORE_CALL_DONE:
        b->done++;
        break;
    case CORE_NOTICE:
        b->notice = e->notice.kind;
        b->hot += e->notice.kind == NOTICE_DEVICE_HOT;
        b->cool += e->notice.kind == NOTICE_DEVICE_COOL;
        if (e->notice.kind == NOTICE_GROUP_LOST) {
            b->loss = e->notice.loss;
            b->lost_rank = e->notice.rank;
        }
        if (e->notice.kind == NOTICE_REQUEST_POISON)
            snprintf(b->poison, sizeof b->poison, "%s", e->notice.text);
        break;
    case CORE_LOG:
        break;
    }
}

static inline void take_all(bench *b) {
    for (size_t i = 0; i < core_effects_count(b->effects); i++)
        take(b, core_effects_at(b->effects, i));
    core_effects_clear(b->effects);
}

static inline void send(bench *b, core_event event) {
    core_handle(b->core, &event, b->now, b->effects);
    take_all(b);
}

// Time passes; the core is woken when it asked to be, or late by all of it.
static inline void pass(bench *b, int64_t ns) {
    int64_t until = b->now + ns;
    while (core_next_timer(b->core) <= until) {
        b->now = core_next_timer(b->core);
        send(b, (core_event){.kind = CORE_TIMER});
    }
    b->now = until;
}

static const model_config config = {.layers = 4,
                                    .width = 64,
                                    .ffn_width = 128,
                                    .heads = 4,
                                    .kv_heads = 2,
                                    .head_dim = 16,
                                    .vocab = VOCAB,
                                    .context = CONTEXT};

static inline register_request hello(int ranks) {
    static const char *hosts[8] = {"n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"};
    static const int32_t pids[8] = {100, 101, 102, 103, 104, 105, 106, 107};
    return (register_request){.protocol = CLUSTER_PROTOCOL,
                              .stages = 1,
                              .version = OCTANT_VERSION,
                              .model = "m",
                              .fingerprint = "f1",
                              .backend = "cpu",
                              .ranks = ranks,
                              .hosts = hosts,
                              .pids = pids};
}

static inline void join(bench *b, const register_request *r) {
    send(b, (core_event){.kind = CORE_REGISTER, .join = {.request = r, .config = &config}});
}

static inline void beat(bench *b, int rank) {
    send(b, (core_event){.kind = CORE_HEARTBEAT, .heartbeat = {.epoch = b->epoch, .rank = rank}});
}

static inline void start_group_as(bench *b, bool spare) {
    register_request r = hello(2);
    r.spare = spare;
    join(b, &r);
    assert_string_equal(b->joined.message, "");
    beat(b, 0);
    beat(b, 1);
    send(b,
         (core_event){.kind = CORE_GROUP_READY, .epoch = b->epoch, .ready = {.kv_blocks = BLOCKS}});
}

static inline void start_group(bench *b) {
    start_group_as(b, false);
}

static inline uint64_t ask(bench *b, int prompt, int max_tokens) {
    core_request *r = core_request_create();
    r->id = ++b->next_id;
    r->client = "c";
    r->model = "m";
    r->vocabulary = (vocabulary){.size = VOCAB, .decode = decode};
    int32_t *tokens = arena_alloc_array(r->memory, (size_t)prompt + 1, sizeof *tokens);
    for (int i = 0; i < prompt; i++) tokens[i] = (int32_t)(b->next_id * 7 + (uint64_t)i) % VOCAB;
    r->prompt = tokens;
    r->prompt_count = prompt;
    r->max_tokens = max_tokens;
    snprintf(r->public_id, sizeof r->public_id, "r%d", (int)r->id);
    r->deadline_ns = b->now + 100 * CLOCK_SECOND;
    send(b, (core_event){.kind = CORE_REQUEST, .request = r});
    return b->next_id; // the request may have ended, and be gone
}

// Answers plan i with token 1 wherever one is asked for.
static inline void answer_plan(bench *b, int i) {
    assert_true(b->plan_count > i);
    uint64_t epoch = b->of[i];
    step_plan plan = take_plan(b, i);
    seq_result results[64];
    step_result result = {.step = plan.step, .seqs = results, .compute_us = 1000};
    for (int i = 0; i < plan.rows_count; i++)
        if (plan.rows[i].sample)
            results[result.seq_count++] = (seq_result){.slot = plan.rows[i].slot, .token = 1};
    arena_destroy(plan.memory);
    send(b, (core_event){.kind = CORE_STEP_RESULT, .epoch = epoch, .result = result});
}

// The oldest.
static inline void answer(bench *b) {
    answer_plan(b, 0);
}

static inline int used_blocks(bench *b) {
    arena *memory = arena_create(1 << 20);
    core_view view;
    status s = core_look(b->core, b->now, memory, &view);
    assert_true(status_is_ok(&s));
    int used = view.groups[0].kv_blocks_used;
    arena_destroy(memory);
    return used;
}

static inline void assert_says(const status *s, status_code code, const char *part) {
    assert_int_equal(s->code, code);
    if (!strstr(s->message, part)) fail_msg("'%s' does not say '%s'", s->message, part);
}

static inline core_options bench_options(void) {
    core_options o = core_default_options();
    o.max_queue = 2;
    o.max_seqs = 4;
    o.max_step_tokens = 8;
    o.block_tokens = 4;
    return o;
}

static inline void bench_open(bench *b, const core_options *o) {
    *b = (bench){.core = core_create(o), .effects = core_effects_create(), .now = CLOCK_SECOND};
}

static inline void bench_close(bench *b) {
    core_destroy(b->core, b->effects);
    take_all(b);
    core_effects_destroy(b->effects);
}

#endif
