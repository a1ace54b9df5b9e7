// tiny_model: a model card of a few kilobytes, made in memory: byte-level tokens 0 to 255 (each
// byte is a token), 256 is the end, and a small chat template. Enough for everything in front of
// the core.
#ifndef OCTANT_TESTS_TINY_MODEL_H
#define OCTANT_TESTS_TINY_MODEL_H

#include <assert.h>
#include <stdio.h>

#include "common/base/buf.h"
#include "common/base/json.h"
#include "common/base/utf8.h"
#include "coordinator/model_registry.h"

enum { TINY_VOCAB = 258, TINY_EOS = 256, TINY_CONTEXT = 512 };

static const char TINY_CONFIG[] = "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":"
                                  "\"llama\",\"hidden_size\":32,\"intermediate_size\":64,"
                                  "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"num_"
                                  "hidden_layers\":2,\"rms_norm_eps\":1e-5,"
                                  "\"rope_theta\":10000.0,\"vocab_size\":258,\"max_position_"
                                  "embeddings\":512,\"tie_word_embeddings\":true,"
                                  "\"bos_token_id\":257,\"eos_token_id\":256,\"torch_dtype\":"
                                  "\"float32\",\"hidden_act\":\"silu\"}";

static const char TINY_TEMPLATE[] =
    "{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant', 'tool'] %}"
    "{{ raise_exception('bad role') }}{% endif %}[{{ m.role }}]{{ m.content }}\n{% endfor "
    "%}[assistant]";

// GPT-2's map from bytes to printable characters.
static inline uint32_t tiny_character(int byte) {
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174)
        return (uint32_t)byte;
    uint32_t next = 256;
    for (int i = 0; i < byte; i++)
        if (!((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174)) next++;
    return next;
}

static inline void tiny_tokenizer(buf *out) {
    buf_append_string(
        out,
        "{\"version\":\"1.0\",\"added_tokens\":["
        "{\"id\":256,\"content\":\"<end>\",\"special\":true,\"single_word\":false,\"lstrip\":false,"
        "\"rstrip\":false,\"normalized\":false},"
        "{\"id\":257,\"content\":\"<begin>\",\"special\":true,\"single_word\":false,"
        "\"lstrip\":false,\"rstrip\":false,\"normalized\":false}],"
        "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,"
        "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"
        "\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
        "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
        "\"byte_fallback\":false,\"vocab\":{");
    for (int byte = 0; byte < 256; byte++) {
        char text[4];
        size_t size = utf8_encode(tiny_character(byte), text);
        if (byte) buf_append_char(out, ',');
        json_append_string(out, text, size);
        buf_printf(out, ":%d", byte);
    }
    buf_append_string(out, ",\"<end>\":256,\"<begin>\":257},\"merges\":[]}}");
}

// Registers the model under `name`. The fingerprint is what the opened card says.
static inline void tiny_model_add(model_registry *models, const char *name) {
    static const char config[] =
        "{\"eos_token\":\"<end>\",\"bos_token\":\"<begin>\",\"add_bos_token\":false}";
    buf json = buf_make(1 << 20);
    tiny_tokenizer(&json);
    model_card card = {.count = 4,
                       .parts = {{"config.json", TINY_CONFIG, sizeof TINY_CONFIG - 1},
                                 {"tokenizer.json", json.data, json.size},
                                 {"tokenizer_config.json", config, sizeof config - 1},
                                 {"chat_template.jinja", TINY_TEMPLATE, sizeof TINY_TEMPLATE - 1}}};
    model *opened;
    status s = model_open_card(&card, name, &opened);
    if (s.code != STATUS_OK) fprintf(stderr, "%s\n", s.message);
    assert(s.code == STATUS_OK);
    served_model *served = NULL;
    s = model_registry_open(models, name, model_fingerprint(opened), &card, &served);
    if (s.code == STATUS_OK) s = model_registry_publish(models, served);
    assert(s.code == STATUS_OK);
    served_model_release(served);
    model_close(opened);
    buf_free(&json);
}

#endif
