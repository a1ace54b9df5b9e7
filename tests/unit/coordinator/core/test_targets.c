// Which target is asked next, and when: what each end of a call means for the one who waits.
#include "unit/coordinator/core/away_bench.h"

// A request that no group of ours may serve.
static core_request *outside_only(bench *b) {
    core_request *r = may_leave(b);
    r->route.local = false;
    r->prompt_count = 0;
    r->route.midstream = MIDSTREAM_CONTINUE;
    return r;
}

static const char LONG[] = "This is what the first one said before it broke off";

static void test_an_answer_goes_on_at_the_next_upstream(void **state) {
    bench *b = *state;
    submit(b, outside_only(b));
    content(b, last(b)->call, LONG);
    end_as(b, last(b)->call,
           (upstream_end){.outcome = UPSTREAM_FAULT, .usage = {.output_tokens = 9}});
    assert_int_equal(b->call_count, 2);
    assert_int_equal(last(b)->upstream, 1);
    assert_int_equal(last(b)->mode, UPSTREAM_USER_TURN);
    assert_string_equal(b->partial, LONG);
    content(b, last(b)->call, "before it broke off, and the second one said this");
    end_well(b, last(b)->call);
    assert_int_equal(b->ended.code, STATUS_OK);
    assert_string_equal(b->said, "This is what the first one said before it broke off, and the "
                                 "second one said this");
    assert_int_equal(b->end.usage.completion_tokens, 14);
    assert_int_equal(b->end.usage.segment_count, 2);
    assert_int_equal(b->end.usage.segments[0].tokens, 9);
    assert_true(b->end.usage.estimated); // the first call's usage was
}

// The next target is busy now: the answer waits for it, it does not break off.
static void test_an_answer_waits_for_the_next_upstream(void **state) {
    bench *b = *state;
    core_request *r = outside_only(b); // makes the second one busy
    r->route.upstreams[0] = 1;
    r->route.upstream_count = 1;
    submit(b, r);
    end_as(b, last(b)->call, (upstream_end){.outcome = UPSTREAM_BUSY, .retry_after_ms = 4000});
    send(b, (core_event){.kind = CORE_CANCEL, .request_id = b->next_id});
    submit(b, outside_only(b));
    assert_int_equal(last(b)->upstream, 0);
    content(b, last(b)->call, LONG);
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    assert_int_equal(b->ends, 1);
    assert_int_equal(b->call_count, 2);
    pass(b, 5 * CLOCK_SECOND);
    assert_int_equal(b->call_count, 3);
    assert_int_equal(last(b)->upstream, 1);
    end_badly(b, last(b)->call, UPSTREAM_CLIENT); // how we asked: not the client's fault
    assert_says(&b->ended, STATUS_UNAVAILABLE, "broke off");
}

// What a call that fails has said only to be compared, nobody has heard: the next begins there.
static void test_half_a_repetition_is_not_said(void **state) {
    bench *b = *state;
    core_request *r = outside_only(b);
    r->route.upstreams[2] = 2;
    r->route.upstream_count = 3;
    submit(b, r);
    content(b, last(b)->call, LONG);
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    content(b, last(b)->call, "before it");
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    assert_string_equal(b->said, LONG);
    assert_int_equal(last(b)->upstream, 2);
    assert_string_equal(b->partial, LONG);
    content(b, last(b)->call, ".");
    end_well(b, last(b)->call);
    assert_int_equal(b->ended.code, STATUS_OK);
    assert_int_equal(strlen(b->said), strlen(LONG) + 1);
}

static void test_what_is_never_handed_over(void **state) {
    bench *b = *state;
    core_request *r = outside_only(b);
    r->route.may_continue = false;
    submit(b, r);
    content(b, last(b)->call, LONG);
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "broke off at its upstream: as told");
    submit(b, outside_only(b));
    uint64_t call = last(b)->call;
    answer_tool tool = {.id = "t1", .name = "look", .arguments = "{", .size = 1};
    core_event e = {.kind = CORE_UPSTREAM_CONTENT,
                    .upstream = {.call = call, .content.tool = &tool}};
    core_handle(b->core, &e, b->now, b->effects);
    take_all(b);
    end_badly(b, call, UPSTREAM_FAULT);
    assert_int_equal(b->ends, 2);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "broke off");
    assert_int_equal(b->call_count, 2);
}

static void test_a_refused_prefill_becomes_a_user_turn(void **state) {
    bench *b = *state;
    targets[1].takes_prefill = true;
    submit(b, outside_only(b));
    content(b, last(b)->call, LONG);
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    assert_int_equal(last(b)->mode, UPSTREAM_PREFILL);
    end_as(
        b, last(b)->call,
        (upstream_end){.outcome = UPSTREAM_CLIENT, .other_target = true, .prefill_refused = true});
    assert_int_equal(b->call_count, 3);
    assert_int_equal(last(b)->upstream, 1); // the same, asked as it likes it
    assert_int_equal(last(b)->mode, UPSTREAM_USER_TURN);
    content(b, last(b)->call, " and on");
    end_well(b, last(b)->call);
    assert_int_equal(b->ended.code, STATUS_OK);
}

static void test_an_empty_answer_is_somebodys(void **state) {
    bench *b = *state;
    submit(b, outside_only(b));
    content(b, last(b)->call, ""); // nothing yet: still unseen
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    assert_int_equal(b->call_count, 2);
    end_well(b, last(b)->call);
    assert_int_equal(b->ended.code, STATUS_OK);
    assert_string_equal(b->said, "");
    assert_int_equal(b->end.usage.segment_count, 1);
    assert_string_equal(b->end.usage.segments[0].by, "second");
}

static void test_an_unknown_price_uses_up_a_budget(void **state) {
    bench *b = *state;
    core_request *r = outside_only(b);
    r->route.cost_limit = 1000000;
    submit(b, r);
    end_as(b, last(b)->call,
           (upstream_end){
               .outcome = UPSTREAM_FAULT, .cost_microdollars = -1, .usage = {.input_tokens = 100}});
    assert_int_equal(b->call_count, 1);
    assert_int_equal(b->ended.code, STATUS_UNAVAILABLE);
    r = outside_only(b);
    r->route.cost_limit = 1000000;
    submit(b, r);
    end_as(b, last(b)->call, (upstream_end){.outcome = UPSTREAM_FAULT, .cost_microdollars = -1});
    assert_int_equal(b->call_count, 3); // refused at the door: it can have cost nothing
    end_well(b, last(b)->call);
}

static void test_the_attempts_of_a_request(void **state) {
    bench *b = *state;
    core_request *r = outside_only(b);
    submit(b, r);
    for (int i = 0; i < 3; i++) { // busy ones may be asked again: as often as there are attempts
        pass(b, 2 * CLOCK_SECOND);
        end_as(b, last(b)->call, (upstream_end){.outcome = UPSTREAM_BUSY, .retry_after_ms = 1000});
    }
    pass(b, 20 * CLOCK_SECOND);
    assert_int_equal(b->call_count, 3);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "the last: as told");
}

static void test_upstream_first_falls_back_home(void **state) {
    bench *b = *state;
    start_group(b);
    core_request *r = may_leave(b);
    r->route.upstream_first = true;
    submit(b, r);
    assert_int_equal(b->call_count, 1);
    assert_false(last(b)->failover); // it was not to be served here
    assert_int_equal(b->plan_count, 0);
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    assert_int_equal(b->call_count, 2);
    while (b->plan_count) answer(b);
    assert_int_equal(b->ended.code, STATUS_OK);
    assert_string_equal(b->end.usage.segments[0].by, "local/m");
}

static void test_after_a_wait_one_goes_first(void **state) {
    bench *b = *state;
    core_request *r = outside_only(b);
    r->route.upstream_count = 1;
    submit(b, r);
    end_as(b, last(b)->call, (upstream_end){.outcome = UPSTREAM_BUSY, .retry_after_ms = 1000});
    for (int i = 0; i < 4; i++) {
        r = outside_only(b);
        r->route.upstream_count = 1;
        submit(b, r);
    }
    assert_int_equal(b->call_count, 1);
    pass(b, 1100 * CLOCK_MS);
    assert_int_equal(b->call_count, 2);
    content(b, last(b)->call, "yes");
    assert_int_equal(b->call_count, 6);
}

static uint64_t submit_for(bench *b, int count, int first) {
    core_request *r = outside_only(b);
    r->route.upstreams[0] = (uint8_t)first;
    r->route.upstream_count = count;
    submit(b, r);
    return b->next_id;
}

// Whoever came first goes first, also when it was there already and has to ask again.
static void test_who_came_first_goes_first(void **state) {
    bench *b = *state;
    targets[0].concurrency = 1;
    uint64_t one = submit_for(b, 1, 0), two = submit_for(b, 1, 0), three = submit_for(b, 1, 0);
    assert_int_equal(last(b)->request, one);
    end_as(b, last(b)->call, (upstream_end){.outcome = UPSTREAM_BUSY, .retry_after_ms = 1000});
    assert_int_equal(b->call_count, 1);
    pass(b, 1100 * CLOCK_MS);
    assert_int_equal(b->call_count, 2);
    assert_int_equal(last(b)->request, one);
    end_well(b, last(b)->call);
    assert_int_equal(last(b)->request, two);
    end_well(b, last(b)->call);
    assert_int_equal(last(b)->request, three);
    end_well(b, last(b)->call);
    assert_int_equal(b->ends, 3);
}

// Those who wait at a target whose account is refused hear it at once, if they have no other.
static void test_who_waits_for_a_refused_account(void **state) {
    bench *b = *state;
    targets[0].concurrency = targets[1].concurrency = 1;
    submit_for(b, 1, 1);
    uint64_t busy = last(b)->call;
    submit_for(b, 1, 0);
    uint64_t refused = last(b)->call;
    submit_for(b, 1, 0);
    uint64_t patient = submit_for(b, 2, 0); // may go to either
    assert_int_equal(b->call_count, 2);
    end_badly(b, refused, UPSTREAM_ACCOUNT);
    assert_int_equal(b->ends, 2);
    assert_says(&b->ended, STATUS_UNAVAILABLE, "no upstream could serve");
    assert_int_equal(b->call_count, 2);
    end_well(b, busy);
    assert_int_equal(b->call_count, 3);
    assert_int_equal(last(b)->request, patient);
    assert_int_equal(last(b)->upstream, 1);
    end_well(b, last(b)->call);
}

// Our tokens end where the upstream's words begin: no group can go on from there.
static void test_no_group_goes_on_with_an_upstreams_words(void **state) {
    bench *b = *state;
    core_request *r = outside_only(b); // makes the second one busy
    r->route.upstreams[0] = 1;
    r->route.upstream_count = 1;
    submit(b, r);
    end_as(b, last(b)->call, (upstream_end){.outcome = UPSTREAM_BUSY, .retry_after_ms = 4000});
    send(b, (core_event){.kind = CORE_CANCEL, .request_id = b->next_id});
    open_lane(b);
    r = may_leave(b);
    r->route.midstream = MIDSTREAM_CONTINUE;
    submit(b, r);
    content(b, last(b)->call, LONG);
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    start_group(b);
    assert_int_equal(b->plan_count, 0);
    keep_alive(b, 5 * CLOCK_SECOND);
    assert_int_equal(last(b)->upstream, 1);
    assert_int_equal(last(b)->mode, UPSTREAM_USER_TURN);
    end_well(b, last(b)->call);
    assert_int_equal(b->plan_count, 0);
    assert_int_equal(b->ended.code, STATUS_OK);
    assert_string_equal(b->said, LONG);
}

static void test_the_deadline_ends_a_call(void **state) {
    bench *b = *state;
    core_request *r = outside_only(b);
    r->deadline_ns = b->now + 2 * CLOCK_SECOND;
    submit(b, r);
    uint64_t call = last(b)->call;
    content(b, call, "so far");
    pass(b, 3 * CLOCK_SECOND);
    assert_int_equal(b->ended.code, STATUS_DEADLINE_EXCEEDED);
    assert_int_equal(b->cancelled, call);
    end_badly(b, call, UPSTREAM_CANCELLED);
    assert_int_equal(b->done, 1);
    assert_true(core_is_idle(b->core));
}

static core_upstream_view look(bench *b, int upstream, int *away) {
    arena *memory = arena_create(1 << 20);
    core_view view;
    status s = core_look(b->core, b->now, memory, &view);
    assert_true(status_is_ok(&s));
    assert_int_equal(view.upstream_count, 3);
    core_upstream_view u = view.upstreams[upstream];
    *away = view.away;
    u.name = u.reason = NULL; // they go with the memory
    arena_destroy(memory);
    return u;
}

static void test_what_others_see(void **state) {
    bench *b = *state;
    int away;
    submit(b, outside_only(b));
    core_upstream_view u = look(b, 0, &away);
    assert_int_equal(u.calls_open, 1);
    assert_int_equal(away, 1);
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    end_well(b, last(b)->call);
    submit(b, outside_only(b));
    end_badly(b, last(b)->call, UPSTREAM_FAULT);
    end_badly(b, last(b)->call, UPSTREAM_ACCOUNT);
    u = look(b, 0, &away);
    assert_int_equal(u.breaker, BREAKER_OPEN);
    assert_int_equal(u.faults, 2);
    assert_int_equal(u.wait_ns, 5 * CLOCK_SECOND);
    assert_true(look(b, 1, &away).disabled);
    assert_int_equal(away, 0);
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, open_away, close_away)
    const struct CMUnitTest tests[] = {
        CASE(test_an_answer_goes_on_at_the_next_upstream),
        CASE(test_an_answer_waits_for_the_next_upstream),
        CASE(test_half_a_repetition_is_not_said),
        CASE(test_what_is_never_handed_over),
        CASE(test_a_refused_prefill_becomes_a_user_turn),
        CASE(test_an_empty_answer_is_somebodys),
        CASE(test_an_unknown_price_uses_up_a_budget),
        CASE(test_the_attempts_of_a_request),
        CASE(test_upstream_first_falls_back_home),
        CASE(test_after_a_wait_one_goes_first),
        CASE(test_who_came_first_goes_first),
        CASE(test_who_waits_for_a_refused_account),
        CASE(test_no_group_goes_on_with_an_upstreams_words),
        CASE(test_the_deadline_ends_a_call),
        CASE(test_what_others_see),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
