// progress: where the rank stands, written by the main thread, read by the heartbeat and the
// watchdog. Atomics only: nobody waits for anybody here.
#ifndef OCTANT_WORKER_PROGRESS_H
#define OCTANT_WORKER_PROGRESS_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/base/clock.h"
#include "proto/cluster_msg.h"

typedef struct progress {
    _Atomic int phase;           // cluster_phase
    _Atomic uint64_t step;       // last step entered
    _Atomic uint64_t collective; // collectives of steps entered so far, the same on all ranks
    _Atomic int64_t moved_ns;    // when phase, step or load last changed
    _Atomic float load;          // 0 to 1
} progress;

static inline void progress_enter(progress *p, cluster_phase phase) {
    atomic_store_explicit(&p->phase, (int)phase, memory_order_relaxed);
    atomic_store_explicit(&p->moved_ns, clock_now_ns(), memory_order_relaxed);
}

static inline void progress_step(progress *p, uint64_t step) {
    atomic_store_explicit(&p->step, step, memory_order_relaxed);
    progress_enter(p, CLUSTER_STEP);
}

// Enters the next collective of a step; progress_enter(CLUSTER_STEP) leaves it.
static inline void progress_collective(progress *p) {
    atomic_fetch_add_explicit(&p->collective, 1, memory_order_relaxed);
    progress_enter(p, CLUSTER_ALLREDUCE);
}

// Counts collectives of other ranks, which this one is not in.
static inline void progress_pass(progress *p, int collectives) {
    atomic_fetch_add_explicit(&p->collective, (uint64_t)collectives, memory_order_relaxed);
}

static inline void progress_load(progress *p, double fraction) {
    atomic_store_explicit(&p->load, (float)fraction, memory_order_relaxed);
    atomic_store_explicit(&p->moved_ns, clock_now_ns(), memory_order_relaxed);
}

static inline cluster_phase progress_phase(progress *p) {
    return (cluster_phase)atomic_load_explicit(&p->phase, memory_order_relaxed);
}

#endif
