#include "coordinator/ingress/endpoints.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/observe/core_metrics.h"
#include "coordinator/observe/event_log.h"
#include "coordinator/observe/upstream_metrics.h"

enum { BODY_MAX = 4 << 20 };

void metrics_page_endpoint(http_exchange *x) {
    const ingress *in = http_exchange_ingress(x);
    buf body = buf_make(BODY_MAX);
    metrics_append(in->metrics, &body);
    arena *memory = arena_create(INGRESS_VIEW_BYTES_MAX);
    core_view view;
    if (memory && in->core.look(in->core.core, memory, &view).code == STATUS_OK)
        core_metrics_append(&view, &body);
    if (in->events) event_log_metrics_append(in->events, &body);
    if (in->upstreams) upstream_metrics_append(in->upstreams, &body);
    if (in->ledger) ledger_metrics_append(in->ledger, &body);
    arena_destroy(memory);
    http_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
}

void status_endpoint(http_exchange *x) {
    const ingress *in = http_exchange_ingress(x);
    arena *memory = arena_create(INGRESS_VIEW_BYTES_MAX);
    core_view view;
    status s = memory ? in->core.look(in->core.core, memory, &view)
                      : status_error(STATUS_RESOURCE_EXHAUSTED, "out of memory for the status");
    if (s.code == STATUS_OK) {
        buf body = buf_make(BODY_MAX);
        metrics_totals totals = metrics_get_totals(in->metrics);
        core_status_append(&view, &totals, &body);
        http_reply(x, 200, "application/json", &body);
    } else {
        refusal why;
        refuse_status(&why, s, NULL, NULL);
        http_reply_refusal(x, &why);
    }
    arena_destroy(memory);
}
