// relay_nccl: rows from stage to stage by NCCL, from device to device: over the network between
// hosts, over NVLink within one. A communicator of all ranks, beside those of the stages' sums; all
// of their calls are on one stream, in an order in which no rank waits for one that waits for it.
#include <stdlib.h>

#include "common/base/log.h"
#include "worker/nccl_group.h"
#include "worker/relay_transport.h"

static status check_call(nccl_group *g, ncclResult_t code, const char *what) {
    return nccl_library_check(&g->api, code, g->communicator, what);
}

static status send(void *state, const int *to, int to_count, const float *x, size_t count,
                   int64_t deadline_ns) {
    nccl_group *g = state;
    if (to_count == 0) return status_ok();
    TRY(check_call(g, g->api.GroupStart(), "group"));
    ncclResult_t code = ncclSuccess;
    for (int i = 0; i < to_count && code == ncclSuccess; i++)
        code = g->api.Send(x, count, ncclFloat, to[i], g->communicator, kernels_stream(g->kernels));
    ncclResult_t end = g->api.GroupEnd(); // also after an error, else the group stays open
    TRY(nccl_group_finish(g, code, "send", deadline_ns));
    return nccl_group_finish(g, end, "send", deadline_ns);
}

static status receive(void *state, int from, float *x, size_t count, int64_t deadline_ns) {
    nccl_group *g = state;
    ncclResult_t code =
        g->api.Recv(x, count, ncclFloat, from, g->communicator, kernels_stream(g->kernels));
    return nccl_group_finish(g, code, "receive", deadline_ns);
}

static status check(void *state) {
    return nccl_group_check(state);
}

static void abort_group(void *state) {
    nccl_group_abort(state);
}

static void close_group(void *state) {
    nccl_group_close(state);
    free(state);
}

status relay_nccl_open(const relay_options *o, int64_t deadline_ns, const relay_ops **ops,
                       void **state) {
    static const relay_ops nccl_ops = {.name = "nccl",
                                       .send = send,
                                       .receive = receive,
                                       .check = check,
                                       .abort = abort_group,
                                       .close = close_group};
    nccl_group *g = calloc(1, sizeof *g);
    status s = g ? status_ok() : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the relay");
    s = comm_agree(o->comm, s, deadline_ns);
    if (status_is_ok(&s)) s = nccl_group_open(o->comm, o->kernels, o->nccl_path, deadline_ns, g);
    if (!status_is_ok(&s)) {
        free(g);
        return s;
    }
    if (comm_rank(o->comm) == 0)
        log_info("relay", "NCCL hands rows on between %d stages",
                 shard_find_place(o->shards, comm_size(o->comm), 0).stages);
    *ops = &nccl_ops;
    *state = g;
    return s;
}
