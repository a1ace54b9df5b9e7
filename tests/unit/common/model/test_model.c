// model: opening files and folders that are right, wrong, incomplete or not files at all; cards;
// fingerprints.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/model/model.h"
#include "unit/common/model/gguf_builder.h"

enum { D = 4, H = 2, G = 1, C = 2, F = 8, V = 4 };

typedef struct test_folder {
    char path[64];
} test_folder;

static int make_folder(void **state) {
    test_folder *t = calloc(1, sizeof *t);
    if (!t) return -1;
    snprintf(t->path, sizeof t->path, "/tmp/octant-test-model-XXXXXX");
    *state = t;
    return mkdtemp(t->path) ? 0 : -1;
}

static int remove_folder(void **state) {
    test_folder *t = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", t->path);
    int result = system(command);
    free(t);
    return result;
}

static const char *file_in(void **state, const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", ((test_folder *)*state)->path, name);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static void write_text(void **state, const char *name, const char *text) {
    write_file(file_in(state, name), text, strlen(text));
}

static void expect_error(const char *path, status_code code, const char *words) {
    model *m;
    status s = model_open(path, NULL, &m);
    if (s.code != code || !strstr(s.message, words))
        fail_msg("wanted %d '%s', got %d '%s'", code, words, s.code, s.message);
    assert_null(m);
}

// ---- a GGUF model of one layer

typedef struct entry {
    const char *name;
    uint64_t cols, rows;
} entry;

static const entry tensors[] = {
    {"token_embd.weight", D, V},           {"output_norm.weight", D, 0},
    {"blk.0.attn_norm.weight", D, 0},      {"blk.0.attn_q.weight", D, H *C},
    {"blk.0.attn_k.weight", D, G *C},      {"blk.0.attn_v.weight", D, G *C},
    {"blk.0.attn_output.weight", H *C, D}, {"blk.0.ffn_norm.weight", D, 0},
    {"blk.0.ffn_gate.weight", D, F},       {"blk.0.ffn_up.weight", D, F},
    {"blk.0.ffn_down.weight", F, D},
};
enum { TENSORS = sizeof tensors / sizeof *tensors };

static void put_metadata(buf *b, uint32_t width) {
    static const char *const tokens[V] = {"a", "b", "ab", "</s>"};
    static const uint32_t kinds[V] = {1, 1, 1, 3};
    put_pair_text(b, "general.architecture", "llama");
    put_pair_text(b, "general.name", "one layer");
    put_pair_u32(b, "llama.block_count", 1);
    put_pair_u32(b, "llama.context_length", 64);
    put_pair_u32(b, "llama.embedding_length", width);
    put_pair_u32(b, "llama.feed_forward_length", F);
    put_pair_u32(b, "llama.attention.head_count", H);
    put_pair_u32(b, "llama.attention.head_count_kv", G);
    put_pair_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    put_pair_text(b, "tokenizer.ggml.model", "gpt2");
    put_pair_text(b, "tokenizer.ggml.pre", "gpt-2");
    put_pair_array(b, "tokenizer.ggml.tokens", GGUF_STRING, V);
    for (int i = 0; i < V; i++) put_text(b, tokens[i]);
    put_pair_array(b, "tokenizer.ggml.token_type", GGUF_I32, V);
    for (int i = 0; i < V; i++) put_u32(b, kinds[i]);
    put_pair_array(b, "tokenizer.ggml.merges", GGUF_STRING, 1);
    put_text(b, "a b");
    put_pair_u32(b, "tokenizer.ggml.eos_token_id", 3);
}
enum { PAIRS = 15 };

// Without the tensor `skip` (-1: none), with one more of the given name (NULL: none).
static buf gguf_model(uint32_t width, int skip, const char *more) {
    buf b = buf_make(1 << 20);
    put_header(&b, 3, (uint64_t)(TENSORS - (skip >= 0) + (more != NULL)), PAIRS);
    put_metadata(&b, width);
    uint64_t at = 0;
    for (int i = 0; i < TENSORS; i++) {
        if (i == skip) continue;
        put_tensor(&b, tensors[i].name, tensors[i].cols, tensors[i].rows, GGML_F32, at);
        at += (tensors[i].cols * (tensors[i].rows ? tensors[i].rows : 1) * 4 + 31) / 32 * 32;
    }
    if (more) put_tensor(&b, more, D, 0, GGML_F32, at);
    put_padding(&b, 32);
    put_zeros(&b, at + 32);
    return b;
}

static const char *write_gguf(void **state, buf b) {
    const char *path = file_in(state, "some.gguf");
    write_file(path, b.data, b.size);
    buf_free(&b);
    return path;
}

static void opens_a_gguf_file_and_its_card(void **state) {
    const char *path = write_gguf(state, gguf_model(D, -1, NULL));
    model *m, *card;
    status s = model_open(path, NULL, &m);
    assert_string_equal(s.message, "");
    assert_string_equal(model_name(m), "some");
    assert_true(model_get_config(m)->tied_embeddings);
    assert_int_equal(model_weight_bytes(m), 4 * model_config_parameters(model_get_config(m)));
    tensor t;
    assert_true(model_tensor(m, TENSOR_DOWN, 0, &t));
    assert_int_equal(t.rows, D);
    assert_int_equal(t.cols, F);
    assert_false(model_tensor(m, TENSOR_OUTPUT, 0, &t));
    assert_false(model_tensor(m, TENSOR_Q_BIAS, 0, &t));
    s = model_open_card(model_get_card(m), NULL, &card);
    assert_string_equal(s.message, "");
    assert_string_equal(model_name(card), "one layer");
    assert_string_not_equal(model_fingerprint(card), model_fingerprint(m)); // no weights in it
    assert_int_equal(strlen(model_fingerprint(m)), 32);
    assert_false(model_tensor(card, TENSOR_DOWN, 0, &t));
    assert_int_equal(tokenizer_size(model_get_tokenizer(card)), V);
    model_close(m); // the card's model does not need it
    assert_int_equal(tokenizer_find(model_get_tokenizer(card), "ab", 2), 2);
    model_close(card);
}

static void a_changed_file_is_noticed(void **state) {
    const char *path = write_gguf(state, gguf_model(D, -1, NULL));
    model *m;
    status s = model_open(path, "given", &m);
    assert_true(status_is_ok(&s));
    assert_string_equal(model_name(m), "given");
    s = model_check_files(m);
    assert_true(status_is_ok(&s));
    assert_int_equal(truncate(path, 4096), 0);
    s = model_check_files(m);
    assert_int_equal(s.code, STATUS_DATA_LOSS);
    assert_int_equal(unlink(path), 0);
    s = model_check_files(m);
    assert_true(status_is_ok(&s)); // the mapping keeps what was there
    model_close(m);
}

static void missing_strange_and_misshapen_tensors(void **state) {
    for (int i = 0; i < TENSORS; i++)
        expect_error(write_gguf(state, gguf_model(D, i, NULL)), STATUS_INVALID_ARGUMENT,
                     tensors[i].name);
    expect_error(write_gguf(state, gguf_model(D, -1, "blk.0.attn_output.bias")),
                 STATUS_UNIMPLEMENTED, "'blk.0.attn_output.bias' has no place");
    expect_error(write_gguf(state, gguf_model(D, -1, "blk.1.attn_norm.weight")),
                 STATUS_UNIMPLEMENTED, "'blk.1.attn_norm.weight' has no place");
    expect_error(write_gguf(state, gguf_model(D, -1, "blk.00.attn_norm.weight")),
                 STATUS_UNIMPLEMENTED, "has no place");
    expect_error(write_gguf(state, gguf_model(2 * D, -1, NULL)), STATUS_INVALID_ARGUMENT,
                 "config needs 4 x 8");
}

// The same file that says that it has experts, and one thing more of them (NULL: nothing).
static const char *write_mixture(void **state, uint32_t used, const char *key, uint32_t value) {
    buf b = buf_make(1 << 20);
    put_header(&b, 3, 1, PAIRS + 2 + (key != NULL));
    put_metadata(&b, D);
    put_pair_u32(&b, "llama.expert_count", 4);
    put_pair_u32(&b, "llama.expert_used_count", used);
    if (key) put_pair_u32(&b, key, value);
    put_tensor(&b, "token_embd.weight", D, V, GGML_F32, 0);
    put_padding(&b, 32);
    put_zeros(&b, D * V * 4);
    return write_gguf(state, b);
}

static void mixtures_of_experts(void **state) {
    static const struct {
        const char *key, *words;
        uint32_t value;
    } others[] = {
        {"llama.expert_shared_count", "expert_shared_count is 1; of mixtures of experts", 1},
        {"llama.expert_gating_func", "expert_gating_func is 2", 2}, // sigmoid
        {"llama.leading_dense_block_count", "leading_dense_block_count is 1", 1},
        {"llama.expert_feed_forward_length", "expert_feed_forward_length is 4", 4},
        {"llama.expert_group_count", "expert_group_count is 2", 2},
        {"llama.interleave_moe_layer_step", "interleave_moe_layer_step is 2", 2},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        expect_error(write_mixture(state, 2, others[i].key, others[i].value), STATUS_UNIMPLEMENTED,
                     others[i].words);
    expect_error(write_mixture(state, 5, NULL, 0), STATUS_INVALID_ARGUMENT,
                 "experts used for a token is 5; 1 to 4 is allowed");
    expect_error(write_mixture(state, 0, NULL, 0), STATUS_INVALID_ARGUMENT, "is 0; 1 to 4");
    // What Mixtral's files may say, too; then the tensors are looked for.
    expect_error(write_mixture(state, 2, "llama.expert_feed_forward_length", F),
                 STATUS_INVALID_ARGUMENT, "'output_norm.weight' is missing");
    expect_error(write_mixture(state, 2, "llama.expert_gating_func", 1), STATUS_INVALID_ARGUMENT,
                 "'output_norm.weight' is missing");
}

static void what_is_no_model_is_told(void **state) {
    expect_error("/nowhere/at/all", STATUS_NOT_FOUND, "No such file");
    expect_error(((test_folder *)*state)->path, STATUS_NOT_FOUND, "config.json is missing");
    expect_error("/dev/null", STATUS_INVALID_ARGUMENT, "is a device");
    write_text(state, "empty.gguf", "");
    expect_error(file_in(state, "empty.gguf"), STATUS_DATA_LOSS, "is empty");
    write_text(state, "text.gguf", "hello, this is text");
    expect_error(file_in(state, "text.gguf"), STATUS_INVALID_ARGUMENT, "not a GGUF file");
    assert_int_equal(mkfifo(file_in(state, "pipe"), 0600), 0);
    expect_error(file_in(state, "pipe"), STATUS_INVALID_ARGUMENT, "is a pipe");
    write_text(state, "closed.gguf", "GGUF");
    assert_int_equal(chmod(file_in(state, "closed.gguf"), 0), 0);
    if (geteuid() != 0)
        expect_error(file_in(state, "closed.gguf"), STATUS_PERMISSION_DENIED, "Permission denied");
}

// ---- a Hugging Face folder of one layer

static const char config_json[] = "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":4,"
                                  "\"intermediate_size\":8,\"num_hidden_layers\":1,"
                                  "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_"
                                  "size\":4,\"max_position_embeddings\":64,"
                                  "\"tie_word_embeddings\":true}";
static const char tokenizer_json[] =
    "{\"added_tokens\":[{\"id\":3,\"content\":\"</"
    "s>\",\"special\":true,\"normalized\":false,\"lstrip\":false,\"rstrip\":false,\"single_word\":"
    "false}],"
    "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
    "\"use_regex\":true},\"post_processor\":null,"
    "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,"
    "\"ab\":2,\"</s>\":3},\"merges\":[\"a b\"]}}";

static const entry folder_tensors[] = {
    {"model.embed_tokens.weight", D, V},
    {"model.norm.weight", D, 0},
    {"model.layers.0.input_layernorm.weight", D, 0},
    {"model.layers.0.self_attn.q_proj.weight", D, H *C},
    {"model.layers.0.self_attn.k_proj.weight", D, G *C},
    {"model.layers.0.self_attn.v_proj.weight", D, G *C},
    {"model.layers.0.self_attn.o_proj.weight", H *C, D},
    {"model.layers.0.post_attention_layernorm.weight", D, 0},
    {"model.layers.0.mlp.gate_proj.weight", D, F},
    {"model.layers.0.mlp.up_proj.weight", D, F},
    {"model.layers.0.mlp.down_proj.weight", F, D},
};

// The tensors [first, last) as one safetensors file in F32.
static void write_safetensors(void **state, const char *name, int first, int last) {
    buf header = buf_make(1 << 20), file = buf_make(1 << 20);
    size_t at = 0;
    for (int i = first; i < last; i++) {
        const entry *e = &folder_tensors[i];
        size_t size = e->cols * (e->rows ? e->rows : 1) * 4;
        buf_printf(&header, "%c\"%s\":{\"dtype\":\"F32\",\"shape\":[", i == first ? '{' : ',',
                   e->name);
        if (e->rows) buf_printf(&header, "%d,", (int)e->rows);
        buf_printf(&header, "%d],\"data_offsets\":[%zu,%zu]}", (int)e->cols, at, at + size);
        at += size;
    }
    buf_append_char(&header, '}');
    put_text(&file, header.data);
    put_zeros(&file, at);
    write_file(file_in(state, name), file.data, file.size);
    buf_free(&header);
    buf_free(&file);
}

static void write_index(void **state, const char *first_file) {
    buf b = buf_make(1 << 20);
    buf_append_string(&b, "{\"weight_map\":{");
    for (int i = 0; i < TENSORS; i++)
        buf_printf(&b, "%s\"%s\":\"%s\"", i ? "," : "", folder_tensors[i].name,
                   i < 5 ? first_file : "second.safetensors");
    buf_append_string(&b, "}}");
    write_text(state, "model.safetensors.index.json", b.data);
    buf_free(&b);
}

static void write_json_files(void **state) {
    write_text(state, "config.json", config_json);
    write_text(state, "tokenizer.json", tokenizer_json);
}

static model *open_folder(void **state) {
    model *m;
    status s = model_open(((test_folder *)*state)->path, NULL, &m);
    assert_string_equal(s.message, "");
    return m;
}

static void opens_a_folder_single_and_sharded(void **state) {
    write_json_files(state);
    write_safetensors(state, "model.safetensors", 0, TENSORS);
    model *m = open_folder(state);
    char single[40];
    snprintf(single, sizeof single, "%s", model_fingerprint(m));
    assert_string_equal(model_name(m), strrchr(((test_folder *)*state)->path, '/') + 1);
    model_close(m);
    assert_int_equal(unlink(file_in(state, "model.safetensors")), 0);
    write_safetensors(state, "first.safetensors", 0, 5);
    write_safetensors(state, "second.safetensors", 5, TENSORS);
    write_index(state, "first.safetensors");
    m = open_folder(state);
    assert_string_equal(model_fingerprint(m), single); // how it is cut into files does not matter
    assert_int_equal(model_weight_bytes(m), 4 * model_config_parameters(model_get_config(m)));
    tensor t;
    assert_true(model_tensor(m, TENSOR_K, 0, &t));
    assert_int_equal(t.rows, G * C);
    model *card;
    status s = model_open_card(model_get_card(m), "c", &card);
    assert_string_equal(s.message, "");
    assert_false(model_tensor(card, TENSOR_K, 0, &t));
    model_close(card);
    model_close(m);
}

static void wrong_folders(void **state) {
    const char *path = ((test_folder *)*state)->path;
    write_text(state, "config.json", config_json);
    expect_error(path, STATUS_NOT_FOUND, "tokenizer.json is missing");
    write_json_files(state);
    expect_error(path, STATUS_NOT_FOUND, "neither model.safetensors nor");
    static const char *const escapes[] = {
        "../x.safetensors", "/etc/passwd.safetensors", "..", "a/b.safetensors", "x.bin",
        ".safetensors"};
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
        write_index(state, escapes[i]);
        expect_error(path, STATUS_INVALID_ARGUMENT, "not the plain name");
    }
    write_index(state, "first.safetensors");
    expect_error(path, STATUS_NOT_FOUND, "first.safetensors");
    write_safetensors(state, "first.safetensors", 0, 4); // lacks one that the index promises
    expect_error(path, STATUS_INVALID_ARGUMENT,
                 "'model.layers.0.self_attn.k_proj.weight' is not in first.safetensors");
    write_safetensors(state, "model.safetensors", 0, TENSORS - 1);
    expect_error(path, STATUS_INVALID_ARGUMENT, "'model.layers.0.mlp.down_proj.weight' is missing");
    write_text(state, "config.json", "{");
    expect_error(path, STATUS_INVALID_ARGUMENT, "config.json: invalid JSON at line 1");
}

static void a_wrong_template_leaves_completions(void **state) {
    write_json_files(state);
    write_safetensors(state, "model.safetensors", 0, TENSORS);
    write_text(state, "chat_template.jinja", "{% for %}");
    model *m = open_folder(state);
    assert_null(model_get_template(m));
    assert_string_not_equal(model_template_error(m), "");
    model_close(m);
    write_text(state, "chat_template.jinja", "{{ messages[0].content }}");
    m = open_folder(state);
    assert_non_null(model_get_template(m));
    assert_string_equal(model_template_error(m), "");
    model_close(m);
}

static void hostile_cards(void **state) {
    (void)state;
    model *m;
    model_card card = {.count = 0};
    assert_int_equal(model_open_card(&card, NULL, &m).code, STATUS_NOT_FOUND);
    card = (model_card){.parts = {{"gguf", "GGUF", 4}}, .count = 1};
    assert_int_equal(model_open_card(&card, NULL, &m).code, STATUS_DATA_LOSS);
    card =
        (model_card){.parts = {{"config.json", "[[[[", 4}, {"tokenizer.json", "", 0}}, .count = 2};
    assert_int_equal(model_open_card(&card, NULL, &m).code, STATUS_INVALID_ARGUMENT);
    card.count = MODEL_CARD_PARTS_MAX + 1;
    assert_int_equal(model_open_card(&card, NULL, &m).code, STATUS_INVALID_ARGUMENT);
    card.count = 1;
    assert_int_equal(model_open_card(&card, "line\nbreak", &m).code, STATUS_INVALID_ARGUMENT);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests_of_model[] = {
        TEST(opens_a_gguf_file_and_its_card),
        TEST(a_changed_file_is_noticed),
        TEST(missing_strange_and_misshapen_tensors),
        TEST(mixtures_of_experts),
        TEST(what_is_no_model_is_told),
        TEST(opens_a_folder_single_and_sharded),
        TEST(wrong_folders),
        TEST(a_wrong_template_leaves_completions),
        TEST(hostile_cards),
    };
    return cmocka_run_group_tests(tests_of_model, NULL, NULL);
}
