// The coordinator's end of cluster.proto, with a worker's messages sent by the RPC client and a
// stand-in for the core that keeps the events it gets.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka needs the four above
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/ring.h"
#include "coordinator/group/group_link.h"
#include "proto/rpc_client.h"
#include "unit/coordinator/ingress/tiny_model.h"

#define CLUSTER "/octant.cluster.v1.Cluster/"

typedef struct world {
    ring *events;
    model_registry *models;
    group_links *links;
    group_port port;
    const rpc_service *services[1];
    rpc_server *server;
    rpc_channel *channel;
    buf message;
} world;

static bool keep(void *core, const core_event *event, int64_t deadline_ns) {
    return ring_push(core, event, deadline_ns);
}

static int set_up(void **state) {
    world *w = calloc(1, sizeof *w);
    w->events = ring_create(sizeof(core_event), 64);
    w->models = model_registry_create();
    w->links = group_links_create(
        &(group_links_options){.core = w->events, .post = keep, .models = w->models});
    w->port = group_links_port(w->links);
    w->services[0] = group_links_service(w->links);
    rpc_server_options options = {.address = "127.0.0.1:0", .message_max = CLUSTER_MESSAGE_MAX};
    status s = rpc_server_create(&options, w->services, 1, &w->server);
    assert_string_equal(s.message, "");
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(w->server));
    rpc_channel_options client = {.address = address, .message_max = CLUSTER_MESSAGE_MAX};
    assert_int_equal(rpc_channel_create(&client, &w->channel).code, STATUS_OK);
    w->message = buf_make(CLUSTER_MESSAGE_MAX);
    *state = w;
    return 0;
}

static int tear_down(void **state) {
    world *w = *state;
    core_event event;
    rpc_channel_destroy(w->channel);
    rpc_server_destroy(w->server);
    while (ring_pop(w->events, &event, 0)) core_event_free(&event);
    group_links_destroy(w->links);
    model_registry_destroy(w->models);
    ring_destroy(w->events);
    buf_free(&w->message);
    free(w);
    return 0;
}

static int64_t soon(void) {
    return clock_now_ns() + 20 * CLOCK_SECOND;
}

static core_event expect(world *w, core_event_kind kind) {
    core_event event;
    assert_true(ring_pop(w->events, &event, soon()));
    assert_int_equal(event.kind, kind);
    return event;
}

static status call(world *w, const char *path, const buf *request) {
    rpc_call_options options = {.deadline_ns = soon(), .wait_for_ready = true};
    return rpc_unary(w->channel, path, buf_string(request), request->size, &options, &w->message);
}

// ---- Register ----

typedef struct registering {
    world *w;
    const char *version;
    status why;
} registering;

static void *register_group(void *argument) {
    registering *r = argument;
    static const char *hosts[] = {"a", "b"};
    static const int32_t pids[] = {1, 2};
    buf json = buf_make(1 << 20), bytes = buf_make(1 << 20);
    tiny_tokenizer(&json);
    register_request m = {.protocol = CLUSTER_PROTOCOL,
                          .version = r->version,
                          .model = "tiny",
                          .backend = "cpu",
                          .ranks = 2,
                          .stages = 1,
                          .hosts = hosts,
                          .pids = pids};
    m.card = (model_card){.count = 2,
                          .parts = {{"config.json", TINY_CONFIG, sizeof TINY_CONFIG - 1},
                                    {"tokenizer.json", json.data, json.size}}};
    model *opened = NULL;
    assert_int_equal(model_open_card(&m.card, "tiny", &opened).code, STATUS_OK);
    m.fingerprint = model_fingerprint(opened);
    assert_int_equal(register_request_encode(&m, &bytes).code, STATUS_OK);
    r->why = call(r->w, CLUSTER "Register", &bytes);
    model_close(opened);
    buf_free(&json);
    buf_free(&bytes);
    return NULL;
}

enum { EPOCH = 1234 };

// Registers group "g1" of EPOCH, answered as the core would.
static void join(world *w) {
    registering r = {w, OCTANT_VERSION, status_ok()};
    pthread_t thread;
    pthread_create(&thread, NULL, register_group, &r);
    core_event event = expect(w, CORE_REGISTER);
    assert_string_equal(event.join.request->model, "tiny");
    assert_int_equal(event.join.config->vocab, TINY_VOCAB);
    shard shards[2] = {{{0, 2}, {0, 1}, {0, 32}, {0, 129}, {0, 1}, {0, 129}},
                       {{2, 4}, {1, 2}, {32, 64}, {129, 258}, {0, 1}, {129, 258}}};
    register_response response = {
        .group_id = "g1",
        .epoch = EPOCH,
        .ranks = 2,
        .shards = shards,
        .heartbeat_ms = 100,
        .limits = {.max_step_tokens = 64, .max_seqs = 8, .block_tokens = 16, .max_context = 512}};
    status ok = status_ok();
    w->port.register_reply(w->port.links, event.join.reply, &ok, EPOCH, &response);
    pthread_join(thread, NULL);
    assert_string_equal(r.why.message, "");
    register_response back;
    assert_int_equal(register_response_decode(w->message.data, w->message.size, &back).code,
                     STATUS_OK);
    assert_string_equal(back.group_id, "g1");
    assert_int_equal(back.epoch, EPOCH);
    arena_destroy(back.memory);
}

static void test_register(void **state) {
    world *w = *state;
    join(w);
    registering r = {w, "0.0.9", status_ok()};
    register_group(&r);
    assert_int_equal(r.why.code, STATUS_FAILED_PRECONDITION);
    assert_non_null(strstr(r.why.message, "0.0.9"));
    buf garbage = buf_make(100);
    buf_append_string(&garbage, "\xff garbage");
    assert_int_equal(call(w, CLUSTER "Register", &garbage).code, STATUS_INVALID_ARGUMENT);
    buf_free(&garbage);
}

static void test_register_refused_by_core(void **state) {
    world *w = *state;
    registering r = {w, OCTANT_VERSION, status_ok()};
    pthread_t thread;
    pthread_create(&thread, NULL, register_group, &r);
    core_event event = expect(w, CORE_REGISTER);
    status no = status_error(STATUS_INVALID_ARGUMENT, "9 ranks for 4 heads");
    w->port.register_reply(w->port.links, event.join.reply, &no, 0, NULL);
    pthread_join(thread, NULL);
    assert_int_equal(r.why.code, STATUS_INVALID_ARGUMENT);
    assert_string_equal(r.why.message, "9 ranks for 4 heads");
}

// ---- Steps ----

static void send(rpc_stream *stream, const leader_message *m) {
    buf bytes = buf_make(1 << 20);
    assert_int_equal(leader_message_encode(m, &bytes).code, STATUS_OK);
    rpc_stream_send(stream, bytes.data, bytes.size);
    buf_free(&bytes);
}

static rpc_stream *open_steps(world *w, uint64_t epoch) {
    rpc_stream *stream = NULL;
    assert_int_equal(rpc_stream_open(w->channel, CLUSTER "Steps", NULL, 0, NULL, &stream).code,
                     STATUS_OK);
    leader_message ready = {.kind = LEADER_READY, .ready = {"g1", epoch, 100}};
    send(stream, &ready);
    return stream;
}

static status read_end(world *w, rpc_stream *stream) {
    status why = status_ok();
    assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_END);
    rpc_stream_close(stream);
    return why;
}

static void expect_ready(world *w) {
    core_event event = expect(w, CORE_GROUP_READY);
    assert_int_equal(event.epoch, EPOCH);
    assert_int_equal(event.ready.kv_blocks, 100);
}

static void send_plan(world *w, uint64_t step) {
    step_plan plan = {.memory = arena_create(1000), .step = step};
    w->port.send_plan(w->port.links, EPOCH, &plan);
}

static void test_steps(void **state) {
    world *w = *state;
    join(w);
    rpc_stream *stream = open_steps(w, EPOCH);
    expect_ready(w);
    cluster_limits limits = {64, 8, 16, 512, 0, 0};
    for (uint64_t step = 1; step <= 20; step++) {
        send_plan(w, step);
        status why = status_ok();
        assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_MESSAGE);
        coordinator_message m;
        assert_int_equal(
            coordinator_message_decode(w->message.data, w->message.size, &limits, &m).code,
            STATUS_OK);
        assert_int_equal(m.plan.step, step);
        coordinator_message_free(&m);
        seq_result seq = {.slot = 1, .token = 5};
        leader_message result = {.kind = LEADER_RESULT,
                                 .result = {.step = step, .seqs = &seq, .seq_count = 1}};
        send(stream, &result);
        core_event event = expect(w, CORE_STEP_RESULT);
        assert_int_equal(event.result.step, step);
        assert_int_equal(event.result.seqs[0].token, 5);
        core_event_free(&event);
    }
    w->port.close_group(w->port.links, EPOCH, "drained", false);
    status why = status_ok();
    assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_MESSAGE);
    coordinator_message bye;
    assert_int_equal(
        coordinator_message_decode(w->message.data, w->message.size, &limits, &bye).code,
        STATUS_OK);
    assert_string_equal(bye.reason, "drained");
    assert_int_equal(read_end(w, stream).code, STATUS_OK);
    send_plan(w, 21); // nobody is there: dropped
}

static void test_leader_goes(void **state) {
    world *w = *state;
    join(w);
    rpc_stream *stream = open_steps(w, EPOCH);
    expect_ready(w);
    leader_message failed = {.kind = LEADER_FAILED,
                             .failed = {.rank = 1, .reason = "rank 1: on fire"}};
    send(stream, &failed);
    assert_string_equal(expect(w, CORE_GROUP_FAILED).failed.reason, "rank 1: on fire");
    rpc_stream_close(stream);
    assert_int_equal(expect(w, CORE_GROUP_CLOSED).epoch, EPOCH);
}

static void test_strange_streams(void **state) {
    world *w = *state;
    join(w);
    assert_int_equal(read_end(w, open_steps(w, EPOCH + 1)).code, STATUS_FAILED_PRECONDITION);
    rpc_stream *stream = open_steps(w, EPOCH);
    expect_ready(w);
    assert_int_equal(read_end(w, open_steps(w, EPOCH)).code, STATUS_ALREADY_EXISTS);
    seq_result seq = {.slot = 8, .token = 5}; // slots are 0 to 7
    leader_message result = {.kind = LEADER_RESULT,
                             .result = {.step = 1, .seqs = &seq, .seq_count = 1}};
    send(stream, &result);
    status why = read_end(w, stream);
    assert_int_equal(why.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(why.message, "slot is 8"));
    expect(w, CORE_GROUP_CLOSED);
    rpc_stream *early = NULL;
    rpc_stream_open(w->channel, CLUSTER "Steps", NULL, 0, NULL, &early);
    leader_message failed = {.kind = LEADER_FAILED, .failed = {.rank = 1, .reason = "x"}};
    send(early, &failed);
    assert_int_equal(read_end(w, early).code, STATUS_FAILED_PRECONDITION);
}

// ---- Heartbeat, Drain ----

static bool beat(world *w, uint64_t epoch) {
    heartbeat h = {.group_id = "g1", .epoch = epoch, .rank = 1, .phase = CLUSTER_IDLE};
    buf bytes = buf_make(1000);
    assert_int_equal(heartbeat_encode(&h, &bytes).code, STATUS_OK);
    assert_int_equal(call(w, CLUSTER "Heartbeat", &bytes).code, STATUS_OK);
    buf_free(&bytes);
    bool stop = false;
    assert_int_equal(
        heartbeat_response_decode(buf_string(&w->message), w->message.size, &stop).code, STATUS_OK);
    return stop;
}

static void test_heartbeat(void **state) {
    world *w = *state;
    assert_true(beat(w, EPOCH));
    join(w);
    assert_false(beat(w, EPOCH));
    core_event event = expect(w, CORE_HEARTBEAT);
    assert_int_equal(event.epoch, EPOCH);
    assert_int_equal(event.heartbeat.rank, 1);
    assert_true(beat(w, EPOCH + 1));
    w->port.close_group(w->port.links, EPOCH, "lost", true);
    assert_true(beat(w, EPOCH));
    assert_int_equal(ring_count(w->events), 0);
}

static void *answer_drain(void *argument) {
    world *w = argument;
    core_event event = expect(w, CORE_DRAIN);
    assert_int_equal(event.epoch, EPOCH);
    w->port.drain_reply(w->port.links, event.drain.reply, true, 2);
    return NULL;
}

static void test_drain(void **state) {
    world *w = *state;
    drain_request r = {.group_id = "g1", .deadline_ms = 1000};
    buf bytes = buf_make(1000);
    assert_int_equal(drain_request_encode(&r, &bytes).code, STATUS_OK);
    assert_int_equal(call(w, CLUSTER "Drain", &bytes).code, STATUS_NOT_FOUND);
    join(w);
    pthread_t thread;
    pthread_create(&thread, NULL, answer_drain, w);
    assert_int_equal(call(w, CLUSTER "Drain", &bytes).code, STATUS_OK);
    pthread_join(thread, NULL);
    bool drained = false;
    int running = 0;
    drain_response_decode(w->message.data, w->message.size, &drained, &running);
    assert_true(drained);
    assert_int_equal(running, 2);
    buf_free(&bytes);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_register),    TEST(test_register_refused_by_core), TEST(test_steps),
        TEST(test_leader_goes), TEST(test_strange_streams),          TEST(test_heartbeat),
        TEST(test_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
