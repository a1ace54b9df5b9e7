// prompt_tokens: the tokens of a request's prompt: a conversation rendered and tokenised, a text
// tokenised, or ids checked.
#ifndef OCTANT_COORDINATOR_INGRESS_PROMPT_TOKENS_H
#define OCTANT_COORDINATOR_INGRESS_PROMPT_TOKENS_H

#include "coordinator/ingress/prepare.h"

// Appends the tokens of prompt i, at least one and at most `context`; false with *why else.
bool prompt_tokens_encode(const served_model *m, const generate_request *r, int i, int context,
                          token_list *out, refusal *why);

// The prompt as text, for an answer that starts with it: malloc. False when memory is short.
bool prompt_text(const served_model *m, const prompt_input *p, text_span *out);

// "The prompt alone, of so many tokens, leaves no room in the context."
bool prompt_refuse_length(int context, size_t tokens, const char *param, refusal *why);

#endif
