// sample: the kernels of sampling and what they read and write. Private to kernels/cuda: sampler.c
// keeps the memory, sample.cu has the kernels.
//
// A row of logits is cut in chunks of SAMPLE_CHUNK tokens, by token number alone. Four launches, or
// two where all rows take their largest logit, so that they can be part of a recorded step; rows
// that need less leave at once:
//   adjust  (chunk, row)  bias, penalties, allowed tokens; the largest of each chunk, bad numbers
//   weigh   (chunk, row)  weights, their mass per chunk, and how they spread over SAMPLE_BINS bins
//   choose  (row)         top-k, top-p, min-p and the draw by radix selection, and nothing is
//   sorted top     (row)         the most probable tokens
// Whatever is summed is an integer (kernels/sampling_math.h), so atomics in any order give the same
// sums, and the result that of kernels/cpu/sample_row.c.
#ifndef OCTANT_KERNELS_CUDA_SAMPLE_H
#define OCTANT_KERNELS_CUDA_SAMPLE_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/sampling.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    SAMPLE_CHUNK = 2048,
    SAMPLE_BINS = 2048,      // of a radix digit: 11 bits
    SAMPLE_SEEN = INT32_MIN, // in a history's counts: the token is in the history; the rest: how
                             // often in the answer
};

// A row of the step, with its slot's parameters.
typedef struct sample_row {
    uint64_t random;
    int32_t slot, judged;      // as in kernels_sample_row
    float inverse_temperature; // 0: greedy
    float top_p, min_p;
    int32_t top_k;
    float repetition_penalty, presence_penalty, frequency_penalty;
    int32_t logprobs;
    int32_t bias_count;
    int32_t has_history, has_mask; // bool
    int32_t unused;
} sample_row;

typedef struct sample_result {
    uint64_t mass; // of exp(logit - max) over the raw row; with logprobs
    float logit, max;
    int32_t token, top_count;
    int32_t top_id[KERNELS_TOP_MAX];
    float top_logit[KERNELS_TOP_MAX];
} sample_result;

// What a chunk's block found.
typedef struct sample_chunk {
    uint64_t best; // the largest adjusted logit, lowest token first: sampling_key << 32 | ~token
    uint64_t mass; // of the weights
    uint64_t raw_mass;
    uint32_t raw_max; // key
    uint32_t bad;     // a number is not finite
} sample_chunk;

// Device memory, but for the numbers. R: rows of a step, N: rows of a batch, S: slots, V: tokens.
typedef struct sample_memory {
    const sample_row *rows;   // (R)
    sample_result *results;   // (R)
    const kernels_bias *bias; // (S, KERNELS_BIAS_MAX), rising ids, equal ones in their order
    int32_t *counts;          // (S, V): SAMPLE_SEEN and times
    const uint32_t *allowed;  // (S, (V + 31) / 32)
    int32_t *tokens;          // (S)
    float *x;                 // (N, V): adjusted logits, then weights
    sample_chunk *chunks;     // (N, chunks)
    uint64_t *bins;           // (N, SAMPLE_BINS)
    int32_t vocab, chunk_count;
    int32_t parts, part_columns;
    int32_t first[KERNELS_PARTS_MAX + 1];
} sample_memory;

// kernels_sample: rows [row, row + count) of the step. `largest_only`: none of them draws or
// reports anything, and adjust and choose do.
cudaError_t sample_rows(cudaStream_t stream, const sample_memory *memory, const float *logits,
                        int row, int count, bool largest_only);

// counts (V) += SAMPLE_SEEN for each token of history (count), and 1 for those from prompt_tokens
// on. counts came zeroed.
cudaError_t sample_count_history(cudaStream_t stream, const int32_t *history, int count,
                                 int prompt_tokens, int32_t *counts);

#ifdef __cplusplus
}
#endif

#endif
