// planner: a step plan while it is being put together: the message and the core's own record of it.
#ifndef OCTANT_COORDINATOR_CORE_PLANNER_H
#define OCTANT_COORDINATOR_CORE_PLANNER_H

#include "coordinator/core/state.h"

typedef struct planner {
    core *core;
    group *group;
    int wave;
    step_plan plan;
    plan_record *record;
    int budget; // rows left
} planner;

// For a wave that has fewer than CORE_PIPELINE plans under way.
void planner_begin(planner *p, core *c, group *g, int wave);
void planner_drop(planner *p); // nothing was put in

// Opens the sequence's slot.
void planner_open(planner *p, const sequence *s);

// Rows [planned, planned + rows) of a sequence: known tokens, or one row of the token last sampled.
// Its blocks are there.
void planner_rows(planner *p, sequence *s, int rows, bool sample);

// Puts the plan under way: CORE_SEND_PLAN.
void planner_send(planner *p);

#endif
