// departure: what is done before a call's first byte may leave: its body and headers are written,
// and its audit row is put on disk. On a few threads of its own, because a disk may take its time
// and streams under way must not stand still for it; rows that are written at the same time share a
// commit. A disk that does not answer ends the calls that wait for it (usage_port.leave is bounded)
// and no others.
#ifndef OCTANT_COORDINATOR_UPSTREAM_DEPARTURE_H
#define OCTANT_COORDINATOR_UPSTREAM_DEPARTURE_H

#include "coordinator/upstream/keys.h"
#include "coordinator/upstream/transfer.h"

enum { DEPARTURE_THREADS = 4 };

typedef struct departures departures;

// `ready(owner, t)` gets each transfer back, on one of the threads: departed, or ended.
status departures_create(upstream_keys *keys, void *owner, void (*ready)(void *owner, transfer *t),
                         departures **out);
void departures_add(departures *d, transfer *t); // never waits

// Nothing is added any more. Those that wait are cancelled by the caller first, so that they come
// back at once. Joins the threads. NULL is allowed.
void departures_destroy(departures *d);

#endif
