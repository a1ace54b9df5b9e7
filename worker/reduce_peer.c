// reduce_peer: sums by kernels that meet in each other's device memory (kernels/cuda/peer.h). Here:
// the ranks exchange how their memory is mapped, and measure from which size on two-shot is the
// faster way. The bits are the same either way.
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "kernels/cuda/peer_group.h"
#include "worker/reduce_transport.h"

enum {
    ONE_SHOT_BYTES = 512 << 10,
    TWO_SHOT_BYTES = 16 << 20, // longer messages gain nothing, and cost four times their length
    TRIAL_RUNS = 20,
    TRIAL_FIRST_BYTES = 16 << 10,
    CLOSE_TIMEOUT_S = 5,
};

typedef struct peer {
    reduce_options o;
    peer_group *group;
} peer;

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static status sum(void *state, void *sums, size_t count, kernels_sums type, int64_t deadline_ns) {
    peer *p = state;
    (void)deadline_ns; // the kernels' own limit holds, from when they start
    return peer_group_sum(p->group, kernels_stream(p->o.kernels), sums, count, type);
}

static status add_rmsnorm(void *state, const reduce_norm *n) {
    peer *p = state;
    kernels *k = p->o.kernels;
    return peer_group_add_rmsnorm(p->group, kernels_stream(k), n->x, n->sums, kernels_sums_type(k),
                                  n->weight, n->epsilon, n->tokens, n->width, n->out);
}

static status check(void *state) {
    return peer_group_check(((peer *)state)->group);
}

// No rank gives its memory back while another may still read it; one that has failed, or whose
// peers have, ends with its process.
static void close_peer(void *state) {
    peer *p = state;
    int64_t deadline = clock_now_ns() + CLOSE_TIMEOUT_S * CLOCK_SECOND;
    status s = peer_group_check(p->group);
    if (status_is_ok(&s)) s = kernels_sync(p->o.kernels, deadline);
    if (status_is_ok(&s)) {
        kernels_forget_runs(p->o.kernels);
        peer_group_leave(p->group);
        s = comm_barrier(p->o.comm, deadline);
    }
    if (status_is_ok(&s)) peer_group_destroy(p->group);
    free(p);
}

static status join(peer *p, const peer_invitation *mine, int64_t deadline_ns) {
    comm *c = p->o.comm;
    peer_invitation all[PEER_RANKS_MAX];
    TRY(comm_gather(c, mine, sizeof *mine, all, deadline_ns));
    TRY(comm_broadcast(c, all, (size_t)comm_size(c) * sizeof *all, deadline_ns));
    return comm_agree(c, peer_group_join(p->group, all), deadline_ns);
}

static status wait_for_device(peer *p, int64_t deadline_ns) {
    TRY(kernels_sync(p->o.kernels, deadline_ns));
    return peer_group_check(p->group);
}

// ns of one sum of `bytes`, at best of two rounds; the first also warms up.
static status measure(peer *p, void *data, size_t bytes, int64_t deadline_ns, int64_t *ns) {
    kernels *k = p->o.kernels;
    size_t count = bytes / (kernels_sums_type(k) == KERNELS_SUMS_BF16 ? 2 : 8);
    *ns = INT64_MAX;
    for (int round = 0; round < 2; round++) {
        TRY(comm_barrier(p->o.comm, deadline_ns));
        int64_t start = clock_now_ns();
        for (int i = 0; i < TRIAL_RUNS; i++)
            TRY(sum(p, data, count, kernels_sums_type(k), deadline_ns));
        TRY(wait_for_device(p, deadline_ns));
        int64_t spent = (clock_now_ns() - start) / TRIAL_RUNS;
        *ns = spent < *ns ? spent : *ns;
    }
    return status_ok();
}

// The size up to which one-shot is faster: doubled until it is not. Rank 0's clock decides for all.
static status find_crossover(peer *p, void *data, size_t most, int64_t deadline_ns) {
    comm *c = p->o.comm;
    uint64_t best = 0;
    int64_t one = 0, two = 0;
    for (size_t bytes = TRIAL_FIRST_BYTES; bytes <= most; bytes *= 2) {
        peer_group_set_one_shot(p->group, bytes);
        TRY(measure(p, data, bytes, deadline_ns, &one));
        peer_group_set_one_shot(p->group, 0);
        TRY(measure(p, data, bytes, deadline_ns, &two));
        int32_t faster = one <= two;
        TRY(comm_broadcast(c, &faster, sizeof faster, deadline_ns));
        if (!faster) break;
        best = bytes;
    }
    // Nothing is faster than one-shot below the first size tried.
    size_t crossover = best ? best : TRIAL_FIRST_BYTES / 2;
    peer_group_set_one_shot(p->group, crossover);
    if (comm_rank(c) == 0)
        log_info("reduce",
                 "peer memory of %d ranks: one-shot to %zu KiB, two-shot beyond (last tried: %.1f "
                 "against %.1f us)",
                 comm_size(c), crossover >> 10, (double)one / 1e3, (double)two / 1e3);
    return status_ok();
}

static status tune(peer *p, size_t most, int64_t deadline_ns) {
    if (p->o.one_shot_bytes > 0) {
        peer_group_set_one_shot(p->group, p->o.one_shot_bytes);
        return status_ok();
    }
    void *data = NULL;
    status s = comm_agree(p->o.comm, kernels_alloc(p->o.kernels, most, &data), deadline_ns);
    if (status_is_ok(&s)) s = find_crossover(p, data, most, deadline_ns);
    kernels_free(p->o.kernels, data);
    return comm_agree(p->o.comm, s, deadline_ns);
}

static status suits(const reduce_options *o) {
    if (!kernels_stream(o->kernels))
        return status_error(STATUS_FAILED_PRECONDITION,
                            "peer memory joins CUDA devices; this rank computes on the %s",
                            kernels_name(o->kernels));
    if (comm_local_size(o->comm) != comm_size(o->comm))
        return status_error(STATUS_FAILED_PRECONDITION,
                            "peer memory joins the ranks of one host; use --reduce nccl");
    if (comm_size(o->comm) > PEER_RANKS_MAX)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "peer memory joins up to %d ranks; use --reduce nccl", PEER_RANKS_MAX);
    return status_ok();
}

static status create(peer *p, peer_invitation *mine) {
    size_t longest = kernels_sums_bytes(p->o.kernels, p->o.max_count);
    peer_group_options options = {.rank = comm_rank(p->o.comm),
                                  .ranks = comm_size(p->o.comm),
                                  .first = comm_number(p->o.comm, 0),
                                  .one_shot_bytes = least(ONE_SHOT_BYTES, longest),
                                  .two_shot_bytes = least(TWO_SHOT_BYTES, longest),
                                  // The rest is for the host to hear of it, and tell who it was.
                                  .limit_ns = p->o.timeout_ns / 4 * 3};
    return peer_group_create(&options, &p->group, mine);
}

status reduce_peer_open(const reduce_options *o, int64_t deadline_ns, const reduce_ops **ops,
                        void **state) {
    static const reduce_ops peer_ops = {.name = "peer",
                                        .queues = true,
                                        .sum = sum,
                                        .add_rmsnorm = add_rmsnorm,
                                        .check = check,
                                        .close = close_peer};
    TRY(comm_agree(o->comm, suits(o), deadline_ns));
    peer *p = calloc(1, sizeof *p);
    peer_invitation mine = {0};
    status s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the reduction");
    if (p) {
        p->o = *o;
        s = create(p, &mine);
    }
    s = comm_agree(o->comm, s, deadline_ns);
    if (status_is_ok(&s)) s = join(p, &mine, deadline_ns);
    size_t most = least(ONE_SHOT_BYTES, kernels_sums_bytes(o->kernels, o->max_count));
    if (status_is_ok(&s)) s = tune(p, most, deadline_ns);
    if (status_is_ok(&s)) {
        *ops = &peer_ops;
        *state = p;
    } else if (p) {
        peer_group_destroy(p->group);
        free(p);
    }
    return s;
}
