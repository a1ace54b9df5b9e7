// model_config: what config.json may say, what is refused, and RoPE frequencies against
// transformers' own.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/json.h"
#include "common/model/model_config.h"

#define SIZES                                                                                      \
    "\"hidden_size\":96,\"intermediate_size\":416,\"num_hidden_layers\":3,\"num_attention_"        \
    "heads\":6,\"vocab_size\":512,"                                                                \
    "\"max_position_embeddings\":512"
#define LLAMA "\"architectures\":[\"LlamaForCausalLM\"]," SIZES
#define LLAMA3                                                                                     \
    "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_"     \
    "embeddings\":64"

static status read(const char *text, model_config *c) {
    json_t *json;
    status s = json_parse(text, strlen(text), &json);
    assert_string_equal(s.message, "");
    s = model_config_from_json(json, c);
    json_decref(json);
    return s;
}

static model_config good(const char *text) {
    model_config c;
    status s = read(text, &c);
    assert_string_equal(s.message, "");
    return c;
}

static void bad(const char *text, status_code code, const char *words) {
    model_config c;
    status s = read(text, &c);
    if (s.code != code || !strstr(s.message, words))
        fail_msg("wanted %d '%s', got %d '%s'", code, words, s.code, s.message);
}

static void defaults_are_those_of_transformers(void **state) {
    (void)state;
    model_config c = good("{" LLAMA "}");
    assert_int_equal(c.kv_heads, 6);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.rope_dims, 16);
    assert_true(c.rope_theta == 10000);
    assert_true(c.norm_epsilon == 1e-6f);
    assert_false(c.tied_embeddings || c.qkv_bias || c.rope_interleaved);
    c = good("{\"architectures\":[\"Qwen2ForCausalLM\"]," SIZES
             ",\"head_dim\":32,\"num_key_value_heads\":2,\"tie_word_embeddings\":true,"
             "\"use_sliding_window\":false,\"sliding_window\":8,\"rope_scaling\":null}");
    assert_int_equal(c.head_dim, 32);
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.context, 512);
    assert_true(c.tied_embeddings && c.qkv_bias);
}

// The windows of all layers are 0 but for those from `first` on, one in `each`.
static void check_windows(const char *text, int window, int first, int each) {
    model_config c = good(text);
    assert_int_equal(c.context, 512);
    for (int i = 0; i < c.layers; i++)
        assert_int_equal(model_config_window(&c, i),
                         i >= first && (i - first) % each == 0 ? window : 0);
}

static void windows_are_of_layers(void **state) {
    (void)state;
#define MISTRAL "{\"architectures\":[\"MistralForCausalLM\"]," SIZES
    check_windows(MISTRAL ",\"sliding_window\":100}", 100, 0, 1);
    check_windows(MISTRAL ",\"sliding_window\":null}", 0, 0, 1);
    check_windows(MISTRAL ",\"sliding_window\":512}", 0, 0, 1);   // sees all
    check_windows("{" LLAMA ",\"sliding_window\":100}", 0, 0, 1); // the class has none
#define QWEN2 "{\"architectures\":[\"Qwen2ForCausalLM\"]," SIZES ",\"sliding_window\":100"
    check_windows(QWEN2 "}", 0, 0, 1);
    check_windows(QWEN2 ",\"use_sliding_window\":true}", 0, 0, 1); // from layer 28 on
    check_windows(QWEN2 ",\"use_sliding_window\":true,\"max_window_layers\":1}", 100, 1, 1);
    check_windows(QWEN2 ",\"use_sliding_window\":true,\"layer_types\":[\"full_attention\","
                        "\"sliding_attention\",\"full_attention\"]}",
                  100, 1, 2);
    bad(QWEN2 ",\"use_sliding_window\":true,\"layer_types\":[\"full_attention\"]}",
        STATUS_INVALID_ARGUMENT, "'layer_types' must be a list with a name for each layer");
    bad(QWEN2 ",\"use_sliding_window\":true,\"layer_types\":[\"full_attention\",1,2]}",
        STATUS_INVALID_ARGUMENT, "'layer_types' must be a list of sliding_attention");
    bad(MISTRAL ",\"sliding_window\":-3}", STATUS_INVALID_ARGUMENT, "sliding window is -3");
}

#define PHI3                                                                                       \
    "{\"architectures\":[\"Phi3ForCausalLM\"]," SIZES                                              \
    ",\"original_max_position_embeddings\":64,\"rms_norm_eps\":1e-5"
#define LONG(type)                                                                                 \
    ",\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"type\":\"" type                            \
    "\",\"short_factor\":[1,1.5,2,3],\"long_factor\":[4,5,6,7]}"

// Which list of factors divides follows from the longest sequence that will be run.
static void phi3_has_two_lists_of_factors(void **state) {
    (void)state;
    static const char *const types[] = {"longrope", "su", "yarn"};
    static const char *const texts[] = {PHI3 LONG("longrope") "}", PHI3 LONG("su") "}",
                                        PHI3 LONG("yarn") "}"};
    static const double divisors[2][4] = {{1, 1.5, 2, 3}, {4, 5, 6, 7}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        model_config c = good(texts[i]);
        assert_true(c.fused && !c.qkv_bias && c.rope_dims == 8);
        assert_true(fabs(c.rope_scale - sqrt(1 + log(8) / log(64))) < 1e-6);
        for (int extended = 0; extended < 2; extended++) {
            float got[4];
            model_config_inv_freq(&c, 64 + extended, got);
            for (int k = 0; k < 4; k++)
                assert_true(fabs(got[k] * divisors[extended][k] / pow(10000, -k / 4.0) - 1) < 1e-6);
        }
    }
    assert_true(good(PHI3 ",\"sliding_window\":63}").window == 63);
    bad(PHI3 ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1],\"long_factor\":[]}}",
        STATUS_INVALID_ARGUMENT, "'short_factor' must be a list with a number for each pair");
    bad(PHI3 ",\"rope_scaling\":{\"type\":\"linear\"}}", STATUS_INVALID_ARGUMENT, "lacks 'factor'");
    bad(PHI3 ",\"partial_rotary_factor\":1.5}", STATUS_UNIMPLEMENTED, "partial_rotary_factor 1.5");
}

#define MIXTRAL "\"architectures\":[\"MixtralForCausalLM\"]," SIZES

static void mixtral_has_experts(void **state) {
    (void)state;
    model_config c = good("{" MIXTRAL "}");
    assert_int_equal(c.family, MODEL_LLAMA);
    assert_int_equal(c.experts, 8); // transformers' defaults
    assert_int_equal(c.experts_used, 2);
    c = good("{" MIXTRAL ",\"num_local_experts\":4,\"num_experts_per_tok\":3,\"sliding_window\":"
             "null,\"router_jitter_noise\":0.1}"); // noise is for training
    assert_int_equal(c.experts, 4);
    assert_int_equal(c.experts_used, 3);
    assert_int_equal(good("{" LLAMA ",\"num_local_experts\":4}").experts, 0); // says nothing there
    bad("{" MIXTRAL ",\"num_local_experts\":0}", STATUS_INVALID_ARGUMENT, "at least 1");
    bad("{" MIXTRAL ",\"num_local_experts\":257}", STATUS_INVALID_ARGUMENT,
        "experts is 257; 1 to 256 is allowed");
    bad("{" MIXTRAL ",\"num_local_experts\":-8}", STATUS_INVALID_ARGUMENT, "experts is -8");
    bad("{" MIXTRAL ",\"num_experts_per_tok\":9}", STATUS_INVALID_ARGUMENT,
        "experts used for a token is 9; 1 to 8 is allowed");
    bad("{" MIXTRAL ",\"num_experts_per_tok\":0}", STATUS_INVALID_ARGUMENT, "is 0; 1 to 8");
    bad("{" MIXTRAL ",\"num_experts_per_tok\":17,\"num_local_experts\":64}",
        STATUS_INVALID_ARGUMENT, "is 17; 1 to 16");
    bad("{\"architectures\":[\"Qwen2MoeForCausalLM\"]," SIZES "}", STATUS_UNIMPLEMENTED,
        "'Qwen2MoeForCausalLM' is not supported");
}

#define GEMMA2 "{\"architectures\":[\"Gemma2ForCausalLM\"]," SIZES

static void gemma2_has_caps_and_norms(void **state) {
    (void)state;
    model_config c = good(GEMMA2 ",\"head_dim\":32,\"sliding_window\":100}");
    assert_true(c.post_norms && c.gelu && c.tied_embeddings && c.norm_offset == 1);
    assert_true(c.attention_cap == 50 && c.logit_cap == 30 && c.attention_scale == 1.0f / 16);
    assert_true(c.embedding_scale == sqrtf(96));
    check_windows(GEMMA2 ",\"head_dim\":32,\"sliding_window\":100}", 100, 0, 2);
    check_windows(GEMMA2 "}", 0, 0, 2);
    c = good(GEMMA2 ",\"head_dim\":32,\"query_pre_attn_scalar\":24,\"torch_dtype\":\"bfloat16\","
                    "\"attn_logit_softcapping\":null,\"final_logit_softcapping\":7.5,"
                    "\"hidden_act\":\"gelu\"}");
    assert_true(c.attention_scale == (float)(1 / sqrt(24)) && c.attention_cap == 0);
    assert_true(c.logit_cap == 7.5f);
    assert_true(c.embedding_scale == 9.8125f); // 9.798 in BF16
    assert_true(good(GEMMA2 ",\"dtype\":\"float16\"}").embedding_scale == 9.796875f);
    bad(GEMMA2 ",\"hidden_activation\":\"gelu\"}", STATUS_UNIMPLEMENTED,
        "hidden_activation 'gelu'");
    bad(GEMMA2 ",\"query_pre_attn_scalar\":0}", STATUS_INVALID_ARGUMENT, "must be above 0");
    bad(GEMMA2 ",\"final_logit_softcapping\":-1}", STATUS_INVALID_ARGUMENT, "logit soft cap is -1");
    bad(GEMMA2 ",\"use_bidirectional_attention\":true}", STATUS_UNIMPLEMENTED, "bidirectional");
}

// What config.json says of its weights, and how far the shard plan must keep columns together.
static void quantisation_is_read(void **state) {
    (void)state;
    model_config c = good("{" LLAMA "}");
    assert_int_equal(c.quant.method, QUANTISATION_NONE);
    assert_int_equal(c.ffn_block, 0);
    c = good("{" LLAMA ",\"quantization_config\":{\"quant_method\":\"fbgemm_fp8\"}}");
    assert_int_equal(c.quant.method, QUANTISATION_FP8);
    assert_int_equal(c.ffn_block, 0);
    c = good("{" LLAMA ",\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":"
             "[128,128]}}");
    assert_int_equal(c.quant.method, QUANTISATION_FP8);
    assert_int_equal(c.quant.block_cols, 128);
    assert_int_equal(c.ffn_block, 128);
    c = good("{" LLAMA ",\"quantization_config\":{\"quant_method\":\"gptq\",\"group_size\":-1}}");
    assert_int_equal(c.quant.method, QUANTISATION_GPTQ);
    assert_int_equal(c.ffn_block, 32); // 416 columns are no multiple of 128
}

static void what_cannot_be_followed_is_refused(void **state) {
    (void)state;
    bad("{\"architectures\":[\"GPT2LMHeadModel\"]," SIZES "}", STATUS_UNIMPLEMENTED,
        "'GPT2LMHeadModel' is not supported; Octant runs");
    bad("{" SIZES "}", STATUS_INVALID_ARGUMENT, "'architectures'");
    bad("{" LLAMA ",\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}",
        STATUS_UNIMPLEMENTED, "'bitsandbytes' is not supported; gptq, awq");
    bad("{" LLAMA ",\"quantization_config\":8}", STATUS_INVALID_ARGUMENT, "quant_method");
    bad("{" LLAMA ",\"hidden_act\":\"gelu\"}", STATUS_UNIMPLEMENTED, "'gelu'");
    bad("{" LLAMA ",\"attention_bias\":true}", STATUS_UNIMPLEMENTED, "attention_bias");
    bad("{" LLAMA ",\"mlp_bias\":true}", STATUS_UNIMPLEMENTED, "mlp_bias");
    bad("{" LLAMA ",\"partial_rotary_factor\":0.5}", STATUS_UNIMPLEMENTED, "partial_rotary_factor");
    bad("{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}}", STATUS_UNIMPLEMENTED,
        "'yarn'");
    bad("{" LLAMA ",\"rope_parameters\":{\"rope_type\":\"dynamic\",\"factor\":4}}",
        STATUS_UNIMPLEMENTED, "'dynamic'");
}

static void lies_are_named(void **state) {
    (void)state;
    bad("[]", STATUS_INVALID_ARGUMENT, "must be an object");
    bad("{\"architectures\":[\"LlamaForCausalLM\"]}", STATUS_INVALID_ARGUMENT,
        "'num_hidden_layers' is missing");
    bad("{" LLAMA ",\"num_key_value_heads\":4}", STATUS_INVALID_ARGUMENT,
        "6 heads are not a multiple of 4");
    bad("{" LLAMA ",\"num_key_value_heads\":0}", STATUS_INVALID_ARGUMENT, "kv_heads");
    bad("{" LLAMA ",\"head_dim\":15}", STATUS_INVALID_ARGUMENT, "head_dim is 15; it must be even");
    bad("{" LLAMA ",\"head_dim\":4096}", STATUS_INVALID_ARGUMENT, "head_dim is 4096; 1 to 1024");
    bad("{" LLAMA ",\"head_dim\":\"x\"}", STATUS_INVALID_ARGUMENT, "'head_dim' must be an integer");
    bad("{" LLAMA ",\"head_dim\":4294967312}", STATUS_INVALID_ARGUMENT,
        "'head_dim' must be an integer of 32 bits");
    bad("{" LLAMA ",\"rms_norm_eps\":-1}", STATUS_INVALID_ARGUMENT, "norm_epsilon");
    bad("{" LLAMA ",\"rope_theta\":0}", STATUS_INVALID_ARGUMENT, "rope_theta");
    bad("{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\"}}", STATUS_INVALID_ARGUMENT,
        "lacks 'factor'");
    bad("{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", STATUS_INVALID_ARGUMENT,
        "scaling factor");
    bad("{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}",
        STATUS_INVALID_ARGUMENT, "lacks 'low_freq_factor'");
    bad("{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
        "\"high_freq_factor\":4,"
        "\"original_max_position_embeddings\":64}}",
        STATUS_INVALID_ARGUMENT, "not below");
}

static void check_frequencies(const model_config *c, const double *want, int count) {
    float got[MODEL_HEAD_DIM_MAX / 2];
    assert_int_equal(c->rope_dims / 2, count);
    model_config_inv_freq(c, c->context, got);
    for (int i = 0; i < count; i++)
        if (!(fabs(got[i] - want[i]) <= 3e-7 * want[i]))
            fail_msg("frequency %d is %.9g, transformers has %.9g", i, got[i], want[i]);
}

// From tests/golden/logits/twin6-f32.logits (transformers 5.23.0; make_llama_logits.py says how):
// head_dim 32, theta 10000.
static const double llama3_frequencies[16] = {1.0,
                                              0.5623413324356079,
                                              0.24438458681106567,
                                              0.06430987268686295,
                                              0.013042256236076355,
                                              0.007029266096651554,
                                              0.0039528473280370235,
                                              0.002222849288955331,
                                              0.0012499999720603228,
                                              0.0007029266562312841,
                                              0.00039528473280370235,
                                              0.00022228492889553308,
                                              0.0001250000059371814,
                                              7.029266271274537e-05,
                                              3.9528473280370235e-05,
                                              2.2228492525755428e-05};

static void frequencies_are_those_of_transformers(void **state) {
    (void)state;
    model_config c =
        good("{" LLAMA ",\"head_dim\":32,\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 "}}");
    check_frequencies(&c, llama3_frequencies, 16);
    c = good("{" LLAMA ",\"head_dim\":32,\"rope_parameters\":{\"rope_theta\":10000.0,\"rope_type\":"
             "\"llama3\"," LLAMA3 "}}");
    check_frequencies(&c, llama3_frequencies, 16);
    double plain[16], linear[16];
    for (int i = 0; i < 16; i++) linear[i] = (plain[i] = pow(5e5, -i / 16.0)) / 4;
    c = good("{" LLAMA ",\"head_dim\":32,\"rope_theta\":500000}");
    check_frequencies(&c, plain, 16);
    c = good("{" LLAMA ",\"head_dim\":32,\"rope_theta\":500000,\"rope_scaling\":{\"type\":"
             "\"linear\",\"factor\":4}}");
    check_frequencies(&c, linear, 16);
}

static void factors_divide(void **state) {
    (void)state;
    model_config c = good("{" LLAMA ",\"head_dim\":4}");
    c.scaling = ROPE_SCALING_FACTORS;
    c.rope_factors[0] = 2;
    c.rope_factors[1] = 8;
    double want[2] = {0.5, 0.01 / 8};
    check_frequencies(&c, want, 2);
    c.rope_factors[1] = NAN;
    assert_int_equal(model_config_check(&c).code, STATUS_INVALID_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_transformers),
        cmocka_unit_test(windows_are_of_layers),
        cmocka_unit_test(phi3_has_two_lists_of_factors),
        cmocka_unit_test(mixtral_has_experts),
        cmocka_unit_test(gemma2_has_caps_and_norms),
        cmocka_unit_test(quantisation_is_read),
        cmocka_unit_test(what_cannot_be_followed_is_refused),
        cmocka_unit_test(lies_are_named),
        cmocka_unit_test(frequencies_are_those_of_transformers),
        cmocka_unit_test(factors_divide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
