// route_request: from the body of a chat request, as a client would send it, to what the router
// must know of it. The coordinator's ingress does the same with more checks; here a body that it
// would refuse may pass.
#ifndef OCTANT_CLIENT_ROUTE_REQUEST_H
#define OCTANT_CLIENT_ROUTE_REQUEST_H

#include <jansson.h>

#include "common/base/arena.h"
#include "common/base/status.h"
#include "coordinator/route/router.h"

// Fills model, what is wanted, sizes, findings and complexity. INVALID_ARGUMENT says what is no
// request. Texts live as long as `body` and `memory`.
status route_request_read(json_t *body, const routing_policy *p, arena *memory, route_facts *out,
                          complexity_score *score);

#endif
