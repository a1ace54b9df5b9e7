#include "coordinator/observe/upstream_view.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "coordinator/observe/metrics.h"

static void append_name(buf *out, const char *metric, const core_upstream_view *u) {
    buf_printf(out, "%s{upstream=", metric);
    metrics_append_label(out, u->name);
}

static void append_waits(const core_view *view, buf *out) {
    metrics_append_head(out, "octant_upstream_wait_seconds", "gauge",
                        "Until it may be called again: back-pressure, limits, breaker.");
    for (int i = 0; i < view->upstream_count; i++) {
        const core_upstream_view *u = &view->upstreams[i];
        append_name(out, "octant_upstream_wait_seconds", u);
        if (u->wait_ns == INT64_MAX)
            buf_append_string(out, "} +Inf\n");
        else
            buf_printf(out, "} %.3f\n", (double)u->wait_ns / (double)CLOCK_SECOND);
    }
}

void upstream_view_append_metrics(const core_view *view, buf *out) {
    if (!view->upstream_count) return;
    metrics_append_head(out, "octant_requests_away", "gauge",
                        "Requests that upstreams answer now.");
    buf_printf(out, "octant_requests_away %d\n", view->away);
    metrics_append_head(out, "octant_upstream_breaker", "gauge",
                        "1 for the state that the breaker is in.");
    for (int i = 0; i < view->upstream_count; i++)
        for (int state = BREAKER_CLOSED; state <= BREAKER_OPEN; state++) {
            append_name(out, "octant_upstream_breaker", &view->upstreams[i]);
            buf_printf(out, ",state=\"%s\"} %d\n", breaker_state_name((breaker_state)state),
                       (int)view->upstreams[i].breaker == state);
        }
    metrics_append_head(out, "octant_upstream_disabled", "gauge",
                        "1: its account was refused; somebody must see to it.");
    for (int i = 0; i < view->upstream_count; i++) {
        append_name(out, "octant_upstream_disabled", &view->upstreams[i]);
        buf_printf(out, "} %d\n", view->upstreams[i].disabled);
    }
    append_waits(view, out);
}

static void append_one(const core_upstream_view *u, buf *out) {
    int64_t wait_ms = u->wait_ns == INT64_MAX ? -1 : (u->wait_ns + CLOCK_MS - 1) / CLOCK_MS;
    buf_append_string(out, "{\"name\":");
    json_append_string(out, u->name, strlen(u->name));
    buf_printf(out,
               ",\"breaker\":\"%s\",\"disabled\":%s,\"calls_open\":%d,\"calls\":%" PRIu64
               ",\"faults\":%" PRIu64 ",\"busy\":%" PRIu64 ",\"wait_ms\":%" PRId64 ",\"reason\":",
               breaker_state_name(u->breaker), u->disabled ? "true" : "false", u->calls_open,
               u->calls, u->faults, u->busy, wait_ms);
    json_append_string(out, u->reason, strlen(u->reason));
    buf_append_char(out, '}');
}

void upstream_view_append_json(const core_view *view, buf *out) {
    buf_append_char(out, '[');
    for (int i = 0; i < view->upstream_count; i++) {
        if (i) buf_append_char(out, ',');
        append_one(&view->upstreams[i], out);
    }
    buf_append_char(out, ']');
}

bool upstream_view_can_serve(const core_view *view) {
    for (int i = 0; i < view->upstream_count; i++)
        if (!view->upstreams[i].disabled && view->upstreams[i].breaker != BREAKER_OPEN) return true;
    return false;
}
