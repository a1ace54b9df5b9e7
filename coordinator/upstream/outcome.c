// Three questions in this order: does the type name a class of its own (an account that cannot pay
// is a 429 at one API and a 400 at another)? Do the words of the message (where an API gives no
// type: prefill, length, credit)? Else the status decides.
#include "coordinator/upstream/outcome.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/upstream/response_header.h"

// What a type says, from weak to strong: the strongest of an error's types counts.
typedef enum verdict {
    SAYS_NOTHING,
    SAYS_CLIENT,  // the request is wrong
    SAYS_FAULT,   // the server is
    SAYS_BUSY,    // later
    SAYS_UNABLE,  // this target cannot, another may
    SAYS_FILTER,  // refused for its content
    SAYS_ACCOUNT, // nothing of ours will be served
} verdict;

typedef struct known_type {
    const char *name;
    verdict verdict;
} known_type;

static const known_type TYPES[] = {
    // OpenAI: "type" and "code"
    {"invalid_request_error", SAYS_CLIENT},
    {"server_error", SAYS_FAULT},
    {"rate_limit_exceeded", SAYS_BUSY},
    {"slow_down", SAYS_BUSY},
    {"server_is_overloaded", SAYS_BUSY},
    {"requests", SAYS_BUSY},
    {"tokens", SAYS_BUSY},
    {"context_length_exceeded", SAYS_UNABLE},
    {"string_above_max_length", SAYS_UNABLE},
    {"unsupported_parameter", SAYS_UNABLE},
    {"unsupported_value", SAYS_UNABLE},
    {"model_not_found", SAYS_UNABLE},
    {"content_filter", SAYS_FILTER},
    {"content_policy_violation", SAYS_FILTER},
    {"invalid_prompt", SAYS_FILTER},
    {"bio_policy", SAYS_FILTER},
    {"misalignment_policy_violation", SAYS_FILTER},
    {"insufficient_quota", SAYS_ACCOUNT},
    {"credit_balance_exhausted", SAYS_ACCOUNT},
    {"billing_not_active", SAYS_ACCOUNT},
    {"billing_hard_limit_reached", SAYS_ACCOUNT},
    {"account_deactivated", SAYS_ACCOUNT},
    {"invalid_api_key", SAYS_ACCOUNT},
    // Anthropic: "type" and "error_code"
    {"api_error", SAYS_FAULT},
    {"timeout_error", SAYS_FAULT},
    {"rate_limit_error", SAYS_BUSY},
    {"overloaded_error", SAYS_BUSY},
    {"ramp_limit_exceeded", SAYS_BUSY},
    {"request_too_large", SAYS_UNABLE},
    {"not_found_error", SAYS_UNABLE},
    {"authentication_error", SAYS_ACCOUNT},
    {"permission_error", SAYS_ACCOUNT},
    {"billing_error", SAYS_ACCOUNT},
    {"enforced_spend_limit_reached", SAYS_ACCOUNT},
    {"contract_spend_limit_reached", SAYS_ACCOUNT},
    {"linked_organization_spend_limit_reached", SAYS_ACCOUNT},
    {"linked_organization_billing_unavailable", SAYS_ACCOUNT},
    {"organization_on_hold", SAYS_ACCOUNT},
    {"user_profile_not_billable", SAYS_ACCOUNT},
    // Gemini: "status" and the reason of google.rpc.ErrorInfo
    {"INVALID_ARGUMENT", SAYS_CLIENT},
    {"OUT_OF_RANGE", SAYS_CLIENT},
    {"INTERNAL", SAYS_FAULT},
    {"UNKNOWN", SAYS_FAULT},
    {"DEADLINE_EXCEEDED", SAYS_FAULT},
    {"RESOURCE_EXHAUSTED", SAYS_BUSY},
    {"UNAVAILABLE", SAYS_BUSY},
    {"NOT_FOUND", SAYS_UNABLE},
    {"UNIMPLEMENTED", SAYS_UNABLE},
    {"FAILED_PRECONDITION", SAYS_ACCOUNT}, // region or billing
    {"PERMISSION_DENIED", SAYS_ACCOUNT},
    {"UNAUTHENTICATED", SAYS_ACCOUNT},
    {"API_KEY_INVALID", SAYS_ACCOUNT},
    {"BILLING_DISABLED", SAYS_ACCOUNT},
    {"CONSUMER_SUSPENDED", SAYS_ACCOUNT},
    {"SERVICE_DISABLED", SAYS_ACCOUNT},
};

// Where no type tells: parts of the documented messages. Messages may repeat the request, so what
// disables an account must be how the message begins: nobody may do that by what they ask.
typedef struct known_words {
    const char *words;
    verdict verdict;
    bool prefill;
    const char *meaning;
} known_words;

static const known_words WORDS[] = {
    // Anthropic from 4.6 on; Gemini from 3.6 Flash on
    {"assistant message prefill", SAYS_UNABLE, true, "takes no prefill"},
    {"must end with a user message", SAYS_UNABLE, true, "takes no prefill"},
    {"ending with a model turn", SAYS_UNABLE, true, "takes no prefill"},
    // Anthropic, Gemini, vLLM and its kin
    {"prompt is too long", SAYS_UNABLE, false, "the prompt is too long for this model"},
    {"exceed context limit", SAYS_UNABLE, false, "the prompt is too long for this model"},
    {"exceeds the maximum number of tokens", SAYS_UNABLE, false,
     "the prompt is too long for this model"},
    {"maximum context length", SAYS_UNABLE, false, "the prompt is too long for this model"},
    // Anthropic says both as a 400 invalid_request_error (litellm#16092)
    {"Your credit balance is too low", SAYS_ACCOUNT, false, "credit balance is too low"},
    {"You have reached your specified API usage limits", SAYS_ACCOUNT, false,
     "spend limit reached"},
};

typedef struct reading {
    verdict verdict;
    bool prefill;
    const char *what; // static; NULL: nothing known was found
    int64_t retry_after_ms;
} reading;

static void read_type(reading *r, const json_t *value) {
    const char *name = json_string_value(value);
    for (size_t i = 0; name && i < sizeof TYPES / sizeof *TYPES; i++) {
        if (strcmp(name, TYPES[i].name)) continue;
        if (r->what && TYPES[i].verdict <= r->verdict) return;
        r->verdict = TYPES[i].verdict;
        r->what = TYPES[i].name;
        return;
    }
}

static void read_message(reading *r, const json_t *value) {
    const char *message = json_string_value(value);
    for (size_t i = 0; message && i < sizeof WORDS / sizeof *WORDS; i++) {
        const known_words *w = &WORDS[i];
        const char *found = strcasestr(message, w->words);
        if (!found || r->verdict > w->verdict) continue;
        if (w->verdict == SAYS_ACCOUNT && found != message) continue;
        r->verdict = w->verdict;
        r->prefill = w->prefill;
        r->what = w->meaning;
        return;
    }
}

// google.rpc: RetryInfo and ErrorInfo in the list of details; Anthropic: an object.
static void read_details(reading *r, const json_t *details) {
    read_type(r, json_object_get(details, "error_code"));
    for (size_t i = 0; i < json_array_size(details); i++) {
        const json_t *d = json_array_get(details, i);
        const json_t *delay = json_object_get(d, "retryDelay");
        read_type(r, json_object_get(d, "reason"));
        if (json_is_string(delay))
            r->retry_after_ms =
                duration_parse_ms(json_string_value(delay), json_string_length(delay));
    }
}

static reading read_error(const json_t *error) {
    static const char *const FIELDS[] = {"type", "code", "status", "error_code"};
    reading r = {0};
    for (size_t i = 0; i < sizeof FIELDS / sizeof *FIELDS; i++)
        read_type(&r, json_object_get(error, FIELDS[i]));
    read_details(&r, json_object_get(error, "details"));
    read_message(&r, json_object_get(error, "message"));
    return r;
}

static verdict verdict_of_status(int status) {
    if (status == 401 || status == 402 || status == 403) return SAYS_ACCOUNT;
    if (status == 429 || status == 503 || status == 529) return SAYS_BUSY;
    if (status == 404 || status == 413 || status == 501) return SAYS_UNABLE;
    if (status == 408) return SAYS_FAULT; // it waited for our bytes
    return status >= 400 && status < 500 ? SAYS_CLIENT : SAYS_FAULT;
}

// A 4xx that names a fault stays the client's; a 5xx that names the client stays a fault. 401 to
// 403 are the account's whatever they say.
static verdict weigh(int status, verdict said) {
    verdict by_status = verdict_of_status(status);
    if (by_status == SAYS_ACCOUNT || said == SAYS_NOTHING) return by_status;
    if (said == SAYS_ACCOUNT || said == SAYS_FILTER) return said;
    if (by_status == SAYS_BUSY) return by_status;
    if (by_status == SAYS_FAULT) return said == SAYS_BUSY ? said : by_status;
    return said == SAYS_UNABLE || said == SAYS_BUSY ? said : by_status;
}

static void conclude(verdict v, const reading *r, int64_t header_wait_ms, upstream_end *end) {
    static const upstream_outcome OUTCOMES[] = {
        [SAYS_NOTHING] = UPSTREAM_FAULT,   [SAYS_CLIENT] = UPSTREAM_CLIENT,
        [SAYS_FAULT] = UPSTREAM_FAULT,     [SAYS_BUSY] = UPSTREAM_BUSY,
        [SAYS_UNABLE] = UPSTREAM_CLIENT,   [SAYS_FILTER] = UPSTREAM_CLIENT,
        [SAYS_ACCOUNT] = UPSTREAM_ACCOUNT,
    };
    end->outcome = OUTCOMES[v];
    end->other_target = v == SAYS_UNABLE;
    end->prefill_refused = v == SAYS_UNABLE && r->prefill;
    end->retry_after_ms = 0;
    if (v == SAYS_BUSY) end->retry_after_ms = header_wait_ms ? header_wait_ms : r->retry_after_ms;
}

void outcome_of_response(int http_status, const json_t *body, int64_t header_wait_ms,
                         upstream_end *end) {
    // Gemini's errors come as an array of one where a stream was asked for without alt=sse.
    if (json_is_array(body)) body = json_array_get(body, 0);
    const json_t *error = json_object_get(body, "error");
    reading r = read_error(json_is_object(error) ? error : body);
    end->http_status = http_status;
    conclude(weigh(http_status, r.verdict), &r, header_wait_ms, end);
    if (http_status == 200)
        snprintf(end->reason, sizeof end->reason, "HTTP 200, but the body is no event stream%s%s",
                 r.what ? ": " : "", r.what ? r.what : "");
    else
        snprintf(end->reason, sizeof end->reason, "HTTP %d%s%s", http_status, r.what ? ": " : "",
                 r.what ? r.what : "");
}

void outcome_of_stream_error(const json_t *error, int64_t header_wait_ms, upstream_end *end) {
    reading r = read_error(error);
    bool certain = r.verdict == SAYS_ACCOUNT || r.verdict == SAYS_BUSY || r.verdict == SAYS_FILTER;
    conclude(certain ? r.verdict : SAYS_FAULT, &r, header_wait_ms, end);
    snprintf(end->reason, sizeof end->reason, "error in the stream: %s",
             r.what ? r.what : "of a type that is not known here");
}

void outcome_of_filter(upstream_end *end) {
    conclude(SAYS_FILTER, &(reading){0}, 0, end);
    snprintf(end->reason, sizeof end->reason, "the upstream's content filter ended the answer");
}
