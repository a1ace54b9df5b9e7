// Each documented error, and what it means for the target, the request and the breaker.
#include "coordinator/upstream/outcome.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define OPENAI(type, code)                                                                         \
    "{\"error\":{\"message\":\"SECRET\",\"type\":" type ",\"code\":" code "}}"
#define ANTHROPIC(type, message)                                                                   \
    "{\"type\":\"error\",\"error\":{\"type\":\"" type "\",\"message\":\"" message                  \
    "\"},\"request_id\":\"r\"}"
#define GEMINI(code, status, message, details)                                                     \
    "{\"error\":{\"code\":" #code ",\"message\":\"" message "\",\"status\":\"" status              \
    "\",\"details\":[" details "]}}"

typedef struct error_case {
    int http_status;
    const char *body;
    upstream_outcome outcome;
    bool other_target, prefill_refused;
    int64_t retry_after_ms; // the header said 5000
    const char *reason;
} error_case;

static const error_case CASES[] = {
    // OpenAI
    {429, OPENAI("\"requests\"", "\"rate_limit_exceeded\""), UPSTREAM_BUSY, false, false, 5000,
     "HTTP 429: requests"},
    {429, OPENAI("\"rate_limit_error\"", "\"slow_down\""), UPSTREAM_BUSY, false, false, 5000,
     "429"},
    {429, OPENAI("\"insufficient_quota\"", "\"insufficient_quota\""), UPSTREAM_ACCOUNT, false,
     false, 0, "insufficient_quota"},
    {429, OPENAI("\"requests\"", "\"credit_balance_exhausted\""), UPSTREAM_ACCOUNT, false, false, 0,
     "credit_balance_exhausted"},
    {503, OPENAI("\"server_error\"", "\"server_is_overloaded\""), UPSTREAM_BUSY, false, false, 5000,
     "server_is_overloaded"},
    {500, OPENAI("\"server_error\"", "null"), UPSTREAM_FAULT, false, false, 0, "server_error"},
    {401, OPENAI("\"invalid_request_error\"", "\"invalid_api_key\""), UPSTREAM_ACCOUNT, false,
     false, 0, "invalid_api_key"},
    {403, OPENAI("\"x\"", "\"unsupported_country_region_territory\""), UPSTREAM_ACCOUNT, false,
     false, 0, "HTTP 403"},
    {400, OPENAI("\"invalid_request_error\"", "\"context_length_exceeded\""), UPSTREAM_CLIENT, true,
     false, 0, "context_length_exceeded"},
    {400, OPENAI("\"invalid_request_error\"", "\"unsupported_value\""), UPSTREAM_CLIENT, true,
     false, 0, "unsupported_value"},
    {400, OPENAI("\"invalid_request_error\"", "null"), UPSTREAM_CLIENT, false, false, 0,
     "invalid_request_error"},
    {400, OPENAI("\"invalid_request_error\"", "\"invalid_prompt\""), UPSTREAM_CLIENT, false, false,
     0, "invalid_prompt"},
    {404, OPENAI("\"invalid_request_error\"", "\"model_not_found\""), UPSTREAM_CLIENT, true, false,
     0, "model_not_found"},
    // vLLM, SGLang: the code is a number, the message tells
    {400,
     "{\"object\":\"error\",\"message\":\"This model's maximum context length is 9 tokens\","
     "\"type\":\"BadRequestError\",\"code\":400}",
     UPSTREAM_CLIENT, true, false, 0, "too long"},
    // Anthropic
    {429, ANTHROPIC("rate_limit_error", "SECRET"), UPSTREAM_BUSY, false, false, 5000,
     "rate_limit_error"},
    {429,
     "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"SECRET\","
     "\"error_code\":\"enforced_spend_limit_reached\"}}",
     UPSTREAM_ACCOUNT, false, false, 0, "enforced_spend_limit_reached"},
    {429,
     "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"SECRET\","
     "\"details\":{\"error_code\":\"contract_spend_limit_reached\"}}}",
     UPSTREAM_ACCOUNT, false, false, 0, "contract_spend_limit_reached"},
    {529, ANTHROPIC("overloaded_error", "SECRET"), UPSTREAM_BUSY, false, false, 5000,
     "HTTP 529: overloaded_error"},
    {400, ANTHROPIC("invalid_request_error", "Your credit balance is too low to access the API"),
     UPSTREAM_ACCOUNT, false, false, 0, "credit balance"},
    {400, ANTHROPIC("invalid_request_error", "You have reached your specified API usage limits."),
     UPSTREAM_ACCOUNT, false, false, 0, "spend limit"},
    // ... which nobody brings about by having the API repeat what they asked
    {400,
     ANTHROPIC("invalid_request_error", "tools.0: 'Your credit balance is too low' is no name"),
     UPSTREAM_CLIENT, false, false, 0, "HTTP 400: invalid_request_error"},
    {400,
     ANTHROPIC("invalid_request_error",
               "This model does not support assistant message prefill. The conversation must end "
               "with a user message."),
     UPSTREAM_CLIENT, true, true, 0, "takes no prefill"},
    {400, ANTHROPIC("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
     UPSTREAM_CLIENT, true, false, 0, "too long"},
    {402, ANTHROPIC("billing_error", "SECRET"), UPSTREAM_ACCOUNT, false, false, 0, "billing_error"},
    {413, ANTHROPIC("request_too_large", "SECRET"), UPSTREAM_CLIENT, true, false, 0,
     "request_too_large"},
    {500, ANTHROPIC("api_error", "SECRET"), UPSTREAM_FAULT, false, false, 0, "api_error"},
    {504, ANTHROPIC("timeout_error", "SECRET"), UPSTREAM_FAULT, false, false, 0, "timeout_error"},
    // Gemini
    {429, GEMINI(429, "RESOURCE_EXHAUSTED", "SECRET", ""), UPSTREAM_BUSY, false, false, 5000,
     "RESOURCE_EXHAUSTED"},
    {503, GEMINI(503, "UNAVAILABLE", "SECRET", ""), UPSTREAM_BUSY, false, false, 5000,
     "UNAVAILABLE"},
    {504, GEMINI(504, "DEADLINE_EXCEEDED", "SECRET", ""), UPSTREAM_FAULT, false, false, 0,
     "DEADLINE_EXCEEDED"},
    {400, GEMINI(400, "FAILED_PRECONDITION", "SECRET", ""), UPSTREAM_ACCOUNT, false, false, 0,
     "FAILED_PRECONDITION"},
    {400,
     GEMINI(
         400, "INVALID_ARGUMENT", "API key not valid",
         "{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"reason\":\"API_KEY_INVALID\"}"),
     UPSTREAM_ACCOUNT, false, false, 0, "API_KEY_INVALID"},
    {400,
     GEMINI(400, "INVALID_ARGUMENT", "Requests ending with a model turn are not supported.", ""),
     UPSTREAM_CLIENT, true, true, 0, "takes no prefill"},
    {400,
     GEMINI(400, "INVALID_ARGUMENT",
            "The input token count (9) exceeds the maximum number of tokens allowed (8).", ""),
     UPSTREAM_CLIENT, true, false, 0, "too long"},
    {404, "[" GEMINI(404, "NOT_FOUND", "SECRET", "") "]", UPSTREAM_CLIENT, true, false, 0,
     "NOT_FOUND"},
    // whoever stands before them
    {502, "<html>SECRET</html>", UPSTREAM_FAULT, false, false, 0, "HTTP 502"},
    {301, "", UPSTREAM_FAULT, false, false, 0, "HTTP 301"},
    {204, "", UPSTREAM_FAULT, false, false, 0, "HTTP 204"},
    {408, "", UPSTREAM_FAULT, false, false, 0, "HTTP 408"},
    {418, "{\"error\":\"SECRET\"}", UPSTREAM_CLIENT, false, false, 0, "HTTP 418"},
    {503, "SECRET", UPSTREAM_BUSY, false, false, 5000, "HTTP 503"},
    {429, "7", UPSTREAM_BUSY, false, false, 5000, "HTTP 429"},
    {200, "{\"error\":{\"type\":\"overloaded_error\"}}", UPSTREAM_BUSY, false, false, 5000,
     "no event stream: overloaded_error"},
};

static void test_responses(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const error_case *e = &CASES[i];
        json_t *body = json_loads(e->body, JSON_DECODE_ANY, NULL);
        upstream_end end = {0};
        outcome_of_response(e->http_status, body, 5000, &end);
        json_decref(body);
        if (end.outcome != e->outcome || end.other_target != e->other_target ||
            end.prefill_refused != e->prefill_refused || end.http_status != e->http_status ||
            end.retry_after_ms != e->retry_after_ms || !strstr(end.reason, e->reason) ||
            strstr(end.reason, "SECRET"))
            fail_msg("%d %s: outcome %d, other %d, prefill %d, retry %lld: %s", e->http_status,
                     e->body, end.outcome, end.other_target, end.prefill_refused,
                     (long long)end.retry_after_ms, end.reason);
    }
}

static void test_retry_info(void **state) {
    (void)state;
    json_t *body = json_loads(
        GEMINI(429, "RESOURCE_EXHAUSTED", "m",
               "{\"@type\":\"type.googleapis.com/google.rpc.QuotaFailure\",\"violations\":[]},"
               "{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"13.5s\"}"),
        0, NULL);
    upstream_end end = {0};
    outcome_of_response(429, body, 0, &end);
    assert_int_equal(end.retry_after_ms, 13500);
    json_decref(body);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_retry_info),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
