#include "common/ledger/audit_chain.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/ledger/database.h"
#include "common/ledger/ledger_schema.h"

// ---- hashes ----

bool audit_sha256(const void *bytes, size_t size, unsigned char out[AUDIT_HASH_BYTES]) {
    return EVP_Digest(bytes, size, out, NULL, EVP_sha256(), NULL) == 1;
}

static bool add_number(EVP_MD_CTX *c, int64_t number) {
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)number >> 8 * i);
    return EVP_DigestUpdate(c, bytes, sizeof bytes) == 1;
}

static bool add_text(EVP_MD_CTX *c, const char *text) {
    size_t size = strlen(text);
    return add_number(c, (int64_t)size) && EVP_DigestUpdate(c, text, size) == 1;
}

bool audit_row_hash(const audit_row *r, unsigned char out[AUDIT_HASH_BYTES]) {
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool good = c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(c, r->previous, AUDIT_HASH_BYTES) == 1 && add_number(c, r->seq) &&
                add_number(c, r->at_us) && add_number(c, r->size) &&
                EVP_DigestUpdate(c, r->body, AUDIT_HASH_BYTES) == 1 && add_text(c, r->request_id) &&
                add_text(c, r->key) && add_text(c, r->privacy) && add_text(c, r->rule) &&
                add_text(c, r->upstream) && add_text(c, r->host) &&
                EVP_DigestFinal_ex(c, out, NULL) == 1;
    EVP_MD_CTX_free(c);
    return good;
}

// ---- the head ----

void audit_head_write(const audit_head *head, char out[AUDIT_HEAD_BYTES + 1]) {
    int at = snprintf(out, AUDIT_HEAD_BYTES + 1, "%020" PRId64 " ", head->seq);
    for (int i = 0; i < AUDIT_HASH_BYTES; i++, at += 2)
        snprintf(out + at, (size_t)(AUDIT_HEAD_BYTES + 1 - at), "%02x", head->hash[i]);
    out[at] = '\n';
    out[at + 1] = 0;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool audit_head_parse(const char *text, audit_head *out) {
    char *end;
    errno = 0;
    out->seq = strtoll(text, &end, 10);
    if (end == text || errno || out->seq < 0 || (*end != ' ' && *end != ':')) return false;
    const char *hex = end + 1;
    for (int i = 0; i < AUDIT_HASH_BYTES; i++, hex += 2) {
        int high = hex_value(hex[0]), low = high < 0 ? -1 : hex_value(hex[1]);
        if (low < 0) return false;
        out->hash[i] = (unsigned char)(high << 4 | low);
    }
    return *hex == 0 || *hex == '\n';
}

static status path_in(const char *data_dir, const char *name, char out[LEDGER_PATH_MAX]) {
    if (snprintf(out, LEDGER_PATH_MAX, "%s/%s", data_dir, name) < LEDGER_PATH_MAX)
        return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT, "the data directory's path is too long");
}

status audit_head_read(const char *data_dir, audit_head *out) {
    char path[LEDGER_PATH_MAX], text[AUDIT_HEAD_BYTES + 1] = "";
    TRY(path_in(data_dir, LEDGER_HEAD, path));
    FILE *file = fopen(path, "re");
    if (!file) return status_error(STATUS_NOT_FOUND, "%s: %s", path, strerror(errno));
    size_t got = fread(text, 1, AUDIT_HEAD_BYTES, file);
    fclose(file);
    if (got == AUDIT_HEAD_BYTES && audit_head_parse(text, out)) return status_ok();
    return status_error(STATUS_DATA_LOSS, "%s is no audit head", path);
}

// ---- walking ----

typedef struct walk {
    sqlite3 *db;
    sqlite3_stmt *rows;
    audit_head heads[2]; // that must be in the chain: the file's, the caller's
    const char *named[2];
    int head_count;
    audit_report *report;
} walk;

static bool broken(walk *w, int64_t seq, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static bool broken(walk *w, int64_t seq, const char *format, ...) {
    va_list words;
    va_start(words, format);
    vsnprintf(w->report->why, sizeof w->report->why, format, words);
    va_end(words);
    w->report->broken = true;
    w->report->broken_seq = seq;
    return false;
}

static const char *text_column(sqlite3_stmt *s, int i) {
    const unsigned char *text = sqlite3_column_text(s, i);
    return text ? (const char *)text : "";
}

static bool hash_column(sqlite3_stmt *s, int i, unsigned char out[AUDIT_HASH_BYTES]) {
    const void *bytes = sqlite3_column_blob(s, i);
    if (!bytes || sqlite3_column_bytes(s, i) != AUDIT_HASH_BYTES) return false;
    memcpy(out, bytes, AUDIT_HASH_BYTES);
    return true;
}

// A text with a NUL inside would hash as its beginning.
static bool texts_are_whole(sqlite3_stmt *s, int first, int last) {
    for (int i = first; i <= last; i++)
        if (strlen(text_column(s, i)) != (size_t)sqlite3_column_bytes(s, i)) return false;
    return true;
}

static bool read_row(sqlite3_stmt *s, audit_row *r) {
    r->seq = sqlite3_column_int64(s, 0);
    r->at_us = sqlite3_column_int64(s, 1);
    r->size = sqlite3_column_int64(s, 2);
    r->request_id = text_column(s, 3);
    r->key = text_column(s, 4);
    r->privacy = text_column(s, 5);
    r->rule = text_column(s, 6);
    r->upstream = text_column(s, 7);
    r->host = text_column(s, 8);
    return texts_are_whole(s, 3, 8) && hash_column(s, 9, r->body) &&
           hash_column(s, 10, r->previous) && hash_column(s, 11, r->hash);
}

static bool check_row(walk *w, const audit_row *r, bool whole) {
    static const unsigned char nothing[AUDIT_HASH_BYTES];
    audit_report *o = w->report;
    unsigned char hash[AUDIT_HASH_BYTES];
    if (r->seq != o->rows)
        return broken(w, o->rows, "row %" PRId64 " is missing: row %" PRId64 " comes in its place",
                      o->rows, r->seq);
    if (!whole || !audit_row_hash(r, hash) || memcmp(hash, r->hash, sizeof hash) != 0)
        return broken(w, r->seq, "row %" PRId64 " was changed: its hash is not that of its fields",
                      r->seq);
    if (memcmp(r->previous, o->rows ? o->last.hash : nothing, sizeof nothing) != 0)
        return broken(w, r->seq,
                      "row %" PRId64 " does not follow from the row before: one of them was "
                      "replaced, or they were swapped",
                      r->seq);
    if ((r->seq == 0) != (strcmp(r->rule, AUDIT_GENESIS_RULE) == 0))
        return broken(w, r->seq, "row %" PRId64 ": a chain begins with one genesis row", r->seq);
    for (int i = 0; i < w->head_count; i++)
        if (w->heads[i].seq == r->seq && memcmp(w->heads[i].hash, r->hash, sizeof hash) != 0)
            return broken(w, r->seq,
                          "row %" PRId64 " is not the one that %s names: from here or "
                          "before, the chain was written anew",
                          r->seq, w->named[i]);
    return true;
}

static status walk_rows(walk *w) {
    audit_report *o = w->report;
    TRY(database_prepare(w->db,
                         "SELECT seq, at_us, size, request_id, key, privacy, rule, upstream, host,"
                         " body_sha256, previous, hash FROM audit ORDER BY seq",
                         &w->rows));
    int code;
    while ((code = sqlite3_step(w->rows)) == SQLITE_ROW) {
        audit_row r;
        bool whole = read_row(w->rows, &r);
        if (!check_row(w, &r, whole)) return status_ok();
        if (o->rows == 0) o->first_us = r.at_us;
        o->last_us = r.at_us;
        o->last.seq = r.seq;
        memcpy(o->last.hash, r.hash, sizeof r.hash);
        o->rows++;
    }
    return code == SQLITE_DONE ? status_ok() : database_error(w->db, "audit");
}

static void check_end(walk *w) {
    audit_report *o = w->report;
    if (o->rows == 0) {
        broken(w, 0, "row 0 is missing: a chain begins with its genesis");
        return;
    }
    for (int i = 0; i < w->head_count; i++) {
        if (w->heads[i].seq < o->rows) continue;
        broken(w, o->rows,
               "row %" PRId64 " is missing: rows to %" PRId64
               " were there when %s was written, and were cut off",
               o->rows, w->heads[i].seq, w->named[i]);
        return;
    }
}

static status check_triggers(walk *w) {
    int64_t count;
    TRY(database_number(w->db,
                        "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name IN"
                        " ('audit_no_update', 'audit_no_delete', 'audit_in_order')",
                        0, &count));
    if (count != 3)
        broken(w, w->report->rows,
               "no row is broken, but the triggers that keep rows from being "
               "changed were removed");
    return status_ok();
}

// Who begins a new chain in place of the old one has to think of the calls, too.
static status check_calls(walk *w) {
    int64_t count;
    TRY(database_number(w->db,
                        "SELECT count(*) FROM call WHERE http_status > 0 AND (request_id, upstream)"
                        " NOT IN (SELECT request_id, upstream FROM audit)",
                        0, &count));
    if (count > 0)
        broken(w, w->report->rows,
               "no row is broken, but %" PRId64 " calls that an upstream answered have none",
               count);
    return status_ok();
}

static status walk_all(walk *w) {
    TRY(database_run(w->db, "BEGIN")); // one moment for rows and calls
    TRY(walk_rows(w));
    if (!w->report->broken) check_end(w);
    if (!w->report->broken) TRY(check_calls(w));
    return w->report->broken ? status_ok() : check_triggers(w);
}

status audit_verify(const char *data_dir, const audit_head *expect, audit_report *out) {
    *out = (audit_report){0};
    char path[LEDGER_PATH_MAX];
    walk w = {.report = out};
    TRY(path_in(data_dir, LEDGER_FILE, path));
    if (access(path, F_OK) != 0)
        return status_error(STATUS_NOT_FOUND, "there is no ledger in %s (%s)", data_dir,
                            LEDGER_FILE);
    // Before the rows: a coordinator that runs now writes rows first, then the head.
    status head = audit_head_read(data_dir, &w.heads[0]);
    if (status_is_ok(&head)) w.named[w.head_count++] = LEDGER_HEAD;
    if (expect) {
        w.heads[w.head_count] = *expect;
        w.named[w.head_count++] = "--expect";
    }
    TRY(database_open(path, false, &w.db));
    status s = walk_all(&w);
    if (status_is_ok(&s) && !out->broken && !status_is_ok(&head))
        broken(&w, out->rows,
               "no row is broken, but it cannot be told whether rows were cut off "
               "the end: %.150s",
               head.message);
    sqlite3_finalize(w.rows);
    database_close(w.db);
    return s;
}
