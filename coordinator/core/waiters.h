// waiters: lists of requests that wait for the same thing. A request may stand in several at once,
// by a node of its own in each.
#ifndef OCTANT_COORDINATOR_CORE_WAITERS_H
#define OCTANT_COORDINATOR_CORE_WAITERS_H

#include <stdbool.h>

typedef struct waiter {
    struct waiter *prev, *next;
    struct request *request; // NULL: in no list
} waiter;

typedef struct waiters {
    waiter *first, *last;
    int count;
} waiters;

void waiters_append(waiters *list, waiter *w, struct request *r);
// By arrival of the requests; looked for from both ends, as who comes is among the latest or, back
// from somewhere, among the oldest.
void waiters_insert(waiters *list, waiter *w, struct request *r);
void waiters_remove(waiters *list, waiter *w); // no-op when it is in no list

#endif
