// vocabulary: all that the core needs to know of a tokenizer: what a token's bytes are, and which
// tokens end an answer. Two pointers instead of the tokenizer itself, so that the simulator runs
// the core with a vocabulary of its own.
#ifndef OCTANT_COORDINATOR_CORE_VOCABULARY_H
#define OCTANT_COORDINATOR_CORE_VOCABULARY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"

struct tokenizer; // common/model/tokenizer.h

typedef struct vocabulary {
    const void *owner; // outlives every request that uses it; immutable
    int32_t size;      // ids are [0, size)
    const int32_t *stop_ids;
    int stop_count;
    // Appends the bytes of a token as an answer shows them: nothing for control tokens.
    void (*decode)(const void *owner, int32_t id, buf *out);
} vocabulary;

// The model's own. Tokens of an answer always follow a prompt, so the first keeps its leading
// space.
vocabulary vocabulary_of(const struct tokenizer *t);

static inline bool vocabulary_stops(const vocabulary *v, int32_t id) {
    for (int i = 0; i < v->stop_count; i++)
        if (v->stop_ids[i] == id) return true;
    return false;
}

#endif
