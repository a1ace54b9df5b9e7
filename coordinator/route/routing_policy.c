#include "coordinator/route/routing_policy.h"

#include <string.h>

#include "common/base/arena.h"

void routing_policy_free(routing_policy *p) {
    if (!p) return;
    detectors_destroy((detectors *)p->detectors);
    arena_destroy(p->memory); // *p lives in it
}

int routing_find_upstream(const routing_policy *p, const char *name) {
    for (int i = 0; i < p->upstreams.count; i++)
        if (strcmp(p->upstreams.items[i].name, name) == 0) return i;
    return -1;
}

const routing_model *routing_find_model(const routing_policy *p, const char *name) {
    for (int i = 0; i < p->model_count; i++)
        if (strcmp(p->models[i].name, name) == 0) return &p->models[i];
    return NULL;
}

const routing_budget *routing_find_budget(const routing_policy *p, const char *key) {
    for (int i = 0; i < p->budget_count; i++)
        if (strcmp(p->budgets[i].name, key) == 0) return &p->budgets[i];
    return &p->default_budget;
}

const char *routing_key_of_client(const char *client) {
    return client && strncmp(client, "key:", 4) == 0 ? client + 4 : "";
}
