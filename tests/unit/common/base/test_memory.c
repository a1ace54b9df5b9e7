// arena, ring, rng, log: bounds hold, threads lose nothing, numbers repeat, lines stay lines.
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/ring.h"
#include "common/base/rng.h"

static void an_arena_is_bounded_aligned_and_zeroed(void **state) {
    (void)state;
    arena *a = arena_create(100000);
    rng r = rng_make(5);
    size_t used = 0;
    for (;;) {
        size_t size = rng_below(&r, 3000);
        unsigned char *p = arena_alloc(a, size);
        if (!p) {
            assert_true(used + size > 100000);
            break;
        }
        used += size;
        assert_int_equal(arena_used(a), used);
        assert_int_equal((uintptr_t)p % alignof(max_align_t), 0);
        for (size_t i = 0; i < size; i++) assert_int_equal(p[i], 0);
        memset(p, 0xaa, size);
    }
    assert_null(arena_alloc(a, SIZE_MAX));
    assert_null(arena_alloc_array(a, SIZE_MAX / 2, 3));
    assert_null(arena_copy(a, "x", SIZE_MAX));
    assert_string_equal(arena_copy(a, "hello", 4), "hell");
    assert_string_equal(arena_copy_string(a, "hello"), "hello");
    arena_destroy(a);
    a = arena_create(SIZE_MAX);
    assert_null(arena_alloc(a, SIZE_MAX - 3)); // rounding up must not wrap
    arena_destroy(a);
}

// ---- ring

enum { PRODUCERS = 3, ITEMS = 20000 };

typedef struct shared {
    ring *r;
    uint64_t sum[2]; // of each consumer
    int count[2];
} shared;

typedef struct worker {
    shared *s;
    int index;
} worker;

static void *produce(void *argument) {
    worker *w = argument;
    for (uint64_t i = 0; i < ITEMS; i++) {
        uint64_t item = (uint64_t)w->index * ITEMS + i;
        if (!ring_push(w->s->r, &item, clock_now_ns() + 60 * CLOCK_SECOND)) return w;
    }
    return NULL;
}

static void *consume(void *argument) {
    worker *w = argument;
    uint64_t item;
    while (ring_pop(w->s->r, &item, clock_now_ns() + 60 * CLOCK_SECOND)) {
        w->s->sum[w->index] += item;
        w->s->count[w->index]++;
    }
    return NULL;
}

static void a_ring_loses_nothing_between_threads(void **state) {
    (void)state;
    shared s = {.r = ring_create(sizeof(uint64_t), 7)};
    worker producers[PRODUCERS], consumers[2];
    pthread_t threads[PRODUCERS + 2];
    for (int i = 0; i < PRODUCERS; i++) {
        producers[i] = (worker){&s, i};
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        consumers[i] = (worker){&s, i};
        assert_int_equal(pthread_create(&threads[PRODUCERS + i], NULL, consume, &consumers[i]), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    ring_close(s.r); // consumers empty it, then end
    for (int i = 0; i < 2; i++) pthread_join(threads[PRODUCERS + i], NULL);
    uint64_t n = (uint64_t)PRODUCERS * ITEMS;
    assert_int_equal(s.count[0] + s.count[1], n);
    assert_int_equal(s.sum[0] + s.sum[1], n * (n - 1) / 2);
    ring_destroy(s.r);
}

static void a_ring_keeps_order_bounds_and_deadlines(void **state) {
    (void)state;
    ring *r = ring_create(sizeof(int), 3);
    int item;
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 3; i++) assert_true(ring_try_push(r, &i));
        assert_false(ring_try_push(r, &round));
        assert_int_equal(ring_count(r), 3);
        for (int i = 0; i < 2 + round % 2; i++) assert_true(ring_pop(r, &item, 0) && item == i);
        while (ring_pop(r, &item, 0)) {
        }
    }
    int64_t before = clock_now_ns();
    assert_false(ring_pop(r, &item, before + 20 * CLOCK_MS));
    assert_true(clock_now_ns() - before >= 20 * CLOCK_MS);
    assert_true(ring_try_push(r, &item));
    ring_close(r);
    assert_true(ring_is_closed(r));
    assert_false(ring_try_push(r, &item));
    assert_true(ring_pop(r, &item, 0));
    assert_false(ring_pop(r, &item, INT64_MAX)); // closed and empty: no wait
    ring_destroy(r);
    assert_null(ring_create(1 << 20, SIZE_MAX / 4));
}

// ---- rng

static void numbers_repeat_and_spread(void **state) {
    (void)state;
    rng a = rng_make(7), b = rng_make(7), c = rng_make(8);
    int same = 0, counts[10] = {0};
    for (int i = 0; i < 1000; i++) {
        uint64_t x = rng_next(&a);
        assert_true(x == rng_next(&b));
        same += x == rng_next(&c);
    }
    assert_int_equal(same, 0);
    for (int i = 0; i < 100000; i++) counts[rng_below(&a, 10)]++;
    for (int i = 0; i < 10; i++) assert_in_range(counts[i], 9500, 10500);
    double mean = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        double draw = rng_draw(1, i);
        assert_true(draw >= 0 && draw < 1 && draw == rng_draw(1, i) && draw != rng_draw(2, i));
        mean += draw / 10000;
    }
    assert_true(mean > 0.48 && mean < 0.52);
}

// xoshiro256** from the state 1, 2, 3, 4, by hand: rotl(2 * 5, 7) * 9 first.
static void the_stream_is_xoshiro(void **state) {
    (void)state;
    rng r = {{1, 2, 3, 4}};
    assert_true(rng_next(&r) == 11520);
    assert_true(rng_next(&r) == 0);
    assert_true(rng_next(&r) == 1509978240);
}

// ---- log

// Standard error of one call.
static void capture(char *out, size_t room, const char *text) {
    int pipes[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(pipes), 0);
    dup2(pipes[1], STDERR_FILENO);
    log_write(LOG_WARN, "subject", "%s", text);
    log_write(LOG_DEBUG, "subject", "not shown");
    dup2(saved, STDERR_FILENO);
    close(pipes[1]);
    close(saved);
    ssize_t got = read(pipes[0], out, room - 1);
    close(pipes[0]);
    out[got < 0 ? 0 : got] = 0;
}

static void a_log_line_is_one_line(void **state) {
    (void)state;
    char line[4096], text[3000];
    log_open(LOG_INFO, "worker 3");
    capture(line, sizeof line, "a\nb\x1b[2J\tc");
    assert_non_null(strstr(line, "Z warn  worker 3 subject: a b [2J c\n"));
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    capture(line, sizeof line, text);
    assert_true(strlen(line) < 1100 && line[strlen(line) - 1] == '\n');
    log_level level;
    status s = log_level_parse("warn", &level);
    assert_true(status_is_ok(&s) && level == LOG_WARN);
    s = log_level_parse("loud", &level);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_arena_is_bounded_aligned_and_zeroed),
        cmocka_unit_test(a_ring_loses_nothing_between_threads),
        cmocka_unit_test(a_ring_keeps_order_bounds_and_deadlines),
        cmocka_unit_test(numbers_repeat_and_spread),
        cmocka_unit_test(the_stream_is_xoshiro),
        cmocka_unit_test(a_log_line_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
