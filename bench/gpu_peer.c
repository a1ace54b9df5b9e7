// gpu_peer: the sums in peer memory (kernels/cuda/peer.h), and through the switch between cards
// (kernels/cuda/peer_multicast.h).
//   processes   ranks as they are in a cluster, each a process of its own, joined by CUDA IPC: sums
//               whose result is known bit by bit. A card for each where there are several, and the
//               switch then, if it can; else two that take turns on one card, so that their time
//               says nothing of links.
//   multicast   the switch's kernels with a team of this one card, where its driver allows that:
//               their PTX at work, and what they cost before any other card adds to it.
//   streams     two and eight ranks as streams of one process, side by side on the card: what the
//               kernels cost before any link adds to it.
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/gpu.h"
#include "common/base/clock.h"
#include "kernels/cuda/peer_group.h"
#include "kernels/cuda/peer_multicast.h"

enum {
    PROCESSES_MAX = 8,
    ONE_SHOT_BYTES = 512 << 10,
    TWO_SHOT_BYTES = 8 << 20,
    RUNS = 8,
    STREAMS = 8
};
static const size_t real_sizes[] = {32 << 10, 256 << 10, 1 << 20, 8 << 20}; // bytes
static const size_t tiny_sizes[] = {1 << 10, 4 << 10};
static const int64_t limit_ns = 10 * CLOCK_SECOND;

static size_t sizes_of(const gpu *g, const size_t **sizes) {
    *sizes = g->tiny ? tiny_sizes : real_sizes;
    return g->tiny ? sizeof tiny_sizes / sizeof *tiny_sizes
                   : sizeof real_sizes / sizeof *real_sizes;
}

// Whole numbers so small that no sum of them is rounded.
static uint16_t value(int rank, size_t i) {
    return dtype_f32_to_bf16((float)((i * 7 + (size_t)rank * 13) % 16));
}

static float whole(int ranks, size_t i) {
    float sum = 0;
    for (int rank = 0; rank < ranks; rank++) sum += dtype_bf16_to_f32(value(rank, i));
    return sum;
}

// ---- processes

typedef struct meeting { // memory that all processes see
    int processes;
    bool several; // cards
    peer_invitation invitations[PROCESSES_MAX];
    multicast_seat seats[PROCESSES_MAX];
    _Atomic int arrived, refused;
} meeting;

static void meet(meeting *m, int *round) {
    int64_t deadline = clock_now_ns() + limit_ns;
    atomic_fetch_add(&m->arrived, 1);
    *round += m->processes;
    while (atomic_load(&m->arrived) < *round) {
        if (clock_now_ns() > deadline)
            gpu_must(status_error(STATUS_UNAVAILABLE, "another process did not come"), "peer");
        usleep(100);
    }
}

// Whether s is OK on all, which decides for all.
static bool all_can(meeting *m, int *round, status s) {
    if (!status_is_ok(&s)) {
        printf("peer: no multicast: %s\n", s.message);
        atomic_fetch_add(&m->refused, 1);
    }
    meet(m, round);
    return atomic_load(&m->refused) == 0;
}

static multicast *open_multicast(meeting *m, int rank, int *round) {
    multicast *memory = NULL;
    multicast_options o = {.rank = rank, .ranks = m->processes, .bytes = TWO_SHOT_BYTES};
    if (all_can(m, round, multicast_open(&o, &memory, &m->seats[rank])) &&
        all_can(m, round, multicast_share(memory, m->seats)) &&
        all_can(m, round, multicast_bind(memory)))
        return memory;
    multicast_close(memory);
    return NULL;
}

static void check_sums(const void *device, uint16_t *host, size_t count, int ranks) {
    gpu_must_cuda(cudaMemcpy(host, device, count * 2, cudaMemcpyDeviceToHost), "a download");
    for (size_t i = 0; i < count; i++)
        if (host[i] != dtype_f32_to_bf16(whole(ranks, i)))
            gpu_must(status_error(STATUS_INTERNAL, "value %zu is %g, not %g", i,
                                  (double)dtype_bf16_to_f32(host[i]), (double)whole(ranks, i)),
                     "a sum over processes");
}

typedef enum way { ONE_SHOT, TWO_SHOT, MULTICAST, WAYS } way;
static const char *const way_names[] = {"one-shot", "two-shot", "multicast"};

static void run_size(gpu *g, peer_group *group, meeting *m, int rank, int *round, size_t bytes,
                     way how) {
    size_t count = bytes / 2;
    uint16_t *host = malloc(bytes);
    void *data = NULL;
    gpu_must_cuda(cudaMalloc(&data, bytes), "device memory");
    double best = 1e30;
    for (int run = 0; host && run < (g->tiny ? 2 : RUNS); run++) {
        for (size_t i = 0; i < count; i++) host[i] = value(rank, i);
        gpu_must_cuda(cudaMemcpy(data, host, bytes, cudaMemcpyHostToDevice), "an upload");
        peer_group_set_one_shot(group, how == ONE_SHOT ? ONE_SHOT_BYTES : 0);
        meet(m, round);
        int64_t start = clock_now_ns();
        gpu_must(peer_group_sum(group, NULL, data, count, KERNELS_SUMS_BF16), "a sum");
        gpu_must_cuda(cudaStreamSynchronize(NULL), "a sum");
        double seconds = (double)(clock_now_ns() - start) * 1e-9;
        best = seconds < best ? seconds : best;
        gpu_must(peer_group_check(group), "a sum");
        check_sums(data, host, count, m->processes);
    }
    free(host);
    gpu_must_cuda(cudaFree(data), "cudaFree");
    char name[80];
    snprintf(name, sizeof name, "%d processes %s sum %zu KiB", m->processes, way_names[how],
             bytes >> 10);
    if (rank == 0)
        gpu_report(g, "peer", name, best, 2 * (double)bytes, 0, 0,
                   m->several ? "exact; a card each" : "exact; taking turns on one card");
}

static void run_way(gpu *g, peer_group *group, meeting *m, int rank, int *round, way how) {
    const size_t *sizes;
    for (size_t i = 0, count = sizes_of(g, &sizes); i < count; i++)
        if (how != ONE_SHOT || sizes[i] <= ONE_SHOT_BYTES)
            run_size(g, group, m, rank, round, sizes[i], how);
}

static void run_process(gpu *g, meeting *m, int rank) {
    int round = 0, cards = 1;
    gpu_must_cuda(cudaGetDeviceCount(&cards), "the cards");
    gpu_must_cuda(cudaSetDevice((g->device + (m->several ? rank : 0)) % cards), "the card");
    peer_group_options options = {.rank = rank,
                                  .ranks = m->processes,
                                  .one_shot_bytes = ONE_SHOT_BYTES,
                                  .two_shot_bytes = TWO_SHOT_BYTES,
                                  .limit_ns = limit_ns};
    peer_group *group = NULL;
    gpu_must(peer_group_create(&options, &group, &m->invitations[rank]), "a peer group");
    meet(m, &round);
    gpu_must(peer_group_join(group, m->invitations), "a peer group");
    run_way(g, group, m, rank, &round, ONE_SHOT);
    run_way(g, group, m, rank, &round, TWO_SHOT);
    multicast *memory = m->several ? open_multicast(m, rank, &round) : NULL;
    if (memory) {
        multicast_view view = multicast_view_of(memory);
        peer_group_set_multicast(group, &view, 0);
        run_way(g, group, m, rank, &round, MULTICAST);
    }
    peer_group_leave(group);
    meet(m, &round);
    multicast_close(memory);
    peer_group_destroy(group);
}

// How many cards there are, asked in a child: CUDA must not have been touched before a fork.
static int count_cards(void) {
    pid_t child = fork();
    if (child == 0) {
        int cards = 0;
        _exit(cudaGetDeviceCount(&cards) == cudaSuccess ? cards : 0);
    }
    int how = 0;
    bool ended = child > 0 && waitpid(child, &how, 0) == child && WIFEXITED(how);
    return ended ? WEXITSTATUS(how) : 0;
}

static void run_processes(gpu *g) {
    meeting *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED) gpu_must(status_error(STATUS_RESOURCE_EXHAUSTED, "no memory"), "peer");
    int cards = count_cards();
    m->several = cards > 1;
    m->processes = cards > PROCESSES_MAX ? PROCESSES_MAX : cards > 1 ? cards : 2;
    fflush(NULL);
    pid_t children[PROCESSES_MAX];
    for (int rank = 0; rank < m->processes; rank++) {
        children[rank] = fork();
        if (children[rank] < 0) gpu_must(status_error(STATUS_RESOURCE_EXHAUSTED, "fork"), "peer");
        if (children[rank] > 0) continue;
        run_process(g, m, rank);
        fflush(NULL);
        _exit(0);
    }
    bool good = true;
    for (int rank = 0; rank < m->processes; rank++) {
        int how = 0;
        good = waitpid(children[rank], &how, 0) == children[rank] && how == 0 && good;
    }
    munmap(m, sizeof *m);
    if (!good) gpu_must(status_error(STATUS_INTERNAL, "a process failed"), "sums over processes");
}

// ---- streams

typedef struct streams {
    int ranks;
    peer_view views[STREAMS];
    cudaStream_t streams[STREAMS];
    cudaEvent_t begin, ends[STREAMS];
    void *data[STREAMS];
    uint32_t *report;
} streams;

static void open_streams(streams *s, size_t bytes) {
    peer_layout layout = peer_layout_of(s->ranks, ONE_SHOT_BYTES, TWO_SHOT_BYTES);
    gpu_must_cuda(
        cudaHostAlloc((void **)&s->report, sizeof *s->report * PEER_RANKS_MAX, cudaHostAllocMapped),
        "pinned memory");
    memset(s->report, 0, sizeof *s->report * PEER_RANKS_MAX);
    gpu_must_cuda(cudaEventCreate(&s->begin), "cudaEventCreate");
    unsigned char *regions[STREAMS];
    for (int i = 0; i < s->ranks; i++) {
        gpu_must_cuda(cudaMalloc((void **)&regions[i], layout.total), "device memory");
        gpu_must_cuda(cudaMemset(regions[i], 0, layout.total), "cudaMemset");
        gpu_must_cuda(cudaMalloc(&s->data[i], bytes), "device memory");
        gpu_must_cuda(cudaMemset(s->data[i], 0, bytes), "cudaMemset");
        gpu_must_cuda(cudaStreamCreateWithFlags(&s->streams[i], cudaStreamNonBlocking), "a stream");
        gpu_must_cuda(cudaEventCreate(&s->ends[i]), "cudaEventCreate");
    }
    for (int i = 0; i < s->ranks; i++) {
        s->views[i] = (peer_view){.rank = i,
                                  .ranks = s->ranks,
                                  .layout = layout,
                                  .report = s->report,
                                  .limit_ns = (uint64_t)limit_ns};
        memcpy(s->views[i].regions, regions, (size_t)s->ranks * sizeof *regions);
    }
}

static void close_streams(streams *s) {
    for (int i = 0; i < s->ranks; i++) {
        cudaFree(s->views[0].regions[i]);
        cudaFree(s->data[i]);
        cudaStreamDestroy(s->streams[i]);
        cudaEventDestroy(s->ends[i]);
    }
    cudaEventDestroy(s->begin);
    cudaFreeHost(s->report);
}

// RUNS sums of every rank, the ranks side by side, as one graph: a host that starts eight kernels
// one by one would be what is measured.
static cudaGraphExec_t record(streams *s, size_t count, bool one_shot) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    gpu_must_cuda(cudaStreamBeginCapture(s->streams[0], cudaStreamCaptureModeThreadLocal),
                  "a recording");
    gpu_must_cuda(cudaEventRecord(s->begin, s->streams[0]), "a fork");
    for (int i = 0; i < s->ranks; i++) {
        if (i > 0) gpu_must_cuda(cudaStreamWaitEvent(s->streams[i], s->begin, 0), "a fork");
        for (int run = 0; run < RUNS; run++)
            gpu_must_cuda((one_shot ? peer_one_shot : peer_two_shot)(
                              s->streams[i], &s->views[i], s->data[i], count, KERNELS_SUMS_BF16),
                          "a sum");
        if (i == 0) continue;
        gpu_must_cuda(cudaEventRecord(s->ends[i], s->streams[i]), "a join");
        gpu_must_cuda(cudaStreamWaitEvent(s->streams[0], s->ends[i], 0), "a join");
    }
    gpu_must_cuda(cudaStreamEndCapture(s->streams[0], &graph), "a recording's end");
    gpu_must_cuda(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    gpu_must_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
    return exec;
}

static double time_streams(streams *s, size_t count, bool one_shot) {
    cudaGraphExec_t exec = record(s, count, one_shot);
    cudaEvent_t end = s->ends[0];
    float best = 1e30f, ms = 0;
    for (int i = 0; i < 10; i++) {
        gpu_must_cuda(cudaEventRecord(s->begin, s->streams[0]), "cudaEventRecord");
        gpu_must_cuda(cudaGraphLaunch(exec, s->streams[0]), "cudaGraphLaunch");
        gpu_must_cuda(cudaEventRecord(end, s->streams[0]), "cudaEventRecord");
        gpu_must_cuda(cudaStreamSynchronize(s->streams[0]), "sums side by side");
        gpu_must_cuda(cudaEventElapsedTime(&ms, s->begin, end), "cudaEventElapsedTime");
        best = ms < best ? ms : best;
    }
    gpu_must_cuda(cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
    for (int i = 0; i < s->ranks; i++)
        if (s->report[i])
            gpu_must(
                status_error(STATUS_INTERNAL, "rank %d was not side by side with the others", i),
                "sums of streams");
    return (double)best * 1e-3 / RUNS;
}

static void run_streams(gpu *g, int ranks) {
    const size_t *sizes;
    size_t count = sizes_of(g, &sizes);
    streams s = {.ranks = ranks};
    open_streams(&s, sizes[count - 1]);
    for (size_t i = 0; i < count; i++) {
        for (int one_shot = sizes[i] <= ONE_SHOT_BYTES; one_shot >= 0; one_shot--) {
            char name[80];
            snprintf(name, sizeof name, "%d streams %s sum %zu KiB", ranks,
                     one_shot ? "one-shot" : "two-shot", sizes[i] >> 10);
            if (gpu_wanted(g, name))
                gpu_report(g, "peer", name, time_streams(&s, sizes[i] / 2, one_shot),
                           2 * (double)sizes[i] * ranks, 0, 0, "no link between ranks");
        }
    }
    close_streams(&s);
}

// ---- multicast

static void time_team(gpu *g, const peer_view *peers, const multicast_view *memory, size_t bytes) {
    char name[80];
    snprintf(name, sizeof name, "multicast of one card %zu KiB", bytes >> 10);
    if (!gpu_wanted(g, name)) return;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaStream_t stream;
    cudaEvent_t begin, end;
    void *data = NULL;
    gpu_must_cuda(cudaMalloc(&data, bytes), "device memory");
    gpu_must_cuda(cudaMemset(data, 0, bytes), "cudaMemset");
    gpu_must_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    gpu_must_cuda(cudaEventCreate(&begin), "cudaEventCreate");
    gpu_must_cuda(cudaEventCreate(&end), "cudaEventCreate");
    gpu_must_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "a recording");
    for (int run = 0; run < RUNS; run++)
        gpu_must_cuda(peer_multicast_sum(stream, peers, memory, data, bytes / 2, KERNELS_SUMS_BF16),
                      "a sum");
    gpu_must_cuda(cudaStreamEndCapture(stream, &graph), "a recording's end");
    gpu_must_cuda(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    float best = 1e30f, ms = 0;
    for (int i = 0; i < (g->tiny ? 2 : 10); i++) {
        gpu_must_cuda(cudaEventRecord(begin, stream), "cudaEventRecord");
        gpu_must_cuda(cudaGraphLaunch(exec, stream), "cudaGraphLaunch");
        gpu_must_cuda(cudaEventRecord(end, stream), "cudaEventRecord");
        gpu_must_cuda(cudaStreamSynchronize(stream), "sums by a team of one");
        gpu_must_cuda(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
        best = ms < best ? ms : best;
    }
    gpu_report(g, "peer", name, (double)best * 1e-3 / RUNS, 6 * (double)bytes, 0, 0,
               "no other card");
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    cudaStreamDestroy(stream);
    cudaFree(data);
}

static status join_alone(multicast **out) {
    multicast_options o = {.rank = 0, .ranks = 1, .bytes = TWO_SHOT_BYTES};
    multicast_seat seat;
    TRY(multicast_open(&o, out, &seat));
    TRY(multicast_share(*out, &seat));
    return multicast_bind(*out);
}

static void run_team(gpu *g) {
    multicast *memory = NULL;
    status s = join_alone(&memory);
    if (!status_is_ok(&s)) {
        printf("peer: no multicast with one card: %s\n", s.message);
        multicast_close(memory);
        return;
    }
    peer_view peers = {
        .ranks = 1, .layout = peer_layout_of(1, 16, 16), .limit_ns = (uint64_t)limit_ns};
    multicast_view view = multicast_view_of(memory);
    gpu_must_cuda(cudaMalloc((void **)&peers.regions[0], peers.layout.total), "device memory");
    gpu_must_cuda(cudaMemset(peers.regions[0], 0, peers.layout.total), "cudaMemset");
    const size_t *sizes;
    for (size_t i = 0, count = sizes_of(g, &sizes); i < count; i++)
        time_team(g, &peers, &view, sizes[i]);
    cudaFree(peers.regions[0]);
    multicast_close(memory);
}

void gpu_run_peer(gpu *g) {
    run_processes(g);
    gpu_must_cuda(cudaSetDevice(g->device), "the card");
    run_team(g);
    if (g->tiny) return; // an emulated device runs one kernel at a time
    run_streams(g, 2);
    run_streams(g, STREAMS);
}
