// Several groups of one model: who gets what, who stands by, who is blamed when one dies.
#include "unit/coordinator/core/core_bench.h"

static int setup(void **state) {
    static bench b;
    core_options o = bench_options();
    o.max_queue = 50;
    bench_open(&b, &o);
    *state = &b;
    return 0;
}

static int teardown(void **state) {
    bench_close(*state);
    return 0;
}

static uint64_t open_group(bench *b, bool spare) {
    start_group_as(b, spare);
    return b->epoch;
}

static void lose(bench *b, uint64_t epoch) {
    send(b, (core_event){.kind = CORE_GROUP_CLOSED, .epoch = epoch});
}

static int plans_of(const bench *b, uint64_t epoch) {
    int count = 0;
    for (int i = 0; i < b->plan_count; i++) count += b->of[i] == epoch;
    return count;
}

static int plan_of(const bench *b, uint64_t epoch) {
    for (int i = 0; i < b->plan_count; i++)
        if (b->of[i] == epoch) return i;
    fail_msg("the group has no plan");
    return -1;
}

static void finish_all(bench *b) {
    for (int i = 0; i < 1000 && b->plan_count > 0; i++) answer(b);
    assert_int_equal(b->plan_count, 0);
}

static core_request *request_for(bench *b, int first, int count, int max_tokens) {
    core_request *r = core_request_create();
    r->id = ++b->next_id;
    r->client = "c";
    r->model = "m";
    r->vocabulary = (vocabulary){.size = VOCAB, .decode = decode};
    snprintf(r->public_id, sizeof r->public_id, "r%d", (int)r->id);
    int32_t *tokens = arena_alloc_array(r->memory, (size_t)count, sizeof *tokens);
    for (int i = 0; i < count; i++) tokens[i] = (first + i) % VOCAB;
    r->prompt = tokens;
    r->prompt_count = count;
    r->max_tokens = max_tokens;
    r->deadline_ns = b->now + 100 * CLOCK_SECOND;
    return r;
}

static uint64_t ask_for(bench *b, int first, int count, int max_tokens) {
    core_request *r = request_for(b, first, count, max_tokens);
    send(b, (core_event){.kind = CORE_REQUEST, .request = r});
    return b->next_id;
}

static void test_least_loaded(void **state) {
    bench *b = *state;
    uint64_t one = open_group(b, false), two = open_group(b, false);
    ask_for(b, 0, 3, 9);
    ask_for(b, 20, 3, 9);
    assert_int_equal(plans_of(b, one), 2);
    assert_int_equal(plans_of(b, two), 2);
}

// 24 tokens are six blocks: four more than nothing, so worth the busier group.
static void test_goes_where_its_prompt_is_computed(void **state) {
    bench *b = *state;
    uint64_t one = open_group(b, false);
    ask_for(b, 0, 24, 1);
    finish_all(b);
    ask_for(b, 50, 3, 30); // keeps the first busy
    uint64_t two = open_group(b, false);
    ask_for(b, 0, 24, 1); // its prompt's blocks are in the first group
    for (int i = 0; i < 6 && b->ends < 2; i++) {
        assert_int_equal(plans_of(b, two), 0);
        answer_plan(b, plan_of(b, one));
    }
    assert_int_equal(b->ends, 2);
    assert_int_equal(b->end.usage.cached_tokens, 20);
    ask_for(b, 70, 3, 1); // nobody's: the idle one's
    assert_int_equal(plans_of(b, two), 1);
}

static void test_a_spare_stands_by(void **state) {
    bench *b = *state;
    uint64_t spare = open_group(b, true);
    ask_for(b, 0, 3, 4); // alone, it serves
    assert_int_equal(plans_of(b, spare), 2);
    uint64_t one = open_group(b, false);
    ask_for(b, 20, 3, 30);
    ask_for(b, 30, 3, 30);
    assert_true(plans_of(b, one) > 0);
    for (int i = 0; i < 4; i++) answer_plan(b, plan_of(b, spare)); // ends what it has begun
    assert_int_equal(b->ends, 1);
    while (plans_of(b, spare)) answer_plan(b, plan_of(b, spare)); // closes slots
    for (int i = 0; i < 6; i++) ask_for(b, 40 + i, 3, 30);
    assert_int_equal(plans_of(b, spare), 0); // they wait for the other one
    lose(b, one);
    assert_true(plans_of(b, spare) > 0); // it takes over,
    open_group(b, false);
    finish_all(b);
    assert_int_equal(b->ends, 9);
    assert_int_equal(b->ended.code, STATUS_OK);
}

static void test_what_only_the_spare_can_hold_is_not_stuck(void **state) {
    bench *b = *state;
    start_group(b); // 24 blocks of 4 tokens: as many as the context
    uint64_t regular = b->epoch;
    register_request r = hello(2);
    join(b, &r); // a small one
    send(b, (core_event){.kind = CORE_GROUP_READY, .epoch = b->epoch, .ready = {.kv_blocks = 2}});
    send(b, (core_event){.kind = CORE_DRAIN,
                         .epoch = regular,
                         .drain = {.deadline_ns = b->now + CLOCK_SECOND}});
    open_group(b, true);
    ask_for(b, 0, 30, 1); // the small one cannot, and the spare does not while that one is ready
    assert_int_equal(b->ends, 1);
    assert_says(&b->ended, STATUS_INVALID_ARGUMENT, "the KV cache holds");
}

static void test_results_of_a_lost_epoch_are_nothing(void **state) {
    bench *b = *state;
    uint64_t old = open_group(b, false);
    ask_for(b, 0, 3, 4);
    lose(b, old);
    uint64_t fresh = open_group(b, false);
    seq_result seq = {.slot = 0, .token = 9};
    step_result late = {.step = 1, .seqs = &seq, .seq_count = 1};
    send(b, (core_event){.kind = CORE_STEP_RESULT, .epoch = old, .result = late});
    send(b, (core_event){.kind = CORE_HEARTBEAT, .heartbeat = {.epoch = old}});
    send(b, (core_event){.kind = CORE_GROUP_READY, .epoch = old, .ready = {.kv_blocks = 5}});
    lose(b, old);
    assert_int_equal(plans_of(b, fresh), 1); // it is suspected: one plan at a time
    finish_all(b);
    assert_string_equal(b->said, "1 1 1 1 ");
}

// What a group needs to go on under a grammar: its text, and the answer so far.
static void test_a_grammar_goes_along_with_its_answer(void **state) {
    bench *b = *state;
    uint64_t old = open_group(b, false);
    core_request *r = request_for(b, 0, 3, 4);
    char *text = arena_copy_string(r->memory, "a|b");
    r->grammar = (grammar_source){GRAMMAR_REGEX, text, 3};
    send(b, (core_event){.kind = CORE_REQUEST, .request = r});
    const open_seq *o = &b->plans[plan_of(b, old)].open[0];
    assert_int_equal(o->grammar.kind, GRAMMAR_REGEX);
    assert_memory_equal(o->grammar.text, "a|b", 3);
    assert_ptr_not_equal(o->grammar.text, text); // the request may end before the plan is sent
    assert_int_equal(o->history_count, 0);
    answer_plan(b, plan_of(b, old));
    answer_plan(b, plan_of(b, old));
    lose(b, old);
    uint64_t fresh = open_group(b, false);
    o = &b->plans[plan_of(b, fresh)].open[0];
    assert_int_equal(o->grammar.size, 3);
    assert_int_equal(o->prompt_tokens, 3);
    assert_int_equal(o->history_count, 5);
    assert_int_equal(o->history[4], 1);
    finish_all(b);
    assert_string_equal(b->said, "1 1 1 1 ");
}

// The answer's text is the arguments; what is called is said once, also where another group goes
// on.
static void test_an_answer_may_be_a_call(void **state) {
    bench *b = *state;
    uint64_t old = open_group(b, false);
    core_request *r = request_for(b, 0, 3, 4);
    r->tool = "look_up";
    send(b, (core_event){.kind = CORE_REQUEST, .request = r});
    answer_plan(b, plan_of(b, old));
    assert_string_equal(b->called, "look_up call_");
    b->called[0] = 0;
    lose(b, old);
    open_group(b, false);
    finish_all(b);
    assert_string_equal(b->called, "");
    assert_string_equal(b->said, "1 1 1 1 ");
    assert_int_equal(b->finish, ANSWER_LENGTH);
}

// ---- heat

static void beat_with(bench *b, uint32_t throttle) {
    heartbeat h = {.epoch = b->epoch,
                   .rank = 1,
                   .device = {.known = true, .temperature = 88, .throttle = throttle}};
    pass(b, 100 * CLOCK_MS);
    beat(b, 0);
    send(b, (core_event){.kind = CORE_HEARTBEAT, .heartbeat = h});
}

// What comes and goes within seconds is one time of heat: one event at its begin, one at its end.
static void test_heat_is_told_once(void **state) {
    bench *b = *state;
    open_group(b, false);
    int hot = b->hot, cool = b->cool;
    for (int i = 0; i < 50; i++)
        beat_with(b, i % 2 ? DEVICE_THROTTLE_THERMAL : DEVICE_THROTTLE_POWER);
    assert_int_equal(b->hot - hot, 1);
    for (int i = 0; i < 90; i++) beat_with(b, DEVICE_THROTTLE_POWER);
    assert_int_equal(b->cool - cool, 0);
    for (int i = 0; i < 20; i++) beat_with(b, 0);
    assert_int_equal(b->cool - cool, 1);
    beat_with(b, DEVICE_THROTTLE_THERMAL);
    assert_int_equal(b->hot - hot, 2);
}

// ---- who is blamed

static void test_who_kills_alone_kills_twice(void **state) {
    bench *b = *state;
    uint64_t one = open_group(b, false);
    ask_for(b, 50, 3, 30);
    answer(b); // it runs well
    uint64_t killer = ask_for(b, 0, 3, 30);
    answer(b); // the plan in which it is comes up
    lose(b, one);
    assert_int_equal(b->ends, 0);
    uint64_t two = open_group(b, false);
    for (int i = 0; i < 10 && b->ends == 0; i++) {
        step_plan *p = &b->plans[plan_of(b, two)];
        bool alone = p->rows_count == 1 && p->open_count == 1 && p->rows[0].token_count == 3;
        if (alone && p->rows[0].tokens[0] == 0)
            lose(b, two);
        else
            answer_plan(b, plan_of(b, two));
    }
    assert_int_equal(b->ends, 1);
    assert_says(&b->ended, STATUS_INTERNAL, "2 worker groups died");
    char id[16];
    snprintf(id, sizeof id, "r%d", (int)killer);
    assert_string_equal(b->poison, id);
    open_group(b, false);
    finish_all(b);
    assert_int_equal(b->ends, 2);
    assert_int_equal(b->ended.code, STATUS_OK); // the bystander
}

// Both were new when the first group died, so neither is blamed for that one.
static void test_bystanders_are_not_blamed(void **state) {
    bench *b = *state;
    uint64_t one = open_group(b, false);
    ask_for(b, 50, 8, 30); // fills the first step
    ask_for(b, 0, 3, 30);
    ask_for(b, 20, 3, 30);
    answer(b);
    assert_int_equal(b->plans[b->plan_count - 1].open_count, 2); // both begin in one step
    lose(b, one);
    int killed = 1;
    for (int round = 0; round < 4 && b->ends == 0; round++) {
        uint64_t epoch = open_group(b, false);
        while (b->ends == 0 && plans_of(b, epoch) > 0) {
            step_plan *p = &b->plans[plan_of(b, epoch)];
            bool is_it = false;
            for (int i = 0; i < p->rows_count; i++)
                is_it |= p->rows[i].position == 0 && p->rows[i].token_count == 3 &&
                         p->rows[i].tokens[0] == 20;
            if (is_it) {
                assert_int_equal(p->rows_count, 1); // on its own
                killed++;
                lose(b, epoch);
            } else {
                answer_plan(b, plan_of(b, epoch));
            }
        }
    }
    assert_int_equal(killed, 3);
    assert_string_equal(b->poison, "r3");
    open_group(b, false);
    finish_all(b);
    assert_int_equal(b->ends, 3);
    assert_int_equal(b->ended.code, STATUS_OK);
}

// Two deaths near it, but a token came of it in between: it was not this request.
static void test_a_token_clears_it(void **state) {
    bench *b = *state;
    uint64_t one = open_group(b, false);
    ask_for(b, 0, 3, 30);
    lose(b, one); // blamed once
    uint64_t two = open_group(b, false);
    answer(b);
    lose(b, two);
    uint64_t three = open_group(b, false);
    lose(b, three); // blamed once again, not twice
    assert_int_equal(b->ends, 0);
    open_group(b, false);
    finish_all(b);
    assert_int_equal(b->ended.code, STATUS_OK);
}

// The slot of the sequence whose prompt begins with this token, if the plan begins it.
static int slot_of(const step_plan *p, int first, int otherwise) {
    for (int i = 0; i < p->rows_count; i++) {
        const seq_rows *r = &p->rows[i];
        if (r->position == 0 && r->token_count && r->tokens[0] == first) return r->slot;
    }
    return otherwise;
}

static bool computes(const step_plan *p, int slot, int from) {
    for (int i = 0; i < p->rows_count; i++)
        if (p->rows[i].slot == slot && p->rows[i].token_count <= 1 && p->rows[i].position >= from)
            return true;
    return false;
}

// The one whose prompt begins with `first` is harmless as a prompt, however long, and kills when
// a step computes one row of it at `from` or later. The groups that it took with it, 16 at most.
static int let_it_kill(bench *b, int first, int from) {
    int killed = 0;
    while (killed < 16 && !b->poison[0]) {
        uint64_t epoch = open_group(b, false);
        bool dies = false;
        for (int slot = -1; !dies && plans_of(b, epoch) > 0;) {
            const step_plan *p = &b->plans[plan_of(b, epoch)];
            slot = slot_of(p, first, slot);
            dies = computes(p, slot, from);
            if (!dies) answer_plan(b, plan_of(b, epoch));
        }
        if (!dies) break;
        killed++;
        lose(b, epoch);
    }
    return killed;
}

static void test_who_kills_later_is_quarantined(void **state) {
    bench *b = *state;
    lose(b, open_group(b, false)); // the model is known
    ask_for(b, 20, 3, 9); // a bystander that ends before the killer strikes, another that does not
    ask_for(b, 50, 3, 40);
    uint64_t killer = ask_for(b, 0, 3, 40);
    assert_int_equal(let_it_kill(b, 0, 13), 4); // with others, again, alone, alone
    char id[16];
    snprintf(id, sizeof id, "r%d", (int)killer);
    assert_string_equal(b->poison, id);
    assert_says(&b->ended, STATUS_INTERNAL, "not tried again");
    open_group(b, false);
    finish_all(b);
    assert_int_equal(b->ends, 3);
    assert_int_equal(b->ended.code, STATUS_OK);
}

// Nobody is suspected of the first death, as all had sampled there; the next time each of them that
// has not got past its place yet is, and runs alone: also its answer, one token at a time.
static void test_a_suspect_answers_alone_until_it_is_cleared(void **state) {
    bench *b = *state;
    uint64_t one = open_group(b, false);
    ask_for(b, 0, 3, 30);
    ask_for(b, 20, 3, 30);
    for (int i = 0; i < 4; i++) answer(b);
    lose(b, one);
    uint64_t two = open_group(b, false);
    assert_int_equal(plans_of(b, two), 2); // together
    answer(b);
    lose(b, two); // both under way
    uint64_t three = open_group(b, false);
    int alone = 0;
    for (; plans_of(b, three) == 1; alone++) {
        assert_int_equal(b->plans[plan_of(b, three)].rows_count, 1);
        answer_plan(b, plan_of(b, three));
    }
    assert_true(alone > 8); // two prompts, and some tokens each
    assert_int_equal(b->ends, 0);
    finish_all(b);
    assert_int_equal(b->ends, 2);
    assert_int_equal(b->ended.code, STATUS_OK);
}

static void test_silence_blames_nobody(void **state) {
    bench *b = *state;
    for (int i = 0; i < 5; i++) {
        open_group(b, false);
        if (i == 0) ask_for(b, 0, 3, 30);
        pass(b, 2 * CLOCK_SECOND); // no heartbeats: a link, or a machine
        assert_int_equal(b->loss, LOSS_SILENT);
    }
    assert_int_equal(b->ends, 0);
    open_group(b, false);
    finish_all(b);
    assert_int_equal(b->ended.code, STATUS_OK);
}

static void wrong_numbers(bench *b) {
    uint64_t epoch = b->of[0];
    step_plan plan = take_plan(b, 0);
    seq_result seq = {.slot = plan.rows[0].slot, .bad_numbers = true};
    step_result result = {.step = plan.step, .seqs = &seq, .seq_count = 1};
    arena_destroy(plan.memory);
    send(b, (core_event){.kind = CORE_STEP_RESULT, .epoch = epoch, .result = result});
}

static void test_wrong_numbers(void **state) {
    bench *b = *state;
    open_group(b, false);
    ask_for(b, 0, 3, 4);
    answer(b);
    wrong_numbers(b); // in the middle: the step is discarded, the group is not trusted
    assert_int_equal(b->loss, LOSS_NUMBERS);
    assert_int_equal(b->ends, 0);
    open_group(b, false);
    finish_all(b);
    assert_string_equal(b->said, "1 1 1 1 "); // no token twice, none missing
    ask_for(b, 0, 3, 4);
    wrong_numbers(b);
    open_group(b, false);
    wrong_numbers(b);
    assert_says(&b->ended, STATUS_INTERNAL, "not tried again");
}

static void test_codes_become_reasons(void **state) {
    bench *b = *state;
    static const struct {
        cluster_failure code;
        loss_reason loss;
    } cases[] = {{CLUSTER_FAILED, LOSS_DEVICE},
                 {CLUSTER_FAILED_DEVICE, LOSS_DEVICE},
                 {CLUSTER_FAILED_NUMBERS, LOSS_NUMBERS},
                 {CLUSTER_FAILED_CHECKSUM, LOSS_CHECKSUM},
                 {CLUSTER_FAILED_HUNG, LOSS_OVERDUE}};
    for (int i = 0; i < 5; i++) {
        core_event e = {.kind = CORE_GROUP_FAILED, .epoch = open_group(b, false)};
        e.failed = (group_failed){.rank = 1, .code = cases[i].code, .reason = "it says why"};
        send(b, e);
        assert_int_equal(b->loss, cases[i].loss);
        assert_int_equal(b->lost_rank, 1);
        assert_non_null(strstr(b->closed, "rank 1 (n1, pid 101)"));
    }
}

static void test_each_pays_for_its_rows(void **state) {
    bench *b = *state;
    open_group(b, false);
    ask_for(b, 0, 3, 1); // one step of 1 ms on two ranks, all of the rows its own
    finish_all(b);
    assert_int_equal(b->end.usage.compute_us, 2000);
    assert_string_equal(b->end.usage.segments[0].by, "local/m");
    assert_int_equal(b->end.usage.segments[0].tokens, 1);

    uint64_t left = ask_for(b, 20, 3, 9); // and goes with two steps under way
    send(b, (core_event){.kind = CORE_CANCEL, .request_id = left});
    ask_for(b, 40, 3, 1);
    finish_all(b);
    assert_int_equal(b->end.usage.compute_us, 2000 + 2 * 2000);
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_least_loaded),
        CASE(test_goes_where_its_prompt_is_computed),
        CASE(test_a_spare_stands_by),
        CASE(test_what_only_the_spare_can_hold_is_not_stuck),
        CASE(test_results_of_a_lost_epoch_are_nothing),
        CASE(test_a_grammar_goes_along_with_its_answer),
        CASE(test_an_answer_may_be_a_call),
        CASE(test_heat_is_told_once),
        CASE(test_who_kills_alone_kills_twice),
        CASE(test_bystanders_are_not_blamed),
        CASE(test_a_token_clears_it),
        CASE(test_who_kills_later_is_quarantined),
        CASE(test_a_suspect_answers_alone_until_it_is_cleared),
        CASE(test_silence_blames_nobody),
        CASE(test_wrong_numbers),
        CASE(test_codes_become_reasons),
        CASE(test_each_pays_for_its_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
