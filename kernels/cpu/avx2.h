// avx2: what the files *_avx2.c share, and the functions that avx512 takes over from them. Included
// only by files that are compiled for AVX2, FMA and F16C; everything here has x86 intrinsics.
#ifndef OCTANT_KERNELS_CPU_AVX2_H
#define OCTANT_KERNELS_CPU_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

#define AVX2_INLINE static inline __attribute__((always_inline))

// Keeps a sum where the source has it. gcc regroups chains of integer additions into trees, which
// need more registers than there are (half of a product's instructions were spills).
#define AVX2_KEEP(sum) __asm__("" : "+x"(sum))

// Eight values of F32, F16 or BF16 as floats; `type` is a constant where this is inlined.
AVX2_INLINE __m256 avx2_load8(dtype type, const uint8_t *p) {
    if (type == DTYPE_F32) return _mm256_loadu_ps((const float *)p);
    __m128i half = _mm_loadu_si128((const __m128i *)p);
    if (type == DTYPE_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

// The first n < 8 of eight values, zeros after them; reads no byte beyond.
AVX2_INLINE __m256 avx2_load_tail(dtype type, const uint8_t *p, int n) {
    uint8_t bytes[32] = {0};
    memcpy(bytes, p, (size_t)n * (type == DTYPE_F32 ? 4 : 2));
    return avx2_load8(type, bytes);
}

// The one order in which eight partial sums are added up.
AVX2_INLINE float avx2_add_lanes(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Prefetches eight rows. Called for every step of a loop that takes `step` bytes of each row; acts
// once per cache line. An address that is not mapped does no harm.
AVX2_INLINE void avx2_prefetch(const uint8_t *const *rows, size_t index, size_t step,
                               size_t ahead) {
    if (index % (64 / step) != 0) return;
    for (int r = 0; r < ISA_GEMV_ROWS; r++)
        _mm_prefetch((const char *)(rows[r] + index * step + ahead), _MM_HINT_T0);
}

// quantised_avx2.c
void avx2_quantise(const float *x, int blocks, isa_q8 *out);
void avx2_gemv_q8_0(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out);
void avx2_gemv_q4_0(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out);
void avx2_gemv_q4_1(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out);
void avx2_gemv_q5_0(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out);
void avx2_gemv_q4_k(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out);
void avx2_gemv_q6_k(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                    float *out);
void avx2_unpack_q8_0(const uint8_t *row, int blocks, int index, const isa_tile *tile);
void avx2_unpack_q4_0(const uint8_t *row, int blocks, int index, const isa_tile *tile);
void avx2_unpack_q4_1(const uint8_t *row, int blocks, int index, const isa_tile *tile);
void avx2_unpack_q5_0(const uint8_t *row, int blocks, int index, const isa_tile *tile);
void avx2_unpack_q4_k(const uint8_t *row, int blocks, int index, const isa_tile *tile);
void avx2_unpack_q6_k(const uint8_t *row, int blocks, int index, const isa_tile *tile);
void avx2_gemm_q6_k(const isa_tile *tile, int blocks, const uint8_t *group, float *out);
void avx2_gemm_q5_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out);
void avx2_gemm_q8_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out);
void avx2_gemm_q4_0(const isa_tile *tile, int blocks, const uint8_t *group, float *out);
void avx2_gemm_i4(const isa_tile *tile, int blocks, const uint8_t *group, float *out);
void avx2_gemm_q4_1(const isa_tile *tile, int blocks, const uint8_t *group, float *out);

// zero_point_avx2.c
void avx2_gemv_i4(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                  float *out);
void avx2_gemv_i4_32(const uint8_t *const *rows, int blocks, size_t ahead, const isa_q8 *x,
                     float *out);
void avx2_gemv_sums_i4(const uint8_t *const *rows, int blocks, int segment, size_t ahead,
                       const isa_q8 *x, double *sums);
void avx2_gemv_sums_i4_32(const uint8_t *const *rows, int blocks, int segment, size_t ahead,
                          const isa_q8 *x, double *sums);
void avx2_unpack_i4(const uint8_t *row, int blocks, int index, const isa_tile *tile);
void avx2_unpack_i4_32(const uint8_t *row, int blocks, int index, const isa_tile *tile);

// float_avx2.c
void avx2_gemv_f32(const uint8_t *const *rows, int cols, size_t ahead, const float *x, float *out);
void avx2_gemv_f16(const uint8_t *const *rows, int cols, size_t ahead, const float *x, float *out);
void avx2_gemv_bf16(const uint8_t *const *rows, int cols, size_t ahead, const float *x, float *out);
void avx2_widen(dtype type, const void *data, int count, float *out);
void avx2_narrow(dtype type, const float *x, int count, void *out, size_t stride);
void avx2_dots(const float *const *rows, int cols, const float *const *x, int tokens,
               float (*out)[ISA_TILE_ROWS]);

// attention_avx2.c
void avx2_qk(dtype type, const uint8_t *const *keys, int vectors, size_t key_stride, int head_dim,
             const float *const *q, int rows, float scale, float *const *scores);
void avx2_pv(dtype type, const uint8_t *values, size_t value_stride, int count, int width,
             const float *const *p, int rows, float *const *out);
void avx2_softmax(float *scores, int count, float *maximum, float *sum, float *out, int width);
void avx2_soft_cap(float *x, int count, float cap);

// isa_avx2.c
void avx2_rmsnorm(float *x, const float *delta, const float *weight, float epsilon, int width,
                  float *out);
void avx2_add(float *x, const float *delta, int width);
void avx2_swiglu(float *gate, const float *up, int width);
void avx2_geglu(float *gate, const float *up, int width);
void avx2_gemv_sums_q8_0(const uint8_t *const *rows, int blocks, int segment, size_t ahead,
                         const isa_q8 *x, double *sums);
void avx2_gemv_sums_q4_0(const uint8_t *const *rows, int blocks, int segment, size_t ahead,
                         const isa_q8 *x, double *sums);
void avx2_gemv_sums_q4_1(const uint8_t *const *rows, int blocks, int segment, size_t ahead,
                         const isa_q8 *x, double *sums);

// As kernels_to_grid.
AVX2_INLINE __m256d avx2_to_grid(__m128 products) {
    const __m256d shift = _mm256_set1_pd(0x1.8p52 * KERNELS_SUM_GRID);
    return _mm256_sub_pd(_mm256_add_pd(_mm256_cvtps_pd(products), shift), shift);
}
void avx2_add_to_grid(const float *products, int count, double *sums);
int avx2_argmax(const float *x, int width, float *value);

// e^x to about 1 ulp (Cephes' split of ln 2, degree 6 Taylor-minimax in [-ln 2 / 2, ln 2 / 2]); 0
// below -87.3, so that e^-infinity is 0; x above 88 gives e^88.
AVX2_INLINE __m256 avx2_exp(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 tiny = _mm256_cmp_ps(x, _mm256_set1_ps(-87.3f), _CMP_LT_OQ);
    // The operands' order keeps a NaN: min and max return the second if one is NaN.
    x = _mm256_max_ps(_mm256_set1_ps(-87.3f), _mm256_min_ps(_mm256_set1_ps(88.0f), x));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 y = _mm256_set1_ps(1.9875691500e-4f);
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.3981999507e-3f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(8.3334519073e-3f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(4.1665795894e-2f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.6666665459e-1f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(5.0000001201e-1f));
    y = _mm256_fmadd_ps(_mm256_mul_ps(r, r), y, _mm256_add_ps(r, one));
    __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), power));
    return _mm256_andnot_ps(tiny, y);
}

// tanh to about 2 ulp: Cephes' tanhf, an odd polynomial to 0.625 and 1 - 2 / (e^2x + 1) beyond.
AVX2_INLINE __m256 avx2_tanh(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    __m256 size = _mm256_andnot_ps(sign, x), z = _mm256_mul_ps(x, x);
    __m256 y = _mm256_set1_ps(-5.70498872745e-3f);
    y = _mm256_fmadd_ps(y, z, _mm256_set1_ps(2.06390887954e-2f));
    y = _mm256_fmadd_ps(y, z, _mm256_set1_ps(-5.37397155531e-2f));
    y = _mm256_fmadd_ps(y, z, _mm256_set1_ps(1.33314422036e-1f));
    y = _mm256_fmadd_ps(y, z, _mm256_set1_ps(-3.33332819422e-1f));
    __m256 near = _mm256_fmadd_ps(_mm256_mul_ps(y, z), x, x);
    __m256 e = avx2_exp(_mm256_add_ps(size, size));
    __m256 far = _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(e, one)));
    far = _mm256_or_ps(far, _mm256_and_ps(sign, x));
    return _mm256_blendv_ps(far, near, _mm256_cmp_ps(size, _mm256_set1_ps(0.625f), _CMP_LT_OQ));
}

#endif
