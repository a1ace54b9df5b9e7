// Nothing that a call says is lost, doubled or put out of order, whatever the core takes when.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/rng.h"
#include "coordinator/upstream/outbox.h"

typedef struct taker {
    buf heard;
    int room, events;
} taker;

static bool take(void *core, const core_event *event, int64_t deadline_ns) {
    taker *t = core;
    assert_int_equal(deadline_ns, 0);
    assert_int_equal(event->kind, CORE_UPSTREAM_CONTENT);
    assert_int_equal(event->upstream.call, 42);
    if (!t->room) return false;
    t->room--;
    t->events++;
    const upstream_content *c = &event->upstream.content;
    if (c->tool)
        buf_printf(&t->heard, "[%d %s %s %.*s]", c->tool->index, c->tool->id ? c->tool->id : "-",
                   c->tool->name ? c->tool->name : "-", (int)c->tool->size, c->tool->arguments);
    else
        buf_append(&t->heard, c->text, c->size);
    core_event copy = *event;
    core_event_free(&copy);
    return true;
}

static void say(outbox *o, const char *text) {
    assert_true(outbox_add(o, &(upstream_content){.text = text, .size = strlen(text)}));
}

static void test_joins(void **state) {
    (void)state;
    outbox o = {0};
    taker t = {.heard = buf_make(1 << 20)};
    say(&o, "one ");
    say(&o, "");
    say(&o, "two ");
    answer_tool tool = {
        .index = 1, .id = "call_1", .name = "look", .arguments = "{\"a\"", .size = 4};
    assert_true(outbox_add(&o, &(upstream_content){.tool = &tool}));
    answer_tool more = {.index = 1, .arguments = ":1}", .size = 3};
    assert_true(outbox_add(&o, &(upstream_content){.tool = &more}));
    say(&o, "three");
    assert_false(outbox_flush(&o, 42, take, &t));
    t.room = 100;
    assert_true(outbox_flush(&o, 42, take, &t));
    assert_true(outbox_is_empty(&o));
    assert_string_equal(buf_string(&t.heard), "one two [1 call_1 look {\"a\"][1 - - :1}]three");
    assert_int_equal(t.events, 4);
    buf_free(&t.heard);
}

static void test_any_order(void **state) {
    (void)state;
    outbox o = {0};
    taker t = {.heard = buf_make(1 << 20)};
    buf said = buf_make(1 << 20);
    rng r = rng_make(7);
    for (int i = 0; i < 5000; i++) {
        char text[32];
        snprintf(text, sizeof text, "%d,", i);
        say(&o, text);
        buf_append_string(&said, text);
        t.room = (int)rng_below(&r, 3);
        if (rng_below(&r, 2)) outbox_flush(&o, 42, take, &t);
    }
    t.room = 1 << 20;
    assert_true(outbox_flush(&o, 42, take, &t));
    assert_string_equal(buf_string(&t.heard), buf_string(&said));
    say(&o, "never heard");
    outbox_clear(&o);
    assert_true(outbox_is_empty(&o));
    buf_free(&said);
    buf_free(&t.heard);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_joins),
                                       cmocka_unit_test(test_any_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
