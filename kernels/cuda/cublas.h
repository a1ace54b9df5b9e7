// cublas: large products by cuBLASLt, which knows each card's matrix units better than we do. Used
// only with the option `fast`: the library chooses its way by the number of rows, so a row's bits
// depend on the batch.
//
// The library is looked for when the backend is made (dlopen): a build needs its header only, a
// machine without it runs on. Private to kernels/cuda.
#ifndef OCTANT_KERNELS_CUDA_CUBLAS_H
#define OCTANT_KERNELS_CUDA_CUBLAS_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#include "kernels/cuda/weight_pack.h"
#include "kernels/kernels.h"

typedef struct cublas cublas;

// Loads the library for the calling thread's device. A log line and *out = NULL where there is
// none; an error where it is there and cannot be used.
status cublas_create(cublas **out);
void cublas_destroy(cublas *b); // NULL is allowed

// Whether a product is worth handing over: the library is there, and there are rows enough that the
// matrix unit, not the reading of weights, is what takes the time. False for NULL.
bool cublas_wants(const cublas *b, const kernels_weight *w, int tokens);

// out (T, rows) = x (T, matmul_act_stride(cols)) * w^T + bias (NULL for none), in float, or in BF16
// if `bf16`. Weights that are not BF16 are unpacked into scratch first, some rows at a time.
status cublas_product(cublas *b, cudaStream_t stream, const weight_pack *w, const float *bias,
                      const void *x, int tokens, void *out, bool bf16);

#endif
