#include "coordinator/ingress/anthropic_error.h"

#include <string.h>

#include "common/base/json.h"

// docs.anthropic.com/en/api/errors
static const char *type_of(int http_status) {
    switch (http_status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 413:
        return "request_too_large";
    case 429:
        return "rate_limit_error";
    case 503:
        return "overloaded_error";
    case 504:
        return "timeout_error";
    default:
        return http_status >= 500 ? "api_error" : "invalid_request_error";
    }
}

void anthropic_error_append(buf *out, int http_status, const char *message, const char *param,
                            const char *code) {
    (void)param;
    (void)code;
    buf_printf(out,
               "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", type_of(http_status));
    json_append_string(out, message, strlen(message));
    buf_append_string(out, "}}");
}
