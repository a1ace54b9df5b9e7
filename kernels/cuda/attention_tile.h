// attention_tile: the arithmetic of attention.h on the tensor cores, from which the decode and the
// prefill kernel are both made, so that they give a row the same bits. Device code; included by
// attention_decode.cu and attention_prefill.cu only.
//
// mma's own order of the summed dimension is of no use to 16-byte loads, so that dimension is
// permuted, alike in both operands. A lane's quad (lane % 4) loads 16 bytes of channels (of K) or
// of positions (of V), which are its parts of b for 2 steps of k = 16 (4 with types of one byte).
// The scores' columns are permuted too, so that the c fragments of the first product are, packed,
// the a fragments of the second, in the lane that has them.
#ifndef OCTANT_KERNELS_CUDA_ATTENTION_TILE_H
#define OCTANT_KERNELS_CUDA_ATTENTION_TILE_H

#include "device.h"

#include "kernels/cuda/attention_args.h"

namespace attention {

enum { TILE_STEPS = ATTENTION_TILE / 16, HALF_STEPS = TILE_STEPS / 2 };

// ---- The types of a cache: bytes of a value, the product, and a lane's b fragment of a step from
// the words it loaded.

struct cache_bf16 {
    enum { BYTES = 2 };
    static constexpr bool SCALED = false;
    static __device__ uint32_t pack(float x, float y) {
        __nv_bfloat162 v = __floats2bfloat162_rn(x, y);
        return *reinterpret_cast<uint32_t *>(&v);
    }
    static __device__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        mma_bf16(c, a, b);
    }
    static __device__ void operand(const uint32_t *words, int step, uint32_t (&b)[2]) {
        b[0] = words[2 * step];
        b[1] = words[2 * step + 1];
    }
};

struct cache_f16 {
    enum { BYTES = 2 };
    static constexpr bool SCALED = false;
    static __device__ uint32_t pack(float x, float y) {
        __half2 v = __floats2half2_rn(x, y);
        return *reinterpret_cast<uint32_t *>(&v);
    }
    static __device__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        mma_f16(c, a, b);
    }
    static __device__ void operand(const uint32_t *words, int step, uint32_t (&b)[2]) {
        b[0] = words[2 * step];
        b[1] = words[2 * step + 1];
    }
};

// BF16 holds every value of both one-byte types.
struct cache_e4m3 {
    enum { BYTES = 1 };
    static constexpr bool SCALED = true;
    static __device__ uint32_t pack(float x, float y) { return cache_bf16::pack(x, y); }
    static __device__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        mma_bf16(c, a, b);
    }
    static __device__ void operand(const uint32_t *words, int step, uint32_t (&b)[2]) {
        float2 x = e4m3x2_to_float2((uint16_t)words[step]);
        float2 y = e4m3x2_to_float2((uint16_t)(words[step] >> 16));
        b[0] = pack(x.x, x.y);
        b[1] = pack(y.x, y.y);
    }
};

struct cache_i8 {
    enum { BYTES = 1 };
    static constexpr bool SCALED = true;
    static __device__ uint32_t pack(float x, float y) { return cache_bf16::pack(x, y); }
    static __device__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        mma_bf16(c, a, b);
    }
    // Byte i of `biased` (value + 128) as the low bits of 2^23 + value + 128.
    static __device__ float value(uint32_t biased, int i) {
        return __uint_as_float(__byte_perm(biased, 0x4b000000u, 0x7440u | (uint32_t)i)) -
               8388736.0f;
    }
    static __device__ void operand(const uint32_t *words, int step, uint32_t (&b)[2]) {
        uint32_t biased = words[step] ^ 0x80808080u;
        b[0] = pack(value(biased, 0), value(biased, 1));
        b[1] = pack(value(biased, 2), value(biased, 3));
    }
};

// ---- Who holds what.

// First of the 4 channels that quad `quad` holds of step `step` of q.k: its 16 bytes of a run of
// 64, or of what is left of C, its share of that.
template <int C, int BYTES> __device__ constexpr int channel_of(int step, int quad) {
    constexpr int lane = 16 / BYTES, run = 4 * lane, whole = C / run, steps = run / 16;
    int piece = step / steps; // with `step % steps` below, gcc 12 -O2 loses the first term
    if (piece < whole) return piece * run + quad * lane + (step - piece * steps) * 4;
    return whole * run + quad * (C % run / 4) + (step - whole * steps) * 4;
}

// First of the 4 positions of a tile that quad `quad` holds of step `step` of p.v; and of tile
// columns 2 quad, 2 quad + 1 of the scores' mma 2 step (its first two positions) and 2 step + 1.
template <int BYTES> __device__ constexpr int position_of(int step, int quad) {
    return BYTES == 2 ? (step >> 1) * 32 + quad * 8 + (step & 1) * 4 : quad * 16 + step * 4;
}

// The position of a tile whose key is column `column` of the scores' mma `n`.
template <int BYTES> __device__ constexpr int key_position(int n, int column) {
    return position_of<BYTES>(n / 2, column / 2) + n % 2 * 2 + column % 2;
}

// One row of a KV head's work, as its lanes know it.
struct row {
    int token, head; // token: row of the step's arrays; -1: no row
    int from, to;    // positions [from, to) that it sees
};

__device__ inline row row_of(const attention_args &a, const cuda_step_seq &seq, int first_head,
                             int heads, int index) {
    if (index >= seq.tokens * heads) return {-1, 0, 0, 0};
    int token = index / heads, to = seq.position + token + 1;
    int from = a.window > 0 && to > a.window ? to - a.window : 0;
    return {seq.row + token, first_head + index % heads, from, to};
}

__device__ inline cuda_step_seq load_seq(const attention_args &a, int s) {
    int4 v = *reinterpret_cast<const int4 *>(a.seq + s);
    return {v.x, v.y, v.z, v.w};
}

// The number of the slab, the (B, C) values of one block and KV head, that holds position `p` of a
// sequence; and p's place in it. 32 bits, and one multiplication to 64 at the end, because
// registers are short.
__device__ inline uint32_t slab_of(const attention_args &a, const cuda_step_seq &seq, int kv_head,
                                   int p) {
    uint32_t block = (uint32_t)a.blocks[seq.first_block + (p >> a.block_shift)];
    return block * (uint32_t)a.kv_heads + (uint32_t)kv_head;
}

__device__ inline uint32_t offset_of(const attention_args &a, int p) {
    return (uint32_t)(p & (a.block_tokens - 1));
}

// `inside`: bytes from the slab's start, whose size is bytes_of_position * B.
__device__ inline const unsigned char *in_slab(const attention_args &a, const void *array,
                                               uint32_t slab, uint32_t bytes_of_position,
                                               uint32_t inside) {
    uint64_t start = (uint64_t)slab * (bytes_of_position << a.block_shift);
    return static_cast<const unsigned char *>(array) + inside + start;
}

// Writes the a fragments of q for 16 rows from `first` on to smem, (C / 16) steps of 32 lanes of 16
// bytes, by `threads` threads.
template <class T, int C>
__device__ inline void place_queries(const attention_args &a, const cuda_step_seq &seq,
                                     int first_head, int heads, int first, uint4 *smem, int thread,
                                     int threads) {
    for (int i = thread; i < C / 16 * 32; i += threads) {
        int step = i / 32, lane = i % 32, channel = channel_of<C, T::BYTES>(step, lane % 4);
        float4 x[2];
        for (int half = 0; half < 2; half++) {
            row r = row_of(a, seq, first_head, heads, first + lane / 4 + 8 * half);
            size_t at = ((size_t)r.token * (size_t)a.heads + (size_t)r.head) * C + (size_t)channel;
            x[half] =
                r.token < 0 ? make_float4(0, 0, 0, 0) : *reinterpret_cast<const float4 *>(a.q + at);
        }
        smem[i] = make_uint4(T::pack(x[0].x, x[0].y), T::pack(x[1].x, x[1].y),
                             T::pack(x[0].z, x[0].w), T::pack(x[1].z, x[1].w));
    }
}

// Zeroes the bytes of `words` (consecutive positions of one channel) from byte `keep` on: what a
// cache holds behind the context is not ours and may be NaN.
template <int N> __device__ inline void clear_past(uint32_t (&words)[N], int keep) {
#pragma unroll
    for (int w = 0; w < N; w++) {
        int bits = (keep - 4 * w) * 8;
        words[w] = bits >= 32 ? words[w] : bits <= 0 ? 0 : words[w] & ((1u << bits) - 1);
    }
}

// ---- Softmax of half a tile: 4 fragments of scores c, whose rows are lane / 4 and that + 8.

// What the scores are to be before the maximum is taken. `tile`: the first position; `steps`: the
// tile's first step of these. scales: of keys, per step the quad's 4 positions. Masks only where
// `masked`.
template <class T>
__device__ inline void finish_scores(const attention_args &a, float (&c)[4][4],
                                     const float4 (&scales)[HALF_STEPS], int tile, int first_step,
                                     int quad, bool masked, const row (&rows)[2]) {
    if constexpr (T::SCALED) {
#pragma unroll
        for (int s = 0; s < HALF_STEPS; s++) {
            c[2 * s][0] *= scales[s].x, c[2 * s][1] *= scales[s].y;
            c[2 * s][2] *= scales[s].x, c[2 * s][3] *= scales[s].y;
            c[2 * s + 1][0] *= scales[s].z, c[2 * s + 1][1] *= scales[s].w;
            c[2 * s + 1][2] *= scales[s].z, c[2 * s + 1][3] *= scales[s].w;
        }
    }
    if (a.soft_cap > 0) {
#pragma unroll
        for (int i = 0; i < 16; i++)
            c[i / 4][i % 4] = __fmul_rn(a.soft_cap, tanhf(__fmul_rn(c[i / 4][i % 4], a.cap_scale)));
    }
    if (!masked) return;
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int n = i / 4, e = i % 4;
        int p = tile + position_of<T::BYTES>(first_step + n / 2, quad) + n % 2 * 2 + e % 2;
        const row &r = rows[e / 2];
        if (p < r.from || p >= r.to) c[n][e] = -INFINITY;
    }
}

__device__ inline float over_quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ inline float over_quad_sum(float x) {
    x = __fadd_rn(x, __shfl_xor_sync(~0u, x, 1));
    return __fadd_rn(x, __shfl_xor_sync(~0u, x, 2));
}

// The largest score of each of the two rows.
__device__ inline void max_scores(const float (&c)[4][4], float (&most)[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float m = fmaxf(c[0][2 * r], c[0][2 * r + 1]);
#pragma unroll
        for (int n = 1; n < 4; n++) m = fmaxf(m, fmaxf(c[n][2 * r], c[n][2 * r + 1]));
        most[r] = over_quad_max(m);
    }
}

// A row that has seen nothing yet has the maximum -inf; exp2(-inf - 0) is 0, where -inf - -inf
// would be NaN.
__device__ inline float safe(float most) {
    return most == -INFINITY ? 0.0f : most;
}

// By what sums taken under the maximum `before` are multiplied to stand under `after`. 1, exactly,
// if they are equal.
__device__ inline float rescale(const attention_args &a, float before, float after) {
    return exp2f(__fmul_rn(__fsub_rn(before, safe(after)), a.exponent));
}

// A probability times its value's scale; that of a position which no row sees may be anything.
template <class T> __device__ inline float scaled(float p, float scale) {
    return !T::SCALED ? p : p > 0 ? p * scale : 0.0f;
}

// Scores to probabilities under the maxima `most`, packed as a fragments of HALF_STEPS steps. sums:
// of the unrounded probabilities of the half tile.
template <class T>
__device__ inline void weigh(const attention_args &a, float (&c)[4][4], const float (&most)[2],
                             const float4 (&scales)[HALF_STEPS], uint32_t (&p)[HALF_STEPS][4],
                             float (&sums)[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float shift = -__fmul_rn(safe(most[r]), a.exponent), sum = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float &x = c[i / 2][2 * r + i % 2];
            x = exp2f(fmaf(x, a.exponent, shift));
            sum = __fadd_rn(sum, x);
        }
        sums[r] = over_quad_sum(sum);
    }
#pragma unroll
    for (int s = 0; s < HALF_STEPS; s++) {
        const float(&x)[4] = c[2 * s], (&y)[4] = c[2 * s + 1];
        const float4 &v = scales[s];
        p[s][0] = T::pack(scaled<T>(x[0], v.x), scaled<T>(x[1], v.y));
        p[s][1] = T::pack(scaled<T>(x[2], v.x), scaled<T>(x[3], v.y));
        p[s][2] = T::pack(scaled<T>(y[0], v.z), scaled<T>(y[1], v.w));
        p[s][3] = T::pack(scaled<T>(y[2], v.z), scaled<T>(y[3], v.w));
    }
}

// ---- The result of a row, of some of its channels, so far: what chunks are folded into.

struct folded {
    float most = -INFINITY, sum = 0; // maximum of the scores; sum of the probabilities under it
    float keep, take;                // factors for what was there and for what comes

    __device__ void fold(const attention_args &a, float chunk_most, float chunk_sum) {
        float now = fmaxf(most, chunk_most);
        keep = rescale(a, most, now);
        take = rescale(a, chunk_most, now);
        most = now;
        sum = fmaf(sum, keep, __fmul_rn(chunk_sum, take));
    }
    __device__ float join(float before, float chunk) const {
        return fmaf(before, keep, __fmul_rn(chunk, take));
    }
};

__device__ inline __nv_bfloat16 *out_of(const attention_args &a, int token, int head, int channel) {
    size_t at = ((size_t)token * (size_t)a.heads + (size_t)head) * (size_t)a.head_dim;
    return static_cast<__nv_bfloat16 *>(a.out) + at + (size_t)channel;
}

__device__ inline void store_pair(__nv_bfloat16 *at, float x, float y, float sum) {
    float inverse = 1.0f / sum;
    *reinterpret_cast<__nv_bfloat162 *>(at) =
        __floats2bfloat162_rn(__fmul_rn(x, inverse), __fmul_rn(y, inverse));
}

} // namespace attention

#endif
