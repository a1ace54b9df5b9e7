#include "common/base/status.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// Cuts an overlong message visibly and keeps it on one line.
static void finish(status *s, int wanted) {
    if (wanted >= STATUS_MESSAGE_MAX) memcpy(s->message + STATUS_MESSAGE_MAX - 4, "...", 4);
    for (char *p = s->message; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = '?';
}

status status_error(status_code code, const char *format, ...) {
    assert(code != STATUS_OK);
    status s;
    s.code = code;
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(s.message, sizeof s.message, format, args);
    va_end(args);
    finish(&s, wanted);
    return s;
}

status status_context(status inner, const char *format, ...) {
    if (inner.code == STATUS_OK) return inner;
    status s;
    s.code = inner.code;
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(s.message, sizeof s.message, format, args);
    va_end(args);
    if (wanted < STATUS_MESSAGE_MAX)
        wanted += snprintf(s.message + wanted, sizeof s.message - (size_t)wanted, ": %s", inner.message);
    finish(&s, wanted);
    return s;
}

const char *status_code_name(status_code code) {
    switch (code) {
    case STATUS_OK: return "OK";
    case STATUS_CANCELLED: return "CANCELLED";
    case STATUS_UNKNOWN: return "UNKNOWN";
    case STATUS_INVALID_ARGUMENT: return "INVALID_ARGUMENT";
    case STATUS_DEADLINE_EXCEEDED: return "DEADLINE_EXCEEDED";
    case STATUS_NOT_FOUND: return "NOT_FOUND";
    case STATUS_ALREADY_EXISTS: return "ALREADY_EXISTS";
    case STATUS_PERMISSION_DENIED: return "PERMISSION_DENIED";
    case STATUS_RESOURCE_EXHAUSTED: return "RESOURCE_EXHAUSTED";
    case STATUS_FAILED_PRECONDITION: return "FAILED_PRECONDITION";
    case STATUS_ABORTED: return "ABORTED";
    case STATUS_OUT_OF_RANGE: return "OUT_OF_RANGE";
    case STATUS_UNIMPLEMENTED: return "UNIMPLEMENTED";
    case STATUS_INTERNAL: return "INTERNAL";
    case STATUS_UNAVAILABLE: return "UNAVAILABLE";
    case STATUS_DATA_LOSS: return "DATA_LOSS";
    case STATUS_UNAUTHENTICATED: return "UNAUTHENTICATED";
    }
    return "UNKNOWN";
}
