// relay: see relay.h. From device to device by NCCL where that works; else by way of the host: out
// of the device, through comm.h, and back in. On cpu the device's memory is the host's, and nothing
// moves but the message.
#include "worker/relay.h"

#include <stdlib.h>

#include "common/base/log.h"
#include "worker/relay_transport.h"

struct relay {
    const relay_ops *ops; // NULL: by the host
    void *state;
    relay_options o;
    shard_place place;
    int from; // -1: the first stage
    int to[SHARD_RANKS_MAX], to_count;
    float *staging; // (max_count); NULL on cpu
};

static bool last(const relay *r) {
    return r->place.stage == r->place.stages - 1;
}

// Rank `rank` of `ranks` receives from which of the `before` ranks of the stage before.
static int source(int rank, int ranks, int before) {
    return rank * before / ranks;
}

static void find_neighbours(relay *r) {
    const shard *shards = r->o.shards;
    int ranks = comm_size(r->o.comm);
    const shard_place *p = &r->place;
    r->from = -1;
    if (p->stage > 0) {
        shard_place before = shard_find_stage(shards, ranks, p->stage - 1);
        r->from = before.first + source(p->rank, p->ranks, before.ranks);
    }
    if (last(r)) return;
    shard_place behind = shard_find_stage(shards, ranks, p->stage + 1);
    for (int i = 0; i < behind.ranks; i++)
        if (source(i, behind.ranks, p->ranks) == p->rank) r->to[r->to_count++] = behind.first + i;
}

static status create(const relay_options *o, relay **out) {
    relay *r = calloc(1, sizeof *r);
    if (!r) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the relay");
    r->o = *o;
    r->place = shard_find_place(o->shards, comm_size(o->comm), comm_rank(o->comm));
    find_neighbours(r);
    *out = r;
    return status_ok();
}

static status take_staging(relay *r) {
    if (!kernels_stream(r->o.kernels)) return status_ok();
    r->staging = malloc(r->o.max_count * sizeof *r->staging);
    if (r->staging) return status_ok();
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %zu numbers on their way",
                        r->o.max_count);
}

static status open_host(relay *r, int64_t deadline_ns) {
    TRY(comm_agree(r->o.comm, take_staging(r), deadline_ns));
    return comm_open_lines(r->o.comm, deadline_ns);
}

// All ranks come to the same choice: NCCL opens on all or on none.
static status open_way(relay *r, int64_t deadline_ns) {
    const relay_options *o = &r->o;
    if (r->place.stages == 1) return status_ok();
    if (!o->by_nccl && (o->by_host || !kernels_stream(o->kernels)))
        return open_host(r, deadline_ns);
    status s = relay_nccl_open(o, deadline_ns, &r->ops, &r->state);
    if (status_is_ok(&s) || o->by_nccl || s.code == STATUS_DEADLINE_EXCEEDED) return s;
    if (comm_rank(o->comm) == 0)
        log_warn("relay", "rows go from stage to stage by way of the host, not by NCCL: %s",
                 s.message);
    return open_host(r, deadline_ns);
}

status relay_open(const relay_options *o, int64_t deadline_ns, relay **out) {
    relay *r = NULL;
    status s = comm_agree(o->comm, create(o, &r), deadline_ns);
    if (status_is_ok(&s)) s = open_way(r, deadline_ns);
    if (status_is_ok(&s))
        *out = r;
    else
        relay_close(r);
    return s;
}

void relay_close(relay *r) {
    if (!r) return;
    if (r->ops) r->ops->close(r->state);
    free(r->staging);
    free(r);
}

shard_place relay_place(const relay *r) {
    return r->place;
}

bool relay_queues(const relay *r) {
    return r->place.stages == 1 || r->ops;
}

status relay_check(relay *r) {
    return r && r->ops ? r->ops->check(r->state) : status_ok();
}

void relay_abort(relay *r) {
    if (r && r->ops) r->ops->abort(r->state);
}

bool relay_has_come(relay *r) {
    return r->from < 0 || r->ops || comm_has_come(r->o.comm, COMM_ROWS, r->from);
}

status relay_receive(relay *r, float *x, size_t count, int64_t deadline_ns) {
    if (r->from < 0) return status_ok();
    if (r->ops) return r->ops->receive(r->state, r->from, x, count, deadline_ns);
    float *host = r->staging ? r->staging : x;
    progress_collective(r->o.progress);
    TRY(comm_receive(r->o.comm, COMM_ROWS, r->from, host, count * sizeof *x, deadline_ns));
    progress_enter(r->o.progress, CLUSTER_STEP);
    return r->staging ? kernels_upload(r->o.kernels, x, host, count * sizeof *x) : status_ok();
}

status relay_send(relay *r, const float *x, size_t count, int64_t deadline_ns) {
    if (last(r)) return status_ok();
    if (r->ops) return r->ops->send(r->state, r->to, r->to_count, x, count, deadline_ns);
    const float *host = r->staging ? r->staging : x;
    if (r->to_count > 0) {
        TRY(kernels_sync(r->o.kernels, deadline_ns));
        if (r->staging) TRY(kernels_download(r->o.kernels, r->staging, x, count * sizeof *x));
    }
    progress_collective(r->o.progress);
    for (int i = 0; i < r->to_count; i++)
        TRY(comm_send(r->o.comm, COMM_ROWS, r->to[i], host, count * sizeof *x, deadline_ns));
    progress_enter(r->o.progress, CLUSTER_STEP);
    return status_ok();
}

uint64_t relay_counted(const relay *r) {
    return atomic_load_explicit(&r->o.progress->collective, memory_order_relaxed);
}

void relay_count_from(relay *r, uint64_t collective) {
    atomic_store_explicit(&r->o.progress->collective, collective, memory_order_relaxed);
}
