// breaker: whether an upstream may be called, from how its last calls ended.
//
//   CLOSED     calls go through; opens when enough of the last calls were faults
//   OPEN       no calls, for open_ns
//   HALF_OPEN  one call at a time, as a probe: good closes it, a fault opens it again
//
// Three outcomes, not two: faults count against, good answers count for, and everything else
// (back-pressure, a client's own 4xx, an account's refusal, a cancelled call) counts for nothing,
// neither opening it nor closing it. Pure: times are arguments.
#ifndef OCTANT_COORDINATOR_CORE_BREAKER_H
#define OCTANT_COORDINATOR_CORE_BREAKER_H

#include "coordinator/core/core.h"

enum { BREAKER_WINDOW_MAX = 64 };

typedef struct breaker {
    breaker_state state;
    uint64_t faults;   // of the last calls, newest in bit 0
    int seen;          // of them, at most the window
    int64_t opened_ns; // OPEN: since when
    uint64_t probe;    // HALF_OPEN: the call that is out; 0: none
} breaker;

// OPEN becomes HALF_OPEN when its time is over. True: a call may begin now.
bool breaker_allows(breaker *b, const upstream_policy *p, int64_t now_ns);

// When breaker_allows may say yes; now_ns when it does, INT64_MAX while a probe is out.
int64_t breaker_opens_at(const breaker *b, const upstream_policy *p, int64_t now_ns);

void breaker_began(breaker *b, uint64_t call);

// True: the state changed (to CLOSED or OPEN).
bool breaker_ended(breaker *b, const upstream_policy *p, uint64_t call, upstream_outcome outcome,
                   int64_t now_ns);

#endif
