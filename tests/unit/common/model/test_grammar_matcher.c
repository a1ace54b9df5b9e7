// Masks beside the truth: at each step of random answers, every token of the vocabulary is tried on
// a matcher of its own. And what a mask must be: never empty, the same however the answer came
// there, with or without what earlier answers left behind.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/rng.h"
#include "common/model/grammar_matcher.h"
#include "unit/common/model/byte_tokenizer.h"

enum { WORDS = (BYTE_TOKENIZER_SIZE + 31) / 32, STEPS = 40 };

typedef struct setting {
    tokenizer *t;
    grammar_vocab *v;
    grammar *g;
    grammar_masks *m;
} setting;

static setting open_setting(grammar_kind kind, const char *text) {
    setting s = {.t = byte_tokenizer_open(NULL)};
    assert_non_null(s.t);
    status made = grammar_vocab_create(s.t, BYTE_TOKENIZER_SIZE, &s.v);
    assert_true(status_is_ok(&made));
    grammar_source source = {kind, text, strlen(text)};
    made = grammar_compile(&source, &s.v->alphabet, &s.g);
    if (!status_is_ok(&made)) fail_msg("%s: %s", text, made.message);
    made = grammar_masks_create(s.g, s.v, &s.m);
    assert_true(status_is_ok(&made));
    return s;
}

static void close_setting(setting *s) {
    grammar_masks_destroy(s->m);
    grammar_destroy(s->g);
    grammar_vocab_destroy(s->v);
    tokenizer_close(s->t);
}

static bool has(const uint32_t *mask, int32_t token) {
    return mask[token / 32] >> token % 32 & 1;
}

static grammar_matcher *replayed(grammar_masks *m, const int32_t *tokens, int count) {
    grammar_matcher *x = grammar_matcher_create(m);
    assert_non_null(x);
    for (int i = 0; i < count; i++) assert_true(grammar_matcher_take(x, tokens[i]));
    return x;
}

// A mask may leave out long tokens where a bound is near; it may let nothing in that is refused.
static void check_mask(const setting *s, const uint32_t *mask, const int32_t *tokens, int count,
                       bool exact) {
    for (int32_t token = 0; token < BYTE_TOKENIZER_SIZE; token++) {
        grammar_matcher *x = replayed(s->m, tokens, count);
        bool may = grammar_matcher_take(x, token);
        bool left_out = !exact && has(s->v->is_long, token) && !has(mask, token);
        if (may != has(mask, token) && !left_out)
            fail_msg("token %d after %d others: %d, not %d", (int)token, count, has(mask, token),
                     may);
        grammar_matcher_destroy(x);
    }
}

static int32_t pick(const uint32_t *mask, uint64_t random) {
    int32_t allowed[BYTE_TOKENIZER_SIZE], count = 0;
    for (int32_t token = 0; token < BYTE_TOKENIZER_SIZE; token++)
        if (has(mask, token)) allowed[count++] = token;
    assert_true(count > 0);
    return allowed[random % (uint64_t)count];
}

static void walk(const setting *s, uint64_t seed, bool exact) {
    int32_t tokens[STEPS];
    uint32_t mask[WORDS], again[WORDS];
    grammar_matcher *x = grammar_matcher_create(s->m);
    assert_non_null(x);
    for (int i = 0; i < STEPS; i++) {
        grammar_matcher_mask(x, mask);
        check_mask(s, mask, tokens, i, exact);
        grammar_masks *fresh = NULL;
        status made = grammar_masks_create(s->g, s->v, &fresh);
        assert_true(status_is_ok(&made));
        grammar_matcher *other = replayed(fresh, tokens, i);
        grammar_matcher_mask(other, again);
        assert_memory_equal(mask, again, sizeof mask);
        grammar_matcher_destroy(other);
        grammar_masks_destroy(fresh);
        tokens[i] = pick(mask, rng_draw_bits(seed, (uint64_t)i));
        assert_true(grammar_matcher_take(x, tokens[i]));
    }
    grammar_matcher_destroy(x);
}

static const struct {
    grammar_kind kind;
    const char *text;
    bool exact; // no string's bound is near
} GRAMMARS[] = {
    {GRAMMAR_JSON, "", true},
    {GRAMMAR_SCHEMA,
     "{\"properties\":{\"ab\":{\"type\":\"string\"},\"abc\":{\"type\":\"array\",\"items\":{"
     "\"type\":"
     "\"integer\",\"maximum\":1300},\"maxItems\":30}},\"additionalProperties\":true}",
     true},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"minLength\":2,\"maxLength\":40}}",
     false},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"(a|\xc3\xa9|\\\\n|\\\"){1,"
     "30}\"}}",
     true},
    {GRAMMAR_SCHEMA,
     "{\"$defs\":{\"t\":{\"type\":\"array\",\"items\":{\"anyOf\":[{\"$ref\":\"#/$defs/"
     "t\"},{\"$ref\":"
     "\"#/$defs/t\"},{\"const\":\"abc\"}]}}},\"$ref\":\"#/$defs/t\"}",
     true},
    {GRAMMAR_SCHEMA, "{\"type\":\"string\",\"minLength\":40}", false},
    {GRAMMAR_REGEX, "(a|ab|abc|[^\"]){0,50}", true},
};

static void masks_are_the_truth(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof GRAMMARS / sizeof *GRAMMARS; i++) {
        setting s = open_setting(GRAMMARS[i].kind, GRAMMARS[i].text);
        for (uint64_t seed = 1; seed <= 2; seed++) walk(&s, seed, GRAMMARS[i].exact);
        close_setting(&s);
    }
}

// As deep as it may go: then only what closes is left, and the end is reached.
static void ends_at_the_deepest(void **state) {
    (void)state;
    setting s = open_setting(
        GRAMMAR_SCHEMA, "{\"$ref\":\"#/$defs/t\",\"$defs\":{\"t\":{\"type\":\"array\",\"items\":"
                        "{\"$ref\":\"#/$defs/t\"}}}}");
    grammar_matcher *x = grammar_matcher_create(s.m);
    assert_non_null(x);
    uint32_t mask[WORDS];
    int depth = 0;
    for (grammar_matcher_mask(x, mask); has(mask, '['); grammar_matcher_mask(x, mask), depth++)
        assert_true(grammar_matcher_take(x, '['));
    assert_in_range(depth, 20, GRAMMAR_DEPTH_MAX);
    for (; depth > 0; depth--) {
        grammar_matcher_mask(x, mask);
        assert_true(has(mask, ']'));
        assert_true(grammar_matcher_take(x, ']'));
    }
    assert_true(grammar_matcher_may_end(x));
    grammar_matcher_destroy(x);
    close_setting(&s);
}

static void ends_where_it_may(void **state) {
    (void)state;
    setting s = open_setting(GRAMMAR_CHOICE, "[\"ab\"]");
    grammar_matcher *x = grammar_matcher_create(s.m);
    uint32_t mask[WORDS];
    assert_false(grammar_matcher_take(x, BYTE_TOKENIZER_END));
    assert_false(grammar_matcher_take(x, -1));
    assert_false(grammar_matcher_take(x, BYTE_TOKENIZER_SIZE));
    assert_true(grammar_matcher_take(x, 'a'));
    assert_true(grammar_matcher_take(x, 'b'));
    for (int i = 0; i < 2; i++) { // the end, and then nothing but the end
        grammar_matcher_mask(x, mask);
        for (int32_t token = 0; token < BYTE_TOKENIZER_SIZE; token++)
            assert_int_equal(has(mask, token), token == BYTE_TOKENIZER_END);
        assert_true(grammar_matcher_take(x, BYTE_TOKENIZER_END));
        assert_false(grammar_matcher_take(x, 'a'));
    }
    grammar_matcher_destroy(x);
    close_setting(&s);
}

// A byte that is no token is in no text, so the mask never leads where only that byte goes on.
static void keeps_to_the_alphabet(void **state) {
    (void)state;
    tokenizer *t = byte_tokenizer_open("z\xc3");
    grammar_vocab *v = NULL;
    grammar *g = NULL;
    grammar_masks *m = NULL;
    status s = grammar_vocab_create(t, BYTE_TOKENIZER_SIZE, &v);
    assert_true(status_is_ok(&s));
    assert_false(grammar_alphabet_has(&v->alphabet, 'z'));
    grammar_alphabet alone = grammar_alphabet_of(t, BYTE_TOKENIZER_SIZE);
    assert_memory_equal(&alone, &v->alphabet, sizeof alone);
    grammar_source source = {GRAMMAR_REGEX, "xz|xy", 5};
    s = grammar_compile(&source, &v->alphabet, &g);
    assert_true(status_is_ok(&s));
    s = grammar_masks_create(g, v, &m);
    assert_true(status_is_ok(&s));
    grammar_matcher *x = grammar_matcher_create(m);
    uint32_t mask[WORDS];
    assert_true(grammar_matcher_take(x, 'x'));
    grammar_matcher_mask(x, mask);
    assert_true(has(mask, 'y'));
    assert_false(has(mask, 'z'));
    grammar_matcher_destroy(x);
    grammar_masks_destroy(m);
    grammar_destroy(g);
    grammar_vocab_destroy(v);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_the_truth),
        cmocka_unit_test(ends_at_the_deepest),
        cmocka_unit_test(ends_where_it_may),
        cmocka_unit_test(keeps_to_the_alphabet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
