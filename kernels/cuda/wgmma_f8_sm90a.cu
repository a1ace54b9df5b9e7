// wgmma_f8: the product of wgmma.h: E4M3 by E4M3, promoted to float every 128 columns (DeepSeek-V3
// technical report, 3.3.2, "Increasing accumulation precision").
//
// One thread is the producer, with one bulk copy for each tile. The ring is filled with weights
// before the kernel before this one has ended; only then come the activations.
#include "kernels/cuda/wgmma_kernel.h"
#include "kernels/cuda/wgmma_plan.h"

namespace {

using namespace wgmma_kernel;

enum { BLOCK_SCALES = WGMMA_ROWS * (int)sizeof(float) }; // bytes, of a tile
static_assert((int)TILE == (int)WGMMA_TILE_BYTES && (int)ROW_BYTES == (int)WGMMA_COLS,
              "a stage is a packed tile: one byte a column");

// A block's shared memory: stages (their tiles aligned to 1024), the consumers' totals, each
// stage's scales, barriers. Totals are touched once for each strand: registers hold what is touched
// once for each stage.
template <int TOKENS> struct layout {
    static constexpr int DEPTH = TOKENS == 8 ? 6 : TOKENS == 16 ? 5 : TOKENS == 128 ? 4 : 7;
    static constexpr int BLOCKS = TOKENS <= 16 ? 2 : 1; // on a multiprocessor
    static constexpr int SUMS = TOKENS / 2;             // of a thread
    static constexpr int STAGE = CONSUMERS * TILE + TOKENS * WGMMA_COLS;
    static constexpr int TOTALS = SUMS * GROUP * (int)sizeof(float); // of a consumer
    static constexpr int X_SCALES = TOKENS * (int)sizeof(float);
    static constexpr int SCALES = X_SCALES + CONSUMERS * BLOCK_SCALES;
    static constexpr int SCALES_AT = DEPTH * STAGE + CONSUMERS * TOTALS;
    static constexpr int BARRIERS_AT = SCALES_AT + DEPTH * SCALES;
    static constexpr int BYTES = BARRIERS_AT + 2 * DEPTH * (int)sizeof(uint64_t);
    static_assert(STAGE % 1024 == 0 && SCALES % 16 == 0 && SCALES_AT % 16 == 0, "alignment");
    static_assert(BYTES <= 227 * 1024 && BLOCKS * (BYTES + 1024) <= 228 * 1024, "shared memory");

    unsigned char *smem;

    __device__ unsigned char *tile(int slot, int consumer) const {
        return smem + slot * STAGE + consumer * TILE;
    }
    __device__ unsigned char *x(int slot) const { return tile(slot, CONSUMERS); }
    // A thread's, its SUMS of them GROUP floats apart.
    __device__ float *totals(int consumer) const {
        return (float *)(smem + DEPTH * STAGE + consumer * TOTALS) + threadIdx.x % GROUP;
    }
    __device__ float *x_scales(int slot) const {
        return (float *)(smem + SCALES_AT + slot * SCALES);
    }
    __device__ float *block_scales(int slot, int consumer) const {
        return (float *)((unsigned char *)x_scales(slot) + X_SCALES + consumer * BLOCK_SCALES);
    }
    __device__ uint64_t *full(int slot) const { return (uint64_t *)(smem + BARRIERS_AT) + slot; }
    __device__ uint64_t *empty(int slot) const { return full(slot) + DEPTH; }
};

// Which stages the block multiplies: the splits are the strands.
struct stages {
    int first, end, strand;

    __device__ explicit stages(const wgmma_plan &p) : strand(p.base.segment / WGMMA_COLS) {
        int split = (int)blockIdx.z, splits = p.base.splits;
        first = splits > 1 ? split * strand : 0;
        end = splits > 1 ? min(first + strand, p.col_tiles) : p.col_tiles;
    }
    __device__ bool ends_strand(int stage) const {
        return (stage + 1) % strand == 0 || stage + 1 == end;
    }
};

// ---- the producer

template <int TOKENS>
__device__ inline void copy_weights(const wgmma_plan &p, const layout<TOKENS> &l, int slot,
                                    int stage) {
    uint32_t bytes = TOKENS * WGMMA_COLS + layout<TOKENS>::X_SCALES;
    for (int c = 0; c < CONSUMERS; c++) {
        rows64 r(p.base, c);
        if (r.valid) bytes += TILE + (p.block_scales[r.matrix] ? BLOCK_SCALES : 0);
    }
    mbarrier_arrive_expect(l.full(slot), bytes);
    for (int c = 0; c < CONSUMERS; c++) {
        rows64 r(p.base, c);
        if (!r.valid) continue;
        size_t tile = (size_t)r.tile * p.col_tiles + stage;
        bulk_copy(l.tile(slot, c), (const uint8_t *)p.base.values[r.matrix] + tile * TILE, TILE,
                  l.full(slot));
        if (p.block_scales[r.matrix])
            bulk_copy(l.block_scales(slot, c),
                      (const uint8_t *)p.block_scales[r.matrix] + tile * BLOCK_SCALES, BLOCK_SCALES,
                      l.full(slot));
    }
}

template <int TOKENS>
__device__ inline void copy_x(const wgmma_plan &p, const layout<TOKENS> &l, int slot, int stage) {
    size_t at = (size_t)stage * p.padded + blockIdx.x * TOKENS;
    bulk_copy(l.x(slot), (const uint8_t *)p.x8 + at * WGMMA_COLS, TOKENS * WGMMA_COLS,
              l.full(slot));
    bulk_copy(l.x_scales(slot), p.x_scales + at, layout<TOKENS>::X_SCALES, l.full(slot));
}

template <int TOKENS>
__device__ inline void produce(const wgmma_plan &p, const layout<TOKENS> &l, const stages &s) {
    constexpr int DEPTH = layout<TOKENS>::DEPTH;
    int ahead = min(s.first + DEPTH, s.end);
    for (int i = s.first; i < ahead; i++) copy_weights(p, l, i - s.first, i);
    grid_wait(); // weights are nobody's output; x is
    grid_launch_dependents();
    proxy_fence();
    for (int i = s.first; i < ahead; i++) copy_x(p, l, i - s.first, i);
    place<DEPTH> at;
    for (int i = ahead; i < s.end; i++, at.next()) {
        mbarrier_wait(l.empty(at.slot), at.parity); // done with the stage DEPTH before
        copy_weights(p, l, at.slot, i);
        copy_x(p, l, at.slot, i);
    }
}

// ---- the consumers

// sum += the product of one stage under its scales. A lane has, of tokens 8j + 2t and 8j + 2t + 1,
// rows g and g + 8 of the warp's 16, whose own scales are row_scale.
template <int TOKENS>
__device__ inline void promote(const float *x_scales, const float (&row_scale)[2], int lane,
                               const float (&part)[TOKENS / 2], float (&sum)[TOKENS / 2]) {
#pragma unroll
    for (int j = 0; j < TOKENS / 8; j++) {
        float2 scale = *(const float2 *)(x_scales + 8 * j + lane % 4 * 2);
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum[4 * j + i] =
                __fmaf_rn(part[4 * j + i], __fmul_rn(i % 2 ? scale.y : scale.x, row_scale[i / 2]),
                          sum[4 * j + i]);
    }
}

// The thread's totals, of all strands that the block has.
template <int TOKENS>
__device__ inline void consume(const wgmma_plan &p, const layout<TOKENS> &l, const stages &s,
                               const rows64 &r, int consumer) {
    constexpr int SUMS = layout<TOKENS>::SUMS;
    int warp = (int)threadIdx.x / 32 % 4, lane = (int)threadIdx.x % 32;
    int row = warp * 16 + lane / 4;                                   // of the tile
    const float *row_scales = (const float *)p.base.scales[r.matrix]; // NULL: block scales
    float whole[2] = {1, 1}, block[2] = {1, 1};
    if (r.valid && row_scales) {
        whole[0] = row_scales[r.tile * WGMMA_ROWS + row];
        whole[1] = row_scales[r.tile * WGMMA_ROWS + row + 8];
    }
    bool first_strand = true;
    float sum[SUMS] = {}, part[SUMS] = {}, *total = l.totals(consumer);
    place<layout<TOKENS>::DEPTH> at;
    for (int stage = s.first; stage < s.end; stage++, at.next()) {
        mbarrier_wait(l.full(at.slot), at.parity);
        if (r.valid) {
            uint64_t w = operand(l.tile(at.slot, consumer)), x = operand(l.x(at.slot));
            wgmma_fence();
#pragma unroll
            for (int step = 0; step < STEPS; step++)
                wgmma_e4m3<TOKENS>(part, w + step * (STEP_BYTES / 16), x + step * (STEP_BYTES / 16),
                                   step > 0);
            wgmma_commit();
            wgmma_wait<0>(part);
            if (!row_scales) {
                const float *scales = l.block_scales(at.slot, consumer) + row;
                block[0] = scales[0], block[1] = scales[8];
            }
            promote<TOKENS>(l.x_scales(at.slot), block, lane, part, sum);
        }
        __syncwarp(); // all lanes have read the scales
        if (lane == 0) mbarrier_arrive(l.empty(at.slot));
        if (!s.ends_strand(stage)) continue;
#pragma unroll
        for (int i = 0; i < SUMS; i++) {
            float strand = __fmul_rn(sum[i], whole[i % 4 / 2]);
            total[i * GROUP] = __fadd_rn(first_strand ? 0.0f : total[i * GROUP], strand);
            sum[i] = 0;
        }
        first_strand = false;
    }
}

template <int TOKENS>
__global__ void __launch_bounds__(THREADS, layout<TOKENS>::BLOCKS)
    product_f8(const __grid_constant__ wgmma_plan p) {
    DYN_SMEM_1024(smem);
    const layout<TOKENS> l = {smem};
    const stages s(p);
    if (threadIdx.x == 0) {
        for (int i = 0; i < layout<TOKENS>::DEPTH; i++) {
            mbarrier_init(l.full(i), 1);
            mbarrier_init(l.empty(i), CONSUMERS * GROUP / 32);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    int consumer = (int)threadIdx.x / GROUP - 1;
    if (consumer < 0) {
        if (threadIdx.x == 0) produce(p, l, s);
        return;
    }
    grid_wait(); // before anything is written
    grid_launch_dependents();
    const rows64 r(p.base, consumer);
    consume(p, l, s, r, consumer);
    bool pairs = p.base.output == MATMUL_GATE_UP && p.base.splits == 1;
    if (pairs) named_barrier_sync(CONSUMER_BARRIER, CONSUMERS * GROUP); // both have their totals
    if (r.valid && !(pairs && consumer == 1))
        store_tile<float, TOKENS>(p.base, r, l.totals(consumer), pairs ? l.totals(1) : nullptr);
}

template <int TOKENS> cudaError_t start(cudaStream_t stream, const wgmma_plan &p) {
    return launch_dependent(product_f8<TOKENS>,
                            dim3(p.base.grid[0], p.base.grid[1], p.base.grid[2]), THREADS,
                            layout<TOKENS>::BYTES, stream, p);
}

} // namespace

cudaError_t wgmma_start_f8(cudaStream_t stream, const wgmma_plan *p) {
    switch (p->base.block_tokens) {
    case 8:
        return start<8>(stream, *p);
    case 16:
        return start<16>(stream, *p);
    case 32:
        return start<32>(stream, *p);
    case 64:
        return start<64>(stream, *p);
    case 128:
        return start<128>(stream, *p);
    default:
        return cudaErrorInvalidValue;
    }
}
