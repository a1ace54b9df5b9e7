#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/route/policy_file.h"

#define UPSTREAMS                                                                                  \
    "upstreams:\n"                                                                                 \
    "  near: {api: openai-chat, base-url: 'http://127.0.0.1:1/v1/', model: m}\n"                   \
    "  far: {api: anthropic, base-url: 'https://far', model: n, key-env: K, price: p,\n"           \
    "        breaker: {window: 10, open: 3s}, total-timeout: 40s, prefill: true}\n"

static routing_policy *good(const char *text) {
    routing_policy *p = NULL;
    status s = policy_file_parse("f", text, strlen(text), &p);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    return p;
}

static void bad(const char *text, const char *message) {
    routing_policy *p = NULL;
    status s = policy_file_parse("f", text, strlen(text), &p);
    if (status_is_ok(&s)) fail_msg("taken: %s", text);
    if (!strstr(s.message, message)) fail_msg("'%s' does not say '%s'", s.message, message);
}

static void nothing_given_keeps_everything_here(void **state) {
    (void)state;
    static const char *const texts[] = {"", "# a comment\n", "coordinator:\n  http: x\nworker:\n"};
    for (size_t i = 0; i < 3; i++) {
        routing_policy *p = good(texts[i]);
        assert_false(p->given);
        assert_int_equal(p->upstreams.count, 0);
        assert_int_equal(p->default_privacy, PRIVACY_LOCAL_ONLY);
        routing_policy_free(p);
    }
}

static void upstreams_are_read(void **state) {
    (void)state;
    routing_policy *p = good(UPSTREAMS "upstream-rules: {return-after: 2s, max-attempts: 5}\n");
    assert_true(p->given);
    assert_int_equal(p->upstreams.count, 2);
    assert_int_equal(p->upstreams.max_attempts, 5);
    assert_int_equal(p->upstreams.return_after_ns, 2 * CLOCK_SECOND);
    const upstream_policy *near = &p->upstreams.items[0], *far = &p->upstreams.items[1];
    assert_string_equal(near->name, "near");
    assert_string_equal(near->base_url, "http://127.0.0.1:1/v1");
    assert_int_equal(near->api, UPSTREAM_OPENAI_CHAT);
    assert_null(near->key_env);
    assert_int_equal(near->breaker_window, 20);
    assert_int_equal(far->api, UPSTREAM_ANTHROPIC_MESSAGES);
    assert_string_equal(far->key_env, "K");
    assert_string_equal(far->price, "p");
    assert_true(far->takes_prefill && far->takes_tools && far->takes_json && far->takes_sampling);
    assert_int_equal(far->total_ns, 40 * CLOCK_SECOND);
    assert_int_equal(far->breaker_window, 10);
    assert_int_equal(far->breaker_least, 5);
    assert_int_equal(far->breaker_open_ns, 3 * CLOCK_SECOND);
    routing_policy_free(p);
}

static void routes_are_read(void **state) {
    (void)state;
    routing_policy *p =
        good("routes:\n"
             "  - name: a\n"
             "    match: {keys: k1, models: [m1, m2], complexity: [medium, hard], tools: false,\n"
             "            at: [daily 01:00-02:00], min-prompt-tokens: 10}\n"
             "    upstreams: [far, near]\n"
             "    weights: {local: 3, near: 1}\n"
             "    spill-after: 2s\n"
             "    miss-cost: 0.01\n"
             "    max-cost: 0.0000015\n"
             "    midstream: continue\n"
             "    privacy: redact-then-leave\n"
             "  - {name: b, upstreams: near, prefer: upstream, local: false}\n" UPSTREAMS);
    const routing_rule *a = &p->rules[0], *b = &p->rules[1];
    assert_int_equal(p->rule_count, 2);
    assert_string_equal(a->match.keys.items[0], "k1");
    assert_int_equal(a->match.models.count, 2);
    assert_int_equal(a->match.complexities, 6);
    assert_true(a->match.tools_given && !a->match.tools);
    assert_int_equal(a->match.window_count, 1);
    assert_int_equal(a->match.prompt_tokens_least, 10);
    assert_int_equal(a->upstream_count, 2);
    assert_int_equal(a->upstreams[0], 1);
    assert_int_equal(a->upstreams[1], 0);
    assert_int_equal(a->share_count, 2);
    assert_int_equal(a->shares[0].upstream, ROUTING_LOCAL);
    assert_int_equal(a->shares[1].upstream, 0);
    assert_int_equal(a->spill_ns, 2 * CLOCK_SECOND);
    assert_int_equal(a->miss_cost, 10000);
    assert_int_equal(a->cost_limit, 2); // rounded up
    assert_int_equal(a->midstream, MIDSTREAM_CONTINUE);
    assert_int_equal(a->privacy, PRIVACY_REDACT);
    assert_true(b->upstream_first && !b->local);
    assert_int_equal(b->privacy, PRIVACY_MAY_LEAVE);
    routing_policy_free(p);
}

static void privacy_and_budgets_are_read(void **state) {
    (void)state;
    routing_policy *p =
        good("privacy:\n"
             "  default: redact-then-leave\n"
             "  keys: {a: may-leave, b: local-only}\n"
             "  detectors: {email: off, mine: local-only}\n"
             "  patterns: [{name: mine, regex: 'X\\d+', action: redact}]\n"
             "models: {alias: {model: real, privacy: local-only}, other: {model: far}}\n"
             "budgets: {all: {per-day: 50}, default: {per-day: 0}, keys: {a: {per-request: 0.5}}}\n"
             "maintenance: [{models: [real], at: sun 02:00-04:00}]\n"
             "complexity: {medium: 0.1, hard: 0.2, weights: {code: 0.9, easy: -0.5}}\n"
             "local-cost: {gpu-hour: 2.5}\n" UPSTREAMS);
    assert_int_equal(p->default_privacy, PRIVACY_REDACT);
    assert_int_equal(p->key_count, 2);
    assert_int_equal(p->keys[0].privacy, PRIVACY_MAY_LEAVE);
    assert_int_equal(p->keys[1].privacy, PRIVACY_LOCAL_ONLY);
    assert_int_equal(detectors_count(p->detectors), 6);
    assert_int_equal(detectors_action(p->detectors, 0), DETECTOR_OFF);
    assert_int_equal(detectors_action(p->detectors, 5), DETECTOR_LOCAL_ONLY);
    assert_int_equal(routing_find_model(p, "alias")->privacy, PRIVACY_LOCAL_ONLY);
    assert_int_equal(routing_find_model(p, "other")->privacy, PRIVACY_MAY_LEAVE);
    assert_int_equal(p->all_per_day, 50000000);
    assert_int_equal(routing_find_budget(p, "a")->per_day, ROUTING_NO_LIMIT);
    assert_int_equal(routing_find_budget(p, "a")->per_request, 500000);
    assert_int_equal(routing_find_budget(p, "z")->per_day, 0);
    assert_int_equal(p->maintenance_count, 1);
    assert_true(p->complexity.weights[COMPLEXITY_CODE] > 0.89);
    assert_true(p->complexity.weights[COMPLEXITY_EASY] < -0.49);
    assert_true(p->gpu_hour > 2.49);
    routing_policy_free(p);
}

// Each error: where, what, and a way out.
static void errors_name_line_and_column(void **state) {
    (void)state;
    bad("upstream:\n", "f:1:1: unknown section 'upstream'");
    bad("a: [", "f:");
    bad("upstreams:\n  u:\n    api: openai\n", "f:3:10: api: 'openai' is not one of");
    bad("upstreams:\n  u: {api: gemini, modell: x}\n",
        "f:2:20: unknown key 'modell'; did you mean");
    bad("upstreams:\n  u: {api: gemini, model: x}\n", "f:2:6: base-url is missing");
    bad("upstreams:\n  u: {api: gemini, model: x, base-url: 'ftp://h'}\n", "must begin with https");
    bad("upstreams:\n  u: {api: gemini, model: x, base-url: 'https://k:s@h'}\n", "password");
    bad("upstreams: {local: {api: gemini, model: x, base-url: 'https://h'}}\n", "another name");
    bad("upstreams:\n  u:\n    model: 1\n    model: 2\n", "f:4:5: 'model' comes twice");
    bad("upstreams: {u: {api: gemini, model: , base-url: 'https://h'}}\n", "model has no value");
    bad(UPSTREAMS "routes: [{name: a, upstreams: [middle]}]\n", "there is no upstream 'middle'");
    bad(UPSTREAMS "routes: [{name: a, upstreams: [near, near]}]\n", "'near' comes twice");
    bad(UPSTREAMS "routes: [{name: a}, {name: a}]\n", "two routes are called 'a'");
    bad("routes: [{name: a}, {name: b}]\n", "f:1:21: route 'a' before this one matches everything");
    bad(UPSTREAMS "routes: [{name: a, upstreams: [near], weights: {far: 1}}]\n",
        "'far' is neither");
    bad(UPSTREAMS "routes: [{name: a, upstreams: [near], weights: {near: 0}}]\n", "add up to");
    bad(UPSTREAMS "routes: [{name: a, upstreams: near, local: false, privacy: local-only}]\n",
        "privacy is local-only: nobody could serve it");
    bad("routes: [{name: a, local: false}]\n", "nobody could serve it");
    bad("routes: [{name: a, spill-after: 1s}]\n", "spill-after needs upstreams");
    bad("routes: [{name: a, match: {at: [someday]}}]\n", "'someday' is not a window");
    bad("routes: [{name: a, match: {keys: []}}]\n", "an empty list matches nothing");
    bad("privacy: {default: maybe}\n", "f:1:20: 'maybe' is not one of local-only");
    bad("privacy: {detectors: {emale: off}}\n", "there is no detector 'emale'");
    bad("privacy: {patterns: [{name: x, regex: '('}]}\n", "f:1:39: the regex is wrong");
    bad("privacy: {patterns: [{name: x, regex: 'a*'}]}\n", "matches the empty text");
    bad("models: {a: {model: b}, b: {model: c}}\n", "'b' is itself a name of this section");
    bad(UPSTREAMS "models: {near: {model: b}}\n", "is an upstream's name already");
    bad("complexity: {medium: 0.9, hard: 0.2}\n", "medium 0.9 is above hard 0.2");
    bad("budgets: {all: {per-request: 1}}\n", "all has per-day only");
    bad("budgets: {keys: {a: {per-day: -1}}}\n", "out of range");
    bad("a: &x 1\n", "anchors");
    bad("a: *x\n", "f:");
    bad("models: !!map {}\n", "tags");
    bad("---\nmodels: {}\n---\nmodels: {}\n", "one document");
    bad("- a\n", "the file must be a map");
}

static void the_example_is_right(void **state) {
    (void)state;
    routing_policy *p = NULL;
    status s = policy_file_read(OCTANT_SOURCE "/deploy/octant.example.yaml", &p);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    assert_int_equal(p->rule_count, 3);
    routing_policy_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_given_keeps_everything_here),
        cmocka_unit_test(upstreams_are_read),
        cmocka_unit_test(routes_are_read),
        cmocka_unit_test(privacy_and_budgets_are_read),
        cmocka_unit_test(errors_name_line_and_column),
        cmocka_unit_test(the_example_is_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
