#include "coordinator/ledger/audit_log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/ledger/ledger_schema.h"

struct audit_log {
    sqlite3 *db;
    sqlite3_stmt *insert;
    audit_head end, committed; // of the open transaction; on disk
    int head_file;
};

static void bind_text(sqlite3_stmt *s, int i, const char *text) {
    sqlite3_bind_text(s, i, text, -1, SQLITE_STATIC);
}

static status insert(audit_log *a, const audit_row *r) {
    sqlite3_stmt *s = a->insert;
    sqlite3_bind_int64(s, 1, r->seq);
    sqlite3_bind_int64(s, 2, r->at_us);
    bind_text(s, 3, r->request_id);
    bind_text(s, 4, r->key);
    bind_text(s, 5, r->privacy);
    bind_text(s, 6, r->rule);
    bind_text(s, 7, r->upstream);
    bind_text(s, 8, r->host);
    sqlite3_bind_blob(s, 9, r->body, AUDIT_HASH_BYTES, SQLITE_STATIC);
    sqlite3_bind_int64(s, 10, r->size);
    sqlite3_bind_blob(s, 11, r->previous, AUDIT_HASH_BYTES, SQLITE_STATIC);
    sqlite3_bind_blob(s, 12, r->hash, AUDIT_HASH_BYTES, SQLITE_STATIC);
    return database_step(a->db, s, "audit");
}

status audit_log_append(audit_log *a, audit_row *r) {
    r->seq = a->end.seq + 1;
    memcpy(r->previous, a->end.hash, AUDIT_HASH_BYTES);
    if (!audit_row_hash(r, r->hash))
        return status_error(STATUS_INTERNAL, "libcrypto cannot compute SHA-256");
    TRY(insert(a, r));
    a->end.seq = r->seq;
    memcpy(a->end.hash, r->hash, AUDIT_HASH_BYTES);
    return status_ok();
}

status audit_log_committed(audit_log *a) {
    if (a->committed.seq == a->end.seq) return status_ok();
    a->committed = a->end;
    char text[AUDIT_HEAD_BYTES + 1];
    audit_head_write(&a->committed, text);
    if (pwrite(a->head_file, text, AUDIT_HEAD_BYTES, 0) == AUDIT_HEAD_BYTES) return status_ok();
    return status_error(STATUS_UNAVAILABLE, "%s: %s", LEDGER_HEAD, strerror(errno));
}

void audit_log_rolled_back(audit_log *a) {
    a->end = a->committed;
}

// ---- opening ----

static status begin_chain(audit_log *a) {
    audit_row genesis = {.at_us = clock_unix_us(),
                         .request_id = "",
                         .key = "",
                         .privacy = "",
                         .rule = AUDIT_GENESIS_RULE,
                         .upstream = "",
                         .host = ""};
    if (getrandom(genesis.body, sizeof genesis.body, 0) != sizeof genesis.body)
        return status_error(STATUS_UNAVAILABLE, "no random bytes for the audit's genesis");
    a->end.seq = -1;
    return audit_log_append(a, &genesis);
}

static status read_end(audit_log *a) {
    sqlite3_stmt *s;
    TRY(database_prepare(a->db, "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", &s));
    int code = sqlite3_step(s);
    bool there = code == SQLITE_ROW && sqlite3_column_bytes(s, 1) == AUDIT_HASH_BYTES;
    if (there) {
        a->end.seq = sqlite3_column_int64(s, 0);
        memcpy(a->end.hash, sqlite3_column_blob(s, 1), AUDIT_HASH_BYTES);
    }
    sqlite3_finalize(s);
    if (there) return status_ok();
    if (code == SQLITE_ROW) return status_error(STATUS_DATA_LOSS, "the last audit row has no hash");
    return code == SQLITE_DONE ? begin_chain(a) : database_error(a->db, "audit");
}

// The head may lag behind by what was committed when the process was killed; it is never ahead.
static status check_head(const audit_log *a, const char *data_dir, bool fresh) {
    audit_head head;
    status s = audit_head_read(data_dir, &head);
    // A process killed in its first milliseconds leaves a genesis and no head.
    if (!status_is_ok(&s))
        return fresh || a->end.seq == 0 ? status_ok() : status_context(s, "the audit chain");
    bool same = head.seq == a->end.seq && memcmp(head.hash, a->end.hash, AUDIT_HASH_BYTES) == 0;
    if (head.seq < a->end.seq || same) return status_ok();
    return status_error(STATUS_FAILED_PRECONDITION,
                        "the audit chain ends at row %" PRId64 ", but %s names row %" PRId64
                        ": see octant audit verify --data-dir %s; to go on, keep that directory "
                        "as evidence and give another --data-dir",
                        a->end.seq, LEDGER_HEAD, head.seq, data_dir);
}

static status open_head(audit_log *a, const char *data_dir) {
    char path[LEDGER_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", data_dir, LEDGER_HEAD); // data_dir was measured
    a->head_file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (a->head_file >= 0) return status_ok();
    return status_error(STATUS_UNAVAILABLE, "%s: %s", path, strerror(errno));
}

static status open_chain(audit_log *a, const char *data_dir) {
    TRY(database_prepare(a->db,
                         "INSERT INTO audit (seq, at_us, request_id, key, privacy, rule, upstream,"
                         " host, body_sha256, size, previous, hash)"
                         " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                         &a->insert));
    a->committed.seq = -1; // the head is written whatever it says now
    TRY(read_end(a));
    bool fresh = a->end.seq == 0;
    TRY(check_head(a, data_dir, fresh));
    TRY(open_head(a, data_dir));
    return audit_log_committed(a);
}

status audit_log_open(sqlite3 *db, const char *data_dir, audit_log **out) {
    audit_log *a = calloc(1, sizeof *a);
    if (!a) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the audit");
    a->db = db;
    a->head_file = -1;
    status s = open_chain(a, data_dir);
    if (status_is_ok(&s))
        *out = a;
    else
        audit_log_close(a);
    return s;
}

void audit_log_close(audit_log *a) {
    if (!a) return;
    sqlite3_finalize(a->insert);
    if (a->head_file >= 0) close(a->head_file);
    free(a);
}
