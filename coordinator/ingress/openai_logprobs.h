// openai_logprobs: log probabilities in the two forms of OpenAI's API. Both writers append list
// items, so that a whole answer's can be collected piece by piece.
#ifndef OCTANT_COORDINATOR_INGRESS_OPENAI_LOGPROBS_H
#define OCTANT_COORDINATOR_INGRESS_OPENAI_LOGPROBS_H

#include "common/base/buf.h"
#include "common/model/tokenizer.h"
#include "coordinator/answer.h"

// Chat: the items of "content", separated (also from what `items` holds already) by commas.
void openai_chat_logprobs_append(const tokenizer *t, const answer_piece *piece, buf *items);

// Completions: the four parallel lists, as items.
typedef struct openai_text_logprobs {
    buf tokens, token_logprobs, top_logprobs, text_offset;
    int64_t offset; // of the next token in the answer's text [code points]
} openai_text_logprobs;

openai_text_logprobs openai_text_logprobs_make(size_t limit);
void openai_text_logprobs_free(openai_text_logprobs *l);
void openai_text_logprobs_clear(openai_text_logprobs *l); // empties the lists; the offset goes on
void openai_text_logprobs_add(const tokenizer *t, const answer_piece *piece,
                              openai_text_logprobs *l);
// {"tokens": [...], ...}
void openai_text_logprobs_append(const openai_text_logprobs *l, buf *out);

#endif
