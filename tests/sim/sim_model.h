// sim_model: a model that is no more than a hash, so that every answer is known beforehand, and any
// mix-up on the way to it shows.
//
// The KV entry of a position is a hash of its token and of the entry before it: right tokens in the
// wrong context give another entry. A sampled token is a hash of *all* entries of the sequence, as
// attention reads them all: one block that was overwritten, swapped or never computed gives other
// tokens from there on.
#ifndef OCTANT_TESTS_SIM_MODEL_H
#define OCTANT_TESTS_SIM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/model/sampling.h"
#include "coordinator/core/core.h"

enum { SIM_VOCAB = 48, SIM_EOS = 0, SIM_CONTEXT = 160 };

vocabulary sim_vocabulary(void);

uint64_t sim_salt(const char *model, int version);  // before the first entry: models differ in it
uint64_t sim_entry(uint64_t before, int32_t token); // KV entry after `before`
uint64_t sim_fold(uint64_t folded, uint64_t entry); // attention over one more entry
// The token that follows. `answer_hash` covers the answer so far when a penalty looks at it.
int32_t sim_next(uint64_t folded, const sampling *s, uint64_t seed, uint64_t draw,
                 uint64_t answer_hash);
uint64_t sim_answer_hash(uint64_t hash, int32_t token);
float sim_logprob(uint64_t folded_before, int32_t token);

// What one answer must be.
typedef struct sim_answer {
    int32_t tokens[SIM_CONTEXT + 1]; // as told in pieces: without the end-of-answer token
    int token_count, sampled;        // sampled counts that one too
    buf text;
    answer_finish finish;
} sim_answer;

// The answer of index `index` to a request, cut at `limit` tokens.
void sim_expect(const core_request *r, uint64_t salt, int index, int limit, sim_answer *out);
void sim_answer_free(sim_answer *a);

#endif
