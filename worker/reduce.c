// reduce: see reduce.h. Picks the way, and waits for the device in short naps so that a failed
// communicator is seen while the device stands still.
#include "worker/reduce.h"

#include <stdlib.h>
#include <time.h>

#include "common/base/clock.h"
#include "worker/reduce_transport.h"

// A step takes milliseconds: the first polls spin, later ones leave the core to others.
enum { SPINS = 2000, NAP_NS = 20000 };

struct reduce {
    reduce_options o;
    const reduce_ops *ops; // NULL: one rank
    void *state;
};

status reduce_open(const reduce_options *o, int64_t deadline_ns, reduce **out) {
    reduce *r = calloc(1, sizeof *r);
    if (!r) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the reduction");
    r->o = *o;
    status s = status_ok();
    if (comm_size(o->comm) > 1) s = reduce_host_open(o, deadline_ns, &r->ops, &r->state);
    if (status_is_ok(&s))
        *out = r;
    else
        free(r);
    return s;
}

void reduce_close(reduce *r) {
    if (!r) return;
    if (r->ops) r->ops->close(r->state);
    free(r);
}

const char *reduce_name(const reduce *r) {
    return r->ops ? r->ops->name : "none";
}

bool reduce_queues(const reduce *r) {
    return !r->ops || r->ops->queues;
}

status reduce_sum(reduce *r, void *sums, size_t count, int64_t deadline_ns) {
    return r->ops ? r->ops->sum(r->state, sums, count, deadline_ns) : status_ok();
}

status reduce_wait(reduce *r, int64_t deadline_ns) {
    bool done = false;
    for (int i = 0;; i++) {
        TRY(kernels_poll(r->o.kernels, &done));
        if (done) return status_ok();
        if (i < SPINS) continue;
        if (r->ops && r->ops->check) TRY(r->ops->check(r->state));
        if (clock_now_ns() > deadline_ns)
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "the device has not finished the step within its time");
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
}
