// no_nccl: stands in for reduce_nccl.c and nccl_library.c where nccl.h was missing at build.
#include "worker/reduce_transport.h"

status reduce_nccl_open(const reduce_options *o, int64_t deadline_ns, const reduce_ops **ops,
                        void **state) {
    (void)o, (void)deadline_ns, (void)ops, (void)state;
    return status_error(STATUS_UNIMPLEMENTED,
                        "built without NCCL; install nccl.h (libnccl-dev) and build again");
}
