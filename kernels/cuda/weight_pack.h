// weight_pack: how a matrix of weights lies in the device's memory, and the kernels that bring it
// there. Private to kernels/cuda; the products (matmul.h) read what this makes.
//
// The order of columns follows from the tensor core. mma.m16n8k16 gives lane 4g + t of a warp rows
// g and g + 8 of a 16-row tile; in each group of 32 columns we hand that lane columns 8t to 8t + 7
// (the first four to one mma, the last four to the next), so that weights and activations alike are
// read 16 bytes at a time.
//
// F32, F16, BF16: rows of `stride` elements, a multiple of 32, zeros after `cols`. BF16 rows are
// what cuBLASLt takes as they are.
//
// All others are cut in tiles of 16 rows x 32 columns (8 bits) or 16 x 64 (4 bits): 512 bytes, 16
// of each lane, so that a warp's load is 512 consecutive bytes. Tiles of the same 16 rows follow
// one another along the columns. Rows and columns are padded to whole tiles with zeros.
//   8 bits (Q8_0, Q5_0 and Q6_K widened to it, I8, F8_E4M3): byte i of a lane is column 8t + i % 8
//     of row g + 8 * (i / 8).
//   4 bits (Q4_0, Q4_1, Q4_K, I4): word w of a lane is row g + 8 * (w % 2), columns 32 * (w / 2) +
//     8t + 0..7; column 2p of these is at bits 4p, column 2p + 1 at bits 16 + 4p.
// Scales are a second plane behind, (row tiles, column groups, 16 rows) with a group of 32 columns
// for the block types, 128 for I4, all columns for I8 and F8_E4M3:
//   Q8_0, Q4_0, Q5_0: float16 d.  Q4_1: float16 d, m.  I4: float16 d, d * -zero is exact in the
//   product.  Q6_K: float16 per 16 columns.  Q4_K: the file's 16-byte head of each 256 columns.
//   I8, F8_E4M3: float per row.
#ifndef OCTANT_KERNELS_CUDA_WEIGHT_PACK_H
#define OCTANT_KERNELS_CUDA_WEIGHT_PACK_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

// A packed matrix: what kernels are given by value.
typedef struct weight_pack {
    const void *values; // 16-byte aligned device memory
    const void *scales; // NULL for F32, F16, BF16
    int rows, cols;     // as the model has them
    int stride;         // elements from row to row of F32, F16, BF16; else padded columns
    dtype type;
} weight_pack;

// Bytes of a (rows, cols) matrix of `type`, a multiple of 256. Pure arithmetic.
size_t weight_pack_bytes(dtype type, int rows, int cols);

// The matrix that lies (or will lie) at `memory`. Pure arithmetic.
weight_pack weight_pack_at(dtype type, int rows, int cols, const void *memory);

// True if rows of `from` can be packed as `as`: the same type, or F32, F16, BF16 to F8_E4M3 or I8
// (each row scaled by its largest magnitude), or any type to BF16.
bool weight_pack_can(dtype from, dtype as);

// Packs rows [first_row, first_row + count) of `out`. `raw` is their copy in device memory as the
// file has them, rows raw_stride bytes apart, at any alignment; raw_scales (device memory, NULL if
// there are none) is one float for each of these rows. first_row is a multiple of 16; so is count,
// except that the last rows of the matrix may be fewer: their tile's padding is zeroed then.
cudaError_t weight_pack_rows(cudaStream_t stream, const void *raw, size_t raw_stride,
                             dtype raw_type, const float *raw_scales, int first_row, int count,
                             const weight_pack *out);

// out (count, cols) floats = rows ids[i] - first_row of the matrix; zeros for an id outside. ids is
// device memory. The embedding, also of tables that a product shares.
cudaError_t weight_embed(cudaStream_t stream, const weight_pack *w, int first_row,
                         const int32_t *ids, int count, float *out);

// The same as double or BF16, for an embedding whose rows are summed over ranks.
cudaError_t weight_embed_f64(cudaStream_t stream, const weight_pack *w, int first_row,
                             const int32_t *ids, int count, double *out);
cudaError_t weight_embed_bf16(cudaStream_t stream, const weight_pack *w, int first_row,
                              const int32_t *ids, int count, void *out);

// out (count, stride) BF16 = rows [first_row, first_row + count) as plain rows, zeros from cols to
// stride: for a library's product. stride >= cols.
cudaError_t weight_unpack_bf16(cudaStream_t stream, const weight_pack *w, int first_row, int count,
                               int stride, void *out);

#ifdef __cplusplus
}
#endif

#endif
