// Blocks add up, prefixes are found exactly, and what is evicted first is what was let go longest
// ago.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/core/kv_blocks.h"

enum { SIZE = 4 };

static const int32_t prefix[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

// Computes and publishes `count` blocks of `tokens`; they are held.
static void fill(kv_blocks *b, const int32_t *tokens, int count, int32_t *out) {
    kv_chain chain = 0;
    for (int i = 0; i < count; i++) {
        out[i] = kv_blocks_take(b);
        assert_true(out[i] >= 0);
        kv_blocks_publish(b, out[i], tokens + i * SIZE, &chain);
    }
}

static void test_books(void **state) {
    (void)state;
    kv_blocks *b = kv_blocks_create(5, SIZE, 7);
    int32_t held[5];
    fill(b, prefix, 3, held);
    assert_int_equal(kv_blocks_used(b), 3);
    assert_int_equal(kv_blocks_available(b), 2);
    kv_blocks_release(b, held, 3);
    assert_int_equal(kv_blocks_used(b), 0);
    assert_int_equal(kv_blocks_cached(b), 3);
    for (int i = 0; i < 5; i++) held[i] = kv_blocks_take(b);
    assert_int_equal(kv_blocks_take(b), -1);
    assert_int_equal(kv_blocks_cached(b), 0);
    assert_true(kv_blocks_audit(b));
    kv_blocks_release(b, held, 5);
    assert_true(kv_blocks_audit(b));
    kv_blocks_destroy(b);
}

static void test_prefix_is_shared(void **state) {
    (void)state;
    kv_blocks *b = kv_blocks_create(8, SIZE, 7);
    int32_t first[3], second[3];
    fill(b, prefix, 3, first);
    kv_chain chain;
    assert_int_equal(kv_blocks_match(b, prefix, 2, second, &chain), 2);
    assert_int_equal(second[0], first[0]);
    assert_int_equal(kv_blocks_holds(b, first[0]), 2);
    assert_int_equal(kv_blocks_used(b), 3);
    kv_blocks_release(b, first, 3);
    assert_int_equal(kv_blocks_used(b), 2); // the second sequence still counts on them
    int of_cached;
    assert_int_equal(kv_blocks_peek(b, prefix, 3, &of_cached), 3);
    assert_int_equal(of_cached, 1);
    kv_blocks_release(b, second, 2);
    assert_true(kv_blocks_audit(b));
    kv_blocks_destroy(b);
}

static void test_same_tokens_after_another_prefix_are_another_block(void **state) {
    (void)state;
    const int32_t other[] = {9, 9, 9, 9, 5, 6, 7, 8};
    kv_blocks *b = kv_blocks_create(8, SIZE, 7);
    int32_t held[3], found[3];
    fill(b, prefix, 3, held);
    kv_chain chain;
    assert_int_equal(kv_blocks_match(b, other, 2, found, &chain), 0);
    assert_int_equal(kv_blocks_match(b, prefix + SIZE, 1, found, &chain), 0);
    kv_blocks_release(b, held, 3);
    kv_blocks_destroy(b);
}

static void test_the_start_of_a_prefix_stays_longest(void **state) {
    (void)state;
    kv_blocks *b = kv_blocks_create(3, SIZE, 7);
    int32_t held[3], found[3];
    fill(b, prefix, 3, held);
    kv_blocks_release(b, held, 3);
    int32_t taken = kv_blocks_take(b); // nothing is free: the tail goes
    assert_int_equal(taken, held[2]);
    kv_chain chain;
    assert_int_equal(kv_blocks_match(b, prefix, 3, found, &chain), 2);
    kv_blocks_release(b, found, 2);
    kv_blocks_release(b, &taken, 1);
    kv_blocks_destroy(b);
}

static void test_computed_twice_and_forgotten(void **state) {
    (void)state;
    kv_blocks *b = kv_blocks_create(4, SIZE, 7);
    int32_t first, second, found;
    kv_chain one, two;
    fill(b, prefix, 1, &first);
    fill(b, prefix, 1, &second);
    one = two = 0;
    assert_int_equal(kv_blocks_match(b, prefix, 1, &found, &one), 1);
    assert_int_equal(found, first);
    kv_blocks_release(b, &found, 1);
    kv_blocks_release(b, &second, 1); // was never known: free, not cached
    assert_int_equal(kv_blocks_cached(b), 0);
    kv_blocks_forget(b, first);
    assert_int_equal(kv_blocks_match(b, prefix, 1, &found, &two), 0);
    kv_blocks_release(b, &first, 1);
    assert_int_equal(kv_blocks_cached(b), 0);
    assert_true(kv_blocks_audit(b));
    kv_blocks_destroy(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_books),
        cmocka_unit_test(test_prefix_is_shared),
        cmocka_unit_test(test_same_tokens_after_another_prefix_are_another_block),
        cmocka_unit_test(test_the_start_of_a_prefix_stays_longest),
        cmocka_unit_test(test_computed_twice_and_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
