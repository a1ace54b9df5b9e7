// grammar: what an answer may be, as a pushdown automaton over bytes: from a JSON Schema, a regular
// expression, a list of texts, or "any JSON object". Every answer that the automaton accepts is
// valid under its source; where the source allows what is left out here (other orders of
// properties, numbers of a hundred digits), the automaton is narrower, never wider.
//
// From any state that can be reached an end can be reached, by tokens of one byte each: a sequence
// never stands where no token is allowed. That is why bytes that no token is may not occur
// (grammar_alphabet), and why a schema that can only be met without end is refused.
//
// What an automaton allows depends on its source and the model alone, so coordinator and workers
// make the same one, and a group that takes an answer over goes on in the same state.
//
// JSON Schema: the keywords are in coordinator/ingress/API.md. What is not known is refused, with
// its name and place.
#ifndef OCTANT_MODEL_GRAMMAR_H
#define OCTANT_MODEL_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

enum {
    GRAMMAR_TEXT_MAX = 256 << 10,  // bytes of a source
    GRAMMAR_STATES_MAX = 1 << 16,  // of an automaton
    GRAMMAR_NESTING_MAX = 64,      // of a schema
    GRAMMAR_PROPERTIES_MAX = 2048, // of an object in a schema
    GRAMMAR_DEPTH_MAX = 192,       // of an answer: rules within rules
};

typedef enum grammar_kind {
    GRAMMAR_NONE,
    GRAMMAR_JSON,   // any JSON object; no text
    GRAMMAR_SCHEMA, // a JSON Schema
    GRAMMAR_REGEX,  // the whole answer matches it
    GRAMMAR_CHOICE, // a JSON array of texts: the answer is one of them
    GRAMMAR_KINDS
} grammar_kind;

typedef struct grammar_source {
    grammar_kind kind;
    const char *text; // UTF-8; NULL only when size is 0
    size_t size;
} grammar_source;

// The bytes that are tokens by themselves.
typedef struct grammar_alphabet {
    uint64_t bits[4];
} grammar_alphabet;
static inline bool grammar_alphabet_has(const grammar_alphabet *a, int byte) {
    return a->bits[byte / 64] >> byte % 64 & 1;
}

typedef struct grammar grammar; // immutable: any number of threads may use one

// INVALID_ARGUMENT: what is wrong or not supported, and where ("at $.properties.age: ...").
// RESOURCE_EXHAUSTED when memory is short.
status grammar_compile(const grammar_source *source, const grammar_alphabet *alphabet,
                       grammar **out);
void grammar_destroy(grammar *g); // NULL is allowed

int grammar_states(const grammar *g);

#endif
