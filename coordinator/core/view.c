// view: what others may see of the core, copied so that they need not ask it again.
#include <string.h>

#include "coordinator/core/lane.h"
#include "coordinator/core/state.h"

const char *group_state_name(group_state state) {
    static const char *const names[] = {"STARTING", "READY", "DRAINING", "LOST"};
    return names[state];
}

static const core_rank_view *see_ranks(const group *g, int64_t now_ns, arena *memory) {
    core_rank_view *ranks = arena_alloc_array(memory, (size_t)g->ranks_count, sizeof *ranks);
    if (!ranks) return NULL;
    for (int i = 0; i < g->ranks_count; i++) {
        const rank_state *r = &g->ranks[i];
        shard_place place = shard_find_place(g->shards, g->ranks_count, i);
        ranks[i] = (core_rank_view){.rank = i,
                                    .stage = place.stage,
                                    .tp_rank = place.rank,
                                    .host = arena_copy_string(memory, r->host),
                                    .pid = r->pid,
                                    .phase = r->phase,
                                    .load_fraction = r->load_fraction,
                                    .heartbeat_age_ns = r->heard_ns < 0 ? -1 : now_ns - r->heard_ns,
                                    .step = r->step,
                                    .collective = r->collective,
                                    .phase_ns = r->phase_ns,
                                    .temperature = r->temperature,
                                    .device = r->device,
                                    .memory_bytes = r->memory_bytes};
        if (!ranks[i].host) return NULL;
    }
    return ranks;
}

static bool see_group(const group *g, int64_t now_ns, arena *memory, core_group_view *out) {
    *out = (core_group_view){.id = arena_copy_string(memory, g->id),
                             .model = arena_copy_string(memory, g->lane->model),
                             .backend = arena_copy_string(memory, g->backend),
                             .reason = "",
                             .epoch = g->epoch,
                             .state = g->state,
                             .spare = g->spare,
                             .ranks_count = g->ranks_count,
                             .stages = shard_find_place(g->shards, g->ranks_count, 0).stages,
                             .ranks = see_ranks(g, now_ns, memory),
                             .running = g->running.count,
                             .max_seqs = g->limits.max_seqs,
                             .steps = g->steps_sent,
                             .lost_age_ns = -1};
    if (g->blocks) {
        out->kv_blocks_total = kv_blocks_total(g->blocks);
        out->kv_blocks_used = kv_blocks_used(g->blocks);
        out->kv_blocks_cached = kv_blocks_cached(g->blocks);
    }
    return out->id && out->model && out->backend && out->ranks;
}

static bool see_lost(const lost_group *l, int64_t now_ns, arena *memory, core_group_view *out) {
    *out = (core_group_view){.id = arena_copy_string(memory, l->id),
                             .model = arena_copy_string(memory, l->model),
                             .backend = arena_copy_string(memory, l->backend),
                             .reason = arena_copy_string(memory, l->reason),
                             .epoch = l->epoch,
                             .state = GROUP_LOST,
                             .loss = l->loss,
                             .steps = l->steps,
                             .lost_age_ns = now_ns - l->lost_ns};
    return out->id && out->model && out->backend && out->reason;
}

static bool see_upstreams(const core *c, int64_t now_ns, arena *memory, core_view *out) {
    int count = c->options.upstreams.count;
    core_upstream_view *all = arena_alloc_array(memory, (size_t)count, sizeof *all);
    if (!all) return false;
    for (int i = 0; i < count; i++) {
        const upstream_state *u = &c->upstreams[i];
        breaker b = u->breaker; // asking moves its state
        upstream_limits l = u->limits;
        int64_t at = upstream_limits_open_at(&l, u->policy, now_ns);
        if (!breaker_allows(&b, u->policy, now_ns)) {
            int64_t opens = breaker_opens_at(&b, u->policy, now_ns);
            if (opens > at) at = opens;
        }
        all[i] = (core_upstream_view){.name = u->policy->name,
                                      .breaker = b.state,
                                      .disabled = u->disabled,
                                      .calls_open = u->limits.open,
                                      .calls = u->calls,
                                      .faults = u->faults,
                                      .busy = u->busy,
                                      .wait_ns = at == INT64_MAX ? INT64_MAX : at - now_ns,
                                      .reason = arena_copy_string(memory, u->reason)};
        if (!all[i].reason) return false;
    }
    out->upstreams = all;
    out->upstream_count = count;
    return true;
}

status core_look(const core *c, int64_t now_ns, arena *memory, core_view *out) {
    *out = (core_view){.group_count = c->group_count + c->lost_count,
                       .queued = c->queued,
                       .draining = c->draining,
                       .away = c->away,
                       .counters = c->counters};
    core_group_view *groups = arena_alloc_array(memory, (size_t)out->group_count, sizeof *groups);
    bool complete = groups != NULL;
    for (int i = 0; complete && i < c->group_count; i++) {
        complete = see_group(c->groups[i], now_ns, memory, &groups[i]);
        out->running += c->groups[i]->running.count;
    }
    for (int i = 0; complete && i < c->lost_count; i++)
        complete = see_lost(&c->lost[i], now_ns, memory, &groups[c->group_count + i]);
    out->waiting = c->outbound.count;
    for (const lane *l = c->lanes; l; l = l->next) out->waiting += lane_waiting(l);
    out->groups = groups;
    complete = complete && see_upstreams(c, now_ns, memory, out);
    if (complete) return status_ok();
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a view of the cluster");
}

bool core_view_can_serve(const core_view *view, const char *model) {
    for (int i = 0; i < view->group_count; i++) {
        const core_group_view *g = &view->groups[i];
        bool wanted = !model || !*model || strcmp(g->model, model) == 0;
        if (wanted && g->state == GROUP_READY) return true;
    }
    return false;
}
