// gguf: the reader of GGUF files, versions 2 and 3 (the format: docs/gguf.md of the ggml project):
// a header of typed key-value pairs, a list of tensors, then the tensors' data at aligned offsets.
//
// Works on a range of bytes that somebody else holds (a mapping, or a card that came over the
// network) and copies nothing: strings, arrays and tensors point into it, so it must outlive the
// gguf. Everything is checked at opening, every length before it is used, so that the look-ups
// cannot fail for the file's fault. Strings in the file have a length and no NUL.
#ifndef OCTANT_MODEL_GGUF_H
#define OCTANT_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/dtype.h"
#include "common/base/status.h"

typedef struct gguf gguf;

// Numbers are the format's.
typedef enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
} gguf_type;

enum {
    GGUF_DIMS_MAX = 4,
    GGUF_KEYS_MAX = 1 << 16,
    GGUF_TENSORS_MAX = 1 << 16,
    GGUF_NAME_MAX = 1 << 16,      // bytes of a key or of a tensor's name
    GGUF_ALIGNMENT_MAX = 1 << 16, // of the key general.alignment; a power of two from 8 on
};

// A whole file has its tensors' data inside the bytes, or it is truncated. A header (a card) may
// end anywhere after the list of tensors; its tensors have no data.
typedef enum gguf_extent { GGUF_WHOLE_FILE, GGUF_HEADER_ONLY } gguf_extent;

// INVALID_ARGUMENT (not such a file, or it contradicts itself), DATA_LOSS (cut short),
// UNIMPLEMENTED (a version or tensor type that Octant does not read), RESOURCE_EXHAUSTED. The
// message names the key or tensor and the byte.
status gguf_open(const void *bytes, size_t size, gguf_extent extent, gguf **out);
void gguf_close(gguf *g); // NULL is allowed

// ---- metadata: NOT_FOUND when the key is absent, INVALID_ARGUMENT when it has another type.
bool gguf_has(const gguf *g, const char *key);
status gguf_get_string(const gguf *g, const char *key, const char **text, size_t *size);
status gguf_get_u64(const gguf *g, const char *key,
                    uint64_t *out); // any integer type, not negative
status gguf_get_u32(const gguf *g, const char *key, uint32_t *out); // any integer type, in range
status gguf_get_i32(const gguf *g, const char *key, int32_t *out);  // any integer type, in range
status gguf_get_f32(const gguf *g, const char *key, float *out);    // F32 or F64
status gguf_get_bool(const gguf *g, const char *key, bool *out);

// An array in place. Its elements lie at any alignment: read them by the functions below.
typedef struct gguf_array {
    gguf_type type; // of the elements
    uint64_t count;
    const unsigned char *data, *end;
} gguf_array;

status gguf_get_array(const gguf *g, const char *key, gguf_type element, gguf_array *out);

// index < count; the array's type is GGUF_F32, GGUF_I32 or GGUF_U32.
float gguf_array_f32(const gguf_array *a, uint64_t index);
int32_t gguf_array_i32(const gguf_array *a, uint64_t index);

// Strings have no index: they are read in order. `cursor` is a copy of the array that shrinks from
// the front; false at the end. O(1) each.
bool gguf_array_next_string(gguf_array *cursor, const char **text, size_t *size);

// ---- tensors
typedef struct gguf_tensor {
    const char *name; // no NUL
    size_t name_size;
    dtype type;
    int dims;                      // 1 to GGUF_DIMS_MAX
    uint64_t shape[GGUF_DIMS_MAX]; // shape[0] runs fastest; 1 beyond dims; a product below 2^63
    uint64_t bytes;
    const void *data; // NULL in a header
} gguf_tensor;

size_t gguf_tensor_count(const gguf *g);
const gguf_tensor *gguf_tensor_at(const gguf *g, size_t index);       // in order of name
const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name); // NULL: none

// Bytes of the header, list of tensors included, padding excluded: what a card carries.
size_t gguf_header_size(const gguf *g);

#endif
