// leader_link: the leader's conversation with the coordinator: Register once, then the step stream.
// Used by rank 0, from its main thread: while it computes a step, the next plan is already received
// and waits in the stream's inbox.
#ifndef OCTANT_WORKER_LEADER_LINK_H
#define OCTANT_WORKER_LEADER_LINK_H

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/status.h"
#include "proto/cluster_key.h"
#include "proto/cluster_msg.h"

typedef struct leader_link leader_link;

// `key` is copied.
status leader_link_open(const char *address, const cluster_key *key, leader_link **out);
void leader_link_close(leader_link *l); // NULL is allowed

// Announces the group, waiting for the coordinator until the deadline. `response` (limit set by the
// caller) gets the encoded RegisterResponse, for all ranks to decode. UNAVAILABLE: nobody answered;
// others: the coordinator's refusal.
status leader_link_register(leader_link *l, const register_request *request, int64_t deadline_ns,
                            buf *response);

// Opens the step stream and says that the group is ready.
status leader_link_ready(leader_link *l, const group_ready *ready);

typedef enum leader_event {
    LEADER_EVENT_PLAN,    // out->plan; coordinator_message_free(out) after use
    LEADER_EVENT_BYE,     // out->reason, out->rejoin
    LEADER_EVENT_NOTHING, // the deadline passed
    LEADER_EVENT_LOST,    // *why: the stream ended
    LEADER_EVENT_BAD,     // *why: what came is not for us
} leader_event;
leader_event leader_link_next(leader_link *l, const cluster_limits *limits, int64_t deadline_ns,
                              coordinator_message *out, status *why);

status leader_link_send_result(leader_link *l, const step_result *result);

// The group cannot go on. Waits shortly for the message to leave.
void leader_link_send_failed(leader_link *l, const group_failed *failed);

#endif
