// safetensors: what a right file gives, and what each kind of wrong file is told.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/buf.h"
#include "common/model/safetensors.h"

static buf make(uint64_t length, const char *header, size_t data) {
    buf b = buf_make(1 << 20);
    buf_append(&b, &length, sizeof length);
    buf_append_string(&b, header);
    while (data--) buf_append_char(&b, 'd');
    return b;
}

static void expect_error(buf b, status_code code, const char *words) {
    safetensors *file;
    void *copy = malloc(b.size + !b.size); // exact, for the sanitizer
    assert_non_null(copy);
    if (b.size) memcpy(copy, b.data, b.size);
    status s = safetensors_open(copy, b.size, &file);
    if (s.code != code || !strstr(s.message, words))
        fail_msg("wanted %d '%s', got %d '%s'", code, words, s.code, s.message);
    assert_null(file);
    free(copy);
    buf_free(&b);
}

static void expect_header_error(const char *header, status_code code, const char *words) {
    expect_error(make(strlen(header), header, 64), code, words);
}

static void reads_a_good_file(void **state) {
    (void)state;
    const char *header = "{\"__metadata__\":{\"a\":\"b\"},\"z\":{\"dtype\":\"BF16\",\"shape\":[2,3]"
                         ",\"data_offsets\":[9,21]},"
                         "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}  ";
    buf b = make(strlen(header), header, 21);
    safetensors *file;
    status s = safetensors_open(b.data, b.size, &file);
    assert_string_equal(s.message, "");
    assert_int_equal(safetensors_count(file), 2);
    const safetensors_tensor *z = safetensors_find(file, "z");
    assert_non_null(z);
    assert_int_equal(z->type, DTYPE_BF16);
    assert_int_equal(z->dims, 2);
    assert_int_equal(z->shape[1], 3);
    assert_ptr_equal(z->data, b.data + 8 + strlen(header) + 9);
    assert_int_equal(safetensors_find(file, "s")->dims, 0);
    assert_null(safetensors_find(file, "__metadata__"));
    safetensors_close(file);
    buf_free(&b);
}

static void wrong_lengths(void **state) {
    (void)state;
    expect_error(buf_make(1), STATUS_DATA_LOSS, "0 bytes are too few");
    expect_error(make(UINT64_C(1) << 63, "{}", 0), STATUS_INVALID_ARGUMENT,
                 "header of 9223372036854775808 bytes");
    expect_error(make(3, "{}", 0), STATUS_DATA_LOSS, "header has 3 bytes");
    expect_error(make(1, "{}", 0), STATUS_INVALID_ARGUMENT, "invalid JSON");
}

static void wrong_headers(void **state) {
    (void)state;
    expect_header_error("[]", STATUS_INVALID_ARGUMENT, "must be a JSON object");
    expect_header_error("{\"t\":1}", STATUS_INVALID_ARGUMENT, "'t': its entry must be an object");
    expect_header_error("{\"t\":{}}", STATUS_INVALID_ARGUMENT, "'dtype' must be a string");
    expect_header_error("{\"t\":{\"dtype\":\"U16\"}}", STATUS_UNIMPLEMENTED, "'t' is of type U16");
    expect_header_error("{\"t\":{\"dtype\":\"Q8_0\"}}", STATUS_UNIMPLEMENTED,
                        "Octant reads F32, F16, BF16");
    expect_header_error("{\"t\":{\"dtype\":\"F32\",\"shape\":4}}", STATUS_INVALID_ARGUMENT,
                        "'shape' must be an array");
    expect_header_error("{\"t\":{\"dtype\":\"F32\",\"shape\":[-1]}}", STATUS_INVALID_ARGUMENT,
                        "not a positive integer");
    expect_header_error("{\"t\":{\"dtype\":\"F32\",\"shape\":[1.5]}}", STATUS_INVALID_ARGUMENT,
                        "not a positive integer");
    expect_header_error("{\"t\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1]}}",
                        STATUS_INVALID_ARGUMENT, "8 dimensions");
    expect_header_error(
        "{\"t\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
        STATUS_INVALID_ARGUMENT, "passes 2^63");
    expect_header_error("{\"t\":{},\"t\":{}}", STATUS_INVALID_ARGUMENT, "duplicate");
}

static void wrong_ranges(void **state) {
    (void)state;
    expect_header_error("{\"t\":{\"dtype\":\"F32\",\"shape\":[2]}}", STATUS_INVALID_ARGUMENT,
                        "two integers");
    expect_header_error("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}",
                        STATUS_INVALID_ARGUMENT, "two integers");
    expect_header_error("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}",
                        STATUS_INVALID_ARGUMENT, "wrong order");
    expect_header_error("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}",
                        STATUS_INVALID_ARGUMENT, "negative");
    expect_header_error("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9]}}",
                        STATUS_INVALID_ARGUMENT, "9 bytes of data, its shape needs 8");
    expect_header_error("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[60,68]}}",
                        STATUS_DATA_LOSS, "'t' ends at data byte 68, but the file has 64");
    expect_header_error("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"u\":{"
                        "\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[7,15]}}",
                        STATUS_INVALID_ARGUMENT, "'t' and 'u' overlap");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_good_file),
        cmocka_unit_test(wrong_lengths),
        cmocka_unit_test(wrong_headers),
        cmocka_unit_test(wrong_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
