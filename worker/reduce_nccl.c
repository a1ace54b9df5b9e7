// reduce_nccl: sums by NCCL, for ranks on several hosts and for cards that cannot reach each
// other's memory.
//
// Exact sums (double) take ncclAllReduce: whatever order it adds in, the bits are the same. BF16
// sums do not, unless --fast: NCCL picks its algorithm, and so the order and the roundings, by the
// message's length, and a row's numbers would then depend on how many other rows are in the step.
// Instead the ranks exchange slices, each adds its own in rank order (peer_add_parts, as the
// kernels of peer.h do), and they exchange the results: the same bytes on the wire as a ring.
//
// The communicator is non-blocking: NCCL's calls come back at once and are polled, so that a rank
// that never starts is an error by the deadline. A kernel of NCCL's that waits for a dead rank
// never ends by itself; reduce_wait's deadline ends it through `abort`.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "kernels/cuda/peer.h"
#include "worker/nccl_library.h"
#include "worker/reduce_transport.h"

enum {
    BUFFERS_MAX = 4,
    MEET_TIMEOUT_S = 120, // NCCL's own bootstrap over several hosts takes seconds
    CLOSE_TIMEOUT_S = 5,
    NAP_NS = 200 * 1000,
};

typedef struct nccl {
    reduce_options o;
    nccl_library library;
    ncclComm_t communicator;
    bool failed;  // aborted: nothing but memory is left to free
    char *parts;  // (ranks, slice) of all ranks; BF16 in rank order only
    size_t slice; // values
    void *registered[BUFFERS_MAX];
    int registered_count;
} nccl;

static status check_call(nccl *n, ncclResult_t code, const char *what) {
    return nccl_library_check(&n->library, code, n->communicator, what);
}

// Waits until the call that NCCL has under way is done.
static status settle(nccl *n, const char *what, int64_t deadline_ns) {
    for (int i = 0;; i++) {
        ncclResult_t state = ncclSuccess;
        TRY(check_call(n, n->library.CommGetAsyncError(n->communicator, &state), what));
        if (state != ncclInProgress) return check_call(n, state, what);
        if (clock_now_ns() > deadline_ns)
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "NCCL %s: the other ranks have not come in time", what);
        if (i > 100) nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
}

// `code` is what a call returned at once; most calls of a communicator that is up return success.
static status finish_call(nccl *n, ncclResult_t code, const char *what, int64_t deadline_ns) {
    if (code == ncclSuccess) return status_ok();
    TRY(check_call(n, code, what));
    return settle(n, what, deadline_ns);
}

// ---- Sums

static size_t slice_begin(const nccl *n, int rank, size_t count) {
    size_t at = (size_t)rank * n->slice;
    return at < count ? at : count;
}

typedef struct span {
    char *at;
    size_t count;
} span;

static span slice_of(const nccl *n, int rank, void *sums, size_t count) {
    size_t begin = slice_begin(n, rank, count);
    return (span){(char *)sums + begin * 2, slice_begin(n, rank + 1, count) - begin};
}

// to[r] goes to rank r, from[r] comes from it; empty spans do not travel.
static status exchange(nccl *n, const span *to, const span *from, int64_t deadline_ns) {
    const nccl_library *l = &n->library;
    cudaStream_t stream = kernels_stream(n->o.kernels);
    TRY(check_call(n, l->GroupStart(), "group"));
    ncclResult_t code = ncclSuccess;
    for (int rank = 0; rank < comm_size(n->o.comm) && code == ncclSuccess; rank++) {
        if (to[rank].count > 0)
            code =
                l->Send(to[rank].at, to[rank].count, ncclBfloat16, rank, n->communicator, stream);
        if (code == ncclSuccess && from[rank].count > 0)
            code = l->Recv(from[rank].at, from[rank].count, ncclBfloat16, rank, n->communicator,
                           stream);
    }
    ncclResult_t end = l->GroupEnd(); // also after an error, else the group stays open
    TRY(finish_call(n, code, "exchange", deadline_ns));
    return finish_call(n, end, "exchange", deadline_ns);
}

static status sum_in_order(nccl *n, void *sums, size_t count, int64_t deadline_ns) {
    int ranks = comm_size(n->o.comm), rank = comm_rank(n->o.comm);
    // Multiples of 8 values: the adding kernel takes 16 bytes at a time.
    n->slice = ((count + (size_t)ranks - 1) / (size_t)ranks + 7) / 8 * 8;
    span whole[SHARD_RANKS_MAX], mine[SHARD_RANKS_MAX], parts[SHARD_RANKS_MAX];
    span own = slice_of(n, rank, sums, count);
    for (int i = 0; i < ranks; i++) {
        whole[i] = slice_of(n, i, sums, count);
        mine[i] = own;
        parts[i] = (span){n->parts + (size_t)i * n->slice * 2, own.count};
    }
    TRY(exchange(n, whole, parts, deadline_ns));
    if (own.count > 0) {
        // Into part 0, which may be longer than what is left of the message.
        cudaError_t e = peer_add_parts(kernels_stream(n->o.kernels), n->parts, ranks, n->slice,
                                       KERNELS_SUMS_BF16, n->parts);
        if (e != cudaSuccess)
            return status_error(STATUS_INTERNAL, "adding the ranks' parts: %s",
                                cudaGetErrorString(e));
    }
    for (int i = 0; i < ranks; i++) mine[i].at = n->parts;
    return exchange(n, mine, whole, deadline_ns);
}

static status sum(void *state, void *sums, size_t count, kernels_sums type, int64_t deadline_ns) {
    nccl *n = state;
    if (count == 0) return status_ok();
    bool exact = type == KERNELS_SUMS_EXACT;
    if (!exact && !n->o.fast) return sum_in_order(n, sums, count, deadline_ns);
    ncclResult_t code =
        n->library.AllReduce(sums, sums, count, exact ? ncclDouble : ncclBfloat16, ncclSum,
                             n->communicator, kernels_stream(n->o.kernels));
    return finish_call(n, code, "sum", deadline_ns);
}

static status register_buffer(void *state, void *sums, size_t bytes) {
    nccl *n = state;
    if (n->registered_count == BUFFERS_MAX) return status_ok(); // registering only saves a copy
    void **handle = &n->registered[n->registered_count];
    int64_t deadline = clock_now_ns() + CLOSE_TIMEOUT_S * CLOCK_SECOND;
    ncclResult_t code = n->library.CommRegister(n->communicator, sums, bytes, handle);
    TRY(finish_call(n, code, "register", deadline));
    n->registered_count++;
    return status_ok();
}

static status check(void *state) {
    nccl *n = state;
    if (n->failed) return status_error(STATUS_UNAVAILABLE, "NCCL was aborted before");
    ncclResult_t error = ncclSuccess;
    TRY(check_call(n, n->library.CommGetAsyncError(n->communicator, &error), "state"));
    return check_call(n, error, "a rank's failure");
}

// ---- Opening and closing

// Frees the device from kernels that wait for a rank.
static void abort_nccl(void *state) {
    nccl *n = state;
    if (n->communicator && !n->failed) n->library.CommAbort(n->communicator);
    n->failed = true;
    n->communicator = NULL;
}

static void destroy(nccl *n) {
    if (!n) return;
    abort_nccl(n);
    kernels_free(n->o.kernels, n->parts);
    nccl_library_close(&n->library);
    free(n);
}

static void close_nccl(void *state) {
    nccl *n = state;
    int64_t deadline = clock_now_ns() + CLOSE_TIMEOUT_S * CLOCK_SECOND;
    status s = check(n);
    if (status_is_ok(&s)) s = kernels_sync(n->o.kernels, deadline);
    if (status_is_ok(&s)) kernels_forget_runs(n->o.kernels); // NCCL's end waits for them
    for (int i = 0; status_is_ok(&s) && i < n->registered_count; i++)
        s = check_call(n, n->library.CommDeregister(n->communicator, n->registered[i]),
                       "deregister");
    if (status_is_ok(&s))
        s = finish_call(n, n->library.CommFinalize(n->communicator), "end", deadline);
    if (status_is_ok(&s)) s = check_call(n, n->library.CommDestroy(n->communicator), "end");
    if (status_is_ok(&s)) n->communicator = NULL;
    destroy(n);
}

static status suits(const reduce_options *o) {
    if (kernels_stream(o->kernels)) return status_ok();
    return status_error(STATUS_FAILED_PRECONDITION,
                        "NCCL joins CUDA devices; this rank computes on the %s",
                        kernels_name(o->kernels));
}

// Each rank loads its own host's NCCL; of different ones some pairs work and some hang.
static status compare_versions(nccl *n, int64_t deadline_ns) {
    comm *c = n->o.comm;
    int all[SHARD_RANKS_MAX];
    TRY(comm_gather(c, &n->library.version, sizeof(int), all, deadline_ns));
    status s = status_ok();
    for (int i = 1; comm_rank(c) == 0 && i < comm_size(c); i++) {
        if (all[i] == all[0]) continue;
        char first[NCCL_LIBRARY_VERSION_MAX], other[NCCL_LIBRARY_VERSION_MAX];
        nccl_library_version_text(all[0], first);
        nccl_library_version_text(all[i], other);
        s = status_error(STATUS_FAILED_PRECONDITION,
                         "rank 0 has NCCL %s and rank %d has %s; install the same on all hosts",
                         first, i, other);
        break;
    }
    return comm_agree(c, s, deadline_ns);
}

static status init(nccl *n, const ncclUniqueId *id, int64_t deadline_ns) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclResult_t code = n->library.CommInitRankConfig(&n->communicator, comm_size(n->o.comm), *id,
                                                      comm_rank(n->o.comm), &config);
    TRY(nccl_library_check(&n->library, code, NULL, "start"));
    return settle(n, "start", deadline_ns);
}

static status meet(nccl *n, int64_t deadline_ns) {
    comm *c = n->o.comm;
    ncclUniqueId id = {0};
    status s = status_ok();
    if (comm_rank(c) == 0)
        s = nccl_library_check(&n->library, n->library.GetUniqueId(&id), NULL, "address");
    TRY(comm_agree(c, s, deadline_ns));
    TRY(comm_broadcast(c, &id, sizeof id, deadline_ns));
    int64_t own = clock_now_ns() + MEET_TIMEOUT_S * CLOCK_SECOND;
    // What is left is for the others to hear of it.
    int64_t left = clock_now_ns() + (deadline_ns - clock_now_ns()) / 2;
    return comm_agree(c, init(n, &id, own < left ? own : left), deadline_ns);
}

static status make_parts(nccl *n) {
    if (kernels_sums_type(n->o.kernels) == KERNELS_SUMS_EXACT || n->o.fast) return status_ok();
    size_t ranks = (size_t)comm_size(n->o.comm);
    void *parts = NULL;
    TRY(kernels_alloc(n->o.kernels, (n->o.max_count + ranks * 8) * 2, &parts));
    n->parts = parts;
    return status_ok();
}

static void tell(const nccl *n) {
    if (comm_rank(n->o.comm) != 0) return;
    char version[NCCL_LIBRARY_VERSION_MAX];
    nccl_library_version_text(n->library.version, version);
    log_info("reduce", "NCCL %s joins %d ranks; sums are %s", version, comm_size(n->o.comm),
             kernels_sums_type(n->o.kernels) == KERNELS_SUMS_EXACT ? "exact"
             : n->o.fast                                           ? "in NCCL's order"
                                                                   : "in rank order");
}

status reduce_nccl_open(const reduce_options *o, int64_t deadline_ns, const reduce_ops **ops,
                        void **state) {
    static const reduce_ops nccl_ops = {.name = "nccl",
                                        .queues = true,
                                        .sum = sum,
                                        .register_buffer = register_buffer,
                                        .check = check,
                                        .abort = abort_nccl,
                                        .close = close_nccl};
    TRY(comm_agree(o->comm, suits(o), deadline_ns));
    nccl *n = calloc(1, sizeof *n);
    status s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the reduction");
    if (n) {
        n->o = *o;
        s = nccl_library_open(o->nccl_path, &n->library);
    }
    s = comm_agree(o->comm, s, deadline_ns);
    if (status_is_ok(&s)) s = compare_versions(n, deadline_ns);
    if (status_is_ok(&s)) s = comm_agree(o->comm, make_parts(n), deadline_ns);
    if (status_is_ok(&s)) s = meet(n, deadline_ns);
    if (status_is_ok(&s)) {
        tell(n);
        *ops = &nccl_ops;
        *state = n;
    } else {
        destroy(n);
    }
    return s;
}
