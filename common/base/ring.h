// ring: a bounded queue of fixed-size items between threads; any number of producers and consumers.
// Bounded and with deadlines, because an unbounded queue only moves the failure to where nobody looks.
#ifndef OCTANT_BASE_RING_H
#define OCTANT_BASE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ring ring;

// NULL when memory is short.
ring *ring_create(size_t item_size, size_t capacity);

// The caller drains first whatever the items own; no thread may be inside a call.
void ring_destroy(ring *r); // NULL is allowed

// Copies *item in; false at once when the ring is full or closed.
bool ring_try_push(ring *r, const void *item);

// Waits for room until deadline_ns (clock_now_ns); false when it passed or the ring was closed.
bool ring_push(ring *r, const void *item, int64_t deadline_ns);

// Copies the oldest item out. Waits until deadline_ns; 0 does not wait. False: none came, or the ring is
// closed and empty.
bool ring_pop(ring *r, void *item, int64_t deadline_ns);

// No more pushes; waiting threads wake. What is inside can still be popped.
void ring_close(ring *r);
bool ring_is_closed(ring *r);

size_t ring_count(ring *r);

#endif
