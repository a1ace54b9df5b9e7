// device_multimem.h, for nvcc: accesses to multicast memory (kernels/cuda/multicast.h), where one
// address stands for the same place in the memory of every device of a team. The header of the same
// name in tests/device/shim emulates each wrapper (multimem.cpp).
//
// These are the only accesses that a multicast address allows. A place may also be read and written
// by a device's own address of its own memory, with alias_fence() in between. In which order the
// devices' numbers are added is the switch's affair: the PTX ISA promises none.
//
// May be included by NAME_sm90.cu files only: they are compiled for sm_90 and later.
#ifndef OCTANT_KERNELS_CUDA_DEVICE_MULTIMEM_H
#define OCTANT_KERNELS_CUDA_DEVICE_MULTIMEM_H

#include "device.h"

// At `p`, aligned to 16: eight sums of BF16 over all devices, added in float.
__device__ inline uint4 multimem_sum_bf16x8(const void *p) {
    uint4 v;
    asm volatile("multimem.ld_reduce.relaxed.sys.global.add.acc::f32.v4.bf16x2 {%0,%1,%2,%3},[%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

// At `p`, aligned to 8: the sum of doubles over all devices.
__device__ inline double multimem_sum_f64(const void *p) {
    double v;
    asm volatile("multimem.ld_reduce.relaxed.sys.global.add.f64 %0,[%1];"
                 : "=d"(v)
                 : "l"(p)
                 : "memory");
    return v;
}

// Writes 16 bytes, aligned to 16, into the memory of all devices.
__device__ inline void multimem_store16(void *p, uint4 v) {
    asm volatile("multimem.st.relaxed.sys.global.v4.f32 [%0],{%1,%2,%3,%4};" ::"l"(p),
                 "f"(__uint_as_float(v.x)), "f"(__uint_as_float(v.y)), "f"(__uint_as_float(v.z)),
                 "f"(__uint_as_float(v.w))
                 : "memory");
}

#endif
