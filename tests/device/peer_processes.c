// peer_processes: several processes that add through each other's device memory (peer_group.h),
// compared bit by bit with sums made here in rank order. On one card or several, emulated or real;
// needs no MPI: the parent forks before any CUDA call, and the ranks meet in shared memory.
//
//   peer_processes_NAME [--ranks N] [--seed N] [--limit MS] [--kill RANK] [--multicast] [--bench]
//
// --multicast: by multicast memory too (peer_multicast.h); exit status 77 where there is none.
// --kill: that rank is killed in the middle; the others must name it within the limit.
// --bench: times of one sum by all ways, over sizes.
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/peer_group.h"

enum {
    ONE_SHOT_BYTES = 64 << 10,
    TWO_SHOT_BYTES = 256 << 10,
    MULTICAST_BYTES = 512 << 10, // the longest messages are cut
    LONGEST = 200 * 1000,        // sum
    COUNT_MAX = 600 * 1000,      // doubles of each array
    ROUNDS = 12,
    CALLED = 4, // what messages call rank 0
    MEET_TIMEOUT_S = 120,
    BENCH_RUNS = 200,
    SHOWN_MAX = 3, // failures of a rank that are told
    SKIPPED = 77,
};

typedef enum way { ONE_SHOT, TWO_SHOT, MULTICAST, WAYS } way;
static const char *const way_names[] = {"one-shot", "two-shot", "multicast"};

typedef struct settings {
    int ranks, kill;
    uint64_t seed;
    int64_t limit_ns;
    bool bench, multicast;
} settings;

// What the ranks share; zeroed at the start.
typedef struct board {
    _Atomic int arrived;
    peer_invitation invitations[PEER_RANKS_MAX];
    multicast_seat seats[PEER_RANKS_MAX];
    uint64_t digests[PEER_RANKS_MAX];
} board;

typedef struct rank {
    const settings *s;
    board *board;
    int index, failed, passed, meetings;
    cudaStream_t stream;
    peer_group *group;
    multicast *multicast;                     // NULL: not asked for
    void *device, *host, *got, *want, *other; // host is what goes in, got what comes out
} rank;

#define NEED(call)                                                                                 \
    do {                                                                                           \
        cudaError_t need_ = (call);                                                                \
        if (need_ != cudaSuccess) stop(r, #call, cudaGetErrorString(need_));                       \
    } while (0)

static void stop(const rank *r, const char *what, const char *why) {
    fprintf(stderr, "rank %d: %s: %s\n", r->index, what, why);
    _exit(2);
}

static void need(const rank *r, const char *what, status s) {
    if (!status_is_ok(&s)) stop(r, what, s.message);
}

static bool meet(rank *r) {
    int64_t until = clock_now_ns() + MEET_TIMEOUT_S * CLOCK_SECOND;
    int all = ++r->meetings * r->s->ranks;
    atomic_fetch_add(&r->board->arrived, 1);
    while (atomic_load(&r->board->arrived) < all) {
        if (clock_now_ns() > until) return false;
        clock_sleep_until(clock_now_ns() + CLOCK_MS / 5);
    }
    return true;
}

static void need_all(rank *r) {
    if (!meet(r)) stop(r, "meeting the other ranks", "they have not come");
}

// ---- Inputs that every rank can work out for every other

static uint64_t mix(uint64_t x) { // SplitMix64
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static float bf16_value(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &word, sizeof x);
    return x;
}

static uint16_t bf16_bits(float x) { // to nearest even; finite
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    return (uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

// `exact`: integers whose sums over 16 ranks are exact in BF16. Else any number near 1, where the
// order of the additions shows.
static uint16_t input_bf16(uint64_t seed, int from, size_t i, bool exact) {
    uint64_t h = mix(seed ^ mix((uint64_t)from << 40 ^ i));
    if (exact) return bf16_bits((float)((int)(h % 17) - 8));
    uint16_t exponent = (uint16_t)(120 + h % 12);
    return (uint16_t)((h >> 20 & 0x807f) | exponent << 7);
}

// `exact`: on the grid of kernels_matmul_sums.
static double input_f64(uint64_t seed, int from, size_t i, bool exact) {
    uint64_t h = mix(seed ^ mix((uint64_t)from << 40 ^ i));
    double x = (double)((int64_t)(h >> 14) - (INT64_C(1) << 49)) * KERNELS_SUM_GRID;
    return exact ? x : x * 1.1;
}

static void fill(const rank *r, kernels_sums type, uint64_t seed, size_t count, bool exact) {
    for (size_t i = 0; i < count; i++) {
        if (type == KERNELS_SUMS_BF16)
            ((uint16_t *)r->host)[i] = input_bf16(seed, r->index, i, exact);
        else
            ((double *)r->host)[i] = input_f64(seed, r->index, i, exact);
    }
}

static void work_out(const rank *r, kernels_sums type, uint64_t seed, size_t count, bool exact) {
    for (size_t i = 0; i < count; i++) {
        if (type == KERNELS_SUMS_BF16) {
            float sum = bf16_value(input_bf16(seed, 0, i, exact));
            for (int from = 1; from < r->s->ranks; from++)
                sum += bf16_value(input_bf16(seed, from, i, exact));
            ((uint16_t *)r->want)[i] = bf16_bits(sum);
        } else {
            double sum = input_f64(seed, 0, i, exact);
            for (int from = 1; from < r->s->ranks; from++) sum += input_f64(seed, from, i, exact);
            ((double *)r->want)[i] = sum;
        }
    }
}

static size_t bytes_of(kernels_sums type, size_t count) {
    return count * (type == KERNELS_SUMS_BF16 ? 2 : 8);
}

static void compare(rank *r, const char *way, kernels_sums type, size_t count) {
    size_t bytes = bytes_of(type, count), at = 0;
    const unsigned char *got = r->got, *want = r->want;
    while (at < bytes && got[at] == want[at]) at++;
    if (at == bytes) {
        r->passed++;
        return;
    }
    if (r->failed++ >= SHOWN_MAX) return;
    fprintf(stderr, "rank %d: %s of %zu %s: byte %zu is %02x and should be %02x\n", r->index, way,
            count, type == KERNELS_SUMS_BF16 ? "BF16" : "doubles", at, got[at], want[at]);
}

static void go_by(rank *r, way how) {
    peer_group_set_one_shot(r->group, how == ONE_SHOT ? ONE_SHOT_BYTES : 0);
    if (how != MULTICAST) {
        peer_group_set_multicast(r->group, NULL, 0);
        return;
    }
    multicast_view memory = multicast_view_of(r->multicast);
    peer_group_set_multicast(r->group, &memory, 0);
}

static void queue(rank *r, kernels_sums type, size_t count, way how) {
    go_by(r, how);
    need(r, "sum", peer_group_sum(r->group, r->stream, r->device, count, type));
}

// One of the ways that there are.
static way draw(const rank *r, uint64_t h) {
    return (way)(h % (r->multicast ? WAYS : MULTICAST));
}

// ---- Cases

// A switch adds in its own order. But what it was told once, all ranks must hold.
static void compare_ranks(rank *r, kernels_sums type, size_t count) {
    const unsigned char *got = r->got;
    uint64_t digest = 0;
    for (size_t i = 0; i < bytes_of(type, count); i++) digest = mix(digest ^ got[i]);
    r->board->digests[r->index] = digest;
    need_all(r);
    bool same = digest == r->board->digests[0];
    need_all(r);
    r->passed += same;
    if (!same && r->failed++ < SHOWN_MAX)
        fprintf(stderr, "rank %d: multicast of %zu %s: other bits than rank 0 has\n", r->index,
                count, type == KERNELS_SUMS_BF16 ? "BF16" : "doubles");
}

static void check_size(rank *r, kernels_sums type, size_t count, way how, bool exact) {
    uint64_t seed = mix(r->s->seed ^ count ^ (uint64_t)type << 60 ^ (uint64_t)exact << 61);
    size_t bytes = bytes_of(type, count);
    fill(r, type, seed, count, exact);
    NEED(cudaMemcpyAsync(r->device, r->host, bytes, cudaMemcpyHostToDevice, r->stream));
    queue(r, type, count, how);
    NEED(cudaMemcpyAsync(r->got, r->device, bytes, cudaMemcpyDeviceToHost, r->stream));
    NEED(cudaStreamSynchronize(r->stream));
    need(r, "sum", peer_group_check(r->group));
    if (how == MULTICAST && !exact) {
        compare_ranks(r, type, count);
        return;
    }
    work_out(r, type, seed, count, exact);
    compare(r, way_names[how], type, count);
}

static void check_sizes(rank *r) {
    static const size_t counts[] = {1,     2,     3,     7,     8,      9,      63,
                                    64,    513,   576,   4096,  4099,   8192,   16384,
                                    16391, 32768, 50000, 65536, 100003, LONGEST};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (int mode = 0; mode < 8; mode++) {
            way how = mode & 2 ? ONE_SHOT : TWO_SHOT;
            if (r->multicast && mode & 2) how = MULTICAST; // the others have runs of their own
            if (r->multicast && !(mode & 2)) continue;
            check_size(r, mode & 1 ? KERNELS_SUMS_BF16 : KERNELS_SUMS_EXACT, counts[i], how,
                       mode & 4);
        }
}

// Sums of sums, queued without a look at the clock or at each other: sizes and ways change from one
// to the next, so a half that is written too early, or a flag of another shape, shows.
static void check_chain(rank *r) {
    size_t count = 6000, bytes = bytes_of(KERNELS_SUMS_EXACT, count);
    memset(r->host, 0, bytes);
    for (size_t i = 0; i < count; i++) ((double *)r->host)[i] = (double)(i % 7 + (size_t)r->index);
    NEED(cudaMemcpyAsync(r->device, r->host, bytes, cudaMemcpyHostToDevice, r->stream));
    double *want = r->want;
    for (size_t i = 0; i < count; i++)
        want[i] =
            (double)r->s->ranks * (double)(i % 7) + (double)(r->s->ranks * (r->s->ranks - 1) / 2);
    queue(r, KERNELS_SUMS_EXACT, count, ONE_SHOT);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t h = mix(r->s->seed + (uint64_t)round);
        size_t part = 1 + h % count;
        queue(r, KERNELS_SUMS_EXACT, part, draw(r, h >> 32));
        for (size_t i = 0; i < part; i++) want[i] *= r->s->ranks;
        // Ranks out of step: one comes late each time.
        if (round % r->s->ranks == r->index)
            clock_sleep_until(clock_now_ns() + (int64_t)(h % 3) * CLOCK_MS);
    }
    NEED(cudaMemcpyAsync(r->got, r->device, bytes, cudaMemcpyDeviceToHost, r->stream));
    NEED(cudaStreamSynchronize(r->stream));
    need(r, "chain", peer_group_check(r->group));
    compare(r, "chain", KERNELS_SUMS_EXACT, count);
}

// One recording of an odd number of sums, replayed: the operations' numbers and halves go on.
static void check_graph(rank *r) {
    size_t count = 5000, bytes = bytes_of(KERNELS_SUMS_EXACT, count);
    cudaGraph_t graph;
    cudaGraphExec_t program;
    for (size_t i = 0; i < count; i++) ((double *)r->host)[i] = (double)(i % 5);
    NEED(cudaMemcpyAsync(r->device, r->host, bytes, cudaMemcpyHostToDevice, r->stream));
    NEED(cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal));
    queue(r, KERNELS_SUMS_EXACT, count, ONE_SHOT);
    queue(r, KERNELS_SUMS_EXACT, count, r->multicast ? MULTICAST : TWO_SHOT);
    queue(r, KERNELS_SUMS_EXACT, count / 2, ONE_SHOT);
    NEED(cudaStreamEndCapture(r->stream, &graph));
    NEED(cudaGraphInstantiate(&program, graph, 0));
    for (int i = 0; i < 3; i++) NEED(cudaGraphLaunch(program, r->stream));
    NEED(cudaMemcpyAsync(r->got, r->device, bytes, cudaMemcpyDeviceToHost, r->stream));
    NEED(cudaStreamSynchronize(r->stream));
    need(r, "graph", peer_group_check(r->group));
    double *want = r->want;
    for (size_t i = 0; i < count; i++) {
        want[i] = (double)(i % 5);
        for (int sum = 0; sum < (i < count / 2 ? 9 : 6); sum++) want[i] *= r->s->ranks;
    }
    compare(r, "graph", KERNELS_SUMS_EXACT, count);
    NEED(cudaGraphExecDestroy(program));
    NEED(cudaGraphDestroy(graph));
}

// Gatherings of all lengths, one after the other without a look at the clock, sums between them:
// a place that is written again too early shows. The device's array holds them behind each other.
static void check_gathers(rank *r) {
    static const size_t lengths[] = {8, 16, 24, 1000, 4096, 8184, 65544, 200000, 16, 40, 8};
    enum { COUNT = sizeof lengths / sizeof *lengths };
    size_t ranks = (size_t)r->s->ranks, sums = 1000, used = sums * sizeof(double);
    unsigned char *host = r->host, *want = r->want, *device = r->device;
    memset(host, 0, used);
    memset(want, 0, used);
    for (int i = 0; i < COUNT; i++)
        for (size_t from = 0; from < ranks; from++)
            for (size_t at = 0; at < lengths[i]; at++, used++) {
                want[used] = (unsigned char)mix(r->s->seed ^ used);
                host[used] = from == (size_t)r->index ? want[used] : 0xff;
            }
    NEED(cudaMemcpyAsync(device, host, used, cudaMemcpyHostToDevice, r->stream));
    size_t at = sums * sizeof(double);
    for (int i = 0; i < COUNT; i++) {
        peer_group_set_one_shot(r->group, i % 2 ? ONE_SHOT_BYTES : 0);
        need(r, "gathering", peer_group_gather(r->group, r->stream, device + at, lengths[i]));
        if (i % 3 == r->index)
            clock_sleep_until(clock_now_ns() + (int64_t)(mix((uint64_t)i) % 3) * CLOCK_MS);
        if (i % 4 == 1) queue(r, KERNELS_SUMS_EXACT, sums, draw(r, mix((uint64_t)i)));
        at += ranks * lengths[i];
    }
    NEED(cudaMemcpyAsync(r->got, device, used, cudaMemcpyDeviceToHost, r->stream));
    NEED(cudaStreamSynchronize(r->stream));
    need(r, "gathering", peer_group_check(r->group));
    compare(r, "gathering", KERNELS_SUMS_EXACT, used / sizeof(double));
}

static void check_parts(rank *r) {
    size_t slice = 1000, bytes = slice * 2;
    uint16_t *parts = r->host;
    for (int from = 0; from < r->s->ranks; from++)
        for (size_t i = 0; i < slice; i++)
            parts[(size_t)from * slice + i] = input_bf16(r->s->seed, from, i, false);
    work_out(r, KERNELS_SUMS_BF16, r->s->seed, slice, false);
    NEED(cudaMemcpyAsync(r->device, parts, bytes * (size_t)r->s->ranks, cudaMemcpyHostToDevice,
                         r->stream));
    NEED(peer_add_parts(r->stream, r->device, r->s->ranks, slice, KERNELS_SUMS_BF16, r->device));
    NEED(cudaMemcpyAsync(r->got, r->device, bytes, cudaMemcpyDeviceToHost, r->stream));
    NEED(cudaStreamSynchronize(r->stream));
    compare(r, "parts", KERNELS_SUMS_BF16, slice);
}

enum { NORM_TOKENS = 3, NORM_WIDTH_MAX = 5120 };

typedef struct norm_arrays {
    float *x, *weight; // device
    unsigned char *sums, *out;
    size_t x_bytes, sums_bytes, out_bytes;
} norm_arrays;

// x, then out, to `to`: of the fused kernel, or of the sum and the norm one after the other.
static void run_norm(rank *r, const norm_arrays *a, kernels_sums type, int width, bool fused,
                     unsigned char *to) {
    size_t count = (size_t)NORM_TOKENS * (size_t)width;
    float *x = (float *)(void *)to;
    for (size_t i = 0; i < count; i++) x[i] = (float)(mix(i) % 1000) / 500 - 1;
    NEED(cudaMemcpyAsync(a->x, x, a->x_bytes, cudaMemcpyHostToDevice, r->stream));
    for (int i = 0; i < width; i++) x[i] = 1 + (float)(i % 9) / 8;
    NEED(cudaMemcpyAsync(a->weight, x, (size_t)width * 4, cudaMemcpyHostToDevice, r->stream));
    fill(r, type, r->s->seed ^ 77, count, false);
    NEED(cudaMemcpyAsync(a->sums, r->host, a->sums_bytes, cudaMemcpyHostToDevice, r->stream));
    NEED(cudaStreamSynchronize(r->stream)); // `to` is used again
    if (fused) {
        need(r, "fused",
             peer_group_add_rmsnorm(r->group, r->stream, a->x, a->sums, type, a->weight, 1e-5f,
                                    NORM_TOKENS, width, a->out));
    } else {
        need(r, "sum", peer_group_sum(r->group, r->stream, a->sums, count, type));
        NEED(cuda_add_rmsnorm(r->stream, a->x, a->sums, type, a->weight, 1e-5f, NORM_TOKENS, width,
                              a->out));
    }
    NEED(cudaMemcpyAsync(to, a->x, a->x_bytes, cudaMemcpyDeviceToHost, r->stream));
    NEED(cudaMemcpyAsync(to + a->x_bytes, a->out, a->out_bytes, cudaMemcpyDeviceToHost, r->stream));
    NEED(cudaStreamSynchronize(r->stream));
    need(r, "norm", peer_group_check(r->group));
}

static void check_norm(rank *r, kernels_sums type, int width) {
    size_t count = (size_t)NORM_TOKENS * (size_t)width;
    unsigned char *d = r->device;
    norm_arrays a = {.x_bytes = count * 4, .sums_bytes = bytes_of(type, count)};
    a.out_bytes = (size_t)NORM_TOKENS * (size_t)matmul_act_stride(width) * 2;
    a.sums = d;
    a.x = (float *)(void *)(d + NORM_TOKENS * NORM_WIDTH_MAX * 8);
    a.weight = a.x + NORM_TOKENS * NORM_WIDTH_MAX;
    a.out = (unsigned char *)(a.weight + NORM_WIDTH_MAX);
    go_by(r, r->multicast ? MULTICAST : ONE_SHOT);
    run_norm(r, &a, type, width, false, r->want);
    run_norm(r, &a, type, width, true, r->other);
    bool same = memcmp(r->want, r->other, a.x_bytes + a.out_bytes) == 0;
    r->passed += same;
    r->failed += !same;
    if (!same)
        fprintf(stderr, "rank %d: fused norm of width %d, type %d: other bits\n", r->index, width,
                (int)type);
}

static void check_norms(rank *r) {
    static const int widths[] = {4, 60, 576, 2048, 2052, NORM_WIDTH_MAX, 30, 9};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        check_norm(r, KERNELS_SUMS_BF16, widths[i]);
        check_norm(r, KERNELS_SUMS_EXACT, widths[i]);
    }
}

// The rank to be killed does not come to the second of two sums. The others must end in time, name
// it and no other, and so must every sum after.
static void check_death(rank *r, way how) {
    queue(r, KERNELS_SUMS_EXACT, 5000, how);
    NEED(cudaStreamSynchronize(r->stream));
    need(r, "sum before the death", peer_group_check(r->group));
    if (r->index == r->s->kill) raise(SIGKILL);
    int64_t start = clock_now_ns();
    for (int i = 0; i < 5; i++) queue(r, KERNELS_SUMS_EXACT, 5000, i == 0 ? how : draw(r, i));
    NEED(cudaStreamSynchronize(r->stream));
    int64_t spent = clock_now_ns() - start;
    status s = peer_group_check(r->group);
    char named[32];
    snprintf(named, sizeof named, "rank %d did not come", CALLED + r->s->kill);
    bool in_time = spent < 2 * r->s->limit_ns + CLOCK_SECOND;
    bool right = !status_is_ok(&s) && strncmp(s.message, named, strlen(named)) == 0;
    printf("rank %d: after %.2f s: %s\n", r->index, (double)spent / (double)CLOCK_SECOND,
           s.message);
    if (!in_time || !right)
        r->failed++;
    else
        r->passed++;
}

static double time_sums(rank *r, size_t count, way how) {
    for (int i = 0; i < 10; i++) queue(r, KERNELS_SUMS_BF16, count, how);
    NEED(cudaStreamSynchronize(r->stream));
    need_all(r);
    int64_t start = clock_now_ns();
    for (int i = 0; i < BENCH_RUNS; i++) queue(r, KERNELS_SUMS_BF16, count, how);
    NEED(cudaStreamSynchronize(r->stream));
    need(r, "bench", peer_group_check(r->group));
    return (double)(clock_now_ns() - start) / BENCH_RUNS / 1e3;
}

static void bench(rank *r) {
    if (r->index == 0)
        printf("BF16 sums of %d ranks, us\n%10s %10s %10s %10s\n", r->s->ranks, "KiB", way_names[0],
               way_names[1], way_names[2]);
    for (size_t bytes = 2 << 10; bytes <= TWO_SHOT_BYTES; bytes *= 2) {
        double one = bytes <= ONE_SHOT_BYTES ? time_sums(r, bytes / 2, ONE_SHOT) : 0;
        double two = time_sums(r, bytes / 2, TWO_SHOT);
        double cast = r->multicast ? time_sums(r, bytes / 2, MULTICAST) : 0;
        if (r->index == 0) printf("%10zu %10.1f %10.1f %10.1f\n", bytes >> 10, one, two, cast);
    }
}

// ---- Processes

static void need_multicast(const rank *r, status s) {
    if (status_is_ok(&s)) return;
    printf("rank %d: no multicast: %s\n", r->index, s.message);
    exit(SKIPPED);
}

static void open_multicast(rank *r) {
    multicast_options options = {.rank = r->index, .ranks = r->s->ranks, .bytes = MULTICAST_BYTES};
    need_multicast(r, multicast_open(&options, &r->multicast, &r->board->seats[r->index]));
    need_all(r);
    need_multicast(r, multicast_share(r->multicast, r->board->seats));
    need_all(r);
    need_multicast(r, multicast_bind(r->multicast));
    need_all(r);
}

static void open_rank(rank *r) {
    int cards = 0;
    NEED(cudaGetDeviceCount(&cards));
    if (cards == 0) stop(r, "device", "none");
    NEED(cudaSetDevice(r->index % cards));
    NEED(cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking));
    NEED(cudaMalloc(&r->device, COUNT_MAX * sizeof(double)));
    NEED(cudaHostAlloc(&r->host, COUNT_MAX * sizeof(double), cudaHostAllocDefault));
    NEED(cudaHostAlloc(&r->got, COUNT_MAX * sizeof(double), cudaHostAllocDefault));
    r->want = malloc(COUNT_MAX * sizeof(double));
    r->other = malloc(COUNT_MAX * sizeof(double));
    if (!r->want || !r->other) stop(r, "memory", "none");
    peer_group_options options = {.rank = r->index,
                                  .ranks = r->s->ranks,
                                  .first = CALLED,
                                  .one_shot_bytes = ONE_SHOT_BYTES,
                                  .two_shot_bytes = TWO_SHOT_BYTES,
                                  .limit_ns = r->s->limit_ns};
    need(r, "create", peer_group_create(&options, &r->group, &r->board->invitations[r->index]));
    need_all(r);
    need(r, "join", peer_group_join(r->group, r->board->invitations));
    need_all(r);
    if (r->s->multicast) open_multicast(r);
}

static void close_rank(rank *r) {
    peer_group_leave(r->group);
    if (r->s->kill < 0) need_all(r);
    peer_group_destroy(r->group);
    multicast_close(r->multicast);
    cudaFreeHost(r->host);
    cudaFreeHost(r->got);
    cudaFree(r->device);
    cudaStreamDestroy(r->stream);
    free(r->want);
    free(r->other);
}

static int run_rank(const settings *s, board *b, int index) {
    rank r = {.s = s, .board = b, .index = index};
    open_rank(&r);
    if (s->bench) {
        bench(&r);
    } else if (s->kill >= 0) {
        check_death(&r, s->multicast ? MULTICAST : s->seed % 2 ? ONE_SHOT : TWO_SHOT);
    } else {
        check_sizes(&r);
        check_chain(&r);
        check_graph(&r);
        check_gathers(&r);
        check_parts(&r);
        check_norms(&r);
    }
    close_rank(&r);
    if (!s->bench)
        printf("%-6s rank %d of %d (seed %llu): %d passed, %d failed\n", r.failed ? "FAILED" : "ok",
               index, s->ranks, (unsigned long long)s->seed, r.passed, r.failed);
    fflush(stdout);
    return r.failed ? 1 : 0;
}

// Its exit status; 1 for another end than the one that was to be.
static int wait_for(pid_t child, bool to_be_killed) {
    int state = 0;
    if (waitpid(child, &state, 0) != child) return 1;
    if (WIFEXITED(state) && WEXITSTATUS(state) == SKIPPED) return SKIPPED;
    if (to_be_killed) return WIFSIGNALED(state) && WTERMSIG(state) == SIGKILL ? 0 : 1;
    return WIFEXITED(state) ? WEXITSTATUS(state) : 1;
}

static settings parse(int argc, char **argv) {
    static const struct option options[] = {{"ranks", required_argument, NULL, 'r'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"limit", required_argument, NULL, 'l'},
                                            {"kill", required_argument, NULL, 'k'},
                                            {"multicast", no_argument, NULL, 'm'},
                                            {"bench", no_argument, NULL, 'b'},
                                            {NULL, 0, NULL, 0}};
    settings s = {.ranks = 2, .kill = -1, .seed = 1, .limit_ns = 60 * CLOCK_SECOND};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'r')
            s.ranks = atoi(optarg);
        else if (option == 's')
            s.seed = strtoull(optarg, NULL, 10);
        else if (option == 'l')
            s.limit_ns = atoi(optarg) * CLOCK_MS;
        else if (option == 'k')
            s.kill = atoi(optarg);
        else if (option == 'm')
            s.multicast = true;
        else if (option == 'b')
            s.bench = true;
        else
            exit(2);
    }
    if (s.ranks < 2 || s.ranks > PEER_RANKS_MAX || s.kill >= s.ranks || s.limit_ns <= 0) {
        fprintf(stderr, "2 to %d ranks, --kill one of them, --limit above 0\n", PEER_RANKS_MAX);
        exit(2);
    }
    return s;
}

int main(int argc, char **argv) {
    settings s = parse(argc, argv);
    board *b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b == MAP_FAILED) return 2;
    pid_t children[PEER_RANKS_MAX];
    for (int i = 0; i < s.ranks; i++) {
        children[i] = fork();
        if (children[i] == 0) exit(run_rank(&s, b, i));
    }
    int skipped = 0, failed = 0;
    for (int i = 0; i < s.ranks; i++) {
        int ended = wait_for(children[i], i == s.kill);
        skipped += ended == SKIPPED;
        failed += ended != 0;
    }
    return failed == 0 ? 0 : skipped == s.ranks ? SKIPPED : 1;
}
