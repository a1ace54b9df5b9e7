// audit_log: the writing end of the audit chain (common/ledger/audit_chain.h): appends rows inside
// the writer's transactions and repeats the committed end in audit.head.
#ifndef OCTANT_COORDINATOR_LEDGER_AUDIT_LOG_H
#define OCTANT_COORDINATOR_LEDGER_AUDIT_LOG_H

#include "common/ledger/audit_chain.h"
#include "common/ledger/database.h"

typedef struct audit_log audit_log;

// Begins the chain in an empty ledger, else takes it up at its end. FAILED_PRECONDITION: the end is
// not what audit.head says.
status audit_log_open(sqlite3 *db, const char *data_dir, audit_log **out);
void audit_log_close(audit_log *a); // NULL is allowed

// In a transaction: gives the row its seq, previous and hash, and inserts it.
status audit_log_append(audit_log *a, audit_row *row);

// After the transaction: what was appended counts (the head moves), or never was. The head's write
// is not fsynced: after a power cut it may lag behind the chain, never be ahead of it.
status audit_log_committed(audit_log *a);
void audit_log_rolled_back(audit_log *a);

#endif
