// device.h, for nvcc: what every .cu file includes, and the only place with PTX in it.
//
// A kernel is written once and compiled twice: by nvcc with this header, and as plain C++ with the
// header of the same name in tests/device/shim, where every CUDA thread is a fiber and each
// function below follows the PTX tables in C++. The include path decides; a kernel has no #ifdef.
// What makes that possible:
// - kernels are started by launch() or launch_dependent(), never by <<<>>>;
// - dynamic shared memory is declared by DYN_SMEM(name), never by `extern __shared__`;
// - PTX is reached through the wrappers here; CUDA's own names (__shared__, __syncthreads,
// __shfl_xor_sync, atomicAdd,
//   __expf, __float2bfloat16 ...) are used as they are.
// Fragment layouts are those of the PTX ISA, "Matrix Fragments for mma" and "ldmatrix"; g = lane /
// 4 and t = lane % 4 below.
//
// May be included by .cu files only.
#ifndef OCTANT_KERNELS_CUDA_DEVICE_H
#define OCTANT_KERNELS_CUDA_DEVICE_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>

// The architecture that this pass compiles for (800, 900), usable in `if`; 0 on the host, and when
// emulated, where every feature exists. Prefer two kernels and a choice by the device's capability
// in host code.
#ifdef __CUDA_ARCH__
constexpr int DEVICE_ARCH = __CUDA_ARCH__;
#else
constexpr int DEVICE_ARCH = 0;
#endif

// The block's dynamic shared memory, aligned to 128.
#define DYN_SMEM(name) extern __shared__ __align__(128) unsigned char name[]

namespace device_detail {

enum { STATIC_SMEM_MAX = 48 * 1024 }; // more must be asked for

inline cudaError_t start(const void *kernel, dim3 grid, dim3 block, size_t smem,
                         cudaStream_t stream, bool dependent, void **values) {
    if (smem > STATIC_SMEM_MAX) {
        cudaError_t e =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)smem);
        if (e != cudaSuccess) return e;
    }
    int device = 0, major = 0;
    if (dependent &&
        (cudaGetDevice(&device) != cudaSuccess ||
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess))
        return cudaGetLastError();
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = dependent && major >= 9;
    return cudaLaunchKernelExC(&config, kernel, values);
}

template <class... P>
cudaError_t start_values(const void *kernel, dim3 grid, dim3 block, size_t smem,
                         cudaStream_t stream, bool dependent, P... values) {
    void *pointers[] = {(void *)&values..., nullptr};
    return start(kernel, grid, block, smem, stream, dependent, pointers);
}

} // namespace device_detail

// Starts kernel(args...) and returns the error of the launch. The arguments are converted to the
// kernel's parameter types.
template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, cudaStream_t stream,
                   A... args) {
    return device_detail::start_values<P...>((const void *)kernel, grid, block, smem, stream, false,
                                             static_cast<P>(args)...);
}

// The same, but on sm_90 the kernel may start while the one before it in the stream still runs
// (programmatic dependent launch). It must call grid_wait() before it touches anything that earlier
// work of the stream reads or writes.
template <class... P, class... A>
cudaError_t launch_dependent(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem,
                             cudaStream_t stream, A... args) {
    return device_detail::start_values<P...>((const void *)kernel, grid, block, smem, stream, true,
                                             static_cast<P>(args)...);
}

// Waits until all work before this grid in the stream is done and visible. No-op below sm_90, where
// it always is.
__device__ inline void grid_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next grid start, once every block has called it or ended. Promises nothing about memory.
__device__ inline void grid_launch_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// ---- Tensor cores: c (16, 8) += a (16, K) * b (K, 8), a by rows and b by columns. All 32 lanes
// take part.

// K = 16. a[0] holds (row g, columns 2t, 2t+1), a[1] row g+8, a[2] columns +8, a[3] both; b[0]
// holds (rows 2t, 2t+1, column g), b[1] rows +8; c[0], c[1] = (row g, columns 2t, 2t+1), c[2], c[3]
// = row g+8. The lower half of a register is the smaller index.
__device__ inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},"
                 "{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},"
                 "{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// K = 32. a[0] holds (row g, columns 4t .. 4t+3), a[1] row g+8, a[2] columns +16, a[3] both; b[0]
// holds (rows 4t .. 4t+3, column g), b[1] rows +16; c as above. mma_e4m3 needs sm_89 and traps
// below.
__device__ inline void mma_e4m3(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3},"
                 "{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    (void)c, (void)a, (void)b;
    __trap();
#endif
}

__device__ inline void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},"
                 "{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- ldmatrix: 8x8 matrices of 16-bit values from shared memory. Lane 8i + j gives the address of
// row j of matrix i (16 bytes, aligned to 16); lanes past the last matrix give any valid one. r[i]
// receives (row g, columns 2t, 2t+1) of matrix i, or with _trans (rows 2t, 2t+1, column g).
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

__device__ inline void ldmatrix_x2(uint32_t (&r)[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1},[%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

__device__ inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1},[%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

// ---- cp.async: copies of 16 bytes from global to shared memory in the background, both sides
// aligned to 16. Committed copies form groups per thread; cp_async_wait<N> waits until at most N of
// this thread's newest groups are under way, and other threads see the data after the next barrier.
__device__ inline void cp_async16(void *smem, const void *global) {
    asm volatile(
        "cp.async.cg.shared.global [%0],[%1],16;" ::"r"((uint32_t)__cvta_generic_to_shared(smem)),
        "l"(global)
        : "memory");
}

// Writes zeros instead, and reads nothing, where not valid.
__device__ inline void cp_async16_zfill(void *smem, const void *global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(smem)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

__device__ inline void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N> __device__ inline void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- Loads of read-only data that is used once: not kept in L1. Aligned to their size.
__device__ inline uint4 load_stream16(const void *global) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3},[%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(global));
    return v;
}

__device__ inline uint2 load_stream8(const void *global) {
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1},[%2];"
                 : "=r"(v.x), "=r"(v.y)
                 : "l"(global));
    return v;
}

__device__ inline uint32_t load_stream4(const void *global) {
    uint32_t v;
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0,[%1];" : "=r"(v) : "l"(global));
    return v;
}

// ---- Between blocks and between devices.

// Barrier `id` (1 to 15; 0 is __syncthreads) of `threads` threads, whole warps.
__device__ inline void named_barrier_sync(int id, int threads) {
    asm volatile("bar.sync %0,%1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ inline uint32_t load_acquire_sys(const uint32_t *p) {
    uint32_t v;
    asm volatile("ld.acquire.sys.global.u32 %0,[%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

__device__ inline void store_release_sys(uint32_t *p, uint32_t v) {
    asm volatile("st.release.sys.global.u32 [%0],%1;" ::"l"(p), "r"(v) : "memory");
}

__device__ inline uint32_t load_relaxed_sys(const uint32_t *p) {
    uint32_t v;
    asm volatile("ld.relaxed.sys.global.u32 %0,[%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

__device__ inline void store_relaxed_sys(uint32_t *p, uint32_t v) {
    asm volatile("st.relaxed.sys.global.u32 [%0],%1;" ::"l"(p), "r"(v) : "memory");
}

// 16 bytes that another device may write or read; each of the four words is whole, the four
// together need not be.
__device__ inline uint4 load_relaxed16_sys(const void *p) {
    uint4 v;
    asm volatile("ld.relaxed.sys.global.v4.u32 {%0,%1,%2,%3},[%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

__device__ inline void store_relaxed16_sys(void *p, uint4 v) {
    asm volatile("st.relaxed.sys.global.v4.u32 [%0],{%1,%2,%3,%4};" ::"l"(p), "r"(v.x), "r"(v.y),
                 "r"(v.z), "r"(v.w)
                 : "memory");
}

// Two times 8 bytes that another device may write or read; each 8 are whole, the two together need
// not be.
__device__ inline ulonglong2 load_relaxed2x8_sys(const void *p) {
    ulonglong2 v;
    asm volatile("ld.relaxed.sys.global.v2.u64 {%0,%1},[%2];"
                 : "=l"(v.x), "=l"(v.y)
                 : "l"(p)
                 : "memory");
    return v;
}

__device__ inline void store_relaxed2x8_sys(void *p, ulonglong2 v) {
    asm volatile("st.relaxed.sys.global.v2.u64 [%0],{%1,%2};" ::"l"(p), "l"(v.x), "l"(v.y)
                 : "memory");
}

// Between accesses to the same memory by different addresses (virtual aliases): what came before by
// one is in order with what comes after by another. A proxy fence of the PTX ISA's memory model.
__device__ inline void alias_fence() {
    asm volatile("fence.proxy.alias;" ::: "memory");
}

// To be called in the body of every loop that waits for another block or device.
__device__ inline void spin_pause() {
    __nanosleep(20);
}

// Nanoseconds of a clock that all blocks share (resolution about a microsecond on some cards).
__device__ inline uint64_t device_clock_ns() {
    uint64_t ns;
    asm volatile("mov.u64 %0,%%globaltimer;" : "=l"(ns));
    return ns;
}

// ---- FP8 (E4M3: bias 7, largest 448, no infinity, 0x7f and 0xff are NaN). The lower byte is x.

// Exact.
__device__ inline __half2 e4m3x2_to_half2(uint16_t v) {
    uint32_t bits;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    asm("cvt.rn.f16x2.e4m3x2 %0,%1;" : "=r"(bits) : "h"(v));
    return *reinterpret_cast<__half2 *>(&bits);
#else
    // The same exponent and mantissa bits read as half are 2^-8 of the value, subnormals included.
    uint32_t spread = (v & 0xffu) | ((v & 0xff00u) << 8);
    uint32_t magnitude = spread & 0x007f007fu;
    uint32_t nan = ((magnitude + 0x00010001u) & 0x00800080u) >> 7;
    bits = (spread & 0x00800080u) << 8 | magnitude << 7;
    __half2 scaled =
        __hmul2(*reinterpret_cast<__half2 *>(&bits), __floats2half2_rn(256.0f, 256.0f));
    bits = *reinterpret_cast<uint32_t *>(&scaled) | nan * 0x7e00u;
    return *reinterpret_cast<__half2 *>(&bits);
#endif
}

__device__ inline float2 e4m3x2_to_float2(uint16_t v) {
    return __half22float2(e4m3x2_to_half2(v));
}

// To nearest even; what is past the largest becomes the largest, NaN stays NaN.
__device__ inline uint16_t float2_to_e4m3x2(float2 v) {
    return __nv_cvt_float2_to_fp8x2(v, __NV_SATFINITE, __NV_E4M3);
}

__device__ inline uint16_t half2_to_e4m3x2(__half2 v) {
    return __nv_cvt_halfraw2_to_fp8x2(v, __NV_SATFINITE, __NV_E4M3);
}

#endif
