// What generate_prepare makes of a request under a policy: its route, and what an upstream gets.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/ingress/openai_request.h"
#include "coordinator/ingress/prepare.h"
#include "coordinator/ledger/usage_port.h"
#include "coordinator/route/policy_file.h"
#include "coordinator/upstream/upstream_prompt.h"
#include "tests/unit/coordinator/ingress/tiny_model.h"

static const char POLICY[] =
    "upstreams:\n"
    "  far: {api: anthropic, base-url: 'https://h', model: n}\n"
    "models: {alias: {model: tiny}, vault: {model: tiny, privacy: local-only}}\n"
    "privacy: {keys: {open: may-leave, careful: redact-then-leave}}\n"
    "routes: [{name: all, upstreams: [far], midstream: continue}]\n"
    "budgets: {keys: {open: {per-day: 1}, careful: {per-day: 1}}}\n";

typedef struct fixture {
    ingress in;
    routing_policy *policy;
    api_keys *keys;
    usage_port books;
    int64_t spent;
    prepared p;
    refusal why;
} fixture;

static int64_t price(void *f, const upstream_policy *u, const upstream_usage *usage) {
    (void)f, (void)u;
    return usage->input_tokens + 10 * usage->output_tokens;
}

static int64_t spent_today(void *f, const char *key) {
    assert_true(!key || !strncmp(key, "key:", 4));
    return ((fixture *)f)->spent;
}

static int set_up(void **state) {
    static fixture f;
    memset(&f, 0, sizeof f);
    char path[] = "/tmp/octant-keys-XXXXXX";
    int fd = mkstemp(path);
    dprintf(fd, "open open-key-1\ncareful careful-key-1\nclosed closed-key-1\n");
    close(fd);
    assert_int_equal(api_keys_open(path, &f.keys).code, STATUS_OK);
    unlink(path);
    assert_int_equal(policy_file_parse("f", POLICY, sizeof POLICY - 1, &f.policy).code, STATUS_OK);
    f.books = (usage_port){.ledger = &f, .price = price, .spent_today = spent_today};
    f.in = (ingress){.models = model_registry_create(),
                     .keys = f.keys,
                     .routing = f.policy,
                     .books = &f.books,
                     .default_timeout_ns = CLOCK_SECOND,
                     .max_timeout_ns = CLOCK_SECOND};
    tiny_model_add(f.in.models, "tiny");
    *state = &f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    model_registry_destroy(f->in.models);
    routing_policy_free(f->policy);
    api_keys_close(f->keys);
    return 0;
}

// False: refused, f->why says why.
static bool prepare(fixture *f, const char *key, const char *privacy, const char *body) {
    openai_request r;
    bool chat = openai_has_messages(body, strlen(body));
    if (!(chat ? openai_chat_parse : openai_completion_parse)(body, strlen(body), &r, &f->why))
        fail_msg("%s", f->why.why.message);
    r.generate.api_key = key;
    r.generate.privacy = privacy;
    bool good = generate_prepare(&f->in, &r.generate, &f->p, &f->why);
    openai_request_free(&r);
    return good;
}

static const core_request *made(fixture *f, const char *key, const char *privacy,
                                const char *body) {
    if (!prepare(f, key, privacy, body)) fail_msg("%s", f->why.why.message);
    return f->p.requests[0];
}

#define ASK                                                                                        \
    "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"I am jane@ex.org\"}]}"

// An address that is cut in two leaves in neither half.
static void what_parts_hold_together(void **state) {
    fixture *f = *state;
    const core_request *r =
        made(f, "open-key-1", NULL,
             "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":["
             "{\"type\":\"text\",\"text\":\"I am jane@\"},{\"type\":\"text\",\"text\":\"ex.org. "
             "And,\"}]},"
             "{\"role\":\"user\",\"content\":\"joe@ex\"},{\"role\":\"user\",\"content\":\"ample."
             "org\"}]}");
    assert_int_equal(r->route.privacy, PRIVACY_REDACT);
    assert_non_null(strstr(r->route.rule, "detector email (found 2, 2 of them across texts)"));
    const char *left = r->route.prompt->messages;
    assert_non_null(strstr(left, "I am [email]\\n[email]. And,"));
    assert_null(strstr(left, "jane"));
    assert_null(strstr(left, "joe"));
    assert_null(strstr(left, "ample"));
    prepared_free(&f->p);
}

static void the_key_and_the_header_decide(void **state) {
    fixture *f = *state;
    static const struct {
        const char *key, *header;
        privacy_class want;
        const char *content; // NULL: does not leave
    } cases[] = {
        {"open-key-1", NULL, PRIVACY_REDACT, "I am [email]"}, // the detector tightens
        {"careful-key-1", "may-leave", PRIVACY_REDACT, "I am [email]"},
        {"closed-key-1", "may-leave", PRIVACY_LOCAL_ONLY, NULL},
        {"open-key-1", "local-only", PRIVACY_LOCAL_ONLY, NULL},
        {"open-key-1", "whatever", PRIVACY_LOCAL_ONLY, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const core_request *r = made(f, cases[i].key, cases[i].header, ASK);
        assert_int_equal(r->route.privacy, cases[i].want);
        assert_true(r->route.local && r->prompt_count > 0);
        assert_string_equal(r->public_id, f->p.id);
        assert_int_equal(r->route.upstream_count, cases[i].content ? 1 : 0);
        if (cases[i].content) {
            assert_non_null(strstr(r->route.prompt->messages, cases[i].content));
            assert_null(strstr(r->route.prompt->messages, "jane"));
        } else {
            assert_null(r->route.prompt);
        }
        prepared_free(&f->p);
    }
}

static void what_leaves_is_all_that_was_asked(void **state) {
    fixture *f = *state;
    const core_request *r = made(
        f, "open-key-1", NULL,
        "{\"model\":\"alias\",\"messages\":["
        "{\"role\":\"user\",\"content\":\"hi\"},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":"
        "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"to\\\":\\\"a@b.cd\\\"}\"}}]"
        "},{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"done\"}],"
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"to "
        "x@y.zz\",\"parameters\":{}}}],\"tool_choice\":\"auto\",\"parallel_tool_calls\":false,"
        "\"max_tokens\":7,\"temperature\":0.5,\"seed\":3,\"stop\":[\"END\",\"me@ex.org\"]}");
    const upstream_prompt *p = r->route.prompt;
    assert_false(r->route.local); // no model of ours calls tools
    assert_true(r->route.upstream_first);
    assert_false(r->route.may_continue);
    assert_int_equal(r->prompt_count, 0);
    assert_null(r->owner);
    assert_string_equal(r->model, "alias");
    assert_string_equal(prepared_model_name(&f->p), "alias");
    assert_non_null(strstr(p->messages, "\"arguments\":\"{\\\"to\\\":\\\"[email]\\\"}\""));
    assert_non_null(strstr(p->tools, "\"to [email]\""));
    assert_string_equal(p->tool_choice, "\"auto\"");
    assert_string_equal(p->stop, "[\"END\",\"[email]\"]");
    assert_true(p->single_tool);
    assert_int_equal(p->max_tokens, 7);
    assert_int_equal(p->seed, 3);
    assert_true(p->temperature == 0.5);
    assert_true(p->top_p != p->top_p);
    prepared_free(&f->p);
}

static void refused(fixture *f, const char *key, const char *body, status_code code,
                    const char *param) {
    if (prepare(f, key, NULL, body)) fail_msg("taken: %s", body);
    if (f->why.why.code != code) fail_msg("%s", f->why.why.message);
    assert_string_equal(f->why.param, param);
}

static void what_nobody_may_serve_is_refused(void **state) {
    fixture *f = *state;
    static const char far[] =
        "{\"model\":\"far\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    refused(f, "closed-key-1", far, STATUS_PERMISSION_DENIED, "model");
    refused(f, "open-key-1",
            "{\"model\":\"fra\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
            STATUS_NOT_FOUND, "model");
    refused(f, "closed-key-1",
            "{\"model\":\"tiny\",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
            "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
            STATUS_INVALID_ARGUMENT, "tools");
    refused(
        f, "closed-key-1",
        "{\"model\":\"tiny\",\"guided_regex\":\"(\",\"messages\":[{\"role\":\"user\",\"content\":"
        "\"hi\"}]}",
        STATUS_INVALID_ARGUMENT, "guided_regex");
    refused(f, "open-key-1", "{\"model\":\"far\",\"prompt\":\"hi\"}", STATUS_INVALID_ARGUMENT,
            "model");
    f->spent = 1000000;
    refused(f, "open-key-1", far, STATUS_RESOURCE_EXHAUSTED, "");
    f->spent = 0;
    assert_false(made(f, "open-key-1", NULL, far)->route.local);
    prepared_free(&f->p);
    f->in.books = NULL; // no books: nobody knows what was spent
    refused(f, "open-key-1", far, STATUS_RESOURCE_EXHAUSTED, "");
}

static void some_requests_never_leave(void **state) {
    fixture *f = *state;
    static const char *const bodies[] = {
        "{\"model\":\"tiny\",\"prompt\":\"hi\"}",
        "{\"model\":\"vault\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
        "{\"model\":\"tiny\",\"n\":2,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
        "{\"model\":\"tiny\",\"logprobs\":true,\"messages\":[{\"role\":\"user\",\"content\":"
        "\"hi\"}]}",
        "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"4111111111111111\"}]}",
        // found, but not where it could be replaced
        "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"{\\\"to\\\":"
        "\\\"jane\\\\u0040ex.org\\\"}\"}]}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        const core_request *r = made(f, "open-key-1", NULL, bodies[i]);
        assert_true(r->route.local);
        assert_int_equal(r->route.upstream_count, 0);
        assert_null(r->route.prompt);
        prepared_free(&f->p);
    }
}

// Without keys anybody could call himself "key:open".
static void nobody_passes_for_a_key(void **state) {
    fixture *f = *state;
    f->in.keys = NULL;
    const core_request *r = made(f, NULL, NULL,
                                 "{\"model\":\"tiny\",\"user\":\"key:open\",\"messages\":[{"
                                 "\"role\":\"user\",\"content\":\"hi\"}]}");
    assert_int_equal(r->route.privacy, PRIVACY_LOCAL_ONLY);
    assert_int_equal(r->client[0], '#');
    prepared_free(&f->p);
}

static void without_a_policy_all_stays(void **state) {
    fixture *f = *state;
    f->in.routing = NULL;
    const core_request *r = made(f, "open-key-1", "may-leave", ASK);
    assert_true(r->route.local);
    assert_int_equal(r->route.upstream_count, 0);
    assert_non_null(r->route.rule);
    prepared_free(&f->p);
    refused(f, "open-key-1",
            "{\"model\":\"none\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
            STATUS_NOT_FOUND, "model");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_key_and_the_header_decide),    TEST(what_leaves_is_all_that_was_asked),
        TEST(what_nobody_may_serve_is_refused), TEST(some_requests_never_leave),
        TEST(what_parts_hold_together),         TEST(nobody_passes_for_a_key),
        TEST(without_a_policy_all_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
