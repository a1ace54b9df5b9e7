// sample_row: what the kernels of sample.cu and sample_choose.cu share. For those files only.
#ifndef OCTANT_KERNELS_CUDA_SAMPLE_ROW_H
#define OCTANT_KERNELS_CUDA_SAMPLE_ROW_H

#include "device.h"

#include "kernels/cuda/radix.h"
#include "kernels/cuda/sample.h"
#include "kernels/sampling_math.h"

enum {
    SAMPLE_CHUNK_THREADS = 256,
    SAMPLE_CHUNK_WARPS = SAMPLE_CHUNK_THREADS / 32,
    SAMPLE_WEIGHT_SHIFT = 19, // of a weight's bits (30), to its first digit: 16 bins per octave
};

// The raw logits of one row, in their parts.
struct sample_logits {
    const float *logits;
    int row, count; // of the batch
};

__device__ inline float sample_raw(const sample_memory &m, const sample_logits &l, int token) {
    int part = 0;
    while (token >= m.first[part + 1]) part++;
    const int width = m.first[part + 1] - m.first[part];
    return l.logits[(size_t)part * l.count * m.part_columns + (size_t)l.row * width + token -
                    m.first[part]];
}

__device__ inline float sample_float_of_key(uint32_t key) {
    return sampling_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

// The chunks' findings for a whole row. Called by all threads of a block.
struct sample_summary {
    float max, raw_max; // max is -infinity when no token is allowed
    int best;           // the token of max, the lowest
    bool bad;
};

__device__ inline sample_summary sample_summarise(const sample_memory &m, int row,
                                                  radix_u64 *scratch) {
    radix_u64 best = 0, raw = 0; // raw: the key, and above it whether a number is bad
    for (int c = threadIdx.x; c < m.chunk_count; c += blockDim.x) {
        const sample_chunk &chunk = m.chunks[(size_t)row * m.chunk_count + c];
        best = chunk.best > best ? chunk.best : best;
        const radix_u64 r = (radix_u64)chunk.bad << 32 | chunk.raw_max;
        raw = r > raw ? r : raw;
    }
    best = radix_max(best, scratch);
    raw = radix_max(raw, scratch);
    sample_summary s;
    s.max = sample_float_of_key((uint32_t)(best >> 32));
    s.best = (int)~(uint32_t)best;
    s.raw_max = sample_float_of_key((uint32_t)raw);
    s.bad = raw >> 32 != 0;
    return s;
}

// Which filter has its bins made by the weigh kernel: the first that is on.
enum sample_filter { SAMPLE_NO_FILTER, SAMPLE_TOP_K, SAMPLE_TOP_P };

__device__ inline sample_filter sample_first_filter(const sample_row &row, int vocab) {
    if (row.top_k > 0 && row.top_k < vocab) return SAMPLE_TOP_K;
    return row.top_p < 1 ? SAMPLE_TOP_P : SAMPLE_NO_FILTER;
}

__device__ inline bool sample_draws(const sample_row &row) {
    return row.judged < 0 && row.inverse_temperature > 0;
}

__device__ inline bool sample_reports(const sample_row &row) {
    return row.judged >= 0 || row.logprobs >= 0;
}

// choose, and top unless `largest_only` (sample_choose.cu).
cudaError_t sample_choose(cudaStream_t stream, const sample_memory *memory, const float *logits,
                          int row, int count, bool largest_only);

#endif
