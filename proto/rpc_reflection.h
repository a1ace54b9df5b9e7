// rpc_reflection: gRPC server reflection (v1, and v1alpha for older tools), so that grpcurl and the
// like can list and call what is served without having the .proto files.
#ifndef OCTANT_PROTO_RPC_REFLECTION_H
#define OCTANT_PROTO_RPC_REFLECTION_H

#include "proto/rpc_server.h"

typedef struct rpc_reflection rpc_reflection;

// Lists `services`, the very array that rpc_server_create gets: it is read when somebody asks, so
// the two services below may be put into it afterwards. NULL when memory is short.
rpc_reflection *rpc_reflection_create(const rpc_service *const *services, int count);

const rpc_service *rpc_reflection_v1(const rpc_reflection *r);
const rpc_service *rpc_reflection_v1alpha(const rpc_reflection *r);

// The server has stopped before. NULL is allowed.
void rpc_reflection_destroy(rpc_reflection *r);

#endif
