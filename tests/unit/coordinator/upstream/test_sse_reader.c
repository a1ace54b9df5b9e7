// Server-sent events as the standard has them: fields, comments, line ends, marks, bounds.
#include "coordinator/upstream/sse_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

typedef struct events {
    char text[512]; // each event's data in brackets
    int left;       // events until the reader is told to stop
} events;

static bool on_event(void *owner, const char *data, size_t size) {
    events *e = owner;
    strcat(e->text, "[");
    strncat(e->text, data, size);
    strcat(e->text, "]");
    return --e->left > 0;
}

static events read_all(const char *bytes, size_t size, size_t step, int most, bool *between) {
    events e = {.left = most};
    sse_reader r = sse_reader_make(1 << 10);
    for (size_t at = 0; at < size; at += step)
        assert_true(
            sse_reader_feed(&r, bytes + at, size - at < step ? size - at : step, on_event, &e));
    *between = sse_reader_is_between(&r);
    sse_reader_free(&r);
    return e;
}

static const struct {
    const char *bytes, *events;
    bool between;
} CASES[] = {
    {"data: a\n\ndata: b\n\n", "[a][b]", true},
    {"data: a\r\n\r\ndata: b\r\rdata: c\n\r\n", "[a][b][c]", true},
    {"\xef\xbb\xbf"
     "data: a\n\n",
     "[a]", true},
    {": comment\n\nevent: x\nid: 7\ndata:a\ndata:  b\n\n", "[a\n b]", true},
    {"data\n\ndatax: no\ndata: a\n\n", "[][a]", true},
    {"\n\n\nevent: only\n\n", "", true},
    {"data: a\n\ndata: b\n", "[a]", false},
    {"data: a\n\nda", "[a]", false},
};

static void test_every_split(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        size_t size = strlen(CASES[i].bytes);
        for (size_t step = 1; step <= size; step++) {
            bool between;
            events e = read_all(CASES[i].bytes, size, step, 99, &between);
            if (strcmp(e.text, CASES[i].events) || between != CASES[i].between)
                fail_msg("case %zu, step %zu: %s", i, step, e.text);
        }
    }
}

static void test_stops_when_told(void **state) {
    (void)state;
    bool between;
    events e = read_all("data: a\n\ndata: b\n\n", 18, 18, 1, &between);
    assert_string_equal(e.text, "[a]");
    e = read_all("data: a\n\ndata: b\n\n", 18, 1, 1, &between);
    assert_string_equal(e.text, "[a]");
}

static void test_bounds(void **state) {
    (void)state;
    events e = {.left = 99};
    sse_reader line = sse_reader_make(8), data = sse_reader_make(8);
    assert_true(sse_reader_feed(&line, ": 345678", 8, on_event, &e));
    assert_false(sse_reader_feed(&line, "9", 1, on_event, &e));
    assert_true(sse_reader_feed(&data, "data:12\ndata:345\n", 17, on_event, &e));
    assert_false(sse_reader_feed(&data, "data:678\n", 9, on_event, &e));
    assert_string_equal(e.text, "");
    sse_reader_free(&line);
    sse_reader_free(&data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_stops_when_told),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
