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
