// kquants_avx2: products of Q4_K and Q6_K weights: blocks of 256 values whose parts of 32 (16) have
// scales of their own. Q4_K unpacks into the same tiles as Q4_1 and is multiplied by its gemm.
#include "kernels/cpu/avx2_blocks.h"

enum { Q4_K_BYTES = 144, Q6_K_BYTES = 210, PARTS = 8 };

void avx2_unpack_q4_k(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++) {
        const uint8_t *super = row + b / 8 * 144;
        int at = b * ISA_TILE_ROWS + index, scale, minimum;
        isa_q4_k_scale(super + 4, b % 8, &scale, &minimum);
        tile->d[at] = load_f16(super) * (float)scale;
        tile->m[at] = -(load_f16(super + 2) * (float)minimum);
        __m256i q = _mm256_loadu_si256((const __m256i *)(super + 16 + b % 8 / 2 * 32));
        q = _mm256_and_si256(b % 2 ? _mm256_srli_epi16(q, 4) : q, _mm256_set1_epi8(15));
        _mm256_storeu_si256((__m256i *)(tile->q + at * ISA_BLOCK), q);
    }
}

// The 16-byte heads of eight Q4_K blocks, turned so that lane r of head[i] is the 32-bit word i of
// row r.
AVX2_INLINE void load_heads(const uint8_t *const *at, size_t offset, __m256i *head) {
    __m256i v[4];
    for (int r = 0; r < 4; r++) {
        __m128i low = _mm_loadu_si128((const __m128i *)(at[r] + offset));
        __m128i high = _mm_loadu_si128((const __m128i *)(at[r + 4] + offset));
        v[r] = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    }
    __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpacklo_epi32(v[2], v[3]);
    __m256i c = _mm256_unpackhi_epi32(v[0], v[1]), d = _mm256_unpackhi_epi32(v[2], v[3]);
    head[0] = _mm256_unpacklo_epi64(a, b);
    head[1] = _mm256_unpackhi_epi64(a, b);
    head[2] = _mm256_unpacklo_epi64(c, d);
    head[3] = _mm256_unpackhi_epi64(c, d);
}

// Eight 16-bit values, one in each 32-bit lane, from F16 to float.
AVX2_INLINE __m256 widen_f16(__m256i lanes) {
    return _mm256_cvtph_ps(
        _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1)));
}

// Scales and minima of eight rows: bytes 0..3 of a lane are parts 0..3 (first) or 4..7 (second).
// The packing is isa_q4_k_scale's, four parts at a time.
typedef struct packed_scales {
    __m256 d, m;
    __m256i scales[2], minima[2];
} packed_scales;

AVX2_INLINE packed_scales unpack_scales(const uint8_t *const *at, size_t offset) {
    __m256i head[4];
    load_heads(at, offset, head);
    const __m256i six = _mm256_set1_epi32(0x3f3f3f3f), four = _mm256_set1_epi32(0x0f0f0f0f),
                  two = _mm256_set1_epi32(0x30303030);
    packed_scales p;
    p.d = widen_f16(_mm256_and_si256(head[0], _mm256_set1_epi32(0xffff)));
    p.m = widen_f16(_mm256_srli_epi32(head[0], 16));
    p.scales[0] = _mm256_and_si256(head[1], six);
    p.minima[0] = _mm256_and_si256(head[2], six);
    p.scales[1] = _mm256_or_si256(_mm256_and_si256(head[3], four),
                                  _mm256_and_si256(_mm256_srli_epi32(head[1], 2), two));
    p.minima[1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(head[3], 4), four),
                                  _mm256_and_si256(_mm256_srli_epi32(head[2], 2), two));
    return p;
}

AVX2_INLINE __m256 byte_of(__m256i lanes, int i) {
    __m256i bytes = _mm256_srl_epi32(lanes, _mm_cvtsi32_si128(8 * i));
    return _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(255)));
}

// Dots of part j of eight Q4_K blocks with one activation block.
AVX2_INLINE __m256i dots_part(const uint8_t *const *at, size_t offset, int j, __m256i x) {
    __m256i p[8];
    for (int r = 0; r < 8; r++) {
        __m256i q = _mm256_loadu_si256((const __m256i *)(at[r] + offset + 16 + j / 2 * 32));
        q = _mm256_and_si256(j % 2 ? _mm256_srli_epi16(q, 4) : q, _mm256_set1_epi8(15));
        p[r] = _mm256_maddubs_epi16(q, x);
    }
    return fold16_rows(p);
}

void avx2_gemv_q4_k(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out) {
    const uint8_t *at[8];
    memcpy(at, rows, sizeof at);
    __m256 f = _mm256_setzero_ps();
    for (int b = 0; b < blocks; b += PARTS, x += PARTS) {
        size_t offset = (size_t)(b / PARTS) * Q4_K_BYTES;
        packed_scales p = unpack_scales(at, offset);
#pragma GCC unroll 8
        for (int j = 0; j < PARTS; j++) {
            if (j < 3) avx2_prefetch(at, 0, 1, ahead + offset + 64 * (size_t)j);
            __m256i q = _mm256_loadu_si256((const __m256i *)x[j].q);
            __m256 dots = _mm256_cvtepi32_ps(dots_part(at, offset, j, q));
            __m256 d = _mm256_mul_ps(p.d, byte_of(p.scales[j / 4], j % 4));
            __m256 m = _mm256_mul_ps(p.m, byte_of(p.minima[j / 4], j % 4));
            f = _mm256_fmadd_ps(dots, _mm256_mul_ps(d, _mm256_set1_ps(x[j].d)), f);
            f = _mm256_fnmadd_ps(m, _mm256_set1_ps(x[j].s), f);
        }
    }
    _mm256_storeu_ps(out, f);
}

// Values 0..63 (32 above what they stand for) of part j of a Q6_K block.
AVX2_INLINE __m256i sixes(const uint8_t *super, int j) {
    int n = j / 4, part = j % 4;
    __m256i low = _mm256_loadu_si256((const __m256i *)(super + 64 * n + part % 2 * 32));
    __m256i high = _mm256_loadu_si256((const __m256i *)(super + 128 + 32 * n));
    low = _mm256_and_si256(part < 2 ? low : _mm256_srli_epi16(low, 4), _mm256_set1_epi8(15));
    high = _mm256_srl_epi16(high, _mm_cvtsi32_si128(2 * part));
    high = _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(3)), 4);
    return _mm256_or_si256(low, high);
}

void avx2_unpack_q6_k(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    for (int b = 0; b < blocks; b++) {
        const uint8_t *super = row + b / PARTS * Q6_K_BYTES;
        int at = b * ISA_TILE_ROWS + index;
        tile->d[at] = load_f16(super + 208);
        for (int i = 0; i < 2; i++)
            tile->halves[2 * at + i] = (int8_t)super[192 + 2 * (b % PARTS) + i];
        __m256i q = _mm256_sub_epi8(sixes(super, b % PARTS), _mm256_set1_epi8(32));
        _mm256_storeu_si256((__m256i *)(tile->q + at * ISA_BLOCK), q);
    }
}

// Dots of part j of eight Q6_K blocks; scales[r] are the row's sixteen. The pairs of products are
// moved down by 32 times the pair of activations, then multiplied with the scale of their half: low
// lane and high lane.
AVX2_INLINE __m256i dots_sixes(const uint8_t *const *at, size_t offset, int j,
                               const int16_t (*scales)[16], __m256i x) {
    const __m256i halves = _mm256_setr_epi64x(0x0100010001000100, 0x0100010001000100,
                                              0x0302030203020302, 0x0302030203020302);
    __m256i below = _mm256_slli_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), x), 5), p[8];
    for (int r = 0; r < 8; r++) {
        __m256i pairs = _mm256_maddubs_epi16(sixes(at[r] + offset, j), x);
        __m256i both = broadcast4((const uint8_t *)&scales[r][2 * j]);
        p[r] = _mm256_madd_epi16(_mm256_sub_epi16(pairs, below), _mm256_shuffle_epi8(both, halves));
    }
    return fold32_rows(p);
}

void avx2_gemv_q6_k(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out) {
    const uint8_t *at[8];
    memcpy(at, rows, sizeof at);
    __m256 f = _mm256_setzero_ps(), unused, d;
    for (int b = 0; b < blocks; b += PARTS, x += PARTS) {
        size_t offset = (size_t)(b / PARTS) * Q6_K_BYTES;
        _Alignas(32) int16_t scales[8][16];
        for (int r = 0; r < 8; r++) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)(at[r] + offset + 192));
            _mm256_store_si256((__m256i *)scales[r], _mm256_cvtepi8_epi16(bytes));
        }
        load_scales(at, offset + 206, &unused, &d); // two bytes early: none are left after d
#pragma GCC unroll 8
        for (int j = 0; j < PARTS; j++) {
            if (j < 4) avx2_prefetch(at, 0, 1, ahead + offset + 64 * (size_t)j);
            __m256i q = _mm256_loadu_si256((const __m256i *)x[j].q);
            __m256 dots = _mm256_cvtepi32_ps(dots_sixes(at, offset, j, scales, q));
            f = _mm256_fmadd_ps(dots, _mm256_mul_ps(d, _mm256_set1_ps(x[j].d)), f);
        }
    }
    _mm256_storeu_ps(out, f);
}

// Dots of half h (16 values) of one block: 4 rows x 8 tokens.
AVX2_INLINE void half_dots(const uint8_t *w, const uint8_t *q, int h, __m256i *dots) {
    for (int r = 0; r < ISA_TILE_ROWS; r++) dots[r] = _mm256_setzero_si256();
    for (int j = 4 * h; j < 4 * h + 4; j++) {
        __m256i x = _mm256_load_si256((const __m256i *)(q + 32 * j));
        for (int r = 0; r < ISA_TILE_ROWS; r++) {
            __m256i four = broadcast4(w + r * ISA_BLOCK + 4 * j);
            dots[r] = _mm256_add_epi32(dots[r], multiply_bytes(four, x));
            AVX2_KEEP(dots[r]);
        }
    }
}

void avx2_gemm_q6_k(const isa_tile *tile, int blocks, const uint8_t *group, float *out) {
    __m256 f[ISA_TILE_ROWS];
    for (int r = 0; r < ISA_TILE_ROWS; r++) f[r] = _mm256_setzero_ps();
    for (int b = 0; b < blocks; b++, group += isa_group_block_bytes(8)) {
        __m256i dots[2][ISA_TILE_ROWS];
        for (int h = 0; h < 2; h++)
            half_dots(tile->q + b * ISA_TILE_ROWS * ISA_BLOCK, group + 96, h, dots[h]);
        __m256 d = _mm256_load_ps((const float *)group);
        for (int r = 0; r < ISA_TILE_ROWS; r++) {
            int at = b * ISA_TILE_ROWS + r;
            __m256i first = _mm256_set1_epi32(tile->halves[2 * at]);
            __m256i second = _mm256_set1_epi32(tile->halves[2 * at + 1]);
            __m256i dot = _mm256_add_epi32(_mm256_mullo_epi32(dots[0][r], first),
                                           _mm256_mullo_epi32(dots[1][r], second));
            __m256 scale = _mm256_mul_ps(_mm256_set1_ps(tile->d[at]), d);
            f[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, f[r]);
        }
    }
    store_transposed(f, out);
}
