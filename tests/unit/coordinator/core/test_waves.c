// Groups in stages: sequences in waves, whose plans follow one another.
#include "unit/coordinator/core/core_bench.h"

static int setup(void **state) {
    static bench b;
    core_options o = bench_options();
    o.max_queue = 50;
    o.max_step_tokens = 16;
    o.max_seqs = 8;
    bench_open(&b, &o);
    *state = &b;
    return 0;
}

static int teardown(void **state) {
    bench_close(*state);
    return 0;
}

static void join_stages(bench *b, int stages) {
    register_request r = hello(stages);
    r.stages = stages;
    join(b, &r);
    assert_string_equal(b->joined.message, "");
    for (int i = 0; i < stages; i++) beat(b, i);
}

static void be_ready(bench *b) {
    send(b,
         (core_event){.kind = CORE_GROUP_READY, .epoch = b->epoch, .ready = {.kv_blocks = BLOCKS}});
}

static void start_stages(bench *b, int stages) {
    join_stages(b, stages);
    be_ready(b);
}

static bool has_slot(const step_plan *p, int slot) {
    for (int i = 0; i < p->rows_count; i++)
        if (p->rows[i].slot == slot) return true;
    return false;
}

static bool meet(const step_plan *a, const step_plan *b) {
    for (int i = 0; i < a->rows_count; i++)
        if (has_slot(b, a->rows[i].slot)) return true;
    return false;
}

static void test_two_waves_take_turns(void **state) {
    bench *b = *state;
    start_stages(b, 2);
    ask(b, 4, 20);
    ask(b, 4, 20);
    assert_int_equal(b->plan_count, 3);
    answer(b); // the first request's second step was planned before the other came
    answer(b);
    for (int i = 0; i < 8; i++, answer(b)) {
        assert_int_equal(b->plan_count, 3);
        assert_int_equal(b->plans[0].rows_count, 1);
        assert_int_equal(b->plans[1].rows_count, 1);
        assert_false(meet(&b->plans[0], &b->plans[1]));
        assert_false(meet(&b->plans[1], &b->plans[2]));
        assert_true(meet(&b->plans[0], &b->plans[2]));
        assert_int_equal(b->plans[2].rows[0].token_count, 0); // the token last sampled
    }
    while (b->plan_count) answer(b);
    assert_int_equal(b->ends, 2);
    assert_int_equal(used_blocks(b), 0);
}

static void test_one_sequence_runs_as_without_stages(void **state) {
    bench *b = *state;
    start_stages(b, 2);
    ask(b, 4, 3);
    assert_int_equal(b->plan_count, 2);
    for (int i = 0; i < 3; i++) answer(b);
    assert_int_equal(b->ends, 1);
    assert_int_equal(b->pieces, 3);
}

static void test_plans_under_way_are_bounded(void **state) {
    bench *b = *state;
    start_stages(b, 4);
    for (int i = 0; i < 8; i++) ask(b, 2, 30);
    for (int i = 0; i < 20; i++, answer(b)) assert_int_equal(b->plan_count, 5);
    for (int i = 0; i + 1 < b->plan_count; i++) {
        assert_int_equal(b->plans[i].rows_count, 2);
        for (int k = i + 1; k < i + 4 && k < b->plan_count; k++)
            assert_false(meet(&b->plans[i], &b->plans[k]));
    }
}

// All that wait are shared out at once, not the first plan's room filled.
static void test_what_waits_is_shared_out(void **state) {
    bench *b = *state;
    join_stages(b, 2);
    for (int i = 0; i < 6; i++) ask(b, 2, 30);
    be_ready(b);
    assert_int_equal(b->plans[0].open_count, 3);
    assert_int_equal(b->plans[1].open_count, 3);
}

static void test_waves_are_levelled(void **state) {
    bench *b = *state;
    uint64_t ids[6];
    join_stages(b, 2);
    for (int i = 0; i < 6; i++) ids[i] = ask(b, 2, 30);
    be_ready(b);
    for (int i = 0; i < 6; i++) answer(b);
    assert_int_equal(b->plans[0].rows_count, 3);
    for (int i = 0; i < 6; i++) // slots are taken in order; those of one wave only
        if (has_slot(&b->plans[0], i))
            send(b, (core_event){.kind = CORE_CANCEL, .request_id = ids[i]});
    assert_int_equal(b->ends, 3);
    for (int i = 0; i < 8; i++) answer(b); // what was moved has rested
    int one = b->plans[0].rows_count, two = b->plans[1].rows_count;
    assert_int_equal(one + two, 3);
    assert_true(one > 0 && two > 0);
    assert_false(meet(&b->plans[0], &b->plans[1]));
    while (b->plan_count) answer(b);
    assert_int_equal(b->ends, 6);
    assert_int_equal(used_blocks(b), 0);
}

static void test_a_loss_puts_all_waves_back(void **state) {
    bench *b = *state;
    start_stages(b, 2);
    for (int i = 0; i < 4; i++) ask(b, 2, 10);
    for (int i = 0; i < 5; i++) answer(b);
    send(b, (core_event){.kind = CORE_GROUP_CLOSED, .epoch = b->epoch});
    while (b->plan_count) arena_destroy(take_plan(b, 0).memory);
    assert_int_equal(b->ends, 0);
    start_stages(b, 2);
    while (b->plan_count) answer(b);
    assert_int_equal(b->ends, 4);
    assert_int_equal(b->ended.code, STATUS_OK);
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_two_waves_take_turns),        CASE(test_one_sequence_runs_as_without_stages),
        CASE(test_plans_under_way_are_bounded), CASE(test_what_waits_is_shared_out),
        CASE(test_waves_are_levelled),          CASE(test_a_loss_puts_all_waves_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
