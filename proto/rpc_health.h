// rpc_health: grpc.health.v1 for load balancers and probes. One state for all services of the
// server, asked of a callback: a service serves when a request would be answered now.
#ifndef OCTANT_PROTO_RPC_HEALTH_H
#define OCTANT_PROTO_RPC_HEALTH_H

#include <stdbool.h>

#include "proto/rpc_server.h"

typedef struct rpc_health rpc_health;

enum { RPC_HEALTH_NAMES_MAX = 16, RPC_HEALTH_POLL_MS = 250 };

// `names` are the services that may be asked for besides "" (the server as a whole); they outlive
// this. `serving` is called from the server's threads and, for those who watch, every
// RPC_HEALTH_POLL_MS from a thread of its own; it must not block. NULL when memory is short.
rpc_health *rpc_health_create(const char *const *names, int count, bool (*serving)(void *owner),
                              void *owner);
const rpc_service *rpc_health_service(const rpc_health *h);

// The server has stopped before. NULL is allowed.
void rpc_health_destroy(rpc_health *h);

#endif
