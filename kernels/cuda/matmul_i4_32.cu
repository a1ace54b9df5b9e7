// matmul_i4_32: products with 4-bit weights with a scale and a zero point for each 32 columns.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_i4_32(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::i4_32>(stream, *p);
}
