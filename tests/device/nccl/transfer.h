// transfer: what one call (or one group of calls) of the NCCL stand-in moves, and how it is run
// when the stream comes to it.
#ifndef OCTANT_TESTS_DEVICE_NCCL_TRANSFER_H
#define OCTANT_TESTS_DEVICE_NCCL_TRANSFER_H

#include <nccl.h>

#include "channel.h"

enum { PARTS_MAX = 4 * CHANNEL_RANKS_MAX };

// What both ends of a message must agree on; travels ahead of it.
typedef struct heading {
    uint32_t call; // a transfer_call
    uint32_t type;
    uint64_t count;
} heading;

typedef enum transfer_call {
    CALL_SEND,
    CALL_ALL_REDUCE,
    CALL_ALL_GATHER,
    CALL_BROADCAST
} transfer_call;

// One message between this rank and `peer` (which may be itself).
typedef struct part {
    bool sends;
    int peer;
    heading heading;
    unsigned char *data;
    size_t bytes;
    size_t done;    // of heading and data together
    heading theirs; // as received
} part;

typedef struct transfer {
    struct ncclComm *communicator;
    part parts[PARTS_MAX];
    int count;
    // An allreduce adds what has come from everybody: scratch (ranks, bytes) to out.
    unsigned char *scratch, *out;
    size_t reduce_count;
    ncclDataType_t type;
    struct transfer *next; // of its communicator: a recorded one runs more than once
} transfer;

typedef struct transfer_place {
    segment *wire;
    int rank, ranks;
    _Atomic bool *aborted;
} transfer_place;

size_t type_bytes(ncclDataType_t type);

// Runs it to the end. False: aborted, or the time (limit_ms) ran out. Ends the process where the
// ranks' calls do not match: the real one would hang or corrupt.
bool transfer_run(transfer *t, const transfer_place *place, int64_t limit_ms);

#endif
