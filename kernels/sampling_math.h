// sampling_math: the arithmetic of sampling, one text for the CPU and for a device, so that both
// choose the same token. Private to kernels/.
//
// Two rules make it the same. First, float operations are single IEEE roundings in a written order:
// exp is written out, and on a device the intrinsics below keep its compiler from fusing a
// multiplication with an addition. Second, whatever is summed over the vocabulary is an integer: a
// weight in (0, 1] counts as its nearest multiple of 2^-40 (its mass), so a sum over up to 2^20
// tokens fits 61 bits and is the same in any order, on any number of threads. What rounding to
// 2^-40 loses is less than what a float weight has lost already.
#ifndef OCTANT_KERNELS_SAMPLING_MATH_H
#define OCTANT_KERNELS_SAMPLING_MATH_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SAMPLING_BOTH static __device__ inline
#define SAMPLING_ADD(a, b) __fadd_rn(a, b)
#define SAMPLING_MULTIPLY(a, b) __fmul_rn(a, b)
#define SAMPLING_DIVIDE(a, b) __fdiv_rn(a, b)
#else // compiled with -ffp-contract=off
#define SAMPLING_BOTH static inline
#define SAMPLING_ADD(a, b) ((a) + (b))
#define SAMPLING_MULTIPLY(a, b) ((a) * (b))
#define SAMPLING_DIVIDE(a, b) ((a) / (b))
#endif

enum {
    SAMPLING_MASS_BITS = 40, // a weight of 1 has mass 2^40
    SAMPLING_WEIGHT_ONE = 0x3F800000,
};

SAMPLING_BOTH uint32_t sampling_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

SAMPLING_BOTH float sampling_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

SAMPLING_BOTH bool sampling_finite(float x) {
    return (sampling_bits(x) & 0x7F800000u) != 0x7F800000u;
}

// exp(x) for x <= 0, within 2e-7 relative; 0 below -87. Range reduction to |r| <= ln(2)/2, then the
// Taylor terms (Cody and Waite 1980).
SAMPLING_BOTH float sampling_exp(float x) {
    const float to_integer = 12582912.0f; // 1.5 * 2^23: adding it rounds to the nearest integer
    const bool tiny = x < -87.0f;
    x = tiny ? -87.0f : x; // keeps the arithmetic below in range
    const float shifted = SAMPLING_ADD(SAMPLING_MULTIPLY(x, 1.44269504f), to_integer);
    const float n = SAMPLING_ADD(shifted, -to_integer);
    const float r = SAMPLING_ADD(SAMPLING_ADD(x, -SAMPLING_MULTIPLY(n, 0.693359375f)),
                                 SAMPLING_MULTIPLY(n, 2.12194440e-4f));
    float p = 1.0f / 720;
    p = SAMPLING_ADD(SAMPLING_MULTIPLY(p, r), 1.0f / 120);
    p = SAMPLING_ADD(SAMPLING_MULTIPLY(p, r), 1.0f / 24);
    p = SAMPLING_ADD(SAMPLING_MULTIPLY(p, r), 1.0f / 6);
    p = SAMPLING_ADD(SAMPLING_MULTIPLY(p, r), 0.5f);
    p = SAMPLING_ADD(SAMPLING_MULTIPLY(p, r), 1.0f);
    p = SAMPLING_ADD(SAMPLING_MULTIPLY(p, r), 1.0f);
    const uint32_t exponent = (uint32_t)(int32_t)n << 23;
    const float scaled = sampling_float(sampling_bits(p) + exponent);
    return tiny ? 0.0f : scaled;
}

// The weight of a logit: exp((x - max) / temperature). x <= max; -infinity has weight 0.
SAMPLING_BOTH float sampling_weight(float x, float max, float inverse_temperature) {
    return sampling_exp(SAMPLING_MULTIPLY(SAMPLING_ADD(x, -max), inverse_temperature));
}

// The mass of a weight in [0, 1]: adding 2^12 leaves no bits below 2^-40, and the double's own bits
// then count them.
SAMPLING_BOTH uint64_t sampling_mass_bits(float weight) {
    const double shifted = (double)weight + 4096.0;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return bits;
}
#define SAMPLING_MASS_ZERO UINT64_C(0x40B0000000000000) // sampling_mass_bits(0)
SAMPLING_BOTH uint64_t sampling_mass(float weight) {
    return sampling_mass_bits(weight) - SAMPLING_MASS_ZERO;
}

// The mass at which top-p ends: the least integer >= top_p * total. At least 1, at most total,
// since total < 2^61, top_p < 1 has 24 bits, and 1 - 2^-24 of it is far enough from all.
SAMPLING_BOTH uint64_t sampling_top_p_mass(float top_p, uint64_t total) {
    const double part = (double)top_p * (double)(int64_t)total;
    const uint64_t whole = (uint64_t)(int64_t)part;
    return whole + ((double)(int64_t)whole < part);
}

// random / 2^64 of `bound`, rounded down: less than bound.
SAMPLING_BOTH uint64_t sampling_scale(uint64_t random, uint64_t bound) {
#ifdef __CUDACC__
    return __umul64hi(random, bound);
#else
    return (uint64_t)((unsigned __int128)random * bound >> 64);
#endif
}

// A temperature so small that its inverse overflows is greedy too.
SAMPLING_BOTH bool sampling_is_greedy(float temperature) {
    return temperature == 0 || !sampling_finite(1.0f / temperature);
}

// The logit of a token that a penalty looks at: in the history, `in_answer` times in its answer.
SAMPLING_BOTH float sampling_penalised(float logit, float repetition, float frequency,
                                       float presence, uint32_t in_answer) {
    logit = logit > 0 ? SAMPLING_DIVIDE(logit, repetition) : SAMPLING_MULTIPLY(logit, repetition);
    if (in_answer == 0) return logit;
    logit = SAMPLING_ADD(logit, -SAMPLING_MULTIPLY(frequency, (float)in_answer));
    return SAMPLING_ADD(logit, -presence);
}

// Keys whose order as unsigned integers is that of the floats; -0 and 0 have the same key.
SAMPLING_BOTH uint32_t sampling_key(float x) {
    const uint32_t bits = sampling_bits(SAMPLING_ADD(x, 0.0f)); // -0 + 0 is 0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

#endif
