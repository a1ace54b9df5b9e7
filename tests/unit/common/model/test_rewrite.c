#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/model/rewrite.h"

static void expect_rewritten(const rewrite *r, const char *text, bool opens, bool at_start,
                             const char *expected) {
    buf room[2] = {buf_make(0), buf_make(0)};
    const char *out;
    size_t size;
    status s =
        rewrite_apply(r, text, strlen(text), (rewrite_place){opens, at_start}, room, &out, &size);
    assert_true(status_is_ok(&s));
    assert_int_equal(size, strlen(expected));
    assert_memory_equal(out, expected, size);
    buf_free(&room[0]);
    buf_free(&room[1]);
}

static void rewriting_goes_step_by_step(void **state) {
    (void)state;
    rewrite r = {0};
    rewrite_step prepend = {.kind = REWRITE_PREPEND, .to = {"_", 1}};
    rewrite_step replace = {.kind = REWRITE_REPLACE, .from = {" ", 1}, .to = {"__", 2}};
    rewrite_step missing = {.kind = REWRITE_PREPEND_MISSING, .to = {"<", 1}, .only_at_start = true};
    rewrite_add(&r, &prepend);
    rewrite_add(&r, &replace);
    expect_rewritten(&r, "a b  c", true, true, "_a__b____c");
    expect_rewritten(&r, "a b", false, false, "a__b");
    expect_rewritten(&r, "", true, true, "");
    rewrite_add(&r, &missing);
    expect_rewritten(&r, "a", true, true, "<_a");
    expect_rewritten(&r, "a", true, false, "_a");
    r.count = 0;
    rewrite_add(&r, &missing);
    expect_rewritten(&r, "<a", true, true, "<a");
    while (r.count < REWRITE_STEPS_MAX) rewrite_add(&r, &replace);
    assert_int_equal(rewrite_add(&r, &replace).code, STATUS_UNIMPLEMENTED);
}

// Sixteen steps that each double the text may not ask for 65,536 times the memory.
static void growth_is_bounded(void **state) {
    (void)state;
    rewrite r = {0};
    rewrite_step doubling = {.kind = REWRITE_REPLACE, .from = {"a", 1}, .to = {"aa", 2}};
    while (r.count < REWRITE_STEPS_MAX) rewrite_add(&r, &doubling);
    buf room[2] = {buf_make(0), buf_make(0)};
    char text[1000];
    memset(text, 'a', sizeof text);
    const char *out;
    size_t size;
    status s = rewrite_apply(&r, text, sizeof text, (rewrite_place){0}, room, &out, &size);
    assert_int_equal(s.code, STATUS_RESOURCE_EXHAUSTED);
    buf_free(&room[0]);
    buf_free(&room[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rewriting_goes_step_by_step),
        cmocka_unit_test(growth_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
