// matmul_i8: products with 8-bit integers, a scale for each row.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_i8(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::i8>(stream, *p);
}
