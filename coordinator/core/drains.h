// drains: who waits for a group, or for everything, to be empty.
#ifndef OCTANT_COORDINATOR_CORE_DRAINS_H
#define OCTANT_COORDINATOR_CORE_DRAINS_H

#include "coordinator/core/state.h"

// Answers the drains that are complete or out of time.
void drains_tick(core *c);
int64_t drains_next(const core *c);

#endif
