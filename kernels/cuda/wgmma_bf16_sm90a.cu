// wgmma_bf16: products of BF16 weights on sm_90, in the steps and the order that matmul.h tells,
// but that a strand or segment is summed by m64nNk16 steps. Any number of tokens is multiplied in
// the same way, so that a token's bits do not depend on its company.
//
// Weights lie as weight_pack.h says, in plain rows, which cuBLASLt takes too. All threads of the
// producer copy pieces of 16 bytes to their swizzled places by cp.async, the weights' of the first
// stages before the kernel before this one has ended; a stage is handed over DEPTH - 2 stages
// later, when its copies have landed.
#include "kernels/cuda/wgmma_kernel.h"

namespace {

using namespace wgmma_kernel;
using matmul_kernel::cursor;
using matmul_kernel::slots;

enum { PIECES = ROW_BYTES / 16, ROWS_AT_ONCE = GROUP / PIECES };

// A block's shared memory: stages (their tiles aligned to 1024), the consumers' totals, barriers.
template <class N, int TOKENS> struct layout {
    static constexpr int DEPTH = TOKENS == 8 ? 6 : TOKENS == 16 ? 5 : TOKENS == 128 ? 4 : 6;
    static constexpr int BLOCKS = TOKENS <= 16 ? 2 : 1; // on a multiprocessor
    static constexpr int STAGE = CONSUMERS * TILE + TOKENS * ROW_BYTES;
    static constexpr int TOTALS = TOKENS / 2 * GROUP * (int)sizeof(N); // of a consumer
    static constexpr int BARRIERS_AT = DEPTH * STAGE + CONSUMERS * TOTALS;
    static constexpr int BYTES = BARRIERS_AT + 2 * DEPTH * (int)sizeof(uint64_t);
    static_assert(STAGE % 1024 == 0, "alignment");
    static_assert(BYTES <= 227 * 1024 && BLOCKS * (BYTES + 1024) <= 228 * 1024, "shared memory");

    unsigned char *smem;

    __device__ unsigned char *tile(int slot, int consumer) const {
        return smem + slot * STAGE + consumer * TILE;
    }
    __device__ unsigned char *x(int slot) const { return tile(slot, CONSUMERS); }
    // A thread's, GROUP apart.
    __device__ N *totals(int consumer) const {
        return (N *)(smem + DEPTH * STAGE + consumer * TOTALS) + threadIdx.x % GROUP;
    }
    __device__ uint64_t *full(int slot) const { return (uint64_t *)(smem + BARRIERS_AT) + slot; }
    __device__ uint64_t *empty(int slot) const { return full(slot) + DEPTH; }
};

// The columns of the block.
__device__ inline cursor columns(const matmul_plan &p) {
    int split = (int)blockIdx.z;
    int begin = min(p.segments * split / p.splits * p.segment, p.cols);
    int end = min(p.segments * (split + 1) / p.splits * p.segment, p.cols);
    return cursor(begin, end, p.segment, false);
}

// ---- the producer

// Where a thread's pieces of a consumer's tile come from: rows thread / 8, + 16 ...; rows are
// padded to 16.
struct source {
    const uint8_t *from;
    size_t step;
    int count; // of the rows that exist

    __device__ source(const matmul_plan &p, const rows64 &r) {
        int row = r.tile * WGMMA_ROWS, thread = (int)threadIdx.x;
        step = (size_t)p.stride * 2 * ROWS_AT_ONCE;
        from = (const uint8_t *)p.values[r.matrix] +
               (size_t)(row + thread / PIECES) * p.stride * 2 + thread % PIECES * 16;
        int left = (p.rows[r.matrix] - row + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
        count = max(0, min(left, WGMMA_ROWS / ROWS_AT_ONCE));
    }
    __device__ void copy(const matmul_plan &p, int col, unsigned char *tile) const {
        int row = (int)threadIdx.x / PIECES, piece = (int)threadIdx.x % PIECES ^ (row & 7);
#pragma unroll
        for (int i = 0; i < WGMMA_ROWS / ROWS_AT_ONCE; i++)
            cp_async16_zfill(tile + (row + i * ROWS_AT_ONCE) * ROW_BYTES + piece * 16,
                             i < count ? from + i * step + (size_t)col * 2 : p.values[0],
                             i < count);
    }
};
static_assert((int)ROWS_AT_ONCE == (int)WEIGHT_PACK_ROWS,
              "a row of padding is there where its first is");

template <class N, int TOKENS>
__device__ inline void produce(const matmul_plan &p, const layout<N, TOKENS> &l) {
    constexpr int DEPTH = layout<N, TOKENS>::DEPTH, LAG = DEPTH - 2;
    const source sources[CONSUMERS] = {source(p, rows64(p, 0)), source(p, rows64(p, 1))};
    const slots s = slots::all(p);
    cursor weights = columns(p), x = weights;
    place<DEPTH> at, handed;
    auto copy_weights = [&](int slot) {
        for (int c = 0; c < CONSUMERS; c++) sources[c].copy(p, weights.base, l.tile(slot, c));
        weights.next();
    };
    auto copy_x = [&](int slot) {
        matmul_kernel::copy_x(p, s, x, (int)threadIdx.x % PIECES, (int)blockIdx.x * TOKENS,
                              (int)threadIdx.x / PIECES, ROWS_AT_ONCE, TOKENS, l.x(slot));
        x.next();
    };
    auto hand_over = [&] { // the oldest stage, whose copies have landed
        proxy_fence();
        mbarrier_arrive(l.full(handed.slot));
        handed.next();
    };
    int ahead = 0, stage = 0;
    for (; ahead < LAG && !weights.done(); ahead++) copy_weights(ahead);
    grid_wait(); // weights are nobody's output; x is
    grid_launch_dependents();
    for (; stage < ahead; stage++, at.next()) {
        copy_x(at.slot);
        cp_async_commit();
    }
    for (; !weights.done(); stage++) {
        if (stage >= DEPTH) mbarrier_wait(l.empty(at.slot), at.parity ^ 1);
        copy_weights(at.slot);
        copy_x(at.slot);
        cp_async_commit();
        at.next();
        cp_async_wait<LAG>();
        hand_over();
    }
    cp_async_wait<0>();
    for (int left = stage < LAG ? stage : LAG; left > 0; left--) hand_over();
}

// ---- the consumers

template <class N, int TOKENS>
__device__ inline void consume(const matmul_plan &p, const layout<N, TOKENS> &l, const rows64 &r,
                               int consumer) {
    constexpr int SUMS = TOKENS / 2;
    float sum[SUMS] = {};
    N *total = l.totals(consumer);
    bool first_segment = true, first_stage = true;
    place<layout<N, TOKENS>::DEPTH> at;
    for (cursor now = columns(p); !now.done(); now.next(), at.next()) {
        mbarrier_wait(l.full(at.slot), at.parity);
        if (r.valid) {
            uint64_t w = operand(l.tile(at.slot, consumer)), x = operand(l.x(at.slot));
            wgmma_fence();
#pragma unroll
            for (int step = 0; step < STEPS; step++)
                wgmma_bf16<TOKENS>(sum, w + step * (STEP_BYTES / 16), x + step * (STEP_BYTES / 16),
                                   step > 0 || !first_stage);
            wgmma_commit();
            wgmma_wait<0>(sum);
        }
        __syncwarp();
        if (threadIdx.x % 32 == 0) mbarrier_arrive(l.empty(at.slot));
        first_stage = now.last_of_segment();
        if (!first_stage) continue;
#pragma unroll
        for (int i = 0; i < SUMS; i++) {
            N before = first_segment ? (N)0 : total[i * GROUP];
            if (sizeof(N) == 8)
                total[i * GROUP] = (N)__dadd_rn((double)before, matmul_kernel::to_grid(sum[i]));
            else
                total[i * GROUP] = (N)__fadd_rn((float)before, sum[i]);
        }
        first_segment = false;
    }
}

template <class N, int TOKENS>
__global__ void __launch_bounds__(THREADS, (layout<N, TOKENS>::BLOCKS))
    product_bf16(const __grid_constant__ matmul_plan p) {
    DYN_SMEM_1024(smem);
    const layout<N, TOKENS> l = {smem};
    if (threadIdx.x == 0) {
        for (int i = 0; i < layout<N, TOKENS>::DEPTH; i++) {
            mbarrier_init(l.full(i), GROUP);
            mbarrier_init(l.empty(i), CONSUMERS * GROUP / 32);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    int consumer = (int)threadIdx.x / GROUP - 1;
    if (consumer < 0) {
        produce(p, l);
        return;
    }
    grid_wait(); // before anything is written
    grid_launch_dependents();
    const rows64 r(p, consumer);
    consume(p, l, r, consumer);
    bool pairs = p.output == MATMUL_GATE_UP && p.splits == 1;
    if (pairs) named_barrier_sync(CONSUMER_BARRIER, CONSUMERS * GROUP); // both have their totals
    if (r.valid && !(pairs && consumer == 1))
        store_tile<N, TOKENS>(p, r, l.totals(consumer), pairs ? l.totals(1) : nullptr);
}

template <class N, int TOKENS> cudaError_t start(cudaStream_t stream, const matmul_plan &p) {
    return launch_dependent(product_bf16<N, TOKENS>, dim3(p.grid[0], p.grid[1], p.grid[2]), THREADS,
                            layout<N, TOKENS>::BYTES, stream, p);
}

} // namespace

cudaError_t matmul_start_bf16_sm90(cudaStream_t stream, const matmul_plan *p) {
    bool f64 = p->output == MATMUL_F64;
    switch (p->block_tokens) {
    case 8:
        return f64 ? start<double, 8>(stream, *p) : start<float, 8>(stream, *p);
    case 16:
        return f64 ? start<double, 16>(stream, *p) : start<float, 16>(stream, *p);
    case 32:
        return f64 ? start<double, 32>(stream, *p) : start<float, 32>(stream, *p);
    case 64:
        return f64 ? start<double, 64>(stream, *p) : start<float, 64>(stream, *p);
    case 128:
        return f64 ? cudaErrorInvalidValue : start<float, 128>(stream, *p);
    default:
        return cudaErrorInvalidValue;
    }
}
