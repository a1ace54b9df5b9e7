// pretokenize: cuts a text into words, which BPE then handles one by one. A pretokenizer is a list
// of regular expressions, each of which cuts further what the one before it left. Private to the
// tokenizer; read-only once filled.
#ifndef OCTANT_MODEL_PRETOKENIZE_H
#define OCTANT_MODEL_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/status.h"

enum {
    PRETOKENIZE_STEPS_MAX = 16,
    PRETOKENIZE_PATTERN_MAX = 16 << 10, // bytes of one expression
    PRETOKENIZE_MATCH_MAX = 10000000,   // PCRE2's match limit: what one match may cost
};

// What becomes of the matches: names and meaning are tokenizers' SplitDelimiterBehavior.
typedef enum split_behavior {
    SPLIT_ISOLATED,      // a match is a word
    SPLIT_REMOVED,       // a match is dropped
    SPLIT_WITH_PREVIOUS, // a match ends the word before it
    SPLIT_WITH_NEXT,     // a match starts the word after it
    SPLIT_CONTIGUOUS,    // matches that touch are one word
} split_behavior;

typedef struct pretokenizer {
    struct pretokenize_step {
        void *code; // pcre2_code
        split_behavior behavior;
        bool invert; // what lies between the matches is what counts as a match
    } steps[PRETOKENIZE_STEPS_MAX];
    int count;
} pretokenizer;

void pretokenizer_free(pretokenizer *p);

// Adds a step. `pattern` is written for Oniguruma or for Rust's regex, as tokenizer.json has it; \s
// and \w mean Unicode's. INVALID_ARGUMENT with PCRE2's words and the offset; UNIMPLEMENTED past
// PRETOKENIZE_STEPS_MAX.
status pretokenizer_add(pretokenizer *p, const char *pattern, size_t size, split_behavior behavior,
                        bool invert);

// The bytes of `text` as a pattern that matches just them (for tokenizer.json's {"String": ...}).
status pretokenizer_add_literal(pretokenizer *p, const char *text, size_t size,
                                split_behavior behavior, bool invert);

// What one caller needs while matching. Zeroed at first.
typedef struct pretokenize_scratch {
    void *match_data, *match_context, *jit_stack;
} pretokenize_scratch;
void pretokenize_scratch_free(pretokenize_scratch *s);

// Gets one word, never empty. An error ends the cutting and is handed through.
typedef status pretokenize_word(void *user, const char *word, size_t size);

// Calls `word` for each word of `text` (valid UTF-8), in order. RESOURCE_EXHAUSTED when a match
// costs too much.
status pretokenize(const pretokenizer *p, pretokenize_scratch *s, const char *text, size_t size,
                   pretokenize_word *word, void *user);

#endif
