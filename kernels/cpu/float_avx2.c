// float_avx2: products of F32, F16 and BF16 weights with float activations, in eight lanes of
// partial sums over the columns.
#include "kernels/cpu/avx2.h"

enum { CHAINS = 8 }; // independent sums that hide the latency of fma

// Eight rows with one token. The tail adds 0 * 0 in the lanes that have no column.
AVX2_INLINE void gemv(dtype type, const uint8_t *const *rows, int cols, size_t ahead,
                      const float *x, float *out) {
    size_t element = type == DTYPE_F32 ? 4 : 2;
    const uint8_t *at[CHAINS];
    __m256 sums[CHAINS];
    for (int r = 0; r < CHAINS; r++) {
        at[r] = rows[r];
        sums[r] = _mm256_setzero_ps();
    }
    int c = 0;
    for (; c + 8 <= cols; c += 8) {
        avx2_prefetch(at, (size_t)c / 8, 8 * element, ahead);
        __m256 v = _mm256_loadu_ps(x + c);
        for (int r = 0; r < CHAINS; r++)
            sums[r] = _mm256_fmadd_ps(avx2_load8(type, at[r] + (size_t)c * element), v, sums[r]);
    }
    if (c < cols) {
        __m256 v = avx2_load_tail(DTYPE_F32, (const uint8_t *)(x + c), cols - c);
        for (int r = 0; r < CHAINS; r++) {
            __m256 w = avx2_load_tail(type, at[r] + (size_t)c * element, cols - c);
            sums[r] = _mm256_fmadd_ps(w, v, sums[r]);
        }
    }
    for (int r = 0; r < CHAINS; r++) out[r] = avx2_add_lanes(sums[r]);
}

void avx2_gemv_f32(const uint8_t *const *rows, int cols, size_t ahead, const float *x, float *out) {
    gemv(DTYPE_F32, rows, cols, ahead, x, out);
}

void avx2_gemv_f16(const uint8_t *const *rows, int cols, size_t ahead, const float *x, float *out) {
    gemv(DTYPE_F16, rows, cols, ahead, x, out);
}

void avx2_gemv_bf16(const uint8_t *const *rows, int cols, size_t ahead, const float *x,
                    float *out) {
    gemv(DTYPE_BF16, rows, cols, ahead, x, out);
}

AVX2_INLINE void widen(dtype type, const uint8_t *data, int count, float *out) {
    size_t element = type == DTYPE_F32 ? 4 : 2;
    int i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(out + i, avx2_load8(type, data + (size_t)i * element));
    if (i == count) return;
    float tail[8];
    _mm256_storeu_ps(tail, avx2_load_tail(type, data + (size_t)i * element, count - i));
    memcpy(out + i, tail, (size_t)(count - i) * sizeof *out);
}

void avx2_widen(dtype type, const void *data, int count, float *out) {
    if (type == DTYPE_F32)
        widen(DTYPE_F32, data, count, out);
    else if (type == DTYPE_F16)
        widen(DTYPE_F16, data, count, out);
    else if (type == DTYPE_BF16)
        widen(DTYPE_BF16, data, count, out);
    else
        dtype_to_f32(type, data, (size_t)count, out);
}

void avx2_narrow(dtype type, const float *x, int count, void *out, size_t stride) {
    uint8_t *at = out;
    for (int i = 0; i < count; i++, at += stride) {
        uint16_t half = type == DTYPE_F16 ? _cvtss_sh(x[i], _MM_FROUND_TO_NEAREST_INT)
                                          : dtype_f32_to_bf16(x[i]);
        if (type == DTYPE_F32)
            memcpy(at, &x[i], sizeof x[i]);
        else
            memcpy(at, &half, sizeof half);
    }
}

AVX2_INLINE void dots(const float *const *rows, int cols, const float *const *x, int tokens,
                      float (*out)[ISA_TILE_ROWS]) {
    __m256 sums[ISA_DOT_TOKENS][ISA_TILE_ROWS];
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < ISA_TILE_ROWS; r++) sums[t][r] = _mm256_setzero_ps();
    int c = 0;
    for (; c + 8 <= cols; c += 8) {
        __m256 v[ISA_DOT_TOKENS];
        for (int t = 0; t < tokens; t++) v[t] = _mm256_loadu_ps(x[t] + c);
        for (int r = 0; r < ISA_TILE_ROWS; r++) {
            __m256 w = _mm256_loadu_ps(rows[r] + c);
            for (int t = 0; t < tokens; t++) sums[t][r] = _mm256_fmadd_ps(w, v[t], sums[t][r]);
        }
    }
    if (c < cols) {
        for (int t = 0; t < tokens; t++) {
            __m256 v = avx2_load_tail(DTYPE_F32, (const uint8_t *)(x[t] + c), cols - c);
            for (int r = 0; r < ISA_TILE_ROWS; r++) {
                __m256 w = avx2_load_tail(DTYPE_F32, (const uint8_t *)(rows[r] + c), cols - c);
                sums[t][r] = _mm256_fmadd_ps(w, v, sums[t][r]);
            }
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < ISA_TILE_ROWS; r++) out[t][r] = avx2_add_lanes(sums[t][r]);
}

void avx2_dots(const float *const *rows, int cols, const float *const *x, int tokens,
               float (*out)[ISA_TILE_ROWS]) {
    if (tokens == 3)
        dots(rows, cols, x, 3, out);
    else if (tokens == 2)
        dots(rows, cols, x, 2, out);
    else
        dots(rows, cols, x, 1, out);
}
