#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/route/contents.h"

enum { EMAIL, PHONE, CARD };

static json_t *parse(const char *text) {
    json_error_t error;
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!value) fail_msg("%s: %s", text, error.text);
    return value;
}

static detector_findings scan(const detectors *d, const char *text) {
    detector_findings f = {0};
    json_t *value = parse(text);
    contents_scan(d, value, &f);
    json_decref(value);
    return f;
}

// `want` NULL: it cannot be made safe.
static void redacts(const detectors *d, const char *text, const char *want) {
    json_t *value = parse(text), *copy = contents_redact(d, value);
    char *got = copy ? json_dumps(copy, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    if (!want != !got || (want && strcmp(want, got) != 0))
        fail_msg("%s became %s", text, got ? got : "nothing");
    free(got);
    json_decref(copy);
    json_decref(value);
}

static void every_corner_is_looked_at(void **state) {
    (void)state;
    detectors *d = detectors_create();
    assert_int_equal(scan(d, "\"jane@example.com\"").found[EMAIL], 1);
    assert_int_equal(scan(d, "[{\"a\":[\"x\",{\"b\":\"jane@example.com\"}]}]").found[EMAIL], 1);
    assert_int_equal(scan(d, "\"jane\\u0040example.com\"").found[EMAIL], 1);
    assert_int_equal(scan(d, "{\"card\":4111111111111111}").found[CARD], 1);
    assert_int_equal(scan(d, "{\"card\":4111111111111111.0}").found[CARD], 1);
    assert_int_equal(scan(d, "[1,2,3,true,null,\"\",{},[],1234567]").limits, 0);
    detectors_destroy(d);
}

static void what_cannot_be_replaced_is_a_limit(void **state) {
    (void)state;
    detectors *d = detectors_create();
    assert_int_equal(scan(d, "{\"jane@example.com\":1}").limits, 1);
    redacts(d, "{\"jane@example.com\":1}", NULL);
    // JSON in a text, with its escapes: found once it is decoded
    detector_findings f = scan(d, "\"{\\\"to\\\":\\\"jane\\\\u0040example.com\\\"}\"");
    assert_int_equal(f.found[EMAIL], 1);
    assert_int_equal(f.limits, 1);
    f = scan(d, "\"C:\\\\temp\\\\new jane@example.com\""); // escapes that hide nothing
    assert_int_equal(f.found[EMAIL], 1);
    assert_int_equal(f.limits, 0);
    f = (detector_findings){0};
    contents_scan_text(d, "{", &f);
    assert_int_equal(f.limits, 1);
    contents_scan_text(d, NULL, &f);
    assert_int_equal(f.limits, 1);
    detectors_destroy(d);
}

static void copies_are_redacted(void **state) {
    (void)state;
    detectors *d = detectors_create();
    redacts(d,
            "[{\"role\":\"user\",\"content\":\"I am jane@example.com\",\"n\":[1,2.5,null,true]}]",
            "[{\"role\":\"user\",\"content\":\"I am [email]\",\"n\":[1,2.5,null,true]}]");
    redacts(d, "{\"card\":4111111111111111,\"n\":123456789}",
            "{\"card\":\"[card]\",\"n\":123456789}");
    redacts(d, "\"a\\u0000jane@example.com\"", "\"a\\u0000[email]\"");
    detectors_destroy(d);
}

static void conversations_are_measured(void **state) {
    (void)state;
    json_t *messages = parse("[{\"role\":\"system\",\"content\":\"12345678\"},"
                             "{\"role\":\"user\",\"content\":\"first\"},"
                             "{\"role\":\"assistant\",\"content\":null},"
                             "{\"role\":\"user\",\"content\":\"last one\"}]");
    contents_measure m = contents_measure_of(messages, NULL);
    assert_string_equal(m.last, "last one");
    assert_int_equal(m.last_size, 8);
    assert_int_equal(m.history_size, 8 + 5 + 4);
    assert_int_equal(m.prompt_tokens, 25 / 4 + 4 * 8);
    json_decref(messages);
    m = contents_measure_of(NULL, NULL);
    assert_string_equal(m.last, "");
    assert_int_equal(m.prompt_tokens, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_corner_is_looked_at),
        cmocka_unit_test(what_cannot_be_replaced_is_a_limit),
        cmocka_unit_test(copies_are_redacted),
        cmocka_unit_test(conversations_are_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
