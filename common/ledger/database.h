// database: SQLite behind our status. Only common/ledger and coordinator/ledger include it, for
// only they may know SQLite.
#ifndef OCTANT_LEDGER_DATABASE_H
#define OCTANT_LEDGER_DATABASE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"

// Opens, or with `write` makes, a database. Readers never create a file. Waits at most a second for
// another process's lock.
status database_open(const char *path, bool write, sqlite3 **out);
void database_close(sqlite3 *db); // NULL is allowed

// What SQLite says of its last failure, as "what: words (path)".
status database_error(sqlite3 *db, const char *what);

status database_run(sqlite3 *db, const char *sql); // statements without results
status database_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **out);

// The first column of the first row; `otherwise` when there is none or it is NULL.
status database_number(sqlite3 *db, const char *sql, int64_t otherwise, int64_t *out);

// Steps a statement without results, then resets it for the next row.
status database_step(sqlite3 *db, sqlite3_stmt *statement, const char *what);

#endif
