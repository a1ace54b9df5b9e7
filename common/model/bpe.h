// bpe: byte pair encoding over ids: which two neighbouring tokens become one, and in what order
// (Sennrich et al. 2016). Knows nothing of text. Private to the tokenizer; read-only once filled.
#ifndef OCTANT_MODEL_BPE_H
#define OCTANT_MODEL_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

enum { BPE_MERGES_MAX = 1 << 23 };

typedef struct bpe_merge {
    int32_t left, right; // left is -1 in a free slot
    uint32_t rank;       // lower goes first; equal ranks go from left to right
    int32_t merged;
} bpe_merge;

typedef struct bpe {
    bpe_merge *slots;
    uint32_t mask;
    uint32_t count, room; // merges held, merges possible
} bpe;

// Room for `merges` pairs. bpe_free() after an error, too.
status bpe_open(bpe *b, int64_t merges);
void bpe_free(bpe *b);

// Adds a pair. A pair that is there already keeps the lower rank. INVALID_ARGUMENT when the pairs
// are made to collide.
status bpe_add(bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t merged);

// What one caller needs while merging; reused from word to word, grows to the longest one.
typedef struct bpe_scratch {
    void *memory;
    size_t room; // symbols
} bpe_scratch;
void bpe_scratch_free(bpe_scratch *s);

enum { BPE_WORD_MAX = 1 << 28 }; // symbols in one word

// Merges the `*count` symbols of one word in place, until no pair is left; O(n log n).
// RESOURCE_EXHAUSTED without memory.
status bpe_apply(const bpe *b, bpe_scratch *s, int32_t *ids, size_t *count);

#endif
