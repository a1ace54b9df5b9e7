// ledger: the coordinator's books, in one SQLite database in the data directory: what was used by
// whom and what it cost (usage, calls), and what left the site (audit, a hash chain:
// common/ledger/audit_chain.h). Tables: common/ledger/ledger_schema.h. Read by `octant cost` and
// `octant audit verify`, also while the coordinator runs.
//
// One thread writes. Everybody else hands rows to its bounded queue:
//   - usage and calls never wait. A full queue (a disk that stands still) loses rows rather than
//     answers: each is counted (ledger_counts.lost, octant_ledger_rows_lost_total), said in the
//     log, and written down as a row of table `gap` as soon as the disk is back, so that sums know
//     that they are short.
//   - leave waits until its audit row is on the disk (fsync), at most leave_wait_ns. All that wait
//     at the same time share one commit. Whatever goes wrong, the answer is not OK and the call may
//     not be made.
//
// Durability: WAL; commits with audit rows are synchronous=FULL (fsync before leave returns), those
// without are synchronous=NORMAL: kill -9 loses at most what was still queued (rows wait
// WRITE_EVERY_NS at most), a power cut may lose usage of the last seconds, never an audit row.
#ifndef OCTANT_COORDINATOR_LEDGER_LEDGER_H
#define OCTANT_COORDINATOR_LEDGER_LEDGER_H

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/status.h"
#include "coordinator/ledger/usage_port.h"

typedef struct ledger ledger;

typedef struct ledger_options {
    const char *data_dir; // made if it is not there (its parent must be), mode 0700
    const char *prices;   // deploy/prices.json or the operator's own; NULL: no upstream has a price
    double gpu_hour_dollars; // of one card (one rank), what the operator pays; 0: not told, local
                             // costs are unknown then, not zero
    int queue;               // rows that may wait; 0: 8192
    int64_t leave_wait_ns;   // 0: 2 s
} ledger_options;

// Opens or makes the books and starts the writer. INVALID_ARGUMENT: the price file is wrong (line
// or row named). FAILED_PRECONDITION: the audit chain's end is not what audit.head says (rows were
// cut off: see `octant audit verify`), or another coordinator holds the directory.
status ledger_open(const ledger_options *options, ledger **out);

// Writes what is queued, for at most 5 s, and closes. Nobody may be inside the port.
void ledger_close(ledger *l); // NULL is allowed

// Valid until ledger_close; any thread may call it.
usage_port ledger_port(ledger *l);

typedef struct ledger_counts {
    uint64_t usage, calls, leaves; // rows on disk since start
    uint64_t lost;                 // usage and call rows that found the queue full
    uint64_t refused;              // leaves that were not OK
    uint64_t unpriced;             // calls that no row of the price file covers
    uint64_t commits, failures;    // of transactions
    int queued;
} ledger_counts;
ledger_counts ledger_look(ledger *l);

// Prometheus text of the same.
void ledger_metrics_append(ledger *l, buf *out);

#endif
