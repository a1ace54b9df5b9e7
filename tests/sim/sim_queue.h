// sim_queue: what is going to happen, by virtual time; what is put in first comes first.
#ifndef OCTANT_TESTS_SIM_QUEUE_H
#define OCTANT_TESTS_SIM_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum sim_kind {
    SIM_ASK,
    SIM_CANCEL,
    SIM_STALL,    // the coordinator stands still
    SIM_CALL,     // an upstream goes on with the call numbered `epoch`
    SIM_REGISTER, // this and the rest: about a place
    SIM_LOADED,
    SIM_BEAT,
    SIM_STEP, // the group works
    SIM_SAID, // what it says arrives, in order; `data` is a core_event from malloc
    SIM_FAULT,
} sim_kind;

typedef struct sim_item {
    int64_t at_ns;
    uint64_t order, epoch;
    sim_kind kind;
    int place;
    void *data;
} sim_item;

enum { SIM_QUEUE_MAX = 4096 };
typedef struct sim_queue {
    sim_item items[SIM_QUEUE_MAX];
    int count;
    uint64_t next_order;
} sim_queue;

void sim_queue_push(sim_queue *q, sim_item item);
const sim_item *sim_queue_first(const sim_queue *q); // NULL when empty
void sim_queue_pop(sim_queue *q);

#endif
