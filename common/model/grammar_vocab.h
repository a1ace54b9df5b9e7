// grammar_vocab: a model's tokens as a tree of bytes, for walks that find the tokens which an
// automaton takes. The tree lies in one array in the order of such a walk: each node before its
// children, and how far to skip when a node is refused.
//
// Tokens that end an answer, special tokens, tokens without bytes and those with more than
// GRAMMAR_TOKEN_BYTES are not in it.
#ifndef OCTANT_MODEL_GRAMMAR_VOCAB_H
#define OCTANT_MODEL_GRAMMAR_VOCAB_H

#include "common/model/grammar.h"
#include "common/model/tokenizer.h"

enum {
    GRAMMAR_TOKEN_BYTES = 128,
    GRAMMAR_SHORT_TOKEN = 16, // bytes; see `is_long`
};

typedef struct grammar_vocab {
    int32_t size;            // of the model's logits; tokens are [0, size)
    const tokenizer *tokens; // outlives this
    int32_t nodes;           // node 0 is the root
    uint8_t *byte, *depth;   // (nodes)
    int32_t *token;          // (nodes) that ends here; -1: none
    int32_t *skip;           // (nodes) the first node behind its children
    int32_t *same;           // (size) another token of the same bytes; -1: none
    uint32_t *is_long;       // (words) tokens of more than GRAMMAR_SHORT_TOKEN bytes
    uint32_t *stops;         // (words) tokens that end an answer
    bool has_stops;
    grammar_alphabet alphabet;
} grammar_vocab;

static inline size_t grammar_vocab_words(const grammar_vocab *v) {
    return ((size_t)v->size + 31) / 32;
}

// `size`: tokens of the model's logits; a tokenizer may have fewer or more. RESOURCE_EXHAUSTED.
status grammar_vocab_create(const tokenizer *t, int32_t size, grammar_vocab **out);
void grammar_vocab_destroy(grammar_vocab *v); // NULL is allowed

// The alphabet alone, for those who only compile.
grammar_alphabet grammar_alphabet_of(const tokenizer *t, int32_t size);

#endif
