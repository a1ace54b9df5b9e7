// model_config from config.json of a Hugging Face folder. Defaults are those of transformers'
// LlamaConfig, MistralConfig, Qwen2Config, Phi3Config and Gemma2Config. transformers 5 moved
// rope_theta and rope_scaling into rope_parameters; both spellings are read. A field that changes
// the mathematics and that Octant does not know how to follow is refused, never ignored.
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "common/model/model_config.h"

// null counts as absent, as in transformers.
static const json_t *field(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

static status wrong(const char *name, const char *wanted) {
    return status_error(STATUS_INVALID_ARGUMENT, "config.json: '%s' must be %s", name, wanted);
}

// Leaves *out as it is when the field is absent.
static status optional_int(const json_t *object, const char *name, int *out) {
    const json_t *value = field(object, name);
    if (!value) return status_ok();
    if (!json_is_integer(value)) return wrong(name, "an integer");
    json_int_t wide = json_integer_value(value);
    if (wide < INT32_MIN || wide > INT32_MAX) return wrong(name, "an integer of 32 bits");
    *out = (int)wide;
    return status_ok();
}

static status need_int(const json_t *object, const char *name, int *out) {
    if (!field(object, name))
        return status_error(STATUS_INVALID_ARGUMENT, "config.json: '%s' is missing", name);
    return optional_int(object, name, out);
}

static status optional_real(const json_t *object, const char *name, double *out) {
    const json_t *value = field(object, name);
    if (!value) return status_ok();
    if (!json_is_number(value)) return wrong(name, "a number");
    *out = json_number_value(value);
    return status_ok();
}

static status optional_bool(const json_t *object, const char *name, bool *out) {
    const json_t *value = field(object, name);
    if (!value) return status_ok();
    if (!json_is_boolean(value)) return wrong(name, "true or false");
    *out = json_is_true(value);
    return status_ok();
}

// What transformers' classes differ in.
typedef struct architecture {
    const char *name;
    model_family family;
    bool has_window;
    int window; // where the file does not speak of it; null in the file means none
    double norm_epsilon;
    int experts;
} architecture;

static const architecture architectures[] = {
    {"LlamaForCausalLM", MODEL_LLAMA, false, 0, 1e-6, 0},
    {"MistralForCausalLM", MODEL_LLAMA, true, 4096, 1e-6, 0},
    {"MixtralForCausalLM", MODEL_LLAMA, true, 0, 1e-5, 8},
    {"Qwen2ForCausalLM", MODEL_QWEN2, true, 4096, 1e-6, 0},
    {"Phi3ForCausalLM", MODEL_PHI3, true, 0, 1e-5, 0},
    {"Gemma2ForCausalLM", MODEL_GEMMA2, true, 4096, 1e-6, 0},
};

static status read_architecture(const json_t *config, const architecture **out) {
    const char *name = json_string_value(json_array_get(field(config, "architectures"), 0));
    if (!name) return wrong("architectures", "a list with one name, such as LlamaForCausalLM");
    for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++)
        if (strcmp(name, architectures[i].name) == 0) return *out = &architectures[i], status_ok();
    return status_error(STATUS_UNIMPLEMENTED,
                        "config.json: architecture '%.80s' is not supported; Octant runs "
                        "LlamaForCausalLM, MistralForCausalLM, MixtralForCausalLM, "
                        "Qwen2ForCausalLM, Phi3ForCausalLM and Gemma2ForCausalLM",
                        name);
}

static status check_activation(const json_t *config, const model_config *c) {
    const char *key =
        c->gelu && field(config, "hidden_activation") ? "hidden_activation" : "hidden_act";
    const char *ours = c->gelu ? "gelu_pytorch_tanh" : "silu";
    const json_t *activation =
        c->gelu && strcmp(key, "hidden_act") == 0 ? NULL : field(config, key);
    const char *name = activation ? json_string_value(activation) : ours;
    if (!name) return wrong(key, "a string");
    if (strcmp(name, ours) == 0 || (!c->gelu && strcmp(name, "swish") == 0)) return status_ok();
    return status_error(STATUS_UNIMPLEMENTED,
                        "config.json: %s '%.40s' is not supported; %s is with this architecture",
                        key, name, ours);
}

// What Octant cannot follow.
static status refuse_features(const json_t *config, const model_config *c) {
    TRY(check_activation(config, c));
    bool attention_bias = false, mlp_bias = false;
    TRY(optional_bool(config, "attention_bias", &attention_bias));
    TRY(optional_bool(config, "mlp_bias", &mlp_bias));
    if (attention_bias || mlp_bias)
        return status_error(
            STATUS_UNIMPLEMENTED,
            "config.json: %s is not supported; only Qwen2's biases on q, k and v are",
            attention_bias ? "attention_bias" : "mlp_bias");
    bool both_ways = false;
    TRY(optional_bool(config, "use_bidirectional_attention", &both_ways));
    if (both_ways)
        return status_error(STATUS_UNIMPLEMENTED,
                            "config.json: use_bidirectional_attention is not supported");
    return status_ok();
}

static status read_sizes(const json_t *config, const architecture *a, model_config *c) {
    TRY(need_int(config, "num_hidden_layers", &c->layers));
    TRY(need_int(config, "hidden_size", &c->width));
    TRY(need_int(config, "intermediate_size", &c->ffn_width));
    TRY(need_int(config, "vocab_size", &c->vocab));
    TRY(need_int(config, "max_position_embeddings", &c->context));
    TRY(need_int(config, "num_attention_heads", &c->heads));
    c->kv_heads = c->heads;
    TRY(optional_int(config, "num_key_value_heads", &c->kv_heads));
    bool gemma2 = a->family == MODEL_GEMMA2;
    c->head_dim = gemma2 ? 256 : c->heads > 0 ? c->width / c->heads : 0;
    TRY(optional_int(config, "head_dim", &c->head_dim));
    c->rope_dims = c->head_dim;
    double epsilon = a->norm_epsilon;
    TRY(optional_real(config, "rms_norm_eps", &epsilon));
    c->norm_epsilon = (float)epsilon;
    c->tied_embeddings = gemma2;
    return optional_bool(config, "tie_word_embeddings", &c->tied_embeddings);
}

// Defaults as in transformers' MixtralConfig.
static status read_experts(const json_t *config, model_config *c) {
    if (c->experts == 0) return status_ok();
    c->experts_used = 2;
    TRY(optional_int(config, "num_local_experts", &c->experts));
    TRY(optional_int(config, "num_experts_per_tok", &c->experts_used));
    if (c->experts != 0) return status_ok(); // checked with all else
    return wrong("num_local_experts", "at least 1 in a MixtralForCausalLM");
}

// Which layers have the window, where a file lists them.
static status read_layer_types(const json_t *config, model_config *c) {
    const json_t *types = field(config, "layer_types");
    if (!types) return status_ok();
    if ((int)json_array_size(types) != c->layers)
        return wrong("layer_types", "a list with a name for each layer");
    for (int i = 0; i < c->layers; i++) {
        const char *name = json_string_value(json_array_get(types, (size_t)i));
        bool slides = name && strcmp(name, "sliding_attention") == 0;
        if (!slides && (!name || strcmp(name, "full_attention") != 0))
            return wrong("layer_types", "a list of sliding_attention and full_attention");
        c->windowed[i] = slides;
    }
    return status_ok();
}

static status read_window(const json_t *config, const architecture *a, model_config *c) {
    bool use = a->has_window;
    if (c->family == MODEL_QWEN2) { // its files name a window and switch it off
        use = false;
        TRY(optional_bool(config, "use_sliding_window", &use));
    }
    if (!use) return status_ok();
    c->window = json_object_get(config, "sliding_window") ? 0 : a->window;
    TRY(optional_int(config, "sliding_window", &c->window));
    if (c->family == MODEL_QWEN2) {
        int first = 28;
        TRY(optional_int(config, "max_window_layers", &first));
        for (int i = 0; i < MODEL_LAYERS_MAX; i++) c->windowed[i] = i >= first;
    }
    if (c->family == MODEL_QWEN2 || c->family == MODEL_GEMMA2) TRY(read_layer_types(config, c));
    if (c->window >= c->context) c->window = 0;
    return status_ok();
}

// transformers multiplies with a number of the weights' type.
static float rounded(const json_t *config, float x) {
    const json_t *type =
        field(config, "dtype") ? field(config, "dtype") : field(config, "torch_dtype");
    const char *name = json_is_string(type) ? json_string_value(type) : "";
    if (strcmp(name, "bfloat16") == 0) return dtype_bf16_to_f32(dtype_f32_to_bf16(x));
    if (strcmp(name, "float16") == 0) return dtype_f16_to_f32(dtype_f32_to_f16(x));
    return x;
}

// null means that there is no cap.
static status read_cap(const json_t *config, const char *name, float *out) {
    double cap = json_is_null(json_object_get(config, name)) ? 0 : (double)*out;
    TRY(optional_real(config, name, &cap));
    *out = (float)cap;
    return status_ok();
}

static status read_gemma2(const json_t *config, model_config *c) {
    double scalar = 256;
    TRY(optional_real(config, "query_pre_attn_scalar", &scalar));
    if (!(scalar > 0)) return wrong("query_pre_attn_scalar", "above 0");
    c->attention_scale = (float)(1 / sqrt(scalar));
    c->embedding_scale = rounded(config, c->embedding_scale);
    c->norm_offset = 1;
    TRY(read_cap(config, "attn_logit_softcapping", &c->attention_cap));
    return read_cap(config, "final_logit_softcapping", &c->logit_cap);
}

// Part of a head's channels may rotate.
static status read_partial(const json_t *object, model_config *c) {
    double part = 1;
    TRY(optional_real(object, "partial_rotary_factor", &part));
    if (part == 1) return status_ok();
    if (c->family != MODEL_PHI3 || !(part > 0 && part < 1))
        return status_error(STATUS_UNIMPLEMENTED,
                            "config.json: partial_rotary_factor %g is not supported; 1 is, and "
                            "less with Phi-3",
                            part);
    c->rope_dims = (int)(c->head_dim * part);
    return status_ok();
}

static status read_factors(const json_t *rope, const char *name, const model_config *c,
                           float *out) {
    const json_t *list = field(rope, name);
    if (!json_is_array(list) || json_array_size(list) != (size_t)c->rope_dims / 2 ||
        json_array_size(list) > MODEL_HEAD_DIM_MAX / 2)
        return wrong(name, "a list with a number for each pair of channels that rotates");
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!json_is_number(json_array_get(list, i))) return wrong(name, "a list of numbers");
        out[i] = (float)json_number_value(json_array_get(list, i));
    }
    return status_ok();
}

// transformers' _compute_longrope_parameters.
static status read_longrope(const json_t *config, const json_t *rope, model_config *c) {
    c->original_context = 4096;
    TRY(optional_int(config, "original_max_position_embeddings", &c->original_context));
    TRY(optional_int(rope, "original_max_position_embeddings", &c->original_context));
    TRY(read_factors(rope, "short_factor", c, c->rope_factors));
    TRY(read_factors(rope, "long_factor", c, c->rope_long_factors));
    double original = c->original_context, factor = c->context / original, scale = 1;
    TRY(optional_real(rope, "factor", &factor));
    if (factor > 1) scale = sqrt(1 + log(factor) / log(original));
    TRY(optional_real(rope, "attention_factor", &scale));
    c->rope_scale = (float)scale;
    c->scaling = ROPE_SCALING_LONG;
    return status_ok();
}

static status read_llama3(const json_t *rope, model_config *c) {
    static const char *const needed[] = {"factor", "low_freq_factor", "high_freq_factor"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!field(rope, needed[i]))
            return status_error(STATUS_INVALID_ARGUMENT,
                                "config.json: llama3 rope scaling lacks '%s'", needed[i]);
    TRY(optional_real(rope, "low_freq_factor", &c->low_freq_factor));
    TRY(optional_real(rope, "high_freq_factor", &c->high_freq_factor));
    c->scaling = ROPE_SCALING_LLAMA3;
    return need_int(rope, "original_max_position_embeddings", &c->original_context);
}

static status read_rope(const json_t *config, model_config *c) {
    c->rope_theta = 10000;
    c->scaling_factor = 1;
    TRY(optional_real(config, "rope_theta", &c->rope_theta));
    TRY(read_partial(config, c));
    const char *where = field(config, "rope_parameters") ? "rope_parameters" : "rope_scaling";
    const json_t *rope = field(config, where);
    if (!rope) return status_ok();
    if (!json_is_object(rope)) return wrong(where, "an object or null");
    TRY(optional_real(rope, "rope_theta", &c->rope_theta));
    TRY(optional_real(rope, "factor", &c->scaling_factor));
    TRY(read_partial(rope, c));
    const json_t *type = field(rope, "rope_type") ? field(rope, "rope_type") : field(rope, "type");
    const char *name = type ? json_string_value(type) : "default";
    if (!name) return wrong("rope_type", "a string");
    if (strcmp(name, "default") == 0) return status_ok();
    if (strcmp(name, "llama3") == 0) return read_llama3(rope, c);
    bool phi3 = c->family == MODEL_PHI3; // whose first files had other words for it
    if (strcmp(name, "longrope") == 0 ||
        (phi3 && (strcmp(name, "su") == 0 || strcmp(name, "yarn") == 0)))
        return read_longrope(config, rope, c);
    if (strcmp(name, "linear") != 0)
        return status_error(STATUS_UNIMPLEMENTED,
                            "config.json: rope scaling '%.40s' is not supported; default, linear, "
                            "llama3 and longrope are",
                            name);
    if (!field(rope, "factor"))
        return status_error(STATUS_INVALID_ARGUMENT,
                            "config.json: linear rope scaling lacks 'factor'");
    c->scaling = ROPE_SCALING_LINEAR;
    return status_ok();
}

status model_config_from_json(const json_t *config, model_config *out) {
    *out = (model_config){0};
    if (!json_is_object(config))
        return status_error(STATUS_INVALID_ARGUMENT, "config.json: the whole must be an object");
    const architecture *a = NULL;
    TRY(read_architecture(config, &a));
    out->family = a->family;
    out->experts = a->experts;
    TRY(read_sizes(config, a, out));
    model_config_set_family(out);
    TRY(refuse_features(config, out));
    TRY(quantisation_from_json(config, &out->quant));
    TRY(read_experts(config, out));
    int unit = quantisation_unit(&out->quant, out->ffn_width);
    out->ffn_block = unit > 1 ? unit : 0;
    TRY(read_rope(config, out));
    if (out->family == MODEL_GEMMA2) TRY(read_gemma2(config, out));
    TRY(model_config_check(out)); // the layers first, which a window is of
    TRY(read_window(config, a, out));
    return model_config_check(out);
}
