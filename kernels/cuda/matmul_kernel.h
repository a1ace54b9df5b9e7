// matmul_kernel: the two kernels of a product, as templates over the weights' format
// (weight_format.h). For .cu files only; matmul.c chooses and matmul.h says what holds for both.
//
// stream: few tokens (up to 8). A block is four warps and 16 rows; each warp takes its part of the
// columns, a strand or some segments, through a ring in shared memory that only it uses: copies of
// the next tiles are always under way, and no barrier is met until the four results are added.
// Bound by reading the weights. The ring is filled with weights before the kernel before this one
// has ended; only then come the activations.
//
// tile: more tokens. A block is eight warps, 128 rows x TOKENS tokens, four warps by rows and two
// by tokens, each 32 rows x TOKENS / 2. The ring is the block's. With up to 64 tokens it is bound
// by reading weights, beyond by the tensor cores.
//
// Tokens are the mma's second operand: x (T, cols), 8 rows of it, read by ldmatrix from shared
// memory where 16-byte piece i of a row stands at i ^ (row % 8).
#ifndef OCTANT_KERNELS_CUDA_MATMUL_KERNEL_H
#define OCTANT_KERNELS_CUDA_MATMUL_KERNEL_H

#include "device.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda/weight_format.h"

namespace matmul_kernel {

enum {
    COLS = WEIGHT_PACK_COLS, // of a stage
    X_BYTES = 2 * COLS,      // of a token in a stage
    TILE_THREADS = 256,
    TILES = MATMUL_TILE_ROWS / WEIGHT_PACK_ROWS, // of rows, in a block of the tile kernel
};

// The nearest multiple of KERNELS_SUM_GRID (kernels/backend.h: kernels_to_grid).
__device__ inline double to_grid(float x) {
    const double shift = 0x1.8p52 * 0x1p-32;
    return __dadd_rn(__dadd_rn((double)x, shift), -shift);
}

// Walks over the stages of the columns [begin, end): stretches of up to `segment` columns, each in
// stages of 64.
struct cursor {
    int from, to; // the segment
    int base;     // the stage's first column
    int segment, end;
    bool aligned; // stages begin at whole tiles

    __device__ cursor(int begin, int end_, int segment_, bool aligned_)
        : segment(segment_), end(end_), aligned(aligned_) {
        enter(begin);
    }
    __device__ void enter(int begin) {
        from = begin;
        to = min(begin + segment, end);
        base = aligned ? begin / COLS * COLS : begin;
    }
    __device__ bool done() const { return from >= end; }
    __device__ bool last_of_segment() const { return base + COLS >= to; }
    __device__ void next() {
        if (last_of_segment())
            enter(to);
        else
            base += COLS;
    }
};

// The tokens that a block works on: all of the call, or one expert's slots, and that expert.
struct slots {
    int first, count, expert;

    __device__ static slots all(const matmul_plan &p) { return {0, p.tokens, 0}; }
    __device__ static slots of_expert(const matmul_plan &p, int expert) {
        int first = p.experts.first_slot[expert];
        return {first, p.experts.first_slot[expert + 1] - first, expert};
    }
};

// A tile of 16 rows: which matrix, and which tile of it.
struct row_tile {
    int matrix, tile;
    bool valid; // the matrix has such a tile
};

__device__ inline int row_tiles(const matmul_plan &p, int matrix) {
    return p.first_tile[matrix + 1] - p.first_tile[matrix];
}

// The tile at `index` of all matrices' tiles.
__device__ inline row_tile tile_at(const matmul_plan &p, int index) {
    row_tile r = {0, index, index < p.first_tile[p.count]};
    while (r.valid && r.tile >= row_tiles(p, r.matrix)) r.tile -= row_tiles(p, r.matrix++);
    return r;
}

// The rows of a block of the tile kernel: consecutive tiles of one matrix, or with gate_up tiles of
// both in turn.
struct row_block {
    int matrix, tile;

    __device__ row_block(const matmul_plan &p, int block) : matrix(0), tile(block * (TILES / 2)) {
        if (p.output == MATMUL_GATE_UP) return;
        while (matrix + 1 < p.count && block >= p.first_block[matrix + 1]) matrix++;
        tile = (block - p.first_block[matrix]) * TILES;
    }
    __device__ row_tile at(const matmul_plan &p, int t) const {
        bool pairs = p.output == MATMUL_GATE_UP;
        row_tile r = {pairs ? t & 1 : matrix, pairs ? tile + t / 2 : tile + t, false};
        r.valid = r.tile < row_tiles(p, r.matrix);
        return r;
    }
};

// ---- Where copies come from. A thread copies the same pieces of 16 bytes in every stage; for
// plain formats piece i of a tile is part i % 8 of row i / 8.

// Bytes from a piece to the same piece of the stage that begins at column `base`, and of the next
// row tile.
template <class F> __device__ inline size_t values_offset(int base) {
    return F::PLAIN ? 2 * (size_t)base : (size_t)(base / COLS) * F::TILE;
}

template <class F> __device__ inline size_t values_step(const matmul_plan &p) {
    return F::PLAIN ? (size_t)p.stride * 2 * WEIGHT_PACK_ROWS : (size_t)(p.stride / COLS) * F::TILE;
}

template <class F>
__device__ inline const uint8_t *values_begin(const matmul_plan &p, const slots &s,
                                              const row_tile &r, int piece) {
    size_t in_tile =
        F::PLAIN ? (size_t)(piece / 8) * p.stride * 2 + piece % 8 * 16 : (size_t)piece * 16;
    size_t expert = s.expert * p.expert_bytes[r.matrix];
    return (const uint8_t *)p.values[r.matrix] + expert + r.tile * values_step<F>(p) + in_tile;
}

template <class F> __device__ inline int values_place(int piece) { // in the stage's tile
    return F::PLAIN ? piece / 8 * 128 + ((piece % 8 ^ piece / 8 % 8) * 16) : piece * 16;
}

template <class F> __device__ inline size_t records_offset(int base) {
    return (size_t)(base / COLS / F::RECORD_TILES) * (WEIGHT_PACK_ROWS * F::RECORD);
}

template <class F>
__device__ inline const uint8_t *records_begin(const matmul_plan &p, const slots &s,
                                               const row_tile &r, int piece) {
    int groups = (p.stride / COLS + F::RECORD_TILES - 1) / F::RECORD_TILES;
    return (const uint8_t *)p.scales[r.matrix] + s.expert * p.expert_bytes[r.matrix] +
           (size_t)r.tile * groups * (WEIGHT_PACK_ROWS * F::RECORD) + piece * 16;
}

// Copies eight columns of x, `piece` of the stage, of tokens first_token + from, + step ... below +
// count, to rows X_BYTES apart; zeros outside the segment and past the last token.
__device__ inline void copy_x(const matmul_plan &p, const slots &s, const cursor &c, int piece,
                              int first_token, int from, int step, int count, uint8_t *rows) {
    int col = c.base + piece * 8;
    bool inside = col >= c.from && col < c.to;
    for (int i = from; i < count; i += step) {
        bool valid = inside && first_token + i < s.count;
        int row = s.first + first_token + i;
        if (p.experts.x_row && valid) row = p.experts.x_row[row];
        const uint16_t *x = (const uint16_t *)p.x + (valid ? (size_t)row * p.x_stride + col : 0);
        cp_async16_zfill(rows + i * X_BYTES + ((piece ^ (i & 7)) * 16), x, valid);
    }
}

// sum (16 rows x 8 tokens) over a half stage, steps k and k + 1, of one tile of rows with one of
// tokens.
template <class F>
__device__ inline void half_product(const typename F::regs &regs, int k, const uint32_t (&a)[2][4],
                                    const uint32_t (&b)[4], const float (&token_sums)[4],
                                    float (&sum)[4]) {
    const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
    if (F::FLUSH == 0) {
        mma_bf16(sum, a[0], b0);
        mma_bf16(sum, a[1], b1);
        return;
    }
    float part[4] = {0, 0, 0, 0}, scale[2];
    mma_bf16(part, a[0], b0);
    if (F::FLUSH == 16) {
        F::scales(regs, k, scale);
        for (int i = 0; i < 4; i++) sum[i] = __fmaf_rn(scale[i / 2], part[i], sum[i]), part[i] = 0;
        k++;
    }
    mma_bf16(part, a[1], b1);
    F::scales(regs, k, scale);
    for (int i = 0; i < 4; i++) sum[i] = __fmaf_rn(scale[i / 2], part[i], sum[i]);
    if (!F::MINIMUM) return;
    F::minimums(regs, k, scale);
    for (int i = 0; i < 4; i++) sum[i] = __fmaf_rn(scale[i / 2], token_sums[i % 2], sum[i]);
}

// The sums of x itself over a half stage, in [0] and [1] those of tokens 2t and 2t + 1; only where
// there are minimums.
template <class F> __device__ inline void sum_tokens(const uint32_t (&b)[4], float (&sums)[4]) {
    for (int i = 0; i < 4; i++) sums[i] = 0;
    if (!F::MINIMUM) return;
    const uint32_t ones[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80};
    const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
    mma_bf16(sums, ones, b0);
    mma_bf16(sums, ones, b1);
}

// A segment is done: its sums join the totals, and start again.
template <class F, class N>
__device__ inline void end_segment(const matmul_plan &p, const slots &s, const row_tile &r,
                                   int lane, float (&sum)[4], N (&total)[4]) {
    for (int i = 0; i < 4; i++) {
        float x = sum[i];
        if (F::ROW_SCALE && r.valid) {
            int row = r.tile * WEIGHT_PACK_ROWS + lane / 4 + i / 2 * 8;
            const uint8_t *scales =
                (const uint8_t *)p.scales[r.matrix] + s.expert * p.expert_bytes[r.matrix];
            x = __fmul_rn(x, ((const float *)scales)[row]);
        }
        if (sizeof(N) == 8)
            total[i] = (N)__dadd_rn((double)total[i], to_grid(x));
        else
            total[i] = (N)__fadd_rn((float)total[i], x);
        sum[i] = 0;
    }
}

// Writes a total of matrix m; with gate_up, `up` is the other's.
template <class N>
__device__ inline void store(const matmul_plan &p, const slots &s, int m, int row, int token,
                             N total, N up) {
    if (row >= p.rows[m] || token >= s.count) return;
    size_t at = (size_t)(s.first + token) * p.out_stride[m] + row;
    if (sizeof(N) == 8)
        ((double *)p.outs[m])[at] = (double)total;
    else if (p.output == MATMUL_FLOAT)
        ((float *)p.outs[m])[at] =
            p.bias[m] ? __fadd_rn((float)total, p.bias[m][row]) : (float)total;
    else if (p.output == MATMUL_GATE_UP) {
        float x = __fmul_rn(activate(p.activation, (float)total), (float)up);
        if (p.experts.scale) x = __fmul_rn(x, p.experts.scale[s.first + token]);
        ((__nv_bfloat16 *)p.outs[m])[at] = __float2bfloat16(x);
    } else
        ((__nv_bfloat16 *)p.outs[m])[at] = __float2bfloat16((float)total);
}

// ---- stream

// Where a lane's copies of a row tile's weights come from.
template <class F> struct stream_source {
    const uint8_t *values, *records;

    __device__ stream_source(const matmul_plan &p, const slots &s, const row_tile &r, int lane)
        : values(values_begin<F>(p, s, r, lane)), records(records_begin<F>(p, s, r, lane)) {}

    __device__ void copy(const matmul_plan &p, const cursor &c, int lane, uint8_t *slot) const {
        const uint8_t *from = values + values_offset<F>(c.base);
        size_t step = F::PLAIN ? (size_t)p.stride * 2 * 4 : 512; // 32 pieces on
#pragma unroll
        for (int i = 0; i < F::TILE / 512; i++)
            cp_async16(slot + values_place<F>(lane + 32 * i), from + i * step);
        if (F::HIGH > 0 && lane < F::TILE % 512 / 16)
            cp_async16(slot + F::TILE / 512 * 512 + lane * 16, from + F::TILE / 512 * step);
        if (lane < F::RECORD)
            cp_async16(slot + F::TILE + lane * 16, records + records_offset<F>(c.base));
    }
};

template <class F>
__device__ inline void stream_x(const matmul_plan &p, const slots &s, const cursor &c, int lane,
                                uint8_t *slot) {
    copy_x(p, s, c, lane % 8, 0, lane / 8, 4, s.count,
           slot + F::TILE + WEIGHT_PACK_ROWS * F::RECORD);
}

// One stage: 16 rows x 8 tokens.
template <class F>
__device__ inline void stream_stage(int tokens, const uint8_t *slot, const uint8_t *zeros, int lane,
                                    float (&sum)[4]) {
    const uint8_t *x = slot + F::TILE + WEIGHT_PACK_ROWS * F::RECORD;
    typename F::regs regs = F::load(slot, slot + F::TILE, lane);
    int token = lane % 8;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t a[2][4], b[4];
        int piece = half * 4 + lane / 8;
        ldmatrix_x4(b, token < tokens ? x + token * X_BYTES + ((piece ^ token) * 16) : zeros);
        F::fragment(regs, slot, lane, 2 * half, a[0]);
        F::fragment(regs, slot, lane, 2 * half + 1, a[1]);
        float token_sums[4];
        sum_tokens<F>(b, token_sums);
        half_product<F>(regs, 2 * half, a, b, token_sums, sum);
    }
}

template <class F, class N>
__global__ void __launch_bounds__(MATMUL_STREAM_WARPS * 32, 1)
    stream(const __grid_constant__ matmul_plan p) {
    DYN_SMEM(smem);
    constexpr int DEPTH = MATMUL_STREAM_DEPTH, WARPS = MATMUL_STREAM_WARPS;
    constexpr int RESULT = WEIGHT_PACK_ROWS * MATMUL_STREAM_TOKENS; // of a warp, (rows, tokens)
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int slot_bytes = F::TILE + WEIGHT_PACK_ROWS * F::RECORD + p.tokens * X_BYTES;
    int parts =
        p.output == MATMUL_GATE_UP ? 2 : 1; // the second part is the same tile of the other matrix
    N *results = (N *)smem;                 // (parts, warps, rows, tokens)
    uint8_t *after_results = smem + 2 * WARPS * RESULT * sizeof(N);
    uint8_t *zeros = after_results + warp * 16; // a row of each warp's own
    static_assert(WARPS * 16 <= 128, "room for the rows of zeros");
    uint8_t *ring = after_results + 128 + warp * DEPTH * slot_bytes;
    slots s = slots::all(p);
    if (p.experts.count > 0) {
        grid_wait(); // who has which slots was worked out just now
        s = slots::of_expert(p, (int)blockIdx.y);
        if (s.count == 0) return;
    }
    row_tile mine = tile_at(p, (int)blockIdx.x);
    const row_tile other = {1, mine.tile, true}; // of gate_up

    int begin = min(p.segments * warp / WARPS * p.segment, p.cols);
    int end = min(p.segments * (warp + 1) / WARPS * p.segment, p.cols);
    cursor now(begin, end, p.segment, !F::PLAIN), ahead = now;
    if (begin == end) parts = 0;
    int ahead_part = 0, slot = 0, ahead_slot = 0;
    stream_source<F> source(p, s, mine, lane);
    auto advance = [&] { // to the next stage, after the last to the other part's first
        ahead.next();
        if (ahead_slot++ == DEPTH - 1) ahead_slot = 0;
        if (!ahead.done()) return;
        ahead.enter(begin);
        if (++ahead_part < parts) source = stream_source<F>(p, s, other, lane);
    };

    if (lane == 0) *(uint4 *)zeros = make_uint4(0, 0, 0, 0);
    for (int i = 0; i < DEPTH - 1 && ahead_part < parts; i++, advance())
        source.copy(p, ahead, lane, ring + ahead_slot * slot_bytes);
    grid_wait(); // weights are nobody's output; x is
    grid_launch_dependents();
    cursor x_ahead = now;
    for (int i = 0; i < DEPTH - 1; i++) {
        if (i < ahead_slot) {
            stream_x<F>(p, s, x_ahead, lane, ring + i * slot_bytes);
            x_ahead.next();
            if (x_ahead.done()) x_ahead.enter(begin);
        }
        cp_async_commit();
    }
    for (int part = 0; part < parts; part++) {
        row_tile now_at = {mine.matrix + part, mine.tile, true};
        float sum[4] = {0, 0, 0, 0};
        N total[4] = {0, 0, 0, 0};
        for (now.enter(begin); !now.done(); now.next()) {
            cp_async_wait<DEPTH - 2>();
            __syncwarp(); // this stage is there for all lanes, and all are done with the one before
            if (ahead_part < parts) {
                source.copy(p, ahead, lane, ring + ahead_slot * slot_bytes);
                stream_x<F>(p, s, ahead, lane, ring + ahead_slot * slot_bytes);
                advance();
            }
            cp_async_commit();
            stream_stage<F>(s.count, ring + slot * slot_bytes, zeros, lane, sum);
            if (++slot == DEPTH) slot = 0;
            if (now.last_of_segment()) end_segment<F, N>(p, s, now_at, lane, sum, total);
        }
        N *at = results + (part * WARPS + warp) * RESULT + lane / 4 * MATMUL_STREAM_TOKENS +
                lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 4; i++) at[i / 2 * 8 * MATMUL_STREAM_TOKENS + i % 2] = total[i];
    }
    if (parts == 0) // no columns for this warp
        for (int i = lane; i < 2 * RESULT; i += 32)
            results[(i / RESULT * WARPS + warp) * RESULT + i % RESULT] = 0;
    __syncthreads();
    int row = (int)threadIdx.x % WEIGHT_PACK_ROWS, token = (int)threadIdx.x / WEIGHT_PACK_ROWS;
    const N *at = results + row * MATMUL_STREAM_TOKENS + token;
    N whole = 0, up = 0;
    for (int w = 0; w < WARPS; w++, at += RESULT) {
        whole += at[0];
        if (p.output == MATMUL_GATE_UP) up += at[WARPS * RESULT];
    }
    store<N>(p, s, mine.matrix, mine.tile * WEIGHT_PACK_ROWS + row, token, whole, up);
}

// ---- tile

template <class F> __host__ __device__ constexpr int tile_slot_bytes(int tokens) {
    return TILES * (F::TILE + WEIGHT_PACK_ROWS * F::RECORD) + tokens * X_BYTES;
}

// Where a thread's copies of a block's weights come from: its first piece, and every second row
// tile from there on (in a gate_up call the same matrix's).
template <class F> struct tile_source {
    static constexpr int PIECES = (F::TILE - F::HIGH) / 16;
    static constexpr int AT_ONCE = TILE_THREADS / PIECES, COUNT = TILES / AT_ONCE; // row tiles
    static constexpr int HIGHS = F::HIGH > 0 ? F::HIGH / 16 : 1; // pieces of a row tile's high bits
    const uint8_t *values, *highs = nullptr, *records;
    size_t step; // bytes from a piece to the next
    int tiles;   // how many of the pieces exist
    bool high = false, recorded;

    __device__ tile_source(const matmul_plan &p, const slots &s, const row_block &block) {
        static_assert(AT_ONCE % 2 == 0 || COUNT == 1, "a thread's row tiles are of one matrix");
        bool pairs = p.output == MATMUL_GATE_UP;
        row_tile r = block.at(p, (int)threadIdx.x / PIECES);
        values = values_begin<F>(p, s, r, (int)threadIdx.x % PIECES);
        step = values_step<F>(p) * (pairs ? AT_ONCE / 2 : AT_ONCE);
        int left = row_tiles(p, r.matrix) - r.tile, each = pairs ? AT_ONCE / 2 : AT_ONCE;
        tiles = left <= 0 ? 0 : (left + each - 1) / each;
        if (F::HIGH > 0) {
            row_tile of_high = block.at(p, (int)threadIdx.x / HIGHS % TILES);
            high = of_high.valid;
            highs = values_begin<F>(p, s, of_high, PIECES + (int)threadIdx.x % HIGHS);
        }
        constexpr int RECORDS = F::RECORD > 0 ? F::RECORD : 1; // pieces for each row tile
        row_tile of_record = block.at(p, (int)threadIdx.x / RECORDS % TILES);
        recorded = of_record.valid;
        records = records_begin<F>(p, s, of_record, (int)threadIdx.x % RECORDS);
    }
    __device__ void copy(const matmul_plan &p, const cursor &c, uint8_t *slot) const {
        const uint8_t *from = values + values_offset<F>(c.base);
        uint8_t *to =
            slot + (int)threadIdx.x / PIECES * F::TILE + values_place<F>((int)threadIdx.x % PIECES);
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            cp_async16_zfill(to + i * AT_ONCE * F::TILE, i < tiles ? from + i * step : p.values[0],
                             i < tiles);
        if (F::HIGH > 0 && (int)threadIdx.x < TILES * HIGHS)
            cp_async16_zfill(slot + (int)threadIdx.x / HIGHS * F::TILE +
                                 (PIECES + (int)threadIdx.x % HIGHS) * 16,
                             high ? highs + values_offset<F>(c.base) : p.values[0], high);
        if ((int)threadIdx.x < TILES * F::RECORD)
            cp_async16_zfill(slot + TILES * F::TILE + threadIdx.x * 16,
                             recorded ? records + records_offset<F>(c.base) : p.values[0],
                             recorded);
    }
};

template <class F, int TOKENS>
__device__ inline void tile_x(const matmul_plan &p, const slots &s, const cursor &c,
                              int first_token, uint8_t *slot) {
    copy_x(p, s, c, (int)threadIdx.x % 8, first_token, (int)threadIdx.x / 8, TILE_THREADS / 8,
           TOKENS, slot + TILES * (F::TILE + WEIGHT_PACK_ROWS * F::RECORD));
}

// One stage of a warp: two tiles of rows x GROUPS of 8 tokens.
template <class F, int GROUPS>
__device__ inline void tile_stage(const uint8_t *slot, int warp_rows, int warp_tokens, int lane,
                                  float (&sum)[2][GROUPS][4]) {
    const uint8_t *tiles = slot + 2 * warp_rows * F::TILE;
    const uint8_t *records = slot + TILES * F::TILE + 2 * warp_rows * WEIGHT_PACK_ROWS * F::RECORD;
    const uint8_t *x = slot + TILES * (F::TILE + WEIGHT_PACK_ROWS * F::RECORD) +
                       warp_tokens * GROUPS * 8 * X_BYTES;
    typename F::regs regs[2];
    for (int i = 0; i < 2; i++)
        regs[i] = F::load(tiles + i * F::TILE, records + i * WEIGHT_PACK_ROWS * F::RECORD, lane);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t a[2][2][4];
        for (int i = 0; i < 2; i++)
            for (int k = 0; k < 2; k++)
                F::fragment(regs[i], tiles + i * F::TILE, lane, 2 * half + k, a[i][k]);
        int piece = (half * 4 + lane / 8) ^ (lane % 8);
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            uint32_t b[4];
            ldmatrix_x4(b, x + (group * 8 + lane % 8) * X_BYTES + piece * 16);
            float token_sums[4];
            sum_tokens<F>(b, token_sums);
            for (int i = 0; i < 2; i++)
                half_product<F>(regs[i], 2 * half, a[i], b, token_sums, sum[i][group]);
        }
    }
}

// Results of a warp that computed all columns, or a part of them for the finish kernel.
template <class N, int GROUPS>
__device__ inline void tile_store(const matmul_plan &p, const slots &s, const row_block &block,
                                  int first_tile, int first_token, int lane,
                                  const N (&total)[2][GROUPS][4]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        row_tile r = block.at(p, first_tile + i);
        if (!r.valid || (i == 1 && p.output == MATMUL_GATE_UP && p.splits == 1)) continue;
        size_t partial =
            (size_t)blockIdx.z * p.tokens * p.first_tile[p.count] + p.first_tile[r.matrix] + r.tile;
#pragma unroll
        for (int group = 0; group < GROUPS; group++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int token = first_token + group * 8 + lane % 4 * 2 + j % 2,
                    row = lane / 4 + j / 2 * 8;
                size_t at =
                    (partial + (size_t)token * p.first_tile[p.count]) * WEIGHT_PACK_ROWS + row;
                if (p.splits == 1)
                    store<N>(p, s, r.matrix, r.tile * WEIGHT_PACK_ROWS + row, token,
                             total[i][group][j], total[1][group][j]);
                else if (token < s.count)
                    ((N *)p.partials)[at] = total[i][group][j];
            }
    }
}

template <class F, class N, int TOKENS, int DEPTH>
__global__ void __launch_bounds__(TILE_THREADS, 1) tile(const __grid_constant__ matmul_plan p) {
    DYN_SMEM(smem);
    constexpr int GROUPS = TOKENS / 16, SLOT = tile_slot_bytes<F>(TOKENS);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int warp_rows = warp / 2, warp_tokens = warp % 2, split = (int)blockIdx.z;
    row_block block(p, (int)blockIdx.y);
    int first_token = (int)blockIdx.x * TOKENS;
    slots s = slots::all(p);
    if (TOKENS <= 64 && p.experts.count > 0) {
        grid_wait(); // who has which slots was worked out just now
        s = slots::of_expert(p, split);
        split = 0;
        if (first_token >= s.count) return;
    }
    int begin = min(p.segments * split / p.splits * p.segment, p.cols);
    int end = min(p.segments * (split + 1) / p.splits * p.segment, p.cols);
    cursor now(begin, end, p.segment, !F::PLAIN), ahead = now;
    tile_source<F> source(p, s, block);
    float sum[2][GROUPS][4] = {};
    N total[2][GROUPS][4] = {};

    int slot = 0, ahead_slot = 0;
    for (; ahead_slot < DEPTH - 1 && !ahead.done(); ahead_slot++, ahead.next())
        source.copy(p, ahead, smem + ahead_slot * SLOT);
    grid_wait(); // weights are nobody's output; x is
    grid_launch_dependents();
    cursor x_ahead = now;
    for (int i = 0; i < DEPTH - 1; i++) {
        if (!x_ahead.done()) {
            tile_x<F, TOKENS>(p, s, x_ahead, first_token, smem + i * SLOT);
            x_ahead.next();
        }
        cp_async_commit();
    }
    for (; !now.done(); now.next()) {
        cp_async_wait<DEPTH - 2>();
        __syncthreads(); // this stage is there for all warps, and all are done with the one before
        if (!ahead.done()) {
            source.copy(p, ahead, smem + ahead_slot * SLOT);
            tile_x<F, TOKENS>(p, s, ahead, first_token, smem + ahead_slot * SLOT);
            ahead.next();
            if (++ahead_slot == DEPTH) ahead_slot = 0;
        }
        cp_async_commit();
        tile_stage<F, GROUPS>(smem + slot * SLOT, warp_rows, warp_tokens, lane, sum);
        if (++slot == DEPTH) slot = 0;
        if (!now.last_of_segment()) continue;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            row_tile r = block.at(p, 2 * warp_rows + i);
#pragma unroll
            for (int group = 0; group < GROUPS; group++)
                end_segment<F, N>(p, s, r, lane, sum[i][group], total[i][group]);
        }
    }
    tile_store<N, GROUPS>(p, s, block, 2 * warp_rows, first_token + warp_tokens * GROUPS * 8, lane,
                          total);
}

// ---- launching

template <class F> int stream_smem(const matmul_plan &p, size_t number) {
    int slot = F::TILE + WEIGHT_PACK_ROWS * F::RECORD + p.tokens * X_BYTES;
    int results = 2 * MATMUL_STREAM_WARPS * WEIGHT_PACK_ROWS * MATMUL_STREAM_TOKENS * (int)number;
    return results + 128 + MATMUL_STREAM_WARPS * MATMUL_STREAM_DEPTH * slot;
}

// The tile kernel with TOKENS tokens in a block.
template <class F, class N, int TOKENS>
cudaError_t start_tile(cudaStream_t stream_, const matmul_plan &p) {
    constexpr int DEPTH = TOKENS == 128 ? MATMUL_TILE_DEPTH_128 : MATMUL_TILE_DEPTH_64;
    if (p.block_tokens != TOKENS) return cudaErrorInvalidValue;
    return launch_dependent(tile<F, N, TOKENS, DEPTH>, dim3(p.grid[0], p.grid[1], p.grid[2]),
                            TILE_THREADS, DEPTH * tile_slot_bytes<F>(TOKENS), stream_, p);
}

// matmul.c plans with the same sizes: the most that fits the registers.
template <class F> cudaError_t start(cudaStream_t stream_, const matmul_plan &p) {
    constexpr int THREADS = MATMUL_STREAM_WARPS * 32;
    constexpr int F64_TOKENS = F::MINIMUM || F::FLUSH == 16 ? 32 : 64,
                  WIDE_TOKENS = F::FLUSH > 0 ? 64 : 128;
    dim3 grid(p.grid[0], p.grid[1], p.grid[2]);
    bool f64 = p.output == MATMUL_F64;
    if (p.block_tokens == MATMUL_STREAM_TOKENS)
        return f64 ? launch_dependent(stream<F, double>, grid, THREADS, stream_smem<F>(p, 8),
                                      stream_, p)
                   : launch_dependent(stream<F, float>, grid, THREADS, stream_smem<F>(p, 4),
                                      stream_, p);
    if (f64) return start_tile<F, double, F64_TOKENS>(stream_, p);
    if (p.block_tokens == 64) return start_tile<F, float, 64>(stream_, p);
    return start_tile<F, float, WIDE_TOKENS>(stream_, p);
}

} // namespace matmul_kernel

#endif
