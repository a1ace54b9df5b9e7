// Who leaves, where to, what comes of it, and who never does. The simulator covers combinations.
#include "unit/coordinator/core/away_bench.h"

static void test_leaves_when_no_group_is_ready(void **state) {
    bench *b = *state;
    open_lane(b);
    submit(b, may_leave(b));
    assert_int_equal(b->call_count, 1);
    assert_int_equal(last(b)->mode, UPSTREAM_FRESH);
    assert_true(last(b)->failover);
    assert_int_equal(b->notice, NOTICE_TRAFFIC_LEFT);
    content(b, last(b)->call, "hello");
    assert_string_equal(b->server, "first");
    end_well(b, last(b)->call);
    assert_int_equal(b->ends, 1);
    assert_int_equal(b->ended.code, STATUS_OK);
    assert_string_equal(b->said, "hello");
    assert_int_equal(b->finish, ANSWER_STOP);
    assert_int_equal(b->end.usage.completion_tokens, 5);
    assert_string_equal(b->end.usage.segments[0].by, "first");
    assert_int_equal(b->done, 1);
}

static void test_local_only_never_leaves(void **state) {
    bench *b = *state;
    open_lane(b);
    core_request *r = may_leave(b);
    r->route.privacy = PRIVACY_LOCAL_ONLY; // whatever else its route says
    submit(b, r);
    pass(b, 200 * CLOCK_SECOND);
    assert_int_equal(b->call_count, 0);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "local-only and may not leave");
}

static void test_who_has_a_deadline_before_a_group_hears_why(void **state) {
    bench *b = *state;
    open_lane(b);
    core_request *r = may_leave(b);
    r->route.privacy = PRIVACY_LOCAL_ONLY;
    r->deadline_ns = b->now + 2 * CLOCK_SECOND;
    submit(b, r);
    pass(b, 3 * CLOCK_SECOND);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "may not leave");
}

static void test_several_answers_and_logprobs_stay(void **state) {
    bench *b = *state;
    open_lane(b);
    core_request *r = may_leave(b);
    r->n = 2;
    submit(b, r);
    r = may_leave(b);
    r->sampling.logprobs = 0;
    submit(b, r);
    assert_int_equal(b->call_count, 0);
}

static void test_next_target_before_content(void **state) {
    bench *b = *state;
    open_lane(b);
    submit(b, may_leave(b));
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    assert_int_equal(b->call_count, 2);
    assert_int_equal(last(b)->upstream, 1);
    end_badly(b, last(b)->call, UPSTREAM_FAULT); // none is left, none twice
    pass(b, 60 * CLOCK_SECOND);
    assert_int_equal(b->call_count, 2);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "the last upstream: as told");
    assert_int_equal(b->done, 2);
}

static void test_a_request_that_is_not_ours(void **state) {
    bench *b = *state;
    core_request *r = may_leave(b);
    r->model = "frontier";
    r->route.local = false;
    r->prompt_count = 0;
    submit(b, r);
    assert_int_equal(b->call_count, 1);
    assert_false(last(b)->failover);
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "no upstream could serve");
    r = may_leave(b);
    r->route = (core_route){.rule = "none"};
    r->model = "frontier";
    submit(b, r);
    assert_int_equal(b->ends, 2);
    assert_int_not_equal(b->ended.code, STATUS_OK);
}

static void test_a_clients_fault_ends_it(void **state) {
    bench *b = *state;
    core_request *r = may_leave(b);
    r->route.local = false;
    r->prompt_count = 0;
    submit(b, r);
    end_badly(b, last(b)->call, UPSTREAM_CLIENT);
    assert_int_equal(b->call_count, 1);
    assert_says(&b->ended, STATUS_INVALID_ARGUMENT, "as told");
    r = may_leave(b);
    r->route.local = false;
    r->prompt_count = 0;
    submit(b, r);
    end_as(b, last(b)->call, (upstream_end){.outcome = UPSTREAM_CLIENT, .other_target = true});
    assert_int_equal(b->call_count, 3);
    end_well(b, last(b)->call);
    assert_int_equal(b->ended.code, STATUS_OK);
}

static void test_busy_is_asked_again_later(void **state) {
    bench *b = *state;
    core_request *r = may_leave(b);
    r->route.local = false;
    r->prompt_count = 0;
    r->route.upstream_count = 1;
    submit(b, r);
    end_as(b, last(b)->call, (upstream_end){.outcome = UPSTREAM_BUSY, .retry_after_ms = 3000});
    pass(b, 2900 * CLOCK_MS);
    assert_int_equal(b->call_count, 1);
    pass(b, 200 * CLOCK_MS);
    assert_int_equal(b->call_count, 2);
    end_well(b, last(b)->call);
    assert_int_equal(b->ended.code, STATUS_OK);
}

static void test_budgets(void **state) {
    bench *b = *state;
    core_request *r = may_leave(b);
    r->route.local = false;
    r->prompt_count = 0;
    r->route.upstream_count = 3;
    r->route.upstreams[2] = 2;
    r->route.cost_limit = 100;
    submit(b, r);
    end_as(b, last(b)->call, (upstream_end){.outcome = UPSTREAM_FAULT, .cost_microdollars = 100});
    assert_int_equal(b->call_count, 1);
    assert_int_equal(b->ended.code, STATUS_UNAVAILABLE);
}

static void test_a_refused_account_is_left_alone(void **state) {
    bench *b = *state;
    open_lane(b);
    submit(b, may_leave(b));
    end_badly(b, last(b)->call, UPSTREAM_ACCOUNT);
    assert_int_equal(last(b)->upstream, 1);
    submit(b, may_leave(b));
    assert_int_equal(last(b)->upstream, 1);
    assert_int_equal(b->call_count, 3);
    send(b, (core_event){.kind = CORE_UPSTREAM_RENEWED, .renewed = 0}); // with another key
    submit(b, may_leave(b));
    assert_int_equal(last(b)->upstream, 0);
}

// Tokens "1 1 " were streamed when the group died.
static core_request *half_an_answer(bench *b, midstream_policy policy) {
    start_group(b);
    core_request *r = may_leave(b);
    r->route.midstream = policy;
    submit(b, r);
    answer(b);
    answer(b);
    assert_string_equal(b->said, "1 1 ");
    assert_string_equal(b->server, "local/m");
    return r;
}

static void test_continue_by_user_turn_cuts_what_is_repeated(void **state) {
    bench *b = *state;
    half_an_answer(b, MIDSTREAM_CONTINUE);
    lose(b);
    assert_int_equal(last(b)->mode, UPSTREAM_USER_TURN);
    assert_string_equal(b->partial, "1 1 ");
    content(b, last(b)->call, "1 ");
    assert_string_equal(b->said, "1 1 "); // not yet clear
    content(b, last(b)->call, "1 and");
    content(b, last(b)->call, " on");
    end_well(b, last(b)->call);
    assert_string_equal(b->said, "1 1 and on");
    assert_int_equal(b->end.usage.segment_count, 2);
    assert_string_equal(b->end.usage.segments[1].by, "first");
    assert_string_equal(b->server, "first");
    assert_int_equal(b->end.usage.completion_tokens, 7);
}

// The first upstream breaks off, the second ends (as `finish`) while it still repeats.
static void ends_repeating(bench *b, answer_finish finish, const char *want) {
    core_request *r = may_leave(b);
    r->route.midstream = MIDSTREAM_CONTINUE;
    b->said[0] = 0;
    submit(b, r);
    content(b, last(b)->call, "one two three four fi");
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    assert_int_equal(last(b)->mode, UPSTREAM_USER_TURN);
    content(b, last(b)->call, "two three");
    end_as(b, last(b)->call,
           (upstream_end){.finish = finish, .usage = {.output_tokens = 5, .known = true}});
    assert_string_equal(b->said, want);
    assert_int_equal(b->finish, finish);
    assert_string_equal(b->end.usage.segments[1].by, "second");
}

static void test_an_end_inside_of_what_is_repeated(void **state) {
    bench *b = *state;
    open_lane(b);
    ends_repeating(b, ANSWER_LENGTH, "one two three four fi");
    // By itself: it may be how the answer ends.
    ends_repeating(b, ANSWER_STOP, "one two three four fitwo three");
}

static core_request *stops_at(core_request *r, const char *stop) {
    r->stop[r->stop_count++] = (core_stop){.bytes = stop, .size = strlen(stop)};
    return r;
}

// Begun here, ended there: the client has the text up to the stop text, and the call is let go.
static void test_a_stop_text_over_the_switch(void **state) {
    bench *b = *state;
    start_group(b);
    core_request *r = stops_at(may_leave(b), "1 END");
    r->route.midstream = MIDSTREAM_CONTINUE;
    submit(b, r);
    answer(b);
    answer(b);
    assert_string_equal(b->said, "1 "); // the second "1 " may begin it
    targets[0].takes_prefill = true;
    lose(b);
    assert_int_equal(last(b)->mode, UPSTREAM_PREFILL);
    assert_string_equal(b->partial, "1 "); // what is held back will be said anew
    content(b, last(b)->call, "and 1 E");
    assert_string_equal(b->said, "1 and ");
    content(b, last(b)->call, "ND of it");
    assert_string_equal(b->said, "1 and ");
    assert_int_equal(b->ends, 1);
    assert_int_equal(b->ended.code, STATUS_OK);
    assert_int_equal(b->finish, ANSWER_STOP);
    assert_true(b->end.usage.estimated);
    assert_int_equal(b->end.usage.segments[1].tokens, (7 + 8 + 3) / 4);
    assert_int_equal(b->cancelled, last(b)->call);
    content(b, last(b)->call, " and more"); // nobody's
    end_well(b, last(b)->call);
    assert_string_equal(b->said, "1 and ");
    assert_int_equal(b->ends, 1);
    targets[0].takes_prefill = false;
}

// Held back in vain: the next one says it anew, and the end says it.
static void test_no_stop_text_after_all(void **state) {
    bench *b = *state;
    open_lane(b);
    core_request *r = stops_at(stops_at(may_leave(b), "aab"), "ab");
    r->route.midstream = MIDSTREAM_CONTINUE;
    submit(b, r);
    content(b, last(b)->call, "so aa");
    assert_string_equal(b->said, "so ");
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    content(b, last(b)->call, "so a long text is it that it is no repetition, and aa");
    content(b, last(b)->call, "c, aa");
    end_well(b, last(b)->call); // all is said that was held back
    assert_string_equal(b->said, "so so a long text is it that it is no repetition, and aac, aa");
    assert_int_equal(b->finish, ANSWER_STOP);
}

static void test_continue_by_prefill(void **state) {
    bench *b = *state;
    targets[0].takes_prefill = true;
    half_an_answer(b, MIDSTREAM_CONTINUE);
    lose(b);
    assert_int_equal(last(b)->mode, UPSTREAM_PREFILL);
    content(b, last(b)->call, "1 1 "); // literally: nothing is cut
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    assert_string_equal(b->said, "1 1 1 1 ");
    assert_says(&b->ended, STATUS_UNAVAILABLE, "broke off"); // one switch is all
    assert_int_equal(b->call_count, 1);
}

// What our groups say of a request that must be redacted may hold what was to be: it is not handed
// on.
static void test_words_of_ours_stay_when_redacted(void **state) {
    bench *b = *state;
    half_an_answer(b, MIDSTREAM_CONTINUE)->route.privacy = PRIVACY_REDACT;
    lose(b);
    assert_int_equal(b->call_count, 0);
    start_group(b);
    while (b->plan_count) answer(b);
    assert_int_equal(b->ended.code, STATUS_OK);
    assert_int_equal(strlen(b->said), 40);
    b->said[0] = 0;
    lose(b);
    core_request *r = may_leave(b); // an upstream's words come from the redacted copy
    r->route.privacy = PRIVACY_REDACT;
    r->route.midstream = MIDSTREAM_CONTINUE;
    submit(b, r);
    content(b, last(b)->call, "half");
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    assert_int_equal(b->call_count, 2);
    assert_string_equal(b->partial, "half");
    end_well(b, last(b)->call);
}

static void test_replay_waits_and_error_ends(void **state) {
    bench *b = *state;
    half_an_answer(b, MIDSTREAM_REPLAY);
    lose(b);
    assert_int_equal(b->ends, 0);
    assert_int_equal(b->call_count, 0);
    start_group(b);
    while (b->plan_count) answer(b);
    assert_int_equal(b->ended.code, STATUS_OK);
    assert_int_equal(strlen(b->said), 40); // 20 tokens, once each
    b->said[0] = 0;
    lose(b);
    half_an_answer(b, MIDSTREAM_ERROR);
    lose(b);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "broke off when its worker group was lost");
    assert_int_equal(b->call_count, 0);
}

static void test_returns_without_a_flap(void **state) {
    bench *b = *state;
    open_lane(b);
    submit(b, may_leave(b));
    end_well(b, last(b)->call);
    start_group(b);
    keep_alive(b, 5 * CLOCK_SECOND);
    submit(b, may_leave(b)); // the group is there, but not long enough
    assert_int_equal(b->call_count, 2);
    end_well(b, last(b)->call);
    core_request *r = may_leave(b);
    r->route.privacy = PRIVACY_LOCAL_ONLY; // is served at once
    submit(b, r);
    assert_true(b->plan_count > 0);
    keep_alive(b, 6 * CLOCK_SECOND);
    assert_int_equal(b->notice, NOTICE_TRAFFIC_BACK);
    while (b->plan_count) answer(b);
    submit(b, may_leave(b));
    assert_int_equal(b->call_count, 2);
    assert_true(b->plan_count > 0);
}

static void test_spills_from_the_queue(void **state) {
    bench *b = *state;
    start_group(b);
    for (int i = 0; i < 6; i++) ask(b, 8, 30);
    core_request *r = may_leave(b);
    r->route.spill_ns = 500 * CLOCK_MS;
    submit(b, r);
    keep_alive(b, 400 * CLOCK_MS);
    assert_int_equal(b->call_count, 0);
    keep_alive(b, 400 * CLOCK_MS);
    assert_int_equal(b->call_count, 1);
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    end_badly(b, last(b)->call, UPSTREAM_FAULT); // back to the queue
    while (b->plan_count) answer(b);
    assert_int_equal(b->ends, 7);
    assert_int_equal(b->ended.code, STATUS_OK);
}

static void test_a_client_that_leaves(void **state) {
    bench *b = *state;
    open_lane(b);
    submit(b, may_leave(b));
    uint64_t call = last(b)->call;
    send(b, (core_event){.kind = CORE_CANCEL, .request_id = b->next_id});
    assert_int_equal(b->ends, 1);
    assert_int_equal(b->cancelled, call);
    content(b, call, "late");
    assert_string_equal(b->said, "");
    assert_int_equal(b->done, 0);
    end_badly(b, call, UPSTREAM_CANCELLED);
    assert_int_equal(b->done, 1);
}

static void test_the_breaker(void **state) {
    bench *b = *state;
    open_lane(b);
    for (int i = 0; i < 3; i++) { // nobody's fault but the clients'
        core_request *r = may_leave(b);
        r->route.upstream_count = 1;
        submit(b, r);
        end_badly(b, last(b)->call, UPSTREAM_CLIENT);
    }
    for (int i = 0; i < 2; i++) {
        submit(b, may_leave(b));
        assert_int_equal(last(b)->upstream, 0);
        end_badly(b, last(b)->call, UPSTREAM_FAULT);
        end_well(b, last(b)->call);
    }
    int calls = b->call_count;
    submit(b, may_leave(b)); // open: the second is asked
    assert_int_equal(b->call_count, calls + 1);
    assert_int_equal(last(b)->upstream, 1);
    end_well(b, last(b)->call);
    pass(b, 6 * CLOCK_SECOND);
    submit(b, may_leave(b)); // the probe
    uint64_t probe = last(b)->call;
    assert_int_equal(last(b)->upstream, 0);
    submit(b, may_leave(b)); // one at a time
    assert_int_equal(last(b)->upstream, 1);
    end_well(b, last(b)->call);
    end_well(b, probe);
    assert_int_equal(b->notice, NOTICE_BREAKER_CLOSED);
    submit(b, may_leave(b));
    assert_int_equal(last(b)->upstream, 0);
    end_well(b, last(b)->call);
}

static void test_a_poisonous_request(void **state) {
    bench *b = *state;
    start_group(b);
    ask(b, 3, 4);
    lose(b); // in its first step
    assert_int_equal(b->loss, LOSS_STREAM_CLOSED);
    ask(b, 3, 4);
    start_group(b);
    assert_int_equal(b->plan_count, 1); // it alone
    assert_int_equal(b->plans[0].rows_count, 1);
    assert_int_equal(b->ends, 0);
    lose(b);
    assert_int_equal(b->ends, 1);
    assert_says(&b->ended, STATUS_INTERNAL, "not tried again");
    start_group(b);
    while (b->plan_count) answer(b);
    assert_int_equal(b->ends, 2); // the other one was never suspected
    assert_int_equal(b->ended.code, STATUS_OK);
}

static void test_chance_is_no_poison(void **state) {
    bench *b = *state;
    for (int i = 0; i < 5; i++) {
        start_group(b);
        if (i == 0) ask(b, 3, 50);
        for (int had = b->pieces; b->pieces < had + 6;) answer(b); // past where it died before
        lose(b);
    }
    assert_int_equal(b->ends, 0);
    start_group(b);
    while (b->plan_count) answer(b);
    assert_int_equal(b->ended.code, STATUS_OK);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_away, close_away)
    const struct CMUnitTest tests[] = {
        TEST(test_leaves_when_no_group_is_ready),
        TEST(test_local_only_never_leaves),
        TEST(test_who_has_a_deadline_before_a_group_hears_why),
        TEST(test_several_answers_and_logprobs_stay),
        TEST(test_next_target_before_content),
        TEST(test_a_request_that_is_not_ours),
        TEST(test_a_clients_fault_ends_it),
        TEST(test_busy_is_asked_again_later),
        TEST(test_budgets),
        TEST(test_a_refused_account_is_left_alone),
        TEST(test_continue_by_user_turn_cuts_what_is_repeated),
        TEST(test_an_end_inside_of_what_is_repeated),
        TEST(test_a_stop_text_over_the_switch),
        TEST(test_no_stop_text_after_all),
        TEST(test_continue_by_prefill),
        TEST(test_words_of_ours_stay_when_redacted),
        TEST(test_replay_waits_and_error_ends),
        TEST(test_returns_without_a_flap),
        TEST(test_spills_from_the_queue),
        TEST(test_a_client_that_leaves),
        TEST(test_the_breaker),
        TEST(test_a_poisonous_request),
        TEST(test_chance_is_no_poison),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
