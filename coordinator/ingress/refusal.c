#include "coordinator/ingress/refusal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

bool refuse_status(refusal *r, status why, const char *param, const char *reason) {
    assert(why.code != STATUS_OK);
    r->why = why;
    r->code = reason;
    r->retry_after_ms = 0;
    snprintf(r->param, sizeof r->param, "%s", param ? param : "");
    return false;
}

bool refuse(refusal *r, status_code code, const char *param, const char *reason, const char *format,
            ...) {
    char text[STATUS_MESSAGE_MAX +
              8]; // longer than a status holds, so that status_error marks the cut
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return refuse_status(r, status_error(code, "%s", text), param, reason);
}
