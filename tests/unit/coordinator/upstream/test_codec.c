// The responses of the four APIs, in the form that their documentation shows, split at every byte.
#include "coordinator/upstream/codec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "unit/coordinator/upstream/codec_run.h"

#define OK_HEADER "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"

typedef struct stream {
    const char *name;
    upstream_api api;
    const char *body, *said;
    upstream_outcome outcome;
    answer_finish finish;
    upstream_usage usage;
    const char *reason; // part of it
} stream;

#define CHUNK(delta, finish)                                                                       \
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\","      \
    "\"choices\":[{\"index\":0,\"delta\":" delta ",\"logprobs\":null,\"finish_reason\":" finish    \
    "}],\"usage\":null}\n\n"
#define CHAT_USAGE                                                                                 \
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":"           \
    "{\"prompt_tokens\":20,\"completion_tokens\":5,\"total_tokens\":25,"                           \
    "\"prompt_tokens_details\":{\"cached_tokens\":16}}}\n\n"
#define DONE "data: [DONE]\n\n"
#define CHAT_TEXT                                                                                  \
    CHUNK("{\"role\":\"assistant\",\"content\":\"\"}", "null")                                     \
    CHUNK("{\"content\":\"Gr\xc3\xbc\xc3\x9f\"}", "null")                                          \
    CHUNK("{\"content\":\"e \\ud83d\\ude00\"}", "null")

#define EVENT(name, data) "event: " name "\ndata: {\"type\":\"" name "\"" data "}\n\n"
#define MESSAGE_START                                                                              \
    EVENT("message_start",                                                                         \
          ",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\","            \
          "\"content\":[],\"model\":\"claude\",\"stop_reason\":null,\"usage\":{"                   \
          "\"input_tokens\":3,\"cache_read_input_tokens\":100,"                                    \
          "\"cache_creation_input_tokens\":20,\"output_tokens\":1}}")
#define PING "event: ping\ndata: {\"type\": \"ping\"}\n\n"
#define TEXT_START(i)                                                                              \
    EVENT("content_block_start",                                                                   \
          ",\"index\":" #i ",\"content_block\":{\"type\":\"text\",\"text\":\"\"}")
#define TEXT_DELTA(i, text)                                                                        \
    EVENT("content_block_delta",                                                                   \
          ",\"index\":" #i ",\"delta\":{\"type\":\"text_delta\",\"text\":\"" text "\"}")
#define TOOL_START(i, id, tool)                                                                    \
    EVENT("content_block_start",                                                                   \
          ",\"index\":" #i ",\"content_block\":{\"type\":\"tool_use\",\"id\":\"" id                \
          "\",\"name\":\"" tool "\",\"input\":{}}")
#define TOOL_DELTA(i, json)                                                                        \
    EVENT("content_block_delta",                                                                   \
          ",\"index\":" #i ",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":"           \
          "\"" json "\"}")
#define BLOCK_STOP(i) EVENT("content_block_stop", ",\"index\":" #i)
#define MESSAGE_DELTA(reason, tokens)                                                              \
    EVENT("message_delta", ",\"delta\":{\"stop_reason\":\"" reason                                 \
                           "\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":" #tokens "}")
#define MESSAGE_STOP EVENT("message_stop", "")

#define CREATED                                                                                    \
    EVENT("response.created", ",\"sequence_number\":0,\"response\":{\"id\":\"r\",\"status\":"      \
                              "\"in_progress\",\"error\":null,\"usage\":null}")                    \
    EVENT("response.in_progress", ",\"sequence_number\":1,\"response\":{\"id\":\"r\"}")
#define OUTPUT_DELTA(text)                                                                         \
    EVENT("response.output_text.delta", ",\"item_id\":\"i\",\"output_index\":1,"                   \
                                        "\"content_index\":0,\"delta\":\"" text "\"")
#define RESPONSE_END(kind, more)                                                                   \
    EVENT("response." kind,                                                                        \
          ",\"response\":{\"id\":\"r\",\"status\":\"" kind                                         \
          "\",\"usage\":{\"input_tokens\":30,\"input_tokens_details\":"                            \
          "{\"cached_tokens\":0,\"cache_write_tokens\":7},\"output_tokens\":9}" more "}")

#define PIECE(parts, more)                                                                         \
    "data: {\"candidates\":[{\"content\":{\"parts\":[" parts                                       \
    "],\"role\":\"model\"},\"index\":0" more                                                       \
    "}],\"usageMetadata\":{\"promptTokenCount\":40,\"cachedContentTokenCount\":8,"                 \
    "\"candidatesTokenCount\":6,\"thoughtsTokenCount\":4,\"totalTokenCount\":50},"                 \
    "\"modelVersion\":\"g\"}\r\n\r\n"

static const stream STREAMS[] = {
    {"chat text",
     UPSTREAM_OPENAI_CHAT,
     ": comment\n\n" CHAT_TEXT CHUNK("{}", "\"stop\"") CHAT_USAGE DONE,
     "Gr\xc3\xbc\xc3\x9f"
     "e \xf0\x9f\x98\x80",
     UPSTREAM_OK,
     ANSWER_STOP,
     {20, 16, 0, 5, true},
     ""},
    {"chat length, no usage told",
     UPSTREAM_OPENAI_CHAT,
     CHUNK("{\"content\":\"0123456789\"}", "\"length\"") DONE,
     "0123456789",
     UPSTREAM_OK,
     ANSWER_LENGTH,
     {100, 0, 0, 3, false},
     ""},
    {"chat, zero stays zero",
     UPSTREAM_OPENAI_CHAT,
     CHUNK("{\"content\":\"abc\"}", "\"stop\"") "data: "
                                                "{\"choices\":[],\"usage\":{\"prompt_tokens\":0,"
                                                "\"completion_tokens\":0}}\n\n" DONE,
     "abc",
     UPSTREAM_OK,
     ANSWER_STOP,
     {0, 0, 0, 0, true},
     ""},
    {"chat tools in turns",
     UPSTREAM_OPENAI_CHAT,
     CHUNK("{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"index\":0,\"id\":\"a\","
           "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}",
           "null")
         CHUNK("{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"type\":\"function\",\"function\":"
               "{\"name\":\"g\",\"arguments\":\"{\"}},{\"index\":0,\"function\":{\"arguments\":"
               "\"{\\\"x\\\":\"}}]}",
               "null")
             CHUNK("{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"1}\"}},"
                   "{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"}\"}}]}",
                   "null") CHUNK("{}", "\"tool_calls\"") CHAT_USAGE DONE,
     "[0 a f][1 b g]{1 {}{0 {\"x\":}{0 1}}{1 }}",
     UPSTREAM_OK,
     ANSWER_TOOLS,
     {20, 16, 0, 5, true},
     ""},
    {"chat tools without index and id",
     UPSTREAM_OPENAI_CHAT,
     CHUNK("{\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}",
           "null")
         CHUNK("{\"tool_calls\":[{\"function\":{\"arguments\":\"}\"}},{\"index\":7,\"function\":"
               "{\"name\":\"g\",\"arguments\":\"{}\"}}]}",
               "\"stop\"") DONE,
     "[0 a f]{0 {}{0 }}[1 call_3b9aca00_2a_1 g]{1 {}}",
     UPSTREAM_OK,
     ANSWER_TOOLS,
     {100, 0, 0, 1, false},
     ""},
    {"chat reasoning is no content",
     UPSTREAM_OPENAI_CHAT,
     CHUNK("{\"reasoning_content\":\"hm\"}", "null") CHUNK("{\"content\":\"x\"}", "\"stop\"") DONE,
     "x",
     UPSTREAM_OK,
     ANSWER_STOP,
     {100, 0, 0, 1, false},
     ""},
    {"chat without a finish reason",
     UPSTREAM_OPENAI_CHAT,
     CHAT_TEXT CHAT_USAGE DONE,
     NULL,
     UPSTREAM_FAULT,
     ANSWER_GOES_ON,
     {20, 16, 0, 5, false},
     "without saying why"},
    {"chat aborted",
     UPSTREAM_OPENAI_CHAT,
     CHAT_TEXT CHUNK("{}", "\"abort\"") DONE,
     NULL,
     UPSTREAM_FAULT,
     ANSWER_GOES_ON,
     {100, 0, 0, 3, false},
     "not of this API's form"},
    {"chat filtered",
     UPSTREAM_OPENAI_CHAT,
     CHAT_TEXT CHUNK("{}", "\"content_filter\"") DONE,
     NULL,
     UPSTREAM_CLIENT,
     ANSWER_GOES_ON,
     {100, 0, 0, 3, false},
     "content filter"},
    {"chat error inside",
     UPSTREAM_OPENAI_CHAT,
     CHAT_TEXT
     "data: {\"error\":{\"message\":\"SECRET\",\"type\":\"server_error\",\"code\":null}}\n\n",
     NULL,
     UPSTREAM_FAULT,
     ANSWER_GOES_ON,
     {100, 0, 0, 3, false},
     "server_error"},
    {"chat error of no known type",
     UPSTREAM_OPENAI_CHAT,
     "data: {\"error\":{\"message\":\"SECRET\",\"type\":\"SECRET\",\"code\":\"SECRET\"}}\n\n",
     NULL,
     UPSTREAM_FAULT,
     ANSWER_GOES_ON,
     {100, 0, 0, 0, false},
     "not known here"},
    {"chat busy inside",
     UPSTREAM_OPENAI_CHAT,
     "data: {\"error\":{\"message\":\"SECRET\",\"code\":\"rate_limit_exceeded\"}}\n\n",
     NULL,
     UPSTREAM_BUSY,
     ANSWER_GOES_ON,
     {100, 0, 0, 0, false},
     "rate_limit_exceeded"},
    {"chat wrong JSON",
     UPSTREAM_OPENAI_CHAT,
     CHAT_TEXT "data: {\"choices\":[}\n\n",
     NULL,
     UPSTREAM_FAULT,
     ANSWER_GOES_ON,
     {100, 0, 0, 3, false},
     "not JSON"},
    {"chat another's answer",
     UPSTREAM_OPENAI_CHAT,
     "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"x\"}}]}\n\n",
     NULL,
     UPSTREAM_FAULT,
     ANSWER_GOES_ON,
     {100, 0, 0, 0, false},
     "form"},
    {"responses text",
     UPSTREAM_OPENAI_RESPONSES,
     CREATED EVENT("response.output_item.added",
                   ",\"output_index\":1,\"item\":{\"type\":\"message\",\"content\":[]}")
         OUTPUT_DELTA("Hel") OUTPUT_DELTA("lo")
             EVENT("response.output_text.done", ",\"text\":\"Hello\"")
                 RESPONSE_END("completed", ",\"error\":null"),
     "Hello",
     UPSTREAM_OK,
     ANSWER_STOP,
     {30, 0, 7, 9, true},
     ""},
    {"responses length",
     UPSTREAM_OPENAI_RESPONSES,
     CREATED OUTPUT_DELTA("Hel")
         RESPONSE_END("incomplete", ",\"incomplete_details\":{\"reason\":\"max_output_tokens\"}"),
     "Hel",
     UPSTREAM_OK,
     ANSWER_LENGTH,
     {30, 0, 7, 9, true},
     ""},
    {"responses filtered",
     UPSTREAM_OPENAI_RESPONSES,
     CREATED RESPONSE_END("incomplete", ",\"incomplete_details\":{\"reason\":\"content_filter\"}"),
     "",
     UPSTREAM_CLIENT,
     ANSWER_GOES_ON,
     {30, 0, 7, 9, false},
     "content filter"},
    {"responses tools out of order",
     UPSTREAM_OPENAI_RESPONSES,
     CREATED EVENT("response.reasoning_summary_text.delta", ",\"delta\":\"hm\"")
         EVENT("response.output_item.added",
               ",\"output_index\":1,\"item\":{\"type\":\"function_call\",\"id\":\"fc\",\"call_id\":"
               "\"a\",\"name\":\"f\",\"arguments\":\"\"}")
             EVENT("response.output_item.added",
                   ",\"output_index\":2,\"item\":{\"type\":\"function_call\",\"id\":\"fd\","
                   "\"call_id\":\"b\",\"name\":\"g\",\"arguments\":\"\"}")
                 EVENT("response.function_call_arguments.delta",
                       ",\"output_index\":2,\"delta\":\"{\\\"y\\\"\"")
                     EVENT("response.function_call_arguments.delta",
                           ",\"output_index\":2,\"delta\":\":2}\"")
                         EVENT("response.function_call_arguments.done",
                               ",\"output_index\":2,\"arguments\":\"{\\\"y\\\":2}\"")
                             EVENT("response.function_call_arguments.done",
                                   ",\"output_index\":1,\"arguments\":\"{\\\"x\\\":1}\"")
                                 RESPONSE_END("completed", ""),
     "[0 a f][1 b g]{1 {\"y\"}{1 :2}}{0 {\"x\":1}}",
     UPSTREAM_OK,
     ANSWER_TOOLS,
     {30, 0, 7, 9, true},
     ""},
    {"responses failed is no end",
     UPSTREAM_OPENAI_RESPONSES,
     CREATED OUTPUT_DELTA("x")
         EVENT("response.failed", ",\"response\":{\"status\":\"failed\",\"error\":{\"code\":"
                                  "\"server_error\",\"message\":\"SECRET\"},\"usage\":null}"),
     "x",
     UPSTREAM_FAULT,
     ANSWER_GOES_ON,
     {100, 0, 0, 1, false},
     "server_error"},
    {"responses error",
     UPSTREAM_OPENAI_RESPONSES,
     CREATED EVENT("error", ",\"code\":\"rate_limit_exceeded\",\"message\":\"SECRET\""),
     "",
     UPSTREAM_BUSY,
     ANSWER_GOES_ON,
     {100, 0, 0, 0, false},
     "rate_limit_exceeded"},
    {"anthropic text",
     UPSTREAM_ANTHROPIC_MESSAGES,
     MESSAGE_START TEXT_START(0) PING TEXT_DELTA(0, "Hel") TEXT_DELTA(0, "lo") BLOCK_STOP(0)
         MESSAGE_DELTA("end_turn", 12) MESSAGE_STOP,
     "Hello",
     UPSTREAM_OK,
     ANSWER_STOP,
     {123, 100, 20, 12, true},
     ""},
    {"anthropic thinking and tools",
     UPSTREAM_ANTHROPIC_MESSAGES,
     MESSAGE_START EVENT("content_block_start", ",\"index\":0,\"content_block\":{\"type\":"
                                                "\"thinking\",\"thinking\":\"\"}")
         EVENT("content_block_delta",
               ",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hm\"}")
             EVENT("content_block_delta",
                   ",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"s\"}")
                 BLOCK_STOP(0) TEXT_START(1) TEXT_DELTA(1, "So") BLOCK_STOP(1)
                     TOOL_START(2, "toolu_1", "f") TOOL_START(3, "toolu_2", "g")
                         TOOL_DELTA(2, "{\\\"x\\\":") TOOL_DELTA(3, "") TOOL_DELTA(2, "1}")
                             BLOCK_STOP(2) BLOCK_STOP(3) MESSAGE_DELTA("tool_use", 30) MESSAGE_STOP,
     "So[0 toolu_1 f][1 toolu_2 g]{0 {\"x\":}{0 1}}{1 {}}",
     UPSTREAM_OK,
     ANSWER_TOOLS,
     {123, 100, 20, 30, true},
     ""},
    {"anthropic length",
     UPSTREAM_ANTHROPIC_MESSAGES,
     MESSAGE_START TEXT_DELTA(0, "x") MESSAGE_DELTA("max_tokens", 1) MESSAGE_STOP,
     "x",
     UPSTREAM_OK,
     ANSWER_LENGTH,
     {123, 100, 20, 1, true},
     ""},
    {"anthropic overloaded inside",
     UPSTREAM_ANTHROPIC_MESSAGES,
     MESSAGE_START TEXT_DELTA(0, "12345678")
         EVENT("error", ",\"error\":{\"type\":\"overloaded_error\",\"message\":\"SECRET\"}"),
     "12345678",
     UPSTREAM_BUSY,
     ANSWER_GOES_ON,
     {123, 100, 20, 2, false},
     "overloaded_error"},
    {"anthropic spend limit inside",
     UPSTREAM_ANTHROPIC_MESSAGES,
     EVENT("error", ",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"SECRET\",\"details\":"
                    "{\"error_code\":\"enforced_spend_limit_reached\"}}"),
     "",
     UPSTREAM_ACCOUNT,
     ANSWER_GOES_ON,
     {100, 0, 0, 0, false},
     "enforced_spend_limit_reached"},
    {"anthropic refusal",
     UPSTREAM_ANTHROPIC_MESSAGES,
     MESSAGE_START MESSAGE_DELTA("refusal", 1) MESSAGE_STOP,
     "",
     UPSTREAM_CLIENT,
     ANSWER_GOES_ON,
     {123, 100, 20, 1, false},
     "content filter"},
    {"anthropic stop without a reason",
     UPSTREAM_ANTHROPIC_MESSAGES,
     MESSAGE_START TEXT_DELTA(0, "x") MESSAGE_STOP,
     "x",
     UPSTREAM_FAULT,
     ANSWER_GOES_ON,
     {123, 100, 20, 1, false},
     "without saying why"},
    {"anthropic arguments of nothing",
     UPSTREAM_ANTHROPIC_MESSAGES,
     TOOL_START(0, "a", ""),
     "",
     UPSTREAM_FAULT,
     ANSWER_GOES_ON,
     {100, 0, 0, 0, false},
     "form"},
    {"gemini text",
     UPSTREAM_GEMINI,
     PIECE("{\"text\":\"hm\",\"thought\":true}", "") PIECE("{\"text\":\"Hel\"}", "")
         PIECE("{\"text\":\"lo\"},{\"text\":\"!\"}", ",\"finishReason\":\"STOP\""),
     "Hello!",
     UPSTREAM_OK,
     ANSWER_STOP,
     {40, 8, 0, 10, true},
     ""},
    {"gemini tools",
     UPSTREAM_GEMINI,
     PIECE("{\"functionCall\":{\"name\":\"f\",\"args\":{\"x\":1}},\"thoughtSignature\":\"s\"},"
           "{\"functionCall\":{\"id\":\"b\",\"name\":\"g\"}}",
           ",\"finishReason\":\"STOP\""),
     "[0 call_3b9aca00_2a_0 f]{0 {\"x\":1}}[1 b g]{1 {}}",
     UPSTREAM_OK,
     ANSWER_TOOLS,
     {40, 8, 0, 10, true},
     ""},
    {"gemini length",
     UPSTREAM_GEMINI,
     "data: {\"candidates\":[{\"content\":{\"role\":\"model\"},\"finishReason\":\"MAX_TOKENS\"}],"
     "\"usageMetadata\":{\"promptTokenCount\":4,\"thoughtsTokenCount\":9}}\n\n",
     "",
     UPSTREAM_OK,
     ANSWER_LENGTH,
     {4, 0, 0, 9, true},
     ""},
    {"gemini half an event after the reason",
     UPSTREAM_GEMINI,
     PIECE("{\"text\":\"x\"}", ",\"finishReason\":\"STOP\"") "data: {\"cand",
     "x",
     UPSTREAM_FAULT,
     ANSWER_GOES_ON,
     {40, 8, 0, 10, true},
     "in the middle of an event"},
    {"gemini blocked",
     UPSTREAM_GEMINI,
     "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"},\"usageMetadata\":"
     "{\"promptTokenCount\":4}}\n\n",
     "",
     UPSTREAM_CLIENT,
     ANSWER_GOES_ON,
     {4, 0, 0, 0, false},
     "content filter"},
    {"gemini malformed call",
     UPSTREAM_GEMINI,
     PIECE("{\"text\":\"x\"}", ",\"finishReason\":\"MALFORMED_FUNCTION_CALL\""),
     "x",
     UPSTREAM_FAULT,
     ANSWER_GOES_ON,
     {40, 8, 0, 10, false},
     "form"},
    {"gemini error inside",
     UPSTREAM_GEMINI,
     PIECE("{\"text\":\"x\"}",
           "") "data: "
               "{\"error\":{\"code\":503,\"message\":\"SECRET\",\"status\":\"UNAVAILABLE\"}}\n\n",
     "x",
     UPSTREAM_BUSY,
     ANSWER_GOES_ON,
     {40, 8, 0, 10, false},
     "UNAVAILABLE"},
};

static upstream_policy POLICY = {.name = "frontier", .model = "m"};
static upstream_prompt PROMPT = {.messages = "[{\"role\":\"user\",\"content\":\"Hi\"}]"};

static codec_ask ask_of(upstream_api api) {
    POLICY.api = api;
    return (codec_ask){.target = &POLICY, .prompt = &PROMPT, .call = 42};
}

static void expect(const stream *s, const codec_run *r, size_t step, size_t cut) {
    const upstream_usage *u = &r->end.usage, *w = &s->usage;
    bool same = r->end.outcome == s->outcome && r->end.finish == s->finish &&
                (!s->said || !strcmp(r->said, s->said)) && u->input_tokens == w->input_tokens &&
                u->cached_tokens == w->cached_tokens && u->written_tokens == w->written_tokens &&
                u->output_tokens == w->output_tokens && u->known == w->known &&
                strstr(r->end.reason, s->reason) && !strstr(r->end.reason, "SECRET") &&
                r->end.http_status == 200;
    if (!same)
        fail_msg(
            "%s (step %zu, cut %zu): said '%s', outcome %d, finish %d, usage %d %d %d %d %d: %s",
            s->name, step, cut, r->said, r->end.outcome, r->end.finish, u->input_tokens,
            u->cached_tokens, u->written_tokens, u->output_tokens, u->known, r->end.reason);
}

static void test_every_split(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof STREAMS / sizeof *STREAMS; i++) {
        const stream *s = &STREAMS[i];
        codec_ask ask = ask_of(s->api);
        size_t size = strlen(s->body);
        for (size_t step = 1; step <= 3; step++) {
            codec_run r = run_codec(&ask, OK_HEADER, s->body, size, step, 0, true);
            expect(s, &r, step, 0);
        }
        for (size_t cut = 0; cut < size; cut++) {
            codec_run r = run_codec(&ask, OK_HEADER, s->body, size, size, cut, true);
            expect(s, &r, size, cut);
        }
    }
}

static void test_other_line_ends(void **state) {
    (void)state;
    static const char *const ENDS[] = {"\r\n", "\r"};
    for (size_t i = 0; i < 2 * sizeof STREAMS / sizeof *STREAMS; i++) {
        const stream *s = &STREAMS[i / 2];
        if (strchr(s->body, '\r')) continue;
        buf body = buf_make(1 << 20);
        for (const char *c = s->body; *c; c++)
            *c == '\n' ? buf_append_string(&body, ENDS[i % 2]) : buf_append_char(&body, *c);
        codec_ask ask = ask_of(s->api);
        codec_run r = run_codec(&ask, OK_HEADER, body.data, body.size, 7, 0, true);
        expect(s, &r, 7, 0);
        buf_free(&body);
    }
}

// Wherever a stream ends too early, whole or cut, it is a fault and never an answer.
static void test_early_ends(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof STREAMS / sizeof *STREAMS; i++) {
        const stream *s = &STREAMS[i];
        if (s->outcome != UPSTREAM_OK) continue;
        codec_ask ask = ask_of(s->api);
        size_t size = strlen(s->body);
        if (s->body[size - 2] == '\r') size--; // a CR alone ends the last line too
        for (size_t end = 0; end < 2 * size; end++) {
            codec_run r = run_codec(&ask, OK_HEADER, s->body, end / 2, 50, 0, end % 2);
            if (r.end.outcome != UPSTREAM_FAULT || r.end.finish != ANSWER_GOES_ON ||
                r.end.usage.known || !r.end.reason[0])
                fail_msg("%s, ended at %zu of %zu: outcome %d, %s", s->name, end / 2, size,
                         r.end.outcome, r.end.reason);
        }
    }
}

static void test_bounds(void **state) {
    (void)state;
    codec_ask ask = ask_of(UPSTREAM_OPENAI_CHAT);
    size_t size = CODEC_EVENT_MAX + 100;
    char *body = malloc(size);
    memset(body, 'x', size);
    memcpy(body, "data: \"", 7);
    codec_run r = run_codec(&ask, OK_HEADER, body, size, 4096, 0, true);
    assert_int_equal(r.end.outcome, UPSTREAM_FAULT);
    assert_non_null(strstr(r.end.reason, "larger"));
    r = run_codec(&ask, "HTTP/1.1 500 Oh\n", body, size, 4096, 0, true);
    assert_int_equal(r.end.outcome, UPSTREAM_FAULT);
    assert_int_equal(r.end.http_status, 500);
    free(body);
    buf calls = buf_make(1 << 20);
    for (int i = 0; i <= CODEC_TOOLS_MAX; i++)
        buf_printf(&calls,
                   "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":%d,"
                   "\"id\":\"i\",\"function\":{\"name\":\"f\"}}]}}]}\n\n",
                   i);
    r = run_codec(&ask, OK_HEADER, calls.data, calls.size, 4096, 0, true);
    assert_int_equal(r.end.outcome, UPSTREAM_FAULT);
    assert_int_equal(r.pieces, CODEC_TOOLS_MAX);
    buf_free(&calls);
}

static void test_no_stream(void **state) {
    (void)state;
    codec_ask ask = ask_of(UPSTREAM_OPENAI_CHAT);
    static const char JSON[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
    codec_run r = run_codec(&ask, JSON, "{\"choices\":[]}", 14, 5, 0, true);
    assert_int_equal(r.end.outcome, UPSTREAM_FAULT);
    assert_non_null(strstr(r.end.reason, "no event stream"));
    assert_int_equal(r.end.usage.input_tokens, 100);
    assert_false(r.end.usage.known);
    static const char BUSY[] = "{\"error\":{\"code\":\"rate_limit_exceeded\"}}";
    r = run_codec(&ask, JSON, BUSY, sizeof BUSY - 1, 5, 0, true);
    assert_int_equal(r.end.outcome, UPSTREAM_BUSY);
    r = run_codec(&ask, "", "", 0, 1, 0, false);
    assert_int_equal(r.end.outcome, UPSTREAM_FAULT);
    assert_int_equal(r.end.http_status, 0);
    assert_int_equal(r.end.total_ns, -1);
    static const char CONTINUED[] = "HTTP/1.1 100 Continue\r\nRetry-After: 9\r\n\r\nHTTP/2 429 \r\n"
                                    "retry-after: 3\r\n\r\n";
    r = run_codec(&ask, CONTINUED, "", 0, 1, 0, true);
    assert_int_equal(r.end.outcome, UPSTREAM_BUSY);
    assert_int_equal(r.end.http_status, 429);
    assert_int_equal(r.end.retry_after_ms, 3000);
    assert_true(r.end.usage.known && r.end.usage.input_tokens == 0); // errors are not charged
}

// The whitespace that a prefill cannot end with is not said twice.
static void test_prefill_tail(void **state) {
    (void)state;
    static const struct {
        const char *partial, *answer, *prefilled, *asked;
    } CASES[] = {
        {"Hello", " world", " world", " world"}, {"Hello ", " world", "world", " world"},
        {"Hello ", "world", "world", "world"},   {"Hello \n", " \\n\\nx", "\nx", " \n\nx"},
        {"Hello \n", " x", "x", " x"},           {"Hello \n", "\\nx", "\nx", "\nx"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        buf body = buf_make(4096);
        buf_append_string(&body,
                          MESSAGE_START "data: {\"type\":\"content_block_delta\",\"index\":0,"
                                        "\"delta\":{\"type\":\"text_delta\",\"text\":\"");
        buf_append_string(&body, CASES[i].answer);
        buf_append_string(&body, "\"}}\n\n" MESSAGE_DELTA("end_turn", 1) MESSAGE_STOP);
        codec_ask ask = ask_of(UPSTREAM_ANTHROPIC_MESSAGES);
        ask.partial = CASES[i].partial;
        ask.partial_size = strlen(ask.partial);
        ask.mode = UPSTREAM_PREFILL;
        codec_run r = run_codec(&ask, OK_HEADER, body.data, body.size, 64, 0, true);
        assert_string_equal(r.said, CASES[i].prefilled);
        ask.mode = UPSTREAM_USER_TURN;
        r = run_codec(&ask, OK_HEADER, body.data, body.size, 64, 0, true);
        assert_string_equal(r.said, CASES[i].asked);
        buf_free(&body);
    }
}

static void count_content(void *owner, const upstream_content *content) {
    (void)content;
    ++*(int *)owner;
}

// Pings and roles move neither the commit nor the clocks; reasoning moves the clocks.
static void test_progress(void **state) {
    (void)state;
    codec_ask ask = ask_of(UPSTREAM_ANTHROPIC_MESSAGES);
    codec *c = codec_open(&ask, 0);
    int contents = 0;
    codec_sink sink = {&contents, count_content};
    codec_header(c, "HTTP/1.1 200 OK", 15, 0);
    static const char QUIET[] = MESSAGE_START PING TEXT_START(0);
    static const char THOUGHT[] =
        EVENT("content_block_delta",
              ",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hmmm\"}");
    static const char SPOKEN[] = TEXT_DELTA(0, "abcd");
    assert_true(codec_feed(c, QUIET, sizeof QUIET - 1, &sink));
    assert_int_equal(codec_progress(c), 0);
    assert_true(codec_feed(c, THOUGHT, sizeof THOUGHT - 1, &sink));
    assert_int_equal(codec_progress(c), 1);
    assert_int_equal(contents, 0);
    assert_true(codec_feed(c, SPOKEN, sizeof SPOKEN - 1, &sink));
    assert_int_equal(codec_progress(c), 2);
    assert_int_equal(contents, 1);
    assert_int_equal(codec_output_tokens(c), 2);
    static const char END[] = MESSAGE_DELTA("end_turn", 9) MESSAGE_STOP;
    assert_false(codec_feed(c, END, sizeof END - 1, &sink)); // the verdict is there
    assert_int_equal(codec_output_tokens(c), 9);
    codec_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split), cmocka_unit_test(test_other_line_ends),
        cmocka_unit_test(test_early_ends),  cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_no_stream),   cmocka_unit_test(test_prefill_tail),
        cmocka_unit_test(test_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
