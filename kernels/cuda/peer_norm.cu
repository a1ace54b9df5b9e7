// peer_norm: the one-shot sum of peer.h and the RMSNorm after it in one kernel: a block has one
// row, sends its part of it to all ranks, and takes theirs straight into the registers in which the
// norm is worked out (norm_row.h). Saves a kernel and a write and read of the sums; but one block,
// hence one multiprocessor, moves a whole row of every rank, which does not pay for wide rows of
// many ranks.
#include "device.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/norm_row.h"
#include "kernels/cuda/peer_device.h"

using namespace peer;

namespace {

constexpr int WIDTH_MAX = 16 * 1024; // wider rows would need more registers than there are

// Four BF16 are one unit of cells, four doubles are four.
template <class T> struct units_of_four;
template <> struct units_of_four<__nv_bfloat16> {
    static constexpr int COUNT = 1;
    typedef bf16_sum<2> sum;
    // As the sum is rounded when it is written: the same bits as by two kernels.
    __device__ static void unpack(const uint32_t (&words)[2], int, floats<4> *out) {
        for (int i = 0; i < 2; i++) {
            out->v[2 * i] = sum::low(words[i]);
            out->v[2 * i + 1] = sum::high(words[i]);
        }
    }
};
template <> struct units_of_four<double> {
    static constexpr int COUNT = 4;
    typedef double_sum<2> sum;
    __device__ static void unpack(const uint32_t (&words)[2], int unit, floats<4> *out) {
        out->v[unit] = (float)sum::pair(words[0], words[1]);
    }
};

// BATCH: as many cells at once as there are registers left.
template <class T, int BATCH> struct peer_sums {
    typedef units_of_four<T> units;
    static constexpr bool ADDS = true, LEAN = true;
    const peer_view &v;
    const T *data;
    uint32_t epoch;
    bool alive;

    __device__ void read(size_t unit, uint32_t (&words)[2]) const {
        uint2 pair = reinterpret_cast<const uint2 *>(data)[unit];
        words[0] = pair.x;
        words[1] = pair.y;
    }

    template <int N> __device__ void begin(size_t at, size_t end, size_t step) {
        static_assert(N == 4, "cells hold four");
        epoch = next_epoch(load_relaxed_sys(&own_head(v)->epoch));
        alive = load_relaxed_sys(&own_head(v)->failed) == 0;
        for (; alive && at < end; at += step) {
#pragma unroll
            for (int i = 0; i < units::COUNT; i++) {
                size_t unit = at / 4 * units::COUNT + i;
                uint32_t words[2];
                read(unit, words);
                send(v, epoch, unit, words);
            }
        }
    }

    template <int N> __device__ floats<4> load(size_t at) {
        floats<4> out = {};
#pragma unroll
        for (int i = 0; i < units::COUNT; i++) {
            size_t unit = at / 4 * units::COUNT + i;
            uint32_t words[2];
            read(unit, words);
            typename units::sum sum = {};
            alive = alive && receive<BATCH>(v, epoch, unit, words, &sum);
            if (alive) sum.finish(words);
            units::unpack(words, i, &out);
        }
        return out;
    }
};

template <class T, int PER>
__global__ void __launch_bounds__(1024)
    peer_norm_kernel(const __grid_constant__ peer_view v, const T *sums, float *x,
                     const float *weight, float epsilon, int width, int out_stride,
                     __nv_bfloat16 *out) {
    typedef peer_sums<T, (sizeof(T) > 2 ? 2 : 4)> source_type;
    source_type source = {v, sums, 0, true};
    norm_row<source_type, PER, 4>(source, x, weight, epsilon, width, out_stride, out);
    finish(v, source.epoch);
}

template <class T>
cudaError_t peer_norm(cudaStream_t stream, const peer_view *view, float *x, const void *sums,
                      const float *weight, float epsilon, int tokens, int width, void *out) {
    size_t bytes = (size_t)tokens * (size_t)width * sizeof(T);
    if (tokens < 1 || width < 1 || width > WIDTH_MAX || view->ranks < 2 ||
        bytes > view->layout.one_shot_bytes || !vector_rows((size_t)width, x, sums, weight, out))
        return cudaErrorInvalidValue;
    auto *kernel = norm_per_thread(width) == 4 ? peer_norm_kernel<T, 4> : peer_norm_kernel<T, 16>;
    return launch_dependent(kernel, dim3((unsigned)tokens), dim3(norm_threads(width)), 0, stream,
                            *view, static_cast<const T *>(sums), x, weight, epsilon, width,
                            matmul_act_stride(width), static_cast<__nv_bfloat16 *>(out));
}

} // namespace

bool peer_norm_takes(const peer_view *view, const float *x, const void *sums, kernels_sums type,
                     const float *weight, int tokens, int width) {
    size_t each = type == KERNELS_SUMS_BF16 ? 2 : 8;
    return (size_t)tokens * (size_t)width * each <= view->layout.one_shot_bytes &&
           width <= WIDTH_MAX && vector_rows((size_t)width, x, sums, weight);
}

cudaError_t peer_one_shot_add_rmsnorm(cudaStream_t stream, const peer_view *view, float *x,
                                      const void *sums, kernels_sums type, const float *weight,
                                      float epsilon, int tokens, int width, void *out) {
    if (type == KERNELS_SUMS_BF16)
        return peer_norm<__nv_bfloat16>(stream, view, x, sums, weight, epsilon, tokens, width, out);
    return peer_norm<double>(stream, view, x, sums, weight, epsilon, tokens, width, out);
}
