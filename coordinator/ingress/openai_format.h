// openai_format: what form the answer is to have: OpenAI's "response_format" and the fields that
// vLLM adds to it ("structured_outputs", and its older "guided_json", "guided_regex",
// "guided_choice").
//
// It becomes two things: a grammar, for models served here, and OpenAI's own words, for upstreams,
// where there are such words: a regular expression or a choice stays here.
#ifndef OCTANT_COORDINATOR_INGRESS_OPENAI_FORMAT_H
#define OCTANT_COORDINATOR_INGRESS_OPENAI_FORMAT_H

#include <jansson.h>
#include <stdbool.h>

#include "coordinator/ingress/prepare.h"
#include "coordinator/ingress/refusal.h"

// Fills grammar, grammar_param and response_format of `g`, which stay as they are when the body
// asks for no form; behind openai_tools_parse, whose forced call has its arguments as the answer's
// form. Whether the grammar is one is known once the model is (leaving.h).
bool openai_format_parse(const json_t *body, generate_request *g, refusal *why);

// The same from a grammar whose text lives in g->memory; `param` is a constant.
bool openai_format_set(generate_request *g, grammar_source grammar, const char *param,
                       refusal *why);

#endif
