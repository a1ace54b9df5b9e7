// faults: kernels with one known fault each, and their right twins, to see that the emulator tells
// of the first and is silent about the second. One run, one case; what must be said is in
// CMakeLists.txt.
//
//   emulator_faults CASE
#include "device_sm90a.h"
#include "tests/device/shim/emulator.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

const unsigned ALL = 0xffffffffu;

// ---- order within a block

template <int KIND> __global__ void exchange(uint32_t *out) {
    DYN_SMEM(smem);
    uint32_t *shared = reinterpret_cast<uint32_t *>(smem);
    unsigned t = threadIdx.x, with = KIND == 0 || KIND == 1 ? t ^ 1 : t ^ 32;
    shared[t] = t * 3;
    if (KIND == 1) __syncwarp();
    if (KIND == 2) __syncwarp(); // not enough: the other one is in another warp
    if (KIND == 3) __syncthreads();
    if (KIND == 4) named_barrier_sync(3, 64);
    if (KIND == 0) __shfl_xor_sync(ALL, t, 1); // orders no memory
    out[t] = shared[with];
}

// The lower half of a warp goes its own way.
__global__ void half_warp(uint32_t *out) {
    DYN_SMEM(smem);
    uint32_t *shared = reinterpret_cast<uint32_t *>(smem);
    if (threadIdx.x >= 16) return;
    shared[threadIdx.x] = threadIdx.x;
    __syncwarp(0xffff);
    out[threadIdx.x] = shared[threadIdx.x ^ 5];
}

__global__ void unwritten(uint32_t *out) {
    DYN_SMEM(smem);
    uint32_t *shared = reinterpret_cast<uint32_t *>(smem);
    if (threadIdx.x != 7) shared[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = shared[threadIdx.x ^ 1];
}

template <bool WAITS> __global__ void copied(const uint4 *from, uint4 *out) {
    DYN_SMEM(smem);
    uint4 *shared = reinterpret_cast<uint4 *>(smem);
    cp_async16(shared + threadIdx.x, from + threadIdx.x);
    cp_async_commit();
    if (WAITS) cp_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = shared[threadIdx.x ^ 1];
}

// ---- order between blocks and grids

template <bool ATOMIC> __global__ void count(unsigned *sum) {
    if (threadIdx.x > 0) return;
    if (ATOMIC)
        atomicAdd(sum, 1);
    else
        sum[0] += 1;
}

// Each block leaves a part; the last to come adds them.
template <bool FENCED>
__global__ void last_block(uint32_t *parts, unsigned *ticket, uint32_t *out) {
    DYN_SMEM(smem);
    bool *last = reinterpret_cast<bool *>(smem);
    parts[blockIdx.x * blockDim.x + threadIdx.x] = blockIdx.x;
    if (FENCED) __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) *last = atomicAdd(ticket, 1) == gridDim.x - 1;
    __syncthreads();
    if (!*last) return;
    uint32_t sum = 0;
    for (unsigned b = 0; b < gridDim.x; b++) sum += parts[b * blockDim.x + threadIdx.x];
    out[threadIdx.x] = sum;
}

__global__ void produce(uint32_t *to) {
    to[threadIdx.x] = threadIdx.x;
}

template <bool WAITS> __global__ void consume(const uint32_t *from, uint32_t *out) {
    if (WAITS) grid_wait();
    out[threadIdx.x + 64] = from[threadIdx.x];
}

// ---- what the hardware would refuse, or never end

__global__ void diverged(uint32_t *out) {
    if (threadIdx.x % 32 < 16)
        out[threadIdx.x] = __ballot_sync(ALL, 1);
    else
        __syncthreads();
}

__global__ void disagreeing(uint32_t *out) {
    if (threadIdx.x < 16)
        out[threadIdx.x] = __shfl_xor_sync(ALL, threadIdx.x, 1);
    else
        out[threadIdx.x] = __ballot_sync(ALL, 1);
}

__global__ void misaligned(uint32_t *out) {
    DYN_SMEM(smem);
    uint32_t r[4];
    for (unsigned i = threadIdx.x; i < 1024; i += 32) smem[i] = 0;
    __syncthreads();
    ldmatrix_x4(r, smem + threadIdx.x * 16 + 8);
    out[threadIdx.x] = r[0];
}

__global__ void write_words(uint32_t *out, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = 5;
}

__global__ void write_shared(uint32_t *out, int count) {
    DYN_SMEM(smem);
    uint32_t *shared = reinterpret_cast<uint32_t *>(smem);
    for (int i = threadIdx.x; i < count; i += blockDim.x) shared[i] = 5;
    out[threadIdx.x] = 1;
}

// ---- what sm_90 does behind the threads' backs

enum bulk_fault {
    BULK_RIGHT,
    BULK_NO_INIT,
    BULK_NO_WAIT,
    BULK_PARITY,
    BULK_NO_EXPECT,
    BULK_REFILL
};

template <int KIND> __global__ void bulk(const uint4 *from, uint4 *out) {
    DYN_SMEM_1024(smem);
    const uint4 *shared = reinterpret_cast<const uint4 *>(smem);
    uint64_t *full = reinterpret_cast<uint64_t *>(smem + 1024);
    if (threadIdx.x == 0 && KIND != BULK_NO_INIT) {
        mbarrier_init(full, 1);
        mbarrier_init_fence();
    }
    __syncthreads();
    for (int fill = 0; fill < 2; fill++) {
        if (fill == 1 && KIND != BULK_REFILL) __syncthreads();
        if (threadIdx.x == 0) {
            if (KIND == BULK_NO_EXPECT)
                mbarrier_arrive(full);
            else
                mbarrier_arrive_expect(full, 1024);
            bulk_copy(smem, from + fill * 64, 1024, full);
        }
        if (KIND != BULK_NO_WAIT)
            mbarrier_wait(full, (uint32_t)(KIND == BULK_PARITY ? !fill : fill));
        if (KIND == BULK_REFILL) __syncthreads(); // all have waited, not all have read
        out[fill * 64 + threadIdx.x] = shared[threadIdx.x];
    }
}

enum wgmma_fault { WGMMA_RIGHT, WGMMA_NO_PROXY, WGMMA_NO_FENCE, WGMMA_NO_WAIT, WGMMA_OVERWRITE };

template <int KIND> __global__ void product(float *out) {
    DYN_SMEM_1024(smem);
    uint32_t *shared = reinterpret_cast<uint32_t *>(smem);
    for (int i = threadIdx.x; i < 72 * 32; i += 128) shared[i] = 0x3f803f80; // ones
    if (KIND != WGMMA_NO_PROXY) proxy_fence();
    __syncthreads();
    uint64_t a = 1ull << 62 | 64ull << 32 | shared_address(smem) >> 4, b = a + 64 * 128 / 16;
    float d[4] = {0, 0, 0, 0};
    if (KIND != WGMMA_NO_FENCE) wgmma_fence();
    wgmma_bf16<8>(d, a, b, false);
    wgmma_commit();
    if (KIND == WGMMA_OVERWRITE) shared[threadIdx.x] = 0;
    if (KIND != WGMMA_NO_WAIT) wgmma_wait<0>(d);
    out[threadIdx.x] = d[0];
}

// ---- cases

template <class T> T *memory(size_t count) {
    void *p = nullptr;
    if (cudaMalloc(&p, count * sizeof(T)) != cudaSuccess) abort();
    cudaMemset(p, 0, count * sizeof(T));
    return static_cast<T *>(p);
}

enum { WORDS = 1024 };

struct fixture {
    uint32_t *out = memory<uint32_t>(WORDS), *other = memory<uint32_t>(WORDS);
    unsigned *ticket = memory<unsigned>(1);
};

void finish_consumer(fixture &f, bool waits) {
    launch(produce, 1, 64, 0, nullptr, f.other);
    if (waits)
        launch_dependent(consume<true>, 1, 64, 0, nullptr, f.other, f.out);
    else
        launch_dependent(consume<false>, 1, 64, 0, nullptr, f.other, f.out);
}

template <int KIND> void start_bulk(fixture &f) {
    launch(bulk<KIND>, 1, 64, 1024 + 8, nullptr, (const uint4 *)f.other, (uint4 *)f.out);
}

template <int KIND> void start_product(fixture &f) {
    launch(product<KIND>, 1, 128, 72 * 128, nullptr, (float *)f.out);
}

void use_after_free(fixture &f) {
    uint32_t *gone = memory<uint32_t>(64);
    cudaFree(gone);
    launch(write_words, 1, 32, 0, nullptr, gone, 64);
    (void)f;
}

void host_memory(fixture &f) {
    uint32_t *mine = static_cast<uint32_t *>(malloc(256));
    launch(write_words, 1, 32, 0, nullptr, mine, 64);
    free(mine);
    (void)f;
}

void host_strict(fixture &f) {
    emulator_set_host_strict(true);
    launch(produce, 1, 64, 0, nullptr, f.out);
    cudaDeviceSynchronize();
    printf("%u\n", f.out[3]); // as if it were our memory
}

struct fault {
    const char *name;
    void (*run)(fixture &f);
};

const fault faults[] = {
    {"shuffle_orders_nothing", [](fixture &f) { launch(exchange<0>, 1, 64, 256, nullptr, f.out); }},
    {"syncwarp", [](fixture &f) { launch(exchange<1>, 1, 64, 256, nullptr, f.out); }},
    {"syncwarp_across_warps", [](fixture &f) { launch(exchange<2>, 1, 64, 256, nullptr, f.out); }},
    {"barrier", [](fixture &f) { launch(exchange<3>, 1, 64, 256, nullptr, f.out); }},
    {"named_barrier", [](fixture &f) { launch(exchange<4>, 1, 64, 256, nullptr, f.out); }},
    {"half_warp", [](fixture &f) { launch(half_warp, 1, 32, 64, nullptr, f.out); }},
    {"unwritten", [](fixture &f) { launch(unwritten, 1, 64, 256, nullptr, f.out); }},
    {"copy_without_wait",
     [](fixture &f) {
         launch(copied<false>, 1, 64, 1024, nullptr, (const uint4 *)f.other, (uint4 *)f.out);
     }},
    {"copy",
     [](fixture &f) {
         launch(copied<true>, 1, 64, 1024, nullptr, (const uint4 *)f.other, (uint4 *)f.out);
     }},
    {"blocks_add", [](fixture &f) { launch(count<false>, 4, 32, 0, nullptr, f.ticket); }},
    {"blocks_add_atomically", [](fixture &f) { launch(count<true>, 4, 32, 0, nullptr, f.ticket); }},
    {"last_block_without_fence",
     [](fixture &f) { launch(last_block<false>, 4, 64, 16, nullptr, f.other, f.ticket, f.out); }},
    {"last_block",
     [](fixture &f) { launch(last_block<true>, 4, 64, 16, nullptr, f.other, f.ticket, f.out); }},
    {"consumer_without_wait", [](fixture &f) { finish_consumer(f, false); }},
    {"consumer", [](fixture &f) { finish_consumer(f, true); }},
    {"diverged", [](fixture &f) { launch(diverged, 1, 32, 0, nullptr, f.out); }},
    {"disagreeing", [](fixture &f) { launch(disagreeing, 1, 32, 0, nullptr, f.out); }},
    {"misaligned", [](fixture &f) { launch(misaligned, 1, 32, 1024, nullptr, f.out); }},
    {"overrun", [](fixture &f) { launch(write_words, 1, 32, 0, nullptr, f.out, WORDS + 1); }},
    {"overrun_shared", [](fixture &f) { launch(write_shared, 1, 32, 256, nullptr, f.out, 65); }},
    {"bulk", start_bulk<BULK_RIGHT>},
    {"bulk_without_init", start_bulk<BULK_NO_INIT>},
    {"bulk_without_wait", start_bulk<BULK_NO_WAIT>},
    {"bulk_wrong_parity", start_bulk<BULK_PARITY>},
    {"bulk_without_expect", start_bulk<BULK_NO_EXPECT>},
    {"bulk_refill", start_bulk<BULK_REFILL>},
    {"wgmma", start_product<WGMMA_RIGHT>},
    {"wgmma_without_proxy_fence", start_product<WGMMA_NO_PROXY>},
    {"wgmma_without_fence", start_product<WGMMA_NO_FENCE>},
    {"wgmma_without_wait", start_product<WGMMA_NO_WAIT>},
    {"wgmma_overwritten", start_product<WGMMA_OVERWRITE>},
    {"use_after_free", use_after_free},
    {"host_memory", host_memory},
    {"host_strict", host_strict},
};

} // namespace

int main(int argc, char **argv) {
    for (const fault &x : faults) {
        if (argc != 2 || strcmp(argv[1], x.name) != 0) continue;
        fixture f;
        x.run(f);
        cudaError_t e = cudaDeviceSynchronize();
        cudaFree(f.out);
        cudaFree(f.other);
        cudaFree(f.ticket);
        printf("%s: %s, %d races\n", x.name, cudaGetErrorString(e), emulator_races());
        return e != cudaSuccess;
    }
    fprintf(stderr, "usage: emulator_faults CASE\n");
    return 2;
}
