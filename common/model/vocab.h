// vocab: the tokens of one model: id to bytes and kind, bytes to id. One pool holds all bytes;
// nothing is allocated per token. Built once, then read by any number of threads. Private to the
// tokenizer.
#ifndef OCTANT_MODEL_VOCAB_H
#define OCTANT_MODEL_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

enum {
    VOCAB_TOKENS_MAX = 1 << 20, // equals MODEL_VOCAB_MAX
    VOCAB_TOKEN_BYTES_MAX = 4096,
    VOCAB_POOL_BYTES_MAX = 128 << 20,
};

typedef enum token_kind {
    TOKEN_ABSENT,  // a hole: no text, never produced
    TOKEN_NORMAL,  // text that BPE may produce
    TOKEN_BYTE,    // one byte, written <0xXX> (SentencePiece's byte fallback)
    TOKEN_USER,    // added to the vocabulary, shown to users
    TOKEN_CONTROL, // special: not shown
    TOKEN_UNKNOWN, // stands for text that the vocabulary cannot express
} token_kind;

typedef struct vocab {
    int count;        // ids are [0, count)
    char *pool;       // the bytes of all tokens
    uint32_t *begin;  // (count): where a token's bytes start in the pool
    uint16_t *length; // (count) [bytes]
    uint8_t *kind;    // (count) token_kind
    int32_t *slots;   // hash table of ids that BPE may name: -1 is free
    uint32_t mask;    // slots - 1
    size_t pool_used, pool_room;
} vocab;

// Room for `count` tokens, all absent. `v` is zeroed or freed; vocab_free() after an error, too.
status vocab_open(vocab *v, int64_t count);
void vocab_free(vocab *v);

// Sets the bytes of a token. INVALID_ARGUMENT: id out of range, id already set, token too long.
status vocab_set(vocab *v, int64_t id, const char *bytes, size_t size, token_kind kind);

// Makes a token findable by vocab_find. INVALID_ARGUMENT when another one has the same bytes, or
// when the texts are made to collide.
status vocab_index(vocab *v, int32_t id);

// The id of an indexed token, or -1.
int32_t vocab_find(const vocab *v, const char *bytes, size_t size);

static inline const char *vocab_bytes(const vocab *v, int32_t id, size_t *size) {
    *size = v->length[id];
    return v->pool + v->begin[id];
}

#endif
