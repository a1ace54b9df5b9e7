// Keys from files and the environment: read, rotated, refused; never shown.
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "coordinator/upstream/keys.h"

static char folder[64], path[128];

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/octant-keys-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/key", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

// A new file each time, as tools that rotate keys do it.
static void write_key(const char *text) {
    char fresh[160];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int file = open(fresh, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    assert_true(file >= 0);
    assert_int_equal(write(file, text, strlen(text)), strlen(text));
    close(file);
    assert_int_equal(rename(fresh, path), 0);
}

static void expect_line(upstream_keys *k, int upstream, const char *line) {
    buf b = buf_make(8192);
    uint64_t version;
    assert_true(upstream_keys_append(k, upstream, "x-api-key: ", &b, &version));
    if (*line) assert_int_equal(version, upstream_keys_version(k, upstream));
    assert_string_equal(buf_string(&b), line);
    upstream_keys_wipe(&b);
}

static void test_sources(void **state) {
    (void)state;
    write_key("  sk-file-1\r\n\n");
    setenv("OCTANT_TEST_KEY", "sk-env-1", 1);
    const upstream_policy targets[] = {{.name = "a", .key_file = path},
                                       {.name = "b", .key_env = "OCTANT_TEST_KEY"},
                                       {.name = "c"}};
    const upstreams_policy policy = {.items = targets, .count = 3};
    upstream_keys *k = NULL;
    status s = upstream_keys_open(&policy, &k);
    assert_string_equal(s.message, "");
    expect_line(k, 0, "x-api-key: sk-file-1");
    expect_line(k, 1, "x-api-key: sk-env-1");
    expect_line(k, 2, "");
    upstream_keys_close(k);
}

static void test_rotation(void **state) {
    (void)state;
    write_key("sk-old");
    const upstream_policy target = {.name = "a", .key_file = path};
    const upstreams_policy policy = {.items = &target, .count = 1};
    upstream_keys *k = NULL;
    assert_int_equal(upstream_keys_open(&policy, &k).code, STATUS_OK);
    assert_int_equal(upstream_keys_version(k, 0), 1);
    write_key("sk-new");
    expect_line(k, 0, "x-api-key: sk-new");
    assert_int_equal(upstream_keys_version(k, 0), 2);
    write_key("two words");
    expect_line(k, 0, "x-api-key: sk-new");
    unlink(path);
    expect_line(k, 0, "x-api-key: sk-new");
    assert_int_equal(upstream_keys_version(k, 0), 2);
    write_key("sk-newest");
    expect_line(k, 0, "x-api-key: sk-newest");
    upstream_keys_close(k);
}

static void refused(const char *text, const char *word) {
    write_key(text);
    const upstream_policy target = {.name = "frontier", .key_file = path};
    const upstreams_policy policy = {.items = &target, .count = 1};
    upstream_keys *k = NULL;
    status s = upstream_keys_open(&policy, &k);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(s.message, "frontier"));
    assert_non_null(strstr(s.message, word));
    assert_null(strstr(s.message, "sk-"));
}

static void test_refusals(void **state) {
    (void)state;
    refused("", "empty");
    refused(" \n\t", "empty");
    refused("sk-1\nEvil: header", "one word");
    refused("sk-1\r\nsk-2", "one word");
    refused("sk-\xc3\xa9", "one word");
    char long_key[8000];
    memset(long_key, 'k', sizeof long_key);
    long_key[sizeof long_key - 1] = 0;
    refused(long_key, "longer");
    long_key[UPSTREAM_KEY_MAX + 1] = 0;
    refused(long_key, "longer");

    const upstream_policy missing[] = {
        {.name = "frontier", .key_file = "/nonexistent/key"},
        {.name = "frontier", .key_env = "OCTANT_NO_SUCH_KEY"},
        {.name = "frontier", .key_env = "OCTANT_TEST_KEY", .key_file = path}};
    for (int i = 0; i < 3; i++) {
        const upstreams_policy policy = {.items = &missing[i], .count = 1};
        upstream_keys *k = NULL;
        status s = upstream_keys_open(&policy, &k);
        assert_int_not_equal(s.code, STATUS_OK);
        assert_non_null(strstr(s.message, "frontier"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sources),
                                       cmocka_unit_test(test_rotation),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
