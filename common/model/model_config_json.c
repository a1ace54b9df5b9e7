// model_config from config.json of a Hugging Face folder. Defaults are those of transformers'
// LlamaConfig, MistralConfig and Qwen2Config. transformers 5 moved rope_theta and rope_scaling into
// rope_parameters; both spellings are read. A field that changes the mathematics and that Octant
// does not know how to follow is refused, never ignored.
#include <jansson.h>
#include <string.h>

#include "common/base/log.h"
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

static status read_architecture(const json_t *config, model_config *c, bool *window_off) {
    static const struct {
        const char *name;
        model_family family;
    } known[] = {{"LlamaForCausalLM", MODEL_LLAMA},
                 {"MistralForCausalLM", MODEL_LLAMA},
                 {"MixtralForCausalLM", MODEL_LLAMA},
                 {"Qwen2ForCausalLM", MODEL_QWEN2}};
    const char *name = json_string_value(json_array_get(field(config, "architectures"), 0));
    if (!name) return wrong("architectures", "a list with one name, such as LlamaForCausalLM");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(name, known[i].name) == 0) {
            c->family = known[i].family;
            c->qkv_bias = c->family == MODEL_QWEN2;
            bool use = c->family != MODEL_QWEN2; // Qwen2 files name a window and switch it off
            TRY(optional_bool(config, "use_sliding_window", &use));
            *window_off = !use;
            c->experts = strcmp(name, "MixtralForCausalLM") == 0 ? 8 : 0;
            return status_ok();
        }
    }
    return status_error(STATUS_UNIMPLEMENTED,
                        "config.json: architecture '%.80s' is not supported; Octant runs "
                        "LlamaForCausalLM, MistralForCausalLM, MixtralForCausalLM and "
                        "Qwen2ForCausalLM",
                        name);
}

// What Octant cannot follow.
static status refuse_features(const json_t *config) {
    const json_t *activation = field(config, "hidden_act");
    const char *name = activation ? json_string_value(activation) : "silu";
    if (!name) return wrong("hidden_act", "a string");
    if (strcmp(name, "silu") != 0 && strcmp(name, "swish") != 0)
        return status_error(STATUS_UNIMPLEMENTED,
                            "config.json: hidden_act '%.40s' is not supported; silu is", name);
    bool attention_bias = false, mlp_bias = false;
    TRY(optional_bool(config, "attention_bias", &attention_bias));
    TRY(optional_bool(config, "mlp_bias", &mlp_bias));
    if (attention_bias || mlp_bias)
        return status_error(
            STATUS_UNIMPLEMENTED,
            "config.json: %s is not supported; only Qwen2's biases on q, k and v are",
            attention_bias ? "attention_bias" : "mlp_bias");
    double rotary = 1;
    TRY(optional_real(config, "partial_rotary_factor", &rotary));
    if (rotary != 1)
        return status_error(STATUS_UNIMPLEMENTED,
                            "config.json: partial_rotary_factor %g is not supported; 1 is", rotary);
    return status_ok();
}

static status read_sizes(const json_t *config, model_config *c) {
    TRY(need_int(config, "num_hidden_layers", &c->layers));
    TRY(need_int(config, "hidden_size", &c->width));
    TRY(need_int(config, "intermediate_size", &c->ffn_width));
    TRY(need_int(config, "vocab_size", &c->vocab));
    TRY(need_int(config, "max_position_embeddings", &c->context));
    TRY(need_int(config, "num_attention_heads", &c->heads));
    c->kv_heads = c->heads;
    TRY(optional_int(config, "num_key_value_heads", &c->kv_heads));
    c->head_dim = c->heads > 0 ? c->width / c->heads : 0;
    TRY(optional_int(config, "head_dim", &c->head_dim));
    c->rope_dims = c->head_dim;
    double epsilon = 1e-6;
    TRY(optional_real(config, "rms_norm_eps", &epsilon));
    c->norm_epsilon = (float)epsilon;
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
    const char *where = field(config, "rope_parameters") ? "rope_parameters" : "rope_scaling";
    const json_t *rope = field(config, where);
    if (!rope) return status_ok();
    if (!json_is_object(rope)) return wrong(where, "an object or null");
    TRY(optional_real(rope, "rope_theta", &c->rope_theta));
    TRY(optional_real(rope, "factor", &c->scaling_factor));
    const json_t *type = field(rope, "rope_type") ? field(rope, "rope_type") : field(rope, "type");
    const char *name = type ? json_string_value(type) : "default";
    if (!name) return wrong("rope_type", "a string");
    if (strcmp(name, "default") == 0) return status_ok();
    if (strcmp(name, "llama3") == 0) return read_llama3(rope, c);
    if (strcmp(name, "linear") != 0)
        return status_error(
            STATUS_UNIMPLEMENTED,
            "config.json: rope scaling '%.40s' is not supported; default, linear and llama3 are",
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
    bool window_off = false;
    TRY(read_architecture(config, out, &window_off));
    TRY(refuse_features(config));
    TRY(quantisation_from_json(config, &out->quant));
    TRY(read_sizes(config, out));
    TRY(read_experts(config, out));
    int unit = quantisation_unit(&out->quant, out->ffn_width);
    out->ffn_block = unit > 1 ? unit : 0;
    TRY(read_rope(config, out));
    int window = 0;
    TRY(optional_int(config, "sliding_window", &window));
    if (!window_off && window > 0 && window < out->context) {
        log_warn("model", "context shortened from %d to the sliding window of %d tokens",
                 out->context, window);
        out->context = window;
    }
    return model_config_check(out);
}
