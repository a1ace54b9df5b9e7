// peer_group: see peer_group.h.
#include "kernels/cuda/peer_group.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/peer_multicast.h"

// The fused norm has one block, hence one multiprocessor, for a row of every rank: an estimate, not
// measured yet, of what it moves in the time of the kernel that it saves.
enum { FUSED_ROW_BYTES = 64 << 10 };

struct peer_group {
    peer_view view;
    int first;
    size_t one_shot_bytes;
    multicast_view multicast;
    size_t multicast_from; // SIZE_MAX: none
    uint32_t *report;      // (PEER_RANKS_MAX) pinned; view.report is the device's name for it
    bool joined[PEER_RANKS_MAX];
};

static_assert(sizeof(cudaIpcMemHandle_t) == sizeof((peer_invitation){0}.memory),
              "an invitation carries a handle");

static status check_cuda(cudaError_t e, const char *what) {
    if (e == cudaSuccess) return status_ok();
    cudaGetLastError(); // taken note of
    return status_error(e == cudaErrorMemoryAllocation ? STATUS_RESOURCE_EXHAUSTED
                                                       : STATUS_INTERNAL,
                        "peer memory: %s: %s", what, cudaGetErrorString(e));
}

// Who waited in vain must not see a number of an operation long past, so all starts from zero.
static status make_region(peer_group *g) {
    void *region = NULL;
    TRY(check_cuda(cudaMalloc(&region, g->view.layout.total), "device memory"));
    g->view.regions[g->view.rank] = region;
    TRY(check_cuda(cudaMemset(region, 0, g->view.layout.total), "clearing it"));
    return check_cuda(cudaDeviceSynchronize(), "clearing it");
}

static status make_report(peer_group *g) {
    void *host = NULL, *device = NULL;
    size_t bytes = PEER_RANKS_MAX * sizeof *g->report;
    TRY(check_cuda(cudaHostAlloc(&host, bytes, cudaHostAllocMapped | cudaHostAllocPortable),
                   "pinned host memory"));
    g->report = host;
    memset(host, 0, bytes);
    TRY(check_cuda(cudaHostGetDevicePointer(&device, host, 0), "pinned host memory"));
    g->view.report = device;
    return status_ok();
}

static status invite(const peer_group *g, peer_invitation *mine) {
    *mine = (peer_invitation){.process = getpid(), .bytes = g->view.layout.total};
    cudaIpcMemHandle_t handle;
    int device = 0;
    TRY(check_cuda(cudaGetDevice(&device), "device"));
    TRY(check_cuda(cudaDeviceGetPCIBusId(mine->card, sizeof mine->card, device), "bus id"));
    TRY(check_cuda(cudaIpcGetMemHandle(&handle, g->view.regions[g->view.rank]),
                   "sharing device memory between processes"));
    memcpy(mine->memory, &handle, sizeof handle);
    return status_ok();
}

status peer_group_create(const peer_group_options *o, peer_group **out, peer_invitation *mine) {
    assert(o->ranks >= 2 && o->ranks <= PEER_RANKS_MAX && o->rank >= 0 && o->rank < o->ranks);
    assert(o->limit_ns > 0);
    peer_group *g = calloc(1, sizeof *g);
    if (!g) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a peer group");
    g->view = (peer_view){
        .rank = o->rank,
        .ranks = o->ranks,
        .layout = peer_layout_of(o->ranks, o->one_shot_bytes, o->two_shot_bytes),
        .limit_ns = (uint64_t)o->limit_ns,
    };
    g->first = o->first;
    g->one_shot_bytes = g->view.layout.one_shot_bytes;
    g->multicast_from = SIZE_MAX;
    status s = make_region(g);
    if (status_is_ok(&s)) s = make_report(g);
    if (status_is_ok(&s)) s = invite(g, mine);
    if (status_is_ok(&s))
        *out = g;
    else
        peer_group_destroy(g);
    return s;
}

// Cards that this process sees can be asked; of others the mapping tells.
static status check_reach(const peer_invitation *theirs, int rank) {
    int mine = 0, other = 0, reach = 0;
    TRY(check_cuda(cudaGetDevice(&mine), "device"));
    if (cudaDeviceGetByPCIBusId(&other, theirs->card) != cudaSuccess) {
        cudaGetLastError();
        return status_ok();
    }
    if (other == mine) return status_ok();
    TRY(check_cuda(cudaDeviceCanAccessPeer(&reach, mine, other), "peer access"));
    if (reach) return status_ok();
    return status_error(STATUS_FAILED_PRECONDITION,
                        "this card cannot reach the memory of rank %d's card (%.31s); use --reduce "
                        "nccl",
                        rank, theirs->card);
}

static status map_region(peer_group *g, int rank, const peer_invitation *theirs) {
    if (theirs->bytes != g->view.layout.total)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "rank %d shares %llu bytes of device memory, this rank %zu: start all "
                            "ranks with the same options",
                            rank, (unsigned long long)theirs->bytes, g->view.layout.total);
    if (theirs->process == getpid())
        return status_error(STATUS_FAILED_PRECONDITION,
                            "rank %d is in this process; peer memory joins processes", rank);
    TRY(check_reach(theirs, rank));
    cudaIpcMemHandle_t handle;
    memcpy(&handle, theirs->memory, sizeof handle);
    void *region = NULL;
    cudaError_t e = cudaIpcOpenMemHandle(&region, handle, cudaIpcMemLazyEnablePeerAccess);
    if (e != cudaSuccess) {
        cudaGetLastError();
        return status_error(STATUS_FAILED_PRECONDITION,
                            "device memory of rank %d (card %.31s) cannot be mapped here: %s; use "
                            "--reduce nccl",
                            rank, theirs->card, cudaGetErrorString(e));
    }
    g->view.regions[rank] = region;
    g->joined[rank] = true;
    return status_ok();
}

status peer_group_join(peer_group *g, const peer_invitation *all) {
    for (int i = 1; i < g->view.ranks; i++) {
        int rank = (g->view.rank + i) % g->view.ranks;
        TRY(map_region(g, rank, &all[rank]));
    }
    return status_ok();
}

void peer_group_set_one_shot(peer_group *g, size_t bytes) {
    size_t most = g->view.layout.one_shot_bytes;
    g->one_shot_bytes = bytes < most ? bytes : most;
}

void peer_group_set_multicast(peer_group *g, const multicast_view *memory, size_t from_bytes) {
    g->multicast = memory ? *memory : (multicast_view){0};
    g->multicast_from = memory ? from_bytes : SIZE_MAX;
}

typedef enum way { ONE_SHOT, TWO_SHOT, MULTICAST } way;

static way way_of(const peer_group *g, size_t bytes) {
    if (bytes <= g->one_shot_bytes) return ONE_SHOT;
    return bytes >= g->multicast_from ? MULTICAST : TWO_SHOT;
}

static status sum_piece(peer_group *g, way how, void *stream, void *data, size_t count,
                        kernels_sums type) {
    switch (how) {
    case ONE_SHOT:
        return check_cuda(peer_one_shot(stream, &g->view, data, count, type), "one-shot sum");
    case TWO_SHOT:
        return check_cuda(peer_two_shot(stream, &g->view, data, count, type), "two-shot sum");
    case MULTICAST:
        break;
    }
    return check_cuda(peer_multicast_sum(stream, &g->view, &g->multicast, data, count, type),
                      "multicast sum");
}

status peer_group_sum(peer_group *g, void *stream, void *data, size_t count, kernels_sums type) {
    size_t each = type == KERNELS_SUMS_BF16 ? 2 : 8;
    way how = way_of(g, count * each);
    size_t room[] = {[ONE_SHOT] = g->view.layout.one_shot_bytes,
                     [TWO_SHOT] = g->view.layout.two_shot_bytes,
                     [MULTICAST] = g->multicast.bytes};
    // Pieces of whole 16 bytes, so that each begins aligned.
    size_t most = room[how] / each;
    for (size_t at = 0; at < count; at += most) {
        size_t n = count - at < most ? count - at : most;
        TRY(sum_piece(g, how, stream, (char *)data + at * each, n, type));
    }
    return status_ok();
}

// Whether sum and norm pay as one kernel, and it takes them.
static bool fuses(const peer_group *g, way how, const float *x, const void *sums, kernels_sums type,
                  const float *weight, int tokens, int width) {
    if (how == MULTICAST)
        return peer_multicast_norm_takes(&g->multicast, x, sums, type, weight, tokens, width);
    size_t row = (size_t)width * (type == KERNELS_SUMS_BF16 ? 2 : 8) * (size_t)(g->view.ranks - 1);
    return how == ONE_SHOT && tokens > 0 && row <= FUSED_ROW_BYTES &&
           peer_norm_takes(&g->view, x, sums, type, weight, tokens, width);
}

status peer_group_add_rmsnorm(peer_group *g, void *stream, float *x, void *sums, kernels_sums type,
                              const float *weight, float epsilon, int tokens, int width,
                              void *out) {
    size_t count = (size_t)tokens * (size_t)width;
    way how = way_of(g, count * (type == KERNELS_SUMS_BF16 ? 2 : 8));
    if (fuses(g, how, x, sums, type, weight, tokens, width)) {
        if (how == ONE_SHOT)
            return check_cuda(peer_one_shot_add_rmsnorm(stream, &g->view, x, sums, type, weight,
                                                        epsilon, tokens, width, out),
                              "one-shot sum and norm");
        return check_cuda(peer_multicast_add_rmsnorm(stream, &g->view, &g->multicast, x, sums, type,
                                                     weight, epsilon, tokens, width, out),
                          "multicast sum and norm");
    }
    TRY(peer_group_sum(g, stream, sums, count, type));
    if (tokens == 0) return status_ok();
    return check_cuda(cuda_add_rmsnorm(stream, x, sums, type, weight, epsilon, tokens, width, out),
                      "norm");
}

status peer_group_gather(peer_group *g, void *stream, void *parts, size_t each) {
    if (each == 0) return status_ok();
    if (each * (size_t)g->view.ranks <= g->one_shot_bytes)
        return check_cuda(peer_gather_cells(stream, &g->view, parts, each), "gathering");
    size_t most = g->view.layout.gather_bytes;
    for (size_t at = 0; at < each; at += most) {
        size_t bytes = each - at < most ? each - at : most;
        TRY(check_cuda(peer_gather(stream, &g->view, parts, each, at, bytes), "gathering"));
    }
    return status_ok();
}

status peer_group_check(const peer_group *g) {
    char missing[PEER_RANKS_MAX * 6] = "";
    uint32_t operation = 0;
    int used = 0;
    for (int rank = 0; rank < g->view.ranks; rank++) {
        uint32_t at = __atomic_load_n(&g->report[rank], __ATOMIC_RELAXED);
        if (at == 0) continue;
        operation = at;
        used += snprintf(missing + used, sizeof missing - (size_t)used, "%s%d", used ? ", " : "",
                         g->first + rank);
    }
    if (used == 0) return status_ok();
    return status_error(STATUS_UNAVAILABLE,
                        "rank %s did not come to sum %u within %.1f s: its process or card has "
                        "stopped",
                        missing, operation, (double)g->view.limit_ns / (double)CLOCK_SECOND);
}

void peer_group_leave(peer_group *g) {
    for (int rank = 0; rank < g->view.ranks; rank++) {
        if (g->joined[rank]) cudaIpcCloseMemHandle(g->view.regions[rank]);
        g->joined[rank] = false;
    }
}

void peer_group_destroy(peer_group *g) {
    if (!g) return;
    peer_group_leave(g);
    cudaFree(g->view.regions[g->view.rank]);
    if (g->report) cudaFreeHost(g->report);
    free(g);
}
