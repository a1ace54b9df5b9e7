// Bodies in, requests or refusals out: one table for what must be refused, and how; tests for what
// a good body becomes.
#include "coordinator/ingress/openai_request.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/ingress/openai_error.h"

typedef struct bad_body {
    openai_endpoint endpoint;
    const char *body;
    const char *param, *code, *message; // message: a part of it
} bad_body;

#define TOOL "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"look_up\"}}]"
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

static const bad_body BAD[] = {
    {OPENAI_CHAT, "", "", NULL, "could not parse the JSON body"},
    {OPENAI_CHAT, "[]", "", NULL, "must be a JSON object"},
    {OPENAI_CHAT, "{\"a\":1,\"a\":2}", "", NULL, "duplicate object key"},
    {OPENAI_CHAT, "{\"a\":\"\xff\"}", "", NULL, "not valid UTF-8"},
    {OPENAI_CHAT, "{" HI ",\"temperature\":NaN}", "", NULL, "could not parse the JSON body"},
    {OPENAI_CHAT, "{" HI ",\"temperature\":1e999}", "", NULL, "real number overflow"},
    {OPENAI_CHAT, "{" HI "} x", "", NULL, "end of file expected"},
    {OPENAI_CHAT, "{}", "messages", "missing_required_parameter",
     "Missing required parameter: 'messages'"},
    {OPENAI_CHAT, "{\"messages\":null}", "messages", "missing_required_parameter", "Missing"},
    {OPENAI_CHAT, "{\"messages\":{}}", "messages", "invalid_type",
     "expected an array of objects, but got an object"},
    {OPENAI_CHAT, "{\"messages\":[]}", "messages", "empty_array", "empty array"},
    {OPENAI_CHAT, "{\"messages\":[1]}", "messages[0]", "invalid_type",
     "expected an object, but got an integer"},
    {OPENAI_CHAT, "{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role",
     "missing_required_parameter", "role"},
    {OPENAI_CHAT, "{\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}", "messages[0].role",
     "invalid_value", "king"},
    {OPENAI_CHAT, "{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", "invalid_type",
     "got null"},
    {OPENAI_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":7}]}", "messages[0].content",
     "invalid_type", "text parts"},
    {OPENAI_CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}",
     "messages[0].content", "invalid_value", "takes text only"},
    {OPENAI_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"x\":1}]}", "messages[0]",
     "unknown_parameter", "messages[0].x"},
    {OPENAI_CHAT, "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}",
     "messages[0].tool_calls", "invalid_value", "function"},
    {OPENAI_CHAT, "{" HI ",\"foo\":1}", "foo", "unknown_parameter",
     "Unrecognized request argument supplied: foo"},
    {OPENAI_CHAT, "{" HI ",\"prompt\":\"x\"}", "prompt", "unknown_parameter", "Unrecognized"},
    {OPENAI_CHAT, "{" HI ",\"tools\":[{}]}", "tools[0].function", "invalid_value", "'tools[0]'"},
    {OPENAI_CHAT, "{" HI ",\"tools\":{}}", "tools", "invalid_type", "an array"},
    {OPENAI_CHAT, "{" HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]}",
     "tools[0].function", "invalid_value", "digits"},
    {OPENAI_CHAT,
     "{" HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a\",\"parameters\":7}}]}",
     "tools[0].function", "invalid_type", "'parameters'"},
    {OPENAI_CHAT, "{" HI ",\"tool_choice\":\"auto\"}", "tool_choice", "invalid_value",
     "only allowed"},
    {OPENAI_CHAT, "{" HI "," TOOL ",\"tool_choice\":\"maybe\"}", "tool_choice", "invalid_value",
     "required"},
    {OPENAI_CHAT,
     "{" HI "," TOOL ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"b\"}}}",
     "tool_choice", "invalid_value", "no function of that name"},
    {OPENAI_CHAT, "{" HI ",\"response_format\":{\"type\":\"yaml\"}}", "response_format",
     "invalid_value", "json_schema"},
    {OPENAI_CHAT, "{" HI ",\"response_format\":{\"type\":\"json_schema\"}}", "response_format",
     "invalid_value", "\"schema\""},
    {OPENAI_CHAT, "{" HI ",\"guided_regex\":1}", "guided_regex", "invalid_value", "expression"},
    {OPENAI_CHAT, "{" HI ",\"guided_choice\":\"a\"}", "guided_choice", "invalid_value", "an array"},
    {OPENAI_CHAT, "{" HI ",\"structured_outputs\":[]}", "structured_outputs", "invalid_type",
     "an object"},
    {OPENAI_CHAT, "{" HI ",\"structured_outputs\":{\"grammar\":\"x\"}}", "structured_outputs",
     "unsupported_parameter", "structured_outputs.grammar"},
    {OPENAI_CHAT, "{" HI ",\"structured_outputs\":{\"regex\":\"a\",\"json_object\":true}}",
     "structured_outputs.json_object", "invalid_parameter_combination", "structured_outputs.regex"},
    {OPENAI_CHAT, "{" HI ",\"guided_json\":{},\"response_format\":{\"type\":\"json_object\"}}",
     "guided_json", "invalid_parameter_combination", "'response_format' and 'guided_json'"},
    {OPENAI_CHAT, "{" HI ",\"ignore_eos\":true,\"guided_regex\":\"a\"}", "guided_regex",
     "invalid_parameter_combination", "ignore_eos"},
    {OPENAI_CHAT, "{" HI ",\"modalities\":[\"audio\"]}", "modalities", "unsupported_parameter",
     "'modalities'"},
    {OPENAI_CHAT, "{" HI ",\"temperature\":\"hot\"}", "temperature", "invalid_type",
     "expected a decimal, but got a string"},
    {OPENAI_CHAT, "{" HI ",\"temperature\":2.1}", "temperature", "decimal_above_max_value", "<= 2"},
    {OPENAI_CHAT, "{" HI ",\"temperature\":-0.1}", "temperature", "decimal_below_min_value",
     ">= 0"},
    {OPENAI_CHAT, "{" HI ",\"top_p\":1.5}", "top_p", "decimal_above_max_value", "top_p"},
    {OPENAI_CHAT, "{" HI ",\"min_p\":-1}", "min_p", "decimal_below_min_value", "min_p"},
    {OPENAI_CHAT, "{" HI ",\"repetition_penalty\":0}", "repetition_penalty",
     "decimal_below_min_value", "repetition_penalty"},
    {OPENAI_CHAT, "{" HI ",\"presence_penalty\":3}", "presence_penalty", "decimal_above_max_value",
     "presence"},
    {OPENAI_CHAT, "{" HI ",\"max_tokens\":-1}", "max_tokens", "integer_below_min_value",
     ">= 1, but got -1"},
    {OPENAI_CHAT, "{" HI ",\"max_tokens\":0}", "max_tokens", "integer_below_min_value", ">= 1"},
    {OPENAI_CHAT, "{" HI ",\"max_tokens\":1.5}", "max_tokens", "invalid_type",
     "expected an integer, but got a decimal"},
    {OPENAI_CHAT, "{" HI ",\"max_tokens\":99999999999}", "max_tokens", "integer_above_max_value",
     "<= 2147483647"},
    {OPENAI_CHAT, "{" HI ",\"max_tokens\":999999999999999999999}", "", NULL, "too big integer"},
    {OPENAI_CHAT, "{" HI ",\"max_tokens\":1,\"max_completion_tokens\":1}", "max_tokens",
     "invalid_parameter_combination", "same time"},
    {OPENAI_CHAT, "{" HI ",\"n\":17}", "n", "integer_above_max_value", "<= 16"},
    {OPENAI_CHAT, "{" HI ",\"n\":0}", "n", "integer_below_min_value", ">= 1"},
    {OPENAI_CHAT, "{" HI ",\"model\":1}", "model", "invalid_type",
     "expected a string, but got an integer"},
    {OPENAI_CHAT, "{" HI ",\"model\":\"a\\u0000b\"}", "model", "invalid_value", "NUL"},
    {OPENAI_CHAT, "{" HI ",\"stream\":\"yes\"}", "stream", "invalid_type", "expected a boolean"},
    {OPENAI_CHAT, "{" HI ",\"stream_options\":{}}", "stream_options", "invalid_value",
     "only allowed when 'stream'"},
    {OPENAI_CHAT, "{" HI ",\"stream\":true,\"stream_options\":{\"x\":1}}", "stream_options",
     "unknown_parameter", "stream_options.x"},
    {OPENAI_CHAT, "{" HI ",\"stream\":true,\"stream_options\":{\"include_usage\":1}}",
     "stream_options.include_usage", "invalid_type", "boolean"},
    {OPENAI_CHAT, "{" HI ",\"stop\":5}", "stop", "invalid_type", "a string or an array of strings"},
    {OPENAI_CHAT, "{" HI ",\"stop\":\"\"}", "stop", "invalid_value", "1 to 256 bytes"},
    {OPENAI_CHAT, "{" HI ",\"stop\":[\"a\",\"\"]}", "stop", "invalid_value", "1 to 256 bytes"},
    {OPENAI_CHAT, "{" HI ",\"stop\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", "stop",
     "array_above_max_length", "length 17"},
    {OPENAI_CHAT, "{" HI ",\"logprobs\":5}", "logprobs", "invalid_type", "boolean"},
    {OPENAI_CHAT, "{" HI ",\"top_logprobs\":5}", "top_logprobs", "invalid_value",
     "only allowed when 'logprobs'"},
    {OPENAI_CHAT, "{" HI ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs",
     "integer_above_max_value", "<= 20"},
    {OPENAI_CHAT, "{" HI ",\"logit_bias\":[]}", "logit_bias", "invalid_type", "an object"},
    {OPENAI_CHAT, "{" HI ",\"logit_bias\":{\"x\":1}}", "logit_bias", "invalid_value", "token ids"},
    {OPENAI_CHAT, "{" HI ",\"logit_bias\":{\"-1\":1}}", "logit_bias", "invalid_value", "token ids"},
    {OPENAI_CHAT, "{" HI ",\"logit_bias\":{\"1\":101}}", "logit_bias", "invalid_value", "101"},
    {OPENAI_CHAT, "{" HI ",\"logit_bias\":{\"1\":\"x\"}}", "logit_bias", "invalid_type", "numbers"},
    {OPENAI_CHAT, "{" HI ",\"seed\":1.5}", "seed", "invalid_type", "integer"},
    {OPENAI_CHAT, "{" HI ",\"user\":[]}", "user", "invalid_type", "string"},
    {OPENAI_COMPLETION, "{}", "prompt", "missing_required_parameter", "prompt"},
    {OPENAI_COMPLETION, "{\"prompt\":[]}", "prompt", "empty_array", "empty array"},
    {OPENAI_COMPLETION, "{\"prompt\":[[]]}", "prompt", "empty_array", "must not be empty"},
    {OPENAI_COMPLETION, "{\"prompt\":{}}", "prompt", "invalid_type", "token ids"},
    {OPENAI_COMPLETION, "{\"prompt\":[1,\"a\"]}", "prompt", "invalid_type",
     "integers as token ids"},
    {OPENAI_COMPLETION, "{\"prompt\":[\"a\",1]}", "prompt", "invalid_type", "a string"},
    {OPENAI_COMPLETION, "{\"prompt\":[-1]}", "prompt", "invalid_value", "-1 is not a token id"},
    {OPENAI_COMPLETION, "{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix", "unsupported_parameter",
     "'suffix'"},
    {OPENAI_COMPLETION, "{\"prompt\":\"a\",\"best_of\":2}", "best_of", "unsupported_parameter",
     "must equal 'n'"},
    {OPENAI_COMPLETION, "{\"prompt\":\"a\",\"max_tokens\":0}", "max_tokens",
     "integer_below_min_value", ">= 1"},
    {OPENAI_COMPLETION, "{\"prompt\":\"a\",\"logprobs\":true}", "logprobs", "invalid_type",
     "integer"},
    {OPENAI_COMPLETION, "{\"prompt\":\"a\",\"messages\":[]}", "messages", "unknown_parameter",
     "Unrecognized"},
    {OPENAI_COMPLETION,
     "{\"prompt\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"],\"n\":16}", "prompt",
     "array_above_max_length", "128 answers"},
};

static bool parse(openai_endpoint endpoint, const char *body, openai_request *r, refusal *why) {
    return (endpoint == OPENAI_CHAT ? openai_chat_parse
                                    : openai_completion_parse)(body, strlen(body), r, why);
}

static void test_bad_bodies(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        const bad_body *b = &BAD[i];
        openai_request r;
        refusal why;
        if (parse(b->endpoint, b->body, &r, &why)) fail_msg("taken: %s", b->body);
        bool same_code = b->code && why.code ? !strcmp(b->code, why.code) : b->code == why.code;
        if (why.why.code != STATUS_INVALID_ARGUMENT || strcmp(why.param, b->param) || !same_code ||
            !strstr(why.why.message, b->message))
            fail_msg("%s: got param '%s', code '%s': %s", b->body, why.param,
                     why.code ? why.code : "", why.why.message);
    }
}

static void test_deep_json(void **state) {
    (void)state;
    enum { DEPTH = 100000 };
    char *body = malloc(DEPTH + 1);
    memset(body, '[', DEPTH);
    body[DEPTH] = 0;
    openai_request r;
    refusal why;
    assert_false(openai_chat_parse(body, DEPTH, &r, &why));
    assert_non_null(strstr(why.why.message, "maximum parsing depth"));
    free(body);
}

static openai_request good(openai_endpoint endpoint, const char *body) {
    openai_request r;
    refusal why;
    if (!parse(endpoint, body, &r, &why)) fail_msg("%s: %s", body, why.why.message);
    return r;
}

static void test_defaults(void **state) {
    (void)state;
    openai_request r = good(OPENAI_CHAT, "{" HI "}");
    const generate_request *g = &r.generate;
    assert_null(g->model);
    assert_int_equal(g->n, 1);
    assert_int_equal(g->max_tokens, -1);
    assert_int_equal(g->stop_count, 0);
    assert_false(r.stream || r.include_usage || g->seed_given || g->echo || g->ignore_eos);
    assert_true(g->sampling.temperature == 1 && g->sampling.top_p == 1 &&
                g->sampling.logprobs == -1);
    openai_request_free(&r);
    r = good(OPENAI_COMPLETION,
             "{\"prompt\":\"a\",\"temperature\":null,\"stop\":null,\"suffix\":null}");
    assert_int_equal(r.generate.max_tokens, 16);
    openai_request_free(&r);
}

static void test_tools(void **state) {
    (void)state;
    openai_request r =
        good(OPENAI_CHAT, "{" HI "," TOOL ",\"tool_choice\":\"required\",\"parallel_tool_calls\":"
                          "false,\"response_format\":{\"type\":\"json_object\"}}");
    assert_string_equal(r.generate.tools,
                        "[{\"type\":\"function\",\"function\":{\"name\":\"look_up\"}}]");
    assert_string_equal(r.generate.tool_choice, "\"required\"");
    assert_string_equal(r.generate.response_format, "{\"type\":\"json_object\"}");
    assert_true(r.generate.single_tool);
    openai_request_free(&r);
    r = good(OPENAI_CHAT,
             "{" HI ",\"tools\":[],\"tool_choice\":\"none\",\"parallel_tool_calls\":false,"
             "\"response_format\":{\"type\":\"text\"}}");
    assert_null(r.generate.tools);
    assert_null(r.generate.tool_choice);
    assert_null(r.generate.response_format);
    assert_false(r.generate.single_tool);
    openai_request_free(&r);
}

static void expect_call(const char *fields, const char *name, const char *schema) {
    char body[512];
    snprintf(body, sizeof body, "{" HI ",%s}", fields);
    openai_request r = good(OPENAI_CHAT, body);
    const generate_request *g = &r.generate;
    if (name) {
        assert_string_equal(g->forced_tool, name);
        assert_int_equal(g->grammar.kind, GRAMMAR_SCHEMA);
        assert_string_equal(g->grammar.text, schema);
        assert_string_equal(g->grammar_param, "tools");
    } else {
        assert_null(g->forced_tool);
        assert_int_equal(g->grammar.kind, GRAMMAR_NONE);
    }
    openai_request_free(&r);
}

#define A_FUNCTION                                                                                 \
    "{\"type\":\"function\",\"function\":{\"name\":\"a\",\"parameters\":{\"title\":\"p\"}}}"
#define B_FUNCTION "{\"type\":\"function\",\"function\":{\"name\":\"b\"}}"

// A call is forced where the model has nothing to choose.
static void test_forced_calls(void **state) {
    (void)state;
    static const char empty[] = "{\"type\":\"object\",\"properties\":{}}";
    static const char typed[] = "{\"title\":\"p\",\"type\":\"object\"}";
    expect_call("\"tools\":[" A_FUNCTION "],\"tool_choice\":\"required\"", "a", typed);
    expect_call("\"tools\":[" A_FUNCTION "," B_FUNCTION "],\"tool_choice\":\"required\"", NULL,
                NULL);
    expect_call("\"tools\":[" A_FUNCTION "]", NULL, NULL);
    expect_call("\"tools\":[" A_FUNCTION "],\"tool_choice\":\"auto\"", NULL, NULL);
    expect_call("\"tools\":[" A_FUNCTION "," B_FUNCTION "],\"tool_choice\":{\"type\":\"function\","
                "\"function\":{\"name\":\"b\"}},\"response_format\":{\"type\":\"json_object\"}",
                "b", empty);
}

static void expect_form(const char *fields, grammar_kind kind, const char *text,
                        const char *for_upstreams) {
    char body[512];
    snprintf(body, sizeof body, "{" HI ",%s}", fields);
    openai_request r = good(OPENAI_CHAT, body);
    const generate_request *g = &r.generate;
    assert_int_equal(g->grammar.kind, kind);
    assert_int_equal(g->grammar.size, strlen(text));
    assert_memory_equal(g->grammar.text, text, g->grammar.size);
    if (for_upstreams)
        assert_string_equal(g->response_format, for_upstreams);
    else
        assert_null(g->response_format);
    openai_request_free(&r);
}

// A grammar for models served here, and words for upstreams where these have any. Properties stay
// in their order.
static void test_forms(void **state) {
    (void)state;
    static const char format[] = "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\","
                                 "\"strict\":true,\"schema\":{\"z\":1,\"a\":2}}}";
    char field[256];
    snprintf(field, sizeof field, "\"response_format\":%s", format);
    expect_form(field, GRAMMAR_SCHEMA, "{\"z\":1,\"a\":2}", format);
    expect_form("\"response_format\":{\"type\":\"text\"}", GRAMMAR_NONE, "", NULL);
    expect_form("\"structured_outputs\":{\"json_object\":true,\"regex\":null}", GRAMMAR_JSON, "",
                "{\"type\":\"json_object\"}");
    expect_form("\"structured_outputs\":{\"json_object\":false}", GRAMMAR_NONE, "", NULL);
    expect_form("\"guided_json\":\"{\\\"const\\\": 1}\"", GRAMMAR_SCHEMA, "{\"const\": 1}",
                "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"schema\":"
                "{\"const\": 1}}}");
    expect_form("\"guided_choice\":[\"a\",\"b\"]", GRAMMAR_CHOICE, "[\"a\",\"b\"]", NULL);
    expect_form("\"structured_outputs\":{\"regex\":\"a+\"}", GRAMMAR_REGEX, "a+", NULL);
}

static void test_every_parameter(void **state) {
    (void)state;
    openai_request r = good(
        OPENAI_CHAT,
        "{\"model\":\"m\"," HI
        ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"n\":3,"
        "\"max_completion_tokens\":7,\"temperature\":0.5,\"top_p\":0,\"top_k\":-1,\"min_p\":0.1,"
        "\"presence_penalty\":-2,\"frequency_penalty\":2,\"repetition_penalty\":1.1,\"seed\":-1,"
        "\"logit_bias\":{\"5\":-100,\"6\":1.5},\"stop\":[\"x\",\"\\n\"],\"logprobs\":true,"
        "\"top_logprobs\":4,\"user\":\"u\",\"ignore_eos\":true,\"store\":true,\"metadata\":{\"a\":"
        "\"b\"},"
        "\"service_tier\":\"auto\",\"tools\":[],\"tool_choice\":\"none\","
        "\"response_format\":{\"type\":\"text\"},\"modalities\":[\"text\"],\"prediction\":null}");
    const generate_request *g = &r.generate;
    assert_string_equal(g->model, "m");
    assert_string_equal(g->client, "u");
    assert_true(r.stream && r.include_usage && g->seed_given && g->ignore_eos);
    assert_int_equal(g->n, 3);
    assert_int_equal(g->max_tokens, 7);
    assert_true(g->sampling.top_p > 0 && g->sampling.top_p < 1e-30F); // as good as greedy
    assert_int_equal(g->sampling.top_k, 0);
    assert_true(g->sampling.seed == UINT64_MAX);
    assert_int_equal(g->sampling.bias_count, 2);
    assert_int_equal(g->sampling.bias[1].id, 6);
    assert_true(g->sampling.bias[1].bias == 1.5F);
    assert_int_equal(g->sampling.logprobs, 4);
    assert_int_equal(g->stop_count, 2);
    assert_memory_equal(g->stop[1].bytes, "\n", 1);
    openai_request_free(&r);
}

static void expect_messages(const char *given, const char *wanted) {
    char body[2048];
    snprintf(body, sizeof body, "{\"messages\":%s}", given);
    openai_request r = good(OPENAI_CHAT, body);
    char *got = json_dumps(r.generate.messages, JSON_COMPACT);
    assert_string_equal(got, wanted);
    free(got);
    openai_request_free(&r);
}

static void test_seams(void **state) {
    (void)state;
    openai_request r = good(
        OPENAI_CHAT,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\nb\"},{\"role\":\"user\",\"content\":["
        "{\"type\":\"text\",\"text\":\"\"},{\"type\":\"text\",\"text\":\"c\\nd\"},"
        "{\"type\":\"text\",\"text\":\"e\"}]}]}");
    char *got = json_dumps(r.generate.seams, JSON_COMPACT);
    assert_string_equal(got, "[[],[0,4]]"); // of "\nc\nd\ne"
    free(got);
    openai_request_free(&r);
}

static void test_messages(void **state) {
    (void)state;
    expect_messages("[{\"role\":\"developer\",\"content\":\"a\"}]",
                    "[{\"role\":\"system\",\"content\":\"a\"}]");
    expect_messages("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":"
                    "\"text\",\"text\":"
                    "\"b\"}],\"name\":\"n\"}]",
                    "[{\"role\":\"user\",\"content\":\"a\\nb\",\"name\":\"n\"}]");
    // an answer of ours, sent back as the official client keeps it
    expect_messages("[{\"role\":\"assistant\",\"content\":\"a\",\"refusal\":null,\"annotations\":[]"
                    ",\"audio\":null,"
                    "\"function_call\":null,\"tool_calls\":null}]",
                    "[{\"role\":\"assistant\",\"content\":\"a\"}]");
    expect_messages("[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\","
                    "\"type\":\"function\","
                    "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}}]},"
                    "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"2\"}]",
                    "[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"1\","
                    "\"type\":\"function\","
                    "\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1}}}]},"
                    "{\"role\":\"tool\",\"content\":\"2\",\"tool_call_id\":\"1\"}]");
}

static void test_prompts(void **state) {
    (void)state;
    openai_request r =
        good(OPENAI_COMPLETION, "{\"prompt\":\"a\\u0000b\",\"echo\":true,\"max_tokens\":0}");
    assert_int_equal(r.generate.prompts[0].text.size, 3);
    assert_int_equal(r.generate.max_tokens, 0);
    openai_request_free(&r);
    r = good(OPENAI_COMPLETION, "{\"prompt\":[\"a\",\"bc\"],\"logprobs\":0}");
    assert_int_equal(r.generate.prompt_count, 2);
    assert_int_equal(r.generate.prompts[1].text.size, 2);
    assert_int_equal(r.generate.sampling.logprobs, 0);
    openai_request_free(&r);
    r = good(OPENAI_COMPLETION, "{\"prompt\":[1,2,3]}");
    assert_int_equal(r.generate.prompt_count, 1);
    assert_int_equal(r.generate.prompts[0].token_count, 3);
    assert_int_equal(r.generate.prompts[0].tokens[2], 3);
    openai_request_free(&r);
    r = good(OPENAI_COMPLETION, "{\"prompt\":[[1],[2,3]]}");
    assert_int_equal(r.generate.prompt_count, 2);
    assert_int_equal(r.generate.prompts[1].token_count, 2);
    openai_request_free(&r);
}

static void test_error_body(void **state) {
    (void)state;
    buf out = buf_make(4096);
    refusal why;
    refuse(&why, STATUS_NOT_FOUND, "model", "model_not_found", "no \"%s\"", "x");
    openai_refusal_append(&out, &why);
    assert_string_equal(
        out.data, "{\"error\":{\"message\":\"no \\\"x\\\"\",\"type\":\"invalid_request_error\","
                  "\"param\":\"model\",\"code\":\"model_not_found\"}}");
    buf_clear(&out);
    refuse(&why, STATUS_RESOURCE_EXHAUSTED, NULL, NULL, "full");
    openai_refusal_append(&out, &why);
    assert_string_equal(
        out.data, "{\"error\":{\"message\":\"full\",\"type\":\"rate_limit_error\",\"param\":null,"
                  "\"code\":\"rate_limit_exceeded\"}}");
    buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_bodies), cmocka_unit_test(test_deep_json),
        cmocka_unit_test(test_defaults),   cmocka_unit_test(test_every_parameter),
        cmocka_unit_test(test_tools),      cmocka_unit_test(test_forced_calls),
        cmocka_unit_test(test_forms),      cmocka_unit_test(test_messages),
        cmocka_unit_test(test_seams),      cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_error_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
