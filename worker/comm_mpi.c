// comm_mpi: starting and ending MPI, finding out who shares a host, and the collectives of ranks on
// several hosts.
//
// Only non-blocking MPI calls, completed by a test loop with back-off: a blocking MPI call burns
// its core while it waits and has no deadline. Sums are made here, in rank order, from an allgather
// (short messages) or an all-to-all and an allgather (long ones: each rank sums one slice); see
// comm.h for why MPI_Allreduce is not used.
#include <assert.h>
#include <errno.h>
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "worker/comm_transport.h"

enum {
    CHUNK_DOUBLES = 64 << 10,    // longest piece of an allreduce
    ONE_PHASE_DOUBLES = 2 << 10, // up to here one allgather is faster than two phases
    MESSAGE_BYTES = 1 << 24,     // longest piece of a broadcast or gather
    SPIN_NS = 50 * 1000,
    YIELD_NS = 1000 * 1000, // from here on sleeps
    SLEEP_MIN_NS = 50 * 1000,
    SLEEP_MAX_NS = 500 * 1000,
    ROWS_PARCELS = 4, // messages that may be under way from one rank
    LINE_TAG = 1,     // of the first line
};

// A message on its way: a copy, so that the sender can go on.
typedef struct parcel {
    MPI_Request request;
    char *bytes;
    size_t room;
} parcel;

// Messages that were sent and may not have arrived, each in its turn.
typedef struct outbox {
    parcel parcels[COMM_MESSAGES];
    int count, next;
} outbox;

typedef struct mpi {
    MPI_Comm group;
    int rank, size, first; // first: rank 0's number in the whole group
    int missing;           // the rank that a message was waited for from, or by, in vain; -1
    outbox rows, reports;
    outbox *words; // (size) rank 0's; NULL: the lines are not open
    bool spin;
    double *parts;   // (size, ONE_PHASE_DOUBLES), or (size, slice) in two phases
    double *slices;  // (size, slice)
    double *reduced; // (slice)
} mpi;

static size_t slice_doubles(int size) {
    return (CHUNK_DOUBLES + (size_t)size - 1) / (size_t)size;
}

static status check(int code, const char *what) {
    if (code == MPI_SUCCESS) return status_ok();
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, text, &length);
    return status_error(STATUS_UNAVAILABLE, "MPI %s: %.*s", what, length, text);
}

static void back_off(const mpi *c, int64_t waited_ns, int64_t *sleep_ns) {
    if (c->spin && waited_ns < SPIN_NS) return;
    if (waited_ns < YIELD_NS) {
        sched_yield();
        return;
    }
    clock_sleep_until(clock_now_ns() + *sleep_ns);
    if (*sleep_ns < SLEEP_MAX_NS) *sleep_ns += SLEEP_MIN_NS;
}

static status complete(const mpi *c, MPI_Request *request, const char *what, int64_t deadline_ns) {
    int64_t start = clock_now_ns(), sleep_ns = SLEEP_MIN_NS;
    for (;;) {
        int done = 0;
        TRY(check(MPI_Test(request, &done, MPI_STATUS_IGNORE), what));
        if (done) return status_ok();
        int64_t now = clock_now_ns();
        if (now > deadline_ns)
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "MPI %s has waited %.1f s for the other ranks", what,
                                (double)(now - start) / (double)CLOCK_SECOND);
        back_off(c, now - start, &sleep_ns);
    }
}

static status allgather(mpi *c, const double *mine, size_t count, double *all,
                        int64_t deadline_ns) {
    MPI_Request request;
    int n = (int)count;
    TRY(check(MPI_Iallgather(mine, n, MPI_DOUBLE, all, n, MPI_DOUBLE, c->group, &request),
              "allgather"));
    return complete(c, &request, "allgather", deadline_ns);
}

// Rank r sums slice r of everybody; then everybody gets all slices. The last slice is padded with
// what lies behind it.
static status allreduce_two_phases(mpi *c, double *x, size_t count, int64_t deadline_ns) {
    size_t slice = (count + (size_t)c->size - 1) / (size_t)c->size;
    assert(slice <= slice_doubles(c->size));
    memcpy(c->slices, x, count * sizeof *x);
    memset(c->slices + count, 0, ((size_t)c->size * slice - count) * sizeof *x);
    MPI_Request request;
    int n = (int)slice;
    TRY(check(MPI_Ialltoall(c->slices, n, MPI_DOUBLE, c->parts, n, MPI_DOUBLE, c->group, &request),
              "alltoall"));
    TRY(complete(c, &request, "alltoall", deadline_ns));
    comm_sum_in_order(c->parts, slice, c->size, slice, c->reduced);
    TRY(allgather(c, c->reduced, slice, c->slices, deadline_ns));
    memcpy(x, c->slices, count * sizeof *x);
    return status_ok();
}

static status mpi_allreduce_sum(void *state, double *x, size_t count, int64_t deadline_ns) {
    mpi *c = state;
    for (size_t at = 0; at < count; at += CHUNK_DOUBLES) {
        size_t n = count - at < CHUNK_DOUBLES ? count - at : CHUNK_DOUBLES;
        if (n > ONE_PHASE_DOUBLES) {
            TRY(allreduce_two_phases(c, x + at, n, deadline_ns));
            continue;
        }
        TRY(allgather(c, x + at, n, c->parts, deadline_ns));
        comm_sum_in_order(c->parts, n, c->size, n, x + at);
    }
    return status_ok();
}

static status mpi_broadcast(void *state, void *bytes, size_t count, int64_t deadline_ns) {
    mpi *c = state;
    for (size_t at = 0; at < count; at += MESSAGE_BYTES) {
        int n = (int)(count - at < MESSAGE_BYTES ? count - at : MESSAGE_BYTES);
        MPI_Request request;
        TRY(check(MPI_Ibcast((char *)bytes + at, n, MPI_BYTE, 0, c->group, &request), "broadcast"));
        TRY(complete(c, &request, "broadcast", deadline_ns));
    }
    return status_ok();
}

static status mpi_gather(void *state, const void *mine, size_t count, void *all,
                         int64_t deadline_ns) {
    mpi *c = state;
    assert(count <= INT32_MAX); // logits of a few rows; the whole lies in one receive buffer
    MPI_Request request;
    int n = (int)count;
    TRY(check(MPI_Igather(mine, n, MPI_BYTE, all, n, MPI_BYTE, 0, c->group, &request), "gather"));
    return complete(c, &request, "gather", deadline_ns);
}

static outbox empty_outbox(int count) {
    outbox o = {.count = count};
    for (int i = 0; i < count; i++) o.parcels[i].request = MPI_REQUEST_NULL;
    return o;
}

static status mpi_open_lines(void *state, const char *name, bool create) {
    (void)name, (void)create;
    mpi *c = state;
    if (c->words) return status_ok();
    c->words = calloc((size_t)c->size, sizeof *c->words);
    if (!c->words) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for lines");
    for (int i = 0; i < c->size; i++) c->words[i] = empty_outbox(COMM_MESSAGES);
    return status_ok();
}

static status take_room(parcel *p, size_t bytes) {
    if (p->room >= bytes) return status_ok();
    char *grown = realloc(p->bytes, bytes);
    if (!grown) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a message");
    p->bytes = grown;
    p->room = bytes;
    return status_ok();
}

// The other rank is at fault when a message between two is late.
static status between(mpi *c, int other, status s) {
    if (s.code != STATUS_DEADLINE_EXCEEDED) return s;
    c->missing = other;
    return status_context(s, "with rank %d", c->first + other);
}

static outbox *outbox_of(mpi *c, comm_line line, int to) {
    return line == COMM_ROWS ? &c->rows : line == COMM_REPORTS ? &c->reports : &c->words[to];
}

static status mpi_send(void *state, comm_line line, int to, const void *bytes, size_t count,
                       int64_t deadline_ns) {
    mpi *c = state;
    outbox *box = outbox_of(c, line, to);
    for (size_t at = 0; at < count; at += MESSAGE_BYTES) {
        size_t n = count - at < MESSAGE_BYTES ? count - at : MESSAGE_BYTES;
        parcel *p = &box->parcels[box->next];
        box->next = (box->next + 1) % box->count;
        TRY(between(c, to, complete(c, &p->request, "message", deadline_ns)));
        TRY(take_room(p, n));
        memcpy(p->bytes, (const char *)bytes + at, n);
        TRY(check(
            MPI_Isend(p->bytes, (int)n, MPI_BYTE, to, LINE_TAG + (int)line, c->group, &p->request),
            "send"));
    }
    return status_ok();
}

static status mpi_receive(void *state, comm_line line, int from, void *bytes, size_t count,
                          int64_t deadline_ns) {
    mpi *c = state;
    for (size_t at = 0; at < count; at += MESSAGE_BYTES) {
        int n = (int)(count - at < MESSAGE_BYTES ? count - at : MESSAGE_BYTES);
        MPI_Request request;
        TRY(check(MPI_Irecv((char *)bytes + at, n, MPI_BYTE, from, LINE_TAG + (int)line, c->group,
                            &request),
                  "receive"));
        TRY(between(c, from, complete(c, &request, "receive", deadline_ns)));
    }
    return status_ok();
}

// What went wrong is told by the receive that follows.
static bool mpi_has_come(void *state, comm_line line, int from) {
    mpi *c = state;
    int come = 0;
    int code = MPI_Iprobe(from, LINE_TAG + (int)line, c->group, &come, MPI_STATUS_IGNORE);
    return code != MPI_SUCCESS || come;
}

static void move_on(outbox *box) {
    for (int i = 0; i < box->count; i++) {
        int done;
        if (box->parcels[i].request != MPI_REQUEST_NULL)
            MPI_Test(&box->parcels[i].request, &done, MPI_STATUS_IGNORE);
    }
}

// A long message moves only while its sender is inside of MPI: the stage that sent it may compute
// meanwhile, and add up through shared memory.
static void mpi_progress(void *state) {
    mpi *c = state;
    move_on(&c->rows);
    move_on(&c->reports);
    for (int i = 0; c->words && c->rank == 0 && i < c->size; i++) move_on(&c->words[i]);
}

static int mpi_missing(const void *state) {
    return ((const mpi *)state)->missing;
}

static void mpi_set_spin(void *state, bool spin) {
    ((mpi *)state)->spin = spin;
}

// What is still under way keeps its bytes.
static void empty(outbox *box) {
    for (int i = 0; i < box->count; i++)
        if (box->parcels[i].request == MPI_REQUEST_NULL) free(box->parcels[i].bytes);
}

static void mpi_close(void *state) {
    mpi *c = state;
    mpi_progress(c);
    empty(&c->rows);
    empty(&c->reports);
    for (int i = 0; c->words && i < c->size; i++) empty(&c->words[i]);
    free(c->words);
    free(c->parts);
    free(c->slices);
    free(c->reduced);
    free(c);
}

const comm_ops comm_mpi_ops = {
    .name = "mpi",
    .allreduce_sum = mpi_allreduce_sum,
    .broadcast = mpi_broadcast,
    .gather = mpi_gather,
    .open_lines = mpi_open_lines,
    .send = mpi_send,
    .receive = mpi_receive,
    .has_come = mpi_has_come,
    .progress = mpi_progress,
    .missing = mpi_missing,
    .set_spin = mpi_set_spin,
    .close = mpi_close,
};

static status mpi_state(const comm *of, MPI_Comm group, void **out) {
    int size = of->size;
    mpi *c = calloc(1, sizeof *c);
    if (!c) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a communicator");
    size_t slice = slice_doubles(size),
           parts = slice > ONE_PHASE_DOUBLES ? slice : ONE_PHASE_DOUBLES;
    *c = (mpi){.group = group, .rank = of->rank, .size = size, .first = of->first, .missing = -1};
    c->rows = empty_outbox(ROWS_PARCELS);
    c->reports = empty_outbox(COMM_MESSAGES);
    c->parts = calloc((size_t)size * parts, sizeof(double));
    c->slices = calloc((size_t)size * slice, sizeof(double));
    c->reduced = calloc(slice, sizeof(double));
    if (c->parts && c->slices && c->reduced) {
        *out = c;
        return status_ok();
    }
    mpi_close(c);
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the buffers of %d ranks", size);
}

// Whether the ranks of this host have the same set of cores: the least and the greatest hash agree.
static bool cores_are_shared(MPI_Comm host) {
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    uint64_t hash = UINT64_C(0xcbf29ce484222325); // FNV-1a
    for (int i = 0; i < CPU_SETSIZE; i++)
        hash = (hash ^ (uint64_t)(CPU_ISSET(i, &set) != 0)) * UINT64_C(0x100000001b3);
    uint64_t low = hash, high = hash;
    MPI_Allreduce(&hash, &low, 1, MPI_UINT64_T, MPI_MIN, host);
    MPI_Allreduce(&hash, &high, 1, MPI_UINT64_T, MPI_MAX, host);
    return low == high;
}

static void find_host_mates(comm *c, MPI_Comm group) {
    MPI_Comm host;
    MPI_Comm_split_type(group, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
    MPI_Comm_rank(host, &c->local_rank);
    MPI_Comm_size(host, &c->local_size);
    c->cores_shared = cores_are_shared(host);
    MPI_Comm_free(&host);
}

// Rank 0 makes the segment and tells its name; the name goes as soon as everybody holds the
// segment.
static status open_shm(comm *c, MPI_Comm group) {
    char name[COMM_SEGMENT_NAME_MAX];
    comm_segment_name(name);
    MPI_Bcast(name, sizeof name, MPI_CHAR, 0, group);
    void *state = NULL;
    status s = status_ok();
    if (c->rank == 0) s = comm_shm_attach(name, true, c->rank, c->size, c->first, &state);
    MPI_Barrier(group);
    if (c->rank != 0) s = comm_shm_attach(name, false, c->rank, c->size, c->first, &state);
    int ok = status_is_ok(&s), all_ok = 0;
    MPI_Allreduce(&ok, &all_ok, 1, MPI_INT, MPI_MIN, group);
    if (c->rank == 0) comm_shm_unlink(name);
    if (all_ok) {
        c->ops = &comm_shm_ops;
        c->state = state;
        return s;
    }
    if (ok) comm_shm_ops.close(state);
    return ok ? status_error(STATUS_UNAVAILABLE, "another rank of this host has no shared memory")
              : s;
}

static status open_transport(comm *c, MPI_Comm group) {
    comm_transport transport = c->transport;
    if (c->size == 1) {
        c->ops = &comm_local_ops;
        return status_ok();
    }
    bool one_host = c->local_size == c->size;
    if (transport == COMM_SHM && !one_host)
        return status_error(
            STATUS_FAILED_PRECONDITION,
            "the ranks are on several hosts: shared memory cannot join them; use mpi or auto");
    if (transport != COMM_MPI && one_host) {
        status s = open_shm(c, group);
        if (status_is_ok(&s) || transport == COMM_SHM) return s;
        log_warn("comm", "slower collectives through MPI, because: %s", s.message);
    }
    c->ops = &comm_mpi_ops;
    return mpi_state(c, group, &c->state);
}

status comm_open(int *argc, char ***argv, comm_transport transport, comm **out) {
    int provided = 0;
    // hwloc, which MPI reads the machine by, would look for GPUs behind X displays: ten names to
    // resolve, 5 s each on a machine whose /etc/hosts lacks localhost. What the operator has set
    // stays.
    setenv("HWLOC_COMPONENTS", "-gl", 0);
    TRY(check(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "start"));
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    comm *c = NULL;
    status s = comm_open_local(&c);
    if (!status_is_ok(&s)) goto fail_start;
    if (provided < MPI_THREAD_FUNNELED) {
        s = status_error(STATUS_FAILED_PRECONDITION,
                         "this MPI does not support threads beside it (FUNNELED)");
        goto fail_comm;
    }
    c->mpi_started = true;
    MPI_Comm_rank(MPI_COMM_WORLD, &c->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &c->size);
    c->transport = transport;
    find_host_mates(c, MPI_COMM_WORLD);
    if (c->size > SHARD_RANKS_MAX) {
        s = status_error(STATUS_INVALID_ARGUMENT, "%d ranks; at most %d are taken", c->size,
                         SHARD_RANKS_MAX);
        goto fail_comm;
    }
    s = open_transport(c, MPI_COMM_WORLD);
    if (!status_is_ok(&s)) goto fail_comm;
    *out = c;
    return s;
fail_comm:
    free(c);
fail_start:
    MPI_Finalize();
    return s;
}

status comm_open_part(comm *whole, int first, int count, int64_t deadline_ns, comm **out) {
    comm *c = NULL;
    TRY(comm_agree(whole, comm_open_local(&c), deadline_ns));
    assert(first <= whole->rank && whole->rank < first + count);
    c->whole = whole;
    c->first = first;
    c->rank = whole->rank - first;
    c->size = count;
    c->transport = whole->transport;
    status s = status_ok();
    if (whole->size > 1) {
        // Never freed: that would be one more collective, also of ranks that give up. MPI's end
        // does it.
        MPI_Comm group;
        s = check(MPI_Comm_split(MPI_COMM_WORLD, first, whole->rank, &group), "split");
        if (status_is_ok(&s)) find_host_mates(c, group);
        if (status_is_ok(&s)) s = open_transport(c, group);
    }
    bool opened = status_is_ok(&s);
    s = comm_agree(whole, s, deadline_ns);
    if (status_is_ok(&s)) {
        comm_set_spin(c, whole->spin);
        *out = c;
    } else if (opened)
        comm_close(c);
    else
        free(c);
    return s;
}

void comm_close(comm *c) {
    if (!c) return;
    c->ops->close(c->state);
    if (c->mpi_started) MPI_Finalize();
    free(c);
}

void comm_abort(comm *c, int exit_code) {
    if (c && c->mpi_started && c->size > 1) MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}
