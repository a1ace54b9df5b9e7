// The gRPC ingress from outside, by the RPC client, with a core that makes tokens up.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka needs the four above
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/ingress/grpc_inference.h"
#include "coordinator/observe/event_log.h"
#include "coordinator/observe/metrics.h"
#include "coordinator/route/policy_file.h"
#include "proto/inference_msg.h"
#include "proto/rpc_client.h"
#include "unit/coordinator/ingress/fake_core.h"
#include "unit/coordinator/ingress/tiny_model.h"

enum { MESSAGE_MAX = 32 << 20 };

typedef struct world {
    fake_core core;
    ingress in;
    grpc_inference *inference;
    const rpc_service *services[1];
    rpc_server *server;
    rpc_channel *channel;
    buf message;
} world;

// `policy` NULL: nothing is said about where requests may go.
static int open_world(void **state, const char *policy) {
    world *w = calloc(1, sizeof *w);
    w->in = (ingress){.models = model_registry_create(),
                      .metrics = metrics_create(),
                      .core = fake_core_start(&w->core),
                      .default_timeout_ns = 30 * CLOCK_SECOND,
                      .max_timeout_ns = 60 * CLOCK_SECOND};
    assert_int_equal(event_log_open(NULL, &w->in.events).code, STATUS_OK);
    tiny_model_add(w->in.models, "tiny");
    routing_policy *routing = NULL;
    if (policy)
        assert_int_equal(policy_file_parse("f", policy, strlen(policy), &routing).code, STATUS_OK);
    w->in.routing = routing;
    w->inference = grpc_inference_create(&w->in);
    w->services[0] = grpc_inference_service(w->inference);
    rpc_server_options options = {.address = "127.0.0.1:0", .message_max = MESSAGE_MAX};
    status s = rpc_server_create(&options, w->services, 1, &w->server);
    assert_string_equal(s.message, "");
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(w->server));
    rpc_channel_options client = {.address = address, .message_max = MESSAGE_MAX};
    assert_int_equal(rpc_channel_create(&client, &w->channel).code, STATUS_OK);
    w->message = buf_make(MESSAGE_MAX);
    *state = w;
    return 0;
}

static int set_up(void **state) {
    return open_world(state, NULL);
}

static int set_up_routed(void **state) {
    return open_world(state,
                      "upstreams: {far: {api: gemini, base-url: 'https://h', model: m}}\n"
                      "privacy: {default: may-leave}\nroutes: [{name: all, upstreams: far}]\n");
}

static int tear_down(void **state) {
    world *w = *state;
    rpc_channel_destroy(w->channel);
    rpc_server_destroy(w->server);
    int64_t until = clock_now_ns() + 5 * CLOCK_SECOND;
    while (atomic_load(&w->core.open) > 0 && clock_now_ns() < until)
        clock_sleep_until(clock_now_ns() + CLOCK_MS);
    fake_core_stop(&w->core);
    grpc_inference_destroy(w->inference);
    model_registry_destroy(w->in.models);
    metrics_destroy(w->in.metrics);
    event_log_close(w->in.events);
    routing_policy_free((routing_policy *)w->in.routing);
    buf_free(&w->message);
    free(w);
    return 0;
}

static int64_t soon(void) {
    return clock_now_ns() + 20 * CLOCK_SECOND;
}

static inference_text text(const char *bytes) {
    return (inference_text){bytes, strlen(bytes)};
}

static inference_request chat(const inference_message *messages, int count, int max_tokens) {
    inference_request r = {.kind = INFERENCE_CHAT, .messages = messages, .message_count = count};
    r.sampling = (inference_sampling){.values = sampling_default(),
                                      .n = 1,
                                      .max_tokens = max_tokens,
                                      .set = INFERENCE_MAX_TOKENS};
    return r;
}

static const inference_message hello[] = {{{"user", 4}, {"hi", 2}}};

static rpc_stream *open_with(world *w, const char *path, const inference_request *r,
                             int64_t deadline_ns, const rpc_header *headers, int header_count) {
    buf bytes = buf_make(MESSAGE_MAX);
    assert_int_equal(inference_request_encode(r, &bytes).code, STATUS_OK);
    rpc_call_options options = {.deadline_ns = deadline_ns,
                                .wait_for_ready = true,
                                .headers = headers,
                                .header_count = header_count};
    rpc_stream *stream = NULL;
    status s = rpc_stream_open(w->channel, path, buf_string(&bytes), bytes.size, &options, &stream);
    assert_string_equal(s.message, "");
    buf_free(&bytes);
    return stream;
}

static rpc_stream *open_stream(world *w, const char *path, const inference_request *r,
                               int64_t deadline_ns) {
    return open_with(w, path, r, deadline_ns, NULL, 0);
}

typedef struct answer {
    char text[4][4096];
    char finish[4][16];
    int tokens, logprobs, messages;
    inference_usage usage;
    bool has_usage;
    int64_t retry_after_ms;
    status why;
} answer;

static void take_piece(answer *a, const inference_piece *p) {
    assert_false(a->has_usage); // usage is on the last message
    strncat(a->text[p->index], p->text.bytes ? p->text.bytes : "", p->text.size);
    if (p->finish_reason.size) {
        assert_string_equal(a->finish[p->index], "");
        strcpy(a->finish[p->index], p->finish_reason.bytes);
    }
    for (int i = 0; i < p->logprob_count; i++) {
        assert_int_equal(p->logprobs[i].chosen.id, p->tokens[i]);
        assert_true(p->logprobs[i].chosen.logprob == -0.5F);
        assert_int_equal(p->logprobs[i].top_count, 2);
        assert_int_equal(p->logprobs[i].top[1].token.bytes[0], '?');
    }
    a->tokens += p->token_count;
    a->logprobs += p->logprob_count;
    a->messages++;
    a->has_usage = p->has_usage;
    if (p->has_usage) a->usage = p->usage;
}

static answer read_all(world *w, rpc_stream *stream) {
    answer a = {.why = status_ok()};
    rpc_read r;
    while ((r = rpc_stream_read(stream, &w->message, soon(), &a.why)) == RPC_READ_MESSAGE) {
        inference_piece piece;
        assert_int_equal(inference_piece_decode(w->message.data, w->message.size, &piece).code,
                         STATUS_OK);
        take_piece(&a, &piece);
        arena_destroy(piece.memory);
    }
    assert_int_equal(r, RPC_READ_END);
    a.retry_after_ms = rpc_stream_retry_after_ms(stream);
    rpc_stream_close(stream);
    return a;
}

static answer ask(world *w, const char *path, const inference_request *r) {
    return read_all(w, open_stream(w, path, r, soon()));
}

static void test_chat(void **state) {
    world *w = *state;
    inference_request r = chat(hello, 1, 5);
    answer a = ask(w, "/octant.v1.Inference/Chat", &r);
    assert_string_equal(a.why.message, "");
    assert_string_equal(a.text[0], "abcde");
    assert_string_equal(a.finish[0], "length");
    assert_int_equal(a.tokens, 5);
    assert_true(a.has_usage);
    assert_int_equal(a.usage.prompt_tokens, (int)strlen("[user]hi\n[assistant]"));
    assert_int_equal(a.usage.completion_tokens, 5);
}

static void test_complete(void **state) {
    world *w = *state;
    inference_request r = chat(NULL, 0, 3);
    r.kind = INFERENCE_PROMPT;
    r.prompt = text("once");
    r.echo = true;
    r.sampling.n = 2;
    r.sampling.set |= INFERENCE_N;
    r.sampling.values.logprobs = 2;
    answer a = ask(w, "/octant.v1.Inference/Complete", &r);
    assert_string_equal(a.why.message, "");
    assert_string_equal(a.text[0], "onceabc");
    assert_string_equal(a.text[1], "onceabc");
    assert_int_equal(a.logprobs, 6);
    int32_t tokens[] = {'h', 'i'};
    r = chat(NULL, 0, 3);
    r.kind = INFERENCE_TOKENS;
    r.tokens = tokens;
    r.token_count = 2;
    a = ask(w, "/octant.v1.Inference/Complete", &r);
    assert_string_equal(a.text[0], "abc");
    assert_int_equal(a.usage.prompt_tokens, 2);
}

static void refuse_chat(world *w, const inference_request *r, status_code code, const char *word) {
    answer a = ask(w, "/octant.v1.Inference/Chat", r);
    assert_int_equal(a.why.code, code);
    if (strstr(a.why.message, word) == NULL) fail_msg("'%s' in: %s", word, a.why.message);
    assert_int_equal(a.messages, 0);
}

static void test_refusals(void **state) {
    world *w = *state;
    inference_request r = chat(hello, 1, 0);
    refuse_chat(w, &r, STATUS_INVALID_ARGUMENT, "max_tokens");
    r = chat(hello, 1, 5);
    r.sampling.n = 17;
    r.sampling.set |= INFERENCE_N;
    refuse_chat(w, &r, STATUS_INVALID_ARGUMENT, "n is 17");
    r = chat(hello, 1, 5);
    r.sampling.values.temperature = -1;
    refuse_chat(w, &r, STATUS_INVALID_ARGUMENT, "temperature");
    r = chat(hello, 0, 5);
    refuse_chat(w, &r, STATUS_INVALID_ARGUMENT, "messages");
    inference_message strange[] = {{{"ghost", 5}, {"boo", 3}}};
    r = chat(strange, 1, 5);
    refuse_chat(w, &r, STATUS_INVALID_ARGUMENT, "messages[0].role");
    r = chat(hello, 1, 5);
    r.model = text("other");
    refuse_chat(w, &r, STATUS_NOT_FOUND, "other");
    r = chat(hello, 1, 600);
    refuse_chat(w, &r, STATUS_INVALID_ARGUMENT, "context");
    r = chat(hello, 1, 5);
    r.sampling.stop[0] = (inference_text){"", 0};
    r.sampling.stop_count = 1;
    refuse_chat(w, &r, STATUS_INVALID_ARGUMENT, "stop");
    answer a = read_all(w, open_stream(w, "/octant.v1.Inference/Nothing", &r, soon()));
    assert_int_equal(a.why.code, STATUS_UNIMPLEMENTED);
}

static void test_full_queue(void **state) {
    world *w = *state;
    atomic_store(&w->core.full, true);
    inference_request r = chat(hello, 1, 5);
    answer a = ask(w, "/octant.v1.Inference/Chat", &r);
    assert_int_equal(a.why.code, STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(a.retry_after_ms, 1000);
    atomic_store(&w->core.full, false);
    atomic_store(&w->core.end_code, STATUS_UNAVAILABLE);
    a = ask(w, "/octant.v1.Inference/Chat", &r);
    assert_int_equal(a.why.code, STATUS_UNAVAILABLE);
    assert_false(a.has_usage);
}

static void wait_for(atomic_int *what, int value) {
    int64_t until = soon();
    while (atomic_load(what) != value && clock_now_ns() < until)
        clock_sleep_until(clock_now_ns() + CLOCK_MS);
    assert_int_equal(atomic_load(what), value);
}

static void test_cancel(void **state) {
    world *w = *state;
    inference_request r = chat(hello, 1, 400);
    atomic_store(&w->core.interval_ns, 20 * CLOCK_MS); // 8 s in all
    rpc_stream *stream = open_stream(w, "/octant.v1.Inference/Chat", &r, 0);
    status why = status_ok();
    assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_MESSAGE);
    rpc_stream_cancel(stream);
    wait_for(&w->core.cancels, 1);
    wait_for(&w->core.open, 0);
    rpc_stream_close(stream);
}

static void test_deadline(void **state) {
    world *w = *state;
    inference_request r = chat(hello, 1, 400);
    atomic_store(&w->core.interval_ns, 20 * CLOCK_MS);
    int64_t deadline = clock_now_ns() + 2 * CLOCK_SECOND;
    answer a = read_all(w, open_stream(w, "/octant.v1.Inference/Chat", &r, deadline));
    assert_int_equal(a.why.code, STATUS_DEADLINE_EXCEEDED);
    wait_for(&w->core.open, 0);
    int64_t off = w->core.last.deadline_ns - deadline;
    // The time left travels, not the time of day: the way there, long on a loaded machine, is
    // added.
    assert_true(off > -5 * CLOCK_MS && off < 1900 * CLOCK_MS);
}

// A client that does not read is cut when its buffer is full.
static void test_slow_reader(void **state) {
    world *w = *state;
    atomic_store(&w->core.piece_bytes, 16 << 10);
    atomic_store(&w->core.interval_ns, CLOCK_MS / 10);
    inference_request r = chat(hello, 1, 450);
    r.sampling.n = 16;
    r.sampling.set |= INFERENCE_N;
    rpc_stream *stream = open_stream(w, "/octant.v1.Inference/Chat", &r, 0);
    wait_for(&w->core.submitted, 1);
    wait_for(&w->core.open, 0); // 115 MB were asked for
    assert_true(w->core.ended == 1);
    rpc_stream_cancel(stream);
    rpc_stream_close(stream);
}

static void test_tokenize(void **state) {
    world *w = *state;
    inference_request r = {.kind = INFERENCE_PROMPT, .prompt = text("ab")};
    r.sampling = (inference_sampling){.values = sampling_default(), .n = 1};
    buf bytes = buf_make(1000);
    assert_int_equal(inference_tokenize_encode(&r, &bytes).code, STATUS_OK);
    rpc_call_options options = {.deadline_ns = soon(), .wait_for_ready = true};
    status s = rpc_unary(w->channel, "/octant.v1.Inference/Tokenize", bytes.data, bytes.size,
                         &options, &w->message);
    assert_string_equal(s.message, "");
    // ids = [97, 98] packed, tokens = "a", "b"
    assert_int_equal(w->message.size, 10);
    assert_memory_equal(w->message.data, "\x0a\x02\x61\x62\x12\x01\x61\x12\x01\x62", 10);
    buf_free(&bytes);
}

static void test_status(void **state) {
    world *w = *state;
    rpc_call_options options = {.deadline_ns = soon(), .wait_for_ready = true};
    status s =
        rpc_unary(w->channel, "/octant.v1.Inference/ListModels", "", 0, &options, &w->message);
    assert_string_equal(s.message, "");
    assert_memory_equal(w->message.data + 2, "\x0a\x04tiny", 6);
    s = rpc_unary(w->channel, "/octant.v1.Inference/ServerInfo", "", 0, &options, &w->message);
    assert_string_equal(s.message, "");
    inference_server_info info;
    s = inference_server_info_decode(w->message.data, w->message.size, &info);
    assert_string_equal(s.message, "");
    assert_string_equal(info.version.bytes, OCTANT_VERSION);
    assert_int_equal(info.group_count, 1);
    assert_string_equal(info.groups[0].state.bytes, "READY");
    assert_string_equal(info.groups[0].ranks[0].phase.bytes, "idle");
    arena_destroy(info.memory);
}

static rpc_stream *watch(world *w, uint64_t after) {
    rpc_call_options options = {.deadline_ns = soon(), .wait_for_ready = true};
    rpc_stream *stream = NULL;
    buf_clear(&w->message);
    assert_int_equal(inference_watch_encode(after, &w->message).code, STATUS_OK);
    status s = rpc_stream_open(w->channel, "/octant.v1.Inference/Watch", buf_string(&w->message),
                               w->message.size, &options, &stream);
    assert_string_equal(s.message, "");
    return stream;
}

static void expect_event(world *w, rpc_stream *stream, uint64_t sequence, const char *kind) {
    status why;
    inference_event e;
    assert_int_equal(rpc_stream_read(stream, &w->message, soon(), &why), RPC_READ_MESSAGE);
    assert_int_equal(inference_event_decode(w->message.data, w->message.size, &e).code, STATUS_OK);
    assert_int_equal(e.sequence, sequence);
    assert_string_equal(e.kind.bytes, kind);
    arena_destroy(e.memory);
}

static void test_watch(void **state) {
    world *w = *state;
    core_notice lost = {.kind = NOTICE_GROUP_LOST, .loss = LOSS_SILENT, .group = "g1", .rank = 1};
    core_notice ready = {.kind = NOTICE_GROUP_READY, .group = "g2", .rank = -1};
    event_log_write(w->in.events, &lost);
    rpc_stream *first = watch(w, 0); // what was before it came
    expect_event(w, first, 1, "group-lost");
    event_log_write(w->in.events, &ready); // what comes
    expect_event(w, first, 2, "group-ready");
    rpc_stream *again = watch(w, 1);
    expect_event(w, again, 2, "group-ready");
    rpc_stream_close(first); // who leaves is told nothing more, the others are
    event_log_write(w->in.events, &lost);
    expect_event(w, again, 3, "group-lost");
    rpc_stream_close(again);
}

static void test_privacy_header(void **state) {
    world *w = *state;
    static const struct {
        const char *words[2];
        int count;
        privacy_class want;
    } cases[] = {
        {{NULL}, 0, PRIVACY_MAY_LEAVE},
        {{"redact-then-leave"}, 1, PRIVACY_REDACT},
        {{"local-only"}, 1, PRIVACY_LOCAL_ONLY},
        {{"x"}, 1, PRIVACY_LOCAL_ONLY},
        {{"may-leave", "local-only"}, 2, PRIVACY_LOCAL_ONLY},
    };
    inference_request r = chat(hello, 1, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rpc_header headers[2] = {{"octant-privacy", cases[i].words[0]},
                                 {"octant-privacy", cases[i].words[1]}};
        answer a = read_all(
            w, open_with(w, "/octant.v1.Inference/Chat", &r, soon(), headers, cases[i].count));
        assert_string_equal(a.why.message, "");
        pthread_mutex_lock(&w->core.lock);
        privacy_class got = w->core.last.route.privacy;
        pthread_mutex_unlock(&w->core.lock);
        assert_int_equal(got, cases[i].want);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_chat),
        TEST(test_complete),
        TEST(test_refusals),
        TEST(test_full_queue),
        TEST(test_cancel),
        TEST(test_deadline),
        TEST(test_slow_reader),
        TEST(test_tokenize),
        TEST(test_status),
        TEST(test_watch),
        cmocka_unit_test_setup_teardown(test_privacy_header, set_up_routed, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
