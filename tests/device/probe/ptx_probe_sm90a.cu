#include "device_sm90a.h"

#include "tests/device/probe/ptx_probe.h"

// Tiles of 128-byte rows, swizzled: where 16-byte piece `piece` of `row` stands.
__device__ inline int swizzled(int row, int piece) {
    return row * 128 + (piece ^ (row & 7)) * 16;
}

__device__ inline uint64_t operand(const void *tile, int step) {
    uint64_t address = (shared_address(tile) & 0x3ffff) / 16 + 2 * step;
    return 1ull << 62 | 64ull << 32 | address;
}

// a (64, 128) bytes and b (N, 128) bytes by threads' stores, all four steps in two groups; d is
// added to.
template <int N, bool E4M3>
__global__ void wgmma_kernel(const uint4 *a, const uint4 *b, float *d_io) {
    DYN_SMEM_1024(smem);
    unsigned char *tiles[2] = {smem, smem + 64 * 128};
    for (int i = threadIdx.x; i < 64 * 8; i += 128)
        *(uint4 *)(tiles[0] + swizzled(i / 8, i % 8)) = a[i];
    for (int i = threadIdx.x; i < N * 8; i += 128)
        *(uint4 *)(tiles[1] + swizzled(i / 8, i % 8)) = b[i];
    proxy_fence();
    __syncthreads();
    float d[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) d[i] = d_io[threadIdx.x * (N / 2) + i];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        wgmma_fence();
#pragma unroll
        for (int step = 2 * half; step < 2 * half + 2; step++) {
            if (E4M3)
                wgmma_e4m3<N>(d, operand(tiles[0], step), operand(tiles[1], step), true);
            else
                wgmma_bf16<N>(d, operand(tiles[0], step), operand(tiles[1], step), true);
        }
        wgmma_commit();
    }
    wgmma_wait<0>(d);
#pragma unroll
    for (int i = 0; i < N / 2; i++) d_io[threadIdx.x * (N / 2) + i] = d[i];
}

template <int N>
static cudaError_t start_wgmma(cudaStream_t stream, int e4m3, const uint4 *a, const uint4 *b,
                               float *d) {
    size_t smem = (64 + N) * 128;
    return e4m3 ? launch(wgmma_kernel<N, true>, 1, 128, smem, stream, a, b, d)
                : launch(wgmma_kernel<N, false>, 1, 128, smem, stream, a, b, d);
}

cudaError_t ptx_probe_wgmma(cudaStream_t stream, int e4m3, int n, const uint4 *a, const uint4 *b,
                            float *d) {
    switch (n) {
    case 8:
        return start_wgmma<8>(stream, e4m3, a, b, d);
    case 16:
        return start_wgmma<16>(stream, e4m3, a, b, d);
    case 32:
        return start_wgmma<32>(stream, e4m3, a, b, d);
    case 64:
        return start_wgmma<64>(stream, e4m3, a, b, d);
    case 128:
        return start_wgmma<128>(stream, e4m3, a, b, d);
    default:
        return cudaErrorInvalidValue;
    }
}

// The second warp fills a ring of two slots, the first empties it.
__global__ void bulk_kernel(int pieces, const uint4 *from, uint4 *out) {
    DYN_SMEM_1024(smem);
    uint4 *slots = (uint4 *)smem;
    uint64_t *full = (uint64_t *)(smem + 2 * PTX_BULK_BYTES), *empty = full + 2;
    constexpr int WORDS = PTX_BULK_BYTES / 16;
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            mbarrier_init(&full[i], 1);
            mbarrier_init(&empty[i], 32);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x == 32)
        for (int i = 0; i < pieces; i++) {
            if (i >= 2) mbarrier_wait(&empty[i % 2], (i / 2 - 1) & 1);
            mbarrier_arrive_expect(&full[i % 2], PTX_BULK_BYTES);
            bulk_copy(slots + i % 2 * WORDS, from + i * WORDS, PTX_BULK_BYTES / 2, &full[i % 2]);
            bulk_copy(slots + i % 2 * WORDS + WORDS / 2, from + i * WORDS + WORDS / 2,
                      PTX_BULK_BYTES / 2, &full[i % 2]);
        }
    if (threadIdx.x >= 32) return;
    for (int i = 0; i < pieces; i++) {
        mbarrier_wait(&full[i % 2], i / 2 & 1);
        for (int j = threadIdx.x; j < WORDS; j += 32) out[i * WORDS + j] = slots[i % 2 * WORDS + j];
        mbarrier_arrive(&empty[i % 2]);
    }
}

cudaError_t ptx_probe_bulk(cudaStream_t stream, int pieces, const uint4 *from, uint4 *out) {
    return launch(bulk_kernel, 1, 64, 2 * PTX_BULK_BYTES + 4 * sizeof(uint64_t), stream, pieces,
                  from, out);
}
