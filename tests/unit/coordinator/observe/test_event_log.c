// The event log: lines that parse, what is kept, and watchers that miss nothing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka needs the four above
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "coordinator/observe/event_log.h"

enum { PATIENCE_S = 60 };

static core_notice lost(int sequences) {
    return (core_notice){.kind = NOTICE_GROUP_LOST,
                         .loss = LOSS_SILENT,
                         .model = "m",
                         .group = "g3",
                         .host = "node7",
                         .upstream = "",
                         .epoch = 17,
                         .rank = 1,
                         .sequences = sequences,
                         .text = "rank 1 (\"node7\") fell silent"};
}

typedef struct seen {
    _Atomic uint64_t count, last, most; // most: enough after so many
} seen;

static bool see(void *user, const event_log_event *e) {
    seen *s = user;
    assert_int_equal(e->sequence, s->last + 1);
    s->last = e->sequence;
    return ++s->count < s->most;
}

static void wait_for(const _Atomic uint64_t *value, uint64_t least) {
    int64_t until = clock_now_ns() + PATIENCE_S * CLOCK_SECOND;
    while (*value < least && clock_now_ns() < until) clock_sleep_until(clock_now_ns() + CLOCK_MS);
    assert_true(*value >= least);
}

static void lines_are_json(void **state) {
    (void)state;
    char path[] = "/tmp/octant-event-log-XXXXXX", line[4096];
    close(mkstemp(path));
    event_log *l = NULL;
    assert_int_equal(event_log_open(path, &l).code, STATUS_OK);
    core_notice n = lost(12), back = {.kind = NOTICE_TRAFFIC_BACK, .model = "m", .rank = -1};
    event_log_write(l, &n);
    event_log_write(l, &back);
    event_log_close(l); // what waits is written first
    FILE *file = fopen(path, "r");
    json_t *e = NULL;
    assert_non_null(fgets(line, sizeof line, file));
    assert_int_equal(json_parse(line, strlen(line), &e).code, STATUS_OK);
    assert_int_equal(json_integer_value(json_object_get(e, "sequence")), 1);
    assert_string_equal(json_string_value(json_object_get(e, "kind")), "group-lost");
    assert_string_equal(json_string_value(json_object_get(e, "loss")), "silent");
    assert_string_equal(json_string_value(json_object_get(e, "host")), "node7");
    assert_string_equal(json_string_value(json_object_get(e, "text")), n.text);
    assert_int_equal(json_integer_value(json_object_get(e, "rank")), 1);
    assert_int_equal(json_integer_value(json_object_get(e, "sequences")), 12);
    assert_int_equal(strlen(json_string_value(json_object_get(e, "time"))), 24);
    json_decref(e);
    assert_non_null(fgets(line, sizeof line, file));
    assert_int_equal(json_parse(line, strlen(line), &e).code, STATUS_OK);
    assert_null(json_object_get(e, "rank")); // what says nothing is left out
    assert_null(json_object_get(e, "loss"));
    json_decref(e);
    assert_null(fgets(line, sizeof line, file));
    fclose(file);
    unlink(path);
}

static void a_file_that_cannot_be_opened_is_named(void **state) {
    (void)state;
    event_log *l = NULL;
    status s = event_log_open("/nowhere/events", &l);
    assert_int_equal(s.code, STATUS_UNAVAILABLE);
    assert_non_null(strstr(s.message, "/nowhere/events"));
}

static void watchers_get_the_kept_ones_then_all_that_come(void **state) {
    (void)state;
    event_log *l = NULL;
    assert_int_equal(event_log_open(NULL, &l).code, STATUS_OK);
    core_notice n = lost(1);
    seen first = {.most = UINT64_MAX}, late = {.most = UINT64_MAX}, few = {.most = 3};
    assert_int_equal(event_log_watch(l, 0, see, &first).code, STATUS_OK);
    for (int i = 0; i < 10; i++) event_log_write(l, &n);
    wait_for(&first.count, 10);
    late.last = 4;
    assert_int_equal(event_log_watch(l, 4, see, &late).code, STATUS_OK);
    assert_int_equal(late.count, 6);
    assert_int_equal(event_log_watch(l, 0, see, &few).code, STATUS_OK); // has enough at once
    event_log_write(l, &n);
    wait_for(&late.count, 7);
    wait_for(&first.count, 11);
    assert_int_equal(few.count, 3);
    event_log_unwatch(l, &late);
    event_log_write(l, &n);
    wait_for(&first.count, 12);
    assert_int_equal(late.count, 7);
    event_log_close(l);
}

static void only_the_newest_are_kept(void **state) {
    (void)state;
    event_log *l = NULL;
    assert_int_equal(event_log_open(NULL, &l).code, STATUS_OK);
    core_notice n = lost(1);
    seen all = {.most = UINT64_MAX}, late = {.most = UINT64_MAX, .last = 50};
    assert_int_equal(event_log_watch(l, 0, see, &all).code, STATUS_OK);
    for (int i = 1; i <= EVENT_LOG_KEPT + 50; i++) {
        event_log_write(l, &n);
        wait_for(&all.count, (uint64_t)i);
    }
    assert_int_equal(event_log_watch(l, 0, see, &late).code, STATUS_OK);
    assert_int_equal(late.count, EVENT_LOG_KEPT);
    event_log_close(l);
}

static bool never(void *user, const event_log_event *e) {
    (void)user, (void)e;
    return true;
}

static void watchers_are_bounded(void **state) {
    (void)state;
    event_log *l = NULL;
    char users[EVENT_LOG_WATCHERS + 1];
    assert_int_equal(event_log_open(NULL, &l).code, STATUS_OK);
    for (int i = 0; i < EVENT_LOG_WATCHERS; i++)
        assert_int_equal(event_log_watch(l, 0, never, &users[i]).code, STATUS_OK);
    assert_int_equal(event_log_watch(l, 0, never, &users[EVENT_LOG_WATCHERS]).code,
                     STATUS_RESOURCE_EXHAUSTED);
    event_log_unwatch(l, &users[7]);
    assert_int_equal(event_log_watch(l, 0, never, &users[EVENT_LOG_WATCHERS]).code, STATUS_OK);
    event_log_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_json),
        cmocka_unit_test(a_file_that_cannot_be_opened_is_named),
        cmocka_unit_test(watchers_get_the_kept_ones_then_all_that_come),
        cmocka_unit_test(only_the_newest_are_kept),
        cmocka_unit_test(watchers_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
