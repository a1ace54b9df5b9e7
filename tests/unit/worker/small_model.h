// small_model: a GGUF file of a random Llama of two layers, small enough to load a hundred times
// and odd enough to meet every way in which a slice is cut: types with and without blocks, heads
// narrower than a block.
#ifndef OCTANT_TESTS_WORKER_SMALL_MODEL_H
#define OCTANT_TESTS_WORKER_SMALL_MODEL_H

#include <stdio.h>
#include <stdlib.h>

#include "common/base/dtype.h"
#include "common/base/rng.h"
#include "unit/common/model/gguf_builder.h"

enum {
    SMALL_D = 64,
    SMALL_H = 4,
    SMALL_G = 2,
    SMALL_C = 16, // half a block of Q8_0
    SMALL_F = 128,
    SMALL_V = 40,
    SMALL_LAYERS = 2,
    SMALL_TENSORS = 2 + 9 * SMALL_LAYERS,
};

typedef struct small_tensor {
    const char *name;
    uint64_t cols, rows; // rows 0: a vector
    uint32_t type;       // GGML_*
} small_tensor;

static const small_tensor small_layer[9] = {
    {"attn_norm.weight", SMALL_D, 0, GGML_F32},
    {"attn_q.weight", SMALL_D, SMALL_H *SMALL_C, GGML_F16},
    {"attn_k.weight", SMALL_D, SMALL_G *SMALL_C, GGML_Q8_0},
    {"attn_v.weight", SMALL_D, SMALL_G *SMALL_C, GGML_F32},
    {"attn_output.weight", SMALL_H *SMALL_C, SMALL_D, GGML_Q8_0},
    {"ffn_norm.weight", SMALL_D, 0, GGML_F32},
    {"ffn_gate.weight", SMALL_D, SMALL_F, GGML_Q4_0},
    {"ffn_up.weight", SMALL_D, SMALL_F, GGML_Q8_0},
    {"ffn_down.weight", SMALL_F, SMALL_D, GGML_Q8_0},
};

static inline uint64_t small_bytes(const small_tensor *t) {
    dtype type = t->type == GGML_F32    ? DTYPE_F32
                 : t->type == GGML_F16  ? DTYPE_F16
                 : t->type == GGML_Q4_0 ? DTYPE_Q4_0
                                        : DTYPE_Q8_0;
    return dtype_row_bytes(type, t->cols) * (t->rows ? t->rows : 1);
}

static inline void small_metadata(buf *b) {
    put_pair_text(b, "general.architecture", "llama");
    put_pair_text(b, "general.name", "small");
    put_pair_u32(b, "llama.block_count", SMALL_LAYERS);
    put_pair_u32(b, "llama.context_length", 64);
    put_pair_u32(b, "llama.embedding_length", SMALL_D);
    put_pair_u32(b, "llama.feed_forward_length", SMALL_F);
    put_pair_u32(b, "llama.attention.head_count", SMALL_H);
    put_pair_u32(b, "llama.attention.head_count_kv", SMALL_G);
    put_pair_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    put_pair_text(b, "tokenizer.ggml.model", "gpt2");
    put_pair_text(b, "tokenizer.ggml.pre", "gpt-2");
    put_pair_array(b, "tokenizer.ggml.tokens", GGUF_STRING, 4);
    put_text(b, "a");
    put_text(b, "b");
    put_text(b, "ab");
    put_text(b, "</s>");
    put_pair_array(b, "tokenizer.ggml.token_type", GGUF_I32, 4);
    for (uint32_t i = 0; i < 4; i++) put_u32(b, i < 3 ? 1 : 3);
    put_pair_array(b, "tokenizer.ggml.merges", GGUF_STRING, 1);
    put_text(b, "a b");
    put_pair_u32(b, "tokenizer.ggml.eos_token_id", 3);
}

// Writes the model, with random bytes for weights; returns the offset of the first tensor's.
static inline uint64_t small_model_write(const char *path, uint64_t seed) {
    small_tensor all[SMALL_TENSORS] = {{"token_embd.weight", SMALL_D, SMALL_V, GGML_F16},
                                       {"output_norm.weight", SMALL_D, 0, GGML_F32}};
    char names[SMALL_TENSORS][64];
    for (int i = 2; i < SMALL_TENSORS; i++) {
        all[i] = small_layer[(i - 2) % 9];
        snprintf(names[i], sizeof names[i], "blk.%d.%s", (i - 2) / 9, all[i].name);
        all[i].name = names[i];
    }
    buf b = buf_make(1 << 20);
    put_header(&b, 3, SMALL_TENSORS, 15);
    small_metadata(&b);
    uint64_t at = 0;
    for (int i = 0; i < SMALL_TENSORS; i++) {
        put_tensor(&b, all[i].name, all[i].cols, all[i].rows, all[i].type, at);
        at += (small_bytes(&all[i]) + 31) / 32 * 32;
    }
    put_padding(&b, 32);
    uint64_t first = b.size;
    rng random = rng_make(seed);
    for (uint64_t i = 0; i < at; i++) buf_append_char(&b, (char)rng_below(&random, 60)); // finite
    FILE *f = fopen(path, "wb");
    bool written = f && fwrite(b.data, 1, b.size, f) == b.size;
    if (f) written &= fclose(f) == 0;
    buf_free(&b);
    return written ? first : 0;
}

#endif
