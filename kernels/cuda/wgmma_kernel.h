// wgmma_kernel: what the kernels of warpgroup products share. For NAME_sm90a.cu files only.
//
// A block has 128 rows of weights (gate_up: the same 64 of both matrices) and TOKENS tokens, and
// three warpgroups: a producer, which keeps a ring of stages full, and two consumers, which each
// multiply 64 rows. A stage is 128 bytes of each row and of each token, swizzled. Two mbarriers a
// stage: `full` completes when its bytes are there, `empty` when the consumers' eight warps are
// done with it.
#ifndef OCTANT_KERNELS_CUDA_WGMMA_KERNEL_H
#define OCTANT_KERNELS_CUDA_WGMMA_KERNEL_H

#include "device_sm90a.h"

#include "kernels/cuda/matmul_kernel.h"
#include "kernels/cuda/wgmma.h"

namespace wgmma_kernel {

enum {
    GROUP = 128,          // threads of a warpgroup
    CONSUMERS = 2,        // warpgroups
    CONSUMER_BARRIER = 1, // a named barrier of theirs
    THREADS = (CONSUMERS + 1) * GROUP,
    ROW_BYTES = 128, // of a stage
    TILE = WGMMA_ROWS * ROW_BYTES,
    STEP_BYTES = 32, // of one product
    STEPS = ROW_BYTES / STEP_BYTES,
};

// The place of stage `count` in the ring, and the parity of the phase that its uses are.
template <int DEPTH> struct place {
    int slot = 0;
    uint32_t parity = 0;

    __device__ void next() {
        if (++slot < DEPTH) return;
        slot = 0;
        parity ^= 1;
    }
};

// A consumer's 64 rows.
struct rows64 {
    int matrix, tile;
    bool valid;

    __device__ rows64(const matmul_plan &p, int consumer) : matrix(0), tile((int)blockIdx.y) {
        if (p.output == MATMUL_GATE_UP) {
            matrix = consumer;
        } else {
            while (matrix + 1 < p.count && tile >= p.first_block[matrix + 1]) matrix++;
            tile = (tile - p.first_block[matrix]) * CONSUMERS + consumer;
        }
        valid = tile * WGMMA_ROWS < p.rows[matrix];
    }
};

// A tile's rows, or tokens, in shared memory, as device_sm90a.h says of descriptors.
__device__ inline uint64_t operand(const void *tile) {
    constexpr uint64_t EIGHT_ROWS = 8 * ROW_BYTES / 16, SWIZZLE_128 = 1;
    return SWIZZLE_128 << 62 | EIGHT_ROWS << 32 | (shared_address(tile) & 0x3ffff) >> 4;
}

// Results of a block that multiplied all columns, or a strand of them for the finish kernel. `up`:
// of the other warpgroup, with gate_up.
template <class N, int TOKENS>
__device__ inline void store_tile(const matmul_plan &p, const rows64 &r, const N *total,
                                  const N *up) {
    int warp = (int)threadIdx.x / 32 % 4, lane = (int)threadIdx.x % 32;
    int first_row = r.tile * WGMMA_ROWS + warp * 16 + lane / 4;
    int first_token = (int)blockIdx.x * TOKENS + lane % 4 * 2;
    const matmul_kernel::slots all = matmul_kernel::slots::all(p);
#pragma unroll 4
    for (int i = 0; i < TOKENS / 2; i++) {
        int row = first_row + i % 4 / 2 * 8, token = first_token + i / 4 * 8 + i % 2;
        if (p.splits == 1) {
            matmul_kernel::store<N>(p, all, r.matrix, row, token, total[i * GROUP],
                                    up ? up[i * GROUP] : 0);
        } else if (row < p.rows[r.matrix] && token < p.tokens) {
            size_t tile = ((size_t)blockIdx.z * p.tokens + token) * p.first_tile[p.count] +
                          p.first_tile[r.matrix] + row / WEIGHT_PACK_ROWS;
            ((N *)p.partials)[tile * WEIGHT_PACK_ROWS + row % WEIGHT_PACK_ROWS] = total[i * GROUP];
        }
    }
}

} // namespace wgmma_kernel

#endif
