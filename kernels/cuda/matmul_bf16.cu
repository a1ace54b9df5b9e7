// matmul_bf16: products with plain BF16 rows.
#include "kernels/cuda/matmul_kernel.h"

cudaError_t matmul_start_bf16(cudaStream_t stream, const matmul_plan *p) {
    return matmul_kernel::start<weight_format::bf16>(stream, *p);
}
