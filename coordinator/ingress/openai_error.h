// openai_error: Octant's errors in the body and with the HTTP status that OpenAI's clients expect.
#ifndef OCTANT_COORDINATOR_INGRESS_OPENAI_ERROR_H
#define OCTANT_COORDINATOR_INGRESS_OPENAI_ERROR_H

#include "common/base/buf.h"
#include "coordinator/ingress/refusal.h"

// 400, 401, 403, 404, 409, 429, 499, 500, 503 or 504.
int openai_error_http(status_code code);

// Appends {"error": {"message", "type", "param", "code"}}. param (may be empty) and code (may be
// NULL) become null.
void openai_error_append(buf *out, int http_status, const char *message, const char *param,
                         const char *code);

// The same of a refusal.
void openai_refusal_append(buf *out, const refusal *why);

#endif
