// reduce_ranks: reduce.h on the CUDA backend under mpirun: every way to add, compared bit by bit
// with sums made here, and what is said when it cannot work. Linked with the emulated device; NCCL
// is the stand-in of tests/device/nccl.
//
//   mpirun -n N reduce_ranks KIND [--sums exact|bf16] [--fast] [--one-shot BYTES] [--absent RANK]
//                                 [--nccl PATH] [--expect TEXT] [--timeout MS] [--open-timeout MS]
//                                 [--name NAME] [--refuse CALL]
//
// --absent: that rank does not come to the last sum. --expect: opening, or the last sum, must fail
// with a line that has TEXT in it, in time. --name: what adds must be called so. --refuse: that
// call of the driver fails on the last rank once, which must cost no more than multicast, and leave
// nothing.
#include <dirent.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "tests/device/shim/emulator.h"
#include "worker/reduce.h"

enum {
    COUNT_MAX = 40000,
    PATIENCE_S = 60, // for sums that go well, on a machine whose cores are shared
};

typedef struct bench {
    comm *comm;
    kernels *kernels;
    reduce *reduce;
    int absent;
    bool fast;
    size_t one_shot;
    reduce_kind kind;
    kernels_sums type;
    const char *nccl, *expect, *name, *refuse;
    int64_t timeout_ns, open_timeout_ns;
    void *device;
    void *host, *want;         // (COUNT_MAX)
    int failed, passed, files; // files: open before the sums' way was
    size_t count;              // of the sums that are queued
    progress progress;
} bench;

static int64_t in(int64_t ns) {
    return clock_now_ns() + ns;
}

static void must(const bench *b, const char *what, status s) {
    if (status_is_ok(&s)) return;
    fprintf(stderr, "rank %d: %s: %s\n", b->comm ? comm_rank(b->comm) : -1, what, s.message);
    comm_abort(b->comm, 3);
}

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

// Numbers near 1 whose sum shows the order in which they were added; with --fast, where the order
// is NCCL's own, small integers whose sums are exact.
static uint16_t input_bf16(const bench *b, int rank, size_t i) {
    uint64_t h = mix((uint64_t)rank << 40 ^ i);
    if (b->fast) return bf16_bits((float)((int)(h % 17) - 8));
    return (uint16_t)((h >> 20 & 0x807f) | (120 + h % 12) << 7);
}

static double input_f64(int rank, size_t i) {
    uint64_t h = mix((uint64_t)rank << 40 ^ i);
    return (double)((int64_t)(h >> 14) - (INT64_C(1) << 49)) * KERNELS_SUM_GRID;
}

static void fill(bench *b, size_t count) {
    int ranks = comm_size(b->comm), own = comm_rank(b->comm);
    for (size_t i = 0; i < count; i++) {
        if (b->type == KERNELS_SUMS_BF16) {
            float sum = bf16_value(input_bf16(b, 0, i));
            for (int rank = 1; rank < ranks; rank++) sum += bf16_value(input_bf16(b, rank, i));
            ((uint16_t *)b->want)[i] = bf16_bits(sum);
            ((uint16_t *)b->host)[i] = input_bf16(b, own, i);
        } else {
            double sum = 0;
            for (int rank = 0; rank < ranks; rank++) sum += input_f64(rank, i);
            ((double *)b->want)[i] = sum;
            ((double *)b->host)[i] = input_f64(own, i);
        }
    }
}

static void compare(bench *b, const char *what, size_t count) {
    size_t bytes = kernels_sums_bytes(b->kernels, count);
    must(b, "download", kernels_download(b->kernels, b->host, b->device, bytes));
    bool same = memcmp(b->host, b->want, bytes) == 0;
    b->passed += same;
    b->failed += !same;
    if (!same)
        fprintf(stderr, "rank %d: %s of %zu by %s: other bits than rank order gives\n",
                comm_rank(b->comm), what, count, reduce_name(b->reduce));
}

static void check_size(bench *b, size_t count) {
    fill(b, count);
    size_t bytes = kernels_sums_bytes(b->kernels, count);
    must(b, "upload", kernels_upload(b->kernels, b->device, b->host, bytes));
    must(b, "sum", reduce_sum(b->reduce, b->device, count, in(PATIENCE_S * CLOCK_SECOND)));
    must(b, "wait", reduce_wait(b->reduce, in(PATIENCE_S * CLOCK_SECOND)));
    compare(b, "sum", count);
}

// Any bits; subnormals, infinities, NaN and -0 among them.
static uint32_t input_bits(int rank, size_t i) {
    uint32_t bits = (uint32_t)mix((uint64_t)rank << 40 ^ i ^ UINT64_C(1) << 60);
    if (i % 50 == 7) return bits & 0x807fffff; // subnormal
    if (i % 50 == 9) return (bits & 0x80000000) | 0x7f800000;
    return i % 50 == 11 ? 0x80000000 : bits;
}

// Every rank's part arrives as it was, whatever type the sums are of.
static void check_gather(bench *b, size_t count) {
    size_t ranks = (size_t)comm_size(b->comm), own = (size_t)comm_rank(b->comm);
    uint32_t *host = b->host, *want = b->want;
    memset(host, 0xff, ranks * count * sizeof *host);
    for (size_t rank = 0; rank < ranks; rank++)
        for (size_t i = 0; i < count; i++) want[rank * count + i] = input_bits((int)rank, i);
    memcpy(host + own * count, want + own * count, count * sizeof *host);
    size_t bytes = ranks * count * sizeof *host;
    must(b, "upload", kernels_upload(b->kernels, b->device, host, bytes));
    must(b, "gather", reduce_gather(b->reduce, b->device, count, in(PATIENCE_S * CLOCK_SECOND)));
    must(b, "wait", reduce_wait(b->reduce, in(PATIENCE_S * CLOCK_SECOND)));
    must(b, "download", kernels_download(b->kernels, host, b->device, bytes));
    bool same = memcmp(host, want, bytes) == 0;
    b->passed += same;
    b->failed += !same;
    if (!same)
        fprintf(stderr, "rank %zu: parts of %zu by %s: not as they were sent\n", own, count,
                reduce_name(b->reduce));
}

static status enqueue(void *context) {
    bench *b = context;
    return reduce_sum(b->reduce, b->device, b->count, in(PATIENCE_S * CLOCK_SECOND));
}

// As the decoder does: a step that is recorded, then replayed.
static void check_recorded(bench *b) {
    if (!reduce_queues(b->reduce)) return;
    b->count = 3000;
    size_t bytes = kernels_sums_bytes(b->kernels, b->count);
    const int32_t id = 0, block = 0;
    const kernels_seq seq = {.row = 0, .tokens = 1, .position = 0, .blocks = &block};
    const kernels_step step = {
        .tokens = 1, .ids = &id, .seqs = 1, .seq = &seq, .blocks = 1, .block_tokens = 16};
    for (int run = 0; run < 3; run++) {
        kernels_begin(b->kernels, &step);
        fill(b, b->count);
        must(b, "upload", kernels_upload(b->kernels, b->device, b->host, bytes));
        must(b, "run", kernels_run(b->kernels, enqueue, b, 0));
        must(b, "wait", reduce_wait(b->reduce, in(PATIENCE_S * CLOCK_SECOND)));
        compare(b, "recorded sum", b->count);
    }
}

// True: s is the error that was expected, or there was none to expect.
static bool as_expected(const bench *b, const status *s) {
    bool right = b->expect ? !status_is_ok(s) && strstr(s->message, b->expect) : status_is_ok(s);
    if (!right || b->expect)
        printf("rank %d: %s\n", comm_rank(b->comm), status_is_ok(s) ? "no error" : s->message);
    return right;
}

static bool check_last(bench *b) {
    fill(b, 5000);
    size_t bytes = kernels_sums_bytes(b->kernels, 5000);
    must(b, "upload", kernels_upload(b->kernels, b->device, b->host, bytes));
    if (comm_rank(b->comm) == b->absent) {
        clock_sleep_until(in(3 * b->timeout_ns)); // as if it hung; mpirun would end all for a death
        return true;
    }
    int64_t start = clock_now_ns();
    status s = reduce_sum(b->reduce, b->device, 5000, in(b->timeout_ns));
    if (status_is_ok(&s)) s = reduce_wait(b->reduce, in(b->timeout_ns));
    int64_t spent = clock_now_ns() - start;
    if (spent > 3 * b->timeout_ns) {
        printf("rank %d: took %.1f s\n", comm_rank(b->comm), (double)spent / (double)CLOCK_SECOND);
        return false;
    }
    return as_expected(b, &s);
}

static int open_files(void) {
    int count = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d)) count++;
    if (d) closedir(d);
    return count;
}

// As many cards as the emulated machine has, in turn.
static int own_card(const bench *b) {
    int cards = 0;
    must(b, "cards", kernels_cuda_count(&cards));
    return comm_local_rank(b->comm) % cards;
}

static status open_all(bench *b) {
    kernels_cuda_options options = {.device = own_card(b), .sums = b->type, .fast = b->fast};
    must(b, "kernels", kernels_create_cuda(options, &b->kernels));
    kernels_limits limits = {.tokens = 8, .cols = 64, .context = 64, .heads = 1, .head_dim = 64};
    must(b, "reserve", kernels_reserve(b->kernels, limits));
    must(b, "memory", kernels_alloc(b->kernels, COUNT_MAX * sizeof(double), &b->device));
    b->host = malloc(COUNT_MAX * sizeof(double));
    b->want = malloc(COUNT_MAX * sizeof(double));
    reduce_options o = {.comm = b->comm,
                        .kernels = b->kernels,
                        .progress = &b->progress,
                        .kind = b->kind,
                        .max_count = COUNT_MAX,
                        .timeout_ns = b->timeout_ns,
                        .fast = b->fast,
                        .one_shot_bytes = b->one_shot,
                        .multicast = true,
                        .nccl_path = b->nccl};
    if (b->refuse && comm_rank(b->comm) == comm_size(b->comm) - 1)
        emulator_fail(b->refuse, 0, 801, false); // cudaErrorNotSupported
    b->files = open_files();
    return reduce_open(&o, in(b->open_timeout_ns), &b->reduce);
}

// What was refused is not kept in part.
static bool opened_as_asked(const bench *b) {
    bool named = !b->name || strcmp(reduce_name(b->reduce), b->name) == 0;
    bool clean = !b->refuse || (emulator_driver_objects() == 0 && open_files() == b->files);
    if (!named || !clean)
        fprintf(stderr, "rank %d: opened %s; %d objects of the driver, %d files more than before\n",
                comm_rank(b->comm), reduce_name(b->reduce), emulator_driver_objects(),
                open_files() - b->files);
    return named && clean;
}

static bool run(bench *b) {
    status s = open_all(b);
    if (!status_is_ok(&s)) return as_expected(b, &s);
    if (b->name && !opened_as_asked(b)) return false;
    must(b, "register", reduce_register(b->reduce, b->device, COUNT_MAX));
    static const size_t counts[] = {1, 7, 8, 64, 1000, 4099, 8192, 20000, COUNT_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) check_size(b, counts[i]);
    check_recorded(b);
    for (size_t count = 2; reduce_queues(b->reduce) && count <= 8192; count = count * 5 + 2)
        check_gather(b, count);
    bool good = !b->expect || check_last(b);
    printf("%-6s rank %d of %d, %s: %d passed, %d failed\n", b->failed || !good ? "FAILED" : "ok",
           comm_rank(b->comm), comm_size(b->comm), reduce_name(b->reduce), b->passed, b->failed);
    return good && b->failed == 0;
}

static bool parse(bench *b, int argc, char **argv) {
    static const struct option options[] = {{"sums", required_argument, NULL, 's'},
                                            {"fast", no_argument, NULL, 'f'},
                                            {"one-shot", required_argument, NULL, 'o'},
                                            {"absent", required_argument, NULL, 'a'},
                                            {"open-timeout", required_argument, NULL, 'p'},
                                            {"nccl", required_argument, NULL, 'n'},
                                            {"expect", required_argument, NULL, 'e'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {"name", required_argument, NULL, 'm'},
                                            {"refuse", required_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    static const char *const kinds[] = {"auto", "host", "nccl", "peer"};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 's')
            b->type = strcmp(optarg, "bf16") ? KERNELS_SUMS_EXACT : KERNELS_SUMS_BF16;
        else if (option == 'f')
            b->fast = true;
        else if (option == 'o')
            b->one_shot = strtoul(optarg, NULL, 10);
        else if (option == 'a')
            b->absent = atoi(optarg);
        else if (option == 'p')
            b->open_timeout_ns = atoi(optarg) * CLOCK_MS;
        else if (option == 'n')
            b->nccl = optarg;
        else if (option == 'e')
            b->expect = optarg;
        else if (option == 'm')
            b->name = optarg;
        else if (option == 'r')
            b->refuse = optarg;
        else if (option == 't')
            b->timeout_ns = atoi(optarg) * CLOCK_MS;
        else
            return false;
    }
    for (int i = 0; optind == argc - 1 && i < 4; i++) {
        if (strcmp(argv[optind], kinds[i]) != 0) continue;
        b->kind = (reduce_kind)i;
        return true;
    }
    return false;
}

int main(int argc, char **argv) {
    bench b = {.absent = -1, .timeout_ns = 30 * CLOCK_SECOND, .open_timeout_ns = 60 * CLOCK_SECOND};
    if (!parse(&b, argc, argv)) {
        fprintf(stderr, "usage: reduce_ranks auto|host|nccl|peer [options]\n");
        return 2;
    }
    must(&b, "comm", comm_open(&argc, &argv, COMM_AUTO, &b.comm));
    bool good = run(&b);
    fflush(stdout);
    reduce_close(b.reduce);
    kernels_free(b.kernels, b.device);
    kernels_destroy(b.kernels);
    free(b.host);
    free(b.want);
    comm_close(b.comm);
    return good ? 0 : 1;
}
