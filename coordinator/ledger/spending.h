// spending: what each key has spent at upstreams today (UTC), for the ceilings of the router. Calls
// under way count by an estimate, so that a burst cannot pass a ceiling before its first bill is
// in. Not thread-safe: the ledger's lock guards it.
#ifndef OCTANT_COORDINATOR_LEDGER_SPENDING_H
#define OCTANT_COORDINATOR_LEDGER_SPENDING_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SPENDING_KEYS_MAX = 16384, // keys are the operator's, but "client" names are anybody's: beyond,
                               // new ones share one sum, which can only be too high
};

typedef struct spending spending;
spending *spending_create(void); // NULL when memory is short
void spending_destroy(spending *s);

// A call is about to be made, for about `nano`. False: memory is short, nothing is counted.
bool spending_begin(spending *s, int64_t day, const char *key, const char *request_id,
                    const char *upstream, int64_t nano);
// It ended and cost `nano`; also one that never began here.
void spending_end(spending *s, int64_t day, const char *key, const char *request_id,
                  const char *upstream, int64_t nano);
// Nanodollars of a key; of all when key is NULL.
int64_t spending_today(spending *s, int64_t day, const char *key);

#endif
