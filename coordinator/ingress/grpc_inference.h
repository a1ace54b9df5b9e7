// grpc_inference: octant.v1.Inference, the same requests as the HTTP ingress as typed messages.
// From generate_prepare on there is one way for both. A call's deadline is its request's deadline;
// a call that is cancelled cancels its request.
//
// Errors are the statuses of prepare.h and of the core, unchanged; "retry-after-ms" in the trailing
// metadata says when to try again. The key of a client is taken from "authorization: Bearer KEY",
// as in HTTP.
#ifndef OCTANT_COORDINATOR_INGRESS_GRPC_INFERENCE_H
#define OCTANT_COORDINATOR_INGRESS_GRPC_INFERENCE_H

#include "coordinator/ingress/prepare.h"
#include "proto/rpc_server.h"

typedef struct grpc_inference grpc_inference;

// `in` outlives it. NULL when memory is short.
grpc_inference *grpc_inference_create(const ingress *in);

// For rpc_server_create; lives as long as this.
const rpc_service *grpc_inference_service(const grpc_inference *g);

// For rpc_health_create: true when some group could make a token now and nothing is draining.
bool grpc_inference_can_serve(void *grpc_inference_);

// The server has stopped before. NULL is allowed.
void grpc_inference_destroy(grpc_inference *g);

#endif
