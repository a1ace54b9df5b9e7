// One conversation as each API wants it, compared as JSON.
#include "coordinator/upstream/codec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/json.h"

static const char TALK[] =
    "[{\"role\":\"system\",\"content\":\"Be brief.\"},"
    "{\"role\":\"user\",\"content\":\"Weather in \\u00d6rebro?\"},"
    "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":["
    "{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"look\",\"arguments\":"
    "{\"city\":\"a\"}}},"
    "{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":\"clock\",\"arguments\":\"\"}}]},"
    "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"sunny\"},"
    "{\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":\"{\\\"hour\\\":9}\"},"
    "{\"role\":\"developer\",\"content\":\"In Swedish.\"},"
    "{\"role\":\"user\",\"content\":\"Well?\"}]";
static const char TOOLS[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"look\",\"description\":\"d\",\"parameters\":"
    "{\"type\":\"object\",\"properties\":{}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"clock\"}}]";
static const char SCHEMA[] = "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":"
                             "{\"type\":\"object\"},\"strict\":true}}";

static upstream_policy policy_of(upstream_api api) {
    return (upstream_policy){.name = "frontier",
                             .api = api,
                             .base_url = "https://h/v1",
                             .model = "m",
                             .takes_prefill = true,
                             .takes_tools = true,
                             .takes_json = true,
                             .takes_sampling = true};
}

static upstream_prompt plain(const char *messages) {
    return (upstream_prompt){.messages = messages, .temperature = NAN, .top_p = NAN, .seed = -1};
}

static void expect_body(const codec_ask *ask, const char *wanted) {
    buf body = buf_make(CODEC_BODY_MAX);
    json_t *got = NULL, *want = NULL;
    status s = codec_body(ask, &body);
    if (s.code != STATUS_OK) fail_msg("%s", s.message);
    s = json_parse(body.data, body.size, &got);
    assert_int_equal(s.code, STATUS_OK);
    s = json_parse(wanted, strlen(wanted), &want);
    if (s.code != STATUS_OK) fail_msg("%s: %s", wanted, s.message);
    if (!json_equal(got, want)) fail_msg("got    %s\nwanted %s", body.data, wanted);
    json_decref(got);
    json_decref(want);
    buf_free(&body);
}

static void expect_refusal(const codec_ask *ask, status_code code, const char *part) {
    buf body = buf_make(CODEC_BODY_MAX);
    status s = codec_body(ask, &body);
    if (s.code != code || !strstr(s.message, part))
        fail_msg("wanted %d '%s', got %d '%s'", code, part, s.code, s.message);
    buf_free(&body);
}

#define LOOK                                                                                       \
    "{\"name\":\"look\",\"description\":\"d\",\"parameters\":{\"type\":\"object\","                \
    "\"properties\":{}}"

static void test_whole_conversation(void **state) {
    (void)state;
    upstream_prompt prompt = {.messages = TALK,
                              .tools = TOOLS,
                              .tool_choice = "\"required\"",
                              .single_tool = true,
                              .response_format = SCHEMA,
                              .max_tokens = 100,
                              .temperature = 1.5,
                              .top_p = 0.5,
                              .stop = "[\"x\"]",
                              .seed = 7};
    upstream_policy target = policy_of(UPSTREAM_OPENAI_CHAT);
    codec_ask ask = {.target = &target, .prompt = &prompt};
    expect_body(
        &ask,
        "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
        "\"max_completion_tokens\":100,\"temperature\":1.5,\"top_p\":0.5,\"stop\":[\"x\"],"
        "\"seed\":7,\"tool_choice\":\"required\",\"parallel_tool_calls\":false,"
        "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":"
        "{\"type\":\"object\"},\"strict\":true}},"
        "\"tools\":[{\"type\":\"function\",\"function\":" LOOK "}},{\"type\":\"function\","
        "\"function\":{\"name\":\"clock\"}}],\"messages\":["
        "{\"role\":\"system\",\"content\":\"Be brief.\"},"
        "{\"role\":\"user\",\"content\":\"Weather in \\u00d6rebro?\"},"
        "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":["
        "{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"look\",\"arguments\":"
        "\"{\\\"city\\\":\\\"a\\\"}\"}},"
        "{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":\"clock\",\"arguments\":"
        "\"\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"sunny\"},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":\"{\\\"hour\\\":9}\"},"
        "{\"role\":\"system\",\"content\":\"In Swedish.\"},"
        "{\"role\":\"user\",\"content\":\"Well?\"}]}");
    target.api = UPSTREAM_ANTHROPIC_MESSAGES;
    expect_body(
        &ask,
        "{\"model\":\"m\",\"stream\":true,\"max_tokens\":100,\"temperature\":1.0,"
        "\"stop_sequences\":[\"x\"],\"system\":\"Be brief.\\n\\nIn Swedish.\","
        "\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":"
        "\"object\"}}},"
        "\"tool_choice\":{\"type\":\"any\",\"disable_parallel_tool_use\":true},"
        "\"tools\":[{\"name\":\"look\",\"description\":\"d\",\"input_schema\":{\"type\":"
        "\"object\",\"properties\":{}}},{\"name\":\"clock\",\"input_schema\":{\"type\":"
        "\"object\"}}],"
        "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Weather in "
        "\\u00d6rebro?\"}]},"
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c1\",\"name\":"
        "\"look\",\"input\":{\"city\":\"a\"}},{\"type\":\"tool_use\",\"id\":\"c2\",\"name\":"
        "\"clock\",\"input\":{}}]},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c1\","
        "\"content\":\"sunny\"},{\"type\":\"tool_result\",\"tool_use_id\":\"c2\",\"content\":"
        "\"{\\\"hour\\\":9}\"},{\"type\":\"text\",\"text\":\"Well?\"}]}]}");
    target.api = UPSTREAM_GEMINI;
    expect_refusal(&ask, STATUS_FAILED_PRECONDITION, "parallel");
    prompt.single_tool = false;
    expect_body(
        &ask,
        "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"Weather in \\u00d6rebro?\"}]},"
        "{\"role\":\"model\",\"parts\":[{\"functionCall\":{\"name\":\"look\",\"args\":{\"city\":"
        "\"a\"}},\"thoughtSignature\":\"skip_thought_signature_validator\"},{\"functionCall\":"
        "{\"name\":\"clock\",\"args\":{}},\"thoughtSignature\":"
        "\"skip_thought_signature_validator\"}]},"
        "{\"role\":\"user\",\"parts\":[{\"functionResponse\":{\"name\":\"look\",\"response\":"
        "{\"result\":\"sunny\"}}},{\"functionResponse\":{\"name\":\"clock\",\"response\":"
        "{\"hour\":9}}},{\"text\":\"Well?\"}]}],"
        "\"systemInstruction\":{\"parts\":[{\"text\":\"Be brief.\"},{\"text\":\"In Swedish.\"}]},"
        "\"generationConfig\":{\"maxOutputTokens\":100,\"temperature\":1.5,\"topP\":0.5,\"seed\":"
        "7,\"stopSequences\":[\"x\"],\"responseMimeType\":\"application/json\","
        "\"responseJsonSchema\":{\"type\":\"object\"}},"
        "\"tools\":[{\"functionDeclarations\":[{\"name\":\"look\",\"description\":\"d\","
        "\"parametersJsonSchema\":{\"type\":\"object\",\"properties\":{}}},{\"name\":\"clock\"}]}],"
        "\"toolConfig\":{\"functionCallingConfig\":{\"mode\":\"ANY\"}}}");
    target.api = UPSTREAM_OPENAI_RESPONSES;
    prompt.single_tool = true;
    expect_body(
        &ask,
        "{\"model\":\"m\",\"stream\":true,\"store\":false,\"max_output_tokens\":100,"
        "\"temperature\":1.5,\"top_p\":0.5,\"tool_choice\":\"required\",\"parallel_tool_calls\":"
        "false,\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\",\"schema\":"
        "{\"type\":\"object\"},\"strict\":true}},"
        "\"tools\":[" LOOK ",\"type\":\"function\",\"strict\":false},{\"name\":\"clock\",\"type\":"
        "\"function\",\"strict\":false}],"
        "\"input\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
        "{\"role\":\"user\",\"content\":\"Weather in \\u00d6rebro?\"},"
        "{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":\"look\",\"arguments\":"
        "\"{\\\"city\\\":\\\"a\\\"}\"},{\"type\":\"function_call\",\"call_id\":\"c2\",\"name\":"
        "\"clock\",\"arguments\":\"\"},"
        "{\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":\"sunny\"},"
        "{\"type\":\"function_call_output\",\"call_id\":\"c2\",\"output\":\"{\\\"hour\\\":9}\"},"
        "{\"role\":\"system\",\"content\":\"In Swedish.\"},{\"role\":\"user\",\"content\":"
        "\"Well?\"}]}");
}

static void test_named_tool(void **state) {
    (void)state;
    static const char HI[] = "[{\"role\":\"user\",\"content\":\"Hi\"}]";
    upstream_prompt prompt = plain(HI);
    prompt.tools = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";
    prompt.tool_choice = "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}";
    upstream_policy target = policy_of(UPSTREAM_ANTHROPIC_MESSAGES);
    target.max_output = 50;
    codec_ask ask = {.target = &target, .prompt = &prompt, .max_tokens = 80};
#define ANTHROPIC_HI                                                                               \
    "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}]}"
    expect_body(&ask, "{\"model\":\"m\",\"stream\":true,\"max_tokens\":50," ANTHROPIC_HI "],"
                      "\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}}],"
                      "\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\"}}");
    target.api = UPSTREAM_GEMINI;
    target.takes_sampling = false; // left out
    prompt.temperature = prompt.top_p = 0.5;
    expect_body(&ask,
                "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"Hi\"}]}],"
                "\"generationConfig\":{\"maxOutputTokens\":50},\"tools\":[{"
                "\"functionDeclarations\":[{\"name\":\"f\"}]}],\"toolConfig\":"
                "{\"functionCallingConfig\":{\"mode\":\"ANY\",\"allowedFunctionNames\":[\"f\"]}}}");
    target.api = UPSTREAM_OPENAI_RESPONSES;
    ask.max_tokens = 3; // less than the API takes
    expect_body(&ask, "{\"model\":\"m\",\"stream\":true,\"store\":false,\"max_output_tokens\":16,"
                      "\"input\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"tools\":[{\"name\":"
                      "\"f\",\"type\":\"function\",\"strict\":false}],\"tool_choice\":{\"type\":"
                      "\"function\",\"name\":\"f\"}}");
}

static void test_modes(void **state) {
    (void)state;
    static const char HI[] = "[{\"role\":\"user\",\"content\":\"Hi\"}]";
    upstream_prompt prompt = plain(HI);
    upstream_policy target = policy_of(UPSTREAM_OPENAI_CHAT);
    codec_ask ask = {.target = &target, .prompt = &prompt, .mode = UPSTREAM_PREFILL};
#define CHAT "\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true}"
    expect_body(&ask, "{" CHAT ",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}");
    ask.partial = "Hello \n";
    ask.partial_size = 7;
    expect_body(&ask, "{" CHAT ",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":"
                      "\"assistant\",\"content\":\"Hello\"}],\"continue_final_message\":true,"
                      "\"add_generation_prompt\":false}");
    target.api = UPSTREAM_ANTHROPIC_MESSAGES;
    expect_body(&ask, "{\"model\":\"m\",\"stream\":true,\"max_tokens\":4096," ANTHROPIC_HI
                      ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":"
                      "\"Hello\"}]}]}");
    target.takes_prefill = false;
    expect_refusal(&ask, STATUS_FAILED_PRECONDITION, "takes no prefill");
    ask.mode = UPSTREAM_USER_TURN;
    target.api = UPSTREAM_GEMINI;
    buf body = buf_make(CODEC_BODY_MAX);
    assert_int_equal(codec_body(&ask, &body).code, STATUS_OK);
    assert_non_null(strstr(body.data, "{\"role\":\"model\",\"parts\":[{\"text\":\"Hello \\n\"}]},"
                                      "{\"role\":\"user\",\"parts\":[{\"text\":\"Your last"));
    buf_free(&body);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        upstream_api api;
        const char *messages, *tools, *format;
        status_code code;
        const char *part;
    } CASES[] = {
        {UPSTREAM_OPENAI_CHAT, "[", NULL, NULL, STATUS_INVALID_ARGUMENT, "'messages'"},
        {UPSTREAM_OPENAI_CHAT, "[]", NULL, NULL, STATUS_INVALID_ARGUMENT, "'messages'"},
        {UPSTREAM_OPENAI_CHAT, "[{\"role\":\"SECRET\",\"content\":\"\"}]", NULL, NULL,
         STATUS_INVALID_ARGUMENT, "'messages'"},
        {UPSTREAM_OPENAI_CHAT, "[{\"role\":\"user\",\"content\":7}]", NULL, NULL,
         STATUS_INVALID_ARGUMENT, "'messages'"},
        {UPSTREAM_OPENAI_CHAT, "[{\"role\":\"tool\",\"content\":\"x\"}]", NULL, NULL,
         STATUS_INVALID_ARGUMENT, "'messages'"},
        {UPSTREAM_OPENAI_CHAT, "[{\"role\":\"assistant\",\"tool_calls\":[{}]}]", NULL, NULL,
         STATUS_INVALID_ARGUMENT, "'messages'"},
        {UPSTREAM_OPENAI_CHAT, "[{\"role\":\"user\",\"content\":\"x\"}]", "[7]", NULL,
         STATUS_INVALID_ARGUMENT, "'tools'"},
        {UPSTREAM_OPENAI_CHAT, "[{\"role\":\"user\",\"content\":\"x\"}]", NULL, "7",
         STATUS_INVALID_ARGUMENT, "'response_format'"},
        {UPSTREAM_ANTHROPIC_MESSAGES, "[{\"role\":\"system\",\"content\":\"x\"}]", NULL, NULL,
         STATUS_FAILED_PRECONDITION, "user's message"},
        {UPSTREAM_GEMINI, "[{\"role\":\"system\",\"content\":\"x\"}]", NULL, NULL,
         STATUS_FAILED_PRECONDITION, "user's message"},
        {UPSTREAM_ANTHROPIC_MESSAGES,
         "[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\","
         "\"arguments\":\"[SECRET\"}}]}]",
         NULL, NULL, STATUS_FAILED_PRECONDITION, "no JSON object"},
        {UPSTREAM_GEMINI, "[{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"x\"}]", NULL,
         NULL, STATUS_FAILED_PRECONDITION, "without a call"},
        {UPSTREAM_ANTHROPIC_MESSAGES, "[{\"role\":\"user\",\"content\":\"x\"}]", NULL,
         "{\"type\":\"json_object\"}", STATUS_FAILED_PRECONDITION, "json_object"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        upstream_prompt prompt = plain(CASES[i].messages);
        prompt.tools = CASES[i].tools;
        prompt.response_format = CASES[i].format;
        upstream_policy target = policy_of(CASES[i].api);
        codec_ask ask = {.target = &target, .prompt = &prompt};
        expect_refusal(&ask, CASES[i].code, CASES[i].part);
    }
    upstream_prompt prompt = plain(TALK);
    upstream_policy target = policy_of(UPSTREAM_OPENAI_CHAT);
    codec_ask ask = {.target = &target, .prompt = &prompt};
    target.takes_tools = false; // the history has calls
    expect_refusal(&ask, STATUS_FAILED_PRECONDITION, "takes no tools");
    prompt = plain("[{\"role\":\"user\",\"content\":\"x\"}]");
    prompt.response_format = SCHEMA;
    target.takes_json = false;
    expect_refusal(&ask, STATUS_FAILED_PRECONDITION, "response_format");
    buf body = buf_make(40);
    prompt.response_format = NULL;
    assert_int_equal(codec_body(&ask, &body).code, STATUS_RESOURCE_EXHAUSTED);
    buf_free(&body);
}

static void test_urls(void **state) {
    (void)state;
    static const struct {
        upstream_api api;
        const char *base, *model, *url;
    } CASES[] = {
        {UPSTREAM_OPENAI_CHAT, "https://h/v1", "m", "https://h/v1/chat/completions"},
        {UPSTREAM_OPENAI_CHAT, "https://h/v1?api-version=1", "m",
         "https://h/v1/chat/completions?api-version=1"},
        {UPSTREAM_OPENAI_RESPONSES, "https://h/v1", "m", "https://h/v1/responses"},
        {UPSTREAM_ANTHROPIC_MESSAGES, "https://h/v1", "m", "https://h/v1/messages"},
        {UPSTREAM_GEMINI, "https://h/v1beta", "gemini-9 x?",
         "https://h/v1beta/models/gemini-9%20x%3F:streamGenerateContent?alt=sse"},
        {UPSTREAM_GEMINI, "https://h/v1beta?a=b", "tunedModels/x",
         "https://h/v1beta/tunedModels/x:streamGenerateContent?alt=sse&a=b"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        upstream_policy target = policy_of(CASES[i].api);
        target.base_url = CASES[i].base;
        target.model = CASES[i].model;
        buf url = buf_make(CODEC_URL_MAX);
        assert_int_equal(codec_url(&target, &url).code, STATUS_OK);
        assert_string_equal(url.data, CASES[i].url);
        url.limit = 5;
        assert_int_equal(codec_url(&target, &url).code, STATUS_INVALID_ARGUMENT);
        buf_free(&url);
    }
    assert_string_equal(codec_key_header(UPSTREAM_ANTHROPIC_MESSAGES), "x-api-key: ");
    assert_string_equal(codec_key_header(UPSTREAM_GEMINI), "x-goog-api-key: ");
    assert_string_equal(codec_headers(UPSTREAM_ANTHROPIC_MESSAGES)[2],
                        "anthropic-version: 2023-06-01");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_conversation),
        cmocka_unit_test(test_named_tool),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
