#include "coordinator/core/waiters.h"

#include <assert.h>
#include <stddef.h>

#include "coordinator/core/state.h"

static void link_after(waiters *list, waiter *after, waiter *w, request *r) {
    assert(!w->request);
    *w = (waiter){.prev = after, .next = after ? after->next : list->first, .request = r};
    if (w->prev)
        w->prev->next = w;
    else
        list->first = w;
    if (w->next)
        w->next->prev = w;
    else
        list->last = w;
    list->count++;
}

void waiters_append(waiters *list, waiter *w, request *r) {
    link_after(list, list->last, w, r);
}

void waiters_insert(waiters *list, waiter *w, request *r) {
    waiter *back = list->last, *front = list->first;
    while (back && back->request->order > r->order && front->request->order < r->order) {
        back = back->prev;
        front = front->next;
    }
    bool at_back = !back || back->request->order < r->order;
    link_after(list, at_back ? back : front->prev, w, r);
}

void waiters_remove(waiters *list, waiter *w) {
    if (!w->request) return;
    if (w->prev)
        w->prev->next = w->next;
    else
        list->first = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        list->last = w->prev;
    *w = (waiter){0};
    list->count--;
}
