// leaving: the part of generate_prepare that asks where a request may go: it collects the facts,
// lets the router decide, and writes the copy of the conversation that an upstream may get.
#ifndef OCTANT_COORDINATOR_INGRESS_LEAVING_H
#define OCTANT_COORDINATOR_INGRESS_LEAVING_H

#include "coordinator/core/route.h"
#include "coordinator/ingress/prepare.h"

typedef struct leaving_who {
    const char *key;    // the key's name; "": no keys are in use
    const char *client; // as the books know it
    uint64_t id;        // of the request
} leaving_who;

// Finds the model (*model is held; NULL: it is not ours, and the route leads out) and decides.
// out->rule lives in r->memory; out->prompt is not set. False: *why says what to tell the client,
// and *model is NULL.
bool leaving_decide(const ingress *in, const generate_request *r, const leaving_who *who,
                    served_model **model, core_route *out, refusal *why);

// The conversation as the route lets it leave, in `memory`. NULL: it cannot be made, or memory is
// short: then it must not leave.
struct upstream_prompt *leaving_prompt(const ingress *in, const generate_request *r,
                                       const core_route *route, arena *memory);

#endif
