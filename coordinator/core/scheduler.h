// scheduler: which rows the next step of a group computes.
//
// Each plan, within the budget of rows: first one row for every sequence that is sampling, so that
// no answer ever waits for a whole long prompt; then prompts that are being computed, oldest first,
// in chunks; then sequences that wait, as long as slots, blocks and rows last.
//
// Two plans are under way at most: the next is sent before the last result is in, its decode rows
// take "the token last sampled". What that costs: a sequence that ends at step n has a row in step
// n + 1 for nothing, and its result is dropped.
//
// When blocks run out, the sequence that arrived last loses its place, and computes again later
// what the prefix cache has not kept. The oldest never loses it, so something always gets done.
#ifndef OCTANT_COORDINATOR_CORE_SCHEDULER_H
#define OCTANT_COORDINATOR_CORE_SCHEDULER_H

#include "coordinator/core/state.h"

// Sends plans to every group that has room for one and something to do.
void scheduler_run(core *c);

// Takes the result of the oldest plan. What does not fit the plan is an error that names it: such a
// group cannot be trusted any more.
status scheduler_take_result(core *c, group *g, const step_result *result);

// Takes a sequence's place, to be continued elsewhere or later.
void scheduler_put_back(core *c, sequence *s);

#endif
