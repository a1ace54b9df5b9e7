#include "common/ledger/database.h"

#include <stddef.h>

enum { BUSY_MS = 1000 };

status database_error(sqlite3 *db, const char *what) {
    int code = sqlite3_errcode(db);
    status_code as = STATUS_UNAVAILABLE;
    if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) as = STATUS_DATA_LOSS;
    if (code == SQLITE_FULL || code == SQLITE_NOMEM) as = STATUS_RESOURCE_EXHAUSTED;
    if (code == SQLITE_CONSTRAINT) as = STATUS_FAILED_PRECONDITION;
    const char *path = sqlite3_db_filename(db, "main");
    return status_error(as, "%s: %s (%s)", what, sqlite3_errmsg(db), path ? path : "");
}

status database_open(const char *path, bool write, sqlite3 **out) {
    int flags = write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    *out = NULL;
    if (sqlite3_open_v2(path, out, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        status s = status_error(STATUS_UNAVAILABLE, "cannot open %s: %s", path,
                                *out ? sqlite3_errmsg(*out) : "no memory");
        sqlite3_close(*out);
        *out = NULL;
        return s;
    }
    sqlite3_extended_result_codes(*out, 0);
    sqlite3_busy_timeout(*out, BUSY_MS);
    return status_ok();
}

void database_close(sqlite3 *db) {
    sqlite3_close(db);
}

status database_run(sqlite3 *db, const char *sql) {
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK) return status_ok();
    return database_error(db, "the ledger's database");
}

status database_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **out) {
    if (sqlite3_prepare_v2(db, sql, -1, out, NULL) == SQLITE_OK) return status_ok();
    return database_error(db, "the ledger's database");
}

status database_number(sqlite3 *db, const char *sql, int64_t otherwise, int64_t *out) {
    sqlite3_stmt *statement;
    TRY(database_prepare(db, sql, &statement));
    int code = sqlite3_step(statement);
    bool there = code == SQLITE_ROW && sqlite3_column_type(statement, 0) != SQLITE_NULL;
    *out = there ? sqlite3_column_int64(statement, 0) : otherwise;
    status s =
        code == SQLITE_ROW || code == SQLITE_DONE ? status_ok() : database_error(db, "the ledger");
    sqlite3_finalize(statement);
    return s;
}

status database_step(sqlite3 *db, sqlite3_stmt *statement, const char *what) {
    int code = sqlite3_step(statement);
    status s = code == SQLITE_DONE ? status_ok() : database_error(db, what);
    sqlite3_reset(statement);
    return s;
}
