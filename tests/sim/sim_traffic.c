#include "tests/sim/sim_traffic.h"

#include <string.h>

#include "tests/sim/sim_check.h"

static int model_of(const sim_site *site, const char *name) {
    for (int i = 0; i < site->model_count; i++)
        if (strcmp(site->models[i], name) == 0) return i;
    return -1;
}

static void take_away(sim_traffic *t, int m, uint64_t epoch) {
    for (int i = 0; i < t->models[m].ready_count; i++)
        if (t->models[m].ready[i] == epoch)
            t->models[m].ready[i] = t->models[m].ready[--t->models[m].ready_count];
}

void sim_traffic_notice(sim_traffic *t, const sim_site *site, const core_notice *n,
                        int64_t now_ns) {
    int m = model_of(site, n->model);
    if (m < 0) return;
    bool ready = t->models[m].ready_count > 0;
    switch (n->kind) {
    case NOTICE_GROUP_READY:
        SIM_CHECK(t->models[m].ready_count < CORE_GROUPS_MAX, "too many groups are ready");
        t->models[m].ready[t->models[m].ready_count++] = n->epoch;
        if (!ready) t->models[m].ready_since_ns = now_ns;
        break;
    case NOTICE_GROUP_LOST:
    case NOTICE_GROUP_DRAINING:
        take_away(t, m, n->epoch);
        break;
    case NOTICE_TRAFFIC_LEFT:
        SIM_CHECK(!ready && !t->models[m].left, "%s: traffic leaves, %d groups are ready", n->model,
                  t->models[m].ready_count);
        t->models[m].left = true;
        break;
    case NOTICE_TRAFFIC_BACK:
        SIM_CHECK(ready && t->models[m].left &&
                      now_ns - t->models[m].ready_since_ns >= site->upstreams.return_after_ns,
                  "%s: traffic comes back too early", n->model);
        t->models[m].left = false;
        break;
    default:
        break;
    }
}

bool sim_traffic_may_leave(const sim_traffic *t, int model) {
    return t->models[model].ready_count == 0 || t->models[model].left;
}
