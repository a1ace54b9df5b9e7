#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka needs the four above
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/cluster_key.h"

static const char KEY[] = "0123456789abcdef";

static status read_text(const char *text, size_t size, cluster_key *out) {
    char path[] = "/tmp/octant-key-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, text, size), size);
    close(file);
    status s = cluster_key_read(path, out);
    unlink(path);
    if (!status_is_ok(&s) && size >= CLUSTER_KEY_MIN) assert_null(strstr(s.message, "0123456789"));
    return s;
}

static void test_file(void **state) {
    (void)state;
    cluster_key key;
    char longest[CLUSTER_KEY_MAX + 2], line[64];
    memset(longest, 'k', sizeof longest);
    static const char *const ends[] = {"", "\n", "\r\n", "\nwhatever else"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        int size = snprintf(line, sizeof line, "%s%s", KEY, ends[i]);
        assert_int_equal(read_text(line, (size_t)size, &key).code, STATUS_OK);
        assert_string_equal(key.header, "Bearer 0123456789abcdef");
    }
    assert_int_equal(read_text(longest, CLUSTER_KEY_MAX, &key).code, STATUS_OK);
    assert_int_equal(strlen(key.header), 7 + CLUSTER_KEY_MAX);
    assert_int_equal(read_text(longest, CLUSTER_KEY_MAX + 1, &key).code, STATUS_INVALID_ARGUMENT);
    assert_string_equal(key.header, "");
    static const char *const bad[] = {"",
                                      "\n0123456789abcdef",
                                      "0123456789abcde",
                                      "0123456789 abcdef",
                                      "0123456789abcdef\t",
                                      "0123456789abcdef\xc3\xa9"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(read_text(bad[i], strlen(bad[i]), &key).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(cluster_key_read("/no/such/file", &key).code, STATUS_NOT_FOUND);
}

static void test_fits(void **state) {
    (void)state;
    cluster_key key;
    assert_int_equal(read_text(KEY, sizeof KEY - 1, &key).code, STATUS_OK);
    assert_true(cluster_key_fits(&key, "Bearer 0123456789abcdef"));
    static const char *const others[] = {"",
                                         "Bearer ",
                                         "0123456789abcdef",
                                         "Bearer 0123456789abcdeF",
                                         "Bearer 0123456789abcde",
                                         "Bearer 0123456789abcdef0"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(cluster_key_fits(&key, others[i]));
    assert_false(cluster_key_fits(&key, NULL));
    assert_true(cluster_key_fits(&(cluster_key){""}, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_file), cmocka_unit_test(test_fits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
