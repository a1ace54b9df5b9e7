// dtype: how numbers are stored in weight files and in the KV cache, with the sizes that follow from it.
//
// Quantised types come in blocks along a row. The layouts are those of GGUF (ggml-common.h; the format's
// description is docs/gguf.md of the ggml project), little-endian, no padding:
//   Q8_0  34 bytes for 32 values: f16 d;         int8 q[32]     x = d * q
//   Q4_0  18 bytes for 32 values: f16 d;         uint8 q[16]    x = d * (nibble - 8)
//   Q4_1  20 bytes for 32 values: f16 d, f16 m;  uint8 q[16]    x = d * nibble + m
// Value i of a 4-bit block is the low nibble of q[i] for i < 16, else the high nibble of q[i - 16].
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
    DTYPE_COUNT
} dtype;

enum { DTYPE_BLOCK_MAX = 32 };

const char *dtype_name(dtype type);       // "F32", "Q4_1", ...
size_t dtype_block_values(dtype type);    // values per block: 1 for the plain types
size_t dtype_block_bytes(dtype type);     // bytes per block

// Bytes of `values` consecutive values; `values` is a multiple of the block.
size_t dtype_row_bytes(dtype type, size_t values);

float dtype_f16_to_f32(uint16_t bits);
uint16_t dtype_f32_to_f16(float value);   // round to nearest even, overflow to infinity
float dtype_bf16_to_f32(uint16_t bits);
uint16_t dtype_f32_to_bf16(float value);  // round to nearest even; NaN stays NaN

// Writes `values` values as float; the plain, readable reference that faster code is compared with.
void dtype_to_f32(dtype type, const void *data, size_t values, float *out);

#endif
