#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "coordinator/route/policy_file.h"
#include "coordinator/route/router.h"

static const char text[] =
    "upstreams:\n"
    "  near: {api: openai-chat, base-url: 'http://h', model: m, tools: false, json: false,\n"
    "         context: 1000}\n"
    "  far: {api: anthropic, base-url: 'https://h', model: n}\n"
    "  third: {api: gemini, base-url: 'https://h', model: o}\n"
    "models:\n"
    "  helper: {model: ours}\n"
    "  vault: {model: ours, privacy: local-only}\n"
    "  best: {model: far}\n"
    "  bound: {model: bound, privacy: local-only}\n"
    "  other: {model: bound, privacy: may-leave}\n"
    "privacy:\n"
    "  default: local-only\n"
    "  keys: {open: may-leave, careful: redact-then-leave, closed: local-only}\n"
    "  detectors: {phone: off}\n"
    "routes:\n"
    "  - {name: hard, match: {complexity: [hard], keys: [open]}, upstreams: [far, near],\n"
    "     prefer: upstream, max-cost: 0.01}\n"
    "  - {name: moved, match: {models: [moving]}, upstreams: [near, far, third],\n"
    "     weights: {local: 2, far: 1, third: 1}}\n"
    "  - {name: gone, match: {models: [elsewhere]}, upstreams: [near], local: false}\n"
    "  - {name: spilling, match: {models: [queue]}, upstreams: [near], spill-after: 3s,\n"
    "     miss-cost: 0.001, privacy: redact-then-leave}\n"
    "  - {name: night, match: {at: [daily 00:00-01:00]}, upstreams: [third]}\n"
    "  - {name: rest, upstreams: [near, far], midstream: continue}\n"
    "maintenance:\n"
    "  - {models: [ours], at: [sun 02:00-04:00]}\n"
    "budgets:\n"
    "  all: {per-day: 1}\n"
    "  keys: {open: {per-day: 0.5, per-request: 0.1}}\n";

enum { NEAR, FAR, THIRD };
enum { NOON = 1764072000 /* Tue 2025-11-25 12:00 UTC */, SUNDAY_3 = 1764471600 };

typedef struct fixture {
    routing_policy *p;
    arena *memory;
    route_facts f;
    route_decision d;
} fixture;

static int set_up(void **state) {
    static fixture x;
    x = (fixture){.memory = arena_create(16 << 20)};
    status s = policy_file_parse("f", text, sizeof text - 1, &x.p);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    x.f = (route_facts){.key = "open",
                        .model = "ours",
                        .local_known = true,
                        .scanned = true,
                        .prompt_tokens = 100,
                        .max_tokens = 100,
                        .now = NOON,
                        .time_left_ns = 60 * CLOCK_SECOND,
                        .explain = true};
    *state = &x;
    return 0;
}

static int tear_down(void **state) {
    fixture *x = *state;
    routing_policy_free(x->p);
    arena_destroy(x->memory);
    return 0;
}

static const core_route *decide(fixture *x) {
    assert_true(router_decide(x->p, &x->f, x->memory, &x->d));
    return &x->d.route;
}

static void show(const fixture *x) {
    for (int i = 0; i < x->d.trail_count; i++) print_message("  %s\n", x->d.trail[i]);
}

static void expect_here(fixture *x) {
    const core_route *r = decide(x);
    if (!r->local || r->upstream_count) show(x);
    assert_true(r->local && !r->upstream_first);
    assert_int_equal(r->upstream_count, 0);
    assert_int_equal(r->spill_ns, 0);
    assert_int_equal(x->d.refused.code, STATUS_OK);
}

static void the_key_decides_the_class(void **state) {
    fixture *x = *state;
    const core_route *r = decide(x);
    assert_int_equal(r->privacy, PRIVACY_MAY_LEAVE);
    assert_int_equal(r->upstream_count, 2);
    assert_int_equal(r->midstream, MIDSTREAM_CONTINUE);
    assert_true(r->may_continue);
    assert_string_equal(r->rule, "may-leave by key open; route rest");
    x->f.key = "careful";
    assert_int_equal(decide(x)->privacy, PRIVACY_REDACT);
    assert_string_equal(x->d.route.rule, "redact-then-leave by key careful; route rest");
    static const char *const closed[] = {"closed", "", "unheard-of"};
    for (int i = 0; i < 3; i++) {
        x->f.key = closed[i];
        expect_here(x);
        assert_int_equal(x->d.route.privacy, PRIVACY_LOCAL_ONLY);
    }
}

static void the_client_may_only_tighten(void **state) {
    fixture *x = *state;
    static const struct {
        const char *key, *word;
        privacy_class want;
    } cases[] = {
        {"open", "may-leave", PRIVACY_MAY_LEAVE},
        {"open", "redact-then-leave", PRIVACY_REDACT},
        {"open", "local-only", PRIVACY_LOCAL_ONLY},
        {"careful", "may-leave", PRIVACY_REDACT},
        {"closed", "may-leave", PRIVACY_LOCAL_ONLY},
        {"open", "MAY-LEAVE", PRIVACY_LOCAL_ONLY},
        {"open", "", PRIVACY_LOCAL_ONLY},
        {"open", "may-leave ", PRIVACY_LOCAL_ONLY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        x->f.key = cases[i].key;
        x->f.privacy = cases[i].word;
        assert_int_equal(decide(x)->privacy, cases[i].want);
        assert_int_equal(x->d.route.upstream_count, cases[i].want ? 2 : 0);
        assert_int_equal(router_may_leave(x->p, &x->f), cases[i].want > 0);
    }
}

static void models_and_routes_tighten(void **state) {
    fixture *x = *state;
    x->f.model = "vault";
    expect_here(x);
    assert_string_equal(x->d.route.rule, "local-only by model vault; route rest");
    static const char *const bound[] = {"bound", "other"}; // a model's own word holds for all names
    for (int i = 0; i < 2; i++) {
        x->f.model = bound[i];
        expect_here(x);
    }
    x->f.model = "queue";
    assert_int_equal(decide(x)->privacy, PRIVACY_REDACT);
    assert_string_equal(x->d.route.rule, "redact-then-leave by route spilling; route spilling");
}

static void contents_tighten(void **state) {
    fixture *x = *state;
    x->f.findings.found[0] = 1; // email
    assert_int_equal(decide(x)->privacy, PRIVACY_REDACT);
    x->f.findings.found[1] = 7; // phone is off
    assert_int_equal(decide(x)->privacy, PRIVACY_REDACT);
    x->f.findings.found[2] = 1; // card
    expect_here(x);
    assert_string_equal(x->d.route.rule, "local-only by detector card (found 1); route rest");
    x->f.findings = (detector_findings){.limits = 1};
    expect_here(x);
    x->f.findings.limits = 0;
    x->f.scanned = false;
    expect_here(x);
}

static void names_that_mean_an_upstream(void **state) {
    fixture *x = *state;
    x->f.local_known = false;
    static const char *const far[] = {"far", "best"};
    for (int i = 0; i < 2; i++) {
        x->f.model = far[i];
        const core_route *r = decide(x);
        assert_false(r->local);
        assert_true(r->upstream_first);
        assert_int_equal(r->upstream_count, 2);
        assert_int_equal(r->upstreams[0], FAR);
        assert_int_equal(r->upstreams[1], NEAR);
    }
    x->f.model = "third"; // no route of this time leads to it
    assert_int_equal(decide(x)->upstream_count, 0);
    assert_int_equal(x->d.refused.code, STATUS_INVALID_ARGUMENT);
    x->f.model = "far";
    x->f.key = "closed";
    decide(x);
    assert_int_equal(x->d.refused.code, STATUS_PERMISSION_DENIED);
}

static void names_that_mean_nothing_here(void **state) {
    fixture *x = *state;
    x->f.local_known = false;
    x->f.model = "ourz"; // route rest matches, but a typing error does not travel
    assert_int_equal(decide(x)->upstream_count, 0);
    assert_int_equal(x->d.refused.code, STATUS_NOT_FOUND);
    x->f.model = "moving"; // a route spells it
    assert_int_equal(decide(x)->upstream_count, 3);
    assert_false(x->d.route.local);
    assert_int_equal(x->d.refused.code, STATUS_OK);
    x->f.model = "vault"; // of ours, but no group has come yet
    decide(x);
    assert_int_equal(x->d.refused.code, STATUS_NOT_FOUND);
    x->f.model = "elsewhere";
    x->f.local_known = true; // although we have one of that name
    assert_false(decide(x)->local);
    assert_int_equal(x->d.route.upstream_count, 1);
}

// Our models can be held to a form; what an upstream says in the middle of one cannot.
static void a_form_is_not_gone_on_with_elsewhere(void **state) {
    fixture *x = *state;
    x->f.json = true;
    const core_route *r = decide(x);
    assert_true(r->local);
    assert_false(r->may_continue);
    assert_int_equal(r->upstream_count, 1); // the other has no JSON mode
    assert_int_equal(r->upstreams[0], FAR);
}

static void what_a_target_cannot_do_cuts_it(void **state) {
    fixture *x = *state;
    x->f.tools = true;
    x->f.local_lacks = "tools";
    const core_route *r = decide(x);
    assert_false(r->local || r->may_continue);
    assert_int_equal(r->upstream_count, 1);
    assert_int_equal(r->upstreams[0], FAR);
    x->f.key = "closed";
    decide(x);
    assert_int_equal(x->d.refused.code, STATUS_INVALID_ARGUMENT);
    assert_string_equal(x->d.refused_param, "tools");
    x->f.key = "open";
    x->f.tools = false;
    x->f.local_lacks = NULL;
    x->f.prompt_tokens = 950; // and 100 more do not fit 1000
    assert_int_equal(decide(x)->upstream_count, 1);
    x->f.only_local = "n is 2";
    expect_here(x);
}

static void budgets_cut(void **state) {
    fixture *x = *state;
    x->f.costs[NEAR] = 100;
    x->f.costs[FAR] = 90000;
    const core_route *r = decide(x);
    assert_int_equal(r->upstream_count, 2);
    assert_int_equal(r->cost_limit, 100000); // of the request
    x->f.spent_key = 420000;
    r = decide(x);
    assert_int_equal(r->cost_limit, 80000); // what is left of the key's day
    assert_int_equal(r->upstream_count, 1);
    assert_int_equal(r->upstreams[0], NEAR);
    x->f.spent_all = 999950; // and of everybody's
    expect_here(x);
    assert_int_equal(x->d.route.cost_limit, 0);
    x->f.spent_all = -1; // nobody knows
    expect_here(x);
    x->f.spent_all = x->f.spent_key = 0;
    x->f.costs[NEAR] = -1; // a price that nobody knows, under a limit
    assert_int_equal(decide(x)->upstreams[0], FAR);
    x->f.local_known = false;
    x->f.model = "best";
    x->f.costs[FAR] = 100001;
    decide(x);
    assert_int_equal(x->d.refused.code, STATUS_RESOURCE_EXHAUSTED);
}

static void rules_match_by_complexity_and_time(void **state) {
    fixture *x = *state;
    x->f.complexity = COMPLEXITY_HARD;
    const core_route *r = decide(x);
    assert_true(r->upstream_first && r->local);
    assert_int_equal(r->upstreams[0], FAR);
    assert_int_equal(r->cost_limit, 10000);
    x->f.key = "careful";
    assert_false(decide(x)->upstream_first);
    x->f.now = NOON + 12 * 3600 + 60; // past midnight
    r = decide(x);
    assert_int_equal(r->upstream_count, 1);
    assert_int_equal(r->upstreams[0], THIRD);
}

static void maintenance_sends_away_what_may(void **state) {
    fixture *x = *state;
    x->f.model = "helper";
    assert_false(decide(x)->upstream_first);
    x->f.now = SUNDAY_3;
    assert_true(decide(x)->upstream_first);
    assert_true(x->d.route.local);
    x->f.model = "another"; // not in maintenance
    assert_false(decide(x)->upstream_first);
    x->f.model = "ours";
    x->f.key = "closed";
    expect_here(x);
}

static void weights_share_by_the_id(void **state) {
    fixture *x = *state;
    x->f.model = "moving";
    x->f.explain = false;
    int counts[3] = {0}, here = 0;
    enum { ROUNDS = 4000 };
    for (uint64_t id = 0; id < ROUNDS; id++) {
        x->f.id = id;
        const core_route *r = decide(x);
        assert_int_equal(r->upstream_count, 3);
        if (r->upstream_first)
            counts[r->upstreams[0]]++;
        else
            here++;
        uint8_t first = r->upstreams[0];
        assert_int_equal(decide(x)->upstreams[0], first); // the same id, the same turn
    }
    assert_int_equal(counts[NEAR], 0);
    assert_in_range(here, ROUNDS / 2 - 200, ROUNDS / 2 + 200);
    assert_in_range(counts[FAR], ROUNDS / 4 - 200, ROUNDS / 4 + 200);
}

static void it_spills_only_if_that_is_cheaper(void **state) {
    fixture *x = *state;
    x->f.model = "queue";
    x->f.costs[NEAR] = 1000;
    assert_int_equal(decide(x)->spill_ns, 3 * CLOCK_SECOND);
    x->f.time_left_ns = 4 * CLOCK_SECOND;
    assert_int_equal(decide(x)->spill_ns, 2 * CLOCK_SECOND);
    x->f.costs[NEAR] = 1001;
    assert_int_equal(decide(x)->spill_ns, 0);
    assert_int_equal(x->d.route.upstream_count, 1); // a lost group may still send it
    x->f.costs[NEAR] = 0;
    x->f.key = "closed";
    expect_here(x);
}

static void no_policy_keeps_everything(void **state) {
    fixture *x = *state;
    routing_policy *p;
    status s = policy_file_parse("f", "", 0, &p);
    assert_int_equal(s.code, STATUS_OK);
    assert_false(router_may_leave(p, &x->f));
    assert_true(router_decide(p, &x->f, x->memory, &x->d));
    assert_true(x->d.route.local);
    assert_int_equal(x->d.route.upstream_count, 0);
    assert_string_equal(x->d.route.rule, "local-only by default; no route");
    routing_policy_free(p);
}

// ---- nothing local-only leaves, whatever comes together ----

static const char *pick(rng *r, const char *const *of, size_t count) {
    return of[rng_below(r, count)];
}

static void random_facts(rng *r, route_facts *f) {
    static const char *const keys[] = {"open", "careful", "closed", "", "nobody"};
    static const char *const models[] = {"ours", "helper", "vault",  "best",  "near",
                                         "far",  "third",  "moving", "queue", "elsewhere",
                                         "none", "bound",  "other"};
    static const char *const words[] = {"may-leave", "redact-then-leave", "local-only", "x", ""};
    *f = (route_facts){.key = pick(r, keys, 5),
                       .model = pick(r, models, 13),
                       .privacy = rng_below(r, 2) ? pick(r, words, 5) : NULL,
                       .local_known = rng_below(r, 4) > 0,
                       .local_lacks = rng_below(r, 8) ? NULL : "tools",
                       .only_local = rng_below(r, 8) ? NULL : "n is 2",
                       .tools = rng_below(r, 4) == 0,
                       .json = rng_below(r, 4) == 0,
                       .scanned = rng_below(r, 8) > 0,
                       .complexity = (complexity_level)rng_below(r, 3),
                       .prompt_tokens = (int64_t)rng_below(r, 3000),
                       .max_tokens = (int64_t)rng_below(r, 300) - 1,
                       .id = rng_next(r),
                       .now = NOON + (int64_t)rng_below(r, 14 * 86400),
                       .time_left_ns = (int64_t)rng_below(r, 100) * CLOCK_SECOND - CLOCK_SECOND,
                       .spent_key = (int64_t)rng_below(r, 700000) - 1000,
                       .spent_all = (int64_t)rng_below(r, 1200000) - 1000,
                       .explain = rng_below(r, 2)};
    for (int i = 0; i < 3; i++) f->costs[i] = (int64_t)rng_below(r, 200000) - 1000;
    for (int i = 0; i < 5; i++) f->findings.found[i] = rng_below(r, 12) == 0;
    f->findings.limits = rng_below(r, 20) == 0;
}

// What must hold of the class, by the words of the policy above, and not by the router's code.
static bool must_stay(const route_facts *f) {
    if (strcmp(f->key, "open") != 0 && strcmp(f->key, "careful") != 0) return true;
    if (!strcmp(f->model, "vault") || !strcmp(f->model, "bound") || !strcmp(f->model, "other"))
        return true;
    if (f->privacy && strcmp(f->privacy, "may-leave") && strcmp(f->privacy, "redact-then-leave"))
        return true;
    return !f->scanned || f->findings.limits || f->findings.found[2] || f->findings.found[3];
}

static bool must_redact(const route_facts *f) {
    return strcmp(f->key, "careful") == 0 || f->findings.found[0] || f->findings.found[4] ||
           (f->privacy && strcmp(f->privacy, "redact-then-leave") == 0);
}

static void nothing_local_only_ever_leaves(void **state) {
    fixture *x = *state;
    rng r = rng_make(20261124);
    int left = 0, stayed = 0;
    for (int i = 0; i < 250000; i++) {
        random_facts(&r, &x->f);
        if (i % 4096 == 0) {
            arena_destroy(x->memory);
            x->memory = arena_create(64 << 20);
        }
        const core_route *d = decide(x);
        if (must_stay(&x->f) || d->privacy == PRIVACY_LOCAL_ONLY) {
            assert_int_equal(d->upstream_count, 0);
            assert_false(d->upstream_first);
            assert_int_equal(d->spill_ns, 0);
        }
        if (d->upstream_count && must_redact(&x->f)) assert_int_equal(d->privacy, PRIVACY_REDACT);
        assert_true(d->local || d->upstream_count || x->d.refused.code != STATUS_OK);
        for (int k = 0; k < d->upstream_count; k++)
            for (int j = 0; j < k; j++) assert_int_not_equal(d->upstreams[k], d->upstreams[j]);
        d->upstream_count ? left++ : stayed++;
    }
    print_message("%d may leave, %d stay\n", left, stayed);
    assert_true(left > 5000 && stayed > 5000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_key_decides_the_class),
        TEST(the_client_may_only_tighten),
        TEST(models_and_routes_tighten),
        TEST(contents_tighten),
        TEST(names_that_mean_an_upstream),
        TEST(names_that_mean_nothing_here),
        TEST(a_form_is_not_gone_on_with_elsewhere),
        TEST(what_a_target_cannot_do_cuts_it),
        TEST(budgets_cut),
        TEST(rules_match_by_complexity_and_time),
        TEST(maintenance_sends_away_what_may),
        TEST(weights_share_by_the_id),
        TEST(it_spills_only_if_that_is_cheaper),
        TEST(no_policy_keeps_everything),
        TEST(nothing_local_only_ever_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
