// load_meter: how much several threads have read together, and how long at least one of them was
// reading: what the disk was given time for.
#ifndef OCTANT_WORKER_LOAD_METER_H
#define OCTANT_WORKER_LOAD_METER_H

#include <pthread.h>
#include <stdint.h>

typedef struct load_meter {
    pthread_mutex_t lock;
    int reading; // threads
    int64_t since_ns, read_ns, bytes;
} load_meter;

void load_meter_open(load_meter *m);
void load_meter_close(load_meter *m);

// Around a read.
void load_meter_begin(load_meter *m);
void load_meter_end(load_meter *m, int64_t bytes);

int64_t load_meter_bytes(load_meter *m);
double load_meter_seconds(load_meter *m);

#endif
