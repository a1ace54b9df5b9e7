// The core's promises one by one: who may join, what is refused, what a plan holds, who is named
// when a group is lost. The simulator (tests/sim) covers their combinations.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/core/core.h"

enum { VOCAB = 100, CONTEXT = 64, BLOCKS = 24, STEPS_MAX = 64 };

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
    int plan_count;
    bool drained;
} bench;

static void decode(const void *owner, int32_t id, buf *out) {
    (void)owner;
    buf_printf(out, "%d ", id);
}

static void take(bench *b, core_effect *e) {
    switch (e->kind) {
    case CORE_PIECE:
        b->pieces++;
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
        b->plans[b->plan_count++] = e->plan;
        break;
    case CORE_REGISTER_REPLY:
        b->joined = e->joined.why;
        if (status_is_ok(&b->joined)) b->epoch = e->epoch;
        break;
    case CORE_CLOSE_GROUP:
        snprintf(b->closed, sizeof b->closed, "%s", e->reason);
        while (b->plan_count > 0) arena_destroy(b->plans[--b->plan_count].memory);
        break;
    case CORE_DRAIN_REPLY:
        b->drained = e->drained.drained;
        break;
    case CORE_LOG:
        break;
    }
}

static void take_all(bench *b) {
    for (size_t i = 0; i < core_effects_count(b->effects); i++)
        take(b, core_effects_at(b->effects, i));
    core_effects_clear(b->effects);
}

static void send(bench *b, core_event event) {
    core_handle(b->core, &event, b->now, b->effects);
    take_all(b);
}

// Time passes; the core is woken when it asked to be, or late by all of it.
static void pass(bench *b, int64_t ns) {
    int64_t until = b->now + ns;
    while (core_next_timer(b->core) <= until) {
        b->now = core_next_timer(b->core);
        send(b, (core_event){.kind = CORE_TIMER});
    }
    b->now = until;
}

static model_config config = {.layers = 1,
                              .width = 64,
                              .ffn_width = 128,
                              .heads = 4,
                              .kv_heads = 2,
                              .head_dim = 16,
                              .vocab = VOCAB,
                              .context = CONTEXT};

static register_request hello(int ranks) {
    static const char *hosts[8] = {"n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"};
    static const int32_t pids[8] = {100, 101, 102, 103, 104, 105, 106, 107};
    return (register_request){.protocol = CLUSTER_PROTOCOL,
                              .version = OCTANT_VERSION,
                              .model = "m",
                              .fingerprint = "f1",
                              .backend = "cpu",
                              .ranks = ranks,
                              .hosts = hosts,
                              .pids = pids};
}

static void join(bench *b, const register_request *r) {
    send(b, (core_event){.kind = CORE_REGISTER, .join = {.request = r, .config = &config}});
}

static void beat(bench *b, int rank) {
    send(b, (core_event){.kind = CORE_HEARTBEAT, .heartbeat = {.epoch = b->epoch, .rank = rank}});
}

static void start_group(bench *b) {
    register_request r = hello(2);
    join(b, &r);
    assert_string_equal(b->joined.message, "");
    beat(b, 0);
    beat(b, 1);
    send(b,
         (core_event){.kind = CORE_GROUP_READY, .epoch = b->epoch, .ready = {.kv_blocks = BLOCKS}});
}

static uint64_t ask(bench *b, int prompt, int max_tokens) {
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
    r->deadline_ns = b->now + 100 * CLOCK_SECOND;
    send(b, (core_event){.kind = CORE_REQUEST, .request = r});
    return b->next_id; // the request may have ended, and be gone
}

// Answers the oldest plan with token 1 wherever one is asked for.
static void answer(bench *b) {
    assert_true(b->plan_count > 0);
    step_plan plan = b->plans[0];
    memmove(b->plans, b->plans + 1, (size_t)--b->plan_count * sizeof plan);
    seq_result results[64];
    step_result result = {.step = plan.step, .seqs = results};
    for (int i = 0; i < plan.rows_count; i++)
        if (plan.rows[i].sample)
            results[result.seq_count++] = (seq_result){.slot = plan.rows[i].slot, .token = 1};
    arena_destroy(plan.memory);
    send(b, (core_event){.kind = CORE_STEP_RESULT, .epoch = b->epoch, .result = result});
}

static int used_blocks(bench *b) {
    arena *memory = arena_create(1 << 20);
    core_view view;
    status s = core_look(b->core, b->now, memory, &view);
    assert_true(status_is_ok(&s));
    int used = view.groups[0].kv_blocks_used;
    arena_destroy(memory);
    return used;
}

static void assert_says(const status *s, status_code code, const char *part) {
    assert_int_equal(s->code, code);
    if (!strstr(s->message, part)) fail_msg("'%s' does not say '%s'", s->message, part);
}

static int setup(void **state) {
    static bench b;
    core_options o = core_default_options();
    o.max_queue = 2;
    o.max_seqs = 4;
    o.max_step_tokens = 8;
    o.block_tokens = 4;
    b = (bench){.core = core_create(&o), .effects = core_effects_create(), .now = CLOCK_SECOND};
    *state = &b;
    return 0;
}

static int teardown(void **state) {
    bench *b = *state;
    core_destroy(b->core, b->effects);
    take_all(b);
    core_effects_destroy(b->effects);
    return 0;
}

static void test_who_may_join(void **state) {
    bench *b = *state;
    register_request r = hello(2);
    r.protocol++;
    join(b, &r);
    assert_says(&b->joined, STATUS_FAILED_PRECONDITION, "protocol");
    r = hello(2);
    r.version = "0.0.9";
    join(b, &r);
    assert_says(&b->joined, STATUS_FAILED_PRECONDITION, "0.0.9");
    r = hello(5); // more ranks than heads
    join(b, &r);
    assert_int_equal(b->joined.code, STATUS_INVALID_ARGUMENT);
    start_group(b);
    r = hello(2);
    r.fingerprint = "f2";
    join(b, &r);
    assert_says(&b->joined, STATUS_FAILED_PRECONDITION, "fingerprint f1");
}

static void test_another_model_ends_what_waits_for_the_first(void **state) {
    bench *b = *state;
    start_group(b);
    ask(b, 3, 8); // runs, and is put back
    ask(b, 3, 8); // waits
    send(b, (core_event){.kind = CORE_GROUP_CLOSED, .epoch = b->epoch});
    assert_int_equal(b->ends, 0);
    register_request r = hello(2);
    join(b, &r); // the same model: they go on with it
    assert_int_equal(b->ends, 0);
    send(b, (core_event){.kind = CORE_GROUP_CLOSED, .epoch = b->epoch});
    r.fingerprint = "f2";
    join(b, &r);
    assert_string_equal(b->joined.message, "");
    assert_int_equal(b->ends, 2);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "replaced by another");
    assert_true(core_is_idle(b->core));
}

static void test_what_is_refused(void **state) {
    bench *b = *state;
    ask(b, 3, 1);
    assert_says(&b->ended, STATUS_NOT_FOUND, "'m'");
    start_group(b);
    ask(b, CONTEXT, 1);
    assert_says(&b->ended, STATUS_INVALID_ARGUMENT, "64 tokens and the model's context is 64");
    ask(b, 0, 1);
    assert_says(&b->ended, STATUS_INVALID_ARGUMENT, "no tokens");
    assert_int_equal(b->ends, 3);
    assert_true(core_is_idle(b->core));
}

static void test_the_queue_is_bounded(void **state) {
    bench *b = *state;
    start_group(b);
    for (int i = 0; i < 6; i++) ask(b, 8, 8); // one runs, two wait
    assert_int_equal(b->ended.code, STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(b->end.retry_after_ms, 1000); // nothing has been slow so far
    assert_int_equal(b->ends, 3);
}

static void test_a_decode_never_waits_for_a_prompt(void **state) {
    bench *b = *state;
    start_group(b);
    ask(b, 4, 20);
    answer(b);
    ask(b, 40, 2); // five steps' worth of rows
    for (int i = 0; i < 6; i++) {
        answer(b);
        const step_plan *p = &b->plans[b->plan_count - 1];
        assert_int_equal(p->rows[0].token_count, 0); // the token last sampled
        assert_true(p->rows[0].sample);
    }
    assert_int_equal(b->ends, 0);
}

static void test_length_and_two_plans_under_way(void **state) {
    bench *b = *state;
    start_group(b);
    ask(b, 4, 3);
    assert_int_equal(b->plan_count, 2); // the second without knowing the first's token
    for (int i = 0; i < 3; i++) answer(b);
    assert_int_equal(b->ends, 1);
    assert_int_equal(b->pieces, 3);
    assert_int_equal(b->finish, ANSWER_LENGTH);
    assert_int_equal(b->end.usage.completion_tokens, 3);
    assert_int_equal(used_blocks(b), 0);
}

static void test_cancel_frees_at_once(void **state) {
    bench *b = *state;
    start_group(b);
    uint64_t id = ask(b, 20, 20);
    assert_int_equal(used_blocks(b), 5);
    send(b, (core_event){.kind = CORE_CANCEL, .request_id = id});
    assert_int_equal(b->ended.code, STATUS_CANCELLED);
    assert_int_equal(used_blocks(b), 0);
    while (b->plan_count) answer(b); // late results find nobody
    assert_int_equal(b->ends, 1);
}

static void test_a_silent_rank_is_named(void **state) {
    bench *b = *state;
    start_group(b);
    ask(b, 4, 20);
    answer(b);
    for (int i = 0; i < 20 && !b->closed[0]; i++) {
        beat(b, 0);
        pass(b, 100 * CLOCK_MS);
    }
    assert_non_null(strstr(b->closed, "rank 1 (n1, pid 101) sent no heartbeat"));
    assert_int_equal(b->ends, 0); // it waits for another group
    start_group(b);
    assert_int_equal(b->plans[0].open[0].draws, 1); // and goes on where it was
    assert_int_equal(b->plans[0].rows[0].token_count, 5);
}

static void test_waits_for_a_group_within_bounds(void **state) {
    bench *b = *state;
    start_group(b);
    ask(b, 4, 20);
    send(b, (core_event){.kind = CORE_GROUP_CLOSED, .epoch = b->epoch});
    pass(b, 29 * CLOCK_SECOND);
    assert_int_equal(b->ends, 0);
    pass(b, 2 * CLOCK_SECOND);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "the leader's stream closed");
}

static void test_own_stall_is_nobodys_silence(void **state) {
    bench *b = *state;
    start_group(b);
    b->now += 60 * CLOCK_SECOND; // the whole process stood still
    beat(b, 0);
    beat(b, 1);
    assert_string_equal(b->closed, "");
}

static void test_nonsense_ends_a_group(void **state) {
    bench *b = *state;
    start_group(b);
    ask(b, 4, 20);
    step_result result = {.step = 7};
    send(b, (core_event){.kind = CORE_STEP_RESULT, .epoch = b->epoch, .result = result});
    assert_non_null(strstr(b->closed, "step 7 came out of turn"));
}

static void test_deadline(void **state) {
    bench *b = *state;
    start_group(b);
    ask(b, 4, 20);
    for (int i = 0; i < 1010 && !b->ends; i++) {
        beat(b, 0);
        beat(b, 1);
        if (b->plan_count && i % 100 == 0) answer(b);
        pass(b, 100 * CLOCK_MS);
    }
    assert_int_equal(b->ended.code, STATUS_DEADLINE_EXCEEDED);
    assert_int_equal(used_blocks(b), 0);
}

static void test_drain(void **state) {
    bench *b = *state;
    start_group(b);
    ask(b, 4, 3);
    int waits;
    send(b, (core_event){.kind = CORE_DRAIN,
                         .drain = {.deadline_ns = b->now + CLOCK_SECOND, .reply = &waits}});
    ask(b, 4, 3);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "shutting down");
    while (b->plan_count) answer(b);
    assert_int_equal(b->ended.code, STATUS_OK);
    assert_true(b->drained);
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_who_may_join),
        CASE(test_what_is_refused),
        CASE(test_another_model_ends_what_waits_for_the_first),
        CASE(test_the_queue_is_bounded),
        CASE(test_a_decode_never_waits_for_a_prompt),
        CASE(test_length_and_two_plans_under_way),
        CASE(test_cancel_frees_at_once),
        CASE(test_a_silent_rank_is_named),
        CASE(test_waits_for_a_group_within_bounds),
        CASE(test_own_stall_is_nobodys_silence),
        CASE(test_nonsense_ends_a_group),
        CASE(test_deadline),
        CASE(test_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
