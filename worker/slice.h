// slice: a rank's part of a matrix that no file has as it is: rows made from packed integers (GPTQ,
// AWQ, compressed-tensors), or floats where a cut falls inside a block of quantised columns.
#ifndef OCTANT_WORKER_SLICE_H
#define OCTANT_WORKER_SLICE_H

#include "common/model/tensor_part.h"

typedef struct slice {
    tensor whole;
    tensor_part part; // may begin inside a block where type is DTYPE_F32
    dtype type;       // of the rows: the tensor's own, or DTYPE_F32
} slice;

enum { SLICE_THREADS = 8 };

// outs[i] (part.rows, dtype_row_bytes(type, part.cols)) = the rows of slices[i], malloc'ed; all of
// at most SLICE_THREADS slices at once, each by a thread of its own. The first error, that of
// slices[*failed]; then nothing is to be freed.
status slices_make(const slice *slices, int count, tensor_read *read, void *context, void **outs,
                   int *failed);

#endif
