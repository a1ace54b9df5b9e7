// device_sm90a.h, emulated: the same names as kernels/cuda/nvcc/device_sm90a.h; what each does is
// in async.cpp.
#ifndef OCTANT_TESTS_DEVICE_SHIM_DEVICE_SM90A_H
#define OCTANT_TESTS_DEVICE_SHIM_DEVICE_SM90A_H

#include "device.h"

#include "tests/device/shim/async.h"

#define DYN_SMEM_1024(name) unsigned char *name = simt::dynamic_smem

// Not inlined: the race checker names the line that called.
#define SHIM_CALLER __builtin_return_address(0)

inline uint32_t shared_address(const void *p) {
    return simt::shared_address(p);
}

__attribute__((noinline)) inline void mbarrier_init(uint64_t *b, uint32_t arrivals) {
    simt::mbarrier_init(b, arrivals, SHIM_CALLER);
}
inline void mbarrier_init_fence() {}
__attribute__((noinline)) inline void mbarrier_arrive(uint64_t *b) {
    simt::mbarrier_arrive(b, 0, SHIM_CALLER);
}
__attribute__((noinline)) inline void mbarrier_arrive_expect(uint64_t *b, uint32_t bytes) {
    simt::mbarrier_arrive(b, bytes, SHIM_CALLER);
}
__attribute__((noinline)) inline void mbarrier_wait(uint64_t *b, uint32_t parity) {
    simt::mbarrier_wait(b, parity, SHIM_CALLER);
}
__attribute__((noinline)) inline void bulk_copy(void *smem, const void *global, uint32_t bytes,
                                                uint64_t *b) {
    simt::bulk_copy(smem, global, bytes, b, SHIM_CALLER);
}
inline void proxy_fence() {
    simt::race_proxy_fence();
}

inline void wgmma_fence() {
    simt::wgmma_fence();
}
inline void wgmma_commit() {
    simt::wgmma_commit();
}
template <int GROUPS, int REGISTERS> void wgmma_wait(float (&)[REGISTERS]) {
    simt::wgmma_wait(GROUPS);
}
template <int N>
__attribute__((noinline)) void wgmma_bf16(float (&d)[N / 2], uint64_t a, uint64_t b, bool add) {
    simt::wgmma_issue(simt::WGMMA_BF16, N, d, a, b, add, SHIM_CALLER);
}
template <int N>
__attribute__((noinline)) void wgmma_e4m3(float (&d)[N / 2], uint64_t a, uint64_t b, bool add) {
    simt::wgmma_issue(simt::WGMMA_E4M3, N, d, a, b, add, SHIM_CALLER);
}

#undef SHIM_CALLER

#endif
