// metrics: what /metrics counts. Events are counted where they happen, by any thread, without
// locks; states (queue depth, groups) are read from the core when somebody asks. Names and
// meanings: coordinator/ingress/API.md.
#ifndef OCTANT_COORDINATOR_OBSERVE_METRICS_H
#define OCTANT_COORDINATOR_OBSERVE_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "coordinator/answer.h"

typedef struct metrics metrics;

typedef enum metrics_endpoint {
    METRICS_CHAT,
    METRICS_COMPLETIONS,
    METRICS_MESSAGES,
    METRICS_MODELS,
    METRICS_TOKENIZE,
    METRICS_HEALTH,
    METRICS_METRICS,
    METRICS_STATUS,
    METRICS_GRPC,
    METRICS_OTHER,
    METRICS_ENDPOINT_COUNT
} metrics_endpoint;

metrics *metrics_create(void); // NULL when memory is short
void metrics_destroy(metrics *m);

// The first token of an answer, `ns` after its request arrived; `tokens` more, `ns` after those
// before.
void metrics_first_token(metrics *m, int64_t ns);
void metrics_next_tokens(metrics *m, int64_t ns, int tokens);

// A request of the core ended, `ns` after it arrived.
void metrics_request_end(metrics *m, const answer_end *end, int64_t ns);

// A response's status went out (HTTP); for gRPC the HTTP status that its code maps to.
void metrics_response(metrics *m, metrics_endpoint endpoint, int http_status);

// Streams and connections that are open now.
void metrics_streams(metrics *m, int change);
void metrics_connections(metrics *m, int change);

// A client went away before its answer's end; a client was cut because it did not read or write in
// time.
void metrics_client_gone(metrics *m);
void metrics_client_cut(metrics *m);

// Appends Prometheus text (exposition format 0.0.4) of everything above, and of the process (start
// time, resident bytes, open files).
void metrics_append(const metrics *m, buf *out);

// For other collectors that append to the same page.
void metrics_append_head(buf *out, const char *name, const char *type, const char *help);
// A label's value with its quotes, escaped.
void metrics_append_label(buf *out, const char *value);

// Totals since start, for ServerInfo.
typedef struct metrics_totals {
    uint64_t requests, prompt_tokens, completion_tokens;
    double uptime_seconds;
} metrics_totals;
metrics_totals metrics_get_totals(const metrics *m);

#endif
