#include "coordinator/ledger/ledger_row.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

// Cuts in front of a character that does not fit whole.
static void put(char *out, size_t room, const char *text) {
    size_t size = text ? strlen(text) : 0;
    if (size >= room) {
        size = room - 1;
        while (size > 0 && ((unsigned char)text[size] & 0xc0) == 0x80) size--;
    }
    memcpy(out, text ? text : "", size);
    out[size] = 0;
}
#define PUT(array, text) put(array, sizeof(array), text)

// -1 stays -1: "none came".
static int64_t us(int64_t ns) {
    return ns < 0 ? -1 : ns / 1000;
}

// "local/m:12,frontier:30".
static void put_segments(char *out, size_t room, const answer_usage *u) {
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < u->segment_count && i < ANSWER_SEGMENTS_MAX; i++) {
        char one[sizeof u->segments[i].by + 16];
        int size = snprintf(one, sizeof one, "%s%s:%d", i ? "," : "", u->segments[i].by,
                            (int)u->segments[i].tokens);
        if (at + (size_t)size >= room) break;
        memcpy(out + at, one, (size_t)size + 1);
        at += (size_t)size;
    }
}

void ledger_row_from_usage(ledger_row *row, const usage_record *r, int64_t at_us,
                           int64_t local_nano) {
    const core_request *q = r->request;
    const answer_usage *u = &r->end->usage;
    *row = (ledger_row){
        .kind = LEDGER_USAGE, .at_us = at_us, .cost_nano = local_nano, .estimated = u->estimated};
    PUT(row->request_id, q->public_id);
    PUT(row->key, q->client);
    PUT(row->model, q->model);
    PUT(row->outcome, status_code_name(r->end->why.code));
    put_segments(row->text, sizeof row->text, u);
    PUT(row->usage.privacy, privacy_class_name(q->route.privacy));
    PUT(row->usage.rule, q->route.rule);
    row->usage.answers = q->n;
    row->usage.prompt = u->prompt_tokens;
    row->usage.cached = u->cached_tokens;
    row->usage.completion = u->completion_tokens;
    row->usage.queue_us = us(u->queue_ns);
    row->usage.ttft_us = us(u->ttft_ns);
    row->usage.total_us = us(u->total_ns);
    row->usage.compute_us = u->compute_us;
}

const char *ledger_price_name(const upstream_policy *u) {
    return u->price ? u->price : u->model;
}

void ledger_row_from_call(ledger_row *row, const call_record *r, int64_t at_us, int64_t cost_nano) {
    const upstream_policy *u = r->upstream;
    const upstream_end *e = r->end;
    *row = (ledger_row){
        .kind = LEDGER_CALL, .at_us = at_us, .cost_nano = cost_nano, .estimated = !e->usage.known};
    PUT(row->request_id, r->request_id);
    PUT(row->key, r->key);
    PUT(row->model, u->model);
    PUT(row->outcome, upstream_outcome_name(e->outcome));
    PUT(row->text, e->reason);
    PUT(row->call.upstream, u->name);
    PUT(row->call.api, upstream_api_name(u->api));
    PUT(row->call.price, ledger_price_name(u));
    row->call.call = (int64_t)r->call;
    row->call.failover = r->failover;
    row->call.http_status = e->http_status;
    row->call.first_us = us(e->first_content_ns);
    row->call.total_us = us(e->total_ns);
    row->call.input = e->usage.input_tokens;
    row->call.cached = e->usage.cached_tokens;
    row->call.written = e->usage.written_tokens;
    row->call.output = e->usage.output_tokens;
}

// ---- inserting ----

status ledger_statements_open(sqlite3 *db, ledger_statements *out) {
    TRY(database_prepare(db,
                         "INSERT INTO usage (at_us, request_id, key, model, served_by, outcome,"
                         " local_nano, estimated, privacy, rule, answers, prompt_tokens,"
                         " cached_tokens, completion_tokens, queue_us, ttft_us, total_us,"
                         " compute_us)"
                         " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                         &out->usage));
    return database_prepare(db,
                            "INSERT INTO call (at_us, request_id, key, model, reason, outcome,"
                            " cost_nano, estimated, upstream, api, price, failover, call,"
                            " http_status, first_us, total_us, input_tokens, cached_tokens,"
                            " written_tokens, output_tokens)"
                            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                            &out->call);
}

void ledger_statements_close(ledger_statements *s) {
    sqlite3_finalize(s->usage);
    sqlite3_finalize(s->call);
    *s = (ledger_statements){0};
}

typedef struct binder {
    sqlite3_stmt *statement;
    int at;
} binder;

static void text(binder *b, const char *value) {
    sqlite3_bind_text(b->statement, ++b->at, value, -1, SQLITE_STATIC);
}

static void number(binder *b, int64_t value) {
    sqlite3_bind_int64(b->statement, ++b->at, value);
}

static void unless_negative(binder *b, int64_t value) {
    if (value < 0)
        sqlite3_bind_null(b->statement, ++b->at);
    else
        number(b, value);
}

static void bind_usage(binder *b, const ledger_row *r) {
    text(b, r->usage.privacy);
    text(b, r->usage.rule);
    number(b, r->usage.answers);
    number(b, r->usage.prompt);
    number(b, r->usage.cached);
    number(b, r->usage.completion);
    number(b, r->usage.queue_us);
    number(b, r->usage.ttft_us);
    number(b, r->usage.total_us);
    number(b, r->usage.compute_us);
}

static void bind_call(binder *b, const ledger_row *r) {
    text(b, r->call.upstream);
    text(b, r->call.api);
    text(b, r->call.price);
    number(b, r->call.failover);
    number(b, r->call.call);
    number(b, r->call.http_status);
    unless_negative(b, r->call.first_us);
    unless_negative(b, r->call.total_us);
    number(b, r->call.input);
    number(b, r->call.cached);
    number(b, r->call.written);
    number(b, r->call.output);
}

status ledger_row_insert(sqlite3 *db, const ledger_statements *s, const ledger_row *r) {
    binder b = {.statement = r->kind == LEDGER_USAGE ? s->usage : s->call};
    number(&b, r->at_us);
    text(&b, r->request_id);
    text(&b, r->key);
    text(&b, r->model);
    text(&b, r->text);
    text(&b, r->outcome);
    unless_negative(&b, r->cost_nano);
    number(&b, r->estimated);
    if (r->kind == LEDGER_USAGE)
        bind_usage(&b, r);
    else
        bind_call(&b, r);
    assert(b.at == sqlite3_bind_parameter_count(b.statement));
    return database_step(db, b.statement, r->kind == LEDGER_USAGE ? "usage" : "call");
}
