// comm_shm_lines: what one rank sends to another, on one host: rings of slots in shared memory,
// each filled by one rank and emptied by one other. The sender goes on as soon as its bytes are in
// the ring; it waits only while the ring is full. The collectives of comm_shm.c know nothing of it.
//
// A kind of line has one ring for each rank: the receiver's, or, where rank 0 receives from all,
// the sender's.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "worker/comm_counter.h"
#include "worker/comm_transport.h"

enum { ROWS_BYTES = 256 << 10, ROWS_SLOTS = 4, REPORT_BYTES = 256 };

typedef struct ring_shape {
    size_t bytes; // of a slot
    uint32_t slots;
} ring_shape;

static const ring_shape shapes[COMM_LINES] = {
    [COMM_ROWS] = {ROWS_BYTES, ROWS_SLOTS},
    [COMM_WORDS] = {COMM_WORDS_BYTES, COMM_MESSAGES},
    [COMM_REPORTS] = {REPORT_BYTES, COMM_MESSAGES},
};

// On cache lines of its own.
typedef struct ring {
    _Alignas(64) comm_counter filled; // slots filled so far
    comm_counter emptied;             // of these, slots that were read
    comm_counter sleepers;            // ranks that may sleep on one of the two
} ring;

struct comm_lines {
    int rank, size;
    ring *rings;             // (COMM_LINES, size)
    char *slots[COMM_LINES]; // (size, slots, bytes)
    size_t bytes;
};

static size_t kind_bytes(int line, int size) {
    return (size_t)size * shapes[line].slots * shapes[line].bytes;
}

status comm_lines_attach(const char *name, bool create, int rank, int size, comm_lines **out) {
    comm_lines *l = calloc(1, sizeof *l);
    if (!l) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for lines between ranks");
    size_t rings = COMM_LINES * (size_t)size * sizeof(ring);
    *l = (comm_lines){.rank = rank, .size = size, .bytes = rings};
    for (int i = 0; i < COMM_LINES; i++) l->bytes += kind_bytes(i, size);
    void *memory = NULL;
    status s = comm_shm_map(name, create, l->bytes, &memory);
    if (!status_is_ok(&s)) {
        free(l);
        return s;
    }
    l->rings = memory;
    char *next = (char *)memory + rings;
    for (int i = 0; i < COMM_LINES; next += kind_bytes(i, size), i++) l->slots[i] = next;
    *out = l;
    return s;
}

void comm_lines_close(comm_lines *l) {
    if (!l) return;
    munmap(l->rings, l->bytes);
    free(l);
}

static int owner_of(comm_line line, int from, int to) {
    return line == COMM_REPORTS ? from : to;
}

static ring *ring_of(const comm_lines *l, comm_line line, int owner) {
    return &l->rings[(size_t)line * (size_t)l->size + (size_t)owner];
}

static char *slot(const comm_lines *l, comm_line line, int owner, uint32_t number) {
    const ring_shape *s = &shapes[line];
    return l->slots[line] + ((size_t)owner * s->slots + number % s->slots) * s->bytes;
}

static size_t piece(comm_line line, size_t count, size_t at) {
    return count - at < shapes[line].bytes ? count - at : shapes[line].bytes;
}

status comm_lines_send(comm_lines *l, comm_line line, int to, const void *bytes, size_t count,
                       bool spin, int64_t deadline_ns) {
    int owner = owner_of(line, l->rank, to);
    ring *r = ring_of(l, line, owner);
    for (size_t at = 0; at < count; at += shapes[line].bytes) {
        uint32_t number = atomic_load(&r->filled);
        if (!comm_counter_await(&r->emptied, &r->sleepers, number + 1 - shapes[line].slots, spin,
                                deadline_ns))
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "rank %d has not taken what rank %d sent it in time", to, l->rank);
        memcpy(slot(l, line, owner, number), (const char *)bytes + at, piece(line, count, at));
        comm_counter_raise(&r->filled, &r->sleepers, number + 1);
    }
    return status_ok();
}

status comm_lines_receive(comm_lines *l, comm_line line, int from, void *bytes, size_t count,
                          bool spin, int64_t deadline_ns) {
    int owner = owner_of(line, from, l->rank);
    ring *r = ring_of(l, line, owner);
    for (size_t at = 0; at < count; at += shapes[line].bytes) {
        uint32_t number = atomic_load(&r->emptied);
        if (!comm_counter_await(&r->filled, &r->sleepers, number + 1, spin, deadline_ns))
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "rank %d has not sent in time what rank %d waits for", from,
                                l->rank);
        memcpy((char *)bytes + at, slot(l, line, owner, number), piece(line, count, at));
        comm_counter_raise(&r->emptied, &r->sleepers, number + 1);
    }
    return status_ok();
}

bool comm_lines_has_come(const comm_lines *l, comm_line line, int from) {
    ring *r = ring_of(l, line, owner_of(line, from, l->rank));
    return atomic_load(&r->filled) != atomic_load(&r->emptied);
}
