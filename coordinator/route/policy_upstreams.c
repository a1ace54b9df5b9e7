// policy_upstreams: `upstreams:`, `upstream-rules:` and `models:`.
#include <string.h>

#include "common/base/clock.h"
#include "coordinator/route/policy_parts.h"

static upstream_policy default_upstream(void) {
    return (upstream_policy){.takes_tools = true,
                             .takes_json = true,
                             .takes_sampling = true,
                             .connect_ns = 5 * CLOCK_SECOND,
                             .first_content_ns = 30 * CLOCK_SECOND,
                             .between_chunks_ns = 20 * CLOCK_SECOND,
                             .total_ns = 300 * CLOCK_SECOND,
                             .rate_window_ns = 10 * CLOCK_SECOND,
                             .drain_ns = 10 * CLOCK_SECOND,
                             .breaker_window = 20,
                             .breaker_least = 5,
                             .breaker_share = 0.5,
                             .breaker_open_ns = 15 * CLOCK_SECOND};
}

static status read_breaker(policy_reader *r, const yaml_node *n, upstream_policy *u) {
    int64_t size = u->breaker_window, least = u->breaker_least;
    const yaml_field fields[] = {
        POLICY_FIELD("window", CONFIG_INT, &size, 1, 1000),
        POLICY_FIELD("least", CONFIG_INT, &least, 1, 1000),
        POLICY_FIELD("share", CONFIG_FLOAT, &u->breaker_share, 0.01, 1),
        POLICY_FIELD("open", CONFIG_DURATION, &u->breaker_open_ns, 1e6, 86400e9),
    };
    TRY(yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields)));
    if (least > size)
        return yaml_tree_error(&r->tree, n, "least is %lld but the window holds %lld calls only",
                               (long long)least, (long long)size);
    u->breaker_window = (int)size;
    u->breaker_least = (int)least;
    return status_ok();
}

static status check_base_url(policy_reader *r, const yaml_node *n, upstream_policy *u) {
    const yaml_node *at = yaml_tree_find(n, "base-url");
    const char *url = u->base_url;
    if (strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0)
        return yaml_tree_error(&r->tree, at, "base-url must begin with https:// or http://");
    const char *host = strstr(url, "://") + 3;
    if (!*host || *host == '/' || strpbrk(host, " \t\r\n#"))
        return yaml_tree_error(&r->tree, at, "base-url names no host, or holds a space or '#'");
    // A key in a URL would end up in logs and in the audit.
    if (memchr(host, '@', strcspn(host, "/")))
        return yaml_tree_error(&r->tree, at,
                               "base-url may not hold a password; use key-env or key-file");
    size_t size = strlen(url);
    while (size > 0 && url[size - 1] == '/') size--;
    u->base_url = arena_copy(r->memory, url, size);
    return u->base_url ? status_ok() : policy_no_memory(r);
}

static status check_upstream(policy_reader *r, const yaml_node *n, upstream_policy *u,
                             const char *api) {
    for (upstream_api a = UPSTREAM_OPENAI_CHAT; a <= UPSTREAM_GEMINI; a++)
        if (strcmp(api, upstream_api_name(a)) == 0) u->api = a;
    if (u->key_env && u->key_file)
        return yaml_tree_key_error(&r->tree, n, "key-env and key-file are given; one is enough");
    if (u->first_content_ns > u->total_ns)
        return yaml_tree_key_error(&r->tree, n,
                                   "first-content-timeout is longer than total-timeout");
    return check_base_url(r, n, u);
}

static status read_upstream(policy_reader *r, const yaml_node *n, upstream_policy *u) {
    *u = default_upstream();
    u->name = n->key;
    const char *api = NULL;
    const yaml_node *breaker = NULL;
    int64_t context = 0, output = 0, concurrency = 0, requests = 0;
    const double ms = 1e6, day = 86400e9, many = 1e9;
    yaml_field fields[] = {
        POLICY_CHOICE("api", &api, "openai-chat|openai-responses|anthropic|gemini"),
        POLICY_FIELD("base-url", CONFIG_STRING, &u->base_url, 0, 0),
        POLICY_FIELD("model", CONFIG_STRING, &u->model, 0, 0),
        POLICY_FIELD("key-env", CONFIG_STRING, &u->key_env, 0, 0),
        POLICY_FIELD("key-file", CONFIG_STRING, &u->key_file, 0, 0),
        POLICY_FIELD("ca-file", CONFIG_STRING, &u->ca_file, 0, 0),
        POLICY_FIELD("plain-http", CONFIG_BOOL, &u->plain_http, 0, 0),
        POLICY_FIELD("price", CONFIG_STRING, &u->price, 0, 0),
        POLICY_FIELD("prefill", CONFIG_BOOL, &u->takes_prefill, 0, 0),
        POLICY_FIELD("tools", CONFIG_BOOL, &u->takes_tools, 0, 0),
        POLICY_FIELD("json", CONFIG_BOOL, &u->takes_json, 0, 0),
        POLICY_FIELD("sampling", CONFIG_BOOL, &u->takes_sampling, 0, 0),
        POLICY_FIELD("context", CONFIG_INT, &context, 0, many),
        POLICY_FIELD("max-output", CONFIG_INT, &output, 0, many),
        POLICY_FIELD("concurrency", CONFIG_INT, &concurrency, 0, 100000),
        POLICY_FIELD("requests-per-minute", CONFIG_INT, &requests, 0, many),
        POLICY_FIELD("tokens-per-minute", CONFIG_INT, &u->tokens_per_minute, 0, 1e12),
        POLICY_FIELD("connect-timeout", CONFIG_DURATION, &u->connect_ns, ms, day),
        POLICY_FIELD("first-content-timeout", CONFIG_DURATION, &u->first_content_ns, ms, day),
        POLICY_FIELD("between-chunks-timeout", CONFIG_DURATION, &u->between_chunks_ns, ms, day),
        POLICY_FIELD("total-timeout", CONFIG_DURATION, &u->total_ns, ms, day),
        POLICY_FIELD("min-rate", CONFIG_FLOAT, &u->min_rate, 0, 1e6),
        POLICY_FIELD("rate-window", CONFIG_DURATION, &u->rate_window_ns, 100 * ms, day),
        POLICY_FIELD("drain", CONFIG_DURATION, &u->drain_ns, 0, 600e9),
        POLICY_NODE("breaker", &breaker),
        POLICY_FIELD("retry-502", CONFIG_BOOL, &u->retry_502, 0, 0),
    };
    for (int i = 0; i < 3; i++) fields[i].required = true; // api, base-url, model
    TRY(policy_name(r, n, n->key, "an upstream's name"));
    TRY(yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields)));
    TRY(read_breaker(r, breaker, u));
    u->context = (int)context;
    u->max_output = (int)output;
    u->concurrency = (int)concurrency;
    u->requests_per_minute = (int)requests;
    return check_upstream(r, n, u, api);
}

status policy_read_upstreams(policy_reader *r, const yaml_node *n) {
    if (!n) return status_ok();
    upstream_policy *items;
    TRY(yaml_tree_expect(&r->tree, n, YAML_MAP, "upstreams"));
    TRY(policy_array(r, n, POLICY_UPSTREAMS_MAX, sizeof *items, &items));
    int count = 0;
    for (const yaml_node *u = n->first; u; u = u->next) {
        TRY(yaml_tree_expect(&r->tree, u, YAML_MAP, "an upstream"));
        if (strcmp(u->key, "local") == 0)
            return yaml_tree_key_error(&r->tree, u,
                                       "'local' means our own groups; give it another name");
        TRY(read_upstream(r, u, &items[count++]));
    }
    r->policy->upstreams.items = items;
    r->policy->upstreams.count = count;
    return status_ok();
}

status policy_read_upstream_rules(policy_reader *r, const yaml_node *n) {
    upstreams_policy *u = &r->policy->upstreams;
    int64_t attempts = 3;
    u->return_after_ns = 10 * CLOCK_SECOND;
    const yaml_field fields[] = {
        POLICY_FIELD("return-after", CONFIG_DURATION, &u->return_after_ns, 0, 86400e9),
        POLICY_FIELD("max-attempts", CONFIG_INT, &attempts, 1, POLICY_TARGETS_MAX),
    };
    TRY(yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields)));
    u->max_attempts = (int)attempts;
    return status_ok();
}

static status read_model(policy_reader *r, const yaml_node *n, routing_model *m) {
    const yaml_node *privacy = NULL;
    *m = (routing_model){.name = n->key, .privacy = PRIVACY_MAY_LEAVE};
    yaml_field fields[] = {
        POLICY_FIELD("model", CONFIG_STRING, &m->model, 0, 0),
        POLICY_NODE("privacy", &privacy),
    };
    fields[0].required = true;
    TRY(policy_name(r, n, n->key, "a model's name"));
    TRY(yaml_tree_expect(&r->tree, n, YAML_MAP, "a model"));
    TRY(yaml_tree_fields(&r->tree, n, fields, POLICY_COUNT(fields)));
    if (!*m->model) return yaml_tree_error(&r->tree, n, "model is empty");
    if (routing_find_upstream(r->policy, m->name) >= 0)
        return yaml_tree_key_error(&r->tree, n, "'%s' is an upstream's name already", m->name);
    return privacy ? policy_class(r, privacy, &m->privacy) : status_ok();
}

status policy_read_models(policy_reader *r, const yaml_node *n) {
    if (!n) return status_ok();
    routing_model *items;
    TRY(yaml_tree_expect(&r->tree, n, YAML_MAP, "models"));
    TRY(policy_array(r, n, ROUTING_MODELS_MAX, sizeof *items, &items));
    int count = 0;
    for (const yaml_node *m = n->first; m; m = m->next) TRY(read_model(r, m, &items[count++]));
    r->policy->models = items;
    r->policy->model_count = count;
    // One step only: in a chain of names nobody sees what holds. But a model that is listed by its
    // own name may have others.
    for (const yaml_node *m = n->first; m; m = m->next) {
        const char *meant = routing_find_model(r->policy, m->key)->model;
        const routing_model *next = routing_find_model(r->policy, meant);
        if (next && strcmp(next->name, next->model) != 0)
            return yaml_tree_error(&r->tree, m, "'%s' is itself a name of this section", meant);
    }
    return status_ok();
}
