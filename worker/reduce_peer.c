// reduce_peer: sums by kernels that meet in each other's device memory (kernels/cuda/peer.h), or
// through the switch between the cards (kernels/cuda/peer_multicast.h). Here: the ranks exchange
// how their memory is mapped, try whether the switch adds right, and measure which way is the
// fastest from which size on.
//
// One-shot and two-shot give the same bits. The switch gives them where no order of additions can
// give others: of exact sums. Its BF16 sums would let a row's numbers depend on the length of the
// message, that is on the other rows of the step, which only `fast` allows. All ranks hold the same
// bits in any case.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/dtype.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "kernels/cuda/peer_group.h"
#include "worker/reduce_multicast.h"
#include "worker/reduce_transport.h"

enum {
    ONE_SHOT_BYTES = 512 << 10,
    TWO_SHOT_BYTES = 16 << 20, // longer messages gain nothing, and cost four times their length
    TRIAL_RUNS = 20,
    TRIAL_FIRST_BYTES = 16 << 10,
    TRIAL_LAST_BYTES = 8 << 20,
    CHECKED_BYTES = 64 << 10, // of sums that the switch must get right first
    CLOSE_TIMEOUT_S = 5,
};

typedef struct peer {
    reduce_options o;
    peer_group *group;
    multicast *multicast;  // NULL: none
    size_t multicast_from; // SIZE_MAX: it is not used
} peer;

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static status sum(void *state, void *sums, size_t count, kernels_sums type, int64_t deadline_ns) {
    peer *p = state;
    (void)deadline_ns; // the kernels' own limit holds, from when they start
    return peer_group_sum(p->group, kernels_stream(p->o.kernels), sums, count, type);
}

static status gather(void *state, float *parts, size_t count, int64_t deadline_ns) {
    peer *p = state;
    (void)deadline_ns;
    return peer_group_gather(p->group, kernels_stream(p->o.kernels), parts, count * sizeof *parts);
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
    if (status_is_ok(&s)) {
        multicast_close(p->multicast);
        peer_group_destroy(p->group);
    }
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

// ---- Which way

typedef enum way { ONE_SHOT, TWO_SHOT, MULTICAST, WAYS } way;

static void set_ways(peer *p, size_t one_shot_bytes, size_t multicast_from) {
    peer_group_set_one_shot(p->group, one_shot_bytes);
    p->multicast_from = p->multicast ? multicast_from : SIZE_MAX;
    multicast_view memory = {0};
    if (p->multicast_from < SIZE_MAX) memory = multicast_view_of(p->multicast);
    peer_group_set_multicast(p->group, memory.own ? &memory : NULL, p->multicast_from);
}

static void set_way(peer *p, way how) {
    set_ways(p, how == ONE_SHOT ? ONE_SHOT_BYTES : 0, how == MULTICAST ? 0 : SIZE_MAX);
}

// Numbers whose sums over ranks are exact, whoever adds them in whatever order.
static void fill(const peer *p, void *host, size_t count) {
    rng random = rng_make((uint64_t)comm_rank(p->o.comm) + 1);
    bool bf16 = kernels_sums_type(p->o.kernels) == KERNELS_SUMS_BF16;
    for (size_t i = 0; i < count; i++) {
        uint64_t bits = rng_next(&random);
        if (bf16)
            ((uint16_t *)host)[i] = dtype_f32_to_bf16((float)((int)(bits % 17) - 8));
        else
            ((double *)host)[i] =
                (double)((int64_t)(bits >> 14) - (INT64_C(1) << 49)) * KERNELS_SUM_GRID;
    }
}

static status sum_by(peer *p, way how, const void *host, size_t count, void *device, void *out,
                     int64_t deadline_ns) {
    kernels *k = p->o.kernels;
    size_t bytes = kernels_sums_bytes(k, count);
    set_way(p, how);
    TRY(kernels_upload(k, device, host, bytes));
    TRY(sum(p, device, count, kernels_sums_type(k), deadline_ns));
    TRY(wait_for_device(p, deadline_ns));
    return kernels_download(k, out, device, bytes);
}

// Whether the switch adds as the cards do. How it does is not ours to know, so it is tried.
static status try_switch(peer *p, void *device, size_t most, bool *right, int64_t deadline_ns) {
    kernels *k = p->o.kernels;
    size_t bytes = least(CHECKED_BYTES, most), count = bytes / kernels_sums_bytes(k, 1);
    char *host = malloc(3 * bytes);
    status s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a trial of the switch");
    if (host) {
        fill(p, host, count);
        s = sum_by(p, TWO_SHOT, host, count, device, host + bytes, deadline_ns);
        if (status_is_ok(&s))
            s = sum_by(p, MULTICAST, host, count, device, host + 2 * bytes, deadline_ns);
        *right = status_is_ok(&s) && memcmp(host + bytes, host + 2 * bytes, bytes) == 0;
    }
    free(host);
    return s;
}

// Why there is no multicast; DEADLINE_EXCEEDED: and the group cannot go on.
static status open_multicast(peer *p, size_t bytes, int64_t deadline_ns) {
    if (!p->o.multicast) return status_error(STATUS_FAILED_PRECONDITION, "--multicast=false");
    if (kernels_sums_type(p->o.kernels) == KERNELS_SUMS_BF16 && !p->o.fast)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "BF16 sums keep the order of ranks; --sums exact or --fast allow it");
    return reduce_multicast_open(p->o.comm, bytes, deadline_ns, &p->multicast);
}

static void tell_none(const peer *p, const char *why) {
    if (comm_rank(p->o.comm) == 0)
        log_info("reduce", "no sums by the NVSwitch (multicast): %s", why);
}

// ns of one sum of `bytes`, at best of two rounds; the first also warms up.
static status measure(peer *p, void *data, size_t bytes, int64_t deadline_ns, int64_t *ns) {
    kernels *k = p->o.kernels;
    size_t count = bytes / kernels_sums_bytes(k, 1);
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

typedef struct trial {
    size_t bytes;
    int64_t ns[WAYS]; // INT64_MAX: not tried
} trial;

static status try_size(peer *p, void *data, size_t bytes, trial *t, int64_t deadline_ns) {
    *t = (trial){.bytes = bytes, .ns = {INT64_MAX, INT64_MAX, INT64_MAX}};
    for (way how = ONE_SHOT; how < WAYS; how++) {
        if (how == ONE_SHOT ? bytes > ONE_SHOT_BYTES : how == MULTICAST && !p->multicast) continue;
        set_way(p, how);
        TRY(measure(p, data, bytes, deadline_ns, &t->ns[how]));
    }
    return comm_broadcast(p->o.comm, t, sizeof *t, deadline_ns); // rank 0's clock decides for all
}

static void tell_ways(const peer *p, size_t one_shot, const trial *last) {
    static const char *const names[] = {"one-shot", "two-shot", "multicast"};
    char ways[96] = "two-shot beyond", tried[160] = "";
    if (p->multicast_from < SIZE_MAX && p->multicast_from > one_shot + 1)
        snprintf(ways, sizeof ways, "two-shot to %zu KiB, by the NVSwitch (multicast) beyond",
                 p->multicast_from >> 10);
    else if (p->multicast_from < SIZE_MAX)
        snprintf(ways, sizeof ways, "by the NVSwitch (multicast) beyond");
    for (int how = 0, used = 0; how < WAYS; how++)
        if (last->bytes > 0 && last->ns[how] < INT64_MAX)
            used += snprintf(tried + used, sizeof tried - (size_t)used, "%s %s %.1f us",
                             used ? "," : "", names[how], (double)last->ns[how] / 1e3);
    log_info("reduce", "peer memory of %d ranks: one-shot to %zu KiB, %s (last tried, %zu KiB:%s)",
             comm_size(p->o.comm), one_shot >> 10, ways, last->bytes >> 10, tried);
}

// One-shot up to a size, found by doubling; beyond it two-shot, until multicast is the faster.
static status find_ways(peer *p, void *data, size_t most, int64_t deadline_ns) {
    trial t = {0};
    bool short_one = true;
    // Nothing is faster than one-shot below the first size tried.
    size_t one_shot = TRIAL_FIRST_BYTES / 2, multicast_from = SIZE_MAX, lost = one_shot;
    for (size_t bytes = TRIAL_FIRST_BYTES; bytes <= most && multicast_from == SIZE_MAX;
         bytes *= 2) {
        TRY(try_size(p, data, bytes, &t, deadline_ns));
        short_one &= t.ns[ONE_SHOT] <= t.ns[TWO_SHOT] && t.ns[ONE_SHOT] <= t.ns[MULTICAST];
        if (short_one)
            one_shot = lost = bytes;
        else if (t.ns[MULTICAST] < t.ns[TWO_SHOT])
            multicast_from = lost + 1;
        else if (p->multicast)
            lost = bytes;
        else
            break;
    }
    set_ways(p, one_shot, multicast_from);
    if (comm_rank(p->o.comm) == 0) tell_ways(p, one_shot, &t);
    return status_ok();
}

static status tune_with(peer *p, void *data, size_t most, int64_t deadline_ns) {
    if (p->multicast) {
        bool right = false;
        status s = try_switch(p, data, most, &right, deadline_ns);
        TRY(comm_agree(p->o.comm, s, deadline_ns));
        if (!right) s = status_error(STATUS_DATA_LOSS, "its sums are not those of the cards");
        s = comm_agree(p->o.comm, s, deadline_ns);
        if (s.code == STATUS_DEADLINE_EXCEEDED) return s;
        if (!status_is_ok(&s)) {
            tell_none(p, s.message);
            multicast_close(p->multicast);
            p->multicast = NULL;
        }
    }
    if (p->o.one_shot_bytes == 0) return find_ways(p, data, most, deadline_ns);
    set_ways(p, p->o.one_shot_bytes, 0);
    return status_ok();
}

static status tune(peer *p, int64_t deadline_ns) {
    size_t longest = kernels_sums_bytes(p->o.kernels, p->o.max_count);
    set_ways(p, ONE_SHOT_BYTES, SIZE_MAX);
    status s = open_multicast(p, least(TWO_SHOT_BYTES, longest), deadline_ns);
    if (s.code == STATUS_DEADLINE_EXCEEDED) return s;
    if (!status_is_ok(&s)) tell_none(p, s.message);
    size_t most = least(p->multicast ? TRIAL_LAST_BYTES : ONE_SHOT_BYTES, longest);
    void *data = NULL;
    s = comm_agree(p->o.comm, kernels_alloc(p->o.kernels, most, &data), deadline_ns);
    if (status_is_ok(&s)) s = tune_with(p, data, most, deadline_ns);
    kernels_free(p->o.kernels, data);
    return comm_agree(p->o.comm, s, deadline_ns);
}

// ---- Opening

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
                                        .gather = gather,
                                        .add_rmsnorm = add_rmsnorm,
                                        .check = check,
                                        .close = close_peer};
    static const reduce_ops multicast_ops = {.name = "multicast",
                                             .queues = true,
                                             .sum = sum,
                                             .gather = gather,
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
    if (status_is_ok(&s)) s = tune(p, deadline_ns);
    if (status_is_ok(&s)) {
        *ops = p->multicast_from < SIZE_MAX ? &multicast_ops : &peer_ops;
        *state = p;
    } else if (p) {
        multicast_close(p->multicast);
        peer_group_destroy(p->group);
        free(p);
    }
    return s;
}
