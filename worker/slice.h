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

enum {
    SLICE_THREADS = 8, // make slices at once
    SLICE_AHEAD = 4,   // are made and wait to be taken, at most: it bounds their memory
};

// Makes slices by threads of its own while the caller takes them.
typedef struct slice_maker slice_maker;

// `slices` (count) are copied. RESOURCE_EXHAUSTED.
status slice_maker_open(const slice *slices, int count, tensor_read *read, void *context,
                        slice_maker **out);
void slice_maker_close(slice_maker *m); // waits for reads under way; NULL is allowed

// *rows (part.rows, dtype_row_bytes(type, part.cols)) = the rows of slices[*index], malloc'ed, of
// the next that is made, in any order; `count` times. Else the error of slices[*index], or
// DEADLINE_EXCEEDED with *index -1.
status slice_maker_next(slice_maker *m, int64_t deadline_ns, int *index, void **rows);

#endif
