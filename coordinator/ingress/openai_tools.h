// openai_tools: "tools", "tool_choice" and "parallel_tool_calls" of a chat request, checked and
// kept as JSON texts in OpenAI's form. Models of ours call one function, where the request says
// which; requests that leave the choice to the model may leave to an upstream, or are refused by
// generate_prepare.
#ifndef OCTANT_COORDINATOR_INGRESS_OPENAI_TOOLS_H
#define OCTANT_COORDINATOR_INGRESS_OPENAI_TOOLS_H

#include <jansson.h>
#include <stdbool.h>

#include "coordinator/ingress/prepare.h"
#include "coordinator/ingress/refusal.h"

enum { OPENAI_TOOLS_MAX = 128 }; // as OpenAI's server takes

// Fills tools, tool_choice, single_tool, forced_tool and forced_schema of `g`; each stays NULL
// (false) when the body asks for nothing.
bool openai_tools_parse(const json_t *body, generate_request *g, refusal *why);

#endif
