// attention_avx2: scores with 8 positions per vector, weighted sums with 8 channels per vector.
// Each output is one chain of fma over channels (scores) or positions (sums); blocking rows and
// vectors only interleaves chains.
#include <math.h>

#include "kernels/cpu/avx2.h"

// R rows x V vectors of keys.
AVX2_INLINE void qk_block(dtype type, int R, int V, const uint8_t *const *keys, size_t key_stride,
                          int head_dim, const float *const *q, float scale, float *const *scores,
                          int at) {
    __m256 sums[ISA_QUERY_ROWS][ISA_KEYS_MAX];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sums[r][v] = _mm256_setzero_ps();
    for (int c = 0; c < head_dim; c++) {
        __m256 broadcast[ISA_QUERY_ROWS];
        for (int r = 0; r < R; r++) broadcast[r] = _mm256_set1_ps(q[r][c]);
        for (int v = 0; v < V; v++) {
            __m256 key = avx2_load8(type, keys[v] + (size_t)c * key_stride);
            for (int r = 0; r < R; r++) sums[r][v] = _mm256_fmadd_ps(broadcast[r], key, sums[r][v]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++)
            _mm256_storeu_ps(scores[r] + at + 8 * v,
                             _mm256_mul_ps(sums[r][v], _mm256_set1_ps(scale)));
}

// All vectors, as many at a time as registers allow (R * V <= 8 sums).
AVX2_INLINE void qk_rows(dtype type, int R, const uint8_t *const *keys, int vectors,
                         size_t key_stride, int head_dim, const float *const *q, float scale,
                         float *const *scores) {
    int v = 0;
    if (R == 1)
        for (; v + 8 <= vectors; v += 8)
            qk_block(type, R, 8, keys + v, key_stride, head_dim, q, scale, scores, 8 * v);
    if (R <= 2)
        for (; v + 4 <= vectors; v += 4)
            qk_block(type, R, 4, keys + v, key_stride, head_dim, q, scale, scores, 8 * v);
    for (; v + 2 <= vectors; v += 2)
        qk_block(type, R, 2, keys + v, key_stride, head_dim, q, scale, scores, 8 * v);
    for (; v < vectors; v++)
        qk_block(type, R, 1, keys + v, key_stride, head_dim, q, scale, scores, 8 * v);
}

AVX2_INLINE void qk(dtype type, const uint8_t *const *keys, int vectors, size_t key_stride,
                    int head_dim, const float *const *q, int rows, float scale,
                    float *const *scores) {
    switch (rows) {
    case 1:
        qk_rows(type, 1, keys, vectors, key_stride, head_dim, q, scale, scores);
        return;
    case 2:
        qk_rows(type, 2, keys, vectors, key_stride, head_dim, q, scale, scores);
        return;
    case 3:
        qk_rows(type, 3, keys, vectors, key_stride, head_dim, q, scale, scores);
        return;
    default:
        qk_rows(type, 4, keys, vectors, key_stride, head_dim, q, scale, scores);
        return;
    }
}

void avx2_qk(dtype type, const uint8_t *const *keys, int vectors, size_t key_stride, int head_dim,
             const float *const *q, int rows, float scale, float *const *scores) {
    if (type == DTYPE_F32)
        qk(DTYPE_F32, keys, vectors, key_stride, head_dim, q, rows, scale, scores);
    else if (type == DTYPE_F16)
        qk(DTYPE_F16, keys, vectors, key_stride, head_dim, q, rows, scale, scores);
    else
        qk(DTYPE_BF16, keys, vectors, key_stride, head_dim, q, rows, scale, scores);
}

// R rows x V vectors of channels.
AVX2_INLINE void pv_block(dtype type, int R, int V, const uint8_t *values, size_t value_stride,
                          int count, const float *const *p, float *const *out, int c) {
    __m256 sums[ISA_QUERY_ROWS][8];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sums[r][v] = _mm256_loadu_ps(out[r] + c + 8 * v);
    size_t element = type == DTYPE_F32 ? 4 : 2;
    values += (size_t)c * element;
    for (int i = 0; i < count; i++, values += value_stride) {
        __m256 weight[ISA_QUERY_ROWS];
        for (int r = 0; r < R; r++) weight[r] = _mm256_set1_ps(p[r][i]);
        for (int v = 0; v < V; v++) {
            __m256 value = avx2_load8(type, values + 8 * (size_t)v * element);
            for (int r = 0; r < R; r++) sums[r][v] = _mm256_fmadd_ps(weight[r], value, sums[r][v]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) _mm256_storeu_ps(out[r] + c + 8 * v, sums[r][v]);
}

AVX2_INLINE void pv_rows(dtype type, int R, const uint8_t *values, size_t value_stride, int count,
                         int width, const float *const *p, float *const *out) {
    int c = 0;
    if (R == 1)
        for (; c + 64 <= width; c += 64)
            pv_block(type, R, 8, values, value_stride, count, p, out, c);
    if (R <= 2)
        for (; c + 32 <= width; c += 32)
            pv_block(type, R, 4, values, value_stride, count, p, out, c);
    for (; c + 16 <= width; c += 16) pv_block(type, R, 2, values, value_stride, count, p, out, c);
    for (; c < width; c += 8) pv_block(type, R, 1, values, value_stride, count, p, out, c);
}

AVX2_INLINE void pv(dtype type, const uint8_t *values, size_t value_stride, int count, int width,
                    const float *const *p, int rows, float *const *out) {
    switch (rows) {
    case 1:
        pv_rows(type, 1, values, value_stride, count, width, p, out);
        return;
    case 2:
        pv_rows(type, 2, values, value_stride, count, width, p, out);
        return;
    case 3:
        pv_rows(type, 3, values, value_stride, count, width, p, out);
        return;
    default:
        pv_rows(type, 4, values, value_stride, count, width, p, out);
        return;
    }
}

void avx2_pv(dtype type, const uint8_t *values, size_t value_stride, int count, int width,
             const float *const *p, int rows, float *const *out) {
    if (type == DTYPE_F32)
        pv(DTYPE_F32, values, value_stride, count, width, p, rows, out);
    else if (type == DTYPE_F16)
        pv(DTYPE_F16, values, value_stride, count, width, p, rows, out);
    else
        pv(DTYPE_BF16, values, value_stride, count, width, p, rows, out);
}

void avx2_soft_cap(float *x, int count, float cap) {
    const __m256 by = _mm256_set1_ps(cap);
    int i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 ratio = _mm256_div_ps(_mm256_loadu_ps(x + i), by);
        _mm256_storeu_ps(x + i, _mm256_mul_ps(by, avx2_tanh(ratio)));
    }
    if (i == count) return;
    float tail[8];
    __m256 rest = avx2_load_tail(DTYPE_F32, (const uint8_t *)(x + i), count - i);
    _mm256_storeu_ps(tail, _mm256_mul_ps(by, avx2_tanh(_mm256_div_ps(rest, by))));
    memcpy(x + i, tail, (size_t)(count - i) * sizeof *x);
}

void avx2_softmax(float *scores, int count, float *maximum, float *sum, float *out, int width) {
    __m256 top = _mm256_set1_ps(*maximum), total = _mm256_setzero_ps();
    for (int i = 0; i < count; i += 8) top = _mm256_max_ps(top, _mm256_loadu_ps(scores + i));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    float highest = _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    for (int i = 0; i < count; i += 8) {
        __m256 above = _mm256_sub_ps(_mm256_loadu_ps(scores + i), _mm256_set1_ps(highest));
        __m256 weight = avx2_exp(above);
        _mm256_storeu_ps(scores + i, weight);
        total = _mm256_add_ps(total, weight);
    }
    __m256 shrink = avx2_exp(_mm256_set1_ps(*maximum - highest));
    for (int c = 0; c < width; c += 8)
        _mm256_storeu_ps(out + c, _mm256_mul_ps(_mm256_loadu_ps(out + c), shrink));
    *sum = fmaf(*sum, _mm256_cvtss_f32(shrink), avx2_add_lanes(total));
    *maximum = highest;
}
