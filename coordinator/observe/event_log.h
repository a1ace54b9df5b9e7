// event_log: what happened to groups, ranks, upstreams and requests, as the core's notices say it:
// one JSON object a line in a file (--event-log), the newest EVENT_LOG_KEPT in memory, and every
// one to whoever watches (gRPC Watch). Log, metrics and status tell the same, from the same
// notices.
//
// A line has these members, those without meaning for its kind left out:
//   {"sequence":7,"time":"2026-05-01T12:00:00.123Z","kind":"group-lost","loss":"silent","model":"m",
//    "group":"g3","epoch":17,"rank":1,"host":"node7","upstream":"cheap","sequences":12,"text":"..."}
// Never prompt or answer text, never a key.
//
// Threads: event_log_write is called on the core's thread and never waits: events go into a bounded
// ring, and a thread of its own writes the file and tells the watchers. When the ring is full
// events are counted and left out, and the next line says how many ("lost_before").
#ifndef OCTANT_COORDINATOR_OBSERVE_EVENT_LOG_H
#define OCTANT_COORDINATOR_OBSERVE_EVENT_LOG_H

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/status.h"
#include "coordinator/core/core.h"

enum {
    EVENT_LOG_KEPT = 256,    // newest events in memory
    EVENT_LOG_WATCHERS = 64, // at once
    EVENT_LOG_QUEUE = 1024,  // events between the core and the writer
};

// One event, on its own: texts are copies.
typedef struct event_log_event {
    uint64_t sequence; // from 1, in this process
    int64_t unix_ms;
    core_notice_kind kind;
    loss_reason loss;
    uint64_t epoch, lost_before; // events that did not fit before this one
    int rank, sequences;
    char model[MODEL_NAME_MAX + 1], group[CLUSTER_GROUP_ID_MAX + 1], host[CLUSTER_HOST_MAX + 1];
    char upstream[64], text[CLUSTER_REASON_MAX];
} event_log_event;

typedef struct event_log event_log;

// Appends to the file at `path`, made when missing (NULL: memory only). UNAVAILABLE: it cannot be
// opened.
status event_log_open(const char *path, event_log **out);
// What waits is written first. Watchers are told nothing more. NULL is allowed.
void event_log_close(event_log *l);

// observe_port.notice: (event_log *, notice).
void event_log_write(void *log, const core_notice *n);

// Calls `tell` with each kept event whose sequence is larger than `after`, at once, then with every
// new one, in order, on the log's thread; it must not wait. False from `tell` ends the watching.
// `user` names the watcher. RESOURCE_EXHAUSTED: EVENT_LOG_WATCHERS watch already.
typedef bool event_log_tell(void *user, const event_log_event *e);
status event_log_watch(event_log *l, uint64_t after, event_log_tell *tell, void *user);
// After it is back `tell` is not called with `user` any more. Not from inside `tell`.
void event_log_unwatch(event_log *l, const void *user);

// Appends Prometheus text: events by kind, losses by reason, since the start.
void event_log_metrics_append(const event_log *l, buf *out);

// Appends the event as a JSON object, without a newline.
void event_log_append_json(const event_log_event *e, buf *out);

#endif
