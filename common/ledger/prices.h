// prices: what closed models cost, from a file of dated rows (deploy/prices.json). Nothing about a
// vendor is in code: a model that the file does not know has no price, which is not zero.
//
//   {"about": "...", "rows": [
//     {"model": "NAME", "vendor": "...",
//      "from": "2026-11-24",        first day (UTC) on which the row holds
//      "until": "2026-12-31",       last day; left out: until further notice. A promotion's end
//      "tiers": [                   by the whole prompt's tokens; the whole request is charged so
//        {"up_to": 100000, "input": 0.10, "cached": 0.01, "written": 0.125, "output": 0.50},
//        {"input": 0.50, "output": 2.50}],
//      "source": "where it was read", "seen": "2026-11-24"}]}
//
// Dollars per million tokens. `cached` (prompt tokens read from the vendor's cache) left out: they
// are charged as input, which is never too little. `written` (prompt tokens written to it) left
// out: such a call has no price, for writing may cost more than input. Rows of a model may not
// overlap; a day between two rows has no price.
#ifndef OCTANT_LEDGER_PRICES_H
#define OCTANT_LEDGER_PRICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

enum {
    PRICES_FILE_BYTES_MAX = 4 << 20,
    PRICES_ROWS_MAX = 4096,
    PRICES_TIERS_MAX = 8,
};
#define PRICES_UNKNOWN INT64_C(-1)

typedef struct prices prices;

// Reads and checks the whole file: every row has model, from, tiers, source and seen; dates are
// dates; tiers ascend; prices are numbers >= 0; rows do not overlap. INVALID_ARGUMENT names the
// row.
status prices_open(const char *path, prices **out);
status prices_parse(const char *bytes, size_t size, prices **out); // the same from bytes
void prices_close(prices *p);                                      // NULL is allowed

typedef struct price_usage {
    int64_t input;           // all of the prompt, with cached and written ones
    int64_t cached, written; // of them
    int64_t output;
} price_usage;

// Nanodollars (1e-9 $) of one call at `unix_s`; PRICES_UNKNOWN. `p` NULL: unknown.
int64_t prices_cost(const prices *p, const char *model, int64_t unix_s, const price_usage *usage);

// Of one tier of a row, for who lists them; dollars per million tokens, NaN: left out.
typedef struct price_tier {
    int64_t up_to; // INT64_MAX: any
    double input, cached, written, output;
} price_tier;

typedef struct price_row {
    const char *model, *vendor, *source, *seen;
    int64_t from_day, until_day; // days since 1970-01-01; until INT64_MAX: open
    price_tier tiers[PRICES_TIERS_MAX];
    int tier_count;
} price_row;

size_t prices_count(const prices *p);
const price_row *prices_at(const prices *p, size_t i);
// The row in force at `unix_s`; NULL: none.
const price_row *prices_find(const prices *p, const char *model, int64_t unix_s);

// Nanodollars of one call by this row; PRICES_UNKNOWN where it says nothing (above).
int64_t price_row_cost(const price_row *row, const price_usage *usage);

// "2026-11-24" to days since 1970-01-01; false when it is no date. And back.
bool prices_parse_day(const char *text, int64_t *day);
void prices_day_text(int64_t day, char out[16]);

#endif
