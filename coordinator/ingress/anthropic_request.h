// anthropic_request: the body of POST /v1/messages (Anthropic's Messages API, version 2023-06-01),
// checked and turned into what every endpoint asks for. API.md lists the fields; the table is in
// anthropic_request.c.
#ifndef OCTANT_COORDINATOR_INGRESS_ANTHROPIC_REQUEST_H
#define OCTANT_COORDINATOR_INGRESS_ANTHROPIC_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "coordinator/ingress/prepare.h"
#include "coordinator/ingress/refusal.h"

typedef struct anthropic_request {
    generate_request generate; // client, api_key and deadline_ns are the caller's to fill
    bool stream;
    json_t *body; // owned: strings of `generate` point into it
} anthropic_request;

// `counting`: for /v1/messages/count_tokens, which needs no max_tokens. False: *why is what to
// answer, nothing is left to free.
bool anthropic_request_parse(const char *body, size_t size, bool counting, anthropic_request *out,
                             refusal *why);
void anthropic_request_free(anthropic_request *r);

#endif
