// Two questions that are often mixed up. /health: could a token be made now? /live: does the
// process answer at all?
#include "common/base/json.h"
#include "coordinator/ingress/endpoints.h"
#include "coordinator/observe/upstream_view.h"

#include <string.h>

enum { BODY_MAX = 64 << 10 };

// NULL: healthy.
static const char *what_is_wrong(http_exchange *x, const core_view *view, int max_queue) {
    if (http_exchange_is_draining(x) || view->draining)
        return "draining: no new requests are taken";
    if (!view->group_count) return "no worker group has registered";
    if (!core_view_can_serve(view, NULL)) {
        for (int i = 0; i < view->group_count; i++)
            if (view->groups[i].state == GROUP_STARTING)
                return "no worker group is ready: one is loading";
        return "no worker group is ready: all are lost or draining";
    }
    if (max_queue && view->queued >= max_queue) return "the queue is full";
    return NULL;
}

// The newest loss that is remembered: lost groups come last, the newest of them first.
static void append_last_loss(buf *body, const core_view *view) {
    const core_group_view *lost = NULL;
    for (int i = view->group_count - 1; i >= 0; i--)
        if (view->groups[i].loss != LOSS_NONE) lost = &view->groups[i];
    if (!lost) return;
    buf_append_string(body, ",\"last_loss\":{\"group\":");
    json_append_string(body, lost->id, strlen(lost->id));
    buf_printf(body,
               ",\"loss\":\"%s\",\"seconds_ago\":%.1f,\"reason\":", loss_reason_name(lost->loss),
               (double)lost->lost_age_ns / 1e9);
    json_append_string(body, lost->reason, strlen(lost->reason));
    buf_append_char(body, '}');
}

// Without a group of ours, what may leave is still answered: a balancer must not take us out then.
static bool is_degraded(http_exchange *x, const core_view *view) {
    bool closing = http_exchange_is_draining(x) || view->draining;
    return !closing && !core_view_can_serve(view, NULL) && upstream_view_can_serve(view);
}

static void reply_health(http_exchange *x, const core_view *view, const char *wrong) {
    buf body = buf_make(BODY_MAX);
    bool degraded = view && wrong && is_degraded(x, view);
    const char *status = degraded ? "degraded" : wrong ? "unavailable" : "ok";
    buf_printf(&body, "{\"status\":\"%s\"", status);
    if (wrong) {
        buf_append_string(&body, ",\"reason\":");
        json_append_string(&body, wrong, strlen(wrong));
    }
    if (view) buf_printf(&body, ",\"queued\":%d,\"running\":%d", view->queued, view->running);
    if (view) append_last_loss(&body, view);
    if (view && view->upstream_count) {
        buf_printf(&body, ",\"away\":%d,\"upstreams\":", view->away);
        upstream_view_append_json(view, &body);
    }
    buf_append_string(&body, "}\n");
    http_reply(x, wrong && !degraded ? 503 : 200, "application/json", &body);
}

void health_endpoint(http_exchange *x) {
    const ingress *in = http_exchange_ingress(x);
    arena *memory = arena_create(INGRESS_VIEW_BYTES_MAX);
    core_view view;
    bool seen = memory && in->core.look(in->core.core, memory, &view).code == STATUS_OK;
    reply_health(x, seen ? &view : NULL,
                 seen ? what_is_wrong(x, &view, in->max_queue) : "the core does not answer");
    arena_destroy(memory);
}

void live_endpoint(http_exchange *x) {
    buf body = buf_make(BODY_MAX);
    buf_append_string(&body, "{\"status\":\"ok\"}\n");
    http_reply(x, 200, "application/json", &body);
}
