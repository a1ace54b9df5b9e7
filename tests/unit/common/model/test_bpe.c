// The heap and the short loop must agree with the plainest way to merge, and a word of a million
// symbols must not be slow.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/model/bpe.h"

enum { SYMBOLS = 40, MERGES = 300 };

typedef struct rule {
    int32_t left, right, merged;
} rule; // its index is its rank

static void make_rules(bpe *b, rule *rules, uint64_t seed) {
    rng r = rng_make(seed);
    status s = bpe_open(b, MERGES);
    assert_true(status_is_ok(&s));
    for (int i = 0; i < MERGES; i++) {
        // Later merges may use what earlier ones made.
        rules[i] = (rule){(int32_t)rng_below(&r, (uint64_t)(SYMBOLS + i)),
                          (int32_t)rng_below(&r, SYMBOLS), SYMBOLS + i};
        s = bpe_add(b, rules[i].left, rules[i].right, (uint32_t)i, rules[i].merged);
        assert_true(status_is_ok(&s));
    }
}

// Lowest rank first, leftmost first, by looking at everything every time.
static size_t merge_plainly(const rule *rules, int32_t *ids, size_t count) {
    for (;;) {
        size_t at = SIZE_MAX;
        int best = MERGES;
        for (size_t i = 0; i + 1 < count; i++)
            for (int k = 0; k < best; k++)
                if (rules[k].left == ids[i] && rules[k].right == ids[i + 1]) {
                    best = k;
                    at = i;
                }
        if (at == SIZE_MAX) return count;
        ids[at] = rules[best].merged;
        memmove(ids + at + 1, ids + at + 2, (--count - at - 1) * sizeof *ids);
    }
}

static void agrees_with_the_plain_way(void **state) {
    (void)state;
    static rule rules[MERGES];
    bpe_scratch scratch = {0};
    for (uint64_t seed = 1; seed <= 20; seed++) {
        bpe b;
        make_rules(&b, rules, seed);
        rng r = rng_make(seed + 1000);
        for (int word = 0; word < 60; word++) {
            int32_t ids[128], expected[128];
            size_t count = rng_below(&r, 128), kinds = 1 + rng_below(&r, SYMBOLS);
            for (size_t i = 0; i < count; i++) ids[i] = expected[i] = (int32_t)rng_below(&r, kinds);
            size_t expected_count = merge_plainly(rules, expected, count);
            status s = bpe_apply(&b, &scratch, ids, &count);
            assert_true(status_is_ok(&s));
            assert_int_equal(count, expected_count);
            if (count) assert_memory_equal(ids, expected, count * sizeof *ids);
        }
        bpe_free(&b);
    }
    bpe_scratch_free(&scratch);
}

static void a_pair_keeps_its_lowest_rank(void **state) {
    (void)state;
    bpe b;
    status s = bpe_open(&b, 3);
    assert_true(status_is_ok(&s));
    bpe_add(&b, 0, 1, 5, 10);
    bpe_add(&b, 0, 1, 3, 11);
    bpe_add(&b, 0, 1, 4, 12);
    int32_t ids[] = {0, 1};
    size_t count = 2;
    bpe_scratch scratch = {0};
    s = bpe_apply(&b, &scratch, ids, &count);
    assert_true(status_is_ok(&s));
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], 11);
    bpe_free(&b);
}

static void a_million_symbols_take_no_square(void **state) {
    (void)state;
    enum { COUNT = 1000000 };
    bpe b;
    status s = bpe_open(&b, 8);
    assert_true(status_is_ok(&s));
    for (int i = 0; i < 8; i++)
        bpe_add(&b, i, i, (uint32_t)i, i + 1); // a a, aa aa, ... up to 256 a
    int32_t *ids = calloc(COUNT, sizeof *ids);
    size_t count = COUNT;
    bpe_scratch scratch = {0};
    int64_t begin = clock_now_ns();
    s = bpe_apply(&b, &scratch, ids, &count);
    assert_true(status_is_ok(&s));
    assert_true(clock_now_ns() - begin <
                20 * CLOCK_SECOND);           // a square would be hours; sanitizers are slow
    assert_int_equal(count, COUNT / 256 + 1); // the rest is 64
    assert_int_equal(ids[0], 8);
    assert_int_equal(ids[count - 1], 6);
    bpe_scratch_free(&scratch);
    free(ids);
    bpe_free(&b);
}

static void too_many_merges_are_refused(void **state) {
    (void)state;
    bpe b;
    status s = bpe_open(&b, (int64_t)BPE_MERGES_MAX + 1);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    bpe_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_plain_way),
        cmocka_unit_test(a_pair_keeps_its_lowest_rank),
        cmocka_unit_test(a_million_symbols_take_no_square),
        cmocka_unit_test(too_many_merges_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
