// GGUF: what a right file gives, and what each kind of wrong file is told.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/rng.h"
#include "unit/common/model/gguf_builder.h"

// Three keys and two tensors; each piece can be told apart in the errors.
static buf good_file(void) {
    buf b = buf_make(1 << 20);
    put_header(&b, 3, 2, 3);
    put_pair_text(&b, "general.name", "x");
    put_pair_array(&b, "words", GGUF_STRING, 2);
    put_text(&b, "one");
    put_text(&b, "");
    put_pair_array(&b, "numbers", GGUF_I32, 2);
    put_u32(&b, 5);
    put_u32(&b, (uint32_t)-6);
    put_tensor(&b, "b", 32, 2, GGML_Q8_0, 32);
    put_tensor(&b, "a", 3, 0, GGML_F32, 0);
    put_padding(&b, 32);
    put_zeros(&b, 32 + 2 * 34);
    return b;
}

// Opens an exact copy, so that the sanitizer sees one byte too many.
static status open_copy(const buf *b, size_t size, gguf_extent extent, gguf **g, void **copy) {
    *copy = malloc(size ? size : 1);
    assert_non_null(*copy);
    if (size) memcpy(*copy, b->data, size);
    return gguf_open(*copy, size, extent, g);
}

static void expect_error(buf b, status_code code, const char *words) {
    gguf *g;
    void *copy;
    status s = open_copy(&b, b.size, GGUF_WHOLE_FILE, &g, &copy);
    if (s.code != code || !strstr(s.message, words))
        fail_msg("wanted %d '%s', got %d '%s'", code, words, s.code, s.message);
    assert_null(g);
    free(copy);
    buf_free(&b);
}

static void reads_a_good_file(void **state) {
    (void)state;
    buf b = good_file();
    gguf *g;
    status s = gguf_open(b.data, b.size, GGUF_WHOLE_FILE, &g);
    assert_string_equal(s.message, "");
    const char *text;
    size_t size;
    gguf_array array;
    s = gguf_get_string(g, "general.name", &text, &size);
    assert_true(status_is_ok(&s) && size == 1 && text[0] == 'x');
    s = gguf_get_array(g, "words", GGUF_STRING, &array);
    assert_true(status_is_ok(&s));
    assert_true(gguf_array_next_string(&array, &text, &size) && size == 3 &&
                memcmp(text, "one", 3) == 0);
    assert_true(gguf_array_next_string(&array, &text, &size) && size == 0);
    assert_false(gguf_array_next_string(&array, &text, &size));
    s = gguf_get_array(g, "numbers", GGUF_I32, &array);
    assert_true(status_is_ok(&s) && array.count == 2);
    assert_int_equal(gguf_array_i32(&array, 0), 5);
    assert_int_equal(gguf_array_i32(&array, 1), -6);
    const gguf_tensor *t = gguf_find_tensor(g, "b");
    assert_non_null(t);
    assert_int_equal(t->bytes, 2 * 34);
    assert_ptr_equal(t->data, b.data + b.size - 2 * 34);
    assert_int_equal(t->type, DTYPE_Q8_0);
    assert_null(gguf_find_tensor(g, "c"));
    assert_null(gguf_find_tensor(g, "bb"));
    assert_int_equal(gguf_tensor_count(g), 2);
    gguf_close(g);
    buf_free(&b);
}

static void integers_of_every_type_keep_their_value(void **state) {
    (void)state;
    static const struct {
        gguf_type type;
        int size;
        uint64_t bits;
        int fits_u64, fits_i32;
        int64_t value;
    } cases[] = {
        {GGUF_U8, 1, 200, 1, 1, 200},
        {GGUF_I8, 1, 0xff, 0, 1, -1},
        {GGUF_U16, 2, 0xffff, 1, 1, 65535},
        {GGUF_I16, 2, 0x8000, 0, 1, -32768},
        {GGUF_U32, 4, 0x80000000, 1, 0, INT64_C(0x80000000)},
        {GGUF_I32, 4, 0x80000000, 0, 1, INT32_MIN},
        {GGUF_U64, 8, UINT64_C(1) << 62, 1, 0, INT64_C(1) << 62},
        {GGUF_I64, 8, UINT64_C(1) << 63, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf b = buf_make(1000);
        put_header(&b, 2, 0, 1);
        put_text(&b, "k");
        put_u32(&b, cases[i].type);
        buf_append(&b, &cases[i].bits, (size_t)cases[i].size);
        gguf *g;
        status s = gguf_open(b.data, b.size, GGUF_WHOLE_FILE, &g);
        assert_true(status_is_ok(&s));
        uint64_t wide = 0;
        int32_t narrow = 0;
        s = gguf_get_u64(g, "k", &wide);
        assert_int_equal(status_is_ok(&s), cases[i].fits_u64);
        if (cases[i].fits_u64) assert_int_equal(wide, cases[i].value);
        s = gguf_get_i32(g, "k", &narrow);
        assert_int_equal(status_is_ok(&s), cases[i].fits_i32);
        if (cases[i].fits_i32) assert_int_equal(narrow, cases[i].value);
        gguf_close(g);
        buf_free(&b);
    }
}

static void a_missing_key_and_a_wrong_type_differ(void **state) {
    (void)state;
    buf b = good_file();
    gguf *g;
    status s = gguf_open(b.data, b.size, GGUF_WHOLE_FILE, &g);
    assert_true(status_is_ok(&s));
    uint64_t wide;
    gguf_array array;
    assert_int_equal(gguf_get_u64(g, "absent", &wide).code, STATUS_NOT_FOUND);
    s = gguf_get_u64(g, "general.name", &wide);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(s.message, "'general.name' is a string, not an integer"));
    s = gguf_get_array(g, "words", GGUF_I32, &array);
    assert_non_null(strstr(s.message, "an array of string, not an array of int32"));
    gguf_close(g);
    buf_free(&b);
}

static void every_truncation_is_told(void **state) {
    (void)state;
    buf b = good_file();
    for (size_t size = 0; size < b.size; size++) {
        gguf *g;
        void *copy;
        status s = open_copy(&b, size, GGUF_WHOLE_FILE, &g, &copy);
        if (status_is_ok(&s)) fail_msg("%zu of %zu bytes were accepted", size, b.size);
        assert_null(g);
        if (size == b.size - 1) assert_non_null(strstr(s.message, "tensor 'b'"));
        free(copy);
    }
    buf_free(&b);
}

static void a_header_needs_no_data(void **state) {
    (void)state;
    buf b = good_file();
    gguf *g, *card;
    void *copy;
    status s = gguf_open(b.data, b.size, GGUF_WHOLE_FILE, &g);
    assert_true(status_is_ok(&s));
    size_t header = gguf_header_size(g);
    gguf_close(g);
    s = open_copy(&b, header, GGUF_HEADER_ONLY, &card, &copy);
    assert_true(status_is_ok(&s));
    assert_null(gguf_find_tensor(card, "a")->data);
    gguf_close(card);
    free(copy);
    s = open_copy(&b, header - 1, GGUF_HEADER_ONLY, &card, &copy);
    assert_false(status_is_ok(&s));
    free(copy);
    buf_free(&b);
}

static void flipped_bits_never_harm(void **state) {
    (void)state;
    buf b = good_file();
    rng r = rng_make(42);
    for (int round = 0; round < 20000; round++) {
        gguf *g;
        void *copy = malloc(b.size);
        assert_non_null(copy);
        memcpy(copy, b.data, b.size);
        for (int i = 0; i < 3; i++)
            ((unsigned char *)copy)[rng_below(&r, b.size)] ^=
                (unsigned char)(1u << rng_below(&r, 8));
        status s = gguf_open(copy, b.size, GGUF_WHOLE_FILE, &g);
        assert_true(status_is_ok(&s) || (!g && s.message[0]));
        gguf_close(g);
        free(copy);
    }
    buf_free(&b);
}

static buf with_header(uint32_t version, uint64_t tensors, uint64_t pairs) {
    buf b = buf_make(1 << 20);
    put_header(&b, version, tensors, pairs);
    return b;
}

static void wrong_headers(void **state) {
    (void)state;
    buf b = buf_make(100);
    buf_append_string(&b, "GGML0000000000000000000000");
    expect_error(b, STATUS_INVALID_ARGUMENT, "not a GGUF file");
    expect_error(with_header(1, 0, 0), STATUS_UNIMPLEMENTED, "version 1");
    expect_error(with_header(0x03000000, 0, 0), STATUS_UNIMPLEMENTED, "big-endian");
    expect_error(with_header(3, UINT64_C(1) << 63, 0), STATUS_INVALID_ARGUMENT,
                 "9223372036854775808 tensors");
    expect_error(with_header(3, 0, UINT64_C(1) << 63), STATUS_INVALID_ARGUMENT,
                 "9223372036854775808 keys");
    expect_error(with_header(3, 0, 2), STATUS_INVALID_ARGUMENT, "claims 2 keys");
}

static void wrong_metadata(void **state) {
    (void)state;
    buf b = with_header(3, 0, 1);
    put_u64(&b, UINT64_MAX - 3);
    put_zeros(&b, 20);
    expect_error(b, STATUS_INVALID_ARGUMENT, "a key at byte 24 is 18446744073709551612 bytes long");
    b = with_header(3, 0, 1);
    put_text(&b, "k");
    put_u32(&b, GGUF_STRING);
    put_u64(&b, UINT64_MAX - 3);
    expect_error(b, STATUS_DATA_LOSS, "key 'k'");
    b = with_header(3, 0, 1);
    put_pair_array(&b, "k", GGUF_F64, UINT64_C(1) << 61); // times 8 is 0 in 64 bits
    expect_error(b, STATUS_DATA_LOSS, "key 'k'");
    b = with_header(3, 0, 1);
    put_pair_array(&b, "k", GGUF_STRING, UINT64_C(1) << 63);
    put_zeros(&b, 64);
    expect_error(b, STATUS_DATA_LOSS, "key 'k'");
    b = with_header(3, 0, 1);
    put_pair_array(&b, "k", GGUF_ARRAY, 1);
    put_zeros(&b, 64);
    expect_error(b, STATUS_INVALID_ARGUMENT, "array of arrays");
    b = with_header(3, 0, 1);
    put_text(&b, "k");
    put_u32(&b, 13);
    put_zeros(&b, 64);
    expect_error(b, STATUS_INVALID_ARGUMENT, "unknown value type");
    b = with_header(3, 0, 2);
    put_pair_u32(&b, "k", 1);
    put_pair_u32(&b, "k", 2);
    expect_error(b, STATUS_INVALID_ARGUMENT, "key 'k' is there twice");
    b = with_header(3, 0, 1);
    put_pair_u32(&b, "general.alignment", 24);
    expect_error(b, STATUS_INVALID_ARGUMENT, "'general.alignment' is 24");
    b = with_header(3, 0, 1);
    put_text(&b, "k");
    put_u32(&b, GGUF_BOOL);
    buf_append_char(&b, 2);
    expect_error(b, STATUS_INVALID_ARGUMENT, "neither 0 nor 1");
}

// One tensor 't' with 4 KiB of data behind it.
static void expect_tensor_error(uint64_t cols, uint64_t rows, uint32_t type, uint64_t offset,
                                status_code code, const char *words) {
    buf b = with_header(3, 1, 0);
    put_tensor(&b, "t", cols, rows, type, offset);
    put_padding(&b, 32);
    put_zeros(&b, 4096);
    expect_error(b, code, words);
}

static void wrong_tensors(void **state) {
    (void)state;
    expect_tensor_error(0, 1, GGML_F32, 0, STATUS_INVALID_ARGUMENT, "a dimension is zero");
    expect_tensor_error(UINT64_C(1) << 32, UINT64_C(1) << 32, GGML_F32, 0, STATUS_INVALID_ARGUMENT,
                        "passes 2^63");
    expect_tensor_error(UINT64_C(1) << 62, 0, GGML_F32, 0, STATUS_INVALID_ARGUMENT, "passes 2^63");
    expect_tensor_error(33, 1, GGML_Q4_0, 0, STATUS_INVALID_ARGUMENT,
                        "not a whole number of blocks");
    expect_tensor_error(256, 1, GGML_Q2_K, 0, STATUS_UNIMPLEMENTED,
                        "tensor 't' is of type Q2_K; Octant reads F32");
    expect_tensor_error(32, 1, 4, 0, STATUS_INVALID_ARGUMENT, "unknown tensor type");
    expect_tensor_error(32, 1, 4000000000u, 0, STATUS_INVALID_ARGUMENT, "unknown tensor type");
    expect_tensor_error(32, 1, GGML_F32, 16, STATUS_INVALID_ARGUMENT, "not aligned");
    expect_tensor_error(32, 1, GGML_F32, 4096, STATUS_DATA_LOSS, "'t' needs bytes");
    expect_tensor_error(32, 1, GGML_F32, UINT64_MAX - 31, STATUS_INVALID_ARGUMENT,
                        "ends past 2^63");
    buf b = with_header(3, 1, 0);
    put_text(&b, "t");
    put_u32(&b, 5);
    put_zeros(&b, 100);
    expect_error(b, STATUS_INVALID_ARGUMENT, "1 to 4 dimensions");
    b = with_header(3, 2, 0);
    put_tensor(&b, "t", 16, 0, GGML_F32, 0);
    put_tensor(&b, "u", 8, 0, GGML_F32, 32);
    put_padding(&b, 32);
    put_zeros(&b, 128);
    expect_error(b, STATUS_INVALID_ARGUMENT, "'t' and 'u' overlap at offset 32");
    b = with_header(3, 2, 0);
    put_tensor(&b, "t", 8, 0, GGML_F32, 0);
    put_tensor(&b, "t", 8, 0, GGML_F32, 32);
    put_padding(&b, 32);
    put_zeros(&b, 128);
    expect_error(b, STATUS_INVALID_ARGUMENT, "'t' is there twice");
}

static void alignment_moves_the_data(void **state) {
    (void)state;
    buf b = with_header(3, 1, 1);
    put_pair_u32(&b, "general.alignment", 256);
    put_tensor(&b, "t", 1, 0, GGML_F32, 256);
    put_padding(&b, 256);
    put_zeros(&b, 256 + 4);
    gguf *g;
    status s = gguf_open(b.data, b.size, GGUF_WHOLE_FILE, &g);
    assert_string_equal(s.message, "");
    assert_ptr_equal(gguf_tensor_at(g, 0)->data, b.data + b.size - 4);
    gguf_close(g);
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_good_file),
        cmocka_unit_test(integers_of_every_type_keep_their_value),
        cmocka_unit_test(a_missing_key_and_a_wrong_type_differ),
        cmocka_unit_test(every_truncation_is_told),
        cmocka_unit_test(a_header_needs_no_data),
        cmocka_unit_test(flipped_bits_never_harm),
        cmocka_unit_test(wrong_headers),
        cmocka_unit_test(wrong_metadata),
        cmocka_unit_test(wrong_tensors),
        cmocka_unit_test(alignment_moves_the_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
