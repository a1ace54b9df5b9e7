// status, buf, utf8, json: how bytes from outside become text that is safe to show and to send.
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/json.h"
#include "common/base/rng.h"
#include "common/base/status.h"
#include "common/base/utf8.h"

// ---- status

static void messages_stay_on_one_line(void **state) {
    (void)state;
    status s = status_error(STATUS_NOT_FOUND, "file '%s'", "a\nb\x1b[0m\x7f");
    assert_string_equal(s.message, "file 'a?b?[0m?'");
    s = status_context(s, "opening");
    assert_string_equal(s.message, "opening: file 'a?b?[0m?'");
    assert_int_equal(s.code, STATUS_NOT_FOUND);
    s = status_context(status_ok(), "nothing");
    assert_true(status_is_ok(&s) && s.message[0] == 0);
}

static void long_messages_are_cut_visibly(void **state) {
    (void)state;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    status s = status_error(STATUS_INTERNAL, "%s", text);
    assert_int_equal(strlen(s.message), STATUS_MESSAGE_MAX - 1);
    assert_string_equal(s.message + STATUS_MESSAGE_MAX - 4, "...");
    s = status_context(status_error(STATUS_INTERNAL, "short"), "%s", text);
    assert_string_equal(s.message + STATUS_MESSAGE_MAX - 4, "...");
    text[STATUS_MESSAGE_MAX - 1] = 0; // fits exactly
    s = status_error(STATUS_INTERNAL, "%s", text);
    assert_string_equal(s.message, text);
}

static status fails_midway(int *reached) {
    TRY(status_ok());
    *reached = 1;
    TRY(status_error(STATUS_ABORTED, "stop"));
    *reached = 2;
    return status_ok();
}

static void try_returns_the_first_error(void **state) {
    (void)state;
    int reached = 0;
    status s = fails_midway(&reached);
    assert_int_equal(s.code, STATUS_ABORTED);
    assert_int_equal(reached, 1);
    assert_string_equal(status_code_name(STATUS_UNAUTHENTICATED), "UNAUTHENTICATED");
}

// ---- buf

static void a_buffer_stops_at_its_limit(void **state) {
    (void)state;
    buf b = buf_make(5);
    assert_string_equal(buf_string(&b), "");
    assert_true(buf_append(&b, "abc", 3));
    assert_false(buf_append(&b, "def", 3));
    assert_true(b.failed);
    assert_false(buf_append(&b, "d", 1)); // sticky: no later piece slips in
    assert_string_equal(buf_string(&b), "abc");
    buf_clear(&b);
    assert_true(buf_append(&b, "12345", 5));
    assert_false(buf_append(&b, "", (size_t)-1));
    buf_free(&b);
    assert_true(buf_printf(&b, "%d", 12345));
    assert_false(buf_printf(&b, "%d", 6));
    buf_free(&b);
}

static void a_buffer_is_consumed_and_taken(void **state) {
    (void)state;
    buf b = buf_make(1000);
    buf_append_string(&b, "hello world");
    buf_consume(&b, 6);
    assert_string_equal(buf_string(&b), "world");
    buf_consume(&b, 100);
    assert_string_equal(buf_string(&b), "");
    char *taken = buf_take(&b);
    assert_string_equal(taken, "");
    free(taken);
    for (int i = 0; i < 300; i++) buf_append_char(&b, 'z');
    taken = buf_take(&b);
    assert_int_equal(strlen(taken), 300);
    assert_int_equal(b.size, 0);
    free(taken);
}

// ---- utf8

static void every_code_point_survives(void **state) {
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        if (c >= 0xd800 && c <= 0xdfff) continue;
        char bytes[4];
        uint32_t back = 0;
        size_t size = utf8_encode(c, bytes);
        if (utf8_decode(bytes, size, &back) != size || back != c) fail_msg("U+%04X", c);
        for (size_t cut = 1; cut < size; cut++) {
            if (utf8_decode(bytes, cut, &back) != 0) fail_msg("U+%04X cut to %zu", c, cut);
            if (utf8_incomplete_tail(bytes, cut) != cut) fail_msg("U+%04X tail at %zu", c, cut);
        }
        if (utf8_incomplete_tail(bytes, size) != 0) fail_msg("U+%04X has a tail", c);
    }
}

static void invalid_sequences_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "\x80",     "\xbf",         "\xc0\x80",     "\xc1\xbf",         "\xc2",
        "\xc2\x41", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
        "\xf5\x80", "\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(utf8_is_valid(bad[i], strlen(bad[i])));
    assert_true(utf8_is_valid("", 0));
    assert_int_equal(utf8_incomplete_tail("a\xed\xa0", 3),
                     0); // never becomes valid: not worth waiting for
    assert_int_equal(utf8_incomplete_tail("a\xf0\x9f\x98", 4), 3);
    assert_int_equal(utf8_incomplete_tail("\x80\x80\x80\x80", 4), 0);
    assert_int_equal(utf8_incomplete_tail("", 0), 0);
}

// ---- json

static void strings_are_escaped(void **state) {
    (void)state;
    buf b = buf_make(1000);
    json_append_string(&b, "a\"\\\n\t\0\x7f\xc3\xa9\xff\xe2\x82", 12);
    assert_string_equal(buf_string(&b),
                        "\"a\\\"\\\\\\n\\u0009\\u0000\x7f\xc3\xa9\\ufffd\\ufffd\\ufffd\"");
    buf_free(&b);
}

static void any_bytes_become_valid_json(void **state) {
    (void)state;
    rng r = rng_make(3);
    for (int round = 0; round < 5000; round++) {
        char bytes[40];
        size_t size = rng_below(&r, sizeof bytes);
        for (size_t i = 0; i < size; i++) bytes[i] = (char)rng_next(&r);
        buf b = buf_make(1000);
        json_append_string(&b, bytes, size);
        json_t *json;
        status s = json_parse(b.data, b.size, &json);
        assert_string_equal(s.message, "");
        if (utf8_is_valid(bytes, size)) {
            assert_int_equal(json_string_length(json), size);
            assert_memory_equal(json_string_value(json), bytes, size);
        }
        json_decref(json);
        buf_free(&b);
    }
}

static void numbers_read_back_the_same(void **state) {
    (void)state;
    static const double values[] = {
        0, 1, -1, 0.1, 1e300, 5e-324, DBL_MAX, 1.0 / 3, -123456789.123, 9007199254740993.0};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        buf b = buf_make(100);
        json_append_number(&b, values[i]);
        assert_true(strtod(buf_string(&b), NULL) == values[i]);
        buf_free(&b);
    }
    buf b = buf_make(100);
    json_append_number(&b, 0.1);
    json_append_number(&b, NAN);
    json_append_number(&b, -INFINITY);
    assert_string_equal(buf_string(&b), "0.1nullnull");
    buf_free(&b);
}

static void errors_name_line_and_column(void **state) {
    (void)state;
    json_t *json;
    status s = json_parse("{\"a\":\n tru}", 11, &json);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(s.message, "line 2, column 4"));
    assert_null(json);
    s = json_parse("{\"a\":1,\"a\":2}", 13, &json);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    char deep[5000];
    memset(deep, '[', sizeof deep);
    s = json_parse(deep, sizeof deep, &json);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_stay_on_one_line),
        cmocka_unit_test(long_messages_are_cut_visibly),
        cmocka_unit_test(try_returns_the_first_error),
        cmocka_unit_test(a_buffer_stops_at_its_limit),
        cmocka_unit_test(a_buffer_is_consumed_and_taken),
        cmocka_unit_test(every_code_point_survives),
        cmocka_unit_test(invalid_sequences_are_refused),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(any_bytes_become_valid_json),
        cmocka_unit_test(numbers_read_back_the_same),
        cmocka_unit_test(errors_name_line_and_column),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
