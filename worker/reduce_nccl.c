// reduce_nccl: sums by NCCL, for ranks on several hosts and for cards that cannot reach each
// other's memory.
//
// Exact sums (double) take ncclAllReduce: whatever order it adds in, the bits are the same. BF16
// sums do not, unless --fast: NCCL picks its algorithm, and so the order and the roundings, by the
// message's length, and a row's numbers would then depend on how many other rows are in the step.
// Instead the ranks exchange slices, each adds its own in rank order (peer_add_parts, as the
// kernels of peer.h do), and they exchange the results: the same bytes on the wire as a ring.
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "kernels/cuda/peer.h"
#include "worker/nccl_group.h"
#include "worker/reduce_transport.h"

enum { BUFFERS_MAX = 4, REGISTER_TIMEOUT_S = 5 };

typedef struct nccl {
    reduce_options o;
    nccl_group group;
    char *parts;  // (ranks, slice) of all ranks; BF16 in rank order only
    size_t slice; // values
    void *registered[BUFFERS_MAX];
    int registered_count;
} nccl;

static status check_call(nccl *n, ncclResult_t code, const char *what) {
    return nccl_library_check(&n->group.api, code, n->group.communicator, what);
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
    const nccl_library *l = &n->group.api;
    cudaStream_t stream = kernels_stream(n->o.kernels);
    TRY(check_call(n, l->GroupStart(), "group"));
    ncclResult_t code = ncclSuccess;
    for (int rank = 0; rank < comm_size(n->o.comm) && code == ncclSuccess; rank++) {
        if (to[rank].count > 0)
            code = l->Send(to[rank].at, to[rank].count, ncclBfloat16, rank, n->group.communicator,
                           stream);
        if (code == ncclSuccess && from[rank].count > 0)
            code = l->Recv(from[rank].at, from[rank].count, ncclBfloat16, rank,
                           n->group.communicator, stream);
    }
    ncclResult_t end = l->GroupEnd(); // also after an error, else the group stays open
    TRY(nccl_group_finish(&n->group, code, "exchange", deadline_ns));
    return nccl_group_finish(&n->group, end, "exchange", deadline_ns);
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
        n->group.api.AllReduce(sums, sums, count, exact ? ncclDouble : ncclBfloat16, ncclSum,
                               n->group.communicator, kernels_stream(n->o.kernels));
    return nccl_group_finish(&n->group, code, "sum", deadline_ns);
}

static status gather(void *state, float *parts, size_t count, int64_t deadline_ns) {
    nccl *n = state;
    if (count == 0) return status_ok();
    const float *own = parts + (size_t)comm_rank(n->o.comm) * count; // in its place: no copy
    ncclResult_t code = n->group.api.AllGather(own, parts, count, ncclFloat32,
                                               n->group.communicator, kernels_stream(n->o.kernels));
    return nccl_group_finish(&n->group, code, "gathering", deadline_ns);
}

static status register_buffer(void *state, void *sums, size_t bytes) {
    nccl *n = state;
    if (n->registered_count == BUFFERS_MAX) return status_ok(); // registering only saves a copy
    void **handle = &n->registered[n->registered_count];
    int64_t deadline = clock_now_ns() + REGISTER_TIMEOUT_S * CLOCK_SECOND;
    ncclResult_t code = n->group.api.CommRegister(n->group.communicator, sums, bytes, handle);
    TRY(nccl_group_finish(&n->group, code, "register", deadline));
    n->registered_count++;
    return status_ok();
}

static status check(void *state) {
    return nccl_group_check(&((nccl *)state)->group);
}

static void abort_nccl(void *state) {
    nccl_group_abort(&((nccl *)state)->group);
}

// ---- Opening and closing

static void close_nccl(void *state) {
    nccl *n = state;
    status s = nccl_group_quiet(&n->group);
    for (int i = 0; status_is_ok(&s) && i < n->registered_count; i++)
        s = check_call(n, n->group.api.CommDeregister(n->group.communicator, n->registered[i]),
                       "deregister");
    nccl_group_close(&n->group);
    kernels_free(n->o.kernels, n->parts);
    free(n);
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
    nccl_library_version_text(n->group.api.version, version);
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
                                        .gather = gather,
                                        .register_buffer = register_buffer,
                                        .check = check,
                                        .abort = abort_nccl,
                                        .close = close_nccl};
    nccl_group group;
    TRY(nccl_group_open(o->comm, o->kernels, o->nccl_path, deadline_ns, &group));
    nccl *n = calloc(1, sizeof *n);
    status s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the reduction");
    if (n) {
        *n = (nccl){.o = *o, .group = group};
        s = make_parts(n);
    }
    s = comm_agree(o->comm, s, deadline_ns);
    if (status_is_ok(&s)) {
        tell(n);
        *ops = &nccl_ops;
        *state = n;
    } else {
        nccl_group_close(&group);
        if (n) kernels_free(o->kernels, n->parts);
        free(n);
    }
    return s;
}
