// avx2_blocks: integer pieces that the products of plain blocks (quantised_avx2.c), of K blocks
// (kquants_avx2.c) and of those with a zero point (zero_point_avx2.c) share.
#ifndef OCTANT_KERNELS_CPU_AVX2_BLOCKS_H
#define OCTANT_KERNELS_CPU_AVX2_BLOCKS_H

#include "kernels/cpu/avx2.h"

AVX2_INLINE float load_f16(const uint8_t *p) {
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return _cvtsh_ss(bits);
}

AVX2_INLINE __m128i load4(const uint8_t *p) {
    int32_t bits;
    memcpy(&bits, p, sizeof bits);
    return _mm_cvtsi32_si128(bits);
}

// The 16-bit words 0 and 1 at eight places as two vectors of floats (F16).
AVX2_INLINE void load_scales(const uint8_t *const *at, size_t offset, __m256 *d, __m256 *m) {
    __m128i r01 = _mm_unpacklo_epi16(load4(at[0] + offset), load4(at[1] + offset));
    __m128i r23 = _mm_unpacklo_epi16(load4(at[2] + offset), load4(at[3] + offset));
    __m128i r45 = _mm_unpacklo_epi16(load4(at[4] + offset), load4(at[5] + offset));
    __m128i r67 = _mm_unpacklo_epi16(load4(at[6] + offset), load4(at[7] + offset));
    __m128i r03 = _mm_unpacklo_epi32(r01, r23), r47 = _mm_unpacklo_epi32(r45, r67);
    *d = _mm256_cvtph_ps(_mm_unpacklo_epi64(r03, r47));
    *m = _mm256_cvtph_ps(_mm_unpackhi_epi64(r03, r47));
}

AVX2_INLINE __m256i broadcast4(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

// Products of bytes with bytes, in fours: |w| times x with w's sign; 2 * 128 * 127 < 2^15.
AVX2_INLINE __m256i multiply_bytes(__m256i w, __m256i x) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

AVX2_INLINE __m256i fold16(__m256i a, __m256i b) {
    return _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}

AVX2_INLINE __m256i fold16_pairs(__m256i a, __m256i b) {
    return _mm256_add_epi16(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

AVX2_INLINE __m256i fold32(__m256i a, __m256i b) {
    return _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}

AVX2_INLINE __m256i fold32_pairs(__m256i a, __m256i b) {
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

// Folds eight vectors of 32-bit sums: dot of row r to lane r.
AVX2_INLINE __m256i fold32_rows(const __m256i *p) {
    __m256i a = fold32_pairs(fold32(p[0], p[1]), fold32(p[2], p[3]));
    __m256i b = fold32_pairs(fold32(p[4], p[5]), fold32(p[6], p[7]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                            _mm256_permute2x128_si256(a, b, 0x31));
}

// The end of folding eight vectors of 16-bit sums: dot of row r to lane r.
AVX2_INLINE __m256i fold16_rows(const __m256i *p) {
    __m256i a = fold16_pairs(fold16(p[0], p[1]), fold16(p[2], p[3]));
    __m256i b = fold16_pairs(fold16(p[4], p[5]), fold16(p[6], p[7]));
    __m256i sums = _mm256_add_epi16(_mm256_permute2x128_si256(a, b, 0x20),
                                    _mm256_permute2x128_si256(a, b, 0x31));
    return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
}

AVX2_INLINE __m256i nibbles(const uint8_t *packed) {
    __m128i q = _mm_loadu_si128((const __m128i *)packed);
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

// Dots of eight blocks of nibbles with one activation block, dot of row r in lane r.
AVX2_INLINE __m256i dots_nibbles(const uint8_t *const *at, size_t offset, __m256i x) {
    __m256i p[8];
    for (int r = 0; r < 8; r++) p[r] = _mm256_maddubs_epi16(nibbles(at[r] + offset), x);
    return fold16_rows(p);
}

// (4 rows, 8 tokens) to out (8 tokens, 4 rows).
AVX2_INLINE void store_transposed(const __m256 *f, float *out) {
    __m256 a = _mm256_unpacklo_ps(f[0], f[1]), b = _mm256_unpackhi_ps(f[0], f[1]);
    __m256 c = _mm256_unpacklo_ps(f[2], f[3]), d = _mm256_unpackhi_ps(f[2], f[3]);
    __m256 pairs[4] = {_mm256_shuffle_ps(a, c, 0x44), _mm256_shuffle_ps(a, c, 0xee),
                       _mm256_shuffle_ps(b, d, 0x44), _mm256_shuffle_ps(b, d, 0xee)};
    for (int t = 0; t < 4; t++) { // tokens t and t + 4
        _mm_store_ps(out + 4 * t, _mm256_castps256_ps128(pairs[t]));
        _mm_store_ps(out + 4 * (t + 4), _mm256_extractf128_ps(pairs[t], 1));
    }
}

#endif
