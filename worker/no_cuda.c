// no_cuda: stands in for reduce_peer.c where CUDA was missing at build.
#include "worker/reduce_transport.h"

status reduce_peer_open(const reduce_options *o, int64_t deadline_ns, const reduce_ops **ops,
                        void **state) {
    (void)o, (void)deadline_ns, (void)ops, (void)state;
    return status_error(STATUS_UNIMPLEMENTED,
                        "built without CUDA; install the toolkit (nvcc) and build again");
}
