// Bodies of /v1/messages: what each becomes, and what each wrong one is told.
#include "coordinator/ingress/anthropic_request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"
#define BASE "\"model\":\"m\",\"max_tokens\":9"

typedef struct bad_body {
    const char *body, *param, *message;
} bad_body;

static const bad_body BAD[] = {
    {"", "", "parse the JSON body"},
    {"[]", "", "JSON object"},
    {"{\"messages\":\"\xff\"}", "", "UTF-8"},
    {"{" HI ",\"max_tokens\":9}", "model", "model: Field required"},
    {"{" HI ",\"model\":\"m\"}", "max_tokens", "max_tokens: Field required"},
    {"{" HI ",\"model\":\"m\",\"max_tokens\":0}", "max_tokens", "max_tokens"},
    {"{" BASE "}", "messages", "at least one"},
    {"{" BASE ",\"messages\":[]}", "messages", "at least one"},
    {"{" BASE ",\"messages\":[7]}", "messages.0.role", "'user', 'assistant'"},
    {"{" BASE ",\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages.0.role",
     "'assistant' or 'system'"},
    {"{" BASE ",\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"image\"}]}]}",
     "messages.0.content", "only text blocks"},
    {"{" BASE ",\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "messages.0.content",
     "at least one block"},
    {"{" BASE ",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
     "messages.0.content.0", "'image' is not supported"},
    {"{" BASE ",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"tool_use\"}]}]}",
     "messages.0.content.0", "'tool_use'"},
    {"{" BASE ",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\"}]}]}",
     "messages.0.content.0", "tool_use_id"},
    {"{" BASE ",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
     "\"content\":\"b\"}]}",
     "messages", "must end with a user message"},
    {"{" BASE "," HI ",\"system\":7}", "system", "text blocks"},
    {"{" BASE "," HI ",\"seed\":7}", "seed", "Extra inputs"},
    {"{" BASE "," HI ",\"container\":\"c\"}", "container", "not supported"},
    {"{" BASE "," HI ",\"temperature\":1.5}", "temperature", "<= 1"},
    {"{" BASE "," HI ",\"stop_sequences\":\"x\"}", "stop_sequences", "array"},
    {"{" BASE "," HI ",\"stop_sequences\":[\"\"]}", "stop_sequences", "stop_sequences.0"},
    {"{" BASE "," HI ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":9}}", "thinking",
     "not supported"},
    {"{" BASE "," HI ",\"tools\":[{\"type\":\"bash_20250124\",\"name\":\"bash\"}]}", "tools.0",
     "of your own"},
    {"{" BASE "," HI ",\"tools\":[{\"name\":\"a\"}]}", "tools.0", "input_schema"},
    {"{" BASE "," HI ",\"tool_choice\":{\"type\":\"any\"}}", "tool_choice", "only allowed"},
    {"{" BASE "," HI ",\"output_config\":{\"format\":{\"type\":\"xml\"}}}", "output_config.format",
     "json_schema"},
};

static void test_bad_bodies(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        anthropic_request r;
        refusal why;
        if (anthropic_request_parse(BAD[i].body, strlen(BAD[i].body), false, &r, &why))
            fail_msg("taken: %s", BAD[i].body);
        if (why.why.code != STATUS_INVALID_ARGUMENT || strcmp(why.param, BAD[i].param) ||
            !strstr(why.why.message, BAD[i].message))
            fail_msg("%s: param '%s': %s", BAD[i].body, why.param, why.why.message);
    }
}

static anthropic_request good(const char *body, bool counting) {
    anthropic_request r;
    refusal why;
    if (!anthropic_request_parse(body, strlen(body), counting, &r, &why))
        fail_msg("%s: %s", body, why.why.message);
    return r;
}

static void test_every_field(void **state) {
    (void)state;
    anthropic_request r =
        good("{" BASE "," HI
             ",\"stream\":true,\"temperature\":0.5,\"top_p\":0,\"top_k\":7,\"stop_sequences\":"
             "[\"a\",\"b\"],\"metadata\":{\"user_id\":\"u\"},\"thinking\":{\"type\":\"disabled\"},"
             "\"service_tier\":\"auto\",\"cache_control\":{\"type\":\"ephemeral\"}}",
             false);
    const generate_request *g = &r.generate;
    assert_string_equal(g->model, "m");
    assert_string_equal(g->client, "u");
    assert_string_equal(g->id_prefix, "msg_");
    assert_true(r.stream && g->sampling.temperature == 0.5F && g->sampling.top_k == 7 &&
                g->sampling.top_p > 0 && g->sampling.top_p < 1e-30F);
    assert_int_equal(g->max_tokens, 9);
    assert_int_equal(g->stop_count, 2);
    assert_null(g->tools);
    anthropic_request_free(&r);
    r = good("{\"model\":\"m\"," HI "}", true); // counting needs no max_tokens
    assert_int_equal(r.generate.max_tokens, -1);
    anthropic_request_free(&r);
}

static void test_conversation(void **state) {
    (void)state;
    anthropic_request r = good(
        "{" BASE ",\"system\":[{\"type\":\"text\",\"text\":\"Be\",\"cache_control\":{}},{\"type\":"
        "\"text\",\"text\":\"brief\"}],\"tools\":[{\"name\":\"look\",\"description\":\"d\","
        "\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{\"type\":\"tool\",\"name\":"
        "\"look\",\"disable_parallel_tool_use\":true},\"output_config\":{\"effort\":\"low\","
        "\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}}},"
        "\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\","
        "\"signature\":\"s\"},{\"type\":\"text\",\"text\":\"b\"},{\"type\":\"tool_use\",\"id\":"
        "\"t\",\"name\":\"look\",\"input\":{\"x\":1}}]},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t\","
        "\"content\":[{\"type\":\"text\",\"text\":\"r\"}]},{\"type\":\"text\",\"text\":\"c\"}]},{"
        "\"role\":\"system\",\"content\":\"s\"}]}",
        false);
    json_t *wanted = json_loads(
        "[{\"role\":\"system\",\"content\":\"Be\\nbrief\"},{\"role\":\"user\",\"content\":\"a\"},"
        "{\"role\":\"assistant\",\"content\":\"b\",\"tool_calls\":[{\"id\":\"t\",\"type\":"
        "\"function\",\"function\":{\"name\":\"look\",\"arguments\":{\"x\":1}}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"t\",\"content\":\"r\"},"
        "{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"system\",\"content\":\"s\"}]",
        0, NULL);
    char *got = json_dumps(r.generate.messages, JSON_COMPACT);
    if (!json_equal(r.generate.messages, wanted)) fail_msg("%s", got);
    free(got);
    json_decref(wanted);
    assert_string_equal(r.generate.tools,
                        "[{\"type\":\"function\",\"function\":{\"name\":\"look\",\"parameters\":"
                        "{\"type\":\"object\"},\"description\":\"d\"}}]");
    assert_string_equal(r.generate.tool_choice,
                        "{\"type\":\"function\",\"function\":{\"name\":\"look\"}}");
    assert_non_null(strstr(r.generate.response_format, "\"json_schema\""));
    assert_true(r.generate.single_tool);
    anthropic_request_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test(test_every_field),
        cmocka_unit_test(test_conversation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
