#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/model/vocab.h"

static void what_goes_in_is_found(void **state) {
    (void)state;
    enum { COUNT = 20000 };
    vocab v;
    status s = vocab_open(&v, COUNT);
    assert_true(status_is_ok(&s));
    char text[32];
    for (int32_t id = COUNT - 1; id >= 0; id--) {
        int size = snprintf(text, sizeof text, "%d:%0*d", id, id % 20, id);
        s = vocab_set(&v, id, text, (size_t)size, TOKEN_NORMAL);
        assert_true(status_is_ok(&s));
        s = vocab_index(&v, id);
        assert_true(status_is_ok(&s));
    }
    for (int32_t id = 0; id < COUNT; id++) {
        int size = snprintf(text, sizeof text, "%d:%0*d", id, id % 20, id);
        assert_int_equal(vocab_find(&v, text, (size_t)size), id);
        assert_int_equal(vocab_find(&v, text, (size_t)size - 1), -1);
    }
    vocab_free(&v);
}

static void wrong_ids_are_refused(void **state) {
    (void)state;
    vocab v;
    static char text[VOCAB_TOKEN_BYTES_MAX + 1];
    assert_int_equal(vocab_open(&v, 0).code, STATUS_INVALID_ARGUMENT);
    vocab_free(&v);
    assert_int_equal(vocab_open(&v, (int64_t)VOCAB_TOKENS_MAX + 1).code, STATUS_INVALID_ARGUMENT);
    vocab_free(&v);
    status s = vocab_open(&v, 3);
    assert_true(status_is_ok(&s));
    assert_int_equal(vocab_set(&v, 3, "a", 1, TOKEN_NORMAL).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(vocab_set(&v, -1, "a", 1, TOKEN_NORMAL).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(vocab_set(&v, 0, text, sizeof text, TOKEN_NORMAL).code,
                     STATUS_INVALID_ARGUMENT);
    assert_int_equal(vocab_set(&v, 0, text, sizeof text - 1, TOKEN_NORMAL).code, STATUS_OK);
    assert_int_equal(vocab_set(&v, 0, "a", 1, TOKEN_NORMAL).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(vocab_set(&v, 1, "a", 1, TOKEN_NORMAL).code, STATUS_OK);
    assert_int_equal(vocab_index(&v, 1).code, STATUS_OK);
    assert_int_equal(vocab_set(&v, 2, "a", 1, TOKEN_NORMAL).code, STATUS_OK);
    assert_int_equal(vocab_index(&v, 2).code, STATUS_INVALID_ARGUMENT);
    vocab_free(&v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_is_found),
        cmocka_unit_test(wrong_ids_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
