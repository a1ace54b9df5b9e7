#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/utf8.h"
#include "common/model/byte_alphabet.h"

// The alphabet is a bijection between 256 characters and the bytes.
static void the_alphabet_covers_all_bytes(void **state) {
    (void)state;
    bool seen[256] = {false};
    int count = 0;
    for (uint32_t c = 0; c < 0x300; c++) {
        char text[4], byte;
        size_t size = utf8_encode(c, text), out_size;
        if (!byte_alphabet_decode(text, size, &byte, &out_size)) continue;
        assert_int_equal(out_size, 1);
        assert_false(seen[(unsigned char)byte]);
        seen[(unsigned char)byte] = true;
        count++;
    }
    assert_int_equal(count, 256);
    char out[8];
    size_t size;
    assert_true(byte_alphabet_decode("\xc4\xa0"
                                     "a\xc4\x8a\xc3\x83",
                                     7, out, &size)); // Ġ a Ċ Ã
    assert_int_equal(size, 4);
    assert_memory_equal(out, " a\n\xc3", 4);
    assert_false(byte_alphabet_decode(" ", 1, out, &size));
    assert_false(byte_alphabet_decode("\xff", 1, out, &size));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_alphabet_covers_all_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
