#include "coordinator/core/deadlines.h"

#include <assert.h>
#include <stdlib.h>

static int64_t key(const deadlines *d, int i) {
    const request *r = d->items[i];
    return d->of_spill ? r->arrived_ns + r->asked->route.spill_ns : r->asked->deadline_ns;
}

static int *index_of(const deadlines *d, request *r) {
    return d->of_spill ? &r->spill_index : &r->deadline_index;
}

static void put(deadlines *d, int i, request *r) {
    d->items[i] = r;
    *index_of(d, r) = i;
}

static void swap(deadlines *d, int i, int j) {
    request *r = d->items[i];
    put(d, i, d->items[j]);
    put(d, j, r);
}

static void rise(deadlines *d, int i) {
    for (; i > 0 && key(d, i) < key(d, (i - 1) / 2); i = (i - 1) / 2) swap(d, i, (i - 1) / 2);
}

static void sink_down(deadlines *d, int i) {
    for (;;) {
        int least = i;
        for (int child = 2 * i + 1; child <= 2 * i + 2; child++)
            if (child < d->count && key(d, child) < key(d, least)) least = child;
        if (least == i) return;
        swap(d, i, least);
        i = least;
    }
}

bool deadlines_add(deadlines *d, request *r) {
    if (d->count == d->room) {
        int room = d->room ? 2 * d->room : 256;
        request **grown = realloc(d->items, (size_t)room * sizeof *grown);
        if (!grown) return false;
        d->items = grown;
        d->room = room;
    }
    put(d, d->count, r);
    rise(d, d->count++);
    return true;
}

void deadlines_remove(deadlines *d, request *r) {
    int i = *index_of(d, r);
    assert(i >= 0 && i < d->count && d->items[i] == r);
    *index_of(d, r) = -1;
    request *last = d->items[--d->count];
    if (last == r) return;
    put(d, i, last);
    rise(d, i);
    sink_down(d, *index_of(d, last));
}

request *deadlines_first(const deadlines *d) {
    return d->count ? d->items[0] : NULL;
}

int64_t deadlines_next(const deadlines *d) {
    return d->count ? key(d, 0) : INT64_MAX;
}

void deadlines_free(deadlines *d) {
    free(d->items);
    *d = (deadlines){.of_spill = d->of_spill};
}
