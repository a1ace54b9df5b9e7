#include "common/base/dtype.h"

#include <assert.h>
#include <string.h>

static const struct {
    const char *name;
    size_t block_values, block_bytes;
} types[DTYPE_ALL] = {
    [DTYPE_F32] = {"F32", 1, 4},           [DTYPE_F16] = {"F16", 1, 2},
    [DTYPE_BF16] = {"BF16", 1, 2},         [DTYPE_Q8_0] = {"Q8_0", 32, 34},
    [DTYPE_Q4_0] = {"Q4_0", 32, 18},       [DTYPE_Q4_1] = {"Q4_1", 32, 20},
    [DTYPE_Q5_0] = {"Q5_0", 32, 22},       [DTYPE_Q4_K] = {"Q4_K", 256, 144},
    [DTYPE_Q6_K] = {"Q6_K", 256, 210},     [DTYPE_I4] = {"I4", 128, 68},
    [DTYPE_I4_32] = {"I4_32", 32, 20},     [DTYPE_F8_E4M3] = {"F8_E4M3", 1, 1},
    [DTYPE_F8_BLOCK] = {"F8_BLOCK", 1, 1}, [DTYPE_I8] = {"I8", 1, 1},
    [DTYPE_I32] = {"I32", 1, 4},           [DTYPE_I64] = {"I64", 1, 8},
};

const char *dtype_name(dtype type) {
    assert(type < DTYPE_ALL);
    return types[type].name;
}

size_t dtype_block_values(dtype type) {
    assert(type < DTYPE_ALL);
    return types[type].block_values;
}

size_t dtype_block_bytes(dtype type) {
    assert(type < DTYPE_ALL);
    return types[type].block_bytes;
}

size_t dtype_row_bytes(dtype type, size_t values) {
    assert(values % dtype_block_values(type) == 0);
    return values / types[type].block_values * types[type].block_bytes;
}

size_t dtype_row_scales(dtype type, size_t cols) {
    if (type == DTYPE_F8_BLOCK) return (cols + DTYPE_SCALE_COLS - 1) / DTYPE_SCALE_COLS;
    return type == DTYPE_F8_E4M3 || type == DTYPE_I8;
}

static float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

float dtype_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 0x1f, mantissa = h & 0x3ff;
    if (exponent == 0x1f) return from_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) { // subnormal: mantissa * 2^-24, exact in a float
        float magnitude = (float)mantissa * 0x1.0p-24f;
        return sign ? -magnitude : magnitude;
    }
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t dtype_f32_to_f16(float value) {
    uint32_t bits = to_bits(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00); // rounds to 65536 or above
    if (rest < 0x38800000) { // below 2^-14: let the addition round at the subnormal's last place
        float shifted = from_bits(rest) + 0.5f;
        return (uint16_t)(sign | (to_bits(shifted) - to_bits(0.5f)));
    }
    uint32_t rounded = rest + 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | (rounded - (112u << 23)) >> 13);
}

float dtype_bf16_to_f32(uint16_t bits) {
    return from_bits((uint32_t)bits << 16);
}

uint16_t dtype_f32_to_bf16(float value) {
    uint32_t bits = to_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float dtype_f8_to_f32(uint8_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x80) << 24, rest = bits & 0x7f;
    if (rest == 0x7f) return from_bits(sign | 0x7fc00000);
    float magnitude = rest < 8 ? (float)rest * 0x1p-9f // subnormal
                               : from_bits((rest << 20) + (120u << 23));
    return sign ? -magnitude : magnitude;
}

uint8_t dtype_f32_to_f8(float value) {
    uint32_t bits = to_bits(value), rest = bits & 0x7fffffff;
    uint8_t sign = (uint8_t)(bits >> 24 & 0x80);
    if (rest > 0x7f800000) return sign | 0x7f;
    if (rest >= to_bits(448)) return sign | 0x7e;
    if (rest < to_bits(0x1p-6f)) { // let the addition round at the subnormal's last place, 2^-9
        float shifted = from_bits(rest) + 0x1p14f;
        return sign | (uint8_t)(to_bits(shifted) - to_bits(0x1p14f));
    }
    uint32_t rounded = rest + 0x7ffff + (rest >> 20 & 1);
    return sign | (uint8_t)((rounded - (120u << 23)) >> 20);
}

static uint16_t load_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static void q8_0_block(const uint8_t *block, float *out) {
    float d = dtype_f16_to_f32(load_u16(block));
    for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)block[2 + i];
}

static void q4_0_block(const uint8_t *block, float *out) {
    float d = dtype_f16_to_f32(load_u16(block));
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((block[2 + i] & 15) - 8);
        out[i + 16] = d * (float)((block[2 + i] >> 4) - 8);
    }
}

static void q4_1_block(const uint8_t *block, float *out) {
    float d = dtype_f16_to_f32(load_u16(block)), m = dtype_f16_to_f32(load_u16(block + 2));
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(block[4 + i] & 15) + m;
        out[i + 16] = d * (float)(block[4 + i] >> 4) + m;
    }
}

static void q5_0_block(const uint8_t *block, float *out) {
    float d = dtype_f16_to_f32(load_u16(block));
    uint32_t high = (uint32_t)load_u16(block + 2) | (uint32_t)load_u16(block + 4) << 16;
    const uint8_t *q = block + 6;
    for (int i = 0; i < 32; i++) {
        int nibble = i < 16 ? q[i] & 15 : q[i - 16] >> 4;
        out[i] = d * (float)((nibble | (int)(high >> i & 1) << 4) - 16);
    }
}

static void q4_k_block(const uint8_t *block, float *out) {
    float d = dtype_f16_to_f32(load_u16(block)), m = dtype_f16_to_f32(load_u16(block + 2));
    const uint8_t *s = block + 4, *q = block + 16;
    for (int j = 0; j < 8; j++) {
        int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
        for (int i = 0; i < 32; i++) {
            uint8_t byte = q[32 * (j / 2) + i];
            int nibble = j % 2 ? byte >> 4 : byte & 15;
            out[32 * j + i] = d * (float)scale * (float)nibble - m * (float)min;
        }
    }
}

static void q6_k_block(const uint8_t *block, float *out) {
    const uint8_t *low = block, *high = block + 128;
    const int8_t *s = (const int8_t *)(block + 192);
    float d = dtype_f16_to_f32(load_u16(block + 208));
    for (int i = 0; i < 256; i++) {
        int n = i / 128, r = i % 128;
        uint8_t byte = low[64 * n + r % 64];
        int nibble = r < 64 ? byte & 15 : byte >> 4;
        int bits = high[32 * n + r % 32] >> (2 * (r / 32)) & 3;
        out[i] = d * (float)s[i / 16] * (float)((nibble | bits << 4) - 32);
    }
}

// I4 and I4_32: one head, then runs of 32 values.
static void i4_block(const uint8_t *block, int runs, float *out) {
    float d = dtype_f16_to_f32(load_u16(block));
    int zero = block[2];
    const uint8_t *q = block + 4;
    for (int run = 0; run < runs; run++, q += 16, out += 32)
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)((q[i] & 15) - zero);
            out[i + 16] = d * (float)((q[i] >> 4) - zero);
        }
}

static int64_t load_i64(const uint8_t *p) {
    int64_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static int32_t load_i32(const uint8_t *p) {
    int32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

void dtype_to_f32(dtype type, const void *data, size_t values, float *out) {
    const uint8_t *bytes = data;
    assert(values % dtype_block_values(type) == 0);
    switch (type) {
    case DTYPE_F32:
        memcpy(out, data, values * sizeof(float));
        return;
    case DTYPE_F16:
        for (size_t i = 0; i < values; i++) out[i] = dtype_f16_to_f32(load_u16(bytes + 2 * i));
        return;
    case DTYPE_BF16:
        for (size_t i = 0; i < values; i++) out[i] = dtype_bf16_to_f32(load_u16(bytes + 2 * i));
        return;
    case DTYPE_Q8_0:
        for (size_t i = 0; i < values / 32; i++) q8_0_block(bytes + 34 * i, out + 32 * i);
        return;
    case DTYPE_Q4_0:
        for (size_t i = 0; i < values / 32; i++) q4_0_block(bytes + 18 * i, out + 32 * i);
        return;
    case DTYPE_Q4_1:
        for (size_t i = 0; i < values / 32; i++) q4_1_block(bytes + 20 * i, out + 32 * i);
        return;
    case DTYPE_Q5_0:
        for (size_t i = 0; i < values / 32; i++) q5_0_block(bytes + 22 * i, out + 32 * i);
        return;
    case DTYPE_Q4_K:
        for (size_t i = 0; i < values / 256; i++) q4_k_block(bytes + 144 * i, out + 256 * i);
        return;
    case DTYPE_Q6_K:
        for (size_t i = 0; i < values / 256; i++) q6_k_block(bytes + 210 * i, out + 256 * i);
        return;
    case DTYPE_F8_E4M3:
    case DTYPE_F8_BLOCK:
        for (size_t i = 0; i < values; i++) out[i] = dtype_f8_to_f32(bytes[i]);
        return;
    case DTYPE_I8:
        for (size_t i = 0; i < values; i++) out[i] = (float)(int8_t)bytes[i];
        return;
    case DTYPE_I4:
        for (size_t i = 0; i < values / 128; i++) i4_block(bytes + 68 * i, 4, out + 128 * i);
        return;
    case DTYPE_I4_32:
        for (size_t i = 0; i < values / 32; i++) i4_block(bytes + 20 * i, 1, out + 32 * i);
        return;
    case DTYPE_I32:
        for (size_t i = 0; i < values; i++) out[i] = (float)load_i32(bytes + 4 * i);
        return;
    case DTYPE_I64:
        for (size_t i = 0; i < values; i++) out[i] = (float)load_i64(bytes + 8 * i);
        return;
    case DTYPE_ALL:
        break;
    }
    assert(!"unknown dtype");
}
