// weight_pack: how a matrix of weights lies in the device's memory, and the kernels that bring it
// there. Private to kernels/cuda; the products (matmul.h) read what this makes.
//
// Everything is cut in tiles of 16 rows x 64 columns, four steps of the tensor core's m16n8k16.
// Rows are padded to whole tiles and columns too, with zeros.
//
// BF16 (F32 and F16 become it, one rounding): plain rows of `stride` elements, a multiple of 64,
// which is also what cuBLASLt takes.
//
// All others are stored tile by tile, the tiles of the same 16 rows one after another, and inside a
// tile in the order in which the lanes of a warp want them: lane 4g + t holds rows g and g + 8 and
// of each 16 columns 2t, 2t + 1, 2t + 8 and 2t + 9. So a warp reads whole runs of 512 bytes and
// each lane finds its operands in its own 16.
//   8 bits (Q8_0, I8, F8_E4M3, F8_BLOCK): 1024 bytes. Lane l has bytes 16l .. 16l + 15 of the half
//     of 512 that holds columns 0 to 31, and of the next. Word 2k + r of these is step k of the
//     half, row g + 8r: its bytes are columns 2t, 2t + 8, 2t + 1, 2t + 9.
//   4 bits (Q4_0, Q4_1, Q4_K, I4, I4_32): 512 bytes, 16 for each lane. Word 2h + r is half h, row g
//     + 8r; its nibbles 2k and 2k + 1 are step k's columns 2t and 2t + 8, the nibbles 4 above them
//     2t + 1 and 2t + 9.
//   5 and 6 bits (Q5_0, Q6_K): the low four as above, then the high bits, 4 or 8 bytes for each
//     lane: of its 16 pairs of columns (2t, 2t + 1) and (2t + 8, 2t + 9), pair 4k + 2c + r is step
//     k's, row g + 8r, the second for c = 1. Q5_0: bit p of the word is pair p's first, bit 16 + p
//     its second column's. Q6_K: the same with two bits, at 2 * (p % 8) and 16 above, of word p
//     / 8.
//
// Behind the values lies a second plane: for each tile (I4, F8_BLOCK: each two tiles, 128 columns)
// 16 records, one of each row.
//   Q8_0, Q4_0, Q5_0  4 bytes: f16 d of columns 0-31, of 32-63.
//   Q4_1        8 bytes: f16 d, m of columns 0-31; d, m of 32-63.
//   I4_32       8 bytes: f16 d; uint8 z; 0 of columns 0-31; the same of 32-63.
//   Q4_K        8 bytes: f16 d, m; uint8 scale, minimum of columns 0-31; of 32-63.
//   Q6_K        8 bytes: f16 d; two bytes of 0; int8 scale of columns 0-15, 16-31, 32-47, 48-63.
//   I4          4 bytes: f16 d; uint8 z; 0.
//   F8_BLOCK    4 bytes: float, the scale. Of each row, though a block's rows share it: a thirty-
//               second more to read, and slices may begin at any row.
// I8 and F8_E4M3 have one float for each row there.
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

enum { WEIGHT_PACK_ROWS = 16, WEIGHT_PACK_COLS = 64 }; // a tile

// A packed matrix.
typedef struct weight_pack {
    const void *values; // device memory, 256-byte aligned
    const void *scales; // NULL for BF16
    int rows, cols;     // as the model has them
    int stride;         // columns padded to tiles
    dtype type;
} weight_pack;

// The type that a weight of the file's type has on the device, if nobody asks for another.
dtype weight_pack_type(dtype from);

// True if a weight of type `from` can be packed as `as`: weight_pack_type(from), BF16 from any
// type, F8_E4M3 or I8 from F32, F16, BF16 (each row scaled by its largest magnitude).
bool weight_pack_can(dtype from, dtype as);

// Bytes of a (rows, cols) matrix of the packed type `type`, a multiple of 256. Pure arithmetic.
size_t weight_pack_bytes(dtype type, int rows, int cols);

// The matrix that lies (or will lie) at `memory`, 256-byte aligned. Pure arithmetic.
weight_pack weight_pack_at(dtype type, int rows, int cols, const void *memory);

// Packs rows [first_row, first_row + count) into `out`. `raw` is their copy in device memory as the
// file has them, rows raw_stride bytes apart, at any alignment; raw_scales (device memory) has
// the dtype_row_scales of each of these rows, none shared, else it is NULL. first_row is a multiple
// of 16, and so is count except for the matrix's last rows; with these the padding is written.
cudaError_t weight_pack_rows(cudaStream_t stream, const void *raw, size_t raw_stride,
                             dtype raw_type, const float *raw_scales, int first_row, int count,
                             const weight_pack *out);

typedef enum weight_number { WEIGHT_FLOAT, WEIGHT_DOUBLE, WEIGHT_BF16 } weight_number;

// out (count, cols) = rows ids[i] - first_row of the matrix, zeros for an id outside; kernels_fed
// of a slot stands for fed[slot]. ids and fed are device memory. The embedding.
cudaError_t weight_embed(cudaStream_t stream, const weight_pack *w, int first_row,
                         const int32_t *ids, const int32_t *fed, int count, weight_number number,
                         void *out);

// out (count, stride) BF16 = rows [first_row, first_row + count) in plain order, zeros from cols to
// `stride`: for a library's product.
cudaError_t weight_unpack_bf16(cudaStream_t stream, const weight_pack *w, int first_row, int count,
                               int stride, void *out);

#ifdef __cplusplus
}
#endif

#endif
