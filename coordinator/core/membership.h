// membership: which groups there are, and whether they live.
//
//   STARTING   registered, loading        -> READY when the leader says so
//   READY      serves                     -> DRAINING when asked to
//   DRAINING   takes nothing new          -> gone when empty, or at its deadline
//   LOST       from any of these: its stream closed, a rank fell silent, a step is overdue, a rank
//              said that it cannot go on, or an answer made no sense. Then gone.
//
// A lost group's sequences are put back: prompt and tokens so far go to another group of the model,
// or wait for one.
#ifndef OCTANT_COORDINATOR_CORE_MEMBERSHIP_H
#define OCTANT_COORDINATOR_CORE_MEMBERSHIP_H

#include "coordinator/core/state.h"

void membership_register(core *c, const core_event *e);
void membership_ready(core *c, group *g, const group_ready *ready);
void membership_failed(core *c, group *g, const group_failed *failed);
void membership_closed(core *c, group *g, const char *reason);
void membership_heartbeat(core *c, group *g, const heartbeat *h);
void membership_drain(core *c, const core_event *e);

// The group is LOST: its sequences are put back, the edge is told to close it. `g` is freed.
// `rank`: whose fault it is, -1: not known.
void membership_lose(core *c, group *g, loss_reason loss, int rank, const char *reason);

// Tells the event log, Watch and metrics; `rank` -1: none is named.
void membership_notice(core *c, const group *g, core_notice_kind kind, loss_reason loss, int rank,
                       const char *text);

// What time brings: silent ranks, overdue steps, drains that are over. Also call after events.
void membership_tick(core *c);

// When membership_tick has something to do next.
int64_t membership_next(const core *c);

// The coordinator itself stood still: what was said meanwhile is not yet heard, so all clocks that
// tell silence from life begin anew.
void membership_forgive(core *c);

#endif
