// dtype: conversions checked over all 16-bit patterns, and rounding against its definition.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/dtype.h"
#include "common/base/rng.h"

static float f16_by_definition(unsigned h) {
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double magnitude = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) magnitude = mantissa ? NAN : INFINITY;
    return (float)(h >> 15 ? -magnitude : magnitude);
}

static void f16_patterns(void **state) {
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = dtype_f16_to_f32((uint16_t)h), want = f16_by_definition(h);
        if (isnan(want)) {
            assert_true(isnan(f) && isnan(dtype_f16_to_f32(dtype_f32_to_f16(f))));
            continue;
        }
        if (memcmp(&f, &want, sizeof f) != 0) fail_msg("%04x is %g, not %g", h, f, want);
        if (dtype_f32_to_f16(f) != h) fail_msg("%04x comes back as %04x", h, dtype_f32_to_f16(f));
    }
}

// The nearest pattern, ties to the even one, found by comparing both neighbours in double.
static void f16_rounds_to_nearest_even(void **state) {
    (void)state;
    rng r = rng_make(4);
    for (int round = 0; round < 300000; round++) {
        uint16_t low = (uint16_t)rng_below(&r, 0x7c00);
        double a = f16_by_definition(low), b = low == 0x7bff ? 65536 : f16_by_definition(low + 1u);
        double parts[] = {0.5, 0.25, 0.75, 0.5 + 1e-3, 0.5 - 1e-3, rng_uniform(&r)};
        float f = (float)(a + (b - a) * parts[rng_below(&r, 6)]);
        double da = f - a, db = b - f;
        uint16_t want = da < db || (da == db && low % 2 == 0) ? low : (uint16_t)(low + 1);
        if (dtype_f32_to_f16(f) != want)
            fail_msg("%.9g becomes %04x, not %04x", f, dtype_f32_to_f16(f), want);
        if (dtype_f32_to_f16(-f) != (want | 0x8000)) fail_msg("-%.9g", f);
    }
    assert_int_equal(dtype_f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(dtype_f32_to_f16(-INFINITY), 0xfc00);
}

static void bf16_patterns_and_rounding(void **state) {
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = dtype_bf16_to_f32((uint16_t)h);
        if (isnan(f))
            assert_true(isnan(dtype_bf16_to_f32(dtype_f32_to_bf16(f))));
        else
            assert_int_equal(dtype_f32_to_bf16(f), h);
    }
    assert_int_equal(dtype_f32_to_bf16(1.0f + 0x1p-8f), 0x3f80); // a tie goes to even
    assert_int_equal(dtype_f32_to_bf16(1.0f + 3 * 0x1p-8f), 0x3f82);
    assert_int_equal(dtype_f32_to_bf16(1.0f + 0x1p-8f + 0x1p-20f), 0x3f81);
    assert_int_equal(dtype_f32_to_bf16(0x1.fffffep127f), 0x7f80); // rounds to infinity
}

static void blocks_by_hand(void **state) {
    (void)state;
    uint8_t q8[34] = {0x00, 0x38, 0xff, 127}; // d = 0.5; q = -1, 127, 0 ...
    float out[32];
    dtype_to_f32(DTYPE_Q8_0, q8, 32, out);
    assert_true(out[0] == -0.5f && out[1] == 63.5f && out[31] == 0);
    uint8_t q4[18] = {0x00, 0x40, 0x9f}; // d = 2; low nibble 15, high nibble 9
    dtype_to_f32(DTYPE_Q4_0, q4, 32, out);
    assert_true(out[0] == 14 && out[16] == 2 && out[1] == -16);
    uint8_t q41[20] = {0x00, 0x40, 0x00, 0x3c, 0x9f}; // d = 2, m = 1
    dtype_to_f32(DTYPE_Q4_1, q41, 32, out);
    assert_true(out[0] == 31 && out[16] == 19 && out[1] == 1);
}

static void f8_patterns_and_rounding(void **state) {
    (void)state;
    assert_true(dtype_f8_to_f32(0x38) == 1 && dtype_f8_to_f32(0xb8) == -1);
    assert_true(dtype_f8_to_f32(0x7e) == 448 && dtype_f8_to_f32(0x01) == 0x1p-9f);
    assert_true(dtype_f8_to_f32(0x08) == 0x1p-6f && dtype_f8_to_f32(0x00) == 0);
    assert_true(isnan(dtype_f8_to_f32(0x7f)) && isnan(dtype_f8_to_f32(0xff)));
    for (int i = 0; i < 256; i++)
        if ((i & 0x7f) != 0x7f) assert_int_equal(dtype_f32_to_f8(dtype_f8_to_f32((uint8_t)i)), i);
    for (int i = 0; i < 0x7e; i++) { // halfway goes to the even neighbour
        float low = dtype_f8_to_f32((uint8_t)i), high = dtype_f8_to_f32((uint8_t)(i + 1));
        float middle = low + (high - low) / 2;
        assert_int_equal(dtype_f32_to_f8(middle), i + i % 2);
        assert_int_equal(dtype_f32_to_f8(nextafterf(middle, 0)), i);
        assert_int_equal(dtype_f32_to_f8(-nextafterf(middle, 1e9f)), 0x80 | (i + 1));
    }
    assert_int_equal(dtype_f32_to_f8(1e9f), 0x7e);
    assert_int_equal(dtype_f32_to_f8(-INFINITY), 0xfe);
    assert_int_equal(dtype_f32_to_f8(NAN) & 0x7f, 0x7f);
}

static void i4_by_hand(void **state) {
    (void)state;
    uint8_t block[68] = {0x00, 0x40, 3, 0, 0x9f}; // d = 2, z = 3
    block[4 + 16 + 5] = 0x42;                     // values 37 and 53
    float out[128];
    dtype_to_f32(DTYPE_I4, block, 128, out);
    assert_true(out[0] == 24 && out[16] == 12 && out[1] == -6 && out[127] == -6);
    assert_true(out[37] == -2 && out[53] == 2 && out[38] == -6);
    dtype_to_f32(DTYPE_I4_32, block, 32, out);
    assert_true(out[0] == 24 && out[16] == 12 && out[1] == -6);
}

static void sizes(void **state) {
    (void)state;
    assert_int_equal(dtype_row_bytes(DTYPE_BF16, 7), 14);
    assert_int_equal(dtype_row_bytes(DTYPE_Q8_0, 64), 68);
    assert_int_equal(dtype_row_bytes(DTYPE_Q4_0, 64), 36);
    assert_int_equal(dtype_row_bytes(DTYPE_Q4_1, 64), 40);
    assert_int_equal(dtype_row_bytes(DTYPE_I4, 256), 136);
    assert_int_equal(dtype_row_scales(DTYPE_F8_BLOCK, 256), 2);
    assert_int_equal(dtype_row_scales(DTYPE_F8_BLOCK, 257), 3);
    assert_int_equal(dtype_row_scales(DTYPE_F8_E4M3, 257), 1);
    assert_int_equal(dtype_row_scales(DTYPE_Q8_0, 256), 0);
    for (int i = 0; i < DTYPE_ALL; i++) {
        assert_true(dtype_block_values((dtype)i) >= 1 &&
                    dtype_block_values((dtype)i) <= DTYPE_BLOCK_MAX);
        assert_non_null(dtype_name((dtype)i));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_patterns),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(bf16_patterns_and_rounding),
        cmocka_unit_test(blocks_by_hand),
        cmocka_unit_test(f8_patterns_and_rounding),
        cmocka_unit_test(i4_by_hand),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
