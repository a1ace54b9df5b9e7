// away_bench: a core with three upstreams on the bench, and requests that may leave for the first
// two.
#ifndef OCTANT_TESTS_AWAY_BENCH_H
#define OCTANT_TESTS_AWAY_BENCH_H

#include "unit/coordinator/core/core_bench.h"

static upstream_policy targets[3];

static inline upstream_policy target(const char *name) {
    return (upstream_policy){.name = name,
                             .breaker_window = 4,
                             .breaker_least = 2,
                             .breaker_share = 0.5,
                             .breaker_open_ns = 5 * CLOCK_SECOND};
}

static inline int open_away(void **state) {
    static bench b;
    targets[0] = target("first");
    targets[1] = target("second");
    targets[2] = target("third");
    core_options o = bench_options();
    o.max_queue = 50;
    o.upstreams = (upstreams_policy){
        .items = targets, .count = 3, .return_after_ns = 10 * CLOCK_SECOND, .max_attempts = 3};
    bench_open(&b, &o);
    *state = &b;
    return 0;
}

static inline int close_away(void **state) {
    bench_close(*state);
    return 0;
}

static inline const struct upstream_prompt *a_prompt(void) {
    static const char any = 0;
    return (const void *)&any; // the core only passes it on
}

static inline core_request *may_leave(bench *b) {
    core_request *r = core_request_create();
    r->id = ++b->next_id;
    r->client = "c";
    r->model = "m";
    r->vocabulary = (vocabulary){.size = VOCAB, .decode = decode};
    int32_t *tokens = arena_alloc_array(r->memory, 3, sizeof *tokens);
    for (int i = 0; i < 3; i++) tokens[i] = (int32_t)(b->next_id * 7 + (uint64_t)i) % VOCAB;
    r->prompt = tokens;
    r->prompt_count = 3;
    r->max_tokens = 20;
    r->deadline_ns = b->now + 100 * CLOCK_SECOND;
    r->route.privacy = PRIVACY_MAY_LEAVE;
    r->route.prompt = a_prompt();
    r->route.upstreams[0] = 0;
    r->route.upstreams[1] = 1;
    r->route.upstream_count = 2;
    r->route.may_continue = true;
    return r;
}

static inline void submit(bench *b, core_request *r) {
    send(b, (core_event){.kind = CORE_REQUEST, .request = r});
}

static inline void content(bench *b, uint64_t call, const char *text) {
    core_event e = {.kind = CORE_UPSTREAM_CONTENT,
                    .upstream = {.call = call, .content = {.text = text, .size = strlen(text)}}};
    core_handle(b->core, &e, b->now, b->effects);
    take_all(b);
}

static inline void end_as(bench *b, uint64_t call, upstream_end end) {
    if (!end.reason[0]) snprintf(end.reason, sizeof end.reason, "as told");
    send(b, (core_event){.kind = CORE_UPSTREAM_END, .upstream = {.call = call, .end = end}});
}

static inline void end_well(bench *b, uint64_t call) {
    end_as(b, call,
           (upstream_end){.finish = ANSWER_STOP, .usage = {.output_tokens = 5, .known = true}});
}

static inline void end_badly(bench *b, uint64_t call, upstream_outcome outcome) {
    end_as(b, call, (upstream_end){.outcome = outcome});
}

static inline const seen_call *last(const bench *b) {
    assert_true(b->call_count > 0);
    return &b->calls[b->call_count - 1];
}

static inline void lose(bench *b) {
    send(b, (core_event){.kind = CORE_GROUP_CLOSED, .epoch = b->epoch});
}

static inline void open_lane(bench *b) { // the model is known, no group serves it
    start_group(b);
    lose(b);
}

static inline void keep_alive(bench *b, int64_t ns) {
    for (int64_t until = b->now + ns; b->now < until;) {
        pass(b, 200 * CLOCK_MS);
        beat(b, 0);
        beat(b, 1);
    }
}

#endif
