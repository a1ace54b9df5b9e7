// tensor_part: what a slice of a tensor needs beyond its own bytes: the scales that go with it,
// and, where a folder packs integers into words (GPTQ, AWQ, compressed-tensors), the rows that they
// become. Files are read through a function of the caller's, and only what the slice needs.
//
// The rows hold the very numbers that the folder's method defines, (value - zero point) * scale,
// since their types have an F16 scale and an integer zero point, too. Two remarks: a scale in BF16
// or F32 is rounded to F16 (BF16 exactly, from 2^-17 to 65504); and GPTQ's first format stores zero
// points minus one, modulo 2^bits, so that one is added and wraps, as its writer's subtraction did.
#ifndef OCTANT_MODEL_TENSOR_PART_H
#define OCTANT_MODEL_TENSOR_PART_H

#include "common/model/model.h"

// Reads `bytes` bytes that lie at `mapped` in one of the model's files.
typedef status tensor_read(void *context, const void *mapped, size_t bytes, void *out);

typedef struct tensor_part {
    int64_t first_row, rows, first_col, cols; // first_col is a multiple of tensor_column_unit
} tensor_part;

// Where columns may be cut: at multiples of this.
int64_t tensor_column_unit(const tensor *t);

// *out (ceil(rows / *scale_rows), dtype_row_scales(t->type, cols)) = the part's scales, malloc'ed:
// each row of them belongs to *scale_rows consecutive rows of the part. For tensors of rows that
// have scales. As `read`; RESOURCE_EXHAUSTED.
status tensor_part_scales(const tensor *t, tensor_part part, tensor_read *read, void *context,
                          float **out, int *scale_rows);

// *out = the part's rows, dtype_row_bytes(t->type, part.cols) each, one after another, malloc'ed.
// For packed tensors; their cols are multiples of 32, or type is F16 (the numbers, rounded once). A
// part of a tensor with row_order or col_order is of the rows and columns in that order; all of the
// file's are read for it. As `read`; RESOURCE_EXHAUSTED; UNIMPLEMENTED for 8 bits with a zero point
// that is not in the middle.
status tensor_part_rows(const tensor *t, tensor_part part, tensor_read *read, void *context,
                        void **out);

#endif
