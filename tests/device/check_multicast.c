// check_multicast: multicast memory of a team of one card, which is all that one process has: what
// the driver is asked for, and that everything is given back, after a failure too; that the kernels
// read and write by its address what they should. Sums over several cards are peer_processes'
// affair. A card without multicast says so, and nothing is checked.
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/peer_multicast.h"
#include "tests/device/check.h"

enum { BYTES = 1 << 20, COUNT_MAX = 50000, GUARD = 64, WIDTH_MAX = 2052, TOKENS = 3 };

static const int64_t limit_ns = 10000000000;

typedef struct team {
    check *c;
    multicast *memory;
    multicast_view view;
    peer_view peers;
    void *region, *report;
} team;

static int open_files(void) {
    int count = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d)) count++;
    if (d) closedir(d);
    return count;
}

static status join(multicast **out, multicast_seat *seat) {
    multicast_options o = {.rank = 0, .ranks = 1, .bytes = BYTES};
    multicast *m = NULL;
    TRY(multicast_open(&o, &m, seat));
    status s = multicast_share(m, seat);
    if (status_is_ok(&s)) s = multicast_bind(m);
    if (status_is_ok(&s))
        *out = m;
    else
        multicast_close(m);
    return s;
}

static bool cuda_went(check *c, cudaError_t e) {
    return check_that(c, e == cudaSuccess, "%s", cudaGetErrorString(e));
}

static bool open_team(check *c, team *t) {
    *t = (team){.c = c};
    multicast_seat seat;
    check_case(c, "a team of one");
    status s = join(&t->memory, &seat);
    if (!status_is_ok(&s) && !c->emulated) {
        printf("multicast: skipped: %s\n", s.message);
        return false;
    }
    if (!check_that(c, status_is_ok(&s), "%s", s.message)) return false;
    t->view = multicast_view_of(t->memory);
    check_that(c, t->view.bytes >= BYTES && t->view.own && t->view.all, "no memory");
    t->peers = (peer_view){
        .ranks = 1, .layout = peer_layout_of(1, 16, 16), .limit_ns = (uint64_t)limit_ns};
    size_t bytes = t->peers.layout.total;
    void *report = NULL;
    bool good = cuda_went(c, cudaMalloc(&t->region, bytes)) &&
                cuda_went(c, cudaMemset(t->region, 0, bytes)) &&
                cuda_went(c, cudaHostAlloc(&t->report, 64, cudaHostAllocMapped)) &&
                cuda_went(c, cudaHostGetDevicePointer(&report, t->report, 0));
    t->peers.regions[0] = t->region;
    t->peers.report = report;
    return good;
}

static void close_team(team *t) {
    if (t->region) cudaFree(t->region);
    if (t->report) cudaFreeHost(t->report);
    multicast_close(t->memory);
}

static size_t bytes_of(kernels_sums type, size_t count) {
    return count * (type == KERNELS_SUMS_BF16 ? 2 : 8);
}

// Random bits of finite numbers: a sum over one card must leave them as they are.
static void *numbers(check *c, kernels_sums type, size_t count) {
    uint16_t *words = check_host(c, bytes_of(type, count) + GUARD);
    for (size_t i = 0; i < bytes_of(type, count) / 2; i++) {
        uint16_t word = (uint16_t)rng_next(&c->random);
        bool exponent = type == KERNELS_SUMS_BF16 || i % 4 == 3;
        words[i] = exponent ? (uint16_t)((word & 0x8fff) | 0x3000) : word;
    }
    return words;
}

static void check_sum(team *t, kernels_sums type, size_t count) {
    check *c = t->c;
    size_t bytes = bytes_of(type, count) + GUARD;
    check_case(c, "%zu %s", count, type == KERNELS_SUMS_BF16 ? "BF16" : "doubles");
    void *want = numbers(c, type, count), *data = check_put(c, c->device, want, bytes);
    cudaStream_t stream = kernels_stream(c->device);
    if (!cuda_went(c, peer_multicast_sum(stream, &t->peers, &t->view, data, count, type))) return;
    check_same(c, "sum", check_get(c, c->device, data, bytes), want, bytes);
    check_release(c);
}

typedef struct norm_case {
    kernels_sums type;
    int width;
    float *x, *weight;
    void *sums, *out;
    size_t x_bytes, out_bytes;
} norm_case;

static norm_case make_norm(check *c, kernels_sums type, int width, const float *x,
                           const float *weight, const void *sums) {
    size_t count = (size_t)TOKENS * (size_t)width;
    norm_case n = {.type = type, .width = width, .x_bytes = count * sizeof(float)};
    n.out_bytes = (size_t)TOKENS * (size_t)matmul_act_stride(width) * 2;
    n.x = check_put(c, c->device, x, n.x_bytes);
    n.weight = check_put(c, c->device, weight, (size_t)width * sizeof *weight);
    n.sums = check_put(c, c->device, sums, bytes_of(type, count));
    n.out = check_poisoned(c, c->device, n.out_bytes);
    return n;
}

// The same bits as by two kernels.
static void check_norm(team *t, kernels_sums type, int width) {
    check *c = t->c;
    size_t count = (size_t)TOKENS * (size_t)width;
    check_case(c, "norm of width %d, %s", width, type == KERNELS_SUMS_BF16 ? "BF16" : "doubles");
    float *x = check_random(c, count, 2), *weight = check_random(c, (size_t)width, 1);
    void *sums = numbers(c, type, count);
    norm_case a = make_norm(c, type, width, x, weight, sums);
    norm_case b = make_norm(c, type, width, x, weight, sums);
    cudaStream_t stream = kernels_stream(c->device);
    bool takes = peer_multicast_norm_takes(&t->view, a.x, a.sums, type, a.weight, TOKENS, width);
    bool whole = bytes_of(type, (size_t)width) % 16 == 0;
    check_that(c, takes == whole, "taken: %d", takes);
    if (takes &&
        cuda_went(c, peer_multicast_add_rmsnorm(stream, &t->peers, &t->view, a.x, a.sums, type,
                                                a.weight, 1e-5f, TOKENS, width, a.out)) &&
        cuda_went(c, cuda_add_rmsnorm(stream, b.x, b.sums, type, b.weight, 1e-5f, TOKENS, width,
                                      b.out))) {
        check_same(c, "x", check_get(c, c->device, a.x, a.x_bytes),
                   check_get(c, c->device, b.x, b.x_bytes), a.x_bytes);
        check_same(c, "out", check_get(c, c->device, a.out, a.out_bytes),
                   check_get(c, c->device, b.out, b.out_bytes), a.out_bytes);
    }
    check_release(c);
}

static void check_limits(team *t) {
    check *c = t->c;
    check_case(c, "more than there is room for");
    void *data = check_poisoned(c, c->device, 64);
    cudaStream_t stream = kernels_stream(c->device);
    size_t count = t->view.bytes / 2;
    check_that(c,
               peer_multicast_sum(stream, &t->peers, &t->view, data, count + 1,
                                  KERNELS_SUMS_BF16) == cudaErrorInvalidValue,
               "a message longer than the memory is taken");
    check_that(c,
               peer_multicast_sum(stream, &t->peers, &t->view, (char *)data + 8, 4,
                                  KERNELS_SUMS_BF16) == cudaErrorInvalidValue,
               "a message that is not aligned is taken");
    check_that(c,
               !peer_multicast_norm_takes(&t->view, data, data, KERNELS_SUMS_BF16, data,
                                          PEER_BLOCKS_MAX + 1, 64),
               "more rows than blocks meet are taken");
}

// Whatever the driver refuses is one line that says what, and nothing is kept.
static void check_refusals(check *c) {
    static const struct {
        const char *function, *names;
    } calls[] = {{"cudaGetDriverEntryPointByVersion", "older than CUDA 12.1"},
                 {"cuCtxGetDevice", "cuCtxGetDevice"},
                 {"cuDeviceGetAttribute", "cuDeviceGetAttribute"},
                 {"cuMulticastGetGranularity", "cuMulticastGetGranularity"},
                 {"cuMemCreate", "cuMemCreate"},
                 {"cuMulticastCreate", "cuMulticastCreate"},
                 {"cuMemExportToShareableHandle", "cuMemExportToShareableHandle"},
                 {"cuMulticastAddDevice", "cuMulticastAddDevice"},
                 {"cuMulticastBindMem", "cuMulticastBindMem"},
                 {"cuMemAddressReserve", "cuMemAddressReserve"},
                 {"cuMemMap", "cuMemMap"},
                 {"cuMemSetAccess", "cuMemSetAccess"}};
    multicast_seat seat;
    int files = open_files(), objects = check_target_driver_objects();
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        for (int before = 0; before < (i < 9 ? 1 : 2); before++) { // two are mapped
            multicast *m = NULL;
            check_case(c, "%s fails, call %d", calls[i].function, before + 1);
            check_target_fail(calls[i].function, before, cudaErrorNotSupported);
            status s = join(&m, &seat);
            check_that(
                c, !m && s.code == STATUS_FAILED_PRECONDITION && strstr(s.message, calls[i].names),
                "%s: %s", status_code_name(s.code), s.message);
            check_that(c, open_files() == files && check_target_driver_objects() == objects,
                       "%d files, %d objects are still there", open_files() - files,
                       check_target_driver_objects() - objects);
        }
    check_case(c, "a card without multicast");
    check_target_cards("a100");
    multicast *m = NULL;
    status s = join(&m, &seat);
    check_that(c, !m && strstr(s.message, "no NVSwitch"), "%s", s.message);
    check_target_cards("h100");
}

// Two ranks with one card: seen before the driver is asked, which would wait for another card.
static void check_one_card(check *c) {
    multicast_seat seats[2];
    multicast_options o = {.rank = 0, .ranks = 2, .bytes = BYTES};
    multicast *m = NULL;
    check_case(c, "two ranks on one card");
    status s = multicast_open(&o, &m, &seats[0]);
    if (!check_that(c, status_is_ok(&s), "%s", s.message)) return;
    seats[1] = seats[0];
    s = multicast_share(m, seats);
    check_that(c, strstr(s.message, "ranks 0 and 1 share the card") != NULL, "%s", s.message);
    seats[1].bytes++;
    s = multicast_share(m, seats);
    check_that(c, strstr(s.message, "same options") != NULL, "%s", s.message);
    multicast_close(m);
}

int check_multicast(check *c) {
    static const size_t counts[] = {1, 7, 8, 9, 64, 2047, 4099, COUNT_MAX};
    static const int widths[] = {8, 60, 576, 2048, WIDTH_MAX};
    check_open(c, (kernels_limits){.tokens = 1, .cols = 8, .context = 8, .heads = 1, .head_dim = 8},
               (kernels_cuda_options){.device = 0});
    team t;
    if (open_team(c, &t)) {
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            check_sum(&t, KERNELS_SUMS_BF16, counts[i]);
            check_sum(&t, KERNELS_SUMS_EXACT, counts[i]);
        }
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            check_norm(&t, KERNELS_SUMS_BF16, widths[i]);
            check_norm(&t, KERNELS_SUMS_EXACT, widths[i]);
        }
        check_limits(&t);
    }
    close_team(&t);
    if (c->emulated) {
        check_one_card(c);
        check_case(c, "the end");
        check_that(c, check_target_driver_objects() == 0, "%d objects are still there",
                   check_target_driver_objects());
        check_refusals(c);
    }
    return c->failed;
}
