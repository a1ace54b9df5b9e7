// Slots under grammars: masks that go on with what is sampled, that are the same where the answer
// was replayed, and that one slot's answer does not change for another's.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "unit/common/model/byte_tokenizer.h"
#include "worker/constraint.h"

enum { WORDS = (BYTE_TOKENIZER_SIZE + 31) / 32, SLOTS = 3 };

typedef struct bench {
    tokenizer *t;
    constraints *c;
} bench;

static int setup(void **state) {
    static bench b;
    b = (bench){.t = byte_tokenizer_open(NULL)};
    *state = &b;
    status s = constraints_create(b.t, BYTE_TOKENIZER_SIZE, SLOTS, &b.c);
    return status_is_ok(&s) ? 0 : -1;
}

static int teardown(void **state) {
    bench *b = *state;
    constraints_destroy(b->c);
    tokenizer_close(b->t);
    return 0;
}

static status open_with(bench *b, int slot, const char *regex, const int32_t *answer, int count) {
    grammar_source s = {GRAMMAR_REGEX, regex, strlen(regex)};
    return constraints_open(b->c, slot, &s, answer, count);
}

// The tokens of one byte that may come, in order; "." stands for the end.
static const char *may_come(bench *b, int slot) {
    static char text[300];
    const uint32_t *mask = constraints_mask(b->c, slot);
    size_t n = 0;
    for (int32_t t = 0; t < BYTE_TOKENIZER_SIZE; t++) {
        if (!(mask[t / 32] >> t % 32 & 1)) continue;
        if (t < 256) text[n++] = (char)t;
        if (t == BYTE_TOKENIZER_END) text[n++] = '.';
    }
    text[n] = 0;
    return text;
}

static void goes_on_with_what_is_sampled(void **state) {
    bench *b = *state;
    assert_false(constraints_has(b->c, 1));
    assert_null(constraints_mask(b->c, 1));
    assert_int_equal(open_with(b, 1, "x[ab]?y*", NULL, 0).code, STATUS_OK);
    assert_int_equal(open_with(b, 2, "x[ab]?y*", NULL, 0).code, STATUS_OK);
    assert_true(constraints_has(b->c, 1));
    assert_string_equal(may_come(b, 1), "x");
    constraints_take(b->c, 1, 'x');
    assert_string_equal(may_come(b, 1), "aby.");
    assert_string_equal(may_come(b, 2), "x");
    constraints_take(b->c, 1, BYTE_TOKENIZER_END);
    assert_string_equal(may_come(b, 1), "."); // a step ahead finds something to say
    grammar_source none = {0};
    assert_int_equal(constraints_open(b->c, 1, &none, NULL, 0).code, STATUS_OK);
    assert_false(constraints_has(b->c, 1));
    constraints_take(b->c, 1, 'z');
}

static void goes_on_where_another_group_was(void **state) {
    bench *b = *state;
    static const int32_t answer[] = {'x', 'b'}, wrong[] = {'x', 'q'};
    assert_int_equal(open_with(b, 0, "x[ab]?y*", answer, 2).code, STATUS_OK);
    assert_string_equal(may_come(b, 0), "y.");
    assert_int_equal(open_with(b, 0, "x[ab]?y*", wrong, 2).code, STATUS_INVALID_ARGUMENT);
    assert_int_equal(open_with(b, 0, "x[ab", NULL, 0).code, STATUS_INVALID_ARGUMENT);
    assert_false(constraints_has(b->c, 0));
}

// More grammars than are kept, some of them in use.
static void outlives_many_others(void **state) {
    bench *b = *state;
    assert_int_equal(open_with(b, 0, "keep", NULL, 0).code, STATUS_OK);
    for (int i = 0; i < 100; i++) {
        char regex[16];
        snprintf(regex, sizeof regex, "%c{%d}", 'a' + i % 26, i + 1);
        assert_int_equal(open_with(b, 1 + i % 2, regex, NULL, 0).code, STATUS_OK);
        char first[] = {(char)('a' + i % 26), 0};
        assert_string_equal(may_come(b, 1 + i % 2), first);
    }
    assert_string_equal(may_come(b, 0), "k");
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(goes_on_with_what_is_sampled),
        CASE(goes_on_where_another_group_was),
        CASE(outlives_many_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
