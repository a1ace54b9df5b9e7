#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/buf.h"
#include "common/model/added_tokens.h"

static void add(added_tokens *a, const char *text, added_token token) {
    status s = added_tokens_add(a, text, strlen(text), token);
    assert_true(status_is_ok(&s));
}

// "text[id:taken]text", all matches of `text`.
static void expect(const added_tokens *a, const char *text, bool parse_special,
                   const char *expected) {
    buf out = buf_make(4096);
    size_t size = strlen(text), at = 0;
    added_match m;
    while (added_tokens_next(a, text, size, at, parse_special, &m)) {
        buf_append(&out, text + at, m.begin - at);
        buf_printf(&out, "[%d:%.*s]", m.id, (int)(m.end - m.begin), text + m.begin);
        at = m.end;
    }
    buf_append(&out, text + at, size - at);
    assert_string_equal(buf_string(&out), expected);
    buf_free(&out);
}

static void the_longest_wins(void **state) {
    (void)state;
    added_tokens a = {0};
    expect(&a, "<s>", true, "<s>");
    add(&a, "<s>", (added_token){.id = 1, .special = true});
    add(&a, "<s><s>", (added_token){.id = 2, .special = true});
    add(&a, "<s><", (added_token){.id = 3});
    add(&a, "s", (added_token){.id = 4});
    expect(&a, "a<s><s><s>b", true, "a[2:<s><s>][1:<s>]b");
    expect(&a, "<s><x", true, "[3:<s><]x");
    expect(&a, "<s><s>", false, "[3:<s><][4:s]>"); // special ones are not there
    expect(&a, "<<s", true, "<<[4:s]");
    assert_int_equal(added_tokens_find(&a, "<s><s>", 6), 2);
    assert_int_equal(added_tokens_find(&a, "<s><s", 5), -1);
    assert_int_equal(added_tokens_find(&a, "", 0), -1);
    added_tokens_free(&a);
}

static void spaces_are_taken_where_asked(void **state) {
    (void)state;
    added_tokens a = {0};
    add(&a, "<l>", (added_token){.id = 1, .lstrip = true});
    add(&a, "<r>", (added_token){.id = 2, .rstrip = true});
    expect(&a, "a \t<l> b", true, "a[1: \t<l>] b");
    expect(&a,
           "a <r> \n\xc2\xa0"
           "b",
           true, "a [2:<r> \n\xc2\xa0]b");
    expect(&a, " <r> <l> <l>", true, " [2:<r> ][1:<l>][1: <l>]"); // no space is taken twice
    expect(&a, "\xff <l>", true, "\xff[1: <l>]");
    added_tokens_free(&a);
}

static void single_words_stand_alone(void **state) {
    (void)state;
    added_tokens a = {0};
    add(&a, "ing", (added_token){.id = 1, .single_word = true});
    expect(&a, "ing going ing, ingot \xc3\xa9ing _ing", true,
           "[1:ing] going [1:ing], ingot \xc3\xa9ing _ing");
    expect(&a,
           "\xff"
           "ing\xff",
           true, "\xff[1:ing]\xff");
    added_tokens_free(&a);
}

static void bad_ones_are_refused(void **state) {
    (void)state;
    added_tokens a = {0};
    char text[ADDED_TOKEN_BYTES_MAX + 1];
    memset(text, 'x', sizeof text);
    status s = added_tokens_add(&a, text, sizeof text, (added_token){.id = 1});
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    s = added_tokens_add(&a, text, 0, (added_token){.id = 1});
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    s = added_tokens_add(&a, text, sizeof text - 1, (added_token){.id = 1});
    assert_true(status_is_ok(&s));
    s = added_tokens_add(&a, text, sizeof text - 1, (added_token){.id = 2});
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(s.message, "added tokens 1 and 2 have the same text"));
    added_tokens_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_wins),
        cmocka_unit_test(spaces_are_taken_where_asked),
        cmocka_unit_test(single_words_stand_alone),
        cmocka_unit_test(bad_ones_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
