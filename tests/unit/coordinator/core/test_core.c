// The core's promises one by one: who may join, what is refused, what a plan holds, who is named
// when a group is lost. The simulator (tests/sim) covers their combinations.
#include "unit/coordinator/core/core_bench.h"

static int setup(void **state) {
    static bench b;
    core_options o = bench_options();
    bench_open(&b, &o);
    *state = &b;
    return 0;
}

static int teardown(void **state) {
    bench_close(*state);
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
