// transfer: one call of one upstream, from the core's effect to its one end. Private to upstream/.
//
//   transfer_create    copies what the call needs out of the effect; refuses what may not leave
//   transfer_depart    body, key, audit row (departure.h: on a thread that may wait for the disk)
//   transfer_open      libcurl has it
//   transfer_look      again and again: post what waits, look at clocks and cancels
//   transfer_closed    libcurl is done with it
//
// It belongs to one thread at a time, handed over under a lock: the core's, a departure's, the
// edge's. Only `cancelled` is written from elsewhere.
//
// After a cancel, or the request's deadline, a call that was sent goes on without its content, for
// at most drain_ns and DRAIN_BYTES_MAX, so that what it used is known and not estimated. After its
// end was seen, the connection may come to a clean end for LINGER_NS, so that it can be used again.
#ifndef OCTANT_COORDINATOR_UPSTREAM_TRANSFER_H
#define OCTANT_COORDINATOR_UPSTREAM_TRANSFER_H

#include <curl/curl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "coordinator/core/core.h"
#include "coordinator/upstream/call_clocks.h"
#include "coordinator/upstream/codec.h"
#include "coordinator/upstream/keys.h"
#include "coordinator/upstream/outbox.h"
#include "coordinator/upstream/upstream_edge.h"

typedef struct transfer transfer;

// What a call was asked, until it has departed.
typedef struct transfer_ask {
    arena *memory; // of all that follows; NULL once departed
    upstream_prompt prompt;
    upstream_mode mode;
    const char *partial;
    size_t partial_size;
    int32_t partial_tokens; // 0: not known
    const char *client, *rule;
} transfer_ask;

struct transfer {
    const upstream_edge_options *edge;
    uint64_t call;
    int upstream; // index into the policy's
    const upstream_policy *target;
    char request_id[40]; // for the log and the audit
    privacy_class privacy;
    transfer *next;        // in whichever list it is
    transfer *same_bucket; // in the edge's table, guarded by its lock
    atomic_bool cancelled;

    transfer_ask ask;
    buf url, body;
    struct curl_slist *headers; // with the key: wiped
    uint64_t key_version;       // of the key that it was sent with
    codec *codec;

    CURL *easy; // NULL: not open, or closed again
    call_clocks clocks;
    outbox outbox;
    const char *broken;  // why a callback stopped the transfer, in words
    size_t header_bytes; // received
    int64_t body_bytes;  // received
    int64_t drained, lingered;
    int64_t drain_until_ns, linger_until_ns; // INT64_MAX: not draining; lingering
    bool sent;                               // a connection was open, the request may have left
    bool content_came;                       // in the feed under way
    bool verdict;                            // the codec knows how it ended
    bool timed_out;                          // by a clock: its connection is suspect

    bool ended, told; // `end` is made; the core has taken it
    upstream_end end;
};

// Never NULL: without memory for it there would be a call without end (the process ends, as the
// core does). May be ended already: refused. Not yet counted by metrics.
transfer *transfer_create(const upstream_edge_options *edge, const core_effect *call,
                          int64_t now_ns);
void transfer_free(transfer *t); // closed

// Makes body and headers and has the audit row written. Ends the call when one of them fails.
void transfer_depart(transfer *t, upstream_keys *keys);

// Ends a call that was not sent; nothing happens to one that has ended.
void transfer_refuse(transfer *t, upstream_outcome outcome, const char *reason);

// Gives it to libcurl. Ends it when that fails. `fresh`: on a connection of its own.
void transfer_open(transfer *t, CURLM *multi, bool fresh);

// What is due: posts content and end, resumes, drains, ends by the clocks. Returns when to look
// again at the latest.
int64_t transfer_look(transfer *t, int64_t now_ns);

// libcurl is done with it (`code`); it is closed afterwards.
void transfer_closed(transfer *t, CURLcode code, int64_t now_ns);

// Ends it at once as CANCELLED: the coordinator stops.
void transfer_stop(transfer *t, int64_t now_ns);

// Takes it from libcurl; what it held of the network and of secrets is gone.
void transfer_close(transfer *t, CURLM *multi);

// Nothing is left to do: told and closed.
static inline bool transfer_is_over(const transfer *t) {
    return t->told && !t->easy;
}

#endif
