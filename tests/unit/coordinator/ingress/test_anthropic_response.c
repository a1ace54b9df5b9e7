// Answers in the format of the Messages API, compared to the byte.
#include "coordinator/ingress/anthropic_response.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/json.h"
#include "coordinator/ingress/anthropic_error.h"

static anthropic_response *make(void) {
    static const core_stop STOPS[] = {{"a", 1}, {"\"b", 2}};
    return anthropic_response_create(&(anthropic_response_options){.id = "msg_1",
                                                                   .model = "m",
                                                                   .stops = STOPS,
                                                                   .stop_count = 2,
                                                                   .prompt_tokens = 7,
                                                                   .limit = 1 << 20});
}

static answer_piece text(const char *bytes, answer_finish finish) {
    return (answer_piece){.text = bytes, .size = strlen(bytes), .finish = finish};
}

static answer_piece tool(answer_tool *t, int index, const char *id, const char *arguments) {
    *t = (answer_tool){.index = index,
                       .id = id,
                       .name = id ? "look" : NULL,
                       .arguments = arguments,
                       .size = strlen(arguments)};
    return (answer_piece){.text = "", .tool = t};
}

static const answer_end END = {.usage = {.prompt_tokens = 7,
                                         .cached_tokens = 4,
                                         .completion_tokens = 2,
                                         .segment_count = 1,
                                         .segments = {{"local/m", 2}}}};

#define EVENT(type, data) "event: " type "\ndata: {\"type\":\"" type "\"" data "}\n\n"
#define START(octant)                                                                              \
    EVENT("message_start",                                                                         \
          ",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\","            \
          "\"model\":\"m\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":"  \
          "{\"input_tokens\":7,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,"   \
          "\"output_tokens\":0}" octant "}")
#define BLOCK(i, block) EVENT("content_block_start", ",\"index\":" #i ",\"content_block\":" block)
#define TEXT_BLOCK "{\"type\":\"text\",\"text\":\"\"}"
#define TOOL_BLOCK(id) "{\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"look\",\"input\":{}}"
#define TEXT(i, bytes, more)                                                                       \
    EVENT("content_block_delta",                                                                   \
          ",\"index\":" #i ",\"delta\":{\"type\":\"text_delta\",\"text\":\"" bytes "\"}" more)
#define JSON_PART(i, bytes)                                                                        \
    EVENT("content_block_delta",                                                                   \
          ",\"index\":" #i ",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"" bytes   \
          "\"}")
#define STOP(i) EVENT("content_block_stop", ",\"index\":" #i)
#define USAGE                                                                                      \
    "\"usage\":{\"input_tokens\":3,\"cache_creation_input_tokens\":0,"                             \
    "\"cache_read_input_tokens\":4,\"output_tokens\":2}"
#define OCTANT                                                                                     \
    ",\"octant\":{\"served_by\":\"local/m\",\"segments\":[{\"by\":\"local/m\",\"tokens\":2}]}"
#define FINISH(reason)                                                                             \
    EVENT("message_delta",                                                                         \
          ",\"delta\":{\"stop_reason\":\"" reason "\",\"stop_sequence\":null}," USAGE OCTANT)      \
    EVENT("message_stop", "")

static void expect(const buf *out, const char *wanted) {
    if (strcmp(buf_string(out), wanted)) fail_msg("got\n%s\nwanted\n%s", buf_string(out), wanted);
}

static void test_text_stream(void **state) {
    (void)state;
    anthropic_response *r = make();
    buf out = buf_make(1 << 20);
    answer_piece p = text("Hel", ANSWER_GOES_ON);
    p.served_by = "local/m";
    anthropic_stream_piece(r, &p, &out);
    p = text("l\"o", ANSWER_STOP);
    p.served_by = "frontier";
    anthropic_stream_piece(r, &p, &out);
    anthropic_stream_end(r, &END, &out);
    expect(&out,
           START(",\"octant\":{\"served_by\":\"local/m\"}") BLOCK(0, TEXT_BLOCK) EVENT("ping", "")
               TEXT(0, "Hel", "") TEXT(0, "l\\\"o", ",\"octant\":{\"served_by\":\"frontier\"}")
                   STOP(0) FINISH("end_turn"));
    buf_free(&out);
    anthropic_response_free(r);
}

static void test_tools_stream(void **state) {
    (void)state;
    anthropic_response *r = make();
    buf out = buf_make(1 << 20);
    answer_tool t;
    answer_piece p = text("So", ANSWER_GOES_ON);
    anthropic_stream_piece(r, &p, &out);
    p = tool(&t, 0, "a", "");
    anthropic_stream_piece(r, &p, &out);
    p = tool(&t, 1, "b", "{}");
    anthropic_stream_piece(r, &p, &out);
    p = tool(&t, 0, NULL, "{\"x\":1}");
    anthropic_stream_piece(r, &p, &out);
    p = text("", ANSWER_TOOLS);
    anthropic_stream_piece(r, &p, &out);
    anthropic_stream_end(r, &END, &out);
    expect(&out, START("") BLOCK(0, TEXT_BLOCK) EVENT("ping", "") TEXT(0, "So", "") STOP(0)
                     BLOCK(1, TOOL_BLOCK("a")) BLOCK(2, TOOL_BLOCK("b")) JSON_PART(2, "{}")
                         JSON_PART(1, "{\\\"x\\\":1}") STOP(1) STOP(2) FINISH("tool_use"));
    buf_free(&out);
    anthropic_response_free(r);
}

static void test_stream_ends(void **state) {
    (void)state;
    anthropic_response *r = make();
    buf out = buf_make(1 << 20);
    answer_piece p = text("", ANSWER_LENGTH); // an answer of nothing
    anthropic_stream_piece(r, &p, &out);
    anthropic_stream_end(r, &END, &out);
    expect(&out, START("") FINISH("max_tokens"));
    anthropic_response_free(r);
    buf_clear(&out);
    r = make();
    p = text("", ANSWER_STOP);
    p.stop = 2;
    anthropic_stream_piece(r, &p, &out);
    anthropic_stream_end(r, &END, &out);
    assert_non_null(
        strstr(out.data, "{\"stop_reason\":\"stop_sequence\",\"stop_sequence\":\"\\\"b\"}"));
    buf_clear(&out);
    answer_end bad = {.why = status_error(STATUS_UNAVAILABLE, "gone")};
    anthropic_stream_end(r, &bad, &out);
    expect(&out, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
                 "\"message\":\"gone\"}}\n\n");
    buf_free(&out);
    anthropic_response_free(r);
}

static void collect(anthropic_response *r, answer_piece p) {
    anthropic_collect_piece(r, &p);
}

static void test_whole(void **state) {
    (void)state;
    anthropic_response *r = make();
    answer_tool t;
    collect(r, text("So", ANSWER_GOES_ON));
    collect(r, text(".", ANSWER_GOES_ON));
    collect(r, tool(&t, 0, "a", "{\"x\""));
    collect(r, tool(&t, 1, "b", ""));
    collect(r, tool(&t, 0, NULL, ":1}"));
    collect(r, tool(&t, 2, "c", "{\"half"));
    collect(r, text("", ANSWER_TOOLS));
    buf out = buf_make(1 << 20);
    assert_true(anthropic_collect_end(r, &END, &out));
    expect(&out, "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\","
                 "\"content\":[{\"type\":\"text\",\"text\":\"So.\"},{\"type\":\"tool_use\",\"id\":"
                 "\"a\",\"name\":\"look\",\"input\":{\"x\":1}},{\"type\":\"tool_use\",\"id\":\"b\","
                 "\"name\":\"look\",\"input\":{}},{\"type\":\"tool_use\",\"id\":\"c\",\"name\":"
                 "\"look\",\"input\":{\"INVALID_JSON\":\"{\\\"half\"}}],\"stop_reason\":"
                 "\"tool_use\",\"stop_sequence\":null," USAGE OCTANT "}");
    buf_free(&out);
    anthropic_response_free(r);
}

static void test_bounds(void **state) {
    (void)state;
    anthropic_response *r = make();
    answer_tool t;
    for (int i = 0; i < 300; i++) collect(r, tool(&t, i, "a", ""));
    buf out = buf_make(1 << 20);
    assert_false(anthropic_collect_end(r, &END, &out));
    buf_free(&out);
    anthropic_response_free(r);
    r = anthropic_response_create(
        &(anthropic_response_options){.id = "i", .model = "m", .limit = 4});
    collect(r, text("12345", ANSWER_STOP));
    assert_false(anthropic_collect_end(r, &END, &out));
    buf_free(&out);
    anthropic_response_free(r);
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        int http;
        const char *type;
    } CASES[] = {{400, "invalid_request_error"}, {401, "authentication_error"},
                 {403, "permission_error"},      {404, "not_found_error"},
                 {413, "request_too_large"},     {415, "invalid_request_error"},
                 {429, "rate_limit_error"},      {500, "api_error"},
                 {503, "overloaded_error"},      {504, "timeout_error"}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        buf out = buf_make(4096);
        anthropic_error_append(&out, CASES[i].http, "m\"", "p", NULL);
        assert_non_null(strstr(out.data, CASES[i].type));
        assert_non_null(strstr(out.data, "\"message\":\"m\\\"\""));
        buf_free(&out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_stream), cmocka_unit_test(test_tools_stream),
        cmocka_unit_test(test_stream_ends), cmocka_unit_test(test_whole),
        cmocka_unit_test(test_bounds),      cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
