// gguf_builder: puts GGUF bytes together piece by piece, so that a test can make any piece wrong.
#ifndef OCTANT_TESTS_GGUF_BUILDER_H
#define OCTANT_TESTS_GGUF_BUILDER_H

#include <stdint.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/model/gguf.h"

enum { GGML_F32 = 0, GGML_F16 = 1, GGML_Q4_0 = 2, GGML_Q8_0 = 8, GGML_Q2_K = 10 };

static inline void put_u32(buf *b, uint32_t v) {
    buf_append(b, &v, sizeof v);
}

static inline void put_u64(buf *b, uint64_t v) {
    buf_append(b, &v, sizeof v);
}

static inline void put_text(buf *b, const char *text) {
    put_u64(b, strlen(text));
    buf_append_string(b, text);
}

static inline void put_header(buf *b, uint32_t version, uint64_t tensors, uint64_t pairs) {
    buf_append(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, tensors);
    put_u64(b, pairs);
}

static inline void put_pair_text(buf *b, const char *key, const char *value) {
    put_text(b, key);
    put_u32(b, GGUF_STRING);
    put_text(b, value);
}

static inline void put_pair_u32(buf *b, const char *key, uint32_t value) {
    put_text(b, key);
    put_u32(b, GGUF_U32);
    put_u32(b, value);
}

static inline void put_pair_f32(buf *b, const char *key, float value) {
    put_text(b, key);
    put_u32(b, GGUF_F32);
    buf_append(b, &value, sizeof value);
}

static inline void put_pair_array(buf *b, const char *key, gguf_type type, uint64_t count) {
    put_text(b, key);
    put_u32(b, GGUF_ARRAY);
    put_u32(b, type);
    put_u64(b, count);
}

// rows 0: one dimension.
static inline void put_tensor(buf *b, const char *name, uint64_t cols, uint64_t rows, uint32_t type,
                              uint64_t offset) {
    put_text(b, name);
    put_u32(b, rows ? 2 : 1);
    put_u64(b, cols);
    if (rows) put_u64(b, rows);
    put_u32(b, type);
    put_u64(b, offset);
}

// Matrices of `count` experts, one after another.
static inline void put_experts(buf *b, const char *name, uint64_t cols, uint64_t rows,
                               uint64_t count, uint32_t type, uint64_t offset) {
    put_text(b, name);
    put_u32(b, 3);
    put_u64(b, cols);
    put_u64(b, rows);
    put_u64(b, count);
    put_u32(b, type);
    put_u64(b, offset);
}

static inline void put_padding(buf *b, size_t alignment) {
    while (b->size % alignment) buf_append_char(b, 0);
}

static inline void put_zeros(buf *b, size_t count) {
    while (count--) buf_append_char(b, 0);
}

#endif
