// model_config: the checks that let everybody else believe the numbers, and the two results that
// follow from them. How they are read is in model_config_gguf.c and model_config_json.c.
#include "common/model/model_config.h"

#include <assert.h>
#include <math.h>

_Static_assert((int64_t)MODEL_HEADS_MAX *MODEL_HEAD_DIM_MAX <= INT32_MAX, "H * C is an int");

const char *model_family_name(model_family family) {
    switch (family) {
    case MODEL_LLAMA:
        return "llama";
    case MODEL_QWEN2:
        return "qwen2";
    case MODEL_PHI3:
        return "phi3";
    case MODEL_GEMMA2:
        return "gemma2";
    case MODEL_FAMILY_COUNT:
        break;
    }
    assert(!"unknown family");
}

void model_config_set_family(model_config *c) {
    bool gemma2 = c->family == MODEL_GEMMA2;
    c->qkv_bias = c->family == MODEL_QWEN2;
    c->fused = c->family == MODEL_PHI3;
    c->rope_scale = 1;
    c->attention_scale = c->head_dim > 0 ? 1.0f / sqrtf((float)c->head_dim) : 0;
    c->embedding_scale = gemma2 ? sqrtf((float)c->width) : 1;
    c->post_norms = gemma2;
    c->gelu = gemma2;
    if (gemma2) {
        c->attention_cap = 50;
        c->logit_cap = 30;
    }
    for (int i = 0; i < MODEL_LAYERS_MAX; i++) c->windowed[i] = !gemma2 || i % 2 == 0;
}

int model_config_window(const model_config *c, int layer) {
    assert(layer >= 0 && layer < c->layers);
    return c->windowed[layer] ? c->window : 0;
}

// ---- checks

static status check_int(const char *field, int value, int most) {
    if (value >= 1 && value <= most) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT, "model config: %s is %d; 1 to %d is allowed",
                        field, value, most);
}

// Written so that NaN fails.
static status check_real(const char *field, double value, double least, double most) {
    if (value >= least && value <= most) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT, "model config: %s is %g; %g to %g is allowed",
                        field, value, least, most);
}

static status check_factors(const char *field, const float *factors, int count) {
    for (int i = 0; i < count; i++) TRY(check_real(field, factors[i], 1e-6, 1e9));
    return status_ok();
}

static status check_scaling(const model_config *c) {
    switch (c->scaling) {
    case ROPE_SCALING_NONE:
        return status_ok();
    case ROPE_SCALING_LINEAR:
        return check_real("rope scaling factor", c->scaling_factor, 1e-3, 1e6);
    case ROPE_SCALING_LLAMA3:
        TRY(check_real("rope scaling factor", c->scaling_factor, 1e-3, 1e6));
        TRY(check_real("rope low_freq_factor", c->low_freq_factor, 1e-6, 1e6));
        TRY(check_real("rope high_freq_factor", c->high_freq_factor, 1e-6, 1e6));
        if (c->low_freq_factor >= c->high_freq_factor)
            return status_error(
                STATUS_INVALID_ARGUMENT,
                "model config: rope low_freq_factor %g is not below high_freq_factor %g",
                c->low_freq_factor, c->high_freq_factor);
        return check_int("rope original_max_position_embeddings", c->original_context,
                         MODEL_CONTEXT_MAX);
    case ROPE_SCALING_FACTORS:
        return check_factors("a value of rope_freqs.weight", c->rope_factors, c->rope_dims / 2);
    case ROPE_SCALING_LONG:
        TRY(check_int("rope original_max_position_embeddings", c->original_context,
                      MODEL_CONTEXT_MAX));
        TRY(check_factors("a short rope factor", c->rope_factors, c->rope_dims / 2));
        return check_factors("a long rope factor", c->rope_long_factors, c->rope_dims / 2);
    }
    return status_error(STATUS_INVALID_ARGUMENT, "model config: unknown rope scaling %d",
                        (int)c->scaling);
}

static status check_even(const char *field, int value) {
    if (value % 2 == 0) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT, "model config: %s is %d; it must be even", field,
                        value);
}

static status check_experts(const model_config *c) {
    if (c->experts == 0 && c->experts_used == 0) return status_ok();
    TRY(check_int("experts", c->experts, MODEL_EXPERTS_MAX));
    int most = c->experts < MODEL_EXPERTS_USED_MAX ? c->experts : MODEL_EXPERTS_USED_MAX;
    return check_int("experts used for a token", c->experts_used, most);
}

status model_config_check(const model_config *c) {
    if ((unsigned)c->family >= MODEL_FAMILY_COUNT)
        return status_error(STATUS_INVALID_ARGUMENT, "model config: unknown family %d",
                            (int)c->family);
    TRY(check_int("layers", c->layers, MODEL_LAYERS_MAX));
    TRY(check_int("width (hidden size)", c->width, MODEL_WIDTH_MAX));
    TRY(check_int("ffn_width (intermediate size)", c->ffn_width, MODEL_FFN_MAX));
    TRY(check_experts(c));
    TRY(check_int("heads (attention heads)", c->heads, MODEL_HEADS_MAX));
    TRY(check_int("kv_heads (key-value heads)", c->kv_heads, c->heads));
    if (c->heads % c->kv_heads)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "model config: %d heads are not a multiple of %d kv_heads", c->heads,
                            c->kv_heads);
    TRY(check_int("head_dim", c->head_dim, MODEL_HEAD_DIM_MAX));
    TRY(check_even("head_dim", c->head_dim));
    TRY(check_int("vocab (vocabulary size)", c->vocab, MODEL_VOCAB_MAX));
    TRY(check_int("context (longest sequence)", c->context, MODEL_CONTEXT_MAX));
    TRY(check_int("rope_dims (rotated channels)", c->rope_dims, c->head_dim));
    TRY(check_even("rope_dims", c->rope_dims));
    if (c->ffn_block < 0 || c->ffn_block > DTYPE_BLOCK_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "model config: ffn_block is %d; 0 to %d is allowed", c->ffn_block,
                            DTYPE_BLOCK_MAX);
    TRY(check_real("norm_epsilon", c->norm_epsilon, 0, 1));
    TRY(check_real("rope_theta", c->rope_theta, 1, 1e12));
    TRY(check_real("rope attention factor", c->rope_scale, 1e-3, 1e3));
    TRY(check_real("attention scale", c->attention_scale, 1e-6, 1e3));
    TRY(check_real("embedding scale", c->embedding_scale, 1e-3, 1e6));
    TRY(check_real("attention soft cap", c->attention_cap, 0, 1e6));
    TRY(check_real("logit soft cap", c->logit_cap, 0, 1e6));
    if (c->window < 0 || c->window > MODEL_CONTEXT_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "model config: sliding window is %d; 0 to %d is allowed", c->window,
                            MODEL_CONTEXT_MAX);
    return check_scaling(c);
}

// ---- what follows

// Llama 3.1: long waves are stretched by the factor, short ones kept, those between blended.
static double llama3_frequency(const model_config *c, double frequency) {
    double waves =
        c->original_context * frequency / (2 * M_PI); // full turns within the original context
    if (waves < c->low_freq_factor) return frequency / c->scaling_factor;
    if (waves > c->high_freq_factor) return frequency;
    double keep = (waves - c->low_freq_factor) / (c->high_freq_factor - c->low_freq_factor);
    return (1 - keep) * frequency / c->scaling_factor + keep * frequency;
}

void model_config_inv_freq(const model_config *c, int context, float *inv_freq) {
    const float *factors = c->scaling == ROPE_SCALING_LONG && context > c->original_context
                               ? c->rope_long_factors
                               : c->rope_factors;
    bool divided = c->scaling == ROPE_SCALING_FACTORS || c->scaling == ROPE_SCALING_LONG;
    for (int i = 0; i < c->rope_dims / 2; i++) {
        double frequency = pow(c->rope_theta, -2.0 * i / c->rope_dims);
        if (c->scaling == ROPE_SCALING_LINEAR) frequency /= c->scaling_factor;
        if (c->scaling == ROPE_SCALING_LLAMA3) frequency = llama3_frequency(c, frequency);
        if (divided) frequency /= factors[i];
        inv_freq[i] = (float)frequency;
    }
}

int64_t model_config_parameters(const model_config *c) {
    int64_t width = c->width, q = (int64_t)c->heads * c->head_dim,
            kv = (int64_t)c->kv_heads * c->head_dim;
    int64_t attention = 2 * width * q + 2 * width * kv + (c->qkv_bias ? q + 2 * kv : 0);
    int64_t ffn = 3 * width * c->ffn_width;
    if (c->experts > 0) ffn = c->experts * (ffn + width); // and the router's row
    int64_t layer = attention + ffn + (c->post_norms ? 4 : 2) * width;
    return c->layers * layer + width + (c->tied_embeddings ? 1 : 2) * width * c->vocab;
}
