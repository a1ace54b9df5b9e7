// outcome: what an upstream's error means: whose fault it is, whether another target may do, how
// long to wait. The one place that knows the APIs' error types. Pure.
//
// Sources: the error pages of the three APIs (platform.openai.com/docs/guides/error-codes,
// docs.anthropic.com/en/api/errors, ai.google.dev/gemini-api/docs/troubleshooting) and what their
// official clients list as error codes.
#ifndef OCTANT_COORDINATOR_UPSTREAM_OUTCOME_H
#define OCTANT_COORDINATOR_UPSTREAM_OUTCOME_H

#include <jansson.h>
#include <stdbool.h>

#include "coordinator/core/upstream_call.h"

// Of a response with this status and body (NULL: none, or no JSON). `header_wait_ms`: what the
// header says about waiting; 0: nothing. Fills outcome, other_target, prefill_refused, http_status,
// retry_after_ms and reason. A status of 200 is a body that is no stream. `reason` holds the status
// and a type from our own table, never the upstream's words: those may repeat the request.
void outcome_of_response(int http_status, const json_t *body, int64_t header_wait_ms,
                         upstream_end *end);

// Of an error object inside a stream that began well: ACCOUNT, BUSY or CLIENT where its type says
// so beyond doubt, else FAULT: the request was taken already.
void outcome_of_stream_error(const json_t *error, int64_t header_wait_ms, upstream_end *end);

// The answer was stopped by the upstream's content filter: CLIENT, and no other target is asked,
// for that would be shopping for a laxer one.
void outcome_of_filter(upstream_end *end);

#endif
