// A text as it is read, and the way back to where each of its bytes is written.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/utf8.h"
#include "coordinator/route/fold.h"

static void folds(const char *text, const char *want) {
    folded f;
    assert_true(fold_text(text, strlen(text), &f));
    if (f.changed != (want != NULL)) fail_msg("'%s' changed: %d", text, f.changed);
    if (want && strcmp(buf_string(&f.text), want) != 0)
        fail_msg("'%s' is read as '%s', not '%s'", text, buf_string(&f.text), want);
    for (size_t i = 0; i < f.text.size; i++) {
        size_t end = fold_end(&f, text, strlen(text), i);
        assert_true(f.origin[i] < end && end <= strlen(text));
        assert_true(i == 0 || f.origin[i] >= f.origin[i - 1]);
    }
    fold_free(&f);
}

static void what_reads_alike_is_alike(void **state) {
    (void)state;
    folds("plain", NULL);
    folds("", NULL);
    folds("caf\u00e9 \u0441\u043b\u043e\u0432\u043e \u4f8b\u5b50 \U0001f600", NULL);
    folds("\xff\xc3(", NULL); // no UTF-8
    folds("\uff21\uff42\uff13\uff20\uff0e", "Ab3@.");
    folds("a\u00a0b\u2003c\u3000d", "a b c d");
    folds("1\u20102\u20113\u20144\u22125", "1-2-3-4-5");
    folds("a\u200b\u200d\u2060\ufeff\u00ad\u202eb", "ab");
    folds("\ufb01 \u2460 \u00b2 \U0001d7d8\U0001d7f6", "fi 1 2 00");
    folds("\xff\uff11\xff", "\xff"
                            "1\xff");
}

static void digits_of_all_scripts(void **state) {
    (void)state;
    static const uint32_t zeros[] = {0x660,  0x6f0,  0x7c0,   0x966,   0x9e6,   0xa66,  0xbe6,
                                     0xe50,  0xf20,  0x1040,  0x17e0,  0x1946,  0x1a80, 0x1a90,
                                     0xa620, 0xff10, 0x104a0, 0x11066, 0x1d7ce, 0x1e950};
    for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++) {
        char text[64];
        size_t size = 0;
        for (uint32_t d = 0; d < 10; d++) size += utf8_encode(zeros[i] + d, text + size);
        text[size] = 0;
        folds(text, "0123456789");
    }
}

static void the_way_back(void **state) {
    (void)state;
    const char *text = "a\u200b\uff11\u2460z"; // 1, 3, 3, 3, 1 bytes
    folded f;
    assert_true(fold_text(text, strlen(text), &f));
    assert_string_equal(buf_string(&f.text), "a11z");
    static const size_t begins[] = {0, 4, 7, 10}, ends[] = {1, 7, 10, 11};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(f.origin[i], begins[i]);
        assert_int_equal(fold_end(&f, text, strlen(text), i), ends[i]);
    }
    fold_free(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_reads_alike_is_alike),
        cmocka_unit_test(digits_of_all_scripts),
        cmocka_unit_test(the_way_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
