// Words are listed as "a|b|c", so that each behaviour reads as its documentation does.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/buf.h"
#include "common/model/pretokenize.h"

static status add_word(void *user, const char *word, size_t size) {
    buf *out = user;
    if (out->size) buf_append_char(out, '|');
    buf_append(out, word, size);
    return status_ok();
}

static status cut(const pretokenizer *p, const char *text, size_t size, buf *out) {
    pretokenize_scratch scratch = {0};
    status s = pretokenize(p, &scratch, text, size, add_word, out);
    pretokenize_scratch_free(&scratch);
    return s;
}

static void expect(const pretokenizer *p, const char *text, const char *words) {
    buf out = buf_make(1 << 20);
    status s = cut(p, text, strlen(text), &out);
    assert_true(status_is_ok(&s));
    assert_string_equal(buf_string(&out), words);
    buf_free(&out);
}

static void add(pretokenizer *p, const char *pattern, split_behavior behavior, bool invert) {
    status s = pretokenizer_add(p, pattern, strlen(pattern), behavior, invert);
    assert_true(status_is_ok(&s));
}

static void behaviors_are_those_of_tokenizers(void **state) {
    (void)state;
    // tokenizers' documentation of SplitDelimiterBehavior has this text and these results.
    static const struct {
        split_behavior behavior;
        const char *words;
    } cases[] = {
        {SPLIT_REMOVED, "the|final|countdown"},
        {SPLIT_ISOLATED, "the|-|final|-|-|countdown"},
        {SPLIT_WITH_PREVIOUS, "the-|final-|-|countdown"},
        {SPLIT_WITH_NEXT, "the|-final|-|-countdown"},
        {SPLIT_CONTIGUOUS, "the|-|final|--|countdown"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pretokenizer p = {0};
        add(&p, "-", cases[i].behavior, false);
        expect(&p, "the-final--countdown", cases[i].words);
        pretokenizer_free(&p);
    }
}

static void steps_cut_what_the_ones_before_left(void **state) {
    (void)state;
    pretokenizer p = {0};
    expect(&p, "as it is", "as it is");
    expect(&p, "", "");
    add(&p, "\\p{N}", SPLIT_ISOLATED, false);
    add(&p, "\\s+", SPLIT_REMOVED, false);
    expect(&p, "a 12 b c", "a|1|2|b|c");
    pretokenizer_free(&p);
    add(&p, "\\w+|[^\\w\\s]+", SPLIT_REMOVED, true);
    expect(&p, " Hey friend!  How's\tit?", "Hey|friend|!|How|'|s|it|?");
    pretokenizer_free(&p);
}

static void a_literal_is_not_an_expression(void **state) {
    (void)state;
    pretokenizer p = {0};
    status s = pretokenizer_add_literal(&p, ".*", 2, SPLIT_ISOLATED, false);
    assert_true(status_is_ok(&s));
    expect(&p, "abc.*d*", "abc|.*|d*");
    pretokenizer_free(&p);
}

static void spaces_are_unicodes(void **state) {
    (void)state;
    pretokenizer p = {0};
    add(&p, "\\s", SPLIT_ISOLATED, false);
    expect(&p,
           "a\xc2\xa0"
           "b\xe3\x80\x80"
           "c\xc2\x85"
           "d",
           "a|\xc2\xa0|b|\xe3\x80\x80|c|\xc2\x85|d");
    expect(&p,
           "a\xe1\xa0\x8e"
           "b",
           "a\xe1\xa0\x8e"
           "b"); // U+180E is none, though PCRE2's \s has it
    pretokenizer_free(&p);
}

static void empty_matches_end(void **state) {
    (void)state;
    pretokenizer p = {0};
    add(&p, "x*", SPLIT_ISOLATED, false);
    expect(&p, "aaxxbb", "aa|xx|bb");
    pretokenizer_free(&p);
    add(&p, "(?=b)|(?<=a)", SPLIT_ISOLATED, false);
    expect(&p, "ab", "ab");
    pretokenizer_free(&p);
}

static void refuses(const char *pattern, size_t size, status_code code, const char *part) {
    pretokenizer p = {0};
    status s = pretokenizer_add(&p, pattern, size, SPLIT_ISOLATED, false);
    assert_int_equal(s.code, code);
    assert_non_null(strstr(s.message, part));
    pretokenizer_free(&p);
}

static void bad_expressions_are_refused(void **state) {
    (void)state;
    refuses("a(b", 3, STATUS_INVALID_ARGUMENT, "missing closing parenthesis");
    refuses("\\p{Nope}", 8, STATUS_INVALID_ARGUMENT, "fails at byte");
    refuses("", 0, STATUS_INVALID_ARGUMENT, "0 bytes");
    refuses("\xff", 1, STATUS_INVALID_ARGUMENT, "UTF-8");
    char *deep = malloc(PRETOKENIZE_PATTERN_MAX + 1);
    memset(deep, '(', PRETOKENIZE_PATTERN_MAX + 1);
    refuses(deep, PRETOKENIZE_PATTERN_MAX, STATUS_INVALID_ARGUMENT, "nested");
    refuses(deep, PRETOKENIZE_PATTERN_MAX + 1, STATUS_INVALID_ARGUMENT, "are possible");
    free(deep);
    pretokenizer p = {0};
    for (int i = 0; i < PRETOKENIZE_STEPS_MAX; i++) add(&p, "a", SPLIT_ISOLATED, false);
    status s = pretokenizer_add(&p, "a", 1, SPLIT_ISOLATED, false);
    assert_int_equal(s.code, STATUS_UNIMPLEMENTED);
    pretokenizer_free(&p);
}

static void an_expensive_match_gives_up(void **state) {
    (void)state;
    pretokenizer p = {0};
    add(&p, "(a+)+\\d", SPLIT_ISOLATED, false);
    char text[64];
    memset(text, 'a', sizeof text);
    text[63] = 'c';
    buf out = buf_make(1 << 20);
    status s = cut(&p, text, sizeof text, &out);
    assert_int_equal(s.code, STATUS_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(s.message, "match limit"));
    buf_free(&out);
    pretokenizer_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behaviors_are_those_of_tokenizers),
        cmocka_unit_test(steps_cut_what_the_ones_before_left),
        cmocka_unit_test(a_literal_is_not_an_expression),
        cmocka_unit_test(spaces_are_unicodes),
        cmocka_unit_test(empty_matches_end),
        cmocka_unit_test(bad_expressions_are_refused),
        cmocka_unit_test(an_expensive_match_gives_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
