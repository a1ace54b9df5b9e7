// upstream_limits: how many calls an upstream gets, by the operator's limits and by what the API
// itself has asked for (retry-after). Requests and tokens of a minute are buckets that fill evenly,
// so a burst of a whole minute's worth is possible once. When an API was busy and its time is over,
// one call goes first, and the others when it is answered: not all that waited at once. Pure: times
// are arguments.
#ifndef OCTANT_COORDINATOR_CORE_UPSTREAM_LIMITS_H
#define OCTANT_COORDINATOR_CORE_UPSTREAM_LIMITS_H

#include "coordinator/core/upstream_call.h"

typedef struct upstream_limits {
    int open;                    // calls under way, with those that are only drained
    double requests, tokens;     // left in the buckets; tokens may be below zero: an estimate
                                 // was too low, the next call waits for it
    int64_t filled_ns, retry_ns; // retry_ns: not before
    int busy_in_a_row;           // since the last answer
    bool trying;                 // busy lately: the first call after it is out
} upstream_limits;

upstream_limits upstream_limits_make(const upstream_policy *p, int64_t now_ns);

// When a call may begin; now_ns: now; INT64_MAX: when another one is answered or ends.
int64_t upstream_limits_open_at(upstream_limits *l, const upstream_policy *p, int64_t now_ns);

// `estimate`: tokens in and out that the call is thought to need.
void upstream_limits_began(upstream_limits *l, const upstream_policy *p, int32_t estimate);
// Its first content came.
void upstream_limits_answered(upstream_limits *l);
void upstream_limits_ended(upstream_limits *l, const upstream_policy *p, int32_t estimate,
                           const upstream_end *end, int64_t now_ns);

#endif
