// quantised_avx2: products of Q8_0, Q4_0 and Q4_1 weights with activations in 8 bits.
//
// gemv keeps a weight row in each float lane: eight blocks, one of each row, are multiplied with
// the activation block, and their 8 x 16 partial sums are folded to 8 dots in 16 bits (15 * 127 *
// 32 / 2 < 2^15, so nothing can overflow). gemm keeps a token in each lane and broadcasts four
// weights at a time, so there is nothing to fold: 4 rows x 8 tokens take 32 multiply-adds of 32
// bytes per block, and the scales are applied to 8 results at once.
#include "kernels/cpu/avx2_blocks.h"

static float round_f16(float x) {
    return _cvtsh_ss(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
}

AVX2_INLINE float largest_of(__m256 v) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

AVX2_INLINE __m256i scaled(const float *x, __m256 inverse) {
    // cvtps rounds to nearest even; a NaN becomes INT_MIN, which the packing saturates.
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
}

void avx2_quantise(const float *x, int blocks, isa_q8 *out) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int b = 0; b < blocks; b++, x += ISA_BLOCK) {
        __m256 top = _mm256_andnot_ps(sign, _mm256_loadu_ps(x));
        for (int i = 8; i < ISA_BLOCK; i += 8)
            top = _mm256_max_ps(top, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)));
        float largest = largest_of(top), d = largest / 127.0f;
        __m256 inverse = _mm256_set1_ps(largest != 0.0f ? 127.0f / largest : 0.0f);
        __m256i low = _mm256_packs_epi32(scaled(x, inverse), scaled(x + 8, inverse));
        __m256i high = _mm256_packs_epi32(scaled(x + 16, inverse), scaled(x + 24, inverse));
        __m256i q = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
        _mm256_storeu_si256((__m256i *)out[b].q, q);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
        __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        __m128i sums =
            _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
        sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
        out[b].sum = _mm_cvtsi128_si32(sums) + _mm_extract_epi32(sums, 1);
        out[b].d = round_f16(d);
        out[b].s = round_f16(d * (float)out[b].sum);
    }
}

// f with block b's products added.
AVX2_INLINE __m256 add_q4_1(const uint8_t *const *at, int b, size_t ahead, const isa_q8 *x,
                            __m256 f) {
    __m256 d, m;
    size_t offset = (size_t)b * 20;
    avx2_prefetch(at, (size_t)b, 20, ahead);
    __m256i q = _mm256_loadu_si256((const __m256i *)x[b].q);
    __m256 dots = _mm256_cvtepi32_ps(dots_nibbles(at, offset + 4, q));
    load_scales(at, offset, &d, &m);
    f = _mm256_fmadd_ps(dots, _mm256_mul_ps(d, _mm256_set1_ps(x[b].d)), f);
    f = _mm256_fmadd_ps(m, _mm256_set1_ps(x[b].s), f);
    return f;
}

void avx2_gemv_q4_1(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out) {
    const uint8_t *at[8];
    memcpy(at, rows, sizeof at);
    __m256 f = _mm256_setzero_ps();
    for (int b = 0; b < blocks; b++) f = add_q4_1(at, b, ahead, x, f);
    _mm256_storeu_ps(out, f);
}

void avx2_gemv_sums_q4_1(const uint8_t *const *rows, int blocks, int segment, size_t ahead,
                         const isa_q8 *x, double *sums) {
    const uint8_t *at[8];
    memcpy(at, rows, sizeof at);
    __m256d low = _mm256_setzero_pd(), high = low;
    for (int b = 0; b < blocks;) {
        int end = blocks - b < segment ? blocks : b + segment;
        __m256 f = _mm256_setzero_ps();
        for (; b < end; b++) f = add_q4_1(at, b, ahead, x, f);
        low = _mm256_add_pd(low, avx2_to_grid(_mm256_castps256_ps128(f)));
        high = _mm256_add_pd(high, avx2_to_grid(_mm256_extractf128_ps(f, 1)));
    }
    _mm256_storeu_pd(sums, low);
    _mm256_storeu_pd(sums + 4, high);
}

// f with block b's products added.
AVX2_INLINE __m256 add_q4_0(const uint8_t *const *at, int b, size_t ahead, const isa_q8 *x,
                            __m256 f) {
    __m256 d, unused;
    size_t offset = (size_t)b * 18;
    avx2_prefetch(at, (size_t)b, 18, ahead);
    __m256i q = _mm256_loadu_si256((const __m256i *)x[b].q);
    __m256i dots =
        _mm256_sub_epi32(dots_nibbles(at, offset + 2, q), _mm256_set1_epi32(8 * x[b].sum));
    load_scales(at, offset, &d, &unused);
    f = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(d, _mm256_set1_ps(x[b].d)), f);
    return f;
}

void avx2_gemv_q4_0(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out) {
    const uint8_t *at[8];
    memcpy(at, rows, sizeof at);
    __m256 f = _mm256_setzero_ps();
    for (int b = 0; b < blocks; b++) f = add_q4_0(at, b, ahead, x, f);
    _mm256_storeu_ps(out, f);
}

void avx2_gemv_sums_q4_0(const uint8_t *const *rows, int blocks, int segment, size_t ahead,
                         const isa_q8 *x, double *sums) {
    const uint8_t *at[8];
    memcpy(at, rows, sizeof at);
    __m256d low = _mm256_setzero_pd(), high = low;
    for (int b = 0; b < blocks;) {
        int end = blocks - b < segment ? blocks : b + segment;
        __m256 f = _mm256_setzero_ps();
        for (; b < end; b++) f = add_q4_0(at, b, ahead, x, f);
        low = _mm256_add_pd(low, avx2_to_grid(_mm256_castps256_ps128(f)));
        high = _mm256_add_pd(high, avx2_to_grid(_mm256_extractf128_ps(f, 1)));
    }
    _mm256_storeu_pd(sums, low);
    _mm256_storeu_pd(sums + 4, high);
}

AVX2_INLINE __m256i dots_bytes(const uint8_t *const *at, size_t offset, __m256i x) {
    __m256i p[8];
    for (int r = 0; r < 8; r++)
        p[r] = multiply_bytes(_mm256_loadu_si256((const __m256i *)(at[r] + offset)), x);
    return fold32_rows(p);
}

// f with block b's products added.
AVX2_INLINE __m256 add_q8_0(const uint8_t *const *at, int b, size_t ahead, const isa_q8 *x,
                            __m256 f) {
    __m256 d, unused;
    size_t offset = (size_t)b * 34;
    avx2_prefetch(at, (size_t)b, 34, ahead);
    __m256i q = _mm256_loadu_si256((const __m256i *)x[b].q);
    __m256 dots = _mm256_cvtepi32_ps(dots_bytes(at, offset + 2, q));
    load_scales(at, offset, &d, &unused);
    f = _mm256_fmadd_ps(dots, _mm256_mul_ps(d, _mm256_set1_ps(x[b].d)), f);
    return f;
}

void avx2_gemv_q8_0(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out) {
    const uint8_t *at[8];
    memcpy(at, rows, sizeof at);
    __m256 f = _mm256_setzero_ps();
    for (int b = 0; b < blocks; b++) f = add_q8_0(at, b, ahead, x, f);
    _mm256_storeu_ps(out, f);
}

void avx2_gemv_sums_q8_0(const uint8_t *const *rows, int blocks, int segment, size_t ahead,
                         const isa_q8 *x, double *sums) {
    const uint8_t *at[8];
    memcpy(at, rows, sizeof at);
    __m256d low = _mm256_setzero_pd(), high = low;
    for (int b = 0; b < blocks;) {
        int end = blocks - b < segment ? blocks : b + segment;
        __m256 f = _mm256_setzero_ps();
        for (; b < end; b++) f = add_q8_0(at, b, ahead, x, f);
        low = _mm256_add_pd(low, avx2_to_grid(_mm256_castps256_ps128(f)));
        high = _mm256_add_pd(high, avx2_to_grid(_mm256_extractf128_ps(f, 1)));
    }
    _mm256_storeu_pd(sums, low);
    _mm256_storeu_pd(sums + 4, high);
}

// All of a K-quantised block's halves or parts are in kquants_avx2.c.
// Byte i is 255 where bit i is set: each byte gets its bit's byte, all other bits are filled up.
AVX2_INLINE __m256i spread_bits(const uint8_t *p) {
    const __m256i order =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i others = _mm256_set1_epi64x(0x7fbfdfeff7fbfdfe);
    int32_t bits;
    memcpy(&bits, p, sizeof bits);
    __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), order);
    return _mm256_cmpeq_epi8(_mm256_or_si256(bytes, others), _mm256_set1_epi8(-1));
}

// Like dots_nibbles for values up to 31: 8 * 31 * 127 < 2^15, so the last fold is in 32 bits.
AVX2_INLINE __m256i dots_fives(const uint8_t *const *at, size_t offset, __m256i x) {
    __m256i p[8];
    for (int r = 0; r < 8; r++) {
        const uint8_t *block = at[r] + offset;
        __m256i high = _mm256_and_si256(spread_bits(block + 2), _mm256_set1_epi8(16));
        p[r] = _mm256_maddubs_epi16(_mm256_or_si256(nibbles(block + 6), high), x);
    }
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a = fold16_pairs(fold16(p[0], p[1]), fold16(p[2], p[3]));
    __m256i b = fold16_pairs(fold16(p[4], p[5]), fold16(p[6], p[7]));
    a = _mm256_madd_epi16(a, ones);
    b = _mm256_madd_epi16(b, ones);
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                            _mm256_permute2x128_si256(a, b, 0x31));
}

void avx2_gemv_q5_0(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out) {
    const uint8_t *at[8];
    memcpy(at, rows, sizeof at);
    __m256 f = _mm256_setzero_ps(), d, unused;
    for (int b = 0; b < blocks; b++) {
        size_t offset = (size_t)b * 22;
        avx2_prefetch(at, (size_t)b, 22, ahead);
        __m256i q = _mm256_loadu_si256((const __m256i *)x[b].q);
        __m256i dots =
            _mm256_sub_epi32(dots_fives(at, offset, q), _mm256_set1_epi32(16 * x[b].sum));
        load_scales(at, offset, &d, &unused);
        f = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(d, _mm256_set1_ps(x[b].d)), f);
    }
    _mm256_storeu_ps(out, f);
}

void avx2_unpack_q8_0(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++, row += 34) {
        int at = b * ISA_TILE_ROWS + index;
        tile->d[at] = load_f16(row);
        memcpy(tile->q + at * ISA_BLOCK, row + 2, ISA_BLOCK);
    }
}

void avx2_unpack_q4_0(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++, row += 18) {
        int at = b * ISA_TILE_ROWS + index;
        tile->d[at] = load_f16(row);
        _mm256_storeu_si256((__m256i *)(tile->q + at * ISA_BLOCK), nibbles(row + 2));
    }
}

void avx2_unpack_q4_1(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++, row += 20) {
        int at = b * ISA_TILE_ROWS + index;
        tile->d[at] = load_f16(row);
        tile->m[at] = load_f16(row + 2);
        _mm256_storeu_si256((__m256i *)(tile->q + at * ISA_BLOCK), nibbles(row + 4));
    }
}

void avx2_unpack_q5_0(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++, row += 22) {
        int at = b * ISA_TILE_ROWS + index;
        tile->d[at] = load_f16(row);
        __m256i high = _mm256_and_si256(spread_bits(row + 2), _mm256_set1_epi8(16));
        __m256i q = _mm256_or_si256(nibbles(row + 6), high);
        _mm256_storeu_si256((__m256i *)(tile->q + at * ISA_BLOCK), q);
    }
}

// Adds the products of steps `from` to `from` + `count`, 4 values each, of 4 rows x 8 tokens: in 16
// bits for weights that are small enough (count * 2 * largest * 127 < 2^15), else in 32.
AVX2_INLINE void add_products(dtype type, const uint8_t *w, const uint8_t *q, int from, int count,
                              __m256i *sums) {
    for (int r = 0; r < ISA_TILE_ROWS; r++) sums[r] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int j = from; j < from + count; j++) {
        __m256i x = _mm256_load_si256((const __m256i *)(q + 32 * j));
        for (int r = 0; r < ISA_TILE_ROWS; r++) {
            __m256i four = broadcast4(w + r * ISA_BLOCK + 4 * j);
            if (type == DTYPE_Q8_0)
                sums[r] = _mm256_add_epi32(sums[r], multiply_bytes(four, x));
            else
                sums[r] = _mm256_add_epi16(sums[r], _mm256_maddubs_epi16(four, x));
            AVX2_KEEP(sums[r]);
        }
    }
    if (type == DTYPE_Q8_0) return;
    for (int r = 0; r < ISA_TILE_ROWS; r++)
        sums[r] = _mm256_madd_epi16(sums[r], _mm256_set1_epi16(1));
}

// The dots of one block. `sum` is that of the activations: Q4_0 and Q5_0 lie 8 and 16 below what
// was multiplied, I4 (and I4_32) zeros[2 r].
AVX2_INLINE void block_dots(dtype type, const uint8_t *w, const uint8_t *q, __m256i sum,
                            const int32_t *zeros, __m256i *dots) {
    if (type == DTYPE_Q5_0) { // values to 31: half a block fits 16 bits
        __m256i rest[ISA_TILE_ROWS];
        add_products(type, w, q, 0, 4, dots);
        add_products(type, w, q, 4, 4, rest);
        for (int r = 0; r < ISA_TILE_ROWS; r++) dots[r] = _mm256_add_epi32(dots[r], rest[r]);
    } else {
        add_products(type, w, q, 0, 8, dots);
    }
    for (int r = 0; r < ISA_TILE_ROWS && type == DTYPE_I4; r++)
        dots[r] =
            _mm256_sub_epi32(dots[r], _mm256_mullo_epi32(sum, _mm256_set1_epi32(zeros[2 * r])));
    if (type != DTYPE_Q4_0 && type != DTYPE_Q5_0) return;
    __m256i excess = _mm256_slli_epi32(sum, type == DTYPE_Q4_0 ? 3 : 4);
    for (int r = 0; r < ISA_TILE_ROWS; r++) dots[r] = _mm256_sub_epi32(dots[r], excess);
}

AVX2_INLINE void gemm_q8(dtype type, const isa_tile *tile, int blocks, const uint8_t *group,
                         float *out) {
    __m256 f[ISA_TILE_ROWS];
    for (int r = 0; r < ISA_TILE_ROWS; r++) f[r] = _mm256_setzero_ps();
    for (int b = 0; b < blocks; b++, group += isa_group_block_bytes(8)) {
        __m256i dots[ISA_TILE_ROWS], sum = _mm256_load_si256((const __m256i *)(group + 64));
        block_dots(type, tile->q + b * ISA_TILE_ROWS * ISA_BLOCK, group + 96, sum,
                   tile->halves + 2 * b * ISA_TILE_ROWS, dots);
        __m256 d = _mm256_load_ps((const float *)group);
        __m256 s = _mm256_load_ps((const float *)(group + 32));
        for (int r = 0; r < ISA_TILE_ROWS; r++) {
            int at = b * ISA_TILE_ROWS + r;
            __m256 scale = _mm256_mul_ps(_mm256_set1_ps(tile->d[at]), d);
            f[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r]), scale, f[r]);
            if (type == DTYPE_Q4_1) f[r] = _mm256_fmadd_ps(_mm256_set1_ps(tile->m[at]), s, f[r]);
        }
    }
    store_transposed(f, out);
}

void avx2_gemm_q8_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q8_0, tile, blocks, group, out);
}

void avx2_gemm_q4_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q4_0, tile, blocks, group, out);
}

void avx2_gemm_i4(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_I4, tile, blocks, group, out);
}

void avx2_gemm_q4_1(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q4_1, tile, blocks, group, out);
}

void avx2_gemm_q5_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    gemm_q8(DTYPE_Q5_0, tile, blocks, group, out);
}
