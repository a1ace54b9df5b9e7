// refusal: why a request was not taken, in a form that every protocol can say: a status whose code
// decides HTTP's and gRPC's, the parameter at fault, and a machine-readable reason.
#ifndef OCTANT_COORDINATOR_INGRESS_REFUSAL_H
#define OCTANT_COORDINATOR_INGRESS_REFUSAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"

enum { REFUSAL_PARAM_MAX = 63 };

typedef struct refusal {
    status why;                        // STATUS_OK: not refused
    char param[REFUSAL_PARAM_MAX + 1]; // "messages[2].content"; empty: none
    const char *code;       // static: "context_length_exceeded", "model_not_found", ...; NULL: none
    int64_t retry_after_ms; // 0: not said
} refusal;

// Fills *r and returns false, for `return refuse(...)`. param and reason may be NULL.
bool refuse(refusal *r, status_code code, const char *param, const char *reason, const char *format,
            ...) __attribute__((format(printf, 5, 6)));

// The same from a status that is an error.
bool refuse_status(refusal *r, status why, const char *param, const char *reason);

#endif
