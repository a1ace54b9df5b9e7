// What a client sees, token by token: no half characters, no part of a stop text, nothing lost.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/core/detokenizer.h"

static const char *const texts[] = {"ab", "\xe2\x82", "\xac", "\xff", "ST", "OP", "x", ""};
enum { AB, EURO_START, EURO_END, BAD, ST, OP, X, NOTHING };

static void decode(const void *owner, int32_t id, buf *out) {
    (void)owner;
    buf_append_string(out, texts[id]);
}

static const vocabulary words = {.size = 8, .decode = decode};
static const core_stop stops[] = {{"STOP", 4}, {"bx", 2}};

// Pushes and compares what came out; '!' stands for a complete stop text.
static void expect(detokenizer *d, int32_t token, const char *text) {
    buf out = buf_make(1 << 10);
    bool stopped = detokenizer_push(d, token, &out);
    assert_true(stopped == (d->stopped > 0));
    if (stopped) buf_append_char(&out, '!');
    assert_string_equal(buf_string(&out), text);
    buf_free(&out);
}

static void expect_rest(detokenizer *d, const char *text) {
    buf out = buf_make(1 << 10);
    detokenizer_finish(d, &out);
    assert_string_equal(buf_string(&out), text);
    buf_free(&out);
    detokenizer_free(d);
}

static void test_characters_stay_whole(void **state) {
    (void)state;
    detokenizer d = detokenizer_make(&words, NULL, 0);
    expect(&d, AB, "ab");
    expect(&d, EURO_START, "");
    expect(&d, EURO_END, "\xe2\x82\xac");
    expect(&d, EURO_START, "");
    expect(&d, X, "\xef\xbf\xbdx"); // one U+FFFD for the two bytes
    expect(&d, BAD, "\xef\xbf\xbd");
    expect(&d, NOTHING, "");
    expect(&d, EURO_START, "");
    expect_rest(&d, "\xef\xbf\xbd");
}

static void test_stop_text_over_tokens(void **state) {
    (void)state;
    detokenizer d = detokenizer_make(&words, stops, 2);
    expect(&d, X, "x");
    expect(&d, ST, "");
    expect(&d, ST, "ST"); // the first was no start of it
    expect(&d, OP, "!");
    expect_rest(&d, "");
}

static void test_what_was_held_back_comes(void **state) {
    (void)state;
    detokenizer d = detokenizer_make(&words, stops, 2);
    expect(&d, AB, "a"); // "b" may be the start of "bx"
    expect(&d, AB, "ba");
    expect(&d, ST, "b");
    expect_rest(&d, "ST");
}

static void test_the_first_stop_text_counts(void **state) {
    (void)state;
    detokenizer d = detokenizer_make(&words, stops, 2);
    expect(&d, AB, "a");
    expect(&d, X, "!");
    assert_int_equal(d.stopped, 2);
    detokenizer_free(&d);
}

static void expect_text(detokenizer *d, const char *text, const char *want) {
    buf out = buf_make(1 << 20);
    bool stopped = detokenizer_push_text(d, text, strlen(text), &out);
    assert_true(stopped == (d->stopped > 0));
    if (stopped) buf_append_char(&out, '!');
    assert_string_equal(buf_string(&out), want);
    buf_free(&out);
}

static void resume(detokenizer *d, const char *said) {
    detokenizer_resume(d, said, strlen(said));
}

// Another's words, for stop texts, are the same text.
static void test_another_goes_on(void **state) {
    (void)state;
    detokenizer d = detokenizer_make(&words, stops, 2);
    expect(&d, AB, "a"); // b may begin "bx"
    resume(&d, "a");     // it will be said anew
    expect_text(&d, "b and STO", "b and ");
    expect_text(&d, "RE", "STORE");
    expect_text(&d, " ST", " ");
    expect_text(&d, "OP it", "!");
    detokenizer_free(&d);

    d = detokenizer_make(&words, stops, 2);
    resume(&d, "on and ST"); // shown when nobody could know
    expect_text(&d, "OP", "!");
    detokenizer_free(&d);

    d = detokenizer_make(&words, stops, 2);
    resume(&d, "SSTO");
    expect_text(&d, "NE b", "NE ");
    expect_rest(&d, "b");

    d = detokenizer_make(&words, stops, 2);
    expect_text(&d, "xST", "x");
    buf out = buf_make(1 << 10);
    detokenizer_flush(&d, &out); // a tool call comes between
    assert_string_equal(buf_string(&out), "ST");
    buf_free(&out);
    expect_text(&d, "OP", "!");
    detokenizer_free(&d);
}

// More than is taken at once; characters stay whole.
static void test_long_text(void **state) {
    (void)state;
    enum { COUNT = 70000 };
    char *text = malloc(3 * COUNT + 5);
    for (int i = 0; i < COUNT; i++) memcpy(text + 3 * i, "\xe2\x82\xac", 3);
    memcpy(text + 3 * COUNT, "STOP", 5);
    detokenizer d = detokenizer_make(&words, stops, 2);
    buf out = buf_make(1 << 20);
    assert_true(detokenizer_push_text(&d, text, strlen(text), &out));
    assert_int_equal(out.size, 3 * COUNT);
    assert_memory_equal(out.data, text, out.size);
    assert_false(d.failed);
    buf_free(&out);
    detokenizer_free(&d);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters_stay_whole),
        cmocka_unit_test(test_stop_text_over_tokens),
        cmocka_unit_test(test_what_was_held_back_comes),
        cmocka_unit_test(test_the_first_stop_text_counts),
        cmocka_unit_test(test_another_goes_on),
        cmocka_unit_test(test_long_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
