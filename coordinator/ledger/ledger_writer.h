// ledger_writer: the one thread that writes the books, and its bounded queue. See ledger.h for what
// waits, what is lost when, and what is on disk when.
#ifndef OCTANT_COORDINATOR_LEDGER_LEDGER_WRITER_H
#define OCTANT_COORDINATOR_LEDGER_LEDGER_WRITER_H

#include "coordinator/ledger/audit_log.h"
#include "coordinator/ledger/ledger_row.h"

typedef struct ledger_writer ledger_writer;

// Takes over the use of db and audit until ledger_writer_stop is back. `queue`: rows that may wait.
status ledger_writer_start(sqlite3 *db, audit_log *audit, int queue, ledger_writer **out);

// Writes what is queued until deadline_ns, then joins the thread and frees. What a broken disk kept
// from being written by then is lost, and said in the log.
void ledger_writer_stop(ledger_writer *w, int64_t deadline_ns);

// Never waits. False: the queue was full, the row is lost and counted.
bool ledger_writer_push(ledger_writer *w, const ledger_row *row);

// Gives row i its place in the chain and has all rows on disk, in one commit, or says why not.
// Borrowed during the call only. DEADLINE_EXCEEDED: they were not on disk in time (but may be
// later: a row too many tells of something that never happened, which is the better error).
status ledger_writer_leave(ledger_writer *w, const audit_row *rows, int count, int64_t deadline_ns);

typedef struct writer_counts {
    uint64_t usage, calls, leaves, lost, commits, failures;
    int queued;
} writer_counts;
writer_counts ledger_writer_look(ledger_writer *w);

#endif
