#include "coordinator/ledger/spending.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 2 * SPENDING_KEYS_MAX }; // a power of two, half empty
_Static_assert((SLOTS & (SLOTS - 1)) == 0, "slots are found by a mask");

typedef struct spender {
    char *key; // NULL: free
    int64_t spent, under_way;
} spender;

typedef struct pending {
    struct pending *next;
    spender *who;
    int64_t nano;
    char *request_id, *upstream;
} pending;

struct spending {
    int64_t day;
    int keys;
    spender others, all;
    pending *calls;
    spender slots[SLOTS];
};

spending *spending_create(void) {
    return calloc(1, sizeof(spending));
}

static void free_call(pending *p) {
    free(p->request_id);
    free(p->upstream);
    free(p);
}

void spending_destroy(spending *s) {
    if (!s) return;
    while (s->calls) {
        pending *next = s->calls->next;
        free_call(s->calls);
        s->calls = next;
    }
    for (int i = 0; i < SLOTS; i++) free(s->slots[i].key);
    free(s);
}

// A new day: sums begin again, what is under way goes on.
static void turn(spending *s, int64_t day) {
    if (day <= s->day) return;
    s->day = day;
    s->others.spent = s->all.spent = 0;
    for (int i = 0; i < SLOTS; i++) s->slots[i].spent = 0;
}

static uint64_t hash(const char *key) { // FNV-1a
    uint64_t h = UINT64_C(14695981039346656037);
    for (; *key; key++) h = (h ^ (unsigned char)*key) * UINT64_C(1099511628211);
    return h;
}

static spender *find(spending *s, const char *key, bool make) {
    size_t i = hash(key) & (SLOTS - 1);
    while (s->slots[i].key && strcmp(s->slots[i].key, key) != 0) i = (i + 1) & (SLOTS - 1);
    if (s->slots[i].key) return &s->slots[i];
    if (!make) return s->keys == SPENDING_KEYS_MAX ? &s->others : NULL;
    if (s->keys == SPENDING_KEYS_MAX || !(s->slots[i].key = strdup(key))) return &s->others;
    s->keys++;
    return &s->slots[i];
}

bool spending_begin(spending *s, int64_t day, const char *key, const char *request_id,
                    const char *upstream, int64_t nano) {
    turn(s, day);
    pending *p = calloc(1, sizeof *p);
    if (!p) return false;
    *p = (pending){s->calls, find(s, key, true), nano, strdup(request_id), strdup(upstream)};
    if (!p->request_id || !p->upstream) {
        free_call(p);
        return false;
    }
    p->who->under_way += nano;
    s->all.under_way += nano;
    s->calls = p;
    return true;
}

void spending_end(spending *s, int64_t day, const char *key, const char *request_id,
                  const char *upstream, int64_t nano) {
    turn(s, day);
    for (pending **p = &s->calls; *p; p = &(*p)->next) {
        if (strcmp((*p)->request_id, request_id) != 0 || strcmp((*p)->upstream, upstream) != 0)
            continue;
        pending *over = *p;
        over->who->under_way -= over->nano;
        s->all.under_way -= over->nano;
        *p = over->next;
        free_call(over);
        break;
    }
    if (nano <= 0) return;
    find(s, key, true)->spent += nano;
    s->all.spent += nano;
}

int64_t spending_today(spending *s, int64_t day, const char *key) {
    turn(s, day);
    const spender *who = key ? find(s, key, false) : &s->all;
    return who ? who->spent + who->under_way : 0;
}
