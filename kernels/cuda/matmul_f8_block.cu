// matmul_f8_block: products with FP8 weights with a scale for each 128 columns.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_f8_block(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::f8_block>(stream, *p);
}
