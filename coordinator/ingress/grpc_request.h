// grpc_request: from a decoded message of inference.proto to what generate_prepare takes. For
// grpc_*.c alone.
#ifndef OCTANT_COORDINATOR_INGRESS_GRPC_REQUEST_H
#define OCTANT_COORDINATOR_INGRESS_GRPC_REQUEST_H

#include "coordinator/ingress/prepare.h"
#include "proto/inference_msg.h"
#include "proto/rpc_server.h"

// Checks and translates. *out points into `from` and the call, which must outlive it;
// generate_request_free(out) in any case.
bool grpc_request_translate(rpc_call *call, const inference_request *from, generate_request *out,
                            refusal *why);

// Ends the call with a refusal.
void grpc_refuse(rpc_call *call, const refusal *why);

// The client's key, or NULL.
const char *grpc_api_key(const rpc_call *call);

#endif
