// deadlines: every live request in a binary heap by its deadline, so that the next one is known at
// once however many wait; and in another, by that time, those which may leave for having waited.
#ifndef OCTANT_COORDINATOR_CORE_DEADLINES_H
#define OCTANT_COORDINATOR_CORE_DEADLINES_H

#include "coordinator/core/state.h"

bool deadlines_add(deadlines *d, request *r); // false when memory is short
void deadlines_remove(deadlines *d, request *r);
request *deadlines_first(const deadlines *d); // NULL when empty
int64_t deadlines_next(const deadlines *d);   // its time; INT64_MAX when empty
void deadlines_free(deadlines *d);

#endif
