// activation: what a gate goes through (kernels_activation), for every kernel that ends in one. May
// be included by .cu files only.
#ifndef OCTANT_KERNELS_CUDA_ACTIVATION_H
#define OCTANT_KERNELS_CUDA_ACTIVATION_H

#include "device.h"
#include "kernels/kernels.h"

__device__ inline float activate(kernels_activation activation, float x) {
    float s = x;
    if (activation == KERNELS_GELU_TANH)
        s = __fmul_rn(x, fmaf(__fmul_rn(x, x), KERNELS_GELU_CUBIC, KERNELS_GELU_LINEAR));
    return __fdividef(x, 1.0f + __expf(-s));
}

#endif
