// openai_request: the bodies of POST /v1/chat/completions and /v1/completions, parsed and checked.
// What OpenAI's server takes is taken or refused by name; what it does not know is refused as it
// refuses it. API.md lists every parameter; the table is in openai_parameters.c.
#ifndef OCTANT_COORDINATOR_INGRESS_OPENAI_REQUEST_H
#define OCTANT_COORDINATOR_INGRESS_OPENAI_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "coordinator/ingress/prepare.h"
#include "coordinator/ingress/refusal.h"

enum {
    OPENAI_PROMPTS_MAX = SINK_PER_STREAM_MAX,
    OPENAI_COMPLETION_MAX_TOKENS = 16, // OpenAI's default for /v1/completions
};

typedef enum openai_endpoint { OPENAI_CHAT = 1, OPENAI_COMPLETION = 2 } openai_endpoint;

typedef struct openai_request {
    openai_endpoint endpoint;
    generate_request generate; // client, api_key and deadline_ns are the caller's to fill
    bool stream, include_usage;
    json_t *body; // owned: strings of `generate` point into it
} openai_request;

// False: *why is what to answer, nothing is left to free.
bool openai_chat_parse(const char *body, size_t size, openai_request *out, refusal *why);
bool openai_completion_parse(const char *body, size_t size, openai_request *out, refusal *why);
// For a body that may be either: it is an object with "messages".
bool openai_has_messages(const char *body, size_t size);

void openai_request_free(openai_request *r);

#endif
