// sampling: how the next token is chosen from the logits: the parameters that travel with a request from the ingress to the rank
// that samples. Semantics and order are those of kernels/sampling.h; ranges those of OpenAI's API where it has the parameter.
#ifndef OCTANT_MODEL_SAMPLING_H
#define OCTANT_MODEL_SAMPLING_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"

enum { SAMPLING_BIAS_MAX = 1024, SAMPLING_LOGPROBS_MAX = 20 };

typedef struct sampling_bias {
    int32_t id;
    float bias; // added to the logit, -100 to 100
} sampling_bias;

typedef struct sampling {
    float temperature;        // 0 to 2; 0 is greedy
    int32_t top_k;            // 0 is off
    float top_p;              // (0, 1]; 1 is off
    float min_p;              // [0, 1]; 0 is off
    float repetition_penalty; // (0, 10]; 1 is off. Over prompt and answer (Keskar et al. 2019)
    float presence_penalty;   // -2 to 2; 0 is off. Over the answer only, as OpenAI's
    float frequency_penalty;  // -2 to 2; 0 is off. Over the answer only
    uint64_t seed;
    int32_t logprobs;         // -1: none; else alternatives to report, 0 to SAMPLING_LOGPROBS_MAX
    int32_t bias_count;
    const sampling_bias *bias; // owned by whoever owns the request
} sampling;

// Temperature 1, everything else off, seed 0.
sampling sampling_default(void);

// INVALID_ARGUMENT names the parameter, its value and the range (NaN is never in range); bias ids are within [0, vocab).
status sampling_check(const sampling *s, int32_t vocab);

// True when a penalty looks at the tokens so far.
bool sampling_needs_history(const sampling *s);

#endif
