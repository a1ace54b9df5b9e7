// What the three files of transfer share: transfer.c (a call's life and end), transfer_http.c (what
// libcurl is told and says), departure.c (what is done before a byte leaves).
#ifndef OCTANT_COORDINATOR_UPSTREAM_TRANSFER_INTERNAL_H
#define OCTANT_COORDINATOR_UPSTREAM_TRANSFER_INTERNAL_H

#include "coordinator/upstream/transfer.h"

enum {
    BYTES_PER_TOKEN = 4,             // where nobody has counted: a usual figure for English text
    DRAIN_BYTES_MAX = 1 << 20,       // of an answer that nobody wants any more
    LINGER_BYTES_MAX = 64 << 10,     // after an answer's end
    RESPONSE_BYTES_MAX = 256 << 20,  // of one response, pings and all
    RESPONSE_HEADER_MAX = 128 << 10, // [bytes]
};

// Ends the call as the codec says, or in words of our own over its usage.
void transfer_end_by_codec(transfer *t, bool whole, int64_t now_ns);
void transfer_end_as(transfer *t, upstream_outcome outcome, const char *reason, int64_t now_ns);

// What libcurl's code means, in words that hold nothing from outside.
const char *transfer_explain(const transfer *t, CURLcode code);

#endif
