// The PTX wrappers of the emulated device; what each does is in ptx.cpp and told in
// kernels/cuda/nvcc/device.h. Included by device.h.
#ifndef OCTANT_TESTS_DEVICE_SHIM_PTX_H
#define OCTANT_TESTS_DEVICE_SHIM_PTX_H

#include "tests/device/shim/simt.h"

#include <cuda_fp16.h>
#include <vector_functions.h>

void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_e4m3(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

void ldmatrix_x4(uint32_t (&r)[4], const void *row);
void ldmatrix_x2(uint32_t (&r)[2], const void *row);
void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row);
void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row);

inline void cp_async16(void *smem, const void *global) {
    simt::copy_begin(smem, global, 16);
}
inline void cp_async16_zfill(void *smem, const void *global, bool valid) {
    simt::copy_begin(smem, valid ? global : nullptr, 16);
}
inline void cp_async_commit() {
    simt::copy_commit();
}
template <int N> void cp_async_wait() {
    simt::copy_wait(N);
}

// Inline, so that the sanitizers see the access.
inline uint4 load_stream16(const void *global) {
    simt::check_aligned(global, 16, "load_stream16: misaligned address");
    return *(const uint4 *)global;
}
inline uint2 load_stream8(const void *global) {
    simt::check_aligned(global, 8, "load_stream8: misaligned address");
    return *(const uint2 *)global;
}
inline uint32_t load_stream4(const void *global) {
    simt::check_aligned(global, 4, "load_stream4: misaligned address");
    return *(const uint32_t *)global;
}

uint64_t device_clock_ns();

__half2 e4m3x2_to_half2(uint16_t v);
float2 e4m3x2_to_float2(uint16_t v);
uint16_t float2_to_e4m3x2(float2 v);
uint16_t half2_to_e4m3x2(__half2 v);

#endif
