// comm_shm_lines: what one rank sends to another, on one host: each rank has an inbox in shared
// memory, a ring of slots that one other rank fills. The sender goes on as soon as its bytes are in
// the ring; it waits only while the ring is full. The collectives of comm_shm.c know nothing of it.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "worker/comm_counter.h"
#include "worker/comm_transport.h"

enum { SLOT_BYTES = 256 << 10, SLOTS = 4 };

// On cache lines of its own.
typedef struct inbox {
    _Alignas(64) comm_counter filled; // slots filled so far
    comm_counter emptied;             // of these, slots that were read
    comm_counter sleepers;            // ranks that may sleep on one of the two
} inbox;

struct comm_lines {
    int rank, size;
    inbox *boxes; // (size)
    char *slots;  // (size, SLOTS, SLOT_BYTES)
    size_t bytes;
};

status comm_lines_attach(const char *name, bool create, int rank, int size, comm_lines **out) {
    comm_lines *l = calloc(1, sizeof *l);
    if (!l) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for lines between ranks");
    *l = (comm_lines){.rank = rank, .size = size};
    l->bytes = (size_t)size * (sizeof(inbox) + (size_t)SLOTS * SLOT_BYTES);
    void *memory = NULL;
    status s = comm_shm_map(name, create, l->bytes, &memory);
    if (!status_is_ok(&s)) {
        free(l);
        return s;
    }
    l->boxes = memory;
    l->slots = (char *)memory + (size_t)size * sizeof(inbox);
    *out = l;
    return s;
}

void comm_lines_close(comm_lines *l) {
    if (!l) return;
    munmap(l->boxes, l->bytes);
    free(l);
}

static char *slot(const comm_lines *l, int rank, uint32_t number) {
    return l->slots + ((size_t)rank * SLOTS + number % SLOTS) * SLOT_BYTES;
}

static size_t piece(size_t count, size_t at) {
    return count - at < SLOT_BYTES ? count - at : SLOT_BYTES;
}

status comm_lines_send(comm_lines *l, int to, const void *bytes, size_t count, bool spin,
                       int64_t deadline_ns) {
    inbox *box = &l->boxes[to];
    for (size_t at = 0; at < count; at += SLOT_BYTES) {
        uint32_t number = atomic_load(&box->filled);
        if (!comm_counter_await(&box->emptied, &box->sleepers, number + 1 - SLOTS, spin,
                                deadline_ns))
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "rank %d has not taken what rank %d sent it in time", to, l->rank);
        memcpy(slot(l, to, number), (const char *)bytes + at, piece(count, at));
        comm_counter_raise(&box->filled, &box->sleepers, number + 1);
    }
    return status_ok();
}

status comm_lines_receive(comm_lines *l, int from, void *bytes, size_t count, bool spin,
                          int64_t deadline_ns) {
    inbox *box = &l->boxes[l->rank];
    for (size_t at = 0; at < count; at += SLOT_BYTES) {
        uint32_t number = atomic_load(&box->emptied);
        if (!comm_counter_await(&box->filled, &box->sleepers, number + 1, spin, deadline_ns))
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "rank %d has not sent in time what rank %d waits for", from,
                                l->rank);
        memcpy((char *)bytes + at, slot(l, l->rank, number), piece(count, at));
        comm_counter_raise(&box->emptied, &box->sleepers, number + 1);
    }
    return status_ok();
}
