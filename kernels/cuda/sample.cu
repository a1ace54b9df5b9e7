// sample: the two kernels that read a row in chunks, and the launches of sample.h.
#include "device.h"

#include "kernels/cuda/sample.h"
#include "kernels/cuda/sample_row.h"

enum { CHUNK_STEPS = SAMPLE_CHUNK / SAMPLE_CHUNK_THREADS };
static_assert(SAMPLE_BINS <= 1 << 11 && (int64_t)SAMPLE_CHUNK << 20 <= UINT32_MAX,
              "20 bits of a mass add up over a chunk in 32 bits");

// The bias of a token: its entries follow one another in the list, which rises.
__device__ static float biased(float x, const kernels_bias *bias, int count, int token) {
    int low = 0, high = count; // the first entry that is not below token
    while (low < high) {
        const int middle = (low + high) / 2;
        if (bias[middle].id < token)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < count && bias[low].id == token; low++) x = SAMPLING_ADD(x, bias[low].bias);
    return x;
}

__device__ static float adjusted(const sample_memory &m, const sample_row &row, float x,
                                 int token) {
    if (row.bias_count > 0)
        x = biased(x, m.bias + (size_t)row.slot * KERNELS_BIAS_MAX, row.bias_count, token);
    if (!row.has_history) return x;
    const int32_t count = m.counts[(size_t)row.slot * m.vocab + token];
    if (count == 0) return x;
    return sampling_penalised(x, row.repetition_penalty, row.frequency_penalty,
                              row.presence_penalty, (uint32_t)count & 0x7FFFFFFFu);
}

__device__ static bool is_allowed(const sample_memory &m, const sample_row &row, int token) {
    const size_t words = ((size_t)m.vocab + 31) / 32;
    return !row.has_mask || (m.allowed[row.slot * words + token / 32] >> token % 32 & 1);
}

// Chunk blockIdx.x of row blockIdx.y of the batch.
__global__ static void __launch_bounds__(SAMPLE_CHUNK_THREADS)
    sample_adjust_kernel(const sample_memory m, const float *logits, int first_row) {
    __shared__ radix_u64 scratch[SAMPLE_CHUNK_WARPS];
    grid_wait();
    grid_launch_dependents();
    const sample_row row = m.rows[first_row + blockIdx.y];
    if (row.slot < 0) return;
    if (blockIdx.x == 0 && sample_draws(row))
        for (int b = threadIdx.x; b < SAMPLE_BINS; b += SAMPLE_CHUNK_THREADS)
            m.bins[(size_t)blockIdx.y * SAMPLE_BINS + b] = 0;
    const sample_logits raw = {logits, (int)blockIdx.y, (int)gridDim.y};
    radix_u64 best = 0, raw_max = 0; // keys are not 0
    bool bad = false;
    for (int i = 0; i < CHUNK_STEPS; i++) {
        const int token = blockIdx.x * SAMPLE_CHUNK + i * SAMPLE_CHUNK_THREADS + threadIdx.x;
        if (token >= m.vocab) break;
        float x = sample_raw(m, raw, token);
        const uint32_t key = sampling_key(x);
        raw_max = key > raw_max ? key : raw_max;
        bad |= !sampling_finite(x);
        if (row.judged >= 0) continue;
        x = adjusted(m, row, x, token);
        bad |= !sampling_finite(x);
        if (!is_allowed(m, row, token)) x = sampling_float(0xFF800000u); // -infinity
        m.x[(size_t)blockIdx.y * m.vocab + token] = x;
        const radix_u64 candidate = (radix_u64)sampling_key(x) << 32 | ~(uint32_t)token;
        best = candidate > best ? candidate : best;
    }
    best = radix_max(best, scratch);
    raw_max = radix_max((radix_u64)bad << 32 | raw_max, scratch);
    if (threadIdx.x != 0) return;
    sample_chunk *out = &m.chunks[(size_t)blockIdx.y * m.chunk_count + blockIdx.x];
    out->best = best;
    out->raw_max = (uint32_t)raw_max;
    out->bad = (uint32_t)(raw_max >> 32);
}

// How a chunk's weights spread over the bins: counts or masses in two halves, since shared memory
// adds 32 bits at once, but 64 only by trying.
struct chunk_bins {
    uint32_t low[SAMPLE_BINS], high[SAMPLE_BINS];
};

enum { LOW_BITS = 20 };

__device__ static void clear_bins(chunk_bins *bins) {
    for (int b = threadIdx.x; b < SAMPLE_BINS; b += SAMPLE_CHUNK_THREADS)
        bins->low[b] = bins->high[b] = 0;
    __syncthreads();
}

__device__ static void put_in_bin(chunk_bins *bins, sample_filter filter, float weight,
                                  uint64_t mass) {
    if (mass == 0) return; // will not be drawn, whoever keeps it
    const uint32_t bin = sampling_bits(weight) >> SAMPLE_WEIGHT_SHIFT;
    const uint64_t value = filter == SAMPLE_TOP_K ? 1 : mass;
    atomicAdd(&bins->low[bin], (uint32_t)value & ((1u << LOW_BITS) - 1));
    if (value >> LOW_BITS) atomicAdd(&bins->high[bin], (uint32_t)(value >> LOW_BITS));
}

__device__ static void add_bins(const chunk_bins *bins, uint64_t *out) {
    __syncthreads();
    for (int b = threadIdx.x; b < SAMPLE_BINS; b += SAMPLE_CHUNK_THREADS) {
        const radix_u64 value = ((radix_u64)bins->high[b] << LOW_BITS) + bins->low[b];
        if (value) atomicAdd(reinterpret_cast<radix_u64 *>(out) + b, value);
    }
}

// Chunk blockIdx.x of row blockIdx.y of the batch.
__global__ static void __launch_bounds__(SAMPLE_CHUNK_THREADS)
    sample_weigh_kernel(const sample_memory m, const float *logits, int first_row) {
    __shared__ radix_u64 scratch[SAMPLE_CHUNK_WARPS];
    DYN_SMEM(dynamic);
    chunk_bins *bins = reinterpret_cast<chunk_bins *>(dynamic);
    grid_wait();
    grid_launch_dependents();
    const sample_row row = m.rows[first_row + blockIdx.y];
    if (row.slot < 0 || (!sample_draws(row) && !sample_reports(row))) return;
    const sample_summary all = sample_summarise(m, blockIdx.y, scratch);
    if (all.bad) return;
    const bool draws = sample_draws(row) && sampling_finite(all.max), reports = sample_reports(row);
    const sample_filter filter = draws ? sample_first_filter(row, m.vocab) : SAMPLE_NO_FILTER;
    if (filter != SAMPLE_NO_FILTER) clear_bins(bins);
    const sample_logits raw = {logits, (int)blockIdx.y, (int)gridDim.y};
    radix_u64 mass = 0, raw_mass = 0;
    for (int i = 0; i < CHUNK_STEPS; i++) {
        const int token = blockIdx.x * SAMPLE_CHUNK + i * SAMPLE_CHUNK_THREADS + threadIdx.x;
        if (token >= m.vocab) break;
        if (reports)
            raw_mass += sampling_mass(sampling_weight(sample_raw(m, raw, token), all.raw_max, 1));
        if (!draws) continue;
        float *x = &m.x[(size_t)blockIdx.y * m.vocab + token];
        const float weight = sampling_weight(*x, all.max, row.inverse_temperature);
        *x = weight;
        mass += sampling_mass(weight);
        if (filter != SAMPLE_NO_FILTER) put_in_bin(bins, filter, weight, sampling_mass(weight));
    }
    if (filter != SAMPLE_NO_FILTER) add_bins(bins, m.bins + (size_t)blockIdx.y * SAMPLE_BINS);
    mass = radix_sum(mass, scratch);
    raw_mass = radix_sum(raw_mass, scratch);
    if (threadIdx.x != 0) return;
    sample_chunk *out = &m.chunks[(size_t)blockIdx.y * m.chunk_count + blockIdx.x];
    out->mass = mass;
    out->raw_mass = raw_mass;
}

__global__ static void sample_count_kernel(const int32_t *history, int count, int prompt_tokens,
                                           int32_t *counts) {
    grid_wait();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    atomicOr(&counts[history[i]], SAMPLE_SEEN);
    if (i >= prompt_tokens) atomicAdd(&counts[history[i]], 1);
}

cudaError_t sample_count_history(cudaStream_t stream, const int32_t *history, int count,
                                 int prompt_tokens, int32_t *counts) {
    if (count == 0) return cudaSuccess;
    const dim3 grid((unsigned)(count + 255) / 256);
    return launch(sample_count_kernel, grid, dim3(256), 0, stream, history, count, prompt_tokens,
                  counts);
}

cudaError_t sample_rows(cudaStream_t stream, const sample_memory *memory, const float *logits,
                        int row, int count, bool largest_only) {
    const dim3 grid((unsigned)memory->chunk_count, (unsigned)count), block(SAMPLE_CHUNK_THREADS);
    cudaError_t e =
        launch_dependent(sample_adjust_kernel, grid, block, 0, stream, *memory, logits, row);
    if (e == cudaSuccess && !largest_only)
        e = launch_dependent(sample_weigh_kernel, grid, block, sizeof(chunk_bins), stream, *memory,
                             logits, row);
    return e == cudaSuccess ? sample_choose(stream, memory, logits, row, count, largest_only) : e;
}
