// policy_file: the order of the sections and what they share. Sections are read in the order in
// which they need each other, whatever their order in the file.
#include "coordinator/route/policy_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/route/policy_parts.h"

enum { POLICY_MEMORY_MAX = 64 << 20 };

static const struct {
    const char *name;
    status (*read)(policy_reader *r, const yaml_node *n);
} sections[] = {
    {"upstreams", policy_read_upstreams},     {"upstream-rules", policy_read_upstream_rules},
    {"models", policy_read_models},           {"privacy", policy_read_privacy},
    {"complexity", policy_read_complexity},   {"routes", policy_read_routes},
    {"maintenance", policy_read_maintenance}, {"budgets", policy_read_budgets},
    {"local-cost", policy_read_local_cost},
};
// Other programs' sections, which they check themselves.
static const char *const others[] = {"coordinator", "worker"};

status policy_no_memory(const policy_reader *r) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "%s: no memory for the policy", r->tree.name);
}

status policy_array(policy_reader *r, const yaml_node *n, int most, size_t item, void *out) {
    if (n->count > most)
        return yaml_tree_error(&r->tree, n, "%d entries; at most %d are read", n->count, most);
    void *items = arena_alloc_array(r->memory, (size_t)n->count + 1, item);
    if (!items) return policy_no_memory(r);
    memcpy(out, &items, sizeof items);
    return status_ok();
}

status policy_name(policy_reader *r, const yaml_node *at, const char *name, const char *what) {
    size_t size = strlen(name);
    if (size == 0 || size > POLICY_NAME_MAX)
        return yaml_tree_error(&r->tree, at, "%s must have 1 to %d characters", what,
                               POLICY_NAME_MAX);
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 127 || *c == ',' || *c == '"')
            return yaml_tree_error(
                &r->tree, at, "%s may not hold spaces, commas, quotes or control characters", what);
    return status_ok();
}

status policy_names(policy_reader *r, const yaml_node *n, const char *what, routing_names *out) {
    const yaml_node *first = n;
    int count = 1;
    if (n->kind == YAML_LIST) {
        first = n->first;
        count = n->count;
        if (count == 0)
            return yaml_tree_error(&r->tree, n, "%s: an empty list matches nothing; leave it out",
                                   what);
    }
    if (count > ROUTING_NAMES_MAX)
        return yaml_tree_error(&r->tree, n, "%s: %d names; at most %d are read", what, count,
                               ROUTING_NAMES_MAX);
    const char **items = arena_alloc_array(r->memory, (size_t)count, sizeof *items);
    if (!items) return policy_no_memory(r);
    out->items = items;
    out->count = 0;
    for (; out->count < count; first = first->next) {
        TRY(yaml_tree_expect(&r->tree, first, YAML_TEXT, what));
        TRY(policy_name(r, first, first->text, what));
        for (int i = 0; i < out->count; i++)
            if (strcmp(items[i], first->text) == 0)
                return yaml_tree_error(&r->tree, first, "'%s' comes twice", first->text);
        items[out->count++] = first->text;
    }
    return status_ok();
}

status policy_class(policy_reader *r, const yaml_node *n, privacy_class *out) {
    TRY(yaml_tree_expect(&r->tree, n, YAML_TEXT, "a privacy class"));
    for (privacy_class c = PRIVACY_LOCAL_ONLY; c <= PRIVACY_MAY_LEAVE; c++) {
        if (strcmp(n->text, privacy_class_name(c)) != 0) continue;
        *out = c;
        return status_ok();
    }
    return yaml_tree_error(&r->tree, n, "'%.40s' is not one of %s", n->text, POLICY_CLASSES);
}

status policy_windows(policy_reader *r, const yaml_node *n, const window **out, int *count) {
    *count = 0;
    if (!n) return status_ok();
    bool list = n->kind == YAML_LIST;
    int most = list ? n->count : 1;
    if (most > ROUTING_NAMES_MAX)
        return yaml_tree_error(&r->tree, n, "%d windows; at most %d are read", most,
                               ROUTING_NAMES_MAX);
    window *windows = arena_alloc_array(r->memory, (size_t)most + 1, sizeof *windows);
    if (!windows) return policy_no_memory(r);
    for (const yaml_node *w = list ? n->first : n; *count < most; w = w->next) {
        TRY(yaml_tree_expect(&r->tree, w, YAML_TEXT, "a window"));
        status s = window_parse(w->text, &windows[*count]);
        if (!status_is_ok(&s)) return yaml_tree_error(&r->tree, w, "%s", s.message);
        (*count)++;
    }
    *out = windows;
    return status_ok();
}

int64_t policy_microdollars(double dollars) {
    return (int64_t)ceil(dollars * 1e6 - 1e-6);
}

static status check_sections(policy_reader *r) {
    const yaml_tree *t = &r->tree;
    if (!t->root) return status_ok();
    TRY(yaml_tree_expect(t, t->root, YAML_MAP, "the file"));
    for (const yaml_node *n = t->root->first; n; n = n->next) {
        bool known = false;
        for (int i = 0; i < POLICY_COUNT(sections); i++)
            if (strcmp(n->key, sections[i].name) == 0) known = r->policy->given = true;
        for (int i = 0; i < POLICY_COUNT(others); i++) known |= strcmp(n->key, others[i]) == 0;
        if (!known)
            return yaml_tree_key_error(t, n,
                                       "unknown section '%.64s'; there are coordinator, worker, "
                                       "models, upstreams, upstream-rules, privacy, complexity, "
                                       "routes, maintenance, budgets and local-cost",
                                       n->key);
    }
    return status_ok();
}

static status read_sections(policy_reader *r) {
    TRY(check_sections(r));
    for (int i = 0; i < POLICY_COUNT(sections); i++)
        TRY(sections[i].read(r, yaml_tree_find(r->tree.root, sections[i].name)));
    return status_ok();
}

// `bytes` NULL: the file of that name is read.
static status read_policy(const char *name, const char *bytes, size_t size, routing_policy **out) {
    arena *memory = arena_create(POLICY_MEMORY_MAX);
    policy_reader r = {.memory = memory, .tree = {.name = name}};
    r.policy = memory ? arena_alloc(memory, sizeof *r.policy) : NULL;
    r.detectors = r.policy ? detectors_create() : NULL;
    status s = r.detectors ? status_ok() : policy_no_memory(&r);
    if (status_is_ok(&s))
        s = bytes ? yaml_tree_parse(name, bytes, size, memory, &r.tree)
                  : yaml_tree_read(name, memory, &r.tree);
    if (status_is_ok(&s)) {
        r.policy->memory = memory;
        r.policy->detectors = r.detectors;
        r.policy->complexity = complexity_default_options();
        s = read_sections(&r);
    }
    if (status_is_ok(&s)) {
        *out = r.policy;
        return s;
    }
    detectors_destroy(r.detectors);
    arena_destroy(memory);
    return s;
}

status policy_file_read(const char *path, routing_policy **out) {
    return read_policy(path, NULL, 0, out);
}

status policy_file_parse(const char *name, const char *bytes, size_t size, routing_policy **out) {
    return read_policy(name, bytes ? bytes : "", size, out);
}
