// isa_avx2: the table for x86-64 with AVX2, FMA and F16C (Intel from Haswell, AMD from Zen), and
// its row operators.
#include <math.h>

#include "kernels/cpu/avx2.h"

void avx2_rmsnorm(float *x, const float *delta, const float *weight, float epsilon, int width,
                  float *out) {
    if (delta) avx2_add(x, delta, width);
    __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
    int i = 0;
    for (; i + 8 <= width; i += 8) {
        __m256d a = _mm256_cvtps_pd(_mm_loadu_ps(x + i)),
                b = _mm256_cvtps_pd(_mm_loadu_ps(x + i + 4));
        low = _mm256_fmadd_pd(a, a, low);
        high = _mm256_fmadd_pd(b, b, high);
    }
    double lanes[4], sum = 0;
    _mm256_storeu_pd(lanes, _mm256_add_pd(low, high));
    for (int l = 0; l < 4; l++) sum += lanes[l];
    for (; i < width; i++) sum += (double)x[i] * (double)x[i];
    float scale = 1.0f / sqrtf((float)(sum / width) + epsilon);
    for (i = 0; i + 8 <= width; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(v, _mm256_loadu_ps(weight + i)));
    }
    for (; i < width; i++) out[i] = x[i] * scale * weight[i];
}

void avx2_add(float *x, const float *delta, int width) {
    for (int i = 0; i < width; i++) x[i] += delta[i];
}

AVX2_INLINE __m256 gated(bool gelu, __m256 gate, __m256 up) {
    __m256 s = gate;
    if (gelu) {
        __m256 square = _mm256_mul_ps(gate, gate);
        s = _mm256_mul_ps(gate, _mm256_fmadd_ps(square, _mm256_set1_ps(KERNELS_GELU_CUBIC),
                                                _mm256_set1_ps(KERNELS_GELU_LINEAR)));
    }
    __m256 e = avx2_exp(_mm256_sub_ps(_mm256_setzero_ps(), s));
    return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(_mm256_set1_ps(1.0f), e)), up);
}

AVX2_INLINE void gate_row(bool gelu, float *gate, const float *up, int width) {
    int i = 0;
    for (; i + 8 <= width; i += 8)
        _mm256_storeu_ps(gate + i, gated(gelu, _mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    if (i == width) return;
    float tail[8];
    __m256 g = avx2_load_tail(DTYPE_F32, (const uint8_t *)(gate + i), width - i);
    __m256 u = avx2_load_tail(DTYPE_F32, (const uint8_t *)(up + i), width - i);
    _mm256_storeu_ps(tail, gated(gelu, g, u));
    memcpy(gate + i, tail, (size_t)(width - i) * sizeof *gate);
}

void avx2_swiglu(float *gate, const float *up, int width) {
    gate_row(false, gate, up, width);
}

void avx2_geglu(float *gate, const float *up, int width) {
    gate_row(true, gate, up, width);
}

// The largest value first, then the first place that has it.
AVX2_INLINE void add4_to_grid(__m128 products, double *sums) {
    _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_loadu_pd(sums), avx2_to_grid(products)));
}

void avx2_add_to_grid(const float *products, int count, double *sums) {
    for (int i = 0; i < count; i += 4) add4_to_grid(_mm_loadu_ps(products + i), sums + i);
}

int avx2_argmax(const float *x, int width, float *value) {
    __m256 top = _mm256_set1_ps(x[0]);
    int i = 0;
    for (; i + 8 <= width; i += 8) top = _mm256_max_ps(_mm256_loadu_ps(x + i), top);
    float lanes[8], best = x[0];
    _mm256_storeu_ps(lanes, top);
    for (int l = 0; l < 8; l++) best = lanes[l] > best ? lanes[l] : best;
    for (; i < width; i++) best = x[i] > best ? x[i] : best;
    *value = best;
    for (i = 0; i < width; i++)
        if (x[i] == best) return i;
    *value = x[0];
    return 0; // x[0] is NaN
}

static const isa table = {
    .name = "avx2",
    .lanes = 8,
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
    .gemm_q8 = {[DTYPE_Q8_0] = avx2_gemm_q8_0,
                [DTYPE_Q4_0] = avx2_gemm_q4_0,
                [DTYPE_Q4_1] = avx2_gemm_q4_1,
                [DTYPE_Q5_0] = avx2_gemm_q5_0,
                [DTYPE_Q4_K] = avx2_gemm_q4_1,
                [DTYPE_Q6_K] = avx2_gemm_q6_k,
                [DTYPE_I4] = avx2_gemm_i4,
                [DTYPE_I4_32] = avx2_gemm_i4},
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

const isa *isa_avx2(void) {
    return &table;
}
