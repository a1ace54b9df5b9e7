// nccl_group: see nccl_group.h.
#include "worker/nccl_group.h"

#include <time.h>

#include "common/base/clock.h"

enum {
    MEET_TIMEOUT_S = 120, // NCCL's own bootstrap over several hosts takes seconds
    CLOSE_TIMEOUT_S = 5,
    NAP_NS = 200 * 1000,
};

static status check_call(nccl_group *g, ncclResult_t code, const char *what) {
    return nccl_library_check(&g->api, code, g->communicator, what);
}

// Waits until the call that NCCL has under way is done.
static status settle(nccl_group *g, const char *what, int64_t deadline_ns) {
    for (int i = 0;; i++) {
        ncclResult_t state = ncclSuccess;
        TRY(check_call(g, g->api.CommGetAsyncError(g->communicator, &state), what));
        if (state != ncclInProgress) return check_call(g, state, what);
        if (clock_now_ns() > deadline_ns)
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "NCCL %s: the other ranks have not come in time", what);
        if (i > 100) nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
}

// Most calls of a communicator that is up return success at once.
status nccl_group_finish(nccl_group *g, ncclResult_t code, const char *what, int64_t deadline_ns) {
    if (code == ncclSuccess) return status_ok();
    TRY(check_call(g, code, what));
    return settle(g, what, deadline_ns);
}

status nccl_group_check(nccl_group *g) {
    if (!g->communicator) return status_error(STATUS_UNAVAILABLE, "NCCL was aborted before");
    ncclResult_t error = ncclSuccess;
    TRY(check_call(g, g->api.CommGetAsyncError(g->communicator, &error), "state"));
    return check_call(g, error, "a rank's failure");
}

void nccl_group_abort(nccl_group *g) {
    if (g->communicator) g->api.CommAbort(g->communicator);
    g->communicator = NULL;
}

status nccl_group_quiet(nccl_group *g) {
    TRY(nccl_group_check(g));
    TRY(kernels_sync(g->kernels, clock_now_ns() + CLOSE_TIMEOUT_S * CLOCK_SECOND));
    kernels_forget_runs(g->kernels); // NCCL's end waits for them
    return status_ok();
}

static status end(nccl_group *g) {
    TRY(nccl_group_quiet(g));
    int64_t deadline = clock_now_ns() + CLOSE_TIMEOUT_S * CLOCK_SECOND;
    TRY(nccl_group_finish(g, g->api.CommFinalize(g->communicator), "end", deadline));
    TRY(check_call(g, g->api.CommDestroy(g->communicator), "end"));
    g->communicator = NULL;
    return status_ok();
}

void nccl_group_close(nccl_group *g) {
    if (g->communicator) (void)end(g);
    nccl_group_abort(g); // what could not end in order
    nccl_library_close(&g->api);
}

// ---- Opening

static status suits(const kernels *k) {
    if (kernels_stream(k)) return status_ok();
    return status_error(STATUS_FAILED_PRECONDITION,
                        "NCCL joins CUDA devices; this rank computes on the %s", kernels_name(k));
}

// Each rank loads its own host's NCCL; of different ones some pairs work and some hang.
static status compare_versions(nccl_group *g, int64_t deadline_ns) {
    comm *c = g->comm;
    int all[SHARD_RANKS_MAX];
    TRY(comm_gather(c, &g->api.version, sizeof(int), all, deadline_ns));
    status s = status_ok();
    for (int i = 1; comm_rank(c) == 0 && i < comm_size(c); i++) {
        if (all[i] == all[0]) continue;
        char first[NCCL_LIBRARY_VERSION_MAX], other[NCCL_LIBRARY_VERSION_MAX];
        nccl_library_version_text(all[0], first);
        nccl_library_version_text(all[i], other);
        s = status_error(STATUS_FAILED_PRECONDITION,
                         "rank %d has NCCL %s and rank %d has %s; install the same on all hosts",
                         comm_number(c, 0), first, comm_number(c, i), other);
        break;
    }
    return comm_agree(c, s, deadline_ns);
}

static status init(nccl_group *g, const ncclUniqueId *id, int64_t deadline_ns) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclResult_t code = g->api.CommInitRankConfig(&g->communicator, comm_size(g->comm), *id,
                                                  comm_rank(g->comm), &config);
    TRY(nccl_library_check(&g->api, code, NULL, "start"));
    return settle(g, "start", deadline_ns);
}

static status meet(nccl_group *g, int64_t deadline_ns) {
    comm *c = g->comm;
    ncclUniqueId id = {0};
    status s = status_ok();
    if (comm_rank(c) == 0)
        s = nccl_library_check(&g->api, g->api.GetUniqueId(&id), NULL, "address");
    TRY(comm_agree(c, s, deadline_ns));
    TRY(comm_broadcast(c, &id, sizeof id, deadline_ns));
    int64_t own = clock_now_ns() + MEET_TIMEOUT_S * CLOCK_SECOND;
    // What is left is for the others to hear of it.
    int64_t left = clock_now_ns() + (deadline_ns - clock_now_ns()) / 2;
    return comm_agree(c, init(g, &id, own < left ? own : left), deadline_ns);
}

status nccl_group_open(comm *c, kernels *k, const char *path, int64_t deadline_ns,
                       nccl_group *out) {
    TRY(comm_agree(c, suits(k), deadline_ns));
    nccl_group g = {.comm = c, .kernels = k};
    status s = comm_agree(c, nccl_library_open(path, &g.api), deadline_ns);
    if (status_is_ok(&s)) s = compare_versions(&g, deadline_ns);
    if (status_is_ok(&s)) s = meet(&g, deadline_ns);
    if (status_is_ok(&s)) {
        *out = g;
        return s;
    }
    nccl_group_abort(&g);
    nccl_library_close(&g.api);
    return s;
}
