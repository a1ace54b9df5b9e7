// upstream_prompt: one conversation in neutral form, from which each API's request body is written.
// Made by the ingress in the request's arena, immutable; redacted already where the route says so.
#ifndef OCTANT_COORDINATOR_UPSTREAM_UPSTREAM_PROMPT_H
#define OCTANT_COORDINATOR_UPSTREAM_UPSTREAM_PROMPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// JSON in OpenAI's Chat Completions form, the widest of the three: what the ingress has checked.
typedef struct upstream_prompt {
    const char
        *messages; // array of {role, content: string | null, tool_calls?, tool_call_id?, name?}
    const char
        *tools; // array of {type:"function", function:{name, description, parameters}}; NULL: none
    const char *tool_choice;     // JSON value; NULL: not given
    bool single_tool;            // at most one tool call in the answer
    const char *response_format; // JSON object; NULL: text
    int32_t max_tokens;          // 0: not given
    double temperature, top_p;   // NaN: not given (upstream models may refuse them)
    const char *stop;            // array of strings; NULL: none
    int64_t seed;                // -1: not given
} upstream_prompt;

#endif
