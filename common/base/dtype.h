// dtype: how numbers are stored in weight files and in the KV cache, with the sizes that follow
// from it.
//
// Quantised types come in blocks along a row. The layouts are those of GGUF (ggml-common.h; the
// format's description is docs/gguf.md of the ggml project), little-endian, no padding:
//   Q8_0  34 bytes for 32 values: f16 d;         int8 q[32]     x = d * q
//   Q4_0  18 bytes for 32 values: f16 d;         uint8 q[16]    x = d * (nibble - 8)
//   Q4_1  20 bytes for 32 values: f16 d, f16 m;  uint8 q[16]    x = d * nibble + m
//   Q5_0  22 bytes for 32 values: f16 d; uint32 h; uint8 q[16]  x = d * ((nibble | bit i of h << 4)
//   - 16)
// Value i of a 4- or 5-bit block has the low nibble of q[i] for i < 16, else the high nibble of q[i
// - 16].
//   Q4_K 144 bytes for 256 values: f16 d, f16 m; uint8 s[12]; uint8 q[128]
//     eight sub-blocks j of 32 with 6-bit scale and minimum packed in s: x = d * scale_j * nibble -
//     m * min_j; sub-block 2c takes the low nibbles of q[32c .. 32c + 31], 2c + 1 their high
//     nibbles. The packing: scale_j = s[j] & 63 and min_j = s[j + 4] & 63 for j < 4; else scale_j =
//     (s[j + 4] & 15) | (s[j - 4] >> 6) << 4 and min_j = (s[j + 4] >> 4) | (s[j] >> 6) << 4.
//   Q6_K 210 bytes for 256 values: uint8 l[128]; uint8 h[64]; int8 s[16]; f16 d
//     sixteen sub-blocks of 16: x = d * s[i / 16] * ((low 4 bits | high 2 bits << 4) - 32); with n
//     = i / 128 and r = i % 128, the low bits are in l[64n + r % 64], low nibble for r < 64; the
//     high bits in h[32n + r % 32] >> 2 * (r / 32).
//
// What the 4-bit folders of Hugging Face (GPTQ, AWQ, compressed-tensors) are brought to, exactly:
//   I4_32  20 bytes for 32 values: f16 d; uint8 z; uint8 0; uint8 q[16]   x = d * (nibble - z)
//     nibbles as in Q4_0; z <= 16.
//   I4     68 bytes for 128 values: f16 d; uint8 z; uint8 0; uint8 q[64]  x = d * (nibble - z)
//     four runs of 32 values, each in 16 bytes as in Q4_0.
//
// Beyond what every backend computes with (up to DTYPE_COUNT) there are types that weights are
// turned into, or come in, for a GPU:
//   F8_E4M3 one byte: sign, 4 bits of exponent (bias 7), 3 of mantissa; up to 448, no infinity,
//     0x7f and 0xff are NaN (Micikevicius et al. 2022). I8 one signed byte. Both with a scale for
//     each row, which is kept beside them.
//   F8_BLOCK the same numbers as F8_E4M3 with a scale for each DTYPE_SCALE_COLS columns of a row:
//     what FP8 with scales for blocks of 128 x 128 is brought to.
// and I32 and I64, which files pack other numbers into, and nobody computes with.
#ifndef OCTANT_BASE_DTYPE_H
#define OCTANT_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>

typedef enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_Q8_0,
    DTYPE_Q4_0,
    DTYPE_Q4_1,
    DTYPE_Q5_0,
    DTYPE_Q4_K,
    DTYPE_Q6_K,
    DTYPE_GGUF_COUNT, // the types above: what Octant reads of GGUF files
    DTYPE_I4 = DTYPE_GGUF_COUNT,
    DTYPE_I4_32,
    DTYPE_COUNT,                 // the types above: every backend takes them
    DTYPE_F8_E4M3 = DTYPE_COUNT, // device types
    DTYPE_F8_BLOCK,
    DTYPE_I8,
    DTYPE_I32,
    DTYPE_I64,
    DTYPE_ALL
} dtype;

enum { DTYPE_BLOCK_MAX = 256, DTYPE_SCALE_COLS = 128 };

const char *dtype_name(dtype type);    // "F32", "Q4_1", ...
size_t dtype_block_values(dtype type); // values per block: 1 for the plain types
size_t dtype_block_bytes(dtype type);  // bytes per block

// Bytes of `values` consecutive values; `values` is a multiple of the block.
size_t dtype_row_bytes(dtype type, size_t values);

// Scales that are kept beside a row of `cols` values: 1 for F8_E4M3 and I8, one for each
// DTYPE_SCALE_COLS of F8_BLOCK (the last may have fewer), else 0.
size_t dtype_row_scales(dtype type, size_t cols);

float dtype_f16_to_f32(uint16_t bits);
uint16_t dtype_f32_to_f16(float value); // round to nearest even, overflow to infinity
float dtype_bf16_to_f32(uint16_t bits);
uint16_t dtype_f32_to_bf16(float value); // round to nearest even; NaN stays NaN
float dtype_f8_to_f32(uint8_t bits);
uint8_t dtype_f32_to_f8(float value); // round to nearest even; beyond 448: 448; NaN stays NaN

// Writes `values` values as float (F8_E4M3, F8_BLOCK, I8: without their scales); the plain,
// readable reference that faster code is compared with.
void dtype_to_f32(dtype type, const void *data, size_t values, float *out);

#endif
