// matmul_i4: products with 4-bit weights with a scale and a zero point for each 128 columns.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_i4(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::i4>(stream, *p);
}
