// reduce: see reduce.h. Picks the way, and waits for the device in short naps so that a failed
// communicator is seen while the device stands still.
#include "worker/reduce.h"

#include <assert.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "worker/reduce_transport.h"

// A step takes milliseconds: the first polls spin, later ones leave the core to others.
enum { SPINS = 2000, NAP_NS = 20000 };

struct reduce {
    reduce_options o;
    const reduce_ops *ops; // NULL: one rank
    void *state;
};

// All ranks compute on the same kind of device, else they would not meet in the same calls.
static status check_alike(const reduce_options *o, int64_t deadline_ns) {
    comm *c = o->comm;
    char mine = kernels_stream(o->kernels) != NULL, all[SHARD_RANKS_MAX];
    TRY(comm_gather(c, &mine, sizeof mine, all, deadline_ns));
    status s = status_ok();
    for (int i = 1; comm_rank(c) == 0 && i < comm_size(c); i++) {
        if (all[i] == all[0]) continue;
        s = status_error(STATUS_FAILED_PRECONDITION,
                         "rank %d computes on the %s and rank %d on the %s; start all with the "
                         "same --device",
                         comm_number(c, 0), all[0] ? "GPU" : "CPU", comm_number(c, i),
                         all[i] ? "GPU" : "CPU");
        break;
    }
    return comm_agree(c, s, deadline_ns);
}

typedef status opener(const reduce_options *o, int64_t deadline_ns, const reduce_ops **ops,
                      void **state);

// Unless told: the fastest that works: peer memory on one host, NCCL, and by way of the host, which
// always does if the sums are exact. All ranks come to the same choice, since an opener fails on
// all or on none.
static status open_kind(reduce *r, int64_t deadline_ns) {
    static opener *const openers[] = {[REDUCE_HOST] = reduce_host_open,
                                      [REDUCE_NCCL] = reduce_nccl_open,
                                      [REDUCE_PEER] = reduce_peer_open};
    static const char *const names[] = {
        [REDUCE_HOST] = "host", [REDUCE_NCCL] = "NCCL", [REDUCE_PEER] = "peer memory"};
    static const reduce_kind fastest_first[] = {REDUCE_PEER, REDUCE_NCCL, REDUCE_HOST};
    if (r->o.kind != REDUCE_AUTO) return openers[r->o.kind](&r->o, deadline_ns, &r->ops, &r->state);
    if (!kernels_stream(r->o.kernels))
        return reduce_host_open(&r->o, deadline_ns, &r->ops, &r->state);
    status s = status_ok();
    for (size_t i = 0; i < sizeof fastest_first / sizeof *fastest_first; i++) {
        s = openers[fastest_first[i]](&r->o, deadline_ns, &r->ops, &r->state);
        if (status_is_ok(&s) || s.code == STATUS_DEADLINE_EXCEEDED) break;
        if (comm_rank(r->o.comm) == 0)
            log_warn("reduce", "not by %s: %s", names[fastest_first[i]], s.message);
    }
    return s;
}

status reduce_open(const reduce_options *o, int64_t deadline_ns, reduce **out) {
    reduce *r = calloc(1, sizeof *r);
    status s = status_ok();
    if (!r) s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the reduction");
    s = comm_agree(o->comm, s, deadline_ns);
    if (status_is_ok(&s)) r->o = *o;
    if (status_is_ok(&s) && comm_size(o->comm) > 1) {
        s = check_alike(o, deadline_ns);
        if (status_is_ok(&s)) s = open_kind(r, deadline_ns);
    }
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

status reduce_register(reduce *r, void *sums, size_t count) {
    if (!r->ops || !r->ops->register_buffer) return status_ok();
    return r->ops->register_buffer(r->state, sums, kernels_sums_bytes(r->o.kernels, count));
}

status reduce_sum(reduce *r, void *sums, size_t count, int64_t deadline_ns) {
    if (!r->ops) {
        comm_progress(r->o.comm); // what a stage of one rank has sent to the next
        return status_ok();
    }
    return r->ops->sum(r->state, sums, count, kernels_sums_type(r->o.kernels), deadline_ns);
}

status reduce_gather(reduce *r, float *parts, size_t count, int64_t deadline_ns) {
    assert(reduce_queues(r) && count % 2 == 0);
    return r->ops ? r->ops->gather(r->state, parts, count, deadline_ns) : status_ok();
}

status reduce_add_rmsnorm(reduce *r, const reduce_norm *n, int64_t deadline_ns) {
    if (!n->post && r->ops && r->ops->add_rmsnorm) return r->ops->add_rmsnorm(r->state, n);
    TRY(reduce_sum(r, n->sums, (size_t)n->tokens * (size_t)n->width, deadline_ns));
    if (n->post)
        kernels_add_normed(r->o.kernels, n->x, n->sums, n->post, n->weight, n->epsilon, n->tokens,
                           n->width, n->out);
    else
        kernels_add_rmsnorm(r->o.kernels, n->x, n->sums, n->weight, n->epsilon, n->tokens, n->width,
                            n->out);
    return status_ok();
}

void reduce_watch(reduce *r, size_t first, size_t count) {
    if (r->ops && r->ops->watch) r->ops->watch(r->state, first, count);
}

int reduce_first_bad(const reduce *r) {
    return r->ops && r->ops->first_bad ? r->ops->first_bad(r->state) : REDUCE_ALL_FINITE;
}

enum { NO_MARK = -1 };

// Whether a communicator of this rank's has failed.
static status check_all(reduce *r) {
    if (r->ops && r->ops->check) TRY(r->ops->check(r->state));
    return relay_check(r->o.relay);
}

static status wait_for_device(reduce *r, int mark, int64_t deadline_ns) {
    bool done = false;
    for (int i = 0;; i++) {
        TRY(mark == NO_MARK ? kernels_poll(r->o.kernels, &done)
                            : kernels_mark_poll(r->o.kernels, mark, &done));
        // Kernels that waited for a rank in vain end too, and leave the reason with the transport.
        if (done) return check_all(r);
        if (i < SPINS) continue;
        TRY(check_all(r));
        if (clock_now_ns() > deadline_ns)
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "the device has not finished the step within its time");
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
}

static status wait_or_abort(reduce *r, int mark, int64_t deadline_ns) {
    status s = wait_for_device(r, mark, deadline_ns);
    if (status_is_ok(&s)) return s;
    if (r->ops && r->ops->abort) r->ops->abort(r->state);
    relay_abort(r->o.relay);
    return s;
}

status reduce_wait(reduce *r, int64_t deadline_ns) {
    return wait_or_abort(r, NO_MARK, deadline_ns);
}

status reduce_wait_mark(reduce *r, int mark, int64_t deadline_ns) {
    return wait_or_abort(r, mark, deadline_ns);
}
