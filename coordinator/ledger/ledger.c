#include "coordinator/ledger/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/ledger/ledger_schema.h"
#include "common/ledger/prices.h"
#include "coordinator/ledger/ledger_writer.h"
#include "coordinator/ledger/spending.h"
#include "coordinator/observe/metrics.h"

enum {
    QUEUE_DEFAULT = 8192,
    CLOSE_SECONDS = 5,
    // What a call may come to is guessed from its body's size and a usual answer, for the ceilings
    // only; its end says what it was.
    BYTES_PER_TOKEN = 4,
    ANSWER_TOKENS_GUESS = 1024,
};
#define LEAVE_WAIT_DEFAULT_NS (2 * CLOCK_SECOND)
#define US_PER_DAY INT64_C(86400000000)
#define NANO 1e9

struct ledger {
    prices *prices;
    double gpu_hour_dollars;
    int64_t leave_wait_ns;
    int lock_file;
    sqlite3 *db;
    audit_log *audit;
    ledger_writer *writer;
    pthread_mutex_t spending_lock;
    spending *spending;
    _Atomic uint64_t refused, unpriced;
};

// ---- money ----

static int64_t micro_from_nano(int64_t nano) { // up, so that no ceiling is passed by rounding
    return nano < 0 ? -1 : (nano + 999) / 1000;
}

static int64_t price_nano(const ledger *l, const upstream_policy *u, const upstream_usage *usage,
                          int64_t unix_s) {
    price_usage p = {.input = usage->input_tokens,
                     .cached = usage->cached_tokens,
                     .written = usage->written_tokens,
                     .output = usage->output_tokens};
    return prices_cost(l->prices, ledger_price_name(u), unix_s, &p);
}

// compute_us are rank-microseconds; an hour has 3.6e9 of them, a dollar 1e9 nanodollars.
static int64_t local_nano(const ledger *l, int64_t compute_us) {
    if (l->gpu_hour_dollars <= 0) return -1;
    return (int64_t)((double)compute_us * l->gpu_hour_dollars / 3.6 + 0.5);
}

static int64_t guess_nano(const ledger *l, const leave_record *r, int64_t unix_s) {
    int32_t answer = ANSWER_TOKENS_GUESS, most = r->upstream->max_output;
    size_t prompt = r->size / BYTES_PER_TOKEN + 1;
    upstream_usage usage = {.input_tokens = prompt > INT32_MAX ? INT32_MAX : (int32_t)prompt,
                            .output_tokens = most > 0 && most < answer ? most : answer};
    int64_t nano = price_nano(l, r->upstream, &usage, unix_s);
    return nano < 0 ? 0 : nano;
}

// ---- the port ----

static void record_usage(void *ledger_, const usage_record *r) {
    ledger *l = ledger_;
    ledger_row row;
    ledger_row_from_usage(&row, r, clock_unix_us(), local_nano(l, r->end->usage.compute_us));
    ledger_writer_push(l->writer, &row);
}

static void record_call(void *ledger_, const call_record *r) {
    ledger *l = ledger_;
    int64_t at_us = clock_unix_us();
    int64_t nano = price_nano(l, r->upstream, &r->end->usage, at_us / 1000000);
    if (nano < 0) atomic_fetch_add(&l->unpriced, 1);
    pthread_mutex_lock(&l->spending_lock);
    spending_end(l->spending, at_us / US_PER_DAY, r->key, r->request_id, r->upstream->name, nano);
    pthread_mutex_unlock(&l->spending_lock);
    ledger_row row;
    ledger_row_from_call(&row, r, at_us, nano);
    ledger_writer_push(l->writer, &row);
}

// "https://user:secret@host:port/path" to "host:port".
static void put_host(char *out, size_t room, const char *url) {
    const char *begin = strstr(url, "://");
    begin = begin ? begin + 3 : url;
    size_t size = strcspn(begin, "/?#");
    for (size_t i = 0; i < size; i++) {
        if (begin[i] != '@') continue;
        begin += i + 1;
        size -= i + 1;
        i = (size_t)-1;
    }
    snprintf(out, room, "%.*s", (int)size, begin);
}

static status leave(void *ledger_, const leave_record *r) {
    ledger *l = ledger_;
    if (r->privacy == PRIVACY_LOCAL_ONLY) { // the last of several that refuse this
        atomic_fetch_add(&l->refused, 1);
        return status_error(STATUS_PERMISSION_DENIED, "a local-only request may not leave");
    }
    int64_t deadline = clock_now_ns() + l->leave_wait_ns, at_us = clock_unix_us();
    char host[LEDGER_NAME_MAX];
    put_host(host, sizeof host, r->upstream->base_url);
    audit_row row = {.at_us = at_us,
                     .size = (int64_t)r->size,
                     .request_id = r->request_id,
                     .key = r->key,
                     .privacy = privacy_class_name(r->privacy),
                     .rule = r->rule ? r->rule : "",
                     .upstream = r->upstream->name,
                     .host = host};
    status s = status_error(STATUS_INTERNAL, "libcrypto cannot compute SHA-256");
    if (audit_sha256(r->body, r->size, row.body))
        s = ledger_writer_leave(l->writer, &row, 1, deadline);
    if (status_is_ok(&s)) {
        int64_t guess = guess_nano(l, r, at_us / 1000000);
        pthread_mutex_lock(&l->spending_lock);
        spending_begin(l->spending, at_us / US_PER_DAY, r->key, r->request_id, row.upstream, guess);
        pthread_mutex_unlock(&l->spending_lock);
        return s;
    }
    atomic_fetch_add(&l->refused, 1);
    return status_context(s, "the audit log");
}

static int64_t price(void *ledger_, const upstream_policy *u, const upstream_usage *usage) {
    return micro_from_nano(price_nano(ledger_, u, usage, clock_unix_seconds()));
}

static int64_t spent_today(void *ledger_, const char *key) {
    ledger *l = ledger_;
    pthread_mutex_lock(&l->spending_lock);
    int64_t nano = spending_today(l->spending, clock_unix_us() / US_PER_DAY, key);
    pthread_mutex_unlock(&l->spending_lock);
    return micro_from_nano(nano);
}

usage_port ledger_port(ledger *l) {
    return (usage_port){.ledger = l,
                        .usage = record_usage,
                        .call = record_call,
                        .leave = leave,
                        .price = price,
                        .spent_today = spent_today};
}

// ---- opening ----

static status system_error(const char *what, const char *path) {
    return status_error(STATUS_UNAVAILABLE, "cannot %s %s: %s", what, path, strerror(errno));
}

// One coordinator writes: two would tear the chain.
static status hold_directory(ledger *l, const char *dir) {
    char path[LEDGER_PATH_MAX];
    if (snprintf(path, sizeof path, "%s/" LEDGER_LOCK, dir) >= (int)sizeof path)
        return status_error(STATUS_INVALID_ARGUMENT, "the path is too long");
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) return system_error("make", dir);
    l->lock_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (l->lock_file < 0) return system_error("open", path);
    if (flock(l->lock_file, LOCK_EX | LOCK_NB) == 0) return status_ok();
    return status_error(STATUS_FAILED_PRECONDITION,
                        "%s is in use by another coordinator; give each its own", dir);
}

static status check_version(sqlite3 *db) {
    int64_t version;
    TRY(database_number(db, "PRAGMA user_version", 0, &version));
    if (version == 0 || version == LEDGER_VERSION) return status_ok();
    return status_error(STATUS_FAILED_PRECONDITION,
                        "the ledger is of version %lld, this program writes %d: update it, or give "
                        "another --data-dir",
                        (long long)version, LEDGER_VERSION);
}

static status remember(sqlite3 *db, const ledger_options *o) {
    sqlite3_stmt *s;
    TRY(database_prepare(db,
                         "INSERT OR REPLACE INTO meta (name, value) VALUES"
                         " ('gpu_hour_nano', ?), ('prices', ?)",
                         &s));
    char *path = o->prices ? realpath(o->prices, NULL) : NULL;
    if (o->gpu_hour_dollars > 0)
        sqlite3_bind_int64(s, 1, (int64_t)(o->gpu_hour_dollars * NANO + 0.5));
    if (path) sqlite3_bind_text(s, 2, path, -1, SQLITE_STATIC);
    status done = database_step(db, s, "meta");
    sqlite3_finalize(s);
    free(path);
    return done;
}

static status make_tables(ledger *l, const ledger_options *o) {
    TRY(database_run(l->db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"));
    TRY(check_version(l->db));
    TRY(database_run(l->db, "BEGIN IMMEDIATE"));
    TRY(database_run(l->db, ledger_schema()));
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA user_version=%d", LEDGER_VERSION);
    TRY(database_run(l->db, sql));
    TRY(remember(l->db, o));
    return database_run(l->db, "COMMIT");
}

// A restart forgets no ceiling.
static status read_spending(ledger *l) {
    int64_t day = clock_unix_us() / US_PER_DAY;
    sqlite3_stmt *s;
    TRY(database_prepare(l->db,
                         "SELECT key, sum(cost_nano) FROM call WHERE at_us >= ? GROUP BY key", &s));
    sqlite3_bind_int64(s, 1, day * US_PER_DAY);
    int code;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        const char *key = (const char *)sqlite3_column_text(s, 0);
        spending_end(l->spending, day, key ? key : "", "", "", sqlite3_column_int64(s, 1));
    }
    status done = code == SQLITE_DONE ? status_ok() : database_error(l->db, "call");
    sqlite3_finalize(s);
    return done;
}

// The names of new files, too, must outlive a power cut.
static status sync_directory(const char *dir) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return system_error("open", dir);
    bool good = fsync(fd) == 0;
    status s = good ? status_ok() : system_error("fsync", dir);
    close(fd);
    return s;
}

static status open_books(ledger *l, const ledger_options *o) {
    char path[LEDGER_PATH_MAX];
    l->spending = spending_create();
    if (!l->spending) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the ledger");
    TRY(hold_directory(l, o->data_dir));
    snprintf(path, sizeof path, "%s/" LEDGER_FILE, o->data_dir);
    TRY(database_open(path, true, &l->db));
    TRY(make_tables(l, o));
    TRY(read_spending(l));
    TRY(audit_log_open(l->db, o->data_dir, &l->audit));
    TRY(sync_directory(o->data_dir));
    return ledger_writer_start(l->db, l->audit, o->queue ? o->queue : QUEUE_DEFAULT, &l->writer);
}

status ledger_open(const ledger_options *options, ledger **out) {
    ledger *l = calloc(1, sizeof *l);
    if (!l) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the ledger");
    pthread_mutex_init(&l->spending_lock, NULL);
    l->lock_file = -1;
    l->gpu_hour_dollars = options->gpu_hour_dollars;
    l->leave_wait_ns = options->leave_wait_ns ? options->leave_wait_ns : LEAVE_WAIT_DEFAULT_NS;
    status s = options->prices
                   ? status_context(prices_open(options->prices, &l->prices), "--prices")
                   : status_ok();
    if (status_is_ok(&s)) s = status_context(open_books(l, options), "--data-dir");
    if (status_is_ok(&s))
        *out = l;
    else
        ledger_close(l);
    return s;
}

void ledger_close(ledger *l) {
    if (!l) return;
    if (l->writer) ledger_writer_stop(l->writer, clock_now_ns() + CLOSE_SECONDS * CLOCK_SECOND);
    audit_log_close(l->audit);
    database_close(l->db);
    if (l->lock_file >= 0) close(l->lock_file);
    spending_destroy(l->spending);
    prices_close(l->prices);
    pthread_mutex_destroy(&l->spending_lock);
    free(l);
}

// ---- metrics ----

ledger_counts ledger_look(ledger *l) {
    writer_counts w = ledger_writer_look(l->writer);
    return (ledger_counts){.usage = w.usage,
                           .calls = w.calls,
                           .leaves = w.leaves,
                           .lost = w.lost,
                           .refused = atomic_load(&l->refused),
                           .unpriced = atomic_load(&l->unpriced),
                           .commits = w.commits,
                           .failures = w.failures,
                           .queued = w.queued};
}

static void counter(buf *out, const char *name, const char *help, uint64_t value) {
    metrics_append_head(out, name, "counter", help);
    buf_printf(out, "%s %llu\n", name, (unsigned long long)value);
}

void ledger_metrics_append(ledger *l, buf *out) {
    ledger_counts c = ledger_look(l);
    counter(out, "octant_ledger_usage_rows_total", "Usage rows on disk.", c.usage);
    counter(out, "octant_ledger_call_rows_total", "Rows of calls to upstreams on disk.", c.calls);
    counter(out, "octant_ledger_audit_rows_total", "Audit rows on disk.", c.leaves);
    counter(out, "octant_ledger_rows_lost_total", "Rows that found the queue full.", c.lost);
    counter(out, "octant_ledger_leaves_refused_total",
            "Calls that were not made because their audit row could not be written.", c.refused);
    counter(out, "octant_ledger_unpriced_calls_total",
            "Calls that no row of the price file covers.", c.unpriced);
    counter(out, "octant_ledger_commits_total", "Transactions.", c.commits);
    counter(out, "octant_ledger_failures_total", "Transactions that failed.", c.failures);
    metrics_append_head(out, "octant_ledger_queue_rows", "gauge", "Rows that wait to be written.");
    buf_printf(out, "octant_ledger_queue_rows %d\n", c.queued);
}
