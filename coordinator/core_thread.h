// core_thread: the one thread that runs the core. Edges post events into its bounded queue from any
// thread; it calls core_handle, core_next_timer and carries out the effects: pieces and ends
// through the sinks, the rest through the group port. It never waits for an edge.
#ifndef OCTANT_COORDINATOR_CORE_THREAD_H
#define OCTANT_COORDINATOR_CORE_THREAD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/status.h"
#include "coordinator/core/core.h"
#include "coordinator/ledger/usage_port.h"

typedef struct core_thread core_thread;

// How effects reach the workers; implemented by coordinator/group. Called on the core's thread:
// must not block (put it into the stream's own bounded queue; a stream whose queue is full is
// broken: close it and post CORE_GROUP_CLOSED).
typedef struct group_port {
    void *links;
    // Answers a Register call. `why` OK: epoch and response are set; borrowed during the call.
    void (*register_reply)(void *links, void *reply, const status *why, uint64_t epoch,
                           const register_response *response);
    // Takes the plan over (arena_destroy(plan->memory)). An epoch without stream: drop it.
    void (*send_plan)(void *links, uint64_t epoch, step_plan *plan);
    // rejoin: its leader is told that the group may register anew.
    void (*close_group)(void *links, uint64_t epoch, const char *reason, bool rejoin);
    void (*drain_reply)(void *links, void *reply, bool drained, int running);
} group_port;

// How calls reach the upstreams; implemented by coordinator/upstream. Called on the core's thread:
// must not block. Every call ends with one CORE_UPSTREAM_END event. `links` NULL: the core was
// given no upstreams and never calls.
typedef struct upstream_port {
    void *links;
    void (*call)(void *links, const core_effect *call); // CORE_CALL_UPSTREAM; copies what it needs
    void (*cancel)(void *links, uint64_t call);
} upstream_port;

// Who wants to know what happened; both may be empty.
typedef struct observe_port {
    usage_port usage; // `ledger` NULL: no books
    void *events;
    void (*notice)(void *events, const core_notice *n); // NULL: nobody; must not block
} observe_port;

typedef struct core_ports {
    group_port groups;
    upstream_port upstreams;
    observe_port observe;
} core_ports;

typedef struct core_thread_options {
    core_options core;
    int queue; // events of workers that may wait, beside core.max_queue requests
} core_thread_options;

// Creates the core; nothing runs yet.
status core_thread_create(const core_thread_options *options, core_thread **out);

// Starts the thread. `ports` is copied; its functions are called until core_thread_stop is back.
status core_thread_start(core_thread *t, const core_ports *ports);

// Posts a cluster event (not CORE_REQUEST, not CORE_CANCEL). Waits while the queue is full, until
// deadline_ns. False: not taken (deadline, or the core has stopped); the caller frees the event.
bool core_thread_post(core_thread *t, const core_event *event, int64_t deadline_ns);

// core_port (ingress/prepare.h). submit never waits: false when the queue is full or closed.
// cancel is never lost while the core lives.
bool core_thread_submit(void *core_thread_, struct core_request *request);
void core_thread_cancel(void *core_thread_, uint64_t id);

// What the core holds now (core_look), copied into `memory`: the third of core_port's functions.
status core_thread_look(void *core_thread_, arena *memory, core_view *out);

// Refuses new requests, lets what runs end until deadline_ns. True: all ended by themselves.
bool core_thread_drain(core_thread *t, int64_t deadline_ns);

// Ends every request that still lives (UNAVAILABLE), closes every group, joins the thread. Edges
// still stand: their sinks and links are called. Posts from now on are refused.
void core_thread_stop(core_thread *t);
void core_thread_destroy(core_thread *t); // NULL is allowed; stopped, or never started

#endif
