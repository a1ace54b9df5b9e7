// rank: the life of one process of a worker group: open the model, agree with the other ranks,
// register, load, run steps, end.
#ifndef OCTANT_WORKER_RANK_H
#define OCTANT_WORKER_RANK_H

#include "common/base/status.h"
#include "worker/comm.h"
#include "worker/options.h"

// Returns when the group has ended. OK: it was told to, in order. An error has been logged, once
// per group where all ranks know it. *together: all ranks return, so that MPI can be left in order;
// else the others may stand in a collective and must be aborted.
status rank_run(const options *o, comm *c, bool *together);

#endif
