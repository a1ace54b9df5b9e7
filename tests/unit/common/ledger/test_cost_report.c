// cost_report: sums, tickets and break-even of a small ledger, against figures worked out by hand
// in the comments.
#include "common/ledger/cost_report.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/ledger/cost_show.h"
#include "common/ledger/database.h"
#include "common/ledger/ledger_schema.h"

typedef struct books {
    char dir[64], file[96];
    prices *list;
} books;

// Days 1 and 2 of 1970 were easiest to count; two models, two keys.
//   r1  a    llama  day 1  1000 prompt (400 cached)  100 answer  2 GPU-s at $3.6/h: $0.002
//   r2  a    llama  day 1  3000 prompt               300 answer  4 GPU-s:           $0.004
//   r3  b    qwen   day 2   500 prompt                50 answer  1 GPU-s:           $0.001
//   r4  b    llama  day 2  left in 2 calls: one failed ($0), one answered: 2000 in, 100 out,
//   $0.005;
//                          it had used half a GPU-s here
//   r5  b    llama  day 2  an error, no tokens
//   r6  a    best   day 2  preferred upstream, not failover; no price known
static const char rows[] = "INSERT INTO meta VALUES ('gpu_hour_nano', 3600000000);"
#define USE(id, key, model, at, p, c, o, outcome, compute, nano)                                   \
    "INSERT INTO usage (at_us, request_id, key, model, served_by, privacy, rule, answers,"         \
    " prompt_tokens, cached_tokens, completion_tokens, estimated, queue_us, ttft_us, total_us,"    \
    " outcome, compute_us, local_nano) VALUES (" at ", '" id "', '" key "', '" model               \
    "', '', 'may-leave', '', 1, " p ", " c ", " o ", 0, 0, 0, 0, '" outcome "', " compute          \
    ", " nano ");"
#define CALL(id, key, at, up, failover, outcome, in, out, nano)                                    \
    "INSERT INTO call (at_us, request_id, key, call, upstream, api, model, price, failover,"       \
    " outcome, http_status, input_tokens, cached_tokens, written_tokens, output_tokens,"           \
    " estimated, cost_nano, reason) VALUES (" at ", '" id "', '" key "', 1, '" up                  \
    "', 'openai-chat', 'small', 'small', " failover ", '" outcome "', 200, " in ", 0, 0, " out     \
    ", 0, " nano ", '');"
    USE("r1", "a", "llama", "1000000", "1000", "400", "100", "OK", "2000000", "2000000")
        USE("r2", "a", "llama", "2000000", "3000", "0", "300", "OK", "4000000", "4000000")
            USE("r3", "b", "qwen", "86400000000", "500", "0", "50", "OK", "1000000", "1000000") USE(
                "r4", "b", "llama", "86400000001", "2000", "0", "100", "OK", "500000",
                "500000") CALL("r4", "b", "86400000001", "cheap", "1", "fault", "0", "0", "0")
                CALL("r4", "b", "86400000002", "cheap", "1", "ok", "2000", "100", "5000000")
                    USE("r5", "b", "llama", "86400000003", "0", "0", "0", "UNAVAILABLE", "0", "0")
                        USE("r6", "a", "best", "86400000004", "10", "0", "10", "OK", "0", "0")
                            CALL("r6", "a", "86400000004", "frontier", "0", "ok", "10", "10",
                                 "NULL") "INSERT INTO gap (at_us, rows_lost) VALUES (5, 7);";

static void run_sql(const books *b, const char *sql) {
    sqlite3 *db;
    status s = database_open(b->file, true, &db);
    assert_true(status_is_ok(&s));
    s = database_run(db, sql);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    database_close(db);
}

static books make_books(void) {
    books b = {.dir = "/tmp/octant-cost-XXXXXX"};
    assert_non_null(mkdtemp(b.dir));
    snprintf(b.file, sizeof b.file, "%s/" LEDGER_FILE, b.dir);
    run_sql(&b, ledger_schema());
    run_sql(&b, rows);
    char path[96];
    snprintf(path, sizeof path, "%s/prices.json", b.dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("{\"rows\":["
          "{\"model\":\"small\",\"from\":\"1970-01-01\",\"tiers\":[{\"input\":2,\"cached\":0.5,"
          "\"output\":10}],\"source\":\"a test\",\"seen\":\"1970-01-01\"},"
          "{\"model\":\"nearly-free\",\"from\":\"1970-01-01\",\"tiers\":[{\"input\":0.001,"
          "\"output\":0.001}],\"source\":\"a test\",\"seen\":\"1970-01-01\"},"
          "{\"model\":\"gone\",\"from\":\"1970-01-01\",\"until\":\"1970-01-01\",\"tiers\":[{"
          "\"input\":1,\"output\":1}],\"source\":\"a test\",\"seen\":\"1970-01-01\"}]}",
          file);
    fclose(file);
    status s = prices_open(path, &b.list);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    return b;
}

static void remove_books(books *b) {
    char command[128];
    prices_close(b->list);
    snprintf(command, sizeof command, "rm -rf '%s'", b->dir);
    assert_int_equal(system(command), 0);
}

static cost_question question(const books *b, cost_by by) {
    return (cost_question){
        .data_dir = b->dir, .by = by, .until_us = INT64_MAX, .prices = b->list, .now_s = 90000};
}

static cost_report make(const cost_question *q) {
    cost_report r;
    status s = cost_report_make(q, &r);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    return r;
}

static const cost_line *line(const cost_report *r, const char *name) {
    for (size_t i = 0; i < r->line_count; i++)
        if (strcmp(r->lines[i].name, name) == 0) return &r->lines[i];
    fail_msg("no line '%s'", name);
    return NULL;
}

static void near(double got, double wanted) {
    if (!(fabs(got - wanted) <= 1e-9 + 1e-6 * fabs(wanted)))
        fail_msg("%.9g, not %.9g", got, wanted);
}

static void test_by_model(void **state) {
    (void)state;
    books b = make_books();
    cost_question q = question(&b, COST_BY_MODEL);
    cost_report r = make(&q);
    assert_int_equal(r.line_count, 3);
    const cost_line *l = line(&r, "llama");
    assert_int_equal(l->requests, 4);
    assert_int_equal(l->errors, 1);
    assert_int_equal(l->prompt, 6000);
    assert_int_equal(l->cached, 400);
    assert_int_equal(l->completion, 500);
    near(l->gpu_seconds, 6.5);
    near(l->here, 0.0065);
    assert_int_equal(l->calls, 2); // of the model that was asked for, not of the upstream's
    near(l->outside, 0.005);
    l = line(&r, "best");
    assert_int_equal(l->unpriced, 1);
    near(l->outside, 0);
    near(r.total.here, 0.0075);
    near(r.total.outside, 0.005);
    assert_int_equal(r.total.requests, 6);
    assert_int_equal(r.rows_lost, 7);
    cost_report_free(&r);
    remove_books(&b);
}

static void test_by_key_and_day(void **state) {
    (void)state;
    books b = make_books();
    cost_question q = question(&b, COST_BY_KEY);
    cost_report r = make(&q);
    assert_int_equal(r.line_count, 2);
    assert_int_equal(line(&r, "a")->requests, 3);
    near(line(&r, "a")->here, 0.006);
    near(line(&r, "b")->outside, 0.005);
    cost_report_free(&r);
    q.by = COST_BY_DAY;
    r = make(&q);
    assert_int_equal(r.line_count, 2);
    assert_int_equal(line(&r, "1970-01-01")->requests, 2);
    assert_int_equal(line(&r, "1970-01-02")->calls, 3);
    cost_report_free(&r);
    remove_books(&b);
}

static void test_narrowed(void **state) {
    (void)state;
    books b = make_books();
    cost_question q = question(&b, COST_BY_MODEL);
    q.since_us = 86400000000;
    cost_report r = make(&q);
    assert_int_equal(r.total.requests, 4);
    cost_report_free(&r);
    q.until_us = 86400000003;
    r = make(&q);
    assert_int_equal(r.total.requests, 2);
    cost_report_free(&r);
    q = question(&b, COST_BY_DAY);
    q.model = "llama";
    q.key = "b";
    r = make(&q);
    assert_int_equal(r.total.requests, 2);
    assert_int_equal(r.total.calls, 2);
    cost_report_free(&r);
    remove_books(&b);
}

static void test_failover(void **state) {
    (void)state;
    books b = make_books();
    cost_question q = question(&b, COST_BY_MODEL);
    cost_report r = make(&q);
    assert_int_equal(r.failover_calls, 2);
    assert_int_equal(r.failover_requests, 1);
    assert_int_equal(r.failover_tokens, 2100);
    near(r.failover_dollars, 0.005);
    // Tickets here: 4950 tokens for $0.007.
    near(r.failover_here, 2100 * 0.007 / 4950);
    assert_int_equal(r.upstream_count, 2);
    assert_string_equal(r.upstreams[0].name, "cheap");
    assert_int_equal(r.upstreams[0].calls, 2);
    assert_int_equal(r.upstreams[0].ok, 1);
    assert_int_equal(r.upstreams[1].unpriced, 1);
    cost_report_free(&r);
    remove_books(&b);
}

static void test_ticket_and_break_even(void **state) {
    (void)state;
    books b = make_books();
    cost_question q = question(&b, COST_BY_MODEL);
    cost_report r = make(&q);
    // r1, r2, r3: what left, failed or never was here is no ticket.
    const cost_ticket *t = &r.ticket;
    assert_int_equal(t->count, 3);
    near(t->prompt, 1500);
    near(t->cached, 400 / 3.0);
    near(t->completion, 150);
    near(t->gpu_seconds, 7 / 3.0);
    near(t->here, 0.007 / 3);
    near(t->gpu_hour_dollars, 3.6);
    assert_int_equal(r.offer_count, 2); // what is out of force is no offer
    const cost_offer *o = &r.offers[0];
    double there = ((1500 - 400 / 3.0) * 2 + 400 / 3.0 * 0.5 + 150 * 10) / 1e6;
    near(o->there, there);
    near(o->tickets_per_day, 24 * 3.6 / there);
    near(o->share, 24 * 3.6 / there * (7 / 3.0) / 86400);
    near(o->share, t->here / there);    // the same, said otherwise
    assert_true(r.offers[1].share > 1); // dearer here even when it never rests
    cost_report_free(&r);
    q.gpu_hour_dollars = 7.2;
    r = make(&q);
    near(r.total.here, 0.015);
    near(r.ticket.here, 0.014 / 3);
    cost_report_free(&r);
    remove_books(&b);
}

static void test_unknown_is_said(void **state) {
    (void)state;
    books b = make_books();
    run_sql(&b, "UPDATE usage SET local_nano = NULL; DELETE FROM meta");
    cost_question q = question(&b, COST_BY_MODEL);
    cost_report r = make(&q);
    assert_true(r.total.here < 0);
    assert_true(r.ticket.here < 0);
    assert_true(r.offers[0].tickets_per_day < 0);
    assert_true(r.failover_here < 0);
    buf text = buf_make(1 << 20);
    cost_show_text(&r, COST_BY_MODEL, 1, &text);
    assert_non_null(strstr(buf_string(&text), "unknown"));
    assert_non_null(strstr(buf_string(&text), "give --gpu-hour"));
    assert_non_null(strstr(buf_string(&text), "7 rows are missing"));
    buf_clear(&text);
    cost_show_json(&r, COST_BY_MODEL, 1, &text);
    assert_non_null(strstr(buf_string(&text), "\"here_dollars\":null"));
    buf_free(&text);
    cost_report_free(&r);
    q.data_dir = "/nowhere";
    assert_int_equal(cost_report_make(&q, &r).code, STATUS_NOT_FOUND);
    remove_books(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_model),
        cmocka_unit_test(test_by_key_and_day),
        cmocka_unit_test(test_narrowed),
        cmocka_unit_test(test_failover),
        cmocka_unit_test(test_ticket_and_break_even),
        cmocka_unit_test(test_unknown_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
