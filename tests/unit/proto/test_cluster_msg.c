// Every cluster message there and back, and each limit passed by one.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka needs the four above
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "proto/cluster_msg.h"

static const cluster_limits limits = {.max_step_tokens = 64,
                                      .max_seqs = 8,
                                      .block_tokens = 16,
                                      .max_context = 256,
                                      .vocab = 1000,
                                      .kv_blocks = 40};

static register_request sample_register(void) {
    static const char *hosts[] = {"node-a", "node-b", "k\xc3\xb6ln"};
    static const int32_t pids[] = {10, 11, 1 << 30};
    register_request m = {.protocol = CLUSTER_PROTOCOL,
                          .version = "0.1.0",
                          .model = "m",
                          .fingerprint = "0123456789abcdef0123456789abcdef",
                          .backend = "cpu-avx2",
                          .ranks = 3,
                          .spare = true,
                          .stages = 3,
                          .hosts = hosts,
                          .pids = pids};
    m.card.count = 2;
    m.card.parts[0] = (model_card_part){"config.json", "{\0}", 3};
    m.card.parts[1] = (model_card_part){"tokenizer.json", "", 0};
    return m;
}

static status register_there(const register_request *m, register_request *back) {
    buf b = buf_make(1 << 20);
    status s = register_request_encode(m, &b);
    assert_int_equal(s.code, STATUS_OK);
    s = register_request_decode(b.data, b.size, back);
    buf_free(&b);
    return s;
}

static void test_register(void **state) {
    (void)state;
    register_request m = sample_register(), back;
    status s = register_there(&m, &back);
    assert_string_equal(s.message, "");
    assert_int_equal(back.protocol, CLUSTER_PROTOCOL);
    assert_string_equal(back.version, "0.1.0");
    assert_string_equal(back.fingerprint, m.fingerprint);
    assert_int_equal(back.ranks, 3);
    assert_true(back.spare);
    assert_int_equal(back.stages, 3);
    assert_string_equal(back.hosts[2], "k\xc3\xb6ln");
    assert_int_equal(back.pids[2], 1 << 30);
    assert_int_equal(back.card.count, 2);
    assert_string_equal(back.card.parts[0].name, "config.json");
    assert_int_equal(back.card.parts[0].size, 3);
    assert_memory_equal(back.card.parts[0].bytes, "{\0}", 3);
    assert_int_equal(back.card.parts[1].size, 0);
    arena_destroy(back.memory);
}

static void refuse_register(const register_request *m, const char *field) {
    register_request back;
    status s = register_there(m, &back);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(s.message, field));
    assert_null(back.memory);
}

static void test_register_limits(void **state) {
    (void)state;
    char lengthy[400];
    memset(lengthy, 'x', sizeof lengthy);
    lengthy[sizeof lengthy - 1] = 0;
    register_request m = sample_register();
    m.fingerprint = "0123";
    refuse_register(&m, "fingerprint");
    m = sample_register();
    m.model = "";
    refuse_register(&m, "model");
    m = sample_register();
    m.model = lengthy;
    refuse_register(&m, "model");
    m = sample_register();
    m.backend = "\xff";
    refuse_register(&m, "backend");
    m = sample_register();
    m.ranks = 0;
    refuse_register(&m, "hosts");
    m = sample_register();
    m.stages = SHARD_STAGES_MAX + 1;
    refuse_register(&m, "stages");
    m = sample_register();
    m.card.count = 0;
    refuse_register(&m, "card");
    m = sample_register();
    const char *hosts[3] = {"a", lengthy, "c"};
    m.hosts = hosts;
    refuse_register(&m, "hosts");
    register_request back;
    assert_int_equal(register_request_decode("\xff\xff", 2, &back).code, STATUS_INVALID_ARGUMENT);
}

static void test_registered(void **state) {
    (void)state;
    shard shards[2] = {{{0, 5}, {0, 2}, {0, 96}, {0, 10}, {3, 7}, {0, 1}},
                       {{5, 9}, {1, 3}, {96, 160}, {10, 20}, {0, 3}, {1, 8}}};
    register_response m = {.group_id = "g7",
                           .epoch = UINT64_MAX,
                           .ranks = 2,
                           .shards = shards,
                           .heartbeat_ms = 100,
                           .limits = limits};
    buf b = buf_make(1000);
    register_response back;
    assert_int_equal(register_response_encode(&m, &b).code, STATUS_OK);
    status s = register_response_decode(b.data, b.size, &back);
    assert_string_equal(s.message, "");
    assert_string_equal(back.group_id, "g7");
    assert_true(back.epoch == UINT64_MAX);
    assert_int_equal(back.ranks, 2);
    assert_memory_equal(back.shards, shards, sizeof shards);
    assert_int_equal(back.limits.max_context, 256);
    assert_int_equal(back.limits.vocab, 0);
    arena_destroy(back.memory);
    shards[1].ffn.end = 90;
    buf_clear(&b);
    assert_int_equal(register_response_encode(&m, &b).code, STATUS_OK);
    s = register_response_decode(b.data, b.size, &back);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(s.message, "ffn [96, 90)"));
    shards[1].ffn.end = 160;
    shards[1].layers.begin = -1;
    buf_clear(&b);
    assert_int_equal(register_response_encode(&m, &b).code, STATUS_OK);
    s = register_response_decode(b.data, b.size, &back);
    assert_non_null(strstr(s.message, "layers [-1, 3)"));
    shards[1].layers.begin = 0;
    m.limits.max_seqs = CLUSTER_SEQS_MAX + 1;
    buf_clear(&b);
    assert_int_equal(register_response_encode(&m, &b).code, STATUS_OK);
    assert_non_null(strstr(register_response_decode(b.data, b.size, &back).message, "max_seqs"));
    buf small = buf_make(10);
    assert_int_equal(register_response_encode(&m, &small).code, STATUS_RESOURCE_EXHAUSTED);
    buf_free(&small);
    buf_free(&b);
}

static void test_heartbeat(void **state) {
    (void)state;
    heartbeat m = {.group_id = "g1",
                   .epoch = 3,
                   .rank = 2,
                   .pid = 77,
                   .host = "h",
                   .phase = CLUSTER_ALLREDUCE,
                   .load_fraction = 0.5f,
                   .step = 99,
                   .memory_bytes = INT64_C(1) << 40,
                   .error = "device lost",
                   .code = CLUSTER_FAILED_DEVICE,
                   .collective = 1234,
                   .phase_ns = 250 * CLOCK_MS,
                   .temperature = 61.5f,
                   .device = {.known = true,
                              .temperature = 61.5f,
                              .power = 300.25f,
                              .utilization = -1,
                              .memory_used = INT64_C(5) << 30,
                              .memory_total = INT64_C(80) << 30,
                              .ecc_errors = -1,
                              .throttle = DEVICE_THROTTLE_THERMAL,
                              .xid = 31}};
    heartbeat back;
    buf b = buf_make(1000);
    assert_int_equal(heartbeat_encode(&m, &b).code, STATUS_OK);
    assert_int_equal(heartbeat_decode(b.data, b.size, &back).code, STATUS_OK);
    assert_memory_equal(&back, &m, sizeof m);
    heartbeat silent = m;
    silent.device = (device_health){0}; // no card, or none that tells
    buf_clear(&b);
    assert_int_equal(heartbeat_encode(&silent, &b).code, STATUS_OK);
    assert_int_equal(heartbeat_decode(b.data, b.size, &back).code, STATUS_OK);
    assert_memory_equal(&back, &silent, sizeof silent);
    struct {
        heartbeat m;
        const char *field;
    } bad[] = {{m, "rank"},
               {m, "phase"},
               {m, "load_fraction"},
               {m, "memory_bytes"},
               {m, "code"},
               {m, "phase_ms"},
               {m, "temperature"},
               {m, "device.temperature"},
               {m, "device.power"},
               {m, "device.utilization"},
               {m, "device.memory_used"},
               {m, "device.memory_total"},
               {m, "device.ecc_errors"},
               {m, "device.throttle"},
               {m, "device.xid"}};
    bad[0].m.rank = SHARD_RANKS_MAX;
    bad[1].m.phase = CLUSTER_PHASE_COUNT;
    bad[2].m.load_fraction = NAN;
    bad[3].m.memory_bytes = -1;
    bad[4].m.code = CLUSTER_FAILED_COUNT;
    bad[5].m.phase_ns = -CLOCK_MS;
    bad[6].m.temperature = -1;
    bad[7].m.device.temperature = NAN;
    bad[8].m.device.power = -2;
    bad[9].m.device.utilization = 1.5f;
    bad[10].m.device.memory_used = -2;
    bad[11].m.device.memory_total = INT64_MIN;
    bad[12].m.device.ecc_errors = -2;
    bad[13].m.device.throttle = DEVICE_THROTTLE_ALL + 1;
    bad[14].m.device.xid = -1;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        buf_clear(&b);
        assert_int_equal(heartbeat_encode(&bad[i].m, &b).code, STATUS_OK);
        status s = heartbeat_decode(b.data, b.size, &back);
        assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
        assert_non_null(strstr(s.message, bad[i].field));
    }
    bool stop = false;
    buf_clear(&b);
    assert_int_equal(heartbeat_response_encode(true, &b).code, STATUS_OK);
    assert_int_equal(heartbeat_response_decode(b.data, b.size, &stop).code, STATUS_OK);
    assert_true(stop);
    buf_free(&b);
}

static void test_drain(void **state) {
    (void)state;
    drain_request m = {.group_id = "g1", .deadline_ms = 5000}, back;
    buf b = buf_make(1000);
    assert_int_equal(drain_request_encode(&m, &b).code, STATUS_OK);
    assert_int_equal(drain_request_decode(b.data, b.size, &back).code, STATUS_OK);
    assert_string_equal(back.group_id, "g1");
    assert_int_equal(back.deadline_ms, 5000);
    bool drained = false;
    int running = 0;
    buf_clear(&b);
    assert_int_equal(drain_response_encode(true, 3, &b).code, STATUS_OK);
    assert_int_equal(drain_response_decode(b.data, b.size, &drained, &running).code, STATUS_OK);
    assert_true(drained);
    assert_int_equal(running, 3);
    buf_free(&b);
}

static const int32_t history[] = {5, 6, 999, 0}, tokens[] = {1, 2, 3}, blocks[] = {0, 39};
static const int32_t closes[] = {7, 0};
static const sampling_bias bias[] = {{1, -100}, {999, 2.5f}};

// A plan that uses every field, at the edge of every limit; the tests change one thing in it.
typedef struct sample {
    coordinator_message m;
    open_seq open[2];
    seq_rows rows[2];
} sample;

static void sample_plan(sample *x) {
    memset(x, 0, sizeof *x);
    sampling s = {.temperature = 2,
                  .top_k = 40,
                  .top_p = 0.5f,
                  .min_p = 1,
                  .repetition_penalty = 1.1f,
                  .presence_penalty = -2,
                  .frequency_penalty = 2,
                  .seed = UINT64_MAX,
                  .logprobs = 20,
                  .bias_count = 2,
                  .bias = bias};
    x->open[0] = (open_seq){.slot = 7,
                            .sampling = s,
                            .draws = 12,
                            .prompt_logprobs = true,
                            .prompt_tokens = 3,
                            .history = history,
                            .history_count = 4,
                            .grammar = {GRAMMAR_REGEX, "a\0b", 3}};
    x->open[1] = (open_seq){.slot = 0, .sampling = sampling_default(), .prompt_tokens = 256};
    x->rows[0] = (seq_rows){.slot = 7,
                            .position = 253,
                            .tokens = tokens,
                            .token_count = 3,
                            .new_blocks = blocks,
                            .new_block_count = 2,
                            .sample = true};
    x->rows[1] = (seq_rows){.slot = 1, .position = 255};
    x->m.kind = COORDINATOR_PLAN;
    x->m.plan = (step_plan){.step = 1,
                            .open = x->open,
                            .open_count = 2,
                            .rows = x->rows,
                            .rows_count = 2,
                            .close = closes,
                            .close_count = 2};
}

static status plan_there(const sample *x, coordinator_message *back) {
    buf b = buf_make(1 << 20);
    assert_int_equal(coordinator_message_encode(&x->m, &b).code, STATUS_OK);
    status s = coordinator_message_decode(b.data, b.size, &limits, back);
    buf_free(&b);
    return s;
}

static void test_plan(void **state) {
    (void)state;
    sample x;
    sample_plan(&x);
    coordinator_message back;
    status s = plan_there(&x, &back);
    assert_string_equal(s.message, "");
    assert_int_equal(back.kind, COORDINATOR_PLAN);
    const step_plan *p = &back.plan;
    assert_int_equal(p->open_count, 2);
    assert_int_equal(p->open[0].slot, 7);
    assert_int_equal(p->open[0].sampling.bias_count, 2);
    assert_memory_equal(p->open[0].sampling.bias, bias, sizeof bias);
    assert_true(p->open[0].sampling.seed == UINT64_MAX);
    assert_true(p->open[0].sampling.repetition_penalty == 1.1f);
    assert_int_equal(p->open[0].sampling.logprobs, 20);
    assert_int_equal(p->open[0].draws, 12);
    assert_true(p->open[0].prompt_logprobs);
    assert_memory_equal(p->open[0].history, history, sizeof history);
    assert_null(p->open[1].history);
    assert_int_equal(p->open[0].grammar.kind, GRAMMAR_REGEX);
    assert_int_equal(p->open[0].grammar.size, 3);
    assert_memory_equal(p->open[0].grammar.text, "a\0b", 3);
    assert_int_equal(p->open[1].grammar.kind, GRAMMAR_NONE);
    assert_int_equal(p->open[1].sampling.logprobs, -1);
    assert_int_equal(p->rows_count, 2);
    assert_int_equal(p->rows[0].position, 253);
    assert_memory_equal(p->rows[0].tokens, tokens, sizeof tokens);
    assert_memory_equal(p->rows[0].new_blocks, blocks, sizeof blocks);
    assert_true(p->rows[0].sample);
    assert_int_equal(p->rows[1].token_count, 0);
    assert_false(p->rows[1].sample);
    assert_int_equal(p->close_count, 2);
    assert_memory_equal(p->close, closes, sizeof closes);
    coordinator_message_free(&back);
}

static void refuse_plan(const sample *x, const char *field) {
    coordinator_message back;
    status s = plan_there(x, &back);
    assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    if (strstr(s.message, field) == NULL) fail_msg("'%s' in: %s", field, s.message);
    assert_null(back.plan.memory);
}

#define REFUSE_PLAN(change, field)                                                                 \
    do {                                                                                           \
        sample_plan(&x);                                                                           \
        change;                                                                                    \
        refuse_plan(&x, field);                                                                    \
    } while (0)

static void test_plan_limits(void **state) {
    (void)state;
    static const int32_t twice[] = {3, 3}, bad_token[] = {1, 2, 1000}, bad_block[] = {40, 1};
    static const int32_t negative[] = {-1, 2, 3};
    int32_t many[65] = {0};
    sample x;
    REFUSE_PLAN(x.m.plan.step = 0, "step");
    REFUSE_PLAN(x.open[0].slot = 8, "open: slot");
    REFUSE_PLAN(x.open[0].slot = -1, "open: slot");
    REFUSE_PLAN(x.open[0].slot = 0, "comes twice");
    REFUSE_PLAN(x.rows[0].slot = 1, "comes twice");
    REFUSE_PLAN(x.m.plan.close = twice, "comes twice");
    REFUSE_PLAN(x.open[0].sampling.temperature = NAN, "temperature");
    REFUSE_PLAN(x.open[0].sampling.logprobs = 21, "logprobs");
    REFUSE_PLAN(x.open[0].prompt_tokens = 5, "prompt_tokens");
    REFUSE_PLAN(x.open[0].grammar.kind = GRAMMAR_KINDS, "open: grammar");
    static const char long_text[GRAMMAR_TEXT_MAX + 1];
    REFUSE_PLAN(x.open[0].grammar.text = long_text;
                x.open[0].grammar.size = sizeof long_text, "grammar's bytes");
    REFUSE_PLAN(x.open[0].history = bad_token; x.open[0].history_count = 3, "history token");
    REFUSE_PLAN(x.rows[0].position = 254, "position");
    REFUSE_PLAN(x.rows[0].position = -1, "position");
    REFUSE_PLAN(x.rows[0].tokens = bad_token, "rows: token");
    REFUSE_PLAN(x.rows[0].tokens = negative, "rows: token");
    REFUSE_PLAN(x.rows[0].new_blocks = bad_block, "new block");
    REFUSE_PLAN(x.rows[0].tokens = many; x.rows[0].token_count = 65;
                x.rows[0].position = 0, "rows: tokens");
    REFUSE_PLAN(x.rows[0].tokens = many; x.rows[0].token_count = 64;
                x.rows[0].position = 0,
                "rows: tokens"); // with the other sequence's row it is one too many
}

static void test_bye(void **state) {
    (void)state;
    coordinator_message m = {.kind = COORDINATOR_BYE, .reason = "drained", .rejoin = true}, back;
    buf b = buf_make(1000);
    assert_int_equal(coordinator_message_encode(&m, &b).code, STATUS_OK);
    assert_int_equal(coordinator_message_decode(b.data, b.size, &limits, &back).code, STATUS_OK);
    assert_int_equal(back.kind, COORDINATOR_BYE);
    assert_true(back.rejoin);
    assert_string_equal(back.reason, "drained");
    coordinator_message_free(&back);
    assert_int_equal(coordinator_message_decode("", 0, &limits, &back).code,
                     STATUS_INVALID_ARGUMENT);
    buf_free(&b);
}

static status leader_there(const leader_message *m, leader_message *back) {
    buf b = buf_make(1 << 20);
    assert_int_equal(leader_message_encode(m, &b).code, STATUS_OK);
    status s = leader_message_decode(b.data, b.size, &limits, back);
    buf_free(&b);
    return s;
}

static void test_ready_and_failed(void **state) {
    (void)state;
    leader_message m = {.kind = LEADER_READY, .ready = {"g1", 4, 100}}, back;
    assert_int_equal(leader_there(&m, &back).code, STATUS_OK);
    assert_int_equal(back.kind, LEADER_READY);
    assert_string_equal(back.ready.group_id, "g1");
    assert_int_equal(back.ready.kv_blocks, 100);
    m.ready.kv_blocks = 0;
    assert_int_equal(leader_there(&m, &back).code, STATUS_INVALID_ARGUMENT);
    m = (leader_message){.kind = LEADER_FAILED,
                         .failed = {3, "rank 3: no memory", CLUSTER_FAILED_NUMBERS}};
    assert_int_equal(leader_there(&m, &back).code, STATUS_OK);
    assert_int_equal(back.kind, LEADER_FAILED);
    assert_int_equal(back.failed.rank, 3);
    assert_string_equal(back.failed.reason, "rank 3: no memory");
    assert_int_equal(back.failed.code, CLUSTER_FAILED_NUMBERS);
    m.failed.code = CLUSTER_FAILED_COUNT;
    assert_int_equal(leader_there(&m, &back).code, STATUS_INVALID_ARGUMENT);
    leader_message_free(&back);
}

static void test_result(void **state) {
    (void)state;
    token_choice top[] = {{999, -0.5f}, {0, -INFINITY}};
    prompt_logprob prompt[] = {{.logprob = NAN}, {.logprob = -1, .top = top, .top_count = 2}};
    seq_result seqs[] = {
        {.slot = 3, .token = 999, .logprob = -0.25f, .top = top, .top_count = 2},
        {.slot = 4, .token = -1, .prompt = prompt, .prompt_count = 2},
        {.slot = 5, .token = -1, .bad_numbers = true},
    };
    leader_message m = {.kind = LEADER_RESULT}, back;
    m.result = (step_result){
        .step = UINT64_MAX, .seqs = seqs, .seq_count = 3, .compute_us = 10, .comm_us = 3};
    status s = leader_there(&m, &back);
    assert_string_equal(s.message, "");
    const step_result *r = &back.result;
    assert_true(r->step == UINT64_MAX);
    assert_int_equal(r->seq_count, 3);
    assert_int_equal(r->compute_us, 10);
    assert_int_equal(r->comm_us, 3);
    assert_int_equal(r->seqs[0].token, 999);
    assert_int_equal(r->seqs[0].top_count, 2);
    assert_true(r->seqs[0].top[1].logprob == -INFINITY);
    assert_int_equal(r->seqs[1].token, -1);
    assert_int_equal(r->seqs[1].prompt_count, 2);
    assert_true(isnan(r->seqs[1].prompt[0].logprob));
    assert_int_equal(r->seqs[1].prompt[1].top[0].id, 999);
    assert_true(r->seqs[2].bad_numbers);
    leader_message_free(&back);
    seqs[1].slot = 3;
    assert_non_null(strstr(leader_there(&m, &back).message, "comes twice"));
    seqs[1].slot = 4;
    seqs[1].token = -2;
    assert_non_null(strstr(leader_there(&m, &back).message, "token"));
    seqs[1].token = 1000;
    assert_non_null(strstr(leader_there(&m, &back).message, "token"));
    seqs[1].token = 0;
    top[0].id = 1000;
    assert_non_null(strstr(leader_there(&m, &back).message, "top"));
    assert_null(back.result.memory);
}

// A message of many tiny parts must not grow without bound when decoded.
static void test_bomb(void **state) {
    (void)state;
    size_t size = 1 << 20;
    char *bytes = malloc(size);
    for (size_t i = 0; i < size; i += 2) memcpy(bytes + i, "\x12\0", 2); // an empty SeqResult each
    char whole[8] = {0x12, (char)0x80, (char)0x80, (char)0x40};          // result of 1 MiB
    char *message = malloc(size + 4);
    memcpy(message, whole, 4);
    memcpy(message + 4, bytes, size);
    leader_message back;
    assert_int_equal(leader_message_decode(message, size + 4, &limits, &back).code,
                     STATUS_INVALID_ARGUMENT);
    free(message);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_register),
        cmocka_unit_test(test_register_limits),
        cmocka_unit_test(test_registered),
        cmocka_unit_test(test_heartbeat),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_plan_limits),
        cmocka_unit_test(test_bye),
        cmocka_unit_test(test_ready_and_failed),
        cmocka_unit_test(test_result),
        cmocka_unit_test(test_bomb),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
