// Any bytes as a price file: an error is one line; what is accepted has rows that do not overlap,
// and no call comes out cheaper than nothing.
#include <assert.h>
#include <string.h>

#include "common/ledger/prices.h"

static void ask(const prices *p, const price_row *row, const price_usage *u) {
    int64_t first = row->from_day < INT64_MAX / 86400 ? row->from_day * 86400 : 0;
    int64_t cost = prices_cost(p, row->model, first, u);
    assert(cost >= 0 || cost == PRICES_UNKNOWN);
    assert(prices_find(p, row->model, first) == row);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    prices *p = NULL;
    status s = prices_parse((const char *)data, size, &p);
    assert(!strchr(s.message, '\n'));
    if (!status_is_ok(&s)) return 0;
    static const price_usage uses[] = {{0},
                                       {1000, 200, 0, 50},
                                       {1000, 200, 100, 50},
                                       {10, 20, 30, 40},
                                       {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX}};
    for (size_t i = 0; i < prices_count(p); i++)
        for (size_t k = 0; k < sizeof uses / sizeof *uses; k++) ask(p, prices_at(p, i), &uses[k]);
    prices_close(p);
    return 0;
}
