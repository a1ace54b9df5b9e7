// attention_decode: attention of few rows over a long cache (flash-decoding; Dao et al. 2023),
// bounded by how fast K and V arrive.
//
// A block takes one sequence, one KV head, 16 rows of its work and one chunk of 256 positions, or,
// when there are blocks enough without, all chunks in turn. Its 8 warps share the scores by
// positions (32 each) and the products with V by channels (C / 8 each), so K and V go from memory
// straight to registers, each value once; only probabilities, 8 KiB, pass through shared memory.
// The loads of V are under way while the softmax waits for all warps.
#include "kernels/cuda/attention_tile.h"

namespace attention {
namespace {

enum { WARPS = 8, THREADS = WARPS * 32, KEY_BATCH_WORDS = 32 };

// What a block works on.
struct work {
    cuda_step_seq seq;
    int kv_head, first_head, heads;
    int first;    // row
    int from, to; // positions [from, to) that one of its rows sees
};

__device__ bool find_work(const attention_args &a, work &w) {
    w.seq = load_seq(a, (int)blockIdx.z);
    if (w.seq.tokens == 0 || w.seq.tokens > a.decode_tokens) return false;
    w.kv_head = (int)blockIdx.y / a.row_tiles;
    w.first_head = a.first_head[w.kv_head];
    w.heads = a.first_head[w.kv_head + 1] - w.first_head;
    w.first = (int)blockIdx.y % a.row_tiles * ATTENTION_ROWS;
    int rows = w.seq.tokens * w.heads;
    if (w.first >= rows) return false;
    w.from = row_of(a, w.seq, w.first_head, w.heads, w.first).from;
    w.to = row_of(a, w.seq, w.first_head, w.heads, min(w.first + ATTENTION_ROWS, rows) - 1).to;
    return true;
}

struct shared {
    uint4 p[ATTENTION_CHUNK / 16][32]; // a fragments
    float most[WARPS][ATTENTION_ROWS], sum[WARPS][ATTENTION_ROWS];
};

// The keys of one position: a lane's words of it, in the order of the steps.
template <class T, int C> struct keys {
    enum {
        WORDS = C * T::BYTES / 16,
        WHOLE = WORDS / 4,
        REST = WORDS % 4,
        FIT = KEY_BATCH_WORDS / WORDS,
        BATCH = FIT >= 4   ? 4
                : FIT >= 2 ? 2
                           : 1 // a part of the 4 keys of a lane
    };
    uint32_t words[WORDS];

    __device__ void load(const unsigned char *row, int quad) {
#pragma unroll
        for (int i = 0; i < WHOLE; i++) {
            uint4 v = load_stream16(row + i * 64 + quad * 16);
            words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z,
                      words[4 * i + 3] = v.w;
        }
        const unsigned char *rest = row + WHOLE * 64 + quad * REST * 4;
        if constexpr (REST == 1) words[WORDS - 1] = load_stream4(rest);
        if constexpr (REST == 2) {
            uint2 v = load_stream8(rest);
            words[WORDS - 2] = v.x, words[WORDS - 1] = v.y;
        }
    }
    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < WORDS; i++) words[i] = 0;
    }
};

// Scores of the warp's half tile: steps first_step and that + 1 of the tile that starts at `tile`.
template <class T, int C>
__device__ void score(const attention_args &a, const work &w, const uint4 *queries, int tile,
                      int first_step, int lane, float (&c)[4][4]) {
    using key = keys<T, C>;
#pragma unroll
    for (int batch = 0; batch < 4; batch += key::BATCH) {
        key got[key::BATCH];
#pragma unroll
        for (int i = 0; i < key::BATCH; i++) {
            int p = tile + key_position<T::BYTES>(2 * first_step + batch + i, lane / 4);
            if (p < w.to && p >= w.from) {
                uint32_t slab = slab_of(a, w.seq, w.kv_head, p), bytes = C * T::BYTES;
                got[i].load(in_slab(a, a.k, slab, bytes, offset_of(a, p) * bytes), lane % 4);
            } else
                got[i].clear();
        }
#pragma unroll
        for (int i = 0; i < 4 * key::BATCH; i++) c[batch + i / 4][i % 4] = 0;
#pragma unroll
        for (int s = 0; s < C / 16; s++) {
            uint4 v = queries[s * 32 + lane];
            uint32_t q[4] = {v.x, v.y, v.z, v.w}, b[2];
#pragma unroll
            for (int i = 0; i < key::BATCH; i++) {
                T::operand(got[i].words, s, b);
                T::mma(c[batch + i], q, b);
            }
        }
    }
}

// The scales of the lane's positions of a half tile; scales may be of keys or of values.
template <class T>
__device__ void load_scales(const attention_args &a, const work &w, const float *from, int tile,
                            int first_step, int quad, float4 (&scales)[HALF_STEPS]) {
    if constexpr (T::SCALED) {
#pragma unroll
        for (int s = 0; s < HALF_STEPS; s++) {
            int p = tile + position_of<T::BYTES>(first_step + s, quad);
            scales[s] = make_float4(0, 0, 0, 0);
            if (p >= w.to || p + 3 < w.from) continue;
            uint32_t slab = slab_of(a, w.seq, w.kv_head, p);
            scales[s] = *reinterpret_cast<const float4 *>(
                in_slab(a, from, slab, sizeof(float), offset_of(a, p) * sizeof(float)));
        }
    }
}

// A lane's values of one channel over a chunk.
template <class T, int C> struct values {
    enum { TILE_WORDS = ATTENTION_TILE * T::BYTES / 16, WORDS = 4 * TILE_WORDS };
    uint32_t words[WORDS];

    // The positions of word group i (16 bytes) start so far into the chunk.
    static __device__ int start(int i, int quad) { return (i * 4 + quad) * (16 / T::BYTES); }

    // Of the lane's channel of the n-th 8 channels; zeros past the last.
    __device__ void load(const attention_args &a, const work &w, int chunk, int n, int lane) {
        int channel = 8 * n + lane / 4;
#pragma unroll
        for (int i = 0; i < WORDS / 4; i++) {
            int p = chunk + start(i, lane % 4);
            uint4 x = make_uint4(0, 0, 0, 0);
            if (channel < C && p < w.to && p + 16 / T::BYTES > w.from) {
                uint32_t place = ((uint32_t)channel << a.block_shift) + offset_of(a, p);
                x = load_stream16(in_slab(a, a.v, slab_of(a, w.seq, w.kv_head, p), C * T::BYTES,
                                          place * T::BYTES));
            }
            words[4 * i] = x.x, words[4 * i + 1] = x.y, words[4 * i + 2] = x.z,
                      words[4 * i + 3] = x.w;
        }
    }
    __device__ void clear_unseen(const work &w, int chunk, int quad) {
#pragma unroll
        for (int i = 0; i < WORDS / 4; i++) {
            uint32_t(&group)[4] = *reinterpret_cast<uint32_t(*)[4]>(&words[4 * i]);
            clear_past(group, (w.to - chunk - start(i, quad)) * T::BYTES);
        }
    }
};

// The rows' maxima over the chunk's tiles, one after another, and what follows from them.
struct chunk_state {
    float own[2], most[2]; // after the tile that this warp scores, and after the last
    float factor[4][2];    // of the sums, as each tile comes
    float sum[2];

    __device__ void take_max(const attention_args &a, const shared &s, int row, int own_tile) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            most[r] = -INFINITY;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float now = fmaxf(s.most[2 * k][row + 8 * r], s.most[2 * k + 1][row + 8 * r]);
                now = fmaxf(most[r], now);
                factor[k][r] = rescale(a, most[r], now);
                if (k == own_tile) own[r] = now;
                most[r] = now;
            }
        }
    }
    __device__ void take_sum(const shared &s, int row) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            sum[r] = 0;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float add = __fadd_rn(s.sum[2 * k][row + 8 * r], s.sum[2 * k + 1][row + 8 * r]);
                sum[r] = fmaf(sum[r], factor[k][r], add);
            }
        }
    }
};

// o (16 rows, 8 channels) = the chunk's probabilities * V.
template <class T, int C>
__device__ void weigh_values(const shared &s, const chunk_state &state, const values<T, C> &v,
                             int tiles, int lane, float (&o)[4]) {
    o[0] = o[1] = o[2] = o[3] = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        if (k >= tiles) break;
        o[0] *= state.factor[k][0], o[1] *= state.factor[k][0];
        o[2] *= state.factor[k][1], o[3] *= state.factor[k][1];
#pragma unroll
        for (int step = 0; step < TILE_STEPS; step++) {
            uint4 x = s.p[k * TILE_STEPS + step][lane];
            uint32_t p[4] = {x.x, x.y, x.z, x.w}, b[2];
            T::operand(v.words + k * values<T, C>::TILE_WORDS, step, b);
            T::mma(o, p, b);
        }
    }
}

// The row's result, or one chunk of it.
template <int C>
__device__ void store(const attention_args &a, const work &w, const row &r, int chunk, bool whole,
                      int channel, float x, float y, const folded &state) {
    if (whole) {
        store_pair(out_of(a, r.token, r.head, channel), x, y, state.sum);
        return;
    }
    size_t slot = (size_t)((int)blockIdx.z * a.decode_tokens + r.token - w.seq.row);
    size_t at = (slot * (size_t)a.heads + (size_t)r.head) * (size_t)a.chunks + (size_t)chunk;
    *reinterpret_cast<float2 *>(a.partial + at * C + channel) = make_float2(x, y);
    if (channel == 0) a.partial_max[at] = make_float2(state.most, state.sum);
}

template <class T, int C> constexpr int smem_bytes() {
    return (int)sizeof(shared) + C / 16 * 32 * 16;
}

template <class T, int C>
__global__ void __launch_bounds__(THREADS, C > 128 ? 1 : 2)
    decode(const attention_args a, bool split) {
    constexpr int TILES = (C / 8 + WARPS - 1) / WARPS; // of 8 channels, of one warp
    DYN_SMEM(smem);
    shared &s = *reinterpret_cast<shared *>(smem);
    uint4 *queries = reinterpret_cast<uint4 *>(smem + sizeof(shared));
    grid_wait();
    grid_launch_dependents();
    work w;
    if (!find_work(a, w)) return;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, quad = lane % 4;
    int first = w.from / ATTENTION_CHUNK, end = (w.to + ATTENTION_CHUNK - 1) / ATTENTION_CHUNK;
    if (split) {
        if ((int)blockIdx.x < first || (int)blockIdx.x >= end) return;
        first = (int)blockIdx.x;
        end = first + 1;
    }
    place_queries<T, C>(a, w.seq, w.first_head, w.heads, w.first, queries, (int)threadIdx.x,
                        THREADS);
    row rows[2] = {row_of(a, w.seq, w.first_head, w.heads, w.first + lane / 4),
                   row_of(a, w.seq, w.first_head, w.heads, w.first + lane / 4 + 8)};
    float result[TILES][4];
    folded state[2];
#pragma unroll
    for (int i = 0; i < 4 * TILES; i++) result[i / 4][i % 4] = 0;
    __syncthreads();

    for (int chunk = first; chunk < end; chunk++) {
        int start = chunk * ATTENTION_CHUNK, tile = start + warp / 2 * ATTENTION_TILE;
        int first_step = warp % 2 * HALF_STEPS;
        int tiles = min((w.to - start + ATTENTION_TILE - 1) / ATTENTION_TILE, 4);
        float c[4][4] = {};
        float4 key_scales[HALF_STEPS], value_scales[HALF_STEPS];
        load_scales<T>(a, w, a.k_scale, tile, first_step, quad, key_scales);
        if (tile < w.to && tile + ATTENTION_TILE > w.from)
            score<T, C>(a, w, queries, tile, first_step, lane, c);
        load_scales<T>(a, w, a.v_scale, tile, first_step, quad, value_scales);
        values<T, C> v;
        v.load(a, w, start, warp, lane);

        finish_scores<T>(a, c, key_scales, tile, first_step, quad, true, rows);
        float most[2], sums[2];
        max_scores(c, most);
        if (quad == 0) s.most[warp][lane / 4] = most[0], s.most[warp][lane / 4 + 8] = most[1];
        __syncthreads();
        chunk_state chunk_sums;
        chunk_sums.take_max(a, s, lane / 4, warp / 2);
        uint32_t p[HALF_STEPS][4];
        weigh<T>(a, c, chunk_sums.own, value_scales, p, sums);
        if (quad == 0) s.sum[warp][lane / 4] = sums[0], s.sum[warp][lane / 4 + 8] = sums[1];
#pragma unroll
        for (int i = 0; i < HALF_STEPS; i++)
            s.p[warp * HALF_STEPS + i][lane] = make_uint4(p[i][0], p[i][1], p[i][2], p[i][3]);
        __syncthreads();
        chunk_sums.take_sum(s, lane / 4);
        state[0].fold(a, chunk_sums.most[0], chunk_sums.sum[0]);
        state[1].fold(a, chunk_sums.most[1], chunk_sums.sum[1]);
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            if (t > 0) v.load(a, w, start, warp + t * WARPS, lane);
            if (start + ATTENTION_CHUNK > w.to) v.clear_unseen(w, start, quad);
            float o[4];
            weigh_values<T, C>(s, chunk_sums, v, tiles, lane, o);
#pragma unroll
            for (int i = 0; i < 4; i++) result[t][i] = state[i / 2].join(result[t][i], o[i]);
        }
    }

#pragma unroll
    for (int i = 0; i < 2; i++) {
        row r = row_of(a, w.seq, w.first_head, w.heads, w.first + lane / 4 + 8 * i);
        int row_first = r.from / ATTENTION_CHUNK, row_last = (r.to - 1) / ATTENTION_CHUNK;
        if (r.token < 0 || first > row_last || end <= row_first) continue;
        bool whole = first <= row_first && end > row_last;
#pragma unroll
        for (int t = 0; t < TILES; t++)
            if (warp + t * WARPS < C / 8)
                store<C>(a, w, r, first, whole, (warp + t * WARPS) * 8 + 2 * quad, result[t][2 * i],
                         result[t][2 * i + 1], state[i]);
    }
}

template <class T, int C>
cudaError_t start(cudaStream_t stream, const attention_args &a, bool split) {
    dim3 grid(split ? (unsigned)a.chunks : 1, (unsigned)(a.kv_heads * a.row_tiles),
              (unsigned)a.seqs);
    return launch_dependent(decode<T, C>, grid, THREADS, smem_bytes<T, C>(), stream, a, split);
}

template <class T>
cudaError_t start_type(cudaStream_t stream, const attention_args &a, bool split) {
    switch (a.head_dim) {
    case 64:
        return start<T, 64>(stream, a, split);
    case 80:
        return start<T, 80>(stream, a, split);
    case 96:
        return start<T, 96>(stream, a, split);
    case 128:
        return start<T, 128>(stream, a, split);
    case 256:
        return start<T, 256>(stream, a, split);
    }
    return cudaErrorInvalidValue;
}

} // namespace
} // namespace attention

cudaError_t attention_decode_launch(cudaStream_t stream, const attention_args *args, dtype type,
                                    bool split) {
    using namespace attention;
    switch ((int)type) {
    case DTYPE_F16:
        return start_type<cache_f16>(stream, *args, split);
    case DTYPE_BF16:
        return start_type<cache_bf16>(stream, *args, split);
    case DTYPE_F8_E4M3:
        return start_type<cache_e4m3>(stream, *args, split);
    case DTYPE_I8:
        return start_type<cache_i8>(stream, *args, split);
    }
    return cudaErrorInvalidValue;
}
