// matmul_f8_e4m3: products with FP8 weights, a scale for each row.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_f8_e4m3(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::f8_e4m3>(stream, *p);
}
