// registration: who may join. The checks are in the order in which an operator would want to hear
// of them: wrong program first, wrong model next, wrong shape last.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/group.h"
#include "coordinator/core/lane.h"
#include "coordinator/core/membership.h"

static status check_program(const core *c, const register_request *r) {
    if (c->draining) return status_error(STATUS_UNAVAILABLE, "the coordinator is shutting down");
    if (r->protocol != CLUSTER_PROTOCOL)
        return status_error(
            STATUS_FAILED_PRECONDITION,
            "the worker speaks protocol %u, this coordinator %d: install one version "
            "on both",
            r->protocol, CLUSTER_PROTOCOL);
    if (strcmp(r->version, OCTANT_VERSION) != 0)
        return status_error(STATUS_FAILED_PRECONDITION,
                            "the worker is of version %.40s, this coordinator of %s: install one "
                            "version on both",
                            r->version, OCTANT_VERSION);
    if (c->group_count >= CORE_GROUPS_MAX)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "%d groups have registered; no more fit",
                            c->group_count);
    return status_ok();
}

static status check_model(const core *c, const register_request *r) {
    size_t name = strlen(r->model), fingerprint = strlen(r->fingerprint);
    if (name < 1 || name > MODEL_NAME_MAX || fingerprint < 1 || fingerprint > FINGERPRINT_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "a model's name has 1 to %d bytes, its "
                            "fingerprint 1 to %d",
                            MODEL_NAME_MAX, FINGERPRINT_MAX);
    const lane *l = lane_find(c, r->model);
    if (l && lane_has_hope(c, l) && strcmp(l->fingerprint, r->fingerprint) != 0)
        return status_error(
            STATUS_FAILED_PRECONDITION,
            "another group serves '%s' from other files (fingerprint %s, this worker's "
            "is %s): load the same files, or give this model another --name",
            r->model, l->fingerprint, r->fingerprint);
    return status_ok();
}

static cluster_limits limits_for(const core *c, const model_config *config) {
    int context = config->context;
    if (c->options.max_context > 0 && c->options.max_context < context)
        context = c->options.max_context;
    if (context > CLUSTER_CONTEXT_MAX) context = CLUSTER_CONTEXT_MAX;
    return (cluster_limits){.max_step_tokens = c->options.max_step_tokens,
                            .max_seqs = c->options.max_seqs,
                            .block_tokens = c->options.block_tokens,
                            .max_context = context,
                            .vocab = config->vocab};
}

static bool reserve_tokens(core *c, int context) {
    int room = context + c->options.block_tokens + 1;
    if (room <= c->tokens_room) return true;
    int32_t *grown = realloc(c->tokens, (size_t)room * sizeof *grown);
    if (!grown) return false;
    c->tokens = grown;
    c->tokens_room = room;
    return true;
}

static status plan_shards(group *g, const model_config *config, int stages) {
    for (int i = 0; i < g->ranks_count; i++)
        TRY(shard_plan(config, g->ranks_count, stages, i, &g->shards[i]));
    return status_ok();
}

static status no_memory(void) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "the coordinator has no memory for the group");
}

static status join(core *c, const register_request *r, const model_config *config, group **out) {
    TRY(check_program(c, r));
    TRY(check_model(c, r));
    if (r->ranks < 1 || r->ranks > SHARD_RANKS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "%d ranks; 1 to %d are possible", r->ranks,
                            SHARD_RANKS_MAX);
    cluster_limits limits = limits_for(c, config);
    group *g =
        reserve_tokens(c, limits.max_context) ? group_create(r->ranks, r->stages, &limits) : NULL;
    if (!g) return no_memory();
    status s = plan_shards(g, config, r->stages);
    g->lane = status_is_ok(&s) ? lane_open(c, r->model) : NULL;
    if (status_is_ok(&s) && !g->lane) s = no_memory();
    if (!status_is_ok(&s)) {
        group_free(g);
        return s;
    }
    *out = g;
    return s;
}

static void enter(core *c, group *g, const register_request *r, const model_config *config) {
    g->epoch = c->next_epoch++;
    g->state = GROUP_STARTING;
    g->spare = r->spare;
    g->registered_ns = c->now_ns;
    snprintf(g->id, sizeof g->id, "g%llu", (unsigned long long)c->next_group++);
    snprintf(g->backend, sizeof g->backend, "%s", r->backend);
    if (strcmp(g->lane->fingerprint, r->fingerprint) != 0) g->lane->age++;
    if (strcmp(g->lane->fingerprint, r->fingerprint) != 0)
        lane_clear(c, g->lane,
                   status_error(STATUS_UNAVAILABLE,
                                "the model %s was replaced by another of that name while the "
                                "request waited; send it again",
                                g->lane->model));
    snprintf(g->lane->fingerprint, sizeof g->lane->fingerprint, "%s", r->fingerprint);
    g->lane->vocab = config->vocab;
    g->lane->context = g->limits.max_context;
    for (int i = 0; i < g->ranks_count; i++) {
        rank_state *rank = &g->ranks[i];
        snprintf(rank->host, sizeof rank->host, "%s", r->hosts[i]);
        rank->pid = r->pids[i];
        rank->heard_ns = -1;
    }
    c->groups[c->group_count++] = g;
}

void membership_register(core *c, const core_event *e) {
    const register_request *r = e->join.request;
    group *g = NULL;
    status why = join(c, r, e->join.config, &g);
    core_effect *reply = effects_add(c->out, CORE_REGISTER_REPLY);
    reply->joined.reply = e->join.reply;
    reply->joined.why = why;
    if (!status_is_ok(&why)) {
        effects_log(c->out, LOG_WARN, "group", "a registration was refused: %s", why.message);
        return;
    }
    enter(c, g, r, e->join.config);
    reply->epoch = g->epoch;
    reply->joined.response = (register_response){.group_id = g->id,
                                                 .epoch = g->epoch,
                                                 .ranks = g->ranks_count,
                                                 .shards = g->shards,
                                                 .heartbeat_ms = c->options.heartbeat_ms,
                                                 .limits = g->limits};
    membership_notice(c, g, NOTICE_GROUP_REGISTERED, LOSS_NONE, -1, g->backend);
    char stages[32] = "";
    if (r->stages > 1) snprintf(stages, sizeof stages, " in %d stages", r->stages);
    effects_log(c->out, LOG_INFO, "group", "%s of %s STARTING: %d ranks%s, %s%s", g->id,
                g->lane->model, g->ranks_count, stages, g->backend, g->spare ? ", spare" : "");
}
