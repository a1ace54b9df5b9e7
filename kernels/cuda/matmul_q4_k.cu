// matmul_q4_k: products with Q4_K weights: 4 bits, a scale and a minimum for each 32 columns.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_q4_k(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::q4_k>(stream, *p);
}
