#include "coordinator/ingress/sink.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/observe/metrics.h"

typedef struct counts {
    int wakes, cuts;
} counts;

static void count_wake(void *owner) {
    ((counts *)owner)->wakes++;
}
static void count_cut(void *owner) {
    ((counts *)owner)->cuts++;
}

static sink_stream *make(counts *c, int sinks, int answers, size_t limit, bool collect) {
    *c = (counts){0};
    return sink_stream_create(&(sink_stream_options){.sinks = sinks,
                                                     .answers = answers,
                                                     .limit = limit,
                                                     .collect = collect,
                                                     .edge = {c, count_wake, count_cut}});
}

static bool say(sink *s, int index, const char *text) {
    return sink_piece(s, &(answer_piece){.index = index, .text = text, .size = strlen(text)});
}

static void end(sink *s, status_code code) {
    answer_end e = {.why = code ? status_error(code, "why") : status_ok(),
                    .usage = {.prompt_tokens = 2, .completion_tokens = 3}};
    sink_end(s, &e);
}

static void test_pieces_come_back_as_they_were(void **state) {
    (void)state;
    counts c;
    sink_stream *stream = make(&c, 2, 2, SINK_STREAM_BYTES, false);
    int32_t tokens[3] = {5, 6, 7};
    token_choice top[2] = {{1, -1}, {2, -2}};
    answer_logprob logprobs[3] = {{NAN, NULL, 0}, {-0.5F, top, 2}, {-0.25F, top + 1, 1}};
    assert_true(sink_piece(sink_stream_sink(stream, 1), &(answer_piece){.index = 1,
                                                                        .text = "h\0i",
                                                                        .size = 3,
                                                                        .tokens = tokens,
                                                                        .token_count = 3,
                                                                        .logprobs = logprobs,
                                                                        .finish = ANSWER_STOP}));
    assert_true(sink_piece(sink_stream_sink(stream, 0),
                           &(answer_piece){.tokens = tokens, .token_count = 1, .prompt = true}));
    buf taken = buf_make(1 << 20);
    assert_true(sink_stream_take(stream, &taken));
    size_t at = 0;
    sink_event e;
    assert_true(sink_event_next(&taken, &at, &e));
    assert_int_equal(e.kind, SINK_PIECE);
    assert_int_equal(e.piece.index, 3);
    assert_memory_equal(e.piece.text, "h\0i", 3);
    assert_int_equal(e.piece.token_count, 3);
    assert_int_equal(e.piece.tokens[2], 7);
    assert_true(isnan(e.piece.logprobs[0].logprob));
    assert_int_equal(e.piece.logprobs[1].top[1].id, 2);
    assert_int_equal(e.piece.logprobs[2].top[0].id, 2);
    assert_int_equal(e.piece.finish, ANSWER_STOP);
    assert_true(sink_event_next(&taken, &at, &e));
    assert_true(e.piece.prompt && !e.piece.logprobs && e.piece.index == 0 && e.piece.size == 0);
    assert_false(sink_event_next(&taken, &at, &e));
    assert_false(sink_stream_take(stream, &taken));
    sink_stream_release(stream); // before its sinks' ends: they free it
    end(sink_stream_sink(stream, 0), STATUS_OK);
    end(sink_stream_sink(stream, 1), STATUS_OK);
    buf_free(&taken);
}

static void test_tools_and_servers_come_back(void **state) {
    (void)state;
    counts c;
    sink_stream *stream = make(&c, 1, 1, SINK_STREAM_BYTES, false);
    sink *s = sink_stream_sink(stream, 0);
    answer_tool first = {
        .index = 2, .id = "call-1", .name = "look", .arguments = "{\"a", .size = 3};
    answer_tool more = {.index = 2, .arguments = "\":1}", .size = 4};
    assert_true(
        sink_piece(s, &(answer_piece){.text = "", .tool = &first, .served_by = "frontier"}));
    assert_true(sink_piece(s, &(answer_piece){.text = "t", .size = 1, .tool = &more}));
    answer_end done = {.usage = {.segment_count = 1, .segments = {{"frontier", 7}}}};
    sink_end(s, &done);
    buf taken = buf_make(1 << 20);
    assert_true(sink_stream_take(stream, &taken));
    size_t at = 0;
    sink_event e;
    assert_true(sink_event_next(&taken, &at, &e));
    assert_string_equal(e.piece.served_by, "frontier");
    assert_int_equal(e.piece.tool->index, 2);
    assert_string_equal(e.piece.tool->id, "call-1");
    assert_string_equal(e.piece.tool->name, "look");
    assert_memory_equal(e.piece.tool->arguments, "{\"a", e.piece.tool->size);
    assert_true(sink_event_next(&taken, &at, &e));
    assert_null(e.piece.served_by);
    assert_null(e.piece.tool->id);
    assert_int_equal(e.piece.tool->size, 4);
    assert_memory_equal(e.piece.tool->arguments, "\":1}", 4);
    assert_memory_equal(e.piece.text, "t", 1);
    assert_true(sink_event_next(&taken, &at, &e));
    assert_int_equal(e.end.usage.segment_count, 1);
    assert_string_equal(e.end.usage.segments[0].by, "frontier");
    buf_free(&taken);
    sink_stream_release(stream);
}

static int ends_of(sink_stream *stream, sink_event *last) {
    buf taken = buf_make(1 << 20);
    int ends = 0;
    while (sink_stream_take(stream, &taken)) {
        sink_event e;
        for (size_t at = 0; sink_event_next(&taken, &at, &e);)
            if (e.kind == SINK_END) {
                ends++;
                *last = e;
            }
    }
    buf_free(&taken);
    return ends;
}

static void test_one_end(void **state) {
    (void)state;
    counts c;
    sink_event last;
    sink_stream *stream = make(&c, 2, 1, SINK_STREAM_BYTES, false);
    end(sink_stream_sink(stream, 1), STATUS_OK);
    assert_int_equal(ends_of(stream, &last), 0);
    end(sink_stream_sink(stream, 0), STATUS_OK);
    assert_int_equal(ends_of(stream, &last), 1);
    assert_int_equal(last.end.usage.prompt_tokens, 4);
    assert_int_equal(last.end.usage.completion_tokens, 6);
    sink_stream_release(stream);
    // the first error ends all: the others hear that nobody listens
    stream = make(&c, 2, 1, SINK_STREAM_BYTES, false);
    end(sink_stream_sink(stream, 1), STATUS_UNAVAILABLE);
    assert_false(say(sink_stream_sink(stream, 0), 0, "x"));
    end(sink_stream_sink(stream, 0), STATUS_CANCELLED);
    assert_int_equal(ends_of(stream, &last), 1);
    assert_int_equal(last.end.why.code, STATUS_UNAVAILABLE);
    sink_stream_release(stream);
}

static void test_sleep_and_wake(void **state) {
    (void)state;
    counts c;
    sink_stream *stream = make(&c, 1, 1, SINK_STREAM_BYTES, false);
    sink *s = sink_stream_sink(stream, 0);
    say(s, 0, "a");
    assert_int_equal(c.wakes, 0); // not asleep
    assert_false(sink_stream_sleep(stream, NULL));
    buf taken = buf_make(1 << 20);
    sink_stream_take(stream, &taken);
    assert_true(sink_stream_sleep(stream, NULL));
    say(s, 0, "b");
    say(s, 0, "c");
    assert_int_equal(c.wakes, 1); // once, not for each piece
    end(s, STATUS_OK);
    sink_stream_release(stream);
    // collected: only the end wakes
    stream = make(&c, 1, 1, SINK_COLLECT_BYTES, true);
    s = sink_stream_sink(stream, 0);
    assert_true(sink_stream_sleep(stream, NULL));
    say(s, 0, "b");
    assert_int_equal(c.wakes, 0);
    end(s, STATUS_OK);
    assert_int_equal(c.wakes, 1);
    assert_false(sink_stream_sleep(stream, NULL));
    sink_stream_release(stream);
    buf_free(&taken);
}

static void test_overflow_cuts(void **state) {
    (void)state;
    counts c;
    sink_stream *stream = make(&c, 1, 1, 4096, false);
    sink *s = sink_stream_sink(stream, 0);
    char text[1001] = {0};
    memset(text, 'x', 1000);
    int taken = 0;
    while (say(s, 0, text)) taken++;
    assert_true(taken == 3);
    assert_int_equal(c.cuts, 1);
    assert_true(sink_stream_is_cancelled(stream));
    assert_false(say(s, 0, "x"));
    assert_int_equal(c.cuts, 1);
    end(s, STATUS_CANCELLED);
    sink_stream_release(stream);
}

static void test_end_fits_a_full_buffer(void **state) {
    (void)state;
    counts c;
    sink_event last;
    sink_stream *stream = make(&c, 1, 1, 4096, false);
    sink *s = sink_stream_sink(stream, 0);
    for (int i = 0; i < 3; i++) assert_true(say(s, 0, "x"));
    char text[3700] = {0};
    memset(text, 'x', 3690);
    assert_true(say(s, 0, text));
    end(s, STATUS_OK);
    assert_int_equal(ends_of(stream, &last), 1);
    sink_stream_release(stream);
}

static void test_preface(void **state) {
    (void)state;
    counts c;
    sink_stream *stream = make(&c, 1, 2, SINK_STREAM_BYTES, false);
    sink *s = sink_stream_sink(stream, 0);
    assert_true(sink_stream_preface(stream, 0, "P:", 2));
    say(s, 1, "x");
    say(s, 0, "y");
    buf taken = buf_make(1 << 20);
    sink_stream_take(stream, &taken);
    const char *texts[] = {"P:", "P:", "x", "y"};
    int indexes[] = {0, 1, 1, 0};
    sink_event e;
    size_t at = 0;
    for (int i = 0; i < 4; i++) {
        assert_true(sink_event_next(&taken, &at, &e));
        assert_int_equal(e.piece.index, indexes[i]);
        assert_memory_equal(e.piece.text, texts[i], strlen(texts[i]));
    }
    end(s, STATUS_OK);
    sink_stream_release(stream);
    // a refusal is not prefaced
    stream = make(&c, 1, 1, SINK_STREAM_BYTES, false);
    sink_stream_preface(stream, 0, "P:", 2);
    end(sink_stream_sink(stream, 0), STATUS_RESOURCE_EXHAUSTED);
    sink_stream_take(stream, &taken);
    at = 0;
    assert_true(sink_event_next(&taken, &at, &e));
    assert_int_equal(e.kind, SINK_END);
    sink_stream_release(stream);
    buf_free(&taken);
}

typedef struct producer {
    sink *sink;
    int pieces;
} producer;

static void *produce(void *arg) {
    producer *p = arg;
    int32_t token = 1;
    bool listens = true;
    for (int i = 0; listens && i < p->pieces; i++)
        listens = sink_piece(
            p->sink,
            &(answer_piece){.text = "word", .size = 4, .tokens = &token, .token_count = 1});
    end(p->sink, listens ? STATUS_OK : STATUS_CANCELLED);
    return NULL;
}

// Producers and an edge at once; every other stream is released in the middle. Run under TSan and
// ASan.
static void test_threads(void **state) {
    (void)state;
    metrics *m = metrics_create();
    for (int round = 0; round < 100; round++) {
        counts c = {0};
        sink_stream *stream =
            sink_stream_create(&(sink_stream_options){.sinks = 2,
                                                      .answers = 1,
                                                      .limit = 8 << 20,
                                                      .edge = {&c, count_wake, NULL},
                                                      .metrics = m});
        producer p[2] = {{sink_stream_sink(stream, 0), 500}, {sink_stream_sink(stream, 1), 500}};
        pthread_t threads[2];
        for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, produce, &p[i]);
        buf taken = buf_make(8 << 20);
        size_t bytes = 0;
        for (bool over = false; !over && !(round % 2 && bytes > 1000);) {
            sink_event e;
            sink_stream_take(stream, &taken);
            for (size_t at = 0; sink_event_next(&taken, &at, &e);) {
                if (e.kind == SINK_END)
                    over = true;
                else
                    bytes += e.piece.size;
            }
        }
        if (round % 2 == 0) assert_int_equal(bytes, 4000);
        sink_stream_release(stream);
        for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
        buf_free(&taken);
    }
    assert_int_equal(metrics_get_totals(m).requests, 200);
    metrics_destroy(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_come_back_as_they_were),
        cmocka_unit_test(test_tools_and_servers_come_back),
        cmocka_unit_test(test_one_end),
        cmocka_unit_test(test_sleep_and_wake),
        cmocka_unit_test(test_overflow_cuts),
        cmocka_unit_test(test_end_fits_a_full_buffer),
        cmocka_unit_test(test_preface),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
