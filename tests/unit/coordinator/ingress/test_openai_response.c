// Events in, bytes out: every shape that a client of OpenAI's API reads.
#include "coordinator/ingress/openai_response.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/coordinator/ingress/tiny_model.h"

static const tokenizer *tokens_of(model_registry *models) {
    served_model *m;
    assert_int_equal(model_registry_find(models, NULL, &m).code, STATUS_OK);
    served_model_release(m);
    return model_get_tokenizer(m->model);
}

static openai_response *make(const tokenizer *t, openai_endpoint endpoint, bool logprobs,
                             bool usage, int answers) {
    return openai_response_create(&(openai_response_options){.endpoint = endpoint,
                                                             .include_usage = usage,
                                                             .logprobs = logprobs,
                                                             .answers = answers,
                                                             .id = "id-1",
                                                             .model = "m\"x",
                                                             .fingerprint = "fp_1",
                                                             .tokens = t,
                                                             .created = 5,
                                                             .limit = 1 << 20});
}

static answer_piece text_piece(int index, const char *text, answer_finish finish) {
    return (answer_piece){.index = index, .text = text, .size = strlen(text), .finish = finish};
}

static const answer_end GOOD_END = {
    .usage = {.prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1, .seed = 9}};
#define HEAD(kind)                                                                                 \
    "{\"id\":\"id-1\",\"object\":\"" kind                                                          \
    "\",\"created\":5,\"model\":\"m\\\"x\",\"system_fingerprint\":\"fp_1\",\"choices\":["
#define USAGE                                                                                      \
    "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5,\"prompt_tokens_"   \
    "details\":{\"cached_tokens\":1},\"seed\":9}}"
#define CHUNK "data: " HEAD("chat.completion.chunk")

static void test_chat_stream(void **state) {
    openai_response *r = make(*state, OPENAI_CHAT, false, true, 1);
    buf out = buf_make(1 << 20);
    answer_piece p = text_piece(0, "a\n\"", ANSWER_GOES_ON);
    openai_stream_piece(r, &p, &out);
    p = text_piece(0, "", ANSWER_GOES_ON); // nothing to say
    openai_stream_piece(r, &p, &out);
    p = text_piece(0, "", ANSWER_STOP);
    openai_stream_piece(r, &p, &out);
    openai_stream_end(r, &GOOD_END, &out);
    assert_string_equal(out.data,
                        CHUNK "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                              "\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n" CHUNK
                              "{\"index\":0,\"delta\":{\"content\":\"a\\n\\\"\"},\"logprobs\":null,"
                              "\"finish_reason\":null}],\"usage\":null}\n\n" CHUNK
                              "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":"
                              "\"stop\"}],\"usage\":null}\n\n" CHUNK "]," USAGE "\n\n"
                              "data: [DONE]\n\n");
    buf_free(&out);
    openai_response_free(r);
}

static void test_text_stream(void **state) {
    openai_response *r = make(*state, OPENAI_COMPLETION, false, false, 2);
    buf out = buf_make(1 << 20);
    answer_piece p = text_piece(1, "x", ANSWER_LENGTH);
    openai_stream_piece(r, &p, &out);
    openai_stream_end(r, &GOOD_END, &out);
    assert_string_equal(
        out.data,
        "data: " HEAD("text_completion") "{\"index\":1,\"text\":\"x\",\"logprobs\":null,\"finish_"
                                         "reason\":\"length\"}]}\n\ndata: [DONE]\n\n");
    buf_free(&out);
    openai_response_free(r);
}

static void test_stream_error(void **state) {
    openai_response *r = make(*state, OPENAI_CHAT, false, true, 1);
    buf out = buf_make(1 << 20);
    openai_stream_end(r, &(answer_end){.why = status_error(STATUS_UNAVAILABLE, "gone")}, &out);
    assert_string_equal(out.data, "data: "
                                  "{\"error\":{\"message\":\"gone\",\"type\":\"server_error\","
                                  "\"param\":null,\"code\":\"service_unavailable\"}}\n\n");
    buf_free(&out);
    openai_response_free(r);
}

static void test_whole_chat(void **state) {
    openai_response *r = make(*state, OPENAI_CHAT, false, false, 2);
    buf out = buf_make(1 << 20);
    answer_piece p = text_piece(1, "b", ANSWER_GOES_ON);
    openai_collect_piece(r, &p);
    p = text_piece(0, "a", ANSWER_STOP);
    openai_collect_piece(r, &p);
    p = text_piece(1, "c", ANSWER_LENGTH);
    openai_collect_piece(r, &p);
    assert_true(openai_collect_end(r, &GOOD_END, &out));
    assert_string_equal(
        out.data,
        HEAD(
            "chat.completion") "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"a\","
                               "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"},"
                               "{\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":"
                               "\"bc\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":"
                               "\"length\"}]," USAGE);
    buf_free(&out);
    openai_response_free(r);
}

// "é" is two tokens of this model: the second completes the text.
static answer_piece logprob_piece(void) {
    static const int32_t ids[2] = {0xC3, 0xA9};
    static const token_choice top[2] = {{0xC3, -0.25F}, {'e', -3}};
    static answer_logprob logprobs[2];
    logprobs[0] = (answer_logprob){-0.25F, top, 2};
    logprobs[1] = (answer_logprob){-INFINITY, NULL, 0};
    answer_piece p = text_piece(0, "\xC3\xA9", ANSWER_LENGTH);
    p.tokens = ids;
    p.token_count = 2;
    p.logprobs = logprobs;
    return p;
}

static void test_chat_logprobs(void **state) {
    openai_response *r = make(*state, OPENAI_CHAT, true, false, 1);
    buf out = buf_make(1 << 20);
    answer_piece p = logprob_piece();
    openai_collect_piece(r, &p);
    assert_true(openai_collect_end(r, &GOOD_END, &out));
    assert_non_null(strstr(out.data, "\"logprobs\":{\"content\":[{\"token\":\"\\ufffd\","
                                     "\"logprob\":-0.25,\"bytes\":[195],\"top_logprobs\":["
                                     "{\"token\":\"\\ufffd\",\"logprob\":-0.25,\"bytes\":[195]},{"
                                     "\"token\":\"e\",\"logprob\":-3,\"bytes\":[101]}]},"
                                     "{\"token\":\"\\ufffd\",\"logprob\":-9999,\"bytes\":[169],"
                                     "\"top_logprobs\":[]}],\"refusal\":null}"));
    buf_free(&out);
    openai_response_free(r);
}

static void test_text_logprobs(void **state) {
    openai_response *r = make(*state, OPENAI_COMPLETION, true, false, 1);
    buf out = buf_make(1 << 20);
    static const int32_t prompt[2] = {'H', 'i'};
    static const answer_logprob prompt_logprobs[2] = {{NAN, NULL, 0}, {-1.5F, NULL, 0}};
    openai_collect_piece(
        r, &(answer_piece){
               .prompt = true, .tokens = prompt, .token_count = 2, .logprobs = prompt_logprobs});
    answer_piece p = logprob_piece();
    openai_collect_piece(r, &p);
    assert_true(openai_collect_end(r, &GOOD_END, &out));
    assert_non_null(strstr(
        out.data, "\"logprobs\":{\"tokens\":[\"H\",\"i\",\"bytes:\\\\xc3\",\"bytes:\\\\xa9\"],"
                  "\"token_logprobs\":[null,-1.5,-0.25,-9999],"
                  "\"top_logprobs\":[null,{\"i\":-1.5},{\"bytes:\\\\xc3\":-0.25,\"e\":-3},{\"bytes:"
                  "\\\\xa9\":-9999}],"
                  "\"text_offset\":[0,1,2,3]}"));
    json_t *parsed = json_loads(out.data, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(parsed);
    json_decref(parsed);
    buf_free(&out);
    openai_response_free(r);
}

static answer_piece tool_piece(answer_tool *t, int index, const char *id, const char *arguments) {
    *t = (answer_tool){.index = index,
                       .id = id,
                       .name = id ? "look" : NULL,
                       .arguments = arguments,
                       .size = strlen(arguments)};
    return (answer_piece){.text = "", .tool = t};
}

// Calls whose parts come in turns, and who served them.
static void test_tools(void **state) {
    answer_tool t;
    openai_response *r = make(*state, OPENAI_CHAT, false, false, 1);
    const struct {
        int index;
        const char *id, *arguments;
    } parts[] = {{0, "c0", "{\"a\""}, {1, "c1", ""}, {0, NULL, ":1}"}, {1, NULL, "{}"}};
    for (int i = 0; i < 4; i++) {
        answer_piece p = tool_piece(&t, parts[i].index, parts[i].id, parts[i].arguments);
        openai_collect_piece(r, &p);
    }
    answer_piece last = text_piece(0, "", ANSWER_TOOLS);
    openai_collect_piece(r, &last);
    answer_end end = GOOD_END;
    end.usage.segment_count = 1;
    end.usage.segments[0] = (answer_segment){"frontier", 2};
    buf out = buf_make(1 << 20);
    assert_true(openai_collect_end(r, &end, &out));
    const char *calls = "\"content\":null,\"tool_calls\":[{\"id\":\"c0\",\"type\":\"function\","
                        "\"function\":{\"name\":"
                        "\"look\",\"arguments\":\"{\\\"a\\\":1}\"}},{\"id\":\"c1\",\"type\":"
                        "\"function\",\"function\":{"
                        "\"name\":\"look\",\"arguments\":\"{}\"}}],\"refusal\":null}";
    assert_non_null(strstr(out.data, calls));
    assert_non_null(strstr(out.data, "\"finish_reason\":\"tool_calls\""));
    assert_non_null(strstr(out.data, "\"octant\":{\"served_by\":\"frontier\",\"segments\":[{\"by\":"
                                     "\"frontier\",\"tokens\":2}]}"));
    json_t *parsed = json_loads(out.data, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(parsed);
    json_decref(parsed);
    buf_free(&out);
    openai_response_free(r);

    r = make(*state, OPENAI_CHAT, false, false, 1);
    out = buf_make(1 << 20);
    answer_piece p = tool_piece(&t, 1, "c1", "{\"");
    p.served_by = "frontier";
    openai_stream_piece(r, &p, &out);
    assert_non_null(strstr(out.data, "\"octant\":{\"served_by\":\"frontier\"}}\n\n"));
    assert_non_null(strstr(out.data,
                           "{\"tool_calls\":[{\"index\":1,\"id\":\"c1\",\"type\":\"function\","
                           "\"function\":{\"name\":\"look\",\"arguments\":\"{\\\"\"}}]}"));
    p = tool_piece(&t, 1, NULL, "}");
    openai_stream_piece(r, &p, &out);
    assert_non_null(strstr(out.data, "[{\"index\":1,\"function\":{\"arguments\":\"}\"}}]"));
    buf_free(&out);
    openai_response_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_stream),   cmocka_unit_test(test_text_stream),
        cmocka_unit_test(test_stream_error),  cmocka_unit_test(test_whole_chat),
        cmocka_unit_test(test_chat_logprobs), cmocka_unit_test(test_text_logprobs),
        cmocka_unit_test(test_tools),
    };
    model_registry *models = model_registry_create();
    tiny_model_add(models, "tiny");
    struct CMUnitTest run[7];
    memcpy(run, tests, sizeof run);
    for (int i = 0; i < 7; i++) run[i].initial_state = (void *)tokens_of(models);
    int failed = cmocka_run_group_tests(run, NULL, NULL);
    model_registry_destroy(models);
    return failed;
}
