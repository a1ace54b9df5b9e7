#include "coordinator/ingress/api_keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static status open_text(const char *text, api_keys **out) {
    char path[] = "/tmp/octant-keys-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    status s = api_keys_open(path, out);
    unlink(path);
    return s;
}

static void test_finds(void **state) {
    (void)state;
    api_keys *k;
    status s = open_text("# comment\n\nalice sk-12345678 # hers\nsk-87654321\n", &k);
    assert_int_equal(s.code, STATUS_OK);
    assert_string_equal(api_keys_find(k, "sk-12345678"), "alice");
    assert_string_equal(api_keys_find(k, "sk-87654321"), "key-4");
    assert_null(api_keys_find(k, "sk-1234567"));
    assert_null(api_keys_find(k, ""));
    assert_null(api_keys_find(k, "alice"));
    api_keys_close(k);
}

static void test_refuses(void **state) {
    (void)state;
    api_keys *k;
    status s = open_text("a b c-too-many\n", &k);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(s.message, ":1:"));
    assert_null(strstr(s.message, "too-many")); // what may be a secret is not shown
    assert_int_equal(open_text("x\nshort\n", &k).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(open_text("# nothing\n", &k).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(api_keys_open("/nowhere/keys", &k).code, STATUS_NOT_FOUND);
}

static void test_header(void **state) {
    (void)state;
    assert_string_equal(api_key_from_header("Bearer abc"), "abc");
    assert_string_equal(api_key_from_header("bearer   abc"), "abc");
    assert_null(api_key_from_header("Basic abc"));
    assert_null(api_key_from_header(NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_finds), cmocka_unit_test(test_refuses),
                                       cmocka_unit_test(test_header)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
