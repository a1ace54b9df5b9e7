#include "common/ledger/cost_report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/ledger/database.h"
#include "common/ledger/ledger_schema.h"

enum { LINES_MAX = 100000, SQL_MAX = 4096 };
#define NANO 1e9
#define US_PER_SECOND 1e6
#define SECONDS_PER_HOUR 3600.0
#define SECONDS_PER_DAY 86400.0

typedef struct asking {
    const cost_question *q;
    sqlite3 *db;
    cost_report *out;
} asking;

// ---- statements ----

// Rows in question: `where` of both tables, which share these columns. Parameters 1 to 4.
#define IN_QUESTION                                                                                \
    " at_us >= ?1 AND at_us < ?2 AND (?3 IS NULL OR model_asked = ?3) AND (?4 IS NULL OR key = "   \
    "?4)"
// A call belongs to the model that its request asked for.
#define CALLS                                                                                      \
    "(SELECT *, ifnull((SELECT u.model FROM usage u WHERE u.request_id = call.request_id LIMIT "   \
    "1),"                                                                                          \
    " upstream) AS model_asked FROM call)"
#define USAGE "(SELECT *, model AS model_asked, request_id AS request_id_of FROM usage)"

static status ask(const asking *a, const char *sql, sqlite3_stmt **out) {
    TRY(database_prepare(a->db, sql, out));
    const cost_question *q = a->q;
    sqlite3_bind_int64(*out, 1, q->since_us);
    sqlite3_bind_int64(*out, 2, q->until_us);
    if (q->model) sqlite3_bind_text(*out, 3, q->model, -1, SQLITE_STATIC);
    if (q->key) sqlite3_bind_text(*out, 4, q->key, -1, SQLITE_STATIC);
    return status_ok();
}

static status finish(const asking *a, sqlite3_stmt *s, int code) {
    status result = code == SQLITE_DONE ? status_ok() : database_error(a->db, "the ledger");
    sqlite3_finalize(s);
    return result;
}

static double dollars(sqlite3_stmt *s, int column) {
    return (double)sqlite3_column_int64(s, column) / NANO;
}

static void put_name(char out[128], sqlite3_stmt *s, int column) {
    const char *text = (const char *)sqlite3_column_text(s, column);
    snprintf(out, 128, "%s", text ? text : "");
}

// Grows by one; NULL when memory is short or there are too many.
static void *grow(void *array, size_t count, size_t item) {
    if (count >= LINES_MAX) return NULL;
    if (count & (count - 1)) return array; // room to the next power of two
    return realloc(array, (count ? 2 * count : 1) * item);
}

// ---- lines ----

static const char *group_of(cost_by by) {
    switch (by) {
    case COST_BY_KEY:
        return "key";
    case COST_BY_DAY:
        return "date(at_us / 1000000, 'unixepoch')";
    case COST_BY_MODEL:
        break;
    }
    return "model_asked";
}

static double here_dollars(const cost_question *q, double gpu_seconds, double booked,
                           int64_t unbooked) {
    if (q->gpu_hour_dollars > 0) return gpu_seconds * q->gpu_hour_dollars / SECONDS_PER_HOUR;
    return unbooked ? COST_UNKNOWN : booked;
}

static void read_line(const cost_question *q, sqlite3_stmt *s, cost_line *l) {
    put_name(l->name, s, 0);
    l->requests = sqlite3_column_int64(s, 1);
    l->errors = sqlite3_column_int64(s, 2);
    l->prompt = sqlite3_column_int64(s, 3);
    l->cached = sqlite3_column_int64(s, 4);
    l->completion = sqlite3_column_int64(s, 5);
    l->gpu_seconds = (double)sqlite3_column_int64(s, 6) / US_PER_SECOND;
    l->here = here_dollars(q, l->gpu_seconds, dollars(s, 7), sqlite3_column_int64(s, 8));
    l->calls = sqlite3_column_int64(s, 9);
    l->unpriced = sqlite3_column_int64(s, 10);
    l->estimated = sqlite3_column_int64(s, 11);
    l->outside = dollars(s, 12);
}

static void add_line(cost_line *total, const cost_line *l) {
    total->requests += l->requests;
    total->errors += l->errors;
    total->prompt += l->prompt;
    total->cached += l->cached;
    total->completion += l->completion;
    total->gpu_seconds += l->gpu_seconds;
    total->here = total->here < 0 || l->here < 0 ? COST_UNKNOWN : total->here + l->here;
    total->calls += l->calls;
    total->unpriced += l->unpriced;
    total->estimated += l->estimated;
    total->outside += l->outside;
}

static status read_lines(asking *a) {
    char sql[SQL_MAX];
    const char *group = group_of(a->q->by);
    snprintf(sql, sizeof sql,
             "SELECT name, sum(requests), sum(errors), sum(prompt), sum(cached), sum(completion),"
             " sum(compute), sum(here), sum(unbooked), sum(calls), sum(unpriced), sum(estimate),"
             " sum(outside) FROM ("
             "SELECT %s AS name, 1 AS requests, outcome <> 'OK' AS errors, prompt_tokens AS prompt,"
             " cached_tokens AS cached, completion_tokens AS completion, compute_us AS compute,"
             " local_nano AS here, local_nano IS NULL AND compute_us > 0 AS unbooked, 0 AS calls,"
             " 0 AS unpriced, 0 AS estimate, 0 AS outside FROM " USAGE " WHERE" IN_QUESTION
             " UNION ALL SELECT %s, 0, 0, 0, 0, 0, 0, 0, 0, 1, cost_nano IS NULL, estimated,"
             " cost_nano FROM " CALLS " WHERE" IN_QUESTION ") GROUP BY name ORDER BY name",
             group, group);
    sqlite3_stmt *s;
    TRY(ask(a, sql, &s));
    cost_report *r = a->out;
    snprintf(r->total.name, sizeof r->total.name, "total");
    int code;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        cost_line *lines = grow(r->lines, r->line_count, sizeof *lines);
        if (!lines) break;
        r->lines = lines;
        read_line(a->q, s, &lines[r->line_count]);
        add_line(&r->total, &lines[r->line_count++]);
    }
    if (code == SQLITE_ROW) {
        sqlite3_finalize(s);
        return status_error(STATUS_RESOURCE_EXHAUSTED, "more than %d lines; narrow the question",
                            LINES_MAX);
    }
    return finish(a, s, code);
}

// ---- upstreams, failover ----

static status read_upstreams(asking *a) {
    sqlite3_stmt *s;
    TRY(ask(a,
            "SELECT upstream, model, count(*), sum(outcome = 'ok'), sum(failover),"
            " sum(cost_nano IS NULL), sum(estimated), sum(input_tokens), sum(cached_tokens),"
            " sum(written_tokens), sum(output_tokens), sum(cost_nano) FROM " CALLS
            " WHERE" IN_QUESTION " GROUP BY upstream, model ORDER BY upstream, model",
            &s));
    cost_report *r = a->out;
    int code;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        cost_upstream *all = grow(r->upstreams, r->upstream_count, sizeof *all);
        if (!all) break;
        r->upstreams = all;
        cost_upstream *u = &all[r->upstream_count++];
        put_name(u->name, s, 0);
        put_name(u->model, s, 1);
        int64_t *numbers[] = {&u->calls, &u->ok,     &u->failover, &u->unpriced, &u->estimated,
                              &u->input, &u->cached, &u->written,  &u->output};
        for (int i = 0; i < 9; i++) *numbers[i] = sqlite3_column_int64(s, i + 2);
        u->dollars = dollars(s, 11);
    }
    if (code != SQLITE_ROW) return finish(a, s, code);
    sqlite3_finalize(s);
    return status_error(STATUS_RESOURCE_EXHAUSTED, "too many upstreams");
}

static status read_failover(asking *a) {
    sqlite3_stmt *s;
    TRY(ask(a,
            "SELECT count(*), count(DISTINCT request_id), sum(cost_nano IS NULL),"
            " sum(input_tokens + output_tokens), sum(cost_nano) FROM " CALLS
            " WHERE failover AND" IN_QUESTION,
            &s));
    int code = sqlite3_step(s);
    if (code == SQLITE_ROW) {
        a->out->failover_calls = sqlite3_column_int64(s, 0);
        a->out->failover_requests = sqlite3_column_int64(s, 1);
        a->out->failover_unpriced = sqlite3_column_int64(s, 2);
        a->out->failover_tokens = sqlite3_column_int64(s, 3);
        a->out->failover_dollars = dollars(s, 4);
        code = SQLITE_DONE;
    }
    return finish(a, s, code);
}

// ---- the ticket ----

static status read_ticket(asking *a) {
    sqlite3_stmt *s;
    TRY(ask(a,
            "SELECT count(*), avg(prompt_tokens), avg(cached_tokens), avg(completion_tokens),"
            " avg(compute_us), avg(local_nano), sum(local_nano IS NULL) FROM " USAGE
            " WHERE outcome = 'OK' AND compute_us > 0 AND NOT EXISTS (SELECT 1 FROM call WHERE"
            " call.request_id = request_id_of) AND" IN_QUESTION,
            &s));
    int code = sqlite3_step(s);
    if (code == SQLITE_ROW) {
        cost_ticket *t = &a->out->ticket;
        t->count = sqlite3_column_int64(s, 0);
        t->prompt = sqlite3_column_double(s, 1);
        t->cached = sqlite3_column_double(s, 2);
        t->completion = sqlite3_column_double(s, 3);
        t->gpu_seconds = sqlite3_column_double(s, 4) / US_PER_SECOND;
        t->here = t->count ? here_dollars(a->q, t->gpu_seconds, sqlite3_column_double(s, 5) / NANO,
                                          sqlite3_column_int64(s, 6))
                           : COST_UNKNOWN;
        code = SQLITE_DONE;
    }
    return finish(a, s, code);
}

static status find_gpu_hour(asking *a) {
    cost_ticket *t = &a->out->ticket;
    int64_t nano;
    TRY(database_number(a->db, "SELECT value FROM meta WHERE name = 'gpu_hour_nano'", 0, &nano));
    t->gpu_hour_dollars = a->q->gpu_hour_dollars > 0 ? a->q->gpu_hour_dollars : (double)nano / NANO;
    const cost_report *r = a->out;
    double tokens = t->prompt + t->completion;
    a->out->failover_here =
        t->here < 0 || tokens <= 0 ? COST_UNKNOWN : (double)r->failover_tokens * t->here / tokens;
    return status_ok();
}

// A price for the mean ticket: classes may have parts of tokens, so many tickets are priced at
// once.
static double ticket_there(const price_row *row, const cost_ticket *t) {
    price_usage one = {.input = (int64_t)(t->prompt + 0.5)};
    price_tier tier = {0};
    for (int i = row->tier_count - 1; i >= 0; i--)
        if (one.input <= row->tiers[i].up_to) tier = row->tiers[i];
    if (tier.up_to == 0) return COST_UNKNOWN;
    price_row flat = *row;
    flat.tiers[0] = tier;
    flat.tiers[0].up_to = INT64_MAX;
    flat.tier_count = 1;
    price_usage many = {.input = (int64_t)(t->prompt * 1e6 + 0.5),
                        .cached = (int64_t)(t->cached * 1e6 + 0.5),
                        .output = (int64_t)(t->completion * 1e6 + 0.5)};
    int64_t nano = price_row_cost(&flat, &many);
    return nano < 0 ? COST_UNKNOWN : (double)nano / NANO / 1e6;
}

static status make_offers(asking *a) {
    cost_report *r = a->out;
    const prices *list = a->q->prices;
    const cost_ticket *t = &r->ticket;
    r->offers = calloc(prices_count(list) + 1, sizeof *r->offers);
    if (!r->offers) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the report");
    for (size_t i = 0; i < prices_count(list) && t->count > 0; i++) {
        const price_row *row = prices_at(list, i);
        if (prices_find(list, row->model, a->q->now_s) != row) continue;
        cost_offer *o = &r->offers[r->offer_count++];
        *o = (cost_offer){row, ticket_there(row, t), COST_UNKNOWN, COST_UNKNOWN};
        if (o->there <= 0 || t->gpu_hour_dollars <= 0 || t->gpu_seconds <= 0) continue;
        o->tickets_per_day = 24 * t->gpu_hour_dollars / o->there;
        o->share = o->tickets_per_day / (SECONDS_PER_DAY / t->gpu_seconds);
    }
    return status_ok();
}

// ---- all of it ----

static status open_books(const char *data_dir, sqlite3 **db) {
    char path[LEDGER_PATH_MAX];
    if (snprintf(path, sizeof path, "%s/" LEDGER_FILE, data_dir) >= (int)sizeof path)
        return status_error(STATUS_INVALID_ARGUMENT, "the data directory's path is too long");
    if (access(path, F_OK) != 0)
        return status_error(STATUS_NOT_FOUND, "there is no ledger in %s (" LEDGER_FILE ")",
                            data_dir);
    return database_open(path, false, db);
}

static status read_all(asking *a) {
    TRY(database_run(a->db, "BEGIN")); // one moment for all of it
    TRY(read_lines(a));
    TRY(read_upstreams(a));
    TRY(read_failover(a));
    TRY(read_ticket(a));
    TRY(find_gpu_hour(a));
    TRY(make_offers(a));
    return database_number(a->db, "SELECT sum(rows_lost) FROM gap", 0, &a->out->rows_lost);
}

status cost_report_make(const cost_question *q, cost_report *out) {
    *out = (cost_report){0};
    asking a = {.q = q, .out = out};
    TRY(open_books(q->data_dir, &a.db));
    status s = read_all(&a);
    database_close(a.db);
    return s;
}

void cost_report_free(cost_report *r) {
    free(r->lines);
    free(r->upstreams);
    free(r->offers);
    *r = (cost_report){0};
}

status cost_prices_path(const char *data_dir, char **path) {
    sqlite3 *db;
    sqlite3_stmt *s;
    *path = NULL;
    TRY(open_books(data_dir, &db));
    status result = database_prepare(db, "SELECT value FROM meta WHERE name = 'prices'", &s);
    if (status_is_ok(&result) && sqlite3_step(s) == SQLITE_ROW && sqlite3_column_text(s, 0))
        *path = strdup((const char *)sqlite3_column_text(s, 0));
    if (status_is_ok(&result)) sqlite3_finalize(s);
    database_close(db);
    return result;
}
