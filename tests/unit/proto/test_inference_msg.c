// inference_msg: what goes in comes out, and what is no message is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>

#include "proto/inference_msg.h"

static inference_text text(const char *t) {
    return (inference_text){t, strlen(t)};
}

static void assert_text(inference_text got, const char *bytes, size_t size) {
    assert_int_equal(got.size, size);
    assert_memory_equal(got.bytes, bytes, size);
    assert_int_equal(got.bytes[size], 0);
}

static void test_chat(void **state) {
    (void)state;
    inference_message messages[] = {{text("system"), text("Be brief.")},
                                    {text("user"), {"a\0b", 3}}};
    sampling_bias bias[] = {{5, -1.5f}, {7, 2}};
    inference_request r = {.kind = INFERENCE_CHAT,
                           .model = text("m"),
                           .client = text("me"),
                           .messages = messages,
                           .message_count = 2};
    r.sampling = (inference_sampling){
        .values = sampling_default(), .n = 3, .max_tokens = 9, .stop_count = 1, .ignore_eos = true};
    r.sampling.set = INFERENCE_MAX_TOKENS | INFERENCE_N | INFERENCE_SEED;
    r.sampling.stop[0] = text("END");
    r.sampling.values.temperature = 0;
    r.sampling.values.seed = UINT64_MAX;
    r.sampling.values.logprobs = 0;
    r.sampling.values.bias = bias;
    r.sampling.values.bias_count = 2;
    inference_text choices[] = {text("yes"), text("no")};
    r.sampling.form = GRAMMAR_CHOICE;
    r.sampling.choices = choices;
    r.sampling.choice_count = 2;
    buf bytes = buf_make(1 << 20);
    status s = inference_request_encode(&r, &bytes);
    assert_int_equal(s.code, STATUS_OK);

    inference_request got;
    s = inference_chat_decode(bytes.data, bytes.size, &got);
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(got.message_count, 2);
    assert_text(got.messages[1].content, "a\0b", 3); // a NUL does not end a text
    assert_text(got.client, "me", 2);
    assert_int_equal(got.sampling.set, r.sampling.set);
    assert_int_equal(got.sampling.n, 3);
    assert_int_equal(got.sampling.max_tokens, 9);
    assert_true(got.sampling.values.seed == UINT64_MAX);
    assert_true(got.sampling.values.temperature == 0); // 0 is not "unset"
    assert_int_equal(got.sampling.values.logprobs, 0);
    assert_true(got.sampling.values.top_p == 1);
    assert_true(got.sampling.ignore_eos);
    assert_text(got.sampling.stop[0], "END", 3);
    assert_int_equal(got.sampling.form, GRAMMAR_CHOICE);
    assert_int_equal(got.sampling.choice_count, 2);
    assert_text(got.sampling.choices[1], "no", 2);
    assert_int_equal(got.sampling.values.bias_count, 2);
    assert_int_equal(got.sampling.values.bias[0].id, 5);
    assert_true(got.sampling.values.bias[1].bias == 2);
    arena_destroy(got.memory);
    buf_free(&bytes);
}

static void test_complete_tokens(void **state) {
    (void)state;
    int32_t tokens[] = {0, 5, 300000};
    inference_request r = {
        .kind = INFERENCE_TOKENS, .tokens = tokens, .token_count = 3, .echo = true};
    r.sampling = (inference_sampling){.values = sampling_default(), .n = 1};
    buf bytes = buf_make(1 << 20);
    status s = inference_request_encode(&r, &bytes);
    assert_int_equal(s.code, STATUS_OK);
    inference_request got;
    s = inference_complete_decode(bytes.data, bytes.size, &got);
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(got.kind, INFERENCE_TOKENS);
    assert_int_equal(got.token_count, 3);
    assert_memory_equal(got.tokens, tokens, sizeof tokens);
    assert_true(got.echo);
    arena_destroy(got.memory);
    buf_free(&bytes);
}

static void test_forms(void **state) {
    (void)state;
    for (int form = GRAMMAR_NONE; form < GRAMMAR_CHOICE; form++) {
        inference_request r = {.kind = INFERENCE_PROMPT, .prompt = text("p")};
        r.sampling = (inference_sampling){.values = sampling_default(), .n = 1};
        r.sampling.form = (grammar_kind)form;
        if (form >= GRAMMAR_SCHEMA) r.sampling.form_text = text("{}");
        buf bytes = buf_make(1 << 10);
        assert_int_equal(inference_request_encode(&r, &bytes).code, STATUS_OK);
        inference_request got;
        assert_int_equal(inference_complete_decode(bytes.data, bytes.size, &got).code, STATUS_OK);
        assert_int_equal(got.sampling.form, form);
        assert_int_equal(got.sampling.form_text.size, form >= GRAMMAR_SCHEMA ? 2 : 0);
        arena_destroy(got.memory);
        buf_free(&bytes);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *message;
    } cases[] = {
        {"\xff\xff", 2, "ChatRequest: 2 bytes are not a valid message"},
        {"\x0a\x01\xff", 3, "model is not valid UTF-8"},
        {"\x12\x04\x12\x02\xc3\x28", 6, "messages.content is not valid UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        inference_request got;
        status s = inference_chat_decode(cases[i].bytes, cases[i].size, &got);
        assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
        assert_string_equal(s.message, cases[i].message);
        assert_null(got.memory);
    }
    inference_request got;
    status s = inference_complete_decode("", 0, &got);
    assert_string_equal(s.message, "prompt is missing; give prompt or prompt_tokens");
}

// A message of two-byte sub-messages would take a hundred times its size.
static void test_growth_is_bounded(void **state) {
    (void)state;
    enum { COUNT = 1 << 20 };
    buf bytes = buf_make(4 * COUNT);
    for (int i = 0; i < COUNT; i++) buf_append(&bytes, "\x12\x00", 2);
    inference_request got;
    status s = inference_chat_decode(bytes.data, bytes.size, &got);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    buf_free(&bytes);
}

static void test_piece(void **state) {
    (void)state;
    int32_t tokens[] = {1, 2};
    inference_choice top[] = {{1, {"\xe2", 1}, -0.5f}, {9, text("x"), -1}};
    inference_logprob logprobs[] = {{{1, {"\xe2", 1}, -0.5f}, top, 2},
                                    {{2, text("y"), -2}, NULL, 0}};
    inference_piece p = {.id = text("id"),
                         .model = text("m"),
                         .text = text("hi"),
                         .finish_reason = text("stop"),
                         .index = 2,
                         .logprobs = logprobs,
                         .logprob_count = 2,
                         .tokens = tokens,
                         .token_count = 2,
                         .has_usage = true,
                         .usage = {3, 4, 1, 99, 0.25, 0.5, 2}};
    buf bytes = buf_make(1 << 20);
    status s = inference_piece_encode(&p, &bytes);
    assert_int_equal(s.code, STATUS_OK);
    inference_piece got;
    s = inference_piece_decode(bytes.data, bytes.size, &got);
    assert_int_equal(s.code, STATUS_OK);
    assert_text(got.text, "hi", 2);
    assert_int_equal(got.index, 2);
    assert_int_equal(got.token_count, 2);
    assert_int_equal(got.logprob_count, 2);
    assert_int_equal(got.logprobs[0].top_count, 2);
    assert_text(got.logprobs[0].top[0].token, "\xe2", 1);
    assert_true(got.logprobs[1].chosen.logprob == -2);
    assert_true(got.has_usage);
    assert_true(got.usage.total_seconds == 2);
    arena_destroy(got.memory);
    buf_free(&bytes);
}

static void test_server_info(void **state) {
    (void)state;
    device_health card = {true, 61, 250.5F, -1, 5, 7, 1, DEVICE_THROTTLE_POWER, 31};
    inference_rank ranks[] = {
        {0, 0, 0, 10, text("h0"), text("idle"), 1, 5, 1 << 20, 7, 8, 9, 10, {0}},
        {1, 5, 4, 11, text("h1"), text("step"), 0.5, 6, 2, 8, 70, 250, 61.5F, card}};
    inference_group groups[] = {{.id = text("g1"),
                                 .model = text("m"),
                                 .state = text("READY"),
                                 .reason = text(""),
                                 .backend = text("cpu"),
                                 .ranks = ranks,
                                 .rank_count = 2,
                                 .stages = 2,
                                 .kv_blocks_total = 100,
                                 .kv_blocks_used = 3,
                                 .steps = 12,
                                 .epoch = 17,
                                 .loss = text("silent"),
                                 .lost_ms = -1}};
    inference_server_info info = {.version = text("0.1"),
                                  .uptime_seconds = 2,
                                  .groups = groups,
                                  .group_count = 1,
                                  .queued = 4};
    buf bytes = buf_make(1 << 20);
    status s = inference_server_info_encode(&info, &bytes);
    assert_int_equal(s.code, STATUS_OK);
    inference_server_info got;
    s = inference_server_info_decode(bytes.data, bytes.size, &got);
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(got.group_count, 1);
    assert_int_equal(got.groups[0].rank_count, 2);
    assert_int_equal(got.groups[0].stages, 2);
    assert_int_equal(got.groups[0].ranks[1].stage, 5);
    assert_int_equal(got.groups[0].ranks[1].tp_rank, 4);
    assert_text(got.groups[0].ranks[1].host, "h1", 2);
    assert_true(got.groups[0].ranks[1].load_fraction == 0.5);
    assert_int_equal(got.groups[0].ranks[1].collective, 70);
    assert_int_equal(got.groups[0].ranks[1].phase_ms, 250);
    assert_true(got.groups[0].ranks[1].temperature == 61.5F);
    assert_false(got.groups[0].ranks[0].device.known);
    device_health told = got.groups[0].ranks[1].device;
    assert_true(told.known && told.temperature == 61 && told.power == 250.5F);
    assert_true(told.utilization == -1 && told.memory_used == 5 && told.memory_total == 7);
    assert_int_equal(told.ecc_errors, 1);
    assert_int_equal(told.throttle, DEVICE_THROTTLE_POWER);
    assert_int_equal(told.xid, 31);
    assert_int_equal(got.groups[0].epoch, 17);
    assert_text(got.groups[0].loss, "silent", 6);
    assert_int_equal(got.groups[0].lost_ms, -1);
    assert_int_equal(got.groups[0].kv_blocks_total, 100);
    assert_int_equal(got.queued, 4);
    arena_destroy(got.memory);
    buf_free(&bytes);
}

static void test_event(void **state) {
    (void)state;
    inference_event event = {.sequence = 3,
                             .epoch = 17,
                             .lost_before = 2,
                             .unix_ms = INT64_C(1790000000123),
                             .kind = text("group-lost"),
                             .loss = text("silent"),
                             .group = text("g1"),
                             .host = text("node7"),
                             .text = text("rank 1 fell silent"),
                             .rank = -1,
                             .sequences = 12};
    buf bytes = buf_make(1 << 20);
    assert_int_equal(inference_event_encode(&event, &bytes).code, STATUS_OK);
    inference_event got;
    assert_int_equal(inference_event_decode(bytes.data, bytes.size, &got).code, STATUS_OK);
    assert_int_equal(got.sequence, 3);
    assert_int_equal(got.epoch, 17);
    assert_int_equal(got.lost_before, 2);
    assert_true(got.unix_ms == event.unix_ms);
    assert_text(got.kind, "group-lost", 10);
    assert_text(got.host, "node7", 5);
    assert_int_equal(got.upstream.size, 0);
    assert_int_equal(got.rank, -1);
    assert_int_equal(got.sequences, 12);
    arena_destroy(got.memory);
    uint64_t after = 0;
    buf_clear(&bytes);
    assert_int_equal(inference_watch_encode(41, &bytes).code, STATUS_OK);
    assert_int_equal(inference_watch_decode(bytes.data, bytes.size, &after).code, STATUS_OK);
    assert_int_equal(after, 41);
    assert_int_not_equal(inference_watch_decode("\xff\xff", 2, &after).code, STATUS_OK);
    buf_free(&bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_complete_tokens),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_growth_is_bounded),
        cmocka_unit_test(test_piece),
        cmocka_unit_test(test_server_info),
        cmocka_unit_test(test_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
