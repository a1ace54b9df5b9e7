// norm_row: RMSNorm of one row by one block, with something added to the row first. A row is read
// once: it stays in registers between the sum of its squares and the scaling. Each thread's
// columns, and the order of the sum, follow from the width alone: a row gives the same bits in any
// step, and in every kernel that is made of this. May be included by .cu files only.
#ifndef OCTANT_KERNELS_CUDA_NORM_ROW_H
#define OCTANT_KERNELS_CUDA_NORM_ROW_H

#include "device.h"
#include "kernels/cuda/vector.h"

// What is added. A source has
//   ADDS                     whether there is anything to add
//   LEAN                     whether it needs the registers that early weights would take
//   begin(at, count, step)   before the first load: this thread will ask for the N columns at `at`,
//                            at + step, ..., below the row's end
//   load<N>(at)              the N numbers at `at` of the array
struct no_sums {
    static constexpr bool ADDS = false, LEAN = false;
    template <int N> __device__ void begin(size_t, size_t, size_t) {}
    template <int N> __device__ floats<N> load(size_t) { return {}; }
};

template <class T> struct array_sums {
    static constexpr bool ADDS = true, LEAN = false;
    const T *sums;
    template <int N> __device__ void begin(size_t, size_t, size_t) {}
    template <int N> __device__ floats<N> load(size_t at) { return load_floats<N>(sums + at); }
};

// PER floats per thread, N at a time: thread i has columns (c * threads + i) * N .. + N - 1, c <
// PER / N. The weight is fetched before the wait for the kernel before, since no kernel writes
// weights.
template <class Source, int PER, int N>
__device__ void norm_row(Source &source, float *x, const float *weight, float epsilon, int width,
                         int out_stride, __nv_bfloat16 *out) {
    __shared__ float partial[32];
    constexpr int CHUNKS = PER / N;
    constexpr bool EARLY = PER <= 16 && !Source::LEAN; // more would not leave room in the registers
    floats<N> value[CHUNKS], scale[EARLY ? CHUNKS : 1];
    const int stride = (int)blockDim.x * N, first = (int)threadIdx.x * N;
    if constexpr (EARLY) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            if (first + c * stride < width) scale[c] = load_floats<N>(weight + first + c * stride);
    }
    const size_t row = (size_t)blockIdx.x * width, out_row = (size_t)blockIdx.x * out_stride;
    grid_wait();
    source.template begin<N>(row + first, row + width, stride);
    grid_launch_dependents();
    float squares = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int column = first + c * stride;
        if (column >= width) break;
        value[c] = load_floats<N>(x + row + column);
        if constexpr (Source::ADDS) {
            floats<N> added = source.template load<N>(row + column);
#pragma unroll
            for (int i = 0; i < N; i++) value[c].v[i] += added.v[i];
            store_floats<N>(x + row + column, value[c]);
        }
#pragma unroll
        for (int i = 0; i < N; i++) squares += value[c].v[i] * value[c].v[i];
    }
    float inverse = 1.0f / sqrtf(block_sum(squares, partial) / (float)width + epsilon);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int column = first + c * stride;
        if (column >= width) break;
        floats<N> by = EARLY ? scale[EARLY ? c : 0] : load_floats<N>(weight + column);
#pragma unroll
        for (int i = 0; i < N; i++) value[c].v[i] = value[c].v[i] * inverse * by.v[i];
        store_floats<N>(out + out_row + column, value[c]);
    }
    if ((int)threadIdx.x < out_stride - width)
        out[out_row + width + threadIdx.x] = __float2bfloat16_rn(0.0f);
}

// How a row of `width` is cut: floats per thread, and threads. Short rows: more threads, each with
// less to do.
inline int norm_per_thread(int width) {
    return width > 16 * 1024 ? 32 : width > 2 * 1024 ? 16 : 4;
}

inline unsigned norm_threads(int width) {
    int per = norm_per_thread(width);
    return (unsigned)((width + per - 1) / per + 31) / 32 * 32;
}

#endif
