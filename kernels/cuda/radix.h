// radix: selection by radix in one block: which of many values is the n-th largest, or where a walk
// from the largest down reaches a mass. A digit is SAMPLE_BINS wide: a histogram of the digit, a
// scan of the histogram, then the same for the next digit among the values of the bin that was hit.
// Counts and masses are integers, so the order in which threads add does not matter.
//
// For .cu files of kernels/cuda. All functions here are called by all threads of a block.
#ifndef OCTANT_KERNELS_CUDA_RADIX_H
#define OCTANT_KERNELS_CUDA_RADIX_H

#include "device.h"

#include "kernels/cuda/sample.h"

enum {
    RADIX_THREADS = 512,
    RADIX_WARPS = RADIX_THREADS / 32,
    RADIX_BINS_EACH = SAMPLE_BINS / RADIX_THREADS, // of a thread
};

// 64-bit integers as CUDA's atomics know them.
typedef unsigned long long radix_u64;

// The walk's shared memory. T counts: radix_u64 for masses, uint32_t where counts fit.
template <class T> struct radix_walk {
    T bin[SAMPLE_BINS];
    T warp[RADIX_WARPS];
    T before; // the sum of the bins before the one that was hit
    int hit;
};

template <class T> __device__ inline T radix_warp_sum(T v) {
#pragma unroll
    for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(~0u, v, by);
    return v;
}

template <class T> __device__ inline T radix_warp_max(T v) {
#pragma unroll
    for (int by = 16; by > 0; by /= 2) {
        const T other = __shfl_xor_sync(~0u, v, by);
        v = other > v ? other : v;
    }
    return v;
}

// The sum of v over the block, known to all. `scratch` (a place for each warp) is free afterwards.
template <class T> __device__ inline T radix_sum(T v, T *scratch) {
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    v = radix_warp_sum(v);
    if (threadIdx.x % 32 == 0) scratch[warp] = v;
    __syncthreads();
    T total = 0;
    for (int i = 0; i < warps; i++) total += scratch[i];
    __syncthreads();
    return total;
}

template <class T> __device__ inline T radix_max(T v, T *scratch) {
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    v = radix_warp_max(v);
    if (threadIdx.x % 32 == 0) scratch[warp] = v;
    __syncthreads();
    T most = scratch[0];
    for (int i = 1; i < warps; i++) most = scratch[i] > most ? scratch[i] : most;
    __syncthreads();
    return most;
}

template <class T> __device__ inline void radix_clear(radix_walk<T> *walk) {
    __syncthreads(); // the last walk's readers
    for (int i = threadIdx.x; i < SAMPLE_BINS; i += RADIX_THREADS) walk->bin[i] = 0;
    __syncthreads();
}

// bin[at] += value where `take`. Values that a warp brings to one and the same bin are added up
// first: many equal values would else queue at one address. Called by whole warps.
template <class T>
__device__ inline void radix_add(radix_walk<T> *walk, bool take, uint32_t at, T value) {
    const unsigned takers = __ballot_sync(~0u, take);
    if (takers == 0) return;
    const int first = __ffs((int)takers) - 1;
    const uint32_t at_first = __shfl_sync(~0u, at, first);
    const bool alike = take && at == at_first;
    if (__ballot_sync(~0u, alike) == takers) {
        const T sum = radix_warp_sum(take ? value : (T)0);
        if ((int)(threadIdx.x % 32) == first) atomicAdd(&walk->bin[at], sum);
    } else if (take) {
        atomicAdd(&walk->bin[at], value);
    }
}

// The bin in which a walk over the bins, from the last one down or from the first one up, reaches
// `target` (>= 1): walk->hit, and walk->before, what lies in the bins before it. hit is -1 if all
// bins together are less.
template <bool DOWN, class T> __device__ inline void radix_find(radix_walk<T> *walk, T target) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads(); // the histogram is complete
    T mine[RADIX_BINS_EACH], sum = 0;
#pragma unroll
    for (int i = 0; i < RADIX_BINS_EACH; i++) {
        const int at = threadIdx.x * RADIX_BINS_EACH + i;
        mine[i] = walk->bin[DOWN ? SAMPLE_BINS - 1 - at : at];
        sum += mine[i];
    }
    T upto = sum; // of this thread's bins and those before, in the warp
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
        const T other = __shfl_up_sync(~0u, upto, by);
        if (lane >= by) upto += other;
    }
    if (lane == 31) walk->warp[warp] = upto;
    if (threadIdx.x == 0) walk->hit = -1;
    __syncthreads();
    T before = upto - sum;
    for (int i = 0; i < warp; i++) before += walk->warp[i];
#pragma unroll
    for (int i = 0; i < RADIX_BINS_EACH; i++) {
        if (before < target && target <= before + mine[i]) {
            const int at = threadIdx.x * RADIX_BINS_EACH + i;
            walk->hit = DOWN ? SAMPLE_BINS - 1 - at : at;
            walk->before = before;
        }
        before += mine[i];
    }
    __syncthreads();
}

#endif
