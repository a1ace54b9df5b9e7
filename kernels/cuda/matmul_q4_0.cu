// matmul_q4_0: products with 4-bit weights in blocks of 32.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_q4_0(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::q4_0>(stream, *p);
}
