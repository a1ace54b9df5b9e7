// vector: loads and stores of four neighbouring numbers at once, or of one where a width is odd,
// for kernels that treat rows of numbers; and the sum over a block. May be included by .cu files
// only.
#ifndef OCTANT_KERNELS_CUDA_VECTOR_H
#define OCTANT_KERNELS_CUDA_VECTOR_H

#include "device.h"

// N floats in registers: N is 4, from memory aligned to 16, or 1.
template <int N> struct floats { float v[N]; };

__device__ inline floats<4> load_floats4(const float *p) {
    float4 x = *reinterpret_cast<const float4 *>(p);
    return {{x.x, x.y, x.z, x.w}};
}

template <int N> __device__ inline floats<N> load_floats(const float *p) {
    if constexpr (N == 4)
        return load_floats4(p);
    else
        return {{*p}};
}

// Sums, each rounded to float once.
template <int N> __device__ inline floats<N> load_floats(const double *p) {
    if constexpr (N == 4) {
        double2 a = reinterpret_cast<const double2 *>(p)[0];
        double2 b = reinterpret_cast<const double2 *>(p)[1];
        return {{(float)a.x, (float)a.y, (float)b.x, (float)b.y}};
    } else {
        return {{(float)*p}};
    }
}

template <int N> __device__ inline floats<N> load_floats(const __nv_bfloat16 *p) {
    if constexpr (N == 4) {
        uint2 bits = *reinterpret_cast<const uint2 *>(p);
        return {{__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
                 __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u)}};
    } else {
        return {{__bfloat162float(*p)}};
    }
}

template <int N> __device__ inline void store_floats(float *p, floats<N> x) {
    if constexpr (N == 4)
        *reinterpret_cast<float4 *>(p) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
    else
        *p = x.v[0];
}

__device__ inline uint32_t bf16_pair(float low, float high) {
    return (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(high)) << 16 |
           __bfloat16_as_ushort(__float2bfloat16_rn(low));
}

template <int N> __device__ inline void store_floats(__nv_bfloat16 *p, floats<N> x) {
    if constexpr (N == 4)
        *reinterpret_cast<uint2 *>(p) =
            make_uint2(bf16_pair(x.v[0], x.v[1]), bf16_pair(x.v[2], x.v[3]));
    else
        *p = __float2bfloat16_rn(x.v[0]);
}

template <int N> __device__ inline void store_floats(double *p, floats<N> x) {
    if constexpr (N == 4) {
        reinterpret_cast<double2 *>(p)[0] = make_double2(x.v[0], x.v[1]);
        reinterpret_cast<double2 *>(p)[1] = make_double2(x.v[2], x.v[3]);
    } else {
        *p = x.v[0];
    }
}

// The sum over the block's threads, the same bits in each of them, in an order that depends on the
// block's size only. `partial` has 32 floats in shared memory; all threads take part, whole warps.
__device__ inline float block_sum(float x, float *partial) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, warps = (int)blockDim.x / 32;
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    x = lane < warps ? partial[lane] : 0;
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

// Whether arrays of rows of `width` numbers may be read four at a time.
inline bool vector_rows(size_t width, const void *a, const void *b = nullptr,
                        const void *c = nullptr, const void *d = nullptr) {
    uintptr_t all = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d;
    return width % 4 == 0 && all % 16 == 0;
}

#endif
