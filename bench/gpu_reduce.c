// gpu_reduce: stands in for worker/reduce.c where one rank of several is measured alone: a sum over
// ranks becomes a copy of the same bytes within this card's memory, in order with the kernels'
// calls. What the links would add is stated beside the measured time, never mixed into it.
#include <stdlib.h>

#include "worker/reduce.h"

struct reduce {
    kernels *k;
    void *copy;
    size_t sums_bytes; // of one sum
};

status reduce_open(const reduce_options *o, int64_t deadline_ns, reduce **out) {
    (void)deadline_ns;
    reduce *r = calloc(1, sizeof *r);
    if (!r) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the reduction");
    *r = (reduce){.k = o->kernels, .sums_bytes = kernels_sums_bytes(o->kernels, 1)};
    status s = kernels_alloc(o->kernels, kernels_sums_bytes(o->kernels, o->max_count), &r->copy);
    if (status_is_ok(&s))
        *out = r;
    else
        free(r);
    return s;
}

void reduce_close(reduce *r) {
    if (!r) return;
    kernels_free(r->k, r->copy);
    free(r);
}

const char *reduce_name(const reduce *r) {
    (void)r;
    return "a copy within the card";
}

bool reduce_queues(const reduce *r) {
    (void)r;
    return true;
}

status reduce_register(reduce *r, void *sums, size_t count) {
    (void)r;
    (void)sums;
    (void)count;
    return status_ok();
}

status reduce_sum(reduce *r, void *sums, size_t count, int64_t deadline_ns) {
    (void)deadline_ns;
    kernels_copy(r->k, r->copy, sums, count * r->sums_bytes);
    return status_ok();
}

status reduce_add_rmsnorm(reduce *r, const reduce_norm *n, int64_t deadline_ns) {
    TRY(reduce_sum(r, n->sums, (size_t)n->tokens * (size_t)n->width, deadline_ns));
    kernels_add_rmsnorm(r->k, n->x, n->sums, n->weight, n->epsilon, n->tokens, n->width, n->out);
    return status_ok();
}

status reduce_wait(reduce *r, int64_t deadline_ns) {
    return kernels_sync(r->k, deadline_ns);
}

// There are no other ranks whose numbers could be looked at.
void reduce_watch(reduce *r, size_t first, size_t count) {
    (void)r;
    (void)first;
    (void)count;
}
