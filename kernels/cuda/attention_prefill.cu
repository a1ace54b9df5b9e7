// attention_prefill: attention of many rows, chunks of prompts over their caches
// (FlashAttention-2's loop; Dao 2023), bounded by the tensor cores and what feeds them.
//
// A block takes up to 128 rows of one sequence and KV head and passes over their positions tile by
// tile. K and V of the next tile come by cp.async while this one is multiplied. A warp has 16 rows
// (with head_dim 256 two warps share them, half of the channels of V each, for want of registers).
// The steps of attention.h are taken one after another: the chunk's sums in o, and every 256
// positions folded into `result`.
//
// The operands lie in shared memory as in the cache, so a lane reads 16 bytes that are its parts of
// 2 or 4 mma; where rows are multiples of 128 bytes, odd rows have their 64-byte halves swapped, so
// that the 8 lanes that read at once, from two neighbouring rows, meet all banks.
#include "kernels/cuda/attention_tile.h"

namespace attention {
namespace {

enum { WARPS = 8, THREADS = WARPS * 32, STAGES = 2 };

template <class T, int C> struct shape {
    enum {
        SPLIT = C > 128 ? 2 : 1, // warps that share rows
        ROW_TILES = WARPS / SPLIT,
        ROWS = ROW_TILES * ATTENTION_ROWS,
        OUT_TILES = C / 8 / SPLIT, // of 8 channels, of one warp
        PIECE = 16 / T::BYTES,     // values of a 16-byte load
        PIECE_STEPS = PIECE / 4,   // steps of k = 16 that a quad's loads of 16 bytes feed
        KEY_BYTES = C * T::BYTES,
        KEY_WORDS = KEY_BYTES / 16, // of a lane, of one position
        KEY_SWAP = KEY_BYTES % 128 == 0,
        KEY_STRIDE = KEY_SWAP ? KEY_BYTES : (KEY_BYTES + 63) / 128 * 128 + 64,
        VALUE_STRIDE = ATTENTION_TILE * T::BYTES, // 128 or 64
        VALUE_SWAP = VALUE_STRIDE == 128,
        QUERY_BYTES = ROW_TILES * C / 16 * 512,
        KEYS_BYTES = ATTENTION_TILE * KEY_STRIDE,
        VALUES_BYTES = C * VALUE_STRIDE,
        SCALES_BYTES = T::SCALED ? ATTENTION_TILE * 4 : 0,
        STAGE_BYTES = KEYS_BYTES + VALUES_BYTES + 2 * SCALES_BYTES,
        // For want of registers; with head_dim 256 there is not the shared memory either (A100: 163
        // KiB), and ptxas spills a little.
        RESULT_SHARED = C <= 128,
        RESULT_BYTES = RESULT_SHARED ? ROWS * C * 4 : 0,
        SMEM_BYTES = QUERY_BYTES + STAGES * STAGE_BYTES + RESULT_BYTES
    };
};

// One tile of the cache in shared memory.
template <class T, int C> struct stage {
    using is = shape<T, C>;
    unsigned char *memory;

    __device__ unsigned char *key(int position, int unit) const {
        int swapped = is::KEY_SWAP ? unit ^ (position & 1) << 2 : unit;
        return memory + position * is::KEY_STRIDE + swapped * 16;
    }
    __device__ unsigned char *value(int channel, int unit) const {
        int swapped = is::VALUE_SWAP ? unit ^ (channel & 1) << 2 : unit;
        return memory + is::KEYS_BYTES + channel * is::VALUE_STRIDE + swapped * 16;
    }
    __device__ float4 *scales(bool of_values) const {
        return reinterpret_cast<float4 *>(memory + is::KEYS_BYTES + is::VALUES_BYTES +
                                          of_values * is::SCALES_BYTES);
    }
};

template <class T, int C> __device__ stage<T, C> stage_of(unsigned char *smem, int tile) {
    using is = shape<T, C>;
    return {smem + is::QUERY_BYTES + tile / ATTENTION_TILE % STAGES * is::STAGE_BYTES};
}

// What a block works on.
struct work {
    cuda_step_seq seq;
    int kv_head, first_head, heads;
    int first;    // row
    int from, to; // positions [from, to) that one of its rows sees
};

// Blocks are numbered over the tiles of rows of all sequences that are prefill's; within a sequence
// the last rows, which see most, go first. Each warp searches for itself.
__device__ bool find_work(const attention_args &a, int rows, work &w) {
    int lane = (int)threadIdx.x % 32, wanted = (int)blockIdx.x, before = 0;
    w.kv_head = (int)blockIdx.y;
    w.first_head = a.first_head[w.kv_head];
    w.heads = a.first_head[w.kv_head + 1] - w.first_head;
    for (int base = 0; base < a.seqs; base += 32) {
        int tokens = base + lane < a.seqs ? a.seq[base + lane].tokens : 0;
        int tiles = tokens > a.decode_tokens ? (tokens * w.heads + rows - 1) / rows : 0;
        int until = tiles;
#pragma unroll
        for (int i = 1; i < 32; i *= 2) {
            int other = __shfl_up_sync(~0u, until, i);
            if (lane >= i) until += other;
        }
        unsigned found = __ballot_sync(~0u, before + until > wanted);
        if (!found) {
            before += __shfl_sync(~0u, until, 31);
            continue;
        }
        int at = __ffs((int)found) - 1;
        w.first = (before + __shfl_sync(~0u, until, at) - 1 - wanted) * rows;
        w.seq = load_seq(a, base + at);
        int last = min(w.first + rows, w.seq.tokens * w.heads) - 1;
        w.from = row_of(a, w.seq, w.first_head, w.heads, w.first).from;
        w.to = row_of(a, w.seq, w.first_head, w.heads, last).to;
        return true;
    }
    return false;
}

// Unit i of the values of a tile, in the order in which they lie in the cache: 16 bytes of a
// channel.
template <class T, int C> struct value_unit {
    int channel, position; // position: in the tile, of the first

    __device__ value_unit(const attention_args &a, int i) {
        int run = min(a.block_tokens, (int)ATTENTION_TILE); // positions of the tile in one block
        int units = run / shape<T, C>::PIECE;
        channel = i / units % C;
        position = i / units / C * run + i % units * shape<T, C>::PIECE;
    }
};

template <class T, int C>
__device__ void start_copy(const attention_args &a, const work &w, int tile,
                           const stage<T, C> &to) {
    using is = shape<T, C>;
    constexpr int units = is::KEY_BYTES / 16, value_units = is::VALUES_BYTES / 16;
    // Where unseen, nothing is read: any address will do.
    for (int i = (int)threadIdx.x; i < ATTENTION_TILE * units; i += THREADS) {
        int p = tile + i / units;
        bool seen = p >= w.from && p < w.to;
        uint32_t slab = seen ? slab_of(a, w.seq, w.kv_head, p) : 0;
        uint32_t inside = offset_of(a, p) * is::KEY_BYTES + (uint32_t)(i % units) * 16;
        cp_async16_zfill(to.key(i / units, i % units), in_slab(a, a.k, slab, is::KEY_BYTES, inside),
                         seen);
    }
    for (int i = (int)threadIdx.x; i < value_units; i += THREADS) {
        value_unit<T, C> u(a, i);
        int p = tile + u.position;
        bool seen = p + is::PIECE > w.from && p < w.to;
        uint32_t slab = seen ? slab_of(a, w.seq, w.kv_head, p) : 0;
        uint32_t inside = ((uint32_t)u.channel << a.block_shift) + offset_of(a, p);
        cp_async16_zfill(to.value(u.channel, u.position / is::PIECE),
                         in_slab(a, a.v, slab, is::KEY_BYTES, inside * T::BYTES), seen);
    }
    if (T::SCALED && threadIdx.x < ATTENTION_TILE / 2) {
        int unit = (int)threadIdx.x % (ATTENTION_TILE / 4), p = tile + unit * 4;
        bool of_values = threadIdx.x >= ATTENTION_TILE / 4, seen = p + 4 > w.from && p < w.to;
        uint32_t slab = seen ? slab_of(a, w.seq, w.kv_head, p) : 0;
        cp_async16_zfill(to.scales(of_values) + unit,
                         in_slab(a, of_values ? a.v_scale : a.k_scale, slab, sizeof(float),
                                 offset_of(a, p) * sizeof(float)),
                         seen);
    }
    cp_async_commit();
}

// Each thread clears, in the units that it copied, what lies behind the context.
template <class T, int C>
__device__ void clear_unseen(const attention_args &a, const work &w, int tile,
                             const stage<T, C> &s) {
    using is = shape<T, C>;
    for (int i = (int)threadIdx.x; i < is::VALUES_BYTES / 16; i += THREADS) {
        value_unit<T, C> u(a, i);
        int keep = w.to - tile - u.position;
        if (keep <= 0 || keep >= is::PIECE) continue;
        uint32_t(&words)[4] =
            *reinterpret_cast<uint32_t(*)[4]>(s.value(u.channel, u.position / is::PIECE));
        clear_past(words, keep * T::BYTES);
    }
}

// c (16 rows, 64 positions) = q.k
template <class T, int C>
__device__ void score(const stage<T, C> &s, const uint4 *queries, int lane, float (&c)[2][4][4]) {
    using is = shape<T, C>;
    constexpr int whole = is::KEY_WORDS / 4, rest = is::KEY_WORDS % 4;
    int quad = lane % 4;
#pragma unroll
    for (int i = 0; i < 32; i++) c[i / 16][i / 4 % 4][i % 4] = 0;
#pragma unroll
    for (int piece = 0; piece < whole + (rest > 0); piece++) {
        constexpr int rest_steps = rest * 4 / T::BYTES / 4;
        int steps = piece < whole ? (int)is::PIECE_STEPS : rest_steps;
        uint32_t q[is::PIECE_STEPS][4];
#pragma unroll
        for (int j = 0; j < is::PIECE_STEPS; j++) {
            if (j >= steps) break;
            uint4 v = queries[(piece * is::PIECE_STEPS + j) * 32 + lane];
            q[j][0] = v.x, q[j][1] = v.y, q[j][2] = v.z, q[j][3] = v.w;
        }
#pragma unroll
        for (int n = 0; n < 8; n++) {
            int position = key_position<T::BYTES>(n, lane / 4);
            uint32_t words[4] = {}, b[2];
            if (piece < whole) {
                uint4 v = *reinterpret_cast<const uint4 *>(s.key(position, piece * 4 + quad));
                words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
            } else { // never swapped: such rows are no multiples of 128 bytes
                const unsigned char *at = s.key(position, whole * 4) + quad * rest * 4;
                if constexpr (rest == 1) words[0] = *reinterpret_cast<const uint32_t *>(at);
                if constexpr (rest == 2) {
                    uint2 v = *reinterpret_cast<const uint2 *>(at);
                    words[0] = v.x, words[1] = v.y;
                }
            }
#pragma unroll
            for (int j = 0; j < is::PIECE_STEPS; j++) {
                if (j >= steps) break;
                T::operand(words, j, b);
                T::mma(c[n / 4][n % 4], q[j], b);
            }
        }
    }
}

// o (16 rows, the warp's channels from `first` on) += p * V
template <class T, int C>
__device__ void weigh_values(const stage<T, C> &s, const uint32_t (&p)[2][HALF_STEPS][4], int first,
                             int lane, float (&o)[shape<T, C>::OUT_TILES][4]) {
    using is = shape<T, C>;
#pragma unroll
    for (int n = 0; n < is::OUT_TILES; n++) {
#pragma unroll
        for (int piece = 0; piece < TILE_STEPS / is::PIECE_STEPS; piece++) {
            uint4 v = *reinterpret_cast<const uint4 *>(
                s.value(first + n * 8 + lane / 4, piece * 4 + lane % 4));
            uint32_t words[4] = {v.x, v.y, v.z, v.w}, b[2];
#pragma unroll
            for (int j = 0; j < is::PIECE_STEPS; j++) {
                int step = piece * is::PIECE_STEPS + j;
                T::operand(words, j, b);
                T::mma(o[n], p[step / 2][step % 2], b);
            }
        }
    }
}

// A lane's part of the sums of all chunks before the one at hand, 4 per tile of 8 channels: in
// registers, or in shared memory where only its lane touches it.
template <int TILES, bool SHARED> struct results {
    float4 mine[TILES];
    __device__ explicit results(unsigned char *) {}
    __device__ float4 &at(int n) { return mine[n]; }
};

template <int TILES> struct results<TILES, true> {
    float4 *mine;
    __device__ explicit results(unsigned char *smem)
        : mine(reinterpret_cast<float4 *>(smem) + threadIdx.x) {}
    __device__ float4 &at(int n) { return mine[n * THREADS]; }
};

// A warp's sums: of the chunk at hand, and of all before it.
template <class T, int C> struct sums {
    enum { TILES = shape<T, C>::OUT_TILES };
    float o[TILES][4], most[2], sum[2];
    results<TILES, shape<T, C>::RESULT_SHARED> result;
    folded state[2];

    __device__ explicit sums(unsigned char *smem) : result(smem) {
#pragma unroll
        for (int n = 0; n < TILES; n++) result.at(n) = make_float4(0, 0, 0, 0);
        begin_chunk();
    }
    __device__ void begin_chunk() {
        most[0] = most[1] = -INFINITY;
        sum[0] = sum[1] = 0;
#pragma unroll
        for (int i = 0; i < 4 * TILES; i++) o[i / 4][i % 4] = 0;
    }
    __device__ void end_chunk(const attention_args &a) {
#pragma unroll
        for (int r = 0; r < 2; r++) state[r].fold(a, most[r], sum[r]);
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            float4 x = result.at(n);
            result.at(n) = make_float4(state[0].join(x.x, o[n][0]), state[0].join(x.y, o[n][1]),
                                       state[1].join(x.z, o[n][2]), state[1].join(x.w, o[n][3]));
        }
    }
};

template <class T, int C>
__device__ void add_tile(const attention_args &a, const stage<T, C> &s, const uint4 *queries,
                         int tile, bool masked, const row (&rows)[2], int first_channel, int lane,
                         sums<T, C> &to) {
    float c[2][4][4], most[2][2], part[2][2], factor[2];
    uint32_t p[2][HALF_STEPS][4];
    int quad = lane % 4;
    score<T, C>(s, queries, lane, c);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float4 scales[HALF_STEPS];
#pragma unroll
        for (int i = 0; i < HALF_STEPS; i++)
            if (T::SCALED)
                scales[i] = s.scales(false)[position_of<T::BYTES>(half * HALF_STEPS + i, quad) / 4];
        finish_scores<T>(a, c[half], scales, tile, half * HALF_STEPS, quad, masked, rows);
        max_scores(c[half], most[half]);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float now = fmaxf(to.most[r], fmaxf(most[0][r], most[1][r]));
        factor[r] = rescale(a, to.most[r], now);
        to.most[r] = now;
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float4 scales[HALF_STEPS];
#pragma unroll
        for (int i = 0; i < HALF_STEPS; i++)
            if (T::SCALED)
                scales[i] = s.scales(true)[position_of<T::BYTES>(half * HALF_STEPS + i, quad) / 4];
        weigh<T>(a, c[half], to.most, scales, p[half], part[half]);
    }
#pragma unroll
    for (int r = 0; r < 2; r++)
        to.sum[r] = fmaf(to.sum[r], factor[r], __fadd_rn(part[0][r], part[1][r]));
    if (__any_sync(~0u, factor[0] != 1 || factor[1] != 1)) // times 1 is no change
#pragma unroll
        for (int i = 0; i < 4 * sums<T, C>::TILES; i++) to.o[i / 4][i % 4] *= factor[i % 4 / 2];
    weigh_values<T, C>(s, p, first_channel, lane, to.o);
}

template <class T, int C>
__global__ void __launch_bounds__(THREADS, 1) prefill(const attention_args a) {
    using is = shape<T, C>;
    DYN_SMEM(smem);
    grid_wait();
    grid_launch_dependents();
    work w;
    if (!find_work(a, is::ROWS, w)) return;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int row_tile = warp / is::SPLIT, first_channel = warp % is::SPLIT * is::OUT_TILES * 8;
    int first_tile = w.from / ATTENTION_TILE * ATTENTION_TILE;
    start_copy<T, C>(a, w, first_tile, stage_of<T, C>(smem, first_tile));
    uint4 *queries = reinterpret_cast<uint4 *>(smem) + row_tile * (C / 16) * 32;
    int first = w.first + row_tile * ATTENTION_ROWS;
    place_queries<T, C>(a, w.seq, w.first_head, w.heads, first, queries,
                        warp % is::SPLIT * 32 + lane, is::SPLIT * 32);

    // What the warp's rows see: all of [all_from, all_to), some of [any_from, any_to).
    int rows_end = w.seq.tokens * w.heads, last = min(first + ATTENTION_ROWS, rows_end) - 1;
    row low = row_of(a, w.seq, w.first_head, w.heads, first);
    row high = first < rows_end ? row_of(a, w.seq, w.first_head, w.heads, last) : low;
    row rows[2] = {row_of(a, w.seq, w.first_head, w.heads, first + lane / 4),
                   row_of(a, w.seq, w.first_head, w.heads, first + lane / 4 + 8)};
    sums<T, C> to(smem + is::QUERY_BYTES + STAGES * is::STAGE_BYTES);

    for (int tile = first_tile; tile < w.to; tile += ATTENTION_TILE) {
        if (tile + ATTENTION_TILE < w.to) {
            start_copy<T, C>(a, w, tile + ATTENTION_TILE,
                             stage_of<T, C>(smem, tile + ATTENTION_TILE));
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
            clear_unseen<T, C>(a, w, tile, stage_of<T, C>(smem, tile));
        }
        __syncthreads();
        if (tile < high.to && tile + ATTENTION_TILE > low.from) {
            bool masked = tile + ATTENTION_TILE > low.to || tile < high.from;
            add_tile<T, C>(a, stage_of<T, C>(smem, tile), queries, tile, masked, rows,
                           first_channel, lane, to);
        }
        if (tile % ATTENTION_CHUNK == ATTENTION_CHUNK - ATTENTION_TILE) {
            to.end_chunk(a);
            to.begin_chunk();
        }
        __syncthreads();
    }
    to.end_chunk(a);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        row r = row_of(a, w.seq, w.first_head, w.heads, first + lane / 4 + 8 * i);
        if (r.token < 0) continue;
#pragma unroll
        for (int n = 0; n < is::OUT_TILES; n++) {
            float4 x = to.result.at(n);
            store_pair(out_of(a, r.token, r.head, first_channel + n * 8 + lane % 4 * 2),
                       i ? x.z : x.x, i ? x.w : x.y, to.state[i].sum);
        }
    }
}

template <class T, int C> cudaError_t start(cudaStream_t stream, const attention_args &a) {
    constexpr int rows = shape<T, C>::ROWS;
    int seqs = min(a.seqs, a.tokens / (a.decode_tokens + 1)); // that can be prefill's
    dim3 grid((unsigned)(((long long)a.tokens * a.most) / rows + seqs), (unsigned)a.kv_heads);
    return launch_dependent(prefill<T, C>, grid, THREADS, shape<T, C>::SMEM_BYTES, stream, a);
}

template <class T> cudaError_t start_type(cudaStream_t stream, const attention_args &a) {
    switch (a.head_dim) {
    case 64:
        return start<T, 64>(stream, a);
    case 80:
        return start<T, 80>(stream, a);
    case 96:
        return start<T, 96>(stream, a);
    case 128:
        return start<T, 128>(stream, a);
    case 256:
        return start<T, 256>(stream, a);
    }
    return cudaErrorInvalidValue;
}

} // namespace
} // namespace attention

cudaError_t attention_prefill_launch(cudaStream_t stream, const attention_args *args, dtype type) {
    using namespace attention;
    switch ((int)type) {
    case DTYPE_F16:
        return start_type<cache_f16>(stream, *args);
    case DTYPE_BF16:
        return start_type<cache_bf16>(stream, *args);
    case DTYPE_F8_E4M3:
        return start_type<cache_e4m3>(stream, *args);
    case DTYPE_I8:
        return start_type<cache_i8>(stream, *args);
    }
    return cudaErrorInvalidValue;
}
