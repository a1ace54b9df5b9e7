// norm: one block per row. A row is read once: it stays in registers between the sum of its squares
// and the scaling, so the kernel moves what it must and its time is that of one read and one write.
// The weight is fetched before the wait for the kernel before, since no kernel writes weights. Each
// thread's columns, and the order of the sum, follow from the width alone: a row gives the same
// bits in any step.
#include "kernels/cuda/norm.h"

#include <type_traits>

#include "device.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/vector.h"

namespace {

struct no_sums {}; // the plain norm

// PER floats per thread, N at a time: thread i has columns (c * threads + i) * N .. + N - 1, c <
// PER / N.
template <class Sums, int PER, int N>
__global__ void __launch_bounds__(1024)
    norm_kernel(float *x, const Sums *sums, const float *weight, float epsilon, int width,
                int out_stride, __nv_bfloat16 *out) {
    __shared__ float partial[32];
    constexpr int CHUNKS = PER / N;
    constexpr bool EARLY = PER <= 16; // more would not leave room in the registers
    floats<N> value[CHUNKS], scale[EARLY ? CHUNKS : 1];
    const int stride = (int)blockDim.x * N, first = (int)threadIdx.x * N;
    if constexpr (EARLY) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            if (first + c * stride < width) scale[c] = load_floats<N>(weight + first + c * stride);
    }
    grid_wait();
    grid_launch_dependents();
    const size_t row = (size_t)blockIdx.x * width, out_row = (size_t)blockIdx.x * out_stride;
    float squares = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int column = first + c * stride;
        if (column >= width) break;
        value[c] = load_floats<N>(x + row + column);
        if constexpr (!std::is_same<Sums, no_sums>::value) {
            floats<N> added = load_floats<N>(sums + row + column);
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

template <class Sums>
cudaError_t norm(cudaStream_t stream, float *x, const Sums *sums, const float *weight,
                 float epsilon, int tokens, int width, void *out) {
    auto *to = static_cast<__nv_bfloat16 *>(out);
    if (width < 1 || width > CUDA_NORM_WIDTH_MAX) return cudaErrorInvalidValue;
    bool vector = vector_rows((size_t)width, x, sums, weight, out);
    bool wide = width > 16 * 1024;
    int per = wide               ? 32
              : width > 2 * 1024 ? 16
                                 : 4; // short rows: more threads, each with less to do
    unsigned threads = (unsigned)((width + per - 1) / per + 31) / 32 * 32;
    auto *kernel = vector ? (wide       ? norm_kernel<Sums, 32, 4>
                             : per == 4 ? norm_kernel<Sums, 4, 4>
                                        : norm_kernel<Sums, 16, 4>)
                          : (wide ? norm_kernel<Sums, 32, 1> : norm_kernel<Sums, 16, 1>);
    return launch_dependent(kernel, dim3((unsigned)tokens), dim3(threads), 0, stream, x, sums,
                            weight, epsilon, width, matmul_act_stride(width), to);
}

} // namespace

cudaError_t cuda_rmsnorm(cudaStream_t stream, const float *x, const float *weight, float epsilon,
                         int tokens, int width, void *out) {
    return norm(stream, const_cast<float *>(x), static_cast<const no_sums *>(nullptr), weight,
                epsilon, tokens, width, out);
}

cudaError_t cuda_add_rmsnorm(cudaStream_t stream, float *x, const void *sums, kernels_sums type,
                             const float *weight, float epsilon, int tokens, int width, void *out) {
    if (type == KERNELS_SUMS_EXACT)
        return norm(stream, x, static_cast<const double *>(sums), weight, epsilon, tokens, width,
                    out);
    return norm(stream, x, static_cast<const __nv_bfloat16 *>(sums), weight, epsilon, tokens, width,
                out);
}
