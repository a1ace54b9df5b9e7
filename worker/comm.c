// comm: the verbs, without what moves the bytes: time accounting, and the sum that all transports
// share.
#include "worker/comm.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "worker/comm_transport.h"

int comm_rank(const comm *c) {
    return c->rank;
}

int comm_size(const comm *c) {
    return c->size;
}

const char *comm_name(const comm *c) {
    return c->ops->name;
}

const char *comm_host(const comm *c) {
    return c->host;
}

int comm_local_rank(const comm *c) {
    return c->local_rank;
}

int comm_local_size(const comm *c) {
    return c->local_size;
}

bool comm_cores_shared(const comm *c) {
    return c->cores_shared;
}

int comm_number(const comm *c, int rank) {
    return c->first + rank;
}

int comm_missing(const comm *c) {
    return c->whole ? c->whole->missing : c->missing;
}

// Keeps who did not come where comm_missing finds it.
static status note(comm *c, status s) {
    if (s.code != STATUS_DEADLINE_EXCEEDED || !c->ops->missing) return s;
    comm *whole = c->whole ? c->whole : c;
    int missing = c->ops->missing(c->state);
    if (missing >= 0) whole->missing = c->first + missing;
    return s;
}

static void add_time(comm *c, int64_t start_ns) {
    comm *whole = c->whole ? c->whole : c;
    whole->spent_ns += clock_now_ns() - start_ns;
}

void comm_set_spin(comm *c, bool spin) {
    c->spin = spin;
    c->ops->set_spin(c->state, spin);
}

status comm_allreduce_sum(comm *c, double *x, size_t count, int64_t deadline_ns) {
    if (c->size == 1 || count == 0) return status_ok();
    int64_t start = clock_now_ns();
    status s = c->ops->allreduce_sum(c->state, x, count, deadline_ns);
    if (c->whole) comm_progress(c);
    add_time(c, start);
    return note(c, s);
}

status comm_broadcast(comm *c, void *bytes, size_t count, int64_t deadline_ns) {
    if (c->size == 1 || count == 0) return status_ok();
    return note(c, c->ops->broadcast(c->state, bytes, count, deadline_ns));
}

status comm_gather(comm *c, const void *mine, size_t count, void *all, int64_t deadline_ns) {
    if (count == 0) return status_ok();
    if (c->size == 1) {
        memmove(all, mine, count);
        return status_ok();
    }
    int64_t start = clock_now_ns();
    status s = c->ops->gather(c->state, mine, count, all, deadline_ns);
    add_time(c, start);
    return note(c, s);
}

status comm_send(comm *c, comm_line line, int to, const void *bytes, size_t count,
                 int64_t deadline_ns) {
    int64_t start = clock_now_ns();
    status s = c->ops->send(c->state, line, to, bytes, count, deadline_ns);
    add_time(c, start);
    return note(c, s);
}

status comm_receive(comm *c, comm_line line, int from, void *bytes, size_t count,
                    int64_t deadline_ns) {
    int64_t start = clock_now_ns();
    status s = c->ops->receive(c->state, line, from, bytes, count, deadline_ns);
    // Waiting for words is waiting for work.
    if (line != COMM_WORDS) add_time(c, start);
    return note(c, s);
}

bool comm_has_come(comm *c, comm_line line, int from) {
    return c->ops->has_come(c->state, line, from);
}

void comm_progress(comm *c) {
    comm *whole = c->whole ? c->whole : c;
    if (whole->ops->progress) whole->ops->progress(whole->state);
}

status comm_open_lines(comm *c, int64_t deadline_ns) {
    char name[COMM_SEGMENT_NAME_MAX];
    comm_segment_name(name);
    TRY(comm_broadcast(c, name, sizeof name, deadline_ns));
    status s = c->rank == 0 ? c->ops->open_lines(c->state, name, true) : status_ok();
    s = comm_agree(c, s, deadline_ns);
    if (!status_is_ok(&s)) return s;
    if (c->rank != 0) s = c->ops->open_lines(c->state, name, false);
    s = comm_agree(c, s, deadline_ns);
    if (c->rank == 0) comm_shm_unlink(name); // gone as soon as everybody holds it
    return s;
}

status comm_barrier(comm *c, int64_t deadline_ns) {
    char mine = 0, all[SHARD_RANKS_MAX];
    assert(c->size <= SHARD_RANKS_MAX);
    TRY(comm_gather(c, &mine, 1, all, deadline_ns));
    return comm_broadcast(c, &mine, 1, deadline_ns);
}

typedef struct verdict {
    int32_t code;
    char message[STATUS_MESSAGE_MAX];
} verdict;

status comm_agree(comm *c, status mine, int64_t deadline_ns) {
    if (comm_size(c) == 1) return mine;
    verdict v = {.code = (int32_t)mine.code};
    if (mine.code != STATUS_OK)
        snprintf(v.message, sizeof v.message, "rank %d on %.*s: %.*s", c->first + c->rank, 64,
                 comm_host(c), 400, mine.message);
    verdict *all = comm_rank(c) == 0 ? calloc((size_t)comm_size(c), sizeof *all) : NULL;
    status s = comm_gather(c, &v, sizeof v, all, deadline_ns);
    for (int i = comm_size(c) - 1; all && i >= 0; i--)
        if (all[i].code != STATUS_OK) v = all[i]; // the first failed rank's stays
    free(all);
    TRY(s);
    TRY(comm_broadcast(c, &v, sizeof v, deadline_ns));
    if (v.code == STATUS_OK) return status_ok();
    return status_error((status_code)v.code, "%s", v.message);
}

void comm_segment_name(char name[COMM_SEGMENT_NAME_MAX]) {
    snprintf(name, COMM_SEGMENT_NAME_MAX, "/octant-%d-%llx", (int)getpid(),
             (unsigned long long)clock_now_ns());
}

int64_t comm_take_time(comm *c) {
    int64_t spent = c->spent_ns;
    c->spent_ns = 0;
    return spent;
}

void comm_sum_in_order(const double *first, size_t stride, int size, size_t count, double *out) {
    // In pieces that stay in the first-level cache while the ranks are added to them.
    enum { PIECE = 1024 };
    for (size_t at = 0; at < count; at += PIECE) {
        size_t n = count - at < PIECE ? count - at : PIECE;
        double sum[PIECE];
        memcpy(sum, first + at, n * sizeof *sum);
        for (int rank = 1; rank < size; rank++) {
            const double *x = first + (size_t)rank * stride + at;
            for (size_t i = 0; i < n; i++) sum[i] += x[i];
        }
        memcpy(out + at, sum, n * sizeof *sum);
    }
}
