// channel: the wire of the NCCL stand-in: one ring of bytes for each ordered pair of ranks, in a
// shared memory segment that the ranks' processes map under the name in the unique id.
#ifndef OCTANT_TESTS_DEVICE_NCCL_CHANNEL_H
#define OCTANT_TESTS_DEVICE_NCCL_CHANNEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHANNEL_RANKS_MAX = 8, CHANNEL_BYTES = 64 << 10 };

typedef struct channel {
    _Alignas(64) _Atomic uint64_t written; // bytes since the start
    _Alignas(64) _Atomic uint64_t read;
    unsigned char bytes[CHANNEL_BYTES];
} channel;

typedef struct segment {
    _Atomic int ranks;                                // as the first to come says
    _Atomic int present[CHANNEL_RANKS_MAX];           // 1: this rank has come
    channel to[CHANNEL_RANKS_MAX][CHANNEL_RANKS_MAX]; // [from][to]
} segment;

// NULL where it cannot be had. `create`: makes it, zeroed.
segment *segment_map(const char *name, bool create);
void segment_unmap(segment *s);
void segment_forget(const char *name); // the name; those who map it keep it

// Moves as much as fits now and returns how much that was; never waits.
size_t channel_write(channel *c, const void *bytes, size_t count);
size_t channel_read(channel *c, void *bytes, size_t count);

#endif
