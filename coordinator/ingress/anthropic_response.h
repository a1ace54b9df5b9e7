// anthropic_response: an answer in the format of Anthropic's Messages API, whole or as a stream of
// message_start, blocks (start, deltas, stop), message_delta, message_stop. Pure: events in, bytes
// out.
#ifndef OCTANT_COORDINATOR_INGRESS_ANTHROPIC_RESPONSE_H
#define OCTANT_COORDINATOR_INGRESS_ANTHROPIC_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "coordinator/answer.h"
#include "coordinator/core/core.h"

typedef struct anthropic_response anthropic_response;

typedef struct anthropic_response_options {
    const char *id, *model; // copied
    const core_stop *stops; // (stop_count) of the request; copied
    int stop_count;
    int32_t prompt_tokens; // as far as known at the start
    size_t limit;          // bytes that a whole answer's parts may reach
} anthropic_response_options;

anthropic_response *
anthropic_response_create(const anthropic_response_options *options); // NULL: memory is short
void anthropic_response_free(anthropic_response *r);                  // NULL is allowed

// Streams: append what the event becomes on the wire. An end that is an error becomes an error
// event and no message_stop.
void anthropic_stream_piece(anthropic_response *r, const answer_piece *piece, buf *out);
void anthropic_stream_end(anthropic_response *r, const answer_end *end, buf *out);

// Whole answers: collect pieces, then append the message; end->why must be OK. False: out->failed,
// or a collected part did not fit.
void anthropic_collect_piece(anthropic_response *r, const answer_piece *piece);
bool anthropic_collect_end(anthropic_response *r, const answer_end *end, buf *out);

#endif
