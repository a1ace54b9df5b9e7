// failover: which requests leave for an upstream, when, to which, and what comes of it.
//
// Leaves, if its route allows it (never LOCAL_ONLY; one answer, no logprobs, upstreams listed):
//   - what no group of ours may serve, and what the router sent to the upstreams first;
//   - what waits while no group of its model is READY; nothing streamed: whole. In the middle of
//     an answer the route's mid-stream policy says: `replay` waits for a group, `continue` hands
//     the partial answer over (once), `restart` and `error` end with an error;
//   - what waited for its first place longer than spill_ns.
// While another group of the model is READY a lost group's requests go there, token by token.
//
// Rules for the whole way of a request:
//   - A call is committed when the client hears it: until then a failed one was never there, and
//     the next target is asked. After it, one switch at most, by `continue` alone, never for a tool
//     call; where the target takes no prefill, what it repeats of the partial answer is cut off
//     (overlap.h), and not said before that is clear. Under the other policies a broken answer of
//     an upstream ends with an error: no group can go on with words that are not its own tokens.
//   - An answer may wait for the target that is to go on with it, as any request may that is not
//     ours to serve: no_group_wait at most.
//   - No target twice, but for one that said "busy": it may be asked again when its time is over;
//     and for one that refused a prefill, which is asked by a user's turn.
//   - One deadline, one budget of attempts and one of money for all targets together; a call whose
//     price is not known uses the money up.
//   - A client's fault (4xx) ends the request unless another target or a group of ours may do.
//   - A target whose account was refused is not asked again before it has another key.
//   - Whatever is left when no target is: a group of ours serves it, or it ends UNAVAILABLE after
//     no_group_wait, with the last reason.
//
// Back: traffic that left because no group was READY returns when one has been READY for
// return_after_ns, so that a group that comes and goes does not make it flap. Requests that may
// not leave are served the moment there is a group.
#ifndef OCTANT_COORDINATOR_CORE_FAILOVER_H
#define OCTANT_COORDINATOR_CORE_FAILOVER_H

#include "coordinator/core/state.h"

bool failover_open(core *c); // false: no memory
void failover_close(core *c);

// The route lists upstreams, and nothing in the request stands against them.
bool failover_is_possible(const core *c, const core_request *asked);

// The request's only way is out: it waits for its first call.
void failover_enter(core *c, request *r);

// A sequence of the request begins to wait: whether it is to leave is looked at by the next run.
void failover_note(core *c, request *r);
// None waits any more.
void failover_forget(core *c, request *r);

// Lets go what is to go now. After every event, before plans are made. What it costs depends on
// what has changed, not on how many wait: who wants to leave stands at the doors of its targets,
// and only the first there is looked at; the others of a model when its groups come or go.
void failover_run(core *c);
int64_t failover_next(const core *c);

void failover_content(core *c, const core_event *e);
void failover_end(core *c, const core_event *e);
// An upstream whose account was refused has another key: it may be called again.
void failover_renew(core *c, int upstream);

// The request ends: nobody wants its call's answer any more.
void failover_let_go(core *c, request *r);

#endif
