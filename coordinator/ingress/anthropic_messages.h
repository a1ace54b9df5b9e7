// anthropic_messages: "system", "messages", "tools", "tool_choice" and "output_config" of a
// Messages request in OpenAI's form, from which the rest of the ingress reads on.
#ifndef OCTANT_COORDINATOR_INGRESS_ANTHROPIC_MESSAGES_H
#define OCTANT_COORDINATOR_INGRESS_ANTHROPIC_MESSAGES_H

#include <jansson.h>
#include <stdbool.h>

#include "coordinator/ingress/refusal.h"

// *out is a new object with "messages" and, where asked for, "tools", "tool_choice",
// "parallel_tool_calls" and "response_format". NULL on a refusal.
bool anthropic_messages_convert(const json_t *body, json_t **out, refusal *why);

#endif
