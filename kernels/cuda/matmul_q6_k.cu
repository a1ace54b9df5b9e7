// matmul_q6_k: products with Q6_K weights as 8-bit integers, a scale for each 16 columns.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_q6_k(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::q6_k>(stream, *p);
}
