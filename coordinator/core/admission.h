// admission: what is accepted, and what is refused at the door, with numbers.
#ifndef OCTANT_COORDINATOR_CORE_ADMISSION_H
#define OCTANT_COORDINATOR_CORE_ADMISSION_H

#include "coordinator/core/state.h"

// Takes the request: into its lane's queue, or back to the edge with its end.
void admission_take(core *c, core_request *asked);

#endif
