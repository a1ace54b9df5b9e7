// cost_report: what the books say it cost, here and outside. All sums come from rows of the ledger
// (ledger_schema.h); only the comparison with closed models uses the price file, and says so.
//
//   here      GPU-seconds that requests used, times dollars per GPU-hour. GPU-seconds are ranks
//   times
//             step time times the request's share of the step's rows, at the load that there was: a
//             cluster that stands idle half the day costs twice as much a token. That is what the
//             break-even is for.
//   outside   what calls cost by the price file on the day of the call; estimates where the API
//   told
//             no usage (a client had left), flagged.
//   ticket    the mean request that was answered here, by its measured tokens.
//   break-even   tickets a day from which a GPU that is paid day and night is cheaper than the
//             price list, and which share of what it can do (at the measured speed) that is.
#ifndef OCTANT_LEDGER_COST_REPORT_H
#define OCTANT_LEDGER_COST_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/ledger/prices.h"

typedef enum cost_by { COST_BY_MODEL, COST_BY_KEY, COST_BY_DAY } cost_by;
#define COST_UNKNOWN (-1.0) // dollars; never 0

typedef struct cost_question {
    const char *data_dir;
    cost_by by;
    int64_t since_us, until_us; // [since, until)
    const char *model, *key;    // only these; NULL: all
    double gpu_hour_dollars;    // 0: what each row was booked with
    const prices *prices;       // what to compare with; NULL: nothing
    int64_t now_s;              // which prices are in force
} cost_question;

typedef struct cost_line {
    char name[128];
    int64_t requests, errors, prompt, cached, completion;
    double gpu_seconds, here; // here: COST_UNKNOWN when $/GPU-hour was not told
    int64_t calls, unpriced, estimated;
    double outside; // of calls with a price
} cost_line;

// An upstream that was called.
typedef struct cost_upstream {
    char name[128], model[128];
    int64_t calls, ok, failover, unpriced, estimated;
    int64_t input, cached, written, output;
    double dollars;
} cost_upstream;

typedef struct cost_ticket {
    int64_t count;                     // that it is the mean of; 0: none
    double prompt, cached, completion; // tokens
    double gpu_seconds, here;          // dollars or COST_UNKNOWN
    double gpu_hour_dollars;           // 0: not told
} cost_ticket;

// The ticket at a price of the list.
typedef struct cost_offer {
    const price_row *row;
    double there;           // dollars a ticket; COST_UNKNOWN
    double tickets_per_day; // break-even of one GPU; COST_UNKNOWN
    double share;           // of what that GPU can do in a day; past 1: it never pays
} cost_offer;

typedef struct cost_report {
    cost_line *lines;
    size_t line_count;
    cost_line total;
    cost_upstream *upstreams;
    size_t upstream_count;
    // Calls that left although they were to be served here.
    int64_t failover_calls, failover_requests, failover_unpriced, failover_tokens;
    double failover_dollars;
    double failover_here; // about what the same tokens cost here; COST_UNKNOWN
    cost_ticket ticket;
    cost_offer *offers; // one for each price in force
    size_t offer_count;
    int64_t rows_lost; // usage and call rows that are missing from all of this
} cost_report;

// NOT_FOUND: no ledger there. Free with cost_report_free, also after an error.
status cost_report_make(const cost_question *q, cost_report *out);
void cost_report_free(cost_report *r);

// Which price file the coordinator was last started with; the caller frees *path (NULL: none).
status cost_prices_path(const char *data_dir, char **path);

#endif
