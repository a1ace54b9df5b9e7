// device.h, emulated: the same names as kernels/cuda/nvcc/device.h, and those of CUDA's own that
// kernels use, in plain C++.
//
// A .cu file that is compiled with this directory first on its include path becomes a host program
// whose CUDA threads are fibers (simt.h). What a wrapper does is written from the PTX ISA (ptx.h,
// ptx.cpp), not from the kernels that use it. Each
// __shared__ variable is a static, since one block runs at a time: prefer DYN_SMEM, which is
// poisoned for each block.
//
// Compile with -fno-strict-aliasing: CUDA code reads vectors through pointers to other types.
#ifndef OCTANT_TESTS_DEVICE_SHIM_DEVICE_H
#define OCTANT_TESTS_DEVICE_SHIM_DEVICE_H

// Before the toolkit's headers, which leave defined ones alone; a kernel's own header may have
// brought them in already.
#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __shared__
#undef __launch_bounds__
#undef __grid_constant__
#undef __forceinline__
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline

#include <cuda_runtime_api.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <vector_functions.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "tests/device/shim/simt.h"

constexpr int DEVICE_ARCH = 0;

#define DYN_SMEM(name) unsigned char *name = simt::dynamic_smem

#define threadIdx (simt::current->index)
#define blockIdx (simt::block_index)
#define blockDim (simt::block_dim)
#define gridDim (simt::grid_dim)
constexpr int warpSize = simt::WARP;

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, cudaStream_t stream,
                   A... args) {
    return simt::enqueue(stream,
                         {grid, block, smem, false, (const void *)kernel,
                          simt::make_work([=]() SIMT_UNSEEN { kernel(static_cast<P>(args)...); })});
}

template <class... P, class... A>
cudaError_t launch_dependent(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem,
                             cudaStream_t stream, A... args) {
    return simt::enqueue(stream,
                         {grid, block, smem, true, (const void *)kernel,
                          simt::make_work([=]() SIMT_UNSEEN { kernel(static_cast<P>(args)...); })});
}

inline void grid_wait() {
    simt::grid_wait();
}
inline void grid_launch_dependents() {
    simt::race_launch_dependents();
}

#include "tests/device/shim/atomics.h"
#include "tests/device/shim/intrinsics.h"
#include "tests/device/shim/ptx.h"
#include "tests/device/shim/warp.h"

#endif
