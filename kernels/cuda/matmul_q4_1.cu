// matmul_q4_1: products with 4-bit weights with a scale and a minimum for each 32 columns.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_q4_1(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::q4_1>(stream, *p);
}
