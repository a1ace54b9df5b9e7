// openai_response: answers in OpenAI's format, whole (chat.completion, text_completion) or as a
// stream of chunks. Pure: events in, bytes out.
#ifndef OCTANT_COORDINATOR_INGRESS_OPENAI_RESPONSE_H
#define OCTANT_COORDINATOR_INGRESS_OPENAI_RESPONSE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "coordinator/answer.h"
#include "coordinator/ingress/openai_request.h"

typedef struct openai_response openai_response;

typedef struct openai_response_options {
    openai_endpoint endpoint;
    bool include_usage; // streams: a last chunk with the usage
    bool logprobs;
    int answers;                          // of all prompts together
    const char *id, *model, *fingerprint; // copied
    const tokenizer *tokens;              // outlives the response
    int64_t created;                      // Unix seconds
    size_t limit;                         // bytes that a whole answer's parts may reach
} openai_response_options;

openai_response *
openai_response_create(const openai_response_options *options); // NULL when memory is short
void openai_response_free(openai_response *r);

// Streams: append what the event becomes on the wire: zero or more SSE events. An end that is an
// error becomes an error event and no [DONE].
void openai_stream_piece(openai_response *r, const answer_piece *piece, buf *out);
void openai_stream_end(openai_response *r, const answer_end *end, buf *out);

// Whole answers: collect pieces, then append the body; end->why must be OK. out->failed or a
// collected part's failure is told by false.
void openai_collect_piece(openai_response *r, const answer_piece *piece);
bool openai_collect_end(openai_response *r, const answer_end *end, buf *out);

#endif
