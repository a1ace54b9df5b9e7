#include <inttypes.h>
#include <string.h>

#include "common/base/json.h"
#include "coordinator/ingress/endpoints.h"

enum { BODY_MAX = 256 << 10 };

static void append_model(const ingress *in, const served_model *m, const core_view *view,
                         buf *out) {
    const model_config *config = model_get_config(m->model);
    int context =
        in->max_context && in->max_context < config->context ? in->max_context : config->context;
    buf_append_string(out, "{\"id\":");
    json_append_string(out, m->name, strlen(m->name));
    buf_printf(out,
               ",\"object\":\"model\",\"created\":%" PRId64
               ",\"owned_by\":\"octant\",\"max_model_len\":%d,"
               "\"parameters\":%" PRId64 ",\"ready\":%s}",
               m->created, context, model_config_parameters(config),
               view && core_view_can_serve(view, m->name) ? "true" : "false");
}

static void reply_list(http_exchange *x, const core_view *view) {
    const ingress *in = http_exchange_ingress(x);
    served_model *models[MODEL_REGISTRY_MAX];
    int count = model_registry_list(in->models, models, MODEL_REGISTRY_MAX);
    buf body = buf_make(BODY_MAX);
    buf_append_string(&body, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < count; i++) {
        if (i) buf_append_char(&body, ',');
        append_model(in, models[i], view, &body);
        served_model_release(models[i]);
    }
    buf_append_string(&body, "]}");
    http_reply(x, 200, "application/json", &body);
}

static void reply_one(http_exchange *x, const char *name, const core_view *view) {
    const ingress *in = http_exchange_ingress(x);
    served_model *m = NULL;
    refusal why;
    status s = model_registry_find(in->models, name, &m);
    if (s.code != STATUS_OK) {
        refuse_status(&why, s, "model", s.code == STATUS_NOT_FOUND ? "model_not_found" : NULL);
        http_reply_refusal(x, &why);
        return;
    }
    buf body = buf_make(BODY_MAX);
    append_model(in, m, view, &body);
    served_model_release(m);
    http_reply(x, 200, "application/json", &body);
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
