// policy_routes: `routes:`, `maintenance:`, `budgets:` and `local-cost:`.
#include <math.h>
#include <string.h>

#include "coordinator/route/policy_parts.h"

static status read_levels(policy_reader *r, const yaml_node *n, unsigned *out) {
    routing_names names = {0};
    if (!n) return status_ok();
    TRY(policy_names(r, n, "complexity", &names));
    for (int i = 0; i < names.count; i++) {
        int level = COMPLEXITY_SIMPLE;
        while (level <= COMPLEXITY_HARD &&
               strcmp(names.items[i], complexity_level_name((complexity_level)level)) != 0)
            level++;
        if (level > COMPLEXITY_HARD)
            return yaml_tree_error(&r->tree, n, "'%s' is not one of simple|medium|hard",
                                   names.items[i]);
        *out |= 1u << level;
    }
    return status_ok();
}

static status read_match(policy_reader *r, const yaml_node *n, routing_match *m) {
    const yaml_node *keys = NULL, *models = NULL, *levels = NULL, *at = NULL;
    const yaml_field fields[] = {
        POLICY_NODE("keys", &keys),
        POLICY_NODE("models", &models),
        POLICY_NODE("complexity", &levels),
        POLICY_NODE("at", &at),
        POLICY_FIELD("min-prompt-tokens", CONFIG_INT, &m->prompt_tokens_least, 0, 1e9),
        POLICY_FIELD("max-prompt-tokens", CONFIG_INT, &m->prompt_tokens_most, 0, 1e9),
        POLICY_FIELD("tools", CONFIG_BOOL, &m->tools, 0, 0),
    };
    TRY(yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields)));
    m->tools_given = yaml_tree_find(n, "tools") != NULL;
    if (m->prompt_tokens_most && m->prompt_tokens_least > m->prompt_tokens_most)
        return yaml_tree_error(&r->tree, n, "min-prompt-tokens is above max-prompt-tokens");
    if (keys) TRY(policy_names(r, keys, "keys", &m->keys));
    if (models) TRY(policy_names(r, models, "models", &m->models));
    TRY(read_levels(r, levels, &m->complexities));
    return policy_windows(r, at, &m->windows, &m->window_count);
}

static status read_targets(policy_reader *r, const yaml_node *n, routing_rule *rule) {
    routing_names names = {0};
    if (!n || (n->kind == YAML_LIST && n->count == 0)) return status_ok();
    TRY(policy_names(r, n, "upstreams", &names));
    if (names.count > POLICY_TARGETS_MAX)
        return yaml_tree_error(&r->tree, n, "%d upstreams; a request tries at most %d", names.count,
                               POLICY_TARGETS_MAX);
    for (int i = 0; i < names.count; i++) {
        int u = routing_find_upstream(r->policy, names.items[i]);
        if (u < 0)
            return yaml_tree_error(&r->tree, n, "there is no upstream '%s' in section upstreams",
                                   names.items[i]);
        rule->upstreams[rule->upstream_count++] = (uint8_t)u;
    }
    return status_ok();
}

// The upstream of a weight must be one of the rule's.
static status read_share(policy_reader *r, const yaml_node *n, const routing_rule *rule,
                         routing_share *out) {
    int64_t weight = 0;
    const config_option option = {n->key, CONFIG_INT, &weight, 0, ROUTING_WEIGHT_MAX,
                                  NULL,   NULL,       NULL};
    TRY(yaml_tree_expect(&r->tree, n, YAML_TEXT, "a weight"));
    status s = config_set(&option, n->text, r->memory);
    if (!status_is_ok(&s)) return yaml_tree_error(&r->tree, n, "%s: %s", n->key, s.message);
    int u = routing_find_upstream(r->policy, n->key);
    bool listed = strcmp(n->key, "local") == 0 && rule->local;
    for (int i = 0; i < rule->upstream_count; i++) listed |= u == rule->upstreams[i];
    if (!listed)
        return yaml_tree_key_error(
            &r->tree, n, "'%.64s' is neither 'local' nor an upstream of this route", n->key);
    *out = (routing_share){.upstream = u < 0 ? ROUTING_LOCAL : u, .weight = (int)weight};
    return status_ok();
}

static status read_shares(policy_reader *r, const yaml_node *n, routing_rule *rule) {
    if (!n) return status_ok();
    int sum = 0;
    TRY(yaml_tree_expect(&r->tree, n, YAML_MAP, "weights"));
    for (const yaml_node *w = n->first; w; w = w->next) {
        routing_share share;
        TRY(read_share(r, w, rule, &share));
        sum += share.weight;
        rule->shares[rule->share_count++] = share; // the names differ, so they fit
    }
    if (sum == 0) return yaml_tree_error(&r->tree, n, "the weights add up to nothing");
    return status_ok();
}

static midstream_policy midstream_of(const char *name) {
    midstream_policy p = MIDSTREAM_REPLAY;
    while (strcmp(midstream_policy_name(p), name) != 0) p++;
    return p;
}

static status check_rule(policy_reader *r, const yaml_node *n, const routing_rule *rule) {
    if (!rule->local && rule->upstream_count == 0)
        return yaml_tree_error(&r->tree, n,
                               "local is false and no upstreams are listed: nobody could serve it");
    if (!rule->local && rule->privacy == PRIVACY_LOCAL_ONLY)
        return yaml_tree_error(&r->tree, n,
                               "local is false and privacy is local-only: nobody could serve it");
    if (rule->upstream_first && rule->upstream_count == 0)
        return yaml_tree_error(&r->tree, n, "prefer: upstream, but no upstreams are listed");
    if (rule->spill_ns && rule->upstream_count == 0)
        return yaml_tree_error(&r->tree, n, "spill-after needs upstreams to spill to");
    if (rule->share_count && yaml_tree_find(n, "prefer"))
        return yaml_tree_error(&r->tree, n, "prefer and weights are given; one is enough");
    return status_ok();
}

static status read_rule(policy_reader *r, const yaml_node *n, routing_rule *rule) {
    const yaml_node *match = NULL, *targets = NULL, *weights = NULL, *privacy = NULL;
    const char *prefer = "local", *midstream = "replay";
    double miss = 0, cost = 0;
    *rule = (routing_rule){.local = true, .privacy = PRIVACY_MAY_LEAVE};
    yaml_field fields[] = {
        POLICY_FIELD("name", CONFIG_STRING, &rule->name, 0, 0),
        POLICY_NODE("match", &match),
        POLICY_FIELD("local", CONFIG_BOOL, &rule->local, 0, 0),
        POLICY_NODE("upstreams", &targets),
        POLICY_CHOICE("prefer", &prefer, "local|upstream"),
        POLICY_NODE("weights", &weights),
        POLICY_NODE("privacy", &privacy),
        POLICY_FIELD("spill-after", CONFIG_DURATION, &rule->spill_ns, 0, 86400e9),
        POLICY_FIELD("miss-cost", CONFIG_FLOAT, &miss, 0.000001, POLICY_DOLLARS_MAX),
        POLICY_CHOICE("midstream", &midstream, "replay|continue|restart|error"),
        POLICY_FIELD("max-cost", CONFIG_FLOAT, &cost, 0.000001, POLICY_DOLLARS_MAX),
    };
    fields[0].required = true;
    TRY(yaml_tree_expect(&r->tree, n, YAML_MAP, "a route"));
    TRY(yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields)));
    TRY(policy_name(r, yaml_tree_find(n, "name"), rule->name, "a route's name"));
    TRY(read_match(r, match, &rule->match));
    TRY(read_targets(r, targets, rule));
    TRY(read_shares(r, weights, rule));
    if (privacy) TRY(policy_class(r, privacy, &rule->privacy));
    rule->upstream_first = strcmp(prefer, "upstream") == 0;
    rule->midstream = midstream_of(midstream);
    rule->miss_cost = policy_microdollars(miss);
    rule->cost_limit = policy_microdollars(cost);
    return check_rule(r, n, rule);
}

static bool matches_everything(const routing_match *m) {
    return !m->keys.count && !m->models.count && !m->complexities && !m->prompt_tokens_least &&
           !m->prompt_tokens_most && !m->tools_given && !m->window_count;
}

// Two of a name would be one in the audit; behind one that takes all a route never decides.
static status check_place(policy_reader *r, const yaml_node *n, const routing_rule *rules,
                          int count) {
    for (int i = 0; i < count; i++) {
        if (strcmp(rules[i].name, rules[count].name) == 0)
            return yaml_tree_error(&r->tree, yaml_tree_find(n, "name"),
                                   "two routes are called '%s'", rules[i].name);
        if (matches_everything(&rules[i].match))
            return yaml_tree_error(&r->tree, n,
                                   "route '%s' before this one matches everything; put it last",
                                   rules[i].name);
    }
    return status_ok();
}

status policy_read_routes(policy_reader *r, const yaml_node *n) {
    if (!n) return status_ok();
    routing_rule *items;
    TRY(yaml_tree_expect(&r->tree, n, YAML_LIST, "routes"));
    TRY(policy_array(r, n, ROUTING_RULES_MAX, sizeof *items, &items));
    int count = 0;
    for (const yaml_node *rule = n->first; rule; rule = rule->next) {
        TRY(read_rule(r, rule, &items[count]));
        TRY(check_place(r, rule, items, count));
        count++;
    }
    r->policy->rules = items;
    r->policy->rule_count = count;
    return status_ok();
}

status policy_read_maintenance(policy_reader *r, const yaml_node *n) {
    if (!n) return status_ok();
    routing_maintenance *items;
    TRY(yaml_tree_expect(&r->tree, n, YAML_LIST, "maintenance"));
    TRY(policy_array(r, n, ROUTING_MAINTENANCE_MAX, sizeof *items, &items));
    int count = 0;
    for (const yaml_node *m = n->first; m; m = m->next, count++) {
        const yaml_node *models = NULL, *at = NULL;
        yaml_field fields[] = {POLICY_NODE("models", &models), POLICY_NODE("at", &at)};
        fields[1].required = true;
        TRY(yaml_tree_expect(&r->tree, m, YAML_MAP, "a maintenance"));
        TRY(yaml_tree_fields(&r->tree, m, fields, POLICY_COUNT(fields)));
        if (models) TRY(policy_names(r, models, "models", &items[count].models));
        TRY(policy_windows(r, at, &items[count].windows, &items[count].window_count));
    }
    r->policy->maintenance = items;
    r->policy->maintenance_count = count;
    return status_ok();
}

static status read_budget(policy_reader *r, const yaml_node *n, routing_budget *out) {
    double day = -1, request = -1; // not told
    const yaml_field fields[] = {
        POLICY_FIELD("per-day", CONFIG_FLOAT, &day, 0, POLICY_DOLLARS_MAX),
        POLICY_FIELD("per-request", CONFIG_FLOAT, &request, 0, POLICY_DOLLARS_MAX),
    };
    TRY(yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields)));
    out->per_day = day < 0 ? ROUTING_NO_LIMIT : policy_microdollars(day);
    out->per_request = request < 0 ? ROUTING_NO_LIMIT : policy_microdollars(request);
    return status_ok();
}

status policy_read_budgets(policy_reader *r, const yaml_node *n) {
    const yaml_node *all = NULL, *unlisted = NULL, *keys = NULL;
    routing_budget together = {0};
    const yaml_field fields[] = {
        POLICY_NODE("all", &all),
        POLICY_NODE("default", &unlisted),
        POLICY_NODE("keys", &keys),
    };
    TRY(yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields)));
    TRY(read_budget(r, all, &together));
    if (together.per_request != ROUTING_NO_LIMIT)
        return yaml_tree_error(&r->tree, all, "all has per-day only; per-request is of a key");
    r->policy->all_per_day = together.per_day;
    TRY(read_budget(r, unlisted, &r->policy->default_budget));
    if (!keys) return status_ok();
    routing_budget *items;
    TRY(yaml_tree_expect(&r->tree, keys, YAML_MAP, "keys"));
    TRY(policy_array(r, keys, ROUTING_KEYS_MAX, sizeof *items, &items));
    int count = 0;
    for (const yaml_node *k = keys->first; k; k = k->next) {
        items[count].name = k->key;
        TRY(read_budget(r, k, &items[count++]));
    }
    r->policy->budgets = items;
    r->policy->budget_count = count;
    return status_ok();
}

status policy_read_local_cost(policy_reader *r, const yaml_node *n) {
    const yaml_field fields[] = {
        POLICY_FIELD("gpu-hour", CONFIG_FLOAT, &r->policy->gpu_hour, 0, 1e6),
    };
    return yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields));
}
