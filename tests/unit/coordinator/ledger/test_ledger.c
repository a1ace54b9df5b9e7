// ledger: rows get into the books, calls leave only behind an audit row, the chain shows what was
// done to it, and a writer that is killed at any time leaves books that verify.
#include "coordinator/ledger/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/ledger/audit_chain.h"
#include "common/ledger/database.h"

enum { KILLS = 12, LEAVERS = 4, PATIENCE_S = 60 };
#define BODY "a body that nobody may find in the books"

// ---- a ledger in a folder of its own ----

typedef struct folder {
    char path[64];
} folder;

static folder make_folder(void) {
    folder f = {"/tmp/octant-ledger-XXXXXX"};
    assert_non_null(mkdtemp(f.path));
    return f;
}

static void remove_folder(const folder *f) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", f->path);
    assert_int_equal(system(command), 0);
}

static const upstream_policy cheap = {.name = "cheap",
                                      .api = UPSTREAM_OPENAI_CHAT,
                                      .base_url = "https://me:secret@api.example.com:8443/v1",
                                      .model = "small",
                                      .max_output = 1000};

// $2 in, $10 out per million.
static void write_prices(const folder *f, char path[96]) {
    snprintf(path, 96, "%s/prices.json", f->path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("{\"rows\":[{\"model\":\"small\",\"from\":\"2020-01-01\",\"tiers\":[{\"input\":2,"
          "\"output\":10}],\"source\":\"a test\",\"seen\":\"2020-01-01\"}]}",
          file);
    fclose(file);
}

static ledger *open_ledger(const folder *f, int queue) {
    char prices[96];
    write_prices(f, prices);
    ledger_options o = {.data_dir = f->path,
                        .prices = prices,
                        .gpu_hour_dollars = 3.6,
                        .queue = queue,
                        .leave_wait_ns = PATIENCE_S * CLOCK_SECOND};
    ledger *l = NULL;
    status s = ledger_open(&o, &l);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    return l;
}

static leave_record leaving(const char *id) {
    return (leave_record){.request_id = id,
                          .key = "key:support",
                          .upstream = &cheap,
                          .privacy = PRIVACY_REDACT,
                          .rule = "key support",
                          .body = BODY,
                          .size = sizeof BODY - 1};
}

static status leave(ledger *l, const char *id) {
    usage_port port = ledger_port(l);
    leave_record r = leaving(id);
    return port.leave(port.ledger, &r);
}

static void use(ledger *l, const char *id, int64_t compute_us) {
    core_request *q = core_request_create();
    assert_non_null(q);
    q->client = "key:support";
    q->model = "llama";
    snprintf(q->public_id, sizeof q->public_id, "%s", id);
    q->route.rule = "default";
    answer_end end = {.why = status_ok(),
                      .usage = {.prompt_tokens = 100,
                                .completion_tokens = 20,
                                .cached_tokens = 60,
                                .queue_ns = 1000000,
                                .ttft_ns = 2000000,
                                .total_ns = 3000000,
                                .compute_us = compute_us,
                                .segment_count = 1,
                                .segments = {{.by = "local/llama", .tokens = 20}}}};
    usage_port port = ledger_port(l);
    port.usage(port.ledger, &(usage_record){q, &end});
    arena_destroy(q->memory);
}

static void call(ledger *l, const char *id, int input, int output, bool failover) {
    upstream_end end = {.outcome = UPSTREAM_OK,
                        .http_status = 200,
                        .first_content_ns = 5000000,
                        .total_ns = 9000000,
                        .usage = {.input_tokens = input, .output_tokens = output, .known = true}};
    usage_port port = ledger_port(l);
    port.call(port.ledger, &(call_record){.request_id = id,
                                          .key = "key:support",
                                          .upstream = &cheap,
                                          .call = 1,
                                          .failover = failover,
                                          .end = &end});
}

static sqlite3 *open_books(const folder *f) {
    char path[96];
    snprintf(path, sizeof path, "%s/ledger.db", f->path);
    sqlite3 *db;
    status s = database_open(path, true, &db);
    assert_true(status_is_ok(&s));
    return db;
}

static int64_t ask(const folder *f, const char *sql) {
    sqlite3 *db = open_books(f);
    int64_t value;
    status s = database_number(db, sql, -99, &value);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    database_close(db);
    return value;
}

static void tamper(const folder *f, const char *sql) {
    sqlite3 *db = open_books(f);
    status s = database_run(db, sql);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    database_close(db);
}

static audit_report verify(const folder *f) {
    audit_report r;
    status s = audit_verify(f->path, NULL, &r);
    if (!status_is_ok(&s)) fail_msg("%s", s.message);
    return r;
}

// ---- rows ----

static void test_rows_are_kept(void **state) {
    (void)state;
    folder f = make_folder();
    ledger *l = open_ledger(&f, 0);
    status s = leave(l, "chatcmpl-1");
    assert_true(status_is_ok(&s));
    call(l, "chatcmpl-1", 1000, 100, true);
    use(l, "chatcmpl-1", 1000);
    ledger_close(l);
    assert_int_equal(ask(&f, "SELECT count(*) FROM usage"), 1);
    // 1 ms of one card at $3.6 an hour is a microdollar.
    assert_int_equal(ask(&f, "SELECT local_nano FROM usage"), 1000);
    assert_int_equal(ask(&f, "SELECT cost_nano FROM call"), 1000 * 2000 + 100 * 10000);
    assert_int_equal(ask(&f, "SELECT upstream_nano FROM request"), 3000000);
    assert_int_equal(ask(&f, "SELECT prompt_tokens * 1000000 + cached_tokens * 1000 +"
                             " completion_tokens FROM usage"),
                     100060020);
    assert_int_equal(ask(&f, "SELECT served_by = 'local/llama:20' AND queue_us = 1000 AND"
                             " ttft_us = 2000 AND outcome = 'OK' FROM usage"),
                     1);
    assert_int_equal(ask(&f, "SELECT host = 'api.example.com:8443' AND upstream = 'cheap' AND"
                             " privacy = 'redact-then-leave' AND size = 40 AND length(body_sha256)"
                             " = 32 FROM audit WHERE seq = 1"),
                     1);
    audit_report r = verify(&f);
    assert_false(r.broken);
    assert_int_equal(r.rows, 2); // with the genesis
    remove_folder(&f);
}

static void test_no_text_in_the_books(void **state) {
    (void)state;
    folder f = make_folder();
    ledger *l = open_ledger(&f, 0);
    status s = leave(l, "chatcmpl-1");
    assert_true(status_is_ok(&s));
    char command[256];
    snprintf(command, sizeof command, "grep -rqe 'nobody may find' -e 'secret' '%s'", f.path);
    assert_int_not_equal(system(command), 0);
    ledger_close(l);
    assert_int_not_equal(system(command), 0);
    remove_folder(&f);
}

static void test_local_only_never_leaves(void **state) {
    (void)state;
    folder f = make_folder();
    ledger *l = open_ledger(&f, 0);
    usage_port port = ledger_port(l);
    leave_record r = leaving("r");
    r.privacy = PRIVACY_LOCAL_ONLY;
    assert_int_equal(port.leave(port.ledger, &r).code, STATUS_PERMISSION_DENIED);
    assert_int_equal(ledger_look(l).refused, 1);
    ledger_close(l);
    assert_int_equal(verify(&f).rows, 1);
    remove_folder(&f);
}

static void test_a_call_without_a_row_is_found(void **state) {
    (void)state;
    folder f = make_folder();
    ledger *l = open_ledger(&f, 0);
    status s = leave(l, "seen");
    assert_true(status_is_ok(&s));
    call(l, "seen", 1, 1, false);
    call(l, "unseen", 1, 1, false);
    ledger_close(l);
    audit_report r = verify(&f);
    assert_true(r.broken);
    assert_non_null(strstr(r.why, "1 calls that an upstream answered"));
    remove_folder(&f);
}

static void test_books_go_on_after_a_restart(void **state) {
    (void)state;
    folder f = make_folder();
    for (int i = 0; i < 3; i++) {
        ledger *l = open_ledger(&f, 0);
        status s = leave(l, "r");
        assert_true(status_is_ok(&s));
        call(l, "r", 500, 0, false);
        usage_port port = ledger_port(l);
        assert_int_equal(port.spent_today(port.ledger, "key:support"), 1000 * (i + 1));
        assert_int_equal(port.spent_today(port.ledger, "key:another"), 0);
        assert_int_equal(port.spent_today(port.ledger, NULL), 1000 * (i + 1));
        ledger_close(l);
    }
    audit_report r = verify(&f);
    assert_false(r.broken);
    assert_int_equal(r.rows, 4);
    remove_folder(&f);
}

static void test_one_coordinator_a_directory(void **state) {
    (void)state;
    folder f = make_folder();
    ledger *l = open_ledger(&f, 0), *second = NULL;
    status s = ledger_open(&(ledger_options){.data_dir = f.path}, &second);
    assert_int_equal(s.code, STATUS_FAILED_PRECONDITION);
    assert_null(second);
    ledger_close(l);
    remove_folder(&f);
}

static void test_calls_under_way_count(void **state) {
    (void)state;
    folder f = make_folder();
    ledger *l = open_ledger(&f, 0);
    usage_port port = ledger_port(l);
    assert_int_equal(port.price(port.ledger, &cheap, &(upstream_usage){.input_tokens = 1}), 2);
    upstream_policy unknown = cheap;
    unknown.model = "who";
    assert_int_equal(port.price(port.ledger, &unknown, &(upstream_usage){.input_tokens = 1}), -1);
    status s = leave(l, "r");
    assert_true(status_is_ok(&s));
    // 40 bytes are about 11 tokens at $2, 1000 tokens of answer at $10 per million.
    assert_int_equal(port.spent_today(port.ledger, "key:support"), 22 + 10000);
    call(l, "r", 10, 1, false);
    assert_int_equal(port.spent_today(port.ledger, "key:support"), 30);
    ledger_close(l);
    remove_folder(&f);
}

// ---- a disk that does not write ----

static void test_a_full_queue_loses_rows_not_time(void **state) {
    (void)state;
    folder f = make_folder();
    ledger *l = open_ledger(&f, 64);
    sqlite3 *db = open_books(&f);
    status s = database_run(db, "BEGIN IMMEDIATE"); // the disk stands still
    assert_true(status_is_ok(&s));
    for (int i = 0; i < 2000; i++) use(l, "r", 1); // were one to wait, it would be for ever
    ledger_counts c = ledger_look(l);
    assert_true(c.lost > 0);
    assert_true(c.lost <= 2000 - 64);
    s = database_run(db, "ROLLBACK");
    assert_true(status_is_ok(&s));
    database_close(db);
    ledger_close(l);
    // What was lost is in the books as such.
    assert_int_equal(ask(&f, "SELECT sum(rows_lost) FROM gap"), (int64_t)c.lost);
    assert_int_equal(ask(&f, "SELECT count(*) FROM usage"), 2000 - (int64_t)c.lost);
    remove_folder(&f);
}

static void test_no_audit_row_no_leave(void **state) {
    (void)state;
    folder f = make_folder();
    char prices[96];
    write_prices(&f, prices);
    ledger *l = NULL;
    ledger_options o = {.data_dir = f.path, .prices = prices, .leave_wait_ns = 200 * CLOCK_MS};
    status s = ledger_open(&o, &l);
    assert_true(status_is_ok(&s));
    sqlite3 *db = open_books(&f);
    s = database_run(db, "BEGIN IMMEDIATE");
    assert_true(status_is_ok(&s));
    s = leave(l, "r");
    assert_int_equal(s.code, STATUS_DEADLINE_EXCEEDED);
    assert_int_equal(ledger_look(l).refused, 1);
    s = database_run(db, "ROLLBACK");
    assert_true(status_is_ok(&s));
    // A trigger stands for any error of the disk.
    s = database_run(db, "CREATE TRIGGER full BEFORE INSERT ON audit"
                         " BEGIN SELECT RAISE(ABORT, 'the disk is full'); END;");
    assert_true(status_is_ok(&s));
    int64_t until = clock_now_ns() + PATIENCE_S * CLOCK_SECOND;
    do {
        s = leave(l, "r"); // late while the first one's batch waits for SQLite's lock
    } while (s.code == STATUS_DEADLINE_EXCEEDED && clock_now_ns() < until);
    assert_false(status_is_ok(&s));
    if (!strstr(s.message, "the disk is full")) fail_msg("%s", s.message);
    s = database_run(db, "DROP TRIGGER full");
    assert_true(status_is_ok(&s));
    database_close(db);
    do s = leave(l, "r");
    while (s.code == STATUS_DEADLINE_EXCEEDED && clock_now_ns() < until);
    assert_true(status_is_ok(&s));
    ledger_close(l);
    assert_false(verify(&f).broken);
    remove_folder(&f);
}

// What shares a transaction shares its fate; the chain goes on as if it had not been.
static void test_a_failed_transaction_leaves_no_trace(void **state) {
    (void)state;
    folder f = make_folder();
    ledger *l = open_ledger(&f, 0);
    tamper(&f, "CREATE TRIGGER full BEFORE INSERT ON usage"
               " BEGIN SELECT RAISE(ABORT, 'the disk is full'); END;");
    use(l, "r", 1);
    for (int i = 0; i < 3; i++) {
        status s = leave(l, "r");
        assert_false(status_is_ok(&s));
    }
    assert_true(ledger_look(l).failures >= 3);
    tamper(&f, "DROP TRIGGER full");
    status s = leave(l, "r");
    assert_true(status_is_ok(&s));
    ledger_close(l);
    audit_report r = verify(&f);
    assert_false(r.broken);
    assert_int_equal(r.rows, 2);
    assert_int_equal(ask(&f, "SELECT count(*) FROM usage"), 1); // it was kept and tried again
    remove_folder(&f);
}

// ---- concurrent leaves ----

typedef struct leaver {
    pthread_t thread;
    ledger *l;
    int count;
} leaver;

static void *leave_often(void *argument) {
    leaver *me = argument;
    for (int i = 0; i < 50; i++) {
        status s = leave(me->l, "r");
        me->count += status_is_ok(&s);
    }
    return NULL;
}

static void test_leaves_share_commits(void **state) {
    (void)state;
    folder f = make_folder();
    ledger *l = open_ledger(&f, 0);
    leaver all[LEAVERS] = {0};
    for (int i = 0; i < LEAVERS; i++) {
        all[i].l = l;
        assert_int_equal(pthread_create(&all[i].thread, NULL, leave_often, &all[i]), 0);
    }
    for (int i = 0; i < LEAVERS; i++) {
        pthread_join(all[i].thread, NULL);
        assert_int_equal(all[i].count, 50);
    }
    ledger_counts c = ledger_look(l);
    assert_int_equal(c.leaves, 50 * LEAVERS);
    assert_true(c.commits <= 50 * LEAVERS);
    ledger_close(l);
    audit_report r = verify(&f);
    assert_false(r.broken);
    assert_int_equal(r.rows, 50 * LEAVERS + 1);
    remove_folder(&f);
}

// ---- tampering ----

static folder make_chain(int leaves) {
    folder f = make_folder();
    ledger *l = open_ledger(&f, 0);
    for (int i = 0; i < leaves; i++) {
        status s = leave(l, "r");
        assert_true(status_is_ok(&s));
    }
    ledger_close(l);
    return f;
}

#define NO_TRIGGERS                                                                                \
    "DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete; DROP TRIGGER audit_in_order;"

static void test_rows_cannot_be_changed_by_mistake(void **state) {
    (void)state;
    folder f = make_chain(5);
    sqlite3 *db = open_books(&f);
    static const char *const statements[] = {
        "UPDATE audit SET rule = 'x' WHERE seq = 3", "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit", "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE seq = 3"};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        status s = database_run(db, statements[i]);
        assert_int_equal(s.code, STATUS_FAILED_PRECONDITION);
    }
    database_close(db);
    audit_report r = verify(&f);
    assert_false(r.broken);
    assert_int_equal(r.rows, 6);
    remove_folder(&f);
}

static void test_tampering_is_found(void **state) {
    (void)state;
    static const struct {
        const char *sql;
        int64_t row;
        const char *said;
    } cases[] = {
        {"UPDATE audit SET rule = 'another' WHERE seq = 3", 3, "changed"},
        {"UPDATE audit SET size = size + 1 WHERE seq = 3", 3, "changed"},
        {"UPDATE audit SET at_us = at_us - 1 WHERE seq = 3", 3, "changed"},
        {"UPDATE audit SET key = 'key:other' WHERE seq = 0", 0, "changed"},
        {"UPDATE audit SET body_sha256 = zeroblob(32) WHERE seq = 3", 3, "changed"},
        {"UPDATE audit SET body_sha256 = x'00' WHERE seq = 3", 3, "changed"},
        {"UPDATE audit SET host = host || char(0) || 'x' WHERE seq = 3", 3, "changed"},
        {"UPDATE audit SET previous = zeroblob(32) WHERE seq = 3", 3, "changed"},
        {"UPDATE audit SET hash = zeroblob(32) WHERE seq = 5", 5, "changed"},
        {"DELETE FROM audit WHERE seq = 3", 3, "missing"},
        {"DELETE FROM audit WHERE seq = 0", 0, "missing"},
        // Closing the gap behind a deleted row changes what follows.
        {"DELETE FROM audit WHERE seq = 3; UPDATE audit SET seq = seq - 1 WHERE seq > 3", 3,
         "changed"},
        {"UPDATE audit SET seq = 100 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3;"
         "UPDATE audit SET seq = 3 WHERE seq = 100",
         2, "changed"},
        {"DELETE FROM audit WHERE seq >= 4", 4, "cut off"},
        {"DELETE FROM audit", 0, "missing"},
        {"", 6, "triggers"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder f = make_chain(5);
        tamper(&f, NO_TRIGGERS);
        tamper(&f, cases[i].sql);
        audit_report r = verify(&f);
        if (!r.broken || r.broken_seq != cases[i].row || !strstr(r.why, cases[i].said))
            fail_msg("%s: row %lld: %s", cases[i].sql, (long long)r.broken_seq, r.why);
        remove_folder(&f);
    }
}

// Who rewrites a row with its hash must rewrite all after it, and the head.
static void test_a_chain_written_anew_is_found(void **state) {
    (void)state;
    folder f = make_chain(5), other = make_chain(7);
    audit_report honest = verify(&f);
    char command[256];
    snprintf(command, sizeof command, "cp '%s'/ledger.db '%s'/ledger.db", other.path, f.path);
    assert_int_equal(system(command), 0);
    audit_report r = verify(&f);
    assert_true(r.broken);
    assert_int_equal(r.broken_seq, 5);
    assert_non_null(strstr(r.why, "written anew"));
    // With its head, too, only what was noted elsewhere tells.
    snprintf(command, sizeof command, "cp '%s'/audit.head '%s'/audit.head", other.path, f.path);
    assert_int_equal(system(command), 0);
    assert_false(verify(&f).broken);
    status s = audit_verify(f.path, &honest.last, &r);
    assert_true(status_is_ok(&s));
    assert_true(r.broken);
    assert_non_null(strstr(r.why, "--expect"));
    remove_folder(&f);
    remove_folder(&other);
}

static void test_a_cut_chain_is_not_continued(void **state) {
    (void)state;
    folder f = make_chain(5);
    tamper(&f, NO_TRIGGERS "DELETE FROM audit WHERE seq >= 4");
    ledger *l = NULL;
    status s = ledger_open(&(ledger_options){.data_dir = f.path}, &l);
    assert_int_equal(s.code, STATUS_FAILED_PRECONDITION);
    assert_non_null(strstr(s.message, "octant audit verify"));
    remove_folder(&f);
    f = make_chain(5);
    char command[128];
    snprintf(command, sizeof command, "rm '%s'/audit.head", f.path);
    assert_int_equal(system(command), 0);
    audit_report r = verify(&f);
    assert_true(r.broken);
    assert_non_null(strstr(r.why, "cannot be told"));
    remove_folder(&f);
}

// ---- kill -9 ----

// The program that is killed: writes as fast as it can, and says each leave that was OK.
static int writer(const char *path) {
    folder f;
    snprintf(f.path, sizeof f.path, "%s", path);
    ledger *l = open_ledger(&f, 0);
    for (int i = 0;; i++) {
        use(l, "r", 1);
        status s = leave(l, "r");
        if (!status_is_ok(&s) || write(STDOUT_FILENO, ".", 1) != 1) return 1;
        call(l, "r", 10, 1, true);
    }
}

// Starts it, lets it say `least` leaves, kills it within some milliseconds more; how many it said.
static int run_and_kill(const folder *f, int least, uint32_t delay_us) {
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        execl("/proc/self/exe", "test_ledger", "writer", f->path, (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    int said = 0;
    char bytes[4096];
    struct pollfd p = {.fd = pipes[0], .events = POLLIN};
    while (said < least) {
        assert_int_equal(poll(&p, 1, PATIENCE_S * 1000), 1);
        ssize_t got = read(pipes[0], bytes, sizeof bytes);
        assert_true(got > 0);
        said += (int)got;
    }
    clock_sleep_until(clock_now_ns() + delay_us * INT64_C(1000));
    kill(pid, SIGKILL);
    ssize_t got;
    while ((got = read(pipes[0], bytes, sizeof bytes)) > 0) said += (int)got;
    close(pipes[0]);
    int how;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFSIGNALED(how));
    return said;
}

static void test_kill_at_any_time(void **state) {
    (void)state;
    folder f = make_folder();
    rng random = rng_make(42);
    int said = 0;
    for (int i = 0; i < KILLS; i++) {
        said += run_and_kill(&f, 1, (uint32_t)(rng_below(&random, 30000)));
        audit_report r = verify(&f);
        if (r.broken) fail_msg("after kill %d: %s", i, r.why);
        // Every leave that was OK is there; at most one more was under way at each kill.
        assert_true(r.rows - 1 >= said);
        assert_true(r.rows - 1 <= said + i + 1);
        assert_int_equal(ask(&f, "SELECT count(*) FROM pragma_integrity_check"
                                 " WHERE integrity_check <> 'ok'"),
                         0);
        // A call's row comes after its leave's, in the same order: none without.
        assert_true(ask(&f, "SELECT count(*) FROM call") <= r.rows - 1);
    }
    ledger *l = open_ledger(&f, 0); // and goes on
    status s = leave(l, "r");
    assert_true(status_is_ok(&s));
    ledger_close(l);
    assert_false(verify(&f).broken);
    remove_folder(&f);
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "writer") == 0) return writer(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_kept),
        cmocka_unit_test(test_no_text_in_the_books),
        cmocka_unit_test(test_local_only_never_leaves),
        cmocka_unit_test(test_a_call_without_a_row_is_found),
        cmocka_unit_test(test_books_go_on_after_a_restart),
        cmocka_unit_test(test_one_coordinator_a_directory),
        cmocka_unit_test(test_calls_under_way_count),
        cmocka_unit_test(test_a_full_queue_loses_rows_not_time),
        cmocka_unit_test(test_no_audit_row_no_leave),
        cmocka_unit_test(test_a_failed_transaction_leaves_no_trace),
        cmocka_unit_test(test_leaves_share_commits),
        cmocka_unit_test(test_rows_cannot_be_changed_by_mistake),
        cmocka_unit_test(test_tampering_is_found),
        cmocka_unit_test(test_a_chain_written_anew_is_found),
        cmocka_unit_test(test_a_cut_chain_is_not_continued),
        cmocka_unit_test(test_kill_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
