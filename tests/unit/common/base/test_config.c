// config: flags over file over defaults, and each way to be wrong told with its place.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/config.h"

typedef struct values {
    const char *http, *kind;
    int64_t queue, memory, wait;
    double rate;
    bool loud;
} values;

static status parse_words(values *v, arena *memory, int argc, char **argv, const char **words,
                          int *count, config_action *action) {
    *v = (values){.http = "127.0.0.1:8080",
                  .kind = "auto",
                  .queue = 16,
                  .memory = 1 << 20,
                  .wait = CLOCK_SECOND,
                  .rate = 0.5};
    config_option options[] = {
        {"http", CONFIG_STRING, &v->http, 0, 0, NULL, "HOST:PORT", "where to listen"},
        {"kind", CONFIG_CHOICE, &v->kind, 0, 0, "auto|f32|f16", NULL, "kind"},
        {"max-queue", CONFIG_INT, &v->queue, 1, 1000, NULL, NULL, "queue"},
        {"kv-memory", CONFIG_BYTES, &v->memory, 1, 1e12, NULL, NULL, "memory"},
        {"wait", CONFIG_DURATION, &v->wait, 0, 3600e9, NULL, NULL, "wait"},
        {"rate", CONFIG_FLOAT, &v->rate, 0, 1, NULL, NULL, "rate"},
        {"loud", CONFIG_BOOL, &v->loud, 0, 0, NULL, NULL, "loud"},
    };
    config_program p = {"prog",   "worker", "[options] WORDS",
                        "About.", options,  sizeof options / sizeof *options};
    return config_parse(&p, argc, argv, memory, words, count, action);
}

#define PARSE(...)                                                                                 \
    ({                                                                                             \
        char *argv_[] = {"prog", __VA_ARGS__};                                                     \
        parse_words(&v, memory, sizeof argv_ / sizeof *argv_, argv_, words, &count, &action);      \
    })

static char path[64];

static void write_file(const char *text) {
    snprintf(path, sizeof path, "test_config_%d.yaml", (int)getpid());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_flags(void **state) {
    (void)state;
    values v;
    const char *words[16];
    int count;
    config_action action;
    arena *memory = arena_create(1 << 16);
    status s = PARSE("--http=0.0.0.0:1", "a", "--max-queue", "7", "--kv-memory", "2GiB", "--wait",
                     "250ms", "--loud", "--kind", "f16", "--", "--b");
    assert_int_equal(s.code, STATUS_OK);
    assert_string_equal(v.http, "0.0.0.0:1");
    assert_int_equal(v.queue, 7);
    assert_true(v.memory == INT64_C(2) << 30);
    assert_true(v.wait == 250 * CLOCK_MS);
    assert_true(v.loud);
    assert_string_equal(v.kind, "f16");
    assert_int_equal(count, 2);
    assert_string_equal(words[0], "a");
    assert_string_equal(words[1], "--b");
    arena_destroy(memory);
}

static void test_flag_errors(void **state) {
    (void)state;
    values v;
    const char *words[16];
    int count;
    config_action action;
    arena *memory = arena_create(1 << 16);
    struct {
        const char *flag, *value, *message;
    } cases[] = {
        {"--max-queue", "0", "--max-queue: 0 is out of range; it must be 1 to 1000"},
        {"--max-queue", "1.5", "--max-queue: '1.5' is not a whole number"},
        {"--max-queue", "nan", "--max-queue: 'nan' is not a whole number"},
        {"--kv-memory", "12XB", "--kv-memory: '12XB' is not a size such as 512MiB or 4GiB"},
        {"--wait", "2h", "--wait: 2h is out of range; it must be 0s to 3600s"},
        {"--kind", "f64", "--kind: 'f64' is not one of auto|f32|f16"},
        {"--rate", "inf", "--rate: 'inf' is not a number"},
        {"--max-quue", "1", "unknown option --max-quue; did you mean --max-queue? See prog --help"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        status s = PARSE((char *)cases[i].flag, (char *)cases[i].value);
        assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
        assert_string_equal(s.message, cases[i].message);
    }
    status s = PARSE("--http");
    assert_string_equal(s.message, "--http needs a value: a text");
    arena_destroy(memory);
}

static void test_file(void **state) {
    (void)state;
    values v;
    const char *words[16];
    int count;
    config_action action;
    arena *memory = arena_create(1 << 16);
    write_file(
        "coordinator:\n  grpc: [1, {a: b}]\nworker:\n  max-queue: 9\n  wait: 10m\n  loud: true\n");
    status s = PARSE("--max-queue", "11", "--config", path);
    assert_int_equal(s.code, STATUS_OK);
    assert_int_equal(v.queue, 11); // the flag wins
    assert_true(v.wait == 600 * CLOCK_SECOND);
    assert_true(v.loud);

    struct {
        const char *text, *message;
    } cases[] = {
        {"worker:\n  max-queue: lots\n", ":2:14: max-queue: 'lots' is not a whole number"},
        {"worker:\n  max-quee: 3\n", ":2:3: unknown option 'max-quee'; did you mean max-queue"},
        {"wroker:\n  loud: true\n",
         ":1:1: unknown section; there are coordinator, worker, models, "},
        {"worker:\n  http: [a]\n", ":2:9: a single value is expected for http"},
        {"worker: 5\n", ":1:9: options, one a line, are expected in section worker"},
        {"- a\n", ":1:1: the file must be sections with options in them"},
        {"worker: {\n", ":2:1: did not find expected node content"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file(cases[i].text);
        s = PARSE("--config", path);
        assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
        assert_non_null(strstr(s.message, cases[i].message));
    }
    write_file("");
    s = PARSE("--config", path);
    assert_int_equal(s.code, STATUS_OK);
    unlink(path);
    s = PARSE("--config", path);
    assert_int_equal(s.code, STATUS_NOT_FOUND);
    arena_destroy(memory);
}

static void test_address(void **state) {
    (void)state;
    char host[256];
    int port;
    status s = config_split_address("[::1]:80", host, &port);
    assert_int_equal(s.code, STATUS_OK);
    assert_string_equal(host, "::1");
    assert_int_equal(port, 80);
    static const char *const bad[] = {
        "", "host", ":80", "host:", "host:x", "host:65536", "host:-1", "host:1 "};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        s = config_split_address(bad[i], host, &port);
        assert_int_equal(s.code, STATUS_INVALID_ARGUMENT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_flag_errors),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
