// Any bytes as octant.yaml: an error names line and column; what is accepted can decide, and a
// local-only request never leaves by it.
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/base/arena.h"
#include "coordinator/route/policy_file.h"
#include "coordinator/route/router.h"

static void check_error(const status *s) {
    int line = 0, column = 0;
    assert(!strchr(s->message, '\n'));
    assert(s->code != STATUS_INVALID_ARGUMENT ||
           (sscanf(s->message, "f:%d:%d: ", &line, &column) == 2 && line > 0 && column > 0));
}

static void decide(const routing_policy *p, const char *key, const char *model,
                   const char *privacy) {
    arena *memory = arena_create(1 << 20);
    route_decision *d = memory ? arena_alloc(memory, sizeof *d) : NULL;
    assert(d);
    route_facts f = {.key = key,
                     .model = model,
                     .privacy = privacy,
                     .local_known = true,
                     .scanned = true,
                     .now = 1764072000,
                     .explain = true};
    router_decide(p, &f, memory, d);
    const core_route *r = &d->route;
    assert(r->privacy > PRIVACY_LOCAL_ONLY || r->upstream_count == 0);
    assert(!privacy || r->upstream_count == 0);
    assert(r->local || r->upstream_count || d->refused.code != STATUS_OK);
    for (int i = 0; i < r->upstream_count; i++) assert(r->upstreams[i] < p->upstreams.count);
    arena_destroy(memory);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    routing_policy *p = NULL;
    status s = policy_file_parse("f", (const char *)data, size, &p);
    if (!status_is_ok(&s)) {
        check_error(&s);
        return 0;
    }
    decide(p, "", "m", NULL);
    decide(p, "", "m", "local-only");
    for (int i = 0; i < p->key_count && i < 8; i++)
        for (int k = 0; k < p->model_count && k < 8; k++)
            decide(p, p->keys[i].name, p->models[k].name, NULL);
    for (int i = 0; i < p->upstreams.count; i++) decide(p, "a", p->upstreams.items[i].name, NULL);
    routing_policy_free(p);
    return 0;
}
