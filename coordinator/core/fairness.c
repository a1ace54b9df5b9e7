#include "coordinator/core/fairness.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

struct fair_client {
    fairness *of;
    fair_client *peer;        // of the same bucket
    fair_client *prev, *next; // of the idle, longest first
    fair_item *first, *last;
    int64_t counter;
    uint64_t turn; // of those with the same counter, who began to wait first
    int at;        // in the heap, while items wait
    int holds;
    uint32_t hash;
    char name[];
};

typedef struct client_list {
    fair_client *first, *last;
    int count;
} client_list;

// A client is in `heap` while items wait for it, in `idle` while nothing lives for it, and in
// neither while it is only served.
struct fairness {
    fair_client *buckets[BUCKETS];
    client_list idle;
    fair_client **heap; // (room): for all that are not idle
    int waiting, room, busy;
    uint64_t next_turn;
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
    free(f->heap);
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

// ---- the heap

static bool is_before(const fair_client *a, const fair_client *b) {
    return a->counter != b->counter ? a->counter < b->counter : a->turn < b->turn;
}

static void put(fairness *f, int at, fair_client *c) {
    f->heap[at] = c;
    c->at = at;
}

static void rise(fairness *f, fair_client *c) {
    int at = c->at;
    for (; at > 0 && is_before(c, f->heap[(at - 1) / 2]); at = (at - 1) / 2)
        put(f, at, f->heap[(at - 1) / 2]);
    put(f, at, c);
}

static void sink_down(fairness *f, fair_client *c) {
    int at = c->at;
    for (int child; (child = 2 * at + 1) < f->waiting; at = child) {
        if (child + 1 < f->waiting && is_before(f->heap[child + 1], f->heap[child])) child++;
        if (!is_before(f->heap[child], c)) break;
        put(f, at, f->heap[child]);
    }
    put(f, at, c);
}

static void heap_add(fairness *f, fair_client *c) {
    assert(f->waiting < f->room);
    c->turn = f->next_turn++;
    c->at = f->waiting++;
    rise(f, c);
}

static void heap_remove(fairness *f, fair_client *c) {
    fair_client *last = f->heap[--f->waiting];
    if (last == c) return;
    last->at = c->at;
    rise(f, last);
    sink_down(f, last);
}

static bool has_room(fairness *f) {
    if (f->busy < f->room) return true;
    int room = f->room ? 2 * f->room : 64;
    fair_client **grown = realloc(f->heap, (size_t)room * sizeof(fair_client *));
    if (!grown) return false;
    f->heap = grown;
    f->room = room;
    return true;
}

// ---- clients

fair_client *fairness_enter(fairness *f, const char *name) {
    if (!has_room(f)) return NULL;
    uint32_t hash = hash_of(name);
    fair_client *c = f->buckets[hash % BUCKETS];
    while (c && (c->hash != hash || strcmp(c->name, name) != 0)) c = c->peer;
    if (!c) {
        size_t size = strlen(name) + 1;
        c = calloc(1, sizeof *c + size);
        if (!c) return NULL;
        memcpy(c->name, name, size);
        c->hash = hash;
        c->of = f;
        c->peer = f->buckets[hash % BUCKETS];
        f->buckets[hash % BUCKETS] = c;
    } else if (c->holds == 0) {
        list_remove(&f->idle, c);
    }
    f->busy += c->holds == 0;
    c->holds++;
    return c;
}

void fairness_leave(fairness *f, fair_client *c) {
    assert(c->holds > 0);
    if (--c->holds > 0) return;
    assert(!c->first);
    f->busy--;
    list_append(&f->idle, c);
    if (f->idle.count > FAIRNESS_IDLE_MAX) forget(f, f->idle.first);
}

void fairness_push(fairness *f, fair_client *c, fair_item *item, bool front) {
    assert(!item->client && c->holds > 0);
    if (!c->first) {
        if (f->waiting > 0 && f->heap[0]->counter > f->floor) f->floor = f->heap[0]->counter;
        if (c->counter < f->floor) c->counter = f->floor;
        heap_add(f, c);
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
    if (f->waiting == 1 && c->counter > f->floor) f->floor = c->counter;
    heap_remove(f, c);
}

fair_item *fairness_first(const fairness *f) {
    return f->waiting ? f->heap[0]->first : NULL;
}

void fairness_charge(fair_client *c, int64_t tokens, int weight) {
    c->counter += tokens * weight;
    if (c->first) sink_down(c->of, c);
}

int fairness_waiting(const fairness *f) {
    return f->items;
}
