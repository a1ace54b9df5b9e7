// safetensors: the reader of one .safetensors file (the format: the safetensors project's README):
// eight bytes with the header's length, a JSON object of tensors with type, shape and range, then
// the data.
//
// Works on bytes that somebody else holds and that outlive it. Everything is checked at opening:
// header inside the file, ranges inside the data and not overlapping (holes are allowed), sizes
// equal to the shapes' products.
#ifndef OCTANT_MODEL_SAFETENSORS_H
#define OCTANT_MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/dtype.h"
#include "common/base/status.h"

enum {
    SAFETENSORS_HEADER_MAX = 100000000, // bytes; the format's own bound
    SAFETENSORS_DIMS_MAX = 8,
    SAFETENSORS_TENSORS_MAX = 1 << 17,
};

typedef struct safetensors_tensor {
    const char *name;                     // NUL-terminated
    dtype type;                           // F32, F16, BF16, F8_E4M3, I8, I32 or I64
    int dims;                             // 0 (a scalar) to SAFETENSORS_DIMS_MAX
    uint64_t shape[SAFETENSORS_DIMS_MAX]; // the last runs fastest
    uint64_t bytes;
    const void *data; // at any alignment
} safetensors_tensor;

typedef struct safetensors safetensors;

// INVALID_ARGUMENT, DATA_LOSS (cut short), UNIMPLEMENTED (another type of numbers). The message
// names the tensor.
status safetensors_open(const void *bytes, size_t size, safetensors **out);
void safetensors_close(safetensors *s); // NULL is allowed

size_t safetensors_count(const safetensors *s);
const safetensors_tensor *safetensors_at(const safetensors *s, size_t index); // in order of name
const safetensors_tensor *safetensors_find(const safetensors *s, const char *name); // NULL: none

#endif
