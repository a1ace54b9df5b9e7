// lane: the queue of one model. Two kinds wait: sequences that ran before and lost their place
// (preempted, or their group died), by arrival, which go first; and new ones, by fairness.
#ifndef OCTANT_COORDINATOR_CORE_LANE_H
#define OCTANT_COORDINATOR_CORE_LANE_H

#include "coordinator/core/state.h"

lane *lane_find(const core *c, const char *model); // NULL: never heard of
lane *lane_open(core *c, const char *model);       // finds or makes; NULL when memory is short
void lane_free(lane *l);

// A sequence begins to wait: HELD to WAITING, behind or before its client's others.
void lane_push(core *c, lane *l, sequence *s, bool front);
// It ran (detached before) or was away, and waits again.
void lane_put_back(core *c, lane *l, sequence *s);
// It is not to wait any more; no-op when it does not.
void lane_remove(core *c, lane *l, sequence *s);

// Whose turn it is; NULL when nobody waits. Stays in the queue.
sequence *lane_first(const lane *l);

// Answer 0 has computed the prompt, or is gone: the other answers may wait for their slots.
void lane_release_held(core *c, request *r);

int lane_waiting(const lane *l);

// Groups of the lane in a state.
int lane_groups(const core *c, const lane *l, group_state state);
// It is given new sequences: it is READY and no spare, or a spare and none of the others is READY.
bool lane_feeds(const core *c, const group *g);

// Somebody serves or will serve: a READY, STARTING or DRAINING group.
bool lane_has_hope(const core *c, const lane *l);

// What a request hears that found no group in `waited_ns`.
status lane_no_group(const lane *l, const request *r, int64_t waited_ns);

// Ends the requests that waited too long without a group.
void lane_expire(core *c, lane *l);
// When it has something to do next; INT64_MAX: nobody waits, or for a group that is there.
int64_t lane_expires(const core *c, const lane *l);
// Ends all requests that wait.
void lane_clear(core *c, lane *l, status why);

#endif
