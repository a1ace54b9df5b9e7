// openai_parameters: what both endpoints share: the list of known parameters, sampling, stop,
// stream. Used by the two parsers only.
#ifndef OCTANT_COORDINATOR_INGRESS_OPENAI_PARAMETERS_H
#define OCTANT_COORDINATOR_INGRESS_OPENAI_PARAMETERS_H

#include "coordinator/ingress/openai_request.h"

// Parses the bytes into out->body (an object), refuses unknown parameters and those that cannot be
// honoured, and fills every field that the two endpoints share. False: the caller frees *out with
// openai_request_free.
bool openai_parameters_parse(openai_endpoint endpoint, const char *body, size_t size,
                             openai_request *out, refusal *why);

#endif
