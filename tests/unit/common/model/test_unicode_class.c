#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/model/unicode_class.h"

static void expect(unicode_form form, const char *text, const char *expected) {
    buf out = buf_make(4096);
    status s = unicode_normalize(form, text, strlen(text), &out);
    assert_true(status_is_ok(&s));
    assert_string_equal(buf_string(&out), expected);
    buf_free(&out);
}

static void forms_are_those_of_uax_15(void **state) {
    (void)state;
    expect(UNICODE_NFC, "", "");
    expect(UNICODE_NFC, "plain text", "plain text");
    expect(UNICODE_NFC, "e\xcc\x81", "\xc3\xa9"); // e + acute
    expect(UNICODE_NFC, "xe\xcc\x81y \xe4\xb8\xad e\xcc\x81", "x\xc3\xa9y \xe4\xb8\xad \xc3\xa9");
    expect(UNICODE_NFC, "\xe2\x84\xab", "\xc3\x85");                  // Angstrom sign
    expect(UNICODE_NFC, "a\xcc\xa3\xcc\x81", "\xe1\xba\xa1\xcc\x81"); // dot below, acute
    expect(UNICODE_NFC, "a\xcc\x81\xcc\xa3", "\xe1\xba\xa1\xcc\x81"); // in the other order
    expect(UNICODE_NFC, "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); // Hangul jamo
    expect(UNICODE_NFC, "\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81"); // a syllable and a final
    expect(UNICODE_NFC, "\xe3\x81\x8b\xe3\x82\x99", "\xe3\x81\x8c"); // ka + voiced mark
    expect(UNICODE_NFC, "\xef\xac\x81", "\xef\xac\x81");             // fi ligature stays
    expect(UNICODE_NFKC, "\xef\xac\x81", "fi");
    expect(UNICODE_NFD, "\xc3\xa9", "e\xcc\x81");
    expect(UNICODE_NFKD, "\xef\xac\x81\xc3\xa9", "fie\xcc\x81");
    expect(UNICODE_NFC,
           "\xcc\x81"
           "a",
           "\xcc\x81"
           "a"); // nothing to compose with
}

// A row of marks in the worst order: sorting it by exchange would take a square.
static void a_long_row_of_marks_stays_as_it_is(void **state) {
    (void)state;
    enum { HALF = 200000 };
    buf text = buf_make(8 * HALF), out = buf_make(8 * HALF);
    buf_append_char(&text, 'a');
    for (int i = 0; i < HALF; i++) buf_append_string(&text, "\xcc\x81"); // above
    for (int i = 0; i < HALF; i++) buf_append_string(&text, "\xcc\xa3"); // below
    int64_t begin = clock_now_ns();
    status s = unicode_normalize(UNICODE_NFC, text.data, text.size, &out);
    assert_true(status_is_ok(&s));
    assert_true(clock_now_ns() - begin < 10 * CLOCK_SECOND);
    assert_int_equal(out.size, text.size);
    assert_memory_equal(out.data, text.data, text.size);
    buf_free(&text);
    buf_free(&out);
}

static void classes_hold(void **state) {
    (void)state;
    static const uint32_t spaces[] = {9,      10,     13,     32,     0x85,   0xa0,  0x1680,
                                      0x2000, 0x200a, 0x2028, 0x202f, 0x205f, 0x3000};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        assert_true(unicode_is_space(spaces[i]));
    assert_false(unicode_is_space(0x180e));
    assert_false(unicode_is_space(0x200b));
    assert_true(unicode_is_word('a'));
    assert_true(unicode_is_word('_'));
    assert_true(unicode_is_word('7'));
    assert_true(unicode_is_word(0x4e2d));
    assert_true(unicode_is_word(0x301));
    assert_false(unicode_is_word('-'));
    assert_false(unicode_is_word(0x1f600));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_are_those_of_uax_15),
        cmocka_unit_test(a_long_row_of_marks_stays_as_it_is),
        cmocka_unit_test(classes_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
