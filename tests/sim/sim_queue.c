#include "tests/sim/sim_queue.h"

#include "tests/sim/sim_check.h"

static bool before(const sim_item *a, const sim_item *b) {
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void sim_queue_push(sim_queue *q, sim_item item) {
    SIM_CHECK(q->count < SIM_QUEUE_MAX, "the simulator's queue is full");
    item.order = q->next_order++;
    int i = q->count++;
    for (; i > 0 && before(&item, &q->items[(i - 1) / 2]); i = (i - 1) / 2)
        q->items[i] = q->items[(i - 1) / 2];
    q->items[i] = item;
}

const sim_item *sim_queue_first(const sim_queue *q) {
    return q->count ? &q->items[0] : NULL;
}

void sim_queue_pop(sim_queue *q) {
    sim_item last = q->items[--q->count];
    int i = 0;
    for (;;) {
        int least = 2 * i + 1;
        if (least >= q->count) break;
        if (least + 1 < q->count && before(&q->items[least + 1], &q->items[least])) least++;
        if (!before(&q->items[least], &last)) break;
        q->items[i] = q->items[least];
        i = least;
    }
    q->items[i] = last;
}
