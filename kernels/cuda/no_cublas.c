// no_cublas: stands in for cublas.c in a build without cublasLt.h: Octant's own kernels do all products.
#include "common/base/log.h"
#include "kernels/cuda/cublas.h"

status cublas_create(cublas **out) {
    *out = NULL;
    log_warn("cuda", "built without cuBLASLt (cublasLt.h was not found); large products go to "
                     "Octant's own kernels");
    return status_ok();
}

void cublas_destroy(cublas *b) {
    (void)b;
}

bool cublas_wants(const cublas *b, const kernels_weight *w, int tokens) {
    (void)b;
    (void)w;
    (void)tokens;
    return false;
}

status cublas_product(cublas *b, cudaStream_t stream, const weight_pack *w, const float *bias,
                      const void *x, int tokens, void *out, bool bf16) {
    (void)b;
    (void)stream;
    (void)w;
    (void)bias;
    (void)x;
    (void)tokens;
    (void)out;
    (void)bf16;
    return status_error(STATUS_UNIMPLEMENTED, "built without cuBLASLt");
}
