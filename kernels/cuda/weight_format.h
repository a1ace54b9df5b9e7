// weight_format: how a lane takes packed weights (weight_pack.h) out of shared memory and makes
// tensor core operands of them. One struct for each packed type; the products are templates over
// it. For .cu files only.
//
// An mma's first operand is 16 rows x 16 columns, step k (0 to 3) of a tile. Values enter it as
// exact BF16 numbers: small integers by setting them into the mantissa of 128 and taking 128 away,
// FP8 by moving its bits into place and multiplying by a power of two. Scales are applied to sums:
// of FLUSH columns where they vary along the row, else of the whole row.
//
// What each struct has:
// - TILE, HIGH: bytes of a tile, and of its last part, with high bits (0: none)
// - RECORD, RECORD_TILES: bytes of a row's record (0: none), tiles that share one
// - FLUSH: columns that share a scale, at most 32; 0: no scale along the row
// - ROW_SCALE, MINIMUM: a float for each row; an offset for each FLUSH columns: x = scale * value +
//   minimum
// - regs, load(): what a lane keeps of a tile and of the records of its rows g and g + 8
// - fragment(k): the operand
// - scales(k), minimums(k): of rows g and g + 8, for the columns of step k
#ifndef OCTANT_KERNELS_CUDA_WEIGHT_FORMAT_H
#define OCTANT_KERNELS_CUDA_WEIGHT_FORMAT_H

#include "device.h"
#include "kernels/cuda/weight_pack.h"

namespace weight_format {

__device__ inline uint32_t bf16x2_sub(uint32_t a, uint32_t b) {
    __nv_bfloat162 r = __hsub2(*reinterpret_cast<const __nv_bfloat162 *>(&a),
                               *reinterpret_cast<const __nv_bfloat162 *>(&b));
    return *reinterpret_cast<const uint32_t *>(&r);
}

__device__ inline uint32_t bf16x2_mul(uint32_t a, uint32_t b) {
    __nv_bfloat162 r = __hmul2(*reinterpret_cast<const __nv_bfloat162 *>(&a),
                               *reinterpret_cast<const __nv_bfloat162 *>(&b));
    return *reinterpret_cast<const uint32_t *>(&r);
}

__device__ inline float f16_low(uint32_t bits) {
    return __half2float(__ushort_as_half((unsigned short)(bits & 0xffff)));
}

__device__ inline float f16_high(uint32_t bits) {
    return __half2float(__ushort_as_half((unsigned short)(bits >> 16)));
}

constexpr uint32_t BIAS_128 = 0x43004300; // 128 twice; the mantissa's last bit counts 1

// Two signed bytes, the lower of each half.
__device__ inline uint32_t i8_pair(uint32_t x) {
    return bf16x2_sub((x & 0x007f007f) | BIAS_128, (x & 0x00800080) | BIAS_128);
}

// Two E4M3 numbers, the upper byte of each half: sign in place, exponent and mantissa four bits
// lower make 2^-120 of the value, subnormals included. The two NaNs become 480.
__device__ inline uint32_t e4m3_pair(uint32_t x) {
    return bf16x2_mul((x & 0x80008000) | ((x >> 4) & 0x07f007f0), 0x7b807b80);
}

// Two nibbles, the lowest of each half, minus what `bias` has above 128.
__device__ inline uint32_t nibble_pair(uint32_t x, uint32_t bias) {
    return bf16x2_sub((x & 0x000f000f) | BIAS_128, bias);
}

__device__ inline uint32_t word_of(const uint4 &v, int i) { // i is known when compiled
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

struct plain_scales {
    static constexpr int HIGH = 0, RECORD = 0, RECORD_TILES = 1, FLUSH = 0;
    static constexpr bool ROW_SCALE = false, MINIMUM = false;
};

// Plain rows: in shared memory 128 bytes for each row, of which 16-byte piece i stands at i ^ (row
// % 8), so that eight rows' same piece lies in different banks.
struct bf16 : plain_scales {
    static constexpr int TILE = 2048;
    static constexpr bool PLAIN = true;
    struct regs {};
    __device__ static regs load(const uint8_t *, const uint8_t *, int) { return {}; }
    __device__ static void fragment(const regs &, const uint8_t *tile, int lane, int k,
                                    uint32_t (&a)[4]) {
        int row = lane % 16, piece = 2 * k + lane / 16;
        ldmatrix_x4(a, tile + row * 128 + ((piece ^ (row & 7)) * 16));
    }
    __device__ static void scales(const regs &, int, float (&)[2]) {}
    __device__ static void minimums(const regs &, int, float (&)[2]) {}
};

// 8-bit values: `pair` makes a pair of the bytes at 0 and 2 (second = 0) or at 1 and 3.
template <uint32_t (*pair)(uint32_t word, int second)> struct bytes {
    static constexpr int TILE = 1024, HIGH = 0;
    static constexpr bool PLAIN = false;
    struct values {
        uint4 half[2];
    };
    __device__ static values load_values(const uint8_t *tile, int lane) {
        const uint4 *at = reinterpret_cast<const uint4 *>(tile);
        return {{at[lane], at[32 + lane]}};
    }
    __device__ static void values_fragment(const values &v, int k, uint32_t (&a)[4]) {
        uint32_t low = word_of(v.half[k / 2], 2 * (k % 2)),
                 high = word_of(v.half[k / 2], 2 * (k % 2) + 1);
        a[0] = pair(low, 0), a[1] = pair(high, 0), a[2] = pair(low, 1), a[3] = pair(high, 1);
    }
};

__device__ inline uint32_t i8_pair_of(uint32_t word, int second) {
    return i8_pair(second ? word >> 8 : word);
}
__device__ inline uint32_t e4m3_pair_of(uint32_t word, int second) {
    return e4m3_pair(second ? word : word << 8);
}

// 8-bit values with one scale for each row.
template <uint32_t (*pair)(uint32_t, int)> struct row_bytes : bytes<pair> {
    static constexpr int RECORD = 0, RECORD_TILES = 1, FLUSH = 0;
    static constexpr bool ROW_SCALE = true, MINIMUM = false;
    typedef typename bytes<pair>::values regs;
    __device__ static regs load(const uint8_t *tile, const uint8_t *, int lane) {
        return bytes<pair>::load_values(tile, lane);
    }
    __device__ static void fragment(const regs &r, const uint8_t *, int, int k, uint32_t (&a)[4]) {
        bytes<pair>::values_fragment(r, k, a);
    }
    __device__ static void scales(const regs &, int, float (&)[2]) {}
    __device__ static void minimums(const regs &, int, float (&)[2]) {}
};
struct f8_e4m3 : row_bytes<e4m3_pair_of> {};
struct i8 : row_bytes<i8_pair_of> {};

// Values beside which stands a record for each row: 4 or 8 bytes, by the type of their word. VALUES
// is bytes or nibbles. What a type has otherwise, it says itself.
template <class VALUES, class RECORD_WORD> struct recorded : VALUES {
    static constexpr int RECORD = sizeof(RECORD_WORD), RECORD_TILES = 1, FLUSH = 32;
    static constexpr bool ROW_SCALE = false, MINIMUM = false;
    struct regs {
        typename VALUES::values v;
        RECORD_WORD record[2]; // of rows g and g + 8
    };
    __device__ static regs load(const uint8_t *tile, const uint8_t *records, int lane) {
        const RECORD_WORD *at = reinterpret_cast<const RECORD_WORD *>(records);
        regs r;
        r.v = VALUES::load_values(tile, lane);
        r.record[0] = at[lane / 4], r.record[1] = at[lane / 4 + 8];
        return r;
    }
    __device__ static void minimums(const regs &, int, float (&)[2]) {}
};

template <uint32_t (*pair)(uint32_t, int), class RECORD_WORD>
struct recorded_bytes : recorded<bytes<pair>, RECORD_WORD> {
    typedef typename recorded<bytes<pair>, RECORD_WORD>::regs regs;
    __device__ static void fragment(const regs &r, const uint8_t *, int, int k, uint32_t (&a)[4]) {
        bytes<pair>::values_fragment(r.v, k, a);
    }
};

// FP8 with a scale for each 128 columns of a row.
struct f8_block : recorded_bytes<e4m3_pair_of, uint32_t> {
    static constexpr int RECORD_TILES = 2;
    __device__ static void scales(const regs &r, int, float (&s)[2]) {
        for (int i = 0; i < 2; i++) s[i] = __uint_as_float(r.record[i]);
    }
};

struct q8_0 : recorded_bytes<i8_pair_of, uint32_t> {
    __device__ static void scales(const regs &r, int k, float (&s)[2]) {
        for (int i = 0; i < 2; i++) s[i] = k < 2 ? f16_low(r.record[i]) : f16_high(r.record[i]);
    }
};

// 4-bit values.
struct nibbles {
    static constexpr int TILE = 512, HIGH = 0;
    static constexpr bool PLAIN = false;
    typedef uint4 values;
    __device__ static values load_values(const uint8_t *tile, int lane) {
        return reinterpret_cast<const uint4 *>(tile)[lane];
    }
    // bias: of rows g and g + 8.
    __device__ static void values_fragment(const values &v, int k, uint32_t bias, uint32_t bias8,
                                           uint32_t (&a)[4]) {
        uint32_t low = word_of(v, k / 2 * 2) >> (8 * (k % 2)),
                 high = word_of(v, k / 2 * 2 + 1) >> (8 * (k % 2));
        a[0] = nibble_pair(low, bias), a[1] = nibble_pair(high, bias8);
        a[2] = nibble_pair(low >> 4, bias), a[3] = nibble_pair(high >> 4, bias8);
    }
};

struct q4_0 : recorded<nibbles, uint32_t> {
    __device__ static void fragment(const regs &r, const uint8_t *, int, int k, uint32_t (&a)[4]) {
        values_fragment(r.v, k, BIAS_128 + 0x00080008, BIAS_128 + 0x00080008, a);
    }
    __device__ static void scales(const regs &r, int k, float (&s)[2]) {
        for (int i = 0; i < 2; i++) s[i] = k < 2 ? f16_low(r.record[i]) : f16_high(r.record[i]);
    }
};

// Four bits and, in HIGH_WORDS words of a lane, those above: BITS of each, less the middle.
template <int BITS> struct high_nibbles {
    static constexpr int HIGH_WORDS = BITS - 4, HIGH = 32 * 4 * HIGH_WORDS, TILE = 512 + HIGH;
    static constexpr bool PLAIN = false;
    struct values {
        uint4 low;
        uint32_t high[HIGH_WORDS];
    };
    __device__ static values load_values(const uint8_t *tile, int lane) {
        values v;
        v.low = reinterpret_cast<const uint4 *>(tile)[lane];
        const uint32_t *high = reinterpret_cast<const uint32_t *>(tile + 512) + lane * HIGH_WORDS;
        for (int i = 0; i < HIGH_WORDS; i++) v.high[i] = high[i];
        return v;
    }
    // Pair `pair` of a lane; low: its nibbles, in the lowest bits of each half.
    __device__ static uint32_t value_pair(const values &v, int pair, uint32_t low) {
        constexpr uint32_t MASK = HIGH_WORDS == 1 ? 0x00100010 : 0x00300030;
        constexpr uint32_t MIDDLE = BIAS_128 + (1u << (BITS - 1)) * 0x00010001;
        uint32_t word = v.high[HIGH_WORDS == 1 ? 0 : pair / 8];
        int at = HIGH_WORDS == 1 ? pair : 2 * (pair % 8); // comes to bit 4
        uint32_t high = (at < 4 ? word << (4 - at) : word >> (at - 4)) & MASK;
        return bf16x2_sub((low & 0x000f000f) | high | BIAS_128, MIDDLE);
    }
    __device__ static void values_fragment(const values &v, int k, uint32_t (&a)[4]) {
        uint32_t low = word_of(v.low, k / 2 * 2) >> (8 * (k % 2)),
                 high = word_of(v.low, k / 2 * 2 + 1) >> (8 * (k % 2));
        a[0] = value_pair(v, 4 * k, low), a[1] = value_pair(v, 4 * k + 1, high);
        a[2] = value_pair(v, 4 * k + 2, low >> 4), a[3] = value_pair(v, 4 * k + 3, high >> 4);
    }
};

struct q5_0 : recorded<high_nibbles<5>, uint32_t> {
    __device__ static void fragment(const regs &r, const uint8_t *, int, int k, uint32_t (&a)[4]) {
        values_fragment(r.v, k, a);
    }
    __device__ static void scales(const regs &r, int k, float (&s)[2]) {
        for (int i = 0; i < 2; i++) s[i] = k < 2 ? f16_low(r.record[i]) : f16_high(r.record[i]);
    }
};

struct q6_k : recorded<high_nibbles<6>, uint2> {
    static constexpr int FLUSH = 16;
    __device__ static void fragment(const regs &r, const uint8_t *, int, int k, uint32_t (&a)[4]) {
        values_fragment(r.v, k, a);
    }
    __device__ static void scales(const regs &r, int k, float (&s)[2]) {
        for (int i = 0; i < 2; i++)
            s[i] = f16_low(r.record[i].x) * (float)(int8_t)(r.record[i].y >> (8 * k));
    }
};

struct i4 : recorded<nibbles, uint32_t> {
    static constexpr int RECORD_TILES = 2;
    __device__ static uint32_t bias(uint32_t record) {
        return BIAS_128 + (record >> 16) * 0x00010001;
    }
    __device__ static void fragment(const regs &r, const uint8_t *, int, int k, uint32_t (&a)[4]) {
        values_fragment(r.v, k, bias(r.record[0]), bias(r.record[1]), a);
    }
    __device__ static void scales(const regs &r, int, float (&s)[2]) {
        for (int i = 0; i < 2; i++) s[i] = f16_low(r.record[i]);
    }
};

// A scale and a zero point for each 32 columns.
struct i4_32 : recorded<nibbles, uint2> {
    __device__ static uint32_t of_step(const uint2 &record, int k) {
        return k < 2 ? record.x : record.y;
    }
    __device__ static void fragment(const regs &r, const uint8_t *, int, int k, uint32_t (&a)[4]) {
        values_fragment(r.v, k, i4::bias(of_step(r.record[0], k)),
                        i4::bias(of_step(r.record[1], k)), a);
    }
    __device__ static void scales(const regs &r, int k, float (&s)[2]) {
        for (int i = 0; i < 2; i++) s[i] = f16_low(of_step(r.record[i], k));
    }
};

// With an offset: Q4_1 and Q4_K.
struct offset_nibbles : recorded<nibbles, uint2> {
    static constexpr bool MINIMUM = true;
    __device__ static void fragment(const regs &r, const uint8_t *, int, int k, uint32_t (&a)[4]) {
        values_fragment(r.v, k, BIAS_128, BIAS_128, a);
    }
};

struct q4_1 : offset_nibbles {
    __device__ static void scales(const regs &r, int k, float (&s)[2]) {
        for (int i = 0; i < 2; i++) s[i] = f16_low(k < 2 ? r.record[i].x : r.record[i].y);
    }
    __device__ static void minimums(const regs &r, int k, float (&m)[2]) {
        for (int i = 0; i < 2; i++) m[i] = f16_high(k < 2 ? r.record[i].x : r.record[i].y);
    }
};

struct q4_k : offset_nibbles {
    __device__ static float six_bits(uint32_t word, int byte) {
        return (float)(word >> (8 * byte) & 63);
    }
    __device__ static void scales(const regs &r, int k, float (&s)[2]) {
        for (int i = 0; i < 2; i++)
            s[i] = f16_low(r.record[i].x) * six_bits(r.record[i].y, k < 2 ? 0 : 2);
    }
    __device__ static void minimums(const regs &r, int k, float (&m)[2]) {
        for (int i = 0; i < 2; i++)
            m[i] = -f16_high(r.record[i].x) * six_bits(r.record[i].y, k < 2 ? 1 : 3);
    }
};

} // namespace weight_format

#endif
