// experts: routing, and adding up what the experts give.
//
// Two kernels route: a warp for each token chooses, then one block sorts all choices by expert,
// each warp counting and placing those of every 32nd expert with ballots: no atomics, so the order
// is the same every time. Both are bound by latency; they move kilobytes.
#include "kernels/cuda/experts.h"

#include "device.h"

namespace {

enum {
    CHOOSE_THREADS = 128,
    SORT_THREADS = 1024,
    SORT_WARPS = SORT_THREADS / 32,
    COMBINE_THREADS = 256,
    EACH = EXPERTS_MAX / 32, // logits of a lane
};
constexpr unsigned ALL = 0xffffffff;

struct best {
    float value;
    int index;
};

__device__ inline bool better(float value, int index, const best &b) {
    return value > b.value || (value == b.value && index < b.index);
}

__device__ inline best best_of_warp(best b) {
    for (int step = 16; step > 0; step /= 2) {
        best other = {__shfl_xor_sync(ALL, b.value, step), __shfl_xor_sync(ALL, b.index, step)};
        if (better(other.value, other.index, b)) b = other;
    }
    return b;
}

__global__ void choose(const float *logits, int tokens, int experts, int top, bool renormalise,
                       experts_table out) {
    grid_wait();
    grid_launch_dependents();
    int token = (int)(blockIdx.x * (CHOOSE_THREADS / 32) + threadIdx.x / 32),
        lane = (int)threadIdx.x % 32;
    if (token >= tokens) return;
    float x[EACH], picked[EXPERTS_TOP_MAX];
    bool taken[EACH] = {};
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        x[i] =
            lane + 32 * i < experts ? logits[(size_t)token * experts + lane + 32 * i] : -INFINITY;
        if (!(x[i] > -INFINITY)) x[i] = -INFINITY; // NaN too
    }
    float sum = 0, highest = 0;
#pragma unroll
    for (int k = 0; k < EXPERTS_TOP_MAX; k++) {
        if (k >= top) break;
        best b = {-INFINITY, EXPERTS_MAX};
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (lane + 32 * i < experts && !taken[i] && better(x[i], lane + 32 * i, b))
                b = {x[i], lane + 32 * i};
        b = best_of_warp(b);
        if (k == 0) highest = b.value > -INFINITY ? b.value : 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) taken[i] |= b.index == lane + 32 * i;
        picked[k] = __expf(b.value - highest);
        sum += picked[k];
        if (lane == 0) out.choice[token * top + k] = b.index;
    }
    if (!renormalise) {
        sum = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) sum += __expf(x[i] - highest);
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(ALL, sum, step);
    }
#pragma unroll
    for (int k = 0; k < EXPERTS_TOP_MAX; k++)
        if (k < top && lane == 0)
            out.weight[token * top + k] = sum > 0 ? __fdiv_rn(picked[k], sum) : 0.0f;
}

// How many of the choices are this warp's expert; with a `place`, puts them there.
__device__ inline int sort_expert(const experts_table &t, int expert, int choices, int top,
                                  int place, bool put) {
    int lane = (int)threadIdx.x % 32, found = 0;
    for (int from = 0; from < choices; from += 32) {
        bool mine = from + lane < choices && t.choice[from + lane] == expert;
        unsigned mask = __ballot_sync(ALL, mine);
        if (put && mine) {
            int at = place + found + __popc(mask & ((1u << lane) - 1));
            t.token[at] = (from + lane) / top;
            t.scale[at] = t.weight[from + lane];
            t.slot[from + lane] = at;
        }
        found += __popc(mask);
    }
    return found;
}

__global__ void sort(int choices, int experts, int top, experts_table t) {
    __shared__ int first[EXPERTS_MAX + 1];
    grid_wait();
    grid_launch_dependents();
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    for (int e = warp; e < experts; e += SORT_WARPS) {
        int found = sort_expert(t, e, choices, top, 0, false);
        if (lane == 0) first[e + 1] = found;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        first[0] = 0;
        for (int e = 0; e < experts; e++) first[e + 1] += first[e];
    }
    __syncthreads();
    for (int e = (int)threadIdx.x; e <= experts; e += SORT_THREADS) t.first_slot[e] = first[e];
    for (int e = warp; e < experts; e += SORT_WARPS)
        sort_expert(t, e, choices, top, first[e], true);
}

template <class N>
__global__ void combine(experts_table t, int top, int width, const N *y, void *sums) {
    grid_wait();
    grid_launch_dependents();
    int col = (int)(blockIdx.x * COMBINE_THREADS + threadIdx.x);
    if (col >= width) return;
    N sum = 0;
    for (int k = 0; k < top; k++)
        sum += y[(size_t)t.slot[(size_t)blockIdx.y * top + k] * width + col];
    size_t at = (size_t)blockIdx.y * width + col;
    if (sizeof(N) == 8)
        ((double *)sums)[at] = (double)sum;
    else
        ((__nv_bfloat16 *)sums)[at] = __float2bfloat16((float)sum);
}

} // namespace

static bool holds(int tokens, int experts, int top) {
    return tokens >= 0 && experts >= 1 && experts <= EXPERTS_MAX && top >= 1 && top <= experts &&
           top <= EXPERTS_TOP_MAX;
}

cudaError_t experts_choose(cudaStream_t stream, const float *logits, int tokens, int experts,
                           int top, bool renormalise, const experts_table *out) {
    if (!holds(tokens, experts, top)) return cudaErrorInvalidValue;
    if (tokens == 0) return cudaSuccess;
    unsigned blocks = (unsigned)(tokens * 32 + CHOOSE_THREADS - 1) / CHOOSE_THREADS;
    return launch_dependent(choose, blocks, CHOOSE_THREADS, 0, stream, logits, tokens, experts, top,
                            renormalise, *out);
}

cudaError_t experts_sort(cudaStream_t stream, int tokens, int experts, int top,
                         const experts_table *out) {
    if (!holds(tokens, experts, top)) return cudaErrorInvalidValue;
    return launch_dependent(sort, 1, SORT_THREADS, 0, stream, tokens * top, experts, top, *out);
}

cudaError_t experts_combine(cudaStream_t stream, const experts_table *table, int tokens, int top,
                            int width, const void *y, bool f64, void *sums) {
    if (tokens == 0) return cudaSuccess;
    dim3 grid((unsigned)((width + COMBINE_THREADS - 1) / COMBINE_THREADS), (unsigned)tokens);
    if (f64)
        return launch_dependent(combine<double>, grid, COMBINE_THREADS, 0, stream, *table, top,
                                width, (const double *)y, sums);
    return launch_dependent(combine<float>, grid, COMBINE_THREADS, 0, stream, *table, top, width,
                            (const float *)y, sums);
}
