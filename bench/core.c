// bench-core: what one event costs the coordinator's core while many requests wait: microseconds of
// its thread, by kind of event and length of the queue.
//
//   bench-core [--waiting N]...     default: 1000, 10000 and 100000 in turn
//
// One group of eight places serves endless answers, or none is there. Those who wait may not leave
// ("stay"), or may, for one upstream that takes eight calls at once ("leave"). Each is of another
// client, which is the worst case for fairness.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/stats.h"
#include "common/base/clock.h"
#include "coordinator/core/core.h"

enum { VOCAB = 1000, CONTEXT = 8192, PLACES = 8, EVENTS = 400, LINES_MAX = 16 };

typedef struct bench {
    core *core;
    core_effects *effects;
    int64_t now_ns;
    uint64_t epoch, next_id;
    step_plan plans[CORE_PLANS_MAX]; // of the group, oldest first
    int plan_count;
    uint64_t calls[PLACES]; // open, oldest first
    int call_count;
} bench;

static const char prompt = 0; // the core only passes it on
static const upstream_policy frontier = {
    .name = "frontier", .concurrency = PLACES, .breaker_window = 8, .breaker_share = 2};

static void decode(const void *owner, int32_t id, buf *out) {
    (void)owner;
    buf_printf(out, "%d ", id);
}

static void carry_out(bench *b, core_effect *e) {
    if (e->kind == CORE_SEND_PLAN) b->plans[b->plan_count++] = e->plan;
    if (e->kind == CORE_REGISTER_REPLY && !status_is_ok(&e->joined.why)) {
        fprintf(stderr, "bench-core: no group: %s\n", e->joined.why.message);
        exit(1);
    }
    if (e->kind == CORE_REGISTER_REPLY) b->epoch = e->epoch;
    if (e->kind == CORE_CALL_UPSTREAM) b->calls[b->call_count++] = e->call.call;
    if (e->kind == CORE_END) arena_destroy(e->end.request->memory);
    if (e->kind != CORE_CLOSE_GROUP) return;
    for (; b->plan_count > 0; b->plan_count--) arena_destroy(b->plans[b->plan_count - 1].memory);
}

static double thread_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

// The microseconds that the core took; what it wants done is no part of them.
static double handle(bench *b, core_event event) {
    b->now_ns += CLOCK_MS / 20;
    core_effects_clear(b->effects);
    double began = thread_us();
    core_handle(b->core, &event, b->now_ns, b->effects);
    double us = thread_us() - began;
    for (size_t i = 0; i < core_effects_count(b->effects); i++)
        carry_out(b, core_effects_at(b->effects, i));
    return us;
}

static double ask(bench *b, bool leaves) {
    core_request *r = core_request_create();
    int32_t *tokens = r ? arena_alloc_array(r->memory, 4, sizeof *tokens) : NULL;
    char *client = r ? arena_alloc(r->memory, 32) : NULL;
    if (!tokens || !client) exit(1);
    r->id = ++b->next_id;
    snprintf(client, 32, "client %llu", (unsigned long long)r->id);
    r->client = client;
    r->model = "m";
    r->vocabulary = (vocabulary){.size = VOCAB, .decode = decode};
    for (int i = 0; i < 4; i++) tokens[i] = (int32_t)((r->id + (uint64_t)i) % VOCAB);
    r->prompt = tokens;
    r->prompt_count = 4;
    r->max_tokens = INT32_MAX;
    r->deadline_ns = b->now_ns + 3600 * CLOCK_SECOND;
    if (leaves) {
        r->route.privacy = PRIVACY_MAY_LEAVE;
        r->route.prompt = (const struct upstream_prompt *)(const void *)&prompt;
        r->route.upstream_count = 1;
    }
    return handle(b, (core_event){.kind = CORE_REQUEST, .request = r});
}

static double beat(bench *b) {
    return handle(b, (core_event){.kind = CORE_HEARTBEAT, .heartbeat = {.epoch = b->epoch}});
}

static void start_group(bench *b) {
    static const model_config config = {.layers = 1,
                                        .width = 64,
                                        .ffn_width = 128,
                                        .heads = 4,
                                        .kv_heads = 2,
                                        .head_dim = 16,
                                        .vocab = VOCAB,
                                        .context = CONTEXT};
    static const char *hosts[] = {"node"};
    static const int32_t pids[] = {1};
    register_request r = {.protocol = CLUSTER_PROTOCOL,
                          .version = OCTANT_VERSION,
                          .model = "m",
                          .fingerprint = "f",
                          .backend = "bench",
                          .ranks = 1,
                          .stages = 1,
                          .hosts = hosts,
                          .pids = pids};
    handle(b, (core_event){.kind = CORE_REGISTER, .join = {.request = &r, .config = &config}});
    beat(b);
    handle(b, (core_event){
                  .kind = CORE_GROUP_READY, .epoch = b->epoch, .ready = {.kv_blocks = 1 << 14}});
}

static double lose_group(bench *b) {
    return handle(b, (core_event){.kind = CORE_GROUP_CLOSED, .epoch = b->epoch});
}

// What is measured must be what happens.
static void expect(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "bench-core: %s\n", what);
    exit(1);
}

static double answer_step(bench *b) {
    expect(b->plan_count > 0, "no step is under way");
    step_plan plan = b->plans[0];
    b->plans[0] = b->plans[1];
    b->plan_count--;
    seq_result seqs[PLACES];
    step_result result = {.step = plan.step, .seqs = seqs, .compute_us = 100};
    expect(plan.rows_count > 0 && plan.rows_count <= PLACES,
           "a step has other rows than its places'");
    for (int i = 0; i < plan.rows_count; i++)
        if (plan.rows[i].sample)
            seqs[result.seq_count++] = (seq_result){.slot = plan.rows[i].slot, .token = 1};
    arena_destroy(plan.memory);
    return handle(b, (core_event){.kind = CORE_STEP_RESULT, .epoch = b->epoch, .result = result});
}

static double end_call(bench *b) {
    expect(b->call_count > 0, "no call is under way");
    core_event e = {.kind = CORE_UPSTREAM_END, .upstream.call = b->calls[0]};
    e.upstream.end = (upstream_end){.finish = ANSWER_STOP, .usage.output_tokens = 1};
    memmove(b->calls, b->calls + 1, (size_t)--b->call_count * sizeof *b->calls);
    return handle(b, e);
}

static double cancel(bench *b) { // of one that waits, somewhere
    static uint64_t id = 0;
    id = (id + 7919) % b->next_id;
    return handle(b, (core_event){.kind = CORE_CANCEL, .request_id = id + 1});
}

typedef double measured(bench *b);

static double ask_to_stay(bench *b) {
    return ask(b, false);
}

static double ask_to_leave(bench *b) {
    return ask(b, true);
}

static void tell(const char *what, int waiting, stats *s) {
    printf("%-38s %7d %9.1f %9.1f %9.1f\n", what, waiting, stats_percentile(s, 50),
           stats_percentile(s, 99), stats_percentile(s, 100));
    stats_free(s);
}

static void measure(bench *b, const char *what, int waiting, int events, measured *event) {
    stats s = {0};
    for (int i = 0; i < events; i++) {
        if (i % 16 == 0) beat(b); // or it is lost
        stats_add(&s, event(b));
    }
    tell(what, waiting, &s);
}

static bench open_bench(int waiting, bool away) {
    core_options o = core_default_options();
    o.max_queue = waiting + 2 * EVENTS + PLACES;
    o.max_seqs = PLACES;
    o.no_group_wait_ns = 3600 * CLOCK_SECOND;
    o.heartbeat_timeout_ns = 3600 * CLOCK_SECOND;
    if (away) o.upstreams = (upstreams_policy){.items = &frontier, .count = 1};
    bench b = {.core = core_create(&o), .effects = core_effects_create(), .now_ns = CLOCK_SECOND};
    if (!b.core || !b.effects) exit(1);
    start_group(&b);
    for (int i = 0; i < PLACES; i++) ask(&b, false);
    for (int i = 0; i < waiting; i++) ask(&b, away);
    return b;
}

static void close_bench(bench *b) {
    core_effects_clear(b->effects);
    core_destroy(b->core, b->effects);
    for (size_t i = 0; i < core_effects_count(b->effects); i++)
        carry_out(b, core_effects_at(b->effects, i));
    core_effects_destroy(b->effects);
}

static void run(int waiting) {
    bench b = open_bench(waiting, false);
    measure(&b, "stay, served: step", waiting, EVENTS, answer_step);
    measure(&b, "stay, served: request", waiting, EVENTS, ask_to_stay);
    measure(&b, "stay, served: cancel", waiting, EVENTS, cancel);
    measure(&b, "stay: group lost", waiting, 1, lose_group);
    measure(&b, "stay, no group: heartbeat", waiting, EVENTS, beat);
    measure(&b, "stay, no group: cancel", waiting, EVENTS, cancel);
    close_bench(&b);
    b = open_bench(waiting, true);
    measure(&b, "leave, served: step", waiting, EVENTS, answer_step);
    measure(&b, "leave, served: request", waiting, EVENTS, ask_to_leave);
    measure(&b, "leave: group lost", waiting, 1, lose_group);
    measure(&b, "leave, no group: heartbeat", waiting, EVENTS, beat);
    measure(&b, "leave, no group: request", waiting, EVENTS, ask_to_leave);
    measure(&b, "leave, no group: end of a call", waiting, EVENTS, end_call);
    close_bench(&b);
}

int main(int argc, char **argv) {
    printf("%-38s %7s %9s %9s %9s\n", "[us]", "waiting", "p50", "p99", "max");
    for (int i = 1; i < argc; i += 2) {
        int waiting = i + 1 < argc && !strcmp(argv[i], "--waiting") ? atoi(argv[i + 1]) : 0;
        if (waiting < EVENTS) {
            fprintf(stderr, "bench-core: --waiting N, N at least %d\n", EVENTS);
            return 2;
        }
        run(waiting);
    }
    for (int waiting = 1000; argc == 1 && waiting <= 100000; waiting *= 10) run(waiting);
    return 0;
}
