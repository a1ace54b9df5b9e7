// grpc_answer: one answer on its way to a gRPC client: takes what waits in its sink stream whenever
// the call can take more, and writes it as few GenerateResponses. For grpc_*.c alone.
#ifndef OCTANT_COORDINATOR_INGRESS_GRPC_ANSWER_H
#define OCTANT_COORDINATOR_INGRESS_GRPC_ANSWER_H

#include "coordinator/ingress/prepare.h"
#include "proto/rpc_server.h"

// Takes `p` over, ties it to the call, and submits it. False: nothing was submitted, *why says so,
// `p` is freed.
bool grpc_answer_start(const ingress *in, rpc_call *call, prepared *p, refusal *why);

// The method's callbacks.
void grpc_answer_writable(void *owner, rpc_call *call);
void grpc_answer_closed(void *owner, rpc_call *call, bool completed);

#endif
