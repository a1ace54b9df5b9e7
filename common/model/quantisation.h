// quantisation: how the matrices of a Hugging Face folder are stored, from the quantization_config
// of its config.json. Activations are none of its concern: how they would be quantised is ignored,
// and Octant multiplies 16-bit ones or better.
//
// What is read, with the names that the tensors of a matrix X have then (transformers' docs of each
// method; AutoGPTQ, GPTQModel, AutoAWQ, compressed-tensors):
//   FP8     quant_method fp8, fbgemm_fp8, compressed-tensors float-quantized: X.weight F8_E4M3,
//           X.weight_scale (or weight_scale_inv): one, one for each row, or one for each block
//   INT8    compressed-tensors int-quantized: X.weight I8, X.weight_scale: one, or one for each row
//   GPTQ    quant_method gptq: X.qweight, X.qzeros, X.scales, X.g_idx
//   AWQ     quant_method awq, version gemm: X.qweight, X.qzeros, X.scales
//   PACKED  compressed-tensors pack-quantized: X.weight_packed, X.weight_scale,
//           X.weight_zero_point, X.weight_shape, X.weight_g_idx
// Matrices that a folder leaves alone (modules_to_not_convert, ignore) have X.weight in F32, F16 or
// BF16.
#ifndef OCTANT_MODEL_QUANTISATION_H
#define OCTANT_MODEL_QUANTISATION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/dtype.h"
#include "common/base/status.h"

typedef enum quantisation_method {
    QUANTISATION_NONE,
    QUANTISATION_FP8,
    QUANTISATION_INT8,
    QUANTISATION_GPTQ,
    QUANTISATION_AWQ,
    QUANTISATION_PACKED,
} quantisation_method;

typedef struct quantisation {
    quantisation_method method;
    // GPTQ, AWQ, PACKED:
    int bits;         // 4, or 8 (not AWQ)
    int group;        // columns that share a scale, a multiple of 32; 0: all of a row
    int zero_added;   // what is added to stored zero points: 1 in GPTQ's first format, else 0
    bool zero_stored; // false: all zero points are in the middle, 2^(bits - 1), and none is stored
    // FP8: rows and columns that share a scale; 0: the scales' shape says
    int block_rows, block_cols;
} quantisation;

// GPTQ, AWQ and PACKED store integers in 32-bit words.
static inline bool quantisation_packs(const quantisation *q) {
    return q->method >= QUANTISATION_GPTQ;
}

// `config` is config.json's object; without a quantization_config the method is NONE.
// UNIMPLEMENTED names what is not supported and what is; INVALID_ARGUMENT the field that is wrong.
struct json_t;
status quantisation_from_json(const struct json_t *config, quantisation *out);

// The type of the rows that a packed matrix of `cols` columns becomes, exactly: Q8_0 of 8 bits (if
// all zero points are in the middle, else F16, see tensor_table.c); of
// 4 bits I4 where groups, columns, and the cuts between ranks, at multiples of `unit` columns,
// allow its blocks of 128, else I4_32.
dtype quantisation_row_type(const quantisation *q, int64_t cols, int64_t unit);

// Columns of a matrix of `cols` columns that no cut between ranks may part, 1 for none.
int quantisation_unit(const quantisation *q, int64_t cols);

#endif
