// device_multimem.h, emulated: the same names as kernels/cuda/nvcc/device_multimem.h; what each
// does is in multimem.cpp.
#ifndef OCTANT_TESTS_DEVICE_SHIM_DEVICE_MULTIMEM_H
#define OCTANT_TESTS_DEVICE_SHIM_DEVICE_MULTIMEM_H

#include "device.h"

namespace simt {

// pc: who calls, for the race checker.
uint4 multimem_sum_bf16x8(const void *p, const void *pc);
double multimem_sum_f64(const void *p, const void *pc);
void multimem_store16(void *p, uint4 v, const void *pc);

} // namespace simt

__attribute__((noinline)) inline uint4 multimem_sum_bf16x8(const void *p) {
    return simt::multimem_sum_bf16x8(p, __builtin_return_address(0));
}
__attribute__((noinline)) inline double multimem_sum_f64(const void *p) {
    return simt::multimem_sum_f64(p, __builtin_return_address(0));
}
__attribute__((noinline)) inline void multimem_store16(void *p, uint4 v) {
    simt::multimem_store16(p, v, __builtin_return_address(0));
}

#endif
