// device_sm90a.h, for nvcc: the instructions that sm_90a alone has. Beside device.h the only place
// with PTX; the header of the same name in tests/device/shim emulates each wrapper (async.cpp).
//
// May be included by NAME_sm90a.cu files only: they are compiled for sm_90a and nothing else, and
// started only on devices of compute capability 9.0.
//
// What is asynchronous, and what orders it:
// - bulk_copy brings whole runs of bytes into shared memory. It counts against an mbarrier, whose
//   phase completes when all arrivals and all announced bytes are in; who has waited for the phase
//   sees the bytes.
// - wgmma_* multiply operands that lie in shared memory. They are done when wgmma_wait says so;
// until
//   then neither the operands nor the registers of the sum may be touched.
// - Both go by the asynchronous proxy. What threads wrote to shared memory is seen by it only after
//   their proxy_fence() and then a barrier.
#ifndef OCTANT_KERNELS_CUDA_DEVICE_SM90A_H
#define OCTANT_KERNELS_CUDA_DEVICE_SM90A_H

#include "device.h"

// The block's dynamic shared memory, aligned to 1024 as 128-byte swizzling wants it. The kernel has
// no static shared memory, which would lie before it.
#define DYN_SMEM_1024(name) extern __shared__ __align__(1024) unsigned char name[]

// A pointer into shared memory as the address that descriptors have.
__device__ inline uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

// ---- mbarriers: 8 bytes of shared memory, aligned to 8.

// `arrivals` for each phase. Others may use the barrier after mbarrier_init_fence() by the same
// thread and then a __syncthreads().
__device__ inline void mbarrier_init(uint64_t *b, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0],%1;" ::"r"(shared_address(b)), "r"(arrivals)
                 : "memory");
}

__device__ inline void mbarrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// One arrival; what the thread did before is seen by who waits for the phase.
__device__ inline void mbarrier_arrive(uint64_t *b) {
    asm volatile(
        "{.reg .b64 state; mbarrier.arrive.shared::cta.b64 state,[%0];}" ::"r"(shared_address(b))
        : "memory");
}

// One arrival that announces `bytes` of copies.
__device__ inline void mbarrier_arrive_expect(uint64_t *b, uint32_t bytes) {
    asm volatile(
        "{.reg .b64 state; mbarrier.arrive.expect_tx.shared::cta.b64 state,[%0],%1;}" ::"r"(
            shared_address(b)),
        "r"(bytes)
        : "memory");
}

// Waits until the phase of this parity (the first is 0, then 1, 0, ...) is complete: at once where
// the phase that is under way has the other. Each try sleeps in hardware for some microseconds at
// most; a wait that never ends becomes a trap, which the host sees as an error.
__device__ inline void mbarrier_wait(uint64_t *b, uint32_t parity) {
    constexpr uint32_t TRIES_MAX = 1u << 26;
    uint32_t done = 0;
    for (uint32_t tries = 0; !done; tries++) {
        asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p,[%1],%2; "
                     "selp.u32 %0,1,0,p;}"
                     : "=r"(done)
                     : "r"(shared_address(b)), "r"(parity)
                     : "memory");
        if (tries == TRIES_MAX) __trap();
    }
}

// Copies `bytes`, a multiple of 16, from global to shared memory, both aligned to 16, and counts
// them against the barrier's phase. One thread does it.
__device__ inline void bulk_copy(void *smem, const void *global, uint32_t bytes, uint64_t *b) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0],[%1],%2,[%3];" ::"r"(shared_address(smem)),
                 "l"(global), "r"(bytes), "r"(shared_address(b))
                 : "memory");
}

__device__ inline void proxy_fence() {
    asm volatile("fence.proxy.async;" ::: "memory");
}

// ---- wgmma: d (64, N) = a (64, K) * b (N, K)^T, or + if `add`, by the four warps of a warpgroup,
// each of which calls the same. a and b are descriptors of operands in shared memory, K contiguous:
// bits 0-13 the address / 16, 32-45 the bytes from 8 rows to the next 8 / 16, 62-63 the swizzling
// (1: 128 bytes). K is 32 bytes: 16 columns of BF16, 32 of E4M3. Warp w has rows 16w to 16w + 15;
// of these, and of columns 8j to 8j + 7, d[4j] to d[4j + 3] are what c[0] to c[3] of mma_bf16 are.
//
// A group of products begins with wgmma_fence and ends with wgmma_commit; wgmma_wait<G>(d) waits
// until at most G of the newest groups are under way. d is the sum of those that are then done:
// what the compiler reads of it, it reads after the wait.
__device__ inline void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int GROUPS, int REGISTERS> __device__ inline void wgmma_wait(float (&d)[REGISTERS]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory");
#pragma unroll
    for (int i = 0; i < REGISTERS; i++) asm volatile("" : "+f"(d[i])::"memory");
}

template <int N>
__device__ inline void wgmma_bf16(float (&d)[N / 2], uint64_t a, uint64_t b, bool add);
template <int N>
__device__ inline void wgmma_e4m3(float (&d)[N / 2], uint64_t a, uint64_t b, bool add);

// clang-format off
#define WGMMA_NAMES4 "%0,%1,%2,%3"
#define WGMMA_NAMES8 WGMMA_NAMES4 \
    ",%4,%5,%6,%7"
#define WGMMA_NAMES16 WGMMA_NAMES8 \
    ",%8,%9,%10,%11,%12,%13,%14,%15"
#define WGMMA_NAMES32 WGMMA_NAMES16 \
    ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_NAMES64 WGMMA_NAMES32 \
    ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47" \
    ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define WGMMA_REGS4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WGMMA_REGS8(i) WGMMA_REGS4(i), WGMMA_REGS4(i + 4)
#define WGMMA_REGS16(i) WGMMA_REGS8(i), WGMMA_REGS8(i + 8)
#define WGMMA_REGS32(i) WGMMA_REGS16(i), WGMMA_REGS16(i + 16)
#define WGMMA_REGS64(i) WGMMA_REGS32(i), WGMMA_REGS32(i + 32)

// R registers of the sum; A, B and ADD are the numbers of the operands behind them.
#define WGMMA(NAME, N, R, TYPE, FLAGS, A, B, ADD)                                                        \
    template <>                                                                                          \
    __device__ inline void NAME<N>(float (&d)[R], uint64_t a, uint64_t b, bool add) {                    \
        asm volatile("{.reg .pred p; setp.ne.b32 p,%" #ADD ",0; "                                        \
                     "wgmma.mma_async.sync.aligned.m64n" #N TYPE " {" WGMMA_NAMES##R "},%" #A ",%" #B    \
                     ",p" FLAGS ";}"                                                                     \
                     : WGMMA_REGS##R(0)                                                                  \
                     : "l"(a), "l"(b), "r"((int)add));                                                   \
    }
#define WGMMA_BOTH(N, R, A, B, ADD)                                                                      \
    WGMMA(wgmma_bf16, N, R, "k16.f32.bf16.bf16", ",1,1,0,0", A, B, ADD)                                  \
    WGMMA(wgmma_e4m3, N, R, "k32.f32.e4m3.e4m3", ",1,1", A, B, ADD)
WGMMA_BOTH(8, 4, 4, 5, 6)
WGMMA_BOTH(16, 8, 8, 9, 10)
WGMMA_BOTH(32, 16, 16, 17, 18)
WGMMA_BOTH(64, 32, 32, 33, 34)
WGMMA_BOTH(128, 64, 64, 65, 66)
#undef WGMMA_BOTH
#undef WGMMA
// clang-format on

#endif
