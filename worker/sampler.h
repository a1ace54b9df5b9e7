// sampler: from one row of logits to one token. Pure: no state between rows but scratch memory, so
// a token depends on the logits, the parameters, the history and the count of draws so far, and on
// nothing else.
//
// Order (that of vLLM, whose parameters these are; llama.cpp has the same filters and applies
// temperature last):
//   logit bias -> penalties (repetition, frequency, presence) -> temperature -> top-k -> top-p ->
//   min-p -> draw
// Temperature 0 takes the largest logit after bias and penalties, the lowest id on a tie. Each
// filter sees the distribution that the one before it left, made to sum to 1 again. Log
// probabilities are those of the model itself: log-softmax of the raw logits, before bias,
// penalties and temperature, as vLLM's default.
#ifndef OCTANT_WORKER_SAMPLER_H
#define OCTANT_WORKER_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/model/sampling.h"
#include "proto/cluster_msg.h"

typedef struct sampler sampler;

// Scratch for rows of `vocab` logits. RESOURCE_EXHAUSTED when memory is short.
status sampler_create(int vocab, sampler **out);
void sampler_destroy(sampler *s); // NULL is allowed

typedef struct sampler_input {
    const sampling *params;
    uint64_t draws;         // draws of the seed already used
    const int32_t *history; // the sequence so far; needed only where sampling_needs_history
    int history_count;
    int prompt_tokens; // the first of history that are the prompt's
} sampler_input;

typedef struct sampler_choice {
    int32_t token;    // -1 with bad_numbers
    bool bad_numbers; // a logit was NaN or infinite
    float logprob;    // of token; valid when params->logprobs >= 0
    int top_count;
    token_choice
        top[SAMPLING_LOGPROBS_MAX]; // the most probable tokens, falling; lower id first on a tie
} sampler_choice;

// Overwrites logits (vocab).
void sampler_choose(sampler *s, float *logits, const sampler_input *input, sampler_choice *out);

// The log probability of `token` and the `top_count` most probable tokens (at most the vocabulary)
// under the raw logits, which stay. Returns how many were written to top. -1: bad numbers.
int sampler_logprobs(const sampler *s, const float *logits, int32_t token, int top_count,
                     float *logprob, token_choice *top);

#endif
