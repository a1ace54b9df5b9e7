// upstream_edge: the coordinator's end of the closed APIs. The core says CORE_CALL_UPSTREAM and
// CORE_CANCEL_UPSTREAM; this makes HTTPS requests of them and posts what comes back:
// CORE_UPSTREAM_CONTENT, then exactly one CORE_UPSTREAM_END for each call, whatever happens, within
// the target's clocks.
//
// One thread, one libcurl multi handle: connections are kept and shared, HTTP/2 is used where it is
// offered. What may not happen here:
//   - a call of a local-only request, or to a target that its route does not list, is made: both
//     are refused before anything is opened, although core and router have checked already;
//   - a byte of a request leaves before usage_port.leave() has put its audit row on disk;
//   - a request is sent twice in one call (libcurl's own resend on a dead connection is stopped);
//   - an event is lost: what the core's queue has no room for is kept, and its transfer paused;
//   - a key, or a text of a request or an answer, gets into a log line, an error or a metric.
//
// Decisions that an operator should know:
//   - TLS is always verified (the system's authorities, or the target's ca_file); http:// is only
//     allowed to this machine itself or where the target says plain-http: true;
//   - redirects are never followed;
//   - the environment's proxy variables are not read, so that what is left in a shell does not
//     decide where prompts go; --upstream-proxy names one, for https targets.
#ifndef OCTANT_COORDINATOR_UPSTREAM_UPSTREAM_EDGE_H
#define OCTANT_COORDINATOR_UPSTREAM_UPSTREAM_EDGE_H

#include "common/base/status.h"
#include "coordinator/core_thread.h"
#include "coordinator/ledger/usage_port.h"
#include "coordinator/observe/upstream_metrics.h"

enum {
    UPSTREAM_CALLS_MAX = 4096, // alive at once, with those that only wait for their usage; further
                               // ones end as BUSY
};

typedef struct upstream_edge upstream_edge;

typedef struct upstream_edge_options {
    const upstreams_policy *policy; // outlives the edge; count at least 1
    void *core;
    // core_thread_post or a test's stand-in; called with deadline 0, which does not wait. False:
    // not taken, asked again later.
    bool (*post)(void *core, const core_event *event, int64_t deadline_ns);
    usage_port usage;          // `leave` must be there: without books nothing leaves. Copied
    upstream_metrics *metrics; // outlives the edge; NULL: nobody counts
    const char *proxy;         // URL; NULL: none. Outlives the edge
} upstream_edge_options;

// Checks the targets' addresses and certificates' files, reads the keys and starts the thread.
// INVALID_ARGUMENT, NOT_FOUND: what of which target, and how to mend it.
status upstream_edge_create(const upstream_edge_options *options, upstream_edge **out);

// For core_thread_start.
upstream_port upstream_edge_port(upstream_edge *e);

// The end is near: what runs is ended as CANCELLED now (usage estimated), and so is every later
// call, without being made. Waits until the ends were taken, at most until deadline_ns. The core's
// thread still runs, so that its books hear of each.
void upstream_edge_close(upstream_edge *e, int64_t deadline_ns);

// The core's thread has stopped. What it did not take is dropped. NULL is allowed.
void upstream_edge_destroy(upstream_edge *e);

#endif
