// usage_port: what the coordinator tells its books. Called on the core's thread (usage, calls) and
// on the upstreams' thread (leave): none may wait for a disk but `leave`, which must be on disk
// before a byte is sent: without an audit row nothing leaves.
#ifndef OCTANT_COORDINATOR_LEDGER_USAGE_PORT_H
#define OCTANT_COORDINATOR_LEDGER_USAGE_PORT_H

#include "coordinator/core/core.h"

// Borrowed during the call. The request says who asked what, and by which route.
typedef struct usage_record {
    const core_request *request;
    const answer_end *end;
} usage_record;

typedef struct call_record {
    const char *request_id, *key;
    const upstream_policy *upstream;
    uint64_t call;
    bool failover; // the route would have been local
    const upstream_end *end;
} call_record;

typedef struct leave_record {
    const char *request_id, *key;
    const upstream_policy *upstream;
    privacy_class privacy;
    const char *rule;
    const void *body; // hashed, never kept
    size_t size;
} leave_record;

typedef struct usage_port {
    void *ledger;
    void (*usage)(void *ledger, const usage_record *r);
    void (*call)(void *ledger, const call_record *r);
    status (*leave)(void *ledger, const leave_record *r); // not OK: the call must not be made
    // Microdollars; -1: the price file has no row for it.
    int64_t (*price)(void *ledger, const upstream_policy *u, const upstream_usage *usage);
    // Microdollars of this UTC day, calls under way counted by estimate. `key`: a client as the
    // request names it ("key:NAME" for keys); NULL: of all. Negative: not known, so that nothing
    // may be spent. Also called on ingress threads.
    int64_t (*spent_today)(void *ledger, const char *key);
} usage_port;

#endif
