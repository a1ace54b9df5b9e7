// pool: the threads of one rank. One fork-join per operator: pool_run hands out tasks 0..tasks-1 to
// whoever is free, the caller among them, and returns when all are done. Which thread runs a task
// is left to chance, so a task's result may not depend on it.
//
// Waiting threads spin for some microseconds (the next operator is usually that near), then sleep
// in the kernel; a rank that waits for others burns no core. A thread that is late costs nothing:
// the others take its tasks.
#ifndef OCTANT_KERNELS_CPU_POOL_H
#define OCTANT_KERNELS_CPU_POOL_H

#include "common/base/status.h"

enum { POOL_THREADS_MAX = 256 };

typedef struct pool pool;

// `thread` is 0 for the caller of pool_run, up to threads - 1: an index for scratch memory.
typedef void pool_task(void *context, int task, int thread);

// `threads` >= 1 counts the caller. first_core as in kernels_create_cpu; the caller is pinned too.
// RESOURCE_EXHAUSTED when threads cannot be made, INVALID_ARGUMENT for a count out of range.
status pool_create(int threads, int first_core, pool **out);
void pool_destroy(pool *p); // NULL is allowed

int pool_threads(const pool *p);

// Only one thread may call this at a time (the one that made the pool).
void pool_run(pool *p, int tasks, pool_task *run, void *context);

#endif
