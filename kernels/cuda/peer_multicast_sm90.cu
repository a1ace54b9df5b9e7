// peer_multicast: see peer_multicast.h. A block meets only the blocks of its own number, so it
// copies of every slice the units that they will ask for. The result is written over the parts that
// it is the sum of: who asks for a unit's sum is the only one to read or write it between the
// meetings.
#include "kernels/cuda/peer_multicast.h"

#include "device_multimem.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/norm_row.h"
#include "kernels/cuda/peer_device.h"

using namespace peer;

namespace {

constexpr int THREADS = 256;
constexpr int ASKED = 4;             // sums that a thread has under way at once
constexpr int WIDTH_MAX = 16 * 1024; // wider rows would need more registers than there are

// A unit, 16 bytes: its sums over all ranks, from the multicast address.
template <class T> struct unit_of;
template <> struct unit_of<__nv_bfloat16> {
    __device__ static uint4 sum(const unsigned char *at) { return multimem_sum_bf16x8(at); }
};
template <> struct unit_of<double> {
    __device__ static uint4 sum(const unsigned char *at) {
        uint64_t a = (uint64_t)__double_as_longlong(multimem_sum_f64(at));
        uint64_t b = (uint64_t)__double_as_longlong(multimem_sum_f64(at + 8));
        return make_uint4((uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, (uint32_t)(b >> 32));
    }
};

__device__ uint4 *own_unit(const multicast_view &m, size_t unit) {
    return reinterpret_cast<uint4 *>(m.own + unit * 16);
}

// Units at, at + step, ... below `end`: their sums, to everybody.
template <class T>
__device__ void sum_units(const multicast_view &m, size_t at, size_t end, size_t step) {
    for (; at < end; at += ASKED * step) {
        uint4 sums[ASKED];
#pragma unroll
        for (int i = 0; i < ASKED; i++)
            if (at + i * step < end) sums[i] = unit_of<T>::sum(m.all + (at + i * step) * 16);
#pragma unroll
        for (int i = 0; i < ASKED; i++)
            if (at + i * step < end) multimem_store16(m.all + (at + i * step) * 16, sums[i]);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    multicast_kernel(const __grid_constant__ peer_view v, multicast_view m, unsigned char *data,
                     size_t bytes) {
    grid_wait();
    uint32_t epoch = next_epoch(load_relaxed_sys(&own_head(v)->epoch));
    // Read by one thread: the block's threads must go the same way.
    bool failed = threadIdx.x == 0 && load_relaxed_sys(&own_head(v)->failed) != 0;
    if (!__syncthreads_or(failed)) {
        size_t units = (bytes + 15) / 16, step = (size_t)gridDim.x * THREADS;
        size_t first = (size_t)blockIdx.x * THREADS + threadIdx.x;
        slices s = {units, (units + v.ranks - 1) / v.ranks};
        uint32_t words[4];
        for (int rank = 0; rank < v.ranks; rank++)
            for (size_t u = s.begin(rank) + first; u < s.begin(rank + 1); u += step) {
                load_words(data, bytes, u * 4, words);
                *own_unit(m, u) = as_uint4(words);
            }
        if (meet<true>(v, epoch, 0)) {
            grid_launch_dependents();
            sum_units<T>(m, s.begin(v.rank) + first, s.begin(v.rank + 1), step);
            if (meet<true>(v, epoch, 1))
                for (int rank = 0; rank < v.ranks; rank++)
                    for (size_t u = s.begin(rank) + first; u < s.begin(rank + 1); u += step) {
                        uint4 sum = *own_unit(m, u);
                        const uint32_t result[4] = {sum.x, sum.y, sum.z, sum.w};
                        store_words(data, bytes, u * 4, result);
                    }
        }
    }
    finish(v, epoch);
}

// ---- With the norm: a block has one row, and each rank a part of it

template <class T> struct row_sums {
    static constexpr bool ADDS = true, LEAN = true;
    static constexpr size_t VALUES = 16 / sizeof(T); // of a unit
    const peer_view &v;
    const multicast_view &m;
    const T *data;
    uint32_t epoch;
    bool alive;

    template <int N> __device__ void begin(size_t at, size_t end, size_t) {
        size_t row = (at - threadIdx.x * N) / VALUES, units = end / VALUES - row;
        epoch = next_epoch(load_relaxed_sys(&own_head(v)->epoch));
        bool failed = threadIdx.x == 0 && load_relaxed_sys(&own_head(v)->failed) != 0;
        alive = __syncthreads_or(failed) == 0;
        if (!alive) return;
        for (size_t u = row + threadIdx.x; u < row + units; u += blockDim.x)
            *own_unit(m, u) = reinterpret_cast<const uint4 *>(data)[u];
        alive = meet<true>(v, epoch, 0);
        if (!alive) return;
        slices s = {units, (units + v.ranks - 1) / v.ranks};
        sum_units<T>(m, row + s.begin(v.rank) + threadIdx.x, row + s.begin(v.rank + 1), blockDim.x);
        alive = meet<true>(v, epoch, 1);
    }

    template <int N> __device__ floats<N> load(size_t at) {
        if (!alive) return {};
        return load_floats<N>(reinterpret_cast<const T *>(m.own) + at);
    }
};

template <class T, int PER>
__global__ void __launch_bounds__(1024)
    multicast_norm_kernel(const __grid_constant__ peer_view v, multicast_view m, const T *sums,
                          float *x, const float *weight, float epsilon, int width, int out_stride,
                          __nv_bfloat16 *out) {
    row_sums<T> source = {v, m, sums, 0, true};
    norm_row<row_sums<T>, PER, 4>(source, x, weight, epsilon, width, out_stride, out);
    finish(v, source.epoch);
}

template <class T>
cudaError_t multicast_norm(cudaStream_t stream, const peer_view *view, const multicast_view *memory,
                           float *x, const void *sums, const float *weight, float epsilon,
                           int tokens, int width, void *out) {
    auto *kernel =
        norm_per_thread(width) == 4 ? multicast_norm_kernel<T, 4> : multicast_norm_kernel<T, 16>;
    return launch_dependent(kernel, dim3((unsigned)tokens), dim3(norm_threads(width)), 0, stream,
                            *view, *memory, static_cast<const T *>(sums), x, weight, epsilon, width,
                            matmul_act_stride(width), static_cast<__nv_bfloat16 *>(out));
}

size_t bytes_of(size_t count, kernels_sums type) {
    return count * (type == KERNELS_SUMS_BF16 ? 2 : 8);
}

// As many blocks for every rank: the shape depends on the message alone.
int blocks_for(size_t units) {
    size_t blocks = (units + THREADS - 1) / THREADS;
    return blocks < PEER_BLOCKS_MAX ? (int)blocks : (int)PEER_BLOCKS_MAX;
}

} // namespace

cudaError_t peer_multicast_sum(cudaStream_t stream, const peer_view *view,
                               const multicast_view *memory, void *data, size_t count,
                               kernels_sums type) {
    size_t bytes = bytes_of(count, type), units = (bytes + 15) / 16, ranks = (size_t)view->ranks;
    if (ranks < 1 || ranks > PEER_RANKS_MAX || bytes == 0 || units * 16 > memory->bytes ||
        (uintptr_t)data % 16 != 0)
        return cudaErrorInvalidValue;
    dim3 grid(blocks_for((units + ranks - 1) / ranks));
    auto *kernel =
        type == KERNELS_SUMS_BF16 ? multicast_kernel<__nv_bfloat16> : multicast_kernel<double>;
    return launch_dependent(kernel, grid, THREADS, 0, stream, *view, *memory,
                            static_cast<unsigned char *>(data), bytes);
}

bool peer_multicast_norm_takes(const multicast_view *memory, const float *x, const void *sums,
                               kernels_sums type, const float *weight, int tokens, int width) {
    size_t row = bytes_of((size_t)width, type);
    return tokens >= 1 && tokens <= PEER_BLOCKS_MAX && width >= 1 && width <= WIDTH_MAX &&
           row % 16 == 0 && (size_t)tokens * row <= memory->bytes &&
           vector_rows((size_t)width, x, sums, weight);
}

cudaError_t peer_multicast_add_rmsnorm(cudaStream_t stream, const peer_view *view,
                                       const multicast_view *memory, float *x, const void *sums,
                                       kernels_sums type, const float *weight, float epsilon,
                                       int tokens, int width, void *out) {
    if (!peer_multicast_norm_takes(memory, x, sums, type, weight, tokens, width) ||
        (uintptr_t)out % 16 != 0)
        return cudaErrorInvalidValue;
    if (type == KERNELS_SUMS_BF16)
        return multicast_norm<__nv_bfloat16>(stream, view, memory, x, sums, weight, epsilon, tokens,
                                             width, out);
    return multicast_norm<double>(stream, view, memory, x, sums, weight, epsilon, tokens, width,
                                  out);
}
