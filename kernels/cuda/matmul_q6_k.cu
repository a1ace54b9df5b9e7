// matmul_q6_k: products with 6-bit weights, a scale for each 16 columns.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_q6_k(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::q6_k>(stream, *p);
}
