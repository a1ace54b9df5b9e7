// rows: kernels that are nothing but memory traffic: each thread moves four numbers. A block takes
// no part in its neighbours' work, so the number of rows changes no bit.
#include "kernels/cuda/rows.h"

#include <cstring>

#include "device.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/vector.h"

namespace {

enum { THREADS = 256 };

// The first of this thread's N numbers.
template <int N> __device__ inline size_t place() {
    return ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
}

template <class Sums, int N>
__global__ void __launch_bounds__(THREADS)
    narrow_kernel(const Sums *sums, size_t count, float scale, float *out) {
    grid_wait();
    grid_launch_dependents();
    size_t at = place<N>();
    if (at >= count) return;
    floats<N> value = load_floats<N>(sums + at);
#pragma unroll
    for (int i = 0; i < N; i++) value.v[i] *= scale;
    store_floats<N>(out + at, value);
}

template <class Sums, int N>
__global__ void __launch_bounds__(THREADS) add_kernel(float *x, const Sums *sums, size_t count) {
    grid_wait();
    grid_launch_dependents();
    size_t at = place<N>();
    if (at >= count) return;
    floats<N> value = load_floats<N>(x + at), added = load_floats<N>(sums + at);
#pragma unroll
    for (int i = 0; i < N; i++) value.v[i] += added.v[i];
    store_floats<N>(x + at, value);
}

template <int N>
__global__ void __launch_bounds__(THREADS)
    glu_kernel(kernels_activation activation, const float *gate, const float *up, int width,
               int out_stride, __nv_bfloat16 *out) {
    grid_wait();
    grid_launch_dependents();
    int column = (int)(blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (column >= out_stride) return;
    size_t at = (size_t)blockIdx.y * width + column;
    floats<N> value = {}; // zeros between width and stride
    if (column < width) {
        floats<N> g = load_floats<N>(gate + at), u = load_floats<N>(up + at);
#pragma unroll
        for (int i = 0; i < N; i++) value.v[i] = activate(activation, g.v[i]) * u.v[i];
    }
    store_floats<N>(out + (size_t)blockIdx.y * out_stride + column, value);
}

template <int N>
__global__ void __launch_bounds__(THREADS) soft_cap_kernel(float *x, size_t count, float cap) {
    grid_wait();
    grid_launch_dependents();
    size_t at = place<N>();
    if (at >= count) return;
    floats<N> value = load_floats<N>(x + at);
#pragma unroll
    for (int i = 0; i < N; i++) value.v[i] = cap * tanhf(value.v[i] / cap);
    store_floats<N>(x + at, value);
}

template <int N>
__global__ void __launch_bounds__(THREADS)
    gather_kernel(const float *x, const int32_t *rows, int width, float *out) {
    grid_wait();
    grid_launch_dependents();
    int row = rows[blockIdx.y];
    int column = (int)(blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (column >= width) return;
    floats<N> value = {};
    if (row >= 0) value = load_floats<N>(x + (size_t)row * width + column);
    store_floats<N>(out + (size_t)blockIdx.y * width + column, value);
}

// Eight columns of a row for each thread, which writes them at once.
__global__ void __launch_bounds__(THREADS)
    reorder_kernel(const uint16_t *x, const int32_t *order, int width, int stride, uint16_t *out) {
    grid_wait();
    grid_launch_dependents();
    int column = (int)place<8>();
    if (column >= stride) return;
    const uint16_t *row = x + (size_t)blockIdx.y * stride;
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) { // zeros between width and stride
        int at = column + 2 * i;
        uint32_t low = at < width ? row[order[at]] : 0;
        uint32_t high = at + 1 < width ? row[order[at + 1]] : 0;
        words[i] = low | high << 16;
    }
    *reinterpret_cast<uint4 *>(out + (size_t)blockIdx.y * stride + column) =
        make_uint4(words[0], words[1], words[2], words[3]);
}

template <class T> unsigned blocks_for(T count, int per_thread) {
    size_t per_block = (size_t)THREADS * per_thread;
    return (unsigned)(((size_t)count + per_block - 1) / per_block);
}

template <class Sums>
cudaError_t narrow(cudaStream_t stream, const Sums *sums, size_t count, float scale, float *out) {
    bool vector = vector_rows(count, sums, out);
    auto *kernel = vector ? narrow_kernel<Sums, 4> : narrow_kernel<Sums, 1>;
    return launch_dependent(kernel, dim3(blocks_for(count, vector ? 4 : 1)), dim3(THREADS), 0,
                            stream, sums, count, scale, out);
}

template <class Sums>
cudaError_t add(cudaStream_t stream, float *x, const Sums *sums, size_t count) {
    bool vector = vector_rows(count, x, sums);
    auto *kernel = vector ? add_kernel<Sums, 4> : add_kernel<Sums, 1>;
    return launch_dependent(kernel, dim3(blocks_for(count, vector ? 4 : 1)), dim3(THREADS), 0,
                            stream, x, sums, count);
}

// Larger for larger values; NaN, and nothing at all, below every number. -0 counts as 0.
__device__ inline uint32_t ordered(float x) {
    if (x != x) return 0;
    uint32_t bits = __float_as_uint(x + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ inline unsigned long long larger(unsigned long long a, unsigned long long b) {
    return a > b ? a : b;
}

enum { ARGMAX_COLUMNS = 8 * 1024 }; // per block: a vocabulary's row is shared by 16 blocks or so

// The maximum of keys, so neither the order of blocks nor their number can show.
__global__ void __launch_bounds__(THREADS)
    argmax_kernel(const float *logits, int width, unsigned long long *keys) {
    __shared__ unsigned long long partial[THREADS / 32];
    grid_wait();
    grid_launch_dependents();
    const float *row = logits + (size_t)blockIdx.y * width;
    int begin = (int)blockIdx.x * ARGMAX_COLUMNS;
    int end = width - begin > ARGMAX_COLUMNS ? begin + ARGMAX_COLUMNS : width;
    unsigned long long key = 0;
    for (int i = begin + (int)threadIdx.x; i < end; i += THREADS)
        key = larger(key, (unsigned long long)ordered(row[i]) << 32 | (0xffffffffu - (uint32_t)i));
    for (int offset = 16; offset > 0; offset /= 2)
        key = larger(key, __shfl_xor_sync(0xffffffffu, key, offset));
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = key;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 0; warp < THREADS / 32; warp++) key = larger(key, partial[warp]);
    atomicMax(&keys[blockIdx.y], key);
}

} // namespace

cudaError_t cuda_narrow(cudaStream_t stream, const void *sums, kernels_sums type, size_t count,
                        float scale, float *out) {
    if (type == KERNELS_SUMS_EXACT)
        return narrow(stream, static_cast<const double *>(sums), count, scale, out);
    return narrow(stream, static_cast<const __nv_bfloat16 *>(sums), count, scale, out);
}

cudaError_t cuda_add(cudaStream_t stream, float *x, const void *sums, kernels_sums type,
                     size_t count) {
    if (type == KERNELS_SUMS_EXACT) return add(stream, x, static_cast<const double *>(sums), count);
    return add(stream, x, static_cast<const __nv_bfloat16 *>(sums), count);
}

cudaError_t cuda_glu(cudaStream_t stream, kernels_activation activation, const float *gate,
                     const float *up, int tokens, int width, void *out) {
    int stride = matmul_act_stride(width);
    bool vector = vector_rows((size_t)width, gate, up, out);
    auto *kernel = vector ? glu_kernel<4> : glu_kernel<1>;
    return launch_dependent(kernel, dim3(blocks_for(stride, vector ? 4 : 1), (unsigned)tokens),
                            dim3(THREADS), 0, stream, activation, gate, up, width, stride,
                            static_cast<__nv_bfloat16 *>(out));
}

cudaError_t cuda_soft_cap(cudaStream_t stream, float *x, size_t count, float cap) {
    bool vector = vector_rows(count, x);
    auto *kernel = vector ? soft_cap_kernel<4> : soft_cap_kernel<1>;
    return launch_dependent(kernel, dim3(blocks_for(count, vector ? 4 : 1)), dim3(THREADS), 0,
                            stream, x, count, cap);
}

cudaError_t cuda_gather(cudaStream_t stream, const float *x, const int32_t *rows, int count,
                        int width, float *out) {
    bool vector = vector_rows((size_t)width, x, out);
    auto *kernel = vector ? gather_kernel<4> : gather_kernel<1>;
    return launch_dependent(kernel, dim3(blocks_for(width, vector ? 4 : 1), (unsigned)count),
                            dim3(THREADS), 0, stream, x, rows, width, out);
}

cudaError_t cuda_reorder(cudaStream_t stream, const void *x, const int32_t *order, int tokens,
                         int width, void *out) {
    int stride = matmul_act_stride(width);
    return launch_dependent(reorder_kernel, dim3(blocks_for(stride, 8), (unsigned)tokens),
                            dim3(THREADS), 0, stream, static_cast<const uint16_t *>(x), order,
                            width, stride, static_cast<uint16_t *>(out));
}

cudaError_t cuda_argmax(cudaStream_t stream, const float *logits, int count, int width,
                        uint64_t *keys) {
    cudaError_t e = cudaMemsetAsync(keys, 0, (size_t)count * sizeof *keys, stream);
    if (e != cudaSuccess) return e;
    unsigned blocks = (unsigned)((width + ARGMAX_COLUMNS - 1) / ARGMAX_COLUMNS);
    return launch_dependent(argmax_kernel, dim3(blocks, (unsigned)count), dim3(THREADS), 0, stream,
                            logits, width, reinterpret_cast<unsigned long long *>(keys));
}

void cuda_argmax_unpack(uint64_t key, int32_t *column, float *value) {
    *column = (int32_t)(0xffffffffu - (uint32_t)key);
    uint32_t high = (uint32_t)(key >> 32);
    uint32_t bits = high == 0 ? 0x7fc00000u : high >> 31 ? high & 0x7fffffffu : ~high;
    memcpy(value, &bits, sizeof bits);
}
