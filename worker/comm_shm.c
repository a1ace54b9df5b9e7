// comm_shm: collectives of ranks on one host, over one shared memory segment.
//
// Each rank owns two slots and a counter of the operations that it has entered. Operation k uses
// the slots of parity k mod 2: a rank copies its part into its slot, raises its counter to k and
// reads the slots of those whose counters have reached k. Two slots are enough: a rank that enters
// k has done with reading k-1, and before a rank writes the slot of k-2 again it sees all counters
// at k-1. Hence one store and one look per peer for a small message, and no lock anywhere.
//
// Long messages go in chunks of a slot. Where it pays, a chunk is summed in two phases (each rank
// sums its slice, then all read all slices); the order of each element's sum is the same in both,
// so the bits are.
//
// Waits spin for COMM_SPIN_NS when every thread has a core of its own, then sleep on the peer's
// counter (futex), so a rank that idles, or nine ranks on two cores, cost nothing to those that
// compute.
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/comm_counter.h"
#include "worker/comm_transport.h"

enum {
    SLOT_BYTES = 512 << 10,
    SLOT_DOUBLES = SLOT_BYTES / 8,
    TWO_PHASE_DOUBLES =
        8 << 10, // per rank; below it one phase is faster whatever the number of ranks
};

// One per rank, on cache lines of its own.
typedef struct peer {
    _Alignas(64) comm_counter entered; // operations entered
    comm_counter reduced;              // last operation whose slice this rank has summed
    comm_counter sleepers;             // ranks that may sleep on one of the two
    int32_t pid;
} peer;

typedef struct shm {
    int rank, size;
    int first; // rank 0's number in the whole group
    bool spin;
    int missing; // the rank that was waited for in vain; -1: none
    uint32_t op; // the operation entered last
    peer *peers; // (size)
    char *slots; // (2, size, SLOT_BYTES)
    size_t bytes;
    comm_lines *lines; // NULL: not opened
} shm;

static size_t segment_bytes(int size) {
    return (size_t)size * (sizeof(peer) + 2 * SLOT_BYTES);
}

static char *slot(const shm *c, int rank) {
    return c->slots + ((size_t)(c->op & 1) * (size_t)c->size + (size_t)rank) * SLOT_BYTES;
}

static void raise_to(shm *c, comm_counter *counter, uint32_t op) {
    comm_counter_raise(counter, &c->peers[c->rank].sleepers, op);
}

// Waits until `rank` has raised the counter to `op`.
static status await(shm *c, int rank, comm_counter *counter, uint32_t op, int64_t deadline_ns) {
    peer *p = &c->peers[rank];
    if (comm_counter_await(counter, &p->sleepers, op, c->spin, deadline_ns)) return status_ok();
    c->missing = rank;
    return status_error(STATUS_DEADLINE_EXCEEDED,
                        "rank %d (process %d on this host) has not come to collective %u in time",
                        c->first + rank, (int)p->pid, op);
}

static status await_all(shm *c, bool reduced, uint32_t op, int64_t deadline_ns) {
    for (int i = 1; i < c->size; i++) {
        int rank = (c->rank + i) % c->size;
        peer *p = &c->peers[rank];
        TRY(await(c, rank, reduced ? &p->reduced : &p->entered, op, deadline_ns));
    }
    return status_ok();
}

// Enters the next operation with `count` bytes in this rank's slot (0: this rank only reads).
static status enter(shm *c, const void *bytes, size_t count, int64_t deadline_ns) {
    uint32_t op = c->op + 1;
    if (count > 0) TRY(await_all(c, false, op - 1, deadline_ns));
    c->op = op;
    if (count > 0) memcpy(slot(c, c->rank), bytes, count);
    raise_to(c, &c->peers[c->rank].entered, op);
    return status_ok();
}

static size_t slice_begin(const shm *c, int rank, size_t count) {
    // Multiples of 8 doubles: no two ranks write one cache line.
    return rank == c->size ? count : (count * (size_t)rank / (size_t)c->size) & ~(size_t)7;
}

static status reduce_slices(shm *c, double *x, size_t count, int64_t deadline_ns) {
    size_t begin = slice_begin(c, c->rank, count), end = slice_begin(c, c->rank + 1, count);
    const double *first = (const double *)(const void *)slot(c, 0);
    // Nobody else reads this slice of this rank's slot before `reduced` is raised.
    double *mine = (double *)(void *)slot(c, c->rank) + begin;
    comm_sum_in_order(first + begin, SLOT_DOUBLES, c->size, end - begin, mine);
    raise_to(c, &c->peers[c->rank].reduced, c->op);
    TRY(await_all(c, true, c->op, deadline_ns));
    for (int rank = 0; rank < c->size; rank++) {
        size_t from = slice_begin(c, rank, count), to = slice_begin(c, rank + 1, count);
        memcpy(x + from, (const double *)(const void *)slot(c, rank) + from,
               (to - from) * sizeof *x);
    }
    return status_ok();
}

static status allreduce_chunk(shm *c, double *x, size_t count, int64_t deadline_ns) {
    TRY(enter(c, x, count * sizeof *x, deadline_ns));
    TRY(await_all(c, false, c->op, deadline_ns));
    if (c->size > 2 && count >= TWO_PHASE_DOUBLES) return reduce_slices(c, x, count, deadline_ns);
    comm_sum_in_order((const double *)(const void *)slot(c, 0), SLOT_DOUBLES, c->size, count, x);
    return status_ok();
}

static status shm_allreduce_sum(void *state, double *x, size_t count, int64_t deadline_ns) {
    shm *c = state;
    for (size_t at = 0; at < count; at += SLOT_DOUBLES) {
        size_t n = count - at < SLOT_DOUBLES ? count - at : SLOT_DOUBLES;
        TRY(allreduce_chunk(c, x + at, n, deadline_ns));
    }
    return status_ok();
}

static status shm_broadcast(void *state, void *bytes, size_t count, int64_t deadline_ns) {
    shm *c = state;
    for (size_t at = 0; at < count; at += SLOT_BYTES) {
        size_t n = count - at < SLOT_BYTES ? count - at : SLOT_BYTES;
        TRY(enter(c, (char *)bytes + at, c->rank == 0 ? n : 0, deadline_ns));
        if (c->rank == 0) continue;
        TRY(await(c, 0, &c->peers[0].entered, c->op, deadline_ns));
        memcpy((char *)bytes + at, slot(c, 0), n);
    }
    return status_ok();
}

static status shm_gather(void *state, const void *mine, size_t count, void *all,
                         int64_t deadline_ns) {
    shm *c = state;
    for (size_t at = 0; at < count; at += SLOT_BYTES) {
        size_t n = count - at < SLOT_BYTES ? count - at : SLOT_BYTES;
        TRY(enter(c, (const char *)mine + at, n, deadline_ns));
        if (c->rank != 0) continue;
        TRY(await_all(c, false, c->op, deadline_ns));
        for (int rank = 0; rank < c->size; rank++)
            memcpy((char *)all + (size_t)rank * count + at, slot(c, rank), n);
    }
    return status_ok();
}

static status shm_send(void *state, comm_line line, int to, const void *bytes, size_t count,
                       int64_t deadline_ns) {
    shm *c = state;
    status s = comm_lines_send(c->lines, line, to, bytes, count, c->spin, deadline_ns);
    if (s.code == STATUS_DEADLINE_EXCEEDED) c->missing = to;
    return s;
}

static status shm_receive(void *state, comm_line line, int from, void *bytes, size_t count,
                          int64_t deadline_ns) {
    shm *c = state;
    status s = comm_lines_receive(c->lines, line, from, bytes, count, c->spin, deadline_ns);
    if (s.code == STATUS_DEADLINE_EXCEEDED) c->missing = from;
    return s;
}

static bool shm_has_come(void *state, comm_line line, int from) {
    return comm_lines_has_come(((shm *)state)->lines, line, from);
}

static status shm_open_lines(void *state, const char *name, bool create) {
    shm *c = state;
    if (c->lines) return status_ok();
    return comm_lines_attach(name, create, c->rank, c->size, &c->lines);
}

static void shm_set_spin(void *state, bool spin) {
    ((shm *)state)->spin = spin;
}

static int shm_missing(const void *state) {
    return ((const shm *)state)->missing;
}

static void shm_close(void *state) {
    shm *c = state;
    comm_lines_close(c->lines);
    munmap(c->peers, c->bytes);
    free(c);
}

const comm_ops comm_shm_ops = {
    .name = "shm",
    .allreduce_sum = shm_allreduce_sum,
    .broadcast = shm_broadcast,
    .gather = shm_gather,
    .open_lines = shm_open_lines,
    .send = shm_send,
    .receive = shm_receive,
    .has_come = shm_has_come,
    .set_spin = shm_set_spin,
    .missing = shm_missing,
    .close = shm_close,
};

// Maps `bytes` of the segment `name`; who creates it comes before the others.
status comm_shm_map(const char *name, bool create, size_t bytes, void **memory) {
    int fd = shm_open(name, O_RDWR | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0)
        return status_error(STATUS_UNAVAILABLE, "shared memory segment %s: %s", name,
                            strerror(errno));
    // Taken now, not at the first touch: a full /dev/shm is an error here and a SIGBUS there.
    int e = create ? posix_fallocate(fd, 0, (off_t)bytes) : 0;
    *memory = e ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int why = e ? e : errno;
    close(fd);
    if (*memory != MAP_FAILED) return status_ok();
    if (e == 0)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "shared memory segment: %s", strerror(why));
    return status_error(STATUS_RESOURCE_EXHAUSTED,
                        "/dev/shm has no room for %zu KiB: %s; enlarge it", bytes >> 10,
                        strerror(why));
}

status comm_shm_attach(const char *name, bool create, int rank, int size, int first, void **state) {
    shm *c = calloc(1, sizeof *c);
    if (!c) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a communicator");
    *c = (shm){
        .rank = rank, .size = size, .first = first, .missing = -1, .bytes = segment_bytes(size)};
    void *memory = NULL;
    status s = comm_shm_map(name, create, c->bytes, &memory);
    if (!status_is_ok(&s)) {
        free(c);
        return s;
    }
    c->peers = memory;
    c->slots = (char *)memory + (size_t)size * sizeof(peer);
    c->peers[rank].pid = (int32_t)getpid();
    *state = c;
    return status_ok();
}

void comm_shm_unlink(const char *name) {
    shm_unlink(name);
}
