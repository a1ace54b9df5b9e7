// GGUF headers are written here byte by byte, so that each key can lie on its own.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "common/base/buf.h"
#include "common/model/gguf.h"
#include "common/model/tokenizer.h"

typedef struct header {
    buf body;
    uint64_t keys;
} header;

static void put(buf *b, const void *bytes, size_t size) {
    assert_true(buf_append(b, bytes, size));
}

static void put_u32(buf *b, uint32_t value) {
    put(b, &value, sizeof value);
}

static void put_u64(buf *b, uint64_t value) {
    put(b, &value, sizeof value);
}

static void put_string(buf *b, const char *text) {
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

static void key(header *h, const char *name, gguf_type type) {
    put_string(&h->body, name);
    put_u32(&h->body, type);
    h->keys++;
}

static void add_string(header *h, const char *name, const char *text) {
    key(h, name, GGUF_STRING);
    put_string(&h->body, text);
}

static void add_u32(header *h, const char *name, uint32_t value) {
    key(h, name, GGUF_U32);
    put_u32(&h->body, value);
}

static void add_bool(header *h, const char *name, bool value) {
    key(h, name, GGUF_BOOL);
    put(&h->body, &value, 1);
}

static void add_strings(header *h, const char *name, const char *const *texts, size_t count) {
    key(h, name, GGUF_ARRAY);
    put_u32(&h->body, GGUF_STRING);
    put_u64(&h->body, count);
    for (size_t i = 0; i < count; i++) put_string(&h->body, texts[i]);
}

static void add_words(header *h, const char *name, gguf_type type, const void *words,
                      size_t count) {
    key(h, name, GGUF_ARRAY);
    put_u32(&h->body, type);
    put_u64(&h->body, count);
    put(&h->body, words, 4 * count);
}

// Opens what was written; *message gets the error.
static tokenizer *open_header(header *h, char message[STATUS_MESSAGE_MAX]) {
    buf file = buf_make(1 << 20);
    put(&file, "GGUF", 4);
    put_u32(&file, 3);
    put_u64(&file, 0);
    put_u64(&file, h->keys);
    put(&file, h->body.data, h->body.size);
    gguf *g = NULL;
    tokenizer *t = NULL;
    status s = gguf_open(file.data, file.size, GGUF_HEADER_ONLY, &g);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    s = tokenizer_open_gguf(g, &t);
    strcpy(message, s.message);
    assert_int_equal(t != NULL, status_is_ok(&s));
    gguf_close(g);
    buf_free(&file);
    buf_free(&h->body);
    h->keys = 0;
    return t;
}

static void expect_ids(const tokenizer *t, const char *text, bool special, const int32_t *want,
                       size_t count) {
    token_list ids = {0};
    status s = tokenizer_encode(t, text, strlen(text), special, true, 1000, &ids);
    assert_true(status_is_ok(&s));
    assert_int_equal(ids.count, count);
    assert_memory_equal(ids.ids, want, count * sizeof *want);
    token_list_free(&ids);
}

#define EXPECT_IDS(t, text, special, ...)                                                          \
    do {                                                                                           \
        const int32_t want_[] = {__VA_ARGS__};                                                     \
        expect_ids(t, text, special, want_, sizeof want_ / sizeof *want_);                         \
    } while (0)

static const char *const spm_tokens[] = {"<unk>", "<s>",     "</s>", "<0x41>", "\u2581", "a",
                                         "b",     "\u2581a", "ab",   "ba",     "<t>"};
static const float spm_scores[] = {0, 0, 0, 0, -9, -8, -7, -3, -2, -1, 0};
static const int32_t spm_types[] = {2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 4};
enum { SPM_COUNT = 11 };

static void add_spm(header *h, const float *scores, const int32_t *types, size_t count) {
    add_string(h, "tokenizer.ggml.model", "llama");
    add_strings(h, "tokenizer.ggml.tokens", spm_tokens, SPM_COUNT);
    add_words(h, "tokenizer.ggml.scores", GGUF_F32, scores, count);
    add_words(h, "tokenizer.ggml.token_type", GGUF_I32, types, count);
    add_u32(h, "tokenizer.ggml.bos_token_id", 1);
    add_u32(h, "tokenizer.ggml.eos_token_id", 2);
    add_u32(h, "tokenizer.ggml.unknown_token_id", 0);
}

static void scores_decide_what_merges(void **state) {
    (void)state;
    char message[STATUS_MESSAGE_MAX];
    header h = {.body = buf_make(1 << 20)};
    add_spm(&h, spm_scores, spm_types, SPM_COUNT);
    add_u32(&h, "tokenizer.ggml.eot_token_id", 10);
    tokenizer *t = open_header(&h, message);
    assert_non_null(t);
    EXPECT_IDS(t, "aba", false, 1, 7, 9);     // ba is better than ab and than _a
    EXPECT_IDS(t, "baab", false, 1, 4, 9, 8); // the prefix stays alone
    EXPECT_IDS(t, "A", false, 1, 4, 3);       // a byte token
    EXPECT_IDS(t, "C", false, 1, 4, 0);       // unknown
    EXPECT_IDS(t, "<s>", true, 1, 1);
    EXPECT_IDS(t, "b<t>b", false, 1, 4, 6, 10, 4, 6); // plain added tokens are always found
    int count;
    const int32_t *stops = tokenizer_stop_ids(t, &count);
    assert_int_equal(count, 2);
    assert_int_equal(stops[0], 2);
    assert_int_equal(stops[1], 10);
    buf out = buf_make(100);
    tokenizer_decode(t, 7, false, true, &out);
    tokenizer_decode(t, 7, false, false, &out);
    tokenizer_decode(t, 3, false, false, &out);
    tokenizer_decode(t, 2, false, false, &out);
    tokenizer_decode(t, 2, true, false, &out);
    assert_string_equal(buf_string(&out), "a aA</s>");
    buf_free(&out);
    tokenizer_close(t);

    h.body = buf_make(1 << 20);
    add_spm(&h, spm_scores, spm_types, SPM_COUNT);
    add_bool(&h, "tokenizer.ggml.add_space_prefix", false);
    add_bool(&h, "tokenizer.ggml.add_bos_token", false);
    t = open_header(&h, message);
    assert_non_null(t);
    EXPECT_IDS(t, "aba", false, 5, 9);
    tokenizer_close(t);
}

static void refused(header *h, const char *part) {
    char message[STATUS_MESSAGE_MAX];
    assert_null(open_header(h, message));
    if (!strstr(message, part)) fail_msg("'%s' lacks '%s'", message, part);
    h->body = buf_make(1 << 20);
}

static void lying_scores_are_refused(void **state) {
    (void)state;
    header h = {.body = buf_make(1 << 20)};
    refused(&h, "tokenizer.ggml.model");
    add_string(&h, "tokenizer.ggml.model", "bert");
    refused(&h, "'bert'");
    add_u32(&h, "tokenizer.ggml.model", 7);
    refused(&h, "tokenizer.ggml.model");
    add_spm(&h, spm_scores, spm_types, SPM_COUNT - 1);
    refused(&h, "token_type has 10 items for 11 tokens");
    float scores[SPM_COUNT];
    memcpy(scores, spm_scores, sizeof scores);
    scores[5] = NAN;
    add_spm(&h, scores, spm_types, SPM_COUNT);
    refused(&h, "scores[5] is not a finite number");
    int32_t types[SPM_COUNT];
    memcpy(types, spm_types, sizeof types);
    types[4] = 9;
    add_spm(&h, spm_scores, types, SPM_COUNT);
    refused(&h, "token_type[4] is 9");
    add_spm(&h, spm_scores, spm_types, SPM_COUNT);
    add_u32(&h, "tokenizer.ggml.eot_token_id", 11);
    refused(&h, "eot_token_id is 11");
    add_string(&h, "tokenizer.ggml.model", "llama");
    add_strings(&h, "tokenizer.ggml.tokens", spm_tokens, 0);
    refused(&h, "0 tokens");
    const char *twice[] = {"a", "b", "a"};
    add_string(&h, "tokenizer.ggml.model", "llama");
    add_strings(&h, "tokenizer.ggml.tokens", twice, 3);
    refused(&h, "tokens 0 and 2 have the same text 'a'");
    buf_free(&h.body);
}

static void add_gpt2(header *h, const char *pre, const char *const *merges, size_t count) {
    static const char *const tokens[] = {"a", "b", "\u0120", "ab", "\u0120ab", "1", "<|x|>"};
    static const int32_t types[] = {1, 1, 1, 1, 1, 1, 3};
    add_string(h, "tokenizer.ggml.model", "gpt2");
    if (pre) add_string(h, "tokenizer.ggml.pre", pre);
    add_strings(h, "tokenizer.ggml.tokens", tokens, 7);
    add_words(h, "tokenizer.ggml.token_type", GGUF_I32, types, 7);
    add_strings(h, "tokenizer.ggml.merges", merges, count);
}

static void merges_decide_at_byte_level(void **state) {
    (void)state;
    static const char *const merges[] = {"a b", "\u0120 ab"};
    char message[STATUS_MESSAGE_MAX];
    header h = {.body = buf_make(1 << 20)};
    add_gpt2(&h, "smollm", merges, 2);
    tokenizer *t = open_header(&h, message);
    assert_non_null(t);
    EXPECT_IDS(t, "ab ab11<|x|>", true, 3, 4, 5, 5, 6);
    EXPECT_IDS(t, "ab?", true, 3); // no token for '?': left out
    tokenizer_close(t);
    h.body = buf_make(1 << 20);
    add_gpt2(&h, NULL, merges, 2);
    t = open_header(&h, message);
    assert_non_null(t);
    tokenizer_close(t);
}

static void lying_merges_are_refused(void **state) {
    (void)state;
    static const char *const merges[] = {"a b", "ab", "b a", "a"};
    header h = {.body = buf_make(1 << 20)};
    add_gpt2(&h, "klingon", merges, 1);
    refused(&h, "'klingon'");
    add_gpt2(&h, "gpt-2", merges, 2);
    refused(&h, "merge 1 is 'ab'");
    add_gpt2(&h, "gpt-2", merges + 2, 1);
    refused(&h, "merge 0 joins 'b' and 'a'");
    add_string(&h, "tokenizer.ggml.model", "gpt2");
    refused(&h, "tokenizer.ggml.tokens");
    buf_free(&h.body);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_decide_what_merges),
        cmocka_unit_test(lying_scores_are_refused),
        cmocka_unit_test(merges_decide_at_byte_level),
        cmocka_unit_test(lying_merges_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
