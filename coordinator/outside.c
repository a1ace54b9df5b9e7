#include "coordinator/outside.h"

#include "common/base/log.h"
#include "coordinator/route/policy_file.h"

upstreams_policy outside_upstreams(const outside *o) {
    return o->policy ? o->policy->upstreams : (upstreams_policy){.count = 0};
}

static status open_books(outside *o, const options *given) {
    bool calls = outside_upstreams(o).count > 0;
    if (!given->data_dir && calls)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "%s names upstreams, but nothing may leave without an audit: name a "
                            "directory for it with --data-dir",
                            given->routing);
    if (!given->data_dir) return status_ok();
    ledger_options books = {.data_dir = given->data_dir,
                            .prices = given->prices,
                            .gpu_hour_dollars = o->policy ? o->policy->gpu_hour : 0};
    TRY(ledger_open(&books, &o->ledger)); // its errors name the option
    o->books = ledger_port(o->ledger);
    if (calls && !given->prices)
        log_warn("main", "no --prices: what upstreams cost is not known, and budgets let nothing "
                         "through");
    return status_ok();
}

status outside_open(outside *o, const options *given) {
    if (given->routing)
        TRY(status_context(policy_file_read(given->routing, &o->policy), "--routing"));
    return open_books(o, given);
}

status outside_start(outside *o, const options *given, void *core,
                     bool (*post)(void *core, const core_event *event, int64_t deadline_ns)) {
    if (!outside_upstreams(o).count) return status_ok();
    o->metrics = upstream_metrics_create(&o->policy->upstreams);
    if (!o->metrics) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to start");
    upstream_edge_options edge = {.policy = &o->policy->upstreams,
                                  .core = core,
                                  .post = post,
                                  .usage = o->books,
                                  .metrics = o->metrics,
                                  .proxy = given->upstream_proxy};
    TRY(upstream_edge_create(&edge, &o->edge));
    const upstream_usage little = {.input_tokens = 1, .output_tokens = 1};
    for (int i = 0; i < o->policy->upstreams.count; i++) {
        const upstream_policy *u = &o->policy->upstreams.items[i];
        log_info("main", "upstream %s: %s", u->name, upstream_api_name(u->api));
        if (given->prices && o->books.price(o->books.ledger, u, &little) < 0)
            log_warn("main",
                     "upstream %s: --prices has no row for it today, so whatever has a budget does "
                     "not go there",
                     u->name);
    }
    if (o->policy->key_count && !given->api_keys)
        log_warn("main", "the policy names keys, but without --api-keys nobody has one");
    return status_ok();
}

void outside_close(outside *o, int64_t deadline_ns) {
    if (o->edge) upstream_edge_close(o->edge, deadline_ns);
}

void outside_free(outside *o) {
    upstream_edge_destroy(o->edge);
    upstream_metrics_destroy(o->metrics);
    ledger_close(o->ledger);
    routing_policy_free(o->policy);
}
