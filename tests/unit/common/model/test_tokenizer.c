// A byte-level tokenizer and a SentencePiece-style one, both small enough to write down; and files
// that lie.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "common/base/json.h"
#include "common/base/rng.h"
#include "common/base/utf8.h"
#include "common/model/tokenizer.h"

enum { HE = 256, LL, HELL, HELLO, IM_START, IM_END, TOOL, SIZE };

// GPT-2's character for a byte.
static void append_alphabet(buf *b, int byte) {
    int shifted = byte < 33                      ? byte
                  : byte == 0xad                 ? 67
                  : byte >= 0x7f && byte <= 0xa0 ? byte - 0x7f + 33
                                                 : -1;
    char text[4];
    buf_append(b, text,
               utf8_encode(shifted < 0 ? (uint32_t)byte : (uint32_t)(0x100 + shifted), text));
}

// Byte b has id b; "hello" is made of he, ll, hell. `more` is put into the root object.
static buf byte_level_json(const char *more) {
    buf json = buf_make(1 << 20), name = buf_make(16);
    buf_append_string(&json, "{\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int byte = 0; byte < 256; byte++) {
        buf_clear(&name);
        append_alphabet(&name, byte);
        json_append_string(&json, name.data, name.size);
        buf_printf(&json, ":%d,", byte);
    }
    buf_append_string(
        &json, "\"he\":256,\"ll\":257,\"hell\":258,\"hello\":259},"
               "\"merges\":[\"h e\",[\"l\",\"l\"],\"he ll\",\"hell o\"]},"
               "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
               "\"decoder\":{\"type\":\"ByteLevel\"},"
               "\"added_tokens\":[{\"id\":260,\"content\":\"<|im_start|>\",\"special\":true},"
               "{\"id\":261,\"content\":\"<|im_end|>\",\"special\":true},"
               "{\"id\":262,\"content\":\"<tool>\",\"special\":false}]");
    buf_append_string(&json, more);
    buf_append_char(&json, '}');
    buf_free(&name);
    return json;
}

static tokenizer *open_json(const char *json, size_t size, const char *config,
                            const char *generation) {
    tokenizer *t = NULL;
    status s =
        tokenizer_open_json(json, size, config, strlen(config), generation, strlen(generation), &t);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    return t;
}

static tokenizer *open_byte_level(const char *more, const char *config, const char *generation) {
    buf json = byte_level_json(more);
    tokenizer *t = open_json(json.data, json.size, config, generation);
    buf_free(&json);
    return t;
}

static token_list encode(const tokenizer *t, const char *text, size_t size, bool special,
                         bool bos) {
    token_list ids = {0};
    status s = tokenizer_encode(t, text, size, special, bos, 1 << 20, &ids);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    return ids;
}

#define EXPECT_IDS(t, text, special, ...)                                                          \
    do {                                                                                           \
        const int32_t want[] = {__VA_ARGS__};                                                      \
        token_list got = encode(t, text, strlen(text), special, false);                            \
        assert_int_equal(got.count, sizeof want / sizeof *want);                                   \
        assert_memory_equal(got.ids, want, sizeof want);                                           \
        token_list_free(&got);                                                                     \
    } while (0)

static void expect_text(const tokenizer *t, const token_list *ids, bool special, const char *text,
                        size_t size) {
    buf out = buf_make(1 << 20);
    for (size_t i = 0; i < ids->count; i++) tokenizer_decode(t, ids->ids[i], special, i == 0, &out);
    assert_int_equal(out.size, size);
    if (size) assert_memory_equal(out.data, text, size);
    buf_free(&out);
}

static void byte_level_merges_words(void **state) {
    (void)state;
    tokenizer *t = open_byte_level("", "", "");
    assert_int_equal(tokenizer_size(t), SIZE);
    EXPECT_IDS(t, "hello", false, HELLO);
    EXPECT_IDS(t, "hello hell", false, HELLO, ' ', HELL);
    EXPECT_IDS(t, "hel lo", false, HE, 'l', ' ', 'l', 'o'); // no merge across words
    EXPECT_IDS(t, "hello<tool>", false, HELLO, TOOL);
    EXPECT_IDS(t, "<|im_end|>\n", true, IM_END, '\n');
    token_list plain = encode(t, "<|im_end|>", 10, false, false);
    assert_int_equal(plain.count, 10); // a user's text never becomes a control token
    expect_text(t, &plain, false, "<|im_end|>", 10);
    token_list_free(&plain);
    token_list none = encode(t, "", 0, true, true);
    assert_int_equal(none.count, 0);
    token_list_free(&none);
    size_t size;
    assert_memory_equal(tokenizer_token_bytes(t, HELLO, &size), "hello", 5);
    assert_int_equal(size, 5);
    tokenizer_token_bytes(t, SIZE, &size);
    assert_int_equal(size, 0);
    assert_int_equal(tokenizer_find(t, "hell", 4), HELL);
    assert_int_equal(tokenizer_find(t, "<|im_end|>", 10), IM_END);
    assert_int_equal(tokenizer_find(t, "nope", 4), -1);
    assert_true(tokenizer_is_special(t, IM_END));
    assert_false(tokenizer_is_special(t, TOOL));
    assert_false(tokenizer_is_special(t, -1));
    tokenizer_close(t);
}

static void every_byte_string_comes_back(void **state) {
    (void)state;
    static const char *const parts[] = {
        "hello",  " ",          "\xc3\xa9",     "\xe4\xb8", "\xff", "\xf0\x9f\x98\x80",
        "<tool>", "<|im_end|>", "\xed\xa0\x80", "\r\n",     "\xc2", "7"};
    tokenizer *t = open_byte_level("", "", "");
    rng r = rng_make(7);
    buf text = buf_make(4096);
    for (int i = 0; i < 3000; i++) {
        buf_clear(&text);
        for (uint64_t n = rng_below(&r, 20); n > 0; n--) {
            if (rng_below(&r, 3)) {
                buf_append_string(&text, parts[rng_below(&r, sizeof parts / sizeof *parts)]);
            } else {
                buf_append_char(&text, (char)rng_next(&r));
            }
        }
        token_list ids = encode(t, buf_string(&text), text.size, i % 2, false);
        expect_text(t, &ids, true, text.data, text.size);
        token_list_free(&ids);
    }
    buf_free(&text);
    tokenizer_close(t);
}

// Bytes that are not UTF-8 are a word of their own; what is around them is as if it stood alone.
static void bad_bytes_are_words(void **state) {
    (void)state;
    tokenizer *t = open_byte_level(",\"normalizer\":{\"type\":\"NFC\"}", "", "");
    EXPECT_IDS(t, "hello\xff\xfehello", false, HELLO, 0xff, 0xfe, HELLO);
    EXPECT_IDS(t, "e\xcc\x81\xc3", false, 0xc3, 0xa9, 0xc3);
    tokenizer_close(t);
}

static void the_list_is_bounded(void **state) {
    (void)state;
    tokenizer *t = open_byte_level("", "", "");
    token_list ids = encode(t, "hello", 5, false, false);
    status s = tokenizer_encode(t, "abc", 3, false, false, 3, &ids);
    assert_int_equal(s.code, STATUS_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(s.message, "more than 3 tokens"));
    assert_int_equal(ids.count, 1); // as it was
    s = tokenizer_encode(t, "abc", 3, false, false, 4, &ids);
    assert_true(status_is_ok(&s));
    assert_int_equal(ids.count, 4);
    token_list_free(&ids);
    tokenizer_close(t);
}

static void roles_come_from_the_files(void **state) {
    (void)state;
    const char *template =
        ",\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<|im_start|>\"}},"
        "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<|im_start|>\":{\"ids\":[260]}}}]}";
    tokenizer *t = open_byte_level(template, "{\"eos_token\":{\"content\":\"hello\"}}",
                                   "{\"eos_token_id\":[262,259,7]}");
    assert_int_equal(tokenizer_bos(t), IM_START);
    assert_int_equal(tokenizer_eos(t), HELLO);
    int count;
    const int32_t *stops = tokenizer_stop_ids(t, &count);
    const int32_t want[] = {HELLO, TOOL, 7, IM_END};
    assert_int_equal(count, 4);
    assert_memory_equal(stops, want, sizeof want);
    token_list ids = encode(t, "hello", 5, false, true);
    assert_int_equal(ids.count, 2);
    assert_int_equal(ids.ids[0], IM_START);
    token_list_free(&ids);
    tokenizer_close(t);
    t = open_byte_level(template, "{\"add_bos_token\":false}", "");
    ids = encode(t, "hello", 5, false, true);
    assert_int_equal(ids.count, 1);
    token_list_free(&ids);
    tokenizer_close(t);
}

static const char spm_json[] =
    "{\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,"
    "\"vocab\":{\"<unk>\":0,\"<0xC3>\":1,\"<0xA9>\":2,\"\xe2\x96\x81\":3,\"a\":4,\"b\":5,"
    "\"\xe2\x96\x81"
    "a\":6,\"ab\":7,\"\xe2\x96\x81"
    "ab\":8,\"\xe2\x96\x81\xe2\x96\x81\":9},"
    "\"merges\":[\"\xe2\x96\x81 a\",\"a b\",\"\xe2\x96\x81"
    "a b\",\"\xe2\x96\x81 \xe2\x96\x81\"]},"
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
    "\"\xe2\x96\x81\"},"
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{"
    "\"String\":\"\xe2\x96\x81\"},"
    "\"content\":\" "
    "\"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "
    "\",\"start\":1,"
    "\"stop\":0}]},\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},"
    "{\"id\":9,\"content\":\"\xe2\x96\x81\xe2\x96\x81\",\"special\":false}]}";

static void sentencepiece_falls_back_to_bytes(void **state) {
    (void)state;
    tokenizer *t = open_json(spm_json, strlen(spm_json), "", "");
    EXPECT_IDS(t, "ab ab", false, 8, 8);
    EXPECT_IDS(t, "ba", false, 3, 5, 4);
    EXPECT_IDS(t, "a\xc3\xa9", false, 6, 1, 2);
    EXPECT_IDS(t, "a\xc3", false, 6, 1);        // a bad byte that has a token
    EXPECT_IDS(t, "axyb", false, 6, 0, 5);      // no bytes for x and y: one <unk>
    EXPECT_IDS(t, "a<unk>b", true, 6, 0, 3, 5); // what follows an added token has its own prefix
    EXPECT_IDS(t, "b   b", false, 3, 5, 9, 3, 5);
    token_list ids = encode(t, "b   b", 5, false, false);
    expect_text(t, &ids, false, "b   b", 5); // an added token's spaces are spaces, too
    token_list_free(&ids);
    ids = encode(t, " ab\xc3\xa9 a", 7, false, false);
    expect_text(t, &ids, false, " ab\xc3\xa9 a", 7); // one space of two is the prefix
    token_list_free(&ids);
    tokenizer_close(t);
}

static void refuses(const char *json, size_t size, const char *part) {
    tokenizer *t = NULL;
    status s = tokenizer_open_json(json, size, "", 0, "", 0, &t);
    assert_null(t);
    if (status_is_ok(&s) || !strstr(s.message, part)) fail_msg("'%s' lacks '%s'", s.message, part);
    assert_null(strchr(s.message, '\n'));
}

static void lying_files_get_one_line(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "model: an object is needed"},
        {"[]", "an object is needed"},
        {"{", "invalid JSON at line 1"},
        {"{\"model\":{\"type\":\"Unigram\"}}", "only BPE"},
        {"{\"model\":{\"vocab\":[],\"merges\":[]}}", "model.vocab"},
        {"{\"model\":{\"vocab\":{},\"merges\":[]}}", "0 tokens"},
        {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "'a' has no id"},
        {"{\"model\":{\"vocab\":{\"a\":1e3},\"merges\":[]}}", "'a' has no id"},
        {"{\"model\":{\"vocab\":{\"a\":9223372036854775807},\"merges\":[]}}", "'a' has no id"},
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "id 0 is given twice"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":{}}}", "model.merges"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "merge 0 is 'a'"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a \"]}}", "merge 0"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "model.merges[0]"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "not in the vocabulary"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", "not in the vocabulary"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", "dropout"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}",
         "end_of_word_suffix"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":7}", "added_tokens"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":[{}]}",
         "added_tokens[0]"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":[{\"id\":0,\"content\":"
         "\"b\"}]}",
         "gives id 0 to 'b', which is 'a'"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":[{\"id\":1,\"content\":"
         "\"\"}]}",
         "0 bytes"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":\"Lowercase\"}}",
         "'Lowercase'"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":\"NFC\"}", "normalizer"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":\"Sequence\"}}",
         "without its list"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":\"Replace\","
         "\"pattern\":"
         "{\"String\":\"\"},\"content\":\"x\"}}",
         "pattern is empty"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{\"type\":\"Split\","
         "\"behavior\":\"Isolated\","
         "\"pattern\":{\"Regex\":\"(\"}}}",
         "regular expression '('"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{\"type\":\"Split\","
         "\"behavior\":\"Odd\","
         "\"pattern\":{\"String\":\" \"}}}",
         "behavior"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"decoder\":{\"type\":\"WordPiece\"}}",
         "'WordPiece'"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"post_processor\":{\"type\":"
         "\"TemplateProcessing\",\"single\":"
         "[{\"SpecialToken\":{\"id\":\"x\"}}],\"special_tokens\":{\"x\":{\"ids\":[5]}}}}",
         "special_tokens"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuses(cases[i][0], strlen(cases[i][0]), cases[i][1]);
    buf deep = buf_make(1 << 20);
    buf_append_string(&deep, "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":");
    for (int i = 0; i < 100; i++)
        buf_append_string(&deep, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 100; i++) buf_append_string(&deep, "]}");
    buf_append_char(&deep, '}');
    refuses(deep.data, deep.size, "nested too deeply");
    buf_free(&deep);
}

static void *encode_many(void *argument) {
    const tokenizer *t = argument;
    for (int i = 0; i < 300; i++) {
        token_list ids = {0};
        status s = tokenizer_encode(t, "hello <|im_end|> hello\xff", 23, true, false, 100, &ids);
        bool right =
            status_is_ok(&s) && ids.count == 6 && ids.ids[2] == IM_END && ids.ids[4] == HELLO;
        token_list_free(&ids);
        if (!right) return argument;
    }
    return NULL;
}

static void threads_share_one(void **state) {
    (void)state;
    tokenizer *t = open_byte_level("", "", "");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_many, t), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level_merges_words),
        cmocka_unit_test(every_byte_string_comes_back),
        cmocka_unit_test(bad_bytes_are_words),
        cmocka_unit_test(the_list_is_bounded),
        cmocka_unit_test(roles_come_from_the_files),
        cmocka_unit_test(sentencepiece_falls_back_to_bytes),
        cmocka_unit_test(lying_files_get_one_line),
        cmocka_unit_test(threads_share_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
