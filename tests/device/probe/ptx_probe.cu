#include "tests/device/probe/ptx_probe.h"

#include "device.h"

__device__ inline void load_fragments(const uint32_t *a_in, const uint32_t *b_in, uint32_t (&a)[4],
                                      uint32_t (&b)[2]) {
    for (int i = 0; i < 4; i++) a[i] = a_in[threadIdx.x * 4 + i];
    for (int i = 0; i < 2; i++) b[i] = b_in[threadIdx.x * 2 + i];
}

template <int KIND>
__global__ void mma_kernel(const uint32_t *a_in, const uint32_t *b_in, uint32_t *c_io) {
    uint32_t a[4], b[2];
    load_fragments(a_in, b_in, a, b);
    float c[4];
    for (int i = 0; i < 4; i++) c[i] = __uint_as_float(c_io[threadIdx.x * 4 + i]);
    if (KIND == PTX_MMA_BF16) mma_bf16(c, a, b);
    if (KIND == PTX_MMA_F16) mma_f16(c, a, b);
    if (KIND == PTX_MMA_E4M3) mma_e4m3(c, a, b);
    for (int i = 0; i < 4; i++) c_io[threadIdx.x * 4 + i] = __float_as_uint(c[i]);
}

__global__ void mma_s8_kernel(const uint32_t *a_in, const uint32_t *b_in, uint32_t *c_io) {
    uint32_t a[4], b[2];
    load_fragments(a_in, b_in, a, b);
    int32_t c[4];
    for (int i = 0; i < 4; i++) c[i] = (int32_t)c_io[threadIdx.x * 4 + i];
    mma_s8(c, a, b);
    for (int i = 0; i < 4; i++) c_io[threadIdx.x * 4 + i] = (uint32_t)c[i];
}

cudaError_t ptx_probe_mma(cudaStream_t stream, ptx_mma kind, const uint32_t *a, const uint32_t *b,
                          uint32_t *c) {
    switch (kind) {
    case PTX_MMA_BF16:
        return launch(mma_kernel<PTX_MMA_BF16>, 1, 32, 0, stream, a, b, c);
    case PTX_MMA_F16:
        return launch(mma_kernel<PTX_MMA_F16>, 1, 32, 0, stream, a, b, c);
    case PTX_MMA_E4M3:
        return launch(mma_kernel<PTX_MMA_E4M3>, 1, 32, 0, stream, a, b, c);
    default:
        return launch(mma_s8_kernel, 1, 32, 0, stream, a, b, c);
    }
}

__global__ void ldmatrix_kernel(int matrices, int transposed, const uint16_t *tile, const int *rows,
                                uint32_t *out) {
    DYN_SMEM(smem);
    uint16_t *shared = reinterpret_cast<uint16_t *>(smem);
    int lane = threadIdx.x;
    for (int i = lane; i < PTX_TILE_ROWS * 8; i += 32) shared[i] = tile[i];
    __syncthreads();
    const void *row = shared + rows[lane] * 8;
    uint32_t four[4] = {0, 0, 0, 0}, two[2];
    if (matrices == 4) {
        if (transposed)
            ldmatrix_x4_trans(four, row);
        else
            ldmatrix_x4(four, row);
    } else {
        if (transposed)
            ldmatrix_x2_trans(two, row);
        else
            ldmatrix_x2(two, row);
        four[0] = two[0];
        four[1] = two[1];
    }
    for (int i = 0; i < 4; i++) out[lane * 4 + i] = four[i];
}

cudaError_t ptx_probe_ldmatrix(cudaStream_t stream, int matrices, int transposed,
                               const uint16_t *tile, const int *rows, uint32_t *r) {
    return launch(ldmatrix_kernel, 1, 32, PTX_TILE_ROWS * 16, stream, matrices, transposed, tile,
                  rows, r);
}

__global__ void copies_kernel(const uint4 *from, const int *valid, uint4 *out) {
    DYN_SMEM(smem);
    uint4 *shared = reinterpret_cast<uint4 *>(smem);
    int t = threadIdx.x, other = (t + 37) % PTX_PIECES;
    for (int group = 0; group < 3; group++) {
        const uint4 *piece = from + group * PTX_PIECES + t;
        if (group < 2)
            cp_async16(shared + group * PTX_PIECES + t, piece);
        else
            cp_async16_zfill(shared + group * PTX_PIECES + t, piece, valid[t] != 0);
        cp_async_commit();
    }
    cp_async_wait<2>();
    __syncthreads();
    out[other] = shared[other];
    cp_async_wait<1>();
    __syncthreads();
    out[PTX_PIECES + other] = shared[PTX_PIECES + other];
    cp_async_wait<0>();
    __syncthreads();
    out[2 * PTX_PIECES + other] = shared[2 * PTX_PIECES + other];
}

cudaError_t ptx_probe_copies(cudaStream_t stream, const uint4 *from, const int *valid, uint4 *out) {
    return launch(copies_kernel, 1, PTX_PIECES, 3 * PTX_PIECES * 16, stream, from, valid, out);
}

__global__ void loads_kernel(const uint32_t *in, uint32_t *out) {
    const uint32_t *mine = in + threadIdx.x * 8;
    uint32_t *to = out + threadIdx.x * 8;
    uint4 four = load_stream16(mine);
    uint2 two = load_stream8(mine + 4);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
    to[4] = two.x, to[5] = two.y;
    to[6] = load_stream4(mine + 6);
    to[7] = load_stream4(mine + 7);
}

cudaError_t ptx_probe_loads(cudaStream_t stream, const uint32_t *in, uint32_t *out) {
    return launch(loads_kernel, 1, 32, 0, stream, in, out);
}

__global__ void from_e4m3_kernel(float2 *floats, uint32_t *halfs) {
    uint32_t code = blockIdx.x * blockDim.x + threadIdx.x;
    floats[code] = e4m3x2_to_float2((uint16_t)code);
    __half2 h = e4m3x2_to_half2((uint16_t)code);
    halfs[code] = *reinterpret_cast<uint32_t *>(&h);
}

cudaError_t ptx_probe_from_e4m3(cudaStream_t stream, float2 *floats, uint32_t *halfs) {
    return launch(from_e4m3_kernel, 256, 256, 0, stream, floats, halfs);
}

__global__ void to_e4m3_kernel(const float2 *x, int count, uint16_t *codes) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) codes[i] = float2_to_e4m3x2(x[i]);
}

cudaError_t ptx_probe_to_e4m3(cudaStream_t stream, const float2 *x, int count, uint16_t *codes) {
    return launch(to_e4m3_kernel, (count + 127) / 128, 128, 0, stream, x, count, codes);
}

__global__ void barriers_kernel(int rounds, uint32_t *out) {
    DYN_SMEM(smem);
    uint32_t *shared = reinterpret_cast<uint32_t *>(smem);
    int t = threadIdx.x, team = t / 64;
    uint32_t sum = 0;
    for (int r = 0; r < rounds; r++) {
        shared[t] = (uint32_t)(t * 1000 + r);
        named_barrier_sync(1 + team, 64);
        sum += shared[team * 64 + (t + r) % 64];
        named_barrier_sync(1 + team, 64);
    }
    out[t] = sum;
}

cudaError_t ptx_probe_barriers(cudaStream_t stream, int rounds, uint32_t *out) {
    return launch(barriers_kernel, 1, 128, 128 * 4, stream, rounds, out);
}

__global__ void release_kernel(int count, uint32_t *values, uint32_t *flag, uint32_t *out) {
    if (blockIdx.x == 0) {
        for (int i = threadIdx.x; i < count; i += blockDim.x) values[i] = (uint32_t)i * 2654435761u;
        __syncthreads();
        if (threadIdx.x == 0) store_release_sys(flag, 1);
        return;
    }
    DYN_SMEM(smem);
    uint32_t *come = reinterpret_cast<uint32_t *>(smem);
    if (threadIdx.x == 0) {
        uint64_t begin = device_clock_ns();
        *come = load_acquire_sys(flag);
        while (!*come && device_clock_ns() - begin < 1000000000u) {
            spin_pause();
            *come = load_acquire_sys(flag);
        }
    }
    __syncthreads();
    if (*come)
        for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = values[i];
}

cudaError_t ptx_probe_release(cudaStream_t stream, int count, uint32_t *values, uint32_t *flag,
                              uint32_t *out) {
    return launch(release_kernel, 2, 64, 16, stream, count, values, flag, out);
}

__global__ void warp_kernel(const uint32_t *in, uint32_t *out) {
    int lane = threadIdx.x;
    uint32_t v = in[lane];
    out[0 * 32 + lane] = __shfl_xor_sync(0xffffffffu, v, 5);
    out[1 * 32 + lane] = __shfl_up_sync(0xffffffffu, v, 3);
    out[2 * 32 + lane] = __shfl_down_sync(0xffffffffu, v, 7);
    out[3 * 32 + lane] = __shfl_sync(0xffffffffu, v, 9 - lane, 16);
    out[4 * 32 + lane] = __ballot_sync(0xffffffffu, v & 1);
    out[5 * 32 + lane] = __match_any_sync(0xffffffffu, v % 4);
    out[6 * 32 + lane] = __reduce_min_sync(0xffffffffu, v);
    out[7 * 32 + lane] = __reduce_max_sync(0xffffffffu, v);
    out[8 * 32 + lane] = __reduce_add_sync(0xffffffffu, v);
    out[9 * 32 + lane] = __byte_perm(v, in[31 - lane], 0x7160);
}

cudaError_t ptx_probe_warp(cudaStream_t stream, const uint32_t *in, uint32_t *out) {
    return launch(warp_kernel, 1, 32, 0, stream, in, out);
}
