// constraint: the grammars of the sequences that have one, on the leader: which tokens may come
// next in a slot, as a mask for the sampler.
//
// A slot's state is made from the grammar and the answer's tokens so far, which the coordinator
// sends when it opens the slot, and goes on with each token that is sampled: so it is the same
// after a preemption, or in the group that takes over from a lost one. Grammars are compiled when a
// slot is opened, and the last few are kept: a thousand requests with one schema compile it once.
#ifndef OCTANT_WORKER_CONSTRAINT_H
#define OCTANT_WORKER_CONSTRAINT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/model/grammar.h"
#include "common/model/tokenizer.h"

typedef struct constraints constraints;

// `tokens` outlives it. RESOURCE_EXHAUSTED.
status constraints_create(const tokenizer *tokens, int32_t vocab, int slots, constraints **out);
void constraints_destroy(constraints *c); // NULL is allowed

// What was in the slot is forgotten; the kind may be GRAMMAR_NONE. `answer` (count) are the tokens
// so far. INVALID_ARGUMENT: the grammar does not compile, or they are no answer under it.
status constraints_open(constraints *c, int slot, const grammar_source *source,
                        const int32_t *answer, int count);

// Whether the slot has one.
bool constraints_has(const constraints *c, int slot);

// (vocab + 31) / 32 words: the tokens that may be sampled in the slot now, at least one. Valid
// until the next call for the slot. NULL: all may.
const uint32_t *constraints_mask(constraints *c, int slot);

// A token was sampled in the slot under its mask.
void constraints_take(constraints *c, int slot, int32_t token);

#endif
