// outcalls: the calls of upstreams that are under way: their beginning, what they bring on its way
// to the client, and their one end for the breaker, the limits and the books.
#ifndef OCTANT_COORDINATOR_CORE_OUTCALLS_H
#define OCTANT_COORDINATOR_CORE_OUTCALLS_H

#include "coordinator/core/state.h"

// Calls an upstream for a request that is AWAY. Aborts the process rather than let a local-only
// request out.
void outcall_begin(core *c, request *r, int upstream, upstream_mode mode, bool failover);

outcall *outcall_find(const core *c, uint64_t id); // NULL: over

// Content of a wanted call: to the client, but for what a USER_TURN repeats, and up to a stop text:
// then call->stopped is set, and the answer is complete.
void outcall_take(core *c, outcall *call, const upstream_content *content);
// It ended well: what was held back is said, unless it is a repetition (overlap.h). Of a call that
// failed it is not: nobody has heard it, so another target may begin where this one did.
void outcall_flush(core *c, outcall *call, answer_finish finish);

// Nobody wants the answer any more; the call lives on until its end.
void outcall_cancel(core *c, outcall *call);

// The end: CORE_CALL_DONE, breaker, limits. Frees the call.
void outcall_finish(core *c, outcall *call, const upstream_end *end);

void outcalls_free(core *c);

#endif
