#include "coordinator/ingress/openai_error.h"

#include <string.h>

#include "common/base/json.h"

int openai_error_http(status_code code) {
    switch (code) {
    case STATUS_OK:
        return 200;
    case STATUS_INVALID_ARGUMENT:
    case STATUS_OUT_OF_RANGE:
    case STATUS_UNIMPLEMENTED:
        return 400;
    case STATUS_UNAUTHENTICATED:
        return 401;
    case STATUS_PERMISSION_DENIED:
        return 403;
    case STATUS_NOT_FOUND:
        return 404;
    case STATUS_ALREADY_EXISTS:
        return 409;
    case STATUS_RESOURCE_EXHAUSTED:
        return 429;
    case STATUS_CANCELLED:
        return 499;
    case STATUS_UNAVAILABLE:
    case STATUS_ABORTED:
    case STATUS_FAILED_PRECONDITION:
        return 503;
    case STATUS_DEADLINE_EXCEEDED:
        return 504;
    case STATUS_UNKNOWN:
    case STATUS_INTERNAL:
    case STATUS_DATA_LOSS:
        return 500;
    }
    return 500;
}

static const char *type_of(int http_status) {
    if (http_status == 429) return "rate_limit_error";
    if (http_status == 403) return "permission_error";
    return http_status >= 500 ? "server_error" : "invalid_request_error";
}

// What OpenAI's server says where the refusal names no code itself.
static const char *code_of(int http_status) {
    switch (http_status) {
    case 429:
        return "rate_limit_exceeded";
    case 503:
        return "service_unavailable";
    case 504:
        return "timeout";
    default:
        return NULL;
    }
}

static void append_or_null(buf *out, const char *text) {
    if (text && *text)
        json_append_string(out, text, strlen(text));
    else
        buf_append_string(out, "null");
}

void openai_error_append(buf *out, int http_status, const char *message, const char *param,
                         const char *code) {
    buf_append_string(out, "{\"error\":{\"message\":");
    json_append_string(out, message, strlen(message));
    buf_printf(out, ",\"type\":\"%s\",\"param\":", type_of(http_status));
    append_or_null(out, param);
    buf_append_string(out, ",\"code\":");
    append_or_null(out, code ? code : code_of(http_status));
    buf_append_string(out, "}}");
}

void openai_refusal_append(buf *out, const refusal *why) {
    openai_error_append(out, openai_error_http(why->why.code), why->why.message, why->param,
                        why->code);
}
