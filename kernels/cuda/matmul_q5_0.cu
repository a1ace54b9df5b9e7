// matmul_q5_0: products with 5-bit weights in blocks of 32.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_q5_0(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::q5_0>(stream, *p);
}
