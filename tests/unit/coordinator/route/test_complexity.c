#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/route/complexity.h"

static complexity_score score(const char *text) {
    complexity_options o = complexity_default_options();
    return complexity_of(&o, text, strlen(text), 0, false);
}

static void levels(void **state) {
    (void)state;
    assert_int_equal(score("").level, COMPLEXITY_SIMPLE);
    assert_int_equal(score("Hello!").level, COMPLEXITY_SIMPLE);
    assert_int_equal(score("Write a Python script that renames all files in a folder, and explain "
                           "how it works.")
                         .level,
                     COMPLEXITY_MEDIUM);
    assert_int_equal(score("Prove step by step that this lock-free queue is correct, analyse the "
                           "trade-offs of weaker memory orders and justify each of them.")
                         .level,
                     COMPLEXITY_HARD);
}

static void features(void **state) {
    (void)state;
    complexity_score s = score("Why? PROVE it:\n- a\n- b\n```c\nint x;\n```");
    assert_true(s.features[COMPLEXITY_REASONING] == 0.5);
    assert_true(s.features[COMPLEXITY_TASKS] == 1);
    assert_true(s.features[COMPLEXITY_CODE] > 0);
    assert_true(s.features[COMPLEXITY_QUESTION] == 0.5);
    assert_true(score("improved").features[COMPLEXITY_REASONING] == 0); // no word begins there
    assert_true(score("hi").features[COMPLEXITY_EASY] == 1);
}

static void weights_and_thresholds_are_the_operators(void **state) {
    (void)state;
    complexity_options o = {.medium = 0.2, .hard = 0.9, .weights = {[COMPLEXITY_TOOLS] = 0.5}};
    assert_int_equal(complexity_of(&o, "prove", 5, 0, false).level, COMPLEXITY_SIMPLE);
    assert_int_equal(complexity_of(&o, "prove", 5, 0, true).level, COMPLEXITY_MEDIUM);
    o.weights[COMPLEXITY_HISTORY] = 0.5;
    assert_int_equal(complexity_of(&o, "", 0, 1 << 30, true).level, COMPLEXITY_HARD);
    o.weights[COMPLEXITY_HISTORY] = -5;
    assert_true(complexity_of(&o, "", 0, 1 << 30, true).score == 0);
}

static void any_bytes_are_taken(void **state) {
    (void)state;
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE);
    complexity_options o = complexity_default_options();
    for (int c = 0; c < 256; c += 5) {
        memset(text, c, SIZE);
        complexity_score s = complexity_of(&o, text, SIZE, SIZE, true);
        assert_true(s.score >= 0 && s.score <= 1);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels),
        cmocka_unit_test(features),
        cmocka_unit_test(weights_and_thresholds_are_the_operators),
        cmocka_unit_test(any_bytes_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
