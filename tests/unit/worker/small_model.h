// small_model: a GGUF file of a random Llama (or Mixtral) of two layers, small enough to load a
// hundred times and odd enough to meet every way in which a slice is cut: types with and without
// blocks, heads narrower than a block.
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
    SMALL_E = 3, // of the Mixtral, whose FFN has as many columns in each
    SMALL_TENSORS_MAX = 2 + 10 * SMALL_LAYERS,
};

typedef struct small_tensor {
    const char *name;
    uint64_t cols, rows; // rows 0: a vector
    uint32_t type;       // GGML_*
    bool experts;        // a matrix of each
} small_tensor;

// A kind of such models: the tensors of a layer.
typedef struct small_kind {
    int experts; // 0: no mixture
    int count;
    const small_tensor *layer;
} small_kind;

#define SMALL_ATTENTION                                                                            \
    {"attn_norm.weight", SMALL_D, 0, GGML_F32, false},                                             \
        {"attn_q.weight", SMALL_D, SMALL_H * SMALL_C, GGML_F16, false},                            \
        {"attn_k.weight", SMALL_D, SMALL_G * SMALL_C, GGML_Q8_0, false},                           \
        {"attn_v.weight", SMALL_D, SMALL_G * SMALL_C, GGML_F32, false},                            \
        {"attn_output.weight", SMALL_H * SMALL_C, SMALL_D, GGML_Q8_0, false}, {                    \
        "ffn_norm.weight", SMALL_D, 0, GGML_F32, false                                             \
    }

static const small_tensor small_layer[] = {
    SMALL_ATTENTION,
    {"ffn_gate.weight", SMALL_D, SMALL_F, GGML_Q4_0, false},
    {"ffn_up.weight", SMALL_D, SMALL_F, GGML_Q8_0, false},
    {"ffn_down.weight", SMALL_F, SMALL_D, GGML_Q8_0, false},
};
static const small_tensor small_mixture_layer[] = {
    SMALL_ATTENTION,
    {"ffn_gate_inp.weight", SMALL_D, SMALL_E, GGML_F32, false},
    {"ffn_gate_exps.weight", SMALL_D, SMALL_F, GGML_Q4_0, true},
    {"ffn_up_exps.weight", SMALL_D, SMALL_F, GGML_Q8_0, true},
    {"ffn_down_exps.weight", SMALL_F, SMALL_D, GGML_Q8_0, true},
};
static const small_kind small_dense = {0, 9, small_layer};
static const small_kind small_mixture = {SMALL_E, 10, small_mixture_layer};

static inline uint64_t small_bytes(const small_tensor *t) {
    dtype type = t->type == GGML_F32    ? DTYPE_F32
                 : t->type == GGML_F16  ? DTYPE_F16
                 : t->type == GGML_Q4_0 ? DTYPE_Q4_0
                                        : DTYPE_Q8_0;
    return dtype_row_bytes(type, t->cols) * (t->rows ? t->rows : 1) * (t->experts ? SMALL_E : 1);
}

static inline void small_metadata(buf *b, const small_kind *kind) {
    if (kind->experts > 0) {
        put_pair_u32(b, "llama.expert_count", (uint32_t)kind->experts);
        put_pair_u32(b, "llama.expert_used_count", 2);
    }
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
static inline uint64_t small_model_write(const char *path, const small_kind *kind, uint64_t seed) {
    small_tensor all[SMALL_TENSORS_MAX] = {{"token_embd.weight", SMALL_D, SMALL_V, GGML_F16, false},
                                           {"output_norm.weight", SMALL_D, 0, GGML_F32, false}};
    char names[SMALL_TENSORS_MAX][64];
    int count = 2 + kind->count * SMALL_LAYERS;
    for (int i = 2; i < count; i++) {
        all[i] = kind->layer[(i - 2) % kind->count];
        snprintf(names[i], sizeof names[i], "blk.%d.%s", (i - 2) / kind->count, all[i].name);
        all[i].name = names[i];
    }
    buf b = buf_make(1 << 20);
    put_header(&b, 3, (uint64_t)count, kind->experts > 0 ? 17 : 15);
    small_metadata(&b, kind);
    uint64_t at = 0;
    for (int i = 0; i < count; i++) {
        if (all[i].experts)
            put_experts(&b, all[i].name, all[i].cols, all[i].rows, SMALL_E, all[i].type, at);
        else
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
