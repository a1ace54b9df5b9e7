// matmul_w8a8: FP8 weights with FP8 activations. An option, since it changes the numbers: each
// token's activations are rounded to three bits of mantissa under a scale of their own. Steps and
// order are otherwise those of the other products, so that here too a token's bits do not depend on
// its company.
//
// What it is worth depends on the card: sm_89's tensor cores run mma.sync on E4M3 at twice BF16's
// rate; for sm_90 ptxas makes conversions and half-precision products of it, so that there only the
// activations' bytes are saved and FP8's rate asks for wgmma.
//
// mma.m16n8k32 takes four consecutive columns a lane where packed weights have 2t, 2t + 8, 2t + 1
// and 2t + 9 of sixteen. The order inside a sum is free as long as both operands have the same, so
// the activations are written in that order.
#include "kernels/cuda/matmul_kernel.h"

namespace matmul_kernel {
namespace {

enum { TOKENS = 128, GROUPS = TOKENS / 16, DEPTH = 5, X8_BYTES = COLS, QUANTISE_THREADS = 128 };
typedef weight_format::f8_e4m3 format;
constexpr int SLOT = TILES * format::TILE + TOKENS * X8_BYTES;
constexpr float LARGEST = 448;

// Piece i (16 bytes) of a token's 64 stands at i ^ (token / 2 % 4): eight tokens' same piece lies
// in different banks.
__device__ inline int x8_place(int token, int piece) {
    return token * X8_BYTES + ((piece ^ (token / 2 & 3)) * 16);
}

__device__ inline void copy_x8(const matmul_plan &p, const cursor &c, int first_token,
                               uint8_t *slot) {
    int piece = (int)threadIdx.x % 4;
    for (int i = (int)threadIdx.x / 4; i < TOKENS; i += TILE_THREADS / 4) {
        bool valid = first_token + i < p.tokens;
        const uint8_t *x =
            (const uint8_t *)p.x +
            (valid ? (size_t)(first_token + i) * p.x_stride + c.base + piece * 16 : 0);
        cp_async16_zfill(slot + TILES * format::TILE + x8_place(i, piece), x, valid);
    }
}

// Two tiles of rows x GROUPS of 8 tokens; a half stage is one step of 32 columns.
__device__ inline void stage(const uint8_t *slot, int warp_rows, int warp_tokens, int lane,
                             float (&sum)[2][GROUPS][4]) {
    const uint4 *tiles = (const uint4 *)(slot + 2 * warp_rows * format::TILE);
    const uint8_t *x = slot + TILES * format::TILE;
    int token = lane / 16 * 8 + lane % 8; // of two groups, whose operands one ldmatrix brings
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint4 v = tiles[(2 * i + half) * 32 +
                            lane]; // step and row: (0, g), (0, g + 8), (1, g), (1, g + 8)
            a[i][0] = v.x, a[i][1] = v.y, a[i][2] = v.z, a[i][3] = v.w;
        }
#pragma unroll
        for (int group = 0; group < GROUPS; group += 2) {
            uint32_t b[4];
            ldmatrix_x4(b, x + x8_place((warp_tokens * GROUPS + group) * 8 + token,
                                        2 * half + lane / 8 % 2));
            const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
#pragma unroll
            for (int i = 0; i < 2; i++) {
                mma_e4m3(sum[i][group], a[i], b0);
                mma_e4m3(sum[i][group + 1], a[i], b1);
            }
        }
    }
}

// sums times their tokens' scales.
__device__ inline void scale_tokens(const matmul_plan &p, int first_token, int lane,
                                    float (&sum)[2][GROUPS][4]) {
#pragma unroll
    for (int group = 0; group < GROUPS; group++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int token = first_token + group * 8 + lane % 4 * 2 + j;
            float scale = token < p.tokens ? p.x_scales[token] : 0;
#pragma unroll
            for (int i = 0; i < 4; i++) sum[i / 2][group][i % 2 * 2 + j] *= scale;
        }
}

__global__ void __launch_bounds__(TILE_THREADS, 1)
    tile_w8a8(const __grid_constant__ matmul_plan p) {
    DYN_SMEM(smem);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int warp_rows = warp / 2, warp_tokens = warp % 2, split = (int)blockIdx.z;
    row_block block(p, (int)blockIdx.y);
    int block_token = (int)blockIdx.x * TOKENS,
        first_token = block_token + warp_tokens * GROUPS * 8;
    int begin = min(p.segments * split / p.splits * p.segment, p.cols);
    int end = min(p.segments * (split + 1) / p.splits * p.segment, p.cols);
    cursor now(begin, end, p.segment, true), ahead = now;
    const slots s = slots::all(p);
    tile_source<format> source(p, s, block);
    float sum[2][GROUPS][4] = {}, total[2][GROUPS][4] = {};

    int slot = 0, ahead_slot = 0;
    for (; ahead_slot < DEPTH - 1 && !ahead.done(); ahead_slot++, ahead.next())
        source.copy(p, ahead, smem + ahead_slot * SLOT);
    grid_wait(); // weights are nobody's output; x is
    grid_launch_dependents();
    cursor x_ahead = now;
    for (int i = 0; i < DEPTH - 1; i++) {
        if (!x_ahead.done()) {
            copy_x8(p, x_ahead, block_token, smem + i * SLOT);
            x_ahead.next();
        }
        cp_async_commit();
    }
    for (; !now.done(); now.next()) {
        cp_async_wait<DEPTH - 2>();
        __syncthreads(); // this stage is there for all warps, and all are done with the one before
        if (!ahead.done()) {
            source.copy(p, ahead, smem + ahead_slot * SLOT);
            copy_x8(p, ahead, block_token, smem + ahead_slot * SLOT);
            ahead.next();
            if (++ahead_slot == DEPTH) ahead_slot = 0;
        }
        cp_async_commit();
        stage(smem + slot * SLOT, warp_rows, warp_tokens, lane, sum);
        if (++slot == DEPTH) slot = 0;
        if (!now.last_of_segment()) continue;
        scale_tokens(p, first_token, lane,
                     sum); // before strands are added: a split adds them elsewhere
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int group = 0; group < GROUPS; group++)
                end_segment<format, float>(p, s, block.at(p, 2 * warp_rows + i), lane,
                                           sum[i][group], total[i][group]);
    }
    tile_store<float, GROUPS>(p, s, block, 2 * warp_rows, first_token, lane, total);
}

// A block for each token: its largest magnitude, then its numbers under the scale, in the weights'
// order of columns.
__global__ void quantise(const uint16_t *x, int cols, int stride, uint8_t *out, int out_stride,
                         float *scales) {
    __shared__ float most_of[QUANTISE_THREADS / 32];
    grid_wait();
    grid_launch_dependents();
    x += (size_t)blockIdx.x * stride;
    float most = 0;
    for (int i = (int)threadIdx.x; i < cols; i += QUANTISE_THREADS)
        most = fmaxf(most, fabsf(__uint_as_float((uint32_t)x[i] << 16)));
    for (int step = 16; step > 0; step /= 2)
        most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, step));
    if (threadIdx.x % 32 == 0) most_of[threadIdx.x / 32] = most;
    __syncthreads();
    for (int i = 0; i < QUANTISE_THREADS / 32; i++) most = fmaxf(most, most_of[i]);
    float scale = __fdiv_rn(most, LARGEST);
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
    out += (size_t)blockIdx.x * out_stride;
    for (int i = (int)threadIdx.x * 4; i < out_stride;
         i += QUANTISE_THREADS * 4) { // a lane's four columns
        float v[4];
        for (int j = 0; j < 4; j++) {
            int col = i / 16 * 16 + i % 16 / 2 + j % 2 * 8 + j / 2;
            v[j] = col < cols && scale > 0
                       ? __fdiv_rn(__uint_as_float((uint32_t)x[col] << 16), scale)
                       : 0.0f;
        }
        uint32_t low = float2_to_e4m3x2(make_float2(v[0], v[1])),
                 high = float2_to_e4m3x2(make_float2(v[2], v[3]));
        *(uint32_t *)(out + i) = low | high << 16;
    }
}

} // namespace
} // namespace matmul_kernel

cudaError_t matmul_quantise_x(cudaStream_t stream, const void *x, int tokens, int cols, void *x8,
                              float *scales) {
    if (tokens == 0) return cudaSuccess;
    return launch_dependent(matmul_kernel::quantise, (unsigned)tokens,
                            matmul_kernel::QUANTISE_THREADS, 0, stream, (const uint16_t *)x, cols,
                            matmul_act_stride(cols), (uint8_t *)x8, matmul_x8_stride(cols), scales);
}

cudaError_t matmul_start_w8a8(cudaStream_t stream, const matmul_plan *p) {
    using namespace matmul_kernel;
    if (p->block_tokens != TOKENS || p->output == MATMUL_F64) return cudaErrorInvalidValue;
    return launch_dependent(tile_w8a8, dim3(p->grid[0], p->grid[1], p->grid[2]), TILE_THREADS,
                            DEPTH * SLOT, stream, *p);
}
