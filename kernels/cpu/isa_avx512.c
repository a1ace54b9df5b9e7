// isa_avx512: the table for x86-64 with AVX-512 and VNNI (Intel from Cascade Lake, AMD from Zen 4):
// groups of 16 tokens and dot products of bytes in one instruction. What is bound by reading memory
// (gemv, attention) stays AVX2's.
//
// Checked only where tests ran on such a processor: the unit tests take up this table wherever the
// processor has it.
#include "kernels/cpu/avx2.h"

enum { LANES = 16 };

AVX2_INLINE __m512i broadcast4(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

// The dots of one block: 4 rows x 16 tokens. The instruction wants unsigned weights, so signed ones
// are moved up by 128 and that much times sum(q) is taken off again; all of it is exact.
AVX2_INLINE void block_dots(dtype type, const uint8_t *w, const uint8_t *q, __m512i sum,
                            const int32_t *zeros, __m512i *dots) {
    for (int r = 0; r < ISA_TILE_ROWS; r++) dots[r] = _mm512_setzero_si512();
    for (int j = 0; j < 8; j++) {
        __m512i x = _mm512_load_si512(q + 64 * j);
        for (int r = 0; r < ISA_TILE_ROWS; r++) {
            __m512i four = broadcast4(w + r * ISA_BLOCK + 4 * j);
            if (type == DTYPE_Q8_0) four = _mm512_xor_si512(four, _mm512_set1_epi8((char)0x80));
            dots[r] = _mm512_dpbusd_epi32(dots[r], four, x);
        }
    }
    for (int r = 0; r < ISA_TILE_ROWS && type == DTYPE_I4; r++)
        dots[r] =
            _mm512_sub_epi32(dots[r], _mm512_mullo_epi32(sum, _mm512_set1_epi32(zeros[2 * r])));
    if (type == DTYPE_Q4_1 || type == DTYPE_I4) return;
    int shift = type == DTYPE_Q8_0 ? 7 : type == DTYPE_Q5_0 ? 4 : 3;
    __m512i excess = _mm512_slli_epi32(sum, (unsigned)shift);
    for (int r = 0; r < ISA_TILE_ROWS; r++) dots[r] = _mm512_sub_epi32(dots[r], excess);
}

// (4 rows, 16 tokens) to out (16 tokens, 4 rows).
AVX2_INLINE void store_transposed(const __m512 *f, float *out) {
    __m512 a = _mm512_unpacklo_ps(f[0], f[1]), b = _mm512_unpackhi_ps(f[0], f[1]);
    __m512 c = _mm512_unpacklo_ps(f[2], f[3]), d = _mm512_unpackhi_ps(f[2], f[3]);
    __m512 quads[4] = {_mm512_shuffle_ps(a, c, 0x44), _mm512_shuffle_ps(a, c, 0xee),
                       _mm512_shuffle_ps(b, d, 0x44), _mm512_shuffle_ps(b, d, 0xee)};
    for (int t = 0; t < 4; t++) { // tokens t, t + 4, t + 8, t + 12
        _mm_store_ps(out + 4 * t, _mm512_extractf32x4_ps(quads[t], 0));
        _mm_store_ps(out + 4 * (t + 4), _mm512_extractf32x4_ps(quads[t], 1));
        _mm_store_ps(out + 4 * (t + 8), _mm512_extractf32x4_ps(quads[t], 2));
        _mm_store_ps(out + 4 * (t + 12), _mm512_extractf32x4_ps(quads[t], 3));
    }
}

AVX2_INLINE void gemm_q8(dtype type, const isa_tile *tile, int blocks, const uint8_t *group,
                         float *out) {
    __m512 f[ISA_TILE_ROWS];
    for (int r = 0; r < ISA_TILE_ROWS; r++) f[r] = _mm512_setzero_ps();
    for (int b = 0; b < blocks; b++, group += isa_group_block_bytes(LANES)) {
        __m512i dots[ISA_TILE_ROWS], sum = _mm512_load_si512(group + 128);
        block_dots(type, tile->q + b * ISA_TILE_ROWS * ISA_BLOCK, group + 192, sum,
                   tile->halves + 2 * b * ISA_TILE_ROWS, dots);
        __m512 d = _mm512_load_ps(group), s = _mm512_load_ps(group + 64);
        for (int r = 0; r < ISA_TILE_ROWS; r++) {
            int at = b * ISA_TILE_ROWS + r;
            __m512 scale = _mm512_mul_ps(_mm512_set1_ps(tile->d[at]), d);
            f[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), scale, f[r]);
            if (type == DTYPE_Q4_1) f[r] = _mm512_fmadd_ps(_mm512_set1_ps(tile->m[at]), s, f[r]);
        }
    }
    store_transposed(f, out);
}

static void gemm_q8_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q8_0, tile, blocks, group, out);
}

static void gemm_q5_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q5_0, tile, blocks, group, out);
}

static void gemm_q4_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q4_0, tile, blocks, group, out);
}

static void gemm_i4(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_I4, tile, blocks, group, out);
}

static void gemm_q4_1(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q4_1, tile, blocks, group, out);
}

// Q6_K: each half of a block has its integer scale. Here the activations are made unsigned (+ 128),
// and 128 * sum(w) of the half is taken off again.
AVX2_INLINE __m512i half_dot(const uint8_t *w, const uint8_t *q, int h) {
    const __m512i offset = _mm512_set1_epi8((char)0x80);
    __m512i dot = _mm512_setzero_si512(), excess = _mm512_setzero_si512();
    for (int j = 4 * h; j < 4 * h + 4; j++) {
        __m512i four = broadcast4(w + 4 * j), x = _mm512_load_si512(q + 64 * j);
        dot = _mm512_dpbusd_epi32(dot, _mm512_xor_si512(x, offset), four);
        excess = _mm512_dpbusd_epi32(excess, offset, four);
    }
    return _mm512_sub_epi32(dot, excess);
}

static void gemm_q6_k(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    __m512 f[ISA_TILE_ROWS];
    for (int r = 0; r < ISA_TILE_ROWS; r++) f[r] = _mm512_setzero_ps();
    for (int b = 0; b < blocks; b++, group += isa_group_block_bytes(LANES)) {
        __m512 d = _mm512_load_ps(group);
        for (int r = 0; r < ISA_TILE_ROWS; r++) {
            int at = b * ISA_TILE_ROWS + r;
            const uint8_t *w = tile->q + at * ISA_BLOCK;
            __m512i first = _mm512_set1_epi32(tile->halves[2 * at]);
            __m512i second = _mm512_set1_epi32(tile->halves[2 * at + 1]);
            __m512i dot = _mm512_add_epi32(_mm512_mullo_epi32(half_dot(w, group + 192, 0), first),
                                           _mm512_mullo_epi32(half_dot(w, group + 192, 1), second));
            __m512 scale = _mm512_mul_ps(_mm512_set1_ps(tile->d[at]), d);
            f[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, f[r]);
        }
    }
    store_transposed(f, out);
}

static const isa table = {
    .name = "avx512",
    .lanes = LANES,
    .quantise = avx2_quantise,
    .gemv_q8 = {[DTYPE_Q8_0] = avx2_gemv_q8_0,
                [DTYPE_Q4_0] = avx2_gemv_q4_0,
                [DTYPE_Q4_1] = avx2_gemv_q4_1,
                [DTYPE_Q5_0] = avx2_gemv_q5_0,
                [DTYPE_Q4_K] = avx2_gemv_q4_k,
                [DTYPE_Q6_K] = avx2_gemv_q6_k,
                [DTYPE_I4] = avx2_gemv_i4,
                [DTYPE_I4_32] = avx2_gemv_i4_32},
    .gemv_sums_q8 = {[DTYPE_Q8_0] = avx2_gemv_sums_q8_0,
                     [DTYPE_Q4_0] = avx2_gemv_sums_q4_0,
                     [DTYPE_Q4_1] = avx2_gemv_sums_q4_1,
                     [DTYPE_I4] = avx2_gemv_sums_i4,
                     [DTYPE_I4_32] = avx2_gemv_sums_i4_32},
    .unpack = {[DTYPE_Q8_0] = avx2_unpack_q8_0,
               [DTYPE_Q4_0] = avx2_unpack_q4_0,
               [DTYPE_Q4_1] = avx2_unpack_q4_1,
               [DTYPE_Q5_0] = avx2_unpack_q5_0,
               [DTYPE_Q4_K] = avx2_unpack_q4_k,
               [DTYPE_Q6_K] = avx2_unpack_q6_k,
               [DTYPE_I4] = avx2_unpack_i4,
               [DTYPE_I4_32] = avx2_unpack_i4_32},
    .gemm_q8 = {[DTYPE_Q8_0] = gemm_q8_0,
                [DTYPE_Q4_0] = gemm_q4_0,
                [DTYPE_Q4_1] = gemm_q4_1,
                [DTYPE_Q5_0] = gemm_q5_0,
                [DTYPE_Q4_K] = gemm_q4_1,
                [DTYPE_Q6_K] = gemm_q6_k,
                [DTYPE_I4] = gemm_i4,
                [DTYPE_I4_32] = gemm_i4},
    .gemv_float =
        {[DTYPE_F32] = avx2_gemv_f32, [DTYPE_F16] = avx2_gemv_f16, [DTYPE_BF16] = avx2_gemv_bf16},
    .widen = avx2_widen,
    .dots = avx2_dots,
    .narrow = avx2_narrow,
    .qk = avx2_qk,
    .pv = avx2_pv,
    .softmax = avx2_softmax,
    .soft_cap = avx2_soft_cap,
    .rmsnorm = avx2_rmsnorm,
    .add = avx2_add,
    .swiglu = avx2_swiglu,
    .geglu = avx2_geglu,
    .add_to_grid = avx2_add_to_grid,
    .argmax = avx2_argmax,
};

const isa *isa_avx512(void) {
    return &table;
}
