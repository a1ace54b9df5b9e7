#include <inttypes.h>
#include <string.h>

#include "common/base/json.h"
#include "coordinator/ingress/endpoints.h"
#include "coordinator/route/router.h"

enum { BODY_MAX = 256 << 10 };

static void append_head(const char *id, int64_t created, const char *owner, buf *out) {
    buf_append_string(out, "{\"id\":");
    json_append_string(out, id, strlen(id));
    buf_printf(out, ",\"object\":\"model\",\"created\":%" PRId64 ",\"owned_by\":\"%s\"", created,
               owner);
}

// `id`: the model's own name, or an alias.
static void append_model(const ingress *in, const char *id, const served_model *m,
                         const core_view *view, buf *out) {
    const model_config *config = model_get_config(m->model);
    int context =
        in->max_context && in->max_context < config->context ? in->max_context : config->context;
    append_head(id, m->created, "octant", out);
    buf_printf(out, ",\"max_model_len\":%d,\"parameters\":%" PRId64 ",\"ready\":%s}", context,
               model_config_parameters(config),
               view && core_view_can_serve(view, m->name) ? "true" : "false");
}

static void append_upstream(const char *id, int upstream, const core_view *view, buf *out) {
    bool ready = false;
    if (view && upstream < view->upstream_count) {
        const core_upstream_view *u = &view->upstreams[upstream];
        ready = !u->disabled && u->breaker != BREAKER_OPEN;
    }
    append_head(id, 0, "upstream", out);
    buf_printf(out, ",\"ready\":%s}", ready ? "true" : "false");
}

// By a name that a client may ask for: a model's, an alias's or an upstream's. Not OK: there is
// none.
static status append_named(const ingress *in, const char *name, const core_view *view, buf *out) {
    route_target target = {.local = name};
    if (in->routing) target = router_resolve(in->routing, name);
    if (!target.local) {
        append_upstream(name, target.upstream, view, out);
        return status_ok();
    }
    served_model *m = NULL;
    TRY(model_registry_find(in->models, target.local, &m));
    append_model(in, target.alias ? name : m->name, m, view, out);
    served_model_release(m);
    return status_ok();
}

// Names of the policy; an alias of a model that no group has brought is left out.
static void append_policy_names(const ingress *in, const core_view *view, buf *out) {
    const routing_policy *p = in->routing;
    for (int i = 0; p && i < p->model_count + p->upstreams.count; i++) {
        const char *name =
            i < p->model_count ? p->models[i].name : p->upstreams.items[i - p->model_count].name;
        buf one = buf_make(BODY_MAX);
        status s = append_named(in, name, view, &one);
        if (s.code == STATUS_OK) {
            if (out->data[out->size - 1] == '}') buf_append_char(out, ',');
            buf_append(out, one.data, one.size);
        }
        buf_free(&one);
    }
}

static void reply_list(http_exchange *x, const core_view *view) {
    const ingress *in = http_exchange_ingress(x);
    served_model *models[MODEL_REGISTRY_MAX];
    int count = model_registry_list(in->models, models, MODEL_REGISTRY_MAX);
    buf body = buf_make(BODY_MAX);
    buf_append_string(&body, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < count; i++) {
        if (i) buf_append_char(&body, ',');
        append_model(in, models[i]->name, models[i], view, &body);
        served_model_release(models[i]);
    }
    append_policy_names(in, view, &body);
    buf_append_string(&body, "]}");
    http_reply(x, 200, "application/json", &body);
}

static void reply_one(http_exchange *x, const char *name, const core_view *view) {
    buf body = buf_make(BODY_MAX);
    status s = append_named(http_exchange_ingress(x), name, view, &body);
    if (s.code == STATUS_OK) {
        http_reply(x, 200, "application/json", &body);
        return;
    }
    refusal why;
    buf_free(&body);
    refuse_status(&why, s, "model", s.code == STATUS_NOT_FOUND ? "model_not_found" : NULL);
    http_reply_refusal(x, &why);
}

void models_endpoint(http_exchange *x) {
    const ingress *in = http_exchange_ingress(x);
    refusal why;
    char client[GENERATE_CLIENT_MAX + 1];
    if (!generate_authenticate(in, http_exchange_api_key(x), NULL, client, &why)) {
        http_reply_refusal(x, &why);
        return;
    }
    arena *memory = arena_create(INGRESS_VIEW_BYTES_MAX);
    core_view view;
    bool seen = memory && in->core.look(in->core.core, memory, &view).code == STATUS_OK;
    const char *name = http_exchange_rest(x);
    if (name && *name)
        reply_one(x, name, seen ? &view : NULL);
    else
        reply_list(x, seen ? &view : NULL);
    arena_destroy(memory);
}
