#include "coordinator/core/fairness.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 256 };

struct fair_client {
    fair_client *peer;        // of the same bucket
    fair_client *prev, *next; // of the list it is in: waiting, or idle (longest first)
    fair_item *first, *last;
    int64_t counter;
    int holds;
    uint32_t hash;
    char name[];
};

typedef struct client_list {
    fair_client *first, *last;
    int count;
} client_list;

// A client is in `waiting` while items wait for it, in `idle` while nothing lives for it, and in
// neither while it is only served.
struct fairness {
    fair_client *buckets[BUCKETS];
    client_list waiting, idle;
    int64_t floor; // the lowest counter of a client with waiting items, as last seen; never falls
    int items;
};

fairness *fairness_create(void) {
    return calloc(1, sizeof(fairness));
}

void fairness_destroy(fairness *f) {
    if (!f) return;
    for (int i = 0; i < BUCKETS; i++)
        for (fair_client *c = f->buckets[i], *next; c; c = next) {
            next = c->peer;
            free(c);
        }
    free(f);
}

static void list_append(client_list *list, fair_client *c) {
    c->prev = list->last;
    c->next = NULL;
    if (list->last)
        list->last->next = c;
    else
        list->first = c;
    list->last = c;
    list->count++;
}

static void list_remove(client_list *list, fair_client *c) {
    if (c->prev)
        c->prev->next = c->next;
    else
        list->first = c->next;
    if (c->next)
        c->next->prev = c->prev;
    else
        list->last = c->prev;
    list->count--;
}

static uint32_t hash_of(const char *name) { // FNV-1a
    uint32_t h = 2166136261u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

static void forget(fairness *f, fair_client *c) {
    list_remove(&f->idle, c);
    fair_client **link = &f->buckets[c->hash % BUCKETS];
    while (*link != c) link = &(*link)->peer;
    *link = c->peer;
    free(c);
}

fair_client *fairness_enter(fairness *f, const char *name) {
    uint32_t hash = hash_of(name);
    fair_client *c = f->buckets[hash % BUCKETS];
    while (c && (c->hash != hash || strcmp(c->name, name) != 0)) c = c->peer;
    if (!c) {
        size_t size = strlen(name) + 1;
        c = calloc(1, sizeof *c + size);
        if (!c) return NULL;
        memcpy(c->name, name, size);
        c->hash = hash;
        c->peer = f->buckets[hash % BUCKETS];
        f->buckets[hash % BUCKETS] = c;
    } else if (c->holds == 0) {
        list_remove(&f->idle, c);
    }
    c->holds++;
    return c;
}

void fairness_leave(fairness *f, fair_client *c) {
    assert(c->holds > 0);
    if (--c->holds > 0) return;
    assert(!c->first);
    list_append(&f->idle, c);
    if (f->idle.count > FAIRNESS_IDLE_MAX) forget(f, f->idle.first);
}

static void raise_floor(fairness *f) {
    const fair_client *c = f->waiting.first;
    if (!c) return;
    int64_t least = c->counter;
    for (; c; c = c->next)
        if (c->counter < least) least = c->counter;
    if (least > f->floor) f->floor = least;
}

void fairness_push(fairness *f, fair_client *c, fair_item *item, bool front) {
    assert(!item->client && c->holds > 0);
    if (!c->first) {
        raise_floor(f);
        if (c->counter < f->floor) c->counter = f->floor;
        list_append(&f->waiting, c);
    }
    item->client = c;
    item->prev = front ? NULL : c->last;
    item->next = front ? c->first : NULL;
    if (item->prev)
        item->prev->next = item;
    else
        c->first = item;
    if (item->next)
        item->next->prev = item;
    else
        c->last = item;
    f->items++;
}

void fairness_remove(fairness *f, fair_item *item) {
    fair_client *c = item->client;
    if (!c) return;
    if (item->prev)
        item->prev->next = item->next;
    else
        c->first = item->next;
    if (item->next)
        item->next->prev = item->prev;
    else
        c->last = item->prev;
    *item = (fair_item){0};
    f->items--;
    if (c->first) return;
    if (f->waiting.count == 1 && c->counter > f->floor) f->floor = c->counter;
    list_remove(&f->waiting, c);
}

fair_item *fairness_first(const fairness *f) {
    const fair_client *best = NULL;
    for (const fair_client *c = f->waiting.first; c; c = c->next)
        if (!best || c->counter < best->counter) best = c;
    return best ? best->first : NULL;
}

void fairness_charge(fair_client *c, int64_t tokens, int weight) {
    c->counter += tokens * weight;
}

int fairness_waiting(const fairness *f) {
    return f->items;
}

fair_item *fairness_each(const fairness *f, const fair_item *after) {
    if (!after) return f->waiting.first ? f->waiting.first->first : NULL;
    if (after->next) return after->next;
    const fair_client *c = after->client->next;
    return c ? c->first : NULL;
}
