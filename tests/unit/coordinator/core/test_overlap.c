// What a model repeats of what it was shown is cut off, and nothing else.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rng.h"
#include "coordinator/core/overlap.h"

static size_t cut(const char *said, const char *fresh) {
    return overlap_size(said, strlen(said), fresh, strlen(fresh));
}

static void test_cases(void **state) {
    (void)state;
    const struct {
        const char *said, *fresh;
        size_t size;
    } cases[] = {
        {"The quick brown fox", "brown fox jumps", 9},
        {"The quick brown fox", " jumps over", 0},
        {"The quick brown fox", "fox jumps", 0},                  // three letters: may be chance
        {"The quick brown fox", "The quick brown fox jumps", 19}, // all of it again
        {"The quick brown fox", "The quick brown", 0},            // begins anew, differently: kept
        {"Half", "Half a loaf", 4},                               // all that was said, though short
        {"a", "and", 0},
        {"", "anything", 0},
        {"anything", "", 0},
        {"na na na na", "na na na na na", 11}, // the longest
        {"caf\xc3\xa9 cr\xc3\xa8me",
         "cr\xc3\xa8me br\xc3\xbbl\xc3\xa9"
         "e",
         0}, // 6 bytes
        {"un caf\xc3\xa9 cr\xc3\xa8me", "caf\xc3\xa9 cr\xc3\xa8me et", 12},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(cut(cases[i].said, cases[i].fresh), cases[i].size);
}

static void test_is_bounded(void **state) {
    (void)state;
    char said[2000], fresh[2000];
    for (int i = 0; i < 2000; i++) said[i] = (char)('a' + i % 26 + (i / 26) % 2);
    memcpy(fresh, said + 2000 - OVERLAP_MAX, OVERLAP_MAX);
    memset(fresh + OVERLAP_MAX, 'z', 100);
    assert_int_equal(overlap_size(said, 2000, fresh, OVERLAP_MAX + 100), OVERLAP_MAX);
    memset(said, 'x', sizeof said);
    memset(fresh, 'x', sizeof fresh);
    assert_int_equal(overlap_size(said, 2000, fresh, 2000), OVERLAP_MAX);
    assert_int_equal(overlap_needed(2000), OVERLAP_MAX);
    assert_int_equal(overlap_needed(3), 3);
}

static void test_ends_inside(void **state) {
    (void)state;
    static const char said[] = "one two three four five six seven eight nine ten";
    assert_true(overlap_is_all(said, strlen(said), "five six seven", 14));
    assert_true(overlap_is_all(said, strlen(said), said, strlen(said)));
    assert_false(overlap_is_all(said, strlen(said), "six sev", 7)); // may be chance
    assert_false(overlap_is_all(said, strlen(said), "five six seven!", 15));
    assert_false(overlap_is_all("", 0, "five six", 8));
    char far[OVERLAP_MAX + 40] = "five six seven"; // too far up
    memset(far + 14, '.', sizeof far - 14);
    assert_false(overlap_is_all(far, sizeof far, "five six seven", 14));
}

// A repetition of any length that counts is found whole, whatever follows it.
static void test_any_repetition(void **state) {
    (void)state;
    rng r = rng_make(5);
    for (int round = 0; round < 2000; round++) {
        char said[600], fresh[1200];
        size_t size = OVERLAP_LEAST + (size_t)rng_below(&r, sizeof said - OVERLAP_LEAST);
        for (size_t i = 0; i < size; i++) said[i] = (char)('a' + rng_below(&r, 26));
        size_t most = size < OVERLAP_MAX ? size : OVERLAP_MAX;
        size_t again = OVERLAP_LEAST + (size_t)rng_below(&r, most - OVERLAP_LEAST + 1);
        memcpy(fresh, said + size - again, again);
        size_t rest = (size_t)rng_below(&r, 500);
        memset(fresh + again, 'A', rest); // stands nowhere in what was said
        assert_int_equal(overlap_size(said, size, fresh, again + rest), again);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_is_bounded),
        cmocka_unit_test(test_any_repetition),
        cmocka_unit_test(test_ends_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
