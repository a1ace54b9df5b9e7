#include "worker/device.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

enum { NAME_MAX_BYTES = 32 };

// Every thread of every rank on this host has a core: then pinning and spinning help, else they
// hurt.
static bool cores_suffice(const device_options *o, comm *c, int *cores) {
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    *cores = CPU_COUNT(&set);
    int ranks_on_these = comm_cores_shared(c) ? comm_local_size(c) : 1;
    return o->threads * ranks_on_these <= *cores;
}

static status open_cpu(const device_options *o, comm *c, kernels **out) {
    int cores = 0;
    bool suffice = cores_suffice(o, c, &cores);
    if (!suffice && comm_local_rank(c) == 0)
        log_warn("device",
                 "%d threads for %d ranks on %d cores: ranks take turns; use fewer, or mpirun "
                 "--bind-to none",
                 o->threads, comm_local_size(c), cores);
    comm_set_spin(c, suffice);
    int first = comm_cores_shared(c) ? comm_local_rank(c) * o->threads : 0;
    return kernels_create_cpu(o->threads, o->pin && suffice ? first : -1, o->isa, out);
}

// Ranks of one host take its cards in their order.
int device_card(const comm *c) {
    int cards = 0;
    status s = kernels_cuda_count(&cards);
    return status_is_ok(&s) && cards > 0 ? comm_local_rank(c) % cards : 0;
}

static kernels_graphs graphs_of(const device_options *o) {
    if (!o->graphs || !strcmp(o->graphs, "all")) return KERNELS_GRAPHS_ALL;
    return !strcmp(o->graphs, "decode") ? KERNELS_GRAPHS_DECODE : KERNELS_GRAPHS_OFF;
}

static status open_cuda(const device_options *o, comm *c, kernels **out) {
    int cards = 0;
    TRY(kernels_cuda_count(&cards));
    if (cards < comm_local_size(c) && comm_local_rank(c) == 0)
        log_warn("device", "%d ranks share %d cards on %s: they take turns", comm_local_size(c),
                 cards, comm_host(c));
    kernels_cuda_options cuda = {
        .device = device_card(c),
        .sums = !strcmp(o->sums, "bf16") ? KERNELS_SUMS_BF16 : KERNELS_SUMS_EXACT,
        .fast = o->fast,
    };
    TRY(kernels_create_cuda(cuda, out));
    kernels_record(*out, graphs_of(o));
    return status_ok();
}

status device_open(const device_options *o, comm *c, kernels **out) {
    if (!strcmp(o->device, "cpu")) return open_cpu(o, c, out);
    status s = open_cuda(o, c, out);
    if (status_is_ok(&s) || !strcmp(o->device, "cuda")) return s;
    bool none = s.code == STATUS_UNIMPLEMENTED || s.code == STATUS_UNAVAILABLE;
    if (!none) log_warn("device", "computing on the processor: %s", s.message);
    return open_cpu(o, c, out);
}

static bool same_kind(const char *a, const char *b) {
    size_t kind = strcspn(a, "-");
    return kind == strcspn(b, "-") && memcmp(a, b, kind) == 0;
}

static status compare(const char (*names)[NAME_MAX_BYTES], int ranks) {
    for (int i = 1; i < ranks; i++) {
        if (!same_kind(names[0], names[i]))
            return status_error(STATUS_FAILED_PRECONDITION,
                                "rank 0 computes on %s and rank %d on %s: a group needs one kind; "
                                "--device cpu or cuda makes every rank say why it cannot",
                                names[0], i, names[i]);
        if (strcmp(names[0], names[i]) != 0) {
            log_warn("device", "rank 0 computes on %s and rank %d on %s: all wait for the slower",
                     names[0], i, names[i]);
            break;
        }
    }
    return status_ok();
}

status device_agree(comm *c, const kernels *k, int64_t deadline_ns) {
    char mine[NAME_MAX_BYTES];
    snprintf(mine, sizeof mine, "%s", kernels_name(k));
    size_t ranks = (size_t)comm_size(c);
    char(*names)[NAME_MAX_BYTES] = calloc(ranks, sizeof *names);
    if (!names) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %zu names", ranks);
    status s = comm_gather(c, mine, sizeof mine, names, deadline_ns);
    if (status_is_ok(&s))
        s = comm_agree(c, comm_rank(c) == 0 ? compare(names, (int)ranks) : status_ok(),
                       deadline_ns);
    free(names);
    return s;
}
