// ledger_schema: the tables of DATA_DIR/ledger.db, which the coordinator writes and `octant cost`
// and `octant audit` read. Anybody may read it with sqlite3; times are microseconds since 1970 UTC,
// money is nanodollars (1e-9 $), unknown money is NULL, never 0.
//
//   usage   one row per request that the core took, at its end
//   call    one row per attempt at an upstream, at its end (may be after the request's)
//   audit   one row per body that was about to be sent outside (audit_chain.h); append-only
//   gap     rows of usage and call that a stuck disk cost
//   meta    what the coordinator was last started with: gpu_hour_nano, prices
//   request (view) usage with what its calls cost
#ifndef OCTANT_LEDGER_LEDGER_SCHEMA_H
#define OCTANT_LEDGER_LEDGER_SCHEMA_H

#define LEDGER_FILE "ledger.db"   // in the data directory, with SQLite's -wal and -shm beside it
#define LEDGER_HEAD "audit.head"  // audit_chain.h
#define LEDGER_LOCK "ledger.lock" // held (flock) by the coordinator that writes
enum { LEDGER_VERSION = 1, LEDGER_PATH_MAX = 4096 }; // PRAGMA user_version

// Statements that make what is not there yet.
const char *ledger_schema(void);

#endif
