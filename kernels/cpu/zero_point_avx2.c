// zero_point_avx2: products of I4 and I4_32 weights, nibbles with an integer zero point, with
// activations in 8 bits. The zero point is taken off in integers (dot - z * sum(q)), which is
// exact. gemv is as Q4_0's; so is gemm (both in quantised_avx2.c), which finds the zero points in
// the tile's halves.
#include "kernels/cpu/avx2_blocks.h"

enum { HEAD = 4, RUN = 16, I4_RUNS = 4 }; // bytes of a head and of a run of 32 nibbles

// Where the head of the block that holds run b lies in a row, and the run's nibbles.
AVX2_INLINE size_t head_of(dtype type, int b) {
    return type == DTYPE_I4 ? (size_t)(b / I4_RUNS) * (HEAD + I4_RUNS * RUN)
                            : (size_t)b * (HEAD + RUN);
}

AVX2_INLINE size_t nibbles_of(dtype type, int b) {
    return head_of(type, b) + HEAD + (type == DTYPE_I4 ? (size_t)(b % I4_RUNS) * RUN : 0);
}

// The heads at eight places: d as floats, z as integers.
AVX2_INLINE void load_heads(const uint8_t *const *at, size_t offset, __m256 *d, __m256i *z) {
    __m128i r01 = _mm_unpacklo_epi16(load4(at[0] + offset), load4(at[1] + offset));
    __m128i r23 = _mm_unpacklo_epi16(load4(at[2] + offset), load4(at[3] + offset));
    __m128i r45 = _mm_unpacklo_epi16(load4(at[4] + offset), load4(at[5] + offset));
    __m128i r67 = _mm_unpacklo_epi16(load4(at[6] + offset), load4(at[7] + offset));
    __m128i r03 = _mm_unpacklo_epi32(r01, r23), r47 = _mm_unpacklo_epi32(r45, r67);
    *d = _mm256_cvtph_ps(_mm_unpacklo_epi64(r03, r47));
    *z = _mm256_cvtepu16_epi32(_mm_unpackhi_epi64(r03, r47));
}

// f with run b's products added.
AVX2_INLINE __m256 add_run(dtype type, const uint8_t *const *at, int b, size_t ahead,
                           const isa_q8 *x, __m256 f) {
    __m256 d;
    __m256i z, q = _mm256_loadu_si256((const __m256i *)x[b].q);
    avx2_prefetch(at, (size_t)b, type == DTYPE_I4 ? HEAD / I4_RUNS + RUN : HEAD + RUN, ahead);
    load_heads(at, head_of(type, b), &d, &z);
    __m256i below = _mm256_mullo_epi32(z, _mm256_set1_epi32(x[b].sum));
    __m256i dots = _mm256_sub_epi32(dots_nibbles(at, nibbles_of(type, b), q), below);
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(d, _mm256_set1_ps(x[b].d)), f);
}

AVX2_INLINE void gemv(dtype type, const uint8_t *const *rows, int blocks, size_t ahead,
                      const isa_q8 *x, float *out) {
    const uint8_t *at[8];
    memcpy(at, rows, sizeof at);
    __m256 f = _mm256_setzero_ps();
    for (int b = 0; b < blocks; b++) f = add_run(type, at, b, ahead, x, f);
    _mm256_storeu_ps(out, f);
}

void avx2_gemv_i4(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                  float *out) {
    gemv(DTYPE_I4, rows, blocks, ahead, x, out);
}

void avx2_gemv_i4_32(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                     float *out) {
    gemv(DTYPE_I4_32, rows, blocks, ahead, x, out);
}

AVX2_INLINE void gemv_sums(dtype type, const uint8_t *const *rows, int blocks, int segment,
                           size_t ahead, const isa_q8 *x, double *sums) {
    const uint8_t *at[8];
    memcpy(at, rows, sizeof at);
    __m256d low = _mm256_setzero_pd(), high = low;
    for (int b = 0; b < blocks;) {
        int end = blocks - b < segment ? blocks : b + segment;
        __m256 f = _mm256_setzero_ps();
        for (; b < end; b++) f = add_run(type, at, b, ahead, x, f);
        low = _mm256_add_pd(low, avx2_to_grid(_mm256_castps256_ps128(f)));
        high = _mm256_add_pd(high, avx2_to_grid(_mm256_extractf128_ps(f, 1)));
    }
    _mm256_storeu_pd(sums, low);
    _mm256_storeu_pd(sums + 4, high);
}

void avx2_gemv_sums_i4(const uint8_t *const *rows, int blocks, int segment, size_t ahead,
                       const isa_q8 *x, double *sums) {
    gemv_sums(DTYPE_I4, rows, blocks, segment, ahead, x, sums);
}

void avx2_gemv_sums_i4_32(const uint8_t *const *rows, int blocks, int segment, size_t ahead,
                          const isa_q8 *x, double *sums) {
    gemv_sums(DTYPE_I4_32, rows, blocks, segment, ahead, x, sums);
}

AVX2_INLINE void unpack(dtype type, const uint8_t *row, int blocks, int index,
                        const isa_tile *tile) {
    for (int b = 0; b < blocks; b++) {
        int at = b * ISA_TILE_ROWS + index;
        const uint8_t *head = row + head_of(type, b);
        tile->d[at] = load_f16(head);
        tile->halves[2 * at] = head[2];
        _mm256_storeu_si256((__m256i *)(tile->q + at * ISA_BLOCK),
                            nibbles(row + nibbles_of(type, b)));
    }
}

void avx2_unpack_i4(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    unpack(DTYPE_I4, row, blocks, index, tile);
}

void avx2_unpack_i4_32(const uint8_t *row, int blocks, int index, const isa_tile *tile) {
    unpack(DTYPE_I4_32, row, blocks, index, tile);
}
