// The RPC server and client against each other over loopback: every kind of call, limits,
// cancellation from both sides, deadlines, back-pressure, and stopping with calls open. Under TSan
// this is the test of their locking.
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

#include "common/base/clock.h"
#include "proto/rpc_client.h"
#include "proto/rpc_server.h"

enum { REQUEST_MAX = 1000, MESSAGE_MAX = 1 << 20, STREAMS = 50 };

typedef struct echo {
    atomic_int opened, closed, completed;
    rpc_call *held;  // of hold_open
    atomic_int next; // of a pulled stream
} echo;

static void say_closed(void *owner, rpc_call *call, bool completed) {
    echo *e = owner;
    (void)call;
    atomic_fetch_add(&e->closed, 1);
    if (completed) atomic_fetch_add(&e->completed, 1);
}

static void say(void *owner, rpc_call *call, const void *bytes, size_t size) {
    atomic_fetch_add(&((echo *)owner)->opened, 1);
    rpc_call_reply(call, bytes, size);
}

// Fails with the request's text, a trailer, and what the call knew of its client.
static void refuse(void *owner, rpc_call *call, const void *bytes, size_t size) {
    atomic_fetch_add(&((echo *)owner)->opened, 1);
    const char *key = rpc_call_metadata(call, "authorization");
    rpc_metadata trailer = {"retry-after-ms", "1234"};
    rpc_call_finish(call,
                    status_error(STATUS_RESOURCE_EXHAUSTED, "%.*s from %s with %s%s", (int)size,
                                 (const char *)bytes, rpc_call_peer(call), key ? key : "nothing",
                                 rpc_call_deadline_ns(call) > clock_now_ns() ? " in time" : ""),
                    &trailer, 1);
}

// Pushes as many messages as the request says.
static void count(void *owner, rpc_call *call, const void *bytes, size_t size) {
    atomic_fetch_add(&((echo *)owner)->opened, 1);
    int most = 0;
    memcpy(&most, bytes, size < sizeof most ? size : sizeof most);
    for (int i = 0; i < most; i++) rpc_call_send(call, &i, sizeof i);
    rpc_call_finish(call, status_ok(), NULL, 0);
}

// Says nothing and holds on to the call.
static void hold(void *owner, rpc_call *call, const void *bytes, size_t size) {
    (void)bytes, (void)size;
    echo *e = owner;
    rpc_call_ref(call);
    e->held = call;
    atomic_fetch_add(&e->opened, 1);
}

static void pull_open(void *owner, rpc_call *call, const void *bytes, size_t size) {
    hold(owner, call, bytes, size);
    rpc_call_wake(call);
}

// One message a turn; ends after 1000.
static void pull(void *owner, rpc_call *call) {
    echo *e = owner;
    int i = atomic_fetch_add(&e->next, 1);
    if (i < 1000)
        rpc_call_send(call, &i, sizeof i);
    else
        rpc_call_finish(call, status_ok(), NULL, 0);
}

// Sends as much as it may until the outbox is full, then gives up.
static void flood(void *owner, rpc_call *call, const void *bytes, size_t size) {
    (void)bytes, (void)size;
    atomic_fetch_add(&((echo *)owner)->opened, 1);
    char *big = calloc(1, MESSAGE_MAX / 4);
    status s = status_ok();
    for (int i = 0; i < 1000 && s.code == STATUS_OK; i++)
        s = rpc_call_send(call, big, MESSAGE_MAX / 4);
    free(big);
    assert_int_equal(s.code, STATUS_RESOURCE_EXHAUSTED);
    rpc_call_abort(call, s);
}

static void both_open(void *owner, rpc_call *call, const void *bytes, size_t size) {
    assert_null(bytes);
    assert_int_equal(size, 0);
    rpc_call_set_user(call, owner);
    atomic_fetch_add(&((echo *)owner)->opened, 1);
}

static void both_message(void *owner, rpc_call *call, const void *bytes, size_t size) {
    assert_ptr_equal(rpc_call_user(call), owner);
    rpc_call_send(call, bytes, size);
}

static const rpc_method methods[] = {
    {"/t.Echo/Say", RPC_UNARY, RPC_RUN_SHORT, REQUEST_MAX, say, NULL, NULL, NULL, say_closed},
    {"/t.Echo/SayPool", RPC_UNARY, RPC_RUN_POOL, MESSAGE_MAX, say, NULL, NULL, NULL, say_closed},
    {"/t.Echo/Fail", RPC_UNARY, RPC_RUN_POOL, REQUEST_MAX, refuse, NULL, NULL, NULL, say_closed},
    {"/t.Echo/Count", RPC_SERVER_STREAM, RPC_RUN_SHORT, REQUEST_MAX, count, NULL, NULL, NULL,
     say_closed},
    {"/t.Echo/Hold", RPC_SERVER_STREAM, RPC_RUN_POOL, REQUEST_MAX, hold, NULL, NULL, NULL,
     say_closed},
    {"/t.Echo/Pull", RPC_SERVER_STREAM, RPC_RUN_POOL, REQUEST_MAX, pull_open, NULL, NULL, pull,
     say_closed},
    {"/t.Echo/Flood", RPC_SERVER_STREAM, RPC_RUN_POOL, REQUEST_MAX, flood, NULL, NULL, NULL,
     say_closed},
    {"/t.Echo/Both", RPC_BIDI_STREAM, RPC_RUN_SHORT, REQUEST_MAX, both_open, both_message, NULL,
     NULL, say_closed},
};

// A call that says a word says the right one.
static status admit(void *owner, const rpc_call *call) {
    assert_non_null(owner);
    const char *word = rpc_call_metadata(call, "word");
    if (!word || !strcmp(word, "please")) return status_ok();
    return status_error(STATUS_UNAUTHENTICATED, "say the word");
}

typedef struct world {
    echo e;
    rpc_service service;
    const rpc_service *services[1];
    rpc_server *server;
    rpc_channel *channel;
    buf message;
} world;

static int set_up(void **state) {
    world *w = calloc(1, sizeof *w);
    w->service = (rpc_service){.name = "t.Echo",
                               .methods = methods,
                               .method_count = sizeof methods / sizeof methods[0],
                               .owner = &w->e,
                               .admit = admit};
    w->services[0] = &w->service;
    rpc_server_options options = {
        .address = "127.0.0.1:0", .message_max = MESSAGE_MAX, .outbox_max = 2 * MESSAGE_MAX};
    status s = rpc_server_create(&options, w->services, 1, &w->server);
    assert_string_equal(s.message, "");
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(w->server));
    rpc_channel_options client = {.address = address, .message_max = 2 * MESSAGE_MAX};
    s = rpc_channel_create(&client, &w->channel);
    assert_string_equal(s.message, "");
    w->message = buf_make(2 * MESSAGE_MAX);
    *state = w;
    return 0;
}

static int tear_down(void **state) {
    world *w = *state;
    rpc_channel_destroy(w->channel);
    rpc_server_destroy(w->server);
    assert_int_equal(atomic_load(&w->e.opened), atomic_load(&w->e.closed));
    if (w->e.held != NULL) rpc_call_unref(w->e.held);
    buf_free(&w->message);
    free(w);
    return 0;
}

static int64_t soon(void) {
    return clock_now_ns() + 20 * CLOCK_SECOND;
}

static status unary(world *w, const char *path, const void *bytes, size_t size) {
    rpc_call_options options = {.deadline_ns = soon(), .wait_for_ready = true};
    return rpc_unary(w->channel, path, bytes, size, &options, &w->message);
}

static void test_unary(void **state) {
    world *w = *state;
    status s = unary(w, "/t.Echo/Say", "hello", 5);
    assert_string_equal(s.message, "");
    assert_string_equal(buf_string(&w->message), "hello");
    s = unary(w, "/t.Echo/SayPool", "", 0);
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(w->message.size, 0);
}

static void test_errors(void **state) {
    world *w = *state;
    int64_t retry = 0;
    rpc_header key = {"authorization", "Bearer abc"};
    rpc_call_options options = {
        .deadline_ns = soon(), .headers = &key, .header_count = 1, .retry_after_ms = &retry};
    status s = rpc_unary(w->channel, "/t.Echo/Fail", "bad \xc3\xa4", 6, &options, &w->message);
    assert_int_equal(s.code, STATUS_RESOURCE_EXHAUSTED);
    assert_string_equal(s.message, "bad \xc3\xa4 from 127.0.0.1 with Bearer abc in time");
    assert_int_equal(retry, 1234);
    s = unary(w, "/t.Echo/Nothing", "", 0);
    assert_int_equal(s.code, STATUS_UNIMPLEMENTED);
    key.value = "with\nnewline";
    s = rpc_unary(w->channel, "/t.Echo/Fail", "", 0, &options, &w->message);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
}

static void test_sizes(void **state) {
    world *w = *state;
    char *big = calloc(1, MESSAGE_MAX + 1);
    assert_int_equal(unary(w, "/t.Echo/Say", big, REQUEST_MAX).code, STATUS_OK);
    assert_int_equal(unary(w, "/t.Echo/Say", big, REQUEST_MAX + 1).code, STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(unary(w, "/t.Echo/SayPool", big, MESSAGE_MAX).code, STATUS_OK);
    assert_int_equal(w->message.size, MESSAGE_MAX);
    assert_int_equal(unary(w, "/t.Echo/SayPool", big, MESSAGE_MAX + 1).code,
                     STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(unary(w, "/t.Echo/Say", big, 1).code, STATUS_OK); // the connection is unharmed
    buf small = buf_make(10);
    rpc_call_options options = {.deadline_ns = soon()};
    status s = rpc_unary(w->channel, "/t.Echo/Say", big, 11, &options, &small);
    assert_int_equal(s.code, STATUS_RESOURCE_EXHAUSTED);
    buf_free(&small);
    free(big);
}

static rpc_stream *open_stream(world *w, const char *path, const void *request, size_t size,
                               int64_t deadline_ns) {
    rpc_stream *stream = NULL;
    rpc_call_options options = {.deadline_ns = deadline_ns, .wait_for_ready = true};
    status s = rpc_stream_open(w->channel, path, request, size, &options, &stream);
    assert_int_equal(s.code, STATUS_OK);
    return stream;
}

static void read_numbers(world *w, rpc_stream *stream, int most) {
    status why = status_ok();
    for (int i = 0; i < most; i++) {
        assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_MESSAGE);
        assert_int_equal(w->message.size, sizeof i);
        assert_memory_equal(w->message.data, &i, sizeof i);
    }
    assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_END);
    assert_int_equal(why.code, STATUS_OK);
    assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_END);
}

static void test_server_stream(void **state) {
    world *w = *state;
    rpc_stream *streams[STREAMS];
    for (int i = 0; i < STREAMS; i++) {
        int most = 10 * i;
        streams[i] = open_stream(w, "/t.Echo/Count", &most, sizeof most, soon());
    }
    for (int i = 0; i < STREAMS; i++) {
        read_numbers(w, streams[i], 10 * i);
        rpc_stream_close(streams[i]);
    }
}

static void test_pulled_stream(void **state) {
    world *w = *state;
    rpc_stream *stream = open_stream(w, "/t.Echo/Pull", "", 0, soon());
    read_numbers(w, stream, 1000);
    rpc_stream_close(stream);
}

static void test_bidi(void **state) {
    world *w = *state;
    rpc_stream *stream = open_stream(w, "/t.Echo/Both", NULL, 0, 0);
    for (int i = 0; i < 500; i++)
        assert_int_equal(rpc_stream_send(stream, &i, sizeof i).code, STATUS_OK);
    rpc_stream_send_end(stream);
    assert_int_equal(rpc_stream_send(stream, "x", 1).code, STATUS_CANCELLED);
    read_numbers(w, stream, 500);
    rpc_stream_close(stream);
    stream = open_stream(w, "/t.Echo/Both", NULL, 0, 0);
    char big[REQUEST_MAX + 1] = {0};
    rpc_stream_send(stream, big, sizeof big);
    status why = status_ok();
    assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_END);
    assert_int_equal(why.code, STATUS_RESOURCE_EXHAUSTED);
    rpc_stream_close(stream);
}

static void wait_for(atomic_int *what, int value) {
    int64_t until = soon();
    while (atomic_load(what) != value && clock_now_ns() < until)
        clock_sleep_until(clock_now_ns() + CLOCK_MS);
    assert_int_equal(atomic_load(what), value);
}

static void test_client_goes(void **state) {
    world *w = *state;
    status why = status_ok();
    rpc_stream *stream = open_stream(w, "/t.Echo/Hold", "", 0, 0);
    wait_for(&w->e.opened, 1);
    assert_int_equal(rpc_stream_read(stream, &w->message, clock_now_ns() + CLOCK_MS, &why),
                     RPC_READ_TIMEOUT);
    assert_true(rpc_call_is_open(w->e.held));
    rpc_stream_cancel(stream);
    assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_END);
    assert_int_equal(why.code, STATUS_CANCELLED);
    rpc_stream_close(stream);
    wait_for(&w->e.closed, 1);
    assert_int_equal(atomic_load(&w->e.completed), 0);
    // a held call that is over does nothing, harmlessly
    assert_false(rpc_call_is_open(w->e.held));
    assert_int_equal(rpc_call_send(w->e.held, "x", 1).code, STATUS_CANCELLED);
    rpc_call_wake(w->e.held);
    rpc_call_finish(w->e.held, status_ok(), NULL, 0);
    rpc_call_abort(w->e.held, status_error(STATUS_ABORTED, "late"));
}

static void test_not_admitted(void **state) {
    world *w = *state;
    status why = status_ok();
    rpc_header word = {"word", "now"};
    rpc_call_options options = {.deadline_ns = soon(), .headers = &word, .header_count = 1};
    status s = rpc_unary(w->channel, "/t.Echo/Say", "abc", 3, &options, &w->message);
    assert_int_equal(s.code, STATUS_UNAUTHENTICATED);
    assert_string_equal(s.message, "say the word");
    rpc_stream *stream = NULL;
    s = rpc_stream_open(w->channel, "/t.Echo/Both", NULL, 0, &options, &stream);
    assert_int_equal(s.code, STATUS_OK);
    rpc_stream_send(stream, "abc", 3);
    assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_END);
    assert_int_equal(why.code, STATUS_UNAUTHENTICATED);
    rpc_stream_close(stream);
    assert_int_equal(atomic_load(&w->e.opened) + atomic_load(&w->e.closed), 0);
    word.value = "please";
    s = rpc_unary(w->channel, "/t.Echo/Say", "abc", 3, &options, &w->message);
    assert_int_equal(s.code, STATUS_OK);
}

static void test_deadline(void **state) {
    world *w = *state;
    status why = status_ok();
    rpc_stream *stream = open_stream(w, "/t.Echo/Hold", "", 0, clock_now_ns() + 4 * CLOCK_SECOND);
    wait_for(&w->e.opened, 1);
    // grpc-timeout is sent with three digits, rounded up: 4,001 ms arrive as 4,010.
    int64_t left = rpc_call_deadline_ns(w->e.held) - clock_now_ns();
    assert_true(left > 0 && left <= 4 * CLOCK_SECOND + 100 * CLOCK_MS);
    assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_END);
    assert_int_equal(why.code, STATUS_DEADLINE_EXCEEDED);
    wait_for(&w->e.closed, 1);
    rpc_stream_close(stream);
}

static void test_reader_stands_still(void **state) {
    world *w = *state;
    status why = status_ok();
    rpc_stream *stream = open_stream(w, "/t.Echo/Flood", "", 0, soon());
    wait_for(&w->e.closed, 1);
    assert_int_equal(atomic_load(&w->e.completed), 0);
    rpc_read r;
    while ((r = rpc_stream_read(stream, &w->message, soon(), &why)) == RPC_READ_MESSAGE)
        ;
    assert_int_equal(r, RPC_READ_END);
    assert_int_equal(why.code, STATUS_RESOURCE_EXHAUSTED);
    rpc_stream_close(stream);
}

static void test_stop_with_open_calls(void **state) {
    world *w = *state;
    status why = status_ok();
    rpc_stream *hold = open_stream(w, "/t.Echo/Hold", "", 0, 0);
    rpc_stream *both = open_stream(w, "/t.Echo/Both", NULL, 0, 0);
    wait_for(&w->e.opened, 2);
    assert_int_equal(rpc_server_open_calls(w->server), 2);
    rpc_server_stop(w->server, clock_now_ns() + 100 * CLOCK_MS);
    assert_int_equal(atomic_load(&w->e.closed), 2);
    assert_int_equal(rpc_stream_read(hold, &w->message, soon(), &why), RPC_READ_END);
    assert_true(why.code == STATUS_UNAVAILABLE || why.code == STATUS_CANCELLED);
    assert_int_equal(rpc_stream_read(both, &w->message, soon(), &why), RPC_READ_END);
    rpc_stream_close(hold);
    rpc_stream_close(both);
}

static void test_server_goes_while_reading(void **state) {
    world *w = *state;
    rpc_stream *both = open_stream(w, "/t.Echo/Both", NULL, 0, 0);
    wait_for(&w->e.opened, 1);
    rpc_server_stop(w->server, 0);
    status why = status_ok();
    assert_int_equal(rpc_stream_read(both, &w->message, soon(), &why), RPC_READ_END);
    assert_int_not_equal(why.code, STATUS_OK);
    assert_int_equal(rpc_stream_send(both, "x", 1).code, STATUS_CANCELLED);
    rpc_stream_close(both);
    rpc_call_options options = {.deadline_ns = clock_now_ns() + 2 * CLOCK_SECOND};
    why = rpc_unary(w->channel, "/t.Echo/Say", "", 0, &options, &w->message);
    assert_int_equal(why.code, STATUS_UNAVAILABLE);
}

static void test_port_in_use(void **state) {
    world *w = *state;
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(w->server));
    rpc_server_options options = {.address = address};
    rpc_server *second = NULL;
    status s = rpc_server_create(&options, w->services, 1, &second);
    assert_int_equal(s.code, STATUS_UNAVAILABLE);
    assert_non_null(strstr(s.message, address));
    assert_null(second);
}

typedef struct caller {
    world *w;
    int number;
} caller;

static void *call_often(void *argument) {
    caller *c = argument;
    buf answer = buf_make(100);
    for (int i = 0; i < 50; i++) {
        char text[32];
        snprintf(text, sizeof text, "%d of %d", i, c->number);
        rpc_call_options options = {.deadline_ns = soon()};
        status s = rpc_unary(c->w->channel, i % 2 ? "/t.Echo/Say" : "/t.Echo/SayPool", text,
                             strlen(text), &options, &answer);
        assert_int_equal(s.code, STATUS_OK);
        assert_string_equal(buf_string(&answer), text);
    }
    buf_free(&answer);
    return NULL;
}

static void test_many_threads(void **state) {
    world *w = *state;
    pthread_t threads[8];
    caller callers[8];
    for (int i = 0; i < 8; i++) {
        callers[i] = (caller){w, i};
        assert_int_equal(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
    }
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&w->e.opened), 400);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_unary),
        TEST(test_errors),
        TEST(test_sizes),
        TEST(test_server_stream),
        TEST(test_pulled_stream),
        TEST(test_bidi),
        TEST(test_client_goes),
        TEST(test_not_admitted),
        TEST(test_deadline),
        TEST(test_reader_stands_still),
        TEST(test_stop_with_open_calls),
        TEST(test_server_goes_while_reading),
        TEST(test_port_in_use),
        TEST(test_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
