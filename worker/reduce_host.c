// reduce_host: sums by way of the host: out of the device, through comm.h, and back in. On cpu the
// device's memory is the host's, and nothing moves.
#include <stdlib.h>

#include "worker/numbers.h"
#include "worker/reduce_transport.h"

typedef struct host {
    reduce_options o;
    double *staging; // (max_count); NULL on cpu
    // What is looked at, and what was seen there.
    size_t watch_first, watch_count;
    int sums, first_bad;
} host;

static void look(host *h, const double *x, size_t count) {
    if (h->first_bad == REDUCE_ALL_FINITE && h->watch_first + h->watch_count <= count &&
        !numbers_all_finite_doubles(x + h->watch_first, h->watch_count))
        h->first_bad = h->sums;
    h->sums++;
}

static void watch(void *state, size_t first, size_t count) {
    host *h = state;
    h->watch_first = first;
    h->watch_count = count;
    h->sums = 0;
    h->first_bad = REDUCE_ALL_FINITE;
}

static int first_bad(const void *state) {
    return ((const host *)state)->first_bad;
}

static status sum(void *state, void *sums, size_t count, kernels_sums type, int64_t deadline_ns) {
    host *h = state;
    (void)type; // exact, the only ones there are (create)
    kernels *k = h->o.kernels;
    double *x = h->staging ? h->staging : sums;
    TRY(kernels_sync(k, deadline_ns));
    if (h->staging) TRY(kernels_download(k, x, sums, count * sizeof *x));
    look(h, x, count);
    progress_collective(h->o.progress);
    TRY(comm_allreduce_sum(h->o.comm, x, count, deadline_ns));
    progress_enter(h->o.progress, CLUSTER_STEP);
    return h->staging ? kernels_upload(k, sums, x, count * sizeof *x) : status_ok();
}

static void close_host(void *state) {
    host *h = state;
    free(h->staging);
    free(h);
}

static status create(const reduce_options *o, host **out) {
    if (kernels_sums_type(o->kernels) != KERNELS_SUMS_EXACT)
        return status_error(
            STATUS_FAILED_PRECONDITION,
            "ranks joined by way of the host add exact sums only; use --sums exact");
    host *h = calloc(1, sizeof *h);
    bool device = kernels_stream(o->kernels) != NULL;
    if (h && device) h->staging = malloc(o->max_count * sizeof *h->staging);
    if (!h || (device && !h->staging)) {
        free(h);
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %zu sums on their way",
                            o->max_count);
    }
    h->o = *o;
    h->first_bad = REDUCE_ALL_FINITE;
    *out = h;
    return status_ok();
}

status reduce_host_open(const reduce_options *o, int64_t deadline_ns, const reduce_ops **ops,
                        void **state) {
    static const reduce_ops host_ops = {
        .name = "host", .sum = sum, .watch = watch, .first_bad = first_bad, .close = close_host};
    host *h = NULL;
    status s = comm_agree(o->comm, create(o, &h), deadline_ns);
    if (status_is_ok(&s)) {
        *ops = &host_ops;
        *state = h;
    } else if (h) {
        close_host(h);
    }
    return s;
}
