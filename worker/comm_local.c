// comm_local: a group of one. comm.c answers every verb itself when size is 1; what is left is to
// exist.
#include <stdlib.h>
#include <unistd.h>

#include "worker/comm_transport.h"

static void nothing_to_spin(void *state, bool spin) {
    (void)state, (void)spin;
}

static void nothing_to_close(void *state) {
    (void)state;
}

const comm_ops comm_local_ops = {
    .name = "local",
    .set_spin = nothing_to_spin,
    .close = nothing_to_close,
};

status comm_open_local(comm **out) {
    comm *c = calloc(1, sizeof *c);
    if (!c) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a communicator");
    *c = (comm){
        .ops = &comm_local_ops, .size = 1, .local_size = 1, .missing = -1, .cores_shared = true};
    if (gethostname(c->host, sizeof c->host - 1) != 0) c->host[0] = 0;
    *out = c;
    return status_ok();
}
