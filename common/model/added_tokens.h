// added_tokens: tokens that are found in the text before anything else looks at it: "<|im_end|>",
// "<s>", but also plain ones that somebody added. Longest first at each place, from left to right.
// Private to the tokenizer; read-only once built.
#ifndef OCTANT_MODEL_ADDED_TOKENS_H
#define OCTANT_MODEL_ADDED_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

enum {
    ADDED_TOKEN_BYTES_MAX = 512, // bounds the work at each byte of a text
    ADDED_NODES_MAX = 1 << 22,
};

typedef struct added_token {
    int32_t id;
    bool special;     // only matched where the caller asks for special tokens
    bool lstrip;      // takes the whitespace before it
    bool rstrip;      // takes the whitespace after it
    bool single_word; // not inside a word
} added_token;

// A trie of bytes; children are a linked list, since a node seldom has more than ten.
typedef struct added_node {
    uint32_t child, sibling; // 0: none
    int32_t token;           // index into tokens, -1: none ends here
    uint8_t byte;
} added_node;

typedef struct added_tokens {
    added_token *tokens;
    size_t token_count, token_room;
    added_node *nodes; // nodes[0] is the root
    size_t node_count, node_room;
    uint32_t first[256]; // the root's children by byte
} added_tokens;

void added_tokens_free(added_tokens *a);

// INVALID_ARGUMENT: empty text, too long, or there already.
status added_tokens_add(added_tokens *a, const char *text, size_t size, added_token token);

// The id of the token with just this text, or -1.
int32_t added_tokens_find(const added_tokens *a, const char *text, size_t size);

typedef struct added_match {
    int32_t id;
    size_t begin, end; // of the text that the token stands for, stripped whitespace included
} added_match;

// The first match at or after `from`. lstrip takes nothing from before `from`. False: there is
// none.
bool added_tokens_next(const added_tokens *a, const char *text, size_t size, size_t from,
                       bool parse_special, added_match *out);

#endif
