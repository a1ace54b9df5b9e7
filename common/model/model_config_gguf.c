// model_config from GGUF metadata. Keys are "ARCHITECTURE.name" (docs/gguf.md of the ggml project);
// what is not a number there, such as the vocabulary's size, is taken from the list of tensors,
// which a card carries too.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/model/model_config.h"

typedef struct source {
    const gguf *file;
    const char *architecture;
    char key[128];
} source;

static const char *key_of(source *s, const char *name) {
    snprintf(s->key, sizeof s->key, "%s.%s", s->architecture, name);
    return s->key;
}

static status read_int(source *s, const char *name, int *out) {
    return gguf_get_i32(s->file, key_of(s, name), out);
}

// Leaves *out as it is when the key is absent.
static status read_optional_int(source *s, const char *name, int *out) {
    return gguf_has(s->file, key_of(s, name)) ? gguf_get_i32(s->file, s->key, out) : status_ok();
}

static status read_optional_real(source *s, const char *name, double *out) {
    if (!gguf_has(s->file, key_of(s, name))) return status_ok();
    float value = 0;
    TRY(gguf_get_f32(s->file, s->key, &value));
    *out = value;
    return status_ok();
}

static status read_architecture(source *s, model_config *c) {
    const char *text = NULL;
    size_t size = 0;
    TRY(gguf_get_string(s->file, "general.architecture", &text, &size));
    for (int i = 0; i < MODEL_FAMILY_COUNT; i++) {
        const char *name = model_family_name((model_family)i);
        if (strlen(name) == size && memcmp(name, text, size) == 0) {
            c->family = (model_family)i;
            s->architecture = name;
            return status_ok();
        }
    }
    return status_error(STATUS_UNIMPLEMENTED,
                        "GGUF architecture '%.*s' is not supported; Octant runs llama, qwen2, phi3 "
                        "and gemma2",
                        (int)(size < 64 ? size : 64), text);
}

static status read_sizes(source *s, model_config *c) {
    TRY(read_int(s, "block_count", &c->layers));
    TRY(read_int(s, "embedding_length", &c->width));
    TRY(read_int(s, "feed_forward_length", &c->ffn_width));
    TRY(read_int(s, "context_length", &c->context));
    TRY(read_int(s, "attention.head_count", &c->heads));
    c->kv_heads = c->heads;
    TRY(read_optional_int(s, "attention.head_count_kv", &c->kv_heads));
    c->head_dim = c->heads > 0 ? c->width / c->heads : 0;
    TRY(read_optional_int(s, "attention.key_length", &c->head_dim));
    int value_length = c->head_dim;
    TRY(read_optional_int(s, "attention.value_length", &value_length));
    if (value_length != c->head_dim)
        return status_error(
            STATUS_UNIMPLEMENTED,
            "model config: key length %d and value length %d differ; Octant needs them equal",
            c->head_dim, value_length);
    float epsilon = 0;
    TRY(gguf_get_f32(s->file, key_of(s, "attention.layer_norm_rms_epsilon"), &epsilon));
    c->norm_epsilon = epsilon;
    return status_ok();
}

static status refuse(source *s, const char *value) {
    return status_error(STATUS_UNIMPLEMENTED,
                        "model config: %s is %s; of mixtures of experts Octant runs Mixtral's, all "
                        "layers alike, with a softmax over the chosen and no shared experts",
                        s->key, value);
}

// What makes another mixture than Mixtral's, each with the number that means that it is not there.
static status refuse_mixtures(source *s, const model_config *c) {
    const struct {
        const char *name;
        int plain;
    } numbers[] = {
        {"expert_shared_count", 0},
        {"expert_group_count", 0},
        {"leading_dense_block_count", 0},
        {"interleave_moe_layer_step", 1},
        {"expert_gating_func", 1}, // softmax
        {"expert_feed_forward_length", c->ffn_width},
        {"expert_shared_feed_forward_length", 0},
    };
    char text[32];
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int value = numbers[i].plain;
        TRY(read_optional_int(s, numbers[i].name, &value));
        snprintf(text, sizeof text, "%d", value);
        if (value != 0 && value != numbers[i].plain) return refuse(s, text);
    }
    double scale = 1;
    TRY(read_optional_real(s, "expert_weights_scale", &scale));
    snprintf(text, sizeof text, "%g", scale);
    if (scale != 0 && scale != 1) return refuse(s, text);
    bool normed = true;
    if (gguf_has(s->file, key_of(s, "expert_weights_norm")))
        TRY(gguf_get_bool(s->file, s->key, &normed));
    return normed ? status_ok() : refuse(s, "false");
}

static status read_experts(source *s, model_config *c) {
    TRY(read_optional_int(s, "expert_count", &c->experts));
    if (c->experts == 0) return status_ok();
    if (c->family != MODEL_LLAMA)
        return status_error(STATUS_UNIMPLEMENTED,
                            "model config: %d experts in a %s model; Octant runs llama's (Mixtral)",
                            c->experts, s->architecture);
    TRY(read_int(s, "expert_used_count", &c->experts_used));
    return refuse_mixtures(s, c);
}

// Gemma 2's largest divides by its width over its heads, for which there is no key; llama.cpp knows
// it by its layers, too.
enum { GEMMA2_27B_LAYERS = 46 };

static status read_attention(source *s, model_config *c) {
    double attention_cap = c->attention_cap, logit_cap = c->logit_cap;
    TRY(read_optional_real(s, "attn_logit_softcapping", &attention_cap));
    TRY(read_optional_real(s, "final_logit_softcapping", &logit_cap));
    TRY(read_optional_int(s, "attention.sliding_window", &c->window));
    c->attention_cap = (float)attention_cap;
    c->logit_cap = (float)logit_cap;
    if (c->family == MODEL_GEMMA2 && c->layers == GEMMA2_27B_LAYERS && c->heads > 0)
        c->attention_scale = 1.0f / sqrtf((float)c->width / (float)c->heads);
    if (c->window >= c->context) c->window = 0;
    return status_ok();
}

static status read_rope(source *s, model_config *c) {
    c->rope_theta = 10000;
    c->rope_dims = c->head_dim;
    c->rope_interleaved = c->family == MODEL_LLAMA;
    TRY(read_optional_real(s, "rope.freq_base", &c->rope_theta));
    TRY(read_optional_int(s, "rope.dimension_count", &c->rope_dims));
    double attention_factor = 1;
    TRY(read_optional_real(s, "rope.scaling.attn_factor", &attention_factor));
    c->rope_scale = (float)attention_factor;
    c->original_context = c->context;
    TRY(read_optional_int(s, "rope.scaling.original_context_length", &c->original_context));
    c->scaling_factor = 1;
    TRY(read_optional_real(s, "rope.scale_linear", &c->scaling_factor)); // the name before 2023-10
    TRY(read_optional_real(s, "rope.scaling.factor", &c->scaling_factor));
    const char *type = "linear";
    size_t size = strlen(type);
    if (gguf_has(s->file, key_of(s, "rope.scaling.type")))
        TRY(gguf_get_string(s->file, s->key, &type, &size));
    bool none = (size == 4 && memcmp(type, "none", 4) == 0) ||
                (size == 8 && memcmp(type, "longrope", 8) == 0); // its factors are tensors
    if (!none && !(size == 6 && memcmp(type, "linear", 6) == 0))
        return status_error(STATUS_UNIMPLEMENTED,
                            "model config: rope scaling '%.*s' is not supported in GGUF; none, "
                            "linear, longrope and rope_freqs.weight are",
                            (int)(size < 32 ? size : 32), type);
    if (!none && c->scaling_factor != 1) c->scaling = ROPE_SCALING_LINEAR;
    return status_ok();
}

// A list of divisors; *found: whether there is one. All 1 where only a header is at hand.
static status read_list(const gguf *g, const char *name, model_config *c, rope_scaling scaling,
                        float *out, bool *found) {
    const gguf_tensor *t = gguf_find_tensor(g, name);
    *found = t != NULL;
    if (!t) return status_ok();
    if (t->type != DTYPE_F32 || t->dims != 1 || t->shape[0] != (uint64_t)c->rope_dims / 2)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "GGUF tensor '%s' must be F32 with %d values, not %s with %llu", name,
                            c->rope_dims / 2, dtype_name(t->type), (unsigned long long)t->shape[0]);
    if (c->scaling != ROPE_SCALING_NONE && c->scaling != scaling)
        return status_error(STATUS_UNIMPLEMENTED,
                            "model config: %s together with another rope scaling is not supported",
                            name);
    c->scaling = scaling;
    for (int i = 0; i < c->rope_dims / 2; i++) out[i] = 1;
    if (t->data) memcpy(out, t->data, (size_t)c->rope_dims / 2 * sizeof(float));
    return status_ok();
}

// rope_freqs.weight: Llama 3.1's scaling, worked out by the converter. The other two: Phi-3's.
static status read_factors(const gguf *g, model_config *c) {
    bool one, brief, extended;
    TRY(read_list(g, "rope_freqs.weight", c, ROPE_SCALING_FACTORS, c->rope_factors, &one));
    TRY(read_list(g, "rope_factors_short.weight", c, ROPE_SCALING_LONG, c->rope_factors, &brief));
    TRY(read_list(g, "rope_factors_long.weight", c, ROPE_SCALING_LONG, c->rope_long_factors,
                  &extended));
    if (brief == extended) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT,
                        "GGUF tensor 'rope_factors_%s.weight' is missing beside the other one",
                        brief ? "long" : "short");
}

static status read_tensor_facts(const gguf *g, model_config *c) {
    const gguf_tensor *table = gguf_find_tensor(g, "token_embd.weight");
    if (!table)
        return status_error(
            STATUS_INVALID_ARGUMENT,
            "GGUF tensor 'token_embd.weight' is missing: the file holds no whole model");
    c->vocab = table->shape[1] > INT32_MAX ? INT32_MAX : (int)table->shape[1];
    for (size_t i = 0; i < gguf_tensor_count(g); i++) { // mixed files have several types
        const gguf_tensor *t = gguf_tensor_at(g, i);
        bool down = memmem(t->name, t->name_size, ".ffn_down", 9) != NULL; // of experts, too
        int block = (int)dtype_block_values(t->type);
        if (down && block > 1 && block > c->ffn_block) c->ffn_block = block;
    }
    c->tied_embeddings = !gguf_find_tensor(g, "output.weight");
    c->qkv_bias = c->qkv_bias || gguf_find_tensor(g, "blk.0.attn_q.bias");
    return status_ok();
}

status model_config_from_gguf(const gguf *g, model_config *out) {
    *out = (model_config){0};
    source s = {.file = g};
    TRY(read_architecture(&s, out));
    TRY(read_sizes(&s, out));
    TRY(read_experts(&s, out));
    model_config_set_family(out);
    TRY(read_attention(&s, out));
    TRY(read_rope(&s, out));
    TRY(read_tensor_facts(g, out));
    TRY(model_config_check(out)); // rope_dims first, then the tensor that has its size
    TRY(read_factors(g, out));
    return model_config_check(out);
}
