// transfer: see transfer.h. All parts move side by side, as far as the rings let them, so no order
// of sends and receives can lock up.
//
// An allreduce of BF16 adds as a ring does: element i starts at a rank that depends on where i lies
// in the message, and is rounded at each hop. So its bits depend on the message's length, as NCCL's
// do, and a test that needs them not to notices.
#include "transfer.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

size_t type_bytes(ncclDataType_t type) {
    switch (type) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclFloat16:
    case ncclBfloat16:
        return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
        return 4;
    default:
        return 8;
    }
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void mismatch(const transfer_place *place, const part *p) {
    static const char *const names[] = {"send/receive", "allreduce", "allgather", "broadcast"};
    fprintf(stderr,
            "NCCL stand-in: rank %d calls %s of %llu values of type %u, rank %d calls %s of %llu "
            "of type %u\n",
            place->rank, names[p->heading.call], (unsigned long long)p->heading.count,
            p->heading.type, p->peer, names[p->theirs.call & 3],
            (unsigned long long)p->theirs.count, p->theirs.type);
    abort();
}

// Moves what can be moved now; true if anything was.
static bool advance_send(part *p, channel *c) {
    size_t moved = 0, head = sizeof p->heading;
    if (p->done < head)
        p->done += moved = channel_write(c, (char *)&p->heading + p->done, head - p->done);
    if (p->done < head) return moved > 0;
    size_t at = p->done - head, n = channel_write(c, p->data + at, p->bytes - at);
    p->done += n;
    return moved + n > 0;
}

static bool advance_receive(part *p, channel *c, const transfer_place *place) {
    size_t moved = 0, head = sizeof p->heading;
    if (p->done < head) {
        p->done += moved = channel_read(c, (char *)&p->theirs + p->done, head - p->done);
        if (p->done == head && memcmp(&p->theirs, &p->heading, head) != 0) mismatch(place, p);
    }
    if (p->done < head) return moved > 0;
    size_t at = p->done - head, n = channel_read(c, p->data + at, p->bytes - at);
    p->done += n;
    return moved + n > 0;
}

// Messages of one pair arrive in the order of the calls: the first that is not done goes first.
static bool is_behind(const transfer *t, int index) {
    const part *p = &t->parts[index];
    for (int i = 0; i < index; i++) {
        const part *q = &t->parts[i];
        if (q->sends == p->sends && q->peer == p->peer && q->done < q->bytes + sizeof q->heading)
            return true;
    }
    return false;
}

static bool advance(transfer *t, const transfer_place *place, bool *all_done) {
    bool moved = false;
    *all_done = true;
    for (int i = 0; i < t->count; i++) {
        part *p = &t->parts[i];
        if (p->done == p->bytes + sizeof p->heading) continue;
        *all_done = false;
        if (is_behind(t, i)) continue;
        channel *c = p->sends ? &place->wire->to[place->rank][p->peer]
                              : &place->wire->to[p->peer][place->rank];
        moved |= p->sends ? advance_send(p, c) : advance_receive(p, c, place);
    }
    return moved;
}

static float bf16_value(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &word, sizeof x);
    return x;
}

static uint16_t bf16_bits(float x) { // to nearest even
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    return (uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

static void add_one(ncclDataType_t type, unsigned char *to, const unsigned char *from) {
    if (type == ncclBfloat16) {
        uint16_t a, b;
        memcpy(&a, to, 2);
        memcpy(&b, from, 2);
        a = bf16_bits(bf16_value(a) + bf16_value(b));
        memcpy(to, &a, 2);
    } else if (type == ncclFloat32) {
        float a, b;
        memcpy(&a, to, 4);
        memcpy(&b, from, 4);
        a += b;
        memcpy(to, &a, 4);
    } else {
        double a, b;
        memcpy(&a, to, 8);
        memcpy(&b, from, 8);
        a += b;
        memcpy(to, &a, 8);
    }
}

static void add_as_a_ring(const transfer *t, int ranks) {
    size_t each = type_bytes(t->type), bytes = t->reduce_count * each;
    size_t slice = (t->reduce_count + (size_t)ranks - 1) / (size_t)ranks;
    for (size_t i = 0; i < t->reduce_count; i++) {
        unsigned char sum[8];
        size_t first = i / slice + 1;
        for (size_t hop = 0; hop < (size_t)ranks; hop++) {
            const unsigned char *x = t->scratch + (first + hop) % (size_t)ranks * bytes + i * each;
            if (hop == 0)
                memcpy(sum, x, each);
            else
                add_one(t->type, sum, x);
        }
        memcpy(t->out + i * each, sum, each);
    }
}

bool transfer_run(transfer *t, const transfer_place *place, int64_t limit_ms) {
    int64_t until = now_ms() + limit_ms;
    for (int i = 0; i < t->count; i++) t->parts[i].done = 0;
    for (bool all_done = false; !all_done;) {
        if (advance(t, place, &all_done)) continue;
        if (atomic_load(place->aborted) || now_ms() > until) return false;
        sched_yield();
    }
    if (t->out) add_as_a_ring(t, place->ranks);
    return true;
}
