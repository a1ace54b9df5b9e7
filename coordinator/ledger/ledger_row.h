// ledger_row: what waits in the writer's queue: plain data, so that a row is one copy and nothing
// is freed. Texts are cut at the bounds below, in whole characters; none of them is anybody's
// prompt or answer.
#ifndef OCTANT_COORDINATOR_LEDGER_LEDGER_ROW_H
#define OCTANT_COORDINATOR_LEDGER_LEDGER_ROW_H

#include <stdint.h>

#include "common/ledger/database.h"
#include "coordinator/ledger/usage_port.h"

enum {
    LEDGER_NAME_MAX = 128,   // of keys, models, rules, upstreams [bytes with the NUL]
    LEDGER_ID_MAX = 48,      // of a request
    LEDGER_REASON_MAX = 200, // and of the list of who served
    LEDGER_WORD_MAX = 24,    // of outcomes, classes, APIs
};

typedef enum ledger_row_kind { LEDGER_USAGE, LEDGER_CALL } ledger_row_kind;

typedef struct ledger_row {
    ledger_row_kind kind;
    int64_t at_us;
    char request_id[LEDGER_ID_MAX], key[LEDGER_NAME_MAX], model[LEDGER_NAME_MAX];
    char outcome[LEDGER_WORD_MAX], text[LEDGER_REASON_MAX]; // served_by; the call's reason
    int64_t cost_nano;                                      // local or the call's; -1: unknown
    bool estimated;
    union {
        struct {
            char privacy[LEDGER_WORD_MAX], rule[LEDGER_NAME_MAX];
            int64_t answers, prompt, cached, completion, queue_us, ttft_us, total_us, compute_us;
        } usage;
        struct {
            char upstream[LEDGER_NAME_MAX], api[LEDGER_WORD_MAX], price[LEDGER_NAME_MAX];
            int64_t call, http_status, first_us, total_us, input, cached, written, output;
            bool failover;
        } call;
    };
} ledger_row;

// `local_nano` and `cost_nano`: money, -1 when it is unknown.
void ledger_row_from_usage(ledger_row *row, const usage_record *r, int64_t at_us,
                           int64_t local_nano);
void ledger_row_from_call(ledger_row *row, const call_record *r, int64_t at_us, int64_t cost_nano);

// Which row of the price file an upstream goes by.
const char *ledger_price_name(const upstream_policy *u);

typedef struct ledger_statements {
    sqlite3_stmt *usage, *call;
} ledger_statements;
status ledger_statements_open(sqlite3 *db, ledger_statements *out);
void ledger_statements_close(ledger_statements *s);
status ledger_row_insert(sqlite3 *db, const ledger_statements *s, const ledger_row *row);

#endif
