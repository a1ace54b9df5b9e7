// no_nccl: stands in for reduce_nccl.c, relay_nccl.c and nccl_*.c where nccl.h was missing at
// build.
#include "worker/reduce_transport.h"
#include "worker/relay_transport.h"

static status built_without(void) {
    return status_error(STATUS_UNIMPLEMENTED,
                        "built without NCCL; install nccl.h (libnccl-dev) and build again");
}

status reduce_nccl_open(const reduce_options *o, int64_t deadline_ns, const reduce_ops **ops,
                        void **state) {
    (void)o, (void)deadline_ns, (void)ops, (void)state;
    return built_without();
}

status relay_nccl_open(const relay_options *o, int64_t deadline_ns, const relay_ops **ops,
                       void **state) {
    (void)o, (void)deadline_ns, (void)ops, (void)state;
    return built_without();
}
