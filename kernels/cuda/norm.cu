// norm: one block per row (norm_row.h). A row is read once, so the kernel moves what it must and
// its time is that of one read and one write.
#include "kernels/cuda/norm.h"

#include "device.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/norm_row.h"

namespace {

template <class Source, int PER, int N>
__global__ void __launch_bounds__(1024)
    norm_kernel(Source source, float *x, const float *weight, float epsilon, int width,
                int out_stride, __nv_bfloat16 *out) {
    norm_row<Source, PER, N>(source, x, weight, epsilon, width, out_stride, out);
}

// x += rmsnorm(sums), then, with OUT, out = rmsnorm(x): the row in registers is first what is
// added, then the sum. Columns and orders are norm_row's.
template <class Sums, int PER, int N, bool OUT>
__global__ void __launch_bounds__(1024)
    add_normed_kernel(const Sums *sums, float *x, const float *post, const float *weight,
                      float epsilon, int width, int out_stride, __nv_bfloat16 *out) {
    __shared__ float partial[2][32];
    constexpr int CHUNKS = PER / N;
    floats<N> value[CHUNKS];
    const int stride = (int)blockDim.x * N, first = (int)threadIdx.x * N;
    const size_t row = (size_t)blockIdx.x * width, out_row = (size_t)blockIdx.x * out_stride;
    grid_wait();
    grid_launch_dependents();
    float squares = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int column = first + c * stride;
        if (column >= width) break;
        value[c] = load_floats<N>(sums + row + column);
#pragma unroll
        for (int i = 0; i < N; i++) squares += value[c].v[i] * value[c].v[i];
    }
    float inverse = 1.0f / sqrtf(block_sum(squares, partial[0]) / (float)width + epsilon);
    squares = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int column = first + c * stride;
        if (column >= width) break;
        floats<N> by = load_floats<N>(post + column), to = load_floats<N>(x + row + column);
#pragma unroll
        for (int i = 0; i < N; i++) {
            value[c].v[i] = to.v[i] + value[c].v[i] * inverse * by.v[i];
            squares += value[c].v[i] * value[c].v[i];
        }
        store_floats<N>(x + row + column, value[c]);
    }
    if constexpr (OUT) {
        inverse = 1.0f / sqrtf(block_sum(squares, partial[1]) / (float)width + epsilon);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            int column = first + c * stride;
            if (column >= width) break;
            floats<N> by = load_floats<N>(weight + column);
#pragma unroll
            for (int i = 0; i < N; i++) value[c].v[i] = value[c].v[i] * inverse * by.v[i];
            store_floats<N>(out + out_row + column, value[c]);
        }
        if ((int)threadIdx.x < out_stride - width)
            out[out_row + width + threadIdx.x] = __float2bfloat16_rn(0.0f);
    }
}

template <class Sums, bool OUT>
cudaError_t add_normed(cudaStream_t stream, float *x, const Sums *sums, const float *post,
                       const float *weight, float epsilon, int tokens, int width, void *out) {
    if (width < 1 || width > CUDA_NORM_WIDTH_MAX) return cudaErrorInvalidValue;
    bool vector = vector_rows((size_t)width, x, sums, post, out) && vector_rows(width, weight);
    int per = norm_per_thread(width);
    auto *kernel = vector ? (per == 32  ? add_normed_kernel<Sums, 32, 4, OUT>
                             : per == 4 ? add_normed_kernel<Sums, 4, 4, OUT>
                                        : add_normed_kernel<Sums, 16, 4, OUT>)
                          : add_normed_kernel<Sums, 32, 1, OUT>; // with 16, sm_80 spills
    return launch_dependent(kernel, dim3((unsigned)tokens), dim3(norm_threads(width)), 0, stream,
                            sums, x, post, weight, epsilon, width, matmul_act_stride(width),
                            static_cast<__nv_bfloat16 *>(out));
}

template <class Sums>
cudaError_t add_normed(cudaStream_t stream, float *x, const void *sums, const float *post,
                       const float *weight, float epsilon, int tokens, int width, void *out) {
    auto *from = static_cast<const Sums *>(sums);
    if (weight)
        return add_normed<Sums, true>(stream, x, from, post, weight, epsilon, tokens, width, out);
    return add_normed<Sums, false>(stream, x, from, post, weight, epsilon, tokens, width, out);
}

template <class Source>
cudaError_t norm(cudaStream_t stream, float *x, Source source, const void *sums,
                 const float *weight, float epsilon, int tokens, int width, void *out) {
    auto *to = static_cast<__nv_bfloat16 *>(out);
    if (width < 1 || width > CUDA_NORM_WIDTH_MAX) return cudaErrorInvalidValue;
    bool vector = vector_rows((size_t)width, x, sums, weight, out);
    int per = norm_per_thread(width);
    auto *kernel = vector ? (per == 32  ? norm_kernel<Source, 32, 4>
                             : per == 4 ? norm_kernel<Source, 4, 4>
                                        : norm_kernel<Source, 16, 4>)
                          : (per == 32 ? norm_kernel<Source, 32, 1> : norm_kernel<Source, 16, 1>);
    return launch_dependent(kernel, dim3((unsigned)tokens), dim3(norm_threads(width)), 0, stream,
                            source, x, weight, epsilon, width, matmul_act_stride(width), to);
}

} // namespace

cudaError_t cuda_rmsnorm(cudaStream_t stream, const float *x, const float *weight, float epsilon,
                         int tokens, int width, void *out) {
    return norm(stream, const_cast<float *>(x), no_sums{}, nullptr, weight, epsilon, tokens, width,
                out);
}

cudaError_t cuda_add_rmsnorm(cudaStream_t stream, float *x, const void *sums, kernels_sums type,
                             const float *weight, float epsilon, int tokens, int width, void *out) {
    if (type == KERNELS_SUMS_EXACT)
        return norm(stream, x, array_sums<double>{static_cast<const double *>(sums)}, sums, weight,
                    epsilon, tokens, width, out);
    return norm(stream, x, array_sums<__nv_bfloat16>{static_cast<const __nv_bfloat16 *>(sums)},
                sums, weight, epsilon, tokens, width, out);
}

cudaError_t cuda_add_normed(cudaStream_t stream, float *x, const void *sums, kernels_sums type,
                            const float *post, const float *weight, float epsilon, int tokens,
                            int width, void *out) {
    if (type == KERNELS_SUMS_EXACT)
        return add_normed<double>(stream, x, sums, post, weight, epsilon, tokens, width, out);
    return add_normed<__nv_bfloat16>(stream, x, sums, post, weight, epsilon, tokens, width, out);
}
